"""What pages really do: text that was cut in two, tickets that are none, calls that were left open."""

from __future__ import annotations

import pytest

from tests.client.proxy import Proxy
from tests.js.node import needs_node
from tests.js.remote import Client, JsError, Node
from tests.js.test_tools import HASTE, Handler, a_life_that_ends_in_a_call, offers, outcomes
from tests.wire import Server, fresh, soon

pytestmark = needs_node

HALF = "half of a smile: \ud83d"


@pytest.fixture
async def client(node: Node, server: Server) -> Client:
    return await node.client(server.url, key=server.key, backoff=HASTE)


async def test_half_a_character_is_said_as_one_that_cannot_be_read(client: Client) -> None:
    conversation = await client.conversation(fresh(), from_="start")
    run = await conversation.run(HALF)
    events = await run.events()
    assert events[0]["input"] == "half of a smile: \ufffd"
    assert events[-1]["type"] == "run.completed"


async def test_half_a_character_in_a_tools_result_does_not_hold_up_the_run(client: Client) -> None:
    conversation = await client.conversation(fresh(), from_="start")
    await offers(conversation, Handler(HALF))
    run = await conversation.run('/tool weather {"city": "Oslo"}')
    assert outcomes(await run.events()) == [("ok", "half of a smile: \ufffd")]


@pytest.mark.parametrize("command_id", ["x" * 129, 5, ""])
async def test_an_id_that_cannot_be_one_is_refused_at_once(client: Client, command_id: object) -> None:
    conversation = await client.conversation(fresh())
    with pytest.raises(JsError):
        await conversation.send("ping", id=command_id)


async def test_what_is_no_ticket_is_asked_for_again(node: Node, server: Server) -> None:
    """The page's own server is busy for a moment, and its answer has no ticket in it."""
    name = fresh()
    async with server.http() as http:
        good = (await http.post("/api/tickets", json={"conversation": name})).json()["ticket"]
    answers = [good, {"error": "busy"}, None, "", None]
    client = await node.client(server.url, getTicket=lambda asked: answers.pop(), backoff=HASTE)
    conversation = await client.conversation(name)
    await conversation.ready()
    assert answers == []


async def test_a_command_that_had_no_answer_is_done_in_the_log_that_takes_the_others_place(
    node: Node, server: Server
) -> None:
    async with soon(), Proxy.before(server.port) as proxy:
        name = fresh()
        client = await node.client(proxy.url, key=server.key, backoff=HASTE)
        conversation = await client.conversation(name)
        heard = await conversation.on("connection")
        await conversation.said("/say the first")
        proxy.passing.clear()
        run = await conversation.run("/say typed into a dead line")
        await conversation.get("id")
        proxy.refusing = True
        proxy.cut_all()
        await heard.until(lambda connection: connection["status"] == "waiting")
        async with server.http() as http:
            await http.delete(f"/api/conversations/{name}")
        await server.post(name, {"type": "conversation.configure", "config": {"title": "anew"}})
        proxy.passing.set()
        proxy.refusing = False
        assert (await run.done())["output"] == "typed into a dead line"
        assert [item["text"] for item in (await conversation.settled())["items"]] == [
            "/say typed into a dead line",
            "typed into a dead line",
        ]


async def test_a_call_that_was_left_open_is_seen_from_now_as_well(node: Node, server: Server) -> None:
    name, handler = fresh(), Handler("Snow.")
    await a_life_that_ends_in_a_call(node, server, name)
    client = await node.client(server.url, key=server.key, clientId="tab")
    conversation = await client.conversation(name, from_="now")
    heard = await conversation.on("event")
    await offers(conversation, handler, idempotent=True)
    completed = await heard.until_type("tool.completed")
    assert (completed["status"], completed["output"]) == ("ok", "Snow.")


async def test_two_loops_over_one_run_are_refused(client: Client) -> None:
    """Each would be told a part of its events."""
    conversation = await client.conversation(fresh())
    run = await conversation.run("hi")
    await run.events()
    with pytest.raises(JsError):
        await run.events()


async def test_a_line_that_is_cut_as_soon_as_it_is_live_is_not_made_again_all_the_time(
    node: Node, server: Server
) -> None:
    """Whoever cuts them (a proxy that does not like us) is asked less and less often."""
    async with soon(30), Proxy.before(server.port) as proxy:
        backoff = {"firstMs": 1, "mostMs": 100_000}
        client = await node.client(proxy.url, key=server.key, backoff=backoff)
        _, [heard] = await client.listening(fresh(), "connection")
        for cuts in range(1, 11):
            await heard.until(lambda _, cuts=cuts: sum(one["status"] == "live" for one in heard) >= cuts)  # type: ignore[misc]
            proxy.cut_all()
            await heard.until(lambda _, cuts=cuts: sum(one["status"] == "waiting" for one in heard) >= cuts)  # type: ignore[misc]
        waits = [one["retry_in_ms"] for one in heard if one["status"] == "waiting"]
    assert all(wait <= 2**n for n, wait in enumerate(waits))
    assert max(waits) > 1
