"""Events: what happened, in order. Each has a ``seq`` and is in the log before anyone sees it.

Field order on the wire is the order here: ``type``, ``seq``, ``ts``, ids, payload. Optional fields that are
``None`` are absent.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from hermes_ws.protocol.values import (
    Annotations,
    AnswerableBy,
    By,
    Config,
    ContentPart,
    ErrorInfo,
    Input,
    InteractionKind,
    InteractionTool,
    OnExpire,
    Option,
    Owner,
    Question,
    Usage,
)

__all__ = [
    "DELTA_TYPES",
    "EVENT_TYPES",
    "ConversationConfigured",
    "ConversationCreated",
    "Event",
    "EventBase",
    "InteractionRequested",
    "InteractionResolved",
    "ItemDiscarded",
    "McpStatus",
    "MessageCompleted",
    "MessageDelta",
    "MessageStarted",
    "ReasoningAvailable",
    "ReasoningDelta",
    "RunCancelled",
    "RunCompleted",
    "RunEvent",
    "RunFailed",
    "RunQueued",
    "RunRecovered",
    "RunResumed",
    "RunStarted",
    "RunSteered",
    "RunStopping",
    "RunWaiting",
    "StepCompleted",
    "StepStarted",
    "ToolCompleted",
    "ToolExecuting",
    "ToolOutput",
    "ToolStarted",
    "UnknownEvent",
    "event_type",
]


class EventBase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What every event has: its place in the conversation and when it was appended (Unix ms)."""

    seq: int
    """1, 2, 3 and so on within the conversation, with no gap."""
    ts: int
    """When it was appended, Unix ms."""


class RunEvent(EventBase, frozen=True, kw_only=True):
    """An event of a run. ``agent`` names the sub-agent that did it, where one did."""

    run_id: str
    """The run it belongs to."""
    agent: str | None = None
    """The sub-agent that did it, where one did."""


# -- conversation --------------------------------------------------------------------------------------


class ConversationCreated(EventBase, frozen=True, kw_only=True, tag="conversation.created"):
    """Always ``seq`` 1. ``epoch`` names this incarnation of the log."""

    conversation_id: str
    """As chosen by the client, or by the server for ``new``."""
    epoch: str
    """Send it with ``after`` when resuming: a deleted and re-created conversation has another."""


class ConversationConfigured(EventBase, frozen=True, kw_only=True, tag="conversation.configured"):
    """The whole configuration from here on, secrets redacted. ``version`` counts from 1."""

    version: int
    """For ``if_version``."""
    config: Config
    """Secrets are redacted."""
    by: By
    """Who changed it."""


# -- runs ----------------------------------------------------------------------------------------------


class RunQueued(RunEvent, frozen=True, kw_only=True, tag="run.queued"):
    """Another run is active; this one waits. ``position`` counts from 1. Only if it waits."""

    input: Input
    """What the run will be given."""
    position: int
    """1 is next."""
    by: By
    """Who asked for it."""


class RunStarted(RunEvent, frozen=True, kw_only=True, tag="run.started"):
    """The run begins. ``attempt`` counts from 1."""

    input: Input
    """What was asked; the user's message is nowhere else."""
    agent_name: str
    """Who answers."""
    model: str
    """Which model answers."""
    attempt: int
    """Counts from 1."""
    by: By
    """Who asked for it."""
    retry_of: str | None = None
    """The failed run whose journal it goes on from."""


class RunWaiting(RunEvent, frozen=True, kw_only=True, tag="run.waiting"):
    """The first interaction of the run opened: its ids."""

    interactions: list[str]
    """Ids."""


class RunResumed(RunEvent, frozen=True, kw_only=True, tag="run.resumed"):
    """No interaction of the run is open any more: the ids of those that were."""

    interactions: list[str]
    """Ids."""


class RunRecovered(RunEvent, frozen=True, kw_only=True, tag="run.recovered"):
    """A restarted server took the run up again."""

    attempt: int
    """Counts on from ``run.started``."""
    reason: str
    """Why it had to be: ``server_restarted``, or ``log_unwritable`` (for a while, while the server ran)."""


