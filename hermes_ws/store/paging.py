"""Pages and cursors, the same for every store."""

from __future__ import annotations

from hermes_ws.store.base import ConversationLine, StoredEvent

__all__ = ["cursor_of", "page_of", "position_of"]


def page_of(events: list[StoredEvent], max_bytes: int) -> list[StoredEvent]:
    """As many of ``events`` as fit into ``max_bytes``, but one at least."""
    weight = 0
    for count, event in enumerate(events):
        weight += len(event.data)
        if weight > max_bytes and count:
            return events[:count]
    return events


def cursor_of(line: ConversationLine) -> str:
    """The place in the list after ``line``."""
    return f"{line.last_event_at}-{line.conversation_id}"


def position_of(cursor: str) -> tuple[int, str]:
    """The place that :func:`cursor_of` named. Raises ValueError for anything else."""
    at, dash, conversation_id = cursor.partition("-")
    if not dash or not at.isascii() or not at.isdigit():
        raise ValueError(f"{cursor[:80]!r} is not a cursor of this list")
    return int(at), conversation_id
