"""Bytes to frames and back.

Encoding is one call. Decoding a command is one typed decode when the frame is good; only when it is not do we
look again, to say where it is wrong, what was expected, and which type was probably meant.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, Final, cast

import msgspec

from hermes_ws.errors import FrameError
from hermes_ws.protocol.commands import COMMAND_TYPES, Command, CommandBase, command_type
from hermes_ws.protocol.control import CONTROL_TYPES, Control, ControlBase, Snapshot
from hermes_ws.protocol.events import EVENT_TYPES, Event, EventBase, UnknownEvent
from hermes_ws.protocol.expected import known_fields, known_values

__all__ = [
    "MAX_DEPTH",
    "decode_command",
    "decode_event",
    "decode_frame",
    "encode",
    "fingerprint",
    "invalid_value",
]

_encoder = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_controls: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)
_object: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_any = msgspec.json.Decoder()

_ECHOED: Final = 120
"""How much of what a client sent is repeated to it in an error: enough to find it, whatever was sent."""

_COMMAND_CLASSES: Final = {command_type(cls): cls for cls in Command.__args__}
_EVENT_SET: Final = frozenset(EVENT_TYPES)
_CONTROL_SET: Final = frozenset(CONTROL_TYPES)
_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>(?:key in )?\$[^`]*)`)?$", re.DOTALL)

MAX_DEPTH: Final = 64
"""How deep a command may be nested: what is accepted must be readable again, whatever the stack is then."""

_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)
"""Strings (to pass over them) and brackets, in JSON that is known to be valid."""


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
    raw = _object.decode(data)
    kind = raw.get("type")
    if kind in _EVENT_SET:
        return _events.decode(data)
    if kind in _CONTROL_SET:
        return _controls.decode(data)
    if isinstance(kind, str) and isinstance(raw.get("seq"), int):
        fields = {k: v for k, v in raw.items() if k not in ("type", "seq", "ts")}
        return UnknownEvent(type=kind, seq=raw["seq"], ts=raw.get("ts", 0), fields=fields)
    raise msgspec.ValidationError(f"unknown frame type {_shortened(repr(kind))}")


def decode_command(data: bytes | str) -> Command:
    """One command from a client.

    Raises :class:`FrameError` with code ``invalid_json``, ``unknown_type`` or ``invalid_frame``; its ``path``
    says where, its message what was expected, and its ``command_id`` whose command it was, if readable.
    """
    try:
        command = _commands.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _explain(data, error) from None
    if _depth(data) > MAX_DEPTH:
        message = f"the JSON is nested more than {MAX_DEPTH} deep"
        refusal = FrameError("invalid_frame", message, path="$")
        refusal.command_id = command.id
        raise refusal
    return command


def _depth(data: bytes | str) -> int:
    """How deep valid JSON is nested; not looked at when it cannot be too deep."""
    text = data.encode() if isinstance(data, str) else data
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for token in _BRACKETS.finditer(text):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _explain(data: bytes | str, error: Exception) -> FrameError:
    """Why a frame cannot be read, for the person who wrote it."""
    try:
        raw = _any.decode(data)
    except RecursionError:
        return FrameError("invalid_json", "the JSON is nested too deeply to be read", path="$")
    except UnicodeError:
        return FrameError("invalid_json", "the frame is not valid UTF-8", path="$")
    except msgspec.MsgspecError as broken:
        return FrameError("invalid_json", f"the frame is not JSON: {invalid_value(broken)[0]}", path="$")
    if not isinstance(raw, dict):
        given = _JSON_NAMES[type(raw).__name__]
        return FrameError("invalid_frame", f'a frame is a JSON object such as {{"type":"help"}}, not {given}', path="$")
    frame = cast("dict[str, Any]", raw)
    refusal = _explain_object(frame, error)
    refusal.command_id = _command_id(frame)
    return refusal


def _command_id(raw: dict[str, Any]) -> str | None:
    given = raw.get("id")
    return given if isinstance(given, str) and 1 <= len(given) <= 128 else None


def _explain_object(raw: dict[str, Any], error: Exception) -> FrameError:
    kind = raw.get("type")
    if isinstance(kind, str):
        return _explain_command(kind, error) if kind in _COMMAND_CLASSES else _explain_type(kind)
    wrong = "the frame has no `type`" if kind is None else f"`type` is a string, not {_JSON_NAMES[type(kind).__name__]}"
    return FrameError("invalid_frame", f"{wrong}; known types: {', '.join(COMMAND_TYPES)}", path="$.type")


def _explain_type(kind: str) -> FrameError:
    nearest = _nearest(kind)
    meant = f"did you mean {nearest!r}?" if nearest else f"known types: {', '.join(COMMAND_TYPES)}"
    details = {"nearest": nearest} if nearest else None
    message = f"unknown command type {_shortened(repr(kind))}; {meant}"
    return FrameError("unknown_type", message, path="$.type", details=details)


def _explain_command(kind: str, error: Exception) -> FrameError:
    what, path = invalid_value(error, _COMMAND_CLASSES[kind])
    return FrameError("invalid_frame", f"{kind}: {what}", path=path)


def invalid_value(error: Exception, expected: Any = None) -> tuple[str, str]:
    """The message of a msgspec error, and the JSON path it names (``$`` when it names none).

    ``expected`` is the type that was decoded into; with it, the message lists what it allows there.
    """
    found = _AT.match(str(error))
    assert found is not None
    what, path = found["what"], _shortened((found["path"] or "$").removeprefix("key in "))
    if "recursion" in what.lower():
        what = "the JSON is nested too deeply"
    return _shortened(what) + _alternatives(what, path, expected), path


def _alternatives(what: str, path: str, expected: Any) -> str:
    if expected is None:
        return ""
    if what.startswith(("Invalid enum value", "Invalid value")):
        return _one_of("; expected one of", known_values(expected, path))
    if what.startswith("Object contains unknown field"):
        return _one_of("; known fields:", known_fields(expected, path))
    return ""


def _one_of(lead: str, names: tuple[str, ...]) -> str:
    return f"{lead} {', '.join(names)}" if names else ""


def _shortened(text: str) -> str:
    return text if len(text) <= _ECHOED else f"{text[:_ECHOED]}…"


def _nearest(kind: str) -> str | None:
    word = kind[:80].lower().replace("_", ".")
    begun = [name for name in COMMAND_TYPES if word and name.startswith(word)]
    close = begun or difflib.get_close_matches(word, COMMAND_TYPES, n=1, cutoff=0.5)
    by_suffix = {name.rpartition(".")[2]: name for name in COMMAND_TYPES}
    return close[0] if close else by_suffix.get(word.rpartition(".")[2])


_JSON_NAMES = {
    "dict": "an object",
    "list": "an array",
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "NoneType": "null",
}
