"""A conversation, as its MCP servers see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hermes_ws.protocol.values import McpServerConfig
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.store.directory import DataDirectory
from hermes_ws.tools.mcp.servers import Household, McpState

__all__ = ["ConversationHousehold"]


class ConversationHousehold(Household):
    """Implements :class:`~hermes_ws.tools.mcp.servers.Household`."""

    def __init__(self, conversation: Conversation, directory: DataDirectory) -> None:
        self._conversation = conversation
        self._directory = directory

    @property
    def servers(self) -> Mapping[str, McpServerConfig]:
        return self._conversation.session.state.config.mcp_servers or {}

    @property
    def secrets(self) -> Mapping[str, str]:
        return self._conversation.session.secrets

    def unreadable(self, server: str) -> list[str]:
        kept = self._conversation.unreadable_secrets
        return sorted(name.rpartition("/")[2] for name in kept if name.split("/")[1] == server)

    @property
    def was_used(self) -> Iterable[str]:
        calls = self._conversation.session.state.calls.values()
        made = {call.source for call in calls if call.executing_at is not None and call.status != "executing"}
        return [source.removeprefix("mcp:") for source in made if source.startswith("mcp:")]

    def scrub(self, text: str) -> str:
        return self._conversation.session.scrubber.text(text)

    @property
    def workdir(self) -> Path:
        return self._directory.workdir(self._conversation.ref)

    def mcp_status(self, server: str, state: McpState, tools: list[str] | None, error: str | None) -> None:
        conversation = self._conversation
        session = conversation.session
        if conversation.dead or session.state.epoch is None or not session.taken_up:
            return
        conversation.flush()
        conversation.commit(session.mcp_status(server, state, conversation.now(), tools=tools, error=error))
