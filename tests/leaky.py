"""The server with a tool and an agent that are careless with secrets: ``python -m tests.leaky serve ...``.

The tool ``leak`` and the agent ``leaky`` know what is in the file that ``HERMES_WS_TESTS_LEAK`` names. The product
knows nothing of them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import anyio

from hermes_ws.agents.base import Agent, StopReason, Turn
from hermes_ws.protocol.values import Annotations, ToolDescription
from hermes_ws.tools.base import Tool, ToolContext, ToolResult
from hermes_ws.transports import server as product

server: Any = product


def leaked() -> str:
    return Path(os.environ["HERMES_WS_TESTS_LEAK"]).read_text()


async def pieces(text: str) -> AsyncGenerator[str]:
    """A few characters at a time, slowly enough for each to be seen before the next one comes."""
    for at in range(0, len(text), 5):
        yield text[at : at + 5]
        await anyio.sleep(0.005)


class Leak:
    """Tells the secret in whichever way it is asked to."""

    description = ToolDescription(
        name="leak",
        source="builtin",
        title="Leak",
        description="Tells a secret.",
        parameters={"type": "object"},
        annotations=Annotations(read_only=True, idempotent=True, destructive=False),
    )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        secret = leaked()
        match arguments["how"]:
            case "raise":
                raise RuntimeError(f"the request with {secret} failed")
            case "ask":
                return ToolResult(output=str(await ctx.credential("crm", "Authorization")))
            case "structure":
                return ToolResult(output=f'{{"{secret[:3]}": 1}}', structured={secret: [secret, {"deep": secret}]})
            case "split":
                async for piece in pieces(f"it is {secret}, that it is"):
                    await ctx.output("stdout", piece)
            case "progress":
                await ctx.progress(1, 2, f"at {secret}")
            case _:
                await ctx.output("stderr", secret[:-5])
                await ctx.output("stdout", "in between\n")
                await ctx.output("stderr", secret[-5:] + "\n")
        return ToolResult()


class Leaky:
    """Says the secret, piece by piece, and crashes over it."""

    default_model = "leaky"

    async def run(self, turn: Turn) -> StopReason:
        async with turn.step():
            async for piece in pieces(f"I think of {leaked()} now"):
                await turn.reasoning(piece)
            async for piece in pieces(f"I say {leaked()} now"):
                await turn.text(piece)
        raise RuntimeError(f"the model refused {leaked()}")


def install() -> None:
    tools_before, agents_before = server.builtin_tools, server.make_agents

    def builtin_tools(settings: Any) -> dict[str, Tool]:
        return {**tools_before(settings), "leak": Leak()}

    def make_agents(tables: Mapping[str, dict[str, Any]]) -> dict[str, Agent]:
        return {**agents_before(tables), "leaky": Leaky()}

    server.builtin_tools = builtin_tools
    server.make_agents = make_agents


if __name__ == "__main__":
    from hermes_ws.cli import main
    from tests.faults import launch

    launch.install(dict(os.environ))
    install()
    main(prog_name="hermes-ws")
