"""Items that are added to a conversation: what of them goes into its log, and what is kept beside that.

A system message is no event: it is said to the agent in each response. Nor is a call before somebody tells what it came
to: a client may add the two one after the other, and till then a model is told of neither.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import msgspec

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.item_lists import items_of, shown
from hermes_ws.compat.past import Answered, Past, Said
from hermes_ws.compat.responses_input import Given, Turn, no_call, references, turn_of
from hermes_ws.protocol import events as ev

__all__ = ["Added", "Beside", "CallNote", "Instruction", "Item", "added", "ends_of", "listed"]

Item = dict[str, Any]
_SYSTEM: Final = ("system", "developer")
_CALLS: Final = ("function_call", "custom_tool_call")


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """A system message of a conversation: said to the agent in each of its responses."""

    text: str
    """What it says."""
    after: int
    """The number of the event that it comes after."""
    place: int = 0
    """Among those of one request."""
    item: Item
    """As it is listed."""


class CallNote(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was added without what it came to. Once that is told, the log has it, under an id of its own; it is
    listed under this one all the same."""

    after: int
    """The number of the event that it comes after."""
    place: int = 0
    """Among those of one request."""
    item: Item
    """As it is listed."""


class Beside(NamedTuple):
    """An item that is kept beside the log: its place in the request, and how much of the history comes before it."""

    place: int
    before: int
    item: Item


@dataclass(frozen=True, slots=True)
class Added:
    """What a request adds: history, and items beside it."""

    past: Past
    instructions: list[Beside]
    texts: list[str]
    """Of the instructions."""
    calls: list[Beside]


def added(given: Given, waiting: Mapping[str, Item], known: Container[str], name: str) -> Added:
    """Read the items of a request. ``waiting`` are calls that were added before, without what they came to; ``known``
    those that the log has; ``name`` begins the ids of items. Raises :class:`ApiError`, which names the field."""
    told = _told(_read(given, known), waiting)
    first = next((n for n, item in enumerate(given) if item.get("call_id") in told), 0)
    whole = [*given[:first], *(waiting[call_id] for call_id in told), *given[first:]]
    referred = references(whole)
    whole = [item for n, item in enumerate(whole) if n not in referred]
    turn, items, outlines = _read(whole, known), shown(whole, name), [_outline(item) for item in whole]

    def beside(n: int) -> Beside:
        return Beside(n, len(_told_of(_read(outlines[:n], known).past)), items[n])

    return Added(
        past=_told_of(turn.past),
        instructions=[beside(n) for n, item in enumerate(items) if item.get("role") in _SYSTEM],
        texts=turn.instructions,
        calls=[beside(n) for n in _open_calls(turn.past, items, waiting)],
    )


def _open_calls(past: Past, items: Sequence[Item], waiting: Mapping[str, Item]) -> list[int]:
    """Where calls stand of which nobody has told what they came to."""
    calls = [call for one in past if isinstance(one, Answered) for call in one.calls if call.output is None]
    wanted = {call.call_id for call in calls} - {*waiting}
    found: dict[str, int] = {}
    for n, item in enumerate(items):
        if item["type"] in _CALLS and item["call_id"] in wanted:
            found.setdefault(item["call_id"], n)
    return [*found.values()]


def _read(given: Given, known: Container[str]) -> Turn:
    return turn_of(given, "items", known, answered=False)


def _told(turn: Turn, waiting: Mapping[str, Item]) -> list[str]:
    """The calls that were added before, and of which it is told now what they came to."""
    if turn.leaves:
        message = "approval requests are answered by POST /v1/responses with this conversation"
        path = f"{turn.leaves[0].path}.approval_request_id"
        raise ApiError(400, "unknown_approval_request", message, param=path)
    told: list[str] = []
    for output in turn.outputs:
        if output.call_id not in waiting or output.call_id in told:
            raise no_call(output)
        told.append(output.call_id)
    return told


def _told_of(past: Past) -> Past:
    """Without calls of which nobody has told what they came to."""
    whole = [one if isinstance(one, Said) else _without_open(one) for one in past]
    return [one for one in whole if isinstance(one, Said) or one.text or one.calls]


def _without_open(answered: Answered) -> Answered:
    return replace(answered, calls=[call for call in answered.calls if call.output is not None])


def _outline(item: Item) -> Item:
    """The item without what is long in it."""
    return {key: "-" if key in ("content", "output") and value else value for key, value in item.items()}


def ends_of(past: Past, events: Sequence[ev.Event]) -> list[int]:
    """With which event each part of a history ends that was just brought in these events."""
    ends = [event.seq for event in events if isinstance(event, ev.RunStarted | ev.StepCompleted)]
    return ends[1:] if past and isinstance(past[0], Answered) else ends


def listed(events: Sequence[ev.Event], instructions: Sequence[Instruction], calls: Sequence[CallNote]) -> list[Item]:
    """Everything that was said and done, oldest first, with what is kept beside the log where it was added."""
    begun = {event.call_id for event in events if isinstance(event, ev.ToolStarted)}
    added_first = {note.item["call_id"]: note.item for note in calls}
    beside = [(one.after, one.place, one.item) for one in instructions]
    beside += [(one.after, one.place, one.item) for one in calls if one.item["call_id"] not in begun]
    beside.sort(key=lambda one: one[:2])
    found = items_of(events, [(after, item) for after, _, item in beside])
    return [added_first.get(item["call_id"], item) if item["type"] == "function_call" else item for item in found]
