"""What the HTTP twins share: who asks, for which conversation, and what stands in the query."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from hermes_ws.errors import CommandError
from hermes_ws.protocol.codec import invalid_value
from hermes_ws.routes.body import read_body
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Principal
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.settings import Settings
from hermes_ws.store.base import ConversationRef
from hermes_ws.transports.addresses import conversation_ref
from hermes_ws.transports.auth import Access, Refused

__all__ = ["Desk", "body_of", "count", "limited", "number", "value_of"]

T = TypeVar("T")

_NUMBER: Final = re.compile(r"\d{1,15}", re.ASCII)


class Desk:
    """The server, as the handlers under ``/api`` see it."""

    def __init__(self, runtime: Runtime, access: Access, settings: Settings) -> None:
        self.runtime = runtime
        self.access = access
        self.settings = settings
        self.limits = settings.limits

    def identify(self, request: Request, conversation_id: str | None) -> Principal:
        """Who asks. Raises :class:`Refused`."""
        ticket = request.query_params.get("ticket") if conversation_id is not None else None
        return self.access.identify(request.scope, ticket=ticket, conversation_id=conversation_id)

    def named(self, request: Request) -> tuple[Principal, ConversationRef]:
        """Who asks, and for which conversation."""
        conversation_id = request.path_params["conversation_id"]
        principal = self.identify(request, conversation_id)
        return principal, conversation_ref(principal, conversation_id)

    def reach(self, request: Request) -> tuple[Principal, ConversationRef | None]:
        """Who asks, and for which conversation, where the query may name one. A ticket needs it."""
        conversation_id = request.query_params.get("conversation")
        principal = self.identify(request, conversation_id)
        if conversation_id == "new":
            raise Refused(400, "query parameter conversation: an id; 'new' begins with a command")
        return principal, None if conversation_id is None else conversation_ref(principal, conversation_id)

    async def open(self, request: Request) -> Conversation:
        """The conversation that the path names; one that has not begun is as good as any."""
        return await self.runtime.open(self.named(request)[1])

    async def begun(self, request: Request) -> tuple[Principal, Conversation]:
        """Who asks, and the conversation that the path names. Raises :class:`CommandError` ``not_found`` for one that
        has not begun, and :class:`Refused` 503 when the server has let go of it."""
        principal, ref = self.named(request)
        conversation = await self.runtime.open(ref)
        if conversation.dead:
            raise Refused(503, "the server is going down; come back a little later")
        if conversation.session.state.epoch is None:
            raise CommandError("not_found", f"there is no conversation {ref.conversation_id!r}")
        return principal, conversation


async def body_of(request: Request, most: int) -> bytes:
    """The body, up to ``most`` bytes. Raises :class:`Refused` 400 for one that was cut short, and
    :class:`CommandError` ``too_large``."""
    try:
        return await read_body(request, most)
    except ClientDisconnect:
        raise Refused(400, "the body was cut short") from None


async def value_of(request: Request, most: int, type_: type[T], what: str) -> T:
    """The body, up to ``most`` bytes, as JSON of this type; ``what`` it is. Raises as :func:`body_of`, and
    :class:`CommandError` that names the field."""
    body = await body_of(request, most)
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeError) as error:
        found, path = invalid_value(error, type_)
        raise CommandError("invalid_frame", f"{what}: {found}", path=path) from None
    except RecursionError:
        raise CommandError("invalid_frame", f"{what}: the JSON is nested too deeply") from None


def limited(request: Request, most: int) -> int:
    """How long a page is to be: at least one, and no more than the setting."""
    return min(max(count(request, "limit", most), 1), most)


def count(request: Request, name: str, default: int) -> int:
    """The number that stands in the query under ``name``. Raises :class:`Refused` 400 for what is none."""
    return number(request.query_params.get(name), f"query parameter {name}", default)


def number(text: str | None, what: str, default: int) -> int:
    """The number that ``text`` says; ``default`` where there is none. Raises :class:`Refused` 400, about ``what``."""
    if not text:
        return default
    if not _NUMBER.fullmatch(text):
        raise Refused(400, f"{what}: expected a number from 0, got {text[:80]!r}")
    return int(text)
