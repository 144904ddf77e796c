"""``/v1/responses`` over a WebSocket, as OpenAI's SDK speaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.conftest import MakeServer
from tests.server.responses_wire import WEATHER, Responses, output, said
from tests.wire import Json, Server, fresh, soon

ENDS = ("response.completed", "response.failed", "response.incomplete", "error")


class Client:
    """One socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, frame: Json | str) -> None:
        await self._connection.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def recv(self) -> Json:
        async with soon():
            text = await self._connection.recv()
        assert isinstance(text, str)
        event: Json = json.loads(text)
        return event

    async def begin(self, given: Any, **more: Any) -> None:
        await self.send({"type": "response.create", "input": given, **more})

    async def until(self, *types: str) -> list[Json]:
        """Everything up to an event of one of these types."""
        events = [await self.recv()]
        while events[-1]["type"] not in types:
            events.append(await self.recv())
        return events

    async def create(self, given: Any, **more: Any) -> Json:
        """The response that a request comes to."""
        await self.begin(given, **more)
        last = (await self.until(*ENDS))[-1]
        assert last["type"] == "response.completed", last
        response: Json = last["response"]
        return response

    async def refused(self, frame: Json | str) -> tuple[int, Json]:
        await self.send(frame)
        event = await self.recv()
        assert event["type"] == "error", event
        return event["status"], event["error"]


