"""The whole server stands still for a while, as when its machine is suspended: who waits gets everything after it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import of, one
from tests.faults.watched import LONG, company
from tests.wire import Server, fresh, processes_with

STILL_S = 60.0 if LONG else 3.0
SMALL = "[server]\nping_interval_s = 1.0\nping_timeout_s = 1.0\n[readers]\nstall_s = 1.0\nheartbeat_s = 1.0\n"
"""So small that everything that watches the clock has a reason to stir."""
SETTINGS = [pytest.param(SMALL, id="small times"), *([pytest.param(None, id="defaults")] if LONG else [])]


@asynccontextmanager
async def stopped(server: Server) -> AsyncIterator[None]:
    """The server does nothing inside."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.timeout(300 if LONG else 120)
@pytest.mark.parametrize("settings", SETTINGS)
async def test_a_server_that_stood_still_goes_on(make_server: MakeServer, tmp_path: Path, settings: str | None) -> None:
    server, marks = make_server(settings=settings), tmp_path / "marks"
    async with company(server) as people:
        streams, calls, waits, kills = [await people.watch(fresh(n)) for n in ("streams", "calls", "waits", "kills")]
        for watched in (calls, kills):
            await watched.one.command(
                "conversation.configure", config={"approvals": {"mode": "auto"}, "title": watched.name}
            )
        await streams.one.command("run.start", input="/stream 500 4\n/say streamed", deadline_ms=600_000)
        await calls.one.command(
            "run.start",
            input=f"/run sleep 1; echo m1.c. >> {marks}; echo told\n/run echo m2.c. >> {marks}\n/say called",
        )
        await waits.one.command("run.start", input="/ask Well? | a | b\n/say waited")
        slow = json.dumps({"command": "echo begun; sleep 86.4242", "timeout_s": STILL_S / 2})
        await kills.one.command("run.start", input=f"/tool terminal {slow}\n/say killed")
        await streams.until_seen("message.delta", 20)
        await kills.until_seen("tool.output")
        asked = await waits.until_seen("interaction.requested")
        async with stopped(server):
            reply = asyncio.create_task(
                waits.one.command("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"})
            )
            late = asyncio.create_task(streams.clients[1].command("run.start", input="/say late"))
            begun = time.monotonic()
            done, _ = await asyncio.wait([reply, late], timeout=STILL_S)
            assert not done
            assert time.monotonic() - begun >= STILL_S
        async with asyncio.timeout(15):
            assert (await reply)["type"] == "ok"
            assert (await late)["type"] == "ok"
        assert one(await waits.verdict(), "run.completed")["output"] == "waited"
        assert [e["output"] for e in of(await streams.verdict(), "run.completed")] == ["streamed", "late"]
        log = await calls.verdict(marks)
        assert [e["status"] for e in of(log, "tool.completed")] == ["ok", "ok"]
        assert one(log, "run.completed")["output"] == "called"
        log = await kills.verdict()
        assert one(log, "tool.completed")["status"] == "error"
        assert one(log, "run.completed")["output"] == "killed"
        for watched in people.watched:
            assert not [e for e in watched.seen() if e["type"] in ("run.recovered", "run.failed")]
    assert processes_with("86.4242", "sleep") == []
    assert "Traceback" not in server.errors, server.errors
    assert "clock.jumped" not in server.errors
