"""The protocol as Markdown tables: every frame, value, error code and close code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from hermes_ws.errors import CommandCode, CommandError
from hermes_ws.protocol import PROTOCOL
from hermes_ws.protocol.close import CloseCode, may_retry
from hermes_ws.protocol.schema import docstrings
from hermes_ws.protocol.schema.codes import COMMAND_CODE_MEANINGS, RUN_CODE_MEANINGS
from hermes_ws.protocol.schema.json_schema import UNIONS
from hermes_ws.protocol.schema.model import Definition, Field, Kind, definitions, named
from hermes_ws.protocol.schema.notation import Notation

__all__ = ["markdown"]

_HEAD: Final = f"""\
<!-- Generated from the protocol's types by `hermes-ws schema --write`; do not edit. -->

# Reference of {PROTOCOL}

Every frame is one JSON object, told apart by `type`; fields stand in the order given here. Unknown fields and
unknown event types are to be ignored, but an unknown event's `seq` counts.

The column *required* says what null means:

| it says | what a sender may do |
| --- | --- |
| yes | always present, never null |
| yes, or null | always present; null has the meaning given, and is not the same as absence |
| no | may be absent; never null |
| no; null = absent | may be absent; null equals absence |
"""

_NOTATION: Final = Notation(anything="any", integer="integer")
_SECTIONS: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("Events", "event", UNIONS["Event"]),
    ("Control frames", "control", UNIONS["Control"]),
    ("Commands", "command", UNIONS["Command"]),
    ("HTTP bodies", "resource", "What HTTP has beside frames."),
    ("Values", "value", "What frames and bodies are made of."),
)


def markdown() -> str:
    """The whole page."""
    sections = [part for title, kind, about in _SECTIONS for part in _section(title, kind, about)]
    return "\n".join([_HEAD, *sections, _named_types(), *_codes()])


def _section(title: str, kind: Kind, about: str) -> Iterator[str]:
    yield f"## {title}\n\n{about}\n"
    yield from (_definition(d) for d in definitions() if d.kind == kind)


def _definition(definition: Definition) -> str:
    is_frame = definition.kind in ("event", "control", "command")
    rows = [_row(field) for field in definition.fields]
    if definition.tag and not is_frame:
        rows.insert(0, ("`type`", _code(f'"{definition.tag}"'), "yes", "Tells it apart."))
    closed = " A field that is not listed is refused." if definition.closed else ""
    table = _table(("field", "type", "required", "meaning"), rows) if rows else "No fields but `type`.\n"
    return f"### `{definition.tag if is_frame else definition.name}`\n\n{definition.doc}{closed}\n\n{table}"


def _row(field: Field) -> tuple[str, ...]:
    return _code(field.name), _code(_NOTATION.of(field.type)), _required(field), field.doc


def _required(field: Field) -> str:
    if field.required:
        return "yes, or null" if field.nullable else "yes"
    return "no; null = absent" if field.nullable else "no"


def _named_types() -> str:
    rows = [(_code(alias.name), _code(_NOTATION.spelled_out(alias.type)), alias.doc) for alias in named()]
    return "## Named types\n\n" + _table(("name", "type", "meaning"), rows)


def _codes() -> Iterator[str]:
    yield "## Error codes of commands\n\nIn `error.code`. The list is closed for this version of the protocol.\n"
    yield _table(("code", "retryable", "meaning"), [_command_row(*item) for item in COMMAND_CODE_MEANINGS.items()])
    yield "## Error codes of runs\n\nIn `error.code` of `run.failed`; `error.retryable` says whether to try again.\n"
    yield _table(("code", "meaning"), [(_code(code), meaning) for code, meaning in RUN_CODE_MEANINGS.items()])
    yield "## Close codes\n\nDrains also use 1012. Codes that are not listed are network weather: come back.\n"
    yield _table(("code", "name", "come back", "meaning"), [_close_row(code) for code in CloseCode])


def _command_row(code: CommandCode, meaning: str) -> tuple[str, ...]:
    return _code(code), _yes_no(CommandError(code, "").retryable), meaning


def _close_row(code: CloseCode) -> tuple[str, ...]:
    meaning = docstrings.of_field(CloseCode, code.name)
    return str(code.value), _code(code.name.lower()), _yes_no(may_retry(code)), meaning


def _yes_no(answer: bool) -> str:
    return "yes" if answer else "no"


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; a bar inside a cell is escaped, in code too."""
    lines = (head, ("---",) * len(head), *rows)
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
