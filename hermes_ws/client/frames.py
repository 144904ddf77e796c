"""Reading what a server sends, of this version or a later one.

A client must not fail at what a newer server says: an event it cannot read still has its number, an error of a code
that it does not know still answers a command, and a control frame that it does not know is about nothing it needs.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hermes_ws.protocol.codec import decode_frame
from hermes_ws.protocol.control import Control, Error
from hermes_ws.protocol.events import Event, UnknownEvent

__all__ = ["Violation", "read_frame"]

_raw: Final = msgspec.json.Decoder(dict[str, Any])
_FRAME_OWN: Final = ("type", "seq", "ts")


class Violation(Exception):
    """The server said something that the protocol does not allow."""


def read_frame(data: bytes) -> Event | Control | UnknownEvent | None:
    """A frame; None for one of an unknown type that has no number. Raises :class:`Violation`."""
    try:
        return decode_frame(data)
    except msgspec.MsgspecError as error:
        return _read_leniently(data, error)


def _read_leniently(data: bytes, error: Exception) -> UnknownEvent | Error | None:
    try:
        raw = _raw.decode(data)
    except msgspec.MsgspecError:
        raise Violation("a frame is not a JSON object") from None
    match raw:
        case {"type": str(kind), "seq": int(seq)}:
            fields = {name: value for name, value in raw.items() if name not in _FRAME_OWN}
            return UnknownEvent(type=kind, seq=seq, ts=raw.get("ts", 0), fields=fields)
        case {"type": "error", "code": str(code), "message": str(message)}:
            retryable = raw.get("retryable") is True
            return Error(id=raw.get("id"), code=code, message=message, retryable=retryable)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        case {"type": "hello" | "snapshot" | "skipped" | "live" | "ok" | "error" | "heartbeat" | "goaway" as kind}:
            raise Violation(f"a {kind} frame cannot be read: {error}") from None
        case {"type": str()}:
            return None
        case _:
            raise Violation("a frame has no type")
