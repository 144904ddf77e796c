"""What goes wrong below the log is told in words that help."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hermes_ws.errors import DataDirError, StorageFull, StoreError
from hermes_ws.store.base import Append, ConversationRef, RunRow
from hermes_ws.store.failures import store_error
from hermes_ws.store.sqlite import SqliteStore
from tests.store.conftest import REF, batch, commit


def named(name: str, text: str = "no") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error


async def test_a_log_that_another_program_holds_refuses_in_time_and_goes_on_afterwards(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db", busy_timeout_s=0.01)
    await commit(store, 0, b"one")
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        refused = await commit(store, 1, b"two")
        assert isinstance(refused, StoreError)
        assert "another program holds the log" in str(refused)
        with pytest.raises(StoreError, match="another program holds the log"):
            await store.delete(REF)
        with pytest.raises(StoreError, match="another program holds the log"):
            await store.sweep(1)
        db.execute("ROLLBACK")
    assert await commit(store, 1, b"two") is None
    await store.close()


async def test_a_held_log_makes_a_whole_group_wait_but_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(tmp_path / "log.db", busy_timeout_s=0.01)
    tries: list[int] = []
    transact = store._writer._transact

    def counted(db: sqlite3.Connection, group: list[Append]) -> StoreError | None:
        tries.append(len(group))
        return transact(db, group)

    monkeypatch.setattr(store._writer, "_transact", counted)
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        told: list[StoreError | None] = []
        for number in range(20):
            store.append(batch(0, b"one", ref=ConversationRef("home", f"c{number}"), done=told.append))
        assert isinstance(await commit(store, 0, b"one"), StoreError)
        db.execute("ROLLBACK")
    assert sum(tries) == 21, "none was tried twice"
    await store.close()


async def test_a_log_that_is_held_cannot_be_opened_and_says_why(tmp_path: Path) -> None:
    await (await SqliteStore.open(tmp_path / "log.db")).close()
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program holds the log"):
            await SqliteStore.open(tmp_path / "log.db", busy_timeout_s=0.01)


async def test_a_damaged_log_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    store = await SqliteStore.open(path)
    await commit(store, 0, *[b"x" * 1_000] * 200)
    await store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * (path.stat().st_size - 4096 * 3))
    try:
        again = await SqliteStore.open(path)
    except StoreError as error:
        assert "damaged" in str(error)  # noqa: PT017
        return
    refused = await commit(again, 200, b"more", runs=[RunRow("run_1", "running", b"{}", 1)])
    assert isinstance(refused, StoreError)
    assert "damaged" in str(refused)
    assert ".recover" in str(refused)
    await again.close()


def test_each_error_says_what_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    log.touch()
    assert isinstance(store_error(named("SQLITE_FULL"), log), StorageFull)
    assert "holds the log" in str(store_error(named("SQLITE_BUSY"), log))
    assert "damaged" in str(store_error(named("SQLITE_CORRUPT_INDEX"), log))
    assert "damaged" in str(store_error(named("SQLITE_NOTADB"), log))
    assert "read-only" in str(store_error(named("SQLITE_READONLY_DIRECTORY"), log))
    assert "the disk refused" in str(store_error(named("SQLITE_IOERR_WRITE"), log))
    assert "the log refused" in str(store_error(named("SQLITE_CONSTRAINT"), log))
    assert list(tmp_path.iterdir()) == [log], "the look for space leaves nothing behind"


async def test_a_limit_on_file_sizes_is_told_as_no_space(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    await commit(store, 0, b"one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        assert isinstance(await commit(store, 1, b"x" * 1_000_000), StorageFull)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await commit(store, 1, b"x" * 1_000_000) is None
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 2 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """Write until there is no space left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 4_096):
            pass


async def test_a_full_disk_is_told_as_such_and_room_is_used_again(small_disk: Path) -> None:
    store = await SqliteStore.open(small_disk / "log.db")
    await commit(store, 0, b"one")
    filler = small_disk / "filler"
    fill(filler)
    head = 1
    while (refused := await commit(store, head, b"x" * 100_000)) is None:
        head += 1
    assert isinstance(refused, StorageFull)
    assert isinstance(await commit(store, head, b"x" * 100_000, deltas=[True], sync=False), StorageFull)
    filler.unlink()
    assert await commit(store, head, b"x") is None
    await store.close()


async def test_a_disk_without_room_for_a_log_says_so(small_disk: Path) -> None:
    fill(small_disk / "filler")
    (small_disk / "log.db").touch()
    with pytest.raises(StoreError, match="no space"):
        await SqliteStore.open(small_disk / "log.db")


async def test_a_log_on_a_read_only_disk_says_so(small_disk: Path) -> None:
    store = await SqliteStore.open(small_disk / "log.db")
    await commit(store, 0, b"one")
    await store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DataDirError, match="read-only"):
        await SqliteStore.open(small_disk / "log.db")
