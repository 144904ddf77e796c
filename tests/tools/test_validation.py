"""Checking against a schema that a stranger wrote ends, whatever the schema and the value are."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final

import pytest

from hermes_ws.validation import Problem, UnusableSchema, first_problem, too_deep

AT_MOST_S: Final = 2.0
"""Far more than any check takes, on a busy machine too; without a bound each of these takes much more."""

Json = dict[str, Any]


def doubling(keyword: str, levels: int = 18) -> Json:
    """Each level refers to the next one twice."""
    steps = {f"a{n}": {keyword: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": steps | {f"a{levels}": {"type": "object"}}, "$ref": "#/$defs/a0"}


TIRING: Final[dict[str, tuple[Json, Any]]] = {
    "references by allOf": (doubling("allOf"), {}),
    "references by oneOf": (doubling("oneOf"), []),
    "a long enum for many values": ({"items": {"enum": list(range(9_000))}}, [8_999] * 3_000),
    "items that are all different": ({"uniqueItems": True}, [{"n": n} for n in range(5_000)]),
    "errors that quote a large value": ({"allOf": [{"type": "number"}] * 2_000}, "x" * 5_000_000),
}


@pytest.mark.parametrize(("schema", "value"), TIRING.values(), ids=TIRING)
def test_what_would_take_too_much_is_a_schema_that_cannot_be_used(schema: Json, value: Any) -> None:
    began = time.process_time()
    with pytest.raises(UnusableSchema, match="takes too much to check"):
        first_problem(schema, value)
    assert time.process_time() - began < AT_MOST_S


def test_a_schema_of_an_ordinary_size_is_checked_against() -> None:
    schema: Json = {
        "type": "object",
        "properties": {f"p{n}": {"enum": ["a", "b", "c"]} for n in range(200)},
        "additionalProperties": False,
    }
    assert first_problem(schema, {f"p{n}": "b" for n in range(200)}) is None
    problem = first_problem(schema, {"p7": "d"})
    assert problem == Problem("$.p7", "'d' is not one of ['a', 'b', 'c']")


def test_a_check_that_took_too_much_leaves_nothing_for_the_next_to_pay() -> None:
    with pytest.raises(UnusableSchema):
        first_problem(doubling("allOf"), {})
    assert first_problem({"type": "object"}, {}) is None


def nested(levels: int, *, lists: bool) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if lists else {"a": value}
    return value


@pytest.mark.parametrize("lists", [False, True])
def test_a_value_is_too_deep_from_one_level_more_than_the_bound_on(lists: bool) -> None:
    assert not too_deep(nested(64, lists=lists))
    assert too_deep(nested(65, lists=lists))
    assert too_deep(nested(100_000, lists=lists)), "however deep it is"


@pytest.mark.parametrize(
    "schema", [{"allOf": [{}] * 19_900}, {"prefixItems": [{"not": {}}] * 5_500}], ids=["all", "prefix"]
)
def test_whether_a_schema_is_one_takes_no_longer_than_that_either(schema: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(UnusableSchema, match="too much"):
        first_problem(schema, {})
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("schema", [{"not": {"$ref": "#"}}, {"if": {"$ref": "#"}}, {"contains": {"$ref": "#"}}])
def test_a_schema_without_end_is_told_however_high_the_stack_is(schema: dict[str, Any]) -> None:
    """At the interpreter's own limit the libraries below end the process."""

    def check(frames: int) -> None:
        if frames:
            check(frames - 1)
            return
        with suppress(UnusableSchema):
            first_problem(schema, [[]])

    for frames in range(0, 400, 7):
        check(frames)


def test_a_tree_as_deep_as_values_may_be_is_checked_through_its_reference() -> None:
    value: dict[str, Any] = {}
    for _ in range(62):
        value = {"a": value}
    assert first_problem({"properties": {"a": {"$ref": "#"}}}, value) is None