class RunSteered(RunEvent, frozen=True, kw_only=True, tag="run.steered"):
    """Text for a running run: one ``pending``, then exactly one of the others."""

    steer_id: str
    """The same in ``pending`` and in what became of it."""
    text: str
    """What was said."""
    by: By
    """Who said it."""
    disposition: Literal["pending", "applied", "queued", "returned"]
    """``applied``: the model has it; ``queued``: too late, it became a run of its own; ``returned``: too
    late, and not wanted then."""
    new_run_id: str | None = None
    """For ``queued``."""
    if_late: Literal["return"] | None = None
    """With ``pending``: it is not wanted any more once the run has ended. Otherwise it becomes a run of its own."""


class RunStopping(RunEvent, frozen=True, kw_only=True, tag="run.stopping"):
    """Somebody asked the run to stop."""

    by: By
    """Who asked."""
    mode: Literal["graceful", "now"]
    """``now`` kills tools; ``graceful`` asks them first."""
    reason: Literal["interrupt"] | None = None
    """Another run was to go first. Absent for a plain stop."""


class RunCompleted(RunEvent, frozen=True, kw_only=True, tag="run.completed"):
    """The run ended by itself. ``output`` is the last completed assistant message, or ``""``."""

    output: str
    """The last completed assistant message, or empty."""
    stop_reason: Literal["end", "max_steps", "length", "refused"]
    """``max_steps``: the bound on model calls; ``length``: the model's output bound; ``refused``: the
    model would not."""
    usage: Usage
    """Of the whole run."""
    duration_ms: int
    """From ``run.started``."""


class RunFailed(RunEvent, frozen=True, kw_only=True, tag="run.failed"):
    """The run could not go on."""

    error: ErrorInfo
    """Why."""
    usage: Usage
    """Of the whole run."""


class RunCancelled(RunEvent, frozen=True, kw_only=True, tag="run.cancelled"):
    """The run was stopped, or another one took its place."""

    reason: Literal["stop", "interrupt"]
    """``interrupt``: another run took its place."""
    by: By
    """Who did it."""
    usage: Usage
    """Of the whole run."""


# -- steps and items -----------------------------------------------------------------------------------


class StepStarted(RunEvent, frozen=True, kw_only=True, tag="step.started"):
    """One model call and the tools it asks for. ``step`` counts from 1."""

    step: int
    """Counts from 1 in each run."""


class StepCompleted(RunEvent, frozen=True, kw_only=True, tag="step.completed"):
    """The model call and its tools are done."""

    step: int
    """As in ``step.started``."""
    usage: Usage
    """Of this model call."""
    duration_ms: int
    """Model call and tools, waiting for people included."""
    stop_reason: Literal["length", "refused"] | None = None
    """Why the model's answer ended, if not by itself."""


class ReasoningDelta(RunEvent, frozen=True, kw_only=True, tag="reasoning.delta"):
    """A piece of reasoning. The first one starts the item."""

    item_id: str
    """The block it is part of."""
    delta: str
    """Append it to what came before."""


class ReasoningAvailable(RunEvent, frozen=True, kw_only=True, tag="reasoning.available"):
    """The whole block of reasoning; authoritative. Ends the item."""

    item_id: str
    """The block."""
    text: str
    """All of it."""


def _assistant() -> Literal["assistant"]:
    return "assistant"


class MessageStarted(RunEvent, frozen=True, kw_only=True, tag="message.started"):
    """The assistant begins to say something."""

    item_id: str
    """The message."""
    step: int
    """The model call that says it."""
    # A factory, since a plain default would be left off the wire.
    role: Literal["assistant"] = msgspec.field(default_factory=_assistant)
    """Always ``assistant``: what the user said is in ``run.queued``, ``run.started`` and ``run.steered``."""


