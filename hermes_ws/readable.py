"""What the plain view and the console say in the same words: tools' names, news of MCP servers, forms, pages to open.

Forms come from strangers. Whatever a schema says, a field is one line of bounded length, and a name that is not a plain
word is shown as JSON, so that it can be typed as it is shown. Control characters are left to the views.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec

from hermes_ws.protocol.events import McpStatus

__all__ = [
    "Field",
    "example",
    "fields_of",
    "form_lines",
    "line_field",
    "one_line",
    "page_lines",
    "server_news",
    "tool_name",
]

FIELDS: Final = 40
"""Fields of a form that are listed; the others are counted."""
TEXT_LENGTH: Final = 300
"""Characters of what a field says of itself, and of its choices."""
EXAMPLE_LENGTH: Final = 200
"""Characters of an answer that is shown as an example."""

Kind = Literal["text", "integer", "number", "boolean", "choice", "choices", "json"]

_KINDS: Final[Mapping[Any, Kind]] = {
    None: "text",
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}
_SAID: Final[Mapping[Kind, str]] = {
    "text": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "choice": "one of",
    "choices": "several of",
    "json": "JSON",
}
_EXAMPLES: Final[Mapping[Kind, Any]] = {"text": "…", "integer": 1, "number": 0.5, "boolean": True, "json": {}}
_PLAIN_NAME: Final = re.compile(r"[\w.-]{1,100}")


class Field(NamedTuple):
    """One field of a form, as far as a person needs to know."""

    name: str
    """Its key in ``content``."""
    kind: Kind
    """What its value is; ``json`` for all that is not written in a line."""
    required: bool
    """Whether it has to be there."""
    choices: list[tuple[Any, str]]
    """For ``choice`` and ``choices``: values, each with a label."""
    notes: list[str]
    """Its format and its default, if it has them."""
    about: str
    """What it says of itself."""


def tool_name(source: str, name: str) -> str:
    """A tool's name with its source, as policies spell it: ``builtin:terminal``, ``mcp:crm/add_note``."""
    return f"{source}{'/' if source.startswith('mcp:') else ':'}{name}"


def one_line(text: str) -> str:
    """Text without its line breaks: it cannot pass for a line of ours."""
    return " ".join(text.split())


def server_news(event: McpStatus) -> str:
    """What became of an MCP server."""
    match event.state:
        case "ready":
            count = len(event.tools or [])
            state = f"is ready ({count} tool{'' if count == 1 else 's'})"
        case "failed":
            state = "failed"
        case "auth_required":
            state = "needs credentials"
        case "starting" | "stopped":
            state = f"is {event.state}"
    return f"MCP server {event.server} {state}" + (f": {one_line(event.error)}" if event.error else "")


def page_lines(url: str) -> list[str]:
    """Where a person is sent, and the whole address on a line of its own."""
    return [f"to be done in a browser, at {_host(url)}:", url]


def _host(url: str) -> str:
    """Where a browser would go: to it, a backslash is a slash."""
    try:
        return urlsplit(url.replace("\\", "/")).hostname or "this address"
    except ValueError:
        return "this address"


# -- forms ---------------------------------------------------------------------------------------------


def form_lines(schema: Mapping[str, Any]) -> list[str]:
    """A line a field."""
    fields = fields_of(schema)
    more = [f"… and {len(fields) - FIELDS} more fields"] if len(fields) > FIELDS else []
    return [*(_field_line(field) for field in fields[:FIELDS]), *more]


def example(schema: Mapping[str, Any]) -> str:
    """What an answer looks like: the fields that have to be there, or else the first."""
    fields = fields_of(schema)
    shown = [field for field in fields if field.required] or fields[:1]
    text = _json({field.name: _example(field) for field in shown})
    return text if len(text) <= EXAMPLE_LENGTH else "{…}"


def line_field(schema: Mapping[str, Any]) -> Field | None:
    """The field that a line fills in, where it is the only one and its value can be written so."""
    fields = fields_of(schema)
    return fields[0] if len(fields) == 1 and fields[0].kind != "json" else None


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """The fields of a form, whatever its schema holds."""
    required = _list(schema.get("required"))
    return [_field(name, part, name in required) for name, part in _mapping(schema.get("properties")).items()]


def _field(name: str, part: Any, required: bool) -> Field:
    schema = _without_null(_mapping(part))
    several = schema.get("type") == "array"
    choices = _choices(_mapping(schema.get("items")) if several else schema)
    kind: Kind = _KINDS.get(schema.get("type"), "json")
    if choices:
        kind = "choices" if several else "choice"
    return Field(name, kind, required, choices, _notes(schema), _about(schema, name))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that may be null, for when it is not; its type as one word."""
    types = [kind for kind in _list(schema.get("type")) if isinstance(kind, str) and kind != "null"]
    if types:
        return {**schema, "type": types[0]}
    variants = [_mapping(part) for part in _list(schema.get("anyOf"))]
    found = [part for part in variants if part.get("type") != "null" and "const" not in part]
    schema = {**(found[0] if found else {}), **schema}
    # An unhashable type is none.
    return schema if isinstance(schema.get("type"), str | None) else {**schema, "type": "object"}


def _choices(schema: dict[str, Any]) -> list[tuple[Any, str]]:
    titled = [_mapping(part) for part in _list(schema.get("oneOf")) or _list(schema.get("anyOf"))]
    if titled and all("const" in part for part in titled):
        return [(part["const"], str(part.get("title", _shown(part["const"])))) for part in titled]
    values, names = _list(schema.get("enum")), _list(schema.get("enumNames"))
    labels = [str(name) for name in names] if len(names) == len(values) else [_shown(value) for value in values]
    return list(zip(values, labels, strict=True))


def _notes(schema: dict[str, Any]) -> list[str]:
    form = [str(schema["format"])] if "format" in schema else []
    default = [f"default {_shown(schema['default'])}"] if "default" in schema else []
    return [*form, *default]


def _about(schema: dict[str, Any], name: str) -> str:
    title = str(schema.get("title", ""))
    return str(schema.get("description") or (title if title.lower() != name.lower() else ""))


def _field_line(field: Field) -> str:
    name = field.name if _PLAIN_NAME.fullmatch(field.name) else _cut(_json(field.name))
    choices = " | ".join(_choice(value, label) for value, label in field.choices)
    kind = _SAID[field.kind] + (f" {_cut(choices)}" if choices else "")
    words = [kind, *(["required"] if field.required else []), *(_cut(note) for note in field.notes)]
    return f"{name} ({', '.join(words)})" + (f": {_cut(field.about)}" if field.about else "")


def _choice(value: Any, label: str) -> str:
    return label if _shown(value) == label else f"{_shown(value)} ({label})"


def _example(field: Field) -> Any:
    if not field.choices:
        return _EXAMPLES[field.kind]
    value = field.choices[0][0]
    return [value] if field.kind == "choices" else value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _cut(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + "…"


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return list(cast("Iterable[Any]", value)) if isinstance(value, list) else []
