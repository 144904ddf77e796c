"""Values that satisfy a schema, made of nothing or of what a message offers."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_ws.agents.llm.example import NoExample, example
from hermes_ws.agents.llm.patterns import NoText, text_for

Schema = dict[str, Any]


def of(properties: Schema, *optional: str, **more: Any) -> Schema:
    """An object whose properties are required, but for these."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


STRING = {"type": "string"}
NODE = of({"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}})


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object"}, {}),
        (of({"a": STRING, "b": STRING}, "b"), {"a": "a"}),
        (of({"a": {"type": "integer"}, "b": {"type": "number"}}), {"a": 1, "b": 1}),
        (of({"a": {"type": "boolean"}, "b": {"type": "null"}, "c": {}}), {"a": True, "b": None, "c": "c"}),
        (of({"a": {"const": "x"}, "b": {"enum": ["y", "z"]}}), {"a": "x", "b": "y"}),
        (of({"a": {"type": "string", "default": "dflt"}}), {"a": "dflt"}),
        (of({"a": {"type": "integer", "examples": ["no", 7]}}), {"a": 7}),
        (of({"a": {"type": ["null", "string"]}}), {"a": "a"}),
        (of({"a": {"type": "string", "format": "date"}}), {"a": "2025-01-31"}),
        (of({"a": {"type": "string", "minLength": 3, "maxLength": 4}}), {"a": "a.."}),
        (of({"abcdef": {"type": "string", "maxLength": 2}}), {"abcdef": "ab"}),
        (of({"a": {"type": "integer", "minimum": 5}, "b": {"type": "integer", "maximum": -5}}), {"a": 5, "b": -5}),
        (of({"a": {"type": "integer", "exclusiveMinimum": 5, "multipleOf": 4}}), {"a": 8}),
        (of({"a": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}}), {"a": 0.5}),
        (of({"a": {"type": "array", "items": STRING}}), {"a": []}),
        (of({"a": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "uniqueItems": True}}), {"a": [1, 2]}),
        ({"prefixItems": [{"const": 1}, {"type": "boolean"}], "minItems": 2, "items": False}, [1, True]),
        ({"type": "array", "contains": {"const": 5}, "minItems": 2, "items": {"type": "integer"}}, [5, 1]),
        (of({"a": of({"b": of({"c": STRING})})}), {"a": {"b": {"c": "c"}}}),
        (of({"a": {"$ref": "#/$defs/node"}}, **{"$defs": {"node": NODE}}), {"a": {"name": "name", "children": []}}),
        (of({"a": {"$ref": "#/properties/b"}, "b": {"const": 3}}, "b"), {"a": 3}),
        (of({"a": {"anyOf": [{"type": "null"}, STRING]}}), {"a": None}),
        (of({"a": {"oneOf": [{"type": "number"}, {"type": "integer"}, {"const": "x"}]}}), {"a": 0.5}),
        (of({"a": {"oneOf": [{"type": "integer"}, {"type": "integer"}, {"const": "x"}]}}), {"a": "x"}),
        ({"allOf": [of({"a": STRING}), of({"b": STRING}), {"properties": {"a": {"minLength": 2}}}]},
         {"a": "a.", "b": "b"}),
        (of({"a": {"allOf": [{"type": "number", "minimum": 2}, {"type": ["integer", "null"], "minimum": 4}]}}),
         {"a": 4}),
        (of({"a": {"not": {"type": ["string", "object"]}}}), {"a": []}),
        (of({"a": {"enum": ["x", "y"]}}, **{"if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}}),
         {"a": "x", "b": "b"}),
        ({"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}}, {"a": 1}),
        ({"type": "object", "properties": {"a": STRING}, "minProperties": 2}, {"a": "a", "more1": "more1"}),
        (of({"a": STRING}, dependentRequired={"a": ["b"], "b": ["c"]}), {"a": "a", "b": "b", "c": "c"}),
        (of({"zip": {"type": "string", "pattern": r"^\d{5}(-\d{4})?$"}}), {"zip": "11111"}),
    ],
)  # fmt: skip
def test_as_little_as_the_schema_wants(schema: Schema, expected: Any) -> None:
    assert example(schema) == expected
    jsonschema.validate(expected, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (of({"a": False}), "allows no value"),
        (of({"a": {"type": "string", "pattern": "(?=x)"}}), "a group of a kind"),
        (of({"a": {"type": "string", "pattern": "^ab$", "minLength": 3}}), "no text of the length"),
        (of({"a": {"type": "string", "minLength": 1_000_000}}), "too long"),
        (of({"a": {"type": "integer", "minimum": 3, "maximum": 2}}), "'a'"),
        (of({"a": {"$ref": "https://example.org/schema"}}), "not followed"),
        (of({"a": {"$ref": "#/$defs/none"}}), "which it does not hold"),
        (of({"a": {"$ref": "#/required"}}), "is none"),
        (of({"a": {"$ref": "#/properties/a"}}), "refers to itself without end"),
        ({"$ref": "#/$defs/n", "$defs": {"n": of({"a": {"$ref": "#/$defs/n"}})}}, "too large or has no end"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}]}}}, "has no end"),
        (of({"a": STRING}, patternProperties={"^a": {"maxLength": 0}}), "patterns for names"),
        (of({"a": STRING}, propertyNames={"pattern": "^b"}), "patterns for names"),
        (of({"a": {"allOf": [{"pattern": "^a"}, {"pattern": "b$"}]}}), "says pattern twice"),
        (of({"a": {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "uniqueItems": True}}), "more items"),
        ({"type": "array", "minItems": 1_000_000}, "too large"),
        ({"type": 5}, "is none"),
        ({"not": {}}, "none of the values"),
    ],
)
def test_what_cannot_be_made_is_said_to_be_so(schema: Schema, why: str) -> None:
    with pytest.raises(NoExample, match=why):
        example(schema)


