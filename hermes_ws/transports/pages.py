"""What browsers load: the JavaScript client, and an example page that uses it. No key is needed to read them.

Both are files of ``examples/js-client``, and part of the installed package.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hermes_ws.errors import CommandError

__all__ = ["EXAMPLE", "LIBRARY", "content_security_policy", "find", "routes"]

LIBRARY: Final = "hermes-ws.js"
EXAMPLE: Final = "index.html"

_PACKAGE: Final = Path(__file__).parents[1]
_PLACES: Final = (_PACKAGE / "web" / "js-client", _PACKAGE.parent / "examples" / "js-client")
"""Where they are in an installed package, and in a checkout."""
_INLINE: Final = re.compile(rb"<(script|style)[^>]*>(.*?)</\1>", re.DOTALL)


def routes() -> list[Route]:
    """``/hermes-ws.js`` and ``/example``."""
    return [Route(f"/{LIBRARY}", _library), Route("/example", _example)]


def find(name: str) -> Path:
    """Where one of the files is. Raises :class:`CommandError` ``not_found`` if it is in neither place."""
    found = [file for place in _PLACES if (file := place / name).is_file()]
    if not found:
        message = f"this installation of hermes-ws is without its {name}; install the package anew"
        raise CommandError("not_found", message)
    return found[0]


@cache
def _file(name: str) -> tuple[bytes, Mapping[str, str]]:
    """What a file contains, and what is said of it. Read once: it does not change while we run."""
    body = find(name).read_bytes()
    headers = {"etag": f'"{hashlib.sha256(body).hexdigest()}"', "cache-control": "no-cache"}
    if name == EXAMPLE:
        kind = {"content-type": "text/html; charset=utf-8", "content-security-policy": content_security_policy(body)}
    else:
        kind = {"content-type": "text/javascript; charset=utf-8"}
    return body, headers | kind


async def _library(request: Request) -> Response:
    return _answer(request, LIBRARY)


async def _example(request: Request) -> Response:
    return _answer(request, EXAMPLE)


def _answer(request: Request, name: str) -> Response:
    """The file, or that the one that is there already is it."""
    body, headers = _file(name)
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers)


def content_security_policy(page: bytes) -> str:
    """What the page may do: run its own script and what that imports from here, wear its own style, talk to us."""
    inline = [(kind.decode(), _hash(text)) for kind, text in _INLINE.findall(page)]
    allowed = {kind: " ".join(digest for tag, digest in inline if tag == kind) for kind in ("script", "style")}
    return (
        f"default-src 'none'; script-src 'self' {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: bytes) -> str:
    """Of what a browser makes of it: to HTML every line ends with a line feed, whatever a checkout has made of it."""
    text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
