"""Hostile servers over standard input and output: each ends in its time, leaves nothing behind, says what was wrong."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.mcp.harm import CALL, CANARY, SETTINGS, Pulse, disk_kb, one_run, use
from tests.mcp.running import ours, ugly_stdio
from tests.mcp.ugly_stdio import FAREWELL, SECRET_VARIABLE, STDIO_SWITCHES
from tests.wire import Server, Socket, fresh, resident_kb, wait_for

STALL_S = 1.0
"""How long another conversation may have to wait for the answer to a ping, at the worst."""
SOON_S = 4.0
"""A second or so, on a busy machine that starts a program meanwhile."""
TIMEOUT_S = 1.0
"""Of one call."""
MARK = "HERMES_WS_CALL"
"""What our processes are found by."""
SERVER_SECRET = "not-for-children-5Tq8Wz"

# What the model reads of a call, by switch.
OUTCOMES = {
    "converse": "ok: fine",
    "garbage": "ok: fine",
    "stays": "ok: fine",
    "child_stays": "ok: fine",
    "child_escapes": "ok: fine",
    "invalid_utf8": "ok: fine",
    "child_holds_output": "error: .*went away during the call",
    "endless_line": r"error: .*went away during the call .*mcp\.message_bytes",
    "exits_in_call": f"error: .*went away during the call .*{FAREWELL}",
    "hangs_in_call": "error: the server did not answer within 1 s; it was told to stop",
    "garbage_flood": "error: the server did not answer within 1 s; it was told to stop",
    "stderr_flood": "(ok: fine|error: the server did not answer within 1 s)",
    "exits": f"error: .*{FAREWELL}",
    "silent": "error: .*it did not start within 2 s",
    "never_reads": "error: .*it did not start within 2 s",
    "closes_output": "error: .*(closed|ended|did not start within 2 s)",
    "environment": "ok: ",
    "stderr_secret": "ok: secret: ",
}
HANGING = ("silent", "never_reads", "hangs_in_call", "garbage_flood", "endless_line", "stays")
"""What can be in the way of an end."""


def settings(pids: Path) -> str:
    """All of them as the operator's servers; they write their process ids into files there."""
    tables = [SETTINGS]
    for switch in STDIO_SWITCHES:
        command = ugly_stdio(switch, pids / switch, **{SECRET_VARIABLE: CANARY})
        tables += [
            f"[mcp_servers.{switch}]",
            f"command = {json.dumps(command.command)}",
            f"args = {json.dumps(command.args)}",
            f"timeout_s = {TIMEOUT_S}",
            f"[mcp_servers.{switch}.env]",
            *(f"{name} = {json.dumps(value)}" for name, value in command.env.items()),
        ]
    return "\n".join(tables)


def alive(pids: Path, switch: str) -> list[str]:
    """The processes of a server that are still there."""
    noted = (pids / switch).read_text().split() if (pids / switch).exists() else []
    return [pid for pid in noted if is_alive(pid)]


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def pids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pids")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pids: Path) -> Iterator[Server]:
    """A server for all of them; it is as well afterwards as before."""
    environment = {"HERMES_WS_KEY": SERVER_SECRET, "OPENAI_API_KEY": SERVER_SECRET}
    data = tmp_path_factory.mktemp("hostile-stdio")
    running = Server.start(data, settings=settings(pids), environment=environment, key=SERVER_SECRET)
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, running.errors
    assert "Traceback" not in running.errors, running.errors
    assert len(running.errors) < 100_000
    assert CANARY not in running.errors


@pytest.fixture
async def pulse(place: Server) -> AsyncIterator[Pulse]:
    """Somebody else's conversation, who must not have had to wait."""
    async with Pulse.of(place) as beating:
        yield beating
    assert beating.worst_s < STALL_S


def test_every_switch_has_its_case() -> None:
    assert sorted(OUTCOMES) == sorted(STDIO_SWITCHES)


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("switch", OUTCOMES)
async def test_a_run_has_its_end_and_the_model_is_told_what_was_wrong(place: Server, switch: str) -> None:
    resident, disk = resident_kb(place.pid), disk_kb(place.data)
    report = await one_run(place, {"ref": switch})
    assert re.match(OUTCOMES[switch], report.outcome)
    assert report.final["type"] == "run.completed"
    assert report.took_s < 2 + SOON_S
    assert resident_kb(place.pid) - resident < 60_000
    assert disk_kb(place.data) - disk < 2_000


