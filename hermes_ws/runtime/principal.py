"""Who is asking, and how far their key goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import (
    READS,
    Command,
    InteractionReply,
    command_type,
)
from hermes_ws.protocol.values import By, Role, ToolFilter

__all__ = ["Caller", "Principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """What a credential stands for. ``conversations`` None: any in the namespace."""

    namespace: str
    name: str
    role: Role
    tools: ToolFilter | None = None
    conversations: frozenset[str] | None = None

    def may_open(self, conversation_id: str) -> bool:
        """Whether the credential reaches this conversation."""
        return self.conversations is None or conversation_id in self.conversations


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal at a socket or a request; ``client_id`` is what it calls itself."""

    principal: Principal
    via: Literal["socket", "http"]
    client_id: str | None = None

    @property
    def by(self) -> By:
        return By(principal=self.principal.name, client_id=self.client_id)

    def check(self, command: Command) -> None:
        """Raises :class:`CommandError` ``not_permitted`` when the role does not go so far."""
        role = self.principal.role
        if role in ("driver", "admin") or isinstance(command, READS):
            return
        if role == "responder" and isinstance(command, InteractionReply):
            return
        raise CommandError("not_permitted", f"role {role} may not send {command_type(command)}")
