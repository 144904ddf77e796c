"""Bodies of the HTTP twins: the same things as on the socket, by request."""

from __future__ import annotations

import msgspec

from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Role, Usage, Value

__all__ = ["ConversationList", "ConversationSummary", "EventPage", "TicketGrant", "TicketRequest"]


class ConversationSummary(Value, kw_only=True):
    """One line of a list of conversations. ``status`` is the active run's, or ``idle``; ``interactions`` are the
    ``interaction.requested`` events that are still open."""

    conversation_id: str
    title: str | None
    status: str
    run_id: str | None = None
    queue: int
    interactions: list[InteractionRequested]
    last_event_at: int
    head: int
    usage: Usage


class ConversationList(Value, kw_only=True):
    """A page of conversations, the one with the newest event first. ``next`` goes into ``?cursor=``."""

    conversations: list[ConversationSummary]
    next: str | None


class EventPage(Value, kw_only=True):
    """A page of a conversation's log. ``events`` are the socket's frames; ``next`` goes into ``?after=``;
    ``at_head``: nothing more is there yet."""

    epoch: str | None
    head: int
    floor: int
    events: list[msgspec.Raw]
    next: int
    at_head: bool


class TicketRequest(Value, kw_only=True):
    """What a ticket should be good for: never more than the key that asks."""

    conversation: str
    principal: str | None = None
    role: Role | None = None
    ttl_s: float | None = None


class TicketGrant(Value, kw_only=True):
    """A ticket: goes into ``?ticket=`` of one connect."""

    ticket: str
    conversation: str
    expires_at: int
    url: str
