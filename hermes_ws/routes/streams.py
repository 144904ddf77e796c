"""Answers that take their time: streams of server-sent events, and work that somebody waits for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

import anyio
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["KEEPALIVE", "Cut", "EventStream", "unless_gone"]

T = TypeVar("T")

KEEPALIVE: Final = b": keepalive\n\n"
"""A comment: nothing to any client, a sign of life to whatever is in between."""
_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}

log = structlog.get_logger("hermes_ws.routes")


class Cut(Exception):
    """For the generator of a stream: what follows cannot be sent. The line is broken, so that what was sent does not
    look whole."""


class EventStream(Response):
    """Frames as they come. The generator is closed when it is done, the client goes, or takes nothing for too long."""

    def __init__(
        self, frames: AsyncGenerator[bytes], *, stall_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(headers={**_HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._frames = frames
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await self._frames.aclose()
            await send({"type": "http.response.body", "body": b""})
            return
        await _while_there(receive, lambda: self._pump(send))

    async def _pump(self, send: Send) -> None:
        try:
            async with aclosing(self._frames) as frames:
                async for frame in frames:
                    with anyio.move_on_after(self._stall_s) as patience:
                        await send({"type": "http.response.body", "body": frame, "more_body": True})
                    if patience.cancelled_caught:
                        log.info("stream.stalled")
                        return
        except Cut as cut:
            log.info("stream.cut", why=str(cut))
            return
        await send({"type": "http.response.body", "body": b""})


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` comes to; it is cancelled when the client goes. Raises ``ClientDisconnect`` then."""
    results: list[T] = []

    async def do() -> None:
        results.append(await work)

    await _while_there(request.receive, do)
    if not results:
        raise ClientDisconnect
    return results[0]


async def _while_there(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` until it is done, or the client goes."""

    async def watch(scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope)
            await work()
            group.cancel_scope.cancel()
    except BaseExceptionGroup as failed:  # the watcher raises nothing: this is the work's own
        raise failed.exceptions[0] from None
