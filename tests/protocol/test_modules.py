"""What the protocol's modules say they export is what they define."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator

import pytest

import hermes_ws.protocol as protocol
from hermes_ws import errors

MODULES = [
    "hermes_ws.errors",
    protocol.__name__,
    *(found.name for found in pkgutil.walk_packages(protocol.__path__, f"{protocol.__name__}.")),
]
ALLOWED = {"hermes_ws", "msgspec"}
NO_IO = {"asyncio", "http", "multiprocessing", "os", "queue", "select", "selectors", "socket", "ssl", "subprocess"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_exports_exactly_its_public_names_sorted(name: str) -> None:
    module = importlib.import_module(name)
    public = {found for found in defined(tree(name)) if not found.startswith("_")}
    exported = [found for found in module.__all__ if found in public]
    assert public <= set(module.__all__)
    assert module.__all__ == sorted(module.__all__, key=export_order)
    assert [found for found in module.__all__ if not hasattr(module, found)] == []
    assert len(exported) == len(public)


def defined(module: ast.Module) -> Iterator[str]:
    """Classes, functions and assigned names at the top of a module."""
    for statement in module.body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield name


def export_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: the order that the linter keeps."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", MODULES)
def test_the_protocol_imports_itself_the_errors_msgspec_and_no_io(name: str) -> None:
    imported = set(imports(tree(name)))
    tops = {module.partition(".")[0] for module in imported}
    assert not tops & NO_IO
    assert {top for top in tops if top not in sys.stdlib_module_names} <= ALLOWED
    ours = {module for module in imported if module.startswith("hermes_ws")}
    assert {module for module in ours if not module.startswith((protocol.__name__, errors.__name__))} == set()


def imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield str(node.module)


def tree(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(name)))
