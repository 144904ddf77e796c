"""Tools of MCP servers, as tools like any other; resources and prompts are reached by tools of ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import ToolDescription
from hermes_ws.tools.base import NobodyAnswered, Tool, ToolContext, ToolResult
from hermes_ws.tools.describe import ACTS, READS, describe
from hermes_ws.tools.mcp.servers import ConversationServers

if TYPE_CHECKING:
    from mcp_types import Prompt

    from hermes_ws.tools.mcp.connection import Connection
    from hermes_ws.tools.mcp.offers import Offer

__all__ = ["mcp_tools"]

_LISTED: Final = 500

Scrub = Callable[[bytes], bytes]


def mcp_tools(servers: ConversationServers, connection: Connection, scrub: Scrub) -> list[Tool]:
    """The tools of a server that is there. ``scrub`` takes known secrets out of what it says of them."""
    server, offers = connection.target.server, connection.offers.tools
    place = connection.target.place
    own: list[Tool] = [_McpTool(servers, server, place, offer, scrub) for offer in offers.values()]
    return [*own, *(tool for tool in _reaching(servers, connection) if tool.description.name not in offers)]


class _McpTool:
    def __init__(self, servers: ConversationServers, server: str, place: str, offer: Offer, scrub: Scrub) -> None:
        encoded = scrub(msgspec.json.encode(offer.description))
        self.description: ToolDescription = msgspec.json.decode(encoded, type=ToolDescription)
        self._servers = servers
        self._server = server
        self._place = place
        self._name = offer.description.name
        self._result_schema = offer.result_schema

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        from hermes_ws.tools.mcp.results import tool_result

        async def work(connection: Connection) -> Any:
            meta = _meta(ctx) if connection.target.meta else None
            return await connection.call_tool(self._name, arguments, ctx, meta)

        result = await _used(self._servers, self._server, self._place, ctx, work)
        rendered = await tool_result(result, self._result_schema, ctx, self._servers.settings)
        note = self._servers.note(self._server)
        return rendered if note is None else msgspec.structs.replace(rendered, output=f"{note}\n{rendered.output}")


async def _used(
    servers: ConversationServers,
    server: str,
    place: str,
    ctx: ToolContext,
    work: Callable[[Connection], Awaitable[Any]],
) -> Any:
    try:
        return await servers.use(server, ctx, work, place)
    except NobodyAnswered as why:
        raise ToolError(f"the MCP server {server} asked something, and {why}") from None


def _meta(ctx: ToolContext) -> dict[str, Any]:
    """What a server that may know is told of who asks."""
    return {
        "hermes-ws/principal": ctx.principal,
        "hermes-ws/conversation_id": ctx.conversation_id,
        "hermes-ws/run_id": ctx.run_id,
        "hermes-ws/metadata": ctx.metadata,
    }


# -- resources and prompts -----------------------------------------------------------------------------


def _reaching(servers: ConversationServers, connection: Connection) -> list[Tool]:
    """Tools that reach what the server offers beside tools."""
    serves, server, place = connection.serves, connection.target.server, connection.target.place
    found: list[Tool] = []
    if serves is not None and serves.resources is not None:
        found += [_ListResources(servers, server, place), _ReadResource(servers, server, place)]
    if serves is not None and serves.prompts is not None:
        found += [_ListPrompts(servers, server, place), _GetPrompt(servers, server, place)]
    return found


class _Reaching(ABC):
    """What the four of them share."""

    def __init__(self, servers: ConversationServers, server: str, place: str) -> None:
        self._servers = servers
        self._server = server
        self._place = place
        described = self.describe(server)
        trusted = servers.settings.trust_annotations
        self.description = described if trusted else msgspec.structs.replace(described, annotations=ACTS)

    @abstractmethod
    def describe(self, server: str) -> ToolDescription:
        """What it is called, and takes."""

    @abstractmethod
    async def do(self, connection: Connection, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        """Have the server asked."""

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        result: ToolResult = await _used(
            self._servers, self._server, self._place, ctx, lambda connection: self.do(connection, ctx, arguments)
        )
        return result


def _described(server: str, name: str, title: str, text: str, **fields: Any) -> ToolDescription:
    given: dict[str, dict[str, Any]] = fields.get("properties", {})
    described = describe(name, title, text, properties=given, required=fields.get("required", []), annotations=READS)
    return msgspec.structs.replace(described, source=f"mcp:{server}")


class _ListResources(_Reaching):
    def describe(self, server: str) -> ToolDescription:
        return _described(
            server, "list_resources", f"Resources of {server}", f"List what the MCP server {server} has to read."
        )

    async def do(self, connection: Connection, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        from mcp.shared.exceptions import MCPError

        lines: list[str] = []

        async def listing(client: Any, _: Any) -> None:
            for resource in (await client.list_resources()).resources[:_LISTED]:
                lines.append(_line(resource.uri, resource.name, resource.description))
            with suppress(MCPError):  # many have no templates, and no list of them
                for template in (await client.list_resource_templates()).resource_templates[:_LISTED]:
                    lines.append(_line(template.uri_template, template.name, template.description))

        await connection.exchange(ctx, listing)
        return ToolResult(output="\n".join(lines) or "There are none.")


class _ReadResource(_Reaching):
    def describe(self, server: str) -> ToolDescription:
        uri = {"type": "string", "minLength": 1, "description": "As list_resources shows it, templates filled in."}
        return _described(
            server,
            "read_resource",
            f"Read of {server}",
            f"Read a resource of the MCP server {server}.",
            properties={"uri": uri},
            required=["uri"],
        )

    async def do(self, connection: Connection, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        from hermes_ws.tools.mcp.results import Rendering

        read = await connection.exchange(ctx, lambda client, _: client.read_resource(arguments["uri"]))
        rendering = Rendering(ctx, self._servers.settings)
        for content in read.contents:
            await rendering.add_resource(content)
        return ToolResult(output=rendering.text, content=rendering.content)


class _ListPrompts(_Reaching):
    def describe(self, server: str) -> ToolDescription:
        return _described(
            server, "list_prompts", f"Prompts of {server}", f"List the prompts that the MCP server {server} has ready."
        )

    async def do(self, connection: Connection, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        listed = await connection.exchange(ctx, lambda client, _: client.list_prompts())
        lines = [_prompt_line(prompt) for prompt in listed.prompts[:_LISTED]]
        return ToolResult(output="\n".join(lines) or "There are none.")


class _GetPrompt(_Reaching):
    def describe(self, server: str) -> ToolDescription:
        values = {"type": "object", "additionalProperties": {"type": "string"}, "description": "Its arguments."}
        return _described(
            server,
            "get_prompt",
            f"Prompt of {server}",
            f"Get a prompt of the MCP server {server}, filled in.",
            properties={"name": {"type": "string", "minLength": 1}, "arguments": values},
            required=["name"],
        )

    async def do(self, connection: Connection, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        from hermes_ws.tools.mcp.results import Rendering

        name, values = arguments["name"], arguments.get("arguments")
        prompt = await connection.exchange(ctx, lambda client, _: client.get_prompt(name, values))
        rendering = Rendering(ctx, self._servers.settings)
        for message in prompt.messages:
            rendering.lines.append(f"{message.role}:")
            await rendering.add(message.content)
        return ToolResult(output=rendering.text, content=rendering.content)


def _line(address: str, name: str, description: str | None) -> str:
    return f"{address}  {name}{f': {description}' if description else ''}"


def _prompt_line(prompt: Prompt) -> str:
    taken = ", ".join(f"{one.name}{'' if one.required else '?'}" for one in prompt.arguments or [])
    return _line(f"{prompt.name}({taken})", prompt.title or "", prompt.description)
