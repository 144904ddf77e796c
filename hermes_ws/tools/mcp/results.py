"""What a call of an MCP tool came to, in our terms: text for the model, images, the structured result if it is fit."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import msgspec
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import ContentPart, TextPart
from hermes_ws.tools.base import ToolContext, ToolResult
from hermes_ws.tools.mcp.offers import clean
from hermes_ws.tools.mcp.settings import McpSettings
from hermes_ws.validation import UnusableSchema, first_problem, too_deep

__all__ = ["Rendering", "tool_result"]


@dataclass(slots=True)
class Rendering:
    """Blocks of content as they become text and images."""

    ctx: ToolContext
    settings: McpSettings
    lines: list[str] = field(default_factory=list[str])
    images: list[ContentPart] = field(default_factory=list[ContentPart])

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def content(self) -> list[ContentPart] | None:
        """The text and the images as parts; None if there is nothing but text."""
        text: list[ContentPart] = [TextPart(text=self.text)] if self.text else []
        return [*text, *self.images] if self.images else None

    async def add(self, block: ContentBlock) -> None:
        """One block."""
        match block:
            case TextContent():
                self.lines.append(clean(block.text))
            case ImageContent():
                await self.add_data(block.data, block.mime_type, "image")
            case AudioContent():
                await self.add_data(block.data, block.mime_type, "audio")
            case ResourceLink():
                self.lines.append(clean(f"[resource {block.title or block.name}: {block.uri}]"))
            case EmbeddedResource():
                await self.add_resource(block.resource)

    async def add_resource(self, resource: TextResourceContents | BlobResourceContents) -> None:
        """The content of a resource."""
        if isinstance(resource, TextResourceContents):
            self.lines.append(clean(resource.text))
        else:
            await self.add_data(resource.blob, resource.mime_type or "", f"resource {clean(str(resource.uri))}")

    async def add_data(self, encoded: str, mime: str, what: str) -> None:
        """Bytes: an image is kept; of anything else the model is told that it was there."""
        if not mime.startswith("image/"):
            self.lines.append(f"[{what}: {clean(mime)[:100] or 'bytes'}, {len(encoded) * 3 // 4} bytes, not shown]")
        elif len(self.images) >= self.settings.images:
            self.lines.append(f"[{what}: left out, it is one too many]")
        else:
            try:
                self.images.append(await self.ctx.image(base64.b64decode(encoded, validate=True)))
            except (ToolError, binascii.Error, ValueError) as problem:
                self.lines.append(f"[{what}: left out, {problem}]")


async def tool_result(
    result: CallToolResult, result_schema: dict[str, Any] | None, ctx: ToolContext, settings: McpSettings
) -> ToolResult:
    """The result for the model and the log."""
    rendering = Rendering(ctx, settings)
    for block in result.content:
        await rendering.add(block)
    structured, note = _structured(result)
    if structured is not None:
        encoded = msgspec.json.encode(structured)
        if not rendering.lines:
            rendering.lines.append(encoded.decode())
        if len(encoded) > settings.structured_bytes:
            structured = None  # its text says the same, and is kept
    if result_schema is not None and not result.is_error and not note:
        structured, note = _fitting(structured, result, result_schema)
    if note:
        rendering.lines.append(f"[{note}]")
    return ToolResult(output=rendering.text, is_error=result.is_error, structured=structured, content=rendering.content)


def _structured(result: CallToolResult) -> tuple[Any, str]:
    """The structured result if it can be told, and what is wrong with it if not."""
    value = result.structured_content
    if too_deep(value):
        return None, "the structured result is nested too deeply and was left out"
    try:
        msgspec.json.encode(value)
    except (ValueError, TypeError):
        return None, "the structured result cannot be written as JSON and was left out"
    return value, ""


def _fitting(kept: Any, result: CallToolResult, schema: dict[str, Any]) -> tuple[Any, str]:
    """What is kept of the structured result, if it is what the tool promises; what is not kept is not looked at."""
    if result.structured_content is None:
        return None, "the structured result that the tool promises is missing"
    if kept is None:
        return None, ""
    try:
        problem = first_problem(schema, kept)
    except UnusableSchema as reason:
        return kept, f"the tool's result schema {reason}"
    if problem is None:
        return kept, ""
    return None, f"the structured result is not what the tool promises, at {problem.path}, and was left out"
