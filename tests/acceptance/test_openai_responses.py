"""The Responses API over HTTP and SSE, as the official OpenAI SDK for Python speaks it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, Final

import pytest

from tests.acceptance.clients import need
from tests.acceptance.people import MODEL, PIXEL, WEATHER, arguments_of, quoted
from tests.wire import Json, Server

need("openai")

from openai import (
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
)
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

FUNCTION: Final[Any] = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
EVENT: Final[TypeAdapter[Any]] = TypeAdapter(ResponseStreamEvent)


class City(BaseModel):
    """What a structured answer is made of."""

    name: str
    inhabitants: int


def kinds(response: Response) -> list[str]:
    return [item.type for item in response.output]


def ended(client: OpenAI, response_id: str) -> Response:
    """The response once nothing more comes: its stream is read to the end."""
    with client.responses.retrieve(response_id, stream=True) as stream:
        last = list(stream)[-1]
    assert last.type in ("response.completed", "response.incomplete", "response.failed"), last.type
    return client.responses.retrieve(response_id)


# -- answers ---------------------------------------------------------------------------------------------


def test_an_input_is_answered_with_text_and_usage(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="hi")
    assert response.output_text == quoted("hi")
    assert (response.object, response.status, response.model) == ("response", "completed", MODEL)
    assert response.error is None
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0


def test_messages_of_every_role_and_images_are_taken_as_input(client: OpenAI) -> None:
    given: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "I heard one."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"},
            ],
        },
    ]
    response = client.responses.create(model=MODEL, input=given, instructions="Be kind.")
    assert "What is it?" in response.output_text
    assert response.instructions == "Be kind."


def test_what_was_asked_for_is_told_again(client: OpenAI) -> None:
    response = client.responses.create(
        model=MODEL,
        input="hi",
        metadata={"app": "tests"},
        temperature=0.2,
        top_p=0.9,
        max_output_tokens=100,
        parallel_tool_calls=False,
        tools=[FUNCTION],
        tool_choice="none",
        truncation="auto",
        user="ada",
    )
    assert response.metadata == {"app": "tests"}
    assert (response.temperature, response.top_p, response.max_output_tokens) == (0.2, 0.9, 100)
    assert (response.parallel_tool_calls, response.tool_choice, response.truncation) == (False, "none", "auto")
    assert [tool.type for tool in response.tools] == ["function"]


def test_a_stream_has_every_event_in_order_and_numbered(client: OpenAI) -> None:
    with client.responses.create(model=MODEL, input="hi", stream=True) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    order = [events[0].type]
    order += [later.type for earlier, later in pairwise(events) if later.type != earlier.type]
    assert order == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == quoted("hi")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == quoted("hi")


async def test_every_event_and_response_is_valid_by_the_sdks_own_types(server: Server, client: OpenAI) -> None:
    script = "/think Hm.\n/tool list_files {}\n/say There.\n/ask Which? | a | b"
    frames = list[Json]()
    async with server.http(headers={"X-Hermes-Tool-Progress": "on"}) as http:
        asked = {"model": MODEL, "input": script, "stream": True, "tools": [FUNCTION]}
        async with http.stream("POST", "/v1/responses", json=asked) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            name = ""
            async for line in answer.aiter_lines():
                field, _, value = line.partition(": ")
                name = value if field == "event" else name
                if field == "data" and value != "[DONE]":
                    frames.append(json.loads(value))
                    assert frames[-1]["type"] == name
        kept = (await http.get(f"/v1/responses/{frames[0]['response']['id']}")).text
    for frame in frames:
        EVENT.validate_python(frame)
    assert {frame["item"]["type"] for frame in frames if frame["type"] == "response.output_item.done"} == {
        "reasoning",
        "function_call",
        "function_call_output",
        "message",
    }
    Response.model_validate_json(kept)
    assert json.loads(kept) == frames[-1]["response"]


def test_the_sdks_own_accumulation_of_a_stream_comes_to_the_whole_response(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="/think Hm.\n/tool list_files {}\n/say There.") as stream:
        seen = [event.type for event in stream]
        whole = stream.get_final_response()
    assert whole.output_text == "There."
    assert kinds(client.responses.retrieve(whole.id)) == [item.type for item in whole.output]
    assert seen[-1] == "response.completed"


def test_a_structured_answer_is_parsed_into_its_class(client: OpenAI) -> None:
    parsed = client.responses.parse(model=MODEL, input="Describe Paris.", text_format=City)
    assert isinstance(parsed.output_parsed, City)


def test_what_the_agent_thinks_and_calls_are_items(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="/think Hm.\n/tool list_files {}\n/say There.")
    assert kinds(response) == ["reasoning", "function_call", "function_call_output", "message"]
    _, call, output, _ = response.output
    assert call.type == "function_call"
    assert output.type == "function_call_output"
    assert call.name == "list_files"
    assert call.call_id == output.call_id


# -- what is kept ----------------------------------------------------------------------------------------


def test_a_response_is_retrieved_with_its_input_and_deleted(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="hi")
    again = client.responses.retrieve(response.id)
    assert again.to_dict() == response.to_dict()
    [said] = client.responses.input_items.list(response.id)
    assert said.type == "message"
    assert said.role == "user"
    client.responses.delete(response.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(response.id)


def test_what_is_not_to_be_stored_is_not_there_afterwards(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="hi", store=False)
    assert response.output_text == quoted("hi")
    with pytest.raises(NotFoundError):
        client.responses.retrieve(response.id)


def test_a_response_goes_on_from_the_one_before_and_branches_off_an_older_one(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="one")
    second = client.responses.create(model=MODEL, input="two", previous_response_id=first.id)
    branch = client.responses.create(model=MODEL, input="three", previous_response_id=first.id)
    assert (second.previous_response_id, branch.previous_response_id) == (first.id, first.id)
    assert second.output_text == quoted("two")
    assert branch.output_text == quoted("three")


def test_everything_is_there_after_a_restart(make_server: Any) -> None:
    server = make_server()
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=15) as client:
        response = client.responses.create(model=MODEL, input="/think Hm.\n/tool list_files {}\n/say There.")
    server.kill()
    server = make_server(data=server.data)
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=15) as client:
        assert client.responses.retrieve(response.id).to_dict() == response.to_dict()
        following = client.responses.create(model=MODEL, input="more", previous_response_id=response.id)
        assert following.output_text == quoted("more")


# -- in the background -----------------------------------------------------------------------------------


def test_a_background_response_is_followed_from_any_event(client: OpenAI) -> None:
    begun = client.responses.create(model=MODEL, input="/stream 60 5", background=True)
    assert begun.status in ("queued", "in_progress")
    assert begun.background is True
    with client.responses.retrieve(begun.id, stream=True) as stream:
        events = list(stream)
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with client.responses.retrieve(begun.id, stream=True, starting_after=7) as stream:
        rest = list(stream)
    assert [event.to_dict() for event in rest] == [event.to_dict() for event in events[8:]]
    assert client.responses.retrieve(begun.id).status == "completed"


def test_a_background_stream_that_breaks_off_is_taken_up_again(client: OpenAI) -> None:
    at, response_id = -1, ""
    with client.responses.create(model=MODEL, input="/stream 60 5", background=True, stream=True) as stream:
        for event in stream:
            at = event.sequence_number
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                break
    with client.responses.retrieve(response_id, stream=True, starting_after=at) as stream:
        rest = list(stream)
    assert rest[0].sequence_number == at + 1
    assert rest[-1].type == "response.completed"


def test_a_background_response_is_cancelled_once_and_for_all(client: OpenAI) -> None:
    begun = client.responses.create(model=MODEL, input="/sleep 60", background=True)
    assert client.responses.cancel(begun.id).status == "cancelled"
    assert client.responses.retrieve(begun.id).status == "cancelled"
    assert client.responses.cancel(begun.id).status == "cancelled"


def test_to_cancel_what_is_over_changes_nothing(client: OpenAI) -> None:
    done = client.responses.create(model=MODEL, input="hi")
    assert client.responses.cancel(done.id).to_dict() == done.to_dict()


def test_a_background_response_outlives_the_server(make_server: Any) -> None:
    server = make_server()
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=15) as client:
        begun = client.responses.create(model=MODEL, input="/stream 100 20\n/say Done.", background=True)
    server.kill()
    server = make_server(data=server.data)
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=30) as client:
        assert ended(client, begun.id).output_text.endswith("Done.")


# -- functions, approvals, questions ---------------------------------------------------------------------


def test_a_function_is_handed_back_and_its_result_goes_into_the_next_response(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="What is the weather in Paris?", tools=[FUNCTION])
    assert first.status == "completed"
    [call] = [item for item in first.output if item.type == "function_call"]
    assert call.name == "get_weather"
    arguments_of(call.arguments)
    second = client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "Nineteen degrees."}],
        tools=[FUNCTION],
    )
    assert "Nineteen degrees." in second.output_text
    assert second.status == "completed"


def test_a_streamed_function_call_has_its_arguments_in_deltas(client: OpenAI) -> None:
    with client.responses.create(model=MODEL, input="Weather in Paris?", tools=[FUNCTION], stream=True) as stream:
        events = list(stream)
    deltas = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    [done] = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert deltas == done.arguments
    arguments_of(done.arguments)
    assert events[-1].type == "response.completed"


def test_a_history_that_the_client_keeps_itself_is_sent_back_whole(client: OpenAI) -> None:
    history: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.responses.create(model=MODEL, input=history, tools=[FUNCTION], store=False)
    history += first.output
    calls = [item for item in first.output if item.type == "function_call"]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."} for call in calls]
    second = client.responses.create(model=MODEL, input=history, tools=[FUNCTION], store=False)
    assert "Rain." in second.output_text
    history += [*second.output, {"role": "user", "content": "thanks"}]
    third = client.responses.create(model=MODEL, input=history, store=False)
    assert third.output_text == quoted("thanks")


@pytest.mark.parametrize(("approve", "outcome"), [(True, "hello"), (False, "not today")])
def test_an_approval_is_asked_for_and_given_as_one_of_an_mcp_tool(client: OpenAI, approve: bool, outcome: str) -> None:
    first = client.responses.create(model=MODEL, input="/run echo hello\n/say Done.")
    assert first.status == "completed"
    [request] = [item for item in first.output if item.type == "mcp_approval_request"]
    assert json.loads(request.arguments)["command"] == "echo hello"
    second = client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[
            {
                "type": "mcp_approval_response",
                "approval_request_id": request.id,
                "approve": approve,
                "reason": "not today",
            }
        ],
    )
    assert second.output_text == "Done."
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.input_tokens > 0
    assert second.usage.output_tokens > 0
    outputs = [str(item.output) for item in second.output if item.type == "function_call_output"]
    assert outcome in "".join(outputs)


def test_a_question_to_the_person_is_a_function_call_that_is_answered(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="/ask Which? | red | blue\n/say Done.")
    [call] = [item for item in first.output if item.type == "function_call"]
    assert call.name == "clarify"
    assert json.loads(call.arguments)["choices"] == ["red", "blue"]
    second = client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "red"}],
    )
    assert second.output_text == "Done."


def test_an_answer_that_is_not_one_is_refused_by_name(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="What is the weather?", tools=[FUNCTION])
    with pytest.raises(APIStatusError) as caught:
        client.responses.create(
            model=MODEL,
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": "call_of_nobody", "output": "x"}],
        )
    assert 400 <= caught.value.status_code < 500
    assert "call_of_nobody" in caught.value.message


# -- conversations ---------------------------------------------------------------------------------------


def test_a_conversation_holds_what_its_responses_were_about(client: OpenAI) -> None:
    conversation = client.conversations.create(metadata={"topic": "tests"})
    assert client.conversations.retrieve(conversation.id).metadata == {"topic": "tests"}
    for text in ("one", "two"):
        response = client.responses.create(model=MODEL, input=text, conversation=conversation.id)
        assert response.conversation is not None
        assert response.conversation.id == conversation.id
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    said = [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]
    assert said == ["one", quoted("one"), "two", quoted("two")]
    newest_first = client.conversations.items.list(conversation.id, limit=1)
    assert newest_first.data[0].id == items[-1].id
    assert [item.id for item in newest_first] == [item.id for item in reversed(items)]
    first = items[0]
    assert first.id is not None
    assert client.conversations.items.retrieve(first.id, conversation_id=conversation.id) == first


def test_a_conversation_is_made_with_items_and_updated_and_deleted(client: OpenAI) -> None:
    conversation = client.conversations.create(
        items=[
            {"type": "message", "role": "user", "content": "My name is Ada."},
            {"type": "message", "role": "assistant", "content": "Hello Ada."},
        ]
    )
    added = client.conversations.items.create(
        conversation.id, items=[{"type": "message", "role": "user", "content": "And I am 36."}]
    )
    assert len(added.data) == 1
    assert len(list(client.conversations.items.list(conversation.id))) == 3
    assert client.conversations.update(conversation.id, metadata={"a": "b"}).metadata == {"a": "b"}
    answer = client.responses.create(model=MODEL, input="hi", conversation=conversation.id)
    assert answer.output_text == quoted("hi")
    assert client.conversations.delete(conversation.id).deleted is True
    with pytest.raises(NotFoundError):
        client.conversations.retrieve(conversation.id)


async def test_a_response_in_a_conversation_is_what_its_socket_sees(server: Server, aclient: AsyncOpenAI) -> None:
    conversation = await aclient.conversations.create()
    async with server.socket(conversation.id) as socket:
        await socket.greeted()
        response = await aclient.responses.create(model=MODEL, input="hi", conversation=conversation.id)
        final = await socket.until_final()
    assert final["output"] == response.output_text == quoted("hi")


# -- errors ----------------------------------------------------------------------------------------------


def test_errors_are_the_sdks_own(client: OpenAI) -> None:
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="wrong").responses.create(model=MODEL, input="hi")
    with pytest.raises(NotFoundError) as caught:
        client.responses.create(model="gpt-none", input="hi")
    assert caught.value.code == "model_not_found"
    with pytest.raises(NotFoundError):
        client.responses.retrieve("resp_of_nobody")
    with pytest.raises(NotFoundError):
        client.responses.create(model=MODEL, input="hi", conversation="conv_of_nobody")
    with pytest.raises((BadRequestError, NotFoundError)) as unknown:
        client.responses.create(model=MODEL, input="hi", previous_response_id="resp_of_nobody")
    assert unknown.value.code == "previous_response_not_found"


def test_a_bad_request_names_the_field(client: OpenAI) -> None:
    given: Any
    for given, param in [
        ({"input": 5}, "input"),
        ({"input": [{"role": "wizard", "content": "hi"}]}, "input[0].role"),
        ({"input": "hi", "temperature": "hot"}, "temperature"),
        ({"input": "hi", "metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]}, None),
    ]:
        with pytest.raises(BadRequestError) as caught:
            client.responses.create(model=MODEL, **given)
        assert param is None or caught.value.param == param, caught.value


def test_a_conversation_and_a_previous_response_exclude_each_other(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="hi")
    conversation = client.conversations.create()
    with pytest.raises(BadRequestError):
        client.responses.create(model=MODEL, input="hi", previous_response_id=first.id, conversation=conversation.id)


def test_a_failed_response_says_so(client: OpenAI) -> None:
    with client.responses.create(model=MODEL, input="/say So far.\n/fail context_length", stream=True) as stream:
        last = list(stream)[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.status == "failed"
    assert last.response.output_text == "So far."
