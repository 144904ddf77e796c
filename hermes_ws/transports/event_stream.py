"""A conversation's log as server-sent events: each of the socket's frames is a message, its number the message's id.

A stream goes on for as long as the conversation and the client are there. It is a cursor, as a socket's reader is: one
that is behind costs nobody anything, and holds one piece of the log. When it ends, for whatever reason, a browser comes
back by itself and says with ``Last-Event-ID`` where it has got to.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final
from weakref import WeakKeyDictionary

import structlog
from starlette.responses import Response

from hermes_ws.errors import CommandError, StoreError
from hermes_ws.routes.streams import KEEPALIVE, EventStream
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.log_cursor import LogCursor
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.runtime.tail import Chunk, Tail, payload_of
from hermes_ws.transports.log_query import LogQuery

__all__ = ["EVENT_STREAM", "LogStreams"]

log = structlog.get_logger("hermes_ws.event_stream")

EVENT_STREAM: Final = "text/event-stream"
_PLACE: Final = re.compile(rb'\{"type":"[^"]*",(?:"from":[0-9]+,"to"|"seq"):([0-9]+)')
"""The last number that a frame accounts for; it stands at the beginning of every event, and of ``skipped``."""
_DELETED: Final = b": the conversation was deleted\nid: 0\n\n"
"""No message, for there is no data; but who comes back does so with this number, and gets the next log from its
start."""
_GOING_DOWN: Final = b": the server is going down; come back\n\n"


class LogStreams:
    """The streams of all conversations. Those that are at the same place share what is sent."""

    def __init__(self, runtime: Runtime, reconnect_after_ms: int) -> None:
        self._runtime = runtime
        self._readers = runtime.settings.readers
        self._retry = b"retry: %d\n\n" % reconnect_after_ms
        self._newest: WeakKeyDictionary[Tail, tuple[Chunk, bytes]] = WeakKeyDictionary()

    def answer(self, conversation: Conversation, query: LogQuery, headers: Mapping[str, str]) -> Response:
        """Everything that follows, as it comes. One that is asked for while the server goes down is short, but not
        refused: to a browser a refusal is final."""
        cursor = query.stream_of(conversation, query.seen)
        return EventStream(self._messages(conversation, cursor), stall_s=self._readers.stall_s, headers=headers)

    async def _messages(self, conversation: Conversation, cursor: LogCursor) -> AsyncGenerator[bytes]:
        """Until the conversation is deleted or the server goes down. One that is read anew from the log goes on."""
        yield self._retry
        ref, epoch = conversation.ref, conversation.epoch
        try:
            while not self._runtime.closing:
                conversation = await self._runtime.open(ref)
                if epoch is not None and conversation.epoch != epoch:
                    yield _DELETED
                    return
                async with aclosing(self._of_this(conversation, cursor)) as messages:
                    async for some in messages:
                        yield some
                epoch = epoch or conversation.epoch
        except (StoreError, CommandError) as error:  # whoever comes back finds the log readable again, or why it is not
            log.warning("stream.failed", conversation=ref.conversation_id, error=str(error))
            return
        yield b"".join([*map(_message, cursor.flushed()), _GOING_DOWN])

    async def _of_this(self, conversation: Conversation, cursor: LogCursor) -> AsyncGenerator[bytes]:
        """As long as this object is the conversation."""
        silence_s = self._readers.heartbeat_s
        beat_at = conversation.uptime() + silence_s
        with conversation.followed():
            while not conversation.dead:
                messages = await self._next(conversation, cursor)
                if not messages and conversation.uptime() >= beat_at:
                    messages = b"".join([*map(_message, cursor.flushed()), KEEPALIVE])
                if messages:
                    yield messages
                    beat_at = conversation.uptime() + silence_s
                elif cursor.at >= conversation.committed:
                    await conversation.wait_beyond(cursor.at, beat_at - conversation.uptime())

    async def _next(self, conversation: Conversation, cursor: LogCursor) -> bytes:
        """What follows, as messages. Who comes to the newest place of a conversation gets what the one before it
        got."""
        readers, tail = self._readers, conversation.tail
        chunk = await cursor.next(
            conversation, conversation.committed, limit=readers.page_events, max_bytes=readers.chunk_bytes
        )
        if chunk is None:
            return b""
        known = self._newest.get(tail)
        if known is not None and known[0] is chunk:
            return known[1]
        messages = b"".join(map(_message, chunk.frames))
        if messages and chunk.to == tail.head:
            self._newest[tail] = (chunk, messages)
        return messages


def _message(frame: bytes) -> bytes:
    """A frame as one message of a stream. There is no line break in it: JSON has none but in strings, escaped."""
    payload = payload_of(frame)
    place = _PLACE.match(payload)
    assert place is not None
    return b"id: %b\ndata: %b\n\n" % (place[1], payload)
