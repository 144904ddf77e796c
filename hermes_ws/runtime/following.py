"""Following a conversation's log from code: what is in it after a number, and then what comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from hermes_ws.errors import CommandError, ConversationDeleted
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_event
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.runtime.tail import payload_of
from hermes_ws.store.base import ConversationRef

__all__ = ["batches", "events_between", "follow"]

PAGE: Final = 1_000
PAGE_BYTES: Final = 1_048_576
_NOTHING_LEFT_OUT: Final[frozenset[str]] = frozenset()
_SKIPPED: Final = b'{"type":"skipped"'


async def follow(
    runtime: Runtime, ref: ConversationRef, after: int, *, silence_s: float, run_id: str | None = None
) -> AsyncGenerator[ev.Event | None]:
    """Committed events that follow ``after``, in order, as they come; None after ``silence_s`` seconds without any.
    See :func:`batches`."""
    async with aclosing(batches(runtime, ref, after, silence_s=silence_s, run_id=run_id)) as found:
        async for events in found:
            if not events:
                yield None
            for event in events:
                yield event


async def batches(
    runtime: Runtime, ref: ConversationRef, after: int, *, silence_s: float, run_id: str | None = None
) -> AsyncGenerator[list[ev.Event]]:
    """Committed events that follow ``after``, in order, as many at once as are there; none at all after ``silence_s``
    seconds without any.

    ``run_id``: it is this run that matters to whoever follows. Ends when the server goes down. Raises
    :class:`~hermes_ws.errors.ConversationDeleted`, or another :class:`~hermes_ws.errors.StoreError` when the log cannot
    be read.
    """
    epoch: str | None = None
    while not runtime.closing:
        conversation = await _opened(runtime, ref)
        if epoch is not None and conversation.epoch != epoch:
            raise ConversationDeleted("the conversation was deleted")
        with conversation.followed(run_id):
            while not conversation.dead:
                upto, epoch = conversation.committed, epoch or conversation.epoch
                if after < upto:
                    events = await _some(conversation, after, upto)
                    if events:
                        yield events
                    after = events[-1].seq if events else upto
                    continue
                await conversation.wait_beyond(after, silence_s)
                if conversation.committed <= after and not conversation.dead:
                    yield []


async def _opened(runtime: Runtime, ref: ConversationRef) -> Conversation:
    try:
        return await runtime.open(ref)
    except CommandError as refused:
        if refused.code == "not_found":
            raise ConversationDeleted("the conversation is over") from None
        raise


async def events_between(
    conversation: Conversation, after: int, upto: int | None = None, *, deltas: bool = False
) -> list[ev.Event]:
    """Events that follow ``after``, up to ``upto`` (None: the last one there is)."""
    upto = conversation.committed if upto is None else upto
    found: list[ev.Event] = []
    while after < upto:
        page = await conversation.store.read(
            conversation.ref, after=after, limit=PAGE, max_bytes=PAGE_BYTES, deltas=deltas
        )
        found += [decode_event(event.data) for event in page if event.seq <= upto]
        if not page or page[-1].seq >= upto:
            break
        after = page[-1].seq
    return found


async def _some(conversation: Conversation, after: int, upto: int) -> list[ev.Event]:
    """Events that follow ``after``: from memory where they are there, else a page of the log."""
    chunk = conversation.tail.chunk(
        after=after, upto=upto, exclude=_NOTHING_LEFT_OUT, skipped_from=None, max_bytes=PAGE_BYTES
    )
    if chunk is not None:
        return [decode_event(payload) for payload in map(payload_of, chunk.frames) if not payload.startswith(_SKIPPED)]
    page = await conversation.store.read(conversation.ref, after=after, limit=PAGE, max_bytes=PAGE_BYTES)
    return [decode_event(event.data) for event in page if event.seq <= upto]
