"""The protocol as one JSON Schema, draft 2020-12."""

from __future__ import annotations

from typing import Any, Final

from msgspec import inspect

from hermes_ws.protocol import PROTOCOL
from hermes_ws.protocol.schema.model import Definition, Field, definitions, named, named_as

__all__ = ["UNIONS", "json_schema"]

UNIONS: Final = {
    "Event": "What happened, in order. Has a `seq`, is in the log, and is replayed.",
    "Control": "About the connection. Has no `seq`, is never stored and never replayed.",
    "Command": "What a client asks for. Gets exactly one `ok` or `error`.",
    "ServerFrame": "What a server sends.",
}
"""The unions of frames, and what they are."""

_ABOUT: Final = (
    "Every frame of the hermes.v1 protocol, one JSON object each, told apart by `type`. Fields that are not "
    "listed are ignored, unless `additionalProperties` is false. A client ignores events of types not listed here "
    "(vendor types begin with `x_`) but counts their `seq`. From a server, an optional field is absent and never "
    "null, and null in a required field is a value with a meaning of its own. From a client, null in an optional "
    "field equals absence, except inside the merge patch of `conversation.configure`."
)


def json_schema() -> dict[str, Any]:
    """The whole document. Its root is any frame in either direction."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:hermes-ws:{PROTOCOL}",
        "title": PROTOCOL,
        "description": _ABOUT,
        "anyOf": [_ref("ServerFrame"), _ref("Command")],
        "$defs": {**_unions(), **_named(), **{d.name: _object(d) for d in definitions()}},
    }


def _unions() -> dict[str, Any]:
    frames = {kind: _frames(kind) for kind in ("Event", "Control", "Command")}
    branches = {**frames, "ServerFrame": [_ref("Event"), _ref("Control")]}
    return {name: {"description": UNIONS[name], "oneOf": branches[name]} for name in UNIONS}


def _frames(union: str) -> list[dict[str, Any]]:
    return [_ref(d.name) for d in definitions() if d.kind == union.lower()]


def _named() -> dict[str, Any]:
    return {alias.name: {"description": alias.doc, **_spelled_out(alias.type)} for alias in named()}


def _object(definition: Definition) -> dict[str, Any]:
    tag = {"type": {"const": definition.tag}} if definition.tag else {}
    fields = {field.name: _field(field) for field in definition.fields}
    required = [*tag, *(field.name for field in definition.fields if field.required)]
    return {
        "description": definition.doc,
        "type": "object",
        "properties": {**tag, **fields},
        **({"required": required} if required else {}),
        **({"additionalProperties": False} if definition.closed else {}),
    }


def _field(field: Field) -> dict[str, Any]:
    schema = _type(field.type)
    equal = " Null equals absence." if field.nullable and not field.required else ""
    whole = {"anyOf": [schema, {"type": "null"}]} if field.nullable else schema
    return {"description": field.doc + equal, **whole}


def _type(type_: inspect.Type) -> dict[str, Any]:
    name = named_as(type_)
    return _ref(name) if name else _spelled_out(type_)


def _spelled_out(type_: inspect.Type) -> dict[str, Any]:
    match type_:
        case inspect.AnyType():
            return {}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.FloatType():
            return {"type": "number"}
        case inspect.IntType():
            return _given({"type": "integer", "minimum": type_.ge})
        case inspect.StrType():
            bounds = {"minLength": type_.min_length, "maxLength": type_.max_length, "pattern": type_.pattern}
            return _given({"type": "string", **bounds})
        case inspect.LiteralType():
            return {"type": "string", "enum": list(type_.values)}
        case inspect.StructType():
            return _ref(type_.cls.__name__)
        case inspect.RawType():  # only frames travel ready-made
            return _ref("ServerFrame")
        case _:
            return _compound(type_)


def _compound(type_: inspect.Type) -> dict[str, Any]:
    match type_:
        case inspect.ListType():
            return {"type": "array", "items": _type(type_.item_type)}
        case inspect.DictType():
            value = _type(type_.value_type)
            return _given({"type": "object", "additionalProperties": value or None})
        case inspect.UnionType():
            return {"anyOf": [_type(branch) for branch in type_.types]}
        case _:
            raise TypeError(f"no JSON Schema for {type_!r}")


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if value is not None}
