"""What a server offers, as far as it is fit to be offered on: pure; nothing that a server says is taken on trust."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from mcp_types import Tool as OfferedTool

from hermes_ws.protocol.values import Annotations, ToolDescription
from hermes_ws.tools.mcp.settings import McpSettings
from hermes_ws.validation import UnusableSchema, first_problem, too_deep

__all__ = ["Offer", "Offers", "clean", "gathered"]

_NAME: Final = re.compile(r"[!-9;-~]{1,128}")
"""Visible ASCII but for the colon, which stands between a source and a name."""
_UNTRUSTED: Final = Annotations(read_only=False, idempotent=False, destructive=True)
_TITLE_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Offer:
    """One tool of a server. ``result_schema``: what it says of its structured results."""

    description: ToolDescription
    result_schema: dict[str, Any] | None = None


@dataclass(slots=True)
class Offers:
    """A server's tools by name, and how many were left out, each with the reason."""

    tools: dict[str, Offer] = field(default_factory=dict[str, Offer])
    left_out: list[str] = field(default_factory=list[str])


def gathered(server: str, offered: Iterable[OfferedTool], settings: McpSettings, scrub: Callable[[str], str]) -> Offers:
    """The tools that can be offered on; the first of a name counts. ``scrub`` takes secrets out of a text."""
    offers, weight = Offers(), 0
    for tool in offered:
        named = scrub(tool.name) == tool.name
        offer = _offer(server, tool, settings, scrub) if named else "a tool named like a secret"
        if isinstance(offer, str):
            offers.left_out.append(offer)
            continue
        size = len(msgspec.json.encode([offer.description, offer.result_schema]))
        name = offer.description.name
        if name in offers.tools:
            offers.left_out.append(f"{name}: there are two of that name")
        elif size > settings.schema_bytes:
            offers.left_out.append(f"{name}: its description is larger than mcp.schema_bytes")
        elif weight + size > settings.list_bytes:
            offers.left_out.append(f"{name}: the list is larger than mcp.list_bytes")
        elif len(offers.tools) >= settings.tools:
            offers.left_out.append(f"{name}: there are more than mcp.tools")
        else:
            offers.tools[name] = offer
            weight += size
    return offers


def _offer(server: str, tool: OfferedTool, settings: McpSettings, scrub: Callable[[str], str]) -> Offer | str:
    """The tool, or why not."""
    if not _NAME.fullmatch(tool.name):
        return "a tool whose name is no name"
    schema = {"type": "object", **tool.input_schema}
    if too_deep(schema) or too_deep(tool.output_schema):
        return f"{tool.name}: its schema is nested too deeply"
    try:
        first_problem(schema, {})
    except UnusableSchema as reason:
        return f"{tool.name}: its schema {reason}"
    hints = tool.annotations
    title = tool.title or (hints.title if hints else None) or tool.name
    description = ToolDescription(
        name=tool.name,
        source=f"mcp:{server}",
        title=scrub(clean(title))[:_TITLE_LENGTH],
        description=clean(tool.description or ""),
        parameters=schema,
        annotations=_annotations(tool) if settings.trust_annotations else _UNTRUSTED,
    )
    try:
        msgspec.json.encode([schema, tool.output_schema])
    except (ValueError, TypeError, RecursionError):  # half a surrogate pair, or a number that is none
        return f"{tool.name}: its schema is no JSON"
    return Offer(description, tool.output_schema)


def _annotations(tool: OfferedTool) -> Annotations:
    """What the tool says of itself. What it does not say is taken as the specification does: it writes, it destroys."""
    hints = tool.annotations
    if hints is None:
        return _UNTRUSTED
    read_only = hints.read_only_hint is True
    return Annotations(
        read_only=read_only,
        idempotent=read_only or hints.idempotent_hint is True,
        destructive=not read_only and hints.destructive_hint is not False,
    )


def clean(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()
