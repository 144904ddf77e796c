"""What the runs API says: hermes-agent's run events and run objects, field by field.

Its clients read a flat JSON object whose ``event`` says what it is. The fields that they know have the names and units
they know (seconds, not milliseconds); what they do not know comes beside them.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from hermes_ws.protocol.values import Choice, Input, Usage

__all__ = [
    "STATES",
    "TERMINAL",
    "ApprovalCancelled",
    "ApprovalRequest",
    "ApprovalResponded",
    "ClarifyCancelled",
    "ClarifyPrompt",
    "ClarifyRequest",
    "ClarifyResponded",
    "FormRequest",
    "FormResponded",
    "FunctionRequest",
    "MessageAvailable",
    "MessageDeltaFrame",
    "MessageDiscarded",
    "ReasoningDeltaFrame",
    "ReasoningWhole",
    "RunCancelledFrame",
    "RunCompletedFrame",
    "RunFailedFrame",
    "RunFrame",
    "RunList",
    "RunObject",
    "RunQueuedFrame",
    "RunRecoveredFrame",
    "RunStartedFrame",
    "RunState",
    "RunSteeredFrame",
    "RunStoppingFrame",
    "SteerResolved",
    "ToolCompletedFrame",
    "ToolOutputFrame",
    "ToolStartedFrame",
]

RunState: TypeAlias = Literal[
    "queued",
    "running",
    "waiting_for_approval",
    "waiting_for_clarification",
    "waiting_for_tool_output",
    "stopping",
    "completed",
    "failed",
    "cancelled",
]
"""Where a run stands. ``waiting_for_tool_output``: for a function that whoever began the run executes."""

STATES: Final[tuple[str, ...]] = get_args(RunState)
TERMINAL: Final[frozenset[str]] = frozenset({"completed", "failed", "cancelled"})


class RunFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """What every event of a run has."""

    run_id: str
    """The run."""
    timestamp: float
    """When it happened, Unix seconds."""


# -- the run -------------------------------------------------------------------------------------------


class RunQueuedFrame(RunFrame, frozen=True, kw_only=True, tag="run.queued"):
    """Another run of the session is at work; this one waits."""

    position: int
    """1 is next."""


class RunStartedFrame(RunFrame, frozen=True, kw_only=True, tag="run.started"):
    """The run begins."""

    session_id: str
    """The conversation it is in."""
    agent: str
    """Who answers."""
    model: str
    """Which model answers."""
    input: Input
    """What was asked."""


class RunRecoveredFrame(RunFrame, frozen=True, kw_only=True, tag="run.recovered"):
    """A restarted server took the run up again."""

    attempt: int
    """Counts from 1 with the start."""
    reason: str
    """Why it had to be."""


class RunStoppingFrame(RunFrame, frozen=True, kw_only=True, tag="run.stopping"):
    """Somebody asked the run to stop."""


class RunSteeredFrame(RunFrame, frozen=True, kw_only=True, tag="run.steered"):
    """Text for the running run was taken; the agent hears it between two steps."""

    accepted: bool
    """True."""
    steer_id: str
    """Says in ``run.steer_resolved`` which one it was."""
    text: str
    """What was said."""


class SteerResolved(RunFrame, frozen=True, kw_only=True, tag="run.steer_resolved"):
    """What became of such text."""

    steer_id: str
    """As in ``run.steered``."""
    disposition: Literal["applied", "queued", "returned"]
    """``applied``: the agent has it; ``queued``: too late, it is a run of its own; ``returned``: too late, and in
    ``pending_steer`` of the run's end."""
    new_run_id: str | None = None
    """For ``queued``."""


class RunCompletedFrame(RunFrame, frozen=True, kw_only=True, tag="run.completed"):
    """The run ended by itself."""

    output: str
    """The answer."""
    usage: Usage
    """Tokens of the whole run."""
    completed: bool
    """True."""
    stop_reason: str
    """``end``, ``max_steps``, ``length`` or ``refused``."""
    duration: float
    """Seconds."""
    pending_steer: str | None = None
    """Text that came too late to be heard: to be sent as the next message, if it still matters."""


class RunFailedFrame(RunFrame, frozen=True, kw_only=True, tag="run.failed"):
    """The run could not go on."""

    error: str
    """Why, for people."""
    error_code: str
    """Why, for programs."""
    retryable: bool
    """Whether the same may succeed later."""
    usage: Usage
    """Tokens of the whole run."""
    completed: bool
    """False."""
    pending_steer: str | None = None
    """Text that was not heard."""


