"""Readers: every number exactly once, whatever the filter, the tail, the pace."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_ws.protocol.commands import RunStart
from hermes_ws.runtime.readers import ReaderSettings
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.runtime.tail import Tail, chunk_of, payload_of, text_frame
from tests.runtime.conftest import REF, Collector, GatedStore, follow, runtime_over, send, until

TYPES = ["run.started", "message.delta", "tool.output"]


def accounted(sink: Collector, after: int) -> list[int]:
    """The numbers that a client was told of, in the order it was told."""
    told: list[int] = []
    for frame in sink.frames:
        if "seq" in frame:
            told.append(frame["seq"])
        elif frame["type"] == "skipped":
            told += range(frame["from"], frame["to"] + 1)
    return told


@given(
    kinds=st.lists(st.sampled_from(TYPES), max_size=40),
    holes=st.sets(st.integers(1, 40)),
    exclude=st.sets(st.sampled_from(TYPES)),
    after=st.integers(0, 40),
    max_bytes=st.integers(1, 500),
)
@settings(max_examples=300, deadline=None)
def test_chunks_account_for_every_number_once(
    kinds: list[str], holes: set[int], exclude: set[str], after: int, max_bytes: int
) -> None:
    frames = [(n, text_frame(b'{"type":"%s","seq":%d}' % (kind.encode(), n))) for n, kind in enumerate(kinds, 1)]
    frames = [(n, frame) for n, frame in frames if n > after and n not in holes]
    sink, cursor, skipped_from = Collector(), after, None
    while any(n > cursor for n, _ in frames):
        chunk = chunk_of(
            [(n, frame) for n, frame in frames if n > cursor],
            after=cursor,
            exclude=frozenset(exclude),
            skipped_from=skipped_from,
            max_bytes=max_bytes,
        )
        assert chunk.to > cursor
        sink.send(chunk.frames, chunk.joined)
        cursor, skipped_from = chunk.to, chunk.skipped_from
    told = accounted(sink, after) + (list(range(skipped_from, cursor + 1)) if skipped_from is not None else [])
    assert told == list(range(after + 1, cursor + 1))
    assert not {frame["type"] for frame in sink.frames} & exclude


def test_a_frame_is_what_rfc_6455_says() -> None:
    for size in (0, 1, 125, 126, 65_535, 65_536):
        payload = b"x" * size
        frame = text_frame(payload)
        assert frame[0] == 0x81
        assert payload_of(frame) == payload
    assert text_frame(b"x" * 125)[:2] == b"\x81\x7d"
    assert text_frame(b"x" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert text_frame(b"x" * 65_536)[:10] == b"\x81\x7f" + (65_536).to_bytes(8, "big")


def test_the_tail_is_bounded_and_knows_what_it_holds() -> None:
    tail = Tail(10, max_bytes=1_000)
    for n in range(11, 200):
        tail.extend([b'{"type":"x","seq":%d}' % n])
        window = range(tail.first, tail.head + 1)
        assert tail.head == n
        assert len(window) <= 1_000 // 20 + 1
    chunk = tail.chunk(after=tail.first - 1, upto=tail.head, exclude=frozenset(), skipped_from=None, max_bytes=10_000)
    assert chunk is not None
    assert chunk.to == 199
    assert tail.chunk(after=0, upto=199, exclude=frozenset(), skipped_from=None, max_bytes=10_000) is None


async def streamed(runtime: Runtime, text: str, sinks: int = 1) -> list[Collector]:
    conversation = await runtime.open(REF)
    collectors = [follow(runtime, conversation) for _ in range(sinks)]
    await send(runtime, conversation, RunStart(input=text))
    await until(lambda: "run.completed" in collectors[0].types)
    return collectors


async def test_readers_at_the_same_place_get_the_same_bytes(runtime: Runtime) -> None:
    one, other = await streamed(runtime, "/stream 200", sinks=2)
    assert one.raw == other.raw


async def test_a_reader_that_takes_nothing_falls_behind_and_catches_up_from_the_log(
    store: GatedStore, tmp_path: Path
) -> None:
    small = RuntimeSettings(readers=ReaderSettings(tail_bytes=16_000, chunk_bytes=1_000, page_events=50))
    async with runtime_over(store, tmp_path, small) as runtime:
        conversation = await runtime.open(REF)
        slow, quick = follow(runtime, conversation), follow(runtime, conversation)
        slow.writable = False
        await send(runtime, conversation, RunStart(input="/stream 400 1"))
        await until(lambda: "run.completed" in quick.types)
        assert slow.events == []
        assert store.reads == 0, "who follows the tail reads nothing from the log"
        slow.writable = True
        await until(lambda: "run.completed" in slow.types)
        assert store.reads > 0
        assert slow.raw == quick.raw


async def test_a_resume_inside_the_tail_reads_nothing_from_the_log(runtime: Runtime, store: GatedStore) -> None:
    [first] = await streamed(runtime, "/stream 100 1")
    conversation = await runtime.open(REF)
    again = follow(runtime, conversation, after=50)
    await until(lambda: "live" in again.types)
    assert store.reads == 0
    assert again.events == first.events[50:]


async def test_a_filtered_reader_is_told_what_it_misses_before_live_and_before_a_heartbeat(runtime: Runtime) -> None:
    [whole] = await streamed(runtime, "/stream 20 1\n/say bye")
    head = whole.events[-1]["seq"]
    conversation = await runtime.open(REF)
    exclude = frozenset({"message.delta", "step.completed", "run.completed"})
    sink = follow(runtime, conversation, exclude=exclude)
    await until(lambda: "live" in sink.types)
    assert accounted(sink, 0) == list(range(1, head + 1))
    assert sink.types[-2:] == ["skipped", "live"]
    quiet = follow(runtime, conversation, after=head, exclude=frozenset(TYPES) | exclude)
    await send(runtime, conversation, RunStart(input="hi"))
    await until(lambda: conversation.committed == conversation.session.state.head > head + 3)
    await until(lambda: conversation.session.state.status == "idle")
    await until(lambda: conversation.committed == conversation.session.state.head)
    await asyncio.sleep(0)
    for reader in tuple(conversation.readers):
        reader.beat(runtime.uptime() + 3_600)
    assert quiet.types[-1] == "heartbeat"
    assert accounted(quiet, head) == list(range(head + 1, conversation.committed + 1))
    assert quiet.frames[-1]["head"] == conversation.committed


async def test_live_comes_exactly_between_what_was_asked_for_and_what_is_new(store: GatedStore, tmp_path: Path) -> None:
    small = RuntimeSettings(readers=ReaderSettings(tail_bytes=2_000, chunk_bytes=500, page_events=10))
    async with runtime_over(store, tmp_path, small) as runtime:
        [whole] = await streamed(runtime, "/stream 100 1")
        conversation = await runtime.open(REF)
        late = follow(runtime, conversation)
        at = conversation.committed
        await send(runtime, conversation, RunStart(input="hi"))
        await until(lambda: late.types.count("run.completed") == 2)
        position = late.types.index("live")
        assert late.frames[position]["at"] == at
        assert late.frames[position - 1]["seq"] == at
        assert late.frames[position + 1]["seq"] == at + 1
        assert late.events[: len(whole.events)] == whole.events[: len(late.events)]
