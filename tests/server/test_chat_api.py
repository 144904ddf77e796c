"""``POST /v1/chat/completions`` without a conversation: each request is a whole, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from tests.agents.endpoint_server import HANG, Reply, calls, endpoint, text
from tests.conftest import MakeServer
from tests.pictures import data_url, picture
from tests.server.chat_client import (
    PATH,
    WEATHER,
    call_of,
    chat,
    complete,
    content,
    finish,
    read,
    say,
    streaming,
)
from tests.wire import Json, Server, fresh, soon, wait_for

ONE_PICTURE = {"type": "image_url", "image_url": {"url": data_url(picture())}}


# -- answers -------------------------------------------------------------------------------------------


async def test_a_whole_answer(server: Server) -> None:
    answer = await chat(server, say("hi"), model="demo")
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "demo"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "This is the demo model. You said: “hi”.",
                "refusal": None,
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0
    assert answer.headers["x-hermes-conversation-id"] == answer.headers["x-hermes-session-id"]
    assert answer.headers["x-hermes-run-id"].startswith("run_")


async def test_a_streamed_answer_has_the_same_text_and_the_usage_in_the_end(server: Server) -> None:
    chunks = await read(server, say("hi"), stream_options={"include_usage": True})
    assert content(chunks) == "This is the demo model. You said: “hi”."
    assert finish(chunks) == "stop"
    assert chunks[-1] == {"done": True}
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["total_tokens"] > 0
    assert {chunk["id"] for chunk in chunks[:-1]} == {chunks[0]["id"]}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


async def test_nothing_is_left_of_it(server: Server) -> None:
    def folders() -> set[Path]:
        return set((server.data / "hermes-ws-work").rglob("*")) - {server.data / "hermes-ws-work" / "hermes-ws-trash"}

    before = folders()
    answer = await chat(server, say([{"type": "text", "text": "/tool list_files {}\n/say done"}, ONE_PICTURE]))
    assert answer.json()["choices"][0]["message"]["content"] == "done"
    name = answer.headers["x-hermes-conversation-id"]
    async with server.http() as http:
        listed = (await http.get("/api/conversations")).json()["conversations"]
        gone = await http.get(f"/api/conversations/{name}/events")
    assert name not in {one["conversation_id"] for one in listed}
    assert gone.status_code == 404
    assert folders() == before


async def test_the_messages_before_the_last_are_its_past(server: Server) -> None:
    alone = await complete(server, say("hi"))
    after = await complete(server, say("a" * 4_000), say("b" * 4_000, "assistant"), say("hi"))
    assert after["choices"][0]["message"]["content"] == alone["choices"][0]["message"]["content"]
    assert after["usage"]["prompt_tokens"] - alone["usage"]["prompt_tokens"] == 2_000


async def test_several_steps_are_one_answer(server: Server) -> None:
    script = "/think They want a listing.\n/say Let me look.\n/tool list_files {}\n/say All fine."
    body = await complete(server, say(script))
    message = body["choices"][0]["message"]
    assert message["content"] == "Let me look.\n\nAll fine."
    assert message["reasoning_content"] == "They want a listing."
    chunks = await read(server, say(script))
    assert content(chunks) == "Let me look.\n\nAll fine."
    assert content(chunks, "reasoning_content") == "They want a listing."


async def test_instructions_alone_are_answered(server: Server) -> None:
    body = await complete(server, say("Name a colour.", "system"))
    assert "Name a colour." in body["choices"][0]["message"]["content"]


async def test_after_an_answer_an_empty_message_has_the_model_go_on(make_server: MakeServer) -> None:
    async with endpoint() as model:
        server = make_server(settings=model.settings())
        model.plays(text("Fine."))
        body = await complete(server, say("hi"), say("hello", "assistant"), say(""))
        assert body["choices"][0]["message"]["content"] == "Fine."
        assert [one["content"] for one in model.last.body["messages"][-3:-1]] == ["hi", "hello"]


async def test_images_by_value_and_by_address(server: Server) -> None:
    by_address = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}
    body = await complete(server, say([{"type": "text", "text": "what is this?"}, ONE_PICTURE, by_address]))
    assert "what is this?" in body["choices"][0]["message"]["content"]


async def test_everything_is_passed_on_to_the_model(make_server: MakeServer) -> None:
    async with endpoint() as model:
        server = make_server(settings=model.settings(instructions="You are the agent."))
        model.plays(text("Fine."))
        await complete(
            server,
            say("Be brief.", "system"),
            say([{"type": "text", "text": "what is this?"}, ONE_PICTURE]),
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
            say("A cat.", "assistant"),
            say("sure?"),
            tools=[WEATHER],
            tool_choice="required",
            temperature=0.25,
            max_tokens=77,
        )
        sent = model.last.body
    system, picture_, called, told, answered, asked = sent["messages"]
    assert (system["role"], system["content"]) == ("system", "You are the agent.\n\nBe brief.")
    assert [part["type"] for part in picture_["content"]] == ["text", "image_url"]
    assert picture_["content"][1]["image_url"]["url"] == ONE_PICTURE["image_url"]["url"]  # type: ignore[index]
    [call] = called["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": '{"at":"it"}'}
    assert (told["role"], told["tool_call_id"], told["content"]) == ("tool", call["id"], "a cat")
    assert (answered["role"], answered["content"]) == ("assistant", "A cat.")
    assert (asked["role"], asked["content"]) == ("user", "sure?")
    assert sent["temperature"] == 0.25
    assert 77 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))
    assert sent["tool_choice"] == "required"
    assert "get_weather" in [tool["function"]["name"] for tool in sent["tools"]]


# -- functions of the client ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_function_is_handed_back_and_its_result_taken_up(server: Server, stream: bool) -> None:
    asked = say("what is the weather in Rome?")
    if stream:
        chunks = await read(server, asked, tools=[WEATHER])
        assert finish(chunks) == "tool_calls"
        [delta] = [
            c["delta"]["tool_calls"] for chunk in chunks[:-1] for c in chunk["choices"] if "tool_calls" in c["delta"]
        ]
        assert delta[0].pop("index") == 0
        message: Json = {"role": "assistant", "content": None, "tool_calls": delta}
    else:
        body = await complete(server, asked, tools=[WEATHER])
        message = body["choices"][0]["message"]
        assert body["choices"][0]["finish_reason"] == "tool_calls"
    [call] = message["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "get_weather"
    assert isinstance(json.loads(call["function"]["arguments"])["city"], str)

    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny, 21 degrees"}
    if stream:
        said = content(await read(server, asked, message, result, tools=[WEATHER]))
    else:
        body = await complete(server, asked, message, result, tools=[WEATHER])
        said = body["choices"][0]["message"]["content"]
    assert "sunny, 21 degrees" in said


async def test_several_calls_are_handed_back_together_and_answered_in_any_order(server: Server) -> None:
    time = {"type": "function", "function": {"name": "get_time"}}
    asked = say("the weather and the time, please")
    message = (await complete(server, asked, tools=[WEATHER, time]))["choices"][0]["message"]
    by_name = {call["function"]["name"]: call["id"] for call in message["tool_calls"]}
    assert set(by_name) == {"get_weather", "get_time"}
    results = [
        {"role": "tool", "tool_call_id": by_name["get_time"], "content": "noon"},
        {"role": "tool", "tool_call_id": by_name["get_weather"], "content": "rain"},
    ]
    said = (await complete(server, asked, message, *results, tools=[WEATHER, time]))["choices"][0]["message"]["content"]
    assert "noon" in said
    assert "rain" in said


async def test_a_choice_of_none_calls_nothing(server: Server) -> None:
    body = await complete(server, say("weather?"), tools=[WEATHER], tool_choice="none")
    assert body["choices"][0]["finish_reason"] == "stop"


async def test_a_choice_of_a_function_calls_it(server: Server) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    body = await complete(server, say("hello"), tools=[WEATHER], tool_choice=choice)
    assert call_of(body)["function"]["name"] == "get_weather"


async def test_functions_of_the_older_form(server: Server) -> None:
    functions = [WEATHER["function"]]
    body = await complete(server, say("weather?"), functions=functions)
    [choice] = body["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "get_weather"
    result = {"role": "function", "name": "get_weather", "content": "snow"}
    after = await complete(server, say("weather?"), choice["message"], result, functions=functions)
    assert "snow" in after["choices"][0]["message"]["content"]


async def test_a_tool_of_the_agent_beside_a_function_is_done_first(make_server: MakeServer) -> None:
    async with endpoint() as model:
        server = make_server(settings=model.settings())
        model.plays(calls(("list_files", {}), ("get_weather", {"city": "Rome"})))
        chunks = await read(server, say("go"), tools=[WEATHER])
    progress = [(chunk["tool"], chunk["status"]) for chunk in chunks if chunk.get("event") == "hermes.tool.progress"]
    assert progress == [("list_files", "running"), ("list_files", "completed")]
    assert finish(chunks) == "tool_calls"


# -- what goes on meanwhile ----------------------------------------------------------------------------


async def test_tools_are_told_of_and_clients_that_do_not_know_that_are_not_troubled(server: Server) -> None:
    chunks = await read(server, say("/tool list_files {}\n/say done"))
    begun, ended = [chunk for chunk in chunks if "event" in chunk]
    assert begun["event"] == ended["event"] == "hermes.tool.progress"
    assert (begun["status"], ended["status"], ended["outcome"]) == ("running", "completed", "ok")
    assert begun["toolCallId"] == ended["toolCallId"]
    assert begun["object"] == "chat.completion.chunk"
    assert begun["choices"] == []


async def test_strict_clients_turn_that_off(server: Server) -> None:
    chunks = await read(server, say("/tool list_files {}\n/say done"), headers={"X-Hermes-Tool-Progress": "off"})
    assert not [chunk for chunk in chunks if "event" in chunk]
    assert content(chunks) == "done"


async def test_a_person_answers_what_the_agent_asks_meanwhile(server: Server) -> None:
    async with streaming(server, say("/run echo yes\n/say done")) as chunks:
        asked = (await chunks.until(event="hermes.interaction.requested"))["interaction"]
        name = chunks.response.headers["x-hermes-conversation-id"]
        assert asked["kind"] == "approval"
        reply = {"type": "interaction.reply", "interaction_id": asked["interaction_id"], "option": "once"}
        assert (await server.post(name, reply))["type"] == "ok"
        resolved = await chunks.until(event="hermes.interaction.resolved")
        assert resolved["interaction"]["option"] == "once"
        await chunks.until(done=True)
    assert content(chunks.seen) == "done"
    assert [c["outcome"] for c in chunks.seen if c.get("status") == "completed"] == ["ok"]


async def test_nobody_answering_is_a_refusal_and_the_agent_goes_on(make_server: MakeServer) -> None:
    server = make_server(settings="[compat]\ninteraction_timeout_s = 1\n")
    chunks = await read(server, say("/run echo yes\n/say done"))
    assert [c["outcome"] for c in chunks if c.get("status") == "completed"] == ["denied"]
    assert content(chunks) == "done"


async def test_a_silent_stream_is_kept_alive(make_server: MakeServer) -> None:
    server = make_server(settings="[compat]\nkeepalive_s = 0.1\n")
    chunks = await read(server, say("/sleep 0.5\n/say done"))
    assert {"comment": "keepalive"} in chunks
    assert content(chunks) == "done"


# -- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("model_rate_limited", 429, "rate_limit_exceeded"),
        ("context_length", 400, "context_length_exceeded"),
        ("model_auth", 502, "model_auth"),
    ],
)
async def test_a_failure_before_anything_was_said_has_a_status(
    make_server: MakeServer, stream: bool, code: str, status: int, told: str
) -> None:
    server = make_server(settings='[agents.demo]\nkind = "demo"\nretries = 0\n')
    answer = await chat(server, say(f"/fail {code}"), stream=stream)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == told
    assert set(error) == {"message", "type", "param", "code"}
    assert ("retry-after" in answer.headers) == (status == 429)


async def test_a_failure_in_a_stream_is_an_error_that_ends_it(server: Server) -> None:
    chunks = await read(server, say("/say one\n/fail model_auth"))
    assert content(chunks) == "one"
    assert chunks[-2]["error"]["code"] == "model_auth"
    assert chunks[-1] == {"done": True}


async def test_a_failure_after_some_steps_is_an_error_for_who_waits_for_the_whole(server: Server) -> None:
    answer = await chat(server, say("/say one\n/fail model_auth"))
    assert answer.status_code == 502


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [say("hi"), say("x", "robot")]}, "messages[1].role", "invalid_value"),
        ({"messages": [say("hi")], "temperature": "hot"}, "temperature", "invalid_type"),
        ({"messages": [say("hi")], "n": 2}, "n", "invalid_value"),
        ({"messages": [say("hi")], "model": "gpt-9"}, "model", "model_not_found"),
        ({"messages": [say([{"type": "file", "file": {}}])]}, "messages[0].content[0]", "unsupported_content_type"),
        (
            {"messages": [say([{"type": "image_url", "image_url": {"url": "data:application/pdf;base64,AA=="}}])]},
            "messages[0].content[0].image_url.url",
            "unsupported_content_type",
        ),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(server: Server, body: Json, param: str, code: str) -> None:
    async with server.http() as http:
        answer = await http.post(PATH, json=body)
    assert answer.status_code == (404 if param == "model" else 400)
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)


async def test_what_claims_to_be_an_image_and_is_none_is_refused(server: Server) -> None:
    fake = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    for messages, at in (([say([fake])], 0), ([say("look"), say("yes?", "assistant"), say([fake]), say("now?")], 2)):
        answer = await chat(server, *messages)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_image_url")
        assert error["param"] == f"messages[{at}].content[0].image_url.url"


async def test_without_a_key_nothing_is_answered(server: Server) -> None:
    async with server.http(key="") as http:
        answer = await http.post(PATH, json={"messages": [say("hi")]})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


# -- clients that go, and clients that ask again -------------------------------------------------------


async def test_when_the_client_goes_the_conversation_is_over_after_a_while(make_server: MakeServer) -> None:
    server = make_server(settings="[compat]\ndisconnect_grace_s = 0.1\n")
    async with streaming(server, say("/say one\n/sleep 600")) as chunks:
        await chunks.until(object="chat.completion.chunk")
        name = chunks.response.headers["x-hermes-conversation-id"]
        async with server.http() as http:
            assert (await http.get(f"/api/conversations/{name}/events")).status_code == 200
    async with soon(), server.http() as http:
        while (await http.get(f"/api/conversations/{name}/events")).status_code != 404:
            pass


async def test_a_client_that_goes_before_the_whole_answer_ends_the_run(make_server: MakeServer) -> None:
    async with endpoint() as model:
        server = make_server(settings=model.settings() + "[compat]\ndisconnect_grace_s = 0.1\n")
        model.plays(Reply([HANG]))
        async with server.http() as http:
            with pytest.raises(httpx2.ReadTimeout):
                await http.post(PATH, json={"messages": [say("hi")]}, timeout=0.5)
        await wait_for(lambda: bool(model.requests) and model.last.gone.is_set())


async def test_the_same_request_under_the_same_key_is_answered_once(make_server: MakeServer) -> None:
    async with endpoint() as model:
        server = make_server(settings=model.settings())
        model.plays(text("one"), text("two"))
        headers = {"Idempotency-Key": fresh("key")}
        first = await chat(server, say("hi"), headers=headers)
        again = await chat(server, say("hi"), headers=headers)
        other = await chat(server, say("hello"), headers=headers)
        assert len(model.requests) == 1
    assert first.json() == again.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-hermes-run-id"] == first.headers["x-hermes-run-id"]
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "idempotency_key_conflict"


async def test_a_request_that_failed_may_be_made_again_under_its_key(server: Server) -> None:
    headers = {"Idempotency-Key": fresh("key")}
    assert (await chat(server, say("/fail model_auth"), headers=headers)).status_code == 502
    again = await chat(server, say("/fail model_auth"), headers=headers)
    assert "idempotency-replayed" not in again.headers
