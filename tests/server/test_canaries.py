"""Secrets are given to a real server, which is careless with them; then they are looked for everywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hermes_ws.protocol.codec import decode_command, fingerprint
from tests.canaries import canary, sightings, sightings_in_files, spellings
from tests.conftest import MakeServer
from tests.wire import Json, Server, Socket, clean_environment, fresh

URL = "http://127.0.0.1:9/mcp"
LEFT_OUT = ("settings.toml",)
"""The operator's own file, which these tests keep in the data directory."""


class Aviary:
    """A leaky server with one conversation, and the canaries that it was given."""

    def __init__(self, make_server: MakeServer, tmp_path: Path) -> None:
        self._make_server = make_server
        self._leak = tmp_path / "leak"
        self._data = tmp_path / "data"
        self.conversation = fresh()
        self.given: list[str] = []
        self.seen: list[str] = []
        self.servers: list[Server] = []

    def start(self) -> Server:
        environment = {"HERMES_WS_TESTS_LEAK": str(self._leak)}
        settings = "[agents.demo]\nkind = 'demo'\n[tools]\npreview_bytes = 1000\n"
        made = self._make_server(data=self._data, module="tests.leaky", environment=environment, settings=settings)
        self.servers.append(made)
        return made

    def fresh(self) -> str:
        """A new secret, which is leaked from now on. The caller gives it to the server."""
        self.given.append(canary())
        self._leak.write_text(self.given[-1])
        return self.given[-1]

    @property
    def leak(self) -> Path:
        return self._leak

    async def look_around(self, server: Server) -> None:
        """What clients, the operator and a thief of the disk can see."""
        found: list[str] = []
        for path in ("", "/events", "/items"):
            found.append(repr(await _get(server, f"/api/conversations/{self.conversation}{path}")))
        found.append(repr(await _get(server, "/api/conversations")))
        log = await server.log(self.conversation)
        found.append(msgspec.json.encode(log).decode())
        found.append("".join(str(event.get("delta", "")) + str(event.get("chunk", "")) for event in log))
        for kept in {event["call_id"] for event in log if event["type"] == "tool.completed"}:
            found.append(await _text(server, f"/api/conversations/{self.conversation}/tool-calls/{kept}/output"))
        async with server.socket(self.conversation, from_="snapshot") as socket:
            await socket.greeted()
            found += socket.raw
        self.seen += [seen for text in found for seen in sightings("what clients see", text, self.given)]
        self.look_at_disk()

    def look_at_disk(self) -> None:
        for one in self.servers:
            self.seen += sightings("the server's own log", one.errors + one.output, self.given)
        self.seen += sightings_in_files(self._data, self.given, leaving=LEFT_OUT)


async def _get(server: Server, path: str) -> Json:
    async with server.http() as http:
        answer: Json = (await http.get(path)).json()
    return answer


async def _text(server: Server, path: str) -> str:
    async with server.http() as http:
        return (await http.get(path)).text


@pytest.fixture
def aviary(make_server: MakeServer, tmp_path: Path) -> Aviary:
    return Aviary(make_server, tmp_path)


async def give(socket: Socket, token: str) -> Json:
    """Over the socket."""
    server = {"url": URL, "headers": {"Authorization": f"Bearer {token}"}}
    return await socket.ok("conversation.configure", config={"mcp_servers": {"crm": server}})


def everything_is_quiet(aviary: Aviary) -> None:
    assert aviary.given
    assert aviary.seen == []


async def test_a_header_given_over_the_socket_is_seen_nowhere(aviary: Aviary) -> None:
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        ok = await give(socket, aviary.fresh())
        await socket.until_seq(ok["at"])
        shown = socket.of("conversation.configured")[0]["config"]["mcp_servers"]["crm"]["headers"]["Authorization"]
        assert shown["set"] is True
        assert len(shown["fingerprint"]) == 16
    await aviary.look_around(server)
    server.terminate()
    await server.exited()
    aviary.look_at_disk()
    everything_is_quiet(aviary)


async def test_a_header_given_over_http_is_seen_nowhere(aviary: Aviary) -> None:
    server = aviary.start()
    headers = {"X-Api-Key": aviary.fresh(), "authorization": f"Basic {aviary.fresh()}"}
    command = {
        "type": "conversation.configure",
        "id": "1",
        "config": {"mcp_servers": {"a": {"url": URL, "headers": headers}}},
    }
    answer = await server.post(aviary.conversation, command)
    assert answer["type"] == "ok", answer
    again = await server.post(aviary.conversation, command)
    assert again["duplicate"] is True
    await aviary.look_around(server)
    everything_is_quiet(aviary)


