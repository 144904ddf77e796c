"""Every MCP connection of the server, each for one conversation and one configuration (guarantee 11).

The key is the conversation and a digest of all that the connection depends on, headers included; a server's name alone
finds nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from hermes_ws.errors import ToolError
from hermes_ws.store.base import ConversationRef
from hermes_ws.tools.mcp.settings import McpSettings, OperatorServer
from hermes_ws.tools.mcp.target import Target

if TYPE_CHECKING:
    from hermes_ws.tools.mcp.connection import Connection

__all__ = ["Key", "McpPool", "process_mark"]

Key = tuple[ConversationRef, int, bytes]
"""Conversation, which of its lives in memory, and what the connection depends on."""


class McpPool:
    """The connections. ``spawn`` runs a task of the server's."""

    def __init__(
        self,
        settings: McpSettings,
        operator: Mapping[str, OperatorServer],
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        *,
        home: str,
    ) -> None:
        """``home`` stands for the data directory: no other server's processes have it in their marks."""
        self.settings = settings
        self.operator = operator
        self._spawn = spawn
        self._home = home
        self._connections: dict[Key, Connection] = {}
        self._closing: set[Connection] = set()

    async def connection(
        self,
        ref: ConversationRef,
        life: int,
        target: Target,
        changed: Callable[[Connection], None],
        scrub: Callable[[str], str],
    ) -> Connection:
        """The connection of this conversation to this target, opened if there is none. ``life`` tells one object in
        memory for the conversation from the next: a deleted one has nothing to do with the one that takes its id.
        ``scrub`` takes the conversation's secrets out of a text. Raises :class:`ToolError` where too many are open."""
        module = await anyio.to_thread.run_sync(import_module, "hermes_ws.tools.mcp.connection")  # it takes a while
        key = (ref, life, target.identity())
        found = self._connections.get(key)
        if found is not None and found.usable:
            return found
        self._check_room(target)
        opened: Connection = module.Connection(
            target,
            self.settings,
            marked=process_mark(self._home, secrets.token_hex(16)),
            changed=changed,
            scrub=scrub,
        )
        if found is not None:
            self._closing.add(found)
        self._connections[key] = opened
        self._spawn(lambda: self._keep(key, opened))
        return opened

    def _check_room(self, target: Target) -> None:
        every = [*self._connections.values(), *self._closing]
        if len(every) >= self.settings.connections:
            raise ToolError(f"{self.settings.connections} MCP servers are connected already (mcp.connections)")
        processes = sum(connection.target.transport == "stdio" for connection in every)
        if target.transport == "stdio" and processes >= self.settings.processes:
            raise ToolError(f"{self.settings.processes} MCP servers are running already (mcp.processes)")

    async def _keep(self, key: Key, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self._closing.discard(connection)
            if self._connections.get(key) is connection:
                del self._connections[key]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._connections) + len(self._closing)

    async def close(self) -> None:
        """Say goodbye to all servers; takes no longer than the time that is set for one."""
        async with anyio.create_task_group() as group:
            for connection in [*self._connections.values(), *self._closing]:
                group.start_soon(connection.close)


def process_mark(home: str, connection: str = "") -> str:
    """What the processes of a stdio server are found by; without ``connection`` what the marks of all begin with."""
    return f"mcp/{home}/{connection}"
