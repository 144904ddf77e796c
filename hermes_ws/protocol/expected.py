"""What would have been right: the closed list of values or fields that a type has at a JSON path.

Decoder messages say what is wrong and where (``Invalid enum value 'x' - at `$.mode```) but not what could
stand there. Looked up only when a message is written, so it may take its time.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import inspect

__all__ = ["known_fields", "known_values"]

_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?:\d+|\.\.\.)\]")


def known_values(root: Any, path: str) -> tuple[str, ...]:
    """The values that ``root`` allows at ``path``, if only some; tags of a tagged union included."""
    found = (value for type_ in _at(root, path) for value in _literals(type_))
    return tuple(dict.fromkeys(found))


def known_fields(root: Any, path: str) -> tuple[str, ...]:
    """The fields that an object may have at ``path`` of ``root``."""
    objects = (type_ for type_ in _at(root, path) if isinstance(type_, inspect.StructType))
    return tuple(dict.fromkeys(field.encode_name for type_ in objects for field in type_.fields))


def _at(root: Any, path: str) -> tuple[inspect.Type, ...]:
    here = _branches(inspect.type_info(root))
    for step in _STEP.finditer(path):
        here = tuple(part for type_ in here for part in _into(type_, step["name"]))
    return here


def _into(type_: inspect.Type, name: str | None) -> tuple[inspect.Type, ...]:
    """One step down: into a field, or (``name`` is None) into an element or a value."""
    match type_:
        case inspect.StructType() if name is not None and name == type_.tag_field:
            return (inspect.LiteralType((type_.tag,)),)
        case inspect.StructType():
            return tuple(b for f in type_.fields if f.encode_name == name for b in _branches(f.type))
        case inspect.ListType() if name is None:
            return _branches(type_.item_type)
        case inspect.DictType() if name is None:
            return _branches(type_.value_type)
        case _:
            return ()


def _branches(type_: inspect.Type) -> tuple[inspect.Type, ...]:
    return type_.types if isinstance(type_, inspect.UnionType) else (type_,)


def _literals(type_: inspect.Type) -> tuple[str, ...]:
    return tuple(str(value) for value in type_.values) if isinstance(type_, inspect.LiteralType) else ()
