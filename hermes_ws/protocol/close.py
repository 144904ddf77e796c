"""WebSocket close codes. 4400-4499: do not retry. 4500-4599: retry with back-off and resume."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CloseCode", "may_retry"]


class CloseCode(IntEnum):
    """Why the server closes a socket."""

    BAD_REQUEST = 4400
    """The address or its query cannot be read."""
    NOT_AUTHENTICATED = 4401
    """No key, or not a valid one."""
    FORBIDDEN = 4403
    """The key, the Origin or the address does not allow this."""
    NOT_FOUND = 4404
    """No such conversation for this key."""
    PROTOCOL_VERSION = 4406
    """None of the subprotocols offered is spoken here."""
    DELETED = 4410
    """The conversation was deleted."""
    TOO_LARGE = 4413
    """A frame was larger than ``limits`` allows."""
    INTERNAL = 4500
    """The server made a mistake; the log is intact."""
    DRAINING = 4503
    """The server is going down or restarting."""
    STALLED = 4508
    """The client took no byte for 30 s."""
    TOO_MANY = 4529
    """More sockets than the server or the key may have."""


def may_retry(code: int) -> bool:
    """Whether a client that was closed with ``code`` should come back by itself.

    Codes outside our ranges (1006 for a cut line, 1012 for a restart) are network weather: come back.
    """
    return not 4400 <= code <= 4499
