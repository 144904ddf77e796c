"""Tools that a JavaScript client executes: each call is begun once, whatever happens to lines, servers and clients."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.client.proxy import Proxy
from tests.conftest import MakeServer
from tests.faults.rough import RoughProxy
from tests.faults.watched import LONG
from tests.js.node import needs_node
from tests.js.remote import Client, Conversation, Heard, JsError, Node, Remote, Thrown
from tests.wire import Json, Server, fresh, soon

pytestmark = needs_node

RUNS = 100 if LONG else 10
HASTE = {"firstMs": 5, "mostMs": 100}
CITY: Json = {
    "type": "object",
    "description": "Looks out of the window.",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
CALL = '/tool weather {"city": "Oslo"}\n/say done'


class Handler:
    """A tool's handler in JavaScript, answered here. ``begun``: what it was called with, call by call."""

    def __init__(self, result: Any = "Rain.", *, at_once: bool = True) -> None:
        """Not ``at_once``: when ``release`` is set."""
        self.result = result
        self.begun = Heard()
        self.ended = 0
        self.release = asyncio.Event()
        if at_once:
            self.release.set()

    async def __call__(self, arguments: Json, call: Json) -> Any:
        self.begun(arguments, call)
        await self.release.wait()
        self.ended += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def call(self) -> tuple[Json, Json]:
        """The first call; waits for it."""
        arguments, more = await self.begun.until(lambda _: True)
        return arguments, more


async def offers(conversation: Conversation, handler: Handler, name: str = "weather", **options: Any) -> Remote:
    """``conversation.tool(name, schema, handler, options)``; what withdraws it."""
    withdraw: Remote = await conversation.call("tool", name, CITY, handler, options)
    return withdraw


async def opened(node: Node, server: Server, name: str, *, url: str = "", **options: Any) -> Conversation:
    """A conversation of a client of its own."""
    client = await node.client(url or server.url, key=server.key, backoff=HASTE, **options)
    return await client.conversation(name)


@pytest.fixture
async def conversation(node: Node, server: Server) -> Conversation:
    return await opened(node, server, fresh())


def outcomes(events: list[Json]) -> list[tuple[str, str]]:
    return [(event["status"], event["output"]) for event in events if event["type"] == "tool.completed"]


# -- from the offer to the result ------------------------------------------------------------------------


async def test_a_call_goes_to_the_handler_and_its_result_to_the_agent(conversation: Conversation) -> None:
    handler = Handler("Rain.")
    await offers(conversation, handler)
    run = await conversation.run(CALL)
    events = await run.events()
    assert outcomes(events) == [("ok", "Rain.")]
    [(arguments, call)] = handler.begun
    assert arguments == {"city": "Oslo"}
    assert call["conversation"] == conversation
    assert call["interaction"] == next(event for event in events if event["type"] == "interaction.requested")
    assert await call["signal"].get("aborted") is False
    assert events[-1]["output"] == "done"


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ("text", ("ok", "text")),
        ({"degrees": 22}, ("ok", '{"degrees":22}')),
        ([1, 2], ("ok", "[1,2]")),
        (None, ("ok", "null")),
        ({"output": "as it is"}, ("ok", "as it is")),
        ({"output": "shut", "is_error": True}, ("error", "shut")),
        (Thrown("the window is stuck"), ("error", "the window is stuck")),
    ],
    ids=["text", "object", "array", "nothing", "output", "error", "throw"],
)
async def test_what_a_handler_may_return(conversation: Conversation, result: Any, outcome: tuple[str, str]) -> None:
    await offers(conversation, Handler(result))
    assert outcomes(await (await conversation.run(CALL)).events()) == [outcome]


async def test_content_goes_along(conversation: Conversation) -> None:
    parts = [{"type": "text", "text": "look"}]
    await offers(conversation, Handler({"output": "look", "content": parts}))
    events = await (await conversation.run(CALL)).events()
    assert [event["content"] for event in events if event["type"] == "tool.completed"] == [parts]


