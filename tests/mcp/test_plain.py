"""MCP for people with a terminal: the plain view and ``hermes-ws connect``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.terminal import Terminal, command
from tests.mcp.desk import AUTO, LOCAL, call, crm
from tests.mcp.official_tools import LOGIN_URL
from tests.mcp.running import OfficialServer
from tests.wire import Server, Socket, fresh, soon


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.start(tmp_path_factory.mktemp("plain"), settings=LOCAL)
    yield server
    server.stop()
    assert "Traceback" not in server.errors, server.errors


@pytest.fixture
async def conversation(host: Server, official: OfficialServer) -> str:
    conversation = fresh()
    servers = {"crm": crm(official), "gone": {"url": "http://127.0.0.1:9/mcp"}}
    await host.post(conversation, {"type": "conversation.configure", "config": {"mcp_servers": servers, **AUTO}})
    return conversation


async def until(socket: Socket, wanted: str) -> str:
    """Everything up to the line that has this in it."""
    read: list[str] = []
    async with soon(5):
        while not read or wanted not in read[-1]:
            read.append(await socket.recv_line())
    return "\n".join(read)


async def test_plain_shows_calls_progress_and_servers_that_failed(host: Server, conversation: str) -> None:
    async with host.socket(conversation, plain=1) as socket:
        await socket.send(f"{call('slow', seconds=0.4)}\n{call('picture')}")
        shown = await until(socket, "· done")
    assert "▸ slow" in shown
    assert "step 1" in shown
    assert "◂ slow: ok" in shown
    assert "◂ picture: ok" in shown
    assert "gone" in shown, "people are told of a server that failed"
    assert "failed" in shown


async def test_plain_names_tools_as_allow_takes_them(host: Server, conversation: str) -> None:
    async with host.socket(conversation, plain=1) as socket:
        await socket.send("/tools")
        assert "mcp:crm/add" in await until(socket, "find_customer")


async def test_a_form_can_be_filled_in_in_plain(host: Server, conversation: str) -> None:
    async with host.socket(conversation, plain=1) as socket:
        await socket.send(call("ask_name"))
        shown = await until(socket, "newsletter")
        assert "Who are you?" in shown
        assert "crm" in shown
        assert "age" in shown
        await socket.send('/answer {"name": "Bob", "age": "old"}')
        await until(socket, "age")
        await socket.send('/answer {"name": "Bob"}')
        await until(socket, "◂ ask_name: ok")


async def test_a_line_typed_at_a_form_does_not_start_a_run(host: Server, conversation: str) -> None:
    async with host.socket(conversation, plain=1) as socket:
        await socket.send(call("ask_name"))
        await until(socket, "Who are you?")
        await socket.send("what is this?")
        shown = await until(socket, "!")
        assert "queued" not in shown
        await socket.send("/stop")
        await until(socket, "stopped")


@pytest.mark.parametrize("tool", ["ask_name", "ask_login"])
async def test_a_question_of_a_server_can_be_declined_in_plain(host: Server, conversation: str, tool: str) -> None:
    async with host.socket(conversation, plain=1) as socket:
        await socket.send(call(tool))
        await until(socket, "? ")
        await socket.send("/deny")
        await until(socket, f"◂ {tool}: ok")


async def test_a_page_to_go_to_is_shown_in_plain_and_can_be_said_to_be_done(host: Server, conversation: str) -> None:
    async with host.socket(conversation, plain=1) as socket:
        await socket.send(call("ask_login"))
        await until(socket, LOGIN_URL)
        await socket.send("/approve")
        await until(socket, "◂ ask_login: ok")


async def test_connect_fills_in_forms_declines_them_and_shows_pages(host: Server, conversation: str) -> None:
    address = ["connect", conversation, "--url", host.url, "--key", host.key]
    async with soon(60), Terminal.running(command(*address), columns=300) as terminal:
        await terminal.expect("/help says")
        terminal.type(call("ask_name") + "\r")
        await terminal.expect("newsletter")
        terminal.type('{"name": "Bob"}\r')
        await terminal.expect("Hello Bob")
        await terminal.expect("· done")
        terminal.type(call("ask_name") + "\r")
        await terminal.expect("newsletter")
        terminal.type("decline\r")
        await terminal.expect("the user said decline")
        await terminal.expect("· done")
        terminal.type(call("ask_login") + "\r")
        await terminal.expect(LOGIN_URL)
        terminal.type("accept\r")
        await terminal.expect("the user said accept")
        await terminal.expect("· done")
