"""The life of MCP servers in a conversation: they start on need, rest, are lost, come back, leave nothing behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.mcp.conftest import MakeOfficial, MakeUgly
from tests.mcp.desk import (
    AUTO,
    LOCAL,
    NEWEST,
    call,
    calls,
    configure,
    crm,
    last,
    operator_server,
    states,
    told,
    tool_names,
)
from tests.mcp.running import OfficialServer, StdioCommand, official_stdio, recorded, ugly_stdio
from tests.wire import Server, Socket, fresh, processes_with, wait_for

LOST = "The session with the MCP server crm was lost"
IDLE = LOCAL + "idle_s = 0.3\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.start(tmp_path_factory.mktemp("sessions"), settings=LOCAL)
    yield server
    server.stop()
    assert "Traceback" not in server.errors, server.errors


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets go of MCP servers soon."""
    server = Server.start(tmp_path_factory.mktemp("restless"), settings=IDLE)
    yield server
    server.stop()
    assert "Traceback" not in server.errors, server.errors


# -- on need -------------------------------------------------------------------------------------------------


async def test_configuring_and_reading_start_nothing(host: Server, official: OfficialServer) -> None:
    conversation = fresh()
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(official)})
        await socket.ok("snapshot.get")
        await host.log(conversation)
        assert not official.seen(kind="request")
        assert states(socket) == []


async def test_a_run_starts_its_servers_once(host: Server, official: OfficialServer) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.run(f"{call('add', a=1, b=2)}\n{call('add', a=1, b=3)}")
        await socket.run(call("add", a=1, b=4))
        assert states(socket) == ["starting", "ready"]
        assert len(official.seen(method="tools/list")) == 1


async def test_a_server_that_is_taken_out_is_stopped_and_said_to_be(host: Server, make_official: MakeOfficial) -> None:
    server = make_official(older=True)
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await socket.run(call("counter"))
        await configure(socket, mcp_servers={"crm": None})
        await told(socket, "stopped")
        await server.saw(http_method="DELETE")
        await socket.run(call("counter"))
        assert last(socket)["status"] == "error"
        assert states(socket) == ["starting", "ready", "stopped"]


async def test_a_call_under_way_ends_on_the_server_that_is_taken_out(host: Server, official: OfficialServer) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.ok("run.start", input=f"{call('slow', seconds=0.6)}\n{call('add', a=1, b=2)}")
        await socket.until("tool.output")
        await configure(socket, mcp_servers={"crm": None})
        await socket.until_final()
        slow, add = calls(socket.log)
        assert slow == ("ok", "took 0.6 s")
        assert add[0] == "error"
        await told(socket, "stopped")


async def test_a_call_ends_with_its_conversation_and_the_server_is_told(host: Server, official: OfficialServer) -> None:
    conversation = fresh()
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.ok("run.start", input=call("wait_forever", key=conversation))
        await official.saw(kind="waiting", key=conversation)
    async with host.http() as http:
        assert (await http.delete(f"/api/conversations/{conversation}")).status_code in (200, 204)
    await official.saw(kind="cancelled", key=conversation)


async def test_tools_asked_for_by_several_at_once_start_one_connection(host: Server, official: OfficialServer) -> None:
    conversation = fresh()
    config = {"mcp_servers": {"crm": crm(official)}, **AUTO}
    await host.post(conversation, {"type": "conversation.configure", "config": config})
    run = {"type": "run.start", "input": call("add", a=1, b=2)}
    await asyncio.gather(*(host.post(conversation, frame) for frame in [*[{"type": "tools.list"}] * 8, run]))
    async with host.socket(conversation, after=0) as socket:
        await socket.until_final()
        assert states(socket) == ["starting", "ready"]
        assert len(official.seen(method="tools/list")) == 1


async def test_a_server_that_did_not_start_is_left_alone_and_then_tried_again(
    make_server: MakeServer, make_official: MakeOfficial
) -> None:
    host = make_server(settings=LOCAL + "retry_s = 0.3\n")
    server = make_official()
    config = crm(server)
    server.stop()
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": config}, **AUTO)
        await socket.run(f"{call('add', a=1, b=2)}\n{call('add', a=1, b=2)}")
        failed = await told(socket, "failed")
        assert failed["error"]
        assert states(socket).count("failed") <= 2
        server.start()
        server.tokens("ada")
        await socket.run(f"/sleep 0.4\n{call('add', a=1, b=2)}")
        assert last(socket)["output"].endswith("3")
        assert states(socket)[-2:] == ["starting", "ready"]