async def test_what_is_offered_is_listed_until_it_is_withdrawn(conversation: Conversation) -> None:
    withdraw = await offers(conversation, Handler())
    await offers(conversation, Handler(), "clock", description="What time it is there.")
    tools = {tool["name"]: tool for tool in await conversation.call("tools.list") if tool["source"] == "client"}
    assert {name: tool["description"] for name, tool in tools.items()} == {
        "weather": "Looks out of the window.",
        "clock": "What time it is there.",
    }
    assert tools["weather"]["parameters"]["required"] == ["city"]
    await withdraw.call("call")
    left = [tool["name"] for tool in await conversation.call("tools.list") if tool["source"] == "client"]
    assert left == ["clock"]


async def test_a_tool_may_be_offered_long_after_the_beginning(conversation: Conversation) -> None:
    await conversation.said("hi")
    await offers(conversation, Handler("Late."))
    assert outcomes(await (await conversation.run(CALL)).events()) == [("ok", "Late.")]


async def test_a_tool_that_is_offered_again_has_a_new_handler(conversation: Conversation) -> None:
    first, second = Handler("first"), Handler("second")
    take_back = await offers(conversation, first)
    await offers(conversation, second)
    await take_back.call("call")  # of the first: the second one stays
    assert outcomes(await (await conversation.run(CALL)).events()) == [("ok", "second")]
    assert first.begun == []


async def test_a_conversations_tools_are_its_own(node: Node, server: Server) -> None:
    client = await node.client(server.url, key=server.key)
    one, two = await client.conversation(fresh()), await client.conversation(fresh())
    handler, other = Handler("one"), Handler("two")
    await offers(one, handler)
    await offers(two, other)
    await one.said(CALL)
    assert (len(handler.begun), len(other.begun)) == (1, 0)


async def test_calls_of_one_step_are_executed_side_by_side(conversation: Conversation) -> None:
    handler = Handler(at_once=False)
    await offers(conversation, handler)
    cities = [f'/tool weather {{"city": "{n}"}}' for n in range(5)]
    run = await conversation.run("\n/par\n".join(cities))
    await handler.begun.until(lambda _: len(handler.begun) == 5)
    handler.release.set()
    assert outcomes(await run.events()) == [("ok", "Rain.")] * 5
    assert {arguments["city"] for arguments, _ in handler.begun} == set("01234")


async def test_a_result_that_is_too_large_is_told_as_an_error(conversation: Conversation) -> None:
    await offers(conversation, Handler("x" * 3_000_000))
    [(status, output)] = outcomes(await (await conversation.run(CALL)).events())
    assert status == "error"
    assert "at most" in output


async def test_a_name_that_models_do_not_take_is_refused_at_once(conversation: Conversation) -> None:
    with pytest.raises(JsError, match="weather report"):
        await offers(conversation, Handler(), "weather report")


# -- nobody waits for it any more ------------------------------------------------------------------------


async def test_a_stop_aborts_the_handler(conversation: Conversation) -> None:
    handler = Handler(at_once=False)
    await offers(conversation, handler)
    run = await conversation.run(CALL)
    _, call = await handler.call()
    aborted = Heard()
    await call["signal"].call("addEventListener", "abort", aborted)
    await conversation.call("stop")
    await aborted.until(lambda _: True)
    handler.release.set()
    assert (await run.done())["type"] == "run.cancelled"
    assert await conversation.call("ping") >= 1


async def test_closing_the_conversation_aborts_the_handler(conversation: Conversation) -> None:
    handler = Handler(at_once=False)
    await offers(conversation, handler)
    await conversation.run(CALL)
    _, call = await handler.call()
    await conversation.call("close")
    assert await call["signal"].get("aborted") is True
    handler.release.set()


