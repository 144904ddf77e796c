"""The log on disk: what it promises beyond the contract."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hermes_ws.errors import DataDirError, LogConflict, StorageFull, StoreError
from hermes_ws.store.base import ConversationRef, InteractionRow
from hermes_ws.store.directory import DataDirectory
from hermes_ws.store.migrations import APPLICATION_ID, MIGRATIONS, migrate
from hermes_ws.store.sqlite import BY_NEED, BY_TIME, OPEN_INTERACTIONS, SOME_LINES, SqliteStore
from tests.store.conftest import REF, batch, commit


async def test_the_log_survives_being_closed_and_opened(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await commit(store, 0, b"one", b"two")
    await store.close()
    again = await SqliteStore.open(tmp_path / "log.db")
    assert await again.read(REF, after=0, limit=10, max_bytes=1000) == [(1, b"one"), (2, b"two")]
    assert await commit(again, 2, b"three") is None
    await again.close()


async def test_two_writers_cannot_both_claim_a_number(tmp_path: Path) -> None:
    one, other = await SqliteStore.open(tmp_path / "log.db"), await SqliteStore.open(tmp_path / "log.db")
    await commit(one, 0, b"one")
    assert await commit(other, 1, b"two of the other") is None
    assert isinstance(await commit(one, 1, b"two"), LogConflict)
    assert await commit(one, 2, b"three") is None
    await one.close()
    await other.close()


async def test_a_conversation_is_as_far_as_its_deltas(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await commit(store, 0, b"one", at=1_000, summary=b"{}")
    await commit(store, 1, b"two", at=1_001, deltas=[True], sync=False)
    await store.close()
    again = await SqliteStore.open(tmp_path / "log.db")
    loaded = await again.load(REF)
    assert loaded is not None
    assert loaded.head == 2
    assert [line.head for line in (await again.conversations("home", limit=10, cursor=None)).lines] == [2]
    assert isinstance(await commit(again, 1, b"another two", deltas=[True], sync=False), LogConflict)
    assert await commit(again, 2, b"three", deltas=[True], sync=False) is None
    await again.close()


async def test_a_stream_of_deltas_moves_the_time_of_its_conversation_now_and_then(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await commit(store, 0, b"one", at=1_000)
    times: list[int] = []
    for head, at in enumerate((1_500, 1_999, 2_000, 2_999, 3_500), 1):
        await commit(store, head, b"delta", at=at, deltas=[True], sync=False)
        times += [line.last_event_at for line in (await store.conversations("home", limit=1, cursor=None)).lines]
    assert times == [1_000, 1_000, 2_000, 2_000, 3_500]
    await store.close()


async def test_two_writers_of_deltas_cannot_both_claim_a_number(tmp_path: Path) -> None:
    one, other = await SqliteStore.open(tmp_path / "log.db"), await SqliteStore.open(tmp_path / "log.db")
    await commit(one, 0, b"one")
    assert await commit(other, 1, b"two of the other", deltas=[True], sync=False) is None
    assert isinstance(await commit(one, 1, b"two", deltas=[True], sync=False), LogConflict)
    assert await commit(one, 2, b"three", deltas=[True], sync=False) is None
    await one.close()
    await other.close()


_SEEN_THEN_KILLED = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from hermes_ws.store.sqlite import SqliteStore
from tests.store.conftest import commit

async def main():
    store = await SqliteStore.open(Path({path!r}))
    head = 0
    while True:
        assert await commit(store, head, b"event", deltas=[head % 3 == 1]) is None
        head += 1
        os.write(1, b"%d\\n" % head)

asyncio.run(main())
"""


