"""Requests for chat completions: what they come to, and which field is named when they are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.compat.chat_request import ChatRequest, read_chat
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.past import Answered, PastCall, Said
from hermes_ws.compat.settings import CompatSettings
from hermes_ws.protocol.commands import ClientTool
from hermes_ws.protocol.values import ImagePart, TextPart

Json = dict[str, Any]

HI: Json = {"role": "user", "content": "hi"}
WEATHER: Json = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather", "parameters": {"type": "object", "properties": {}}},
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def read(*messages: Json, **more: Any) -> ChatRequest:
    return read_chat({"model": "m", "messages": list(messages), **more})


def refused(body: Json) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_chat(body).past()
    assert caught.value.status == 400
    return caught.value


def calling(*ids: str, content: str | None = None, **more: Any) -> Json:
    calls = [{"id": one, "type": "function", "function": {"name": f"f_{one}", "arguments": '{"x": 1}'}} for one in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls, **more}


def result(call_id: str, content: Any = "fine") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


# -- messages --------------------------------------------------------------------------------------------


def test_the_last_message_is_said_and_those_before_it_are_the_past() -> None:
    request = read(HI, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "how are you?"})
    assert request.said == "how are you?"
    assert request.past() == [Said("hi"), Answered("hello")]
    assert request.results == []


def test_system_and_developer_messages_are_instructions_wherever_they_are() -> None:
    request = read(
        {"role": "system", "content": "Be brief."},
        HI,
        {"role": "developer", "content": [{"type": "text", "text": "No"}, {"type": "text", "text": "emoji."}]},
    )
    assert request.instructions == "Be brief.\n\nNo\nemoji."
    assert request.said == "hi"
    assert request.past() == []


def test_without_any_there_are_no_instructions() -> None:
    assert read(HI).instructions is None
    assert read({"role": "system", "content": ""}, HI).instructions is None


def test_instructions_are_what_is_said_where_nothing_else_is() -> None:
    for nothing_else in ([], [{"role": "user", "content": ""}]):
        request = read(
            {"role": "system", "content": "A poem."}, {"role": "developer", "content": "Now."}, *nothing_else
        )
        assert (request.said, request.instructions) == ("A poem.\n\nNow.", None)
        assert request.past() == []


def test_all_that_the_user_says_last_is_said() -> None:
    seen = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}
    before = [HI, {"role": "assistant", "content": "hello"}]
    request = read(*before, {"role": "user", "content": "one"}, {"role": "system", "content": "x"}, HI)
    assert (request.said, request.past()) == ("one\n\nhi", [Said("hi"), Answered("hello")])
    request = read(*before, {"role": "user", "content": "one"}, seen, {"role": "user", "content": ""})
    assert request.said == [TextPart(text="one"), ImagePart(url=PIXEL)]


@pytest.mark.parametrize("nothing", ["", [{"type": "text", "text": ""}]])
def test_after_something_an_empty_message_has_the_assistant_go_on(nothing: Any) -> None:
    empty = {"role": "user", "content": nothing}
    request = read(HI, {"role": "assistant", "content": "hello"}, empty)
    assert request.said == "[Go on where your answer ends.]"
    assert request.past() == [Said("hi"), Answered("hello")]
    assert refused({"messages": [empty]}).param == "messages[0].content"


def test_images_are_kept_in_what_is_said_and_in_what_was() -> None:
    seen = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}
    request = read(seen, {"role": "assistant", "content": "a pixel"}, seen)
    assert request.said == [ImagePart(url=PIXEL)]
    assert request.past()[0] == Said([ImagePart(url=PIXEL)])


def test_calls_and_their_results_are_one_answer() -> None:
    request = read(HI, calling("a", "b", content="Let me see."), result("b", "two"), result("a", "one"))
    assert request.said is None
    assert [(one.call_id, one.output) for one in request.results] == [("b", "two"), ("a", "one")]
    assert request.past() == [
        Said("hi"),
        Answered(
            "Let me see.",
            calls=[PastCall("a", "f_a", {"x": 1}, "one"), PastCall("b", "f_b", {"x": 1}, "two")],
        ),
    ]


def test_a_round_of_calls_in_the_past_is_followed_by_what_is_said() -> None:
    request = read(HI, calling("a"), result("a"), {"role": "assistant", "content": "It is fine."}, HI)
    assert request.said == "hi"
    assert request.past() == [
        Said("hi"),
        Answered("", calls=[PastCall("a", "f_a", {"x": 1}, "fine")]),
        Answered("It is fine."),
    ]


def test_only_the_last_results_are_those_that_are_brought_now() -> None:
    request = read(HI, calling("a"), result("a", "one"), calling("b"), result("b", "two"))
    assert [one.call_id for one in request.results] == ["b"]
    assert [len(one.calls) for one in request.past() if isinstance(one, Answered)] == [1, 1]


def test_reasoning_comes_along() -> None:
    thinking = {"role": "assistant", "content": "hello", "reasoning_content": "They greet me."}
    assert read(HI, thinking, HI).past()[1] == Answered("hello", "They greet me.")


def test_a_call_that_was_never_answered_is_let_pass_in_the_past() -> None:
    assert read(HI, calling("a"), HI).past()[1] == Answered("", calls=[PastCall("a", "f_a", {"x": 1}, None)])


def test_an_empty_answer_is_no_part_of_the_past() -> None:
    assert read(HI, {"role": "assistant", "content": None}, HI).past() == [Said("hi")]


def test_a_refusal_is_what_was_said() -> None:
    assert read(HI, {"role": "assistant", "content": None, "refusal": "No."}, HI).past()[1] == Answered("No.")


def test_after_an_answer_of_the_assistant_the_assistant_goes_on() -> None:
    request = read(HI, {"role": "assistant", "content": "Once upon"})
    assert request.said == "[Go on where your answer ends.]"
    assert request.past() == [Said("hi"), Answered("Once upon")]


def test_functions_of_the_older_form_are_matched_by_name() -> None:
    request = read(
        HI,
        {"role": "assistant", "content": None, "function_call": {"name": "get_weather", "arguments": "{}"}},
        {"role": "function", "name": "get_weather", "content": "sunny"},
        functions=[WEATHER["function"]],
        function_call="auto",
    )
    assert request.legacy
    assert [tool.name for tool in request.functions] == ["get_weather"]
    assert request.past()[1] == Answered("", calls=[PastCall("", "get_weather", {}, "sunny")])


def test_images_in_results_are_kept_beside_their_text() -> None:
    parts = [{"type": "text", "text": "a picture"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    answer = read(HI, calling("a"), result("a", parts)).past()[1]
    assert isinstance(answer, Answered)
    [call] = answer.calls
    assert call.output == "a picture"
    assert call.content == [TextPart(text="a picture"), ImagePart(url=PIXEL)]


@pytest.mark.parametrize("nothing", [None, "", []])
def test_a_result_may_be_empty(nothing: Any) -> None:
    assert [one.output for one in read(HI, calling("a"), result("a", nothing)).results] == [""]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ('{"x": 1}', {"x": 1}),
        ({"x": 1}, {"x": 1}),
        ("", {}),
        (None, {}),
        ('{"x":', {"unreadable": '{"x":'}),
        ("[1]", {"unreadable": "[1]"}),
        ("[" * 5_000, {"unreadable": "[" * 5_000}),
        ('{"x":' * 70 + "1" + "}" * 70, {"unreadable": '{"x":' * 70 + "1" + "}" * 70}),
    ],
)
def test_arguments_that_are_no_object_stay_as_the_model_wrote_them(written: Any, read_as: Json) -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": written}}
    answer = read(HI, {"role": "assistant", "tool_calls": [call]}, result("a")).past()[1]
    assert isinstance(answer, Answered)
    assert answer.calls[0].arguments == read_as


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "owner", "content": "hi"}], "messages[0].role"),
        ([{"role": 1, "content": "hi"}], "messages[0].role"),
        ([HI, "hi"], "messages[1]"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": ""}], "messages[0].content"),
        ([HI, {"role": "user", "content": [{"type": "file"}]}], "messages[1].content[0]"),
        ([{"role": "system", "content": 5}, HI], "messages[0].content"),
        ([{"role": "system", "content": ""}], "messages"),
        ([{"role": "system", "content": ""}, {"role": "user", "content": ""}], "messages[1].content"),
        ([{"role": "assistant", "content": [{"type": "image_url", "image_url": PIXEL}]}, HI], "messages[0].content[0]"),
        ([HI, {"role": "assistant", "tool_calls": {}}], "messages[1].tool_calls"),
        ([HI, {"role": "assistant", "tool_calls": [7]}], "messages[1].tool_calls[0]"),
        ([HI, {"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}], "messages[1].tool_calls[0].type"),
        ([HI, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], "messages[1].tool_calls[0].id"),
        ([HI, {"role": "assistant", "tool_calls": [{"id": "a"}]}], "messages[1].tool_calls[0].function"),
        (
            [HI, {"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}],
            "messages[1].tool_calls[0].function.name",
        ),
        (
            [HI, {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": 7}}]}],
            "messages[1].tool_calls[0].function.arguments",
        ),
        ([HI, {"role": "assistant", "function_call": {"arguments": "{}"}}], "messages[1].function_call.name"),
        ([HI, calling("a")], "messages"),
        ([HI, calling("a", "b"), result("a")], "messages"),
        ([HI, calling("a"), {"role": "tool", "content": "x"}], "messages[2].tool_call_id"),
        ([HI, calling("a"), result("b")], "messages[2].tool_call_id"),
        ([HI, calling("a"), result("a"), result("a")], "messages[3].tool_call_id"),
        ([HI, calling("a"), HI, result("a")], "messages[3].tool_call_id"),
        ([HI, result("a")], "messages[1].tool_call_id"),
        ([HI, calling("a"), {"role": "function", "content": "x"}], "messages[2].name"),
        ([HI, calling("a"), {"role": "function", "name": "g", "content": "x"}], "messages[2].name"),
        ([HI, calling("a"), result("a", 0)], "messages[2].content"),
    ],
)
def test_what_is_wrong_with_a_message_is_named(messages: list[Any], param: str) -> None:
    error = refused({"messages": messages})
    assert error.param == param, error.message


def test_results_need_no_history_where_the_conversation_has_its_own() -> None:
    assert [one.call_id for one in read(result("a"), result("b")).results] == ["a", "b"]


# -- functions -------------------------------------------------------------------------------------------


def test_functions_are_tools_of_the_client() -> None:
    [tool] = read(HI, tools=[WEATHER]).functions
    assert tool == ClientTool(
        name="get_weather", description="Weather", parameters={"type": "object", "properties": {}}
    )


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, None),
        ("auto", None),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "get_weather"}}, "get_weather"),
        ({"type": "function", "name": "get_weather"}, "get_weather"),
    ],
)
def test_a_choice_is_for_the_model_for_no_call_for_some_call_or_for_one_function(choice: Any, meant: Any) -> None:
    assert read(HI, tools=[WEATHER], tool_choice=choice).tool_choice == meant


def test_the_older_choice_names_a_function_or_a_manner() -> None:
    functions = [WEATHER["function"]]
    assert read(HI, functions=functions, function_call={"name": "get_weather"}).tool_choice == "get_weather"
    assert read(HI, functions=functions, function_call="none").tool_choice == "none"


def test_allowed_tools_leave_the_others_out() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "other"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    request = read(HI, tools=[WEATHER, other], tool_choice=choice)
    assert [tool.name for tool in request.functions] == ["other"]
    assert request.tool_choice == "required"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [7]}, "tools[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "get weather"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a/b"}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
            "tools[0].function.parameters.type",
        ),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": 7}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": 7}}, "tool_choice.function"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice.function.name",
        ),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"functions": [WEATHER["function"]], "function_call": {"name": "f"}}, "function_call.name"),
    ],
)
def test_what_is_wrong_with_functions_is_named(more: Json, param: str) -> None:
    assert refused({"messages": [HI], **more}).param == param


# -- parameters ------------------------------------------------------------------------------------------


def test_parameters_for_the_model_are_passed_on_as_they_came() -> None:
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True, "x": 1}
    given: Json = {
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 5,
        "max_completion_tokens": 6,
        "stop": ["a", "b"],
        "seed": -1,
        "presence_penalty": 1,
        "frequency_penalty": -1.5,
        "logit_bias": {"50256": -100},
        "response_format": {"type": "json_schema", "json_schema": schema},
        "reasoning_effort": "low",
        "verbosity": "high",
        "parallel_tool_calls": False,
        "user": "u1",
        "top_k": 40,
        "min_p": 0.1,
    }
    assert read(HI, **given).parameters == given


def test_null_and_unknown_parameters_are_as_if_they_were_not_there() -> None:
    more = {"temperature": None, "stop": None, "tools": None, "tool_choice": None, "n": None, "stream": None}
    request = read(HI, **more, store=True, metadata={"a": "b"}, service_tier="auto", x=[1], prediction=7)
    assert request.parameters == {}
    assert request.functions == []
    assert not request.stream


def test_plain_text_is_no_format() -> None:
    assert read(HI, response_format={"type": "text"}).parameters == {}


def test_a_stream_may_end_with_the_usage() -> None:
    assert not read(HI, stream=True).include_usage
    assert not read(HI, stream=True, stream_options={}).include_usage
    request = read(HI, stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert request.stream
    assert request.include_usage


def test_the_model_may_be_left_out() -> None:
    assert read_chat({"messages": [HI]}).model is None


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": 7}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"n": "1"}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens"),
        ({"stop": 7}, "stop"),
        ({"stop": ["a", 7]}, "stop[1]"),
        ({"seed": 0.5}, "seed"),
        ({"seed": 10**400}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": "x"}, "frequency_penalty"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"user": {}}, "user"),
    ],
)
def test_a_parameter_of_the_wrong_kind_is_named(more: Json, param: str) -> None:
    error = refused({"messages": [HI], **more})
    assert error.param == param
    assert param in error.message


@pytest.mark.parametrize("messages", [None, "hi", {}, []])
def test_messages_have_to_be_there(messages: Any) -> None:
    assert refused({"messages": messages}).param == "messages"


def test_messages_that_are_missing_are_missing() -> None:
    error = refused({"model": "m"})
    assert (error.param, error.code) == ("messages", "missing_required_parameter")


@pytest.mark.parametrize(
    ("more", "param"),
    [({"messages": [HI, HI, HI]}, "messages"), ({"tools": [WEATHER, WEATHER]}, "tools")],
)
def test_there_are_only_so_many_of_each(more: Json, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_chat({"messages": [HI], **more}, CompatSettings(messages=2, functions=1))
    assert caught.value.param == param
