"""Space on disk: what was removed is in no file, and nobody stands still for it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import pytest

from hermes_ws.errors import LogConflict, StoreError
from hermes_ws.store import upkeep
from hermes_ws.store.base import CommandRow, ConversationRef, Freed, InteractionRow, RunRow
from hermes_ws.store.migrations import APPLICATION_ID, MIGRATIONS, migrate
from hermes_ws.store.sqlite import SqliteStore
from tests.store.conftest import REF, batch, commit, read_all

OTHER = ConversationRef("home", "other")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "log.db")
    yield made
    await made.close()


def found_in(directory: Path, canary: bytes) -> list[str]:
    return [path.name for path in directory.iterdir() if canary in path.read_bytes()]


async def long_run(store: SqliteStore, count: int, data: bytes, ref: ConversationRef = REF, run_id: str = "r") -> int:
    """A run with ``count`` deltas, ended at 100; the head after it."""
    await commit(store, 0, b"begun", ref=ref, runs=[RunRow(run_id, "running", b"{}", 1)])
    await commit(store, 1, *[data] * count, deltas=[True] * count, sync=False, ref=ref)
    await commit(store, 1 + count, b"ended", ref=ref, runs=[RunRow(run_id, "completed", b"{}", 100)])
    return count + 2


async def test_what_was_deleted_is_in_no_file(store: SqliteStore, tmp_path: Path) -> None:
    canary = b"the canary sings"
    await commit(
        store,
        0,
        *[canary, canary * 1_000] * 50,
        summary=canary,
        runs=[RunRow("run_1", "running", canary, 1)],
        interactions=[InteractionRow("int_1", canary, canary, 1)],
        commands=[CommandRow("me", "c1", b"", canary, 1)],
    )
    await commit(store, 0, b"stays", ref=OTHER)
    assert found_in(tmp_path, canary)
    assert await store.delete(REF)
    await store.purge()
    assert found_in(tmp_path, canary) == []
    assert found_in(tmp_path, b"stays")


async def test_what_was_compacted_is_in_no_file(store: SqliteStore, tmp_path: Path) -> None:
    await long_run(store, 200, b"the canary sings")
    assert found_in(tmp_path, b"the canary sings")
    await store.compact(1_000)
    assert found_in(tmp_path, b"the canary sings") == []


async def test_space_goes_back_to_the_file_system(store: SqliteStore, tmp_path: Path) -> None:
    await commit(store, 0, *[b"x" * 100_000] * 100)
    assert await store._writer.empty_wal()
    before = (tmp_path / "log.db").stat().st_size
    await store.delete(REF)
    assert await store.purge() == Freed(100, 10_000_000)
    assert await store.give_back() > 9_000_000
    assert (tmp_path / "log.db").stat().st_size < before - 9_000_000
    assert (tmp_path / "log.db-wal").stat().st_size == 0
    assert await store.give_back() == 0


@pytest.mark.parametrize("work", ["purge", "compact", "give_back"])
async def test_appends_commit_between_the_slices(
    store: SqliteStore, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SLICE_ROWS", 10)
    monkeypatch.setattr(upkeep, "SLICE_PAGES", 10)
    await long_run(store, 300, b"x" * 3_000)
    await commit(store, 0, b"one", ref=OTHER)
    if work != "compact":
        await store.delete(REF)
    if work == "give_back":
        await store.purge()
    done = False
    committed_meanwhile = 0

    async def append() -> None:
        nonlocal committed_meanwhile
        head = 1
        while not done:
            assert await commit(store, head, b"more", ref=OTHER) is None
            head += 1
            committed_meanwhile += not done

    appending = asyncio.create_task(append())
    if work == "compact":
        assert await store.compact(1_000) == Freed(300, 900_000)
    elif work == "purge":
        assert (await store.purge()).events == 302
    else:
        assert await store.give_back() > 0
    done = True
    await appending
    assert committed_meanwhile >= 5


async def test_slices_are_bounded_by_weight_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await long_run(store, 20, b"x" * 1_000)
    await long_run(store, 20, b"x" * 1_000, ref=OTHER, run_id="s")
    await store.delete(OTHER)
    await store.close()
    monkeypatch.setattr(upkeep, "SLICE_BYTES", 5_000)
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as db:
        compacted = list(iter(lambda: upkeep.compact_slice(db, 1_000), None))
        purged = list(iter(lambda: upkeep.purge_slice(db), None))
    assert sum(freed.events for freed in compacted) == 20
    assert sum(freed.events for freed in purged) == 22
    assert max(freed.bytes for freed in compacted + purged) <= 5_000


async def test_an_interrupted_compaction_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await long_run(store, 30, b"xyz")
    await store.close()
    monkeypatch.setattr(upkeep, "SLICE_ROWS", 10)
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as db:
        assert upkeep.compact_slice(db, 1_000) == Freed(9, 27)
        assert db.execute("SELECT compacted_to, bytes FROM conversations").fetchone() == (10, 73)
    again = await SqliteStore.open(tmp_path / "log.db")
    assert await again.compact(1_000) == Freed(21, 63)
    loaded = await again.load(REF)
    assert loaded is not None
    assert loaded.bytes == 10
    await again.close()


async def test_a_writer_notices_what_another_one_removed(tmp_path: Path) -> None:
    one, other = await SqliteStore.open(tmp_path / "log.db"), await SqliteStore.open(tmp_path / "log.db")
    await commit(one, 0, b"one")
    await commit(one, 1, b"two", deltas=[True], sync=False)
    assert await other.delete(REF)
    await other.purge()
    await commit(other, 0, b"one", ref=OTHER)
    assert isinstance(await commit(one, 2, b"three", deltas=[True], sync=False), LogConflict)
    assert len(await read_all(one, OTHER)) == 1
    await one.close()
    await other.close()


async def test_the_key_of_a_deleted_conversation_is_not_given_away(store: SqliteStore, tmp_path: Path) -> None:
    keys: list[int] = []
    for _ in range(3):
        await commit(store, 0, b"one")
        with closing(sqlite3.connect(tmp_path / "log.db")) as db:
            keys += [key for (key,) in db.execute("SELECT key FROM conversations")]
        await store.delete(REF)
        await store.purge()
    assert keys == [1, 2, 3]


async def test_work_that_crashes_is_told_and_the_writer_goes_on(store: SqliteStore) -> None:
    def crash(db: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store._writer.call(crash)
    assert await commit(store, 0, b"one") is None


async def test_a_sweep_that_the_end_overtakes_says_so(store: SqliteStore) -> None:
    await long_run(store, 10, b"x")
    closing_ = asyncio.create_task(store.close())
    await closing_
    with pytest.raises(StoreError, match="closed"):
        await store.sweep(1_000)


def test_a_log_of_the_first_version_is_weighed_and_can_shrink_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(MIGRATIONS[0])
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO conversations VALUES (1, 'home', 'demo', 'ep_1', 2, 1, 1000, x'')")
        db.execute(
            "INSERT INTO runs (run_id, conversation, status, options, updated_at) VALUES ('r', 1, 'completed', x'', 1)"
        )
        for seq in (1, 2, 3):
            db.execute("INSERT INTO events VALUES (1, ?, ?, ?)", (seq, seq > 1, b"x" * 10_000 * seq))
    migrate(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert db.execute("SELECT bytes FROM conversations").fetchone() == (30_000,), "up to its head; 3 came after it"
        assert upkeep.compact_slice(db, 1_000) is None, "where that run's end is, nobody has written down"
        db.execute("DELETE FROM events")
        assert (upkeep.give_back_slice(db) or 0) > 40_000


async def test_a_conversation_of_the_first_version_weighs_what_its_events_do(tmp_path: Path) -> None:
    test_a_log_of_the_first_version_is_weighed_and_can_shrink_afterwards(tmp_path)
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as db:
        db.execute("INSERT INTO events VALUES (1, 3, 1, x'010203')")
    store = await SqliteStore.open(tmp_path / "log.db")
    loaded = await store.load(REF)
    assert loaded is not None
    assert (loaded.head, loaded.bytes) == (3, 30_003)
    await store.close()


async def test_a_log_made_now_can_shrink_without_being_written_anew(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await store.close()
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)


async def test_a_reader_of_an_older_state_keeps_the_wal_and_nothing_else(store: SqliteStore, tmp_path: Path) -> None:
    await long_run(store, 50, b"x")
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM events").fetchone()
        assert await store.sweep(1_000) == Freed(50, 50)
        assert (tmp_path / "log.db-wal").stat().st_size > 0
        db.execute("ROLLBACK")
    assert await store._writer.empty_wal()
    assert (tmp_path / "log.db-wal").stat().st_size == 0


async def test_deletion_waits_its_turn_behind_the_appends(store: SqliteStore) -> None:
    told: list[object] = []
    store.append(batch(0, b"one", done=told.append))
    assert await store.delete(REF) is True
    assert told == [None]
