"""The protocol as TypeScript declarations: interfaces, literal unions, and unions told apart by ``type``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Final

from hermes_ws.protocol import PROTOCOL
from hermes_ws.protocol.schema.json_schema import UNIONS
from hermes_ws.protocol.schema.model import Definition, Field, Kind, definitions, named
from hermes_ws.protocol.schema.notation import Notation

__all__ = ["typescript"]

_HEAD: Final = f"""\
// Frames of the {PROTOCOL} protocol. Generated from the protocol's types; do not edit.
//
// A server leaves optional fields out and never sends null for them; null in a required field has a meaning of its
// own. In a command, null in an optional field equals absence, except inside `conversation.configure`'s merge patch.
// An event of a type that is not listed here must be ignored, but its `seq` counts.
"""

_TAIL: Final = """\
/** Any frame, in either direction. */
export type Frame = ServerFrame | Command;

/** The frame of a type: `FrameOf<"run.started">` is `RunStarted`. */
export type FrameOf<T extends Frame["type"]> = Extract<Frame, { type: T }>;
"""

_NOTATION: Final = Notation()
_KINDS: Final[dict[str, Kind]] = {"Event": "event", "Control": "control", "Command": "command"}


def typescript() -> str:
    """The whole declaration file."""
    return "\n".join([_HEAD, *_named(), *(_interface(d) for d in definitions()), *_unions(), _TAIL])


def _named() -> Iterator[str]:
    for alias in named():
        yield f"{_comment(alias.doc)}export type {alias.name} = {_NOTATION.spelled_out(alias.type)};\n"


def _unions() -> Iterator[str]:
    for name, kind in _KINDS.items():
        yield _union(name, [d.name for d in definitions() if d.kind == kind])
    yield _union("ServerFrame", ["Event", "Control"])


def _union(name: str, members: list[str]) -> str:
    lines = "".join(f"\n  | {member}" for member in members)
    return f"{_comment(UNIONS[name])}export type {name} ={lines};\n"


def _interface(definition: Definition) -> str:
    tag = f"  type: {json.dumps(definition.tag)};\n" if definition.tag else ""
    fields = "".join(_field(field) for field in definition.fields)
    return f"{_comment(definition.doc)}export interface {definition.name} {{\n{tag}{fields}}}\n"


def _field(field: Field) -> str:
    null = " | null" if field.nullable else ""
    optional = "" if field.required else "?"
    return f"{_comment(field.doc, '  ')}  {field.name}{optional}: {_NOTATION.of(field.type)}{null};\n"


def _comment(text: str, indent: str = "") -> str:
    """A doc comment: on one line if it fits. No text, no comment."""
    if not text:
        return ""
    safe = text.replace("*/", "*\\/")
    if len(indent) + len(safe) <= 100:
        return f"{indent}/** {safe} */\n"
    lines = textwrap.wrap(safe, 100 - len(indent), break_long_words=False, break_on_hyphens=False)
    body = "".join(f"{indent} * {line}\n" for line in lines)
    return f"{indent}/**\n{body}{indent} */\n"
