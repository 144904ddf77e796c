"""What travels: the types of ``hermes.v1`` and nothing else. No I/O here.

``events`` go out and have a ``seq``; ``control`` frames go out and have none; ``commands`` come in; ``resources`` are
HTTP's bodies; ``values`` are what all these are made of; ``codec`` turns frames into bytes and back, and ``expected``
helps it to say what would have been right; ``close`` are the close codes; ``schema`` writes it all down for other
languages.

The string that follows a field is that field's documentation: ``schema`` reads it from here.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BEARER_PREFIX", "PROTOCOL"]

PROTOCOL: Final = "hermes.v1"
"""Name of the protocol, and of the WebSocket subprotocol."""

BEARER_PREFIX: Final = "hermes.bearer."
"""A subprotocol that begins with this carries a key, base64url-encoded."""
