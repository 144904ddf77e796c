"""What goes again: deltas of runs long over, deleted conversations, approvals of runs. Over every store there is."""

from __future__ import annotations

from hermes_ws.errors import LogConflict
from hermes_ws.store.base import CommandRow, ConversationRef, Freed, InteractionRow, RuleRow, RunRow, Store
from tests.store.conftest import REF, batch, commit, read_all

OTHER = ConversationRef("home", "other")


async def weight_of(store: Store, ref: ConversationRef = REF) -> int:
    """What the store says that a conversation weighs, which must be what its events weigh."""
    loaded = await store.load(ref)
    assert loaded is not None
    assert loaded.bytes == sum(len(event.data) for event in await read_all(store, ref))
    return loaded.bytes


async def finish_a_run(store: Store, head: int, *, run_id: str, at: int, ref: ConversationRef = REF) -> int:
    """A run with two deltas between its finals, ended at ``at``; the head after it."""
    await commit(store, head, b"begun", ref=ref, runs=[RunRow(run_id, "running", b"{}", at - 1)])
    await commit(store, head + 1, b"d1", b"d2", ref=ref, deltas=[True, True], sync=False)
    await commit(store, head + 3, b"ended", ref=ref, runs=[RunRow(run_id, "completed", b"{}", at)])
    return head + 4


async def test_a_run_is_found_in_its_conversation_also_when_it_has_ended(store: Store) -> None:
    queued, ended = RunRow("run_1", "queued", b"{}", 1), RunRow("run_0", "failed", b'{"a":1}', 2)
    await commit(store, 0, b"one", runs=[queued, ended])
    assert await store.run(REF, "run_1") == queued
    assert await store.run(REF, "run_0") == ended
    assert await store.run(REF, "run_2") is None
    assert await store.run(OTHER, "run_0") is None
    assert await store.run(ConversationRef("away", "demo"), "run_0") is None


async def test_a_conversation_weighs_what_its_events_do(store: Store) -> None:
    await commit(store, 0, b"one", b"three", deltas=[False, True])
    assert await weight_of(store) == 8
    for head in range(2, 6):
        await commit(store, head, b"x" * head, deltas=[True], sync=False, at=2_000 + 700 * head)
        assert await weight_of(store) == 8 + sum(range(2, head + 1))
    await commit(store, 6, b"final")
    await commit(store, 7, commands=[CommandRow("me", "c1", b"", b"", 1)])
    assert await weight_of(store) == 27


async def test_a_refused_append_weighs_nothing(store: Store) -> None:
    await commit(store, 0, b"one")
    assert isinstance(await commit(store, 5, b"a long one"), LogConflict)
    assert await weight_of(store) == 3


async def test_the_approvals_of_a_run_end_with_it(store: Store) -> None:
    rules = [
        RuleRow("rule_1", "run", "me", "demo", "run_1", b"{}"),
        RuleRow("rule_2", "run", "me", "demo", "run_2", b"{}"),
        RuleRow("rule_3", "conversation", "me", "demo", None, b"{}"),
        RuleRow("rule_4", "always", "me", "demo", None, b"{}"),
    ]
    await commit(store, 0, b"one", runs=[RunRow("run_1", "running", b"{}", 1)], rules=rules)
    await commit(store, 0, b"one", ref=OTHER, rules=[rules[0]._replace(rule_id="rule_5")])
    await commit(store, 1, b"two", runs=[RunRow("run_1", "waiting", b"{}", 2)])
    loaded = await store.load(REF)
    assert loaded is not None
    assert loaded.rules == rules[:3]
    late = RuleRow("rule_6", "run", "me", "demo", "run_1", b"{}")
    await commit(store, 2, b"three", runs=[RunRow("run_1", "cancelled", b"{}", 3)], rules=[late])
    loaded = await store.load(REF)
    assert loaded is not None
    assert loaded.rules == rules[1:3]
    assert await store.always_rules("home", "me", "demo") == [rules[3]]
    other = await store.load(OTHER)
    assert other is not None
    assert len(other.rules) == 1


