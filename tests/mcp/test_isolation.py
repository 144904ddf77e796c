"""Guarantee 11: nothing of one conversation reaches another, whatever both call their servers, and whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.mcp.conftest import MakeOfficial, MakeUgly
from tests.mcp.gateway import AUTO_SETTINGS, configure, crm, outputs, requests_by, results, settled, status, told
from tests.mcp.running import OfficialServer
from tests.mcp.ugly.server import Exchange, Json, initialized, switch, text_result, tool
from tests.wire import Server, Socket, fresh, soon, wait_for

CONVERSATIONS = 8
STEPS = 8
TOGETHER = 6
"""Conversations, steps of each, calls of one step: hundreds in all."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that reaches MCP servers on this machine, shared by the tests of this file."""
    running = Server.start(tmp_path_factory.mktemp("gateway"), settings=AUTO_SETTINGS)
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, running.errors
    assert "Traceback" not in running.errors, running.errors


def together(*calls: tuple[str, Json]) -> str:
    """A script's step of these calls, side by side."""
    return "\n/par\n".join(f"/tool {name} {json.dumps(arguments)}" for name, arguments in calls)


def note(text: str) -> tuple[str, Json]:
    return "add_note", {"customer_id": "c1", "text": text}


def customer_of(token: str) -> Json:
    """A tenant with one customer, who is named after the token: so short a one is not taken for a secret."""
    return {"customers": [{"id": "c1", "name": token}]}


def notes_by(official: OfficialServer) -> dict[str, list[str]]:
    """The notes of every tenant: written with whose token."""
    return {token: [n["text"] for n in tenant["notes"]] for token, tenant in official.tenants().items() if token}


# -- the judged scenario -------------------------------------------------------------------------------------


async def load(gateway: Server, conversation: str, patch: Json, own: str) -> list[Json]:
    """Many calls of one conversation; every note says whose it is."""
    step = together(("find_customer", {"query": ""}), *[note(own)] * (TOGETHER - 1))
    async with gateway.socket(conversation) as socket:
        await configure(socket, patch)
        final = await socket.run("\n".join([step] * STEPS))
        assert final["type"] == "run.completed"
        return results(socket.log)


def expect_own(ended: list[Json], own: str) -> None:
    """Every call was made, and every answer came from this tenant."""
    assert len(ended) == STEPS * TOGETHER
    assert {event["status"] for event in ended} == {"ok"}
    found = [event["structured"]["customers"] for event in ended if event["name"] == "find_customer"]
    assert found == [customer_of(own)["customers"]] * STEPS


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_the_same_server_name_with_other_tokens_under_load_is_never_given_the_wrong_one(
    gateway: Server, official: OfficialServer, transport: str
) -> None:
    tokens = [f"token-{n}" for n in range(CONVERSATIONS)]
    official.tokens(**{token: customer_of(token) for token in tokens})
    url = official.url if transport == "http" else official.sse_url
    loads = [load(gateway, fresh(), crm(url, token, transport=transport), token) for token in tokens]
    for ended, token in zip(await asyncio.gather(*loads), tokens, strict=True):
        expect_own(ended, token)

    assert notes_by(official) == {token: [token] * STEPS * (TOGETHER - 1) for token in tokens}
    seen = official.seen(kind="request")
    assert {entry["authorization"] for entry in seen} == {f"Bearer {token}" for token in tokens}
    assert all(len(whose) == 1 for whose in requests_by(seen, "session").values())
    assert all(len(whose) == 1 for whose in requests_by(seen, "peer_port").values())


@switch("sessions", "initialize")
async def begin_session(x: Exchange) -> None:
    """A session of its own for whoever begins one, and tools that are named after its owner."""
    x.server.memory["sessions"] = x.server.memory.get("sessions", 0) + 1
    await x.result(initialized(x), f"Mcp-Session-Id: session-{x.server.memory['sessions']}")


@switch("sessions", "tools/list")
async def own_tools(x: Exchange) -> None:
    await x.result({"tools": [tool(), tool(f"only_{owner(x.headers)}")]})