async def test_a_call_of_a_tool_that_was_withdrawn_meanwhile_is_finished(conversation: Conversation) -> None:
    handler = Handler(at_once=False)
    withdraw = await offers(conversation, handler)
    run = await conversation.run(CALL)
    await handler.call()
    await withdraw.call("call")
    handler.release.set()
    assert outcomes(await run.events()) == [("ok", "Rain.")]


# -- one owner -------------------------------------------------------------------------------------------


async def test_of_two_clients_with_one_tool_one_executes_each_call(node: Node, server: Server) -> None:
    name = fresh()
    one, two = await opened(node, server, name), await opened(node, server, name)
    first, second = Handler("first"), Handler("second")
    await offers(one, first)
    await offers(two, second)
    await two.ready()
    for _ in range(3):
        assert outcomes(await (await one.run(CALL)).events()) == [("ok", "first")]
        assert outcomes(await (await two.run(CALL)).events()) == [("ok", "second")]
    assert (len(first.begun), len(second.begun)) == (3, 3)


async def test_a_call_of_anothers_is_none_of_ours(node: Node, server: Server) -> None:
    name = fresh()
    owner, other = await opened(node, server, name), await opened(node, server, name)
    handler = Handler(at_once=False)
    await offers(owner, handler)
    await other.ready()
    run = await owner.run(CALL)
    asked = await other.asked("client_tool")
    with pytest.raises(JsError) as failure:
        await other.call("reply", asked, {"content": {"output": "Sun!"}})
    assert failure.value.code == "not_permitted"
    handler.release.set()
    assert outcomes(await run.events()) == [("ok", "Rain.")]


async def test_the_same_client_id_of_another_principal_is_another_client(node: Node, server: Server) -> None:
    name = fresh()
    async with server.http() as http:
        request = {"conversation": name, "principal": "mallory"}
        ticket = (await http.post("/api/tickets", json=request)).json()["ticket"]
    ours, theirs = Handler("ours"), Handler("theirs")
    conversation = await opened(node, server, name, clientId="tab")
    client = await node.client(server.url, getTicket=lambda _: ticket, clientId="tab")
    mallory = await client.conversation(name)
    await offers(mallory, theirs)
    await offers(conversation, ours)
    await mallory.ready()
    assert outcomes(await (await conversation.run(CALL)).events()) == [("ok", "ours")]
    assert theirs.begun == []


# -- lines and servers -----------------------------------------------------------------------------------


async def test_a_call_is_begun_once_however_often_the_line_is_cut(node: Node, server: Server) -> None:
    async with soon(40), Proxy.before(server.port) as proxy:
        conversation = await opened(node, server, fresh(), url=proxy.url)
        lives = await conversation.on("connection")
        handler = Handler(at_once=False)
        await offers(conversation, handler)
        run = await conversation.run(CALL)
        await handler.call()
        for cut in range(1, 6):
            proxy.cut_all()
            await lives.until(lambda _, cut=cut: sum(one["status"] == "live" for one in lives) > cut)  # type: ignore[misc]
        handler.release.set()
        assert outcomes(await run.events()) == [("ok", "Rain.")]
        assert len(handler.begun) == 1


async def test_a_result_that_is_ready_while_the_line_is_down_is_handed_over_later(node: Node, server: Server) -> None:
    async with soon(40), Proxy.before(server.port) as proxy:
        conversation = await opened(node, server, fresh(), url=proxy.url)
        heard = await conversation.on("connection")
        handler = Handler(at_once=False)
        await offers(conversation, handler)
        run = await conversation.run(CALL)
        await handler.call()
        proxy.refusing = True
        proxy.cut_all()
        await heard.until(lambda connection: connection["status"] == "waiting")
        handler.release.set()
        await asyncio.sleep(0)
        proxy.refusing = False
        assert outcomes(await run.events()) == [("ok", "Rain.")]
        assert len(handler.begun) == 1


