"""Conversations from outside: one line of a list, and the open questions of many."""

from __future__ import annotations

from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Usage, Value

__all__ = ["ConversationSummary", "OpenInteraction"]


class ConversationSummary(Value, frozen=True, kw_only=True):
    """One line of a list of conversations."""

    conversation_id: str
    """Its id."""
    title: str | None
    """Null: it has none. Never absent."""
    status: str
    """The active run's, or ``idle``."""
    run_id: str | None = None
    """The active run."""
    queue: int
    """How many runs wait."""
    interactions: list[InteractionRequested]
    """Open ones, oldest first."""
    last_event_at: int
    """Unix ms."""
    head: int
    """The last ``seq``."""
    usage: Usage
    """Of all its runs."""


class OpenInteraction(InteractionRequested, frozen=True, kw_only=True, tag="interaction.requested"):
    """An ``interaction.requested`` that is still open, and where."""

    conversation_id: str
    """The conversation that asks."""
