"""What a server offers, as far as it is fit to be offered on: pure; nothing that a server says is taken on trust."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from mcp_types import Tool as OfferedTool

from hermes_ws.protocol.values import Annotations, ToolDescription
from hermes_ws.tools.mcp.settings import McpSettings
from hermes_ws.validation import UnusableSchema, first_problem, too_deep

__all__ = ["Gathering", "Offer", "Offers", "clean"]

_NAME: Final = re.compile(r"[!-9;-~]{1,128}")
"""Visible ASCII but for the colon, which stands between a source and a name."""
_UNTRUSTED: Final = Annotations(read_only=False, idempotent=False, destructive=True)
_TITLE_LENGTH: Final = 200


class _LeftOut(Exception):
    """Why a tool is not offered on."""


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


class Gathering:
    """A server's tools, looked at one by one: each takes a moment, and others are to have their turn in between."""

    def __init__(self, server: str, settings: McpSettings, scrub: Callable[[str], str]) -> None:
        """``scrub`` takes secrets out of a text."""
        self.offers = Offers()
        self._server = server
        self._settings = settings
        self._scrub = scrub
        self._weight = 0

    def add(self, tool: OfferedTool) -> None:
        """One more; the first of a name counts."""
        if len(self.offers.tools) >= self._settings.tools:
            self.offers.left_out.append("there are more than mcp.tools")
            return
        try:
            offer, size = self._offer(tool)
        except _LeftOut as why:
            self.offers.left_out.append(str(why))
        else:
            self.offers.tools[offer.description.name] = offer
            self._weight += size

    def _offer(self, tool: OfferedTool) -> tuple[Offer, int]:
        """The tool and what it weighs. Raises :class:`_LeftOut`."""
        name = tool.name
        if not _NAME.fullmatch(name):
            raise _LeftOut("a tool whose name is no name")
        if self._scrub(name) != name:
            raise _LeftOut("a tool named like a secret")
        if name in self.offers.tools:
            raise _LeftOut(f"{name}: there are two of that name")
        schema = {"type": "object", **tool.input_schema}
        if too_deep(schema) or too_deep(tool.output_schema):
            raise _LeftOut(f"{name}: its schema is nested too deeply")
        try:
            size = len(msgspec.json.encode([clean(tool.description or ""), schema, tool.output_schema]))
        except (ValueError, TypeError):  # half a surrogate pair, or a number that is none
            raise _LeftOut(f"{name}: its schema is no JSON") from None
        if size > self._settings.schema_bytes:
            raise _LeftOut(f"{name}: its description is larger than mcp.schema_bytes")
        if self._weight + size > self._settings.list_bytes:
            raise _LeftOut(f"{name}: the list is larger than mcp.list_bytes")
        try:
            first_problem(schema, {})
        except UnusableSchema as reason:
            raise _LeftOut(f"{name}: its schema {reason}") from None
        return Offer(self._described(tool, schema), tool.output_schema), size

    def _described(self, tool: OfferedTool, schema: dict[str, Any]) -> ToolDescription:
        hints = tool.annotations
        title = tool.title or (hints.title if hints else None) or tool.name
        return ToolDescription(
            name=tool.name,
            source=f"mcp:{self._server}",
            title=self._scrub(clean(title))[:_TITLE_LENGTH],
            description=clean(tool.description or ""),
            parameters=schema,
            annotations=_annotations(tool) if self._settings.trust_annotations else _UNTRUSTED,
        )


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
