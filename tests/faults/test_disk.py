"""A disk that is full, that takes no writes, that fails: what was promised is kept, and the cause gone, all goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import AUTO, command, finished, of, one
from tests.faults.disks import Disk, FailingDisk, small_disk, start_in_vain
from tests.faults.watched import LONG, Company, Watched, company
from tests.wire import Json, Server, fresh, soon, wait_for

KEY = "a-key-that-is-on-no-disk"
OPTIONS = {"environment": {"HERMES_WS_KEY": KEY}, "key": KEY}
"""The key is not kept in the data directory, and neither are the server's own diagnostics."""

CALLS = 16


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 24) as made:
        yield made


def log_of(data: Path) -> Path:
    return data / "hermes-ws.db"


async def post(server: Server, conversation: str, frame: Json) -> tuple[int, Json]:
    async with server.http() as http:
        answer = await http.post(f"/api/conversations/{conversation}/commands", json=frame)
    return answer.status_code, answer.json()


async def until_refused(server: Server, conversation: str) -> Json:
    """Configure it until there is no room for that; a command larger than a page needs a new one."""
    async with soon():
        while True:
            frame = command("conversation.configure", config={"metadata": {"x": "y" * 20_000}})
            status, answer = await post(server, conversation, frame)
            if answer["type"] == "error":
                assert status >= 500, answer
                assert answer["retryable"] is True, answer
                return answer


async def expect_readable(server: Server, watched: Watched) -> None:
    """What was seen is there, over HTTP and a new socket; the rest of the server works."""
    log = await server.log(watched.name)
    seen = watched.seen()
    assert log[: len(seen)] == seen
    async with server.socket(watched.name, after=0) as socket:
        await socket.until_seq(len(seen))
        assert socket.log[: len(seen)] == seen
    async with server.socket(watched.name) as socket:
        assert (await socket.recv())["type"] == "hello"
        assert (await socket.recv())["at"] >= len(seen)
    assert (await server.get("/health"))["status"] == "ok"
    listed = await server.get("/api/conversations")
    assert watched.name in [one["conversation_id"] for one in listed["conversations"]]


class Busy:
    """Three conversations at work: one streams, one calls a tool again and again, one waits for a person."""

    def __init__(self, streams: Watched, calls: Watched, waits: Watched, marks: Path) -> None:
        self.streams, self.calls, self.waits, self.marks = streams, calls, waits, marks

    @classmethod
    async def begin(cls, people: Company, marks: Path) -> Busy:
        streams, calls, waits = [await people.watch(fresh(name)) for name in ("streams", "calls", "waits")]
        await streams.one.command("run.start", input="/stream 300 4\n/say streamed")
        await calls.one.command("conversation.configure", config={"approvals": {"mode": "auto"}, "title": "t"})
        steps = "\n".join(f"/run echo m{n}.c. >> {marks}; sleep 0.03" for n in range(1, CALLS + 1))
        await calls.one.command("run.start", input=f"{steps}\n/say called")
        await waits.one.command("run.start", input="/run echo allowed\n/say waited")
        await streams.until_seen("message.delta", 20)
        await calls.until_seen("tool.completed", 2)
        await waits.until_seen("interaction.requested")
        return cls(streams, calls, waits, marks)

    async def until_standing(self) -> None:
        """Both runs that write have met the fault."""
        connections = {w.name: w.journal.connections for w in (self.streams, self.calls)}
        for watched in (self.streams, self.calls):
            await watched.until(lambda w=watched: w.journal.connections > connections[w.name])  # type: ignore[misc]

    async def expect_done(self) -> None:
        """All comes to its end, and nothing was lost or done twice."""
        [asked] = [e for e in self.waits.seen() if e["type"] == "interaction.requested"]
        reply = await self.waits.one.command("interaction.reply", interaction_id=asked["interaction_id"], option="once")
        assert reply["type"] == "ok", reply
        assert one(await self.waits.verdict(), "run.completed")["output"] == "waited"
        assert one(await self.streams.verdict(), "run.completed")["output"] == "streamed"
        assert one(await self.calls.verdict(self.marks), "run.completed")["output"] == "called"


async def test_a_disk_that_fills_up_under_runs_and_has_room_again(
    make_server: MakeServer, disk: Disk, tmp_path: Path
) -> None:
    server = make_server(*disk.options(), **OPTIONS)
    async with company(server) as people:
        busy = await Busy.begin(people, tmp_path / "marks")
        disk.fill()
        await busy.until_standing()
        refused = await until_refused(server, busy.waits.name)
        assert refused["code"] == "storage_full"
        [asked] = [e for e in busy.waits.seen() if e["type"] == "interaction.requested"]
        reply = command("interaction.reply", interaction_id=asked["interaction_id"], option="deny")
        status, answer = await post(server, busy.waits.name, reply)
        assert (status, answer["code"], answer["retryable"]) == (507, "storage_full", True)
        status, answer = await post(server, fresh(), command("run.start", input="hi"))
        assert (status, answer["code"], answer["retryable"]) == (507, "storage_full", True)
        for watched in people.watched:
            await expect_readable(server, watched)
        disk.free()
        await busy.expect_done()
        later = await people.watch(fresh())
        await later.one.command("run.start", input="/say later")
        assert one(await later.verdict(), "run.completed")["output"] == "later"
    assert "Traceback" not in server.errors, server.errors


