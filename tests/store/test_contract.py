"""What a store promises (``hermes_ws.store.base``), one sentence a case, over every store there is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hermes_ws.errors import LogConflict, StoreError
from hermes_ws.store.base import CommandRow, ConversationRef, InteractionRow, RuleRow, RunRow, SecretRow, Store
from tests.store.conftest import REF, batch, commit, read_all


async def test_a_conversation_that_was_never_written_is_not_there(store: Store) -> None:
    assert await store.load(REF) is None
    assert await read_all(store) == []
    assert (await store.conversations("home", limit=10, cursor=None)).lines == []


async def test_what_was_appended_is_read_back_in_order(store: Store) -> None:
    assert await commit(store, 0, b"one", b"two") is None
    assert await commit(store, 2, b"three") is None
    assert await read_all(store) == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert await read_all(store, after=2) == [(3, b"three")]


async def test_an_append_that_leaves_a_gap_is_refused_and_leaves_nothing(store: Store) -> None:
    await commit(store, 0, b"one")
    assert isinstance(await commit(store, 2, b"three"), LogConflict)
    assert await read_all(store) == [(1, b"one")]


async def test_an_append_to_an_older_head_is_refused_and_leaves_nothing(store: Store) -> None:
    await commit(store, 0, b"one", b"two")
    assert isinstance(await commit(store, 1, b"another two", epoch=None), LogConflict)
    assert [event.data for event in await read_all(store)] == [b"one", b"two"]


async def test_a_conversation_cannot_begin_twice(store: Store) -> None:
    await commit(store, 0, b"one")
    assert isinstance(await commit(store, 0, b"other one"), LogConflict)


async def test_a_refused_append_keeps_none_of_its_projections(store: Store) -> None:
    await commit(store, 0, b"one")
    run = RunRow("run_1", "running", b"{}", 1)
    row = CommandRow("me", "c1", b"digest", b"ok", 1)
    rule = RuleRow("rule_1", "always", "me", "demo", None, b"{}")
    more = {"runs": [run], "commands": [row], "rules": [rule], "secrets": [SecretRow("a", b"sealed")]}
    assert await commit(store, 7, b"x", **more) is not None
    loaded = await store.load(REF)
    assert loaded is not None
    assert loaded.secrets == []
    assert await store.command(REF, "me", "c1") is None
    assert await store.always_rules("home", "me", "demo") == []
    assert list(await store.unfinished()) == []


async def test_one_bad_append_of_a_group_harms_no_other(store: Store) -> None:
    outcomes: dict[str, StoreError | None] = {}
    all_told = asyncio.Event()

    def told(name: str) -> Any:
        def done(error: StoreError | None) -> None:
            outcomes[name] = error
            if len(outcomes) == 3:
                all_told.set()

        return done

    store.append(batch(0, b"a", done=told("good"), ref=ConversationRef("home", "good")))
    store.append(batch(5, b"b", done=told("bad"), ref=ConversationRef("home", "bad")))
    store.append(batch(0, b"c", done=told("fine"), ref=ConversationRef("home", "fine")))
    await asyncio.wait_for(all_told.wait(), 10)
    assert outcomes["good"] is None
    assert outcomes["fine"] is None
    assert isinstance(outcomes["bad"], LogConflict)


async def test_many_appends_at_once_are_told_in_order_and_all_kept(store: Store) -> None:
    told: list[int] = []
    finished = asyncio.Event()

    def done_for(number: int) -> Any:
        def done(error: StoreError | None) -> None:
            assert error is None
            told.append(number)
            if number == 999:
                finished.set()

        return done

    for number in range(1000):
        store.append(batch(number, b"%d" % number, done=done_for(number)))
    await asyncio.wait_for(finished.wait(), 30)
    assert told == list(range(1000))
    assert [event.seq for event in await read_all(store)] == list(range(1, 1001))


async def test_a_page_is_bounded_in_count_and_bytes_but_never_empty(store: Store) -> None:
    await commit(store, 0, *[b"x" * 100] * 10)
    assert len(await store.read(REF, after=0, limit=3, max_bytes=10_000)) == 3
    assert len(await store.read(REF, after=0, limit=10, max_bytes=250)) == 2
    assert len(await store.read(REF, after=0, limit=10, max_bytes=1)) == 1


async def test_loading_leaves_the_deltas_out_and_brings_what_is_unfinished(store: Store) -> None:
    running, ended = RunRow("run_1", "running", b'{"agent":"demo"}', 1), RunRow("run_0", "completed", b"{}", 1)
    rule = RuleRow("rule_1", "conversation", "me", "demo", None, b"{}")
    await commit(store, 0, b"one", b"delta", b"two", deltas=[False, True, False], runs=[running, ended], rules=[rule])
    loaded = await store.load(REF)
    assert loaded is not None
    assert (loaded.epoch, loaded.head, loaded.floor) == ("ep_1", 3, 1)
    assert loaded.events == [(1, b"one"), (3, b"two")]
    assert loaded.runs == [running]
    assert loaded.rules == [rule]


async def test_a_run_that_ended_is_unfinished_no_more(store: Store) -> None:
    await commit(store, 0, b"one", runs=[RunRow("run_1", "running", b"{}", 1)])
    assert list(await store.unfinished()) == [REF]
    await commit(store, 1, b"two", runs=[RunRow("run_1", "completed", b"{}", 2)])
    assert list(await store.unfinished()) == []


async def test_a_command_is_found_by_conversation_principal_and_id_alone(store: Store) -> None:
    row = CommandRow("me", "c1", b"digest", b"ok", 1_000)
    await commit(store, 0, b"one", commands=[row])
    assert await store.command(REF, "me", "c1") == row
    assert await store.command(REF, "you", "c1") is None
    assert await store.command(REF, "me", "c2") is None
    assert await store.command(ConversationRef("home", "other"), "me", "c1") is None
    assert await store.command(ConversationRef("away", "demo"), "me", "c1") is None


async def test_a_command_may_be_kept_without_an_event(store: Store) -> None:
    await commit(store, 0, b"one")
    row = CommandRow("me", "c1", b"digest", b"ok", 1_000)
    assert await commit(store, 1, commands=[row]) is None
    assert await store.command(REF, "me", "c1") == row


async def test_old_commands_are_forgotten_and_young_ones_kept(store: Store) -> None:
    await commit(
        store, 0, b"one", commands=[CommandRow("me", "old", b"", b"", 1), CommandRow("me", "new", b"", b"", 9)]
    )
    assert await store.forget_commands(5) == 1
    assert await store.command(REF, "me", "old") is None
    assert await store.command(REF, "me", "new") is not None


async def test_an_always_rule_is_its_principals_in_its_namespace_until_revoked(store: Store) -> None:
    rule = RuleRow("rule_1", "always", "me", "demo", None, b"{}")
    await commit(store, 0, b"one", rules=[rule])
    assert await store.always_rules("home", "me", "demo") == [rule]
    assert await store.always_rules("home", "me", None) == [rule]
    assert await store.always_rules("home", "me", "other") == []
    assert await store.always_rules("home", "you", "demo") == []
    assert await store.always_rules("away", "me", "demo") == []
    loaded = await store.load(REF)
    assert loaded is not None
    assert loaded.rules == []
    await commit(store, 1, revoked=["rule_1"])
    assert await store.always_rules("home", "me", "demo") == []


async def test_nobody_revokes_a_rule_of_another_namespace(store: Store) -> None:
    await commit(store, 0, b"one", rules=[RuleRow("rule_1", "always", "me", "demo", None, b"{}")])
    await commit(store, 0, b"x", ref=ConversationRef("away", "demo"), revoked=["rule_1"])
    assert len(await store.always_rules("home", "me", "demo")) == 1


async def test_an_interaction_row_may_be_written_again(store: Store) -> None:
    await commit(store, 0, b"one", interactions=[InteractionRow("int_1", b"asked", None, 1)])
    assert await commit(store, 1, b"two", interactions=[InteractionRow("int_1", b"asked", b"settled", 1)]) is None


async def test_conversations_are_listed_by_their_newest_event_page_by_page(store: Store) -> None:
    for number in range(5):
        ref = ConversationRef("home", f"c{number}")
        await commit(store, 0, b"x", ref=ref, at=100 + number // 2, summary=b"s%d" % number)
    await commit(store, 0, b"x", ref=ConversationRef("away", "hidden"))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.conversations("home", limit=2, cursor=cursor)
        seen += [line.conversation_id for line in page.lines]
        cursor = page.next
        if cursor is None:
            break
    assert seen == ["c4", "c3", "c2", "c1", "c0"]


async def all_conversations(store: Store, limit: int, **how: Any) -> list[list[str]]:
    """The names in a list, page by page."""
    pages: list[list[str]] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        page = await store.conversations("home", limit=limit, cursor=cursor, **how)
        pages.append([line.conversation_id for line in page.lines])
        cursor = page.next
    return pages


async def test_those_that_wait_for_a_person_may_come_first_page_by_page(store: Store) -> None:
    for number in range(6):
        ref = ConversationRef("home", f"c{number}")
        await commit(store, 0, b"x", ref=ref, at=100 + number // 2, summary=b"{}", waiting=number in (0, 1, 4))
    await commit(store, 0, b"x", ref=ConversationRef("away", "hidden"), summary=b"{}", waiting=True)
    expected = ["c4", "c1", "c0", "c5", "c3", "c2"]
    for limit in (1, 2, 3, 5, 6, 7):
        pages = await all_conversations(store, limit, waiting_first=True)
        assert [name for page in pages for name in page] == expected
        assert all(len(page) == limit for page in pages[:-1])
    assert await all_conversations(store, 10) == [["c5", "c4", "c3", "c2", "c1", "c0"]]


async def test_whether_anything_waits_goes_with_the_summary_alone(store: Store) -> None:
    async def order() -> list[str]:
        return (await all_conversations(store, 10, waiting_first=True))[0]

    other = ConversationRef("home", "other")
    await commit(store, 0, b"one", at=1, summary=b"{}", waiting=True)
    await commit(store, 0, b"one", at=2, ref=other, summary=b"{}")
    assert await order() == ["demo", "other"]
    await commit(store, 1, b"two", at=3, deltas=[True], sync=False)
    assert await order() == ["demo", "other"], "an append without a summary says nothing about it"
    await commit(store, 1, b"two", at=4, ref=other, summary=b"{}")
    assert await order() == ["demo", "other"]
    await commit(store, 2, b"three", at=3, summary=b"{}", waiting=False)
    assert await order() == ["other", "demo"]


async def test_a_page_of_conversations_ends_where_its_summaries_become_too_heavy(store: Store) -> None:
    for number in range(5):
        ref = ConversationRef("home", f"c{number}")
        await commit(store, 0, b"x", ref=ref, at=number, summary=b"s" * 100, waiting=number == 0)
    by_need = await all_conversations(store, 10, waiting_first=True, max_bytes=250)
    assert by_need == [["c0", "c4"], ["c3", "c2"], ["c1"]]
    assert await all_conversations(store, 10, max_bytes=1) == [["c4"], ["c3"], ["c2"], ["c1"], ["c0"]]


async def test_some_conversations_may_be_asked_for_by_name(store: Store) -> None:
    for number in range(3):
        await commit(store, 0, b"x", ref=ConversationRef("home", f"c{number}"), at=7, summary=b"s%d" % number)
    await commit(store, 0, b"x", ref=ConversationRef("away", "c3"), summary=b"s3")
    lines = await store.lines("home", ["c2", "c0", "c3", "never", "c0"])
    assert sorted(lines) == [("c0", 1, 7, b"s0"), ("c2", 1, 7, b"s2")]
    assert await store.lines("home", []) == []


async def test_open_interactions_are_listed_by_age_page_by_page_until_they_are_settled(store: Store) -> None:
    async def listed(limit: int) -> list[tuple[str, bytes]]:
        seen: list[tuple[str, bytes]] = []
        cursor: str | None = None
        while True:
            page = await store.open_interactions("home", limit=limit, cursor=cursor)
            seen += page.lines
            cursor = page.next
            if cursor is None:
                return seen

    assert await listed(1) == []
    one, two = ConversationRef("home", "one"), ConversationRef("home", "two")
    asked = [InteractionRow(f"int_{n}", b"asked %d" % n, None, 100 + n // 2) for n in range(6)]
    await commit(store, 0, b"x", ref=one, interactions=asked[3:])
    await commit(store, 0, b"x", ref=two, interactions=[*asked[:3], InteractionRow("int_9", b"old", b"settled", 1)])
    await commit(store, 0, b"x", ref=ConversationRef("away", "one"), interactions=[InteractionRow("a", b"", None, 1)])
    expected = [*(("two", b"asked %d" % n) for n in range(3)), *(("one", b"asked %d" % n) for n in range(3, 6))]
    for limit in (1, 2, 3, 6, 7):
        assert await listed(limit) == expected
    await commit(store, 1, b"y", ref=one, interactions=[asked[3]._replace(resolution=b"settled")])
    assert await listed(4) == [line for line in expected if line[1] != b"asked 3"]
    await store.delete(two)
    assert await listed(4) == expected[4:]


async def test_a_cursor_of_another_list_is_refused(store: Store) -> None:
    for cursor in ("", "x", "5-demo", "rest", "rest-x-demo", "-1-demo", "waiting-²-demo", "1-5-demo"):
        with pytest.raises(ValueError, match="is not a cursor"):
            await store.conversations("home", limit=1, cursor=cursor, waiting_first=True)
    for cursor in ("", "x", "waiting-5-demo", "5"):
        with pytest.raises(ValueError, match="is not a cursor"):
            await store.open_interactions("home", limit=1, cursor=cursor)
        with pytest.raises(ValueError, match="is not a cursor"):
            await store.conversations("home", limit=1, cursor=cursor)


async def test_a_summary_stays_until_another_one_comes(store: Store) -> None:
    await commit(store, 0, b"one", summary=b"first")
    await commit(store, 1, b"two", at=5_000)
    line = (await store.conversations("home", limit=1, cursor=None)).lines[0]
    assert line == ("demo", 2, 5_000, b"first")


async def test_a_cursor_that_no_list_gave_is_refused(store: Store) -> None:
    for cursor in ("", "x", "12", "x-demo", "²-demo"):
        with pytest.raises(ValueError, match="is not a cursor"):
            await store.conversations("home", limit=1, cursor=cursor)


async def test_closing_commits_what_is_queued(store: Store) -> None:
    told: list[StoreError | None] = []
    store.append(batch(0, b"one", done=told.append))
    await store.close()
    await asyncio.sleep(0)
    assert told == [None]


async def test_secrets_are_kept_by_name_replaced_and_removed(store: Store) -> None:
    async def kept() -> dict[str, bytes | None]:
        loaded = await store.load(REF)
        assert loaded is not None
        return {row.name: row.data for row in loaded.secrets}

    await commit(store, 0, b"one", secrets=[SecretRow("a", b"1"), SecretRow("b", b"2")])
    assert await kept() == {"a": b"1", "b": b"2"}
    await commit(store, 1, b"two", secrets=[SecretRow("a", None), SecretRow("b", b"3"), SecretRow("never", None)])
    assert await kept() == {"b": b"3"}
    await commit(store, 2, b"three")
    assert await kept() == {"b": b"3"}


async def test_secrets_belong_to_one_conversation_and_go_with_it(store: Store) -> None:
    other = ConversationRef("home", "other")
    await commit(store, 0, b"one", secrets=[SecretRow("a", b"1")])
    await commit(store, 0, b"one", ref=other, secrets=[SecretRow("a", b"2")])
    assert await store.delete(REF) is True
    await commit(store, 0, b"anew")
    loaded, theirs = await store.load(REF), await store.load(other)
    assert loaded is not None
    assert theirs is not None
    assert (loaded.secrets, theirs.secrets) == ([], [SecretRow("a", b"2")])