@pytest.mark.parametrize(
    ("message", "schema", "expected"),
    [
        ("What is the weather in Paris?", of({"city": STRING}), {"city": "Paris"}),
        ("Is Monday fine in New York today?", of({"city": STRING}), {"city": "New York"}),
        (
            "a flight from Paris to Rome",
            of({"origin": STRING, "target": STRING}),
            {"origin": "Paris", "target": "Rome"},
        ),
        ("weather of paris", of({"query": STRING}), {"query": "weather of paris"}),
        ("look for “red shoes” now", of({"query": STRING}), {"query": "red shoes"}),
        ("the value of magic_function(3)", of({"input": {"type": "integer"}}), {"input": 3}),
        ("add 2.5 to -3", of({"a": {"type": "number"}, "b": {"type": "number"}}), {"a": 2.5, "b": -3}),
        ("between 2.5 and 7", of({"n": {"type": "integer", "minimum": 3}}), {"n": 7}),
        ("in Fahrenheit", of({"unit": {"enum": ["celsius", "fahrenheit"]}}), {"unit": "fahrenheit"}),
        ("Say hi", of({"a": STRING, "b": STRING}), {"a": "Say hi", "b": "b"}),
    ],
)
def test_what_a_message_offers_is_taken(message: str, schema: Schema, expected: Any) -> None:
    assert example(schema, message) == expected


# -- whatever the schema ---------------------------------------------------------------------------------

bounds = st.integers(-20, 20)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "x", "yy"]), st.just([]), st.just({})
)
keywords: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object", ["null", "integer"]]),
    "enum": st.lists(scalars, min_size=1, max_size=3),
    "const": scalars,
    "default": scalars,
    "minimum": bounds,
    "maximum": bounds,
    "exclusiveMinimum": bounds,
    "multipleOf": st.sampled_from([2, 3, 0.5, 0.1]),
    "minLength": st.integers(0, 12),
    "maxLength": st.integers(0, 12),
    "pattern": st.sampled_from([r"^[a-z]+$", r"^\d{2,4}$", "x", "^(?:ab|c)*$", r"\s"]),
    "minItems": st.integers(0, 3),
    "maxItems": st.integers(0, 3),
    "uniqueItems": st.booleans(),
    "required": st.lists(st.sampled_from("abc"), unique=True),
    "minProperties": st.integers(0, 3),
    "$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/b"]),
}


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    of_schemas: dict[str, st.SearchStrategy[Any]] = {
        "properties": st.dictionaries(st.sampled_from("abc"), inner),
        "additionalProperties": inner,
        "unevaluatedProperties": inner,
        "items": inner,
        "prefixItems": st.lists(inner, min_size=1, max_size=2),
        "contains": inner,
        "not": inner,
        "if": inner,
        "then": inner,
        "propertyNames": inner,
        "dependentSchemas": st.dictionaries(st.sampled_from("abc"), inner),
        **dict.fromkeys(("anyOf", "oneOf", "allOf"), st.lists(inner, min_size=1, max_size=3)),
    }
    every = keywords | of_schemas
    return st.lists(st.sampled_from(sorted(every)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: every[name] for name in names})
    )


schemas = st.recursive(st.booleans() | st.fixed_dictionaries({}, optional=keywords), nested, max_leaves=8)


def patterns_decide(schema: Any) -> bool:
    """Whether a pattern stands where a value is not made for it: beside given values, in a condition, for names."""
    if isinstance(schema, list):
        return any(map(patterns_decide, schema))
    if not isinstance(schema, dict):
        return False
    delicate = {"not", "if", "oneOf", "dependentSchemas", "propertyNames", "unevaluatedProperties", "contains"}
    given = {"enum", "const", "default"}
    return "pattern" in str(schema) and bool((delicate | given) & set(re.findall(r"\w+", str(schema))))


