"""Control frames: about the connection, never stored, never replayed. Positions are called ``at``."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from hermes_ws.errors import CommandCode
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.summaries import ConversationSummary, OpenInteraction
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
    "InboxChanged",
    "InboxPage",
    "InboxRemoved",
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
    """The program."""
    version: str
    """The program's version."""
    instance: str
    """Another after every start."""


class Resume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the client is brought up to date: events ``from``..``to`` (inclusive) replayed, or folded into a
    snapshot; for ``live`` the range is empty. ``reason`` is there when a snapshot replaces a replay."""

    mode: Literal["replay", "snapshot", "live"]
    """What follows: old events, a snapshot, or only what is new."""
    from_: int = msgspec.field(name="from")
    """First ``seq`` of the range."""
    to: int
    """Last ``seq`` of the range."""
    reason: Literal["epoch_changed", "gap", "ahead"] | None = None
    """Why a snapshot replaces the replay that was asked for: another ``epoch``, older than ``floor``,
    newer than ``head``."""


class SchemaRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where the protocol's JSON Schema is, and its hash."""

    url: str
    """Path on this server."""
    sha256: str
    """Hex, of the document's bytes."""


class Hello(ControlBase, frozen=True, kw_only=True, tag="hello"):
    """Always first. ``head`` is the last ``seq``, ``floor`` the first one still readable."""

    protocol: str
    """``hermes.v1``."""
    server: ServerInfo
    """Who speaks."""
    conversation_id: str | None
    """The server's choice, if ``new`` was asked for. Null: this is the inbox. Never absent."""
    epoch: str | None
    """Null: the conversation does not exist until its first command. Never absent."""
    head: int
    """0 if there is no event yet."""
    floor: int
    """Older events are folded away."""
    principal: str
    """Who the server takes the client for."""
    role: Role
    """What the client may do."""
    limits: dict[str, int]
    """Bounds that apply to this socket, by setting."""
    resume: Resume
    """How the client is brought up to date."""
    schema: SchemaRef
    """This protocol's JSON Schema."""
    hint: str
    """One line that a person can type next."""


class SnapshotState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state folded up to ``at``. ``items`` is the newest part; ``before`` is the cursor to older ones.
    ``interactions`` are the ``interaction.requested`` events that are still open."""

    at: int
    """The last ``seq`` folded in."""
    config: Config
    """Secrets are redacted."""
    config_version: int
    """For ``if_version``; 0 before the first ``conversation.configured``."""
    run: RunSummary | None
    """Null: none is active. Never absent."""
    queue: list[QueuedRun]
    """Runs that wait, next one first."""
    items: list[Item]
    """Oldest first."""
    interactions: list[InteractionRequested]
    """Open ones, oldest first."""
    usage: Usage
    """Of the whole conversation."""
    before: str | None = None
    """For ``GET /api/conversations/{id}/items?before=``; absent if ``items`` is everything."""


class Snapshot(SnapshotState, frozen=True, kw_only=True, tag_field="type", tag="snapshot"):
    """The state folded up to ``at``; what follows is what came after."""


class Skipped(ControlBase, frozen=True, kw_only=True, tag="skipped"):
    """These numbers are not delivered: filtered by the client's wish, or compacted away."""

    from_: int = msgspec.field(name="from")
    """First ``seq`` of the range."""
    to: int
    """Last ``seq`` of the range."""
    reason: Literal["filtered", "compacted"]
    """Why they are not delivered."""


class Live(ControlBase, frozen=True, kw_only=True, tag="live"):
    """What was asked for is complete up to ``at``; what follows is live."""

    at: int
    """As ``hello.head``."""


class CommandHelp(msgspec.Struct, frozen=True, kw_only=True):
    """One command, as ``help`` explains it."""

    type: str
    """The command."""
    description: str
    """What it does."""
    example: dict[str, Any]
    """A frame that can be sent as it is."""


class Ok(ControlBase, frozen=True, kw_only=True, tag="ok"):
    """The command was done; the events that it appended are at or before ``at``."""

    id: str | None
    """The command's. Null: it had none. Never absent."""
    at: int
    """What the command appended is at or before this ``seq``."""
    duplicate: bool | None = None
    """True: done before under this ``id``; this is the stored answer."""
    run_id: str | None = None
    """Of ``run.start``, ``run.stop``, ``run.steer`` and ``run.retry``: the run concerned."""
    disposition: Literal["started", "queued", "steered"] | None = None
    """Of ``run.start``: what became of it."""
    steer_id: str | None = None
    """Of ``run.steer``, and of ``run.start`` that was ``steered``."""
    interaction_id: str | None = None
    """Of ``interaction.reply``."""
    version: int | None = None
    """Of ``conversation.configure``: the configuration's new one."""
    conversation_id: str | None = None
    """Of ``conversation.fork``: the new conversation. In the inbox: where it was done."""
    rule_id: str | None = None
    """Of ``approvals.revoke``."""
    rules: list[ApprovalRule] | None = None
    """Of ``approvals.list``."""
    tools: list[ToolDescription] | None = None
    """Of ``tools.list``."""
    snapshot: SnapshotState | None = None
    """Of ``snapshot.get``."""
    head: int | None = None
    """Of ``ping``: the conversation's last ``seq``."""
    commands: list[CommandHelp] | None = None
    """Of ``help``."""


class Error(ControlBase, frozen=True, kw_only=True, tag="error"):
    """The command was refused, or the frame could not be read. The socket stays open."""

    id: str | None
    """The command's. Null: it had none, or none could be read. Never absent."""
    code: CommandCode
    """One of the command error codes."""
    message: str
    """For people: what is wrong and what would be right."""
    retryable: bool
    """Whether the same command may succeed later, unchanged."""
    retry_after_ms: int | None = None
    """Not before."""
    path: str | None = None
    """Where in the frame, such as ``$.config.tools.allow[0]``."""
    details: dict[str, Any] | None = None
    """Depends on ``code``, such as the resolution for ``interaction_resolved``."""


class Heartbeat(ControlBase, frozen=True, kw_only=True, tag="heartbeat"):
    """Nothing happened for a while; the conversation's last ``seq`` is ``head``."""

    head: int
    """The last ``seq``; 0 in the inbox."""
    ts: int
    """Unix ms."""


class GoAway(ControlBase, frozen=True, kw_only=True, tag="goaway"):
    """The server is about to close this socket; come back after ``reconnect_after_ms``."""

    reason: str
    """For people."""
    reconnect_after_ms: int
    """Wait this long before coming back."""


class InboxPage(ControlBase, frozen=True, kw_only=True, tag="inbox.page"):
    """In the inbox: conversations, those that need a person first, then the one with the newest event."""

    conversations: list[ConversationSummary]
    """As they are now."""
    interactions: list[OpenInteraction]
    """What is open in these, the one that was asked first comes first."""
    next: str | None = None
    """For ``inbox.more``. Absent: that is all."""


class InboxChanged(ControlBase, frozen=True, kw_only=True, tag="inbox.changed"):
    """In the inbox: a conversation is new, or is another by now. Several changes at once may be one frame."""

    conversation: ConversationSummary
    """As it is now."""


class InboxRemoved(ControlBase, frozen=True, kw_only=True, tag="inbox.removed"):
    """In the inbox: a conversation was deleted."""

    conversation_id: str
    """Which."""


Control: TypeAlias = (
    Hello | Snapshot | Skipped | Live | Ok | Error | Heartbeat | GoAway | InboxPage | InboxChanged | InboxRemoved
)

CONTROL_TYPES: tuple[str, ...] = tuple(str(cls.__struct_config__.tag) for cls in Control.__args__)
