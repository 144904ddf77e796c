"""``hermes-ws gc``: on a data directory that nobody has open, and beside a server."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hermes_ws.cli import main
from hermes_ws.errors import StoreError
from hermes_ws.store import collect as collecting
from hermes_ws.store import upkeep
from hermes_ws.store.base import ConversationRef, Freed, RunRow
from hermes_ws.store.collect import Collected, collect
from hermes_ws.store.directory import DataDirectory, Folders
from hermes_ws.store.migrations import migrate
from hermes_ws.store.sqlite import SqliteStore
from tests.store.conftest import REF, commit, read_all

OTHER = ConversationRef("home", "other")
HOUR_MS = 3_600_000


async def fill(directory: DataDirectory, *, ended_at: int = 100) -> SqliteStore:
    """A conversation with a run that ended, and one that was deleted while its files stayed."""
    store = await SqliteStore.open(directory.log)
    await commit(store, 0, b"begun")
    await commit(store, 1, *[b"delta"] * 40, deltas=[True] * 40, sync=False)
    await commit(store, 41, b"ended", runs=[RunRow("run_1", "completed", b"{}", ended_at)])
    await commit(store, 0, *[b"gone " * 2_000] * 50, ref=OTHER)
    for ref in (REF, OTHER):
        directory.workdir(ref).mkdir()
        directory.outputs(ref).mkdir()
        (directory.outputs(ref) / "call.txt").write_text("x")
    await store.delete(OTHER)
    return store


def run_gc(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["gc", *arguments])


async def test_a_directory_at_rest_is_cleared(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    await (await fill(directory)).close()
    directory.close()
    size = (tmp_path / "hermes-ws.db").stat().st_size
    result = await asyncio.to_thread(run_gc, "--data", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:3] == [
        "deleted conversations: 50 events, 500,000 bytes",
        "deltas of ended runs: 40 events, 200 bytes",
        "old outputs: 0",
    ]
    assert (tmp_path / "hermes-ws.db").stat().st_size < size - 400_000
    folders = Folders(tmp_path)
    assert not folders.workdir(OTHER).exists()
    assert not folders.outputs(OTHER).exists()
    assert folders.workdir(REF).exists()
    assert [*tmp_path.glob("*/hermes-ws-trash/*")] == []


async def test_a_server_goes_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SLICE_ROWS", 5)
    monkeypatch.setattr(upkeep, "SLICE_PAGES", 5)
    directory = DataDirectory(tmp_path)
    store = await fill(directory)
    working = asyncio.create_task(
        asyncio.to_thread(collect, tmp_path, deltas_before=1_000, outputs_before=0, images_before=0, busy_timeout_s=5)
    )
    head = 42
    while not working.done():
        assert await commit(store, head, b"more", deltas=[head % 2 == 0], sync=head % 2 == 1) is None
        head += 1
    assert (await working)[:2] == (Freed(50, 500_000), Freed(40, 200))
    loaded = await store.load(REF)
    assert loaded is not None
    assert loaded.head == head
    assert loaded.bytes == sum(len(event.data) for event in await read_all(store))
    assert await store.deleted() == []
    await store.close()
    directory.close()


async def test_files_of_a_conversation_that_exists_anew_are_left_alone(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    store = await fill(directory)
    await commit(store, 0, b"anew", ref=OTHER)
    await asyncio.to_thread(collect, tmp_path, deltas_before=0, outputs_before=0, images_before=0, busy_timeout_s=5)
    assert (directory.outputs(OTHER) / "call.txt").exists()
    assert len(await read_all(store, OTHER)) == 1
    await store.close()
    directory.close()


async def test_what_goes_depends_on_its_age(tmp_path: Path) -> None:
    now = int(time.time() * 1_000)
    directory = DataDirectory(tmp_path)
    await (await fill(directory, ended_at=now - 2 * HOUR_MS)).close()
    os.utime(directory.outputs(REF) / "call.txt", (1_000, 1_000))
    directory.close()
    config = tmp_path / "config.toml"
    config.write_text(f'[server]\ndata = "{tmp_path}"\n[store]\nretention_s = 3600\noutputs_retention_s = 1000\n')
    young = await asyncio.to_thread(run_gc, "--data", str(tmp_path), "--older-than", "3")
    assert "deltas of ended runs: 0 events, 0 bytes" in young.stdout
    assert "old outputs: 1" in young.stdout
    old = await asyncio.to_thread(run_gc, "--config", str(config))
    assert "deltas of ended runs: 40 events, 200 bytes" in old.stdout


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86_400), ("90m", 5_400), ("7d", 604_800), ("30s", 30), ("0", 0), ("1.5", 5_400)]
)
def test_ages_are_written_as_people_write_them(
    tmp_path: Path, text: str, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def collected(root: Path, *, deltas_before: int, **more: object) -> Collected:
        asked.append(deltas_before)
        return Collected(Freed(0, 0), Freed(0, 0), 0, 0, 0, True)

    monkeypatch.setattr(collecting, "collect", collected)
    before = time.time()
    assert run_gc("--data", str(tmp_path), "--older-than", text).exit_code == 0
    assert asked[0] == pytest.approx((before - seconds) * 1_000, abs=5_000)


@pytest.mark.parametrize("text", ["", "soon", "-1", "1w", "1e3", "h"])
def test_what_is_no_age_is_refused(text: str) -> None:
    result = run_gc("--older-than", text)
    assert result.exit_code == 2
    assert "is no age" in result.output


async def test_written_anew_the_log_keeps_no_trace(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    await (await fill(directory)).close()
    directory.close()
    result = await asyncio.to_thread(run_gc, "--data", str(tmp_path), "--rewrite")
    assert result.exit_code == 0, result.output
    assert b"gone gone" not in (tmp_path / "hermes-ws.db").read_bytes()


def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    result = run_gc("--data", str(tmp_path / "nowhere"))
    assert result.exit_code == 1
    assert "there is no directory" in result.stderr
    result = run_gc("--data", str(tmp_path))
    assert result.exit_code == 1
    assert "holds no log" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_log_of_ours_and_this_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hermes-ws.db"
    path.write_text("not a database at all, " * 100)
    assert "file is not a database" in run_gc("--data", str(tmp_path)).stderr
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    assert "something else" in run_gc("--data", str(tmp_path)).stderr
    path.unlink()
    migrate(path)
    for version, words in ((999, "newer hermes-ws"), (1, "older hermes-ws")):
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        result = run_gc("--data", str(tmp_path))
        assert result.exit_code == 1
        assert words in result.stderr


def test_a_log_that_is_held_is_told(tmp_path: Path) -> None:
    path = tmp_path / "hermes-ws.db"
    migrate(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program holds the log"):
            collect(tmp_path, deltas_before=0, outputs_before=0, images_before=0, busy_timeout_s=0.01)


def test_a_collection_tells_how_far_it_is(tmp_path: Path) -> None:
    asyncio.run(_filled(tmp_path))
    lines: list[str] = []
    collect(tmp_path, deltas_before=1_000, outputs_before=0, images_before=0, busy_timeout_s=5, progress=lines.append)
    assert "deleted conversations: 50 events, 500,000 bytes" in lines
    assert "deltas of ended runs: 40 events, 200 bytes" in lines


async def _filled(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    await (await fill(directory)).close()
    directory.close()
