"""Fields of a request's body: each error names the field and says what would be right."""

from __future__ import annotations

import re
from typing import Any, Final, TypeGuard, TypeVar, cast

import msgspec

from hermes_ws.compat.errors import ApiError
from hermes_ws.protocol.codec import invalid_value

__all__ = [
    "FUNCTION_NAME",
    "converted",
    "function_name",
    "invalid",
    "items",
    "missing",
    "named",
    "text",
    "whole_object",
]

T = TypeVar("T")

FUNCTION_NAME: Final = r"^[A-Za-z0-9_.:-]{1,128}$(?!\n)"
"""What a client may call a function of its own, whichever API it brings it by: endpoints of models take no more."""

_NAMES: Final[dict[str, str]] = {
    "dict": "an object",
    "list": "an array",
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "NoneType": "null",
}
_REQUIRED: Final = re.compile(r"Object missing required field `(?P<name>[^`]+)`")


def invalid(path: str, message: str, code: str = "invalid_value") -> ApiError:
    """The field at ``path`` is wrong. The message follows its name: ``is a string, not a number``."""
    return ApiError(400, code, f"`{path}` {message}", param=path)


def missing(path: str) -> ApiError:
    """The field at ``path`` has to be there and is not."""
    return ApiError(400, "missing_required_parameter", f"`{path}` is missing", param=path)


def converted(value: Any, expected: type[T], path: str = "") -> T:
    """JSON that stands at ``path`` (empty: the whole body) as a Struct. Raises :class:`ApiError`."""
    try:
        return msgspec.convert(value, expected)
    except (msgspec.ValidationError, RecursionError) as error:
        what, where = invalid_value(error, expected)
        at = _joined(path, where.removeprefix("$"))
        required = _REQUIRED.search(what)
        if required is not None:
            raise missing(_joined(at, f".{required['name']}")) from None
        code = "invalid_type" if ", got `" in what else "invalid_value"
        raise ApiError(400, code, f"`{at}`: {what}", param=at) from None


def _joined(path: str, inner: str) -> str:
    return f"{path}{inner}".removeprefix(".")


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


def function_name(value: Any, path: str) -> str:
    """What a client calls a function of its own."""
    name = text(value, path)
    if not re.match(FUNCTION_NAME, name):
        raise invalid(path, "is a name of 1 to 128 letters, digits and `_`, `.`, `:`, `-`, without accents or spaces")
    return name


def named(value: Any) -> str:
    """What kind of JSON value it is, in words."""
    return _NAMES[type(value).__name__]


def _type(path: str, wanted: str, value: Any) -> ApiError:
    return missing(path) if value is None else invalid(path, f"is {wanted}, not {named(value)}", "invalid_type")