async def test_deltas_of_runs_that_ended_long_ago_go_and_everything_else_stays(store: Store) -> None:
    head = await finish_a_run(store, 0, run_id="run_1", at=100)
    head = await finish_a_run(store, head, run_id="run_2", at=200)
    await commit(store, head, b"begun", runs=[RunRow("run_3", "running", b"{}", 250)])
    await commit(store, head + 1, b"d5", deltas=[True], sync=False)
    assert await store.compact(200) == Freed(2, 4)
    assert [event.seq for event in await read_all(store)] == [1, 4, 5, 6, 7, 8, 9, 10]
    assert await weight_of(store) == 10 + 14 + 7
    assert await store.compact(10_000) == Freed(2, 4)
    assert [event.seq for event in await read_all(store)] == [1, 4, 5, 8, 9, 10]
    loaded = await store.load(REF)
    assert loaded is not None
    assert (loaded.head, loaded.floor) == (10, 1)
    assert await commit(store, 10, b"more") is None


async def test_compacting_again_finds_nothing_more(store: Store) -> None:
    await finish_a_run(store, 0, run_id="run_1", at=100)
    assert await store.compact(101) == Freed(2, 4)
    assert await store.compact(101) == Freed(0, 0)
    assert await store.compact(10_000) == Freed(0, 0)


async def test_a_run_that_ended_out_of_turn_is_not_forgotten(store: Store) -> None:
    await finish_a_run(store, 0, run_id="run_1", at=900)
    assert await store.compact(500) == Freed(0, 0)
    await finish_a_run(store, 4, run_id="run_2", at=100)
    assert await store.compact(500) == Freed(4, 8), "one run at a time: what is before the end of one is of ended ones"
    assert await store.compact(1_000) == Freed(0, 0)


async def test_the_end_of_a_run_that_never_began_says_nothing_about_the_deltas_before_it(
    store: Store,
) -> None:
    await commit(store, 0, b"begun", runs=[RunRow("run_1", "running", b"{}", 1)])
    await commit(store, 1, b"d1", deltas=[True], sync=False)
    await commit(store, 2, b"queued", runs=[RunRow("run_2", "queued", b"{}", 2)])
    await commit(store, 3, b"dropped", runs=[RunRow("run_2", "cancelled", b"{}", 3, began=False)])
    assert await store.compact(1_000) == Freed(0, 0)
    await commit(store, 4, b"ended", runs=[RunRow("run_1", "completed", b"{}", 4)])
    assert await store.compact(1_000) == Freed(1, 2)


async def test_what_a_conversation_weighs_can_be_asked_for_without_loading_it(store: Store) -> None:
    assert await store.weight(REF) == 0
    await finish_a_run(store, 0, run_id="run_1", at=100)
    assert await store.weight(REF) == await weight_of(store)
    before = await store.weight(REF)
    assert await store.compact(1_000) == Freed(2, 4)
    assert await store.weight(REF) == await weight_of(store) == before - 4
    await commit(store, 0, b"one", ref=OTHER)
    await store.delete(REF)
    assert (await store.weight(REF), await store.weight(OTHER)) == (0, 3)


async def test_pages_go_on_over_what_was_compacted(store: Store) -> None:
    head = await finish_a_run(store, 0, run_id="run_1", at=100)
    await finish_a_run(store, head, run_id="run_2", at=900)
    await store.compact(500)
    page = await store.read(REF, after=1, limit=2, max_bytes=1_000)
    assert [event.seq for event in page] == [4, 5]
    page = await store.read(REF, after=2, limit=3, max_bytes=1_000)
    assert [event.seq for event in page] == [4, 5, 6]


