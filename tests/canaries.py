"""Canary secrets, and where they have flown to: in whatever form, in whichever file.

The forms here are made without the package's help, so that what it does not think of is not forgotten here too.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus

__all__ = ["canary", "sightings", "sightings_in_files", "spellings"]


def canary() -> str:
    """A fresh secret that every encoding treats in its own way."""
    return f'{secrets.token_hex(4)}/+"kanarien\'vogel"+/{secrets.token_hex(4)}'


def spellings(secret: str) -> dict[str, bytes]:
    """The forms that are looked for, by name."""
    data = secret.encode()
    once = json.dumps(secret)[1:-1]
    found = {
        "plain": secret,
        "json": once,
        "json in json": json.dumps(once)[1:-1],
        "json in json in json": json.dumps(json.dumps(once)[1:-1])[1:-1],
        "repr": repr(secret)[1:-1],
        "hex": data.hex(),
        "HEX": data.hex().upper(),
        "url": quote(secret, safe=""),
        "path": quote(secret),
        "form": quote_plus(secret),
    }
    for offset in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            # Whole groups of three bytes: what stands before and after the secret does not change them.
            whole = data[-offset % 3 :]
            found[f"{name} at {offset}"] = encode(whole[: len(whole) // 3 * 3]).decode()
    return {name: text.encode() for name, text in found.items()}


def sightings(where: str, content: bytes | str, canaries: Iterable[str]) -> list[str]:
    """Which canaries, in which form, are in ``content``."""
    data = content.encode() if isinstance(content, str) else content
    return [
        f"{where}: {secret} as {name}"
        for secret in canaries
        for name, form in spellings(secret).items()
        if form in data
    ]


def sightings_in_files(directory: Path, canaries: Iterable[str], *, leaving: Iterable[str] = ()) -> list[str]:
    """The same for every file in a directory, and for its name; one that is called as in ``leaving`` is left out."""
    canaries, leaving = list(canaries), set(leaving)
    seen: list[str] = []
    for path in sorted(directory.rglob("*")):
        seen += sightings("a name", str(path.relative_to(directory)), canaries)
        if path.is_file() and path.name not in leaving:
            seen += sightings(str(path.relative_to(directory)), path.read_bytes(), canaries)
    return seen
