"""Runs of an agent of the kind ``llm``, through the real server, with a model endpoint over real HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.agents.endpoint_server import (
    CUT,
    HANG,
    Endpoint,
    Reply,
    calls,
    chunk,
    data,
    fails,
    streams,
    text,
)
from tests.conftest import MakeServer
from tests.wire import Json, Server, Socket, fresh, soon

KEY = "sk-canary-91b7c2d4e6f8"
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
STOP = chunk(finish="stop")


@pytest.fixture
def llm(endpoint: Endpoint, make_server: MakeServer) -> Server:
    """A server whose default agent uses the endpoint, with a key from the environment."""
    settings = endpoint.settings(api_key="env:TEST_MODEL_KEY", instructions="You are terse.", first_byte_timeout_s=5.0)
    return make_server(settings=settings, environment={"TEST_MODEL_KEY": KEY})


async def ran(socket: Socket, value: Any = "hello", **fields: Any) -> Json:
    """Start a run and follow it to its end."""
    started = await socket.ok("run.start", input=value, **fields)
    return await socket.until_final(started["run_id"])


async def test_an_answer_is_streamed_with_its_reasoning_and_its_cost(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(text("Hello ", "there.", reasoning="A greeting.", usage=USAGE))
    async with llm.socket() as socket:
        final = await ran(socket)
    assert (final["type"], final["output"], final["stop_reason"]) == ("run.completed", "Hello there.", "end")
    assert final["usage"] == {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
    assert socket.of("reasoning.available")[0]["text"] == "A greeting."
    assert "".join(e["delta"] for e in socket.of("message.delta")) == "Hello there."
    assert socket.of("run.started")[0]["model"] == "test-model"
    assert endpoint.last.headers["authorization"] == f"Bearer {KEY}"
    assert endpoint.last.body["messages"] == [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "hello"},
    ]
    assert "terminal" in [offered["function"]["name"] for offered in endpoint.last.body["tools"]]


async def test_parallel_calls_are_made_and_their_answers_sent_back(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(
        calls(("write_file", {"path": "a.txt", "content": "one"}), ("terminal", {"command": "echo two"})),
        calls(("read_file", {"path": "a.txt"})),
        text("Done."),
    )
    async with llm.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        final = await ran(socket)
    assert final["output"] == "Done."
    assert [e["status"] for e in socket.of("tool.completed")] == ["ok", "ok", "ok"]
    messages = endpoint.last.body["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool", "tool", "assistant", "tool"]
    assert "two" in messages[4]["content"]
    assert "one" in messages[6]["content"]
    assert len({m["tool_call_id"] for m in messages if m["role"] == "tool"}) == 3


async def test_a_call_that_cannot_be_read_fails_and_the_model_is_told_why(endpoint: Endpoint, llm: Server) -> None:
    broken = {"index": 0, "id": "x", "function": {"name": "terminal", "arguments": '{"command": "touch ran'}}
    endpoint.plays(streams(chunk({"tool_calls": [broken]}), chunk(finish="tool_calls")), text("I see."))
    async with llm.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        final = await ran(socket)
    assert final["output"] == "I see."
    (completed,) = socket.of("tool.completed")
    assert completed["status"] == "error"
    assert not socket.of("tool.executing")
    assert not socket.of("interaction.requested")
    assert "not a JSON object" in endpoint.last.body["messages"][-1]["content"]


async def test_a_conversation_may_name_its_model(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(text("ok"))
    async with llm.socket() as socket:
        await socket.ok("conversation.configure", config={"model": "bigger-model"})
        await ran(socket)
        assert socket.of("run.started")[0]["model"] == "bigger-model"
        assert endpoint.last.body["model"] == "bigger-model"
    async with llm.socket() as socket:
        await ran(socket)
    assert endpoint.last.body["model"] == "test-model"


async def test_what_was_said_before_is_sent_with_the_next_run(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(text("first answer"), text("second answer"))
    async with llm.socket() as socket:
        await ran(socket, "first question")
        await ran(socket, "second question")
    assert [m["content"] for m in endpoint.last.body["messages"][1:]] == [
        "first question",
        "first answer",
        "second question",
    ]


async def test_an_image_reaches_the_model(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(text("A dot."))
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5"
        "ErkJggg=="
    )
    async with llm.socket() as socket:
        await ran(socket, [{"type": "text", "text": "what is it?"}, {"type": "image", "url": pixel}])
    assert endpoint.last.body["messages"][1]["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": pixel}},
    ]


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("mode", ["graceful", "now"])
async def test_a_stop_hangs_up_on_the_endpoint(endpoint: Endpoint, llm: Server, begun: bool, mode: str) -> None:
    endpoint.plays(streams(chunk({"content": "Once upon "}), HANG) if begun else Reply([], before_head=[HANG]))
    async with llm.socket() as socket:
        await socket.ok("run.start", input="a story")
        async with soon():
            await endpoint.arrived.wait()
        if begun:
            await socket.until("message.delta")
        await socket.ok("run.stop", mode=mode)
        assert (await socket.until_final())["type"] == "run.cancelled"
        async with soon(5):
            await endpoint.last.gone.wait()


async def test_a_deadline_hangs_up_on_the_endpoint(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(streams(chunk({"content": "Once"}), HANG))
    async with llm.socket() as socket:
        assert (await ran(socket, deadline_ms=300))["error"]["code"] == "deadline_exceeded"
        async with soon(5):
            await endpoint.last.gone.wait()


@pytest.mark.parametrize(
    ("reply", "code", "retryable", "tries"),
    [
        (fails(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), "model_auth", False, 1),
        (fails(429, {"error": {"message": "slow down"}}), "model_rate_limited", True, 3),
        (fails(429, {"error": {"message": "no", "code": "insufficient_quota"}}), "model_rate_limited", False, 1),
        (fails(503, {"error": {"message": "Loading model"}}), "model_overloaded", True, 3),
        (fails(400, {"error": {"code": "context_length_exceeded"}}), "context_length", False, 1),
        (Reply([], before_head=[CUT]), "model_unreachable", True, 3),
        (streams(data({"error": {"message": f"it broke {KEY}"}})), "model_bad_response", True, 3),
        (streams(chunk({"content": "Once"}), CUT), "model_unreachable", True, 1),
        (fails(503, b"later", Retry_After="3600"), "model_overloaded", True, 1),
    ],
    ids=[
        "auth",
        "limited",
        "quota",
        "loading",
        "too long",
        "unreachable",
        "error in the stream",
        "broken off",
        "long wait",
    ],
)
async def test_a_failure_has_its_code_and_is_tried_again_where_that_may_help(
    endpoint: Endpoint, llm: Server, reply: Reply, code: str, retryable: bool, tries: int
) -> None:
    endpoint.plays(reply)
    conversation = fresh()
    async with llm.socket(conversation) as socket:
        final = await ran(socket)
    assert final["type"] == "run.failed"
    assert (final["error"]["code"], final["error"]["retryable"]) == (code, retryable)
    assert endpoint.url in final["error"]["message"]
    assert len(endpoint.requests) == tries
    assert KEY not in str(await llm.log(conversation))
    assert KEY not in llm.output + llm.errors


async def test_a_failure_that_passes_is_not_noticed(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(fails(503, b"busy"), Reply([], before_head=[CUT]), text("Here."))
    async with llm.socket() as socket:
        final = await ran(socket)
    assert final["output"] == "Here."
    assert len(endpoint.requests) == 3
    assert not socket.of("item.discarded")


async def test_an_answer_that_broke_off_is_discarded_and_a_retry_asks_again(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(streams(chunk({"content": "Once"}), CUT), text("Twice."))
    async with llm.socket() as socket:
        failed = await ran(socket)
        assert [e["reason"] for e in socket.of("item.discarded")] == ["failed"]
        again = await socket.ok("run.retry", run_id=failed["run_id"])
        assert (await socket.until_final(again["run_id"]))["output"] == "Twice."
    assert [m["role"] for m in endpoint.last.body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(("reason", "expected"), [("length", "length"), ("content_filter", "refused")])
async def test_why_an_answer_ended_is_why_the_run_did(
    endpoint: Endpoint, llm: Server, reason: str, expected: str
) -> None:
    endpoint.plays(streams(chunk({"content": "Well"}), chunk(finish=reason)))
    async with llm.socket() as socket:
        assert (await ran(socket))["stop_reason"] == expected


async def test_a_run_goes_on_after_a_crash_with_the_same_question(
    endpoint: Endpoint, llm: Server, make_server: MakeServer
) -> None:
    endpoint.plays(streams(chunk({"content": "Half a "}), HANG), text("A whole answer."))
    conversation = fresh()
    async with llm.socket(conversation) as socket:
        started = await socket.ok("run.start", input="hello")
        await socket.until("message.delta")
    llm.kill()
    environment = {"TEST_MODEL_KEY": KEY}
    revived = make_server(
        data=llm.data, settings=endpoint.settings(api_key="env:TEST_MODEL_KEY"), environment=environment
    )
    async with revived.socket(conversation, after=0) as socket:
        assert (await socket.until_final(started["run_id"]))["output"] == "A whole answer."
    assert endpoint.requests[0].body["messages"][-1] == endpoint.requests[1].body["messages"][-1]


async def test_twenty_conversations_at_once_share_the_pool_and_nothing_else(endpoint: Endpoint, llm: Server) -> None:
    def quoting(request: Any) -> Reply:
        return text(f"You said {request.body['messages'][-1]['content']}.")

    endpoint.plays(quoting)

    async def one(n: int) -> None:
        async with llm.socket() as socket:
            for turn in range(3):
                assert (await ran(socket, f"{n}/{turn}"))["output"] == f"You said {n}/{turn}."

    async with soon(30):
        await asyncio.gather(*map(one, range(20)))
    assert endpoint.connections <= 20


async def test_a_server_does_not_start_without_the_key_it_is_told_of(
    endpoint: Endpoint, make_server: MakeServer
) -> None:
    with pytest.raises(RuntimeError, match=r"api_key .*TEST_MODEL_KEY, which is not set"):
        make_server(settings=endpoint.settings(api_key="env:TEST_MODEL_KEY"))


async def test_stopping_the_server_hangs_up_on_the_endpoint(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(streams(chunk({"content": "Once"}), STOP))
    async with llm.socket() as socket:
        await ran(socket)
    llm.terminate()
    assert await llm.exited() == 0
    assert "Traceback" not in llm.errors, llm.errors
