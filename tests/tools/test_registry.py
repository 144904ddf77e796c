"""The built-in tools as a set, and the judging of arguments."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hermes_ws.errors import SettingsError, ToolError
from hermes_ws.protocol.values import Annotations, ToolDescription
from hermes_ws.tools.base import ToolSettings
from hermes_ws.tools.registry import builtin_tools, validate_arguments

TOOLS = builtin_tools(ToolSettings())


def judge(schema: Any, arguments: dict[str, Any]) -> str:
    """What is said of arguments, empty if nothing."""
    annotations = Annotations(read_only=True, idempotent=True, destructive=False)
    description = ToolDescription(
        name="t", source="mcp:x", title="", description="", parameters=schema, annotations=annotations
    )
    try:
        validate_arguments(description, arguments)
    except ToolError as error:
        return str(error)
    return ""


def test_the_tools_there_are() -> None:
    assert {name: _flags(tool.description.annotations) for name, tool in TOOLS.items()} == {
        "terminal": "destructive",
        "read_file": "read_only idempotent",
        "write_file": "idempotent destructive",
        "edit_file": "destructive",
        "list_files": "read_only idempotent",
        "search_files": "read_only idempotent",
        "fetch_url": "read_only idempotent",
        "clarify": "read_only idempotent",
    }


def _flags(annotations: Annotations) -> str:
    return " ".join(name for name in ("read_only", "idempotent", "destructive") if getattr(annotations, name))


@pytest.mark.parametrize("name", TOOLS)
def test_each_describes_itself(name: str) -> None:
    description = TOOLS[name].description
    assert (description.name, description.source) == (name, "builtin")
    assert description.title
    assert description.description.endswith(".")
    Draft202012Validator.check_schema(description.parameters)
    assert description.parameters["additionalProperties"] is False
    for argument in description.parameters["properties"].values():
        assert argument["description"].endswith((".", ")."))


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("terminal", {}, "at $: 'command' is a required property; it takes command, timeout_s"),
        ("terminal", {"command": 1}, "at $.command: 1 is not of type 'string'"),
        ("terminal", {"command": "x", "timeout_s": "3"}, "at $.timeout_s: '3' is not of type 'number'"),
        ("terminal", {"command": "x", "timeout_s": True}, "at $.timeout_s"),
        ("terminal", {"command": "x", "timeout_s": 0}, "at $.timeout_s: 0 is less than or equal to the minimum"),
        ("terminal", {"command": "x", "cwd": "/"}, "'cwd' was unexpected); it takes command, timeout_s"),
        ("read_file", {"path": "a", "offset_line": 0}, "at $.offset_line"),
        ("clarify", {"question": "?", "choices": ["a", "a"]}, "non-unique"),
        ("clarify", {"question": "?", "choices": ["a", 1]}, "at $.choices[1]: 1 is not of type 'string'"),
        ("fetch_url", {"url": "x", "method": "POST"}, "at $.method: 'POST' is not one of ['GET', 'HEAD']"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(tool: str, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ToolError) as error:
        validate_arguments(TOOLS[tool].description, arguments)
    assert told in str(error.value)


def test_what_fits_is_let_through() -> None:
    validate_arguments(TOOLS["terminal"].description, {"command": "ls", "timeout_s": 1.5})


def test_what_is_told_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    told = judge({"properties": {"a": {"type": "integer"}}}, {"a": "x" * 10_000})
    assert len(told) < 500
    assert told.endswith("is not of type 'integer'")


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:1/schema.json", "https://example.com/s", "file:///etc/passwd", "#/$defs/none"]
)
def test_a_reference_is_never_fetched(monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr(urllib.request, "urlopen", fetched)
    assert "refers to what it does not hold" in judge({"$ref": reference}, {})


def test_references_inside_work() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    assert judge(schema, {"a": 1}) == ""
    assert "at $.a" in judge(schema, {"a": "1"})


def test_schemas_of_older_drafts_are_read_as_they_are_meant() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"n": {"type": "integer"}},
        "properties": {"a": {"$ref": "#/definitions/n"}, "$schema": {"type": "string"}},
    }
    assert "at $.a" in judge(schema, {"a": "1"})
    assert "$schema" in judge(schema, {"$schema": 1})


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": "^(a+)+$"}}},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
        {"propertyNames": {"pattern": "^(a+)+$"}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"pattern": "^(a+)+$"}}},
        {
            "properties": {
                "a": {"$schema": "http://json-schema.org/draft-07/schema#", "allOf": [{"pattern": "^(a+)+$"}]}
            }
        },
    ],
)
def test_a_strangers_pattern_stops_nobody(schema: Any) -> None:
    bomb = "a" * 60 + "b"
    assert judge(schema, {"a": bomb, bomb: 1}) == ""


def test_a_schema_without_end_is_refused() -> None:
    assert "no end" in judge({"$ref": "#"}, {})


def test_a_schema_that_is_none_is_refused() -> None:
    assert "its schema is none, at $.type" in judge({"type": "objekt"}, {})


def test_what_the_operator_allows_is_judged_at_once() -> None:
    with pytest.raises(SettingsError, match=r"tools\.fetch_allow: 'http://x'"):
        builtin_tools(ToolSettings(fetch_allow=["http://x"]))