async def test_what_the_operator_gave_a_server_does_not_come_back(place: Server) -> None:
    for switch in ("stderr_secret", "environment"):
        report = await one_run(place, {"ref": switch})
        assert CANARY not in json.dumps(report.events)


async def test_a_server_gets_nothing_of_ours(place: Server) -> None:
    report = await one_run(place, {"ref": "environment"})
    [call] = report.calls
    given = call["structured"]
    assert SERVER_SECRET not in json.dumps(report.events)
    assert place.key not in given["environment"].values()
    assert not {name for name in given["environment"] if name.startswith("HERMES_WS_")} - {MARK}
    assert Path(given["cwd"]).is_relative_to(place.data)


async def test_last_words_with_a_secret_in_them_are_not_passed_on(make_server: MakeServer, tmp_path: Path) -> None:
    program = "import os, sys; sys.exit(os.environ['TOKEN'])"
    server = make_server(
        settings=f"""{SETTINGS}
[mcp_servers.talks]
command = "python3"
args = ["-c", {json.dumps(program)}]
[mcp_servers.talks.env]
TOKEN = "{CANARY}"
"""
    )
    report = await one_run(server, {"ref": "talks"})
    assert report.status["state"] == "failed"
    assert "it said: " in report.word
    assert CANARY not in json.dumps(report.events)


PRELUDE = "import json, sys; from tests.mcp.ugly_stdio import polite, converse, say, write\n"
MANY = """
def many(message):
    head = json.dumps({"jsonrpc": "2.0", "id": message["id"]})[:-1].encode()
    write(head + b', "result": {"content": [' + b'{"type":"text","text":""},' * 600_000 + b'{}]}}\\n')
converse(many)
"""
FLOOD = """
def flood(message):
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "d" * 100}}
    for _ in range(200):
        write((json.dumps(note) + "\\n").encode() * 500)
    say(polite(message))
converse(flood)
"""


OPEN = """
import os
def files(message):
    opened = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            opened[name] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass
    say({"jsonrpc": "2.0", "id": message["id"], "result": {"content": [], "structuredContent": opened}})
converse(files)
"""


def written_here(program: str) -> str:
    """Settings with one server, ``here``, that is this program."""
    command = ours("-c", PRELUDE + program)
    return f"""{SETTINGS}
[mcp_servers.here]
command = {json.dumps(command.command)}
args = {json.dumps(command.args)}
timeout_s = 2.0
[mcp_servers.here.env]
PYTHONPATH = {json.dumps(command.env["PYTHONPATH"])}
"""


async def test_a_server_has_no_file_of_ours_open(make_server: MakeServer) -> None:
    server = make_server(settings=written_here(OPEN))
    report = await one_run(server, {"ref": "here"})
    opened = report.calls[0]["structured"]
    assert set(opened.values()) == {opened["0"], opened["1"], opened["2"]}


DEAF = """
import sys, time
for line in sys.stdin.buffer:
    message = json.loads(line)
    if (answer := polite(message)) is not None:
        say(answer)
    if message.get("method") == "tools/list":
        break
time.sleep(120)
"""


async def test_a_server_that_does_not_read_holds_nobody_up(make_server: MakeServer) -> None:
    server = make_server(settings=written_here(DEAF))
    large = f"/tool mcp:ugly/tool {json.dumps({'a': 'x' * 400_000})}"
    async with server.socket(fresh("deaf")) as socket:
        await use(socket, ugly={"ref": "here", "timeout_ms": 700})
        began = time.monotonic()
        await socket.run(large)
        assert time.monotonic() - began < 2 + SOON_S
        await use(socket, ugly={"ref": "here", "timeout_ms": 60_000})
        await socket.ok("run.start", input=large)
        await socket.until("tool.executing")
        began = time.monotonic()
        await socket.ok("run.stop")
        assert (await socket.until_final())["type"] == "run.cancelled"
        assert time.monotonic() - began < SOON_S
    assert socket.of("tool.completed")[0]["output"] == "the server did not answer within 0.7 s; it was told to stop"


