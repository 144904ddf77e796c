"""JSON Schema validation (2020-12): the first problem, said in one line, with its path.

A schema may be a stranger's: an MCP server's, a client's, a model's form. So nothing is ever fetched (a reference that
leaves the schema is a problem of the schema), and its regular expressions are not run: one of them can stop the whole
server, and whoever wrote it will check for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
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

__all__ = ["Problem", "UnusableSchema", "first_problem"]

MESSAGE_LENGTH = 300


class UnusableSchema(Exception):
    """The schema itself is broken: it is none, or a reference leads nowhere or in a circle. Says which, going on
    from "its schema"."""


class Problem(NamedTuple):
    """Where (``$.questions[0].id``) and what."""

    path: str
    message: str


class _Validates(Protocol):
    def iter_errors(self, instance: Any) -> Iterator[ValidationError]: ...


def first_problem(schema: Mapping[str, Any], value: Any) -> Problem | None:
    """The most telling problem of ``value`` under ``schema``, or None. Raises :class:`UnusableSchema`."""
    try:
        errors = _validator(msgspec.json.encode(schema)).iter_errors(value)
        error = cast("ValidationError | None", best_match(errors))
    except Unresolvable as reason:
        raise UnusableSchema(f"refers to what it does not hold: {str(reason)[:MESSAGE_LENGTH]}") from None
    except RecursionError:
        raise UnusableSchema("or what is checked against it has no end") from None
    except OverflowError:
        return Problem("$", "a number is too large")
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
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise UnusableSchema(f"is none, at {error.json_path}: {error.message[:MESSAGE_LENGTH]}") from None
    except RecursionError:
        raise UnusableSchema("has no end") from None
    # An empty registry: it knows the meta-schemas and what the schema holds itself, and fetches nothing.
    return _without_patterns(schema, registry=cast("Any", Registry)())


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


_without_patterns: Final[Callable[..., _Validates]] = cast("Any", validators).extend(
    Draft202012Validator,
    {
        "pattern": _ignore,
        "patternProperties": _ignore,
        "additionalProperties": _additional,
        "unevaluatedProperties": _ignore,
    },
)
