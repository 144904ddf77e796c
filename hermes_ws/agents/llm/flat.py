"""A JSON Schema, flattened: references followed and ``allOf`` merged, so that one place says what a value must be.

What is left beside it are alternatives (``anyOf``, ``oneOf``, ``if``), of which one each has to be chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import unquote

from hermes_ws.validation import first_problem

__all__ = ["Flat", "NoExample", "Schema", "flattened", "is_list", "is_object"]

Schema = dict[str, Any]

_PARTS: Final = 200
"""Schemas that one may be merged of."""
_ALTERNATIVES: Final = ("anyOf", "oneOf")
_STRUCTURE: Final = frozenset(
    {"$ref", "allOf", "anyOf", "oneOf", "if", "then", "else", "const", "$defs", "definitions"}
)
_DELICATE: Final = frozenset({"oneOf", "not", "if", "dependentSchemas"})
"""What may rule out a value although each of its parts is right."""


class NoExample(ValueError):
    """There is no value that certainly satisfies the schema, or none is found. Says why, going on from "its schema"."""


@dataclass(slots=True)
class Flat:
    """``base``: keywords that all hold. ``choices``: of each list, one must hold. ``delicate``: whether a value has to
    be held against the schema before it counts."""

    base: Schema = field(default_factory=dict[str, Any])
    choices: list[list[Any]] = field(default_factory=list[list[Any]])
    delicate: bool = False


def is_object(value: Any) -> TypeGuard[Schema]:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether it is a JSON array."""
    return isinstance(value, list)


def flattened(root: Schema, *schemas: Any) -> Flat:
    """What holds if all of these do. ``root`` is what references are looked up in. Raises :class:`NoExample`, or
    :class:`~hermes_ws.validation.UnusableSchema` for a reference to what is no schema."""
    flat = Flat()
    parts = list(schemas)
    for count, part in enumerate(parts):  # grows while it is read
        if count > _PARTS:
            raise NoExample("refers to itself without end")
        if part is False:
            raise NoExample("allows no value in one place")
        if is_object(part):
            parts += _referred(root, part)
            _take(flat, part)
    return flat


def _referred(root: Schema, part: Schema) -> list[Any]:
    """What holds beside it."""
    held = _list(part.get("allOf"))
    return [*held, _found(root, part["$ref"])] if "$ref" in part else held


def _take(flat: Flat, part: Schema) -> None:
    flat.choices += [_list(part[key]) for key in _ALTERNATIVES if key in part]
    if "if" in part:
        flat.choices.append([part.get("else", True), {"allOf": [part["if"], part.get("then", True)]}])
    flat.delicate = flat.delicate or bool(_DELICATE & part.keys())
    given = {key: value for key, value in part.items() if key not in _STRUCTURE}
    if "const" in part:
        _merge(flat.base, "enum", [part["const"]])
    for key, value in given.items():
        _merge(flat.base, key, value)


def _found(root: Schema, reference: Any) -> Any:
    """The schema that ``#/$defs/name`` means. Raises :class:`NoExample`."""
    found: Any = root
    if not (isinstance(reference, str) and (reference == "#" or reference.startswith("#/"))):
        raise NoExample(f"refers to {reference!r}, which is not followed")
    for step in reference.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if is_object(found) and name in found:
            found = found[name]
        elif is_list(found) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise NoExample(f"refers to {reference!r}, which it does not hold")
    first_problem({"$defs": {"found": found}}, None)  # is it a schema? A reference may lead anywhere
    return found


# -- merging ---------------------------------------------------------------------------------------------


def _merge(base: Schema, key: str, value: Any) -> None:
    """Both what the base says and this. Raises :class:`NoExample` where that is more than can be written down."""
    if key not in base:
        base[key] = value
        return
    one, other = base[key], value
    merge = _MERGES.get(key)
    if merge is not None:
        base[key] = merge(one, other)
    elif key in _TOLD_TWICE and one != other:
        raise NoExample(f"says {key} twice for one place")


def _both(one: Any, other: Any) -> Schema:
    return {"allOf": [one, other]}


def _by_name(one: Any, other: Any) -> Schema:
    ours, theirs = _object(one), _object(other)
    return ours | {name: _both(ours[name], value) if name in ours else value for name, value in theirs.items()}


def _together(one: Any, other: Any) -> list[Any]:
    return list(dict.fromkeys([*_list(one), *_list(other)]))


def _shared(one: Any, other: Any) -> list[Any]:
    return [value for value in _list(one) if any(_same(value, it) for it in _list(other))]


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _types(one: Any, other: Any) -> list[Any]:
    """The types that both allow; every integer is a number."""
    ours, theirs = (_list(it) if is_list(it) else [it] for it in (one, other))
    either = [*ours, *theirs]
    return [
        kind
        for kind in dict.fromkeys(either)
        if all(kind in side or (kind == "integer" and "number" in side) for side in (ours, theirs))
    ]


def _any(one: Any, other: Any) -> Schema:
    return {"anyOf": [one, other]}


_MERGES: Final[dict[str, Callable[[Any, Any], Any]]] = {
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), _by_name),
    **dict.fromkeys(("items", "additionalProperties", "propertyNames", "unevaluatedProperties"), _both),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    "required": _together,
    "enum": _shared,
    "type": _types,
    "not": _any,
}
_TOLD_TWICE: Final = frozenset({"pattern", "multipleOf", "prefixItems", "contains", "minContains", "dependentRequired"})
"""What is not merged. All other keywords only describe: there the first word counts."""


def _list(value: Any) -> list[Any]:
    return value if is_list(value) else []


def _object(value: Any) -> Schema:
    return value if is_object(value) else {}