@switch("sessions", "tools/call")
async def own_answer(x: Exchange) -> None:
    await x.result(text_result(f"for {owner(x.headers)}"))


def owner(headers: dict[str, str]) -> str:
    return headers.get("authorization", "Bearer nobody").removeprefix("Bearer token-of-")


async def test_sessions_of_the_older_protocol_belong_to_one_conversation_each(
    gateway: Server, make_ugly: MakeUgly
) -> None:
    server = make_ugly("sessions")
    owners = [str(n) for n in range(CONVERSATIONS)]

    async def calls(own: str) -> list[str]:
        async with gateway.socket(fresh()) as socket:
            await configure(socket, crm(server.url, f"token-of-{own}"))
            await socket.run("\n".join([together(*[("tool", {})] * TOGETHER)] * 3 + [f"/tool only_{own} {{}}"]))
            return outputs(socket.log)

    everybody = await asyncio.gather(*map(calls, owners))
    assert everybody == [[f"for {own}"] * (3 * TOGETHER + 1) for own in owners]
    used: dict[str, set[str]] = {}
    for entry in server.seen:
        session = entry["headers"].get("mcp-session-id")
        used.setdefault(session, set()).add(owner(entry["headers"])) if session else None
    assert len(used) == CONVERSATIONS
    assert sorted(map(sorted, used.values())) == [[own] for own in owners]


async def test_two_conversations_with_the_very_same_token_share_no_session(
    gateway: Server, make_ugly: MakeUgly
) -> None:
    server = make_ugly("sessions")
    for _ in range(2):
        async with gateway.socket(fresh()) as socket:
            await configure(socket, crm(server.url, "token-of-1"))
            await socket.run("/tool tool {}")
    sessions = {entry["headers"].get("mcp-session-id") for entry in server.seen if entry["method"] == "tools/call"}
    assert sessions == {"session-1", "session-2"}


async def test_two_names_in_one_conversation_for_one_url_have_their_own_headers(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens(left=customer_of("left"), right=customer_of("right"))
    servers = {name: crm(official.url, name)["mcp_servers"]["crm"] for name in ("left", "right")}
    async with gateway.socket(fresh()) as socket:
        await configure(socket, {"mcp_servers": servers})
        calls = [(f"mcp:{name}/add_note", note(name)[1]) for name in ("left", "right")] * TOGETHER
        await socket.run("\n".join([together(*calls)] * 3))
        assert {event["status"] for event in results(socket.log)} == {"ok"}
    assert notes_by(official) == {name: [name] * 3 * TOGETHER for name in ("left", "right")}


async def test_headers_of_another_name_than_authorization_are_kept_apart_as_well(
    gateway: Server, make_ugly: MakeUgly
) -> None:
    server = make_ugly("polite")
    async with gateway.socket(fresh()) as one, gateway.socket(fresh()) as two:
        for socket, key in ((one, "key-one"), (two, "key-two")):
            patch = {"url": server.url, "headers": {"X-Api-Key": key}}
            await configure(socket, {"mcp_servers": {"crm": patch}})
        await asyncio.gather(one.run("/tool tool {}"), two.run("/tool tool {}"))
    by_port: dict[int, set[str]] = {}
    for entry in server.seen:
        by_port.setdefault(entry["peer_port"], set()).add(entry["headers"]["x-api-key"])
    assert set().union(*by_port.values()) == {"key-one", "key-two"}
    assert all(len(keys) == 1 for keys in by_port.values())


# -- tool lists ----------------------------------------------------------------------------------------------


async def listed(socket: Socket) -> set[str]:
    """The names of the server's tools, as the conversation is told them."""
    return {t["name"] for t in (await socket.ok("tools.list"))["tools"] if t["source"] == "mcp:crm"}


async def test_a_tool_list_is_the_tokens_own(gateway: Server, official: OfficialServer) -> None:
    official.tokens(ada={"extra_tools": ["ada_only"]}, bob={"extra_tools": ["bob_only"]})
    async with gateway.socket(fresh()) as one, gateway.socket(fresh()) as two:
        await configure(one, crm(official.url, "ada"))
        await configure(two, crm(official.url, "bob"))
        await one.run("/tool ada_only {}\n/tool bob_only {}")
        await two.run("/tool ada_only {}\n/tool bob_only {}")
        assert await listed(one) & {"ada_only", "bob_only"} == {"ada_only"}
        assert await listed(two) & {"ada_only", "bob_only"} == {"bob_only"}
    assert [event["status"] for event in results(one.log)] == ["ok", "error"]
    assert [event["status"] for event in results(two.log)] == ["error", "ok"]
    assert "ada_only" not in json.dumps(two.of("mcp.status")) + outputs(two.log)[0].partition("there are")[2]
    assert "bob_only" not in json.dumps(one.of("mcp.status")) + outputs(one.log)[1].partition("there are")[2]
    assert {entry["authorization"] for entry in official.seen(tool="ada_only")} == {"Bearer ada"}


async def test_a_tool_that_came_with_one_token_is_gone_with_the_next(gateway: Server, official: OfficialServer) -> None:
    official.tokens(ada={"extra_tools": ["ada_only"]}, bob={"extra_tools": ["bob_only"]})
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "ada"))
        assert "ada_only" in await listed(socket)
        await configure(socket, crm(official.url, "bob"))
        assert await listed(socket) & {"ada_only", "bob_only"} == {"bob_only"}