@asynccontextmanager
async def connected(server: Server, key: str | None = None, **more: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {server.key if key is None else key}", **more}
    async with connect(f"{server.ws}/v1/responses", additional_headers=headers, max_size=None) as connection:
        yield Client(connection)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with connected(server) as made:
        yield made


@pytest.mark.parametrize(
    ("said_of_it", "tools", "kinds"),
    [
        ("", [], ["function_call", "function_call_output", "message"]),
        ("", [WEATHER], ["message"]),
        ("off", [], ["message"]),
        ("on", [WEATHER], ["function_call", "function_call_output", "message"]),
    ],
)
async def test_the_handshake_says_whether_the_agents_own_calls_are_items(
    server: Server, said_of_it: str, tools: list[Json], kinds: list[str]
) -> None:
    async with connected(server, **{"X-Hermes-Tool-Progress": said_of_it}) as client:
        response = await client.create("/tool list_files {}\n/say done", tools=tools)
    assert [item["type"] for item in response["output"]] == kinds


async def test_a_request_is_answered_with_the_events_of_its_stream(client: Client) -> None:
    await client.begin("hello")
    events = await client.until(*ENDS)
    assert [events[0]["type"], events[1]["type"]] == ["response.created", "response.in_progress"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "hello" in said(events[-1]["response"])


async def test_what_is_stored_can_be_fetched_like_any_other(client: Client, server: Server) -> None:
    response = await client.create("hello")
    assert await Responses(server).get(f"/responses/{response['id']}") == response


async def test_what_is_not_stored_is_gone_on_from_as_long_as_the_socket_is_open(client: Client, server: Server) -> None:
    first = await client.create("one", store=False)
    second = await client.create("two", store=False, previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    kept = await client.create("three", previous_response_id=second["id"])
    log = await server.log(kept["conversation"]["id"])
    assert [event["input"] for event in log if event["type"] == "run.started"] == ["one", "two", "three"]
    async with connected(server) as other:
        status, error = await other.refused(
            {"type": "response.create", "input": "x", "previous_response_id": first["id"]}
        )
    assert (status, error["code"]) == (400, "previous_response_not_found")


@pytest.mark.parametrize(
    "wrong", [{"input": [output("call_nope", "rain")]}, {"input": "x", "model": "nope"}, {"input": "x", "tools": "no"}]
)
async def test_what_a_refused_request_would_have_gone_on_from_is_forgotten(client: Client, wrong: Json) -> None:
    first = await client.create("one", store=False)
    after = {"type": "response.create", "store": False, "previous_response_id": first["id"]}
    _, error = await client.refused({**after, **wrong})
    assert error["code"] != "previous_response_not_found"
    assert await client.refused({**after, "input": "two"}) == (
        400,
        {
            "message": f"Previous response with id '{first['id']}' not found.",
            "type": "invalid_request_error",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        },
    )
    assert "again" in said(await client.create("again", store=False))


async def test_what_is_stored_outlasts_a_refused_request(client: Client) -> None:
    first = await client.create("one")
    after = {"type": "response.create", "previous_response_id": first["id"]}
    await client.refused({**after, "input": [output("call_nope", "rain")]})
    assert "two" in said(await client.create("two", previous_response_id=first["id"]))


async def test_what_is_under_way_outlasts_a_refused_request(client: Client) -> None:
    await client.begin("/sleep 0.3\n/say here", store=False, stream_id="a")
    begun = (await client.until("response.created"))[-1]["response"]
    await client.begin("x", store=False, previous_response_id=begun["id"], tools="no", stream_id="b")
    await client.until("error")
    await client.until("response.completed")
    assert "two" in said(await client.create("two", store=False, previous_response_id=begun["id"]))


async def test_functions_are_called_and_told_without_anything_being_stored(client: Client) -> None:
    first = await client.create("what is the weather?", tools=[WEATHER], store=False)
    call = first["output"][-1]
    second = await client.create(
        [output(call["call_id"], "rain")], tools=[WEATHER], store=False, previous_response_id=first["id"]
    )
    assert "rain" in said(second)


async def test_requests_take_turns(client: Client) -> None:
    await client.begin("/stream 5 5")
    await client.begin("second")
    first, second = await client.until(*ENDS), await client.until(*ENDS)
    assert len({event["response"]["id"] for event in first if "response" in event}) == 1
    assert "second" in said(second[-1]["response"])


async def test_requests_of_several_lanes_are_answered_side_by_side(client: Client) -> None:
    await client.begin("/sleep 1\n/say slow", stream_id="a")
    await client.begin("quick", stream_id="b")
    quick = [event for event in await client.until(*ENDS) if event["stream_id"] == "b"]
    assert quick[-1]["type"] == "response.completed"
    slow = await client.until(*ENDS)
    assert {event["stream_id"] for event in slow} == {"a"}


async def test_a_socket_has_so_much_under_way_and_no_more(client: Client) -> None:
    for number in range(16):
        await client.begin("/sleep 30", stream_id=str(number), store=False)
    await client.begin("one too many", stream_id="0")
    events = await client.until("error")
    assert (events[-1]["status"], events[-1]["error"]["code"]) == (429, "websocket_stream_limit_reached")
    assert events[-1]["stream_id"] == "0"


async def test_input_can_be_taken_before_anything_is_generated(client: Client, server: Server) -> None:
    await client.begin("My name is Al.", generate=False)
    events = await client.until(*ENDS)
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.completed"]
    first = events[-1]["response"]
    assert first["output"] == []
    second = await client.create("Who am I?", previous_response_id=first["id"])
    assert second["conversation"] == first["conversation"]
    log = await server.log(second["conversation"]["id"])
    assert [event["input"] for event in log if event["type"] == "run.started"] == ["My name is Al.", "Who am I?"]
    assert await Responses(server).get(f"/responses/{first['id']}") == first


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("nonsense", "invalid_json"),
        ("[]", "invalid_json"),
        ({}, "missing_required_parameter"),
        ({"type": "response.dance"}, "unknown_event"),
        ({"type": "response.create"}, "missing_required_parameter"),
        ({"type": "response.create", "input": "x", "background": True}, "unsupported_parameter"),
        ({"type": "response.create", "input": "x", "temperature": "hot"}, "invalid_type"),
        ({"type": "response.create", "input": "x", "stream_id": 7}, "invalid_type"),
    ],
)
async def test_what_cannot_be_done_is_an_error_and_the_socket_stays(
    client: Client, frame: Json | str, code: str
) -> None:
    status, error = await client.refused(frame)
    assert (status, error["code"], error["type"]) == (400, code, "invalid_request_error")
    assert "still" in said(await client.create("still there"))


async def test_a_key_that_is_none_is_refused_before_the_upgrade(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connected(server, key="nope"):
            pass
    assert refused.value.response.status_code == 401


# -- saying something to a response ----------------------------------------------------------------------


async def begun(client: Client, script: str, **more: Any) -> str:
    """A response that has begun to speak."""
    await client.begin(script, **more)
    events = await client.until("response.output_text.delta")
    response_id: str = events[0]["response"]["id"]
    return response_id


async def test_where_there_are_too_many_that_are_not_kept_the_oldest_is_forgotten(make_server: MakeServer) -> None:
    async with connected(make_server(settings="[compat]\ntemporary = 2")) as client:
        made = [await client.create(text, store=False) for text in ("one", "two", "three")]
        frame = {"type": "response.create", "input": "again", "store": False}
        status, error = await client.refused({**frame, "previous_response_id": made[0]["id"]})
        assert (status, error["code"]) == (400, "previous_response_not_found")
        assert "again" in said(await client.create("again", store=False, previous_response_id=made[-1]["id"]))


async def test_a_socket_forgets_the_oldest_of_its_own_but_none_that_is_under_way(make_server: MakeServer) -> None:
    async with connected(make_server(settings="[compat]\nsocket_unstored = 1")) as client:
        await client.begin("/sleep 1\n/say late", store=False, stream_id="slow")
        slow = (await client.recv())["response"]["id"]
        ended: list[str] = []
        for text in ("one", "two"):
            await client.begin(text, store=False, stream_id="quick")
            ended.append((await client.until(*ENDS))[-1]["response"]["id"])
        frame = {"type": "response.create", "input": "again", "store": False, "previous_response_id": ended[0]}
        await client.send(frame)
        refused = (await client.until("error"))[-1]
        assert refused["error"]["code"] == "previous_response_not_found"
        late = (await client.until(*ENDS))[-1]["response"]
        assert (late["id"], late["status"]) == (slow, "completed")
        assert "again" in said(await client.create("again", store=False, previous_response_id=slow))


async def test_where_the_agent_hears_it_the_next_response_begins_by_itself(client: Client, server: Server) -> None:
    first = await begun(client, "/stream 20 20\n/say end")
    await client.send({"type": "response.steer", "input": "be quick", "previous_response_id": first})
    events = await client.until(*ENDS)
    accepted = next(event for event in events if event["type"] == "response.steer.accepted")
    assert accepted["steer"]["previous_response_id"] == first
    ended = events[-1]["response"]
    assert (ended["status"], ended["incomplete_details"]) == ("incomplete", {"reason": "steered"})
    successor = await client.until(*ENDS)
    assert successor[0]["type"] == "response.created"
    assert [event["sequence_number"] for event in successor] == list(range(len(successor)))
    after = successor[-1]["response"]
    assert after["previous_response_id"] == first
    assert "be quick" in said(after)
    kept = Responses(server)
    assert await kept.get(f"/responses/{first}") == ended
    assert await kept.get(f"/responses/{after['id']}") == after
    (item,) = (await kept.get(f"/responses/{after['id']}/input_items"))["data"]
    assert item["content"][0]["text"] == "be quick"


async def test_what_was_heard_after_a_response_is_not_in_the_history_of_its_branches(
    client: Client, server: Server
) -> None:
    first = await begun(client, "/stream 20 20\n/say end")
    await client.send({"type": "response.steer", "input": "be quick", "previous_response_id": first})
    await client.until(*ENDS)
    await client.until(*ENDS)
    branch = await client.create("branch", previous_response_id=first)
    listed = await Responses(server).get(f"/conversations/{branch['conversation']['id']}/items", order="asc")
    told = [item["content"][0]["text"] for item in listed["data"] if item.get("role") == "user"]
    assert told == ["/stream 20 20\n/say end", "branch"]


async def test_what_the_agent_hears_beside_answers_waits_for_them(client: Client) -> None:
    await client.begin("/say first\n/run sleep 0.3\n/run echo two")
    events = await client.until(*ENDS)
    first, request = events[-1]["response"], events[-1]["response"]["output"][-1]
    await client.begin(
        [{"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}],
        previous_response_id=first["id"],
    )
    begun_again = (await client.until("response.in_progress"))[-1]["response"]["id"]
    await client.send({"type": "response.steer", "input": "note this", "previous_response_id": begun_again})
    events = await client.until("response.completed")
    kinds = [event["type"] for event in events]
    assert "response.steer.accepted" in kinds
    assert "response.incomplete" in kinds
    assert any("note this" in said(event["response"]) for event in events if event["type"] == "response.completed")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"input": "x"}, "response_not_found"),
        ({"input": "x", "previous_response_id": "resp_nope"}, "response_not_found"),
    ],
)
async def test_nothing_is_said_to_what_is_not_under_way(client: Client, more: Json, code: str) -> None:
    await client.send({"type": "response.steer", **more})
    event = await client.recv()
    assert (event["type"], event["error"]["code"]) == ("response.steer.failed", code)
    assert event["steer"]["input"] == "x"