async def fill(store: Store, ref: ConversationRef = REF) -> None:
    """A conversation with one of everything."""
    await commit(
        store,
        0,
        b"one",
        ref=ref,
        summary=b"{}",
        runs=[RunRow("run_1", "running", b"{}", 1)],
        interactions=[InteractionRow("int_1", b"asked", None, 1)],
        commands=[CommandRow("me", "c1", b"digest", b"ok", 1)],
        rules=[
            RuleRow("rule_1", "conversation", "me", "demo", None, b"{}"),
            RuleRow("rule_2", "always", "me", "demo", None, b"{}"),
        ],
    )


async def test_a_deleted_conversation_is_gone_for_everybody(store: Store) -> None:
    await fill(store)
    assert await store.delete(REF) is True
    assert await store.load(REF) is None
    assert await read_all(store) == []
    assert await store.run(REF, "run_1") is None
    assert await store.command(REF, "me", "c1") is None
    assert (await store.conversations("home", limit=10, cursor=None)).lines == []
    assert list(await store.unfinished()) == []
    assert await store.forget_commands(1_000) == 0
    assert len(await store.always_rules("home", "me", "demo")) == 1
    assert isinstance(await commit(store, 1, b"two"), LogConflict)
    assert isinstance(await commit(store, 1, b"two", deltas=[True], sync=False), LogConflict)


async def test_what_does_not_exist_cannot_be_deleted(store: Store) -> None:
    assert await store.delete(REF) is False
    await fill(store)
    assert await store.delete(OTHER) is False
    assert await store.delete(REF) is True
    assert await store.delete(REF) is False
    assert await store.deleted() == [REF]


async def test_deleting_comes_after_what_was_appended_before(store: Store) -> None:
    await fill(store)
    told: list[object] = []
    for head in range(1, 50):
        store.append(batch(head, b"x", done=told.append, sync=False, deltas=[True]))
    assert await store.delete(REF) is True
    assert told == [None] * 49
    assert await store.purge() == Freed(50, 52)


async def test_a_deleted_conversation_can_be_created_anew_at_once(store: Store) -> None:
    await fill(store)
    await commit(store, 1, b"old two", b"old three")
    await store.delete(REF)
    assert await store.deleted() == [REF]
    assert await commit(store, 0, b"new one", epoch="ep_2") is None
    assert await store.deleted() == [], "its files are the new one's"
    assert await read_all(store) == [(1, b"new one")]
    loaded = await store.load(REF)
    assert loaded is not None
    assert (loaded.epoch, loaded.head, loaded.bytes, loaded.runs, loaded.rules) == ("ep_2", 1, 7, [], [])
    assert await store.purge() == Freed(3, 19)
    assert await read_all(store) == [(1, b"new one")]
    assert await commit(store, 1, b"new two") is None
    assert await store.delete(REF) is True
    assert await store.deleted() == [REF]


async def test_purging_ends_with_the_tombstones(store: Store) -> None:
    await fill(store)
    await fill(store, OTHER)
    await store.delete(REF)
    await store.delete(OTHER)
    assert sorted(await store.deleted()) == [REF, OTHER]
    assert await store.purge() == Freed(2, 6)
    assert await store.deleted() == []
    assert await store.purge() == Freed(0, 0)


async def test_deleting_one_leaves_the_others(store: Store) -> None:
    await fill(store)
    await finish_a_run(store, 0, run_id="run_8", at=100, ref=OTHER)
    await store.delete(REF)
    await store.purge()
    assert len(await read_all(store, OTHER)) == 4
    assert await store.run(OTHER, "run_8") is not None
    assert await weight_of(store, OTHER) == 14


async def test_a_sweep_does_all_of_it(store: Store) -> None:
    await fill(store)
    await finish_a_run(store, 0, run_id="run_8", at=100, ref=OTHER)
    await store.delete(REF)
    assert await store.sweep(1_000) == Freed(3, 7)
    assert await store.deleted() == []
    assert await store.give_back() == 0
