"""What Open WebUI sends, as recorded from its 0.12: chats with its own tools, tasks such as titles, both kinds of
connection. It cannot be installed beside us; these are its requests, and its ways to read what comes."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.acceptance.people import MODEL, quoted
from tests.wire import Json, Server, fresh

TOOLS: Final[list[Json]] = [
    {
        "type": "function",
        "function": {
            "name": "get_current_timestamp",
            "description": "Get the current Unix timestamp in seconds.",
            "parameters": {"properties": {}, "type": "object"},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "calculate_timestamp",
            "description": "Get the current Unix timestamp, optionally adjusted by days or weeks.",
            "parameters": {
                "properties": {
                    "days_ago": {"default": 0, "description": "Number of days to subtract", "type": "integer"},
                    "weeks_ago": {"default": 0, "description": "Number of weeks to subtract", "type": "integer"},
                },
                "type": "object",
            },
        },
    },
]
FLAT_TOOLS: Final = [{"type": "function", **tool["function"], "strict": False} for tool in TOOLS]
RESULT: Final = '{"current_timestamp": 1795392140}'
TITLE: Final = "### Task:\nGenerate a concise title summarizing the chat history.\n### Output:\nJSON format\n"
TRACES: Final = {"parent_message": {"id": "643a0346", "parentId": None, "role": "user", "content": "hi"}}
"""A field of its own that it forgets to take out."""


async def streamed(server: Server, path: str, body: Json, **headers: str) -> list[Json]:
    """The data of a stream's events, read line by line as Open WebUI does: names of events are not looked at."""
    async with server.http(headers=headers) as http, http.stream("POST", path, json={"stream": True, **body}) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def text_of(chunks: list[Json]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def calls_of(chunks: list[Json]) -> list[Json]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls: list[Json] = [call for delta in deltas for call in delta.get("tool_calls") or []]
    return [{key: call[key] for key in ("id", "type", "function")} for call in calls]


async def test_a_chat_goes_on_with_its_whole_history(server: Server) -> None:
    messages: list[Json] = []
    for text in ("Hello there", "/think Hm.\n/tool list_files {}\n/say There.", "And Rome?"):
        messages.append({"role": "user", "content": text})
        body = {"model": MODEL, "messages": messages, **TRACES}
        messages.append({"role": "assistant", "content": text_of(await streamed(server, "/v1/chat/completions", body))})
    assert [m["content"] for m in messages[1::2]] == [quoted("Hello there"), "There.", quoted("And Rome?")]


async def test_its_own_tools_are_called_and_the_next_turn_has_them_in_its_history(server: Server) -> None:
    for headers in ({}, {"X-Hermes-Conversation-Id": f"owui-{fresh()}-"}):
        messages: list[Json] = [{"role": "user", "content": "What is the timestamp now?"}]
        body: Json = {"model": MODEL, "messages": messages, "tools": TOOLS, **TRACES}
        calls = calls_of(await streamed(server, "/v1/chat/completions", body, **headers))
        assert {call["function"]["name"] for call in calls} == {"get_current_timestamp", "calculate_timestamp"}
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": RESULT} for call in calls]
        answer = text_of(await streamed(server, "/v1/chat/completions", body, **headers))
        assert "1795392140" in answer
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Thanks, bye"}]
        assert text_of(await streamed(server, "/v1/chat/completions", body, **headers)) == quoted("Thanks, bye")


async def test_a_title_is_made_beside_the_chat_and_leaves_nothing_behind(server: Server) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": TITLE}], "stream": False, "max_tokens": 1000}
    async with server.http() as http:
        answer = await http.post("/v1/chat/completions", json=body)
        assert "Generate a concise title" in answer.json()["choices"][0]["message"]["content"]
        kept = await http.get(f"/api/conversations/{answer.headers['x-hermes-conversation-id']}/events")
    assert kept.status_code == 404


async def test_a_failure_has_an_envelope_that_it_shows(server: Server) -> None:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "/fail context_length"}]}
    async with server.http() as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "context_length" in answer.json()["error"]["message"]
    late = {"model": MODEL, "messages": [{"role": "user", "content": "/say So far.\n/fail context_length"}]}
    *chunks, error = await streamed(server, "/v1/chat/completions", late)
    assert text_of(chunks) == "So far."
    assert "context_length" in error["error"]["message"]


async def test_a_connection_of_type_responses_brings_its_items_back(server: Server) -> None:
    history: list[Json] = [said("What is the timestamp now?")]
    body: Json = {"model": MODEL, "input": history, "tools": FLAT_TOOLS, **TRACES}
    calls = [item for item in await items(server, body) if item["type"] == "function_call"]
    assert {call["name"] for call in calls} == {"get_current_timestamp", "calculate_timestamp"}
    history += [{key: call[key] for key in ("type", "call_id", "name", "arguments")} for call in calls]
    history += [{"type": "function_call_output", "call_id": call["call_id"], "output": RESULT} for call in calls]
    [message] = await items(server, body)
    assert "1795392140" in message["content"][0]["text"]
    history += [answered(message["content"][0]["text"]), said("Thanks, bye")]
    [message] = await items(server, body)
    assert message["content"][0]["text"] == quoted("Thanks, bye")


async def test_what_the_agents_own_tools_said_comes_in_the_form_in_which_it_reads_it_again(server: Server) -> None:
    body = {"model": MODEL, "input": [said("/tool list_files {}\n/say There.")]}
    [output] = [item for item in await items(server, body) if item["type"] == "function_call_output"]
    assert [part["type"] for part in output["output"]] == ["input_text"]


async def items(server: Server, body: Json) -> list[Json]:
    """The items of a streamed response, as it keeps them."""
    events = await streamed(server, "/v1/responses", body)
    assert events[-1]["type"] == "response.completed"
    done: list[Any] = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    return done


def said(text: str) -> Json:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def answered(text: str) -> Json:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