async def test_a_tool_that_appears_for_one_conversation_does_not_appear_for_the_other(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("ada", "bob")
    async with gateway.socket(fresh()) as one, gateway.socket(fresh()) as two:
        await configure(one, crm(official.url, "ada"))
        await configure(two, crm(official.url, "bob"))
        await listed(two)
        await one.run('/tool grow {"name": "grown"}')
        async with soon():
            while "grown" not in told(one.log, "mcp.status")["tools"]:
                await one.recv()
        assert "grown" not in await listed(two)


# -- whatever happens ----------------------------------------------------------------------------------------


def expect_rotated(log: list[Json], seen: dict[str, str], first: str) -> None:
    """Every call was made with the token that was in force: the one before, if it had ended when the next came; the
    next, if it began after that."""
    executing = {event["call_id"]: event["seq"] for event in log if event["type"] == "tool.executing"}
    tokens = [(0, first), *((event["seq"], "") for event in log if event["type"] == "conversation.configured")]
    changes = [seq for seq, _ in tokens[1:]]
    for event in results(log):
        used = seen[event["call_id"]]
        began = sum(change < executing[event["call_id"]] for change in changes)
        ended = sum(change < event["seq"] for change in changes)
        assert int(used) in range(began, ended + 1), (event, used, began, ended)


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_rotation_in_the_middle_of_the_load_holds_from_the_next_call_on(
    gateway: Server, official: OfficialServer, transport: str
) -> None:
    rounds = 6
    official.tokens(*[f"token-{n}" for n in range(rounds + 1)])
    conversation, url = fresh(), official.url if transport == "http" else official.sse_url
    async with gateway.socket(conversation, from_="start") as socket, gateway.socket(conversation) as other:
        await configure(socket, crm(url, "token-0", transport=transport))
        steps = [together(*[note(f"{step}/{n}") for n in range(TOGETHER)]) for step in range(20)]
        run = await socket.ok("run.start", input="\n".join(steps))
        for n in range(1, rounds + 1):
            await socket.until("step.completed")
            await configure(other, crm(url, f"token-{n}"))
        await socket.until_final(run["run_id"])
        assert [output for output in outputs(socket.log) if not output.endswith("noted")] == []
        log = [event for event in socket.log if event["type"] != "conversation.configured" or event["version"] > 1]
    arguments = {event["call_id"]: event["arguments"] for event in socket.of("tool.started")}
    by_note = {
        entry["arguments"]["text"]: entry["authorization"].removeprefix("Bearer token-")
        for entry in official.seen(kind="request", tool="add_note")
    }
    expect_rotated(log, {call: by_note[given["text"]] for call, given in arguments.items()}, "0")
    assert len(official.seen(kind="effect")) == 20 * TOGETHER
    assert len(set(by_note.values())) > 1


async def test_a_call_in_flight_ends_on_the_connection_it_began_on(gateway: Server, official: OfficialServer) -> None:
    official.tokens("old", "new")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "old"))
        await socket.ok("run.start", input='/tool ask_name {}\n/tool add {"a": 1, "b": 2}')
        form = await socket.asked()
        await configure(socket, crm(official.url, "new"))
        await socket.ok(
            "interaction.reply", interaction_id=form["interaction_id"], option="accept", content={"name": "Bob"}
        )
        final = await socket.until_final()
        assert final["type"] == "run.completed"
        assert "Hello Bob" in outputs(socket.log)[0]
    used = [entry["authorization"] for entry in official.seen(kind="request", method="tools/call", tool="ask_name")]
    assert set(used) == {"Bearer old"}
    assert [entry["authorization"] for entry in official.seen(kind="request", tool="add")] == ["Bearer new"]