async def test_runs_go_on_although_nobody_is_there_when_room_comes_back(
    make_server: MakeServer, disk: Disk, tmp_path: Path
) -> None:
    server = make_server(*disk.options(), **OPTIONS)
    async with company(server) as people:
        busy = await Busy.begin(people, tmp_path / "marks")
        disk.fill()
        await busy.until_standing()
        seen = {
            watched.name: list(watched.journal.seen[watched.journal.epochs[-1]].values()) for watched in people.watched
        }
    disk.free()
    marks = tmp_path / "marks"
    await wait_for(lambda: marks.exists() and len(marks.read_text().split()) >= CALLS - 1)
    log = await finished(server, busy.streams.name, seen[busy.streams.name])
    assert one(log, "run.completed")["output"] == "streamed"
    log = await finished(server, busy.calls.name, seen[busy.calls.name])
    assert one(log, "run.completed")["output"] == "called"
    assert len(of(log, "tool.completed")) == CALLS


async def test_a_call_that_fills_the_disk_itself_is_not_run_again(make_server: MakeServer, disk: Disk) -> None:
    """Its end cannot be written; when there is room, the log says what is known of it."""
    server, conversation = make_server(*disk.options(), **OPTIONS), fresh()
    async with company(server) as people:
        watched = await people.watch(conversation)
        await server.post(conversation, AUTO)
        big = disk.path / "big"
        script = f"/run echo once >> {disk.path}/../marks; head -c 99M /dev/zero > {big}; seq 1 2000\n/say well"
        await watched.one.command("run.start", input=script)
        await watched.until_seen("tool.executing")
        await wait_for(lambda: disk.free_bytes == 0)
        await until_refused(server, conversation)
        big.unlink()
        log = await watched.verdict()
    [call] = of(log, "tool.completed")
    assert call["status"] in ("ok", "error", "interrupted"), call
    assert one(log, "run.completed")["output"] == "well"
    assert (disk.path.parent / "marks").read_text().split() == ["once"]
    assert "Traceback" not in server.errors, server.errors


async def test_diagnostics_that_find_no_room_harm_nothing(make_server: MakeServer, disk: Disk, tmp_path: Path) -> None:
    """What the server writes to its standard error may well lie on the very disk that is full."""
    server = make_server(data=disk.data, **OPTIONS)
    async with company(server) as people:
        busy = await Busy.begin(people, tmp_path / "marks")
        disk.fill()
        refused = await until_refused(server, busy.waits.name)
        assert refused["code"] == "storage_full"
        for _ in range(3):
            await until_refused(server, fresh())
        for watched in people.watched:
            await expect_readable(server, watched)
        disk.free()
        await busy.expect_done()


# -- coming up on a full disk --------------------------------------------------------------------------------


def test_a_new_server_on_a_full_disk_says_so(disk: Disk) -> None:
    disk.fill()
    line = start_in_vain(disk.data)
    assert "space" in line, line


@pytest.mark.parametrize("end", ["closed", "killed"])
async def test_a_server_that_finds_its_disk_full_says_so_and_comes_up_when_there_is_room(
    make_server: MakeServer, disk: Disk, end: str
) -> None:
    server, conversation = make_server(*disk.options(), **OPTIONS), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/ask Well? | a | b\n/say well")
        asked = await socket.asked()
        seen = socket.counted()
    if end == "killed":
        server.kill()
    else:
        server.terminate()
        assert await server.exited() == 0
    disk.fill()
    line = start_in_vain(disk.data)
    assert "space" in line, line
    disk.free()
    server = make_server(*disk.options(), **OPTIONS)
    reply = command("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"})
    assert (await server.post(conversation, reply))["type"] == "ok"
    assert one(await finished(server, conversation, seen), "run.completed")["output"] == "well"


