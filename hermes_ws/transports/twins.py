"""The HTTP twins: what a socket does, by request.

Same bodies, same log: an event is the socket's frame, a command is answered with its ``ok`` or ``error``.
"""

from __future__ import annotations

import time

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hermes_ws.errors import CommandError, FrameError
from hermes_ws.protocol.codec import decode_command
from hermes_ws.protocol.commands import ANYWHERE
from hermes_ws.protocol.resources import ConversationList, InteractionList, TicketGrant, TicketRequest
from hermes_ws.routes.context import json_response
from hermes_ws.runtime.beginning import begun_by
from hermes_ws.runtime.calls import call_id_file
from hermes_ws.runtime.commands import do
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.runtime.reached import conversations, for_people, summary_of
from hermes_ws.runtime.runtime import Runtime, new_id
from hermes_ws.settings import Settings
from hermes_ws.transports.addresses import ROOT, is_conversation_id
from hermes_ws.transports.auth import Access, Refused
from hermes_ws.transports.conversation_resource import ConversationResource
from hermes_ws.transports.event_log import EventLog
from hermes_ws.transports.images import check_upload, give_out, take_in
from hermes_ws.transports.kept import KeptOutput
from hermes_ws.transports.refusals import refusal
from hermes_ws.transports.requests import Desk, body_of, limited, value_of

__all__ = ["Twins"]


class Twins:
    """The handlers of ``/api``."""

    def __init__(self, runtime: Runtime, access: Access, settings: Settings) -> None:
        self._desk = Desk(runtime, access, settings)
        self._resource = ConversationResource(self._desk)
        self._log = EventLog(self._desk)
        self._runtime = runtime
        self._access = access
        self._settings = settings
        self._limits = settings.limits

    def routes(self) -> list[Route]:
        """All of them."""
        conversation = "/api/conversations/{conversation_id}"
        return [
            Route("/api/conversations", self._conversations),
            Route("/api/interactions", self._interactions),
            *self._resource.routes(conversation),
            *self._log.routes(conversation),
            Route(f"{conversation}/commands", self._command, methods=["POST"]),
            Route(f"{conversation}/tool-calls/{{call_id:path}}/output", self._output),
            Route("/api/blobs", self._upload, methods=["POST"]),
            Route("/api/blobs/{blob}", self._image),
            Route("/api/tickets", self._ticket, methods=["POST"]),
        ]

    async def _conversations(self, request: Request) -> Response:
        principal = self.identify(request, None)
        limit = limited(request, self._limits.page_conversations)
        cursor = request.query_params.get("cursor")
        try:
            page = await conversations(self._runtime.store, principal, limit=limit, cursor=cursor)
        except ValueError as error:
            raise Refused(400, f"query parameter cursor: {error}") from None
        return json_response(ConversationList(conversations=list(map(summary_of, page.lines)), next=page.next))

    async def _interactions(self, request: Request) -> Response:
        """What a person can answer, in every conversation that the credential reaches."""
        principal = self.identify(request, None)
        limit, cursor = limited(request, self._limits.page_interactions), request.query_params.get("cursor")
        try:
            asked, following = await for_people(self._runtime.store, principal, limit=limit, cursor=cursor)
        except ValueError as error:
            raise Refused(400, f"query parameter cursor: {error}") from None
        return json_response(InteractionList(interactions=asked, next=following))

    async def _command(self, request: Request) -> Response:
        principal, ref = self._desk.named(request)
        try:
            command = decode_command(await body_of(request, self._limits.frame_bytes))
        except FrameError as refused:
            return refusal(refused, refused.command_id)
        caller, anew = Caller(principal, "http"), request.path_params["conversation_id"] == "new"
        if anew and isinstance(command, ANYWHERE) and command.conversation_id == "new":  # as it goes to the inbox
            command = msgspec.structs.replace(command, conversation_id=None)
        if anew and command.id is not None:
            conversation = await begun_by(self._runtime, command, caller)
        else:
            conversation = await self._runtime.open(ref)
        try:
            answer = await do(self._runtime, conversation, command, caller)
        except CommandError as refused:
            return refusal(refused, command.id)
        if answer.conversation_id is None and anew:
            answer = msgspec.structs.replace(answer, conversation_id=conversation.ref.conversation_id)
        return json_response(answer)

    async def _output(self, request: Request) -> Response:
        """The whole output of a tool call whose preview was cut."""
        conversation = await self._desk.open(request)
        call = conversation.session.state.calls.get(request.path_params["call_id"])
        if call is None:
            raise CommandError("not_found", "there is no such tool call in this conversation")
        kept = self._runtime.directory.outputs(conversation.ref) / call_id_file(call.call_id)
        return await KeptOutput.of(kept) or PlainTextResponse(call.output)

    async def _upload(self, request: Request) -> Response:
        """An image for an input. 201 also for one that was there already: that is nobody else's to know."""
        principal, ref = self._desk.reach(request)
        check_upload(request, principal)
        most = min(self._limits.body_bytes, self._settings.blobs.image_bytes)
        return json_response(await take_in(self._runtime, principal, ref, await body_of(request, most)), 201)

    async def _image(self, request: Request) -> Response:
        principal, ref = self._desk.reach(request)
        known = request.headers.get("if-none-match", "")
        return await give_out(self._runtime, principal, ref, request.path_params["blob"], known)

    async def _ticket(self, request: Request) -> Response:
        principal = self.identify(request, None)
        asked = await value_of(request, self._limits.body_bytes, TicketRequest, "a ticket request")
        conversation_id = new_id("conv") if asked.conversation == "new" else asked.conversation
        if not is_conversation_id(conversation_id):
            raise CommandError("invalid_frame", "that is no conversation id", path="$.conversation")
        server = self._settings.server
        ttl_s = min(max(asked.ttl_s or server.ticket_ttl_s, 1.0), server.ticket_ttl_max_s)
        ticket = self._access.issue(
            principal, conversation_id=conversation_id, name=asked.principal, role=asked.role, ttl_s=ttl_s
        )
        grant = TicketGrant(
            ticket=ticket,
            conversation=conversation_id,
            expires_at=int((time.time() + ttl_s) * 1000),
            url=f"{request.scope[ROOT]}/ws/{conversation_id}?ticket={ticket}",
        )
        return json_response(grant, 201)

    def identify(self, request: Request, conversation_id: str | None) -> Principal:
        """Who asks. Raises :class:`Refused`."""
        return self._desk.identify(request, conversation_id)
