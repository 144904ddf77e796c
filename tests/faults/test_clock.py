"""The wall clock is set while the server runs: time that passes is not what the clock says."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import AUTO, Crashing, command, finished, of, one
from tests.faults.launch import CLOCK
from tests.faults.watched import LONG, company
from tests.wire import FINALS, Json, fresh

HOUR_MS = 3_600_000
JUMPS = [5 * HOUR_MS, -5 * HOUR_MS, 30 * 24 * HOUR_MS] if LONG else [5 * HOUR_MS, -5 * HOUR_MS]


class Clock:
    """The server's clock, and how far it is off."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, offset_ms: int) -> None:
        """It jumps there, at once."""
        fresh_one = self._file.with_suffix(".new")
        fresh_one.write_text(str(offset_ms))
        fresh_one.rename(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture
def crashing(make_server: MakeServer, tmp_path: Path, clock: Clock) -> Crashing:
    return Crashing(make_server, environment={CLOCK: str(tmp_path / "clock")})


def expect_sane(log: list[Json]) -> None:
    """Whatever the clock did, nothing took less than no time."""
    durations = [event["duration_ms"] for event in log if "duration_ms" in event]
    assert durations
    assert all(duration >= 0 for duration in durations), durations


@pytest.mark.parametrize("jump_ms", JUMPS if LONG else JUMPS[:1])
async def test_a_run_with_a_deadline_is_not_ended_by_a_jump_and_still_ends_by_real_time(
    crashing: Crashing, clock: Clock, jump_ms: int
) -> None:
    server = crashing.start()
    async with company(server) as people:
        short, long = await people.watch(fresh("short")), await people.watch(fresh("long"))
        begun = time.monotonic()
        await short.one.command("run.start", input="/stream 10000 5\n/say never", deadline_ms=3_000)
        await long.one.command("run.start", input="/stream 700 5\n/say well", deadline_ms=60_000)
        await short.until_seen("message.delta", 10)
        clock.set(jump_ms)
        await short.until_seen("message.delta", 60)
        failed = await short.until_seen("run.failed")
        took_s = time.monotonic() - begun
        assert failed["error"]["code"] == "deadline_exceeded"
        assert 2.5 < took_s < 8.0, took_s
        assert one(await long.verdict(), "run.completed")["output"] == "well"
        for log in await people.verdict():
            if not of(log, "run.failed"):
                expect_sane(log)
    assert "clock.jumped" in server.errors
    assert "Traceback" not in server.errors, server.errors


async def test_a_question_expires_when_the_clock_jumps_beyond_its_deadline_and_only_then(
    crashing: Crashing, clock: Clock
) -> None:
    server = crashing.start()
    async with company(server) as people:
        asks, approves = await people.watch(fresh("asks")), await people.watch(fresh("approves"))
        await asks.one.command("run.start", input="/ask Well? | a | b\n/say asked")
        await approves.one.command("run.start", input="/run echo x\n/say approved")
        for watched in people.watched:
            await watched.until_seen("interaction.requested")
        clock.set(-5 * HOUR_MS)
        await people.watched[0].one.command("conversation.configure", config={"title": "later"})
        await asyncio.sleep(1.2)
        clock.set(23 * HOUR_MS)
        await asyncio.sleep(1.2)
        for watched in people.watched:
            assert not [e for e in watched.seen() if e["type"] == "interaction.resolved"], "it has an hour left"
        clock.set(25 * HOUR_MS)
        begun = time.monotonic()
        for watched in people.watched:
            resolved = await watched.until_seen("interaction.resolved")
            assert (resolved["outcome"], resolved["via"]) == ("expired", "timeout")
        assert time.monotonic() - begun < 3.0
        assert one(await asks.verdict(), "run.completed")["output"] == "asked"
        assert one(await approves.verdict(), "tool.completed")["status"] == "denied"
    assert "Traceback" not in server.errors, server.errors


async def test_events_flow_while_the_clock_jumps_about(crashing: Crashing, clock: Clock, tmp_path: Path) -> None:
    server = crashing.start()
    async with company(server) as people:
        watched = await people.watch(fresh(), clients=3)
        await watched.one.command("conversation.configure", config=AUTO["config"] | {"title": "t"})
        script = "\n".join(f"/think t{n}\n/stream 20 3\n/run sleep 0.05" for n in range(6))
        await watched.one.command("run.start", input=f"{script}\n/say well")
        working = asyncio.create_task(watched.until(lambda: FINALS & {e["type"] for e in watched.seen()}))
        offset = 0
        while not working.done():
            offset = -offset if offset > 0 else HOUR_MS - offset
            clock.set(offset)
            await asyncio.wait([working], timeout=0.3)
        assert one(await watched.verdict(), "run.completed")["output"] == "well"
        log = await watched.verdict()
        expect_sane(log)
        assert [e["status"] for e in of(log, "tool.completed")] == ["ok"] * 6
        ok = command("run.start", input="/say again")
        first = await server.post(watched.name, ok)
        clock.set(2 * HOUR_MS)
        assert (await server.post(watched.name, ok)) == {**first, "duplicate": True}
        await watched.at_rest()
    assert "Traceback" not in server.errors, server.errors


@pytest.mark.parametrize("jump_ms", JUMPS)
async def test_a_clock_that_was_set_while_no_server_ran(crashing: Crashing, clock: Clock, jump_ms: int) -> None:
    """A run goes on with what was left of its time; a question keeps to its deadline by the clock."""
    server = crashing.start()
    streams, asks = fresh("streams"), fresh("asks")
    async with server.socket(streams) as socket, server.socket(asks) as other:
        await socket.ok("run.start", input="/stream 400 5\n/say well", deadline_ms=20_000)
        await other.ok("run.start", input="/ask Well? | a | b\n/say asked")
        await other.asked()
        await socket.until("message.delta")
    server.kill()
    clock.set(jump_ms)
    server = crashing.start()
    log = await finished(server, streams)
    if jump_ms < 0:
        assert one(log, "run.completed")["output"] == "well"
    else:  # as if the server had been away for so long
        assert of(log, "run.completed") or one(log, "run.failed")["error"]["code"] == "deadline_exceeded"
    expired = jump_ms > 24 * HOUR_MS
    async with server.socket(asks, after=0) as socket:
        await socket.greeted()
        if expired:
            await socket.until_final()
            assert socket.of("interaction.resolved")[0]["outcome"] == "expired"
        else:
            assert await socket.asked()
            await socket.reply(await socket.asked(), "a")
    log = await finished(server, asks)
    assert one(log, "run.completed")["output"] == "asked"
    assert all(event.get("duration_ms", 0) >= 0 for event in log)
    assert all(event.get("duration_ms", 0) >= 0 for event in await server.log(streams))
