"""JSON Schema validation: the first problem, said in one line, with its path.

Nothing is ever fetched: a reference that leaves the schema is a problem of the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import (
    SchemaError,
    ValidationError,
    best_match,  # pyright: ignore[reportUnknownVariableType]
)
from referencing import Registry
from referencing.exceptions import Unresolvable

__all__ = ["Problem", "first_problem"]

MESSAGE_LENGTH = 300


class Problem(NamedTuple):
    """Where (``$.questions[0].id``) and what."""

    path: str
    message: str


def first_problem(schema: Mapping[str, Any], value: Any) -> Problem | None:
    """The most telling problem of ``value`` under ``schema``, or None.

    Raises ``jsonschema.exceptions.SchemaError`` when the schema itself is broken: not a schema, a reference that
    leads nowhere or in a circle.
    """
    try:
        error = _best(_validator(msgspec.json.encode(schema)), value)
    except Unresolvable as unresolvable:
        raise SchemaError(f"unresolvable reference {unresolvable.ref[:MESSAGE_LENGTH]!r}") from None
    except RecursionError:
        raise SchemaError("the schema refers to itself without end, or is nested too deeply") from None
    except OverflowError:
        return Problem("$", "a number is too large")
    return Problem(error.json_path, error.message[:MESSAGE_LENGTH]) if error is not None else None


def _best(validator: Draft202012Validator, value: Any) -> ValidationError | None:
    errors: Iterator[ValidationError] = validator.iter_errors(value)  # pyright: ignore[reportUnknownMemberType]
    return cast("ValidationError | None", best_match(errors))


@lru_cache(maxsize=512)
def _validator(schema: bytes) -> Draft202012Validator:
    decoded = msgspec.json.decode(schema)
    Draft202012Validator.check_schema(decoded)
    return Draft202012Validator(decoded, registry=Registry())
