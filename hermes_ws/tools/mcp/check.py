"""Is an MCP server of the operator's there: for ``hermes-ws doctor``."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import Any

import anyio

from hermes_ws.findings import Finding, Level
from hermes_ws.protocol.values import McpServerConfig
from hermes_ws.tools.mcp.pool import process_mark
from hermes_ws.tools.mcp.settings import McpSettings, OperatorServer
from hermes_ws.tools.mcp.target import resolve_target

__all__ = ["check_server"]


async def check_server(name: str, server: OperatorServer, settings: McpSettings) -> list[Finding]:
    """Start it as for a conversation without variables of its own, list its tools, and let go of it."""
    found: list[Finding] = []
    module = import_module("hermes_ws.tools.mcp.connection")
    with tempfile.TemporaryDirectory(prefix="hermes-ws-doctor-") as workdir:
        target = resolve_target(
            name,
            McpServerConfig(ref=name),
            {},
            operator={name: server},
            settings=settings,
            workdir=Path(workdir),
        )
        mark = process_mark("doctor", token_hex(16))
        connection: Any = module.Connection(target, settings, marked=mark, changed=_ignore, scrub=str)
        async with anyio.create_task_group() as group:
            group.start_soon(connection.run)
            await connection.started()
            found.append(_found(connection, server))
            await connection.close()
    return found


def _ignore(connection: object) -> None:
    """Nobody follows it."""


def _found(connection: Any, server: OperatorServer) -> Finding:
    where = server.url or server.command or ""
    if connection.state == "ready":
        tools, left_out = len(connection.offers.tools), connection.offers.left_out
        if left_out:
            return Finding("warning", f"{where}: {tools} tools, {len(left_out)} left out: {left_out[0]}")
        return Finding("ok", f"{where}: {tools} tools")
    hint = "conversations may bring " + ", ".join(server.allow_env) if server.allow_env else ""
    if connection.state == "auth_required":
        return Finding("problem", f"{where}: {connection.error}", "mend its headers")
    level: Level = "warning" if hint else "problem"
    return Finding(level, f"{where}: {connection.error}", hint or "start it by hand and see what it says")
