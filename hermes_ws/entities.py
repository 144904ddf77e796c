"""What a conversation is made of, as it grows: runs, steps, items, tool calls, steers. Changed by the fold alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import (
    Annotations,
    By,
    ContentPart,
    Input,
    MessageItem,
    Owner,
    PendingSteer,
    ProgressInfo,
    ReasoningItem,
    RunStatus,
    RunSummary,
    TextPart,
    ToolCallItem,
    ToolStatus,
    Usage,
)

__all__ = [
    "Entry",
    "Message",
    "Reasoning",
    "Run",
    "Steer",
    "Step",
    "StepItem",
    "TextItem",
    "ToolCall",
    "UserMessage",
    "as_parts",
    "as_text",
]


def as_parts(value: Input) -> list[ContentPart]:
    """An input as content parts."""
    return [TextPart(text=value)] if isinstance(value, str) else list(value)


def as_text(value: Input) -> str:
    """The text of an input, its parts joined by newlines."""
    return value if isinstance(value, str) else "\n".join(p.text for p in value if isinstance(p, TextPart))


@dataclass(slots=True)
class UserMessage:
    """What the user said: a run's input, or a steer that was applied."""

    item_id: str
    run_id: str
    content: list[ContentPart]
    text: str
    steered: bool = False

    @property
    def input(self) -> Input:
        """As a run takes it."""
        only_text = len(self.content) == 1 and isinstance(self.content[0], TextPart)
        return self.text if only_text else self.content

    def view(self) -> MessageItem:
        return MessageItem(
            item_id=self.item_id,
            run_id=self.run_id,
            role="user",
            status="completed",
            text=self.text,
            content=self.content,
            steered=self.steered or None,
        )


@dataclass(slots=True)
class Message:
    """What the assistant says, as it grows."""

    item_id: str
    run_id: str
    step: int
    status: Literal["in_progress", "completed"] = "in_progress"
    chunks: list[str] = field(default_factory=list[str])
    content: list[ContentPart] = field(default_factory=list[ContentPart])
    partial: bool = False

    @property
    def text(self) -> str:
        return "".join(self.chunks)

    def view(self) -> MessageItem:
        return MessageItem(
            item_id=self.item_id,
            run_id=self.run_id,
            role="assistant",
            step=self.step,
            status=self.status,
            text=self.text,
            content=self.content,
            partial=self.partial or None,
        )


@dataclass(slots=True)
class Reasoning:
    """A block of reasoning, as it grows."""

    item_id: str
    run_id: str
    step: int
    status: Literal["in_progress", "completed"] = "in_progress"
    chunks: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        return "".join(self.chunks)

    def view(self) -> ReasoningItem:
        return ReasoningItem(
            item_id=self.item_id, run_id=self.run_id, step=self.step, status=self.status, text=self.text
        )


@dataclass(slots=True)
class ToolCall:
    """A tool call. ``chunks`` is what it printed so far, and its final output once it is over."""

    call_id: str
    run_id: str
    step: int
    name: str
    source: str
    title: str
    arguments: dict[str, Any]
    annotations: Annotations
    started_at: int
    owner: Owner | None = None
    """The client at a socket that executes it."""
    executing_at: int | None = None
    place: str | None = None
    """Where its MCP server was when it began to run."""
    status: ToolStatus = "started"
    chunks: list[str] = field(default_factory=list[str])
    truncated: bool = False
    structured: Any = None
    content: list[ContentPart] | None = None
    progress: ProgressInfo | None = None
    duration_ms: int | None = None
    asked: list[InteractionRequested] = field(default_factory=list[InteractionRequested])
    """What it has asked people, in order, while it is open: after a restart it asks the same again."""

    @property
    def phase(self) -> str:
        """Its place in the table :data:`TOOL_CALL`."""
        return self.status if self.status in ("started", "executing") else "completed"

    @property
    def output(self) -> str:
        return "".join(self.chunks)

    @property
    def repeatable(self) -> bool:
        """Whether it may run twice: it changes nothing, or nothing more the second time (guarantee 8)."""
        return self.annotations.read_only or self.annotations.idempotent

    def elapsed_ms(self, now: int) -> int:
        """How long it has been running; 0 if it never ran."""
        return max(0, now - self.executing_at) if self.executing_at is not None else 0

    def view(self) -> ToolCallItem:
        return ToolCallItem(
            call_id=self.call_id,
            run_id=self.run_id,
            step=self.step,
            name=self.name,
            source=self.source,
            title=self.title,
            status=self.status,
            arguments=self.arguments,
            annotations=self.annotations,
            output=self.output,
            truncated=self.truncated,
            structured=self.structured,
            content=self.content,
            progress=self.progress,
            duration_ms=self.duration_ms,
        )


