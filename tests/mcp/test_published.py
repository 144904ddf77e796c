"""MCP servers that other people published, as an operator configures them and a conversation uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.mcp.desk import AUTO, call, calls, configure, last, operator_server, states, told, tool_names
from tests.mcp.running import StdioCommand
from tests.wire import Socket

pytestmark = pytest.mark.timeout(320)
"""The first time they have to be installed."""


async def use(socket: Socket, name: str, *script: str) -> list[tuple[str, str]]:
    """Have the server ``name`` do what the script says."""
    await configure(socket, mcp_servers={name: {"ref": name}}, **AUTO)
    await socket.run("\n".join(script))
    assert states(socket, name) == ["starting", "ready"]
    return calls(socket.log)


async def test_the_time_server_converts(make_server: MakeServer, time_server: StdioCommand) -> None:
    host = make_server(settings=operator_server("time", time_server))
    arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    async with host.socket() as socket:
        converted, wrong = await use(
            socket, "time", call("convert_time", **arguments), call("get_current_time", timezone="Mars/Olympus")
        )
        names = await tool_names(socket)
    assert {"mcp:time/get_current_time", "mcp:time/convert_time"} <= set(names)
    assert converted[0] == "ok"
    assert "21:00:00" in converted[1]
    assert wrong[0] == "error"
    assert "Mars/Olympus" in wrong[1]


async def test_the_sqlite_server_keeps_what_was_written(make_server: MakeServer, sqlite_server: StdioCommand) -> None:
    host = make_server(settings=operator_server("db", sqlite_server))
    script = [
        call("create_table", query="CREATE TABLE IF NOT EXISTS published (n INTEGER)"),
        call("write_query", query="INSERT INTO published VALUES (42)"),
        call("read_query", query="SELECT n FROM published"),
        call("list_prompts"),
    ]
    async with host.socket() as socket:
        done = await use(socket, "db", *script)
    assert [status for status, _ in done] == ["ok"] * 4
    assert "42" in done[2][1]


async def test_the_git_server_reads_a_repository(
    make_server: MakeServer, git_server: StdioCommand, tmp_path: Path
) -> None:
    host = make_server(settings=operator_server("git", git_server))
    async with host.socket() as socket:
        [refused] = await use(socket, "git", call("git_status", repo_path=str(tmp_path)))
    assert refused[0] == "error"
    assert str(tmp_path) in refused[1]


@pytest.mark.node
async def test_the_everything_server_has_everything(make_server: MakeServer, everything_server: StdioCommand) -> None:
    host = make_server(settings=operator_server("all", everything_server))
    async with host.socket() as socket:
        script = [call("echo", message="hello"), call("get-sum", a=3, b=4), call("get-tiny-image")]
        echo, added, _ = await use(socket, "all", *script)
        assert "hello" in echo[1]
        assert "7" in added[1]
        image = next(part for part in last(socket)["content"] if part["type"] == "image")
        async with host.http() as http:
            assert (await http.get(f"/api/blobs/{image['blob']}")).content.startswith(b"\x89PNG")
        await socket.run(
            "\n".join([call("trigger-long-running-operation", duration=1, steps=4), call("list_resources")])
        )
        assert socket.of("tool.output")
        assert [status for status, _ in calls(socket.log)] == ["ok"] * 5


@pytest.mark.node
async def test_the_everything_server_asks_people(make_server: MakeServer, everything_server: StdioCommand) -> None:
    host = make_server(settings=operator_server("all", everything_server))
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"all": {"ref": "all"}}, **AUTO)
        await tool_names(socket)
        name = next(tool for tool in (await told(socket, "ready", "all"))["tools"] if "elicitation" in tool)
        await socket.ok("run.start", input=call(name))
        asked = await socket.asked()
        assert (asked["kind"], asked["schema"]["type"]) == ("form", "object")
        await socket.reply(asked, option="decline")
        await socket.until_final()
        assert "declin" in last(socket)["output"].lower()


@pytest.mark.node
async def test_the_memory_server_remembers_over_a_restart_of_its_own(
    make_server: MakeServer, memory_server: StdioCommand
) -> None:
    host = make_server(settings="[mcp]\nidle_s = 0.3\n" + operator_server("memory", memory_server))
    entity = {"name": "Ada", "entityType": "person", "observations": ["likes tea"]}
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"memory": {"ref": "memory"}}, **AUTO)
        await socket.run(call("create_entities", entities=[entity]))
        await told(socket, "stopped", "memory")
        await socket.run(call("search_nodes", query="Ada"))
        assert last(socket)["status"] == "ok"
        assert "likes tea" in last(socket)["output"]


@pytest.mark.node
async def test_the_filesystem_server_stays_where_it_may(
    make_server: MakeServer, filesystem_server: StdioCommand, tmp_path: Path
) -> None:
    (tmp_path / "shared" / "in.txt").write_text("inside")
    (tmp_path / "out.txt").write_text("outside")
    host = make_server(settings=operator_server("files", filesystem_server))
    async with host.socket() as socket:
        script = [call("read_text_file", path=str(tmp_path / name)) for name in ("shared/in.txt", "out.txt")]
        inside, outside = await use(socket, "files", *script)
        assert inside == ("ok", "inside")
        started = socket.of("tool.started")[0]
        assert (started["title"], started["annotations"]["read_only"]) == ("Read Text File", True)
        assert outside[0] == "error"
        assert "Access denied" in outside[1]
        await configure(socket, approvals={"mode": "ask"})
        new = tmp_path / "shared" / "new.txt"
        await socket.ok("run.start", input=call("mcp:files/write_file", path=str(new), content="written"))
        asked = await socket.asked()
        assert asked["tool"]["source"] == "mcp:files"
        assert not new.exists()
        await socket.reply(asked, option="once")
        await socket.until_final()
        assert new.read_text() == "written"
