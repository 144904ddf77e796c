"""A conversation by request: what it is, its configuration, its items, and its end."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hermes_ws.errors import CommandError
from hermes_ws.protocol.codec import decode_command, encode
from hermes_ws.protocol.commands import ConversationConfigure
from hermes_ws.protocol.resources import ConversationPatch, ConversationView, ItemPage
from hermes_ws.routes.context import json_response
from hermes_ws.runtime.commands import do
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.transports.refusals import refusal
from hermes_ws.transports.requests import Desk, limited, value_of

__all__ = ["ConversationResource"]


class ConversationResource:
    """The handlers of ``/api/conversations/{id}`` and ``.../items``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._runtime = desk.runtime
        self._limits = desk.limits

    def routes(self, conversation: str) -> list[Route]:
        """Those at the address of a conversation, and its items."""
        return [
            Route(conversation, self._get),
            Route(conversation, self._patch, methods=["PATCH"]),
            Route(conversation, self._delete, methods=["DELETE"]),
            Route(f"{conversation}/items", self._items),
        ]

    async def _get(self, request: Request) -> Response:
        _, conversation = await self._desk.begun(request)
        return json_response(await _view(conversation))

    async def _patch(self, request: Request) -> Response:
        """What ``conversation.configure`` does, to a conversation that there is."""
        principal, conversation = await self._desk.begun(request)
        patch = await value_of(request, self._limits.frame_bytes, ConversationPatch, "a patch")
        given = ConversationConfigure(id=patch.id, config=patch.config, if_version=patch.if_version)
        try:
            command = decode_command(encode(given))  # how deep it may be nested is said there
            await do(self._runtime, conversation, command, Caller(principal, "http"))
        except CommandError as refused:
            return refusal(refused, patch.id)
        return json_response(await _view(conversation))

    async def _delete(self, request: Request) -> Response:
        """Remove a conversation wholly; its sockets are closed with 4410."""
        principal, ref = self._desk.named(request)
        if principal.role not in ("driver", "admin"):
            raise CommandError("not_permitted", f"role {principal.role} may not delete a conversation")
        if not await self._runtime.delete(ref):
            raise CommandError("not_found", f"there is no conversation {ref.conversation_id!r}")
        return Response(status_code=204)

    async def _items(self, request: Request) -> Response:
        """The newest items, or those right before one that is known."""
        _, conversation = await self._desk.begun(request)
        limit = limited(request, self._limits.page_items)
        conversation.flush()
        state, before = conversation.session.state, request.query_params.get("before") or None
        try:
            items, older = state.window(before, max_items=limit, max_bytes=self._limits.page_bytes)
        except KeyError:
            message = f"query parameter before: there is no item {str(before)[:80]!r} in this conversation"
            raise CommandError("not_found", message) from None
        page = msgspec.json.encode(ItemPage(at=state.head, items=items, before=older))
        await conversation.settled()
        return Response(page, media_type="application/json")


async def _view(conversation: Conversation) -> ConversationView:
    """The conversation as it is now, once that is committed."""
    conversation.flush()
    state, summary = conversation.session.state, conversation.summary()
    assert state.epoch is not None
    view = ConversationView(
        **{name: getattr(summary, name) for name in summary.__struct_fields__},
        epoch=state.epoch,
        floor=conversation.floor,
        config=state.config,
        config_version=state.config_version,
    )
    await conversation.settled()
    return view
