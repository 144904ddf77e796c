"""What is left out when a conversation outgrows the model's window.

The policy, in this order, until the rest fits:

1. Whole exchanges of earlier runs (what the user said, and everything up to the next input) go, the oldest first. A
   note in their place says so.
2. Outputs of the current run's tool calls are shortened to their beginning and end, the oldest first, those of its
   newest step excepted; their images go.
3. Steps of the current run go, the oldest first, each with the answers to its calls; the newest stays. A note says so.
4. The outputs of the newest step are shortened too.

What people said to the current run always stays, and so does its newest step. A call and its answer stay or go
together. If that is still too much, the endpoint has to say so.

Tokens are estimated: four bytes of UTF-8 to one, and a fixed number for an image. When an endpoint finds the result too
long all the same, the budget is halved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from hermes_ws.history import HistoryEntry, ToolAnswer, UserTurn
from hermes_ws.protocol.values import ImagePart, TextPart

__all__ = ["IMAGE_TOKENS", "estimate", "fit", "text_tokens"]

IMAGE_TOKENS: Final = 1_000
"""What an image is taken to cost."""
_ENTRY_TOKENS: Final = 8
"""What a message or a call costs beside its words."""
_SHORT_BYTES: Final = 600
"""What is left of an output that is shortened."""
_RUNS_NOTE: Final = "[Earlier parts of this conversation do not fit any more and were left out.]"
_STEPS_NOTE: Final = "[Earlier steps of this run, calls of tools among them, do not fit any more and were left out.]"


@dataclass(frozen=True, slots=True)
class _Group:
    """Entries that stay or go together, and what they cost."""

    entries: list[HistoryEntry]
    tokens: int


def text_tokens(text: str) -> int:
    """What a text is taken to cost."""
    return (len(text.encode("utf-8", "replace")) + 3) // 4


def estimate(entries: Iterable[HistoryEntry]) -> int:
    """What entries are taken to cost."""
    return sum(_cost(entry) for entry in entries)


def _cost(entry: HistoryEntry) -> int:
    if isinstance(entry, UserTurn):
        return _ENTRY_TOKENS + text_tokens(entry.text) + _images(entry.content)
    if isinstance(entry, ToolAnswer):
        return _ENTRY_TOKENS + text_tokens(entry.output) + _images(entry.content)
    calls = sum(_ENTRY_TOKENS + text_tokens(call.name) + _json_tokens(call.arguments) for call in entry.calls)
    return _ENTRY_TOKENS + text_tokens(entry.text) + text_tokens(entry.reasoning) + calls


def _images(content: Sequence[Any] | None) -> int:
    return sum(IMAGE_TOKENS for part in content or [] if isinstance(part, ImagePart))


def _json_tokens(arguments: dict[str, Any]) -> int:
    return (len(msgspec.json.encode(arguments)) + 3) // 4


def fit(history: Sequence[HistoryEntry], budget: int) -> list[HistoryEntry]:
    """As much of the history as the policy keeps for ``budget`` tokens; all of it if that fits."""
    if estimate(history) <= budget:
        return list(history)
    exchanges = _exchanges(history)
    current = exchanges.pop() if exchanges else []
    kept, left_out = _newest(exchanges, budget - estimate(current) - _cost(_note(_RUNS_NOTE)))
    if kept:
        return [*([_note(_RUNS_NOTE)] if left_out else []), *kept, *current]
    notes: list[HistoryEntry] = [_note(_RUNS_NOTE)] if left_out else []
    return [*notes, *_within(current, budget - estimate(notes))]


def _exchanges(history: Sequence[HistoryEntry]) -> list[list[HistoryEntry]]:
    """The history, cut before every input of a run."""
    found: list[list[HistoryEntry]] = []
    for entry in history:
        if not found or (isinstance(entry, UserTurn) and not entry.steered):
            found.append([])
        found[-1].append(entry)
    return found


def _newest(exchanges: list[list[HistoryEntry]], budget: int) -> tuple[list[HistoryEntry], bool]:
    """The newest exchanges that fit, and whether some do not."""
    first = len(exchanges)
    while first > 0 and (cost := estimate(exchanges[first - 1])) <= budget:
        budget -= cost
        first -= 1
    return [entry for exchange in exchanges[first:] for entry in exchange], first > 0


def _within(current: list[HistoryEntry], budget: int) -> list[HistoryEntry]:
    """The current run, made to fit as far as that goes."""
    groups = _groups(current)
    newest = max((n for n, group in enumerate(groups) if _is_step(group)), default=-1)
    over = sum(group.tokens for group in groups) - budget
    for n, group in enumerate(groups):
        if over > 0 and n != newest and _is_step(group):
            groups[n] = _shortened(group)
            over -= group.tokens - groups[n].tokens
    dropped: set[int] = set()
    for n, group in enumerate(groups):
        if over > 0 and n != newest and _is_step(group):
            over += 0 if dropped else _cost(_note(_STEPS_NOTE))
            over -= group.tokens
            dropped.add(n)
    if over > 0 and newest >= 0:
        groups[newest] = _shortened(groups[newest])
    return _joined(groups, dropped)


def _groups(current: list[HistoryEntry]) -> list[_Group]:
    """Each step with the answers to its calls; what people said by itself."""
    found: list[list[HistoryEntry]] = []
    for entry in current:
        if not found or not isinstance(entry, ToolAnswer):
            found.append([])
        found[-1].append(entry)
    return [_Group(entries, estimate(entries)) for entries in found]


def _is_step(group: _Group) -> bool:
    return not isinstance(group.entries[0], UserTurn)


def _joined(groups: list[_Group], dropped: set[int]) -> list[HistoryEntry]:
    """What was not dropped, with a note where the first that was dropped stood."""
    entries: list[HistoryEntry] = []
    for n, group in enumerate(groups):
        if n not in dropped:
            entries += group.entries
        elif n == min(dropped):
            entries.append(_note(_STEPS_NOTE))
    return entries


def _shortened(group: _Group) -> _Group:
    entries = [_short(entry) if isinstance(entry, ToolAnswer) else entry for entry in group.entries]
    return _Group(entries, estimate(entries))


def _short(answer: ToolAnswer) -> ToolAnswer:
    data = answer.output.encode("utf-8", "replace")
    if len(data) > 2 * _SHORT_BYTES:
        half = _SHORT_BYTES // 2
        head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
        left_out = f"\n[… {len(data) - 2 * half} bytes were left out here to make room …]\n"
        answer = replace(answer, output=head + left_out + tail)
    return replace(answer, content=None)


def _note(text: str) -> UserTurn:
    """Something that we say in the user's place; it is part of what was said to the current run."""
    return UserTurn(run_id="", text=text, content=[TextPart(text=text)], steered=True)
