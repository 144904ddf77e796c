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
from dataclasses import dataclass, field
from typing import Final

import anyio
import msgspec

from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import ClientTool, ClientUpdate
from hermes_ws.protocol.values import By, Owner
from hermes_ws.ranges import AtLeastOne, NonNegative, Pause
from hermes_ws.runtime.functions import ClientFunction
from hermes_ws.runtime.principal import Seat
from hermes_ws.validation import UnusableSchema, first_problem

__all__ = ["ClientSettings", "Clients"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What endpoints of models take as the name of a function."""


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[clients]`` of the configuration: clients that execute tools."""

    tools: NonNegative = 128
    """Tools that one client may offer; more are ``too_large``. Of what all clients of a conversation offer together no
    more are there for the model either: those that were offered last."""
    tool_bytes: AtLeastOne = 65_536
    """What a tool may weigh that a client offers: its description and the schema of its arguments."""
    grace_s: Pause = 30.0
    """How long a client may be gone with a call of its own open, when it does not say: it may only be reconnecting."""
    grace_max_s: Pause = 86_400.0
    """The longest that it may say."""
    restart_grace_s: Pause = 10.0
    """How long a client is waited for at least after a start of the server: then it was not the client that went."""
    gone: NonNegative = 16
    """Clients of one conversation whose offers still hold although they are gone, for their grace but no longer than
    ``grace_s``; of one more the one is forgotten that has been gone longest."""


@dataclass(slots=True)
class _Client:
    """What is known of a client. ``tools`` by name, each with what its calls are marked with. ``seats``: its sockets,
    more than one if it came back before the server knew that it had gone."""

    tools: dict[str, tuple[ClientTool, Owner]] = field(default_factory=dict[str, tuple[ClientTool, Owner]])
    seats: set[Seat] = field(default_factory=set[Seat])
    left_at: float = 0.0


class Clients:
    """See the top of the module."""

    def __init__(self, settings: ClientSettings, uptime: Callable[[], float]) -> None:
        """``uptime``: seconds, by a clock that only goes forward."""
        self._settings = settings
        self._uptime = uptime
        self._there: dict[By, _Client] = {}
        """Whoever has offered anything; who spoke last comes last."""
        self._gone: dict[By, _Client] = {}
        """Who left lately; who left last comes last."""
        self._changed = asyncio.Event()

    def update(self, seat: Seat, command: ClientUpdate) -> None:
        """What the client at ``seat`` says of itself. Of what it says at several sockets the last holds.

        Raises :class:`CommandError`, with everything as it was.
        """
        by = By(principal=seat.principal, client_id=command.client_id)
        tools = None if command.tools is None else self._checked(command, by)
        if seat.client_id != command.client_id:
            self._leave(seat)
        seat.client_id, seat.on_leave = command.client_id, self._leave
        client = self._there.pop(by, None) or self._gone.pop(by, None) or _Client()
        client.seats.add(seat)
        client.tools = client.tools if tools is None else tools
        self._there[by] = client
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
            self._check_schema(tool, path)
            found[tool.name] = (tool, self._owner(command, tool, by))
        return found

    def _check_schema(self, tool: ClientTool, path: str) -> None:
        """One that no model could be told of would fail every run of the conversation."""
        if len(msgspec.json.encode(tool)) > self._settings.tool_bytes:
            raise CommandError("too_large", f"a tool weighs at most {self._settings.tool_bytes} bytes", path=path)
        try:
            first_problem(tool.parameters or {}, {})
        except UnusableSchema as reason:
            message = f"the schema {reason}"
            raise CommandError("invalid_frame", message, path=f"{path}.parameters") from None

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
        by = By(principal=seat.principal, client_id=seat.client_id)
        client = self._there.get(by)
        if client is None or seat not in client.seats:
            return
        client.seats.remove(seat)
        if client.seats:
            return
        client.left_at = self._uptime()
        self._gone[by] = self._there.pop(by)
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
        for _, client in sorted(self._there.items(), key=lambda known: known[0] == starter):
            found = {name: offer for name, offer in found.items() if name not in client.tools} | client.tools
        offers = list(found.values())[-self._settings.tools :] if self._settings.tools else []
        return [ClientFunction(tool, owner) for tool, owner in offers]

    def _of_those_gone(self) -> dict[str, tuple[ClientTool, Owner]]:
        """What they offered who may only be reconnecting."""
        now, most_s = self._uptime(), self._settings.grace_s
        for by in [by for by, client in self._gone.items() if now - client.left_at >= most_s]:
            del self._gone[by]
        return {
            name: (tool, owner)
            for client in self._gone.values()
            for name, (tool, owner) in client.tools.items()
            if now - client.left_at < owner.grace_ms / 1000
        }

    async def gone(self, owner: Owner) -> None:
        """Wait until the client has been gone for longer than it may; for ever, where calls wait for it."""
        by = owner.by
        known = by in self._there or by in self._gone  # else it has not come back since the server was started
        away_since: float | None = None
        while True:
            changed = self._changed
            if by in self._there:
                known, away_since = True, None
                await changed.wait()
                continue
            away_since = self._uptime() if away_since is None else away_since
            grace_s = max(owner.grace_ms / 1000, 0.0 if known else self._settings.restart_grace_s)
            left_s = float("inf") if owner.if_gone == "wait" else away_since + grace_s - self._uptime()
            if left_s <= 0:
                return
            with anyio.move_on_after(left_s):
                await changed.wait()
