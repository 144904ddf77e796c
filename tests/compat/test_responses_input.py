"""Items of a request: what of them is history, what is said now, and what answers something."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.past import Answered, PastCall, Said
from hermes_ws.compat.responses_input import GO_ON, Turn, references, turn_of
from hermes_ws.protocol.values import ImagePart, TextPart

USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": "it"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "nothing"}


def reasoned(text: str, field: str = "summary") -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], field: [{"type": "summary_text", "text": text}]}


def spoken(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def read(*given: dict[str, Any], **more: Any) -> Turn:
    return turn_of(given, **more)


def refused(*given: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        turn_of(given)
    return caught.value


def test_what_the_user_says_last_is_said_now() -> None:
    turn = read(USER, spoken("hello"), {"role": "user", "content": "so?"})
    assert turn.past == [Said("hi"), Answered("hello")]
    assert turn.said == "so?"


def test_what_is_said_in_several_messages_is_said_at_once() -> None:
    image = {"type": "input_image", "image_url": "https://a.example/b.png"}
    turn = read({"role": "user", "content": "one"}, {"role": "user", "content": [image]})
    assert turn.said == [TextPart(text="one"), ImagePart(url="https://a.example/b.png")]
    assert turn.past == []


def test_instructions_are_apart_wherever_they_stand() -> None:
    turn = read({"role": "system", "content": "a"}, USER, {"role": "developer", "content": "b"})
    assert (turn.instructions, turn.said) == (["a", "b"], "hi")


def test_an_answer_is_what_was_thought_said_and_called_in_one_go() -> None:
    turn = read(USER, reasoned("hm"), spoken("I look."), CALL, OUTPUT, spoken("Nothing."), USER)
    called = PastCall("c1", "look", {"at": "it"}, "nothing")
    assert turn.past == [Said("hi"), Answered("I look.", "hm", [called]), Answered("Nothing.")]


@pytest.mark.parametrize("field", ["summary", "content"])
def test_reasoning_is_read_from_wherever_it_is(field: str) -> None:
    assert read(USER, reasoned("hm", field), spoken("x"), USER).past[1] == Answered("x", "hm")


def test_reasoning_that_came_to_nothing_is_nothing() -> None:
    turn = read(USER, reasoned("hm"), USER)
    assert (turn.past, turn.said) == ([], [TextPart(text="hi"), TextPart(text="hi")])


def test_calls_side_by_side_are_one_answer_and_settled_each() -> None:
    second = {**CALL, "call_id": "c2"}
    turn = read(USER, CALL, second, {**OUTPUT, "call_id": "c2", "output": "two"}, OUTPUT)
    (answer,) = [one for one in turn.past if isinstance(one, Answered)]
    assert [(call.call_id, call.output) for call in answer.calls] == [("c1", "nothing"), ("c2", "two")]
    assert turn.said is None


def test_an_output_of_a_call_that_is_not_here_answers_an_earlier_response() -> None:
    turn = read(OUTPUT)
    assert [(output.call_id, output.text) for output in turn.outputs] == [("c1", "nothing")]
    assert turn.answers


def test_a_call_that_the_conversation_has_is_passed_over() -> None:
    turn = read(CALL, OUTPUT, known={"c1"})
    assert (turn.past, [output.call_id for output in turn.outputs]) == ([], ["c1"])


def test_an_output_may_have_images() -> None:
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://a.example/b.png"}]
    (output,) = read({**OUTPUT, "output": parts}).outputs
    assert output.text == "see"
    assert output.content == [TextPart(text="see"), ImagePart(url="https://a.example/b.png")]


def test_answers_to_approval_requests_are_read() -> None:
    given = {"type": "mcp_approval_response", "approval_request_id": "int_1", "approve": False, "reason": "no"}
    (leave,) = read(given).leaves
    assert (leave.request_id, leave.approve, leave.reason) == ("int_1", False, "no")


def test_a_call_that_was_executed_elsewhere_is_history_with_its_outcome() -> None:
    call = {"type": "mcp_call", "id": "m1", "name": "mail", "arguments": "{}", "output": "sent"}
    failed = {**call, "id": "m2", "output": None, "error": {"message": "no"}}
    turn = read(USER, call, failed, USER)
    calls = [call for one in turn.past if isinstance(one, Answered) for call in one.calls]
    assert [(call.output, call.is_error) for call in calls] == [("sent", False), ('{"message":"no"}', True)]


def test_a_call_of_a_tool_that_takes_text_is_one_of_a_function() -> None:
    call = {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": 'a "b"'}
    turn = read(USER, call, {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"}, USER)
    called = PastCall("c1", "patch", {"input": 'a "b"'}, "done")
    assert turn.past == [Said("hi"), Answered("", "", [called])]


@pytest.mark.parametrize(
    "kind", ["web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "computer_call"]
)
def test_what_tools_did_that_openai_runs_is_passed_over(kind: str) -> None:
    there = {"type": kind, "id": "x_1", "status": "completed"}
    assert read(USER, there, spoken("Found it."), USER) == read(USER, spoken("Found it."), USER)


def test_a_client_whose_last_item_is_the_assistants_wants_more_of_that() -> None:
    assert read(USER, spoken("Once upon")).said == GO_ON


def test_a_call_without_its_output_cannot_be_gone_on_from() -> None:
    error = refused(USER, CALL)
    assert (error.status, error.message) == (400, "No tool output found for function call c1.")


def test_as_mere_history_nothing_is_said_now() -> None:
    turn = read(USER, CALL, answered=False)
    assert turn.said is None
    assert [type(one) for one in turn.past] == [Said, Answered]


def test_what_a_model_wrote_wrongly_is_kept_as_it_is() -> None:
    turn = read(USER, {**CALL, "arguments": "{oops"}, OUTPUT)
    (answer,) = [one for one in turn.past if isinstance(one, Answered)]
    assert answer.calls[0].arguments == {"unreadable": "{oops"}


def test_references_are_found_by_where_they_stand() -> None:
    given: list[dict[str, Any]] = [
        USER,
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_2"},
        {"type": None, "id": "msg_3"},
    ]
    assert references(given) == {1: "msg_1", 2: "msg_2", 3: "msg_3"}
    with pytest.raises(ApiError) as caught:
        references([{"type": "item_reference"}])
    assert caught.value.param == "input[0].id"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ("text", "input[0]"),
        ({}, "input[0].type"),
        ({"type": []}, "input[0].type"),
        ({"type": "no_such_item"}, "input[0].type"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "tool", "content": "x"}, "input[0].role"),
        ({"role": 3, "content": "x"}, "input[0].role"),
        ({**CALL, "call_id": ""}, "input[0].call_id"),
        ({**CALL, "name": None}, "input[0].name"),
        ({**CALL, "arguments": {}}, "input[0].arguments"),
        ({**OUTPUT, "output": None}, "input[0].output"),
        ({"type": "reasoning", "summary": 3}, "input[0].summary"),
        ({"type": "reasoning", "summary": [{"text": 3}]}, "input[0].summary[0].text"),
        ({"type": "mcp_approval_response", "approval_request_id": "x", "approve": "yes"}, "input[0].approve"),
    ],
)
def test_what_is_wrong_is_named(item: Any, param: str) -> None:
    error = refused(item)
    assert (error.status, error.param) == (400, param)
