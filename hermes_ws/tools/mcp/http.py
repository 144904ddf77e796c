"""HTTP to MCP servers: the guarded client, with an eye on what comes back.

The SDK takes a client of ours. It reads whole JSON bodies, however large, hides the status of an answer it cannot use,
and would wait for ever for the answer to a message that gets none. So bodies are bounded here, compressed ones refused
(they would be bounded too late), statuses noted, and what needs no answer is given little time. A request to any other
origin than the server's is not sent: it would carry the server's headers.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final, cast

import anyio
import httpx2
import msgspec

from hermes_ws.errors import HermesError
from hermes_ws.tools.addresses import AllowList
from hermes_ws.tools.guarded import AddressRefused, guarded_client
from hermes_ws.tools.mcp.pace import Pace
from hermes_ws.tools.mcp.settings import McpSettings
from hermes_ws.tools.mcp.sift import too_many_values
from hermes_ws.tools.mcp.target import Target

__all__ = ["FORGOTTEN", "OURS", "UNAUTHORIZED", "Watch", "http_client"]

_CONNECT_S: Final = 10.0
_WRITE_S: Final = 30.0
_NOTICE_S: Final = 10.0
"""For the answer to a message that is not a request: the SDK sends nothing else meanwhile."""
_LOOK_S: Final = 0.5
"""How often it is looked whether anybody still waits for an answer."""
_AGAIN_S: Final = 1.0
"""The least time between two streams that are opened to listen: a server may ask for none at all."""


_EVENT_END: Final = re.compile(rb"\n\r?\n|\r\r")
_END_LENGTH: Final = 3
_PIECE: Final = 4_096
"""A smaller piece of an answer counts as a message: somebody sends it byte by byte."""
_JSON: Final = "application/json"

UNAUTHORIZED: Final = -32_401
FORGOTTEN: Final = -32_404
REFUSED: Final = -32_400
"""Codes of errors that are made of statuses: the credentials, the session, anything else."""
OURS: Final = secrets.token_hex(16)
"""What those carry as data: a server that uses the same codes does not know it."""


class Watch:
    """What the server's answers have said beside their content. ``busy``: whether anybody waits for one. ``broken`` is
    told why no answer will come, where the SDK would go on waiting."""

    def __init__(self, busy: Callable[[], bool], broken: Callable[[str], None]) -> None:
        self.busy = busy
        self.broken = broken
        self.unauthorized = False
        """It has refused the credentials (401)."""
        self.session = False
        """It keeps a session for us."""
        self.reason: str | None = None
        """Why we broke an answer off: the SDK would not say."""

    def note(self, response: httpx2.Response) -> None:
        """An answer has come."""
        self.unauthorized = self.unauthorized or response.status_code == 401
        self.session = self.session or "mcp-session-id" in response.headers


def http_client(target: Target, watch: Watch, settings: McpSettings) -> httpx2.AsyncClient:
    """A client for this server and no other. Its requests raise :class:`~hermes_ws.tools.guarded.AddressRefused` or
    ``httpx2.HTTPError``."""
    origin = httpx2.URL(target.url)
    return guarded_client(
        AllowList(target.allow, setting="mcp.allow"),
        httpx2.Timeout(_WRITE_S, connect=_CONNECT_S, read=None),
        headers={**target.headers, "Accept-Encoding": "identity"},
        around=lambda inner: _Watched(
            inner, origin, watch, settings, settings.start_timeout_s, answers_apart=target.transport == "sse"
        ),
    )


class _Message(msgspec.Struct):
    """A JSON-RPC message, as far as it says whether it wants an answer."""

    id: Any = None
    method: str | None = None
    params: dict[str, Any] | None = None


class _Code(msgspec.Struct):
    code: int | None = None


class _Error(msgspec.Struct):
    """A JSON-RPC error, as far as it tells one."""

    error: _Code


class _Watched(httpx2.AsyncBaseTransport):
    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        origin: httpx2.URL,
        watch: Watch,
        settings: McpSettings,
        patience_s: float,
        *,
        answers_apart: bool,
    ) -> None:
        """``answers_apart``: answers come on the stream that is listened to, not to the requests (SSE)."""
        self._inner = inner
        self._origin = origin
        self._watch = watch
        self._settings = settings
        self._patience_s = patience_s
        self._answers_apart = answers_apart
        self._pace = Pace(settings.messages_per_s)
        self._listen_at = 0.0
        self._bodies: dict[str, _Bounded] = {}
        """Answers to requests that are being read, by the requests' ids."""
        self._awaited: dict[str, anyio.Event] = {}
        """Requests that have no answer yet, and whether they were given up."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not _same_origin(self._origin, request.url):
            raise AddressRefused("the server sent us on to another origin, which does not get its headers")
        message = _read(request)
        if request.method == "GET":
            await self._listen(request)
        elif message.id is None or message.method is None:
            request.extensions = {**request.extensions, "timeout": _short(request)}
        response = await self._answered(request, message)
        self._watch.note(response)
        if response.status_code >= 400 and self._answers_apart and request.method == "POST":
            self._watch.broken(f"it answered with HTTP {response.status_code}")
        elif response.status_code >= 400 and message.id is not None and message.method is not None:
            return await self._refusal(request, message, response)
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            await response.aclose()
            raise httpx2.RemoteProtocolError("the response is compressed, which was not asked for")
        streamed = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        ends = _EVENT_END if streamed else None
        body = cast("httpx2.AsyncByteStream", response.stream)
        bounded = _Bounded(body, self._settings, ends, self._watch, self._pace)
        response.stream = bounded
        self._keep(message, bounded)
        return response

    async def _refusal(self, request: httpx2.Request, message: _Message, response: httpx2.Response) -> httpx2.Response:
        """The answer to a request that was refused by its status, as the protocol would say it: the SDK hands it to
        whom it is for. What the server says in the protocol's own words stays, but for the two statuses that mean
        something to us."""
        status = response.status_code
        body = _Bounded(cast("httpx2.AsyncByteStream", response.stream), self._settings, None, self._watch, self._pace)
        said = b"".join([chunk async for chunk in body]) if _is_json(response) else b""
        await response.aclose()
        code = REFUSED
        if status == 401:
            code = UNAUTHORIZED
        elif status == 404 and "mcp-session-id" in request.headers:
            code = FORGOTTEN
        elif _is_error(said):
            return httpx2.Response(status, headers={"content-type": _JSON}, content=said, request=request)
        return _error(request, message, code, f"it answered with HTTP {status}")

    async def _listen(self, request: httpx2.Request) -> None:
        """The SDK opens a stream of its own to listen; again and again, if the server closes it, and also for an answer
        that nobody waits for any more."""
        if "last-event-id" in request.headers and not self._watch.busy():
            raise httpx2.RemoteProtocolError("nobody waits for what this stream would bring")
        await anyio.sleep_until(self._listen_at)
        self._listen_at = anyio.current_time() + _AGAIN_S

    async def _answered(self, request: httpx2.Request, message: _Message) -> httpx2.Response:
        """The answer, once its head is there. It may come with the result, after people were asked; but a server may
        also send one preliminary answer after the other, to nobody."""
        given_up = self._awaited[repr(message.id)] = anyio.Event()
        outcome: list[httpx2.Response | Exception] = []
        async with anyio.create_task_group() as group:
            group.start_soon(self._lose_patience, given_up, group.cancel_scope)
            try:
                outcome.append(await self._inner.handle_async_request(request))
            except (httpx2.HTTPError, HermesError) as error:
                outcome.append(error)
            group.cancel_scope.cancel()
        self._awaited.pop(repr(message.id), None)
        answer = outcome[0] if outcome else httpx2.ReadTimeout("no answer came in time")
        if given_up.is_set() and not isinstance(answer, httpx2.Response):
            return _error(request, message, REFUSED, "it was given up")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _lose_patience(self, given_up: anyio.Event, scope: anyio.CancelScope) -> None:
        """Break off what nobody waits for."""
        since = anyio.current_time()
        while not given_up.is_set():
            with anyio.move_on_after(_LOOK_S):
                await given_up.wait()
            if not self._watch.busy() and anyio.current_time() - since > self._patience_s:
                break
        scope.cancel()

    def _keep(self, message: _Message, body: _Bounded) -> None:
        """Whose answer it is. The SDK tells the server when a request was given up, but reads its answer on."""
        for name in [name for name, other in self._bodies.items() if other.over]:
            del self._bodies[name]
        if message.method == "notifications/cancelled":
            request_id = repr((message.params or {}).get("requestId"))
            given_up = self._bodies.pop(request_id, None)
            if given_up is not None:
                given_up.over = True
            elif request_id in self._awaited:
                self._awaited[request_id].set()
        elif message.id is not None and message.method is not None:
            self._bodies[repr(message.id)] = body

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A body, or the events of a stream, each passed on when it is whole: one that is too large ends in an error."""

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        settings: McpSettings,
        ends: re.Pattern[bytes] | None,
        watch: Watch,
        pace: Pace,
    ) -> None:
        self._stream = stream
        self._settings = settings
        self._ends = ends
        self._watch = watch
        self._pace = pace
        self.over = False
        """It has been read, or nobody wants the rest."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held = bytearray()
        async with aclosing(cast("AsyncGenerator[bytes]", self._stream.__aiter__())) as chunks:
            async for chunk in chunks:
                if self.over:
                    return
                searched = max(0, len(held) - _END_LENGTH)
                held += chunk
                if len(held) > self._settings.message_bytes:
                    raise self._broken("the response is larger than mcp.message_bytes")
                ends = [end.end() for end in self._ends.finditer(held, searched)] if self._ends else []
                if ends:
                    yield self._passed(bytes(held[: ends[-1]]))
                    del held[: ends[-1]]
                await self._pace.keep(len(ends) + (len(chunk) < _PIECE))
        yield self._passed(bytes(held))

    def _passed(self, message: bytes) -> bytes:
        lines = message.count(b"\n") if self._ends is not None else 0
        if lines > self._settings.message_values or too_many_values(message, self._settings.message_values):
            raise self._broken("the response has more in it than mcp.message_values")
        return message

    def _broken(self, reason: str) -> httpx2.RemoteProtocolError:
        self._watch.reason = reason
        return httpx2.RemoteProtocolError(reason)

    async def aclose(self) -> None:
        self.over = True
        await self._stream.aclose()


def _read(request: httpx2.Request) -> _Message:
    try:
        return msgspec.json.decode(request.content, type=_Message)
    except (msgspec.MsgspecError, RecursionError, httpx2.RequestNotRead):
        return _Message()


def _error(request: httpx2.Request, message: _Message, code: int, text: str) -> httpx2.Response:
    """An answer of ours in the server's place."""
    error = {"code": code, "message": text, "data": OURS}
    content = msgspec.json.encode({"jsonrpc": "2.0", "id": message.id, "error": error})
    return httpx2.Response(200, headers={"content-type": _JSON}, content=content, request=request)


def _is_json(response: httpx2.Response) -> bool:
    return bool(response.headers.get("content-type", "").lower().startswith(_JSON))


def _is_error(body: bytes) -> bool:
    """Whether it is an error in the protocol's own words."""
    try:
        return msgspec.json.decode(body, type=_Error).error.code is not None
    except (msgspec.MsgspecError, RecursionError):
        return False


def _short(request: httpx2.Request) -> dict[str, Any]:
    return {**request.extensions.get("timeout", {}), "read": _NOTICE_S}


def _same_origin(one: httpx2.URL, other: httpx2.URL) -> bool:
    if (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port):
        return True
    upgraded = one.scheme == "http" and other.scheme == "https" and one.port is None and other.port is None
    return upgraded and one.host == other.host