async def test_no_refusal_repeats_a_value(aviary: Aviary) -> None:
    server = aviary.start()
    secret = aviary.fresh()
    for headers in ({"Host": secret}, {"X-A": secret + "\n"}, {"X-A": [secret]}, {"X-A": {secret: 1}}):
        patch = {"mcp_servers": {"a": {"url": URL, "headers": headers}}}
        answer = await server.post(aviary.conversation, {"type": "conversation.configure", "id": "1", "config": patch})
        assert answer["type"] == "error"
        aviary.seen += sightings("a refusal", repr(answer), [secret])
    aviary.look_at_disk()
    everything_is_quiet(aviary)


COMMANDS = [
    "/run cat {leak}",
    "/run head -c 12 {leak}; sleep 0.05; tail -c +13 {leak}",
    "/run base64 -w0 {leak}; (echo -n x; cat {leak}) | base64 -w0; (echo -n xy; cat {leak}) | base64 -w0",
    "/run od -An -tx1 -v {leak} | tr -d ' \\n'",
    "/run for i in $(seq 2000); do cat {leak}; echo; done",
    "/run cat {leak} >&2; exit 3",
    '/tool leak {{"how": "raise"}}',
    '/tool leak {{"how": "structure"}}',
    '/tool leak {{"how": "split"}}',
    '/tool leak {{"how": "progress"}}',
    '/tool leak {{"how": "in between"}}',
]


@pytest.mark.parametrize("script", COMMANDS)
async def test_what_a_tool_tells_is_seen_nowhere(aviary: Aviary, script: str) -> None:
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        await give(socket, aviary.fresh())
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        final = await socket.run(script.format(leak=aviary.leak) + "\n/say well")
        assert final["type"] == "run.completed"
        told = [e for e in socket.log if e["type"] in ("tool.output", "tool.completed")]
        assert "[secret]" in repr(told) or "raise" in script
    await aviary.look_around(server)
    everything_is_quiet(aviary)


async def test_what_an_agent_says_and_how_it_crashes_is_seen_nowhere(aviary: Aviary) -> None:
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        await give(socket, aviary.fresh())
        final = await socket.run("hi", agent="leaky")
        assert final["error"]["code"] == "agent_crashed"
        assert [e["text"] for e in socket.of("message.completed")] == ["I say [secret] now"]
        assert "".join(e["delta"] for e in socket.of("message.delta")) == "I say [secret] now"
    await aviary.look_around(server)
    assert "the model refused [secret]" in server.errors
    everything_is_quiet(aviary)


async def test_what_people_say_and_ask_for_is_seen_nowhere(aviary: Aviary) -> None:
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        await give(socket, secret := aviary.fresh())
        await socket.run(f"/say {secret}", instructions=f"Use {secret}.", metadata={"key": secret, secret: "key"})
        await socket.ok("conversation.configure", config={"title": secret, "metadata": {"a": [secret]}})
        await socket.ok("run.start", input="/sleep 60")
        await socket.ok("run.steer", text=f"use {secret}")
        await socket.ok("run.stop")
        await socket.until_final()
    await aviary.look_around(server)
    everything_is_quiet(aviary)


async def test_an_answer_in_secret_is_seen_nowhere_and_is_put_in_force(aviary: Aviary) -> None:
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        await give(socket, aviary.fresh())
        script = '/tool leak {"how": "ask"}\n/tool leak {"how": "split"}'
        await socket.ok("run.start", input=script)
        asked = await socket.until("interaction.requested", kind="clarify")
        assert asked["questions"][0]["type"] == "secret"
        command: Json = {"type": "interaction.reply", "id": "answer", "interaction_id": asked["interaction_id"]}
        command["answers"] = {asked["questions"][0]["id"]: f"Bearer {aviary.fresh()}"}
        assert (await socket.command("interaction.reply", **{k: v for k, v in command.items() if k != "type"}))[
            "type"
        ] == "ok"
        await socket.until_final()
        configured = socket.of("conversation.configured")
        assert len(configured) == 2
        again = await server.post(aviary.conversation, command)
        assert again["duplicate"] is True
        command["answers"] = {asked["questions"][0]["id"]: "Bearer another"}
        assert (await server.post(aviary.conversation, command))["code"] == "id_reused"
    await aviary.look_around(server)
    everything_is_quiet(aviary)


