"""The servers that MCP is tested with do what they say, seen by the SDK's own client: later failures are ours."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client import Transport
from mcp.client.session import ClientRequestContext
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.mcp.conftest import MakeOfficial, MakeUgly
from tests.mcp.official_tools import LOGIN_URL
from tests.mcp.running import OfficialServer, StdioCommand, recorded, ugly_stdio
from tests.mcp.ugly_stdio import FAREWELL

ADA = {"customers": [{"id": "c1", "name": "Ada"}]}
LIMIT_S = 20


async def answering(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    """A user who is called Bob, and goes where he is sent."""
    form = isinstance(params, types.ElicitRequestFormParams)
    return types.ElicitResult(action="accept", content={"name": "Bob"} if form else None)


@asynccontextmanager
async def client(transport: Transport, **options: Any) -> AsyncIterator[Client]:
    with anyio.fail_after(LIMIT_S):
        async with Client(transport, elicitation_callback=answering, **{"mode": "legacy", **options}) as session:
            yield session


@asynccontextmanager
async def over_http(url: str, token: str = "ada", **options: Any) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False) as http,
        client(streamable_http_client(url, http_client=http), **options) as session,
    ):
        yield session


@asynccontextmanager
async def over_stdio(command: StdioCommand, errors: Path, **options: Any) -> AsyncIterator[Client]:
    given = StdioServerParameters(command=command.command, args=command.args, env=command.env)
    with errors.open("w") as errlog:
        async with client(stdio_client(given, errlog=errlog), **options) as session:
            yield session


@pytest.fixture
def errors(tmp_path: Path) -> Path:
    return tmp_path / "errors"


# -- the official one ----------------------------------------------------------------------------------------


@pytest.fixture
def crm(official: OfficialServer) -> OfficialServer:
    official.tokens(ada=ADA, bob={"customers": [{"id": "c9", "name": "Bob"}], "extra_tools": ["vip"]})
    return official


def text_of(result: types.CallToolResult) -> str:
    first = result.content[0]
    assert isinstance(first, types.TextContent)
    return first.text


async def test_each_token_sees_its_own_customers_and_tools(crm: OfficialServer) -> None:
    async with over_http(crm.url, "ada") as ada, over_http(crm.url, "bob") as bob:
        found = [await session.call_tool("find_customer") for session in (ada, bob)]
        names = [{tool.name for tool in (await session.list_tools()).tools} for session in (ada, bob)]
    assert [result.structured_content for result in found] == [
        {"customers": [{"id": "c1", "name": "Ada"}], "total": 1},
        {"customers": [{"id": "c9", "name": "Bob"}], "total": 1},
    ]
    assert names[1] - names[0] == {"vip"}


async def test_it_remembers_what_it_saw(crm: OfficialServer) -> None:
    async with over_http(crm.url) as session:
        await session.call_tool("add", {"a": 1, "b": 2}, meta=cast("types.RequestParamsMeta", {"conversation": "c"}))
    [call] = crm.seen(kind="request", tool="add")
    assert (call["method"], call["arguments"], call["authorization"]) == ("tools/call", {"a": 1, "b": 2}, "Bearer ada")
    assert call["meta"]["conversation"] == "c"
    assert call["session"]
    assert call["peer_port"] > 0


async def test_a_token_that_is_taken_away_is_refused_with_a_challenge(crm: OfficialServer) -> None:
    async with httpx2.AsyncClient(trust_env=False, headers={"Authorization": "Bearer ada"}) as http:
        before = await http.post(crm.url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        crm.tokens("bob")
        after = await http.post(crm.url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert before.status_code != 401
    assert after.status_code == 401
    assert after.headers["www-authenticate"].startswith("Bearer ")


async def test_a_session_counts_until_it_is_forgotten(crm: OfficialServer) -> None:
    async with over_http(crm.url) as session:
        assert [text_of(await session.call_tool("counter")) for _ in range(2)] == ["1", "2"]
        crm.forget_sessions()
        with pytest.raises(MCPError, match="Session not found"):
            await session.call_tool("counter")
    async with over_http(crm.url) as anew:
        assert text_of(await anew.call_tool("counter")) == "1"


async def test_a_cancelled_call_is_noted(crm: OfficialServer) -> None:
    async with over_http(crm.url) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.call_tool, "wait_forever", {"key": "k"})
            await crm.saw(kind="waiting", key="k")
            tasks.cancel_scope.cancel()
        await crm.saw(kind="cancelled", key="k")


async def test_what_is_written_stays_with_the_token(crm: OfficialServer) -> None:
    async with over_http(crm.url) as session:
        await session.call_tool("add_note", {"customer_id": "c1", "text": "likes tea"})
        await session.call_tool("delete_customer", {"customer_id": "c1"})
    tenants = crm.tenants()
    assert tenants["ada"]["notes"] == [{"customer_id": "c1", "text": "likes tea"}]
    assert (tenants["ada"]["customers"], len(tenants["bob"]["customers"])) == ([], 1)
    assert [entry["tool"] for entry in crm.seen(kind="effect")] == ["add_note", "delete_customer"]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_both_protocol_versions_have_a_form_and_a_page_to_log_in(crm: OfficialServer, mode: str) -> None:
    async with over_http(crm.url, mode=mode) as session:
        assert text_of(await session.call_tool("ask_name")) == "Hello Bob, aged 30, newsletter: False"
        assert text_of(await session.call_tool("ask_login")) == "the user said accept"
        seen = (await session.call_tool("whoami")).structured_content
    assert seen is not None
    assert seen["protocol_version"] == ("2025-11-25" if mode == "legacy" else mode)


async def test_the_page_to_log_in_is_told_to_the_client(crm: OfficialServer) -> None:
    asked: list[types.ElicitRequestParams] = []

    async def declining(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params)
        return types.ElicitResult(action="decline")

    async with httpx2.AsyncClient(trust_env=False, headers={"Authorization": "Bearer ada"}) as http:
        transport = streamable_http_client(crm.url, http_client=http)
        with anyio.fail_after(LIMIT_S):
            async with Client(transport, mode="legacy", elicitation_callback=declining) as session:
                assert text_of(await session.call_tool("ask_login")) == "the user said decline"
    [params] = asked
    assert isinstance(params, types.ElicitRequestURLParams)
    assert params.url == LOGIN_URL


async def test_progress_is_told_step_by_step(crm: OfficialServer) -> None:
    steps: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append((progress, total, message))

    async with over_http(crm.url) as session:
        await session.call_tool("slow", {"seconds": 0.02, "steps": 2}, progress_callback=note)
    assert steps == [(1, 2, "step 1"), (2, 2, "step 2")]


async def test_a_tool_that_is_added_is_announced(crm: OfficialServer) -> None:
    announced = anyio.Event()

    async def listen(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            announced.set()

    async with over_http(crm.url, message_handler=listen) as session:
        await crm.saw(http_method="GET", path="/mcp")
        await session.call_tool("grow", {"name": "sprout"})
        await announced.wait()
        assert "sprout" in {tool.name for tool in (await session.list_tools()).tools}
        assert text_of(await session.call_tool("sprout")) == "sprout at your service"


async def test_hints_say_what_a_tool_does(crm: OfficialServer) -> None:
    async with over_http(crm.url) as session:
        hints = {tool.name: tool.annotations for tool in (await session.list_tools()).tools}
    assert hints["find_customer"] == types.ToolAnnotations(read_only_hint=True)
    assert hints["add_note"] == types.ToolAnnotations(read_only_hint=False, destructive_hint=False)
    assert hints["delete_customer"] == types.ToolAnnotations(read_only_hint=False, destructive_hint=True)
    assert hints["grow"] is None


async def test_results_come_in_every_kind(crm: OfficialServer) -> None:
    async with over_http(crm.url) as session:
        kinds = {
            name: [part.type for part in (await session.call_tool(name)).content]
            for name in ("picture", "sound", "embedded", "linked")
        }
        people = await session.call_tool("people")
        picture = (await session.call_tool("picture", {"side": 300})).content[0]
        failed = [await session.call_tool(name) for name in ("fail", "crash")]
    assert kinds == {
        "picture": ["image"],
        "sound": ["audio"],
        "embedded": ["resource", "resource"],
        "linked": ["text", "resource_link"],
    }
    assert people.structured_content == {"result": [{"id": "c1", "name": "Ada"}]}
    assert isinstance(picture, types.ImageContent)
    assert base64.b64decode(picture.data).startswith(b"\x89PNG")
    assert [result.is_error for result in failed] == [True, True]
    assert "on fire" in text_of(failed[0])


async def test_resources_and_prompts_are_there(crm: OfficialServer) -> None:
    async with over_http(crm.url) as session:
        uris = [str(resource.uri) for resource in (await session.list_resources()).resources]
        templates = [t.uri_template for t in (await session.list_resource_templates()).resource_templates]
        read = [(await session.read_resource(uri)).contents[0] for uri in (*uris, "crm://customers/c1")]
        prompt = await session.get_prompt("letter", {"customer": "Ada"})
    assert (uris, templates) == (["crm://readme", "crm://logo"], ["crm://customers/{customer_id}"])
    assert [type(contents).__name__ for contents in read] == [
        "TextResourceContents",
        "BlobResourceContents",
        "TextResourceContents",
    ]
    assert isinstance(read[2], types.TextResourceContents)
    assert json.loads(read[2].text) == {"id": "c1", "name": "Ada"}
    assert isinstance(prompt.messages[0].content, types.TextContent)
    assert prompt.messages[0].content.text == "Write a friendly letter to Ada."


async def test_the_old_transport_is_served_too(crm: OfficialServer) -> None:
    async with client(sse_client(crm.sse_url, headers={"Authorization": "Bearer ada"})) as session:
        assert text_of(await session.call_tool("add", {"a": 1, "b": 2})) == "3"
        assert [text_of(await session.call_tool("counter")) for _ in range(2)] == ["1", "2"]
    assert {entry["path"] for entry in crm.seen(kind="request")} == {"/sse", "/messages/"}


async def test_stdio_has_the_same_tools_and_keeps_a_record(
    official_command: StdioCommand, official_record: Path, errors: Path
) -> None:
    async with over_stdio(official_command, errors) as session:
        assert text_of(await session.call_tool("env", {"name": "PYTHONPATH"})) == official_command.env["PYTHONPATH"]
        assert text_of(await session.call_tool("ask_name")) == "Hello Bob, aged 30, newsletter: False"
    calls = [entry["tool"] for entry in recorded(official_record) if entry["method"] == "tools/call"]
    assert calls == ["env", "ask_name"]


async def test_it_comes_back_on_its_port_and_has_forgotten_everything(make_official: MakeOfficial) -> None:
    server = make_official(json_response=True)
    port = server.port
    server.tokens("ada")
    server.stop()
    server.start()
    assert (server.port, server.seen()) == (port, [])
    server.tokens("ada")
    async with over_http(server.url) as session:
        assert text_of(await session.call_tool("add", {"a": 1, "b": 2})) == "3"


# -- the ugly ones -------------------------------------------------------------------------------------------


async def test_but_for_its_switch_an_ugly_server_is_polite(make_ugly: MakeUgly) -> None:
    server = make_ugly("polite")
    async with over_http(server.url) as session:
        assert [tool.name for tool in (await session.list_tools()).tools] == ["tool"]
        assert text_of(await session.call_tool("tool")) == "fine"
    assert server.methods()[0] == "initialize"
    assert server.seen[-1]["headers"]["authorization"] == "Bearer ada"


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("unauthorized", "error response"),
        ("lost_session", "Session terminated"),
        ("html", "content type"),
        ("redirect_metadata", "not followed"),
        ("deep_json", "Failed to parse"),
        ("lone_surrogate", "Failed to parse"),
        ("end_stream", "ended without a response"),
        ("echo_error", "ada is not good enough"),
        ("hang_on_call", "timed out"),
        ("wrong_id", "timed out"),
        ("endless_keepalives", "timed out"),
    ],
)
async def test_a_switch_does_what_it_says(make_ugly: MakeUgly, switch: str, message: str) -> None:
    async with over_http(make_ugly(switch).url) as session:
        await session.list_tools()
        with pytest.raises(MCPError, match=message):
            await session.session.call_tool("tool", read_timeout_seconds=0.3)


async def test_a_server_that_asks_keeps_the_answers(make_ugly: MakeUgly) -> None:
    server = make_ugly("asks")
    async with over_http(server.url) as session:
        result = await session.call_tool("tool")
    assert result.structured_content == {"answers": [{"action": "accept", "content": {"name": "Bob"}}]}


async def test_a_reset_in_a_call_is_seen_as_one(make_ugly: MakeUgly) -> None:
    with pytest.RaisesGroup(httpx2.RemoteProtocolError, allow_unwrapped=True, flatten_subgroups=True):
        async with over_http(make_ugly("die_in_call").url) as session:
            await session.call_tool("tool")


async def test_a_polite_stdio_server_answers(errors: Path) -> None:
    async with over_stdio(ugly_stdio("converse"), errors) as session:
        assert text_of(await session.call_tool("tool")).startswith("fine, ")


async def test_a_stdio_server_that_exits_says_why(errors: Path) -> None:
    with pytest.RaisesGroup(MCPError, flatten_subgroups=True):
        async with over_stdio(ugly_stdio("exits"), errors):
            raise AssertionError("it was not to come up")
    assert errors.read_text().strip() == FAREWELL


async def test_garbage_between_answers_is_only_garbage(errors: Path) -> None:
    async with over_stdio(ugly_stdio("garbage"), errors) as session:
        assert text_of(await session.call_tool("tool")).startswith("fine, ")


# -- published ones ------------------------------------------------------------------------------------------

published = pytest.mark.timeout(320)
"""The first time they have to be installed."""


@published
async def test_the_time_server_converts(time_server: StdioCommand, errors: Path) -> None:
    async with over_stdio(time_server, errors) as session:
        assert {tool.name for tool in (await session.list_tools()).tools} == {"get_current_time", "convert_time"}
        arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        assert "21:00:00" in text_of(await session.call_tool("convert_time", arguments))


@published
async def test_the_sqlite_server_writes_and_reads(sqlite_server: StdioCommand, errors: Path) -> None:
    async with over_stdio(sqlite_server, errors) as session:
        assert "write_query" in {tool.name for tool in (await session.list_tools()).tools}
        await session.call_tool("create_table", {"query": "CREATE TABLE IF NOT EXISTS t (n INTEGER)"})
        await session.call_tool("write_query", {"query": "INSERT INTO t VALUES (42)"})
        assert "42" in text_of(await session.call_tool("read_query", {"query": "SELECT n FROM t"}))


@published
async def test_the_git_server_has_its_tools(git_server: StdioCommand, errors: Path) -> None:
    async with over_stdio(git_server, errors) as session:
        assert "git_status" in {tool.name for tool in (await session.list_tools()).tools}


@published
@pytest.mark.node
async def test_the_everything_server_adds(everything_server: StdioCommand, errors: Path) -> None:
    async with over_stdio(everything_server, errors) as session:
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert {"echo", "get-sum", "get-tiny-image"} <= names
        assert "7" in text_of(await session.call_tool("get-sum", {"a": 3, "b": 4}))


@published
@pytest.mark.node
async def test_the_memory_server_remembers(memory_server: StdioCommand, errors: Path) -> None:
    async with over_stdio(memory_server, errors) as session:
        entity = {"name": "Ada", "entityType": "person", "observations": ["likes tea"]}
        await session.call_tool("create_entities", {"entities": [entity]})
        assert "likes tea" in text_of(await session.call_tool("search_nodes", {"query": "Ada"}))


@published
@pytest.mark.node
async def test_the_filesystem_server_stays_where_it_may(
    filesystem_server: StdioCommand, tmp_path: Path, errors: Path
) -> None:
    (tmp_path / "shared" / "in.txt").write_text("inside")
    (tmp_path / "out.txt").write_text("outside")
    async with over_stdio(filesystem_server, errors) as session:
        inside = await session.call_tool("read_text_file", {"path": str(tmp_path / "shared" / "in.txt")})
        outside = await session.call_tool("read_text_file", {"path": str(tmp_path / "out.txt")})
    assert (text_of(inside), outside.is_error) == ("inside", True)
