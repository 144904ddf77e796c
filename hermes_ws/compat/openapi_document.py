"""The OpenAPI document of this server, whole, as bytes."""

from __future__ import annotations

import functools
import json
from typing import Final

from hermes_ws import __version__
from hermes_ws.compat import openapi_native
from hermes_ws.compat.openapi import Operation, openapi

__all__ = ["FILE", "OPERATIONS", "document"]

FILE: Final = "openapi.json"
"""Its file name among the schemas."""
OPERATIONS: Final[tuple[Operation, ...]] = openapi_native.OPERATIONS
"""Every route there is."""
_TAGS: Final = {
    "conversations": "Conversations, as the socket has them, by request.",
    "images": "Images that inputs refer to.",
    "about": "What this server is, and how it is.",
}


@functools.cache
def document() -> bytes:
    """The document. The same types give the same bytes."""
    made = openapi(OPERATIONS, version=__version__, tags=_TAGS)
    return f"{json.dumps(made, indent=2, ensure_ascii=False)}\n".encode()
