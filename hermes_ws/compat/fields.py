"""Fields of a request's body, read one by one: each error names the field and says what would be right."""

from __future__ import annotations

import math
from typing import Any, Final, TypeGuard, cast

from hermes_ws.compat.errors import ApiError

__all__ = ["boolean", "integer", "invalid", "items", "missing", "named", "number", "one_of", "text", "whole_object"]

_NAMES: Final[dict[str, str]] = {
    "dict": "an object",
    "list": "an array",
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "NoneType": "null",
}
_ECHOED: Final = 80
"""How much of a wrong value an error repeats."""
_MOST: Final = 2**63 - 1


def invalid(path: str, message: str, code: str = "invalid_value") -> ApiError:
    """The field at ``path`` is wrong. The message follows its name: ``is a string, not a number``."""
    return ApiError(400, code, f"`{path}` {message}", param=path)


def missing(path: str) -> ApiError:
    """The field at ``path`` has to be there and is not."""
    return ApiError(400, "missing_required_parameter", f"`{path}` is missing", param=path)


def whole_object(value: Any, path: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise _type(path, "an object", value)
    return cast("dict[str, Any]", value)


def items(value: Any, path: str) -> list[Any]:
    """A JSON array."""
    if not _is_list(value):
        raise _type(path, "an array", value)
    return value


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def text(value: Any, path: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise _type(path, "a string", value)
    return value


def boolean(value: Any, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _type(path, "a boolean", value)
    return value


def number(value: Any, path: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A number, from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _type(path, "a number", value)
    if not -_MOST <= value <= _MOST:
        raise invalid(path, "is a number of more than 64 bits")
    if not least <= value <= most:
        raise invalid(path, f"is {_range(least, most)}, not {value}")
    return value


def integer(value: Any, path: str, least: float = -math.inf, most: float = math.inf) -> int:
    """A whole number, from ``least`` to ``most``; ``3.0`` is one."""
    given = number(value, path, least, most)
    if given != int(given):
        raise invalid(path, f"is a whole number, not {given}", "invalid_type")
    return int(given)


def one_of(value: Any, path: str, known: tuple[str, ...]) -> str:
    """One of these words."""
    if text(value, path) not in known:
        raise invalid(path, f"is one of {', '.join(known)}, not {value[:_ECHOED]!r}")
    return str(value)


def _type(path: str, wanted: str, value: Any) -> ApiError:
    return missing(path) if value is None else invalid(path, f"is {wanted}, not {named(value)}", "invalid_type")


def named(value: Any) -> str:
    """What kind of JSON value it is, in words."""
    return _NAMES[type(value).__name__]


def _range(least: float, most: float) -> str:
    if most == math.inf:
        return f"at least {least:g}"
    return f"at most {most:g}" if least == -math.inf else f"from {least:g} to {most:g}"