@pytest.mark.parametrize("what", ["configure", "reply"])
async def test_no_digest_is_left_from_which_a_short_secret_could_be_guessed(aviary: Aviary, what: str) -> None:
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        ok = await give(socket, aviary.fresh())
        command: Json
        if what == "configure":
            headers = {"Authorization": "Bearer 1234"}
            patch = {"mcp_servers": {"crm": {"headers": headers}}}
            command = {"type": "conversation.configure", "id": "1", "config": patch}
        else:
            await socket.ok("run.start", input='/tool leak {"how": "ask"}')
            asked = await socket.until("interaction.requested", kind="clarify")
            answers = {asked["questions"][0]["id"]: "1234"}
            command = {
                "type": "interaction.reply",
                "id": "1",
                "interaction_id": asked["interaction_id"],
                "answers": answers,
            }
        assert (await server.post(aviary.conversation, command))["type"] == "ok", ok
    server.terminate()
    await server.exited()
    plain = hashlib.sha256(fingerprint(decode_command(msgspec.json.encode(command)))).digest()
    database = (server.data / "hermes-ws.db").read_bytes()
    assert plain not in database
    server = aviary.start()
    assert (await server.post(aviary.conversation, command))["duplicate"] is True


async def test_secrets_survive_a_crash_and_are_opened_with_their_key_only(aviary: Aviary) -> None:
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        await give(socket, aviary.fresh())
    server.kill()
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run(f"/run cat {aviary.leak}")
        assert socket.of("tool.completed")[0]["output"] == "[secret]"
        first = socket.of("conversation.configured")[0]["config"]["mcp_servers"]
    await aviary.look_around(server)
    everything_is_quiet(aviary)
    server.kill()
    (server.data / "hermes-ws.secrets-key").unlink()
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        ok = await socket.ok("conversation.configure", config={"title": "still there"})
        await socket.until_seq(ok["at"])
        assert socket.of("conversation.configured")[-1]["config"]["mcp_servers"] == first
        await give(socket, aviary.fresh())
    assert "secrets.unreadable" in server.errors


async def test_the_servers_own_keys_are_seen_nowhere_either(make_server: MakeServer, tmp_path: Path) -> None:
    key, api_key, header = canary().replace('"', ""), canary().replace('"', ""), canary().replace('"', "")
    settings = f"""
[agents.demo]
kind = "demo"
[agents.other]
kind = "llm"
base_url = "http://127.0.0.1:9/v1"
model = "m"
api_key = "{api_key}"
[mcp_servers.crm]
url = "http://127.0.0.1:9/mcp"
headers = {{ Authorization = "Bearer {header}", Accept-Language = "de-CH,de;q=0.9" }}
"""
    server = make_server(settings=settings, environment={"HERMES_WS_SECRETS_KEY": key})
    file = tmp_path / "leak"
    file.write_text(f"{server.key} {key} {api_key} {header} de-CH,de;q=0.9")
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run(f"/run cat {file}\n/say {server.key}")
        assert socket.of("tool.completed")[0]["output"] == "[secret] [secret] [secret] [secret] de-CH,de;q=0.9"
    keys = [server.key, key, api_key, header]
    assert sightings_in_files(server.data, keys, leaving=(*LEFT_OUT, "hermes-ws.key", "out")) == []
    environment = clean_environment() | {"HERMES_WS_SECRETS_KEY": key, "HERMES_WS_KEY": server.key}
    command = [sys.executable, "-m", "hermes_ws.cli", "config", "--config", str(server.data / "settings.toml")]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "secrets.key" in shown
    assert sightings("hermes-ws config", shown, keys) == []


async def test_no_conversation_is_scrubbed_by_anothers_secrets(aviary: Aviary) -> None:
    server, secret = aviary.start(), aviary.fresh()
    async with server.socket(aviary.conversation) as one, server.socket(fresh()) as other:
        await give(one, secret)
        assert (await one.run(f"/say {secret}"))["output"] == "[secret]"
        assert (await other.run(f"/say {secret}"))["output"] == secret


async def test_a_fork_has_no_secrets(aviary: Aviary) -> None:
    server = aviary.start()
    async with server.socket(aviary.conversation) as socket:
        await give(socket, aviary.fresh())
        await socket.run("hi")
        fork = (await socket.ok("conversation.fork"))["conversation_id"]
    log = await server.log(fork)
    [configured] = [event for event in log if event["type"] == "conversation.configured"]
    assert configured["config"]["mcp_servers"] == {"crm": {"url": URL}}


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    secret = canary()
    forms: dict[str, Any] = spellings(secret)
    for n, form in enumerate(forms.values()):
        (tmp_path / f"{n}").write_bytes(b"before" + form + b"after")
    seen = sightings_in_files(tmp_path, [secret])
    assert {line.partition(" as ")[2] for line in seen} == set(forms)
    assert sightings_in_files(tmp_path, [canary()]) == []
