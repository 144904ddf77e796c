"""Types as the schemas of an OpenAPI document: what they are made of, what is required, what each field is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, cast

import msgspec
from msgspec import NODEFAULT, UNSET, inspect

from hermes_ws.protocol.schema import docstrings

__all__ = ["AnyOf", "ListOf", "Schema", "Types", "leaves", "reachable"]

Schema = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
_NOT_A_LINE: Final = "(?!\\n)"
"""Python's ``$`` also stands before a last line break; that of JSON Schema does not."""


@dataclass(frozen=True)
class AnyOf:
    """One of several types that no field tells apart. Null is None."""

    types: tuple[Any, ...]


@dataclass(frozen=True)
class ListOf:
    """A list of what is no one type."""

    item: Any
    least: int = 0
    most: int | None = None


class Types:
    """The schemas of types, and of what those are made of."""

    def __init__(self, taken: Iterable[Any], given: Iterable[Any], fields: Mapping[tuple[type, str], Any]) -> None:
        """Clients send those ``taken``, and the server those ``given``. What stands in ``fields`` is sent by whoever
        sends their Struct; a Struct comes before those that stand in it."""
        taken, given = [*taken], [*given]
        for (cls, _), type_ in fields.items():
            (taken if cls in _classes(taken) else given).extend(leaves(type_))
        every = [*taken, *given]
        schemas, components = msgspec.json.schema_components(every, ref_template=_REF)
        classes = {name: cls for cls in _classes(every) for name in (cls.__name__, _full_name(cls))}
        renamed = {name: _short(name) for name in components}
        requests = set(_classes(taken))
        self.components: dict[str, Schema] = {}
        for name, schema in components.items():
            cls = classes[name]
            self.components[renamed[name]] = _object(_mended(schema, renamed), cls, sent=cls not in requests)
        self._schemas = list(zip(every, (_mended(schema, renamed) for schema in schemas), strict=True))
        for (cls, name), type_ in fields.items():
            component = self.components[renamed[_named(cls, components)]]
            if name:
                self._put(component["properties"], name, type_)
            else:
                component.update(type_)

    def _put(self, properties: Schema, name: str, type_: Any) -> None:
        """Say what stands in a field; None: say nothing of it."""
        before = properties[name]
        if type_ is None:
            del properties[name]
        elif isinstance(type_, dict):
            properties[name] = _beside(before, cast("Schema", type_))
        else:
            about = {"description": before["description"]} if "description" in before else {}
            properties[name] = {**self.schema(type_), **about}

    def schema(self, type_: Any) -> Schema:
        """The schema of one of the types, as it stands where it is used."""
        if isinstance(type_, dict):  # a schema already
            return cast("Schema", type_)
        if type_ is None:
            return {"type": "null"}
        if isinstance(type_, AnyOf):
            return {"anyOf": [self.schema(one) for one in type_.types]}
        if isinstance(type_, ListOf):
            least = {"minItems": type_.least} if type_.least else {}
            most = {"maxItems": type_.most} if type_.most is not None else {}
            return {"type": "array", "items": self.schema(type_.item), **least, **most}
        return next(schema for known, schema in self._schemas if known is type_ or known == type_)


def leaves(type_: Any) -> list[Any]:
    """The types in what is made of several."""
    match type_:
        case dict() | None:
            return []
        case AnyOf():
            return [leaf for one in type_.types for leaf in leaves(one)]
        case ListOf():
            return leaves(type_.item)
        case _:
            return [type_]


def _classes(types: Iterable[Any]) -> list[type]:
    """Every Struct in the types."""
    found: dict[type, None] = {}
    for type_ in types:
        _find(inspect.type_info(type_), found)
    return list(found)


def _find(info: inspect.Type, found: dict[type, None]) -> None:
    match info:
        case inspect.StructType():
            if info.cls not in found:
                found[info.cls] = None
                for one in info.fields:
                    _find(one.type, found)
        case inspect.UnionType():
            for branch in info.types:
                _find(branch, found)
        case inspect.ListType():
            _find(info.item_type, found)
        case inspect.DictType():
            _find(info.value_type, found)
        case inspect.Metadata():
            _find(info.type, found)
        case _:
            return


def _named(cls: type, components: Mapping[str, Any]) -> str:
    return cls.__name__ if cls.__name__ in components else _full_name(cls)


def _beside(schema: Schema, keywords: Schema) -> Schema:
    """The schema with further keywords; where null may stand, they are for the rest."""
    if "anyOf" not in schema:
        return {**schema, **keywords}
    branches = [one if one == {"type": "null"} else {**one, **keywords} for one in schema["anyOf"]]
    return {**schema, "anyOf": branches}


def reachable(paths: Schema, components: Schema) -> Schema:
    """The components that are referred to, by way of others too."""
    found: Schema = {}
    todo = _references(paths)
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = components[name]
            todo += _references(components[name])
    return found


def _references(value: Any) -> list[str]:
    prefix = _REF.format(name="")
    if isinstance(value, str):
        return [value.removeprefix(prefix)] if value.startswith(prefix) else []
    if isinstance(value, dict):
        return [name for inner in cast("Schema", value).values() for name in _references(inner)]
    return [name for inner in value for name in _references(inner)] if _is_list(value) else []


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _short(name: str) -> str:
    """A name that several modules have is told apart by its module's: ``chat_types.FunctionCall``."""
    return name.removeprefix("hermes_ws.").replace("compat.", "").replace("protocol.", "").replace("_types", "")


def _mended(schema: Any, renamed: Mapping[str, str]) -> Any:
    """References under the names we use, and regular expressions that all engines read."""
    prefix = _REF.format(name="")
    if _is_list(schema):
        return [_mended(one, renamed) for one in schema]
    if isinstance(schema, str) and schema.startswith(prefix):
        return prefix + renamed[schema.removeprefix(prefix)]
    if not isinstance(schema, dict):
        return schema
    mended = {
        key: _mended(value, renamed)
        for key, value in cast("Schema", schema).items()
        if key != "title" or not isinstance(value, str)  # a field of that name is none
    }
    if isinstance(mended.get("pattern"), str):
        mended["pattern"] = mended["pattern"].replace(_NOT_A_LINE, "")
    if mended.get("default", "") is None:
        del mended["default"]
    return mended


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _object(schema: Schema, cls: type, *, sent: bool) -> Schema:
    """The schema of a Struct, with what its fields are for; if it is only ever sent, what is always there is
    required."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    properties: Schema = schema.get("properties", {})
    for one in info.fields:
        about = docstrings.of_field(cls, one.name)
        if about:
            properties[one.encode_name] = {**properties[one.encode_name], "description": about}
    always = [one.encode_name for one in info.fields if _always_there(one, cls)] if sent else []
    tag = [info.tag_field] if info.tag_field else []
    required = list(dict.fromkeys([*tag, *schema.get("required", []), *always]))
    made = {**schema, "description": docstrings.of_class(cls), "properties": properties}
    return made | ({"required": required} if required else {})


def _always_there(one: inspect.Field, cls: type) -> bool:
    if one.required:
        return True
    omits = cls.__struct_config__.omit_defaults  # type: ignore[attr-defined]
    return (
        not omits
        and one.default is not UNSET
        and (one.default is not NODEFAULT or one.default_factory is not NODEFAULT)
    )
