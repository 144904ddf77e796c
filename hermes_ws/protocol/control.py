"""Control frames: about the connection, never stored, never replayed. Positions are called ``at``."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from hermes_ws.errors import CommandCode
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import (
    ApprovalRule,
    Config,
    Item,
    QueuedRun,
    Role,
    RunSummary,
    ToolDescription,
    Usage,
)

__all__ = [
    "CONTROL_TYPES",
    "CommandHelp",
    "Control",
    "ControlBase",
    "Error",
    "GoAway",
    "Heartbeat",
    "Hello",
    "Live",
    "Ok",
    "Resume",
    "SchemaRef",
    "ServerInfo",
    "Skipped",
    "Snapshot",
    "SnapshotState",
]


class ControlBase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of the control frames."""


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Which server this is; ``instance`` changes with every start."""

    name: str
    version: str
    instance: str


class Resume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the client is brought up to date: events ``from``..``to`` (inclusive) replayed, or folded into a
    snapshot; for ``live`` the range is empty. ``reason`` is there when a snapshot replaces a replay."""

    mode: Literal["replay", "snapshot", "live"]
    from_: int = msgspec.field(name="from")
    to: int
    reason: Literal["epoch_changed", "gap", "ahead"] | None = None


class SchemaRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where the protocol's JSON Schema is, and its hash."""

    url: str
    sha256: str


class Hello(ControlBase, frozen=True, kw_only=True, tag="hello"):
    """Always first. ``head`` is the last ``seq``, ``floor`` the first one still readable."""

    protocol: str
    server: ServerInfo
    conversation_id: str
    epoch: str | None
    head: int
    floor: int
    principal: str
    role: Role
    limits: dict[str, int]
    resume: Resume
    schema: SchemaRef
    hint: str


class SnapshotState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state folded up to ``at``. ``items`` is the newest part; ``before`` is the cursor to older ones.
    ``interactions`` are the ``interaction.requested`` events that are still open."""

    at: int
    config: Config
    config_version: int
    run: RunSummary | None
    queue: list[QueuedRun]
    items: list[Item]
    interactions: list[InteractionRequested]
    usage: Usage
    before: str | None = None


class Snapshot(SnapshotState, frozen=True, kw_only=True, tag_field="type", tag="snapshot"):
    """The state folded up to ``at``; what follows is what came after."""


class Skipped(ControlBase, frozen=True, kw_only=True, tag="skipped"):
    """These numbers are not delivered: filtered by the client's wish, or compacted away."""

    from_: int = msgspec.field(name="from")
    to: int
    reason: Literal["filtered", "compacted"]


class Live(ControlBase, frozen=True, kw_only=True, tag="live"):
    """What was asked for is complete up to ``at``; what follows is live."""

    at: int


class CommandHelp(msgspec.Struct, frozen=True, kw_only=True):
    """One command, as ``help`` explains it."""

    type: str
    description: str
    example: dict[str, Any]


class Ok(ControlBase, frozen=True, kw_only=True, tag="ok"):
    """The command was done; the events that it appended are at or before ``at``."""

    id: str | None
    at: int
    duplicate: bool | None = None
    run_id: str | None = None
    disposition: Literal["started", "queued", "steered"] | None = None
    steer_id: str | None = None
    interaction_id: str | None = None
    version: int | None = None
    conversation_id: str | None = None
    rule_id: str | None = None
    rules: list[ApprovalRule] | None = None
    tools: list[ToolDescription] | None = None
    snapshot: SnapshotState | None = None
    head: int | None = None
    commands: list[CommandHelp] | None = None


class Error(ControlBase, frozen=True, kw_only=True, tag="error"):
    """The command was refused, or the frame could not be read. The socket stays open."""

    id: str | None
    code: CommandCode
    message: str
    retryable: bool
    retry_after_ms: int | None = None
    path: str | None = None
    details: dict[str, Any] | None = None


class Heartbeat(ControlBase, frozen=True, kw_only=True, tag="heartbeat"):
    """Nothing happened for a while; the conversation's last ``seq`` is ``head``."""

    head: int
    ts: int


class GoAway(ControlBase, frozen=True, kw_only=True, tag="goaway"):
    """The server is about to close this socket; come back after ``reconnect_after_ms``."""

    reason: str
    reconnect_after_ms: int


Control: TypeAlias = Hello | Snapshot | Skipped | Live | Ok | Error | Heartbeat | GoAway

CONTROL_TYPES: tuple[str, ...] = tuple(str(cls.__struct_config__.tag) for cls in Control.__args__)
