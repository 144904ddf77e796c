"""The toolboxes of the conversations in memory, and the life of the MCP servers in them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from hashlib import sha256
from typing import Any

from hermes_ws.runtime.clients import Clients, ClientSettings
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.household import ConversationHousehold
from hermes_ws.runtime.toolbox import Toolbox
from hermes_ws.store.directory import DataDirectory
from hermes_ws.tools.base import Tool
from hermes_ws.tools.leftovers import end_marked
from hermes_ws.tools.mcp.pool import McpPool, process_mark
from hermes_ws.tools.mcp.servers import ConversationServers
from hermes_ws.tools.mcp.settings import McpSettings, OperatorServer

__all__ = ["Toolboxes"]


class Toolboxes:
    """One for every conversation that has asked for it."""

    def __init__(
        self,
        builtin: Mapping[str, Tool],
        directory: DataDirectory,
        settings: McpSettings,
        operator: Mapping[str, OperatorServer],
        clients: ClientSettings,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
    ) -> None:
        self._home = sha256(str(directory.root).encode()).hexdigest()[:16]
        self.pool = McpPool(settings, operator, spawn, home=self._home)
        self._builtin = builtin
        self._directory = directory
        self._clients = clients
        self._spawn = spawn
        self._of: dict[Conversation, Toolbox] = {}

    def of(self, conversation: Conversation) -> Toolbox:
        """The conversation's."""
        found = self._of.get(conversation)
        if found is None:
            household = ConversationHousehold(conversation, self._directory)
            servers = ConversationServers(self.pool, conversation.ref, household)
            # Asked for each time: a conversation whose first command is refused begins with another session.
            found = Toolbox(
                self._builtin,
                servers,
                lambda data: conversation.session.scrubber.data(data),
                Clients(self._clients, conversation.uptime),
                lambda: conversation.session.functions,
                lambda: conversation.session.starter,
            )
            self._of[conversation] = found
        return found

    def has(self, conversation: Conversation) -> bool:
        """Whether it has asked for one."""
        return conversation in self._of

    def beat(self, conversation: Conversation) -> None:
        """Let go of servers that it has not used for a while."""
        if conversation in self._of:
            self._of[conversation].servers.close_idle(self.pool.settings.idle_s)

    def rested(self, conversation: Conversation) -> bool:
        """Whether the conversation may leave memory: its servers are gone, and everybody knows."""
        toolbox = self._of.get(conversation)
        if toolbox is None or not toolbox.servers.open:
            return True
        toolbox.servers.close_idle(0)
        return False

    def forget(self, conversation: Conversation) -> None:
        """It has left memory: let go of its servers, and say nothing more."""
        toolbox = self._of.pop(conversation, None)
        if toolbox is not None:
            toolbox.servers.shut()
            self._spawn(toolbox.servers.close)

    async def end(self, conversation: Conversation) -> None:
        """As :meth:`forget`; returns when it is done."""
        toolbox = self._of.pop(conversation, None)
        if toolbox is not None:
            await toolbox.servers.close()

    def configured(self, conversation: Conversation) -> None:
        """Its configuration names other servers, or the same otherwise."""
        if conversation in self._of:
            self._of[conversation].servers.configured()

    async def end_leftovers(self) -> int:
        """End the stdio servers of an earlier life of this server; how many processes there were. Only at the start:
        later there are some of this life."""
        return await end_marked(process_mark(self._home))

    async def close(self) -> None:
        """Let go of all servers."""
        await self.pool.close()
