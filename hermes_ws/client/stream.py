"""A stream: one consumer's cursor over the conversation.

The connection is read once for all streams. Each keeps what its consumer has not taken yet, up to a bound in bytes, and
the number up to which it has everything. A full stream holds up the reading of the socket; where that cannot be (a
command waits for its answer, which is behind those events on the same socket) a stream that is overfull lets go of what
follows. Nothing is lost by it: the log has it, and a stream whose consumer has caught up and finds itself behind the
connection has the connection go back to its number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

from hermes_ws.protocol.control import Skipped, Snapshot
from hermes_ws.protocol.events import Event, UnknownEvent

__all__ = ["Received", "Stream", "StreamOwner"]

T = TypeVar("T")

OVERFULL = 4
"""So many times the bound may be kept while a command waits for its answer."""


@dataclass(frozen=True, slots=True)
class Received:
    """A frame that accounts for numbers, and its bytes as they came."""

    frame: Event | UnknownEvent | Skipped | Snapshot
    data: bytes
    first: int
    last: int


Pick: TypeAlias = Callable[[Received], T | None]


class StreamOwner(Protocol):
    """The connection, as a stream sees it."""

    def relieved(self) -> None:
        """A stream has room again, or is gone."""
        ...

    def starving(self, position: int) -> None:
        """A stream has everything up to ``position`` and its consumer waits for more."""
        ...

    def release(self, stream: Stream[Any]) -> None:
        """A stream was closed."""
        ...


class Stream(Generic[T]):
    """An async iterator. Leave it by ``break``, ``close()`` or as a context manager; one that is dropped is closed."""

    def __init__(self, owner: StreamOwner, position: int, pick: Pick[T], buffer_bytes: int) -> None:
        self._owner = owner
        self._pick = pick
        self._bound = buffer_bytes
        self._kept: deque[Received] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None
        self.position = position
        """Everything up to this number was taken in, or was not wanted."""
        self.waiting = False
        """Whether the consumer waits for something that is not there."""

    # -- the consumer's side ---------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            while self._kept:
                found = self._pick(self._taken())
                if found is not None:
                    return found
            if self._ended:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            await self._more()

    def _taken(self) -> Received:
        received = self._kept.popleft()
        was_full = self.full
        self._bytes -= len(received.data)
        if was_full and not self.full:
            self._owner.relieved()
        return received

    async def _more(self) -> None:
        self._news.clear()
        self.waiting = True
        self._owner.starving(self.position)
        try:
            await self._news.wait()
        finally:
            self.waiting = False

    def close(self) -> None:
        """Take no more; forget what is kept."""
        self._kept.clear()
        self._bytes = 0
        self._owner.release(self)
        self.end(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self._owner.relieved()

    # -- the connection's side -------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether reading should wait for the consumer."""
        return self._bytes >= self._bound

    def offer(self, received: Received) -> None:
        """Take what comes next. What was had already is passed over, and so is what does not follow."""
        follows = received.first <= self.position + 1 and received.last > self.position
        if not follows or self._ended or self._bytes >= OVERFULL * self._bound:
            return
        self.position = received.last
        self._keep(received)

    def resynchronize(self, received: Received) -> None:
        """A snapshot takes the place of what followed ``position``."""
        if not self._ended:
            self.position = received.last
            self._keep(received)

    def _keep(self, received: Received) -> None:
        if self._pick(received) is not None:
            self._kept.append(received)
            self._bytes += len(received.data)
            self._news.set()

    def narrow(self, pick: Pick[T]) -> None:
        """Want less from here on, of what is kept too."""
        self._pick = pick
        self._kept = deque(received for received in self._kept if pick(received) is not None)
        self._bytes = sum(len(received.data) for received in self._kept)
        self._owner.relieved()

    def end(self, failure: Exception | None) -> None:
        """Nothing more will come: what is kept is still delivered, then ``failure`` is raised, if there is one."""
        if not self._ended:
            self._ended, self._failure = True, failure
            self._news.set()
