"""MCP tools as a real model endpoint is offered them, calls them and sees their results."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.agents.endpoint_server import Endpoint, calls, text
from tests.agents.endpoint_server import endpoint as running_endpoint
from tests.mcp.desk import ADA, AUTO, LOCAL, configure, crm
from tests.mcp.official_tools import png
from tests.mcp.running import OfficialServer
from tests.wire import Json, Server


@pytest.fixture(scope="module")
def port() -> int:
    """Where the tests of this module have their endpoints, one after the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def endpoint(port: int) -> AsyncIterator[Endpoint]:
    async with running_endpoint(port) as running:
        yield running


@pytest.fixture(scope="module")
def host(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = Endpoint()
    place.url = f"http://127.0.0.1:{port}/v1"
    server = Server.start(tmp_path_factory.mktemp("models"), settings=LOCAL + place.settings())
    yield server
    server.stop()
    assert "Traceback" not in server.errors, server.errors


def offered(body: Any) -> dict[str, Json]:
    """The functions that a request offers."""
    return {tool["function"]["name"]: tool["function"] for tool in body["tools"]}


def results(body: Any) -> list[Json]:
    """The results of tools that a request shows."""
    return [message for message in body["messages"] if message["role"] == "tool"]


async def test_a_model_is_offered_calls_and_sees(host: Server, endpoint: Endpoint, official: OfficialServer) -> None:
    endpoint.plays(calls(("find_customer", {"query": "Ada"})), text("Found her."))
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        final = await socket.run("who is Ada?")
    assert final["output"] == "Found her."
    first, second = endpoint.requests
    functions = offered(first.body)
    assert functions["find_customer"]["description"] == "Find customers by a part of their name."
    assert functions["find_customer"]["parameters"]["properties"]["query"]["type"] == "string"
    [result] = results(second.body)
    assert '"Ada"' in result["content"]
    [called] = [message for message in second.body["messages"] if message.get("tool_calls")]
    assert called["tool_calls"][0]["id"] == result["tool_call_id"]


async def test_names_that_two_servers_have_are_told_apart(
    host: Server, endpoint: Endpoint, official: OfficialServer
) -> None:
    official.tokens(ada=ADA, bob={"customers": [{"id": "c9", "name": "Bob"}], "extra_tools": ["read_file"]})

    async with host.socket() as socket:
        servers = {"crm": crm(official, "ada"), "other": crm(official, "bob")}
        await configure(socket, mcp_servers=servers, **AUTO)
        endpoint.plays(text("hello"))
        await socket.run("hello")
        functions = offered(endpoint.last.body)
        named = [name for name in functions if "find_customer" in name]
        assert len(named) == 2
        assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isalnum() for name in functions)
        theirs = next(name for name in named if "other" in name)
        file = next(name for name in functions if "read_file" in name and "other" in name)
        assert "read_file" in functions, "ours keeps its name"
        endpoint.plays(calls((theirs, {}), (file, {})), text("done"))
        await socket.run("find them")
    assert [event["source"] for event in socket.of("tool.started")] == ["mcp:other", "mcp:other"]
    found = next(event for event in socket.of("tool.completed") if event["name"] == "find_customer")
    assert found["structured"] == {"customers": [{"id": "c9", "name": "Bob"}], "total": 1}


async def test_a_picture_of_a_tool_is_seen_by_the_model_now_and_in_later_runs(
    host: Server, endpoint: Endpoint, official: OfficialServer
) -> None:
    endpoint.plays(calls(("picture", {"side": 20})), text("I see noise."))
    picture = base64.b64encode(png(20)).decode()
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.run("show me")
        assert picture in str(endpoint.last.body["messages"])
        endpoint.plays(text("Still noise."))
        await socket.run("and now?")
    assert picture in str(endpoint.last.body["messages"])


async def test_a_tool_that_comes_is_offered_in_the_next_step(
    host: Server, endpoint: Endpoint, official: OfficialServer
) -> None:
    endpoint.plays(calls(("grow", {"name": "sprout"})), calls(("slow", {"seconds": 0.5})), text("done"))
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await socket.run("grow")
    assert "sprout" not in offered(endpoint.requests[0].body)
    assert "sprout" in offered(endpoint.last.body)


async def test_what_policy_leaves_out_is_not_offered(
    host: Server, endpoint: Endpoint, official: OfficialServer
) -> None:
    endpoint.plays(calls(("delete_customer", {"customer_id": "c1"})), text("hm"))
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official, tools={"allow": ["find_*"]})}, **AUTO)
        await socket.run("hello")
    functions = offered(endpoint.requests[0].body)
    assert "find_customer" in functions
    assert "delete_customer" not in functions
    assert socket.of("tool.completed")[0]["status"] in ("denied", "error")
    assert not official.seen(tool="delete_customer")


async def test_a_server_that_does_not_come_up_does_not_keep_the_model_from_answering(
    host: Server, endpoint: Endpoint
) -> None:
    endpoint.plays(text("Without it, then."))
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"gone": {"url": "http://127.0.0.1:9/mcp"}})
        final = await socket.run("hello")
    assert final["output"] == "Without it, then."
    assert "terminal" in offered(endpoint.last.body)
