"""A value that satisfies a JSON Schema, for a model that knows nothing and must not fail.

As little as goes: the properties that are required, the items that there must be. Values come from the schema where it
has some (``const``, ``enum``, ``default``, ``examples``), from the message where it has clues, and else they are the
simplest of their type. A schema may be a stranger's, so there is a bound on the work, nothing is fetched, no expression
is run, and in the end the value is held against the schema. What cannot be made, or not with certainty, is said to be
so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from hermes_ws.agents.llm.clues import Clues
from hermes_ws.agents.llm.flat import NoExample, Schema, flattened, is_list, is_object
from hermes_ws.agents.llm.patterns import NoText, text_for
from hermes_ws.validation import UnusableSchema, first_problem

__all__ = ["NoExample", "example"]

_WORK: Final = 4_000
"""Places of a schema that are looked at, those that are looked at again included."""
_CHECK: Final = 50
"""What holding a value against a part of the schema counts for."""
_DEPTH: Final = 48
"""How deep values and alternatives may lie in each other."""
_NOTHING: Final = object()
_TRIED: Final = 5
"""Whole values that are held against the schema."""
_VALUES: Final = 50
"""Values that are tried in one place."""
_FEW: Final = 4
"""The same of one type, where each has to be held against the schema."""
_EXACT: Final = 2**53
"""Below it every whole number is a number of JSON."""
_LENGTH: Final = 10_000
"""The longest text that is made."""
_TYPES: Final = ("string", "object", "array", "integer", "number", "boolean", "null")
_TELLS: Final = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "minimum": "number",
    "maximum": "number",
    "multipleOf": "number",
}
"""The type that is meant where only such a keyword is given."""
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_BOUNDS: Final = ("type", "minLength", "maxLength", *_NUMBERS)
"""What a value of the schema's own is held against where it stands."""
_FORMATS: Final = {
    "date-time": "2025-01-31T12:00:00Z",
    "date": "2025-01-31",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uri-reference": "/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: Schema, message: str = "") -> Any:
    """A value that satisfies the schema, with what the message offers. Raises :class:`NoExample`."""
    maker = _Maker(schema, Clues(message))
    try:
        first_problem(schema, None)  # is it one at all?
        for value in islice(maker.values(schema, "text", 0), _TRIED):
            if first_problem(schema, value) is None:
                return value
    except UnusableSchema as problem:
        raise NoExample(str(problem)) from None
    raise NoExample(maker.why or "allows none of the values that were tried")


class _Maker:
    """Makes values, several for each place where that is easy. ``why``: what was in the way first."""

    def __init__(self, root: Schema, clues: Clues) -> None:
        self.why = ""
        self._root = root
        self._clues = clues
        self._left = _WORK
        self._definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
        self._kinds: dict[str, Callable[[Schema, str, int], Iterator[Any]]] = {
            "object": self._objects,
            "array": self._arrays,
            "string": self._strings,
        }

    def values(self, schema: Any, name: str, depth: int) -> Iterator[Any]:
        """Values for a place that is called ``name``."""
        yield from self._all_of([schema], [], name, depth)

    def _all_of(self, schemas: list[Any], choices: list[list[Any]], name: str, depth: int) -> Iterator[Any]:
        """Values for which all of these hold, and one of each of the choices."""
        self._left -= 1
        if depth > _DEPTH or self._left < 0:
            return self._fail("is too large or has no end")
        try:
            flat = flattened(self._root, *schemas)
        except NoExample as problem:
            return self._fail(str(problem))
        choices, most = [*choices, *flat.choices], _FEW if flat.delicate else _VALUES
        if choices:
            found = self._one_of(flat.base, choices, name, depth + 1, most)
        else:
            found = self._plain(flat.base, name, depth, most)
        yield from (v for v in found if not flat.delicate or all(self._holds(schema, v) for schema in schemas))

    def _one_of(self, base: Schema, choices: list[list[Any]], name: str, depth: int, most: int) -> Iterator[Any]:
        for branch in choices[0]:
            yield from islice(self._all_of([base, branch], choices[1:], name, depth), most)

    def _fail(self, why: str) -> None:
        self.why = self.why or why

    def _holds(self, schema: Any, value: Any) -> bool:
        """Whether a value satisfies a part of the schema. Where that cannot be said, the whole will tell."""
        self._left -= _CHECK
        try:
            return not is_object(schema) or first_problem(self._definitions | schema, value) is None
        except UnusableSchema:
            return True

    def _plain(self, base: Schema, name: str, depth: int, most: int) -> Iterator[Any]:
        """Values for a place without alternatives."""
        fits = _fitting(base, _BOUNDS)
        if "enum" in base:
            yield from filter(fits, sorted(base["enum"][:_VALUES], key=lambda value: not self._clues.has(value)))
            return
        given: list[Any] = [base["default"]] if "default" in base else []
        yield from filter(fits, given + base.get("examples", [])[:_VALUES])
        for kind in _types(base):
            with suppress(OverflowError):
                yield from islice(self._of_type(kind, base, name, depth), most)

    def _of_type(self, kind: str, base: Schema, name: str, depth: int) -> Iterator[Any]:
        if kind in self._kinds:
            yield from self._kinds[kind](base, name, depth)
        elif kind in ("integer", "number"):
            fits = _fitting({**base, "type": kind}, _BOUNDS)
            clue = self._clues.number(fits)
            yield from [clue] if clue is not None else []
            yield from (number for number in _numbers(base) if fits(number))
        else:
            yield from (None,) if kind == "null" else (True, False)

    # -- texts -----------------------------------------------------------------------------------------

    def _strings(self, base: Schema, name: str, depth: int) -> Iterator[str]:
        least, most = _count(base, "minLength", 0), _count(base, "maxLength", _LENGTH)
        if least > min(most, _LENGTH):
            return self._fail("wants a text that is too long")
        if "pattern" in base:
            try:
                yield text_for(base["pattern"], least, most)
            except NoText as problem:
                self._fail(f"cannot be satisfied: {problem}")
            return
        usual = _FORMATS.get(base.get("format", ""), "")
        if usual and least <= len(usual) <= most:
            yield usual
        texts = [self._clues.text() or name, *(f"{n} {name}" for n in range(2, _VALUES))]
        yield from (text[:most].ljust(least, ".") for text in texts)

    # -- arrays ----------------------------------------------------------------------------------------

    def _arrays(self, base: Schema, name: str, depth: int) -> Iterator[list[Any]]:
        special = _count(base, "minContains", 1) if "contains" in base else 0
        prefix: list[Any] = base.get("prefixItems", [])
        made: list[Any] = []
        while len(made) < max(_count(base, "minItems", 0), special):
            held: list[Any] = [prefix[len(made)] if len(made) < len(prefix) else base.get("items", True)]
            held += [base["contains"]] if len(made) < special else []
            tried = islice(self._all_of(held, [], name, depth + 1), _VALUES)
            item = next((one for one in tried if not (base.get("uniqueItems") and one in made)), _NOTHING)
            if item is _NOTHING:
                return self._fail(f"wants more items in {name!r} than are found")
            made.append(item)
        yield made

    # -- objects ---------------------------------------------------------------------------------------

    def _objects(self, base: Schema, name: str, depth: int) -> Iterator[Schema]:
        properties: Schema = base.get("properties", {})
        rest: Any = base.get("additionalProperties", base.get("unevaluatedProperties", True))
        made: Schema = {}
        names = _names(base, properties)
        if names and ("patternProperties" in base or _has_pattern(base.get("propertyNames"))):
            return self._fail("has patterns for names, which are not run")
        if not depth:
            self._clues.keep_texts(sum(_is_free(properties.get(it)) for it in names))
        for it in names:
            value = next(self.values(properties.get(it, rest), it, depth + 1), _NOTHING)
            if value is _NOTHING:
                return self._fail(f"has no value that is found for {it!r}")
            made[it] = value
        yield made


