"""The inbox: conflated, never older than before, and nothing while nobody looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hermes_ws.errors import CommandError, StoreError
from hermes_ws.protocol.commands import ConversationConfigure, ConversationFork, InteractionReply, RunStart
from hermes_ws.protocol.summaries import ConversationSummary
from hermes_ws.protocol.values import Usage
from hermes_ws.runtime.inbox import InboxReader, InboxSettings
from hermes_ws.runtime.principal import Principal
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.store.base import Append, ConversationLine, ConversationPage, ConversationRef, Store
from hermes_ws.store.memory import MemoryStore
from tests.runtime.conftest import Collector, GatedStore, runtime_over, send, until

NEVER = 3_600_000
"""Milliseconds that no test lasts."""
ALL = Principal("home", "me", "admin")
ASKED = RunStart(input="/ask go?")


class SlowStore(GatedStore):
    """A log whose lists can be held back: before they are read, or when they are read and not told yet."""

    def __init__(self) -> None:
        super().__init__()
        self.before = asyncio.Event()
        self.after = asyncio.Event()
        self.before.set()
        self.after.set()
        self.broken = False
        self.looked_up: list[list[str]] = []

    async def _passed(self, event: asyncio.Event) -> None:
        await event.wait()
        if self.broken:
            raise StoreError("the disk is on fire")

    async def conversations(self, *args: Any, **kwargs: Any) -> ConversationPage:
        await self._passed(self.before)
        page = await super().conversations(*args, **kwargs)
        await self._passed(self.after)
        return page

    async def lines(self, namespace: str, conversation_ids: Sequence[str]) -> list[ConversationLine]:
        self.looked_up.append(list(conversation_ids))
        await self._passed(self.before)
        lines = await super().lines(namespace, conversation_ids)
        await self._passed(self.after)
        return lines


class Inbox:
    """An open inbox, and what a client makes of what it is told."""

    def __init__(self, runtime: Runtime, principal: Principal = ALL, *, writable: bool = True) -> None:
        self.sink = Collector()
        self.sink.writable = writable
        self.reader = InboxReader(runtime.inboxes, principal, self.sink)
        self.reader.start()

    def heads(self, conversation_id: str) -> list[int | None]:
        """How far the conversation was, each time that it was told of; None: it was gone."""
        found: list[int | None] = []
        for frame in self.sink.frames:
            if frame["type"] == "inbox.removed" and frame["conversation_id"] == conversation_id:
                found.append(None)
            lines = frame.get("conversations", [frame.get("conversation")])
            found += [line["head"] for line in lines if line and line["conversation_id"] == conversation_id]
        return found

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """Every conversation as it was told last."""
        found: dict[str, dict[str, Any]] = {}
        for frame in self.sink.frames:
            match frame["type"]:
                case "inbox.page":
                    found |= {line["conversation_id"]: line for line in frame["conversations"]}
                case "inbox.changed":
                    found[frame["conversation"]["conversation_id"]] = frame["conversation"]
                case "inbox.removed":
                    found.pop(frame["conversation_id"], None)
        return found

    def status(self, conversation_id: str) -> str:
        return str(self.state.get(conversation_id, {}).get("status"))

    @property
    def pages(self) -> list[dict[str, Any]]:
        return [frame for frame in self.sink.frames if frame["type"] == "inbox.page"]

    @property
    def changes(self) -> list[dict[str, Any]]:
        return [frame["conversation"] for frame in self.sink.frames if frame["type"] == "inbox.changed"]


@contextmanager
def inbox(runtime: Runtime, principal: Principal = ALL) -> Iterator[Inbox]:
    opened = Inbox(runtime, principal)
    try:
        yield opened
    finally:
        opened.reader.stop()


@asynccontextmanager
async def running(path: Path, store: MemoryStore | None = None, **settings: Any) -> AsyncIterator[Runtime]:
    settings.setdefault("quiet_ms", NEVER)
    async with runtime_over(store or SlowStore(), path, RuntimeSettings(inbox=InboxSettings(**settings))) as runtime:
        yield runtime


async def run(runtime: Runtime, name: str, text: str = "hi", namespace: str = "home") -> ConversationRef:
    """A run in a conversation, from beginning to end, or to its question."""
    ref = ConversationRef(namespace, name)
    conversation = await runtime.open(ref)
    await send(runtime, conversation, RunStart(input=text))
    await until(lambda: conversation.session.state.status in ("idle", "waiting"))
    await conversation.settled()
    return ref


async def configure(runtime: Runtime, name: str, title: str) -> None:
    conversation = await runtime.open(ConversationRef("home", name))
    await send(runtime, conversation, ConversationConfigure(config={"title": title}))


def same(store: Store, runtime: Runtime) -> Callable[[Inbox], bool]:
    """Whether an inbox shows what the conversations in memory are."""

    def holds(opened: Inbox) -> bool:
        now = {
            ref.conversation_id: msgspec.to_builtins(conversation.summary())
            for ref, conversation in runtime._conversations.items()
        }
        return opened.state == now

    return holds


# -- what is told, and when ------------------------------------------------------------------------------


async def test_what_matters_to_a_person_is_told_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        with inbox(runtime) as opened:
            conversation = await runtime.open(ConversationRef("home", "demo"))
            await send(runtime, conversation, ASKED)
            await until(lambda: opened.status("demo") == "waiting")
            [asked] = opened.state["demo"]["interactions"]
            assert asked["message"] == "go?"
            await send(runtime, conversation, RunStart(input="later"))
            await until(lambda: opened.state["demo"]["queue"] == 1)
            answer = InteractionReply(
                interaction_id=asked["interaction_id"], answers={asked["questions"][0]["id"]: "y"}
            )
            await send(runtime, conversation, answer)
            await until(lambda: opened.status("demo") == "idle")
            await configure(runtime, "demo", "Renamed")
            await until(lambda: opened.state["demo"]["title"] == "Renamed")
            assert opened.state["demo"]["interactions"] == []
            assert {change["status"] for change in opened.changes} >= {"running", "waiting", "idle"}
            heads = opened.heads("demo")
            assert heads == sorted(heads, key=lambda head: head or 0)


async def test_that_a_conversation_only_came_further_is_not_told_on_and_on(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        with inbox(runtime) as opened:
            await run(runtime, "demo", "/stream 300")
            await until(lambda: opened.status("demo") == "idle")
            assert [change["status"] for change in opened.changes] == ["running", "idle"]
            assert opened.changes[-1]["usage"]["total_tokens"] > 0


async def test_how_far_it_came_is_told_when_the_quiet_is_over(tmp_path: Path) -> None:
    async with running(tmp_path, quiet_ms=20) as runtime:
        with inbox(runtime) as opened:
            conversation = await runtime.open(ConversationRef("home", "demo"))
            await send(runtime, conversation, RunStart(input="/say one\n/sleep 600"))
            await until(lambda: conversation.committed > 4 and opened.heads("demo")[-1] == conversation.committed)
            assert len(opened.changes) > 1
            assert opened.status("demo") == "running"
            assert opened.state["demo"]["last_event_at"] == conversation.session.state.last_ts


async def test_deltas_move_a_conversation_too(tmp_path: Path) -> None:
    async with running(tmp_path, quiet_ms=1) as runtime:
        with inbox(runtime) as opened:
            conversation = await runtime.open(ConversationRef("home", "demo"))
            await send(runtime, conversation, RunStart(input="/stream 100000 5"))
            await until(lambda: len(opened.heads("demo")) > 6)
            told = [change["head"] for change in opened.changes]
            assert told == sorted(set(told))
            assert told[-1] > 5, "past what is no delta"


async def test_a_conversation_that_is_deleted_is_removed(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        ref = await run(runtime, "demo")
        with inbox(runtime) as opened:
            assert await runtime.delete(ref) is True
            assert await runtime.delete(ref) is False
            await until(lambda: "inbox.removed" in opened.sink.types)
            assert opened.sink.types == ["inbox.removed"]
            await run(runtime, "demo")
            await until(lambda: opened.status("demo") == "idle")


async def test_conversations_that_are_not_kept_never_show(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        with inbox(runtime) as opened:
            passing = await runtime.begin_ephemeral("home")
            await send(runtime, passing, RunStart(input="hi"))
            await until(lambda: passing.session.state.status == "idle")
            await runtime.delete(passing.ref)
            await run(runtime, "demo")
            await until(lambda: opened.status("demo") == "idle")
            await opened.reader.first_page()
            assert set(opened.state) == {"demo"}
            assert all(frame.get("conversation_id", "demo") == "demo" for frame in opened.sink.frames)


async def test_nobody_sees_another_namespace_or_what_the_credential_does_not_reach(tmp_path: Path) -> None:
    some = Principal("home", "me", "admin", conversations=frozenset({"mine"}))
    async with running(tmp_path) as runtime:
        with inbox(runtime, some) as opened, inbox(runtime, Principal("away", "you", "admin")) as elsewhere:
            for name in ("mine", "others"):
                await run(runtime, name)
            await runtime.delete(await run(runtime, "others"))
            await until(lambda: opened.status("mine") == "idle")
            await run(runtime, "theirs", namespace="away")
            await until(lambda: elsewhere.status("theirs") == "idle")
            for one in (opened, elsewhere):
                await one.reader.first_page()
            assert set(opened.state) == {"mine"}
            assert set(elsewhere.state) == {"theirs"}
            assert b"others" not in b"".join(opened.sink.raw)


async def test_while_nobody_looks_nothing_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        await run(runtime, "before")
        assert runtime.inboxes._entries == {}
        with inbox(runtime):
            await run(runtime, "during")
            assert {ref.conversation_id for ref in runtime.inboxes._entries} == {"during"}
        await run(runtime, "after")
        assert runtime.inboxes._entries == {}


async def test_one_frame_serves_all_readers(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        with inbox(runtime) as one, inbox(runtime) as two:
            sent: dict[Inbox, list[bytes]] = {one: [], two: []}

            def keep(opened: Inbox, frames: Sequence[bytes], joined: bytes) -> None:
                sent[opened] += frames

            for opened in sent:
                opened.sink.send = partial(keep, opened)  # type: ignore[method-assign]
            await run(runtime, "demo")
            await until(lambda: len(sent[two]) == 2)
            assert all(mine is theirs for mine, theirs in zip(sent[one], sent[two], strict=True))


async def test_one_readers_trouble_is_not_the_next_ones(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        with inbox(runtime) as bad, inbox(runtime) as good:

            def broken(frames: Sequence[bytes], joined: bytes) -> None:
                raise RuntimeError("a sink that nobody expected")

            bad.sink.send = broken  # type: ignore[method-assign]
            await run(runtime, "demo")
            await until(lambda: good.status("demo") == "idle")
            assert bad.sink.closed is not None
            assert bad.sink.closed[0] == 4500


# -- readers that are slow -------------------------------------------------------------------------------


async def test_a_slow_reader_is_told_once_of_each_conversation_as_it_is_by_then(tmp_path: Path) -> None:
    async with running(tmp_path, quiet_ms=0) as runtime:
        with inbox(runtime) as opened:
            opened.sink.writable = False
            for turn in range(4):
                for name in ("one", "two", "three"):
                    await configure(runtime, name, f"{name} {turn}")
            assert opened.sink.frames == []
            opened.sink.writable = True
            assert [change["title"] for change in opened.changes] == ["one 3", "two 3", "three 3"]


async def test_one_that_comes_late_is_told_by_the_store(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store, page=2) as runtime:
        with inbox(runtime) as opened:
            opened.sink.writable = False
            names = [f"c{number}" for number in range(5)]
            for name in names:
                await configure(runtime, name, f"title of {name}")
            await runtime.delete(ConversationRef("home", "c3"))
            runtime.inboxes.beat(runtime.uptime() + 3_601)
            assert runtime.inboxes._entries == {}, "what changed long ago is not kept for whoever is slow"
            await configure(runtime, "c4", "newer")
            opened.sink.writable = True
            await until(lambda: len(opened.sink.frames) == 5)
            assert sorted(map(len, store.looked_up)) == [2, 2]
            titles = {name: line["title"] for name, line in opened.state.items()}
            assert titles == {"c0": "title of c0", "c1": "title of c1", "c2": "title of c2", "c4": "newer"}
            assert opened.sink.types.count("inbox.removed") == 1


@pytest.mark.parametrize("late", [False, True], ids=["by what is kept", "by the store"])
async def test_one_that_was_deleted_and_begun_anew_is_told_as_both(tmp_path: Path, late: bool) -> None:
    async with running(tmp_path) as runtime:
        with inbox(runtime) as opened:
            await configure(runtime, "demo", "old")
            await until(lambda: opened.heads("demo") == [2])
            opened.sink.writable = False
            await runtime.delete(ConversationRef("home", "demo"))
            await configure(runtime, "demo", "anew")
            if late:
                runtime.inboxes.beat(runtime.uptime() + 3_601)
            opened.sink.writable = True
            await until(lambda: opened.heads("demo") == [2, None, 2])
            assert opened.state["demo"]["title"] == "anew"


async def test_while_it_looks_up_changes_wait(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store) as runtime:
        with inbox(runtime) as opened:
            opened.sink.writable = False
            await configure(runtime, "demo", "old")
            runtime.inboxes.beat(runtime.uptime() + 3_601)
            store.after.clear()
            opened.sink.writable = True
            await until(lambda: store.looked_up == [["demo"]])
            await configure(runtime, "demo", "new")
            await configure(runtime, "other", "of its own")
            assert opened.sink.frames == []
            store.after.set()
            await until(lambda: opened.status("other") == "idle")
            assert [change["title"] for change in opened.changes] == ["new", "of its own"]


async def test_what_a_sink_does_not_take_is_looked_up_again(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store) as runtime:
        with inbox(runtime) as opened:
            opened.sink.writable = False
            for name in ("one", "two"):
                await configure(runtime, name, name)
            runtime.inboxes.beat(runtime.uptime() + 3_601)
            store.after.clear()
            opened.sink.writable = True
            await until(lambda: len(store.looked_up) == 1)
            opened.sink.writable = False
            store.after.set()
            await until(lambda: not opened.reader._reading)
            assert opened.sink.frames == []
            opened.sink.writable = True
            await until(lambda: set(opened.state) == {"one", "two"})


async def test_a_log_that_cannot_be_read_closes_whoever_has_to_look_up(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store) as runtime:
        with inbox(runtime) as opened:
            opened.sink.writable = False
            await configure(runtime, "demo", "old")
            runtime.inboxes.beat(runtime.uptime() + 3_601)
            store.broken = True
            opened.sink.writable = True
            await until(lambda: opened.sink.closed is not None)
            assert opened.sink.closed == (4500, "the log cannot be read")
            assert runtime.inboxes.readers == []


async def test_silence_is_broken_only_for_those_to_whom_nothing_is_owed(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        with inbox(runtime) as quiet, inbox(runtime) as slow:
            slow.sink.writable = False
            runtime.inboxes.beat(runtime.uptime() + 19)
            assert quiet.sink.frames == []
            runtime.inboxes.beat(runtime.uptime() + 21)
            assert [(frame["type"], frame["head"]) for frame in quiet.sink.frames] == [("heartbeat", 0)]
            assert slow.sink.frames == []


# -- pages -----------------------------------------------------------------------------------------------


async def test_what_needs_a_person_comes_first_and_its_questions_with_it(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        for name, text in (("a1", "/ask one?"), ("b", "hi"), ("a2", "/ask two?"), ("c", "hi")):
            await run(runtime, name, text)
        with inbox(runtime) as opened:
            await opened.reader.first_page()
            [page] = opened.pages
            assert [line["conversation_id"] for line in page["conversations"]] == ["a2", "a1", "c", "b"]
            asked = [(one["conversation_id"], one["message"]) for one in page["interactions"]]
            assert asked == [("a1", "one?"), ("a2", "two?")]
            assert "next" not in page
            whole = {**page["conversations"][1]["interactions"][0], "conversation_id": "a1"}
            assert page["interactions"][0] == whole


async def test_pages_follow_until_there_is_none_left(tmp_path: Path) -> None:
    async with running(tmp_path, page=2) as runtime:
        for number in range(5):
            await configure(runtime, f"c{number}", "x")
        with inbox(runtime) as opened:
            await opened.reader.first_page()
            second = opened.pages[0]["next"]
            for _ in range(3):
                await opened.reader.more(None)
            assert [len(page["conversations"]) for page in opened.pages] == [2, 2, 1, 0]
            assert "next" not in opened.pages[2]
            assert len(opened.state) == 5
            await opened.reader.more(second)
            assert opened.pages[4]["conversations"] == opened.pages[1]["conversations"]
            await opened.reader.more(None)
            assert opened.pages[5]["conversations"] == opened.pages[2]["conversations"], "the one after the newest page"
            with pytest.raises(CommandError, match="is not a cursor") as caught:
                await opened.reader.more("12-demo")
            assert (caught.value.code, caught.value.path) == ("invalid_frame", "$.cursor")


async def test_a_credential_for_some_conversations_gets_them_at_once_and_no_cursor_that_names_others(
    tmp_path: Path,
) -> None:
    some = Principal("home", "me", "admin", conversations=frozenset({"mine", "asks", "yet-to-begin"}))
    async with running(tmp_path, page=1) as runtime:
        await run(runtime, "asks", "/ask go?")
        await configure(runtime, "mine", "of mine")
        for number in range(3):
            await run(runtime, f"others{number}", "/ask go?")
        with inbox(runtime, some) as opened:
            await opened.reader.first_page()
            await opened.reader.more(None)
            first, last = opened.pages
            assert [line["conversation_id"] for line in first["conversations"]] == ["asks", "mine"]
            assert [asked["conversation_id"] for asked in first["interactions"]] == ["asks"]
            assert (first.get("next"), last["conversations"]) == (None, [])
            assert b"others" not in b"".join(opened.sink.raw)
            with pytest.raises(CommandError, match="is not a cursor"):
                await opened.reader.more("rest-12-others0")


async def test_a_page_ends_where_it_becomes_too_heavy(tmp_path: Path) -> None:
    async with running(tmp_path, page_bytes=1_000) as runtime:
        for number in range(6):
            await configure(runtime, f"c{number}", "title " * 50)
        with inbox(runtime) as opened:
            await opened.reader.first_page()
            while "next" in opened.pages[-1]:
                await opened.reader.more(None)
            assert len(opened.pages) == 6 // 2
            assert len(opened.state) == 6


async def test_while_a_page_is_read_changes_wait(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store, quiet_ms=0) as runtime:
        for name in ("one", "two", "gone", "anew"):
            await configure(runtime, name, "old")
        store.after.clear()
        with inbox(runtime) as opened:
            reading = asyncio.create_task(opened.reader.first_page())
            await until(lambda: opened.reader._one_at_a_time.locked())
            await configure(runtime, "one", "new")
            for name in ("gone", "anew"):
                await runtime.delete(ConversationRef("home", name))
            await configure(runtime, "anew", "another")
            assert opened.sink.frames == []
            store.after.set()
            await reading
            assert opened.sink.types[0] == "inbox.page"
            shown = {line["conversation_id"]: line["title"] for line in opened.pages[0]["conversations"]}
            assert shown == {"one": "new", "two": "old"}
            assert opened.heads("one") == [3]
            assert opened.heads("gone") == [None]
            assert opened.heads("anew") == [None, 2], "its numbers begin again: that must not look like the past"
            titles = {name: line["title"] for name, line in opened.state.items()}
            assert titles == {"one": "new", "two": "old", "anew": "another"}


async def test_a_change_while_a_page_is_read_is_told_also_when_no_line_of_it_is_kept_any_more(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store) as runtime:
        await configure(runtime, "demo", "old")
        store.after.clear()
        with inbox(runtime) as opened:
            reading = asyncio.create_task(opened.reader.first_page())
            await until(lambda: opened.reader._one_at_a_time.locked())
            await run(runtime, "demo", "/ask go?")
            runtime.inboxes.beat(runtime.uptime() + 3_601)
            assert runtime.inboxes._entries == {}
            store.after.set()
            await reading
            await until(lambda: opened.status("demo") == "waiting")
            assert [line["title"] for line in opened.pages[0]["conversations"]] == ["old"]
            assert len(store.looked_up) == 1


async def test_a_change_while_one_is_looked_up_is_told_also_when_no_line_of_it_is_kept_any_more(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store) as runtime:
        with inbox(runtime) as opened:
            opened.sink.writable = False
            await configure(runtime, "demo", "old")
            runtime.inboxes.beat(runtime.uptime() + 3_601)
            store.after.clear()
            opened.sink.writable = True
            await until(lambda: len(store.looked_up) == 1)
            await run(runtime, "demo", "/ask go?")
            runtime.inboxes.beat(runtime.uptime() + 3_601)
            assert runtime.inboxes._entries == {}
            store.after.set()
            await until(lambda: opened.status("demo") == "waiting")
            assert len(store.looked_up) == 2


async def test_one_that_is_deleted_while_it_is_looked_up_is_not_told_of_before_its_end(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store) as runtime:
        with inbox(runtime) as opened:
            opened.sink.writable = False
            for name in ("gone", "there"):
                await configure(runtime, name, "old")
            runtime.inboxes.beat(runtime.uptime() + 3_601)
            store.after.clear()
            opened.sink.writable = True
            await until(lambda: len(store.looked_up) == 1)
            await runtime.delete(ConversationRef("home", "gone"))
            await configure(runtime, "gone", "another")
            store.after.set()
            await until(lambda: len(opened.sink.frames) == 3)
            assert opened.heads("gone") == [None, 2]
            assert opened.heads("there") == [2]


async def test_a_page_shows_what_is_known_and_not_when_the_store_last_wrote_it_down(tmp_path: Path) -> None:
    """A store writes with deltas only now and then when something was last heard."""
    store = SlowStore()
    async with running(tmp_path, store) as runtime:
        with inbox(runtime) as opened:
            ref = await run(runtime, "demo", "/stream 50")
            await until(lambda: opened.status("demo") == "idle")
            line = store._conversations[ref]
            line.at -= 400
            line.summary = line.summary.replace(b'"head":%d' % line.head, b'"head":%d' % (line.head - 1))
            await opened.reader.first_page()
            assert opened.pages[0]["conversations"] == [opened.changes[-1]]


async def test_what_a_page_knew_already_is_not_told_again_after_it(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store, quiet_ms=0) as runtime:
        await configure(runtime, "demo", "old")
        store.before.clear()
        with inbox(runtime) as opened:
            reading = asyncio.create_task(opened.reader.first_page())
            await until(lambda: opened.reader._one_at_a_time.locked())
            await configure(runtime, "demo", "new")
            store.before.set()
            await reading
            await configure(runtime, "other", "of its own")
            await until(lambda: opened.status("other") == "idle")
            assert [line["title"] for line in opened.pages[0]["conversations"]] == ["new"]
            assert opened.heads("demo") == [3]


async def test_a_page_is_not_followed_by_an_older_state_when_the_store_is_ahead_of_what_was_told(
    tmp_path: Path,
) -> None:
    """A read may see a commit before the conversation has heard that it succeeded."""
    store = SlowStore()
    async with running(tmp_path, store, quiet_ms=0) as runtime:
        await configure(runtime, "demo", "old")
        store.before.clear()
        with inbox(runtime) as opened:
            reading = asyncio.create_task(opened.reader.first_page())
            await until(lambda: opened.reader._one_at_a_time.locked())
            await configure(runtime, "demo", "new")
            line = store._conversations[ConversationRef("home", "demo")]
            line.head, line.summary = 9, line.summary.replace(b'"head":3', b'"head":9').replace(b"new", b"newest")
            store.before.set()
            await reading
            await configure(runtime, "other", "of its own")
            await until(lambda: opened.status("other") == "idle")
            assert opened.heads("demo") == [9]


async def test_ten_thousand_conversations_are_paged_through_without_one_missed_or_doubled(tmp_path: Path) -> None:
    store = SlowStore()
    for number in range(10_000):
        store.append(line_of(f"c{number}", at=number // 7, waiting=number % 100 == 0))
    async with running(tmp_path, store, page=500) as runtime:
        with inbox(runtime) as opened:
            await opened.reader.first_page()
            first = [line["conversation_id"] for line in opened.pages[0]["conversations"]]
            assert all(int(name[1:]) % 100 == 0 for name in first[:100])
            while "next" in opened.pages[-1]:
                await opened.reader.more(None)
            names = [line["conversation_id"] for page in opened.pages for line in page["conversations"]]
            assert len(names) == len(set(names)) == 10_000


def line_of(name: str, *, at: int, waiting: bool = False) -> Append:
    """A conversation of one event."""
    summary = ConversationSummary(
        conversation_id=name,
        title=name,
        status="idle",
        queue=0,
        interactions=[],
        last_event_at=at,
        head=1,
        usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0),
    )
    return Append(
        ref=ConversationRef("home", name),
        head=0,
        at=at,
        sync=True,
        done=lambda error: None,
        events=[b"{}"],
        deltas=[False],
        epoch="ep_1",
        summary=msgspec.json.encode(summary),
        waiting=waiting,
    )


# -- whoever follows knows what is so --------------------------------------------------------------------


async def test_whoever_comes_and_goes_sees_in_the_end_what_is_so(tmp_path: Path) -> None:
    """Fast and slow readers, that page while everything changes."""
    store = SlowStore()
    async with running(tmp_path, store, quiet_ms=5, page=3) as runtime:
        opened = [Inbox(runtime, writable=number % 2 == 0) for number in range(4)]
        await asyncio.gather(*(one.reader.first_page() for one in opened))
        for turn in range(6):
            for number in range(8):
                await run(runtime, f"c{number}", f"/stream {turn + number}")
            await runtime.delete(ConversationRef("home", f"c{turn}"))
            for one in opened:
                one.sink.writable = not one.sink.writable
                await one.reader.more(None)
            runtime.inboxes.beat(runtime.uptime())
        for one in opened:
            one.sink.writable = True
            while one.pages[-1].get("next"):
                await one.reader.more(None)
        runtime._conversations = {ref: c for ref, c in runtime._conversations.items() if c.committed}
        holds = same(store, runtime)
        for one in opened:
            await until(lambda one=one: holds(one))  # type: ignore[misc]
            for name in one.state:
                heads = one.heads(name)
                lives = [index for index, head in enumerate(heads) if head is None]
                last = [head for head in heads[lives[-1] + 1 if lives else 0 :] if head is not None]
                assert last == sorted(last), "no older state follows a newer one"
            one.reader.stop()


async def test_a_fork_leaves_no_question_open(tmp_path: Path) -> None:
    store = SlowStore()
    async with running(tmp_path, store) as runtime:
        await run(runtime, "demo", "/ask go?")
        conversation = await runtime.open(ConversationRef("home", "demo"))
        [asked] = conversation.session.state.interactions.values()
        assert asked.questions is not None
        answer = InteractionReply(interaction_id=asked.interaction_id, answers={asked.questions[0].id: "y"})
        await send(runtime, conversation, answer)
        await until(lambda: conversation.session.state.status == "idle")
        await send(runtime, conversation, ConversationFork(conversation_id="copy"))
        assert (await store.open_interactions("home", limit=9, cursor=None)).lines == []
        with inbox(runtime) as opened:
            await opened.reader.first_page()
            assert set(opened.state) == {"demo", "copy"}
            assert opened.pages[0]["interactions"] == []
