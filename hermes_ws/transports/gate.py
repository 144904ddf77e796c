"""What every HTTP request passes: Host and Origin on the way in, headers for browsers and proxies on the way out.

The gate stands outside of everything that can fail, so an error has the same manners as an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hermes_ws.observe import lines_of_request
from hermes_ws.settings import Settings
from hermes_ws.transports.auth import Access, Refused
from hermes_ws.transports.manners import (
    SECURITY_HEADERS,
    Patience,
    cors_headers,
    has_body,
    header,
    is_preflight,
    methods_at,
    preflight_headers,
    request_id,
)

__all__ = ["Gate"]

log = structlog.get_logger("hermes_ws.gate")

_OPEN: Final = frozenset({"/health", "/v1/health"})
"""Where probes ask, under whatever name they know us."""
_PRIVATE: Final = ("/api/", "/v1/")
"""Answers under these are somebody's own: nobody keeps one that does not say that it may be kept."""
_ENCODINGS: Final = frozenset({b"", b"identity"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """Host and Origin before everything but ``/health``; CORS for the origins that are let in; manners for all.

    ``refuse`` makes the answer to a request that is not let in.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        refuse: Callable[[Scope, Refused], ASGIApp],
        *,
        routes: Sequence[BaseRoute],
        settings: Settings,
    ) -> None:
        self._app = app
        self._access = access
        self._refuse = refuse
        self._routes = routes
        self._max_age_s = settings.server.cors_max_age_s
        self._body_s = settings.limits.body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(scope, send)
        with lines_of_request(answer.request_id):
            app = self._judged(scope, answer)
            if has_body(scope):
                receive = Patience(receive, self._body_s)
            try:
                await app(scope, receive, answer.send)
            except ClientDisconnect:
                log.debug("request.left", path=scope["path"][:200])
            except Exception:
                log.exception("request.failed", method=scope["method"], path=scope["path"][:200])
                if not answer.started:
                    raise

    def _judged(self, scope: Scope, answer: _Answer) -> ASGIApp:
        """Who answers this request: the app, or who refuses it."""
        try:
            self._access.check_address(scope)
        except Refused as refused:
            is_open = scope["path"] in _OPEN and not is_preflight(scope)
            return self._app if is_open else self._refuse(scope, refused)
        answer.origin = header(scope, b"origin")
        encoding = (header(scope, b"content-encoding") or b"").strip().lower()
        if encoding not in _ENCODINGS and scope["method"] not in _SAFE:
            return self._refuse(scope, Refused(415, "a body comes as it is here, without a Content-Encoding"))
        return self._options(scope) if scope["method"] == "OPTIONS" else self._app

    def _options(self, scope: Scope) -> ASGIApp:
        if is_preflight(scope):
            response = Response(status_code=204)
            response.raw_headers.extend(preflight_headers(scope, self._max_age_s))
            return response
        methods = methods_at(self._routes, scope)
        return Response(status_code=204, headers={"allow": ", ".join([*methods, "OPTIONS"])}) if methods else self._app


class _Answer:
    """One answer on its way out."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._private = str(scope["path"]).startswith(_PRIVATE)
        self.request_id = request_id(scope)
        self.origin: bytes | None = None
        """Of the page that is let in."""
        self.started = False

    async def send(self, message: Message) -> None:
        """Send a part of it: its head with what else belongs there."""
        if message["type"] == "http.response.start":
            self.started = True
            own = list(message.get("headers", []))
            message = {**message, "headers": [*own, *self._headers(message["status"], own)]}
        await self._send(message)

    def _headers(self, status: int, own: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        there = {name.lower() for name, _ in own}
        headers = [*SECURITY_HEADERS, (b"x-request-id", self.request_id.encode())]
        if self._private:
            headers.append((b"cache-control", b"no-store"))
        if status in (429, 503):
            headers.append((b"retry-after", b"1"))
        headers = [(name, value) for name, value in headers if name not in there]
        if not any(name.lower() == b"vary" and b"origin" in value.lower() for name, value in own):
            headers.append((b"vary", b"Origin"))
        return headers if self.origin is None else [*headers, *cors_headers(self.origin, own)]
