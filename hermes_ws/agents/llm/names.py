"""What a tool is called towards an endpoint.

Tools have a name and a source, and both may be anything; an endpoint takes ``[a-zA-Z0-9_-]{1,64}``, each once. A tool
keeps its bare name where that is valid and no other tool has it (a built-in one keeps it anyway); all others are called
``SERVER__name``, with what is not allowed made ``_``, and a short hash at the end where that is too long or taken.

Calls of the history are named by the same table, whether their tool is still there or not: those on offer choose first.
A client that brings a history along tells of all calls as if they were of its own functions; one that has the name of a
tool on offer was a call of that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from hermes_ws.history import AssistantTurn, CallMade, HistoryEntry
from hermes_ws.policy import qualified
from hermes_ws.protocol.values import Annotations, ToolDescription

__all__ = ["FunctionNames"]

_LENGTH: Final = 64
_VALID: Final = re.compile(rf"[a-zA-Z0-9_-]{{1,{_LENGTH}}}")
_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9_-]")
_UNKNOWN: Final = Annotations(read_only=False, idempotent=False, destructive=True)

_Key = tuple[str, str]


class FunctionNames:
    """The table for one request, in both directions."""

    def __init__(self, tools: Iterable[ToolDescription], history: Iterable[HistoryEntry]) -> None:
        self._functions: dict[_Key, str] = {}
        self._tools: dict[str, _Key] = {}
        self._assign({(tool.source, tool.name) for tool in tools})
        made = [call for entry in history if isinstance(entry, AssistantTurn) for call in entry.calls]
        gone = {(call.source, call.name) for call in made} - self._functions.keys()
        told = {key for key in gone if key[0] == "client" and key[1] in self._tools}
        self._functions |= {key: key[1] for key in told}
        self._assign(gone - told)

    def of(self, tool: ToolDescription | CallMade) -> str:
        """What the endpoint calls this tool."""
        return self._functions[tool.source, tool.name]

    def meant(self, function: str) -> str:
        """The tool that the endpoint means, with its source unless it is built in. A name that nobody gave is left as
        it is: that there is no such tool is said where tools are called."""
        key = self._tools.get(function)
        return function if key is None else _full(key)

    def _assign(self, keys: set[_Key]) -> None:
        owners = Counter(name for _, name in keys)
        late: list[_Key] = []
        for key in sorted(keys):
            source, name = key
            own = source == "builtin" or owners[name] == 1
            if own and _VALID.fullmatch(name) and name not in self._tools:
                self._give(key, name)
            else:
                late.append(key)
        for key in late:
            self._give(key, self._long(key))

    def _long(self, key: _Key) -> str:
        source, name = key
        wanted = _FORBIDDEN.sub("_", f"{source.removeprefix('mcp:')}__{name}")
        if len(wanted) <= _LENGTH and wanted not in self._tools:
            return wanted
        mark = "_" + sha256("\0".join(key).encode()).hexdigest()[:8]
        return wanted[: _LENGTH - len(mark)] + mark

    def _give(self, key: _Key, function: str) -> None:
        self._functions[key] = function
        self._tools[function] = key


def _full(key: _Key) -> str:
    source, name = key
    if source == "builtin":
        return name
    description = ToolDescription(
        name=name, source=source, title="", description="", parameters={}, annotations=_UNKNOWN
    )
    return qualified(description)
