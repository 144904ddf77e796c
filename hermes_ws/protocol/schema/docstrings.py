"""Documentation as it stands in the source: of classes, of their fields, of named types, of enum members.

Python keeps no string that follows a field, and none at all under ``-OO``, so it is read from the source, which an
installed package has beside its code. Without source the generated documents say the same, undescribed.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Final

__all__ = ["of_class", "of_field", "of_name", "read"]

_PACKAGE: Final = "hermes_ws."


def of_class(cls: type) -> str:
    """The docstring of ``cls``, on one line, in Markdown."""
    return read(cls.__module__).get(cls.__name__, "")


def of_field(cls: type, name: str) -> str:
    """What follows the field ``name`` of ``cls``, or of the base that it comes from."""
    found = (read(base.__module__).get(f"{base.__name__}.{name}") for base in cls.__mro__)
    return next((text for text in found if text), "")


def of_name(module: str, name: str) -> str:
    """What follows the named type ``name`` in a module of this package."""
    return read(f"{_PACKAGE}protocol.{module}").get(name, "")


@functools.cache
def read(module: str) -> MappingProxyType[str, str]:
    """Everything a module of this package says of its names: ``Class``, ``Class.field``, ``Name``. Kept once read."""
    if not module.startswith(_PACKAGE):
        return MappingProxyType({})
    try:
        source = inspect.getsource(importlib.import_module(module))
    except OSError:
        return MappingProxyType({})
    return MappingProxyType(dict(_entries(ast.parse(source).body)))


def _entries(body: Sequence[ast.stmt], prefix: str = "") -> Iterator[tuple[str, str]]:
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.ClassDef):
            yield statement.name, _text(statement.body[0])
            yield from _entries(statement.body, f"{statement.name}.")
        elif name := _assigned(statement):
            yield prefix + name, _text(following)


def _assigned(statement: ast.stmt) -> str:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return ""


def _text(statement: ast.stmt | None) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.replace("``", "`").split())
        case _:
            return ""
