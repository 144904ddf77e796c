"""What an agent is shown of a conversation: who said what, and what the tools answered.

One :class:`AssistantTurn` for every finished step, empty ones included, so that an agent can tell from the history
alone how far it is. That is what makes an agent's loop restartable: it keeps nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hermes_ws.entities import Message, Reasoning, Step, ToolCall, UserMessage
from hermes_ws.protocol.values import ContentPart, TextPart, ToolStatus
from hermes_ws.state import State

__all__ = ["AssistantTurn", "CallMade", "HistoryEntry", "ToolAnswer", "UserTurn", "history"]


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user said. ``steered``: it was said to a run that was already going."""

    run_id: str
    text: str
    content: list[ContentPart]
    steered: bool


@dataclass(frozen=True, slots=True)
class CallMade:
    """A tool call that the assistant asked for. ``source`` is where the tool comes from (``builtin``, ``mcp:crm``)."""

    call_id: str
    name: str
    source: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """One step: what the model said and which tools it asked for. ``partial``: it was stopped meanwhile.
    ``stop_reason``: why the answer ended, if not by itself."""

    run_id: str
    text: str
    reasoning: str
    calls: list[CallMade] = field(default_factory=list[CallMade])
    partial: bool = False
    stop_reason: Literal["length", "refused"] | None = None


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool call came to."""

    call_id: str
    name: str
    status: ToolStatus
    output: str
    content: list[ContentPart] | None


HistoryEntry = UserTurn | AssistantTurn | ToolAnswer

_NOTHING: Final = TextPart(text="")


def history(state: State, run_id: str) -> list[HistoryEntry]:
    """The conversation so far as this run sees it, oldest first.

    An unfinished step shows once it holds something final. A run that goes on from another one's journal sees that one
    last, whatever was said in between.
    """
    own = frozenset(state.chain(run_id))
    entries: list[HistoryEntry] = []
    for entry in sorted(state.timeline, key=lambda e: e.run_id in own):  # stable: order is kept within
        if isinstance(entry, UserMessage):
            if any(part != _NOTHING for part in entry.content):  # a history may begin with what the assistant said
                entries.append(UserTurn(entry.run_id, entry.text, entry.content, entry.steered))
        else:
            entries.extend(_step(entry))
    return entries


def _step(step: Step) -> list[HistoryEntry]:
    said = [i for i in step.items if isinstance(i, Message) and i.status == "completed"]
    calls = [i for i in step.items if isinstance(i, ToolCall)]
    if not (step.finished or said or calls):
        return []
    turn = AssistantTurn(
        run_id=step.run_id,
        text="".join(m.text for m in said),
        reasoning="\n\n".join(i.text for i in step.items if isinstance(i, Reasoning)),
        calls=[CallMade(c.call_id, c.name, c.source, c.arguments) for c in calls],
        partial=any(m.partial for m in said),
        stop_reason=step.stop_reason,
    )
    return [turn, *(ToolAnswer(c.call_id, c.name, c.status, c.output, c.content) for c in calls)]
