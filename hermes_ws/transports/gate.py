"""What every HTTP request passes: Host and Origin on the way in, headers for browsers on the way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hermes_ws.transports.auth import Access, Refused

__all__ = ["SECURITY_HEADERS", "Gate"]

SECURITY_HEADERS: Final = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
"""On every answer: no guessing at types, and no address (it may hold a ticket) for the next site."""
_NO_STORE: Final = (b"cache-control", b"no-store")
_OPEN: Final = "/health"


class Gate:
    """Host and Origin before everything but ``/health``; CORS answers for the origins that are let in."""

    def __init__(self, app: ASGIApp, access: Access, on_refused: Callable[[Refused], Response]) -> None:
        self._app = app
        self._access = access
        self._on_refused = on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        no_store = scope["path"].startswith("/api/")
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        try:
            self._access.check_address(scope)
        except Refused as refused:
            app = self._app if scope["path"] == _OPEN else self._on_refused(refused)
            await app(scope, receive, _with_headers(send, _headers(None), no_store=no_store))
            return
        preflight = origin is not None and scope["method"] == "OPTIONS"
        app = Response(status_code=204, headers=_PREFLIGHT) if preflight else self._app
        await app(scope, receive, _with_headers(send, _headers(origin), no_store=no_store))


_PREFLIGHT: Final = {
    "access-control-allow-methods": "GET, POST, PATCH, DELETE",
    "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
    "access-control-max-age": "600",
}


def _headers(origin: bytes | None) -> list[tuple[bytes, bytes]]:
    headers = [*SECURITY_HEADERS, (b"vary", b"Origin")]
    if origin is not None:
        headers.append((b"access-control-allow-origin", origin))
    return headers


def _with_headers(
    send: Send, headers: list[tuple[bytes, bytes]], *, no_store: bool
) -> Callable[[Any], Awaitable[None]]:
    """``no_store``: nobody keeps an answer that does not say that it may be kept."""

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", []))
            kept = not no_store or any(name == _NO_STORE[0] for name, _ in own)
            message["headers"] = [*own, *headers] if kept else [*own, *headers, _NO_STORE]
        await send(message)

    return send_with_headers
