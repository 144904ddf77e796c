"""Where the JavaScript client begins, and who lets it in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client.proxy import Proxy
from tests.conftest import MakeServer
from tests.js.node import needs_node
from tests.js.remote import Client, Conversation, Iteration, JsError, Node, Thrown
from tests.server.test_mounted import mounted
from tests.wire import Json, Server, expect_contiguous, fresh, soon

__all__ = ["mounted"]

pytestmark = needs_node

PAST = "/api/conversations/c/events?after=0"


@pytest.fixture
async def client(node: Node, server: Server) -> Client:
    return await node.client(server.url, key=server.key)


# -- where a conversation begins -------------------------------------------------------------------------


async def test_from_the_start_everything_is_told(server: Server, client: Client) -> None:
    name = fresh()
    await server.post(name, {"type": "conversation.configure", "config": {"title": "t"}})
    conversation, [heard] = await client.listening(name, "event", from_="start")
    await conversation.ready()
    await heard.until_type("conversation.configured")
    assert await server.log(name) == heard


async def test_from_a_snapshot_the_state_is_there_and_events_are_new_ones(server: Server, client: Client) -> None:
    before = await client.conversation(fresh())
    await before.said("/say early")
    await before.call("close")
    conversation, [events, snapshots] = await client.listening(await before.get("id"), "event", "snapshot")
    await conversation.ready()
    assert events == []
    assert [item["text"] for item in (await conversation.state())["items"]] == ["/say early", "early"]
    assert [snapshot["at"] for snapshot in snapshots] == [await conversation.seq()]


async def test_from_now_only_what_is_new_is_told(server: Server, client: Client) -> None:
    name = fresh()
    ok = await server.post(name, {"type": "conversation.configure", "config": {"title": "old"}})
    conversation = await client.conversation(name, from_="now")
    await conversation.ready()
    assert await conversation.seq() == ok["at"]
    heard = await conversation.on("event")
    await conversation.said("hi")
    assert expect_contiguous(heard, after=ok["at"]) == await conversation.seq()


async def test_after_a_number_what_follows_it_is_told(server: Server, client: Client) -> None:
    name = fresh()
    for title in "abc":
        await server.post(name, {"type": "conversation.configure", "config": {"title": title}})
    [created, *_] = await server.log(name)
    conversation, [heard] = await client.listening(name, "event", after=2, epoch=created["epoch"])
    await conversation.ready()
    await conversation.reached(4)
    assert [event["config"]["title"] for event in heard] == ["b", "c"]


async def test_what_is_excluded_is_not_told_and_still_counts(client: Client) -> None:
    conversation = await client.conversation(fresh(), from_="start", exclude=["message.delta"])
    heard = await conversation.on("event")
    last = await conversation.said("/stream 50")
    assert "message.delta" not in {event["type"] for event in heard}
    assert await conversation.seq() >= last["seq"]
    assert (await conversation.call("snapshot"))["items"] == (await conversation.state())["items"]


async def test_what_was_folded_away_is_accounted_for(node: Node, make_server: MakeServer) -> None:
    """A log whose deltas have had their time, told from its start."""
    server = make_server(settings="[store]\nretention_s = 1\nsweep_every_s = 0.1\n[readers]\ntail_bytes = 2000\n")
    async with server.socket("c") as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run("/think a b c\n/stream 50\n/run seq 5\n/say end")
    async with soon():
        while not any(event["type"] == "skipped" for event in (await server.get(PAST))["events"]):
            await asyncio.sleep(0.05)
    client = await node.client(server.url, key=server.key)
    conversation, [heard] = await client.listening("c", "event", from_="start")
    await conversation.ready()
    assert await conversation.state() == await conversation.call("snapshot")
    assert heard == [event for event in (await server.get(PAST))["events"] if event["type"] != "skipped"]


async def test_new_becomes_what_the_server_chose(client: Client, server: Server) -> None:
    conversation = await client.conversation("new")
    await conversation.said("hi")
    name = await conversation.get("id")
    assert name != "new"
    assert (await server.log(name))[-1]["type"] == "run.completed"


async def test_the_same_id_twice_is_the_same_conversation_while_it_is_open(client: Client) -> None:
    name = fresh()
    one, same = await client.conversation(name), await client.conversation(name)
    assert one == same
    await one.call("close")
    another = await client.conversation(name)
    assert another != one
    await another.ready()


# -- credentials -----------------------------------------------------------------------------------------


async def ticket(server: Server, conversation_id: str, **fields: Any) -> str:
    async with server.http() as http:
        answer = await http.post("/api/tickets", json={"conversation": conversation_id, **fields})
    return str(answer.json()["ticket"])


async def test_a_ticket_is_asked_for_every_connect(node: Node, make_server: MakeServer) -> None:
    server, given = make_server(), []

    async def get_ticket(asked: Json) -> str:
        given.append(asked)
        return await ticket(server, asked["conversation"], principal="guest")

    client = await node.client(server.url, getTicket=get_ticket)
    conversation = await client.conversation("c")
    await conversation.ready()
    assert (await conversation.get("hello"))["principal"] == "guest"
    heard = await conversation.on("connection")
    server.kill()
    make_server("--port", str(server.port), data=server.data)
    await heard.until(lambda connection: connection["status"] == "waiting")
    await heard.until(lambda connection: connection["status"] == "live")
    assert len(given) >= 2
    assert {asked["conversation"] for asked in given} == {"c"}


async def test_a_ticket_that_cannot_be_had_is_asked_for_again(node: Node, server: Server) -> None:
    tries: list[int] = []

    async def get_ticket(asked: Json) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise Thrown("the backend is asleep")
        return await ticket(server, asked["conversation"])

    client = await node.client(server.url, getTicket=get_ticket, backoff={"firstMs": 1, "mostMs": 5})
    conversation, [heard] = await client.listening(fresh(), "connection")
    await conversation.ready()
    assert len(tries) == 3
    assert any("the backend is asleep" in str(connection.get("reason")) for connection in heard)


async def test_a_spent_ticket_ends_it_after_a_few_fresh_ones(node: Node, server: Server) -> None:
    name, tries = fresh(), []
    spent = await ticket(server, name)
    async with server.socket(name, key="", ticket=spent) as socket:
        await socket.greeted()

    async def get_ticket(asked: Json) -> str:
        tries.append(1)
        return spent

    client = await node.client(server.url, getTicket=get_ticket, backoff={"firstMs": 1, "mostMs": 5})
    conversation = await client.conversation(name)
    with pytest.raises(JsError) as failure:
        await conversation.ready()
    assert (failure.value.name, failure.value.code) == ("ConnectionRefused", 4401)
    assert 2 <= len(tries) <= 4


async def test_a_spent_ticket_followed_by_a_good_one_is_forgotten(node: Node, server: Server) -> None:
    name = fresh()
    spent = await ticket(server, name)
    async with server.socket(name, key="", ticket=spent) as socket:
        await socket.greeted()
    tickets = [spent, await ticket(server, name)]
    client = await node.client(server.url, getTicket=lambda asked: tickets.pop(0), backoff={"firstMs": 1, "mostMs": 5})
    conversation = await client.conversation(name)
    await conversation.ready()
    assert tickets == []


async def test_a_ticket_that_is_refused_now_and_then_is_no_reason_to_go(node: Node, server: Server) -> None:
    name = fresh()
    spent = await ticket(server, name)
    async with server.socket(name, key="", ticket=spent) as socket:
        await socket.greeted()
    good = [True, False] * 5

    async def get_ticket(asked: Json) -> str:
        return await ticket(server, name) if good.pop() else spent

    async with Proxy.before(server.port) as proxy:
        client = await node.client(proxy.url, getTicket=get_ticket, backoff={"firstMs": 1, "mostMs": 5})
        conversation, [heard] = await client.listening(name, "connection")
        for lives in range(1, 5):
            await heard.until(lambda _, lives=lives: sum(one["status"] == "live" for one in heard) == lives)  # type: ignore[misc]
            proxy.cut_all()
        assert await conversation.call("ping") == 0
    assert good == []


async def test_a_ticket_for_a_new_conversation_and_then_for_the_one_that_it_became(
    node: Node, make_server: MakeServer
) -> None:
    server, asked_for = make_server(), []

    async def get_ticket(asked: Json) -> str:
        asked_for.append(asked["conversation"])
        return await ticket(server, asked["conversation"])

    client = await node.client(server.url, getTicket=get_ticket)
    conversation = await client.conversation("new")
    await conversation.said("/say one")
    name = await conversation.get("id")
    heard = await conversation.on("connection")
    server.kill()
    server = make_server("--port", str(server.port), data=server.data)
    await heard.until(lambda connection: connection["status"] == "live")
    assert (await conversation.said("/say two"))["output"] == "two"
    assert (asked_for[0], set(asked_for[1:])) == ("new", {name})


async def test_what_a_ticket_does_not_allow_is_refused(node: Node, server: Server) -> None:
    async def get_ticket(asked: Json) -> str:
        return await ticket(server, asked["conversation"], role="observer")

    conversation = await (await node.client(server.url, getTicket=get_ticket)).conversation(fresh())
    with pytest.raises(JsError) as failure:
        await conversation.said("hi")
    assert (failure.value.name, failure.value.code) == ("CommandRefused", "not_permitted")
    assert await conversation.call("ping") == 0


async def test_nobody_is_called_any_more_once_it_is_closed(node: Node, server: Server) -> None:
    """It is closed while a ticket is being fetched; the ticket is not used."""
    name, wanted, given = fresh(), asyncio.Event(), asyncio.Event()
    spare = await ticket(server, name)

    async def get_ticket(asked: Json) -> str:
        wanted.set()
        await given.wait()
        return spare

    conversation = await (await node.client(server.url, getTicket=get_ticket)).conversation(name)
    heard = await conversation.on("connection")
    await wanted.wait()
    await conversation.call("close")
    given.set()
    await conversation.get("id")
    async with server.socket(name, key="", ticket=spare) as socket:
        await socket.greeted()
    assert [connection["status"] for connection in heard] == ["closed"]


async def test_a_key_and_tickets_exclude_each_other(node: Node, server: Server) -> None:
    with pytest.raises(JsError, match="getTicket"):
        await node.client(server.url, key=server.key, getTicket=lambda asked: "t")


async def ended(conversation: Conversation) -> JsError:
    """What a conversation that the server ends is told, everywhere the same."""
    with pytest.raises(JsError) as ready:
        await conversation.ready()
    with pytest.raises(JsError) as command:
        await conversation.send("ping")
    assert (await conversation.get("connection"))["status"] == "closed"
    assert (ready.value.name, command.value.name) == ("ConnectionRefused", "ConnectionRefused")
    assert ready.value.code == command.value.code == (await conversation.get("connection"))["code"]
    return ready.value


async def test_a_wrong_key_ends_it(node: Node, server: Server) -> None:
    client = await node.client(server.url, key="wrong")
    assert (await ended(await client.conversation(fresh()))).code == 4401


async def test_no_key_ends_it(node: Node, server: Server) -> None:
    client = await node.client(server.url)
    assert (await ended(await client.conversation(fresh()))).code == 4401


async def test_another_conversations_ticket_ends_it(node: Node, server: Server) -> None:
    other = await ticket(server, fresh())
    client = await node.client(server.url, getTicket=lambda asked: other)
    assert (await ended(await client.conversation(fresh()))).code == 4403


async def test_an_address_where_nothing_is_ends_it(node: Node, server: Server) -> None:
    client = await node.client(f"{server.url}/elsewhere", key=server.key)
    assert (await ended(await client.conversation(fresh()))).code == 4404


async def test_an_id_that_cannot_be_one_is_refused_at_once(client: Client) -> None:
    with pytest.raises(JsError, match="a/b"):
        await client.conversation("a/b")


async def test_a_deleted_conversation_ends_it_for_all_who_wait(client: Client, server: Server) -> None:
    conversation = await client.conversation(fresh())
    run = await conversation.run("/sleep 60")
    await run.run_id()
    events = await Iteration.over(await conversation.call("events"))
    done = asyncio.create_task(run.done())
    rest = asyncio.create_task(events.take())
    heard = await conversation.on("connection")
    async with server.http() as http:
        assert (await http.delete(f"/api/conversations/{await conversation.get('id')}")).status_code in (200, 204)
    closed = await heard.until(lambda connection: connection["status"] == "closed")
    assert closed["code"] == 4410
    for waiting in (done, rest, conversation.send("ping")):
        with pytest.raises(JsError) as failure:
            await waiting
        assert (failure.value.name, failure.value.code) == ("ConnectionRefused", 4410)


async def test_one_socket_too_many_waits_until_there_is_room(node: Node, make_server: MakeServer) -> None:
    server = make_server(settings="[limits]\nsockets = 1\n")
    client = await node.client(server.url, key=server.key, backoff={"firstMs": 5, "mostMs": 50})
    first = await client.conversation("first")
    await first.ready()
    second, [heard] = await client.listening("second", "connection")
    assert (await heard.until(lambda connection: connection["status"] == "waiting"))["code"] == 4529
    await first.call("close")
    assert (await second.said("/say my turn"))["output"] == "my turn"


async def test_a_client_that_nobody_listens_to_warns_before_it_goes_for_good(node: Node, server: Server) -> None:
    await (await node.client(server.url, key="wrong")).conversation(fresh())
    await node.warned("4401")


async def test_a_client_whose_failure_nobody_looks_at_fails_in_peace(node: Node, server: Server) -> None:
    """The process would say so, and end, if a rejection were left over."""
    client = await node.client(server.url, key="wrong")
    conversation, [heard] = await client.listening(fresh(), "connection")
    await conversation.call("events")
    await conversation.run("hi")
    await heard.until(lambda connection: connection["status"] == "closed")


async def test_under_a_prefix_of_another_server_it_works_as_well(node: Node, mounted: Server) -> None:
    client = await node.client(mounted.url, key=mounted.key)
    conversation = await client.conversation(fresh(), from_="start")
    heard = await conversation.on("event")
    assert (await conversation.said("/stream 500"))["type"] == "run.completed"
    await conversation.settled()
    assert heard == await mounted.log(await conversation.get("id"))


async def test_without_a_websocket_constructor_it_says_what_to_give(node: Node, server: Server) -> None:
    with pytest.raises(JsError, match="WebSocket"):
        await (await node.client(server.url, key=server.key, WebSocket=None)).conversation(fresh())


async def test_addresses_are_taken_as_people_write_them(node: Node, server: Server) -> None:
    for url in (server.ws, f"{server.url}/", f"{server.ws}/"):
        conversation = await (await node.client(url, key=server.key)).conversation(fresh())
        await conversation.ready()
