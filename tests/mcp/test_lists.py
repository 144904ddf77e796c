"""Which tools of its MCP servers a conversation has: lists, filters, hints, changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import MakeServer
from tests.mcp.conftest import MakeOfficial
from tests.mcp.desk import ADA, AUTO, LOCAL, call, calls, configure, crm, last, states, told, tool_names
from tests.mcp.running import OfficialServer
from tests.wire import Server, Socket, fresh, soon

REACHING = {"list_resources", "read_resource", "list_prompts", "get_prompt"}
"""Tools of ours that reach what a server has beside tools."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.start(tmp_path_factory.mktemp("lists"), settings=LOCAL)
    yield server
    server.stop()
    assert "Traceback" not in server.errors, server.errors


@pytest.fixture
async def socket(host: Server, official: OfficialServer) -> AsyncIterator[Socket]:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        yield socket


# -- lists ---------------------------------------------------------------------------------------------------


async def test_the_list_has_sources_descriptions_schemas_and_hints(socket: Socket) -> None:
    tools = {tool["name"]: tool for tool in (await socket.ok("tools.list"))["tools"] if tool["source"] == "mcp:crm"}
    add = tools["add"]
    assert add["description"] == "Add two numbers."
    assert add["parameters"]["required"] == ["a", "b"]
    assert add["parameters"]["properties"]["a"]["type"] == "integer"
    assert add["annotations"] == {"read_only": True, "idempotent": True, "destructive": False}
    assert tools.keys() >= {"find_customer", "delete_customer", *REACHING}


async def test_the_list_is_the_same_over_http(host: Server, official: OfficialServer) -> None:
    conversation = fresh()
    config = {"mcp_servers": {"crm": crm(official)}}
    await host.post(conversation, {"type": "conversation.configure", "config": config})
    over_http = await host.post(conversation, {"type": "tools.list"})
    async with host.socket(conversation) as socket:
        over_socket = await socket.ok("tools.list")
    assert over_http["tools"] == over_socket["tools"]
    assert "mcp:crm" in {tool["source"] for tool in over_http["tools"]}


async def test_asking_for_the_list_starts_the_servers_and_says_so(socket: Socket, official: OfficialServer) -> None:
    assert states(socket) == []
    await tool_names(socket)
    await told(socket, "ready")
    assert states(socket) == ["starting", "ready"]
    await tool_names(socket)
    await socket.run(call("add", a=1, b=2))
    assert states(socket) == ["starting", "ready"]


async def test_a_server_that_failed_leaves_the_other_tools_in_the_list(host: Server, official: OfficialServer) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official), "gone": {"url": "http://127.0.0.1:9/mcp"}})
        tools = (await socket.ok("tools.list"))["tools"]
        assert {tool["source"] for tool in tools} == {"builtin", "mcp:crm"}
        await told(socket, "failed", "gone")


async def test_status_names_the_tools_of_the_server(socket: Socket) -> None:
    await tool_names(socket)
    ready = await told(socket, "ready")
    assert ready["server"] == "crm"
    assert {"add", "find_customer"} <= set(ready["tools"])
    assert not REACHING & set(ready["tools"])
    assert ready.get("error") is None


# -- allow and deny ------------------------------------------------------------------------------------------


async def test_a_server_is_narrowed_to_what_is_allowed_of_it(host: Server, official: OfficialServer) -> None:
    async with host.socket() as socket:
        tools = {"allow": ["find_*", "add"], "deny": ["find_nobody"]}
        await configure(socket, mcp_servers={"crm": crm(official, tools=tools)}, **AUTO)
        assert await tool_names(socket) == ["mcp:crm/add", "mcp:crm/find_customer"]
        await socket.run("\n".join([call("find_customer"), call("counter"), call("list_resources")]))
    assert [status for status, _ in calls(socket.log)] == ["ok", "denied", "denied"]
    assert not official.seen(tool="counter")


async def test_what_is_said_of_one_server_is_not_said_of_another(host: Server, official: OfficialServer) -> None:
    official.tokens(ada=ADA, bob=ADA)
    async with host.socket() as socket:
        servers = {"crm": crm(official, "ada", tools={"allow": ["add"]}), "other": crm(official, "bob")}
        await configure(socket, mcp_servers=servers)
        names = await tool_names(socket)
        assert [name for name in names if name.startswith("mcp:crm/")] == ["mcp:crm/add"]
        assert "mcp:other/find_customer" in names


