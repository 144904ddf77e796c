"""Who is asking, and how far their key goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import (
    READS,
    Command,
    InteractionReply,
    command_type,
)
from hermes_ws.protocol.values import By, Role, ToolFilter

__all__ = ["Caller", "Principal", "Seat"]


@dataclass(frozen=True, slots=True)
class Principal:
    """What a credential stands for. ``conversations`` None: any in the namespace."""

    namespace: str
    name: str
    role: Role
    tools: ToolFilter | None = None
    conversations: frozenset[str] | None = None

    @property
    def only(self) -> str | None:
        """The one conversation that the credential reaches, if there is no other: where a ticket is for."""
        return next(iter(self.conversations)) if self.conversations and len(self.conversations) == 1 else None

    def may_open(self, conversation_id: str) -> bool:
        """Whether the credential reaches this conversation."""
        return self.conversations is None or conversation_id in self.conversations


@dataclass(slots=True, eq=False)
class Seat:
    """A socket, as far as it is somebody's who has a name: what its client calls itself in ``client.update``."""

    principal: str
    client_id: str | None = None
    on_leave: Callable[[Seat], None] | None = None

    def leave(self) -> None:
        """The socket is gone."""
        if self.on_leave is not None:
            self.on_leave(self)


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal at a socket, which has a ``seat``, or with a request."""

    principal: Principal
    via: Literal["socket", "http"]
    seat: Seat | None = field(default=None, compare=False)

    @property
    def by(self) -> By:
        return By(principal=self.principal.name, client_id=self.seat.client_id if self.seat is not None else None)

    def check(self, command: Command) -> None:
        """Raises :class:`CommandError` ``not_permitted`` when the role does not go so far."""
        role = self.principal.role
        if role in ("driver", "admin") or isinstance(command, READS):
            return
        if role == "responder" and isinstance(command, InteractionReply):
            return
        raise CommandError("not_permitted", f"role {role} may not send {command_type(command)}")
