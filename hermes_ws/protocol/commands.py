"""Commands: what a client asks for. ``{"type":"run.start","input":"hi"}`` is complete.

``id`` makes a command idempotent for 24 h. Unknown fields are ignored; ``null`` in an optional field is the same
as leaving it out, except inside the merge patch of ``conversation.configure``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from hermes_ws.protocol.values import ConversationId, Input, InteractionKind, ToolFilter

__all__ = [
    "COMMAND_TYPES",
    "READS",
    "ApprovalsList",
    "ApprovalsRevoke",
    "ClientTool",
    "ClientUpdate",
    "Command",
    "CommandBase",
    "CommandId",
    "ConversationConfigure",
    "ConversationFork",
    "Help",
    "InteractionReply",
    "Ping",
    "RunRetry",
    "RunStart",
    "RunSteer",
    "RunStop",
    "SnapshotGet",
    "ToolsList",
    "command_type",
]

CommandId: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class CommandBase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What every command may have."""

    id: CommandId | None = None


class RunStart(CommandBase, frozen=True, kw_only=True, tag="run.start"):
    """Start a run. ``when_busy`` (default ``queue``) says what to do when another one is active."""

    input: Input
    when_busy: Literal["queue", "reject", "steer", "interrupt"] | None = None
    agent: str | None = None
    instructions: str | None = None
    tools: ToolFilter | None = None
    deadline_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None
    metadata: dict[str, Any] | None = None


class RunStop(CommandBase, frozen=True, kw_only=True, tag="run.stop"):
    """Stop the active run, or the one named. ``mode``: graceful (default) or now; ``queue``: keep or clear."""

    run_id: str | None = None
    mode: Literal["graceful", "now"] | None = None
    queue: Literal["keep", "clear"] | None = None


class RunSteer(CommandBase, frozen=True, kw_only=True, tag="run.steer"):
    """Say something to the running agent; it hears it between two steps."""

    text: Annotated[str, msgspec.Meta(min_length=1)]
    run_id: str | None = None
    if_late: Literal["queue", "return"] | None = None


class RunRetry(CommandBase, frozen=True, kw_only=True, tag="run.retry"):
    """A new run that goes on from a failed run's journal."""

    run_id: str


class InteractionReply(CommandBase, frozen=True, kw_only=True, tag="interaction.reply"):
    """Answer a question (``answers``), an approval (``option``) or a form (``content``)."""

    interaction_id: str
    option: str | None = None
    answers: dict[str, Any] | None = None
    content: dict[str, Any] | None = None
    arguments: dict[str, Any] | None = None
    comment: str | None = None
    digest: str | None = None


class ApprovalsList(CommandBase, frozen=True, kw_only=True, tag="approvals.list"):
    """The remembered decisions that hold here."""


class ApprovalsRevoke(CommandBase, frozen=True, kw_only=True, tag="approvals.revoke"):
    """Forget a remembered decision."""

    rule_id: str


class ConversationConfigure(CommandBase, frozen=True, kw_only=True, tag="conversation.configure"):
    """Change the configuration by a JSON merge patch (RFC 7396)."""

    config: dict[str, Any]
    if_version: Annotated[int, msgspec.Meta(ge=0)] | None = None


class ConversationFork(CommandBase, frozen=True, kw_only=True, tag="conversation.fork"):
    """A new conversation with the history up to the end of a run (default: everything that is finished)."""

    after_run: str | None = None
    conversation_id: ConversationId | None = None


class ToolsList(CommandBase, frozen=True, kw_only=True, tag="tools.list"):
    """What the policy leaves of the tools, with sources and schemas."""


class ClientTool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that a client executes."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ClientUpdate(CommandBase, frozen=True, kw_only=True, tag="client.update"):
    """Who this client is, what it executes and what it can answer."""

    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    name: str | None = None
    tools: list[ClientTool] | None = None
    interactions: list[InteractionKind] | None = None


class SnapshotGet(CommandBase, frozen=True, kw_only=True, tag="snapshot.get"):
    """The folded state, in the ``ok``."""


class Ping(CommandBase, frozen=True, kw_only=True, tag="ping"):
    """Is anybody there? ``ok`` has ``head``."""


class Help(CommandBase, frozen=True, kw_only=True, tag="help"):
    """What can be sent, in the ``ok``."""


Command: TypeAlias = (
    RunStart
    | RunStop
    | RunSteer
    | RunRetry
    | InteractionReply
    | ApprovalsList
    | ApprovalsRevoke
    | ConversationConfigure
    | ConversationFork
    | ToolsList
    | ClientUpdate
    | SnapshotGet
    | Ping
    | Help
)


def command_type(command: CommandBase | type[CommandBase]) -> str:
    """The wire name of a command or of its class."""
    return str(command.__struct_config__.tag)


COMMAND_TYPES: tuple[str, ...] = tuple(command_type(cls) for cls in Command.__args__)
READS: tuple[type[CommandBase], ...] = (ApprovalsList, ToolsList, SnapshotGet, Ping, Help, ClientUpdate)
"""Commands that change nothing that lasts: answered afresh each time, stored under no id, and create nothing."""