# -- files of tools --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["hermes-ws-work", "hermes-ws-outputs"])
async def test_tools_that_find_no_room_say_so(make_server: MakeServer, tmp_path: Path, folder: str) -> None:
    data, conversation = tmp_path / "data", fresh()
    with small_disk(data / folder, 0.5) as disk:
        server = make_server("--data", str(data), **OPTIONS)
        async with server.socket(conversation) as socket:
            await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
            write = '/tool write_file {"path": "a.txt", "content": "%s"}'
            await socket.run(write % "before")
            disk.fill()
            await socket.run(write % ("x" * 200_000))
            await socket.run("/run head -c 200000 /dev/zero > b.txt")
            await socket.run("/run seq 1 100000")
            await socket.run('/tool read_file {"path": "a.txt"}')
            disk.free()
            await socket.run(write % "after")
            calls = socket.of("tool.completed")
        if folder == "hermes-ws-work":
            assert [call["status"] for call in calls] == ["ok", "error", "error", "ok", "ok", "ok"]
            assert "no space left" in calls[1]["output"]
            assert "No space left" in calls[2]["output"]
            assert calls[4]["output"].strip().endswith("before"), "a file that cannot be replaced stays as it was"
        else:
            assert [call["status"] for call in calls] == ["ok"] * 6
            assert calls[3]["truncated"] is True
            assert "could not be kept: No space left" in calls[3]["output"]
            async with server.http() as http:
                kept = f"/api/conversations/{conversation}/tool-calls/{calls[3]['call_id']}/output"
                assert (await http.get(kept)).status_code in (200, 404)
        assert "Traceback" not in server.errors, server.errors
        server.stop()


# -- a disk that takes no writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["EROFS", "EIO", "ENOSPC"] if LONG else ["EIO"])
async def test_a_disk_that_refuses_writes_for_a_while(make_server: MakeServer, tmp_path: Path, error: str) -> None:
    """As when a file system was remounted read-only, or a device goes away and comes back."""
    data = tmp_path / "data"
    server = make_server(data=data, **OPTIONS)
    async with company(server) as people:
        busy = await Busy.begin(people, tmp_path / "marks")
        async with FailingDisk(server, log_of(data), error):
            await busy.until_standing()
            refused = await until_refused(server, busy.waits.name)
            assert refused["code"] in ("internal", "storage_full")
            for watched in people.watched:
                await expect_readable(server, watched)
        await busy.expect_done()
    assert "Traceback" not in server.errors, server.errors
    if error == "EIO":
        assert "the disk refused the log" in server.errors


async def test_syncs_that_fail_for_a_while_lose_nothing(make_server: MakeServer, tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = make_server(data=data, **OPTIONS)
    async with company(server) as people:
        busy = await Busy.begin(people, tmp_path / "marks")
        async with FailingDisk(server, log_of(data), "EIO", "fsync,fdatasync"):
            await busy.until_standing()
            await until_refused(server, busy.waits.name)
            for watched in people.watched:
                await expect_readable(server, watched)
        await busy.expect_done()
    assert "Traceback" not in server.errors, server.errors


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_a_directory_that_cannot_be_written_is_refused_at_the_start(
    make_server: MakeServer, disk: Disk, known: bool
) -> None:
    if known:
        make_server(*disk.options(), **OPTIONS).stop()
    else:
        disk.data.mkdir()
    disk.remount("ro")
    line = start_in_vain(disk.data)
    assert "ead-only" in line, line
    disk.remount("rw")
    make_server(*disk.options(), **OPTIONS)


async def test_a_file_system_that_became_read_only_for_good_still_serves_what_it_has(
    make_server: MakeServer, tmp_path: Path
) -> None:
    """What ext4 does by itself after an error: whoever has files open keeps them, and writes nothing more."""
    image, path = tmp_path / "image", tmp_path / "disk"
    with broken_to_order(image, path) as abort:
        server = make_server("--data", str(path / "data"), **OPTIONS)
        async with company(server) as people:
            watched = await people.watch(fresh())
            await watched.one.command("run.start", input="/stream 300 4\n/say streamed")
            await watched.until_seen("message.delta", 10)
            abort()
            refused = await until_refused(server, watched.name)
            assert refused["code"] == "internal"
            await expect_readable(server, watched)
            epoch = watched.journal.epochs[-1]
            seen = [raw for raw in watched.journal.seen[epoch].values() if "message.delta" not in raw]
        assert "the disk refused the log" in server.errors or "read-only" in server.errors
        assert "Traceback" not in server.errors, server.errors
        server.kill()
        assert "ead-only" in start_in_vain(path / "data")
        subprocess.run(["umount", str(path)], check=True, timeout=20)
        assert _mount("-o", "loop", str(image), str(path)) == 0
        server = make_server("--data", str(path / "data"), **OPTIONS)
        log = await finished(server, watched.name)
        assert one(log, "run.completed")["output"] == "streamed"
        async with server.socket(watched.name, after=0, exclude="message.delta") as socket:
            await socket.greeted()
            assert [raw for raw in seen if raw not in socket.raw] == []
        server.stop()


@contextmanager
def broken_to_order(image: Path, path: Path) -> Generator[Callable[[], None]]:
    """An ext4 at ``path``; what is handed out breaks it."""
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(24 * 1024 * 1024)
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs to make and mount a file system")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, timeout=20)
    if _mount("-o", "loop,errors=remount-ro", str(image), str(path)):
        pytest.skip("needs to mount a file system")

    def abort() -> None:
        _mount("-o", "remount,abort", str(path))
        with suppress(OSError):
            (path / "probe").write_text("x")
            pytest.skip("this kernel cannot break a file system to order")

    try:
        yield abort
    finally:
        subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=False, timeout=20)


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False, timeout=20).returncode
