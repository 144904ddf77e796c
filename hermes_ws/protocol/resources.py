"""Bodies of the HTTP twins: the same things as on the socket, by request."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Role, Usage, Value

__all__ = ["ConversationList", "ConversationSummary", "EventPage", "StoredBlob", "TicketGrant", "TicketRequest"]


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


class ConversationList(Value, frozen=True, kw_only=True):
    """A page of conversations."""

    conversations: list[ConversationSummary]
    """The one with the newest event first."""
    next: str | None
    """For ``?cursor=``. Null: this is the last page. Never absent."""


class EventPage(Value, frozen=True, kw_only=True):
    """A page of a conversation's log."""

    epoch: str | None
    """Null: the conversation does not exist until its first command. Never absent."""
    head: int
    """The last ``seq``."""
    floor: int
    """The first ``seq`` still readable."""
    events: list[msgspec.Raw]
    """Exactly the socket's frames: events, and ``skipped`` where some are not delivered."""
    next: int
    """For ``?after=``."""
    at_head: bool
    """Whether nothing more is there yet."""


class TicketRequest(Value, frozen=True, kw_only=True):
    """What a ticket should be good for: never more than the key that asks."""

    conversation: str
    """The one it opens; for ``new`` the server chooses an id."""
    principal: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    """Who its holder is taken for; not ``server``. Default: the caller."""
    role: Role | None = None
    """Default: the caller's."""
    ttl_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Seconds until it expires unused. Default: 60."""


class TicketGrant(Value, frozen=True, kw_only=True):
    """A single-use credential for one connect."""

    ticket: str
    """For ``?ticket=``."""
    conversation: str
    """The one it opens."""
    expires_at: int
    """Unix ms."""
    url: str
    """The socket's address with the ticket in it."""


class StoredBlob(Value, frozen=True, kw_only=True):
    """An image that was uploaded."""

    blob: str
    """For ``{"type":"image","blob":...}`` in an input, and for ``GET /api/blobs/{blob}``."""
    sha256: str
    """SHA-256 of its bytes, in hex."""
    mime: str
    """``image/png``, ``image/jpeg``, ``image/gif`` or ``image/webp``, judged by its content."""
    size: int
    """Bytes."""
