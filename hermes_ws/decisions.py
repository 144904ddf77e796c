"""What goes into a session beside commands, and what comes out of it: its limits, options, reports and effects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import ClientTool
from hermes_ws.protocol.values import (
    Annotations,
    ApprovalRule,
    InteractionKind,
    InteractionTool,
    OnExpire,
    Option,
    Owner,
    Question,
    Role,
    ToolFilter,
)
from hermes_ws.ranges import AtLeastOne, NonNegative, WholeSeconds

__all__ = [
    "Answer",
    "Ask",
    "CallRequest",
    "Decision",
    "Effect",
    "Reconfigured",
    "RememberRule",
    "RunOptions",
    "SessionLimits",
    "StartRun",
    "StopRun",
]

UNANSWERED: Final = OnExpire(cancel=True)
"""The agent is told that nobody answered."""


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sessions]`` of the configuration: bounds on one conversation."""

    queue_length: NonNegative = 32
    """Runs that may wait; one more is ``queue_full``."""
    open_interactions: AtLeastOne = 64
    """Interactions that may be open at once; one more is refused to the agent."""
    pending_steers: NonNegative = 32
    """Steers that may wait for the next step; one more is ``overloaded``."""
    interaction_timeout_s: WholeSeconds = 86_400
    """How long a question stays open: people go to lunch."""
    run_deadline_s: WholeSeconds = 3_600
    """A run's time when nothing names one, waits for people not counted."""
    run_deadline_max_s: WholeSeconds = 86_400
    """The most that a client may ask for."""
    snapshot_items: AtLeastOne = 200
    """Newest items in a snapshot."""
    snapshot_bytes: AtLeastOne = 786_432
    """What those items may weigh together; common clients take no frame over 1 MiB."""
    config_bytes: AtLeastOne = 262_144
    """What a conversation's configuration may weigh."""
    secrets: AtLeastOne = 64
    """Headers and environment variables of MCP servers that a configuration may have; more are ``too_large``. As many
    secrets that people answered, and values that were replaced, are kept from being shown as well: the newest."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``run.start`` asked for beside its input. Kept with the run's row, not in an event."""

    agent: str | None = None
    instructions: str | None = None
    tools: ToolFilter | None = None
    deadline_ms: int | None = None
    metadata: dict[str, Any] | None = None
    retry_of: str | None = None
    bounds: list[ToolFilter] = []
    """What the keys that started and steered the run may use at most, each."""
    functions: list[ClientTool] = []
    """Function tools that whoever started the run executes."""
    tool_choice: str | None = None
    """``none``, ``required`` or a tool's name: what the model is to call in the step ``choice_step``."""
    choice_step: int = 1
    """The step that ``tool_choice`` is for; in later ones the model is free again."""
    parameters: dict[str, Any] = {}
    """What the model is to be asked with, such as ``temperature``."""
    first_seq: int = 0
    """The number of the run's first event; 0 for runs of before this was kept."""
    imported: bool = False
    """A client brought it along, as history: it was not here that it ran."""


# -- effects: what the caller does once the events are committed ---------------------------------------


@dataclass(frozen=True, slots=True)
class StartRun:
    """Set an agent to work on this run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class StopRun:
    """Cancel the agent of this run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An interaction was resolved. ``answers`` are the real ones, secrets included."""

    asked: ev.InteractionRequested
    resolution: ev.InteractionResolved
    answers: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class RememberRule:
    """Keep this decision, in the same commit."""

    rule: ApprovalRule


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The configuration names other MCP servers, or the same otherwise."""


Effect = StartRun | StopRun | Answer | RememberRule | Reconfigured


@dataclass(slots=True)
class Decision:
    """What came of one input. ``result`` are the fields of a command's ``ok``; ``secrets`` is what becomes of stored
    secrets, by name: a value, or None for one that goes."""

    events: list[ev.Event] = field(default_factory=list[ev.Event])
    effects: list[Effect] = field(default_factory=list[Effect])
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    secrets: dict[str, str | None] = field(default_factory=dict[str, "str | None"], repr=False)


# -- what agents report --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A tool call that the model asked for, as the registry describes the tool. ``problem``: it cannot be made; it is
    over with that as its error, in the same commit."""

    call_id: str
    name: str
    source: str
    title: str
    arguments: dict[str, Any]
    annotations: Annotations
    owner: Owner | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question to the people at the conversation. ``timeout_ms``: None is the default."""

    kind: InteractionKind
    title: str
    message: str
    call_id: str | None = None
    tool: InteractionTool | None = None
    options: list[Option] | None = None
    questions: list[Question] | None = None
    schema: dict[str, Any] | None = None
    url: str | None = None
    editable: bool = False
    digest: str | None = None
    owner: Owner | None = None
    timeout_ms: int | None = None
    on_expire: OnExpire = UNANSWERED
    roles: tuple[Role, ...] = ("driver", "responder", "admin")
