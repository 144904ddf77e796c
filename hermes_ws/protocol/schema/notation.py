"""A type on one line, as TypeScript writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from msgspec import inspect

from hermes_ws.protocol.schema.model import named_as

__all__ = ["Notation"]


@dataclass(frozen=True)
class Notation:
    """How types are written. The reader of a table wants to know an integer, TypeScript has none."""

    anything: str = "unknown"
    integer: str = "number"

    def of(self, type_: inspect.Type) -> str:
        """The type's name if it has one, else what it is."""
        return named_as(type_) or self.spelled_out(type_)

    def spelled_out(self, type_: inspect.Type) -> str:
        """What the type is, even if it has a name."""
        match type_:
            case inspect.AnyType():
                return self.anything
            case inspect.BoolType():
                return "boolean"
            case inspect.IntType():
                return self.integer
            case inspect.FloatType():
                return "number"
            case inspect.StrType():
                return "string"
            case inspect.LiteralType():
                return " | ".join(json.dumps(value) for value in type_.values)
            case inspect.StructType():
                return type_.cls.__name__
            case inspect.RawType():  # only frames travel ready-made
                return "ServerFrame"
            case _:
                return self._compound(type_)

    def _compound(self, type_: inspect.Type) -> str:
        match type_:
            case inspect.ListType():
                return f"Array<{self.of(type_.item_type)}>"
            case inspect.DictType():
                return f"Record<string, {self.of(type_.value_type)}>"
            case inspect.UnionType():
                return " | ".join(self.of(branch) for branch in type_.types)
            case _:
                raise TypeError(f"no notation for {type_!r}")
