"""MCP for people with a terminal: the plain view and ``hermes-ws connect``."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.client.terminal import Terminal, command, environment
from tests.mcp.conftest import MakeUgly
from tests.mcp.desk import AUTO, LOCAL, call, crm
from tests.mcp.official_tools import LOGIN_URL
from tests.mcp.running import OfficialServer
from tests.mcp.ugly import UglyServer
from tests.mcp.ugly.asking import HOSTILE_FORMS, HOSTILE_URLS
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


async def at(host: Server, server: UglyServer, **fields: object) -> str:
    """A conversation with a server of the ugly kind."""
    conversation = fresh()
    servers = {"ugly": {"url": server.url, **fields}}
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
    assert "! MCP server gone failed: " in shown, "people are told of a server that failed"
    assert "· MCP server crm is ready (21 tools)" in shown
    assert "(mcp:crm)" in shown, "a call says whose tool it is"


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


async def test_a_form_with_one_field_takes_a_line_in_plain(host: Server, make_ugly: MakeUgly) -> None:
    server = make_ugly("asks")
    async with host.socket(await at(host, server), plain=1) as socket:
        await socket.send(call("tool"))
        assert "name (text, required)" in await until(socket, "/deny")
        await socket.send("Ada Lovelace")
        await until(socket, "◂ tool: ok")
    assert server.memory["answers"][-1]["result"] == {"action": "accept", "content": {"name": "Ada Lovelace"}}


async def test_forms_of_strangers_stay_readable_in_plain(host: Server, make_ugly: MakeUgly) -> None:
    server, declined = make_ugly("hostile_forms"), 0
    async with host.socket(await at(host, server), plain=1) as socket:
        await socket.send(call("tool"))
        async with soon(10):
            while not (line := await socket.recv_line()).startswith("◂ tool"):
                assert len(line) < 1_000
                if line.endswith("/deny [why]"):
                    declined += 1
                    await socket.send("/deny")
    assert line == "◂ tool: ok"
    assert 4 <= declined < len(HOSTILE_FORMS), "some are asked, some cannot be"


async def test_people_are_sent_to_web_pages_only_and_told_the_host(host: Server, make_ugly: MakeUgly) -> None:
    async with host.socket(await at(host, make_ugly("hostile_urls")), plain=1) as socket:
        await socket.send(call("tool"))
        shown = await until(socket, "/deny")
        assert "at xn--pple-43d.com:\n  https://xn--pple-43d.com/\n" in shown
        await socket.send("/decline")
        shown += await until(socket, "◂ tool: ok")
    assert [url for url in HOSTILE_URLS if url and url in shown] == ["https://xn--pple-43d.com/"]


async def test_what_a_bare_approve_is_for_is_not_guessed(host: Server, official: OfficialServer) -> None:
    conversation = fresh()
    servers = {"crm": crm(official, approvals={"mode": "auto"})}
    await host.post(conversation, {"type": "conversation.configure", "config": {"mcp_servers": servers}})
    async with host.socket(conversation, plain=1) as socket:
        await socket.send(f"{call('ask_login')}\n/par\n/run echo once")
        shown = ""
        while not (LOGIN_URL in shown and "/approve [" in shown):
            shown += await until(socket, "/deny")
        await socket.send("/approve")
        await until(socket, "/approve once for the call, /approve done for the form")
        await socket.send("/approve done")
        await until(socket, "◂ ask_login: ok")
        await socket.send("/approve")
        await until(socket, "◂ terminal: ok")


async def test_credentials_are_given_in_plain_by_their_own_command_alone(host: Server, make_ugly: MakeUgly) -> None:
    server = make_ugly("unauthorized")
    conversation = await at(host, server, headers={"Authorization": "Bearer first"})
    async with host.socket(conversation, plain=1) as socket:
        await socket.send(call("tool"))
        assert "? Credentials for ugly" in await until(socket, "/answer VALUE")
        await socket.send("what is going on?")
        await until(socket, "! Credentials for ugly: it is /answer VALUE")
        await socket.send("/answer second-s3cret")
        await until(socket, "/answer VALUE")
        await socket.send("/answer")
        await until(socket, "◂ tool: error")
        await until(socket, "· done")
    given = [entry["headers"]["authorization"] for entry in server.seen if entry["method"] == "tools/call"]
    assert given == ["Bearer first", "Bearer second-s3cret"]
    assert "s3cret" not in json.dumps(await host.log(conversation))


# -- hermes-ws connect -----------------------------------------------------------------------------------


def connecting(host: Server, conversation: str) -> list[str]:
    return command("connect", conversation, "--url", host.url, "--key", host.key)


async def test_connect_fills_in_forms_declines_them_and_shows_pages(host: Server, conversation: str) -> None:
    async with soon(60), Terminal.running(connecting(host, conversation), columns=300) as terminal:
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
        await terminal.expect("at crm.example.com:")
        await terminal.expect(LOGIN_URL)
        terminal.type("what?\r")
        await terminal.expect("! open the address, then say a")
        terminal.type("accept\r")
        await terminal.expect("the user said accept")
        await terminal.expect("· done")


async def test_credentials_do_not_show_at_a_terminal(host: Server, make_ugly: MakeUgly) -> None:
    server = make_ugly("unauthorized")
    conversation = await at(host, server, headers={"Authorization": "Bearer first"})
    async with soon(60), Terminal.running(connecting(host, conversation), columns=300) as terminal:
        await terminal.expect("/help says")
        terminal.type(call("tool") + "\r")
        await terminal.expect("hidden answer >")
        terminal.type("s3cret-value")
        shown = await terminal.expect("*" * len("s3cret-value"))
        terminal.type("\r")
        shown += await terminal.expect("> •••")
        shown += await terminal.expect("answered by")
        shown += await terminal.expect("hidden answer >")
        terminal.type("/answer\r")
        shown += await terminal.expect("· done")
        assert "◂ tool: error" in shown
        terminal.type("\x1b[A")
        shown += await terminal.expect(call("tool"))
        assert "s3cret" not in shown, "nor is it found again by the arrow keys"
    given = [entry["headers"]["authorization"] for entry in server.seen if entry["method"] == "tools/call"]
    assert given == ["Bearer first", "Bearer s3cret-value"]


async def test_a_secret_whose_question_has_gone_is_not_said_to_the_agent(host: Server, make_ugly: MakeUgly) -> None:
    conversation = await at(host, make_ugly("unauthorized"), headers={"Authorization": "Bearer first"})
    async with soon(60), Terminal.running(connecting(host, conversation), columns=300) as terminal:
        await terminal.expect("/help says")
        terminal.type(call("tool") + "\r")
        await terminal.expect("hidden answer >")
        terminal.type("s3cret-value")
        shown = await terminal.expect("*" * len("s3cret-value"))
        await host.post(conversation, {"type": "run.stop"})
        shown += await terminal.expect("· stopped by")
        terminal.type("\r")
        shown += await terminal.expect("> •••")
        shown += await terminal.expect("! interaction_resolved")
        assert "s3cret" not in shown
    assert "s3cret" not in json.dumps(await host.log(conversation))


async def test_between_pipes_the_next_line_fills_in_the_form(host: Server, make_ugly: MakeUgly) -> None:
    server = make_ugly("asks")
    conversation = await at(host, server)
    async with soon(30):
        piped = await asyncio.create_subprocess_exec(
            *connecting(host, conversation), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
        )
        out, _ = await piped.communicate(f"{call('tool')}\nAda\n{call('tool')}\n/deny\n".encode())
    assert piped.returncode == 0
    assert '    name (text, required)\n    type the answer, or a JSON object, such as {"name":"…"}\n' in out.decode()
    answers = [answer["result"] for answer in server.memory["answers"]]
    assert answers == [{"action": "accept", "content": {"name": "Ada"}}, {"action": "decline"}]


async def test_allow_in_connect_takes_no_tool_of_a_server_away(host: Server, conversation: str) -> None:
    async with soon(60), Terminal.running(connecting(host, conversation), columns=300) as terminal:
        await terminal.expect("/help says")
        terminal.type("/tools\r")
        await terminal.expect("mcp:crm/add_note — ")
        terminal.type("/allow nothing_*\r")
        await terminal.expect('"nothing_*"]')
        terminal.type(call("mcp:crm/whoami") + "\r")
        await terminal.expect("◂ whoami: ok")