async def test_a_new_configuration_is_tried_at_once(host: Server, official: OfficialServer) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": {"url": "http://127.0.0.1:9/mcp"}}, **AUTO)
        await socket.run(call("add", a=1, b=2))
        await configure(socket, mcp_servers={"crm": crm(official)})
        await socket.run(call("add", a=1, b=2))
        assert last(socket)["output"] == "3"
        assert states(socket) == ["starting", "failed", "starting", "ready"]


async def test_what_a_stdio_server_said_at_its_end_is_why_it_failed(make_server: MakeServer, tmp_path: Path) -> None:
    broken = StdioCommand(str(tmp_path / "no-such-program"), [])
    settings = operator_server("exits", ugly_stdio("exits")) + operator_server("none", broken)
    host = make_server(settings=settings)
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"exits": {"ref": "exits"}, "none": {"ref": "none"}})
        await tool_names(socket)
        assert "the licence has run out" in (await told(socket, "failed", "exits"))["error"]
        assert "no-such-program" in (await told(socket, "failed", "none"))["error"]


async def test_a_server_that_wants_credentials_says_so(host: Server, official: OfficialServer) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": {"url": official.url}})
        assert await tool_names(socket) == []
        wanting = await told(socket, "auth_required")
        assert "401" in wanting["error"]
        await configure(socket, mcp_servers={"crm": crm(official)})
        assert "mcp:crm/add" in await tool_names(socket)
        await told(socket, "ready")
        assert states(socket) == ["starting", "auth_required", "starting", "ready"]


# -- rest ----------------------------------------------------------------------------------------------------


async def test_an_idle_server_is_let_go_of_and_comes_back(restless: Server, make_official: MakeOfficial) -> None:
    server = make_official(older=True)
    async with restless.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await socket.run(call("counter"))
        await told(socket, "stopped")
        await server.saw(http_method="DELETE")
        await socket.run(f"{call('counter')}\n{call('counter')}")
        outputs = [output for _, output in calls(socket.log)]
        assert outputs[0] == "1"
        assert LOST in outputs[1]
        assert outputs[1].endswith("\n1")
        assert outputs[2] == "2"
        assert states(socket)[:5] == ["starting", "ready", "stopped", "starting", "ready"]


async def test_a_call_that_takes_long_is_not_idle(restless: Server, official: OfficialServer) -> None:
    async with restless.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.run(call("slow", seconds=2.5))
        assert last(socket)["output"] == "took 2.5 s"
        assert states(socket) == ["starting", "ready"]


async def test_nothing_is_said_to_be_lost_where_nothing_was_kept(
    make_server: MakeServer, official: OfficialServer
) -> None:
    restless = make_server(settings=NEWEST + "idle_s = 1\n")
    async with restless.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.run(call("add", a=1, b=2))
        await told(socket, "stopped")
        await socket.run(call("add", a=1, b=2))
        assert [output for _, output in calls(socket.log)] == ["3", "3"]


async def test_a_stdio_server_rests_as_well_and_its_process_is_gone(make_server: MakeServer, tmp_path: Path) -> None:
    record = tmp_path / "record"
    host = make_server(settings=IDLE + operator_server("desk", official_stdio(record)))
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": {"ref": "desk"}}, **AUTO)
        await socket.run(call("counter"))
        await told(socket, "stopped")
        await wait_for(lambda: not processes_with(str(record)))
        await socket.run(call("counter"))
        assert LOST in last(socket)["output"]
        assert len({entry["pid"] for entry in recorded(record)}) == 2


async def test_a_server_that_rests_while_people_think_comes_back_for_the_call(
    restless: Server, make_official: MakeOfficial
) -> None:
    server = make_official(older=True)
    async with restless.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(server)})
        await socket.ok("run.start", input=call("add_note", customer_id="c1", text="a"))
        asked = await socket.asked()
        await told(socket, "stopped")
        wrong = {"interaction_id": asked["interaction_id"], "option": "once", "arguments": {"text": 7}}
        assert (await socket.error("interaction.reply", **wrong))["path"] == "$.arguments"
        await socket.reply(asked, option="once", arguments={"customer_id": "c1", "text": "b"})
        await socket.until_final()
        assert last(socket)["status"] == "ok"
        assert [entry["text"] for entry in server.seen(kind="effect")] == ["b"]


async def test_a_form_that_is_open_for_long_is_not_idle(restless: Server, official: OfficialServer) -> None:
    async with restless.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.ok("run.start", input=call("ask_name"))
        asked = await socket.asked()
        await asyncio.sleep(1.5)
        await socket.reply(asked, content={"name": "Bob"})
        await socket.until_final()
        assert last(socket)["output"].startswith("Hello Bob")
        assert states(socket)[:2] == ["starting", "ready"]
        assert "stopped" not in [
            event["state"] for event in socket.of("mcp.status") if event["seq"] < last(socket)["seq"]
        ]


