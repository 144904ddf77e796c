"""Runs that nobody will come back for: left by who asked, or gone on from elsewhere."""

from __future__ import annotations

import anyio
import pytest

from tests.server.responses_wire import WEATHER, Responses, output
from tests.wire import Json, Server


@pytest.fixture
def responses(server: Server) -> Responses:
    return Responses(server)


async def _last_run(server: Server, response: Json) -> str:
    """How the run of a response stands."""
    async with server.http() as http:
        listed: Json = (await http.get("/v1/runs", params={"session_id": response["conversation"]["id"]})).json()
    return str(listed["data"][0]["status"])


async def test_a_call_that_was_answered_in_a_copy_is_not_waited_for_any_more(
    server: Server, responses: Responses
) -> None:
    first = await responses.create("What is the weather in Paris?", tools=[WEATHER])
    (call,) = first["output"]
    assert await _last_run(server, first) not in ("completed", "cancelled")
    told: Json = {"role": "user", "content": "What is the weather in Paris?"}
    second = await responses.create([told, call, output(call["call_id"], "rain")], tools=[WEATHER])
    assert [item["type"] for item in second["output"]] == ["message"]
    with anyio.fail_after(10):
        while await _last_run(server, first) != "cancelled":
            await anyio.lowlevel.checkpoint()


async def test_another_call_of_the_same_id_is_waited_for_still(server: Server, responses: Responses) -> None:
    first = await responses.create("What is the weather in Paris?", tools=[WEATHER])
    (call,) = first["output"]
    other = {**call, "arguments": '{"city":"Rome"}'}
    told: Json = {"role": "user", "content": "What is the weather in Rome?"}
    await responses.create([told, other, output(call["call_id"], "sun")], tools=[WEATHER])
    after = await responses.create([output(call["call_id"], "rain")], previous_response_id=first["id"])
    assert "rain" in after["output"][0]["content"][0]["text"]


async def test_something_new_does_not_wait_for_what_was_left(server: Server) -> None:
    headers = {"X-Hermes-Conversation-Id": "left"}
    body: Json = {"stream": True, "messages": [{"role": "user", "content": "/say begun\n/sleep 3600"}]}
    async with server.http(headers=headers) as http:
        async with http.stream("POST", "/v1/chat/completions", json=body):
            pass
        with anyio.fail_after(4):  # the grace is longer
            answer = await http.post(
                "/v1/chat/completions", json={"messages": [{"role": "user", "content": "/say something new"}]}
            )
    assert answer.json()["choices"][0]["message"]["content"] == "something new"
