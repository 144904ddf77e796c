"""What a store keeps beside the log (``hermes_ws.store.base``): records, runs by id and by time, pages of finals."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hermes_ws.store.base import ConversationRef, RecordRow, RunRow, Store
from hermes_ws.store.migrations import APPLICATION_ID, MIGRATIONS, migrate
from hermes_ws.store.sqlite import RUNS_PAGE, SqliteStore
from tests.store.conftest import REF, batch, commit, read_all

OTHER = ConversationRef("home", "other")
AWAY = ConversationRef("away", "demo")


def record(record_id: str, at: int = 1, data: bytes = b"{}", kind: str = "response") -> RecordRow:
    return RecordRow(kind, record_id, at, data)


def run(run_id: str, at: int = 1, status: str = "running", options: bytes = b"{}") -> RunRow:
    return RunRow(run_id, status, options, at)


# -- records -------------------------------------------------------------------------------------------


async def test_a_record_is_kept_with_the_events_of_its_commit(store: Store) -> None:
    row = record("resp_1", 7, b"asked")
    assert await store.record("home", "response", "resp_1") is None
    await commit(store, 0, b"one", records=[row])
    assert await store.record("home", "response", "resp_1") == (REF, row)
    assert await store.records(REF, "response") == [row]


async def test_a_record_may_be_kept_without_an_event(store: Store) -> None:
    await commit(store, 0, b"one")
    assert await commit(store, 1, records=[record("resp_1")]) is None
    assert await store.records(REF, "response") == [record("resp_1")]
    assert await read_all(store) == [(1, b"one")]


async def test_a_refused_append_keeps_no_record_and_replaces_none(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("resp_1", data=b"first")])
    assert await commit(store, 7, b"x", records=[record("resp_1", data=b"second"), record("resp_2")]) is not None
    assert await store.records(REF, "response") == [record("resp_1", data=b"first")]
    assert await store.record("home", "response", "resp_2") is None


async def test_a_record_is_replaced_by_one_of_the_same_id(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("resp_1", 1, b"first")])
    await commit(store, 1, b"two", records=[record("resp_1", 2, b"second")])
    assert await store.records(REF, "response") == [record("resp_1", 2, b"second")]


async def test_of_two_in_one_commit_the_later_one_stays(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("resp_1", data=b"first"), record("resp_1", data=b"second")])
    assert await store.records(REF, "response") == [record("resp_1", data=b"second")]


async def test_records_of_another_kind_are_others(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("x", kind="response"), record("x", 2, kind="idempotency")])
    assert await store.records(REF, "response") == [record("x", kind="response")]
    assert await store.record("home", "idempotency", "x") == (REF, record("x", 2, kind="idempotency"))
    assert await store.records(REF, "nothing") == []


async def test_records_of_a_conversation_come_oldest_first_and_by_id_where_that_is_the_same(store: Store) -> None:
    rows = [record("c", 1), record("a", 3), record("b", 2), record("d", 2)]
    await commit(store, 0, b"one", records=rows[:2])
    await commit(store, 1, b"two", records=rows[2:])
    await commit(store, 0, b"one", ref=OTHER, records=[record("e", 0)])
    assert [row.record_id for row in await store.records(REF, "response")] == ["c", "b", "d", "a"]
    assert [row.record_id for row in await store.records(OTHER, "response")] == ["e"]


async def test_the_same_id_in_another_namespace_is_another_record(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("resp_1", data=b"ours")])
    await commit(store, 0, b"one", ref=AWAY, records=[record("resp_1", data=b"theirs")])
    assert await store.record("home", "response", "resp_1") == (REF, record("resp_1", data=b"ours"))
    assert await store.record("away", "response", "resp_1") == (AWAY, record("resp_1", data=b"theirs"))
    assert await store.record("nowhere", "response", "resp_1") is None


async def test_an_id_that_another_conversation_takes_over_is_that_ones(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("resp_1", data=b"first")])
    await commit(store, 0, b"one", ref=OTHER, records=[record("resp_1", data=b"second")])
    assert await store.record("home", "response", "resp_1") == (OTHER, record("resp_1", data=b"second"))
    assert await store.records(REF, "response") == []
    assert await store.delete(REF) is True
    assert await store.record("home", "response", "resp_1") == (OTHER, record("resp_1", data=b"second"))


async def test_records_go_with_their_conversation_and_stay_gone(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("resp_1")])
    await commit(store, 0, b"one", ref=OTHER, records=[record("resp_2")])
    assert await store.delete(REF) is True
    assert await store.record("home", "response", "resp_1") is None
    await commit(store, 0, b"anew")
    assert await store.records(REF, "response") == []
    assert await store.records(OTHER, "response") == [record("resp_2")]


async def test_a_record_is_forgotten_once(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("resp_1"), record("resp_2")])
    await commit(store, 0, b"one", ref=AWAY, records=[record("resp_1")])
    assert await store.forget_record("home", "response", "resp_1") is True
    assert await store.forget_record("home", "response", "resp_1") is False
    assert await store.forget_record("home", "other kind", "resp_2") is False
    assert await store.records(REF, "response") == [record("resp_2")]
    assert await store.records(AWAY, "response") == [record("resp_1")]


async def test_a_record_that_is_just_being_written_is_forgotten_too(store: Store) -> None:
    store.append(batch(0, b"one", done=lambda error: None, records=[record("resp_1")]))
    assert await store.forget_record("home", "response", "resp_1") is True
    assert await store.records(REF, "response") == []


async def test_old_records_of_a_kind_are_forgotten_and_young_ones_kept(store: Store) -> None:
    await commit(store, 0, b"one", records=[record("old", 1), record("new", 5), record("old", 1, kind="idempotency")])
    await commit(store, 0, b"one", ref=AWAY, records=[record("old", 4)])
    assert await store.forget_records("response", 5) == 2
    assert await store.records(REF, "response") == [record("new", 5)]
    assert await store.records(AWAY, "response") == []
    assert await store.records(REF, "idempotency") == [record("old", 1, kind="idempotency")]


async def test_any_bytes_and_any_ids_come_back_as_they_were(store: Store) -> None:
    row = RecordRow("a kind", "' OR 1=1 --\x00ü\U0001f600", 0, bytes(range(256)))
    await commit(store, 0, b"one", records=[row, record("empty", data=b"")])
    assert await store.record("home", row.kind, row.record_id) == (REF, row)
    assert await store.record("home", "response", "empty") == (REF, record("empty", data=b""))


# -- runs ----------------------------------------------------------------------------------------------


async def test_a_run_is_found_by_its_id_alone_with_the_conversation_it_is_of(store: Store) -> None:
    row = run("run_1", options=b'{"first_seq":2}')
    await commit(store, 0, b"one", ref=OTHER, runs=[row])
    assert await store.find_run("home", "run_1") == (OTHER, row)
    assert await store.find_run("home", "run_2") is None


async def test_a_run_of_another_namespace_is_not_found(store: Store) -> None:
    await commit(store, 0, b"one", ref=AWAY, runs=[run("run_1")])
    assert await store.find_run("home", "run_1") is None
    assert (await store.runs("home", limit=10, cursor=None)).lines == []


async def test_a_run_is_found_as_it_is_now(store: Store) -> None:
    await commit(store, 0, b"one", runs=[run("run_1")])
    await commit(store, 1, b"two", runs=[run("run_1", 2, "completed")])
    assert await store.find_run("home", "run_1") == (REF, run("run_1", 2, "completed"))


async def test_runs_go_with_their_conversation(store: Store) -> None:
    await commit(store, 0, b"one", runs=[run("run_1")])
    assert await store.delete(REF) is True
    assert await store.find_run("home", "run_1") is None
    assert (await store.runs("home", limit=10, cursor=None)).lines == []


async def test_runs_are_listed_by_what_happened_last_page_by_page(store: Store) -> None:
    for number in range(7):
        ref = ConversationRef("home", f"c{number % 2}")
        await commit(store, number // 2, b"x", ref=ref, runs=[run(f"run_{number}", 100 + number // 3)])
    await commit(store, 0, b"x", ref=AWAY, runs=[run("hidden", 999)])
    seen: list[tuple[str, str]] = []
    cursor: str | None = None
    for _ in range(10):
        page = await store.runs("home", limit=2, cursor=cursor)
        assert 1 <= len(page.lines) <= 2
        seen += [(ref.conversation_id, row.run_id) for ref, row in page.lines]
        cursor = page.next
        if cursor is None:
            break
    assert seen == [(f"c{n % 2}", f"run_{n}") for n in (6, 5, 4, 3, 2, 1, 0)]


async def test_a_page_that_is_just_full_is_the_last_one(store: Store) -> None:
    await commit(store, 0, b"one", runs=[run("run_1"), run("run_2")])
    page = await store.runs("home", limit=2, cursor=None)
    assert (len(page.lines), page.next) == (2, None)


async def test_a_run_that_goes_on_between_two_pages_is_missed_by_neither_and_hides_none(store: Store) -> None:
    await commit(store, 0, b"one", runs=[run(f"run_{n}", n) for n in range(4)])
    first = await store.runs("home", limit=2, cursor=None)
    await commit(store, 1, b"two", runs=[run("run_0", 50)])
    second = await store.runs("home", limit=2, cursor=first.next)
    assert [row.run_id for _, row in [*first.lines, *second.lines]] == ["run_3", "run_2", "run_1"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "12", "x-run_1", "-1-run_1", "²-run_1", "1" * 19 + "-run_1", "9" * 400 + "-x", " 1-x", "1e3-x"]
)
async def test_a_cursor_that_no_list_gave_is_refused(store: Store, cursor: str) -> None:
    await commit(store, 0, b"one", runs=[run("run_1")])
    with pytest.raises(ValueError, match="is not a cursor"):
        await store.runs("home", limit=1, cursor=cursor)
    with pytest.raises(ValueError, match="is not a cursor"):
        await store.conversations("home", limit=1, cursor=cursor)


@pytest.mark.parametrize("cursor", ["0-", "0-\x00", "999999999999999999-' OR 1=1 --", "5-ü\U0001f600"])
async def test_a_cursor_that_somebody_made_up_is_a_place_in_the_list_like_any_other(store: Store, cursor: str) -> None:
    await commit(store, 0, b"one", runs=[run("run_1", 1_000)])
    page = await store.runs("home", limit=1, cursor=cursor)
    assert len(page.lines) == (1 if cursor.startswith("9") else 0)


# -- pages without deltas ------------------------------------------------------------------------------


async def test_a_page_without_deltas_has_the_finals_under_their_numbers(store: Store) -> None:
    await commit(store, 0, b"1", b"2", b"3", b"4", b"5", deltas=[False, True, True, False, True])
    page = await store.read(REF, after=0, limit=10, max_bytes=1_000, deltas=False)
    assert page == [(1, b"1"), (4, b"4")]
    assert await store.read(REF, after=1, limit=10, max_bytes=1_000, deltas=False) == [(4, b"4")]
    assert await store.read(REF, after=4, limit=10, max_bytes=1_000, deltas=False) == []


async def test_deltas_do_not_count_towards_a_page_without_them(store: Store) -> None:
    many = [(b"d" * 500, True)] * 50
    logged = [(b"first", False), *many, (b"second", False), *many, (b"third", False)]
    await commit(store, 0, *[data for data, _ in logged], deltas=[delta for _, delta in logged])
    assert [e.seq for e in await store.read(REF, after=0, limit=2, max_bytes=100, deltas=False)] == [1, 52]
    assert [e.seq for e in await store.read(REF, after=1, limit=2, max_bytes=100, deltas=False)] == [52, 103]


async def test_a_page_without_deltas_is_bounded_in_bytes_but_never_empty(store: Store) -> None:
    await commit(store, 0, *[b"x" * 100] * 10)
    assert len(await store.read(REF, after=0, limit=10, max_bytes=250, deltas=False)) == 2
    assert len(await store.read(REF, after=0, limit=10, max_bytes=1, deltas=False)) == 1


async def test_paging_without_deltas_comes_to_all_finals_whatever_the_page(store: Store) -> None:
    deltas = [n % 3 != 0 for n in range(60)]
    await commit(store, 0, *[b"%d" % n * (n % 7 + 1) for n in range(60)], deltas=deltas)
    for limit, max_bytes in [(1, 1_000), (3, 5), (100, 10), (100, 10_000)]:
        seen, after = list[int](), 0
        while page := await store.read(REF, after=after, limit=limit, max_bytes=max_bytes, deltas=False):
            seen += [event.seq for event in page]
            after = seen[-1]
        assert seen == [n + 1 for n in range(60) if n % 3 == 0]


# -- databases of before -------------------------------------------------------------------------------


TABLES = ("conversations", "events", "runs", "commands", "secrets")


def _old_log(path: Path, version: int) -> dict[str, list[Any]]:
    """A log as an earlier version wrote it, with something in every table that matters; what is in those."""
    with closing(sqlite3.connect(path)) as db:
        for script in MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
        db.execute(
            "INSERT INTO conversations (key, namespace, id, epoch, head, floor, last_event_at, summary)"
            " VALUES (1, 'home', 'demo', 'ep_1', 2, 1, 9, x'7b7d')"
        )
        db.executemany("INSERT INTO events VALUES (1, ?, ?, ?)", [(1, 0, b"one"), (2, 1, b"de")])
        db.execute(
            "INSERT INTO runs (run_id, conversation, status, options, updated_at, head)"
            " VALUES ('run_1', 1, 'running', x'7b7d', 7, 2)"
        )
        db.execute("INSERT INTO commands VALUES (1, 'me', 'c1', x'01', x'7b7d', 5)")
        db.execute("INSERT INTO secrets VALUES (1, 'a', x'02')")
        db.commit()
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


async def test_a_log_of_before_there_were_records_keeps_everything_and_takes_some(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    version = next(n for n, script in enumerate(MIGRATIONS) if "CREATE TABLE records" in script)
    before = _old_log(path, version)
    store = await SqliteStore.open(path)
    with closing(sqlite3.connect(path)) as db:
        now = {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    shorter = {table: [row[: len(old[0])] for row in now[table]] for table, old in before.items()}
    assert shorter == before, "what columns came later stand behind those"
    assert await store.read(REF, after=0, limit=10, max_bytes=100, deltas=False) == [(1, b"one")]
    assert await store.find_run("home", "run_1") == (REF, run("run_1", 7))
    assert [row.run_id for _, row in (await store.runs("home", limit=10, cursor=None)).lines] == ["run_1"]
    assert await store.records(REF, "response") == []
    assert await commit(store, 2, b"three", records=[record("resp_1")]) is None
    await store.close()
    again = await SqliteStore.open(path)
    assert await again.records(REF, "response") == [record("resp_1")]
    await again.close()


def test_a_page_of_runs_is_read_off_an_index_and_not_sorted(tmp_path: Path) -> None:
    migrate(tmp_path / "log.db")
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {RUNS_PAGE}", ("home", 9, "run_9", 10))]
    assert "runs_by_time" in plan[0]
    assert not any("TEMP B-TREE" in step for step in plan)
