"""A place in the log, for those who read at a pace of their own: nothing left out, nothing twice, nothing made up."""

from __future__ import annotations

import asyncio

import pytest

from hermes_ws.protocol.commands import RunStart
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.log_cursor import LogCursor
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.runtime.tail import payload_of
from hermes_ws.store.base import ConversationRef, StoredEvent
from tests.runtime.conftest import REF, GatedStore, follow, send, until
from tests.runtime.conftest import runtime as runtime


class SlowStore(GatedStore):
    """A log whose reads can be held up, between the reading and its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(
        self, ref: ConversationRef, *, after: int, limit: int, max_bytes: int, deltas: bool = True
    ) -> list[StoredEvent]:
        await self.gate.wait()
        return await super().read(ref, after=after, limit=limit, max_bytes=max_bytes, deltas=deltas)


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


async def spoken(runtime: Runtime) -> Conversation:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/stream 30\n/say hello"))
    await until(lambda: "run.completed" in sink.types)
    return conversation


async def read(cursor: LogCursor, conversation: Conversation, *, stored: bool, limit: int, most: int) -> list[bytes]:
    """All that follows, piece by piece."""
    found: list[bytes] = []
    while cursor.at < conversation.committed:
        take = cursor.stored if stored else cursor.next
        chunk = await take(conversation, conversation.committed, limit=limit, max_bytes=most)
        assert chunk is not None
        found += map(payload_of, chunk.frames)
    return found + [payload_of(frame) for frame in cursor.flushed()]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("exclude", [(), ("message.delta",), ("run.completed", "message.delta")])
@pytest.mark.parametrize(("limit", "most"), [(1_000, 1_000_000), (1, 1_000_000), (1_000, 1), (7, 500)])
async def test_a_cursor_gives_what_a_reader_gets_however_small_its_pieces_are(
    runtime: Runtime, stored: bool, exclude: tuple[str, ...], limit: int, most: int
) -> None:
    conversation = await spoken(runtime)
    left_out = frozenset(exclude)
    whole = await read(LogCursor(0, left_out), conversation, stored=True, limit=10**6, most=10**9)
    found = await read(LogCursor(0, left_out), conversation, stored=stored, limit=limit, most=most)
    assert found == whole
    if not exclude:
        assert found == follow(runtime, conversation).raw[:-1], "all but `live`"
    for at in (1, 5, 20):
        rest = await read(LogCursor(at), conversation, stored=stored, limit=limit, most=most)
        assert rest == (await read(LogCursor(0), conversation, stored=True, limit=10**6, most=10**9))[at:]


async def test_at_the_head_and_beyond_it_nothing_follows(runtime: Runtime) -> None:
    conversation = await spoken(runtime)
    for at in (conversation.committed, conversation.committed + 5):
        cursor = LogCursor(at)
        chunk = await cursor.next(conversation, conversation.committed, limit=10, max_bytes=10)
        assert chunk is not None
        assert (chunk.frames, cursor.at) == ([], at)


async def test_what_was_folded_away_to_the_end_is_told_and_not_waited_for(runtime: Runtime, store: SlowStore) -> None:
    conversation = await spoken(runtime)
    head = conversation.committed
    await store.compact(runtime.now() + 1_000_000)
    cursor = LogCursor(4)
    frames = await read(cursor, conversation, stored=True, limit=1_000, most=10**9)
    assert b'"reason":"compacted"' in b"".join(frames)
    in_the_middle = LogCursor(6, skipped_from=6)
    chunk = await in_the_middle.stored(conversation, 8, limit=1_000, max_bytes=10**9)
    assert chunk is not None
    assert [payload_of(frame) for frame in chunk.frames] == [
        b'{"type":"skipped","from":6,"to":6,"reason":"filtered"}',
        b'{"type":"skipped","from":7,"to":8,"reason":"compacted"}',
    ]
    assert (in_the_middle.at, in_the_middle.skipped_from) == (8, None)
    assert head == conversation.committed


async def test_what_is_deleted_while_it_is_read_is_not_taken_for_folded_away(
    runtime: Runtime, store: SlowStore
) -> None:
    conversation = await spoken(runtime)
    cursor = LogCursor(3)
    store.gate.clear()
    reading = asyncio.create_task(cursor.stored(conversation, conversation.committed, limit=10, max_bytes=10_000))
    await asyncio.sleep(0)
    assert await runtime.delete(REF)
    store.gate.set()
    assert await reading is None
    assert cursor.at == 3