async def test_a_call_that_was_made_while_the_line_was_down_is_begun_when_it_is_back(
    node: Node, server: Server
) -> None:
    async with soon(40), Proxy.before(server.port) as proxy:
        conversation = await opened(node, server, fresh(), url=proxy.url)
        heard = await conversation.on("connection")
        handler = Handler()
        await offers(conversation, handler)
        run = await conversation.run(f"/sleep 0.3\n{CALL}")
        await run.run_id()
        proxy.refusing = True
        proxy.cut_all()
        await heard.until(lambda connection: connection["status"] == "waiting")
        async with server.socket(await conversation.get("id"), from_="start") as beside:
            await beside.until("interaction.requested")
        assert handler.begun == []
        proxy.refusing = False
        assert outcomes(await run.events()) == [("ok", "Rain.")]
        assert len(handler.begun) == 1


async def test_a_call_that_was_told_on_a_dead_line_is_begun_on_the_next(node: Node, server: Server) -> None:
    async with soon(40), Proxy.before(server.port) as proxy:
        conversation = await opened(node, server, fresh(), url=proxy.url)
        handler = Handler()
        await offers(conversation, handler)
        run = await conversation.run(f"/sleep 0.3\n{CALL}")
        await run.run_id()
        proxy.passing.clear()
        async with server.socket(await conversation.get("id"), from_="start") as beside:
            await beside.until("interaction.requested")
        assert handler.begun == []
        proxy.cut_all()
        proxy.passing.set()
        assert outcomes(await run.events()) == [("ok", "Rain.")]
        assert len(handler.begun) == 1


@pytest.mark.parametrize("seed", [21, 22])
async def test_calls_on_a_line_on_which_everything_goes_wrong(node: Node, make_server: MakeServer, seed: int) -> None:
    server = make_server(settings="[readers]\nheartbeat_s = 0.2\n")
    async with soon(300 if LONG else 100), RoughProxy.before(server.port, seed=seed) as proxy:
        conversation = await opened(node, server, "c", url=proxy.url, silenceMs=1_500, openTimeoutMs=700)
        handler = Handler()
        await offers(conversation, handler)
        for number in range(RUNS):
            proxy.cut_all()
            city = json.dumps({"city": str(number)})
            events = await (await conversation.run(f"/tool weather {city}\n/par\n/tool weather {city}")).events()
            assert outcomes(events) == [("ok", "Rain.")] * 2
        begun = [call["interaction"]["interaction_id"] for _, call in handler.begun]
        assert len(begun) == len(set(begun)) == 2 * RUNS
        assert [
            e for e in await server.log("c") if e["type"] == "interaction.resolved" and e["outcome"] != "answered"
        ] == []
        proxy.calm = True


