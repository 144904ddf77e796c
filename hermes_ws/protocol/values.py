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
    "ConversationSummary",
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
"""What a client may call a conversation."""

Role: TypeAlias = Literal["driver", "responder", "observer", "admin"]
Risk: TypeAlias = Literal["low", "medium", "high"]
Verdict: TypeAlias = Literal["allow", "ask", "deny"]
ApprovalMode: TypeAlias = Literal["ask", "auto", "deny"]
Scope: TypeAlias = Literal["once", "run", "conversation", "always"]
RunStatus: TypeAlias = Literal["queued", "running", "waiting", "stopping", "completed", "failed", "cancelled"]
InteractionKind: TypeAlias = Literal["approval", "clarify", "form", "client_tool"]
ToolStatus: TypeAlias = Literal["started", "executing", "ok", "error", "denied", "cancelled", "interrupted"]


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every value on the wire: immutable, absent fields left out."""


class By(Value, kw_only=True):
    """Who did it."""

    principal: str
    client_id: str | None = None


class ErrorInfo(Value, kw_only=True):
    """Why a run failed."""

    code: str
    message: str
    retryable: bool


class Usage(Value, kw_only=True):
    """Tokens of one model call, one run, or one conversation."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None

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


class TextPart(Value, kw_only=True, tag_field="type", tag="text"):
    """Text in an input or a message."""

    text: str


class ImagePart(Value, kw_only=True, tag_field="type", tag="image"):
    """An image in an input, by URL or data URL."""

    url: str
    detail: str | None = None


ContentPart: TypeAlias = TextPart | ImagePart
Input: TypeAlias = str | list[ContentPart]


class Annotations(Value, kw_only=True):
    """What a tool says of itself. A tool that says nothing is taken to write and to be unrepeatable."""

    read_only: bool
    idempotent: bool
    destructive: bool


class ToolDescription(Value, kw_only=True):
    """A tool as the model and ``tools.list`` see it. ``parameters`` is a JSON Schema of an object."""

    name: str
    source: str
    title: str
    description: str
    parameters: dict[str, Any]
    annotations: Annotations


class Rule(Value, kw_only=True):
    """What an approval would remember: this tool, when these arguments equal (absent: whatever they are)."""

    tool: str
    match: dict[str, Any] | None = None


class Option(Value, kw_only=True):
    """One way to answer an approval."""

    id: str
    label: str
    kind: Literal["allow", "deny"]
    scope: Scope | None = None
    rule: Rule | None = None


class Choice(Value, kw_only=True):
    """One offered answer of a question."""

    id: str
    label: str


class Question(Value, kw_only=True):
    """One question of a clarify. ``allow_other``: free text is taken beside the options."""

    id: str
    prompt: str
    type: Literal["text", "single", "multi", "number", "boolean", "secret"]
    options: list[Choice] | None = None
    required: bool
    allow_other: bool


class InteractionTool(Value, kw_only=True):
    """The call an interaction is about, as the person who answers needs to see it."""

    call_id: str
    name: str
    source: str
    arguments: dict[str, Any]
    risk: Risk


class OnExpire(Value, kw_only=True):
    """What happens when nobody answers in time: this option is taken, or the question is cancelled."""

    option: str | None = None
    cancel: bool | None = None


class AnswerableBy(Value, kw_only=True):
    """Which roles may answer."""

    roles: list[Role]


class ApprovalRule(Value, kw_only=True):
    """A remembered decision, as ``approvals.list`` shows it."""

    rule_id: str
    scope: Scope
    rule: Rule
    agent: str
    by: By
    created_at: int
    run_id: str | None = None


# -- configuration of a conversation -------------------------------------------------------------------


class ToolFilter(Value, kw_only=True, forbid_unknown_fields=True):
    """Names or globs, source-qualified or not. Deny wins; no ``allow`` is the default set, ``[]`` is none."""

    allow: list[str] | None = None
    deny: list[str] | None = None


class ToolRule(Value, kw_only=True, forbid_unknown_fields=True):
    """A standing decision for tools whose name fits."""

    tool: str
    decision: Verdict


class ApprovalsConfig(Value, kw_only=True, forbid_unknown_fields=True):
    """``ask`` (the default): read-only tools run, others ask. ``auto``: what is allowed runs. ``deny``: refuse."""

    mode: ApprovalMode | None = None
    rules: list[ToolRule] | None = None


class McpServerConfig(Value, kw_only=True, forbid_unknown_fields=True):
    """One MCP server of this conversation: by ``url``, or by ``ref`` to the operator's configuration."""

    url: str | None = None
    headers: dict[str, Any] | None = None
    transport: Literal["http", "sse"] | None = None
    tools: ToolFilter | None = None
    approvals: ApprovalsConfig | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None
    ref: str | None = None


class LimitsConfig(Value, kw_only=True, forbid_unknown_fields=True):
    """Bounds on each run of the conversation."""

    max_steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    deadline_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Config(Value, kw_only=True):
    """Configuration of a conversation. Everything absent is the server's default."""

    agent: str | None = None
    model: str | None = None
    instructions: str | None = None
    tools: ToolFilter | None = None
    approvals: ApprovalsConfig | None = None
    mcp_servers: dict[str, McpServerConfig] | None = None
    limits: LimitsConfig | None = None
    metadata: dict[str, Any] | None = None
    title: str | None = None


# -- folded state --------------------------------------------------------------------------------------


class MessageItem(Value, kw_only=True, tag_field="type", tag="message"):
    """Something said. For ``user`` the ``item_id`` is the run's id, or the steer's where it was steered."""

    item_id: str
    run_id: str
    role: Literal["user", "assistant"]
    status: Literal["in_progress", "completed"]
    text: str
    content: list[ContentPart]
    step: int | None = None
    partial: bool | None = None
    steered: bool | None = None


class ReasoningItem(Value, kw_only=True, tag_field="type", tag="reasoning"):
    """A block of the model's reasoning."""

    item_id: str
    run_id: str
    step: int
    status: Literal["in_progress", "completed"]
    text: str


class ProgressInfo(Value, kw_only=True):
    """The newest progress report of a running call."""

    progress: float
    total: float | None = None
    message: str | None = None


class ToolCallItem(Value, kw_only=True, tag_field="type", tag="tool_call"):
    """A tool call. While it runs, ``output`` is the concatenation of its chunks so far."""

    call_id: str
    run_id: str
    step: int
    name: str
    source: str
    title: str
    status: ToolStatus
    arguments: dict[str, Any]
    annotations: Annotations
    output: str
    truncated: bool
    structured: Any = None
    content: list[ContentPart] | None = None
    progress: ProgressInfo | None = None
    duration_ms: int | None = None


Item: TypeAlias = MessageItem | ReasoningItem | ToolCallItem


class RunSummary(Value, kw_only=True):
    """The active run, as a snapshot has it."""

    run_id: str
    status: RunStatus
    agent_name: str
    model: str
    attempt: int
    step: int
    by: By
    started_at: int
    usage: Usage
    retry_of: str | None = None


class QueuedRun(Value, kw_only=True):
    """A run that waits its turn; ``position`` counts from 1."""

    run_id: str
    input: Input
    position: int
    by: By


class ConversationSummary(Value, kw_only=True):
    """One line of a list of conversations. ``status`` is the active run's, or ``idle``."""

    conversation_id: str
    title: str | None
    status: str
    queue: int
    head: int
    last_event_at: int
    usage: Usage
    run_id: str | None = None
