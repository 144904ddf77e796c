"""Another program holds the log: a backup, somebody with sqlite3. It is waited for, and then refused in words."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import command, finished, one
from tests.faults.launch import MODULE
from tests.faults.watched import LONG, company
from tests.wire import Server, clean_environment, fresh

SETTINGS = "[store]\nbusy_timeout_s = 0.5\n"
HOW = ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] if LONG else ["BEGIN IMMEDIATE"]
_HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
db.execute(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(data: Path, how: str = "BEGIN IMMEDIATE") -> Generator[subprocess.Popen[bytes]]:
    """Another process holds the log while inside."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(data / "hermes-ws.db"), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate(timeout=10)


async def timed_post(server: Server, conversation: str, **fields: str) -> tuple[float, int, dict[str, object]]:
    begun = time.monotonic()
    async with server.http() as http:
        answer = await http.post(f"/api/conversations/{conversation}/commands", json=command("run.start", **fields))
    return time.monotonic() - begun, answer.status_code, answer.json()


@pytest.mark.parametrize("how", HOW)
async def test_while_the_log_is_held_for_long_commands_are_refused_and_runs_go_on_after(
    make_server: MakeServer, how: str
) -> None:
    server = make_server(settings=SETTINGS)
    async with company(server) as people:
        streams, waits, idle = [await people.watch(fresh(name)) for name in ("streams", "waits", "idle")]
        await streams.one.command("run.start", input="/stream 300 4\n/say streamed")
        await waits.one.command("run.start", input="/ask Well? | a | b\n/say waited")
        await idle.one.command("run.start", input="/say idle 1.")
        asked = await waits.until_seen("interaction.requested")
        await idle.at_rest()
        await streams.until_seen("message.delta", 20)
        reply = command("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"})
        connections = streams.journal.connections
        with held(server.data, how):
            took_s, status, answer = await timed_post(server, idle.name, input="more")
            assert 0.4 < took_s < 5.0, took_s
            assert (status, answer["code"], answer["retryable"]) == (500, "internal", True), answer
            answer = await server.post(waits.name, reply)
            assert (answer["code"], answer["retryable"]) == ("internal", True), answer
            await streams.until(lambda: streams.journal.connections > connections)
            for watched in people.watched:
                log = await server.log(watched.name)
                assert [e["seq"] for e in log] == list(range(1, len(log) + 1))
                async with server.socket(watched.name) as socket:
                    await socket.greeted()
            assert (await server.get("/health"))["status"] == "ok"
        assert (await waits.one.command("interaction.reply", **_fields(reply)))["type"] == "ok"
        for watched, output in ((streams, "streamed"), (waits, "waited"), (idle, "idle 1.")):
            assert one(await watched.verdict(), "run.completed")["output"] == output
        assert (await server.post(idle.name, command("run.start", input="more")))["type"] == "ok"
    assert "another program holds the log" in server.errors
    assert "Traceback" not in server.errors, server.errors


def _fields(frame: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in frame.items() if name not in ("type", "id")}


async def test_while_the_log_is_held_for_a_moment_commands_only_wait(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[store]\nbusy_timeout_s = 5\n"), fresh()
    async with company(server) as people:
        watched = await people.watch(conversation)
        await watched.one.command("run.start", input="/stream 300 4\n/say streamed")
        await watched.until_seen("message.delta", 20)
        connections = watched.journal.connections
        with held(server.data) as holder:
            posted = asyncio.create_task(timed_post(server, conversation, input="/say next"))
            done, _ = await asyncio.wait([posted], timeout=1.0)
            assert not done, "it waits"
            holder.send_signal(signal.SIGKILL)
            took_s, status, _ = await posted
        assert status == 200
        assert took_s < 4.0
        assert watched.journal.connections == connections, "nobody was thrown out"
        log = await finished(server, conversation)
        assert [e["output"] for e in log if e["type"] == "run.completed"] == ["streamed", "next"]
    assert "Traceback" not in server.errors, server.errors
    assert "dropped" not in server.errors, server.errors


async def test_a_reader_that_keeps_its_transaction_open_is_in_nobodys_way(make_server: MakeServer) -> None:
    """It keeps the write-ahead log from being begun anew, and no more than that."""
    server, conversation = make_server(settings=f"{SETTINGS}wal_limit_bytes = 300000\n"), fresh()
    await server.post(conversation, command("run.start", input="/say first"))
    db = sqlite3.connect(f"file:{server.data / 'hermes-ws.db'}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("BEGIN")
        [(count,)] = db.execute("SELECT count(*) FROM events").fetchall()
        async with server.socket(conversation) as socket:
            for number in range(3):
                assert (await socket.run(f"/stream 400\n/say {number}"))["type"] == "run.completed"
        assert db.execute("SELECT count(*) FROM events").fetchall() == [(count,)]
    finally:
        db.close()
    await finished(server, conversation)
    assert "dropped" not in server.errors


@pytest.mark.parametrize("how", HOW)
async def test_a_log_that_is_held_is_refused_at_the_start(make_server: MakeServer, how: str) -> None:
    server, conversation = make_server(settings=SETTINGS), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 300 4\n/say streamed")
        await socket.until("message.delta")
    server.kill()
    config = str(server.data / "settings.toml")
    with held(server.data, how):
        done = subprocess.run(
            [sys.executable, "-m", MODULE, "serve", "--port", "0", "--data", str(server.data), "--config", config],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("hermes-ws: "), done.stderr
    assert "another program holds the log" in done.stderr
    server = make_server(data=server.data, settings=SETTINGS)
    assert one(await finished(server, conversation), "run.completed")["output"] == "streamed"
