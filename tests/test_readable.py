"""Questions as lines, and lines as answers: what the plain view and the console share."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.answer_lines import NotUnderstood, accepted, answered, declined, filled_in
from hermes_ws.protocol.events import InteractionRequested, McpStatus
from hermes_ws.protocol.values import AnswerableBy, Choice, OnExpire, Option, Question
from hermes_ws.readable import example, form_lines, page_lines, server_news, tool_name

OPTIONS = [Option(id="accept", label="Send", kind="allow"), Option(id="decline", label="Decline", kind="deny")]


def form(schema: dict[str, Any] | None = None, **fields: Any) -> InteractionRequested:
    given: dict[str, Any] = {"kind": "form", "options": OPTIONS, "schema": schema, **fields}
    return InteractionRequested(
        seq=1,
        ts=1,
        run_id="run_1",
        interaction_id="int_1",
        title="crm asks",
        message="?",
        editable=False,
        requested_at=1,
        expires_at=2,
        on_expire=OnExpire(cancel=True),
        answerable_by=AnswerableBy(roles=["driver"]),
        **given,
    )


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


# -- what is shown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ({"type": "string", "description": "Who?"}, "f (text): Who?"),
        ({"type": "string", "title": "F"}, "f (text)"),
        ({"type": "string", "title": "Your name"}, "f (text): Your name"),
        ({"type": "string", "format": "email"}, "f (text, email)"),
        ({"type": "integer", "default": 30}, "f (whole number, default 30)"),
        ({"type": "number"}, "f (number)"),
        ({"type": "boolean", "default": False}, "f (true or false, default false)"),
        ({"type": "string", "enum": ["r", "b"]}, "f (one of r | b)"),
        ({"type": "string", "enum": ["r", "b"], "enumNames": ["Red", "Blue"]}, "f (one of r (Red) | b (Blue))"),
        ({"oneOf": [{"const": "r", "title": "Red"}, {"const": 2}]}, "f (one of r (Red) | 2)"),
        ({"type": "array", "items": {"enum": ["r", "b"]}}, "f (several of r | b)"),
        ({"type": "array", "items": {"anyOf": [{"const": "r", "title": "Red"}]}}, "f (several of r (Red))"),
        ({"type": "array", "items": {"type": "string"}}, "f (JSON)"),
        ({"type": "object"}, "f (JSON)"),
        ({"type": ["integer", "null"]}, "f (whole number)"),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}], "default": None}, "f (true or false, default null)"),
        (True, "f (text)"),
        ({"type": {"no": "type"}, "enum": "none"}, "f (JSON)"),
        ({"type": "string", "description": "one\n? two\r\n· three"}, "f (text): one ? two · three"),
    ],
)
def test_a_field_is_a_line(field: Any, line: str) -> None:
    assert form_lines(of(f=field)) == [line]


def test_what_has_to_be_there_is_marked_and_is_in_the_example() -> None:
    schema = of(a={"type": "string"}, b={"type": "integer"}, c={"enum": ["x", "y"]}) | {"required": ["b", "c"]}
    assert form_lines(schema) == ["a (text)", "b (whole number, required)", "c (one of x | y, required)"]
    assert example(schema) == '{"b":1,"c":"x"}'
    assert example(of(a={"type": "string"}, b={})) == '{"a":"…"}'
    assert example(of()) == "{}"


def test_names_are_shown_as_they_have_to_be_typed() -> None:
    assert form_lines(of(**{"a b": {}, "\x1b[2J": {}, "": {}})) == ['"a b" (text)', '"\\u001b[2J" (text)', '"" (text)']


def test_a_form_takes_a_bounded_number_of_lines_of_bounded_length() -> None:
    lines = form_lines(of(**{f"f{n}": {"description": "d" * 5_000, "enum": ["e" * 5_000]} for n in range(100)}))
    assert len(lines) == 41
    assert lines[-1] == "… and 60 more fields"
    assert max(map(len, lines)) < 1_000
    assert len(example(of(**{"n" * 5_000: {}}))) < 100


@pytest.mark.parametrize("schema", [{}, {"properties": []}, {"properties": None, "required": 1}])
def test_what_is_no_form_has_no_lines(schema: dict[str, Any]) -> None:
    assert form_lines(schema) == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://crm.example.com/login?state=abc", "crm.example.com"),
        ("https://crm.example.com.evil.net:8443/", "crm.example.com.evil.net"),
        ("https://evil.net\\.crm.example.com/", "evil.net"),
        ("https://evil.net?crm.example.com", "evil.net"),
        ("https://[::1]/", "::1"),
        ("https://[oops/", "this address"),
    ],
)
def test_a_page_is_named_by_the_host_that_a_browser_would_go_to(url: str, host: str) -> None:
    said, address = page_lines(url)
    assert said == f"to be done in a browser, at {host}:"
    assert address == url


def test_tools_are_spelt_as_policies_take_them() -> None:
    assert tool_name("builtin", "terminal") == "builtin:terminal"
    assert tool_name("mcp:crm", "add_note") == "mcp:crm/add_note"


@pytest.mark.parametrize(
    ("state", "more", "said"),
    [
        ("ready", {"tools": ["a", "b"]}, "MCP server crm is ready (2 tools)"),
        ("ready", {"tools": ["a"], "error": "1 left out"}, "MCP server crm is ready (1 tool): 1 left out"),
        ("failed", {"error": "it\nis\ngone"}, "MCP server crm failed: it is gone"),
        ("auth_required", {"error": "401"}, "MCP server crm needs credentials: 401"),
        ("stopped", {}, "MCP server crm is stopped"),
    ],
)
def test_news_of_a_server_are_a_line(state: Any, more: dict[str, Any], said: str) -> None:
    assert server_news(McpStatus(seq=1, ts=1, server="crm", state=state, **more)) == said


# -- what is understood ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "line", "value"),
    [
        ({"type": "string"}, " Ada Lovelace ", "Ada Lovelace"),
        ({"type": "string"}, "7", "7"),
        ({"type": "integer"}, "7", 7),
        ({"type": "integer"}, "12345678901234567890", 12345678901234567890),
        ({"type": "number"}, "-0.5", -0.5),
        ({"type": "boolean"}, "Yes", True),
        ({"type": "boolean"}, "false", False),
        ({"enum": ["red", "blue"]}, "BLUE", "blue"),
        ({"enum": ["red", "blue"]}, "2", "blue"),
        ({"enum": [2, 1]}, "2", 2),
        ({"oneOf": [{"const": "r", "title": "Red"}]}, "red", "r"),
        ({"type": "array", "items": {"enum": ["a", "b", "c"]}}, "c, 1", ["c", "a"]),
        ({"type": "string"}, '{"f":"{}"}', "{}"),
    ],
)
def test_a_line_is_the_value_of_the_only_field(field: Any, line: str, value: Any) -> None:
    reply = filled_in(form(of(f=field)), line)
    assert (reply.interaction_id, reply.option) == ("int_1", "accept")
    assert repr(reply.content) == repr({"f": value}), "the type counts, too"


@pytest.mark.parametrize(
    ("schema", "line", "says"),
    [
        (of(f={"type": "integer"}), "many", "a number"),
        (of(f={"type": "number"}), "1e999", "a number"),
        (of(f={"type": "number"}), "nan", "a number"),
        (of(f={"type": "boolean"}), "maybe", "yes or no"),
        (of(f={"enum": ["red", "blue"]}), "3", "one of: red, blue"),
        (of(f={"type": "object"}), "x", r'such as \{"f":\{\}\}'),
        (of(a={}, b={}), "x", r'such as \{"a":"…"\}'),
        (of(), "x", r"such as \{\}"),
        (of(a={}), "{oops", "no JSON object"),
        (of(a={}), '{"a":' + "[" * 100_000, "no JSON object"),
    ],
)
def test_what_cannot_be_understood_says_what_could(schema: dict[str, Any], line: str, says: str) -> None:
    with pytest.raises(NotUnderstood, match=says):
        filled_in(form(schema), line)


def test_forms_are_accepted_and_declined_by_the_options_that_they_offer() -> None:
    page = form(url="https://crm.example.com/")
    assert (accepted(page).option, accepted(page).content) == ("accept", None)
    assert (accepted(form(of())).option, accepted(form(of())).content) == ("accept", {})
    assert (declined(page, "no").option, declined(page, "no").comment) == ("decline", "no")
    with pytest.raises(NotUnderstood, match="cannot be declined"):
        declined(form(of(), options=None))


@pytest.mark.parametrize(
    ("type_", "line", "value"),
    [("text", "", ""), ("secret", "", ""), ("secret", " s3 ", "s3"), ("number", "", None), ("boolean", "no", False)],
)
def test_a_question_that_need_not_be_answered_takes_an_empty_line(type_: Any, line: str, value: Any) -> None:
    question = Question(id="answer", prompt="?", type=type_, required=False, allow_other=False)
    assert answered(form(kind="clarify", questions=[question]), question, line).answers == {"answer": value}


@pytest.mark.parametrize(("line", "value"), [("red", "r"), ("2", "b"), ("green", "green")])
def test_a_choice_is_named_or_numbered_or_another_where_that_is_taken(line: str, value: str) -> None:
    options = [Choice(id="r", label="Red"), Choice(id="b", label="Blue")]
    question = Question(id="q", prompt="?", type="single", options=options, required=True, allow_other=True)
    assert answered(form(kind="clarify", questions=[question]), question, line).answers == {"q": value}