StepItem = Message | Reasoning | ToolCall
TextItem = TypeVar("TextItem", Message, Reasoning)


@dataclass(slots=True)
class Step:
    """One model call and the tools it asked for."""

    run_id: str
    number: int
    started_at: int
    finished: bool = False
    stop_reason: Literal["length", "refused"] | None = None
    usage: Usage | None = None
    """Of the model call, as far as it was told before the step is over."""
    items: list[StepItem] = field(default_factory=list[StepItem])

    @property
    def calls(self) -> list[ToolCall]:
        """The tool calls it asked for."""
        return [item for item in self.items if isinstance(item, ToolCall)]

    @property
    def whole(self) -> bool:
        """Whether the model's answer is in the log to its end: its finals and its calls are there together or not at
        all. (A block of reasoning ends before the answer does.)"""
        return any(isinstance(i, ToolCall) or (isinstance(i, Message) and i.status == "completed") for i in self.items)


Entry = UserMessage | Step


@dataclass(slots=True)
class Steer:
    """Text for a running run that was not applied yet."""

    steer_id: str
    text: str
    by: By
    if_late: Literal["queue", "return"] = "queue"


@dataclass(slots=True)
class Run:
    """A run that is queued or active."""

    run_id: str
    status: RunStatus
    input: Input
    by: By
    agent_name: str = ""
    model: str = ""
    attempt: int = 1
    retry_of: str | None = None
    started_at: int = 0
    waiting_since: int | None = None
    asking_since: int | None = None
    """Since when people are asked, or whoever started the run. A call that a client at a socket executes is work."""
    waited_ms: int = 0
    step: Step | None = None
    open: dict[str, StepItem] = field(default_factory=dict[str, StepItem])
    interactions: list[str] = field(default_factory=list[str])
    waited_for: list[str] = field(default_factory=list[str])
    steers: dict[str, Steer] = field(default_factory=dict[str, Steer])
    usage: Usage = field(default_factory=Usage.zero)
    output: str = ""
    stopped_by: By | None = None
    stop_mode: Literal["graceful", "now"] | None = None
    interrupted: bool = False
    asked: list[InteractionRequested] = field(default_factory=list[InteractionRequested])
    """What it has asked people outside its calls since its last finished step, in order."""
    fruitless: int = 0
    """Recoveries since anything of it was finished: a step, a call, a question."""

    @property
    def at_work(self) -> bool:
        """Whether its deadline counts: nobody is asked, and it is not being stopped."""
        return self.asking_since is None and self.status != "stopping"

    def elapsed_ms(self, now: int) -> int:
        """How long the run has been working; the time it waited for people does not count (guarantee 7)."""
        waiting = now - self.asking_since if self.asking_since is not None else 0
        return now - self.started_at - self.waited_ms - waiting

    def view(self) -> RunSummary:
        return RunSummary(
            run_id=self.run_id,
            status=self.status,
            agent_name=self.agent_name,
            model=self.model,
            attempt=self.attempt,
            step=self.step.number if self.step else 0,
            by=self.by,
            started_at=self.started_at,
            usage=self.usage,
            retry_of=self.retry_of,
            steers=[PendingSteer(steer_id=s.steer_id, text=s.text, by=s.by) for s in self.steers.values()] or None,
        )
