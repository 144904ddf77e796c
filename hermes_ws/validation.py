"""JSON Schema validation (2020-12): the first problem, said in one line, with its path.

A schema may be a stranger's: an MCP server's, a client's, a model's form. So nothing is ever fetched (a reference that
leaves the schema is a problem of the schema), its regular expressions are not run (one of them can stop the whole
server, and whoever wrote it will check for itself), and checking ends when it has taken too much work: a few references
to each other can ask for more than there is time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol, cast

import msgspec
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import (
    SchemaError,
    ValidationError,
    best_match,  # pyright: ignore[reportUnknownVariableType]
)
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from hermes_ws.protocol.codec import MAX_DEPTH

__all__ = ["Problem", "UnusableSchema", "first_problem", "too_deep"]

MESSAGE_LENGTH = 300
WORK: Final = 20_000
"""Keywords that one check may evaluate: a tenth of a second or so. What compares or tells much counts for more."""
_DRAFT: Final = "https://json-schema.org/draft/2020-12/"
_OURS: Final = "https://meta.invalid/2020-12/"
DEPTH: Final = 200
"""Keywords inside keywords, references followed included. Fewer where the stack is high already."""
_FRAMES_A_KEYWORD: Final = 4
_SPARE_FRAMES: Final = 60
META_WORK: Final = 20_000
"""The same for checking that a schema is one."""


class _Left:
    """What the running check may still do. ``weight`` is what an error costs: it quotes what it is about."""

    __slots__ = ("depth", "weight", "work")

    def __init__(self, work: int, weight: int) -> None:
        self.work = work
        self.weight = weight
        self.depth = min(DEPTH, (sys.getrecursionlimit() - _frames() - _SPARE_FRAMES) // _FRAMES_A_KEYWORD)

    def spend(self, work: int) -> None:
        """Raises :class:`_TooMuch` when there is no more."""
        self.work -= work
        if self.work < 0:
            raise _TooMuch


def _frames() -> int:
    """How high the stack is."""
    count, frame = 0, sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None:
        count, frame = count + 1, frame.f_back
    return count


_left: ContextVar[_Left] = ContextVar("_left")


class UnusableSchema(Exception):
    """The schema itself is broken: it is none, or a reference leads nowhere or in a circle. Says which, going on
    from "its schema"."""


class _TooMuch(Exception):
    """The check has used up its work."""


class Problem(NamedTuple):
    """Where (``$.questions[0].id``) and what."""

    path: str
    message: str


class _Validates(Protocol):
    def iter_errors(self, instance: Any) -> Iterator[ValidationError]: ...


def first_problem(schema: Mapping[str, Any], value: Any) -> Problem | None:
    """The most telling problem of ``value`` under ``schema``, or None. Raises :class:`UnusableSchema`."""
    left = _left.set(_Left(WORK, len(msgspec.json.encode(value)) // 1_000))
    try:
        errors = _validator(msgspec.json.encode(schema)).iter_errors(value)
        error = cast("ValidationError | None", best_match(errors))
    except _TooMuch:
        raise UnusableSchema("takes too much to check against") from None
    except Unresolvable as reason:
        raise UnusableSchema(f"refers to what it does not hold: {str(reason)[:MESSAGE_LENGTH]}") from None
    except RecursionError:
        raise UnusableSchema("or what is checked against it has no end") from None
    except OverflowError:
        return Problem("$", "a number is too large")
    finally:
        _left.reset(left)
    return Problem(error.json_path, _said(error)) if error is not None else None


def _said(error: ValidationError) -> str:
    message = error.message
    schema: Any = cast("Any", error).schema
    if error.validator in ("additionalProperties", "required") and isinstance(schema, Mapping):
        known = cast("Mapping[str, Any]", schema).get("properties", {})
        message += f"; it takes {', '.join(known) or 'none'}"
    if len(message) > MESSAGE_LENGTH:
        message = f"{message[: MESSAGE_LENGTH // 2]} … {message[-MESSAGE_LENGTH // 2 :]}"
    return message


@lru_cache(maxsize=512)
def _validator(encoded: bytes) -> _Validates:
    try:
        schema = _undated(msgspec.json.decode(encoded))
        _check_schema(schema, len(encoded))
    except SchemaError as error:
        raise UnusableSchema(f"is none, at {error.json_path}: {error.message[:MESSAGE_LENGTH]}") from None
    except RecursionError:
        raise UnusableSchema("has no end") from None
    # An empty registry: it knows the meta-schemas and what the schema holds itself, and fetches nothing.
    return _without_patterns(schema, registry=cast("Any", Registry)())


def _check_schema(schema: Any, size: int) -> None:
    """As ``Draft202012Validator.check_schema``, but it ends. Raises ``SchemaError`` or :class:`UnusableSchema`."""
    left = _left.set(_Left(META_WORK, size // 1_000))
    try:
        for error in _meta().iter_errors(schema):
            raise SchemaError(error.message, path=error.path, instance=error.instance)
    except _TooMuch:
        raise UnusableSchema("takes too much to check") from None
    finally:
        _left.reset(left)


@cache
def _meta() -> _Validates:
    """What a schema is checked against: the meta-schema and its parts. Undated and under names of our own, or
    jsonschema would take its own class for them, which counts nothing."""
    draft = cast("Any", Draft202012Validator)
    parts: Any = import_module("jsonschema_specifications").REGISTRY  # untyped, and needed here only
    renamed = {
        uri.replace(_DRAFT, _OURS): _renamed(parts.contents(uri)) for uri in parts if str(uri).startswith(_DRAFT)
    }
    resources = {uri: DRAFT202012.create_resource(contents) for uri, contents in renamed.items()}
    registry = cast("Any", Registry)().with_resources(resources.items())
    validator = cast("Any", _without_patterns)
    meta = validator(_renamed(draft.META_SCHEMA), registry=registry, format_checker=draft.FORMAT_CHECKER)
    return cast("_Validates", meta)


def _renamed(part: Any) -> Any:
    encoded = msgspec.json.encode(part).replace(_DRAFT.encode(), _OURS.encode())
    return _undated(msgspec.json.decode(encoded))


def _undated(schema: Any) -> Any:
    """The schema without ``$schema``: a part that names another draft would be given to another validator."""
    if isinstance(schema, dict):
        parts = cast("Mapping[str, Any]", schema)
        return {k: _undated(v) for k, v in parts.items() if not (k == "$schema" and isinstance(v, str))}
    if isinstance(schema, list):
        return [_undated(item) for item in cast("Iterable[Any]", schema)]
    return schema


def _ignore(*_: Any) -> Iterator[ValidationError]:
    return iter(())


def _additional(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """``additionalProperties``; where there are patterns, a property may fit one, and they are not run."""
    if "patternProperties" not in schema:
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, value, instance, schema)


Keyword = Callable[[Any, Any, Any, Any], "Iterable[ValidationError] | None"]


def _counted(name: str, keyword: Keyword) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        left = _left.get()
        left.spend(1 + _comparisons(name, value, instance))
        left.depth -= 1
        try:
            if left.depth < 0:  # the interpreter's own limit would be met in foreign code, which does not survive it
                raise RecursionError
            for error in keyword(validator, value, instance, schema) or ():
                left.spend(1 + left.weight)
                yield error
        finally:
            left.depth += 1

    return check


def _comparisons(name: str, value: Any, instance: Any) -> int:
    """What a keyword costs that compares much: equal items are looked for pair by pair, values in a list one by one."""
    if name == "uniqueItems" and isinstance(instance, list):
        return len(instance) ** 2 // 20  # pyright: ignore[reportUnknownArgumentType]
    if name in ("enum", "const"):
        return len(msgspec.json.encode(value)) // 50
    return 0


_KEYWORDS: Final[Mapping[str, Keyword]] = {
    **cast("Any", Draft202012Validator).VALIDATORS,
    "pattern": _ignore,
    "patternProperties": _ignore,
    "additionalProperties": _additional,
    "unevaluatedProperties": _ignore,
}
_without_patterns: Final[Callable[..., _Validates]] = cast("Any", validators).extend(
    Draft202012Validator, {name: _counted(name, keyword) for name, keyword in _KEYWORDS.items()}
)


def too_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """Whether a value is nested more than ``most`` deep: what goes into the log must be readable again."""
    match value:
        case dict():
            inner = list[Any](value.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        case list():
            inner = list[Any](value)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return False
    return most <= 0 or any(too_deep(one, most - 1) for one in inner)
