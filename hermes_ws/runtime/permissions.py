"""What policy has to go by for one tool: everybody who has a say in it, gathered in one place.

The server's settings, the operator's words on the agent and on an MCP server, the conversation's configuration, the
run's own narrowing, the keys of whoever started and steered it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hermes_ws import policy
from hermes_ws.decisions import RunOptions
from hermes_ws.protocol.values import (
    ApprovalRule,
    ApprovalsConfig,
    Config,
    McpServerConfig,
    ToolDescription,
    ToolFilter,
)
from hermes_ws.tools.mcp.settings import OperatorServer

__all__ = ["AgentTerms", "Permissions"]

_MCP = "mcp:"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTerms:
    """What the operator says of one agent: ``tools`` and ``approvals`` of ``[agents.NAME]``."""

    tools: ToolFilter | None = None
    approvals: ApprovalsConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """See the top of the module. ``default``: tools of a conversation that names none."""

    default: Sequence[str]
    approvals: policy.ApprovalSettings
    agents: Mapping[str, AgentTerms] = field(default_factory=dict[str, AgentTerms])
    operator: Mapping[str, OperatorServer] = field(default_factory=dict[str, OperatorServer])

    def allowed(
        self,
        tool: ToolDescription,
        config: Config,
        agent: str,
        bounds: Iterable[ToolFilter | None] = (),
        *,
        brought: bool = False,
    ) -> bool:
        """Whether everybody lets the tool through."""
        narrower = self._narrower(tool, config, agent, bounds)
        return policy.allowed(tool, config.tools, narrower, self.default, brought=brought)

    def judge(
        self,
        tool: ToolDescription,
        arguments: dict[str, Any],
        config: Config,
        agent: str,
        options: RunOptions | None,
        remembered: Iterable[ApprovalRule],
        *,
        brought: bool = False,
    ) -> policy.Judgement:
        """What to do with this call of the tool."""
        place = config.place_of(tool.source)
        remembered = [rule for rule in remembered if rule.rule.server == place]
        bounds = [options.tools, *options.bounds] if options else []
        server = _server_of(tool, config)
        return policy.judge(
            tool,
            arguments,
            chosen=config.tools,
            narrower=self._narrower(tool, config, agent, bounds),
            default=self.default,
            approvals=_over(server.approvals if server else None, config.approvals),
            settings=self._settings(server, agent),
            remembered=remembered,
            brought=brought,
        )

    def _narrower(
        self, tool: ToolDescription, config: Config, agent: str, bounds: Iterable[ToolFilter | None]
    ) -> list[ToolFilter | None]:
        server = _server_of(tool, config)
        offered = self._operator_of(server)
        return [
            self.agents.get(agent, AgentTerms()).tools,
            server.tools if server else None,
            offered.tools if offered else None,
            *bounds,
        ]

    def _operator_of(self, server: McpServerConfig | None) -> OperatorServer | None:
        return self.operator.get(server.ref) if server is not None and server.ref is not None else None

    def _settings(self, server: McpServerConfig | None, agent: str) -> policy.ApprovalSettings:
        offered = self._operator_of(server)
        settings = policy.bounded(self.approvals, self.agents.get(agent, AgentTerms()).approvals)
        return policy.bounded(settings, offered.approvals if offered else None)


def _server_of(tool: ToolDescription, config: Config) -> McpServerConfig | None:
    """The conversation's word on the MCP server that the tool comes from."""
    if not tool.source.startswith(_MCP):
        return None
    return (config.mcp_servers or {}).get(tool.source.removeprefix(_MCP))


def _over(own: ApprovalsConfig | None, general: ApprovalsConfig | None) -> ApprovalsConfig | None:
    """A server's approvals, where they say something, before the conversation's."""
    if own is None or general is None:
        return own or general
    return msgspec.structs.replace(
        general, mode=own.mode or general.mode, rules=[*(own.rules or []), *(general.rules or [])]
    )
