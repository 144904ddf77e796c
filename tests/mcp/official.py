"""An MCP server on the official SDK: a small CRM that does one of everything a client has to cope with.

``python -m tests.mcp.official --stdio``, or without it over HTTP on a free port, which is printed: streamable HTTP at
``/mcp``, the old SSE at ``/sse``, side routes as of ``witness.py``. It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server import lowlevel, runner
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from starlette.types import ASGIApp

from tests.mcp.official_tools import Crm
from tests.mcp.witness import Witness, WitnessApp

__all__ = ["build", "http_app", "main"]


class PerToken:
    """Tools that only one token is shown. A cached list of somebody else's shows."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        extra = self._witness.tenant(authorization_of(ctx)).extra_tools
        name = (ctx.params or {}).get("name")
        if ctx.method == "tools/call" and name in extra:
            return types.CallToolResult(content=[types.TextContent(text=f"{name} at your service")])
        result = await call_next(ctx)
        if ctx.method == "tools/list":
            return with_tools(result, extra)
        return announcing(result) if ctx.method == "initialize" else result


class StdioRecord:
    """What HTTP's witness notes of every message, where there is no HTTP."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        params = ctx.params or {}
        self._witness.note(
            "message",
            method=ctx.method,
            id=ctx.request_id,
            tool=params.get("name"),
            arguments=params.get("arguments"),
            meta=params.get("_meta"),
        )
        return await call_next(ctx)


class Older:
    """A server from before 2026: it cannot be discovered, so clients shake hands with it as they used to."""

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method == "server/discover":
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found")
        return await call_next(ctx)


def authorization_of(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """The header of the HTTP request that carries the message; None over stdio."""
    return ctx.request.headers.get("authorization") if ctx.request is not None else None


def plain(result: HandlerResult) -> dict[str, Any]:
    """A result as it goes on the wire."""
    if isinstance(result, dict):
        return dict(result)
    assert result is not None
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


def with_tools(result: HandlerResult, names: list[str]) -> dict[str, Any]:
    """A tool list with simple read-only tools added."""
    wire = plain(result)
    annotations = {"readOnlyHint": True}
    added = [{"name": name, "inputSchema": {"type": "object"}, "annotations": annotations} for name in names]
    return wire | {"tools": [*wire["tools"], *added]}


def announcing(result: HandlerResult) -> dict[str, Any]:
    """The answer to ``initialize``, saying that the tool list may change. The SDK's high-level server never says so."""
    wire = plain(result)
    return wire | {"capabilities": wire["capabilities"] | {"tools": {"listChanged": True}}}


def build(witness: Witness, *, stdio: bool, older: bool = False) -> MCPServer[Any]:
    """The server with all its tools, resources and prompts."""
    middleware: list[Any] = [*([StdioRecord(witness)] if stdio else []), *([Older()] if older else [])]
    server: MCPServer[Any] = MCPServer(
        "official",
        title="A small CRM",
        instructions="Find a customer before you write about one.",
        version="1.2.3",
        log_level="CRITICAL",
        middleware=[*middleware, PerToken(witness)],
    )
    Crm(server, witness).register()
    return server


def http_app(witness: Witness, *, json_response: bool = False, older: bool = False) -> ASGIApp:
    """Both HTTP transports under one roof, with the witness at the door."""
    server = build(witness, stdio=False, older=older)
    app = server.streamable_http_app(json_response=json_response)
    app.router.routes.extend(server.sse_app().routes)
    return WitnessApp(app, witness)


def serve_http(witness: Witness, port: int, *, json_response: bool, older: bool) -> None:
    """Serve until standard input ends. The port is the first line on standard output."""
    listening = socket.create_server(("127.0.0.1", port))
    app = http_app(witness, json_response=json_response, older=older)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none", access_log=False))
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    server.run(sockets=[listening])


def _leave_with_parent() -> None:
    """Open streams do not keep it: who started this process is gone, or done with it."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stdio", action="store_true", help="speak over standard input and output")
    parser.add_argument("--port", type=int, default=0, help="where HTTP listens; 0 is any free port")
    parser.add_argument("--json", action="store_true", help="answer POSTs as JSON instead of as a stream")
    parser.add_argument("--older", action="store_true", help="speak only what was spoken before 2026")
    parser.add_argument("--record", type=Path, help="a file that takes what was seen, one JSON object a line")
    given = parser.parse_args()
    if given.older:
        lowlevel.server.serve_dual_era_loop = runner.serve_loop  # type: ignore[attr-defined]
    witness = Witness(given.record)
    if given.stdio:
        anyio.run(build(witness, stdio=True, older=given.older).run_stdio_async)
    else:
        serve_http(witness, given.port, json_response=given.json, older=given.older)


if __name__ == "__main__":
    main()