class RunCancelledFrame(RunFrame, frozen=True, kw_only=True, tag="run.cancelled"):
    """The run was stopped."""

    usage: Usage
    """Tokens of the whole run."""
    completed: bool
    """False."""
    interrupted: bool
    """True."""
    pending_steer: str | None = None
    """Text that was not heard."""
    reason: Literal["deleted"] | None = None
    """``deleted``: its conversation was, and it with that; there is no such run any more."""


# -- what is said and thought --------------------------------------------------------------------------


class MessageDeltaFrame(RunFrame, frozen=True, kw_only=True, tag="message.delta"):
    """A piece of what the assistant says."""

    delta: str
    """Append it."""
    message_id: str
    """The message it is part of: a run says one in each step."""


class MessageAvailable(RunFrame, frozen=True, kw_only=True, tag="message.available"):
    """A message is whole; authoritative."""

    message_id: str
    """The message."""
    text: str
    """All of it."""
    partial: bool | None = None
    """True: the run was stopped while it was being said."""


class MessageDiscarded(RunFrame, frozen=True, kw_only=True, tag="message.discarded"):
    """What was streamed of a message, or of a block of reasoning, does not count: the model is asked again."""

    message_id: str
    """The message or the block."""
    reason: str
    """``retried`` or ``failed``."""


class ReasoningDeltaFrame(RunFrame, frozen=True, kw_only=True, tag="reasoning.delta"):
    """A piece of the model's reasoning."""

    delta: str
    """Append it."""
    reasoning_id: str
    """The block it is part of."""


class ReasoningWhole(RunFrame, frozen=True, kw_only=True, tag="reasoning.available"):
    """A block of reasoning is whole: the reasoning itself, not the answer once more."""

    text: str
    """All of it."""
    reasoning_id: str
    """The block."""


# -- tools ---------------------------------------------------------------------------------------------


class ToolStartedFrame(RunFrame, frozen=True, kw_only=True, tag="tool.started"):
    """The model asked for a tool."""

    tool: str
    """Its name."""
    preview: str
    """What it is called with, in a few words."""
    tool_call_id: str
    """Which call; several of the same tool may be at work."""
    args: dict[str, Any]
    """What it is called with."""
    source: str
    """``builtin``, ``mcp:SERVER``, ``client`` or ``hermes``."""


class ToolOutputFrame(RunFrame, frozen=True, kw_only=True, tag="tool.output"):
    """What a running call printed, or how far it is."""

    tool_call_id: str
    """As in ``tool.started``."""
    stream: Literal["stdout", "stderr", "progress"]
    """``progress`` goes with ``progress``, the others with ``chunk``."""
    chunk: str | None = None
    """Text."""
    progress: float | None = None
    """In the tool's own unit."""
    total: float | None = None
    """What ``progress`` goes up to."""
    message: str | None = None
    """For people."""


class ToolCompletedFrame(RunFrame, frozen=True, kw_only=True, tag="tool.completed"):
    """A call is over."""

    tool: str
    """Its name."""
    duration: float
    """Seconds."""
    error: bool
    """Whether it came to nothing."""
    tool_call_id: str
    """As in ``tool.started``."""
    status: str
    """``ok``, ``error``, ``denied``, ``cancelled`` or ``interrupted``."""
    result: str
    """What the model is told, bounded."""
    truncated: bool
    """Whether there is more."""


# -- questions -----------------------------------------------------------------------------------------


class ApprovalRequest(RunFrame, frozen=True, kw_only=True, tag="approval.request"):
    """A call waits for somebody's leave."""

    request_id: str
    """Names it in the answer."""
    command: str
    """What would run: the command, or the call."""
    pattern_key: str
    """What a remembered approval is for."""
    pattern_keys: list[str]
    """The same as a list."""
    description: str
    """For people."""
    allow_permanent: bool
    """Whether ``always`` is among the choices."""
    choices: list[str]
    """What may be answered."""
    tool: str
    """The tool."""
    tool_call_id: str
    """The call that waits."""
    args: dict[str, Any]
    """What it would be called with."""
    risk: str
    """``low``, ``medium`` or ``high``."""
    expires_at: float
    """Unix seconds; then it is denied."""


class ApprovalResponded(RunFrame, frozen=True, kw_only=True, tag="approval.responded"):
    """An approval is settled."""

    choice: str
    """What was answered."""
    resolved: int
    """1."""
    request_id: str
    """As in ``approval.request``."""
    outcome: Literal["answered", "expired"]
    """``expired``: nobody answered in time, and it is denied."""


class ApprovalCancelled(RunFrame, frozen=True, kw_only=True, tag="approval.cancelled"):
    """An approval is not needed any more: its run ends."""

    request_id: str
    """As in ``approval.request``."""


class ClarifyPrompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question as newer clients read it."""

    version: int
    """1."""
    type: Literal["choice", "choices", "text"]
    """What an answer is: one of the choices, several, or words."""
    question: str
    """For people."""
    choices: list[Choice] = []
    """For ``choice`` and ``choices``."""


class ClarifyRequest(RunFrame, frozen=True, kw_only=True, tag="clarify.request"):
    """The agent asks a question."""

    request_id: str
    """Names it in the answer."""
    clarify_id: str
    """The same, under the name that some clients know it by."""
    question: str
    """For people."""
    choices: list[str]
    """What may be answered; empty: whatever you like."""
    allow_other: bool
    """Whether an answer may be none of the choices."""
    multi_select: bool
    """Whether several choices may be taken."""
    secret: bool
    """Whether the answer is stored nowhere."""
    prompt: ClarifyPrompt
    """The same once more."""
    expires_at: float
    """Unix seconds; then the agent is told that nobody answered."""
    tool_call_id: str | None = None
    """The call that asks."""


class ClarifyResponded(RunFrame, frozen=True, kw_only=True, tag="clarify.responded"):
    """A question was answered."""

    request_id: str
    """As in ``clarify.request``."""
    clarify_id: str
    """The same."""
    answer: Any
    """What was answered; null: it is a secret."""
    response_type: Literal["choice", "choices", "text"]
    """What the answer is."""


class ClarifyCancelled(RunFrame, frozen=True, kw_only=True, tag="clarify.cancelled"):
    """A question will not be answered any more."""

    request_id: str
    """As in ``clarify.request``."""
    clarify_id: str
    """The same."""
    reason: Literal["expired", "cancelled"]
    """``expired``: nobody answered in time; ``cancelled``: the run ends."""


class FormRequest(RunFrame, frozen=True, kw_only=True, tag="form.request"):
    """A tool's server asks for a form to be filled in."""

    request_id: str
    """Names it in the answer."""
    title: str
    """One line for people."""
    description: str
    """For people."""
    choices: list[str]
    """What may be answered instead of, or beside, ``content``."""
    expires_at: float
    """Unix seconds."""
    schema: dict[str, Any] | None = None
    """JSON Schema of ``content``."""
    url: str | None = None
    """Where the form is, if it is filled in elsewhere."""
    tool_call_id: str | None = None
    """The call that waits."""


class FormResponded(RunFrame, frozen=True, kw_only=True, tag="form.responded"):
    """A form, or a function that somebody else executes, is settled."""

    request_id: str
    """As when it was asked."""
    outcome: Literal["answered", "expired", "cancelled"]
    """How."""
    choice: str | None = None
    """The choice that was taken."""


class FunctionRequest(RunFrame, frozen=True, kw_only=True, tag="function.request"):
    """A function that whoever began the run executes is waited for."""

    request_id: str
    """Names it in the answer."""
    tool: str
    """The function."""
    tool_call_id: str
    """The call."""
    args: dict[str, Any]
    """What to call it with."""
    expires_at: float
    """Unix seconds."""


# -- the run as an object ------------------------------------------------------------------------------


class RunObject(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run as ``GET /v1/runs/{run_id}`` has it. Times are Unix seconds."""

    object: Literal["hermes.run"]
    """``hermes.run``."""
    run_id: str
    """Its id."""
    status: RunState
    """Where it stands."""
    created_at: float
    """When it was asked for."""
    updated_at: float
    """When something last happened to it."""
    session_id: str
    """The conversation it is in: ``/ws/{session_id}`` is its socket."""
    model: str
    """What was asked for as ``model``, or which agent answers."""
    last_event: str | None = None
    """The newest event."""
    last_event_id: int | None = None
    """Its number, for ``?after=`` and ``Last-Event-ID``."""
    attempt: int | None = None
    """Counts from 1; a recovery adds one."""
    output: str | None = None
    """The answer, once it is complete."""
    usage: Usage | None = None
    """Tokens: of the whole run once it is over, of its finished steps before."""
    stop_reason: str | None = None
    """Why it completed: ``end``, ``max_steps``, ``length`` or ``refused``."""
    error: str | None = None
    """Why it failed, for people."""
    error_code: str | None = None
    """Why it failed, for programs."""
    retryable: bool | None = None
    """Whether the same may succeed later."""
    approval: ApprovalRequest | None = None
    """The oldest approval that waits."""
    clarification: ClarifyRequest | None = None
    """The oldest question that waits."""
    requests: list[RunFrame] | None = None
    """Everything that waits for somebody, oldest first."""
    awaiting_user: bool | None = None
    """True: something waits for somebody."""
    pending_steer: str | None = None
    """Text that was said too late for the run to hear."""


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs."""

    object: Literal["list"]
    """``list``."""
    data: list[RunObject]
    """The one that something happened to last first."""
    has_more: bool
    """Whether there are more."""
    next: str | None
    """For ``?after=``. Null: this is the last page."""
