"""The parts of the configuration that the runtime goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from hermes_ws.decisions import SessionLimits
from hermes_ws.policy import ApprovalSettings
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.clients import ClientSettings
from hermes_ws.runtime.inbox import InboxSettings
from hermes_ws.runtime.permissions import AgentTerms
from hermes_ws.runtime.readers import ReaderSettings
from hermes_ws.runtime.turn import AgentSettings
from hermes_ws.store.blobs import BlobSettings
from hermes_ws.tools.base import ToolSettings
from hermes_ws.tools.mcp.settings import McpSettings, OperatorServer

__all__ = ["RuntimeSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """See the top of the module."""

    sessions: SessionLimits = field(default_factory=SessionLimits)
    conversations: ConversationSettings = field(default_factory=ConversationSettings)
    readers: ReaderSettings = field(default_factory=ReaderSettings)
    inbox: InboxSettings = field(default_factory=InboxSettings)
    tools: ToolSettings = field(default_factory=ToolSettings)
    approvals: ApprovalSettings = field(default_factory=ApprovalSettings)
    runs: AgentSettings = field(default_factory=AgentSettings)
    blobs: BlobSettings = field(default_factory=BlobSettings)
    mcp: McpSettings = field(default_factory=McpSettings)
    clients: ClientSettings = field(default_factory=ClientSettings)
    operator: Mapping[str, OperatorServer] = field(default_factory=dict[str, OperatorServer])
    agent_terms: Mapping[str, AgentTerms] = field(default_factory=dict[str, AgentTerms])
    default_agent: str = "demo"
    retention_s: int = 86_400
    """How long after its run's end a delta stays in the log."""
    outputs_retention_s: int = 2_592_000
    """How long a tool call's whole output stays."""
    sweep_every_s: float = 3_600.0
    """How often what is past its time is removed; 0: never."""
    records_retention_s: Mapping[str, int] = field(default_factory=dict[str, int])
    """How long records of a kind stay that go before their conversation."""
    ephemeral_timeout_s: int = 60
    """How long questions stay open in conversations that are not kept: whoever asked waits at a request."""

    def limits_of(self, *, ephemeral: bool) -> SessionLimits:
        """The limits of a conversation."""
        if not ephemeral:
            return self.sessions
        timeout_s = min(self.ephemeral_timeout_s, self.sessions.interaction_timeout_s)
        return msgspec.structs.replace(self.sessions, interaction_timeout_s=timeout_s)
