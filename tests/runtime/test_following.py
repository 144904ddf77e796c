"""Following a log from code: every event once and in order, from any point, whatever happens to the conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from hermes_ws.errors import CommandError, ConversationDeleted, StoreError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.commands import ConversationConfigure, InteractionReply, RunStart
from hermes_ws.runtime import following
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.following import events_between
from hermes_ws.runtime.readers import ReaderSettings
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.store.base import ConversationRef, StoredEvent
from tests.runtime.conftest import ME, REF, GatedStore, runtime_over, send, until

DELTAS = (ev.MessageDelta, ev.ReasoningDelta)
ENDS = (ev.RunCompleted, ev.RunFailed, ev.RunCancelled)


class Follower:
    """Somebody who follows a conversation, in a task of its own."""

    def __init__(self, runtime: Runtime, ref: ConversationRef = REF, after: int = 0, silence_s: float = 60) -> None:
        self.seen: list[ev.Event] = []
        self.silences = 0
        self.task = asyncio.create_task(self._follow(runtime, ref, after, silence_s))

    async def _follow(self, runtime: Runtime, ref: ConversationRef, after: int, silence_s: float) -> None:
        async with aclosing(following.follow(runtime, ref, after, silence_s=silence_s)) as events:
            async for event in events:
                if event is None:
                    self.silences += 1
                else:
                    self.seen.append(event)

    @property
    def numbers(self) -> list[int]:
        return [event.seq for event in self.seen]

    def count(self, *kinds: type[ev.EventBase]) -> int:
        return sum(isinstance(event, kinds) for event in self.seen)

    async def saw(self, *kinds: type[ev.EventBase], count: int = 1) -> None:
        await until(lambda: self.count(*kinds) >= count or self.task.done())
        assert self.count(*kinds) >= count, self.task

    async def reaches(self, seq: int) -> None:
        await until(lambda: self.numbers[-1:] == [seq] or self.task.done())

    async def over(self) -> BaseException | None:
        """What it ended with, if it has ended or is about to."""
        with anyio.fail_after(10):
            await asyncio.wait([self.task])
        return self.task.exception()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@pytest.fixture
async def begin(runtime: Runtime) -> AsyncGenerator[Callable[..., Follower]]:
    """Followers, who leave in the end."""
    made: list[Follower] = []

    def one(*args: Any, **more: Any) -> Follower:
        made.append(Follower(runtime, *args, **more))
        return made[-1]

    yield one
    for follower in made:
        await follower.leave()


async def finished(runtime: Runtime, said: str, ref: ConversationRef = REF) -> Conversation:
    """A conversation in which a run has ended."""
    conversation = await runtime.open(ref)
    await send(runtime, conversation, RunStart(input=said))
    await until(lambda: conversation.session.state.active is None)
    await conversation.settled()
    return conversation


async def _next(events: AsyncGenerator[ev.Event | None]) -> ev.Event | None:
    """The next event; None once the conversation was deleted."""
    try:
        with anyio.fail_after(10):
            return await anext(events)
    except ConversationDeleted:
        return None


# -- every event, once, in order -----------------------------------------------------------------------


async def test_what_is_there_comes_first_and_then_what_comes(runtime: Runtime, begin: Callable[..., Follower]) -> None:
    conversation = await finished(runtime, "/say one")
    follower = begin()
    await follower.saw(ev.RunCompleted)
    await send(runtime, conversation, RunStart(input="/say two"))
    await follower.saw(ev.RunCompleted, count=2)
    assert follower.numbers == list(range(1, conversation.committed + 1))


async def test_from_any_point_it_is_the_same_log(runtime: Runtime, begin: Callable[..., Follower]) -> None:
    conversation = await finished(runtime, "/say one\n/think two\n/stream 20")
    head = conversation.committed
    stored = await runtime.store.read(REF, after=0, limit=1_000, max_bytes=10_000_000)
    for after in range(head):
        follower = begin(after=after)
        await follower.saw(ev.RunCompleted)
        assert [encode(event) for event in follower.seen] == [event.data for event in stored[after:]]


async def test_who_is_ahead_waits_for_what_comes_after(runtime: Runtime, begin: Callable[..., Follower]) -> None:
    conversation = await finished(runtime, "/say one")
    follower = begin(after=conversation.committed + 2)
    await send(runtime, conversation, RunStart(input="/say two"))
    await follower.saw(ev.RunCompleted)
    assert follower.numbers[0] == follower.numbers[-1] - len(follower.numbers) + 1
    assert follower.numbers[0] > 2


async def test_followers_who_come_while_deltas_pour_all_see_the_same(
    runtime: Runtime, begin: Callable[..., Follower]
) -> None:
    conversation = await runtime.open(REF)
    followers = [begin()]
    await send(runtime, conversation, RunStart(input="/stream 3000"))
    while conversation.session.state.active is not None:
        here = conversation.committed
        followers += [begin(after=here), begin(after=max(0, here - 7))]
        await conversation.wait_beyond(here + 200, timeout_s=0.2)
    await conversation.settled()
    for follower in followers:
        await follower.reaches(conversation.committed)
    whole = {event.seq: event for event in followers[0].seen}
    assert list(whole) == list(range(1, conversation.committed + 1))
    said = "".join(event.delta for event in followers[0].seen if isinstance(event, ev.MessageDelta))
    assert said == "".join(f"{n} " for n in range(3000))
    assert len(followers) > 10
    for follower in followers:
        assert follower.numbers == list(range(follower.numbers[0], conversation.committed + 1))
        assert follower.seen == [whole[seq] for seq in follower.numbers]


async def test_what_has_left_memory_is_read_from_the_log_in_pages(
    store: GatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PAGE", 7)
    async with runtime_over(store, tmp_path, RuntimeSettings(readers=ReaderSettings(tail_bytes=2_000))) as runtime:
        conversation = await finished(runtime, "/stream 300")
        assert conversation.tail.first > 20
        store.reads = 0
        follower = Follower(runtime)
        await follower.saw(ev.RunCompleted)
        assert follower.numbers == list(range(1, conversation.committed + 1))
        assert store.reads > 3
        await follower.leave()


async def test_a_log_whose_deltas_were_compacted_is_followed_over_the_holes(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        await finished(runtime, "/stream 300\n/stream 300\n/say end")
    await store.compact(2**60)
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        for after in (0, 1, 5, 100, conversation.committed - 1):
            follower = Follower(runtime, after=after)
            await follower.saw(ev.RunCompleted)
            kept = [event.seq for event in await store.read(REF, after=after, limit=1_000, max_bytes=10_000_000)]
            assert follower.numbers == kept
            assert follower.count(*DELTAS) == 0
            await follower.leave()
        follower = Follower(runtime)
        await follower.saw(ev.RunCompleted)
        await send(runtime, conversation, RunStart(input="/say more"))
        await follower.saw(ev.RunCompleted, count=2)
        assert follower.numbers[-1] == conversation.committed
        await follower.leave()


async def test_nothing_is_seen_before_it_is_committed(
    runtime: Runtime, store: GatedStore, begin: Callable[..., Follower]
) -> None:
    conversation = await finished(runtime, "/say one")
    head = conversation.committed
    follower = begin()
    await follower.reaches(head)
    store.holding = True
    conversation.commit(conversation.decide(ConversationConfigure(config={"title": "held"}), ME))
    for _ in range(20):
        await asyncio.sleep(0)
    assert follower.numbers[-1] == head
    store.let_go()
    await follower.saw(ev.ConversationConfigured)


# -- what happens to the conversation ------------------------------------------------------------------


async def test_a_conversation_that_is_followed_stays_in_memory(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(in_memory=1))
    async with runtime_over(store, tmp_path, settings) as runtime:
        conversation = await finished(runtime, "/say one")
        follower = Follower(runtime)
        await follower.saw(ev.RunCompleted)
        assert conversation.is_followed()
        with pytest.raises(CommandError, match="in use"):
            await runtime.open(ConversationRef("home", "other"))
        await follower.leave()
        assert (conversation.is_followed(), conversation.holders) == (False, 0)
        await runtime.open(ConversationRef("home", "other"))
        assert conversation.dead


async def test_one_that_left_memory_is_followed_from_the_log(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(in_memory=1))
    async with runtime_over(store, tmp_path, settings) as runtime:
        head = (await finished(runtime, "/stream 100")).committed
        await runtime.open(ConversationRef("home", "other"))
        follower = Follower(runtime)
        await follower.saw(ev.RunCompleted)
        assert follower.numbers == list(range(1, head + 1))
        await follower.leave()


async def test_a_commit_that_fails_is_nothing_to_a_follower(
    runtime: Runtime, store: GatedStore, begin: Callable[..., Follower]
) -> None:
    conversation = await runtime.open(REF)
    await send(runtime, conversation, RunStart(input="/stream 200 1\n/say done"))
    followers = [begin(), begin()]
    await followers[0].saw(ev.MessageDelta, count=5)
    store.failing = True
    await until(lambda: conversation.dead)
    followers.append(begin())
    store.failing = False
    for follower in followers:
        await follower.saw(ev.RunCompleted)
        assert follower.numbers == followers[0].numbers == list(range(1, follower.numbers[-1] + 1))
    assert followers[0].count(ev.RunRecovered) == 1
    again = await runtime.open(REF)
    assert again is not conversation
    assert again.committed == followers[0].numbers[-1]


async def test_a_first_commit_that_fails_leaves_a_follower_waiting_for_the_next(
    runtime: Runtime, store: GatedStore, begin: Callable[..., Follower]
) -> None:
    follower = begin()
    conversation = await runtime.open(REF)
    store.failing = True
    with pytest.raises(CommandError):
        await send(runtime, conversation, RunStart(input="/say lost"))
    store.failing = False
    await finished(runtime, "/say kept")
    await follower.saw(ev.RunCompleted)
    assert follower.numbers == list(range(1, follower.numbers[-1] + 1))
    assert "lost" not in str(follower.seen)


async def test_a_restart_is_gone_on_after_where_one_was(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        first = Follower(runtime)
        await send(runtime, conversation, RunStart(input="/say one\n/ask what?\n/say two"))
        await first.saw(ev.InteractionRequested)
    assert await first.over() is None
    async with runtime_over(store, tmp_path) as runtime:
        second = Follower(runtime, after=first.numbers[-1])
        conversation = await runtime.open(REF)
        (asked,) = conversation.session.state.interactions.values()
        await send(
            runtime, conversation, InteractionReply(interaction_id=asked.interaction_id, answers={"answer": "this"})
        )
        await second.saw(ev.RunCompleted)
        together = first.numbers + second.numbers
        assert together == list(range(1, conversation.committed + 1))
        await second.leave()


async def test_a_deletion_is_told_to_who_waits(runtime: Runtime, begin: Callable[..., Follower]) -> None:
    await finished(runtime, "/say one")
    follower = begin()
    await follower.saw(ev.RunCompleted)
    assert await runtime.delete(REF) is True
    assert isinstance(await follower.over(), ConversationDeleted)


async def test_a_deletion_is_told_to_who_was_there_before_the_first_event(
    runtime: Runtime, begin: Callable[..., Follower]
) -> None:
    follower = begin()
    await finished(runtime, "/say one")
    await follower.saw(ev.RunCompleted)
    await runtime.delete(REF)
    assert isinstance(await follower.over(), ConversationDeleted)


async def test_the_next_conversation_of_that_name_is_another_one(
    runtime: Runtime, begin: Callable[..., Follower]
) -> None:
    await finished(runtime, "/say one")
    busy = following.follow(runtime, REF, 0, silence_s=60)
    assert (await anext(busy)) is not None
    await runtime.delete(REF)
    await finished(runtime, "/say another\n/say longer\n/say than that")
    while (event := await _next(busy)) is not None:
        assert "another" not in str(event)


async def test_a_temporary_one_that_is_over_is_told_to_who_follows_and_to_who_comes_late(
    runtime: Runtime, begin: Callable[..., Follower]
) -> None:
    conversation = await runtime.begin_ephemeral("home")
    await send(runtime, conversation, RunStart(input="/say one"))
    follower = begin(ref=conversation.ref)
    await follower.saw(ev.RunCompleted)
    await runtime.delete(conversation.ref)
    late = begin(ref=conversation.ref)
    assert isinstance(await follower.over(), ConversationDeleted)
    assert isinstance(await late.over(), ConversationDeleted)


async def test_a_deletion_that_fails_is_nothing_to_a_follower(
    runtime: Runtime, store: GatedStore, begin: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await finished(runtime, "/say one")
    follower = begin()
    await follower.saw(ev.RunCompleted)

    async def refused(ref: ConversationRef) -> bool:
        raise StoreError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", refused)
        with pytest.raises(StoreError):
            await runtime.delete(REF)
    again = await finished(runtime, "/say two")
    assert again is not conversation
    await follower.saw(ev.RunCompleted, count=2)
    assert follower.numbers == list(range(1, again.committed + 1))


async def test_a_log_that_cannot_be_read_is_told(
    store: GatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runtime_over(store, tmp_path, RuntimeSettings(readers=ReaderSettings(tail_bytes=500))) as runtime:
        await finished(runtime, "/stream 100")

        async def broken(*args: Any, **more: Any) -> list[StoredEvent]:
            raise StoreError("the disk is on fire")

        monkeypatch.setattr(store, "read", broken)
        follower = Follower(runtime)
        assert isinstance(await follower.over(), StoreError)
        assert not isinstance(follower.task.exception(), ConversationDeleted)


async def test_it_ends_when_the_server_goes_down(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        await finished(runtime, "/say one")
        waiting = Follower(runtime)
        await waiting.saw(ev.RunCompleted)
        await runtime.drain(0, 1_000)
        assert await waiting.over() is None
        late = Follower(runtime)
        assert await late.over() is None
        assert late.seen == []


# -- silence -------------------------------------------------------------------------------------------


async def test_silence_is_told_again_and_again_and_does_not_end_it(
    runtime: Runtime, begin: Callable[..., Follower]
) -> None:
    conversation = await finished(runtime, "/say one")
    follower = begin(silence_s=0.01)
    await until(lambda: follower.silences >= 3)
    await send(runtime, conversation, RunStart(input="/say two"))
    await follower.saw(ev.RunCompleted, count=2)
    assert follower.numbers == list(range(1, conversation.committed + 1))


async def test_who_hears_something_is_told_of_no_silence(runtime: Runtime, begin: Callable[..., Follower]) -> None:
    await finished(runtime, "/stream 100 1")
    follower = begin(silence_s=60)
    await follower.saw(ev.RunCompleted)
    assert follower.silences == 0


# -- what is there now ---------------------------------------------------------------------------------


async def test_events_between_are_those_after_and_up_to(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = await finished(runtime, "/stream 50\n/say two")
    head = conversation.committed
    for page in (1_000, 3, 1):
        monkeypatch.setattr(following, "PAGE", page)
        whole = await events_between(conversation, 0, deltas=True)
        assert [event.seq for event in whole] == list(range(1, head + 1))
        finals = await events_between(conversation, 0)
        assert finals == [event for event in whole if not isinstance(event, DELTAS)]
        assert await events_between(conversation, 3, 7, deltas=True) == whole[3:7]
        assert await events_between(conversation, 3, 7) == [e for e in whole[3:7] if not isinstance(e, DELTAS)]
        assert await events_between(conversation, head) == []
        assert await events_between(conversation, head + 5) == []
        assert await events_between(conversation, 5, 2, deltas=True) == []
