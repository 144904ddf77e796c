"""The OpenAPI document of this server, whole, as bytes."""

from __future__ import annotations

import functools
import json
from typing import Final

from hermes_ws import __version__
from hermes_ws.compat import (
    openapi_about,
    openapi_bodies,
    openapi_content,
    openapi_conversations,
    openapi_items,
    openapi_native,
    openapi_openai,
    openapi_runs,
    openapi_sessions,
)
from hermes_ws.compat.openapi import Operation, openapi

__all__ = ["FILE", "OPERATIONS", "document"]

FILE: Final = "openapi.json"
"""Its file name among the schemas."""
OPERATIONS: Final[tuple[Operation, ...]] = (
    *openapi_native.OPERATIONS,
    *openapi_conversations.OPERATIONS,
    *openapi_openai.OPERATIONS,
    *openapi_runs.OPERATIONS,
    *openapi_sessions.OPERATIONS,
    *openapi_about.OPERATIONS,
)
"""Every route there is."""
_TAGS: Final = {
    "conversations": "Conversations, as the socket has them, by request.",
    "images": "Images that inputs refer to.",
    "chat": "OpenAI's chat completions.",
    "responses": "OpenAI's responses.",
    "conversations (OpenAI)": "The same conversations, in OpenAI's shape.",
    "runs": "Runs, as hermes-agent has them.",
    "sessions": "Conversations, as hermes-agent has them.",
    "about": "What this server is, and how it is.",
}


@functools.cache
def document() -> bytes:
    """The document. The same types give the same bytes."""
    families = (
        openapi_native,
        openapi_conversations,
        openapi_openai,
        openapi_runs,
        openapi_bodies,
        openapi_content,
        openapi_items,
    )
    fields = {field: type_ for family in families for field, type_ in family.FIELDS.items()}
    made = openapi(OPERATIONS, version=__version__, tags=_TAGS, fields=fields)
    return f"{json.dumps(made, indent=2, ensure_ascii=False)}\n".encode()
