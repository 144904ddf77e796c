"""Function tools that a client executes, whoever started the run or one that is at a socket: a call is handed over,
and its result waited for.

Handing over is an interaction of the kind ``client_tool``: it is in the log, survives restarts, and can be answered
from any socket and over HTTP. The tool itself does nothing, so a call that a crash cut off is made again, and finds its
question open or answered.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hermes_ws.decisions import Ask
from hermes_ws.protocol.commands import ClientTool
from hermes_ws.protocol.values import Annotations, ContentPart, InteractionTool, Owner, ToolDescription
from hermes_ws.tools.base import NobodyAnswered, Tool, ToolContext, ToolResult

__all__ = ["ClientFunction", "handed_over", "is_brought"]

_REPEATABLE: Final = Annotations(read_only=False, idempotent=True, destructive=False)
"""Handed over twice, a call is still one call."""
_NO_PARAMETERS: Final[dict[str, Any]] = {"type": "object", "properties": {}}
_RESULT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "output": {"type": "string", "description": "What the call came to, for the model."},
        "is_error": {"type": "boolean", "description": "Whether it failed."},
        "content": {"type": "array", "description": "The result as parts, where it has images."},
    },
    "required": ["output"],
}
"""JSON Schema of the ``content`` of a reply."""


class _Result(msgspec.Struct):
    output: str
    is_error: bool = False
    content: list[ContentPart] | None = None


class ClientFunction:
    """See the top of the module."""

    def __init__(self, tool: ClientTool, owner: Owner | None = None) -> None:
        """``owner``: the client that executes it; None: whoever started the run."""
        self.owner = owner
        self.description = ToolDescription(
            name=tool.name,
            source="client",
            title=tool.name,
            description=tool.description or "",
            parameters=tool.parameters or _NO_PARAMETERS,
            annotations=_REPEATABLE,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        try:
            answer = await ctx.hand_over(self.description, arguments, self.owner)
            result = msgspec.convert(answer, _Result)
        except NobodyAnswered as why:
            return ToolResult(output=f"The client did not execute this: {why}.", is_error=True)
        except msgspec.ValidationError as problem:
            return ToolResult(output=f"What the client answered cannot be read: {problem}.", is_error=True)
        return ToolResult(output=result.output, is_error=result.is_error, content=result.content)


def is_brought(tool: Tool) -> bool:
    """Whether it is a function that whoever started the run brought along, and executes."""
    return isinstance(tool, ClientFunction) and tool.owner is None


def handed_over(tool: ToolDescription, arguments: dict[str, Any], call_id: str, owner: Owner | None) -> Ask:
    """The call as a question to whoever executes it."""
    executor = "the client" if owner is None else owner.name or owner.client_id
    return Ask(
        kind="client_tool",
        title=f"Execute {tool.name}",
        message=f"The agent has called {tool.name}, which {executor} executes.",
        call_id=call_id,
        tool=InteractionTool(call_id=call_id, name=tool.name, source=tool.source, arguments=arguments, risk="low"),
        schema=_RESULT,
        owner=owner,
    )