def _types(base: Schema) -> list[str]:
    """The types to try, the likeliest first."""
    given = base.get("type")
    if given is not None:
        kinds: list[str] = given if is_list(given) else [given]
        return sorted(kinds, key=lambda kind: kind == "null")
    return list(dict.fromkeys([*(_TELLS[key] for key in base if key in _TELLS), *_TYPES]))


def _names(base: Schema, properties: Schema) -> list[str]:
    """The properties to make: those that are required, and more where there are too few."""
    names = list[str](base.get("required", []))
    wanted: Schema = base.get("dependentRequired", {})
    for name in names:  # grows while it is read
        names += [it for it in wanted.get(name, []) if it not in names]
    more = [*(name for name in properties if name not in names), *(f"more{n}" for n in range(1, _VALUES))]
    return [*names, *more[: max(0, _count(base, "minProperties", 0) - len(names))]]


def _is_free(schema: Any) -> bool:
    """Whether a property may be any text."""
    keys = ("enum", "const", "format", "pattern", "default")
    return is_object(schema) and schema.get("type") == "string" and not any(key in schema for key in keys)


def _has_pattern(schema: Any) -> bool:
    return is_object(schema) and ("pattern" in schema or any(map(_has_pattern, schema.get("allOf", []))))


def _count(base: Schema, key: str, default: int) -> int:
    """A keyword that counts something."""
    return int(base.get(key, default))


def _fitting(base: Schema, keywords: Iterable[str]) -> Callable[[Any], bool]:
    """Whether a value is as these keywords of the schema want it."""
    schema = {key: base[key] for key in keywords if key in base}
    return lambda value: first_problem(schema, value) is None


def _numbers(base: Schema) -> Iterator[float]:
    """Numbers that may fit: small ones, those near the bounds, and what lies between."""
    step = base.get("multipleOf", 1)
    low = max((base[key] for key in ("minimum", "exclusiveMinimum") if key in base), default=None)
    high = min((base[key] for key in ("maximum", "exclusiveMaximum") if key in base), default=None)
    yield from (1, 0.5)
    if low is not None:
        yield from _steps(math.ceil(low / step), step, 1)
    if high is not None:
        yield from _steps(math.floor(high / step), step, -1)
    if low is not None and high is not None:
        yield _short((low + high) / 2)
    yield from _steps(0, step, 1)


def _steps(first: int, step: float, way: int) -> Iterator[float]:
    return map(_short, ((first + way * n) * step for n in range(_VALUES)))


def _short(number: float) -> float:
    """``2`` for ``2.0``."""
    return int(number) if abs(number) < _EXACT and number == int(number) else number
