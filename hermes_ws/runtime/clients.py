"""The clients of one conversation that execute tools: who is there, what each offers, and who is gone.

A client says by ``client.update`` at its socket what it executes. That holds as long as it is there, and for a moment
longer, since it may only be reconnecting: then it says it again. Nothing of it is kept over a restart. A call has one
owner, the client that it was made for when the model asked; which one that is stands in the log, so it is the same
after a restart.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio
import msgspec

from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import ClientTool, ClientUpdate
from hermes_ws.protocol.values import By, Owner
from hermes_ws.ranges import NonNegative, Pause
from hermes_ws.runtime.functions import ClientFunction
from hermes_ws.runtime.principal import Seat

__all__ = ["ClientSettings", "Clients"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What endpoints of models take as the name of a function."""


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[clients]`` of the configuration: clients that execute tools."""

    tools: NonNegative = 128
    """Tools that one client may offer; more are ``too_large``."""
    grace_s: Pause = 30.0
    """How long a client may be gone with a call of its own open, when it does not say: it may only be reconnecting."""
    grace_max_s: Pause = 86_400.0
    """The longest that it may say."""
    gone: NonNegative = 16
    """Clients of one conversation whose offers still hold although they are gone, for their grace but no longer than
    ``grace_s``; of one more the one is forgotten that has been gone longest."""


@dataclass(frozen=True, slots=True)
class _Client:
    """What is known of a client. ``tools`` by name, each with what its calls are marked with."""

    by: By
    tools: dict[str, tuple[ClientTool, Owner]]


class Clients:
    """See the top of the module."""

    def __init__(self, settings: ClientSettings, uptime: Callable[[], float]) -> None:
        """``uptime``: seconds, by a clock that only goes forward."""
        self._settings = settings
        self._uptime = uptime
        self._there: dict[Seat, _Client] = {}
        """Whoever has offered anything; who spoke last comes last."""
        self._gone: dict[By, tuple[float, _Client]] = {}
        """Who left lately, and when; who left last comes last."""
        self._changed = asyncio.Event()

    def update(self, seat: Seat, command: ClientUpdate) -> None:
        """What the client at ``seat`` says of itself. A client that is at another socket too has moved here.

        Raises :class:`CommandError`, with everything as it was.
        """
        by = By(principal=seat.principal, client_id=command.client_id)
        before = self._there.get(seat)
        kept = before.tools if before is not None and before.by == by else {}
        tools = kept if command.tools is None else self._checked(command, by)
        seat.client_id = command.client_id
        seat.on_leave = self._leave
        for other in [other for other, client in self._there.items() if client.by == by or other is seat]:
            del self._there[other]
        self._there[seat] = _Client(by, tools)
        self._gone.pop(by, None)
        self._tell()

    def _checked(self, command: ClientUpdate, by: By) -> dict[str, tuple[ClientTool, Owner]]:
        offered = command.tools or []
        if len(offered) > self._settings.tools:
            raise CommandError("too_large", f"a client offers at most {self._settings.tools} tools", path="$.tools")
        found: dict[str, tuple[ClientTool, Owner]] = {}
        for number, tool in enumerate(offered):
            path = f"$.tools[{number}]"
            if _NAME.fullmatch(tool.name) is None:
                message = f"a tool's name is 1 to 64 of A-Z a-z 0-9 _ -, not {tool.name[:80]!r}"
                raise CommandError("invalid_frame", message, path=f"{path}.name")
            if tool.name in found:
                raise CommandError("invalid_frame", f"{tool.name} is there a second time", path=f"{path}.name")
            if (tool.parameters or {}).get("type", "object") != "object":
                message = "`parameters` is the JSON Schema of an object"
                raise CommandError("invalid_frame", message, path=f"{path}.parameters.type")
            found[tool.name] = (tool, self._owner(command, tool, by))
        return found

    def _owner(self, command: ClientUpdate, tool: ClientTool, by: By) -> Owner:
        settings = self._settings
        grace_ms = round(settings.grace_s * 1000) if tool.grace_ms is None else tool.grace_ms
        return Owner(
            principal=by.principal,
            client_id=command.client_id,
            name=command.name,
            if_gone=tool.if_gone or "fail",
            grace_ms=min(grace_ms, round(settings.grace_max_s * 1000)),
        )

    def _leave(self, seat: Seat) -> None:
        client = self._there.pop(seat, None)
        if client is None:
            return
        self._gone[client.by] = (self._uptime(), client)
        while len(self._gone) > self._settings.gone:
            del self._gone[next(iter(self._gone))]
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def functions(self, starter: By | None = None) -> list[ClientFunction]:
        """What is offered. Of several clients with a tool of the same name it is one that is there, if possible the one
        that started the run, else the one that offered it last."""
        found = self._of_those_gone()
        for client in sorted(self._there.values(), key=lambda client: client.by == starter):
            found |= client.tools
        return [ClientFunction(tool, owner) for tool, owner in found.values()]

    def _of_those_gone(self) -> dict[str, tuple[ClientTool, Owner]]:
        """What they offered who may only be reconnecting."""
        now, most_s = self._uptime(), self._settings.grace_s
        for by in [by for by, (left_at, _) in self._gone.items() if now - left_at >= most_s]:
            del self._gone[by]
        return {
            name: (tool, owner)
            for left_at, client in self._gone.values()
            for name, (tool, owner) in client.tools.items()
            if now - left_at < owner.grace_ms / 1000
        }

    def is_there(self, owner: Owner) -> bool:
        """Whether the client is at some socket."""
        by = By(principal=owner.principal, client_id=owner.client_id)
        return any(client.by == by for client in self._there.values())

    async def gone(self, owner: Owner) -> None:
        """Wait until the client has been gone for longer than it may; for ever, where calls wait for it."""
        away_since: float | None = None
        while True:
            changed = self._changed
            if self.is_there(owner):
                away_since = None
                await changed.wait()
                continue
            away_since = self._uptime() if away_since is None else away_since
            left_s = away_since + owner.grace_ms / 1000 - self._uptime()
            if owner.if_gone == "wait":
                left_s = float("inf")
            elif left_s <= 0:
                return
            with anyio.move_on_after(left_s):
                await changed.wait()
