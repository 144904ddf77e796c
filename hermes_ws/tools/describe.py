"""How the built-in tools describe themselves: one way to write it, so that all of them look alike."""

from __future__ import annotations

from typing import Any, Final

from hermes_ws.protocol.values import Annotations, ToolDescription

__all__ = ["ACTS", "READS", "REPLACES", "SOURCE", "describe"]

SOURCE: Final = "builtin"

READS: Final = Annotations(read_only=True, idempotent=True, destructive=False)
"""Changes nothing, may be run again."""

REPLACES: Final = Annotations(read_only=False, idempotent=True, destructive=True)
"""Overwrites; running it again comes to the same."""

ACTS: Final = Annotations(read_only=False, idempotent=False, destructive=True)
"""Does something that must not be done twice."""


def describe(
    name: str,
    title: str,
    description: str,
    *,
    properties: dict[str, dict[str, Any]],
    required: list[str],
    annotations: Annotations,
) -> ToolDescription:
    """A description whose ``parameters`` take exactly ``properties``; ``required`` names those that must be there."""
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return ToolDescription(
        name=name,
        source=SOURCE,
        title=title,
        description=description,
        parameters=parameters,
        annotations=annotations,
    )