@settings(max_examples=300, deadline=None)
@given(nested(schemas), schemas, schemas, st.text(max_size=20))
def test_what_is_made_satisfies_the_schema(schema: Schema, a: Any, b: Any, message: str) -> None:
    whole = {**schema, "$defs": {"a": a, "b": b}}
    try:
        made = example(whole, message)
    except NoExample:
        return
    assert made == example(whole, message)
    if not patterns_decide(whole):
        jsonschema.validate(made, whole, jsonschema.Draft202012Validator)


# -- patterns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ""),
        ("abc", "abc"),
        (r"^\d{3}-\d{4}$", "111-1111"),
        (r"^[A-Z]{2}[0-9]+$", "AA0"),
        ("^(red|green)$", "red"),
        ("a|b", "a"),
        (r"^\d{4}/(?P<month>0[1-9]|1[0-2])$", "1111/01"),
        (r"^#?([a-f0-9]{6}|[a-f0-9]{3})$", "aaaaaa"),
        (r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$", "a@a.aa"),
        (r"^[\w.-]+$", "a"),
        (r"^[\s\S]*$", ""),
        (r"^\+[1-9]\d{1,14}$", "+11"),
        ("^(a{2}b?){2}$", "aaaa"),
        (r"^\$\(\)\[\]\{\}$", "$()[]{}"),
        ("^[a-]$", "a"),
        ("^a+?$", "a"),
    ],
)
def test_a_text_is_read_off_a_pattern(pattern: str, expected: str) -> None:
    assert text_for(pattern) == expected
    assert re.search(pattern, expected)


def test_names_of_groups_are_read_as_javascript_writes_them() -> None:
    assert text_for("^(?<year>[0-9]{4})$") == "0000"


@pytest.mark.parametrize(
    ("pattern", "least", "most", "expected"),
    [("^[a-z]+$", 3, None, "aaa"), ("ab", 4, 6, "abxx"), ("^(ab)*$", 3, 6, "abab"), ("^[0-9]{2,8}$", 5, 5, "00000")],
)
def test_a_text_is_as_long_as_it_has_to_be(pattern: str, least: int, most: int | None, expected: str) -> None:
    assert text_for(pattern, least, most) == expected


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)", "(?!a)b", "(?<=a)b", "(?i)a", r"(a)\1", r"\bword\b", r"\p{L}", "a^b", "a$b", "(a", "a)", "[a", "[]",
     "[z-a]",
     "*a", "a{", "a{x}", "a{9999}{9999}", "(((a{99}){99}){99})", "(" * 40 + ")" * 40, "a" * 501, "\\", "[^ -~]"],
)  # fmt: skip
def test_a_pattern_that_is_not_simple_is_left_alone(pattern: str) -> None:
    with pytest.raises(NoText):
        text_for(pattern)


atoms = st.sampled_from(
    ["a", "b", " ", r"\d", r"\w", r"\s", r"\S", r"\W", ".", "[a-c]", "[^a-c]", r"[^\s@]", r"[\d_]", r"\."]
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("({})".format, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "+?"])),
    ),
    max_leaves=6,
)


@given(expressions, st.integers(0, 8), st.booleans())
def test_the_pattern_is_found_in_what_was_read_off_it(expression: str, least: int, whole: bool) -> None:
    pattern = f"^{expression}$" if whole else expression
    try:
        text = text_for(pattern, least, 30)
    except NoText:
        return
    assert re.search(pattern, text)
    assert least <= len(text) <= 30


# -- strangers' schemas ----------------------------------------------------------------------------------

LEVELS: Schema = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(18)}


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {**LEVELS, "a18": False}, "$ref": "#/$defs/a0"},
        {"$defs": LEVELS | {"a18": of({})}, "allOf": [{"$ref": "#/$defs/a0"}] * 20},
        {"anyOf": [{"anyOf": [{"not": {}}] * 50}] * 50},
        {"oneOf": [{"oneOf": [{"type": "integer"}] * 100}] * 100},
        of({f"p{n}": {"type": "string", "pattern": "^" + "(a*)*" * 50 + "$", "minLength": 9} for n in range(300)}),
        {"enum": list(range(50_000)), "type": "string"},
        {"items": {"$ref": "#"}, "minItems": 2, "type": "array"},
    ],
)
def test_a_hostile_schema_does_not_take_long(schema: Schema) -> None:
    begun = time.perf_counter()
    with suppress(NoExample):
        example(schema)
    assert time.perf_counter() - begun < 5