# -- lost ----------------------------------------------------------------------------------------------------


async def test_a_server_that_was_started_anew_has_lost_its_sessions_and_the_model_is_told_once(
    host: Server, make_official: MakeOfficial
) -> None:
    server = make_official(older=True)
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await socket.run(f"{call('counter')}\n{call('counter')}")
        server.stop()
        server.start()
        server.tokens("ada")
        await socket.run(f"{call('counter')}\n{call('counter')}")
        first, second = [output for _, output in calls(socket.log)][2:]
        assert LOST in first
        assert first.endswith("\n1"), first
        assert second == "2"


async def test_a_session_that_the_server_forgot_is_begun_anew_and_the_call_is_made_once(
    host: Server, make_official: MakeOfficial
) -> None:
    server = make_official(older=True)
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await socket.run(call("counter"))
        server.forget_sessions()
        await socket.run(call("add_note", customer_id="c1", text="once"))
        status, output = calls(socket.log)[-1]
        assert status == "ok"
        assert LOST in output
        assert output.endswith("noted")
        assert len(server.seen(kind="effect")) == 1


async def test_a_stdio_server_that_dies_in_a_call_is_an_error_and_comes_back(
    make_server: MakeServer, tmp_path: Path
) -> None:
    host = make_server(settings=operator_server("ugly", ugly_stdio("exits_in_call")))
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"ugly": {"ref": "ugly"}}, **AUTO)
        await socket.run(f"{call('tool')}\n{call('tool')}")
        for status, output in calls(socket.log):
            assert status == "error"
            assert "the licence has run out" in output
        assert states(socket, "ugly")[:4] == ["starting", "ready", "failed", "starting"]


async def test_a_restart_is_told_to_the_model_in_the_next_result_once(
    make_server: MakeServer, make_official: MakeOfficial
) -> None:
    server, conversation = make_official(older=True), fresh()
    host = make_server(settings=LOCAL)
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await socket.run(f"{call('counter')}\n{call('counter')}")
    host.kill()
    host = make_server(settings=LOCAL, data=host.data)
    async with host.socket(conversation) as socket:
        await socket.run(f"{call('add', a=1, b=2)}\n{call('counter')}")
        told_once, counted = [output for _, output in calls(socket.log)]
    assert LOST in told_once
    assert counted == "1"


async def test_after_an_orderly_restart_too(make_server: MakeServer, make_official: MakeOfficial) -> None:
    server, conversation = make_official(older=True), fresh()
    host = make_server(settings=LOCAL)
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await socket.run(call("counter"))
    host.terminate()
    await host.exited()
    await server.saw(http_method="DELETE")
    host = make_server(settings=LOCAL, data=host.data)
    async with host.socket(conversation) as socket:
        await socket.run(f"{call('counter')}\n{call('counter')}")
        first, second = [output for _, output in calls(socket.log)]
    assert LOST in first
    assert second == "2"


async def test_a_restart_where_nothing_was_used_or_kept_is_not_spoken_of(
    make_server: MakeServer, make_official: MakeOfficial
) -> None:
    modern, older, conversation = make_official(), make_official(older=True), fresh()
    host = make_server(settings=NEWEST)
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(modern), "old": crm(older)}, **AUTO)
        await socket.run(call("mcp:crm/add", a=1, b=2))
    host.kill()
    host = make_server(settings=NEWEST, data=host.data)
    async with host.socket(conversation) as socket:
        await socket.run(f"{call('mcp:crm/add', a=1, b=2)}\n{call('mcp:old/add', a=1, b=2)}")
        assert [output for _, output in calls(socket.log)] == ["3", "3"]


async def test_who_looks_after_a_restart_sees_that_the_servers_are_stopped(
    make_server: MakeServer, official: OfficialServer
) -> None:
    conversation = fresh()
    host = make_server(settings=LOCAL)
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.run(call("add", a=1, b=2))
    host.kill()
    host = make_server(settings=LOCAL, data=host.data)
    async with host.socket(conversation, after=0) as socket:
        await socket.greeted()
        await socket.run(call("add", a=1, b=2))
        assert states(socket) == ["starting", "ready", "stopped", "starting", "ready"]


async def test_a_conversation_that_left_memory_comes_back_with_its_servers(
    make_server: MakeServer, make_official: MakeOfficial
) -> None:
    server, conversation = make_official(older=True), fresh()
    host = make_server(settings=LOCAL + "[conversations]\nidle_s = 0.3\n")
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await socket.run(call("counter"))
    await server.saw(http_method="DELETE")
    async with host.socket(conversation, after=0) as socket:
        await socket.run(call("counter"))
        assert LOST in last(socket)["output"]
        assert last(socket)["output"].endswith("\n1")
        assert states(socket) == ["starting", "ready", "stopped", "starting", "ready"]