async def test_a_call_outlives_the_server_and_is_begun_once(
    node: Node, make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server(data=tmp_path / "data")
    async with soon(40):
        conversation = await opened(node, server, "c")
        handler = Handler(at_once=False)
        await offers(conversation, handler)
        events = await conversation.on("event")
        run = await conversation.run(CALL)
        await handler.call()
        for _ in range(2):
            server.kill()
            server = make_server("--port", str(server.port), data=tmp_path / "data")
            before = sum(event["type"] == "run.recovered" for event in events)
            await events.until(
                lambda _, before=before: sum(e["type"] == "run.recovered" for e in events) > before  # type: ignore[misc]
            )
        handler.release.set()
        assert outcomes(await run.events()) == [("ok", "Rain.")]
        assert len(handler.begun) == 1


# -- an owner that is gone -------------------------------------------------------------------------------


async def test_a_client_that_does_not_come_back_is_told_to_the_agent(node: Node, server: Server) -> None:
    name = fresh()
    owner, other = await opened(node, server, name), await opened(node, server, name)
    handler = Handler(at_once=False)
    await offers(owner, handler, if_gone="fail", grace_ms=50)
    heard = await other.on("event")
    await other.ready()
    await owner.run(CALL)
    await handler.call()
    await owner.call("close")
    completed = await heard.until_type("tool.completed")
    assert completed["status"] == "error"
    assert (await heard.until_type("run.completed"))["output"] == "done"
    handler.release.set()


async def a_life_that_ends_in_a_call(node: Node, server: Server, name: str, **options: Any) -> None:
    """A page is left while its tool is being executed."""
    before = await opened(node, server, name, clientId="tab")
    handler = Handler(at_once=False)
    await offers(before, handler, if_gone="wait", **options)
    await before.run(CALL)
    await handler.call()
    await before.call("close")
    handler.release.set()


async def the_next_life(node: Node, server: Server, name: str, handler: Handler, **options: Any) -> Heard:
    """The page is opened again, and offers its tool before the line is up, as pages do. What happens then."""
    async with Proxy.before(server.port, refusing=True) as proxy:
        conversation = await opened(node, server, name, url=proxy.url, clientId="tab")
        heard = await conversation.on("event")
        await offers(conversation, handler, **options)
        proxy.refusing = False
        await heard.until_type("run.completed")
    return heard


async def test_what_an_earlier_life_of_the_client_had_begun_is_not_begun_again(node: Node, server: Server) -> None:
    name, handler = fresh(), Handler()
    await a_life_that_ends_in_a_call(node, server, name)
    heard = await the_next_life(node, server, name, handler)
    completed = await heard.until_type("tool.completed")
    assert completed["status"] == "error"
    assert "restarted" in completed["output"]
    assert handler.begun == []


async def test_what_may_be_done_twice_is_begun_again_by_the_next_life(node: Node, server: Server) -> None:
    name, handler = fresh(), Handler("Snow.")
    await a_life_that_ends_in_a_call(node, server, name)
    heard = await the_next_life(node, server, name, handler, idempotent=True)
    completed = await heard.until_type("tool.completed")
    assert (completed["status"], completed["output"]) == ("ok", "Snow.")
    assert len(handler.begun) == 1


async def test_a_tool_that_the_next_life_offers_a_moment_later_is_in_time(node: Node, server: Server) -> None:
    name, handler = fresh(), Handler("Snow.")
    await a_life_that_ends_in_a_call(node, server, name)
    conversation = await opened(node, server, name, clientId="tab")
    heard = await conversation.on("event")
    await conversation.ready()
    await conversation.asked("client_tool")
    await offers(conversation, handler, idempotent=True)
    completed = await heard.until_type("tool.completed")
    assert (completed["status"], completed["output"]) == ("ok", "Snow.")


async def test_a_tool_that_the_next_life_does_not_offer_is_told_to_the_agent(node: Node, server: Server) -> None:
    name = fresh()
    await a_life_that_ends_in_a_call(node, server, name, grace_ms=50)
    client = await node.client(server.url, key=server.key, clientId="tab")
    _, [heard] = await client.listening(name, "event")
    completed = await heard.until_type("tool.completed")
    assert completed["status"] == "error"
    assert "weather" in completed["output"]


async def test_another_page_does_not_execute_what_an_earlier_one_was_asked(node: Node, server: Server) -> None:
    name = fresh()
    await a_life_that_ends_in_a_call(node, server, name)
    other, handler = await opened(node, server, name), Handler()
    await offers(other, handler)
    await other.ready()
    assert len((await other.state())["interactions"]) == 1
    await other.call("stop")
    await other.settled()
    assert handler.begun == []


async def test_a_conversation_that_is_told_from_its_start_fires_no_handler_for_the_past(
    node: Node, server: Server
) -> None:
    name = fresh()
    before = await opened(node, server, name, clientId="tab")
    await offers(before, Handler("then"))
    await before.said(CALL)
    await before.call("close")
    client: Client = await node.client(server.url, key=server.key, clientId="tab")
    again, handler = await client.conversation(name, from_="start"), Handler("now")
    await offers(again, handler)
    await again.ready()
    assert handler.begun == []
    assert outcomes(await (await again.run(CALL)).events()) == [("ok", "now")]
    assert len(handler.begun) == 1
