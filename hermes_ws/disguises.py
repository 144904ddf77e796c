"""The forms in which a secret may turn up in text: as it is, escaped, quoted, encoded. No I/O.

What is not here is not found: a secret in pieces, backwards, compressed, encrypted. Who means to carry one out can;
this is against accidents, such as a tool that prints the request it made.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

__all__ = ["SHORTEST", "disguises"]

SHORTEST: Final = 8
"""A secret of fewer characters is left alone: it would be found in words that have nothing to do with it."""
_DEPTH: Final = 3
"""How often JSON is put into JSON: a tool prints some (1), which is an argument of a call (2), in an event (3)."""
_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9_-]{0,31}) +(?P<rest>\S+)")
"""``Bearer X``, ``Basic X``, ``token X`` (RFC 9110, 11.4)."""
_JAVASCRIPT: Final = ("!'()*", "!'()*;,/?:@&=+$#")
"""What ``encodeURIComponent`` and ``encodeURI`` leave as it is, beside what every quoting does."""
_PERCENT: Final = re.compile(r"%[0-9A-F]{2}")


def disguises(secret: str) -> set[str]:
    """Every form of a secret, and of what it is made of. Empty if it is too short."""
    forms: set[str] = set()
    for piece in _pieces(secret):
        forms |= _escaped(piece)
        forms |= _quoted(piece)
        forms |= _encoded(piece)
    return {form for form in forms if len(form) >= SHORTEST}


def _pieces(secret: str) -> Iterator[str]:
    """The secret without its scheme; and what Basic credentials say, or the password alone (RFC 7617). A piece that is
    long enough stands for the whole: wherever the whole is, in whatever form, it is too."""
    found = _SCHEME.fullmatch(secret)
    rest = found["rest"] if found else secret
    yield rest if len(rest) >= SHORTEST else secret
    if found and found["scheme"].lower() == "basic":
        decoded = _decoded(rest)
        password = decoded.partition(":")[2]
        yield password if len(password) >= SHORTEST else decoded


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _escaped(text: str) -> set[str]:
    """As a JSON string has it, inside of another one, and as Python shows a string."""
    forms = level = {text, repr(text)[1:-1]}
    for _ in range(_DEPTH):
        level = {form for inner in level for form in (_json(inner), _json(inner, ascii_only=True))}
        level |= {form.replace("/", "\\/") for form in level}
        forms = forms | level
    return forms


def _json(text: str, *, ascii_only: bool = False) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _quoted(text: str) -> set[str]:
    """As URLs and forms have it."""
    data = text.encode(errors="surrogatepass")
    forms = {quote(data), quote(data, safe=""), quote_plus(data), *(quote(data, safe=safe) for safe in _JAVASCRIPT)}
    return forms | {_PERCENT.sub(lambda found: found[0].lower(), form) for form in forms}


def _encoded(text: str) -> set[str]:
    """Base64 (RFC 4648), wherever in the encoded text it begins, and hexadecimal."""
    data = text.encode(errors="surrogatepass")
    alphabets: Iterable[Callable[[bytes], bytes]] = (base64.b64encode, base64.urlsafe_b64encode)
    inside = {_inside(data, offset, encode) for offset in range(3) for encode in alphabets}
    return inside | {data.hex(), data.hex().upper()}


def _inside(data: bytes, offset: int, encode: Callable[[bytes], bytes]) -> str:
    """The characters that tell of ``data`` alone, where it begins ``offset`` bytes after a multiple of three."""
    text = encode(b"\0" * offset + data).decode().rstrip("=")
    begin = (0, 2, 3)[offset]
    end = len(text) - ((offset + len(data)) % 3 != 0)
    return text[begin:end]