async def test_what_comes_too_late_comes_back(client: Client) -> None:
    response = await client.create("hello")
    await client.send({"type": "response.steer", "input": "late", "previous_response_id": response["id"]})
    event = await client.recv()
    assert (event["type"], event["error"]["code"]) == ("response.steer.failed", "response_already_completed")


@pytest.mark.parametrize(
    "given", [7, "", [], [{"role": "assistant", "content": "x"}], [{"role": "system", "content": "x"}]]
)
async def test_only_what_the_user_says_can_be_said(client: Client, given: Any) -> None:
    first = await begun(client, "/stream 20 20")
    await client.send({"type": "response.steer", "input": given, "previous_response_id": first})
    failed = (await client.until("response.steer.failed"))[-1]
    assert failed["error"]["code"] == "invalid_input"


# -- going away ------------------------------------------------------------------------------------------


async def test_whoever_goes_away_leaves_nothing_running(make_server: Any) -> None:
    server = make_server(settings="[compat]\ndisconnect_grace_s = 0.1")
    name = fresh()
    async with connected(server) as client:
        await begun(client, "/say first\n/sleep 60", conversation=name)
    async with soon():
        while not [event for event in await server.log(name) if event["type"] == "run.cancelled"]:
            await asyncio.sleep(0.02)
