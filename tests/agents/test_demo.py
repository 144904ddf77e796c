"""The demo model: a script's steps, and the loop around it, as its users see them."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.agents.llm.demo import DemoModel, Line, parse
from hermes_ws.agents.llm.loop import LlmAgent, LlmSettings
from hermes_ws.errors import ModelError
from hermes_ws.protocol.commands import ConversationConfigure, InteractionReply, RunStart, RunSteer
from hermes_ws.runtime.runtime import Runtime
from tests.runtime.conftest import REF, Collector, follow, send, until
from tests.runtime.conftest import runtime as runtime
from tests.runtime.conftest import store as store

TERMINAL = {"run.completed", "run.failed", "run.cancelled"}


def test_plain_text_is_no_script() -> None:
    assert parse("hello\nthere") is None
    assert parse("") is None
    assert parse("and/or") is None


def test_a_script_is_one_step_a_line() -> None:
    assert parse("/say a b\nplain\n\n /think c ") == [
        [Line("say", "a b")],
        [Line("say", "plain")],
        [Line("think", "c")],
    ]


def test_par_joins_calls_and_nothing_else() -> None:
    assert parse("/run a\n/par\n/ask b\n/par\n/tool c {}") == [
        [Line("run", "a"), Line("ask", "b"), Line("tool", "c {}")]
    ]
    assert parse("/say a\n/par\n/run b") == [[Line("say", "a")], [Line("run", "b")]]
    assert parse("/par\n/run b\n/par") == [[Line("run", "b")]]


async def played(runtime: Runtime, script: str, **more: Any) -> Collector:
    """Run a script with nobody asked, to its end."""
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, ConversationConfigure(config={"approvals": {"mode": "auto"}}))
    await send(runtime, conversation, RunStart(input=script, **more))
    await until(lambda: bool(TERMINAL & set(sink.types)))
    return sink


async def test_plain_text_is_quoted_in_a_streamed_reply(runtime: Runtime) -> None:
    sink = await played(runtime, "hello over there")
    assert "hello over there" in sink.events[-1]["output"]
    assert sink.types.count("message.delta") > 1


async def test_every_line_is_a_step_and_a_failed_one_does_not_end_the_script(runtime: Runtime) -> None:
    sink = await played(runtime, '/think hm\n/run exit 3\n/tool nosuch {}\n/tool terminal {"x":1}\n/say end')
    assert [e["status"] for e in sink.events if e["type"] == "tool.completed"] == ["error", "error", "error"]
    assert sink.types.count("step.completed") == 5
    assert sink.events[-1]["output"] == "end"


async def test_a_script_that_ends_with_a_call_ends_with_an_empty_step(runtime: Runtime) -> None:
    sink = await played(runtime, "/run true")
    assert sink.types.count("step.completed") == 2
    assert sink.events[-1]["output"] == ""


async def test_a_stream_is_so_many_deltas(runtime: Runtime) -> None:
    sink = await played(runtime, "/stream 50 1")
    assert sink.events[-1]["output"] == "".join(f"{n} " for n in range(50))
    joined = "".join(e["delta"] for e in sink.events if e["type"] == "message.delta")
    assert joined == sink.events[-1]["output"]


async def test_calls_of_one_step_run_side_by_side(runtime: Runtime) -> None:
    sink = await played(runtime, "/run until [ -e b ]; do sleep 0.01; done\n/par\n/run touch b")
    assert sink.types.count("step.completed") == 2
    assert [e["status"] for e in sink.events if e["type"] == "tool.completed"] == ["ok", "ok"]


async def test_a_failure_has_its_code(runtime: Runtime) -> None:
    sink = await played(runtime, "/say a\n/fail model_auth")
    assert sink.events[-1]["error"]["code"] == "model_auth"
    assert sink.events[-1]["error"]["retryable"] is False


async def test_an_unknown_code_is_told_with_those_that_are_known(runtime: Runtime) -> None:
    sink = await played(runtime, "/fail nonsense")
    assert sink.events[-1]["error"]["code"] == "model_bad_response"
    assert "model_overloaded" in sink.events[-1]["error"]["message"]


async def test_what_may_help_is_tried_again_and_what_was_said_is_discarded(runtime: Runtime) -> None:
    sink = await played(runtime, "/fail model_overloaded 1\n/say on")
    assert [e["reason"] for e in sink.events if e["type"] == "item.discarded"] == ["retried"]
    assert sink.events[-1]["type"] == "run.completed"


async def test_nonsense_is_answered_with_what_is_known(runtime: Runtime) -> None:
    sink = await played(runtime, "/dance\n/tool x {not json}\n/stream x y\n/sleep z")
    said = [e["text"] for e in sink.events if e["type"] == "message.completed"]
    assert "I do not know /dance" in said[0]
    assert "cannot make a call" in said[1]
    assert sink.events[-1]["type"] == "run.completed"


async def test_the_script_calls_what_policy_does_not_offer_and_goes_on(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    await send(runtime, conversation, ConversationConfigure(config={"tools": {"allow": []}}))
    sink = await played(runtime, "/run true\n/say still here")
    assert next(e["status"] for e in sink.events if e["type"] == "tool.completed") == "denied"
    assert sink.events[-1]["output"] == "still here"


async def test_steered_text_is_answered_in_a_step_of_its_own_and_not_read_as_a_script(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/ask go?\n/say end"))
    await until(lambda: "interaction.requested" in sink.types)
    await send(runtime, conversation, RunSteer(text="/say hijacked"))
    asked = next(e for e in sink.events if e["type"] == "interaction.requested")
    await send(
        runtime, conversation, InteractionReply(interaction_id=asked["interaction_id"], answers={"answer": "yes"})
    )
    await until(lambda: "run.completed" in sink.types)
    said = [e["text"] for e in sink.events if e["type"] == "message.completed"]
    assert said == ["You steered me: “/say hijacked”.", "end"]
    assert [e["disposition"] for e in sink.events if e["type"] == "run.steered"] == ["pending", "applied"]


async def test_a_run_stops_at_its_most_steps(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    await send(runtime, conversation, ConversationConfigure(config={"limits": {"max_steps": 2}}))
    sink = await played(runtime, "/say a\n/say b\n/say c")
    assert (sink.events[-1]["output"], sink.events[-1]["stop_reason"]) == ("b", "max_steps")


@pytest.mark.parametrize(("attempt", "expected"), [(1, 0.5), (2, 1.0), (3, 2.0), (20, 30.0)])
def test_retries_back_off_up_to_a_limit(attempt: int, expected: float) -> None:
    agent = LlmAgent(DemoModel(), LlmSettings())
    waits = [agent._delay_s(ModelError("model_overloaded", ""), attempt) for _ in range(50)]
    assert expected <= min(waits) < max(waits) <= expected * 1.25
    assert agent._delay_s(ModelError("model_overloaded", "", retry_after_s=7.0), 1) >= 7.0


def test_an_endpoint_that_wants_more_patience_than_there_is_is_not_asked_again() -> None:
    agent = LlmAgent(DemoModel(), LlmSettings(retry_delay_max_s=10.0))
    assert agent._may_help(ModelError("model_overloaded", "", retry_after_s=10.0), 1)
    assert not agent._may_help(ModelError("model_overloaded", "", retry_after_s=10.1), 1)
    assert not agent._may_help(ModelError("model_overloaded", ""), 3)
    assert not agent._may_help(ModelError("model_auth", ""), 1)
