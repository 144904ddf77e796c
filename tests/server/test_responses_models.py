"""``/v1/responses``: what a model is asked when a client asks for a response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.agents.endpoint_server import Endpoint, calls, chunk, streams, text
from tests.agents.endpoint_server import endpoint as running_endpoint
from tests.conftest import MakeServer
from tests.server.responses_wire import WEATHER, Responses, output, said
from tests.wire import Json


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with running_endpoint() as running:
        running.plays(text("fine"))
        yield running


@pytest.fixture
def responses(endpoint: Endpoint, make_server: MakeServer) -> Responses:
    return Responses(make_server(settings=endpoint.settings()))


def messages(endpoint: Endpoint) -> list[tuple[str, Any]]:
    return [(message["role"], message.get("content")) for message in endpoint.last.body["messages"]]


async def test_instructions_are_for_one_response_and_system_messages_stay(
    responses: Responses, endpoint: Endpoint
) -> None:
    system = {"role": "developer", "content": "Speak like a pirate."}
    first = await responses.create([system, {"role": "user", "content": "hi"}], instructions="Be brief.")
    assert messages(endpoint) == [("system", "Speak like a pirate.\n\nBe brief."), ("user", "hi")]
    await responses.create("more", previous_response_id=first["id"], instructions="Be long.")
    assert messages(endpoint)[0] == ("system", "Speak like a pirate.\n\nBe long.")
    assert messages(endpoint)[1:] == [("user", "hi"), ("assistant", "fine"), ("user", "more")]


async def test_what_a_request_with_outputs_wants_of_the_model_is_for_the_rest_of_the_run(
    responses: Responses, endpoint: Endpoint
) -> None:
    endpoint.plays(calls(("get_weather", {"city": "Oslo"})), text("fine"))
    first = await responses.create("hi", tools=[WEATHER], instructions="ONE")
    given = [output(first["output"][-1]["call_id"], "rain")]
    more: Json = {"instructions": "TWO", "temperature": 0.5}
    second = await responses.create(given, previous_response_id=first["id"], **more)
    assert said(second) == "fine"
    assert messages(endpoint)[0] == ("system", "TWO")
    assert endpoint.last.body["temperature"] == 0.5
    assert "get_weather" in [tool["function"]["name"] for tool in endpoint.last.body["tools"]]


async def test_without_instructions_of_its_own_the_run_keeps_those_that_it_has(
    responses: Responses, endpoint: Endpoint
) -> None:
    endpoint.plays(calls(("get_weather", {"city": "Oslo"})), text("fine"))
    first = await responses.create("hi", tools=[WEATHER], instructions="ONE")
    given = [output(first["output"][-1]["call_id"], "rain")]
    await responses.create(given, previous_response_id=first["id"], tools=[WEATHER])
    assert messages(endpoint)[0] == ("system", "ONE")


async def test_system_messages_of_a_conversation_are_said_in_each_of_its_responses(
    responses: Responses, endpoint: Endpoint
) -> None:
    items = [{"type": "message", "role": "system", "content": "Be kind."}, {"role": "user", "content": "I am Al."}]
    made = (await responses.ask("POST", "/conversations", {"items": items})).json()
    await responses.create("hi", conversation=made["id"])
    await responses.create("again", conversation=made["id"])
    assert messages(endpoint)[0] == ("system", "Be kind.")
    assert ("user", "again") in messages(endpoint)


async def test_parameters_reach_the_model_under_its_names(responses: Responses, endpoint: Endpoint) -> None:
    schema: Json = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await responses.create(
        "hi",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=77,
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "low"},
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        user="u-1",
    )
    body = endpoint.last.body
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.5, 0.9, 77)
    assert (body["reasoning_effort"], body["verbosity"], body["user"]) == ("low", "low", "u-1")
    assert body["response_format"]["json_schema"] == {"name": "n", "schema": schema, "strict": True}
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    assert "get_weather" in [tool["function"]["name"] for tool in body["tools"]]


async def test_reasoning_and_calls_of_a_history_are_what_they_were(responses: Responses, endpoint: Endpoint) -> None:
    given: list[Json] = [
        {"role": "user", "content": "look"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I should look."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":"it"}'},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": "two"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
    ]
    response = await responses.create(given)
    sent = endpoint.last.body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["c1", "c2"]
    assert [message["content"] for message in sent[2:]] == ["one", "two"]
    assert said(response) == "fine"


async def test_an_answer_that_was_cut_off_is_incomplete(responses: Responses, endpoint: Endpoint) -> None:
    endpoint.plays(streams(chunk({"content": "half an ans"}), chunk(finish="length")))
    response = await responses.create("hi")
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert said(response) == "half an ans"