class MessageDelta(RunEvent, frozen=True, kw_only=True, tag="message.delta"):
    """A piece of what the assistant says."""

    item_id: str
    """The message it is part of."""
    delta: str
    """Append it to what came before."""


class MessageCompleted(RunEvent, frozen=True, kw_only=True, tag="message.completed"):
    """The whole message; authoritative. ``partial``: the run was stopped while it was being said."""

    item_id: str
    """The message."""
    text: str
    """All of it; replaces what the deltas built."""
    content: list[ContentPart]
    """The same as parts."""
    partial: bool | None = None
    """True: the run was stopped, and this is what it had said."""


class ItemDiscarded(RunEvent, frozen=True, kw_only=True, tag="item.discarded"):
    """What was streamed under this item does not count."""

    item_id: str
    """A message or a block of reasoning; one that had ended may be discarded too."""
    reason: Literal["retried", "failed"]
    """``retried``: the model is asked again; ``failed``: it is not."""


# -- tools ---------------------------------------------------------------------------------------------


class ToolStarted(RunEvent, frozen=True, kw_only=True, tag="tool.started"):
    """The model asked for a tool. Before policy: nothing has run yet."""

    call_id: str
    """Unique within the conversation."""
    step: int
    """The model call that asked for it."""
    name: str
    """The tool."""
    source: str
    """``builtin``, ``mcp:SERVER``, ``client`` or ``hermes``."""
    title: str
    """For people."""
    arguments: dict[str, Any]
    """What the model wants it called with."""
    annotations: Annotations
    """What the tool says of itself."""
    owner: Owner | None = None
    """The client at a socket that executes it. Without one, source ``client`` is whoever started the run."""
    usage: Usage | None = None
    """Of the model call that asked for it, with the last of its calls. It is in ``step.completed`` too, which comes
    when they are over."""


class ToolExecuting(RunEvent, frozen=True, kw_only=True, tag="tool.executing"):
    """The call begins, with these arguments. In the log before any side effect."""

    call_id: str
    """As in ``tool.started``."""
    arguments: dict[str, Any]
    """The final ones: a person may have edited them."""


class ToolOutput(RunEvent, frozen=True, kw_only=True, tag="tool.output"):
    """What a running call printed (``chunk``), or how far it is (``progress``, ``total``, ``message``)."""

    call_id: str
    """As in ``tool.started``."""
    stream: Literal["stdout", "stderr", "progress"]
    """``progress`` goes with ``progress``, the others with ``chunk``."""
    chunk: str | None = None
    """Text; never splits a character."""
    progress: float | None = None
    """In the tool's own unit."""
    total: float | None = None
    """What ``progress`` goes up to, if the tool knows."""
    message: str | None = None
    """For people."""


class ToolCompleted(RunEvent, frozen=True, kw_only=True, tag="tool.completed"):
    """The call is over. ``output`` is a bounded preview; ``truncated`` says that there is more to fetch."""

    call_id: str
    """As in ``tool.started``."""
    name: str
    """The tool."""
    status: Literal["ok", "error", "denied", "cancelled", "interrupted"]
    """``denied``: by policy or a person, it never ran; ``interrupted``: a server died under it and it is
    not safe to run again."""
    output: str
    """What the model is told, bounded."""
    truncated: bool
    """True: the rest is at ``GET /api/conversations/{id}/tool-calls/{call_id}/output``."""
    duration_ms: int
    """From ``tool.executing``; 0 if it never ran."""
    structured: Any = None
    """The result as JSON, where it has such; the terminal's ``exit_code`` is here."""
    content: list[ContentPart] | None = None
    """The result as parts, where it has images."""


# -- interactions --------------------------------------------------------------------------------------


