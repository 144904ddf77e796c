"""What is to be written down: every type of the wire with its fields, in one plain form.

The JSON Schema, the TypeScript, the AsyncAPI document and the Markdown tables are four renderings of this. Nothing
is listed twice: the unions of ``events``, ``control`` and ``commands`` say what frames there are, ``resources`` what
HTTP has beside them, and what all these are made of is found from there.

Whether null may stand in a field depends on who sends it. What the server sends leaves optional fields out, so null
there is a value with a meaning. What a client sends may have null for any optional field, and it equals absence.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

import msgspec
from msgspec import NODEFAULT, inspect

from hermes_ws.errors import CommandCode, RunCode
from hermes_ws.protocol import resources, values
from hermes_ws.protocol.commands import Command
from hermes_ws.protocol.control import Control
from hermes_ws.protocol.events import Event
from hermes_ws.protocol.schema import docstrings

__all__ = ["Definition", "Field", "Kind", "Named", "definitions", "describe", "named", "named_as"]

Kind = Literal["event", "control", "command", "resource", "value"]


@dataclass(frozen=True)
class Field:
    """One field as it stands on the wire. ``type`` is without null; ``nullable`` says that null may stand there."""

    name: str
    type: inspect.Type
    required: bool
    nullable: bool
    doc: str


@dataclass(frozen=True)
class Definition:
    """One object of the wire. ``closed``: a field that is not listed is refused."""

    name: str
    kind: Kind
    doc: str
    tag: str | None
    fields: tuple[Field, ...]
    closed: bool


@dataclass(frozen=True)
class Named:
    """A type that is not an object but has a name of its own, such as ``Role`` or ``Input``."""

    name: str
    type: inspect.Type
    doc: str


_RESOURCES: Final[tuple[type[msgspec.Struct], ...]] = tuple(getattr(resources, name) for name in resources.__all__)
_ROOTS: Final[dict[Kind, tuple[type[msgspec.Struct], ...]]] = {
    "event": get_args(Event),
    "control": get_args(Control),
    "command": get_args(Command),
    "resource": _RESOURCES,
}
_FROM_CLIENTS: Final = (*get_args(Command), resources.TicketRequest)


@functools.cache
def definitions() -> tuple[Definition, ...]:
    """Every object of the wire: frames in the order of their unions, then bodies and values by name."""
    roots: list[tuple[type[msgspec.Struct], Kind]] = [
        (cls, kind) for kind, classes in _ROOTS.items() for cls in classes
    ]
    parts = set(_parts(cls for cls, _ in roots)).difference(cls for cls, _ in roots)
    by_name = sorted(parts, key=lambda cls: cls.__name__)
    return (*(describe(cls, kind) for cls, kind in roots), *(describe(cls, "value") for cls in by_name))


@functools.cache
def named() -> tuple[Named, ...]:
    """The named types of ``values`` that are not objects, and the closed lists of error codes."""
    there = ((name, getattr(values, name)) for name in values.__all__)
    aliases = {name: alias for name, alias in there if not isinstance(alias, type)}
    return (
        Named("CommandCode", inspect.type_info(CommandCode), "Why a command was refused."),
        Named("RunCode", inspect.type_info(RunCode), "Why a run failed."),
        *(Named(n, inspect.type_info(a), docstrings.of_name("values", n)) for n, a in aliases.items()),
    )


def named_as(type_: inspect.Type) -> str | None:
    """The name of this very type, if it has one."""
    return next((alias.name for alias in named() if alias.type == type_), None)


def describe(cls: type[msgspec.Struct], kind: Kind) -> Definition:
    """One type as it is written down. Raises ``TypeError`` if it has a default that would never be sent."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    from_client = cls in _from_clients()
    fields = tuple(_field(cls, field, from_client=from_client) for field in info.fields)
    tag = None if info.tag is None else str(info.tag)
    return Definition(cls.__name__, kind, docstrings.of_class(cls), tag, fields, info.forbid_unknown_fields)


def _field(cls: type, field: inspect.Field, *, from_client: bool) -> Field:
    # A factory's result is always written, a plain default never: see `omit_defaults`.
    required = field.required or field.default_factory is not NODEFAULT
    if not required and field.default is not None:
        raise TypeError(f"{cls.__name__}.{field.name}: the default is left off the wire, so it must be None")
    bare = _without_null(field.type)
    nullable = bare is not field.type and (required or from_client)
    return Field(field.encode_name, bare, required, nullable, docstrings.of_field(cls, field.name))


def _without_null(type_: inspect.Type) -> inspect.Type:
    if not isinstance(type_, inspect.UnionType) or not type_.includes_none:
        return type_
    rest = tuple(branch for branch in type_.types if not isinstance(branch, inspect.NoneType))
    return rest[0] if len(rest) == 1 else inspect.UnionType(rest)


def _parts(roots: Iterable[type[msgspec.Struct]]) -> Iterator[type[msgspec.Struct]]:
    """All objects of ``values``, and what the roots bring along."""
    there = (getattr(values, name) for name in values.__all__)
    yield from (cls for cls in there if isinstance(cls, type) and cls is not values.Value)
    yield from (part for cls in roots for part in _reachable(cls))


@functools.cache
def _from_clients() -> frozenset[type]:
    return frozenset(part for cls in _FROM_CLIENTS for part in _reachable(cls))


def _reachable(cls: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """``cls`` and every object in its fields. No type of the wire contains itself."""
    yield from _structs(inspect.type_info(cls))


def _structs(type_: inspect.Type) -> Iterator[type[msgspec.Struct]]:
    match type_:
        case inspect.StructType():
            yield type_.cls
            for field in type_.fields:
                yield from _structs(field.type)
        case inspect.UnionType():
            for branch in type_.types:
                yield from _structs(branch)
        case inspect.ListType():
            yield from _structs(type_.item_type)
        case inspect.DictType():
            yield from _structs(type_.value_type)
        case _:
            return
