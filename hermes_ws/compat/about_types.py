"""What the server says of itself, in the shapes of OpenAI's and hermes-agent's clients."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "Auth",
    "Capabilities",
    "Check",
    "DetailedHealth",
    "Endpoint",
    "Health",
    "Model",
    "ModelDetails",
    "ModelList",
    "Readiness",
    "RuntimeInfo",
    "SkillList",
    "Toolset",
    "ToolsetList",
]


class ModelDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is here."""

    agent: str
    """The agent that answers."""
    model: str
    """The model that it uses, unless the conversation names another; empty: it says of itself none."""
    default: bool
    """Whether it is the one that answers where none is named."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What may be given as ``model``: an agent."""

    id: str
    """Its name."""
    object: Literal["model"]
    """``model``."""
    created: int
    """When the server started, Unix seconds."""
    owned_by: str
    """``hermes``."""
    permission: list[Any]
    """Empty."""
    root: str
    """The agent."""
    parent: str | None
    """For an alias null, for an agent by its own name the alias of the default."""
    hermes: ModelDetails
    """Who that is."""


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every model."""

    object: Literal["list"]
    """``list``."""
    data: list[Model]
    """The default first."""


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """How to present a key."""

    type: Literal["bearer"]
    """``Authorization: Bearer KEY``."""
    required: bool
    """False where the server lets everybody in."""


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where agents and tools run."""

    mode: Literal["server_agent"]
    """At the server."""
    tool_execution: Literal["server"]
    """At the server, but for functions that a request brings along."""
    split_runtime: bool
    """False."""
    description: str
    """For people."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A route."""

    method: str
    """Its method."""
    path: str
    """Its path, with names in braces."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What this server can do."""

    object: Literal["hermes.api_server.capabilities"]
    """``hermes.api_server.capabilities``."""
    platform: Literal["hermes-agent"]
    """Whose API this is."""
    server: Literal["hermes-ws"]
    """Who speaks it here."""
    version: str
    """The server's version."""
    model: str
    """What the default agent is called."""
    auth: Auth
    """How to present a key."""
    runtime: RuntimeInfo
    """Where agents and tools run."""
    features: dict[str, Any]
    """By name: whether it is there, or how."""
    endpoints: dict[str, Endpoint]
    """By name: where it is."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """That the server is there."""

    status: Literal["ok"]
    """``ok``."""
    platform: Literal["hermes-agent"]
    """Whose API this is."""
    server: Literal["hermes-ws"]
    """Who speaks it here."""
    version: str
    """The server's version."""


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was looked at, with numbers where there are any."""

    status: Literal["ok", "degraded"]
    """Whether it is as it should be."""
    detail: str | None = None
    """What is wrong."""
    state: Literal["running", "draining"] | None = None
    """Of the server."""
    connected_platforms: int | None = None
    """Of the server: 1, this API."""
    platforms: int | None = None
    """Of the server: 1."""
    used_percent: float | None = None
    """Of the disk."""
    free_bytes: int | None = None
    """Of the disk."""
    active_api_runs: int | None = None
    """Runs at work."""
    process_completions: int | None = None
    """0: tools have no processes that outlive their call."""
    active_delegations: int | None = None
    """0: agents delegate nothing."""


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the server is ready for work."""

    status: Literal["ok", "degraded"]
    """``degraded``: one of the checks is."""
    checks: dict[str, Check]
    """``state_db``, ``config``, ``model``, ``disk``, ``gateway``, ``background_queues``."""


class DetailedHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the server is."""

    status: Literal["ok", "degraded"]
    """As ``readiness`` has it."""
    readiness: Readiness
    """What was looked at."""
    platform: Literal["hermes-agent"]
    """Whose API this is."""
    server: Literal["hermes-ws"]
    """Who speaks it here."""
    version: str
    """The server's version."""
    instance: str
    """Another after every start."""
    gateway_state: Literal["running", "draining"]
    """``draining``: it takes no new work, and is about to go down."""
    platforms: dict[str, dict[str, str]]
    """This API, and that it is connected."""
    active_agents: int
    """Agents at work."""
    conversations: int
    """Conversations in memory."""
    gateway_busy: bool
    """Whether an agent is at work."""
    gateway_drainable: bool
    """Whether it can be asked to go down gracefully."""
    exit_reason: str | None
    """Null."""
    started_at: int
    """When it started, Unix seconds."""
    updated_at: str
    """Now, ISO 8601."""
    pid: int
    """Its process."""


class SkillList(msgspec.Struct, frozen=True, kw_only=True):
    """Skills: this server has none of its own."""

    object: Literal["list"]
    """``list``."""
    data: list[Any]
    """Empty."""
    message: str
    """Says so."""


class Toolset(msgspec.Struct, frozen=True, kw_only=True):
    """Tools that come from one place."""

    name: str
    """``builtin``, or ``mcp:SERVER``."""
    label: str
    """For people."""
    description: str
    """For people."""
    enabled: bool
    """Whether a conversation that says nothing of tools has some of them."""
    configured: bool
    """Whether all that they need is there."""
    tools: list[str]
    """Their names. Those of an MCP server are known when a conversation uses it."""


class ToolsetList(msgspec.Struct, frozen=True, kw_only=True):
    """All tools, as far as the key goes."""

    object: Literal["list"]
    """``list``."""
    platform: Literal["api_server"]
    """``api_server``."""
    data: list[Toolset]
    """By where they come from."""
