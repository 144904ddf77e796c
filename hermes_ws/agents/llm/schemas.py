"""Tools as an endpoint is told of them, with their schemas mended where endpoints refuse what JSON Schema allows.

What is mended says the same as before. One thing is loosened: alternatives at the top (``anyOf``, ``oneOf``, ``allOf``,
``enum``, ``not``) become the properties that any of them has, because one such tool has a whole request refused. The
arguments of a call are held against the tool's own schema in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeGuard, cast

from hermes_ws.agents.llm.names import FunctionNames
from hermes_ws.protocol.values import ToolDescription

__all__ = ["described", "mended"]

_DEPTH: Final = 64
"""Deeper schemas are left as they are."""
_ABOUT: Final = ("$schema", "$id", "$comment")
_TOP: Final = ("anyOf", "oneOf", "allOf", "enum", "not", "if", "then", "else")
_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONES: Final = ("items", "additionalProperties", "not")


def described(tools: Iterable[ToolDescription], names: FunctionNames) -> list[dict[str, Any]]:
    """The ``tools`` of a request."""
    return [
        {
            "type": "function",
            "function": {
                "name": names.of(tool),
                "description": tool.description or tool.title,
                "parameters": mended(tool.parameters),
            },
        }
        for tool in tools
    ]


def mended(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object, as every endpoint takes it."""
    top = _mended(schema, 0)
    kept = {key: value for key, value in top.items() if key not in _ABOUT + _TOP}
    properties = {**_alternatives(_branches(top)), **_properties(kept)}
    required = [*_required(kept), *(r for b in _list(top.get("allOf")) for r in _required(b))]
    named = {"required": list(dict.fromkeys(required))} if required else {}
    kept.pop("required", None)
    return {**kept, "type": "object", "properties": properties, **named}


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    found: Any = schema.get("properties")
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _alternatives(branches: list[dict[str, Any]]) -> dict[str, Any]:
    """The properties that branches have; where they differ, whatever one of them takes."""
    found: dict[str, list[Any]] = {}
    for branch in branches:
        for name, value in _properties(branch).items():
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return {name: values[0] if len(values) == 1 else {"anyOf": values} for name, values in found.items()}


def _branches(top: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[Any] = [branch for key in ("anyOf", "oneOf", "allOf") for branch in _list(top.get(key))]
    return [cast(dict[str, Any], branch) for branch in found if isinstance(branch, dict)]


def _required(schema: Any) -> list[Any]:
    return _list(cast(dict[str, Any], schema).get("required")) if isinstance(schema, dict) else []


def _list(value: Any) -> list[Any]:
    return value if _is_list(value) else []


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _mended(schema: dict[str, Any], depth: int) -> dict[str, Any]:
    """Schemas in it are objects, and lists say what they hold."""
    if depth > _DEPTH:
        return schema
    found = dict(schema)
    for key in _MAPS:
        if isinstance(found.get(key), dict):
            found[key] = {name: _one(value, depth) for name, value in found[key].items()}
    for key in _LISTS:
        if isinstance(found.get(key), list):
            found[key] = [_one(value, depth) for value in found[key]]
    for key in _ONES:
        if isinstance(found.get(key), dict):
            found[key] = _one(found[key], depth)
    if found.get("type") == "array" and "items" not in found:
        found["items"] = {}
    return found


def _one(schema: Any, depth: int) -> Any:
    """``true`` is the schema that allows everything: ``{}``."""
    if schema is True:
        return {}
    return _mended(cast(dict[str, Any], schema), depth + 1) if isinstance(schema, dict) else schema
