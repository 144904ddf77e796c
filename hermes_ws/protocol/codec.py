"""Bytes to frames and back.

Encoding is one call. Decoding a command is one typed decode when the frame is good; only when it is not do we look
again, to say where it is wrong, what was expected, and which type was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from hermes_ws.errors import FrameError
from hermes_ws.protocol.commands import COMMAND_TYPES, Command, CommandBase
from hermes_ws.protocol.control import CONTROL_TYPES, Control, ControlBase, Snapshot
from hermes_ws.protocol.events import EVENT_TYPES, Event, EventBase, UnknownEvent

__all__ = [
    "decode_command",
    "decode_event",
    "decode_frame",
    "encode",
    "fingerprint",
    "invalid_value",
]

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")
_commands = msgspec.json.Decoder(Command)
_events = msgspec.json.Decoder(Event)
_controls = msgspec.json.Decoder(Control)
_any = msgspec.json.Decoder()

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>(?:key in )?\$[^`]*)`)?$", re.DOTALL)


def encode(frame: EventBase | ControlBase | CommandBase | Snapshot) -> bytes:
    """One frame as UTF-8 JSON."""
    return _encoder.encode(frame)


def fingerprint(command: CommandBase) -> bytes:
    """Canonical bytes of a command without its id: two commands with one id must agree in this."""
    return _canonical.encode(msgspec.structs.replace(command, id=None))


def decode_event(data: bytes) -> Event:
    """One event from the log. Raises ``msgspec.ValidationError`` if the log holds something else."""
    return _events.decode(data)


def decode_frame(data: bytes | str) -> Event | Control | UnknownEvent:
    """One frame from a server, for clients. An unknown type with a ``seq`` is an :class:`UnknownEvent`."""
    raw = _any.decode(data)
    if not isinstance(raw, dict):
        raise msgspec.ValidationError("a frame is a JSON object")
    kind = raw.get("type")
    if kind in _EVENT_SET:
        return _events.decode(data)
    if kind in _CONTROL_SET:
        return _controls.decode(data)
    if isinstance(kind, str) and isinstance(raw.get("seq"), int):
        fields = {k: v for k, v in raw.items() if k not in ("type", "seq", "ts")}
        return UnknownEvent(type=kind, seq=raw["seq"], ts=raw.get("ts", 0), fields=fields)
    raise msgspec.ValidationError(f"unknown frame type {kind!r}")


_EVENT_SET = frozenset(EVENT_TYPES)
_CONTROL_SET = frozenset(CONTROL_TYPES)


def decode_command(data: bytes | str) -> Command:
    """One command from a client.

    Raises :class:`FrameError` with code ``invalid_json``, ``unknown_type`` or ``invalid_frame``; its ``path`` says
    where, its message what was expected, and its ``command_id`` whose command it was, if that can be read.
    """
    try:
        return _commands.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _explain(data, error) from None


def _explain(data: bytes | str, error: Exception) -> FrameError:
    """Why a frame cannot be read, for the person who wrote it."""
    try:
        raw = _any.decode(data)
    except RecursionError:
        return FrameError("invalid_json", "the JSON is nested too deeply to be read", path="$")
    except UnicodeError:
        return FrameError("invalid_json", "the frame is not valid UTF-8", path="$")
    except msgspec.MsgspecError as broken:
        return FrameError("invalid_json", f"the frame is not JSON: {broken}", path="$")
    if not isinstance(raw, dict):
        kind = type(raw).__name__
        return FrameError(
            "invalid_frame", f'a frame is a JSON object such as {{"type":"help"}}, not {_JSON_NAMES[kind]}', path="$"
        )
    refusal = _explain_object(raw, error)
    given = raw.get("id")
    refusal.command_id = given if isinstance(given, str) and len(given) <= 128 else None
    return refusal


def _explain_object(raw: dict[str, Any], error: Exception) -> FrameError:
    kind = raw.get("type")
    if kind is None:
        return FrameError("invalid_frame", f"the frame has no `type`; known types: {_listed(COMMAND_TYPES)}", path="$.type")
    if not isinstance(kind, str):
        return FrameError("invalid_frame", f"`type` is a string, not {_JSON_NAMES[type(kind).__name__]}", path="$.type")
    if kind not in COMMAND_TYPES:
        nearest = _nearest(kind)
        meant = f"; did you mean {nearest!r}?" if nearest else f"; known types: {_listed(COMMAND_TYPES)}"
        details = {"nearest": nearest} if nearest else None
        return FrameError("unknown_type", f"unknown command type {kind[:80]!r}{meant}", path="$.type", details=details)
    what, path = invalid_value(error)
    return FrameError("invalid_frame", f"{kind}: {what}", path=path)


def invalid_value(error: Exception) -> tuple[str, str]:
    """The message of a msgspec error, and the JSON path it names (``$`` when it names none)."""
    found = _AT.match(str(error))
    assert found is not None
    what = found["what"]
    if "recursion" in what.lower():
        what = "the JSON is nested too deeply"
    return what, (found["path"] or "$").removeprefix("key in ")


def _nearest(kind: str) -> str | None:
    by_suffix: dict[str, str] = {name.rpartition(".")[2]: name for name in COMMAND_TYPES}
    word = kind[:80].lower().replace("_", ".")
    close = difflib.get_close_matches(word, COMMAND_TYPES, n=1, cutoff=0.5)
    return close[0] if close else by_suffix.get(word.rpartition(".")[2])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


_JSON_NAMES = {
    "dict": "an object",
    "list": "an array",
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "NoneType": "null",
}
