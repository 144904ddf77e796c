"""A conversation's log as lines of JSON, each one of the socket's frames, up to the last one there is when it is asked
for.

A file that breaks off must not look whole: where the end cannot be reached, the line is broken instead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Final

from starlette.responses import Response

from hermes_ws.errors import CommandError, StoreError
from hermes_ws.routes.streams import Cut, EventStream
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.log_cursor import LogCursor
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.runtime.tail import payload_of
from hermes_ws.store.base import ConversationRef
from hermes_ws.transports.log_query import LogQuery

__all__ = ["JSON_LINES", "Export"]

JSON_LINES: Final = ("application/jsonl", "application/x-ndjson")
"""What such a file is called; the first is ours."""


class Export:
    """Makes such answers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._readers = runtime.settings.readers

    def answer(self, conversation: Conversation, query: LogQuery, headers: Mapping[str, str]) -> Response:
        """What follows ``after``, up to here and now."""
        cursor = query.stream_of(conversation, query.after)
        return EventStream(self._lines(conversation, cursor), stall_s=self._readers.stall_s, headers=headers)

    async def _lines(self, conversation: Conversation, cursor: LogCursor) -> AsyncGenerator[bytes]:
        ref, epoch, upto = conversation.ref, conversation.epoch, conversation.committed
        while cursor.at < upto:
            conversation = await self._again(ref, epoch)
            with conversation.held():
                while cursor.at < upto and (some := await self._some(conversation, cursor, upto)) is not None:
                    yield some
        if cursor.skipped_from is not None:
            yield _joined(cursor.flushed())

    async def _again(self, ref: ConversationRef, epoch: str | None) -> Conversation:
        """The conversation, if it is the one that it was. Raises :class:`Cut`."""
        try:
            conversation = await self._runtime.open(ref)
        except (StoreError, CommandError) as error:
            raise Cut(str(error)) from None
        if self._runtime.closing or conversation.epoch != epoch:
            raise Cut("the conversation was deleted, or the server is going down")
        return conversation

    async def _some(self, conversation: Conversation, cursor: LogCursor, upto: int) -> bytes | None:
        """The next lines; None: this object is not the conversation any more. Raises :class:`Cut`."""
        readers = self._readers
        if conversation.dead:
            return None
        try:
            chunk = await cursor.stored(conversation, upto, limit=readers.page_events, max_bytes=readers.chunk_bytes)
        except StoreError as error:
            raise Cut(str(error)) from None
        return None if chunk is None else _joined(chunk.frames)


def _joined(frames: list[bytes]) -> bytes:
    return b"".join([payload_of(frame) + b"\n" for frame in frames])
