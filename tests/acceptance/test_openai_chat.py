"""Chat completions, as the official OpenAI SDK for Python makes them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from tests.acceptance.clients import need
from tests.acceptance.people import MODEL, PIXEL, WEATHER_TOOL, arguments_of, quoted
from tests.wire import Server, fresh, soon

need("openai")

from openai import (
    APIError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel


class City(BaseModel):
    """What a structured answer is made of."""

    name: str
    inhabitants: int
    twins: list[str]


def says(text: str) -> Any:
    return [{"role": "user", "content": text}]


def joined(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


# -- answers ---------------------------------------------------------------------------------------------


def test_a_message_is_answered_with_the_agents_text_and_its_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=says("hi"))
    assert answer.choices[0].message.content == quoted("hi")
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_conversation_of_several_turns_and_system_prompts_is_taken_as_it_is(client: OpenAI) -> None:
    history: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "I heard one."},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=history)
    assert answer.choices[0].message.content == quoted("two")


def test_a_stream_brings_the_same_text_in_pieces(client: OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=says("hi"), stream=True) as stream:
        chunks = list(stream)
    assert joined(chunks) == quoted("hi")
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finishes == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


def test_the_last_chunk_has_the_usage_when_it_is_asked_for(client: OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=says("hi"), stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_sdks_own_accumulation_of_a_stream_comes_to_the_whole_answer(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=says("hi")) as stream:
        kinds = [event.type for event in stream]
        whole = stream.get_final_completion()
    assert whole.choices[0].message.content == quoted("hi")
    assert kinds.count("content.delta") > 1
    assert kinds[-1] == "content.done"


def test_what_the_agent_thinks_comes_as_reasoning_content(client: OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=says("/think Hm.\n/say Done."), stream=True) as stream:
        deltas = [choice.delta for chunk in stream for choice in chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Hm."
    assert "".join(delta.content or "" for delta in deltas) == "Done."


def test_tools_of_the_agents_own_run_without_the_client_noticing(client: OpenAI) -> None:
    script = says("/tool list_files {}\n/say There.")
    with client.chat.completions.create(model=MODEL, messages=script, stream=True) as stream:
        chunks = list(stream)
    assert joined(chunks).strip() == "There."
    assert not any(choice.delta.tool_calls for chunk in chunks for choice in chunk.choices)
    whole = client.chat.completions.create(model=MODEL, messages=script)
    assert (whole.choices[0].message.content or "").strip() == "There."
    assert not whole.choices[0].message.tool_calls


def test_images_are_taken_as_data_and_by_address(client: OpenAI) -> None:
    for url in (PIXEL, "https://example.org/cat.png"):
        content: Any = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
        answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
        assert "What is it?" in (answer.choices[0].message.content or "")


def test_parameters_of_every_kind_are_taken_and_unknown_ones_ignored(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=says("hi"),
        temperature=0.2,
        top_p=0.9,
        max_completion_tokens=500,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        stop=["\n\n\n"],
        seed=7,
        user="ada",
        reasoning_effort="low",
        parallel_tool_calls=True,
        metadata={"app": "tests"},
        extra_body={"top_k": 40, "nobody_knows": {"this": 1}},
    )
    assert answer.choices[0].message.content == quoted("hi")


# -- functions -------------------------------------------------------------------------------------------


def test_a_function_is_handed_back_and_its_result_goes_into_the_answer(client: OpenAI) -> None:
    messages = says("What is the weather in Paris?")
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL])
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    arguments_of(call.function.arguments)
    assert first.usage is not None
    assert first.usage.prompt_tokens > 0
    messages += [
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "Nineteen degrees and sunny."},
    ]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL])
    assert second.choices[0].finish_reason == "stop"
    assert "Nineteen degrees and sunny." in (second.choices[0].message.content or "")


def test_a_streamed_call_adds_up_to_the_same(client: OpenAI) -> None:
    messages = says("What is the weather in Paris?")
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=[WEATHER_TOOL]) as stream:
        stream.until_done()
        whole = stream.get_final_completion()
    [call] = whole.choices[0].message.tool_calls or []
    assert whole.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    arguments_of(call.function.arguments)
    messages += [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": call.id, "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "Rain."},
    ]
    with client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL], stream=True) as again:
        assert "Rain." in joined(list(again))


def test_the_tool_choice_decides(client: OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    for choice, finish in [("none", "stop"), ("required", "tool_calls"), (named, "tool_calls")]:
        answer = client.chat.completions.create(
            model=MODEL, messages=says("Weather!"), tools=[WEATHER_TOOL], tool_choice=choice
        )
        assert answer.choices[0].finish_reason == finish, choice


def test_two_functions_at_once_are_two_calls_of_one_message(client: OpenAI) -> None:
    other: Any = {"type": "function", "function": {"name": "find_hotel", "parameters": {"type": "object"}}}
    messages = says("Weather and hotel in Paris, please.")
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL, other])
    calls = answer.choices[0].message.tool_calls or []
    assert {call.function.name for call in calls if call.type == "function"} == {"get_weather", "find_hotel"}
    messages.append(answer.choices[0].message)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": f"result {n}"} for n, call in enumerate(calls)]
    done = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL, other])
    assert "result 0" in (done.choices[0].message.content or "")
    assert "result 1" in (done.choices[0].message.content or "")


def test_a_structured_answer_is_parsed_into_its_class(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=says("Describe Paris."), response_format=City)
    assert isinstance(answer.choices[0].message.parsed, City)


# -- conversations that are kept -------------------------------------------------------------------------


async def test_a_plain_request_leaves_no_conversation_behind(server: Server, client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=says("A title for this chat?"))
    name = raw.headers["x-hermes-conversation-id"]
    assert raw.headers["x-hermes-session-id"] == name
    assert raw.headers["x-hermes-run-id"].startswith("run_")
    assert raw.headers["x-request-id"]
    async with server.http() as http:
        assert (await http.get(f"/api/conversations/{name}/events")).status_code == 404


@pytest.mark.parametrize("header", ["X-Hermes-Conversation-Id", "X-Hermes-Session-Id"])
async def test_a_header_joins_a_conversation_that_its_socket_sees(server: Server, client: OpenAI, header: str) -> None:
    name = fresh()
    for text in ("one", "two"):
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=says(text), extra_headers={header: name}
        )
        assert raw.headers["x-hermes-conversation-id"] == name
    started = [event for event in await server.log(name) if event["type"] == "run.started"]
    assert [event["input"] for event in started] == ["one", "two"]


async def test_an_approval_that_somebody_gives_at_the_socket_lets_the_answer_go_on(
    server: Server, aclient: AsyncOpenAI
) -> None:
    name, answers = fresh(), list[str | None]()

    async def ask() -> None:
        answer = await aclient.chat.completions.create(
            model=MODEL, messages=says("/run echo hi\n/say Done."), extra_headers={"X-Hermes-Conversation-Id": name}
        )
        answers.append(answer.choices[0].message.content)

    async with server.socket(name) as socket, anyio.create_task_group() as group:
        group.start_soon(ask)
        await socket.reply(await socket.asked(), option="once")
    assert [(answer or "").strip() for answer in answers] == ["Done."]


async def test_a_client_that_goes_away_stops_its_run_after_the_grace_period(
    make_server: Any, aclient: AsyncOpenAI
) -> None:
    server = make_server(settings="[compat]\ndisconnect_grace_s = 0.05\n")
    name = fresh()
    async with server.socket(name) as watching:
        await watching.greeted()
    here = aclient.with_options(base_url=f"{server.url}/v1", api_key=server.key)
    async with await here.chat.completions.create(
        model=MODEL,
        messages=says("/stream 100000 10"),
        stream=True,
        extra_headers={"X-Hermes-Conversation-Id": name},
    ) as stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
    async with soon():
        while not any(event["type"] == "run.cancelled" for event in await server.log(name)):
            await anyio.sleep(0.02)


async def test_many_streams_at_once_keep_to_themselves(aclient: AsyncOpenAI) -> None:
    texts: dict[int, str] = {}

    async def ask(n: int) -> None:
        async with await aclient.chat.completions.create(
            model=MODEL, messages=says(f"I am {n}"), stream=True
        ) as stream:
            texts[n] = joined([chunk async for chunk in stream])

    async with anyio.create_task_group() as group:
        for n in range(16):
            group.start_soon(ask, n)
    assert texts == {n: quoted(f"I am {n}") for n in range(16)}


# -- errors ----------------------------------------------------------------------------------------------


def test_a_wrong_key_is_an_authentication_error(client: OpenAI) -> None:
    with pytest.raises(AuthenticationError) as caught:
        client.with_options(api_key="wrong").chat.completions.create(model=MODEL, messages=says("hi"))
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.chat.completions.create(model="gpt-none", messages=says("hi"))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert MODEL in caught.value.message


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (["hi"], "messages[0]"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "wizard", "content": "hi"}], "messages[0].role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url"),
    ],
)
def test_a_bad_request_names_the_field(client: OpenAI, messages: Any, param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=messages)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_files_and_sounds_are_refused_by_name(client: OpenAI) -> None:
    parts: list[Any] = [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "image_url", "image_url": {"url": "data:application/pdf;base64,JVBERi0="}},
    ]
    for part in parts:
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [part]}])
        assert caught.value.code == "unsupported_content_type"


def test_a_models_failure_has_the_status_that_it_had(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as too_long:
        client.chat.completions.create(model=MODEL, messages=says("/fail context_length"))
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(RateLimitError):
        client.chat.completions.create(model=MODEL, messages=says("/fail model_rate_limited"))


def test_a_stream_that_breaks_off_raises_after_what_was_said(client: OpenAI) -> None:
    script, received = says("/say So far.\n/fail context_length"), list[ChatCompletionChunk]()
    with (
        client.chat.completions.create(model=MODEL, messages=script, stream=True) as stream,
        pytest.raises(APIError) as caught,
    ):
        received.extend(stream)
    assert joined(received) == "So far."
    assert caught.value.code == "context_length_exceeded"


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == [MODEL, "demo"]
    model = client.models.retrieve(MODEL)
    assert (model.id, model.object) == (MODEL, "model")
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-none")
