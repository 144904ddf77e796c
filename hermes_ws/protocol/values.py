"""The nouns of the wire: what events, commands and control frames are made of.

Every type here is plain data. ``None`` in an optional field means that the field is absent on the wire.
Times are Unix milliseconds, durations are milliseconds (``_ms``) or seconds (``_s``) as the name says.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

__all__ = [
    "Annotations",
    "AnswerableBy",
    "ApprovalMode",
    "ApprovalRule",
    "ApprovalsConfig",
    "By",
    "Choice",
    "Config",
    "ContentPart",
    "ConversationId",
    "ErrorInfo",
    "ImagePart",
    "Input",
    "InteractionKind",
    "InteractionTool",
    "Item",
    "LimitsConfig",
    "McpServerConfig",
    "MessageItem",
    "OnExpire",
    "Option",
    "Owner",
    "PendingSteer",
    "ProgressInfo",
    "Question",
    "QueuedRun",
    "ReasoningItem",
    "Risk",
    "Role",
    "Rule",
    "RunStatus",
    "RunSummary",
    "Scope",
    "TextPart",
    "ToolCallItem",
    "ToolDescription",
    "ToolFilter",
    "ToolRule",
    "ToolStatus",
    "Usage",
    "Value",
    "Verdict",
]

ConversationId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$(?!\n)")]
"""What a client may call a conversation: ``[A-Za-z0-9][A-Za-z0-9._:-]{0,127}``."""

Role: TypeAlias = Literal["driver", "responder", "observer", "admin"]
"""What a key may do: everything in its conversations, only answer, only watch, administer."""

Risk: TypeAlias = Literal["low", "medium", "high"]
"""The policy's judgement of one call."""

Verdict: TypeAlias = Literal["allow", "ask", "deny"]
"""What the policy does with a call."""

ApprovalMode: TypeAlias = Literal["ask", "auto", "deny"]
"""What happens to a call that no rule decides."""

Scope: TypeAlias = Literal["once", "run", "conversation", "always"]
"""How long an approval holds: ``run`` ends with the run, ``always`` is per principal and agent."""

RunStatus: TypeAlias = Literal["queued", "running", "waiting", "stopping", "completed", "failed", "cancelled"]
"""Where a run stands; ``waiting`` is for a person."""

InteractionKind: TypeAlias = Literal["approval", "clarify", "form", "client_tool"]
"""What is asked: leave to call a tool, a question, a form, or the result of a tool that a client executes."""

ToolStatus: TypeAlias = Literal["started", "executing", "ok", "error", "denied", "cancelled", "interrupted"]
"""Where a tool call stands: not past the policy yet, running, or how it ended."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every value on the wire: immutable, absent fields left out."""


class By(Value, frozen=True, kw_only=True):
    """Who did it."""

    principal: str
    """Name of the key or ticket; ``server`` where nobody in particular did it."""
    client_id: str | None = None
    """What the client called itself in ``client.update``."""


class ErrorInfo(Value, frozen=True, kw_only=True):
    """Why a run failed."""

    code: str
    """One of the run error codes."""
    message: str
    """For people; may change."""
    retryable: bool
    """Whether ``run.retry`` may succeed with nothing changed."""


class Usage(Value, frozen=True, kw_only=True):
    """Tokens of one model call, one run, or one conversation."""

    input_tokens: int
    """Tokens read, cached ones included."""
    output_tokens: int
    """Tokens written, reasoning included."""
    total_tokens: int
    """Both together."""
    cached_input_tokens: int | None = None
    """Part of ``input_tokens`` that the endpoint had cached, if it says so."""
    reasoning_tokens: int | None = None
    """Part of ``output_tokens`` spent on reasoning, if the endpoint says so."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_input_tokens=_add(self.cached_input_tokens, other.cached_input_tokens),
            reasoning_tokens=_add(self.reasoning_tokens, other.reasoning_tokens),
        )

    @staticmethod
    def zero() -> Usage:
        return Usage(input_tokens=0, output_tokens=0, total_tokens=0)


def _add(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


class TextPart(Value, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Text in an input or a message."""

    text: str
    """The text."""


