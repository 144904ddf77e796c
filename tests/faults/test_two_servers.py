"""One data directory, two servers: the second is turned away, until the first is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import finished, one
from tests.faults.launch import MODULE
from tests.faults.watched import LONG, company
from tests.wire import Server, clean_environment, fresh


def second(data: Path, *more: str) -> tuple[float, str]:
    """Start a second server in vain: how long it took, and the one line it said."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", MODULE, "serve", "--port", "0", "--data", str(data), *more],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return time.monotonic() - begun, line


def files(server: Server) -> dict[str, bytes]:
    """What a server that is turned away has no business with."""
    names = ("hermes-ws.lock", "hermes-ws.key")
    return {name: (server.data / name).read_bytes() for name in names}


async def test_a_second_server_is_turned_away_at_once_and_the_first_never_notices(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server()
    link = tmp_path / "another-name"
    link.symlink_to(server.data)
    async with company(server) as people:
        watched = await people.watch(fresh())
        await watched.one.command("run.start", input="/stream 500 5\n/ask Well? | a | b\n/say well")
        await watched.until_seen("message.delta", 10)
        before = files(server)
        connections = watched.journal.connections
        for data in (server.data, link, server.data / ".." / server.data.name):
            took_s, line = second(data)
            assert took_s < 10
            assert line.startswith("hermes-ws: "), line
            assert f"in use by another hermes-ws (process {server.pid})" in line
            assert "--data" in line
        assert files(server) == before
        assert watched.journal.connections == connections
        asked = await watched.until_seen("interaction.requested")
        await watched.one.command("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"})
        assert one(await watched.verdict(), "run.completed")["output"] == "well"
    assert "Traceback" not in server.errors, server.errors
    assert server.process.poll() is None


@pytest.mark.parametrize("end", ["killed", "closed"] if LONG else ["killed"])
async def test_when_the_first_is_gone_the_second_takes_its_place(make_server: MakeServer, end: str) -> None:
    first, conversation = make_server(), fresh()
    async with first.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 300 4\n/ask Well? | a | b\n/say well")
        await socket.until("message.delta")
        assert str(first.pid) in second(first.data)[1]
        asked = await socket.asked()
        seen = socket.counted()
    if end == "killed":
        first.kill()
    else:
        first.terminate()
        assert await first.exited() == 0
    other = make_server(data=first.data)
    assert str(other.pid) in second(first.data)[1]
    async with other.socket(conversation) as socket:
        await socket.greeted()
        await socket.ok("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"})
    assert one(await finished(other, conversation, seen), "run.completed")["output"] == "well"
