"""MCP servers give back what they were trusted with, in every way they can. It is looked for wherever one can look."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.canaries import canary, sightings, sightings_in_files
from tests.conftest import MakeServer
from tests.mcp.conftest import MakeUgly
from tests.mcp.gateway import AUTO_SETTINGS, configure, crm, outputs, results
from tests.mcp.running import OfficialServer, StdioCommand, ugly_stdio
from tests.mcp.ugly import SWITCHES
from tests.mcp.ugly.echoes import secret_of
from tests.mcp.ugly.server import Exchange, Json, switch, text_result
from tests.mcp.ugly_stdio import SECRET_VARIABLE
from tests.wire import FINALS, Server, Socket, fresh, open_interactions, soon

ECHOES = sorted(name for name in SWITCHES if name.startswith("echo"))
"""In some ways that nobody can recognise, too (backwards, in pieces): not even then it may turn up whole."""
OPERATORS = canary()
LOUD = '[log]\nlevel = "debug"\n'


def stdio_table(name: str, command: StdioCommand) -> str:
    env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in command.env.items())
    allow = f"allow_env = [{json.dumps(SECRET_VARIABLE)}]"
    given = f"command = {json.dumps(command.command)}\nargs = {json.dumps(command.args)}"
    return f"[mcp_servers.{name}]\n{given}\nenv = {{ {env} }}\n{allow}\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs all it can, shared by the tests of this file."""
    settings = AUTO_SETTINGS + LOUD + stdio_table("tattler", ugly_stdio("stderr_secret"))
    running = Server.start(tmp_path_factory.mktemp("gateway"), settings=settings)
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, running.errors
    assert "Traceback" not in running.errors, running.errors


async def spread(server: Server, conversation: str, raw: list[str], canaries: list[str]) -> list[str]:
    """Where any of the canaries is, in whatever form."""
    found = sightings("what came over the socket", "\n".join(raw), canaries)
    async with server.http() as http:
        pages = [f"/api/conversations/{conversation}/{part}" for part in ("events?after=0", "items")]
        calls = {event["call_id"] for event in await server.log(conversation) if event["type"] == "tool.completed"}
        pages += [f"/api/conversations/{conversation}/tool-calls/{call_id}/output" for call_id in calls]
        for page in ["/api/conversations", *pages]:
            found += sightings(page, (await http.get(page)).text, canaries)
        stream = {"Accept": "text/event-stream", "Last-Event-ID": "0"}
        async with http.stream("GET", f"/api/conversations/{conversation}/events", headers=stream) as events:
            first = await anext(events.aiter_text())
            found += sightings("server-sent events", first, canaries)
    async with server.socket(conversation, plain=1, from_="start") as plain:
        lines = [await plain.recv_line()]
        while "live" not in lines[-1] and len(lines) < 5:
            lines.append(await plain.recv_line())
        found += sightings("the plain view", "\n".join(lines), canaries)
    async with server.socket(conversation) as snapshotted:
        await snapshotted.greeted()
        await snapshotted.ok("tools.list")
        await snapshotted.ok("snapshot.get")
        found += sightings("snapshot and tools", "\n".join(snapshotted.raw), canaries)
    found += sightings("the server's log", server.errors + server.output, canaries)
    return found + sightings_in_files(server.data, canaries, leaving=["settings.toml"])


async def through(socket: Socket, script: str) -> Json:
    """Run a script to its end, whatever is asked: nothing is answered, and a run that waits is stopped."""
    run = await socket.ok("run.start", input=script)
    async with soon(30):
        while not any(event["type"] in FINALS and event["run_id"] == run["run_id"] for event in socket.log):
            if open_interactions(socket.log):
                await socket.command("run.stop", mode="now")
            else:
                await socket.recv()
    found: Json = [event for event in socket.log if event["type"] in FINALS][-1]
    return found


@pytest.mark.parametrize("echo", ECHOES)
async def test_what_a_server_gives_back_of_its_credentials_is_seen_nowhere(
    gateway: Server, make_ugly: MakeUgly, echo: str
) -> None:
    server, token, conversation = make_ugly(echo), canary(), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(server.url, token, timeout_ms=5_000))
        await through(socket, "/tool tool {}\n/say done")
        assert any(entry["headers"].get("authorization") == f"Bearer {token}" for entry in server.seen)
        assert socket.of("tool.completed") or socket.of("interaction.requested")
        assert await spread(gateway, conversation, socket.raw, [token]) == []


async def test_in_its_place_stands_that_there_was_a_secret(gateway: Server, make_ugly: MakeUgly) -> None:
    server, token = make_ugly("echo"), canary()
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(server.url, token))
        await socket.run("/tool tool {}")
        assert outputs(socket.log) == ["you are [secret], are you not?"]


@switch("echo_long", "tools/call")
async def echo_long(x: Exchange) -> None:
    """In a result that is longer than what the event shows: at its beginning, its end, and wherever it is cut."""
    secret = secret_of(x)
    await x.result(text_result(f"{secret} " + f"{'x' * 1009} {secret} " * 200 + secret))


async def test_a_result_that_is_too_long_for_its_event_is_kept_without_it(gateway: Server, make_ugly: MakeUgly) -> None:
    server, token, conversation = make_ugly("echo_long"), canary(), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(server.url, token))
        await socket.run("/tool tool {}")
        [ended] = results(socket.log)
        assert ended["truncated"]
        assert await spread(gateway, conversation, socket.raw, [token]) == []
    address = f"/api/conversations/{conversation}/tool-calls/{ended['call_id']}/output"
    async with gateway.http() as http:
        assert (await http.get(address)).text.count("[secret]") == 202


