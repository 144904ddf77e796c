"""The Responses API over a WebSocket, as ``client.responses.connect()`` of the official OpenAI SDK speaks it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import pytest

from tests.acceptance.clients import need
from tests.acceptance.people import MODEL, WEATHER, arguments_of, quoted
from tests.wire import Server

need("openai", "websockets")

from openai import AsyncOpenAI, NotFoundError, OpenAI
from openai.resources.responses.responses import ResponsesConnection
from openai.types.responses import Response

# The SDK opens its synchronous sockets in a way that newer releases of websockets advise against.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")

FUNCTION: Final[Any] = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
LAST: Final = ("response.completed", "response.incomplete", "response.failed", "error")


@pytest.fixture
def connection(client: OpenAI) -> Iterator[ResponsesConnection]:
    with client.responses.connect() as made:
        yield made


def rest_of(events: Iterable[Any]) -> list[Any]:
    """Receive up to the end of a response, or an error."""
    received = []
    for event in events:
        received.append(event)
        if event.type in LAST:
            break
    return received


def answered(connection: ResponsesConnection, **request: Any) -> Response:
    """Ask, and receive the whole response."""
    connection.response.create(model=MODEL, **request)
    last = rest_of(connection)[-1]
    assert last.type == "response.completed", last
    whole: Response = last.response
    return whole


def test_a_request_is_answered_with_the_same_events_as_over_sse(
    client: OpenAI, connection: ResponsesConnection
) -> None:
    connection.response.create(model=MODEL, input="hi")
    events = rest_of(connection)
    with client.responses.create(model=MODEL, input="hi", stream=True) as stream:
        over_sse = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert list(dict.fromkeys(e.type for e in events)) == list(dict.fromkeys(e.type for e in over_sse))
    assert events[-1].response.output_text == quoted("hi")


def test_one_connection_serves_a_conversation_turn_by_turn(connection: ResponsesConnection) -> None:
    previous = None
    for text in ("one", "two", "three"):
        response = answered(connection, input=text, previous_response_id=previous)
        assert response.output_text == quoted(text)
        assert response.previous_response_id == previous
        previous = response.id


def test_what_is_not_stored_can_be_gone_on_from_on_the_same_connection_only(
    client: OpenAI, connection: ResponsesConnection
) -> None:
    first = answered(connection, input="one", store=False)
    second = answered(connection, input="two", store=False, previous_response_id=first.id)
    assert second.output_text == quoted("two")
    with pytest.raises(NotFoundError):
        client.responses.retrieve(first.id)
    with client.responses.connect() as other:
        other.response.create(model=MODEL, input="three", previous_response_id=second.id)
        [refused] = rest_of(other)
    assert refused.type == "error"
    assert refused.error.code == "previous_response_not_found"


def test_what_is_stored_is_the_same_response_over_http(client: OpenAI, connection: ResponsesConnection) -> None:
    response = answered(connection, input="hi")
    assert client.responses.retrieve(response.id).to_dict() == response.to_dict()
    with client.responses.connect() as other:
        assert answered(other, input="more", previous_response_id=response.id).output_text == quoted("more")


def test_functions_make_their_round_trip(connection: ResponsesConnection) -> None:
    first = answered(connection, input="What is the weather in Paris?", tools=[FUNCTION])
    [call] = [item for item in first.output if item.type == "function_call"]
    arguments_of(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Nineteen degrees."}
    second = answered(connection, input=[output], previous_response_id=first.id, tools=[FUNCTION])
    assert "Nineteen degrees." in second.output_text


def test_a_bad_request_is_an_error_event_and_the_connection_stays(connection: ResponsesConnection) -> None:
    bad: list[dict[str, Any]] = [
        {"input": 5},
        {"input": "hi", "model": "gpt-none"},
        {"input": "hi", "previous_response_id": "resp_of_nobody"},
        {"input": "hi", "conversation": "conv_of_nobody"},
    ]
    for request in bad:
        connection.response.create(**({"model": MODEL} | request))
        [refused] = rest_of(connection)
        assert refused.type == "error"
        assert 400 <= refused.status < 500
        assert refused.error.message
    connection.send_raw("this is no JSON")
    [refused] = rest_of(connection)
    assert refused.type == "error"
    assert answered(connection, input="hi").output_text == quoted("hi")


def test_what_is_said_to_a_response_under_way_is_answered_by_the_next_one(connection: ResponsesConnection) -> None:
    connection.response.create(model=MODEL, input="/tool list_files {}\n/sleep 0.3\n/stream 20 5\n/say Done.")
    steered, order = False, list[Any]()
    for event in connection:
        order.append(event)
        if event.type == "response.output_item.added" and not steered:
            steered = True
            connection.response.steer(input="Hurry.", previous_response_id=order[0].response.id)
        if event.type == "response.completed":
            break
    kinds = [event.type for event in order]
    assert kinds.index("response.steer.accepted") < kinds.index("response.incomplete")
    first, second = [event.response for event in order if event.type == "response.created"]
    assert second.previous_response_id == first.id
    assert "Hurry." in order[-1].response.output_text


def test_handlers_are_called_for_what_they_wait_for(client: OpenAI) -> None:
    text = list[str]()
    with client.responses.connect() as connection:
        connection.on("response.output_text.delta", lambda event: text.append(event.delta))
        connection.on("response.completed", lambda event: connection.close())
        connection.response.create(model=MODEL, input="hi")
        connection.dispatch_events()
    assert "".join(text) == quoted("hi")


async def test_the_asynchronous_client_does_the_same(server: Server) -> None:
    async with (
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key) as client,
        client.responses.connect() as connection,
    ):
        await connection.response.create(model=MODEL, input="/think Hm.\n/tool list_files {}\n/say There.")
        async for event in connection:
            if event.type == "response.completed":
                assert [item.type for item in event.response.output] == [
                    "reasoning",
                    "function_call",
                    "function_call_output",
                    "message",
                ]
                break


def test_a_wrong_key_is_refused_before_anything_is_said(client: OpenAI) -> None:
    from websockets.exceptions import InvalidStatus

    with (
        pytest.raises(InvalidStatus) as caught,
        client.with_options(api_key="wrong").responses.connect(),
    ):
        pass
    assert caught.value.response.status_code == 401
