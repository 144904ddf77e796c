"""What the next request says to what was asked, as replies."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.responses_answers import replies_to
from hermes_ws.compat.responses_input import turn_of
from hermes_ws.entities import ToolCall
from hermes_ws.errors import CommandError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import InteractionReply
from hermes_ws.protocol.values import Choice, Option, Question
from tests.compat.response_log import READS, Log

ALLOW_OR_NOT = [Option(id="once", label="Once", kind="allow"), Option(id="deny", label="Deny", kind="deny")]


def asked(log: Log) -> list[ev.InteractionRequested]:
    return [event for event in log.events if isinstance(event, ev.InteractionRequested)]


def question(kind: Any, **more: Any) -> Log:
    one = Question(id="answer", prompt="Which?", type=kind, required=True, allow_other=False, **more)
    return Log().asks("int_1", "clarify", questions=[one])


def form(schema: dict[str, Any] | None = None) -> Log:
    return Log().asks("int_1", "form", "c1", options=ALLOW_OR_NOT, schema=schema)


def call(name: str, source: str = "builtin") -> dict[str, ToolCall]:
    made = ToolCall("c1", "run_1", 1, name, source, name, {}, READS, 0)
    return {"c1": made}


def output(text: str, call_id: str = "int_1") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def reply(log: Log, *given: dict[str, Any], calls: dict[str, ToolCall] | None = None) -> InteractionReply:
    (made,) = replies_to(turn_of(given), asked(log), calls or {})
    return made


@pytest.mark.parametrize(
    ("log", "said", "answer"),
    [
        (question("text"), "blue", "blue"),
        (question("text"), '{"answer": "blue"}', "blue"),
        (question("number"), "3.5", 3.5),
        (question("number"), '{"answer": 4}', 4),
        (question("boolean"), " true ", True),
        (question("single", options=[Choice(id="1", label="One")]), "1", "1"),
        (question("multi", options=[Choice(id="a", label="A"), Choice(id="b", label="B")]), '["a", "b"]', ["a", "b"]),
        (question("multi", options=[Choice(id="a", label="A")]), "a", ["a"]),
        (question("multi", options=[Choice(id="a", label="A")]), '{"answer": ["a"]}', ["a"]),
    ],
)
def test_an_answer_is_what_its_question_takes(log: Log, said: str, answer: Any) -> None:
    assert reply(log, output(said)).answers == {"answer": answer}


def test_a_question_of_clarify_is_answered_under_the_id_of_its_call() -> None:
    log = Log().asks_question("int_1", "c1")
    assert reply(log, output("x", "c1"), calls=call("clarify")).interaction_id == "int_1"
    assert reply(log, output("x", "int_1"), calls=call("clarify")).interaction_id == "int_1"


def test_a_question_that_another_call_asks_is_answered_under_its_own_id() -> None:
    log = Log().asks_question("int_1", "c1")
    with pytest.raises(ApiError) as caught:
        reply(log, output("x", "c1"), calls=call("book", "mcp:crm"))
    assert caught.value.code == "unknown_tool_call"
    assert reply(log, output("x"), calls=call("book", "mcp:crm")).answers == {"answer": "x"}


def test_what_a_function_came_to_goes_to_its_call_with_its_images() -> None:
    schema = {"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]}
    log = Log().asks("int_1", "client_tool", "c1", schema=schema)
    assert reply(log, output("rain", "c1"), calls=call("weather", "client")).content == {"output": "rain"}
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://a.example/b.png"}]
    given = {"type": "function_call_output", "call_id": "c1", "output": parts}
    assert reply(log, given, calls=call("weather", "client")).content == {
        "output": "see",
        "content": [{"type": "text", "text": "see"}, {"type": "image", "url": "https://a.example/b.png"}],
    }


@pytest.mark.parametrize(("approve", "option"), [(True, "once"), (False, "deny")])
def test_leave_is_given_once_or_not(approve: bool, option: str) -> None:
    log = Log().asks("int_1", "approval", "c1", options=ALLOW_OR_NOT)
    given = {"type": "mcp_approval_response", "approval_request_id": "int_1", "approve": approve, "reason": "so"}
    made = reply(log, given)
    assert (made.option, made.comment) == (option, "so")


def test_an_approval_is_not_answered_by_an_output() -> None:
    log = Log().asks("int_1", "approval", "c1", options=ALLOW_OR_NOT)
    with pytest.raises(ApiError) as caught:
        reply(log, output("yes"))
    assert caught.value.code == "unknown_tool_call"


SCHEMA = {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}


@pytest.mark.parametrize(
    ("schema", "said", "option", "content"),
    [
        (SCHEMA, '{"day": "Monday"}', "once", {"day": "Monday"}),
        (SCHEMA, '{"action": "accept", "content": {"day": "Monday"}}', "once", {"day": "Monday"}),
        (SCHEMA, "decline", "deny", None),
        (SCHEMA, '{"action": "decline"}', "deny", None),
        (None, "done", "once", None),
        (None, "Cancel", "deny", None),
    ],
)
def test_a_form_is_filled_in_or_declined(
    schema: dict[str, Any] | None, said: str, option: str, content: dict[str, Any] | None
) -> None:
    made = reply(form(schema), output(said))
    assert (made.option, made.content) == (option, content)


def test_a_form_takes_what_fits_it() -> None:
    with pytest.raises(ApiError) as caught:
        reply(form(SCHEMA), output("Monday"))
    assert caught.value.param == "input[0].output"
    with pytest.raises(CommandError) as refused:
        reply(form(SCHEMA), output("{}"))
    assert refused.value.code == "invalid_answer"


def test_everything_that_is_asked_wants_an_answer() -> None:
    log = Log().asks("int_1", "approval", "c1", options=ALLOW_OR_NOT).asks("int_2", "client_tool", "c2", schema={})
    with pytest.raises(ApiError) as caught:
        replies_to(turn_of([output("x", "c2")]), asked(log), {})
    assert (caught.value.code, caught.value.status) == ("missing_approval_response", 400)


def test_where_one_question_is_all_there_is_what_the_user_says_answers_it() -> None:
    turn = turn_of([{"role": "user", "content": "blue"}])
    (made,) = replies_to(turn, asked(question("text")), {})
    assert made.answers == {"answer": "blue"}
    assert turn.said is None


def test_what_the_user_says_is_no_leave() -> None:
    log = Log().asks("int_1", "approval", "c1", options=ALLOW_OR_NOT)
    with pytest.raises(ApiError) as caught:
        reply(log, {"role": "user", "content": "yes"})
    assert caught.value.code == "missing_approval_response"
