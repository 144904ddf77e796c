"""Pages and cursors, the same for every store."""

from __future__ import annotations

from typing import Final

from hermes_ws.store.base import ConversationLine, StoredEvent

__all__ = ["cursor_of", "lines_within", "need_cursor_of", "need_position_of", "page_of", "position_of"]

_DIGITS: Final = 18
"""More than any time has, and no more than SQLite takes."""


def page_of(events: list[StoredEvent], max_bytes: int) -> list[StoredEvent]:
    """As many of ``events`` as fit into ``max_bytes``, but one at least."""
    weight = 0
    for count, event in enumerate(events):
        weight += len(event.data)
        if weight > max_bytes and count:
            return events[:count]
    return events


def lines_within(lines: list[ConversationLine], limit: int, max_bytes: int | None) -> list[ConversationLine]:
    """As many of ``lines`` as may be, and as fit into ``max_bytes``, but one at least."""
    weight = 0
    for count, line in enumerate(lines[:limit]):
        weight += len(line.summary)
        if max_bytes is not None and weight > max_bytes and count:
            return lines[:count]
    return lines[:limit]


def cursor_of(at: int, name: str) -> str:
    """The place in a list by time after the line of this time and name."""
    return f"{at}-{name}"


def position_of(cursor: str) -> tuple[int, str]:
    """The place that :func:`cursor_of` named. Raises ValueError for anything else."""
    at, dash, name = cursor.partition("-")
    if not dash or not at.isascii() or not at.isdigit() or len(at) > _DIGITS:
        raise ValueError(f"{cursor[:80]!r} is not a cursor of this list")
    return int(at), name


def need_cursor_of(waiting: bool, at: int, name: str) -> str:
    """The same in a list that has first what waits for a person."""
    return f"{'waiting' if waiting else 'rest'}-{cursor_of(at, name)}"


def need_position_of(cursor: str) -> tuple[bool, int, str]:
    """The place that :func:`need_cursor_of` named. Raises ValueError for anything else."""
    group, _, rest = cursor.partition("-")
    if group not in ("waiting", "rest"):
        raise ValueError(f"{cursor[:80]!r} is not a cursor of this list")
    return (group == "waiting", *position_of(rest))