@pytest.mark.parametrize("program", [MANY, FLOOD])
async def test_what_comes_in_numbers_stops_nobody(make_server: MakeServer, program: str) -> None:
    server = make_server(settings=written_here(program))
    await one_run(server, {"ref": "here"}, "/tool list_files {}")
    before = resident_kb(server.pid)
    async with Pulse.of(server) as pulse:
        report = await one_run(server, {"ref": "here"})
    assert report.final["type"] == "run.completed"
    assert pulse.worst_s < STALL_S
    assert resident_kb(server.pid) - before < 100_000


async def test_a_program_that_is_not_there_is_said_so(make_server: MakeServer) -> None:
    server = make_server(settings=f'{SETTINGS}\n[mcp_servers.gone]\ncommand = "/no/such/program"\n')
    report = await one_run(server, {"ref": "gone"})
    assert report.word == "failed: '/no/such/program' could not be started: No such file or directory"


# -- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("mode", ["graceful", "now"])
async def test_a_stop_works_at_once_whatever_the_server_does(place: Server, mode: str) -> None:
    async def stopped(switch: str) -> tuple[str, bool]:
        async with place.socket(fresh("stop")) as socket:
            await begun(socket, switch)
            began = time.monotonic()
            await socket.ok("run.stop", mode=mode)
            final = await socket.until_final()
            return final["type"], time.monotonic() - began < SOON_S

    switches = ("silent", "never_reads", "hangs_in_call", "garbage_flood")
    outcomes = dict(zip(switches, await asyncio.gather(*map(stopped, switches)), strict=True))
    assert {s: outcome for s, outcome in outcomes.items() if outcome != ("run.cancelled", True)} == {}


async def begun(socket: Socket, switch: str) -> None:
    """Have a run come to where its server hangs."""
    await use(socket, ugly={"ref": switch, "timeout_ms": 60_000})
    await socket.ok("run.start", input=CALL)
    await socket.until("mcp.status" if switch in ("silent", "never_reads") else "tool.executing")


async def test_nothing_of_a_server_outlives_its_conversation(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(settings=settings(tmp_path))

    async def deleted(switch: str) -> None:
        async with server.socket(conversation := fresh("gone")) as socket, server.http() as http:
            await begun(socket, switch)
            await wait_for(lambda: (tmp_path / switch).exists())
            assert (await http.delete(f"/api/conversations/{conversation}")).status_code == 204
            await wait_for(lambda: not alive(tmp_path, switch))

    switches = {"converse", "child_stays", "child_escapes", "child_holds_output", *HANGING}
    await asyncio.gather(*map(deleted, switches))


async def test_the_server_ends_in_time_and_takes_its_children_along(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(settings=settings(tmp_path) + "\n[server]\ndrain_grace_s = 0.5\n")
    switches = [*HANGING, "child_stays", "child_escapes"]

    async def started(switch: str) -> None:
        async with server.socket(fresh("drain")) as socket:
            await begun(socket, switch)

    await asyncio.gather(*map(started, switches))
    began = time.monotonic()
    server.terminate()
    assert await server.exited() == 0
    assert time.monotonic() - began < 8
    assert {switch: alive(tmp_path, switch) for switch in switches} == {switch: [] for switch in switches}
    assert "Traceback" not in server.errors


async def test_no_more_servers_run_than_the_operator_allows(make_server: MakeServer, tmp_path: Path) -> None:
    bounded = settings(tmp_path).replace("[mcp]", "[mcp]\nprocesses = 2")
    server = make_server(settings=bounded)
    reports = [await one_run(server, {"ref": "converse"}) for _ in range(3)]
    assert [report.calls[0]["status"] for report in reports] == ["ok", "ok", "error"]
    assert "mcp.processes" in reports[2].word
    assert len(alive(tmp_path, "converse")) == 2


async def test_a_server_that_died_is_started_again_for_the_next_call(place: Server) -> None:
    async with place.socket(fresh("again")) as socket:
        await use(socket, ugly={"ref": "exits_in_call"}, good={"ref": "converse"})
        for _ in range(2):
            await socket.run("/tool mcp:ugly/tool {}\n/tool mcp:good/tool {}")
        statuses = [event["status"] for event in socket.of("tool.completed")]
    assert statuses == ["error", "ok", "error", "ok"]
