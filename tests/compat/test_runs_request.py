"""Requests to the runs API, in all the forms that its clients send."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.past import Answered, PastCall, Said
from hermes_ws.compat.runs_request import (
    approval_answer,
    clarify_answers,
    is_true,
    message_of,
    request_id_of,
    run_request,
    steer_text,
)
from hermes_ws.protocol.values import ImagePart, TextPart, ToolFilter
from tests.compat.runs_log import Log

PNG = "data:image/png;base64,iVBORw0KGgo="


def refused(**body: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        run_request(body)
    return raised.value


class TestInput:
    def test_text_is_enough(self) -> None:
        request = run_request({"input": "hi"})
        assert (request.said, request.past, request.source, request.instructions) == ("hi", [], "none", None)

    @pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}, {"input": None}])
    def test_nothing_is_not(self, body: dict[str, Any]) -> None:
        assert refused(**body).param == "input"

    @pytest.mark.parametrize("given", [" ", [{"role": "user", "content": "  "}]])
    def test_blank_text_is_nothing(self, given: Any) -> None:
        assert refused(input=given).status == 400

    @pytest.mark.parametrize("given", [1, {"a": 1}, [1], [None], [["x"]], [{}], [{"role": 1, "content": "x"}], True])
    def test_what_cannot_be_read_names_the_field(self, given: Any) -> None:
        error = refused(input=given)
        assert error.status == 400
        assert error.param is not None
        assert error.param.startswith("input")

    def test_parts_may_stand_alone(self) -> None:
        request = run_request({"input": [{"type": "text", "text": "look"}, {"type": "input_image", "image_url": PNG}]})
        assert request.said == [TextPart(text="look"), ImagePart(url=PNG)]

    def test_the_last_message_is_what_is_said_and_those_before_it_are_history(self) -> None:
        messages = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
        ]
        request = run_request({"input": messages, "instructions": "in Latin"})
        assert request.said == [ImagePart(url=PNG)]
        assert request.past == [Said("one"), Answered("two")]
        assert (request.source, request.instructions) == ("input", "in Latin\n\nbe brief")

    def test_the_last_message_is_the_users(self) -> None:
        assert refused(input=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]).param == "input"

    def test_files_are_refused(self) -> None:
        error = refused(input=[{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}])
        assert (error.code, error.param) == ("unsupported_content_type", "input[0].content[0]")


class TestHistory:
    def test_a_history_comes_before_what_is_said(self) -> None:
        history = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
        request = run_request({"input": "three", "conversation_history": history})
        assert request.past == [Said("one"), Answered("two")]
        assert request.source == "conversation_history"

    def test_it_wins_over_a_previous_response(self) -> None:
        history = [{"role": "user", "content": "one"}]
        request = run_request({"input": "x", "conversation_history": history, "previous_response_id": "resp_1"})
        assert request.previous_response_id is None
        assert run_request({"input": "x", "previous_response_id": "resp_1"}).previous_response_id == "resp_1"

    def test_tool_calls_come_along(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": '{"path":"."}'}}
        history = [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "a.txt"},
        ]
        request = run_request({"input": "two", "conversation_history": history})
        assert request.past == [Said("one"), Answered("", calls=[PastCall("c1", "ls", {"path": "."}, "a.txt")])]

    def test_there_are_only_so_many_messages(self) -> None:
        said = {"role": "user", "content": "x"}
        assert run_request({"input": [said], "conversation_history": [said, said]}, 3).said == "x"
        with pytest.raises(ApiError) as raised:
            run_request({"input": [said], "conversation_history": [said, said]}, 2)
        assert (raised.value.status, raised.value.param) == (400, "conversation_history")
        with pytest.raises(ApiError) as raised:
            run_request({"input": [said, said, said]}, 2)
        assert raised.value.param == "input"

    @pytest.mark.parametrize("history", ["x", {"role": "user"}, 5])
    def test_it_is_an_array(self, history: Any) -> None:
        assert refused(input="x", conversation_history=history).param == "conversation_history"

    @pytest.mark.parametrize("entry", [{}, {"content": "x"}, "x", None])
    def test_each_entry_is_a_message(self, entry: Any) -> None:
        error = refused(input="x", conversation_history=[entry])
        assert error.param == "conversation_history[0]"
        assert error.message.endswith("must have 'role' and 'content' fields")

    def test_errors_in_it_name_it(self) -> None:
        assert refused(input="x", conversation_history=[{"role": "user"}]).param == "conversation_history[0].content"
        assert refused(input="x", conversation_history=[{"role": "king", "content": "x"}]).param == (
            "conversation_history[0].role"
        )


class TestTheRest:
    def test_a_filter_of_tools_is_taken(self) -> None:
        assert run_request({"input": "x", "tools": {"allow": []}}).tools == ToolFilter(allow=[])

    def test_functions_are_not_taken_there(self) -> None:
        assert run_request({"input": "x", "tools": [{"type": "function"}]}).tools is None

    @pytest.mark.parametrize("name", ["session_id", "model", "instructions", "previous_response_id"])
    def test_names_are_strings(self, name: str) -> None:
        assert refused(input="x", **{name: 5}).param == name

    @pytest.mark.parametrize("name", ["message", "input"])
    def test_a_session_is_told_something(self, name: str) -> None:
        assert message_of({name: "hi"}) == "hi"

    @pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": " "}, {"input": []}])
    def test_or_it_is_missing(self, body: dict[str, Any]) -> None:
        with pytest.raises(ApiError) as raised:
            message_of(body)
        assert raised.value.code == "missing_message"


class TestApprovals:
    @pytest.mark.parametrize(
        ("choice", "option"),
        [
            ("once", "once"),
            ("approve", "once"),
            ("Approved", "once"),
            ("allow", "once"),
            ("session", "conversation"),
            ("run", "run"),
            ("always", "always"),
            (" deny ", "deny"),
        ],
    )
    def test_a_choice_is_an_option(self, choice: str, option: str) -> None:
        assert approval_answer({"choice": choice}).option == option

    @pytest.mark.parametrize("choice", ["", None, "maybe", 5, ["once"], {}])
    def test_any_other_is_invalid(self, choice: Any) -> None:
        with pytest.raises(ApiError) as raised:
            approval_answer({"choice": choice})
        assert raised.value.code == "invalid_approval_choice"
        assert raised.value.message == "Invalid approval choice; expected one of: once, session, always, deny"

    @pytest.mark.parametrize("request_id", ["", " ", 5, "x" * 257])
    def test_a_request_id_that_is_none_is_invalid(self, request_id: Any) -> None:
        with pytest.raises(ApiError) as raised:
            approval_answer({"choice": "once", "request_id": request_id})
        assert raised.value.code == "invalid_approval_request"

    @pytest.mark.parametrize("flag", ["all", "resolve_all"])
    def test_all_of_them_may_be_meant(self, flag: str) -> None:
        assert approval_answer({"choice": "once", flag: "true"}).all
        assert not approval_answer({"choice": "once", flag: False}).all

    @pytest.mark.parametrize("arguments", ['{"command": "ls"}', ["ls"], 5, False])
    def test_edited_arguments_that_cannot_be_read_are_not_left_out(self, arguments: Any) -> None:
        with pytest.raises(ApiError) as raised:
            approval_answer({"choice": "once", "arguments": arguments})
        assert (raised.value.code, raised.value.param) == ("invalid_approval_request", "arguments")

    def test_edited_arguments_are_those_of_one_call(self) -> None:
        assert approval_answer({"choice": "once", "arguments": {"command": "ls"}}).arguments == {"command": "ls"}
        with pytest.raises(ApiError) as raised:
            approval_answer({"choice": "once", "all": True, "arguments": {"command": "ls"}})
        assert (raised.value.code, raised.value.param) == ("invalid_approval_request", "arguments")

    def test_a_comment_is_text(self) -> None:
        assert approval_answer({"choice": "deny", "comment": "no"}).comment == "no"
        with pytest.raises(ApiError) as raised:
            approval_answer({"choice": "deny", "comment": 5})
        assert (raised.value.code, raised.value.param) == ("invalid_approval_request", "comment")

    @pytest.mark.parametrize(("value", "meant"), [(True, True), (1, True), ("yes", True), (0, False), ([], False)])
    def test_flags_may_be_written_in_words(self, value: Any, meant: bool) -> None:
        assert is_true(value) is meant

    def test_a_question_may_be_named_by_either_name(self) -> None:
        assert request_id_of({"clarify_id": "int_1"}, "x") == request_id_of({"request_id": "int_1"}, "x") == "int_1"


class TestSteering:
    @pytest.mark.parametrize(
        "body", [{"input": "x"}, {"message": "x"}, {"text": " x "}, {"input": [{"type": "text", "text": "x"}]}]
    )
    def test_text_has_many_names(self, body: dict[str, Any]) -> None:
        assert steer_text(body) == "x"

    @pytest.mark.parametrize("body", [{}, {"input": ""}, {"text": "  "}, {"input": [{"type": "text", "text": ""}]}])
    def test_nothing_is_no_text(self, body: dict[str, Any]) -> None:
        with pytest.raises(ApiError) as raised:
            steer_text(body)
        assert raised.value.code == "invalid_steer_input"

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"input": 5}, "input"),
            ({"message": {}}, "message"),
            ({"text": [1]}, "text[0]"),
            ({"input": [{"type": "image_url", "image_url": {"url": PNG}}]}, "input[0]"),
        ],
    )
    def test_neither_is_anything_else(self, body: dict[str, Any], param: str) -> None:
        with pytest.raises(ApiError) as raised:
            steer_text(body)
        assert (raised.value.status, raised.value.code, raised.value.param) == (400, "invalid_steer_input", param)


class TestClarifications:
    @pytest.mark.parametrize(
        "body",
        [
            {"answer": "red"},
            {"answer": "Red"},
            {"response": "Red"},
            {"choice": "red"},
            {"response": {"type": "choice", "choice_id": "red"}},
            {"response": {"type": "text", "text": "Red"}},
            {"answers": {"q": "red"}},
        ],
    )
    def test_a_choice_may_be_given_in_many_ways(self, body: dict[str, Any]) -> None:
        [asked] = Log().asks("Red", "Blue").events
        assert clarify_answers(asked, body) == {"q": "red"}

    @pytest.mark.parametrize(
        ("kind", "given", "answer"),
        [
            ("multi", ["Red", "blue"], ["red", "blue"]),
            ("multi", "Red", ["red"]),
            ("multi", {"type": "choices", "choice_ids": ["red"]}, ["red"]),
            ("number", "4.5", 4.5),
            ("number", 4, 4),
            ("number", "many", "many"),
            ("boolean", "yes", True),
            ("boolean", False, False),
            ("text", "anything", "anything"),
        ],
    )
    def test_it_is_brought_into_the_questions_type(self, kind: str, given: Any, answer: Any) -> None:
        [asked] = Log().asks("Red", "Blue", kind=kind).events
        assert clarify_answers(asked, {"answer": given}) == {"q": answer}

    @pytest.mark.parametrize("body", [{}, {"answer": None}, {"response": {"type": "text"}}])
    def test_no_answer_is_invalid(self, body: dict[str, Any]) -> None:
        [asked] = Log().asks("Red").events
        with pytest.raises(ApiError) as raised:
            clarify_answers(asked, body)
        assert raised.value.code == "invalid_clarification"