@switch("echo_former", "tools/call")
async def echo_former(x: Exchange) -> None:
    """The token that the first caller had."""
    former = x.server.memory.setdefault("former", secret_of(x))
    await x.result(text_result(f"it was {former}, {base64.b64encode(former.encode()).decode()}"))


async def test_a_token_that_was_replaced_is_still_a_secret(gateway: Server, make_ugly: MakeUgly) -> None:
    server, former, token, conversation = make_ugly("echo_former"), canary(), canary(), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(server.url, former))
        await socket.run("/tool tool {}")
        await configure(socket, crm(server.url, token))
        await socket.run("/tool tool {}")
        await configure(socket, {"mcp_servers": {"crm": {"headers": {"Authorization": None}}}})
        await socket.run("/tool tool {}")
        assert len(results(socket.log)) == 3
        assert await spread(gateway, conversation, socket.raw, [former, token]) == []


async def test_what_people_answer_when_credentials_are_refused_is_seen_nowhere(
    gateway: Server, official: OfficialServer
) -> None:
    refused, wrong, good, conversation = canary(), canary(), canary(), fresh()
    official.tokens(good)
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, refused))
        await socket.ok("run.start", input="/tool whoami {}\n/tool fail {}")
        await socket.reply(await socket.asked(), wrong)
        second = await socket.asked()
        answer = {"type": "interaction.reply", "interaction_id": second["interaction_id"], "answers": {"answer": good}}
        assert (await gateway.post(conversation, answer))["type"] == "ok"
        await socket.until_final()
        assert results(socket.log)[0]["status"] == "ok"
        assert "[secret]" in outputs(socket.log)[0]
        assert await spread(gateway, conversation, socket.raw, [refused, wrong, good]) == []


async def test_other_headers_and_basic_credentials_are_as_secret(gateway: Server, official: OfficialServer) -> None:
    password, key, conversation = canary(), canary(), fresh()
    basic = base64.b64encode(f"ann:{password}".encode()).decode()
    official.tokens("known")
    headers = {"X-Basic": f"Basic {basic}", "X-Api-Key": key, "Authorization": "Bearer known"}
    async with gateway.socket(conversation) as socket:
        await configure(socket, {"mcp_servers": {"crm": {"url": official.url, "headers": headers}}})
        for text in (password, key, basic, f"Basic {basic}"):
            said = json.dumps({"message": f"I got {text}"})
            await socket.run(f"/tool fail {said}")
        assert len(results(socket.log)) == 4
        assert await spread(gateway, conversation, socket.raw, [password, key, basic]) == []


async def test_a_variable_of_a_process_is_as_secret(gateway: Server) -> None:
    secret, conversation = canary(), fresh()
    async with gateway.socket(conversation) as socket:
        patch = {"ref": "tattler", "env": {SECRET_VARIABLE: secret}}
        await configure(socket, {"mcp_servers": {"crm": patch}})
        await socket.run("/tool tool {}")
        assert outputs(socket.log) == ["secret: [secret]"]
        assert await spread(gateway, conversation, socket.raw, [secret]) == []


async def test_the_operators_credentials_are_secret_in_every_conversation(
    make_server: MakeServer, make_ugly: MakeUgly
) -> None:
    echoing = make_ugly("echo")
    table = f"""
[mcp_servers.crm]
url = "{echoing.url}"
headers = {{ Authorization = {json.dumps("Bearer " + OPERATORS)} }}
"""
    gateway, conversation = make_server(settings=AUTO_SETTINGS + LOUD + table), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, {"mcp_servers": {"crm": {"ref": "crm"}}})
        await socket.run("/tool tool {}")
        assert outputs(socket.log) == ["you are [secret], are you not?"]
        assert await spread(gateway, conversation, socket.raw, [OPERATORS]) == []


async def test_one_conversations_secret_is_no_secret_of_another(gateway: Server, make_ugly: MakeUgly) -> None:
    """Or whoever guesses at it would see whether it is one."""
    token = canary()
    async with gateway.socket(fresh()) as owner, gateway.socket(fresh()) as guesser:
        await configure(owner, crm(make_ugly("polite").url, token))
        await owner.run("/tool tool {}")
        final = await guesser.run(f"/say {token}")
        assert final["output"] == token
        assert (await owner.run(f"/say {token}"))["output"] == "[secret]"


async def test_after_the_server_has_gone_down_and_come_up_nothing_is_seen_either(
    make_server: MakeServer, make_ugly: MakeUgly
) -> None:
    server, token, conversation = make_ugly("echo"), canary(), fresh()
    gateway = make_server(settings=AUTO_SETTINGS + LOUD)
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(server.url, token))
        await socket.run("/tool tool {}")
    gateway.terminate()
    await gateway.exited()
    again = make_server(settings=AUTO_SETTINGS + LOUD, data=gateway.data)
    async with again.socket(conversation, from_="start") as socket:
        await socket.run("/tool tool {}")
        assert [output.splitlines()[-1] for output in outputs(socket.log)] == ["you are [secret], are you not?"] * 2
        assert await spread(again, conversation, socket.raw, [token]) == []
    seen: list[Any] = [entry["headers"].get("authorization") for entry in server.seen]
    assert set(seen) == {f"Bearer {token}"}
