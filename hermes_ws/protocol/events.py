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
    ts: int


class RunEvent(EventBase, frozen=True, kw_only=True):
    """An event of a run. ``agent`` names the sub-agent that did it, where one did."""

    run_id: str
    agent: str | None = None


# -- conversation --------------------------------------------------------------------------------------


class ConversationCreated(EventBase, frozen=True, kw_only=True, tag="conversation.created"):
    """Always ``seq`` 1. ``epoch`` names this incarnation of the log."""

    conversation_id: str
    epoch: str


class ConversationConfigured(EventBase, frozen=True, kw_only=True, tag="conversation.configured"):
    """The whole configuration from here on, secrets redacted. ``version`` counts from 1."""

    version: int
    config: Config
    by: By


# -- runs ----------------------------------------------------------------------------------------------


class RunQueued(RunEvent, frozen=True, kw_only=True, tag="run.queued"):
    """Another run is active; this one waits. ``position`` counts from 1. Only if it waits."""

    input: Input
    position: int
    by: By


class RunStarted(RunEvent, frozen=True, kw_only=True, tag="run.started"):
    """The run begins. ``attempt`` counts from 1."""

    input: Input
    agent_name: str
    model: str
    attempt: int
    by: By
    retry_of: str | None = None


class RunWaiting(RunEvent, frozen=True, kw_only=True, tag="run.waiting"):
    """The first interaction of the run opened: its ids."""

    interactions: list[str]


class RunResumed(RunEvent, frozen=True, kw_only=True, tag="run.resumed"):
    """No interaction of the run is open any more: the ids of those that were."""

    interactions: list[str]


class RunRecovered(RunEvent, frozen=True, kw_only=True, tag="run.recovered"):
    """A restarted server took the run up again."""

    attempt: int
    reason: str


class RunSteered(RunEvent, frozen=True, kw_only=True, tag="run.steered"):
    """Text for a running run: one ``pending``, then exactly one of the others."""

    steer_id: str
    text: str
    by: By
    disposition: Literal["pending", "applied", "queued", "returned"]
    new_run_id: str | None = None


class RunStopping(RunEvent, frozen=True, kw_only=True, tag="run.stopping"):
    """Somebody asked the run to stop."""

    by: By
    mode: Literal["graceful", "now"]


class RunCompleted(RunEvent, frozen=True, kw_only=True, tag="run.completed"):
    """The run ended by itself. ``output`` is the last completed assistant message, or ``""``."""

    output: str
    stop_reason: Literal["end", "max_steps", "length", "refused"]
    usage: Usage
    duration_ms: int


class RunFailed(RunEvent, frozen=True, kw_only=True, tag="run.failed"):
    """The run could not go on."""

    error: ErrorInfo
    usage: Usage


class RunCancelled(RunEvent, frozen=True, kw_only=True, tag="run.cancelled"):
    """The run was stopped, or another one took its place."""

    reason: Literal["stop", "interrupt"]
    by: By
    usage: Usage


# -- steps and items -----------------------------------------------------------------------------------


class StepStarted(RunEvent, frozen=True, kw_only=True, tag="step.started"):
    """One model call and the tools it asks for. ``step`` counts from 1."""

    step: int


class StepCompleted(RunEvent, frozen=True, kw_only=True, tag="step.completed"):
    """The model call and its tools are done."""

    step: int
    usage: Usage
    duration_ms: int


class ReasoningDelta(RunEvent, frozen=True, kw_only=True, tag="reasoning.delta"):
    """A piece of reasoning. The first one starts the item."""

    item_id: str
    delta: str


class ReasoningAvailable(RunEvent, frozen=True, kw_only=True, tag="reasoning.available"):
    """The whole block of reasoning; authoritative. Ends the item."""

    item_id: str
    text: str


class MessageStarted(RunEvent, frozen=True, kw_only=True, tag="message.started"):
    """The assistant begins to say something."""

    item_id: str
    step: int
    role: Literal["assistant"] = "assistant"


class MessageDelta(RunEvent, frozen=True, kw_only=True, tag="message.delta"):
    """A piece of what the assistant says."""

    item_id: str
    delta: str


class MessageCompleted(RunEvent, frozen=True, kw_only=True, tag="message.completed"):
    """The whole message; authoritative. ``partial``: the run was stopped while it was being said."""

    item_id: str
    text: str
    content: list[ContentPart]
    partial: bool | None = None


class ItemDiscarded(RunEvent, frozen=True, kw_only=True, tag="item.discarded"):
    """What was streamed under this item does not count."""

    item_id: str
    reason: Literal["retried", "failed"]


# -- tools ---------------------------------------------------------------------------------------------


class ToolStarted(RunEvent, frozen=True, kw_only=True, tag="tool.started"):
    """The model asked for a tool. Before policy: nothing has run yet."""

    call_id: str
    step: int
    name: str
    source: str
    title: str
    arguments: dict[str, Any]
    annotations: Annotations


class ToolExecuting(RunEvent, frozen=True, kw_only=True, tag="tool.executing"):
    """The call begins, with these arguments. In the log before any side effect."""

    call_id: str
    arguments: dict[str, Any]


class ToolOutput(RunEvent, frozen=True, kw_only=True, tag="tool.output"):
    """What a running call printed (``chunk``), or how far it is (``progress``, ``total``, ``message``)."""

    call_id: str
    stream: Literal["stdout", "stderr", "progress"]
    chunk: str | None = None
    progress: float | None = None
    total: float | None = None
    message: str | None = None


class ToolCompleted(RunEvent, frozen=True, kw_only=True, tag="tool.completed"):
    """The call is over. ``output`` is a bounded preview; ``truncated`` says that there is more to fetch."""

    call_id: str
    name: str
    status: Literal["ok", "error", "denied", "cancelled", "interrupted"]
    output: str
    truncated: bool
    duration_ms: int
    structured: Any = None
    content: list[ContentPart] | None = None


# -- interactions --------------------------------------------------------------------------------------


class InteractionRequested(RunEvent, frozen=True, kw_only=True, tag="interaction.requested"):
    """A person is asked. Open until its ``interaction.resolved``."""

    interaction_id: str
    kind: InteractionKind
    call_id: str | None = None
    title: str
    message: str
    tool: InteractionTool | None = None
    options: list[Option] | None = None
    questions: list[Question] | None = None
    schema: dict[str, Any] | None = None
    editable: bool
    digest: str | None = None
    requested_at: int
    expires_at: int
    on_expire: OnExpire
    answerable_by: AnswerableBy


class InteractionResolved(RunEvent, frozen=True, kw_only=True, tag="interaction.resolved"):
    """The question is settled, and by whom. Secret answers are redacted."""

    interaction_id: str
    outcome: Literal["answered", "expired", "cancelled"]
    option: str | None = None
    answers: dict[str, Any] | None = None
    content: dict[str, Any] | None = None
    arguments: dict[str, Any] | None = None
    comment: str | None = None
    by: By
    via: Literal["socket", "http", "policy", "timeout"]


# -- MCP -----------------------------------------------------------------------------------------------


class McpStatus(EventBase, frozen=True, kw_only=True, tag="mcp.status"):
    """An MCP server of this conversation changed state."""

    server: str
    state: Literal["starting", "ready", "auth_required", "failed", "stopped"]
    tools: list[str] | None = None
    error: str | None = None


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
"""What finals make redundant: may be folded away by retention, and need not be read to fold a finished run."""
