"""Shapes of OpenAI's Conversations API."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from hermes_ws.compat.responses_types import Metadata

__all__ = [
    "MOST_ITEMS",
    "Conversation",
    "ConversationCreate",
    "ConversationDeleted",
    "ConversationUpdate",
    "ItemsCreate",
    "metadata_patch",
]

MOST_ITEMS: Final = 20
"""Most items in one request, as OpenAI has it."""


class ConversationCreate(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/conversations``."""

    items: list[dict[str, Any]] | None = None
    """What it begins with; 20 at most."""
    metadata: Metadata | None = None
    """The client's own."""


class ConversationUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/conversations/{id}``."""

    metadata: Metadata | None
    """Takes the place of what was there."""


class ItemsCreate(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/conversations/{id}/items``."""

    items: list[dict[str, Any]]
    """History to be added; 20 items at most."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation."""

    id: str
    """Its id, at the socket too."""
    object: Literal["conversation"] = "conversation"
    """Always ``conversation``."""
    created_at: int
    """Unix seconds."""
    metadata: dict[str, Any]
    """The client's own."""


class ConversationDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """That a conversation was deleted."""

    id: str
    """Its id."""
    object: Literal["conversation.deleted"] = "conversation.deleted"
    """Always ``conversation.deleted``."""
    deleted: bool = True
    """Always true."""


def metadata_patch(before: dict[str, Any] | None, wanted: dict[str, str] | None) -> dict[str, Any]:
    """The merge patch that puts ``wanted`` in the place of what was there."""
    gone: dict[str, Any] = dict.fromkeys(before or {})
    return {"metadata": {**gone, **(wanted or {})}}
