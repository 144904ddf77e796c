"""After kill -9 nothing changes; after a power cut, conversations that may have lost seen events begin a new epoch."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hermes_ws.store import witness
from hermes_ws.store.base import ConversationRef, RunRow
from hermes_ws.store.collect import collect
from hermes_ws.store.sqlite import SqliteStore
from tests.store.conftest import REF, commit, read_all

QUEUED, IDLE = ConversationRef("home", "queued"), ConversationRef("home", "idle")
FILES = ("hermes-ws.db", "hermes-ws.db-wal", "hermes-ws.unsynced")
Change = Callable[[Path], None]


async def begin(store: SqliteStore) -> None:
    """A conversation at work, one whose run waits for its turn, one that is idle."""
    await commit(store, 0, b"one", runs=[RunRow("run_1", "running", b"{}", 1)])
    await commit(store, 0, b"one", ref=QUEUED, runs=[RunRow("run_2", "queued", b"{}", 1)])
    await commit(store, 0, b"one", ref=IDLE, runs=[RunRow("run_3", "completed", b"{}", 1)])


async def stream(store: SqliteStore, head: int, count: int, ref: ConversationRef = REF) -> None:
    for number in range(head, head + count):
        assert await commit(store, number, b"delta", deltas=[True], sync=False, ref=ref) is None


async def epochs(store: SqliteStore) -> list[bool]:
    """Which of the three conversations have an epoch other than the one they began with."""
    loaded = [await store.load(ref) for ref in (REF, QUEUED, IDLE)]
    assert all(one is not None and one.epoch.startswith("ep_") for one in loaded)
    return [one is not None and one.epoch != "ep_1" for one in loaded]


def copy(source: Path, target: Path, names: tuple[str, ...] = FILES) -> None:
    target.mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)


@asynccontextmanager
async def opened(directory: Path) -> AsyncGenerator[SqliteStore]:
    directory.mkdir(exist_ok=True)
    store = await SqliteStore.open(directory / "hermes-ws.db")
    try:
        yield store
    finally:
        await store.close()


async def test_after_a_clean_close_nothing_is_said_and_no_epoch_changes(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await begin(store)
        await stream(store, 1, 5)
    assert not (tmp_path / "hermes-ws.unsynced").exists()
    with capture_logs() as lines:
        async with opened(tmp_path) as store:
            assert await epochs(store) == [False, False, False]
    assert lines == []


async def test_what_kill_9_leaves_is_whole_and_no_epoch_changes(tmp_path: Path) -> None:
    async with opened(tmp_path / "live") as store:
        await begin(store)
        await stream(store, 1, 50)
        copy(tmp_path / "live", tmp_path / "killed")
    with capture_logs() as lines:
        async with opened(tmp_path / "killed") as store:
            assert await epochs(store) == [False, False, False]
            assert len(await read_all(store)) == 51
    assert [(line["event"], line["log_level"], line["new_epochs"]) for line in lines] == [
        ("log.was_not_closed", "warning", 0)
    ]


async def lose_deltas(tmp_path: Path) -> Path:
    """A data directory whose log ends before deltas that were told; the witness knows of them."""
    async with opened(tmp_path / "live") as store:
        await begin(store)
        await stream(store, 1, 3)
        await commit(store, 4, b"synced")
        copy(tmp_path / "live", tmp_path / "cut")
        await stream(store, 5, 4)
        copy(tmp_path / "live", tmp_path / "cut", ("hermes-ws.unsynced",))
    return tmp_path / "cut"


async def test_a_log_that_ends_before_what_was_told_begins_a_new_epoch_there(tmp_path: Path) -> None:
    cut = await lose_deltas(tmp_path)
    with capture_logs() as lines:
        async with opened(cut) as store:
            assert await epochs(store) == [True, False, False]
            loaded = await store.load(REF)
            assert loaded is not None
            assert loaded.head == 5
            assert await commit(store, 5, b"six") is None
    assert [line["new_epochs"] for line in lines if line["event"] == "log.was_not_closed"] == [1]
    async with opened(cut) as store:
        again = await store.load(REF)
        assert again is not None
        assert again.epoch == loaded.epoch, "one loss is one new epoch"


async def test_a_wal_that_lost_its_end_begins_a_new_epoch(tmp_path: Path) -> None:
    async with opened(tmp_path / "live") as store:
        await begin(store)
        copy(tmp_path / "live", tmp_path / "cut")
        synced = (tmp_path / "live" / "hermes-ws.db-wal").stat().st_size
        await stream(store, 1, 20)
        copy(tmp_path / "live", tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "hermes-ws.db-wal", synced + 1_000)
    async with opened(tmp_path / "cut") as store:
        assert await epochs(store) == [True, False, False]
        assert len(await read_all(store)) == 1


async def test_a_lost_delta_that_a_sync_had_covered_is_not_looked_for(tmp_path: Path) -> None:
    async with opened(tmp_path / "live") as store:
        await begin(store)
        await stream(store, 1, 3)
        await commit(store, 0, b"one", ref=ConversationRef("home", "another"))
        assert witness.read_witness(tmp_path / "live" / "hermes-ws.unsynced") == {}
        await stream(store, 4, 2)
        assert list((witness.read_witness(tmp_path / "live" / "hermes-ws.unsynced") or {}).values()) == [6]


def _remove(file: Path) -> None:
    file.unlink()


def _cut_short(file: Path) -> None:
    os.truncate(file, 1_000)


def _zeros(file: Path) -> None:
    file.write_bytes(bytes(65_536))


def _of_another_boot(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8:44] = b"00000000-0000-0000-0000-000000000000"
    file.write_bytes(data)


def _too_many(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[48:56] = b"\xff" * 8
    file.write_bytes(data)


@pytest.mark.parametrize("change", [_remove, _cut_short, _zeros, _of_another_boot, _too_many])
async def test_without_a_witness_all_that_are_at_work_begin_a_new_epoch(tmp_path: Path, change: Change) -> None:
    async with opened(tmp_path / "live") as store:
        await begin(store)
        await stream(store, 1, 3)
        copy(tmp_path / "live", tmp_path / "cut")
    change(tmp_path / "cut" / "hermes-ws.unsynced")
    async with opened(tmp_path / "cut") as store:
        assert await epochs(store) == [True, False, False]


async def test_where_no_kernel_says_which_boot_it_is_all_at_work_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "_BOOT_ID", tmp_path / "no such file")
    async with opened(tmp_path / "live") as store:
        await begin(store)
        copy(tmp_path / "live", tmp_path / "cut")
    async with opened(tmp_path / "cut") as store:
        assert await epochs(store) == [True, False, False]


async def test_a_run_that_waits_or_stops_is_at_work_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "live") as store:
        for status in ("waiting", "stopping"):
            ref = ConversationRef("home", status)
            await commit(store, 0, b"one", ref=ref, runs=[RunRow(f"run_{status}", status, b"{}", 1)])
        copy(tmp_path / "live", tmp_path / "cut", FILES[:2])
    async with opened(tmp_path / "cut") as store:
        for status in ("waiting", "stopping"):
            loaded = await store.load(ConversationRef("home", status))
            assert loaded is not None
            assert loaded.epoch != "ep_1"


async def test_a_full_witness_makes_the_commit_a_synced_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "_MOST", 2)
    async with opened(tmp_path / "live") as store:
        for number in range(5):
            ref = ConversationRef("home", f"c{number}")
            await commit(store, 0, b"one", ref=ref, runs=[RunRow(f"run_{number}", "running", b"{}", 1)])
        recorded: list[int] = []
        for number in range(5):
            await stream(store, 1, 1, ConversationRef("home", f"c{number}"))
            recorded.append(len(witness.read_witness(tmp_path / "live" / "hermes-ws.unsynced") or {}))
        assert recorded == [1, 2, 0, 1, 2]


async def test_without_room_for_a_witness_the_server_starts_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "hermes-ws.unsynced").mkdir()
    with capture_logs() as lines:
        async with opened(tmp_path) as store:
            await begin(store)
            await stream(store, 1, 3)
    assert [line["event"] for line in lines] == ["log.no_witness"]
    async with opened(tmp_path) as store:
        assert await epochs(store) == [False, False, False]


async def test_gc_beside_a_server_leaves_marker_and_witness_alone(tmp_path: Path) -> None:
    live = tmp_path / "live"
    async with opened(live) as store:
        await begin(store)
        await stream(store, 1, 3)
        before = (live / "hermes-ws.unsynced").read_bytes()
        collect(live, deltas_before=10_000, outputs_before=0, images_before=0, busy_timeout_s=5)
        assert (live / "hermes-ws.unsynced").read_bytes() == before
        assert await commit(store, 4, b"more", deltas=[True], sync=False) is None
        copy(live, tmp_path / "cut", FILES[:2])
    async with opened(tmp_path / "cut") as store:
        assert await epochs(store) == [True, False, False], "the marker was still there"
    collect(live, deltas_before=10_000, outputs_before=0, images_before=0, busy_timeout_s=5)
    (live / "hermes-ws.unsynced").unlink(missing_ok=True)
    async with opened(live) as store:
        assert await epochs(store) == [False, False, False], "and gc does not set it"


_STREAMS_UNTIL_KILLED = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from hermes_ws.store.base import RunRow
from hermes_ws.store.sqlite import SqliteStore
from tests.store.conftest import commit

async def main():
    store = await SqliteStore.open(Path({path!r}))
    await commit(store, 0, b"one", runs=[RunRow("run_1", "running", b"{{}}", 1)])
    head = 1
    while True:
        assert await commit(store, head, b"delta", deltas=[True], sync=False) is None
        head += 1
        os.write(1, b"%d\\n" % head)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_loses_nothing_and_keeps_its_epoch(tmp_path: Path) -> None:
    path = tmp_path / "hermes-ws.db"
    script = _STREAMS_UNTIL_KILLED.format(root=str(Path(__file__).parents[2]), path=str(path))
    process: subprocess.Popen[Any] = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    seen += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    told = max(int(line) for line in seen if line.endswith(b"\n"))
    recorded = witness.read_witness(path.with_suffix(".unsynced"))
    assert recorded is not None
    assert max(recorded.values()) >= told
    async with opened(tmp_path) as store:
        loaded = await store.load(REF)
        assert loaded is not None
        assert loaded.epoch == "ep_1"
        assert loaded.head >= max(recorded.values())
