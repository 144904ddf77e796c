"""Runs as chat completions: events in, chunks and completions out."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from hermes_ws.compat.chat import ChatProjection, Frame
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import (
    Annotations,
    AnswerableBy,
    By,
    ErrorInfo,
    InteractionTool,
    OnExpire,
    TextPart,
    Usage,
)

Json = dict[str, Any]

RUN = "run_1"
ME = By(principal="owner")
PLAIN = Annotations(read_only=True, idempotent=True, destructive=False)


class Log:
    """Makes events of one run, numbered."""

    def __init__(self) -> None:
        self.seq = 0

    def __call__(self, event_class: type[ev.Event], /, **fields: Any) -> ev.Event:
        self.seq += 1
        event: ev.Event = event_class(seq=self.seq, ts=1, **({"run_id": RUN} | fields))
        return event

    def begun(self) -> list[ev.Event]:
        return [
            self(ev.RunStarted, input="hi", agent_name="demo", model="demo", attempt=1, by=ME),
            self(ev.StepStarted, step=1),
        ]

    def said(self, item: str, *deltas: str, step: int = 1) -> list[ev.Event]:
        text = "".join(deltas)
        return [
            self(ev.MessageStarted, item_id=item, step=step),
            *(self(ev.MessageDelta, item_id=item, delta=delta) for delta in deltas),
            self(ev.MessageCompleted, item_id=item, text=text, content=[TextPart(text=text)]),
        ]

    def thought(self, item: str, *deltas: str) -> list[ev.Event]:
        return [
            *(self(ev.ReasoningDelta, item_id=item, delta=delta) for delta in deltas),
            self(ev.ReasoningAvailable, item_id=item, text="".join(deltas)),
        ]

    def called(self, call: str, name: str = "terminal", source: str = "builtin", **arguments: Any) -> ev.Event:
        return self(
            ev.ToolStarted,
            call_id=call,
            step=1,
            name=name,
            source=source,
            title=name.title(),
            arguments=arguments,
            annotations=PLAIN,
        )

    def came_to(self, call: str, name: str = "terminal", status: str = "ok") -> ev.Event:
        return self(
            ev.ToolCompleted, call_id=call, name=name, status=status, output="x", truncated=False, duration_ms=1
        )

    def asked(self, interaction: str, kind: str, call: str | None, **arguments: Any) -> ev.Event:
        tool = None
        if call is not None:
            tool = InteractionTool(call_id=call, name=f"f_{call}", source="client", arguments=arguments, risk="low")
        return self(
            ev.InteractionRequested,
            interaction_id=interaction,
            kind=kind,
            call_id=call,
            title="?",
            message="?",
            tool=tool,
            editable=False,
            requested_at=1,
            expires_at=2,
            on_expire=OnExpire(cancel=True),
            answerable_by=AnswerableBy(roles=["driver"]),
        )

    def resolved(self, interaction: str) -> ev.Event:
        return self(ev.InteractionResolved, interaction_id=interaction, outcome="answered", by=ME, via="http")

    def step_done(self, step: int = 1, **usage: Any) -> ev.Event:
        counted = Usage(**({"input_tokens": 10, "output_tokens": 5, "total_tokens": 15} | usage))
        return self(ev.StepCompleted, step=step, usage=counted, duration_ms=1)

    def ended(self, stop_reason: str = "end") -> ev.Event:
        return self(ev.RunCompleted, output="", stop_reason=stop_reason, usage=Usage.zero(), duration_ms=1)


def projection(**options: Any) -> ChatProjection:
    return ChatProjection("chatcmpl-1", 1_700_000_000, "demo", RUN, **options)


def fed(events: list[ev.Event], **options: Any) -> tuple[ChatProjection, list[Json]]:
    """The projection after these events, and the data of what it streamed; the end is ``{"done": true}``."""
    made = projection(**options)
    frames = [frame for event in events for frame in made.feed(event)]
    return made, [parsed(frame) for frame in frames]


def parsed(frame: Frame) -> Json:
    """A frame as a client reads it, with its event's name."""
    fields = dict(line.split(": ", 1) for line in frame.encode().decode().removesuffix("\n\n").split("\n"))
    if fields["data"] == "[DONE]":
        return {"done": True}
    data: Json = json.loads(fields["data"])
    return {"event": fields["event"], **data} if "event" in fields else data


def content(chunks: list[Json], field: str = "content") -> str:
    return "".join(choice["delta"].get(field, "") for chunk in chunks for choice in chunk.get("choices", []))


def finish(chunks: list[Json]) -> list[str]:
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"] is not None]


# -- text ------------------------------------------------------------------------------------------------


