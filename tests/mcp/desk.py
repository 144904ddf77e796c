"""A conversation with MCP servers, as the tests drive it: settings to start a server with, configurations, outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from tests.mcp.running import OfficialServer, StdioCommand
from tests.wire import Json, Socket, soon

__all__ = [
    "ADA",
    "AUTO",
    "LOCAL",
    "NEWEST",
    "TOKEN",
    "call",
    "calls",
    "configure",
    "crm",
    "last",
    "operator_server",
    "states",
    "told",
    "tool_names",
]

TOKEN: Final = "ada"
ADA: Final[Json] = {"customers": [{"id": "c1", "name": "Ada"}, {"id": "c2", "name": "Grace"}]}
LOCAL: Final = '[mcp]\nallow = ["127.0.0.1"]\n'
"""Servers on this machine may be named by clients."""
NEWEST: Final = LOCAL + 'protocol_version = "2026-07-28"\n'
"""The same, and they are greeted in the newest protocol."""
AUTO: Final[Json] = {"approvals": {"mode": "auto"}}
"""Nobody is asked for permission."""


def crm(official: OfficialServer, token: str = TOKEN, **fields: Any) -> Json:
    """The official server, as a conversation names it; the server lets the token in."""
    if token not in official.tenants():
        official.tokens(**{token: ADA})
    return {"url": official.url, "headers": {"Authorization": f"Bearer {token}"}, **fields}


def operator_server(name: str, command: StdioCommand, **fields: Any) -> str:
    """``[mcp_servers.NAME]`` of a settings file. ``fields`` are numbers, strings and lists of them."""
    given = {"command": command.command, "args": command.args, **fields}
    lines = [f"[mcp_servers.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in given.items())]
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in command.env.items())
    return "\n".join([*lines, f"env = {{ {table} }}", "", ""])


async def configure(socket: Socket, **config: Any) -> None:
    """Change the conversation's configuration, and have seen it changed."""
    ok = await socket.ok("conversation.configure", config=config)
    await socket.until_seq(ok["at"])


def call(name: str, /, **arguments: Any) -> str:
    """A line of a script that calls a tool."""
    return f"/tool {name} {json.dumps(arguments)}"


def calls(events: Iterable[Json]) -> list[tuple[str, str]]:
    """Status and output of every call, in the order of their ends."""
    return [(e["status"], e["output"]) for e in events if e["type"] == "tool.completed"]


def last(socket: Socket) -> Json:
    """The call that ended last."""
    found: Json = socket.of("tool.completed")[-1]
    return found


def states(socket: Socket, server: str = "crm") -> list[str]:
    """What was told of a server, in order."""
    return [event["state"] for event in socket.of("mcp.status") if event["server"] == server]


async def told(socket: Socket, state: str, server: str = "crm") -> Json:
    """The newest word on a server, once it says ``state``."""
    async with soon():
        while (
            not (found := [e for e in socket.of("mcp.status") if e["server"] == server]) or found[-1]["state"] != state
        ):
            await socket.recv()
    return found[-1]


async def tool_names(socket: Socket) -> list[str]:
    """What the conversation's runs may use, qualified, the server's own left out."""
    tools = (await socket.ok("tools.list"))["tools"]
    return [f"{t['source']}/{t['name']}" for t in tools if t["source"] != "builtin"]