async def test_patterns_of_the_conversation_name_server_and_tool(host: Server, official: OfficialServer) -> None:
    official.tokens(ada=ADA, bob=ADA)
    async with host.socket() as socket:
        servers = {"crm": crm(official, "ada"), "other": crm(official, "bob")}
        tools = {"allow": ["mcp:crm/find_*", "mcp:other/*"], "deny": ["mcp:other/[b-z]*", "delete_*"]}
        await configure(socket, mcp_servers=servers, tools=tools, **AUTO)
        tools_list = (await socket.ok("tools.list"))["tools"]
        assert {(tool["source"], tool["name"]) for tool in tools_list} == {
            ("mcp:crm", "find_customer"),
            *(("mcp:other", name) for name in ("add", "add_note", "ask_login", "ask_name")),
        }
        await socket.run("\n".join([call("mcp:crm/add", a=1, b=2), call("mcp:other/add", a=1, b=2)]))
    assert [status for status, _ in calls(socket.log)] == ["denied", "ok"]


async def test_no_tools_are_no_tools(socket: Socket) -> None:
    await configure(socket, tools={"allow": []})
    assert await tool_names(socket) == []
    await socket.run(call("add", a=1, b=2))
    assert last(socket)["status"] == "denied"


async def test_a_run_narrows_and_never_widens(socket: Socket) -> None:
    await configure(socket, tools={"allow": ["mcp:crm/*"], "deny": ["counter"]})
    script = "\n".join([call("add", a=1, b=2), call("counter"), call("find_customer")])
    await socket.run(script, tools={"allow": ["mcp:crm/add", "counter"]})
    assert [status for status, _ in calls(socket.log)] == ["ok", "denied", "denied"]


async def test_an_operator_may_leave_mcp_out_of_what_conversations_have(
    make_server: MakeServer, official: OfficialServer
) -> None:
    host = make_server(settings=LOCAL + '[tools]\ndefault = ["builtin:*"]\n')
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        assert await tool_names(socket) == []
        await configure(socket, tools={"allow": ["mcp:crm/add"]})
        assert await tool_names(socket) == ["mcp:crm/add"]


async def test_hints_are_not_taken_where_the_operator_does_not_trust_them(
    make_server: MakeServer, official: OfficialServer
) -> None:
    host = make_server(settings=LOCAL + "trust_annotations = false\n")
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)})
        await socket.ok("run.start", input=call("find_customer"))
        asked = await socket.asked()
        assert asked["kind"] == "approval"
        assert socket.of("tool.started")[0]["annotations"]["read_only"] is False
        await socket.reply(asked, option="deny")
        await socket.until_final()


# -- changes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("older", [False, True])
async def test_a_tool_that_comes_is_there_in_the_next_step(
    host: Server, make_official: MakeOfficial, older: bool
) -> None:
    server = make_official(older=older)
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await socket.run(call("grow", name="sprout"))
        async with soon(5):
            while "sprout" not in socket.of("mcp.status")[-1]["tools"]:
                await socket.recv()
        assert "mcp:crm/sprout" in await tool_names(socket)
        await socket.run(call("sprout"))
        assert last(socket)["output"] == "sprout at your service"
    assert states(socket) == ["starting", "ready", "ready"]


async def test_a_tool_that_comes_during_a_run_is_used_by_it(host: Server, official: OfficialServer) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.run(f"{call('grow', name='sprout')}\n/sleep 0.5\n{call('sprout')}")
    assert calls(socket.log)[-1] == ("ok", "sprout at your service")


async def test_a_change_in_one_conversation_is_none_in_another(host: Server, official: OfficialServer) -> None:
    official.tokens(ada=ADA, bob=ADA)
    async with host.socket() as ada, host.socket() as bob:
        for socket, token in ((ada, "ada"), (bob, "bob")):
            await configure(socket, mcp_servers={"crm": crm(official, token)}, **AUTO)
            await tool_names(socket)
        await ada.run(call("grow", name="sprout"))
        async with soon(5):
            while "sprout" not in ada.of("mcp.status")[-1]["tools"]:
                await ada.recv()
        assert "mcp:crm/sprout" not in await tool_names(bob)
        await bob.run(call("sprout"))
        assert last(bob)["status"] == "error"


async def test_filters_hold_for_tools_that_come_later(host: Server, official: OfficialServer) -> None:
    async with host.socket() as socket:
        tools = {"deny": ["spr*"]}
        await configure(socket, mcp_servers={"crm": crm(official, tools=tools)}, **AUTO)
        await socket.run(call("grow", name="sprout"))
        async with soon(5):
            while "sprout" not in socket.of("mcp.status")[-1]["tools"]:
                await socket.recv()
        assert "mcp:crm/sprout" not in await tool_names(socket)
        await socket.run(call("sprout"))
        assert last(socket)["status"] == "denied"


async def test_a_snapshot_tells_what_became_of_the_servers(host: Server, official: OfficialServer) -> None:
    conversation = fresh()
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.run(call("add", a=1, b=2))
        snapshot = (await socket.ok("snapshot.get"))["snapshot"]
        assert snapshot["config"]["mcp_servers"]["crm"]["url"] == official.url
    async with host.socket(conversation, after=0) as later:
        await later.greeted()
        assert states(later) == ["starting", "ready"]
