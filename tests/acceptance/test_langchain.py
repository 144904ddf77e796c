"""LangChain's ChatOpenAI, over chat completions and over the Responses API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.clients import need
from tests.acceptance.people import MODEL, PIXEL, quoted
from tests.wire import Server

need("langchain_openai")

from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from pydantic import BaseModel, SecretStr


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


def made(server: Server, responses: bool, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        base_url=f"{server.url}/v1",
        api_key=SecretStr(server.key),
        max_retries=0,
        timeout=15,
        stream_usage=True,
        use_responses_api=responses,
        **more,
    )


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def responses(request: pytest.FixtureRequest) -> bool:
    """Which of the two APIs is used."""
    return bool(request.param)


@pytest.fixture
def model(server: Server, responses: bool) -> ChatOpenAI:
    return made(server, responses)


def test_it_invokes(model: ChatOpenAI) -> None:
    answer = model.invoke([SystemMessage("Be brief."), HumanMessage("hi")])
    assert answer.text == quoted("hi")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0


def test_it_streams(model: ChatOpenAI) -> None:
    pieces = list(model.stream("hi"))
    assert "".join(piece.text for piece in pieces) == quoted("hi")
    assert len(pieces) > 2


async def test_it_streams_asynchronously_and_counts_tokens(server: Server, responses: bool) -> None:
    whole: AIMessageChunk | None = None
    async with DefaultAsyncHttpxClient() as own:  # the one that LangChain shares outlives the loop of a test
        model = made(server, responses, http_async_client=own)
        async for piece in model.astream("/tool list_files {}\n/say There."):
            assert isinstance(piece, AIMessageChunk)
            whole = piece if whole is None else whole + piece
    assert whole is not None
    assert whole.text.strip() == "There."
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] > 0


def test_its_tools_make_their_round_trip(model: ChatOpenAI) -> None:
    with_tools = model.bind_tools([get_weather])
    messages: list[Any] = [HumanMessage("What is the weather in Paris?")]
    asked = with_tools.invoke(messages)
    [call] = asked.tool_calls
    assert call["name"] == "get_weather"
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    messages += [asked, result]
    assert "It rains in" in with_tools.invoke(messages).text


def test_streamed_tool_calls_add_up(model: ChatOpenAI) -> None:
    whole: Any = None
    for piece in model.bind_tools([get_weather]).stream("What is the weather in Paris?"):
        whole = piece if whole is None else whole + piece
    [call] = whole.tool_calls
    assert call["name"] == "get_weather"
    assert isinstance(call["args"]["city"], str)


def test_it_is_not_asked_to_execute_what_the_agent_executes_itself(model: ChatOpenAI) -> None:
    with_tools = model.bind_tools([get_weather])
    messages: list[Any] = [HumanMessage('/tool list_files {}\n/tool get_weather {"city": "Rome"}\n/say Done.')]
    asked = with_tools.invoke(messages)
    assert [call["name"] for call in asked.tool_calls] == ["get_weather"]
    messages += [asked, get_weather.invoke(asked.tool_calls[0])]
    answer = with_tools.invoke(messages)
    assert answer.tool_calls == []
    assert answer.text == "Done."


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_it_gets_structured_output(model: ChatOpenAI, method: Any) -> None:
    structured = model.with_structured_output(City, method=method)
    assert isinstance(structured.invoke("Describe Paris."), City)


def test_it_sends_images(model: ChatOpenAI) -> None:
    content: list[Any] = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    assert "What is it?" in model.invoke([HumanMessage(content)]).text


def test_a_batch_keeps_its_order(model: ChatOpenAI) -> None:
    texts = [f"I am {n}" for n in range(8)]
    assert [answer.text for answer in model.batch([*texts])] == [quoted(text) for text in texts]


def test_a_response_goes_on_from_the_one_before(server: Server) -> None:
    model = made(server, responses=True, use_previous_response_id=True)
    first = model.invoke("one")
    second = model.invoke([HumanMessage("one"), first, HumanMessage("two")])
    assert second.text == quoted("two")
    assert second.response_metadata["id"] != first.response_metadata["id"]