class InteractionRequested(RunEvent, frozen=True, kw_only=True, tag="interaction.requested"):
    """A person is asked. Open until its ``interaction.resolved``."""

    interaction_id: str
    """For ``interaction.reply``."""
    kind: InteractionKind
    """Says which of ``options``, ``questions`` and ``schema`` is there."""
    call_id: str | None = None
    """The tool call that waits."""
    title: str
    """One line for people."""
    message: str
    """For people."""
    tool: InteractionTool | None = None
    """For an approval: the call to judge."""
    options: list[Option] | None = None
    """For an approval, or a form that may be declined: what ``option`` may be."""
    questions: list[Question] | None = None
    """For a clarify: exactly one."""
    schema: dict[str, Any] | None = None
    """For a form, and for a tool that the client executes: JSON Schema of ``content``."""
    url: str | None = None
    """For a form that is filled in elsewhere: the address to open, after having looked where it leads. Then there is
    no ``schema``, and ``option`` says that it is done, or will not be."""
    editable: bool
    """Whether the reply may change the call's ``arguments``."""
    digest: str | None = None
    """Of the arguments shown. Sent back, it makes sure that they are still the ones."""
    requested_at: int
    """Unix ms."""
    expires_at: int
    """Unix ms."""
    on_expire: OnExpire
    """What happens then."""
    answerable_by: AnswerableBy
    """Who may answer."""
    owner: Owner | None = None
    """For a call that one client executes: the client."""

    @property
    def needs_person(self) -> bool:
        """Whether people are asked: what a client executes is a program's to answer."""
        return self.kind != "client_tool"


class InteractionResolved(RunEvent, frozen=True, kw_only=True, tag="interaction.resolved"):
    """The question is settled, and by whom. Secret answers are redacted."""

    interaction_id: str
    """As in ``interaction.requested``."""
    outcome: Literal["answered", "expired", "cancelled"]
    """``expired``: nobody answered in time; ``cancelled``: its run ended."""
    option: str | None = None
    """The option taken."""
    answers: dict[str, Any] | None = None
    """By question id; secret ones are redacted."""
    content: dict[str, Any] | None = None
    """What was filled in."""
    arguments: dict[str, Any] | None = None
    """The whole object, if it was edited."""
    comment: str | None = None
    """What the person added."""
    by: By
    """Who decided."""
    via: Literal["socket", "http", "policy", "timeout"]
    """``policy``: a rule that came in meanwhile; ``timeout``: ``on_expire``."""


# -- MCP -----------------------------------------------------------------------------------------------


class McpStatus(EventBase, frozen=True, kw_only=True, tag="mcp.status"):
    """An MCP server of this conversation changed state."""

    server: str
    """Its name in ``mcp_servers``."""
    state: Literal["starting", "ready", "auth_required", "failed", "stopped"]
    """``auth_required``: its credentials are missing or refused."""
    tools: list[str] | None = None
    """Names, once it is ready."""
    error: str | None = None
    """Why it failed."""


Event: TypeAlias = (
    ConversationCreated
    | ConversationConfigured
    | RunQueued
    | RunStarted
    | RunWaiting
    | RunResumed
    | RunRecovered
    | RunSteered
    | RunStopping
    | RunCompleted
    | RunFailed
    | RunCancelled
    | StepStarted
    | StepCompleted
    | ReasoningDelta
    | ReasoningAvailable
    | MessageStarted
    | MessageDelta
    | MessageCompleted
    | ItemDiscarded
    | ToolStarted
    | ToolExecuting
    | ToolOutput
    | ToolCompleted
    | InteractionRequested
    | InteractionResolved
    | McpStatus
)


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type this version does not know. Its ``seq`` counts; the rest is kept in ``fields``."""

    type: str
    seq: int
    ts: int
    fields: dict[str, Any]


def event_type(event: EventBase | type[EventBase]) -> str:
    """The wire name of an event or of its class."""
    return str(event.__struct_config__.tag)


EVENT_TYPES: tuple[str, ...] = tuple(event_type(cls) for cls in Event.__args__)
DELTA_TYPES: frozenset[str] = frozenset({"message.delta", "reasoning.delta", "tool.output"})
"""What finals make redundant: retention may fold it away, and folding a finished run need not read it."""