def test_what_was_told_committed_is_in_the_log_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    root = str(Path(__file__).parents[2])
    script = _SEEN_THEN_KILLED.format(root=root, path=str(path))
    for _ in range(3):
        path.unlink(missing_ok=True)
        path.with_name("log.db-wal").unlink(missing_ok=True)
        path.with_name("log.db-shm").unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        seen += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        last = max(int(line) for line in seen if line.endswith(b"\n"))
        with closing(sqlite3.connect(path)) as db:
            kept = [row[0] for row in db.execute("SELECT seq FROM events ORDER BY seq")]
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) >= last >= 200


async def test_a_full_disk_is_told_as_such_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await commit(store, 0, b"one")

    def cap(pages: int) -> None:
        def set_most_pages(db: sqlite3.Connection) -> None:
            db.execute(f"PRAGMA max_page_count = {pages}")

        store._writer._queue.put(set_most_pages)

    cap(1)
    refused = await commit(store, 1, b"x" * 1_000_000)
    assert isinstance(refused, StorageFull)
    cap(1_000_000)
    assert await commit(store, 1, b"x" * 1_000_000) is None
    await store.close()


async def test_reading_a_broken_log_is_a_store_error(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await commit(store, 0, b"one")
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        db.execute("DROP TABLE events")
    with pytest.raises(StoreError, match="refused"):
        await store.read(REF, after=0, limit=1, max_bytes=1)
    await store.close()


def test_a_new_log_is_marked_as_ours_and_of_the_newest_version(tmp_path: Path) -> None:
    migrate(tmp_path / "log.db")
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_every_older_version_comes_up_to_date(tmp_path: Path) -> None:
    for version in range(len(MIGRATIONS)):
        path = tmp_path / f"{version}.db"
        with closing(sqlite3.connect(path)) as db:
            for script in MIGRATIONS[:version]:
                db.executescript(script)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {version}")
        migrate(path)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


async def test_a_log_of_before_the_inbox_knows_what_waits_in_it(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    asked = b'{"type":"interaction.requested","interaction_id":"int_1","kind":"clarify","requested_at":77}'
    handed = asked.replace(b"clarify", b"client_tool").replace(b"int_1", b"int_8")
    version = next(n for n, script in enumerate(MIGRATIONS) if "COLUMN waiting" in script)
    with closing(sqlite3.connect(path)) as db:
        for script in MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
        lists = {"asks": asked, "rests": b"", "hands": handed}
        summaries = {name: b'{"interactions":[%s]}' % one for name, one in lists.items()} | {"odd": b"", "new": b"["}
        for key, (name, summary) in enumerate(summaries.items(), 1):
            db.execute(
                "INSERT INTO conversations (key, namespace, id, epoch, head, floor, last_event_at, summary)"
                " VALUES (?, 'home', ?, 'ep_1', 0, 1, ?, ?)",
                (key, name, key, summary),
            )
        rows = [
            (1, "int_1", asked, None),
            (1, "int_0", asked, b"{}"),
            (2, "copied", asked, None),
            (3, "int_8", handed, None),
            (4, "x", b"?", None),
        ]
        db.executemany("INSERT INTO interactions VALUES (?, ?, ?, ?)", rows)
        db.commit()
    store = await SqliteStore.open(path)
    page = await store.conversations("home", limit=10, cursor=None, waiting_first=True)
    assert [line.conversation_id for line in page.lines] == ["asks", "new", "odd", "hands", "rests"]
    assert (await store.open_interactions("home", limit=10, cursor=None)).lines == [("asks", asked), ("hands", handed)]
    later = InteractionRow("int_2", b"later", None, 78)
    await commit(store, 0, b"x", ref=ConversationRef("home", "more"), interactions=[later])
    listed = (await store.open_interactions("home", limit=10, cursor=None)).lines
    assert [data for _, data in listed] == [asked, handed, b"later"]
    await store.close()


@pytest.mark.parametrize(
    ("sql", "given", "index"),
    [
        (BY_TIME, ("home", 9, "c", 10), "conversations_by_time"),
        (BY_NEED, ("home", 1, 9, "c", 10), "conversations_by_need"),
        (OPEN_INTERACTIONS, ("home", 9, "i", 10), "interactions_open_by_age"),
        (SOME_LINES, ("home", '["c"]'), "sqlite_autoindex_conversations_1"),
    ],
)
def test_no_list_is_sorted_or_gone_through_as_a_whole(tmp_path: Path, sql: str, given: Any, index: str) -> None:
    migrate(tmp_path / "log.db")
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", given)]
    assert f"INDEX {index}" in plan[0]
    assert plan[0].startswith("SEARCH")
    assert not any("TEMP B-TREE" in step or step.startswith("SCAN c") for step in plan)


def test_a_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    migrate(tmp_path / "log.db")
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        db.execute("PRAGMA user_version = 999")
    with pytest.raises(DataDirError, match="newer hermes-ws"):
        migrate(tmp_path / "log.db")


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(DataDirError, match="something else"):
        migrate(tmp_path / "log.db")
    (tmp_path / "text.db").write_text("not a database at all, " * 100)
    with pytest.raises(DataDirError, match="cannot be opened"):
        migrate(tmp_path / "text.db")


def test_a_data_directory_is_one_servers_at_a_time(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path)
    with pytest.raises(DataDirError, match=rf"in use by another hermes-ws \(process {os.getpid()}\)"):
        DataDirectory(tmp_path)
    first.close()
    DataDirectory(tmp_path).close()


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError, match="cannot be used"):
        DataDirectory(tmp_path / "file" / "below")


def test_names_on_disk_say_nothing_of_ids(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    secret, other = ConversationRef("home", "..secret"), ConversationRef("home.", ".secret")
    assert "secret" not in directory.workdir(secret).name
    assert directory.workdir(secret) != directory.workdir(other)
    directory.close()


async def test_a_page_of_large_events_reads_few_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await commit(store, 0, *[b"x" * 30_000] * 200)
    fetched: list[int] = []
    fetch = store._all

    async def counting(sql: str, *parameters: Any) -> list[Any]:
        rows = await fetch(sql, *parameters)
        fetched.append(len(rows))
        return rows

    monkeypatch.setattr(store, "_all", counting)
    assert len(await store.read(REF, after=0, limit=1_000, max_bytes=65_536)) == 2
    assert sum(fetched) <= 16
    await store.close()


async def test_after_a_burst_the_wal_is_small_again_and_the_writer_free_of_checkpoints(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db", wal_limit_bytes=8_000_000)
    head = 0
    for _ in range(40):
        assert await commit(store, head, b"x" * 1_000_000) is None
        head += 1
    wal = tmp_path / "log.db-wal"
    await commit(store, head, b"x" * 4_500_000)
    await commit(store, head + 1, b"x")
    assert wal.stat().st_size < 20_000_000
    await store.close()


async def test_one_conversations_trouble_does_not_keep_the_next_from_being_told(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    told: list[str] = []
    both = asyncio.Event()

    def broken(error: StoreError | None) -> None:
        raise RuntimeError("trouble")

    def sane(error: StoreError | None) -> None:
        told.append("sane")
        both.set()

    store.append(batch(0, b"one", done=broken))
    store.append(batch(0, b"one", done=sane, ref=ConversationRef("home", "other")))
    await asyncio.wait_for(both.wait(), 10)
    assert told == ["sane"]
    await store.close()


async def test_an_append_that_cannot_be_bound_is_refused_and_the_writer_goes_on(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    assert isinstance(await commit(store, 0, b"one", at="noon"), StoreError)
    assert isinstance(await commit(store, 0, b"one", runs=["no row"]), StoreError)
    assert await commit(store, 0, b"one") is None
    await store.close()


async def test_a_closed_log_refuses(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await store.close()
    assert isinstance(await commit(store, 0, b"one"), StoreError)
    with pytest.raises(StoreError, match="closed"):
        await store.forget_commands(0)
