"""JSON Schema validation: the first problem, said in one line, with its path.

Nothing is ever fetched: a reference that leaves the schema is a problem of the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry

__all__ = ["Problem", "first_problem"]

MESSAGE_LENGTH = 300


class Problem(NamedTuple):
    """Where (``$.questions[0].id``) and what."""

    path: str
    message: str


def first_problem(schema: Mapping[str, Any], value: Any) -> Problem | None:
    """The most telling problem of ``value`` under ``schema``, or None.

    Raises ``jsonschema.exceptions.SchemaError`` when the schema itself is broken.
    """
    error = best_match(_validator(msgspec.json.encode(schema)).iter_errors(value))
    if error is None:
        return None
    return Problem(error.json_path, error.message[:MESSAGE_LENGTH])


@lru_cache(maxsize=512)
def _validator(schema: bytes) -> Draft202012Validator:
    decoded = msgspec.json.decode(schema)
    Draft202012Validator.check_schema(decoded)
    return Draft202012Validator(decoded, registry=Registry())