class ImagePart(Value, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image. A command gives exactly one of ``url`` and ``blob``; in events one that is stored here has ``blob``,
    ``sha256``, ``mime`` and ``size``, and no ``url``."""

    url: str | None = None
    """``http:`` or ``https:`` URL, for whoever shows it to fetch; in commands also a ``data:`` URL, which is stored."""
    blob: str | None = None
    """Id of an image that is stored here: ``blob_`` and its ``sha256``. ``GET /api/blobs/{blob}`` has it."""
    sha256: str | None = None
    """SHA-256 of its bytes, in hex. Told by the server; in commands it is ignored, as are ``mime`` and ``size``."""
    mime: str | None = None
    """``image/png``, ``image/jpeg``, ``image/gif`` or ``image/webp``, judged by its content."""
    size: int | None = None
    """Bytes."""
    detail: str | None = None
    """How closely the model should look, as its endpoint understands it (``low``, ``high``, ``auto``)."""

    @property
    def line(self) -> str:
        """The image in a few words, for a person at a terminal."""
        if self.blob is None:
            return "[image]" if self.url is None or self.url.startswith("data:") else f"[image {self.url[:200]}]"
        kind = (self.mime or "image").removeprefix("image/")
        return f"[image {kind}, {(self.size or 0) / 1000:,.1f} kB, {self.blob}]"


ContentPart: TypeAlias = TextPart | ImagePart
"""One part of an input or a message."""

Input: TypeAlias = str | list[ContentPart]
"""What a run is given: text, or parts."""


class Annotations(Value, frozen=True, kw_only=True):
    """What a tool says of itself. A tool that says nothing is taken to write and to be unrepeatable."""

    read_only: bool
    """Changes nothing."""
    idempotent: bool
    """Run twice with the same arguments, it does what it does once."""
    destructive: bool
    """May delete or overwrite."""


class ToolDescription(Value, frozen=True, kw_only=True):
    """A tool as the model and ``tools.list`` see it. ``parameters`` is a JSON Schema of an object."""

    name: str
    """What the model calls it; unique within the conversation."""
    source: str
    """``builtin``, ``mcp:SERVER``, ``client`` or ``hermes``."""
    title: str
    """For people."""
    description: str
    """For the model."""
    parameters: dict[str, Any]
    """JSON Schema of the arguments, an object."""
    annotations: Annotations
    """What the tool says of itself."""


class Rule(Value, frozen=True, kw_only=True):
    """What an approval would remember: this tool, when these arguments equal (absent: whatever they are)."""

    tool: str
    """Source-qualified name, such as ``builtin:terminal``."""
    match: dict[str, Any] | None = None
    """Arguments that must be equal; those not named may be anything."""
    server: str | None = None
    """For a tool of an MCP server: the address, or the operator's name, of the server it was given for. Another server
    that takes its name does not inherit it."""


class Option(Value, frozen=True, kw_only=True):
    """One way to answer an approval."""

    id: str
    """What ``interaction.reply`` sends as ``option``."""
    label: str
    """For people."""
    kind: Literal["allow", "deny"]
    """Whether it lets the call through."""
    scope: Scope | None = None
    """How long the answer is remembered."""
    rule: Rule | None = None
    """What would be remembered. Shown so that nobody grants more than they see."""


class Choice(Value, frozen=True, kw_only=True):
    """One offered answer of a question."""

    id: str
    """What an answer names."""
    label: str
    """For people."""


class Question(Value, frozen=True, kw_only=True):
    """One question of a clarify. ``allow_other``: free text is taken beside the options."""

    id: str
    """Key of the answer in ``answers``."""
    prompt: str
    """For people."""
    type: Literal["text", "single", "multi", "number", "boolean", "secret"]
    """What an answer is: a string, one or several option ids, a number, a boolean; ``secret`` is a
    string that is stored nowhere."""
    options: list[Choice] | None = None
    """For ``single`` and ``multi``."""
    required: bool
    """Whether a reply without this answer is refused."""
    allow_other: bool
    """Whether free text is taken beside the options."""


class InteractionTool(Value, frozen=True, kw_only=True):
    """The call an interaction is about, as the person who answers needs to see it."""

    call_id: str
    """The tool call that waits."""
    name: str
    """The tool."""
    source: str
    """Where the tool comes from."""
    arguments: dict[str, Any]
    """What it would be called with."""
    risk: Risk
    """The policy's judgement of this call."""


class OnExpire(Value, frozen=True, kw_only=True):
    """What happens when nobody answers in time: this option is taken, or the question is cancelled."""

    option: str | None = None
    """Id of the option that is then taken; for an approval always one that refuses."""
    cancel: bool | None = None
    """True: the model is told that nobody answered."""


class Owner(Value, frozen=True, kw_only=True):
    """The client that executes a call: nobody else may answer for it."""

    principal: str
    """Whose client it is."""
    client_id: str
    """As in its ``client.update``."""
    name: str | None = None
    """For people."""
    if_gone: Literal["fail", "wait"]
    """When it is gone: the call fails, and the model is told; or it waits until the client is back or it expires."""
    grace_ms: int
    """How long it may be gone before that: it may only be reconnecting."""

    @property
    def by(self) -> By:
        """The same client, as whoever did something."""
        return By(principal=self.principal, client_id=self.client_id)


class AnswerableBy(Value, frozen=True, kw_only=True):
    """Which roles may answer."""

    roles: list[Role]
    """A reply from any other role is ``not_permitted``."""


class ApprovalRule(Value, frozen=True, kw_only=True):
    """A remembered decision, as ``approvals.list`` shows it."""

    rule_id: str
    """For ``approvals.revoke``."""
    scope: Scope
    """How far it reaches."""
    rule: Rule
    """What it lets through."""
    agent: str
    """The agent it was given to."""
    by: By
    """Who gave it."""
    created_at: int
    """Unix ms."""
    run_id: str | None = None
    """The run it ends with, for scope ``run``."""


# -- configuration of a conversation -------------------------------------------------------------------


class ToolFilter(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names or globs, source-qualified or not. Deny wins; no ``allow`` is the default set, ``[]`` is none."""

    allow: list[str] | None = None
    """Absent: the server's default set. Empty: none."""
    deny: list[str] | None = None
    """Wins over ``allow``."""


class ToolRule(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A standing decision for tools whose name fits."""

    tool: str
    """Name or glob, source-qualified or not."""
    decision: Verdict
    """What happens to calls of it."""


class ApprovalsConfig(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is asked before a call."""

    mode: ApprovalMode | None = None
    """``ask`` (the default): read-only tools run, all others ask; ``auto``: what is allowed runs; ``deny``:
    what would ask is refused. The operator's ceiling bounds it."""
    rules: list[ToolRule] | None = None
    """Before ``mode``: ``deny`` wins, then the first that fits decides."""


class McpServerConfig(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One MCP server of this conversation: by ``url``, or by ``ref`` to the operator's configuration."""

    url: str | None = None
    """Streamable HTTP or SSE endpoint. Shown as it is: secrets belong into ``headers``. Another ``url`` or
    ``transport`` drops the stored headers."""
    headers: dict[str, Any] | None = None
    """With ``url``. Write-only: read back as ``{"set": true, "fingerprint": "..."}``, which as input means keep."""
    transport: Literal["http", "sse"] | None = None
    """Default ``http`` (streamable HTTP)."""
    tools: ToolFilter | None = None
    """Which of its tools this conversation sees."""
    approvals: ApprovalsConfig | None = None
    """Overrides the conversation's for its tools."""
    timeout_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Of one call."""
    ref: str | None = None
    """Name of a server in the operator's configuration; the only way to a stdio server."""
    env: dict[str, Any] | None = None
    """With ``ref``: environment variables for the operator's server, as far as the operator takes them. Write-only,
    like ``headers``."""

    @property
    def place(self) -> str:
        """Where the server is: what people approve, and give secrets for, is for there and nowhere else."""
        return self.url or f"ref:{self.ref}"


class LimitsConfig(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on each run of the conversation."""

    max_steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Model calls in one run; then it ends with ``stop_reason`` ``max_steps``."""
    deadline_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Counts from ``run.started``, not while waiting for a person; then the run fails as
    ``deadline_exceeded``."""


class Config(Value, frozen=True, kw_only=True):
    """Configuration of a conversation. Everything absent is the server's default."""

    agent: str | None = None
    """Who answers, from the next run on."""
    model: str | None = None
    """From the next run on."""
    instructions: str | None = None
    """Added to the agent's own, from the next run on."""
    tools: ToolFilter | None = None
    """What may be called."""
    approvals: ApprovalsConfig | None = None
    """Who is asked before a call."""
    mcp_servers: dict[str, McpServerConfig] | None = None
    """By name; the name is the ``SERVER`` of ``mcp:SERVER``."""
    limits: LimitsConfig | None = None
    """Bounds on each run."""
    metadata: dict[str, Any] | None = None
    """The client's own; the server only keeps it."""
    title: str | None = None
    """For lists of conversations."""

    def place_of(self, source: str) -> str | None:
        """Where the MCP server of a tool's source is; None if the source is none, or not there."""
        server = (self.mcp_servers or {}).get(source.removeprefix("mcp:")) if source.startswith("mcp:") else None
        return None if server is None else server.place


# -- folded state --------------------------------------------------------------------------------------


class MessageItem(Value, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """Something said. For ``user`` the ``item_id`` is the run's id, or the steer's where it was steered."""

    item_id: str
    """As in the events; see above for ``user``."""
    run_id: str
    """The run it belongs to."""
    role: Literal["user", "assistant"]
    """Who said it."""
    status: Literal["in_progress", "completed"]
    """``in_progress`` while it is being said."""
    text: str
    """All of it, or what has come so far."""
    content: list[ContentPart]
    """The same as parts; images are only here."""
    step: int | None = None
    """The model call that said it; absent for ``user``."""
    partial: bool | None = None
    """True: the run was stopped while it was being said."""
    steered: bool | None = None
    """True: said to a run that was already going."""


class ReasoningItem(Value, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """A block of the model's reasoning."""

    item_id: str
    """As in the events."""
    run_id: str
    """The run it belongs to."""
    step: int
    """The model call it is part of."""
    status: Literal["in_progress", "completed"]
    """``in_progress`` while it is being thought."""
    text: str
    """All of it, or what has come so far."""


class ProgressInfo(Value, frozen=True, kw_only=True):
    """The newest progress report of a running call."""

    progress: float
    """In the tool's own unit."""
    total: float | None = None
    """What ``progress`` goes up to, if the tool knows."""
    message: str | None = None
    """For people."""


class ToolCallItem(Value, frozen=True, kw_only=True, tag_field="type", tag="tool_call"):
    """A tool call. While it runs, ``output`` is the concatenation of its chunks so far."""

    call_id: str
    """As in the events."""
    run_id: str
    """The run it belongs to."""
    step: int
    """The model call that asked for it."""
    name: str
    """The tool."""
    source: str
    """Where the tool comes from."""
    title: str
    """For people."""
    status: ToolStatus
    """``started``: not past the policy yet; ``executing``: running; the rest is how it ended."""
    arguments: dict[str, Any]
    """The final ones once it is executing."""
    annotations: Annotations
    """What the tool says of itself."""
    output: str
    """A bounded preview once it is over."""
    truncated: bool
    """Whether there is more to fetch."""
    structured: Any = None
    """The result as JSON, where it has such."""
    content: list[ContentPart] | None = None
    """The result as parts, where it has images."""
    progress: ProgressInfo | None = None
    """Only while it runs."""
    duration_ms: int | None = None
    """Once it is over."""


Item: TypeAlias = MessageItem | ReasoningItem | ToolCallItem
"""One thing in a conversation's folded history."""


class PendingSteer(Value, frozen=True, kw_only=True):
    """Text that was said to the active run and that it has not heard yet."""

    steer_id: str
    """As `run.steer` was answered."""
    text: str
    """What was said."""
    by: By
    """Who said it."""


class RunSummary(Value, frozen=True, kw_only=True):
    """The active run, as a snapshot has it."""

    run_id: str
    """Its id."""
    status: RunStatus
    """Where it stands."""
    agent_name: str
    """Who answers."""
    model: str
    """Which model answers."""
    attempt: int
    """Counts from 1; a recovery adds one."""
    step: int
    """The current one; 0 before the first."""
    by: By
    """Who started it."""
    started_at: int
    """Unix ms."""
    usage: Usage
    """Of its finished steps."""
    retry_of: str | None = None
    """The failed run whose journal it goes on from."""
    steers: list[PendingSteer] | None = None
    """What it will hear between two steps; absent when nothing waits."""


class QueuedRun(Value, frozen=True, kw_only=True):
    """A run that waits its turn; ``position`` counts from 1."""

    run_id: str
    """Its id."""
    input: Input
    """What it will be given."""
    position: int
    """1 is next."""
    by: By
    """Who queued it."""