async def test_servers_that_were_let_go_of_come_back_with_their_own_token(
    make_server: MakeServer, official: OfficialServer
) -> None:
    gateway = make_server(settings=AUTO_SETTINGS.replace("retry_s", "idle_s = 0.01\nretry_s"))
    official.tokens(ada=customer_of("ada"), bob=customer_of("bob"))
    async with gateway.socket(fresh()) as one, gateway.socket(fresh()) as two:
        for socket, token in ((one, "ada"), (two, "bob")):
            await configure(socket, crm(official.url, token))
            await socket.run(together(note(token)))
            await socket.until("mcp.status", state="stopped")
        await asyncio.gather(one.run(together(note("ada"))), two.run(together(note("bob"))))
        assert status(one.log)[:5] == ["starting", "ready", "stopped", "starting", "ready"]
    assert notes_by(official) == {"ada": ["ada", "ada"], "bob": ["bob", "bob"]}


async def test_a_server_that_crashed_and_came_back_gets_every_ones_own_token(
    gateway: Server, make_official: MakeOfficial
) -> None:
    crashing = make_official()
    crashing.tokens("ada", "bob")
    async with gateway.socket(fresh()) as one, gateway.socket(fresh()) as two:
        for socket, token in ((one, "ada"), (two, "bob")):
            await configure(socket, crm(crashing.url, token))
            await socket.run('/tool add {"a": 1, "b": 1}')
        crashing.stop()
        await asyncio.gather(*(socket.run(together(note("lost"))) for socket in (one, two)))
        crashing.start().tokens("ada", "bob")
        await asyncio.gather(one.run(together(note("ada"))), two.run(together(note("bob"))))
        assert [event["status"] for event in results(one.log)] == ["ok", "error", "ok"]
    assert notes_by(crashing) == {"ada": ["ada"], "bob": ["bob"]}


async def test_conversations_that_take_turns_in_memory_keep_to_their_own(
    make_server: MakeServer, official: OfficialServer
) -> None:
    gateway = make_server(settings=AUTO_SETTINGS + "[conversations]\nin_memory = 1\n")
    official.tokens("ada", "bob")
    conversations = {"ada": fresh(), "bob": fresh()}
    for token, conversation in conversations.items():
        patch = {"type": "conversation.configure", "config": crm(official.url, token)}
        assert (await gateway.post(conversation, patch))["type"] == "ok"
    for _ in range(3):
        for token, conversation in conversations.items():
            log = await settled(gateway, conversation, together(note(token), note(token)))
            assert {event["status"] for event in results(log)} == {"ok"}
    assert notes_by(official) == {"ada": ["ada"] * 6, "bob": ["bob"] * 6}


