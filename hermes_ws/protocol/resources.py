"""Bodies of the HTTP twins: the same things as on the socket, by request."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from hermes_ws.protocol.summaries import ConversationSummary, OpenInteraction
from hermes_ws.protocol.values import Config, Item, Role, Value

__all__ = [
    "ConversationList",
    "ConversationPatch",
    "ConversationView",
    "EventPage",
    "InteractionList",
    "ItemPage",
    "StoredBlob",
    "TicketGrant",
    "TicketRequest",
]


class ConversationList(Value, frozen=True, kw_only=True):
    """A page of conversations."""

    conversations: list[ConversationSummary]
    """The one with the newest event first."""
    next: str | None
    """For ``?cursor=``. Null: this is the last page. Never absent."""


class ConversationView(ConversationSummary, frozen=True, kw_only=True):
    """A conversation, without what was said in it."""

    epoch: str
    """Names this incarnation of the log."""
    floor: int
    """The first ``seq`` still readable."""
    config: Config
    """Secrets are redacted."""
    config_version: int
    """For ``if_version``; 0 before the first ``conversation.configured``."""


class ConversationPatch(Value, frozen=True, kw_only=True):
    """What of a conversation is to be changed: as ``conversation.configure``."""

    config: dict[str, Any]
    """A JSON merge patch (RFC 7396): a field that is null is removed, an absent one stays."""
    if_version: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """``version_conflict`` if the configuration is another by now; 0: none was ever set."""
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    """Makes it idempotent for 24 h, as a command's."""


class ItemPage(Value, frozen=True, kw_only=True):
    """A page of a conversation's items."""

    at: int
    """The last ``seq`` folded in."""
    items: list[Item]
    """Oldest first; those right before the ones that are known."""
    before: str | None
    """For ``?before=``. Null: nothing is older. Never absent."""


class InteractionList(Value, frozen=True, kw_only=True):
    """Open interactions that a person can answer, of every conversation that the credential reaches."""

    interactions: list[OpenInteraction]
    """The one that was asked first comes first."""
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