def test_an_answer_is_a_role_then_its_pieces_then_why_it_ended() -> None:
    log = Log()
    made, chunks = fed([*log.begun(), *log.said("m1", "Hel", "lo"), log.step_done(), log.ended()])
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "demo"}
    deltas: list[tuple[Json, str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hel"}, None),
        ({"content": "lo"}, None),
        ({}, "stop"),
    ]
    expected: list[Json] = [
        {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    assert chunks == [*expected, {"done": True}]
    assert made.done
    assert made.failure is None


def test_a_whole_answer() -> None:
    log = Log()
    usage = {"cached_input_tokens": 4, "reasoning_tokens": 2}
    made, _ = fed([*log.begun(), *log.said("m1", "Hel", "lo"), log.step_done(**usage), log.ended()])
    assert json.loads(json.dumps(to_json(made))) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "demo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }


def to_json(made: ChatProjection) -> Json:
    value: Json = msgspec.to_builtins(made.completion)
    return value


def test_messages_of_several_steps_are_one_with_blank_lines_between() -> None:
    log = Log()
    made, chunks = fed(
        [
            *log.begun(),
            *log.said("m1", "Let me ", "look."),
            log.called("c1"),
            log.came_to("c1"),
            log.step_done(),
            log(ev.StepStarted, step=2),
            *log.said("m2", "", "All", " fine.", step=2),
            log.step_done(2),
            log.ended(),
        ]
    )
    assert content(chunks) == "Let me look.\n\nAll fine."
    assert to_json(made)["choices"][0]["message"]["content"] == "Let me look.\n\nAll fine."
    assert made.completion.usage.total_tokens == 30


def test_what_no_piece_had_follows_from_the_final() -> None:
    log = Log()
    _, chunks = fed(
        [
            *log.begun(),
            log(ev.MessageStarted, item_id="m1", step=1),
            log(ev.MessageDelta, item_id="m1", delta="Hel"),
            log(ev.MessageCompleted, item_id="m1", text="Hello", content=[]),
            log(ev.ReasoningAvailable, item_id="r1", text="Hm."),
        ]
    )
    assert content(chunks) == "Hello"
    assert content(chunks, "reasoning_content") == "Hm."


def test_reasoning_is_apart_from_what_is_said() -> None:
    log = Log()
    made, chunks = fed(
        [
            *log.begun(),
            *log.thought("r1", "They ", "greet."),
            *log.thought("r2", "So."),
            *log.said("m1", "Hi"),
            log.ended(),
        ]
    )
    assert content(chunks, "reasoning_content") == "They greet.\n\nSo."
    assert content(chunks) == "Hi"
    message = to_json(made)["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("They greet.\n\nSo.", "Hi")


def test_an_attempt_that_does_not_count_is_followed_by_the_next_and_is_not_in_the_whole() -> None:
    log = Log()
    made, chunks = fed(
        [
            *log.begun(),
            log(ev.MessageStarted, item_id="m1", step=1),
            log(ev.MessageDelta, item_id="m1", delta="Half of"),
            log(ev.ItemDiscarded, item_id="m1", reason="retried"),
            *log.said("m2", "The whole."),
            log.ended(),
        ]
    )
    assert content(chunks) == "Half of\n\nThe whole."
    assert to_json(made)["choices"][0]["message"]["content"] == "The whole."


def test_a_message_that_had_ended_may_be_discarded_too() -> None:
    log = Log()
    ended = [*log.begun(), *log.thought("r1", "Hm."), *log.said("m1", "Half")]
    gone = [log(ev.ItemDiscarded, item_id=one, reason="retried") for one in ("r1", "m1")]
    made, _ = fed([*ended, *gone, log.ended()])
    message = to_json(made)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "", "refusal": None}


def test_events_of_other_runs_are_passed_over() -> None:
    log = Log()
    others = [
        log(ev.MessageDelta, run_id="run_0", item_id="m0", delta="no"),
        log(ev.RunCompleted, run_id="run_0", output="", stop_reason="end", usage=Usage.zero(), duration_ms=1),
    ]
    made, chunks = fed([*others, *log.begun()])
    assert chunks == []
    assert not made.done


# -- endings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop_reason", "reason"),
    [("end", "stop"), ("length", "length"), ("max_steps", "length"), ("refused", "content_filter")],
)
def test_why_a_run_ended_in_the_words_of_the_protocol(stop_reason: str, reason: str) -> None:
    log = Log()
    made, chunks = fed([*log.begun(), log.ended(stop_reason)])
    assert finish(chunks) == [reason]
    assert made.completion.choices[0].finish_reason == reason


def test_a_bound_on_steps_is_told_beside() -> None:
    log = Log()
    made, chunks = fed([*log.begun(), log.ended("max_steps")])
    note = {"status": "completed", "stop_reason": "max_steps"}
    assert to_json(made)["hermes"] == note
    assert [chunk["hermes"] for chunk in chunks if "hermes" in chunk] == [note]


def test_a_stopped_run_ends_with_what_it_had_said() -> None:
    log = Log()
    half = [log(ev.MessageStarted, item_id="m1", step=1), log(ev.MessageDelta, item_id="m1", delta="Half")]
    whole = log(ev.MessageCompleted, item_id="m1", text="Half", content=[], partial=True)
    stopped = log(ev.RunCancelled, reason="stop", by=ME, usage=Usage.zero())
    made, chunks = fed([*log.begun(), *half, whole, stopped])
    assert content(chunks) == "Half"
    assert finish(chunks) == ["stop"]
    completion = to_json(made)
    assert completion["choices"][0]["message"]["content"] == "Half"
    assert completion["hermes"] == {"status": "cancelled", "stop_reason": "stop"}


def test_a_failure_is_an_error_with_a_status_and_ends_the_stream() -> None:
    log = Log()
    info = ErrorInfo(code="model_rate_limited", message="slow down", retryable=True)
    failed = log(ev.RunFailed, error=info, usage=Usage.zero())
    made, chunks = fed([*log.begun(), *log.said("m1", "Half"), failed])
    assert made.done
    assert made.failure is not None
    assert made.failure.status == 429
    assert chunks[-2] == {
        "error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    }
    assert chunks[-1] == {"done": True}
    assert finish(chunks) == []


def test_nothing_follows_an_end() -> None:
    log = Log()
    made, _ = fed([*log.begun(), log.ended()])
    assert made.feed(log(ev.MessageDelta, item_id="m1", delta="more")) == []


# -- usage -----------------------------------------------------------------------------------------------


def test_usage_is_a_chunk_of_its_own_and_null_before() -> None:
    log = Log()
    events = [*log.begun(), *log.said("m1", "Hi"), log.called("c1"), log.came_to("c1"), log.step_done(), log.ended()]
    _, chunks = fed(events, include_usage=True)
    *before, last, done = chunks
    assert done == {"done": True}
    assert len(before) > 3
    assert all(chunk["usage"] is None for chunk in before)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 15


def test_without_being_asked_no_chunk_has_usage() -> None:
    log = Log()
    _, chunks = fed([*log.begun(), *log.said("m1", "Hi"), log.step_done(), log.ended()])
    assert not any("usage" in chunk for chunk in chunks)


# -- functions of the client -----------------------------------------------------------------------------


def calls(log: Log) -> list[ev.Event]:
    return [
        *log.said("m1", "Let me ask."),
        log.called("a", "f_a", "client", x=1),
        log.called("b", "f_b", "client"),
        log(ev.ToolExecuting, call_id="a", arguments={"x": 1}),
        log.asked("int_a", "client_tool", "a", x=1),
        log(ev.RunWaiting, interactions=["int_a"]),
        log(ev.ToolExecuting, call_id="b", arguments={}),
    ]


def test_functions_are_handed_over_together_once_nothing_else_is_waited_for() -> None:
    log = Log()
    made, chunks = fed([*log.begun(), *calls(log)])
    assert not made.done
    last = [parsed(frame) for frame in made.feed(log.asked("int_b", "client_tool", "b"))]
    handed: list[Json] = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f_a", "arguments": '{"x":1}'}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "f_b", "arguments": "{}"}},
    ]
    assert content(chunks) == "Let me ask."
    assert last[0]["choices"][0]["delta"] == {"tool_calls": handed}
    assert finish(last) == ["tool_calls"]
    assert last[-1] == {"done": True}
    assert made.done
    message = to_json(made)["choices"][0]["message"]
    assert message["content"] == "Let me ask."
    assert message["tool_calls"] == [{k: v for k, v in call.items() if k != "index"} for call in handed]
    assert made.completion.choices[0].finish_reason == "tool_calls"


def test_only_calls_and_nothing_said_is_null_content() -> None:
    log = Log()
    made, chunks = fed([*log.begun(), log.called("a", "f_a", "client"), log.asked("int_a", "client_tool", "a")])
    assert to_json(made)["choices"][0]["message"]["content"] is None
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_a_tool_of_the_agent_beside_is_waited_for() -> None:
    log = Log()
    beside = [log.called("own"), log.called("a", "f_a", "client"), log.asked("int_a", "client_tool", "a")]
    made, _ = fed([*log.begun(), *beside])
    assert not made.done
    made.feed(log.came_to("own"))
    assert made.done
    assert [call.id for call in made.completion.choices[0].message.tool_calls or []] == ["a"]


def test_an_approval_beside_is_waited_for() -> None:
    log = Log()
    beside = [log.called("a", "f_a", "client"), log.asked("int_a", "client_tool", "a"), log.called("own")]
    made, _ = fed([*log.begun(), beside[2], beside[0], beside[1], log.asked("int_own", "approval", "own")])
    assert not made.done


def test_a_function_that_policy_denies_is_not_handed_over() -> None:
    log = Log()
    made, chunks = fed([*log.begun(), log.called("a", "f_a", "client"), log.came_to("a", "f_a", "denied")])
    assert not made.done
    assert chunks == []


def test_an_answer_that_goes_on_after_results_has_only_what_is_new() -> None:
    log = Log()
    fed([*log.begun(), *calls(log)])
    rest = [
        log.resolved("int_a"),
        log(ev.RunResumed, interactions=["int_a"]),
        log.came_to("a", "f_a"),
        log.step_done(),
        log(ev.StepStarted, step=2),
        *log.said("m2", "It is fine.", step=2),
        log.step_done(2),
        log.ended(),
    ]
    made, chunks = fed(rest)
    assert content(chunks) == "It is fine."
    assert not [chunk for chunk in chunks if "event" in chunk]
    assert finish(chunks) == ["stop"]
    assert made.completion.usage.total_tokens == 15  # of the second step: the first one's was the first answer's


def test_clients_with_functions_get_one_call_as_they_know_it() -> None:
    log = Log()
    one = [*log.begun(), log.called("a", "f_a", "client"), log.asked("int_a", "client_tool", "a", x=1)]
    made, chunks = fed(one, legacy=True)
    call = {"name": "f_a", "arguments": '{"x":1}'}
    assert chunks[1]["choices"][0]["delta"] == {"function_call": call}
    assert finish(chunks) == ["function_call"]
    message = to_json(made)["choices"][0]["message"]
    assert message["function_call"] == call
    assert "tool_calls" not in message


# -- what goes on meanwhile ------------------------------------------------------------------------------


def test_tools_of_the_agent_are_told_of_at_their_start_and_end() -> None:
    log = Log()
    events = [log.called("c1", command="ls  -la\n/", n=1), log.came_to("c1", status="error")]
    _, chunks = fed([*log.begun(), *events])
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "demo"}
    assert chunks[1:] == [
        {
            "event": "hermes.tool.progress",
            **head,
            "choices": [],
            "tool": "terminal",
            "emoji": "💻",
            "label": "ls -la /",
            "toolCallId": "c1",
            "status": "running",
        },
        {
            "event": "hermes.tool.progress",
            **head,
            "choices": [],
            "tool": "terminal",
            "toolCallId": "c1",
            "status": "completed",
            "outcome": "error",
        },
    ]


def test_a_tool_without_text_arguments_is_told_of_by_its_title() -> None:
    log = Log()
    _, chunks = fed([*log.begun(), log.called("c1", "weigh", "mcp:scale", grams=3)])
    assert (chunks[1]["label"], chunks[1]["emoji"]) == ("Weigh", "⚙️")


def test_questions_are_told_of_with_all_that_is_needed_to_answer_them() -> None:
    log = Log()
    question, answer = log.asked("int_1", "approval", "c1", x=1), log.resolved("int_1")
    _, chunks = fed([*log.begun(), log.called("c1"), question, answer])
    requested, resolved = chunks[2:]
    assert requested["event"] == "hermes.interaction.requested"
    assert requested["choices"] == []
    assert requested["interaction"]["type"] == "interaction.requested"
    assert requested["interaction"]["interaction_id"] == "int_1"
    assert requested["interaction"]["tool"]["arguments"] == {"x": 1}
    assert resolved["event"] == "hermes.interaction.resolved"
    assert resolved["interaction"]["outcome"] == "answered"


def test_strict_clients_are_told_of_nothing_but_the_answer() -> None:
    log = Log()
    meanwhile = [log.called("c1"), log.asked("int_1", "approval", "c1"), log.resolved("int_1"), log.came_to("c1")]
    _, chunks = fed([*log.begun(), *meanwhile, *log.said("m1", "Hi"), log.ended()], notes=False)
    assert not [chunk for chunk in chunks if "event" in chunk]
    assert content(chunks) == "Hi"


def test_a_stream_can_begin_before_there_is_anything_to_tell() -> None:
    log = Log()
    made = projection()
    [first] = made.opening()
    assert parsed(first)["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert made.opening() == []
    rest = [parsed(frame) for event in [*log.begun(), *log.said("m1", "Hi")] for frame in made.feed(event)]
    assert [chunk["choices"][0]["delta"] for chunk in rest] == [{"content": "Hi"}]
