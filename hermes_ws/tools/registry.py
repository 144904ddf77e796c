"""Which built-in tools there are, and whether a call's arguments are what its tool takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, cast

import jsonschema
import msgspec
from jsonschema import Draft202012Validator, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import ToolDescription
from hermes_ws.tools.base import Tool, ToolSettings
from hermes_ws.tools.clarify import Clarify
from hermes_ws.tools.fetch import FetchUrl
from hermes_ws.tools.files import EditFile, ReadFile, WriteFile
from hermes_ws.tools.search import ListFiles, SearchFiles
from hermes_ws.tools.terminal import Terminal

__all__ = ["builtin_tools", "validate_arguments"]

_MESSAGE: Final = 300


class _Validates(Protocol):
    def iter_errors(self, instance: Any) -> Iterator[jsonschema.ValidationError]: ...


def builtin_tools(settings: ToolSettings) -> dict[str, Tool]:
    """The tools that come with the server, by name."""
    tools: list[Tool] = [
        Terminal(settings),
        ReadFile(settings),
        WriteFile(settings),
        EditFile(settings),
        ListFiles(settings),
        SearchFiles(settings),
        FetchUrl(settings),
        Clarify(),
    ]
    return {tool.description.name: tool for tool in tools}


def validate_arguments(description: ToolDescription, arguments: Mapping[str, Any]) -> None:
    """Raise ``ToolError`` unless ``arguments`` fit ``description.parameters`` (JSON Schema 2020-12).

    The schema may be a stranger's (an MCP server's, a client's). It is never followed to another address, and its
    regular expressions are not run: one can stop the whole server, and whoever wrote it will check for itself.
    """
    validator = _validator(msgspec.json.encode(description.parameters), description.name)
    try:
        error = next(validator.iter_errors(arguments), None)
    except Unresolvable as reason:
        raise ToolError(f"{description.name}: its schema refers to what it does not hold: {reason}") from reason
    except RecursionError as reason:
        raise ToolError(f"{description.name}: its schema, or these arguments, have no end") from reason
    if error is not None:
        raise ToolError(_told(description.name, error))


def _told(name: str, error: jsonschema.ValidationError) -> str:
    message = error.message
    if error.validator in ("additionalProperties", "required") and isinstance(error.schema, Mapping):
        message += f"; it takes {', '.join(error.schema.get('properties', {})) or 'none'}"
    if len(message) > _MESSAGE:
        message = f"{message[: _MESSAGE // 2]} … {message[-_MESSAGE // 2 :]}"
    return f"{name}: arguments do not fit at {error.json_path}: {message}"


@functools.lru_cache(maxsize=512)
def _validator(parameters: bytes, name: str) -> _Validates:
    try:
        schema = _undated(msgspec.json.decode(parameters))
        Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ToolError(f"{name}: its schema is none, at {error.json_path}: {error.message[:_MESSAGE]}") from error
    except RecursionError as error:
        raise ToolError(f"{name}: its schema has no end") from error
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


def _ignore(*_: Any) -> Iterator[jsonschema.ValidationError]:
    return iter(())


def _additional(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
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
