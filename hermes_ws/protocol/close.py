"""WebSocket close codes. 4400-4499: do not retry. 4500-4599: retry with back-off and resume."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CloseCode", "may_retry"]


class CloseCode(IntEnum):
    """Why the server closes a socket."""

    BAD_REQUEST = 4400
    NOT_AUTHENTICATED = 4401
    FORBIDDEN = 4403
    NOT_FOUND = 4404
    PROTOCOL_VERSION = 4406
    DELETED = 4410
    TOO_LARGE = 4413
    INTERNAL = 4500
    DRAINING = 4503
    STALLED = 4508
    TOO_MANY = 4529


def may_retry(code: int) -> bool:
    """Whether a client that was closed with ``code`` should come back by itself.

    Codes outside our ranges (1006 for a cut line, 1012 for a restart) are network weather: come back.
    """
    return not 4400 <= code <= 4499
