"""Tool calls out of fragments: which pieces belong together, and what their arguments say.

By the book every fragment has an index, the first of a call also an id and a name, and the arguments of all of them
together are the JSON of an object. Servers leave out ids, or the index; send index 0 for every call; send whole calls;
send objects, or strings in strings. Models write what is no JSON. A call that cannot be read is passed on with the
problem, so that the model is told and can do better.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from hermes_ws.agents.llm.chunks import Fragment
from hermes_ws.agents.llm.model import ToolCall

__all__ = ["Assembly"]

_CALL_ID: Final = re.compile(r"[!-~]{1,128}")
_NAME_CHARS: Final = 200
_SHOWN: Final = 2_000
"""How much of unreadable arguments is kept, for people to look at."""
_CUT_OFF: Final = (
    "the answer reached its greatest length in the middle of this call, so the call was not made; "
    "ask for less at once, or in several calls"
)


@dataclass(slots=True)
class _Growing:
    id: str
    name: str
    arguments: str = ""

    @property
    def whole(self) -> bool:
        return bool(self.arguments.strip()) and isinstance(_decoded(self.arguments), dict)


class Assembly:
    """The calls of one answer, as they grow."""

    def __init__(self) -> None:
        self._calls: list[_Growing] = []
        self._by_index: dict[int, _Growing] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def half(self) -> bool:
        """Whether some call is not all there, as far as can be told before the answer has said that it ends."""
        return not all(call.whole for call in self._calls)

    def add(self, piece: Fragment) -> None:
        """One more fragment."""
        call = self._of(piece)
        if call is None or _begins_another(call, piece):
            call = _Growing(piece.id, piece.name)
            self._calls.append(call)
        elif piece.name != call.name and not call.arguments:
            call.name += piece.name
        call.id = call.id or piece.id
        if piece.index is not None:
            self._by_index[piece.index] = call
        given = piece.arguments
        call.arguments += given if isinstance(given, str) else msgspec.json.encode(given).decode()

    def _of(self, piece: Fragment) -> _Growing | None:
        """The call that a fragment may belong to."""
        if piece.index is not None:
            return self._by_index.get(piece.index)
        same = [call for call in self._calls if piece.id and call.id == piece.id]
        return same[-1] if same else self._calls[-1] if self._calls else None

    def finished(self, *, cut: bool) -> list[ToolCall]:
        """The calls, in order. ``cut``: the answer was ended by its length. Ids that cannot serve, or serve another
        call already, are left out."""
        seen: set[str] = set()
        calls: list[ToolCall] = []
        for growing in self._calls:
            call_id = growing.id if _CALL_ID.fullmatch(growing.id) and growing.id not in seen else ""
            seen.add(call_id)
            calls.append(_read(growing, call_id, cut=cut and growing is self._calls[-1]))
        return calls


def _begins_another(call: _Growing, piece: Fragment) -> bool:
    """Whether a fragment that comes where ``call`` is begins a call of its own."""
    if not piece.name:
        return False
    if piece.id and call.id and piece.id != call.id:
        return True
    if call.whole:
        return bool(piece.arguments)
    return piece.index is None and piece.name != call.name


def _read(growing: _Growing, call_id: str, *, cut: bool) -> ToolCall:
    arguments = _decoded(growing.arguments)
    if isinstance(arguments, dict) and growing.name:
        return ToolCall(growing.name[:_NAME_CHARS], cast(dict[str, Any], arguments), call_id)
    if not growing.name:
        problem = "the call names no tool"
    elif cut and arguments is None:
        problem = _CUT_OFF
    else:
        problem = f"the arguments are not a JSON object ({_why(growing.arguments)}); call {growing.name} again with one"
    shown = {"unreadable": growing.arguments[:_SHOWN]}
    return ToolCall(growing.name[:_NAME_CHARS] or "unknown", shown, call_id, problem)


def _decoded(text: str) -> Any:
    """What arguments say: an object, something else, or None if they are no JSON. An object may be written as a string
    that holds it; nothing is an object with nothing in it."""
    if text.strip() in ("", "null", '""'):
        return {}
    try:
        value = msgspec.json.decode(text)
        return msgspec.json.decode(value) if isinstance(value, str) else value
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def _why(text: str) -> str:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        return str(error)
    return f"they are {'a string' if isinstance(value, str) else 'another kind of JSON'}"
