"""Readers: cursors over a conversation's log.

A reader is not a queue. It has a cursor, and when it is woken (something was committed, or its sink can take more) it
writes what lies between the cursor and the head: out of the shared tail if the cursor is in there, else page by page
from the store. A sink that cannot take more is left alone until it can, at no cost to anybody; the reader falls behind
and later catches up from wherever it was.

A reader has no task of its own while it follows the tail: it is woken by a plain call and writes at once. Only
catching up from the store needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec
import structlog

from hermes_ws.errors import StoreError
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.control import Heartbeat, Live
from hermes_ws.ranges import AtLeastOne, Seconds
from hermes_ws.runtime.outlet import Outlet, Sink
from hermes_ws.runtime.tail import Chunk, Tail, page_chunk, text_frame, told
from hermes_ws.store.base import ConversationRef, Store

__all__ = ["Reader", "ReaderSettings", "Source"]

log = structlog.get_logger("hermes_ws.readers")


class ReaderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[readers]`` of the configuration."""

    heartbeat_s: Seconds = 20.0
    """Silence after which a reader is told that the server is there."""
    stall_s: Seconds = 30.0
    """A socket that accepts no byte for so long, with something to send, is aborted."""
    write_buffer_bytes: AtLeastOne = 32_768
    """What may wait in a socket's buffer before its reader is left to fall behind."""
    unsent_bytes: AtLeastOne = 131_072
    """What the kernel may hold for a connection beyond what is on its way (Linux, macOS)."""
    chunk_bytes: AtLeastOne = 32_768
    """Most that is written to a reader at once."""
    tail_bytes: AtLeastOne = 1_048_576
    """What a conversation's newest events may weigh in memory; older ones are read from the store."""
    page_events: AtLeastOne = 1_000
    """Events read from the store at once, for a reader that is behind."""


class Source(Protocol):
    """The conversation, as a reader sees it."""

    ref: ConversationRef
    tail: Tail
    store: Store
    readers: set[Reader]

    @property
    def committed(self) -> int:
        """The last number that may be seen."""
        ...

    def now(self) -> int:
        """Unix ms."""
        ...

    def uptime(self) -> float:
        """Seconds, by a clock that only goes forward."""
        ...

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None: ...


class Reader(Outlet):
    """One client's cursor."""

    __slots__ = (
        "_catching_up",
        "_cursor",
        "_exclude",
        "_live_at",
        "_settings",
        "_skipped_from",
        "_source",
    )

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        cursor: int,
        live_at: int,
        exclude: frozenset[str],
        settings: ReaderSettings,
    ) -> None:
        """Deliver what follows ``cursor``; say ``live`` when ``live_at`` is reached."""
        self._source = source
        self._cursor = cursor
        self._live_at: int | None = live_at
        self._exclude = exclude
        self._settings = settings
        self._skipped_from: int | None = None
        self._catching_up = False
        super().__init__(sink)

    def _uptime(self) -> float:
        return self._source.uptime()

    def start(self) -> None:
        """Begin to deliver."""
        self._source.readers.add(self)
        self._sink.on_writable = self.wake
        self.wake()

    def wake(self) -> None:
        """Write what there is to write, as far as the sink takes it."""
        while not (self._catching_up or self._closed) and self._sink.writable:
            if self._cursor == self._live_at:
                self._say_live()
            upto = self._upto()
            if self._cursor >= upto:
                return
            chunk = self._source.tail.chunk(
                after=self._cursor,
                upto=upto,
                exclude=self._exclude,
                skipped_from=self._skipped_from,
                max_bytes=self._settings.chunk_bytes,
            )
            if chunk is None:
                self._catching_up = True
                self._source.spawn(self._catch_up)
                return
            self._take(chunk)

    def _upto(self) -> int:
        head = self._source.committed
        return head if self._live_at is None else min(head, max(self._live_at, self._cursor))

    def _say_live(self) -> None:
        assert self._live_at is not None
        frames = [*self._flushed(), text_frame(encode(Live(at=self._live_at)))]
        self._live_at = None
        self._send(frames)

    def _take(self, chunk: Chunk) -> None:
        self._cursor, self._skipped_from = chunk.to, chunk.skipped_from
        if chunk.frames:
            self._write(chunk.frames, chunk.joined)

    async def _catch_up(self) -> None:
        """Page from the store until the cursor is in the tail, or the sink is full."""
        source, settings = self._source, self._settings
        try:
            while not self._closed and self._sink.writable and self._cursor < self._upto():
                if self._cursor + 1 >= source.tail.first:
                    break
                events = await source.store.read(
                    source.ref, after=self._cursor, limit=settings.page_events, max_bytes=settings.chunk_bytes
                )
                if not self._closed:
                    self._take_page(
                        page_chunk(
                            events,
                            after=self._cursor,
                            upto=self._upto(),
                            exclude=self._exclude,
                            skipped_from=self._skipped_from,
                            max_bytes=settings.chunk_bytes,
                        )
                    )
        except StoreError as error:
            log.warning("reader.failed", conversation=source.ref.conversation_id, error=str(error))
            self.close(CloseCode.INTERNAL, "the log cannot be read")
        except Exception:  # whatever it is, the client must not wait for what will never come
            log.exception("reader.crashed", conversation=source.ref.conversation_id)
            self.close(CloseCode.INTERNAL, "the server failed at this; reconnect and resume")
        finally:
            self._catching_up = False
        self.wake()

    def _take_page(self, chunk: Chunk) -> None:
        """A page that brought nothing although there is more: all that is missing was compacted away."""
        if chunk.to == self._cursor:
            upto = min(self._upto(), self._source.tail.first - 1)
            frames = [*self._flushed(), *told(self._cursor + 1, upto, "compacted")]
            chunk = Chunk(frames, b"".join(frames), upto, None)
        self._take(chunk)

    def _flushed(self) -> list[bytes]:
        """The range of filtered numbers that was not told yet, as a frame."""
        start, self._skipped_from = self._skipped_from, None
        return told(start, self._cursor)

    def beat(self, uptime: float) -> None:
        """Break the silence, if it has lasted and nothing is waiting to be delivered."""
        silent = uptime - self.written_at >= self._settings.heartbeat_s
        if silent and self._live_at is None and self._cursor == self._source.committed and self._sink.writable:
            self._send([*self._flushed(), text_frame(encode(Heartbeat(head=self._cursor, ts=self._source.now())))])

    def stop(self) -> None:
        super().stop()
        self._source.readers.discard(self)