async def test_runs_that_a_crash_of_ours_cut_off_go_on_with_their_own_tokens(
    make_server: MakeServer, official: OfficialServer
) -> None:
    gateway = make_server(settings=AUTO_SETTINGS)
    tokens = [f"token-{n}" for n in range(4)]
    official.tokens(**{token: customer_of(token) for token in tokens})
    conversations = {token: fresh() for token in tokens}
    for token, conversation in conversations.items():
        await gateway.post(conversation, {"type": "conversation.configure", "config": crm(official.url, token)})
        step = together(("set_note", {"customer_id": token, "text": token}), ("find_customer", {}))
        await gateway.post(conversation, {"type": "run.start", "input": "\n".join([step] * 10)})
    await wait_for(lambda: all(written(official, token) for token in tokens))
    gateway.kill()
    again = make_server(settings=AUTO_SETTINGS, data=gateway.data)
    for token, conversation in conversations.items():
        async with again.socket(conversation, from_="start") as socket:
            await socket.until_final()
            found = [
                event["structured"]["customers"]
                for event in results(socket.log)
                if event["status"] == "ok" and event["name"] == "find_customer"
            ]
            assert found == [customer_of(token)["customers"]] * 10
    assert {token: set(texts) for token, texts in notes_by(official).items()} == {token: {token} for token in tokens}


def written(official: OfficialServer, token: str) -> list[Json]:
    notes: list[Json] = official.tenants()[token]["notes"]
    return notes


# -- copies --------------------------------------------------------------------------------------------------


async def test_a_fork_has_the_servers_and_none_of_their_tokens(gateway: Server, official: OfficialServer) -> None:
    official.tokens("ada", "bob")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "ada"))
        await socket.run('/tool add {"a": 1, "b": 1}')
        fork = (await socket.ok("conversation.fork"))["conversation_id"]
        before = len(official.seen())
        async with gateway.socket(fork) as forked:
            snapshot = (await forked.ok("snapshot.get"))["snapshot"]
            assert snapshot["config"]["mcp_servers"]["crm"] == {"url": official.url}
            await forked.ok("run.start", input='/tool add {"a": 1, "b": 1}')
            question = await forked.asked()
            assert question["questions"][0]["type"] == "secret"
            assert {entry["authorization"] for entry in official.seen()[before:]} == {None}
            await forked.reply(question, "bob")
            await forked.until_final()
        await socket.run('/tool add {"a": 1, "b": 1}')
    used = [entry["authorization"] for entry in official.seen(tool="add")]
    assert used == ["Bearer ada", "Bearer bob", "Bearer ada"]


async def test_a_conversation_that_was_deleted_leaves_nothing_to_one_of_the_same_id(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("ada")
    conversation = fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, "ada"))
        await socket.run('/tool add {"a": 1, "b": 1}')
    async with gateway.http() as http:
        assert (await http.delete(f"/api/conversations/{conversation}")).status_code in (200, 204)
    before = len(official.seen())
    async with gateway.socket(conversation) as socket:
        keep = {"Authorization": {"set": True}}
        patch = {"mcp_servers": {"crm": {"url": official.url, "headers": keep}}}
        refused = await socket.error("conversation.configure", config=patch)
        assert refused["path"] == "$.config.mcp_servers.crm.headers.Authorization"
        await configure(socket, crm(official.url))
        await socket.ok("run.start", input='/tool add {"a": 1, "b": 1}')
        await socket.asked()
        await socket.ok("run.stop")
        await socket.until_final()
    assert {entry["authorization"] for entry in official.seen()[before:]} == {None}


# -- people --------------------------------------------------------------------------------------------------


async def test_people_with_tickets_have_their_own_conversation_and_token(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens(ada=customer_of("ada"), bob=customer_of("bob"))

    async def person(name: str) -> list[Json]:
        conversation = fresh()
        async with gateway.http() as http:
            wanted = {"conversation": conversation, "principal": name, "role": "driver"}
            ticket = (await http.post("/api/tickets", json=wanted)).json()["ticket"]
        async with gateway.socket(conversation, key="", ticket=ticket) as socket:
            configured = await configure(socket, crm(official.url, name))
            assert configured["by"]["principal"] == name
            await socket.run(together(*[note(name), ("find_customer", {"query": ""})] * 5))
            return results(socket.log)

    async with soon(30):
        for ended, name in zip(await asyncio.gather(person("ada"), person("bob")), ("ada", "bob"), strict=True):
            names: list[Any] = [e["structured"]["customers"][0]["name"] for e in ended if e["name"] == "find_customer"]
            assert names == [name] * 5
    assert notes_by(official) == {"ada": ["ada"] * 5, "bob": ["bob"] * 5}
