"""A place in a conversation's log, and the frames that follow it: for whoever reads by request, at a pace of their own.

The frames are the ones that sockets get, byte for byte. What is held in memory is one piece of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.tail import Chunk, page_chunk, told

__all__ = ["LogCursor"]

_NOTHING_LEFT_OUT: Final[frozenset[str]] = frozenset()


@dataclass(slots=True)
class LogCursor:
    """Every number up to ``at`` is accounted for, but for the filtered ones from ``skipped_from`` on, which are told
    before whatever comes next."""

    at: int
    exclude: frozenset[str] = _NOTHING_LEFT_OUT
    """Event types that are not wanted."""
    skipped_from: int | None = None

    async def next(self, conversation: Conversation, upto: int, *, limit: int, max_bytes: int) -> Chunk | None:
        """:meth:`stored`, but out of memory where it is there; in common with others who are at the same place."""
        if self.at >= upto:
            return self._nothing()
        chunk = conversation.tail.chunk(
            after=self.at,
            upto=upto,
            exclude=self.exclude,
            skipped_from=self.skipped_from,
            max_bytes=max_bytes,
        )
        if chunk is None:
            return await self.stored(conversation, upto, limit=limit, max_bytes=max_bytes)
        return self._taken(chunk)

    async def stored(self, conversation: Conversation, upto: int, *, limit: int, max_bytes: int) -> Chunk | None:
        """What follows up to ``upto``, which is committed, as it is in the store: at most ``limit`` events that weigh
        about ``max_bytes``, but one at least. Nothing where nothing follows.

        None: the conversation was let go of meanwhile, and so that is not known. Raises :class:`StoreError`.
        """
        if self.at >= upto:
            return self._nothing()
        chunk = await self._page(conversation, upto, limit, max_bytes)
        # What was deleted while it was read would look as if it had been folded away.
        return None if conversation.dead else self._taken(chunk)

    def _nothing(self) -> Chunk:
        return Chunk([], b"", self.at, self.skipped_from)

    def _taken(self, chunk: Chunk) -> Chunk:
        self.at, self.skipped_from = chunk.to, chunk.skipped_from
        return chunk

    async def _page(self, conversation: Conversation, upto: int, limit: int, max_bytes: int) -> Chunk:
        events = await conversation.store.read(conversation.ref, after=self.at, limit=limit, max_bytes=max_bytes)
        chunk = page_chunk(
            events,
            after=self.at,
            upto=upto,
            exclude=self.exclude,
            skipped_from=self.skipped_from,
            max_bytes=max_bytes,
        )
        return chunk if chunk.to > self.at else self._compacted(upto)

    def _compacted(self, to: int) -> Chunk:
        """Nothing is left of what follows, up to ``to``."""
        frames = [*told(self.skipped_from, self.at), *told(self.at + 1, to, "compacted")]
        return Chunk(frames, b"".join(frames), to, None)

    def flushed(self) -> list[bytes]:
        """The range of filtered numbers that was not told yet, as a frame: for the end, or a silence."""
        start, self.skipped_from = self.skipped_from, None
        return told(start, self.at)
