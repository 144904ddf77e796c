"""Which server, with which key, and what to do when it does not answer."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hermes_ws.client import ConnectionRefused, Unreachable
from hermes_ws.errors import HermesError

__all__ = ["DEFAULT_URL", "KEY_FILE", "Server", "explained"]

DEFAULT_URL: Final = "http://127.0.0.1:8642"
KEY_FILE: Final = Path("hermes-ws-data/hermes-ws.key")
"""Where a server that was started in this directory keeps the key it made."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server's URL and a key for it."""

    url: str
    key: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str, key: str | None) -> Server:
        """Without a key, that of a server that keeps its data in this directory; it is shown to this machine only."""
        if key is None and _is_here(url) and KEY_FILE.is_file():
            key = KEY_FILE.read_text().strip() or None
        return cls(url, key)


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def explained(error: Exception, server: Server) -> str:
    """What went wrong, and what to do about it."""
    match error:
        case Unreachable():
            return (
                f"no server answers at {server.url} ({error}). Is it running? Start one with: make serve"
                "  (or say where it is with --url)"
            )
        case ConnectionRefused(code=401 | 4401):
            given = "does not take this key" if server.key else "wants a key"
            return (
                f"the server at {server.url} {given}. It prints its key when it starts; give it with --key KEY or in"
                f" HERMES_WS_KEY (./{KEY_FILE} is read if it is there)"
            )
        case ConnectionRefused():
            return f"the server at {server.url} refused: {error}"
        case HermesError() | ValueError():
            return str(error)
        case _:
            return f"{type(error).__name__}: {error}"
