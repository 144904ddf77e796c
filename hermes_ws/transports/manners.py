"""What HTTP expects of every answer, whoever gives it: an id, headers that keep browsers safe, what pages may see.

Pure but for :class:`Patience`. The :class:`~hermes_ws.transports.gate.Gate` puts them on; what is answered beside it
(a line that is refused before there is a request, a socket's upgrade) takes from here what it needs.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Final

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Message, Receive, Scope

from hermes_ws.transports.auth import Refused

__all__ = [
    "REQUEST_ID",
    "SECURITY_HEADERS",
    "Patience",
    "cors_headers",
    "fresh_request_id",
    "has_body",
    "header",
    "is_preflight",
    "methods_at",
    "preflight_headers",
    "request_id",
]

Headers = list[tuple[bytes, bytes]]

SECURITY_HEADERS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
"""On every answer: no guessing at types, no address (it may hold a ticket) for the next site, in nobody's frame, and
whatever somebody got stored here is no page that runs."""
REQUEST_ID: Final = "hermes_ws.request_id"
"""Key in the scope: the id of this request, in its answer and in the log lines that are written meanwhile."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HEADER_NAME: Final = re.compile(rb"[A-Za-z0-9_-]{1,128}")
_METHODS: Final = b"GET, POST, PATCH, DELETE"
_USUAL_HEADERS: Final = b"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id"
"""For a preflight that does not say what it wants to send."""
_SEEN: Final = (b"X-Request-Id", b"Retry-After", b"Idempotency-Replayed", b"ETag", b"Location", b"Allow")
"""What a page of another origin may read of every answer, beside whatever begins with ``X-``."""
_CORS_VARY: Final = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


# -- requests --------------------------------------------------------------------------------------------


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a header; None if there is none."""
    return next((value for key, value in scope["headers"] if key.lower() == name), None)


def fresh_request_id() -> str:
    """An id for a request that brought none."""
    return f"req_{secrets.token_hex(10)}"


def request_id(scope: MutableMapping[str, Any]) -> str:
    """The request's id: the client's if it is 1 to 128 of ``A-Za-z0-9._:-``, else a fresh one. Kept in the scope."""
    if REQUEST_ID not in scope:
        given = header(scope, b"x-request-id")
        theirs = given is not None and _REQUEST_ID.fullmatch(given)
        scope[REQUEST_ID] = given.decode() if given is not None and theirs else fresh_request_id()
    return str(scope[REQUEST_ID])


def has_body(scope: Scope) -> bool:
    """Whether the request says that a body follows its head."""
    return header(scope, b"transfer-encoding") is not None or (header(scope, b"content-length") or b"0") != b"0"


def methods_at(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """The methods that some route takes at the scope's path, whichever the request's own is; empty if there is none."""
    there = (route for route in routes if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE)
    return sorted({method for route in there for method in route.methods or ()})


class Patience:
    """``receive`` of a request whose body may keep us waiting for so long in all, however it trickles.

    Only the time that the client takes counts, not what its reader here does between two pieces.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = self._left = seconds
        self._over = False

    async def __call__(self) -> Message:
        """The next message. Raises :class:`Refused` 408 when the body has had its time."""
        if self._over:
            return await self._receive()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._left):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, f"the body did not come within {self._seconds:g} s (limits.body_s)") from None
        self._left -= loop.time() - began
        self._over = message["type"] != "http.request" or not message.get("more_body", False)
        return message


# -- pages of other origins ------------------------------------------------------------------------------


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks what a page may send, before it sends it."""
    asked = header(scope, b"access-control-request-method")
    return scope["method"] == "OPTIONS" and header(scope, b"origin") is not None and asked is not None


def preflight_headers(scope: Scope, max_age_s: int) -> Headers:
    """What a page that is let in may send: every header it asks for, if that is a plain name."""
    asked = [name.strip() for name in (header(scope, b"access-control-request-headers") or b"").split(b",")]
    names = b", ".join(name for name in asked if _HEADER_NAME.fullmatch(name))
    headers = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", names or _USUAL_HEADERS),
        (b"access-control-max-age", str(max_age_s).encode()),
        (b"vary", _CORS_VARY),
    ]
    if header(scope, b"access-control-request-private-network") == b"true":
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers


def cors_headers(origin: bytes, own: Sequence[tuple[bytes, bytes]]) -> Headers:
    """What a page that is let in may read of an answer that has ``own`` headers."""
    ours = (name for name, _ in own if name.lower().startswith(b"x-"))
    seen = {name.lower(): name for name in (*ours, *_SEEN)}
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b", ".join(seen.values())),
    ]