# -- nothing stays -------------------------------------------------------------------------------------------


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


def running(pids: Path) -> list[int]:
    """Processes of the stdio server that are still there."""
    noted = [int(line) for line in pids.read_text().split()] if pids.exists() else []
    return [pid for pid in noted if is_running(pid)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] != "Z"
    except OSError:
        return False


STUBBORN = ("converse", "stays", "child_stays", "child_escapes")
"""Servers that go when they are asked to, and others that do not, or leave somebody behind."""


def stubborn(pids: Path) -> str:
    """Settings with all of them."""
    return "".join(operator_server(switch, ugly_stdio(switch, pids)) for switch in STUBBORN)


async def use_all(socket: Socket) -> None:
    """Have each of them do something."""
    await configure(socket, mcp_servers={switch: {"ref": switch} for switch in STUBBORN}, **AUTO)
    await socket.run("\n".join(call(f"mcp:{switch}/tool") for switch in STUBBORN))
    assert [status for status, _ in calls(socket.log)] == ["ok"] * len(STUBBORN)


@pytest.mark.parametrize("at_work", [True, False])
async def test_no_process_of_a_stdio_server_outlives_a_killed_server_that_comes_back(
    make_server: MakeServer, pids: Path, at_work: bool
) -> None:
    host, conversation = make_server(settings=stubborn(pids)), fresh()
    async with host.socket(conversation) as socket:
        await use_all(socket)
        if at_work:
            await socket.ok("run.start", input="/sleep 60")
            await socket.until("step.started")
    before = running(pids)
    assert len(before) == len(STUBBORN) + 2
    host.kill()
    host = make_server(settings=stubborn(pids), data=host.data)
    await wait_for(lambda: not set(before) & set(running(pids)))
    if at_work:
        await host.post(conversation, {"type": "run.stop"})


async def test_no_process_outlives_an_orderly_end(make_server: MakeServer, pids: Path) -> None:
    host = make_server(settings=stubborn(pids))
    async with host.socket() as socket:
        await use_all(socket)
    assert running(pids)
    host.terminate()
    await host.exited()
    await wait_for(lambda: not running(pids), 3)


async def test_no_process_outlives_its_conversation(make_server: MakeServer, pids: Path) -> None:
    host, conversation = make_server(settings=stubborn(pids)), fresh()
    async with host.socket(conversation) as socket:
        await use_all(socket)
    assert running(pids)
    async with host.http() as http:
        assert (await http.delete(f"/api/conversations/{conversation}")).status_code in (200, 204)
    await wait_for(lambda: not running(pids))


async def test_two_conversations_have_a_process_each_and_one_end_is_not_the_others(
    make_server: MakeServer, pids: Path
) -> None:
    host = make_server(settings=operator_server("ugly", ugly_stdio("converse", pids)))
    first, second = fresh(), fresh()
    said: dict[str, str] = {}
    for conversation in (first, second):
        async with host.socket(conversation) as socket:
            await configure(socket, mcp_servers={"ugly": {"ref": "ugly"}}, **AUTO)
            await socket.run(call("tool"))
            said[conversation] = last(socket)["output"]
    assert said[first] != said[second]
    async with host.http() as http:
        await http.delete(f"/api/conversations/{first}")
    await wait_for(lambda: len(running(pids)) == 1)
    async with host.socket(second) as socket:
        await socket.run(call("tool"))
        assert last(socket)["output"] == said[second]


async def test_a_stop_of_the_run_leaves_the_server_running(make_server: MakeServer, tmp_path: Path) -> None:
    record = tmp_path / "record"
    host = make_server(settings=operator_server("desk", official_stdio(record)))
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": {"ref": "desk"}}, **AUTO)
        await socket.run(call("counter"))
        await socket.ok("run.start", input=call("wait_forever", key="k"))
        await wait_for(lambda: any(entry["kind"] == "waiting" for entry in recorded(record)))
        await socket.ok("run.stop", mode="now")
        await socket.until_final()
        await wait_for(lambda: any(entry["kind"] == "cancelled" for entry in recorded(record)))
        await socket.run(call("counter"))
        assert json.loads(last(socket)["output"]) == 2


async def test_a_server_that_hangs_up_is_tried_again(host: Server, make_ugly: MakeUgly) -> None:
    server = make_ugly("die_in_call")
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"ugly": {"url": server.url}}, **AUTO)
        await socket.run(f"{call('tool')}\n{call('tool')}")
        assert [status for status, _ in calls(socket.log)] == ["error", "error"]
        assert server.methods().count("tools/call") == 2
