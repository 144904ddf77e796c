"""Commands: what a client asks for. ``{"type":"run.start","input":"hi"}`` is complete.

``id`` makes a command idempotent for 24 h. Unknown fields are ignored; ``null`` in an optional field is the
same as leaving it out, except inside the merge patch of ``conversation.configure``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from hermes_ws.protocol.values import ConversationId, Input, InteractionKind, ToolFilter

__all__ = [
    "ANYWHERE",
    "COMMAND_TYPES",
    "INBOX",
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
    "InboxMore",
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


_Where: TypeAlias = ConversationId | None


class CommandBase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What every command may have."""

    id: CommandId | None = None
    """Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID."""


class RunStart(CommandBase, frozen=True, kw_only=True, tag="run.start"):
    """Start a run."""

    input: Input
    """Text, or parts."""
    when_busy: Literal["queue", "reject", "steer", "interrupt"] | None = None
    """What if another run is active: wait (the default), be refused as ``busy``, be said to it, or take
    its place."""
    agent: str | None = None
    """Who answers, for this run only."""
    instructions: str | None = None
    """Added to the agent's own, for this run only, in place of the conversation's."""
    tools: ToolFilter | None = None
    """Narrows what the conversation allows; never widens."""
    deadline_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Counts from ``run.started``, not while waiting for a person."""
    metadata: dict[str, Any] | None = None
    """Handed to the agent."""
    conversation_id: _Where = None
    """In the inbox: where. ``new``: the server chooses."""


class RunStop(CommandBase, frozen=True, kw_only=True, tag="run.stop"):
    """Stop the active run, or the one named. A queued run that is stopped is ``run.cancelled``."""

    run_id: str | None = None
    """Default: the active run. A queued one may be named."""
    mode: Literal["graceful", "now"] | None = None
    """``graceful`` (the default): tools get SIGTERM, and SIGKILL after 500 ms; ``now``: SIGKILL."""
    queue: Literal["keep", "clear"] | None = None
    """``keep`` (the default): the next run starts; ``clear``: waiting runs are cancelled too."""
    conversation_id: _Where = None
    """In the inbox: where."""


class RunSteer(CommandBase, frozen=True, kw_only=True, tag="run.steer"):
    """Say something to the running agent; it hears it between two steps."""

    text: Annotated[str, msgspec.Meta(min_length=1)]
    """What to say."""
    run_id: str | None = None
    """Default: the active run."""
    if_late: Literal["queue", "return"] | None = None
    """When no step is left to hear it: ``queue`` (the default) makes it a run of its own, ``return``
    gives it back."""


class RunRetry(CommandBase, frozen=True, kw_only=True, tag="run.retry"):
    """A new run that goes on from a failed run's journal."""

    run_id: str
    """The run that failed."""


class InteractionReply(CommandBase, frozen=True, kw_only=True, tag="interaction.reply"):
    """Answer a question (``answers``), an approval (``option``) or a form (``content``)."""

    interaction_id: str
    """From ``interaction.requested``."""
    option: str | None = None
    """One of the offered ids: for approvals, and for forms that may be declined."""
    answers: dict[str, Any] | None = None
    """By question id."""
    content: dict[str, Any] | None = None
    """For forms and client tools."""
    arguments: dict[str, Any] | None = None
    """The edited arguments of the call, whole, where ``editable``."""
    comment: str | None = None
    """The agent is told."""
    digest: str | None = None
    """As shown; ``digest_mismatch`` if the arguments are others by now."""
    conversation_id: _Where = None
    """In the inbox: where."""


class ApprovalsList(CommandBase, frozen=True, kw_only=True, tag="approvals.list"):
    """The remembered decisions that hold here."""


class ApprovalsRevoke(CommandBase, frozen=True, kw_only=True, tag="approvals.revoke"):
    """Forget a remembered decision."""

    rule_id: str
    """From ``approvals.list``."""


class ConversationConfigure(CommandBase, frozen=True, kw_only=True, tag="conversation.configure"):
    """Change the configuration by a JSON merge patch (RFC 7396)."""

    config: dict[str, Any]
    """A field that is null is removed, an absent one stays. What results is as ``Config``."""
    if_version: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """``version_conflict`` if the configuration is another by now; 0: none was ever set."""


class ConversationFork(CommandBase, frozen=True, kw_only=True, tag="conversation.fork"):
    """A new conversation with the history up to the end of a run (default: everything that is finished)."""

    after_run: str | None = None
    """The last run to take along."""
    conversation_id: ConversationId | None = None
    """Default: the server chooses."""


class ToolsList(CommandBase, frozen=True, kw_only=True, tag="tools.list"):
    """What the policy leaves of the tools, with sources and schemas."""


class ClientTool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that a client executes."""

    name: str
    """What the model calls it: 1 to 64 of ``A-Z a-z 0-9 _ -``."""
    description: str | None = None
    """For the model."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments, an object. Default: none."""
    if_gone: Literal["fail", "wait"] | None = None
    """When this client is gone while a call is open: the call fails and the model is told (the default), or it waits
    until the client is back or the call expires."""
    grace_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """How long the client may be gone before that: it may only be reconnecting. Default: the server's."""


class ClientUpdate(CommandBase, frozen=True, kw_only=True, tag="client.update"):
    """Who this client is, what it executes and what it can answer."""

    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """The client's choice; the same after a reconnect."""
    name: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    """For people."""
    tools: list[ClientTool] | None = None
    """What it executes, in place of what it said before; absent: as before."""
    interactions: list[InteractionKind] | None = None
    """The kinds that its person, or it by itself, can answer. Nothing depends on it yet."""


class InboxMore(CommandBase, frozen=True, kw_only=True, tag="inbox.more"):
    """In the inbox: the next page. It comes as ``inbox.page``, before the ``ok``."""

    cursor: str | None = None
    """``next`` of a page. Default: that of the newest one of this socket."""


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
    | InboxMore
    | SnapshotGet
    | Ping
    | Help
)


def command_type(command: CommandBase | type[CommandBase]) -> str:
    """The wire name of a command or of its class."""
    return str(command.__struct_config__.tag)


COMMAND_TYPES: tuple[str, ...] = tuple(command_type(cls) for cls in Command.__args__)
ANYWHERE: tuple[type[RunStart], type[RunStop], type[InteractionReply]] = (RunStart, RunStop, InteractionReply)
"""Commands that the inbox takes as well, with a ``conversation_id``."""
INBOX: tuple[type[CommandBase], ...] = (*ANYWHERE, ClientUpdate, InboxMore, Ping, Help)
"""Commands that the inbox takes."""
READS: tuple[type[CommandBase], ...] = (
    ApprovalsList,
    ToolsList,
    SnapshotGet,
    Ping,
    Help,
    ClientUpdate,
    InboxMore,
)
"""Commands that change nothing that lasts: answered afresh, stored under no id, creating nothing."""
