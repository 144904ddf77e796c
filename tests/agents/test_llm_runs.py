"""Runs of an agent of the kind ``llm``, through the real server, with a model endpoint over real HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
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
from tests.agents.endpoint_server import endpoint as running_endpoint
from tests.conftest import MakeServer
from tests.wire import Json, Server, Socket, fresh, soon

KEY = "sk-canary-91b7c2d4e6f8"
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
STOP = chunk(finish="stop")


@pytest.fixture(scope="module")
def port() -> int:
    """Where the tests of this module have their endpoints, one after the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def endpoint(port: int) -> AsyncIterator[Endpoint]:
    async with running_endpoint(port) as running:
        yield running


def settings(port: int) -> str:
    place = Endpoint()
    place.url = f"http://127.0.0.1:{port}/v1"
    return place.settings(api_key="env:TEST_MODEL_KEY", instructions="You are terse.")


@pytest.fixture(scope="module")
def llm(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose default agent uses the endpoint, with a key from the environment."""
    data = tmp_path_factory.mktemp("llm")
    running = Server.start(data, settings=settings(port), environment={"TEST_MODEL_KEY": KEY})
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, f"the server died: {running.errors}"
    assert "Traceback" not in running.errors, running.errors
    assert KEY not in running.output + running.errors


@pytest.fixture
def own(port: int, make_server: MakeServer) -> Server:
    """Another one, for a test that ends it."""
    return make_server(settings=settings(port), environment={"TEST_MODEL_KEY": KEY})


async def ran(line: Socket, value: Any = "hello", **fields: Any) -> Json:
    """Start a run and follow it to its end."""
    started = await line.ok("run.start", input=value, **fields)
    return await line.until_final(started["run_id"])


async def test_an_answer_is_streamed_with_its_reasoning_and_its_cost(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(text("Hello ", "there.", reasoning="A greeting.", usage=USAGE))
    async with llm.socket() as line:
        final = await ran(line)
    assert (final["type"], final["output"], final["stop_reason"]) == ("run.completed", "Hello there.", "end")
    assert final["usage"] == {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
    assert line.of("reasoning.available")[0]["text"] == "A greeting."
    assert "".join(e["delta"] for e in line.of("message.delta")) == "Hello there."
    assert line.of("run.started")[0]["model"] == "test-model"
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
    async with llm.socket() as line:
        await line.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        final = await ran(line)
    assert final["output"] == "Done."
    assert [e["status"] for e in line.of("tool.completed")] == ["ok", "ok", "ok"]
    messages = endpoint.last.body["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool", "tool", "assistant", "tool"]
    assert "two" in messages[4]["content"]
    assert "one" in messages[6]["content"]
    assert len({m["tool_call_id"] for m in messages if m["role"] == "tool"}) == 3


async def test_a_call_that_cannot_be_read_fails_and_the_model_is_told_why(endpoint: Endpoint, llm: Server) -> None:
    broken = {"index": 0, "id": "x", "function": {"name": "terminal", "arguments": '{"command": "touch ran'}}
    endpoint.plays(streams(chunk({"tool_calls": [broken]}), chunk(finish="tool_calls")), text("I see."))
    async with llm.socket() as line:
        await line.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        final = await ran(line)
    assert final["output"] == "I see."
    (completed,) = line.of("tool.completed")
    assert completed["status"] == "error"
    assert not line.of("tool.executing")
    assert not line.of("interaction.requested")
    assert "not a JSON object" in endpoint.last.body["messages"][-1]["content"]


async def test_a_conversation_may_name_its_model(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(text("ok"))
    async with llm.socket() as line:
        await line.ok("conversation.configure", config={"model": "bigger-model"})
        await ran(line)
        assert line.of("run.started")[0]["model"] == "bigger-model"
        assert endpoint.last.body["model"] == "bigger-model"
    async with llm.socket() as line:
        await ran(line)
    assert endpoint.last.body["model"] == "test-model"


async def test_what_was_said_before_is_sent_with_the_next_run(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(text("first answer"), text("second answer"))
    async with llm.socket() as line:
        await ran(line, "first question")
        await ran(line, "second question")
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
    async with llm.socket() as line:
        await ran(line, [{"type": "text", "text": "what is it?"}, {"type": "image", "url": pixel}])
    assert endpoint.last.body["messages"][1]["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": pixel}},
    ]


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("mode", ["graceful", "now"])
async def test_a_stop_hangs_up_on_the_endpoint(endpoint: Endpoint, llm: Server, begun: bool, mode: str) -> None:
    endpoint.plays(streams(chunk({"content": "Once upon "}), HANG) if begun else Reply([], before_head=[HANG]))
    async with llm.socket() as line:
        await line.ok("run.start", input="a story")
        async with soon():
            await endpoint.arrived.wait()
        if begun:
            await line.until("message.delta")
        await line.ok("run.stop", mode=mode)
        assert (await line.until_final())["type"] == "run.cancelled"
        async with soon(5):
            await endpoint.last.gone.wait()


async def test_a_deadline_hangs_up_on_the_endpoint(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(streams(chunk({"content": "Once"}), HANG))
    async with llm.socket() as line:
        assert (await ran(line, deadline_ms=300))["error"]["code"] == "deadline_exceeded"
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
    async with llm.socket(conversation) as line:
        final = await ran(line)
    assert final["type"] == "run.failed"
    assert (final["error"]["code"], final["error"]["retryable"]) == (code, retryable)
    assert endpoint.url in final["error"]["message"]
    assert len(endpoint.requests) == tries
    assert KEY not in str(await llm.log(conversation))


async def test_a_failure_that_passes_is_not_noticed(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(fails(503, b"busy"), Reply([], before_head=[CUT]), text("Here."))
    async with llm.socket() as line:
        final = await ran(line)
    assert final["output"] == "Here."
    assert len(endpoint.requests) == 3
    assert not line.of("item.discarded")


async def test_an_answer_that_broke_off_is_discarded_and_a_retry_asks_again(endpoint: Endpoint, llm: Server) -> None:
    endpoint.plays(streams(chunk({"content": "Once"}), CUT), text("Twice."))
    async with llm.socket() as line:
        failed = await ran(line)
        assert [e["reason"] for e in line.of("item.discarded")] == ["failed"]
        again = await line.ok("run.retry", run_id=failed["run_id"])
        assert (await line.until_final(again["run_id"]))["output"] == "Twice."
    assert [m["role"] for m in endpoint.last.body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(("reason", "expected"), [("length", "length"), ("content_filter", "refused")])
async def test_why_an_answer_ended_is_why_the_run_did(
    endpoint: Endpoint, llm: Server, reason: str, expected: str
) -> None:
    endpoint.plays(streams(chunk({"content": "Well"}), chunk(finish=reason)))
    async with llm.socket() as line:
        assert (await ran(line))["stop_reason"] == expected


async def test_a_run_goes_on_after_a_crash_with_the_same_question(
    endpoint: Endpoint, own: Server, port: int, make_server: MakeServer
) -> None:
    endpoint.plays(streams(chunk({"content": "Half a "}), HANG), text("A whole answer."))
    conversation = fresh()
    async with own.socket(conversation) as line:
        started = await line.ok("run.start", input="hello")
        await line.until("message.delta")
    own.kill()
    revived = make_server(data=own.data, settings=settings(port), environment={"TEST_MODEL_KEY": KEY})
    async with revived.socket(conversation, after=0) as line:
        assert (await line.until_final(started["run_id"]))["output"] == "A whole answer."
    assert endpoint.requests[0].body["messages"][-1] == endpoint.requests[1].body["messages"][-1]


async def test_twenty_conversations_at_once_share_the_pool_and_nothing_else(endpoint: Endpoint, llm: Server) -> None:
    def quoting(request: Any) -> Reply:
        return text(f"You said {request.body['messages'][-1]['content']}.")

    endpoint.plays(quoting)

    async def one(n: int) -> None:
        async with llm.socket() as line:
            for turn in range(3):
                assert (await ran(line, f"{n}/{turn}"))["output"] == f"You said {n}/{turn}."

    async with soon(30):
        await asyncio.gather(*map(one, range(20)))
    assert endpoint.connections <= 20


async def test_a_server_does_not_start_without_the_key_it_is_told_of(port: int, make_server: MakeServer) -> None:
    with pytest.raises(RuntimeError, match=r"api_key .*TEST_MODEL_KEY, which is not set"):
        make_server(settings=settings(port))


async def test_a_server_that_goes_down_hangs_up_on_the_endpoint(endpoint: Endpoint, own: Server) -> None:
    endpoint.plays(streams(chunk({"content": "Once"}), STOP))
    async with own.socket() as line:
        await ran(line)
    own.terminate()
    assert await own.exited() == 0
    assert "Traceback" not in own.errors, own.errors
