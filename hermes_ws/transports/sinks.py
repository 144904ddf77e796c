"""Where a reader's frames go: the connection itself, or ``websocket.send`` when the server is not ours; and how they
look to a person at a terminal."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import structlog

from hermes_ws.runtime.outlet import Sink
from hermes_ws.runtime.readers import ReaderSettings
from hermes_ws.runtime.tail import payload_of, text_frame
from hermes_ws.transports.frames import EXTENSION, FrameConnection
from hermes_ws.transports.plain import plain_lines

__all__ = ["AsgiSink", "PlainSink", "SocketSink", "sink_of"]

log = structlog.get_logger("hermes_ws.sinks")


class _Stalled(Exception):
    """The client takes nothing any more."""


class SocketSink(Sink, Protocol):
    """A sink on a socket: beside sending, its reader of commands can wait for it."""

    async def wait_writable(self) -> None: ...


class AsgiSink:
    """Frames by ``websocket.send``: one message each, sent by a task, because any other server makes us wait."""

    def __init__(self, send: Callable[[Any], Any], *, buffer_bytes: int, stall_s: float) -> None:
        """A ``send`` that takes longer than ``stall_s`` is the end of the socket."""
        self._send = send
        self._buffer_bytes = buffer_bytes
        self._stall_s = stall_s
        self._queue: deque[dict[str, Any]] = deque()
        self._waiting = 0
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._gone = False
        self.on_writable: Callable[[], None] | None = None

    @property
    def writable(self) -> bool:
        return self._drained.is_set() and not self._gone

    def send(self, frames: Sequence[bytes], joined: bytes) -> None:
        if self._gone:
            return
        for frame in frames:
            self._queue.append({"type": "websocket.send", "text": payload_of(frame).decode()})
        self._waiting += len(joined)
        self._more.set()
        if self._waiting > self._buffer_bytes:
            self._drained.clear()

    def close(self, code: int, reason: str) -> None:
        self._queue.append({"type": "websocket.close", "code": code, "reason": reason})
        self._more.set()

    async def wait_writable(self) -> None:
        """Wait until more may be sent, or nothing can be any more."""
        await self._drained.wait()

    @asynccontextmanager
    async def sending(self) -> AsyncGenerator[None]:
        """Send what is queued, by a task of its own, while this is entered. It is left when the client stalls."""
        until = asyncio.timeout(None)
        try:
            async with until:
                task = asyncio.create_task(self._run(until))
                try:
                    yield
                finally:
                    task.cancel()
                    await asyncio.wait([task])
        except TimeoutError:
            if not until.expired():
                raise

    async def _run(self, until: asyncio.Timeout) -> None:
        try:
            await self._send_all()
        except _Stalled:
            log.info("socket.stalled")
            until.reschedule(asyncio.get_running_loop().time())
        except OSError:  # the client is gone (ASGI, websocket.send)
            pass
        except Exception:
            log.exception("socket.send_failed")
        finally:
            self._gone = True
            self._queue.clear()
            self._drained.set()

    async def _send_all(self) -> None:
        """Until closed."""
        while True:
            await self._more.wait()
            while self._queue:
                message = self._queue.popleft()
                await self._sent(message)
                if message["type"] == "websocket.close":
                    return
                self._waiting -= len(message["text"])
            self._more.clear()
            self._waiting = 0
            self._drained.set()
            if self.on_writable is not None:
                self.on_writable()

    async def _sent(self, message: dict[str, Any]) -> None:
        limit = asyncio.timeout(self._stall_s)
        try:
            async with limit:
                await self._send(message)
        except TimeoutError:
            if limit.expired():
                raise _Stalled from None
            raise


@asynccontextmanager
async def sink_of(
    scope: Mapping[str, Any], send: Callable[[Any], Any], settings: ReaderSettings
) -> AsyncGenerator[SocketSink]:
    """The sink of an accepted socket, while this is entered."""
    connection = scope.get("extensions", {}).get(EXTENSION)
    if isinstance(connection, FrameConnection):
        try:
            yield connection
        finally:
            connection.on_writable = None
        return
    sink = AsgiSink(send, buffer_bytes=settings.write_buffer_bytes, stall_s=settings.stall_s)
    async with sink.sending():
        yield sink


class PlainSink:
    """Frames as short readable lines."""

    def __init__(self, inner: SocketSink, view: Callable[[bytes], Iterable[str]] = plain_lines) -> None:
        """``view`` says which lines a frame is shown as."""
        self._inner = inner
        self._view = view
        self.on_writable: Callable[[], None] | None = None
        inner.on_writable = self._resumed

    def _resumed(self) -> None:
        if self.on_writable is not None:
            self.on_writable()

    @property
    def writable(self) -> bool:
        return self._inner.writable

    def send(self, frames: Sequence[bytes], joined: bytes) -> None:
        lines = [line for frame in frames for line in self._view(payload_of(frame))]
        out = [text_frame(line.encode()) for line in lines]
        if out:
            self._inner.send(out, b"".join(out))

    def say(self, text: str) -> None:
        """A text of our own, to the person."""
        frame = text_frame(text.encode())
        self._inner.send([frame], frame)

    def close(self, code: int, reason: str) -> None:
        self._inner.close(code, reason)

    async def wait_writable(self) -> None:
        await self._inner.wait_writable()
