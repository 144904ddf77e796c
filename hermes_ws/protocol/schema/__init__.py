"""The protocol written down for other languages: JSON Schema, AsyncAPI, TypeScript, Markdown.

The types are the source; what is made of them here is kept in ``schemas/`` and compared by a test, served by every
server, and named in ``hello`` by its hash. ``model`` reads the types and their documentation; ``json_schema``,
``asyncapi``, ``typescript`` and ``markdown`` each render it.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from hermes_ws.protocol import PROTOCOL
from hermes_ws.protocol.schema.asyncapi import asyncapi
from hermes_ws.protocol.schema.json_schema import json_schema
from hermes_ws.protocol.schema.markdown import markdown
from hermes_ws.protocol.schema.typescript import typescript

__all__ = ["JSON_SCHEMA", "check", "documents", "sha256", "write"]

JSON_SCHEMA: Final = f"{PROTOCOL}.schema.json"
"""File name of the JSON Schema."""


def documents() -> dict[str, bytes]:
    """File names and what they contain. The same types give the same bytes."""
    return dict(_documents())


@functools.cache
def sha256() -> str:
    """Hex SHA-256 of the JSON Schema's bytes, as ``hello.schema.sha256`` has it."""
    return hashlib.sha256(_json_schema()).hexdigest()


def write(directory: Path, beside: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Write every document into ``directory``, which is made if need be, and what is kept ``beside`` them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in (documents() | {**beside}).items():
        (directory / name).write_bytes(content)


def check(directory: Path, beside: Mapping[str, bytes] = MappingProxyType({})) -> str:
    """How the documents in ``directory`` differ from what the types say, as a unified diff; empty if they agree."""
    return "".join(_diff(directory / name, content) for name, content in (documents() | {**beside}).items())


@functools.cache
def _documents() -> tuple[tuple[str, bytes], ...]:
    return (
        (JSON_SCHEMA, _json_schema()),
        ("asyncapi.json", _json(asyncapi())),
        ("frames.d.ts", typescript().encode()),
        ("reference.md", markdown().encode()),
    )


@functools.cache
def _json_schema() -> bytes:
    return _json(json_schema())


def _json(document: dict[str, Any]) -> bytes:
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode()


def _diff(path: Path, content: bytes) -> str:
    there = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(
        there.splitlines(keepends=True),
        content.decode().splitlines(keepends=True),
        fromfile=str(path),
        tofile=f"{path.name} as generated",
    )
    return "".join(lines)
