"""The HTTP twins: what a socket does, by request.

Same bodies, same log: an event is the socket's frame, a command is answered with its ``ok`` or ``error``.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hermes_ws.errors import CommandError, FrameError
from hermes_ws.protocol.codec import decode_command, encode, invalid_value
from hermes_ws.protocol.commands import Command
from hermes_ws.protocol.control import Skipped
from hermes_ws.protocol.resources import ConversationList, EventPage, TicketGrant, TicketRequest
from hermes_ws.protocol.summaries import ConversationSummary
from hermes_ws.routes.body import read_body
from hermes_ws.routes.context import json_response
from hermes_ws.runtime.calls import call_id_file
from hermes_ws.runtime.commands import do
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.runtime.runtime import Runtime, new_id
from hermes_ws.settings import Settings
from hermes_ws.store.base import ConversationRef, StoredEvent
from hermes_ws.transports.addresses import ROOT, conversation_ref, is_conversation_id
from hermes_ws.transports.auth import Access, Refused
from hermes_ws.transports.images import check_upload, give_out, take_in
from hermes_ws.transports.kept import KeptOutput
from hermes_ws.transports.refusals import refusal

__all__ = ["Twins"]


class Twins:
    """The handlers of ``/api``."""

    def __init__(self, runtime: Runtime, access: Access, settings: Settings) -> None:
        self._runtime = runtime
        self._access = access
        self._settings = settings
        self._limits = settings.limits

    def routes(self) -> list[Route]:
        """All of them."""
        conversation = "/api/conversations/{conversation_id}"
        return [
            Route("/api/conversations", self._conversations),
            Route(conversation, self._delete, methods=["DELETE"]),
            Route(f"{conversation}/events", self._events),
            Route(f"{conversation}/commands", self._command, methods=["POST"]),
            Route(f"{conversation}/tool-calls/{{call_id:path}}/output", self._output),
            Route("/api/blobs", self._upload, methods=["POST"]),
            Route("/api/blobs/{blob}", self._image),
            Route("/api/tickets", self._ticket, methods=["POST"]),
        ]

    async def _conversations(self, request: Request) -> Response:
        principal = self.identify(request, None)
        limit = _limit(request, self._limits.page_conversations)
        try:
            page = await self._runtime.store.conversations(
                principal.namespace, limit=limit, cursor=request.query_params.get("cursor")
            )
        except ValueError as error:
            raise Refused(400, f"query parameter cursor: {error}") from None
        summaries = [
            msgspec.structs.replace(
                msgspec.json.decode(line.summary, type=ConversationSummary),
                head=line.head,
                last_event_at=line.last_event_at,
            )
            for line in page.lines
            if principal.may_open(line.conversation_id)
        ]
        return json_response(ConversationList(conversations=summaries, next=page.next))

    async def _events(self, request: Request) -> Response:
        conversation = await self._open(request)
        after = _count(request, "after", 0)
        limit = _limit(request, self._limits.page_events)
        wait_ms = min(_count(request, "wait_ms", 0), self._limits.wait_ms)
        if after >= conversation.committed and wait_ms:
            await conversation.wait_beyond(after, wait_ms / 1000)
            if conversation.dead:  # deleted meanwhile, or about to be read anew
                conversation = await self._open(request)
        return json_response(await self._page(conversation, after, limit))

    async def _page(self, conversation: Conversation, after: int, limit: int) -> EventPage:
        head = conversation.committed
        events = await conversation.store.read(
            conversation.ref,
            after=after,
            limit=limit,
            max_bytes=self._limits.page_bytes,
        )
        frames, reached = _with_gaps([event for event in events if event.seq <= head], after)
        return EventPage(
            epoch=conversation.epoch,
            head=head,
            floor=conversation.floor,
            events=[msgspec.Raw(frame) for frame in frames],
            next=min(reached, head),
            at_head=reached >= head,
        )

    async def _delete(self, request: Request) -> Response:
        """Remove a conversation wholly; its sockets are closed with 4410."""
        principal, ref = self._named(request)
        if principal.role not in ("driver", "admin"):
            raise CommandError("not_permitted", f"role {principal.role} may not delete a conversation")
        if not await self._runtime.delete(ref):
            raise CommandError("not_found", f"there is no conversation {ref.conversation_id!r}")
        return Response(status_code=204)

    async def _command(self, request: Request) -> Response:
        principal, ref = self._named(request)
        try:
            command = decode_command(await _body(request, self._limits.frame_bytes))
        except FrameError as refused:
            return refusal(refused, refused.command_id)
        caller = Caller(principal, "http")
        if request.path_params["conversation_id"] == "new" and command.id is not None:
            conversation = await self._begun_by(command, caller)
        else:
            conversation = await self._runtime.open(ref)
        try:
            answer = await do(self._runtime, conversation, command, caller)
        except CommandError as refused:
            return refusal(refused, command.id)
        if answer.conversation_id is None and request.path_params["conversation_id"] == "new":
            answer = msgspec.structs.replace(answer, conversation_id=conversation.ref.conversation_id)
        return json_response(answer)

    async def _begun_by(self, command: Command, caller: Caller) -> Conversation:
        """The conversation that a command to ``new`` begins: sent again, it finds the same one, as long as its id is
        remembered."""
        principal = caller.principal
        for count in itertools.count():
            key = "\0".join((principal.namespace, principal.name, command.id or "", str(count)))
            name = f"conv_{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"
            conversation = await self._runtime.open(ConversationRef(principal.namespace, name))
            if conversation.session.state.epoch is None or await conversation.knows(command, caller):
                return conversation
        raise AssertionError("there is always another number")

    async def _output(self, request: Request) -> Response:
        """The whole output of a tool call whose preview was cut."""
        conversation = await self._open(request)
        call = conversation.session.state.calls.get(request.path_params["call_id"])
        if call is None:
            raise CommandError("not_found", "there is no such tool call in this conversation")
        kept = self._runtime.directory.outputs(conversation.ref) / call_id_file(call.call_id)
        return await KeptOutput.of(kept) or PlainTextResponse(call.output)

    async def _upload(self, request: Request) -> Response:
        """An image for an input. 201 also for one that was there already: that is nobody else's to know."""
        principal, ref = self._reach(request)
        check_upload(request, principal)
        most = min(self._limits.body_bytes, self._settings.blobs.image_bytes)
        return json_response(await take_in(self._runtime, principal, ref, await _body(request, most)), 201)

    async def _image(self, request: Request) -> Response:
        principal, ref = self._reach(request)
        known = request.headers.get("if-none-match", "")
        return await give_out(self._runtime, principal, ref, request.path_params["blob"], known)

    async def _ticket(self, request: Request) -> Response:
        principal = self.identify(request, None)
        try:
            asked = msgspec.json.decode(await _body(request, self._limits.body_bytes), type=TicketRequest)
        except msgspec.MsgspecError as error:
            what, path = invalid_value(error, TicketRequest)
            raise CommandError("invalid_frame", f"a ticket request: {what}", path=path) from None
        except RecursionError:
            raise CommandError("invalid_frame", "a ticket request: the JSON is nested too deeply") from None
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

    # -- what they share -------------------------------------------------------------------------------

    def identify(self, request: Request, conversation_id: str | None) -> Principal:
        """Who asks. Raises :class:`Refused`."""
        ticket = request.query_params.get("ticket") if conversation_id is not None else None
        return self._access.identify(request.scope, ticket=ticket, conversation_id=conversation_id)

    def _named(self, request: Request) -> tuple[Principal, ConversationRef]:
        """Who asks, and for which conversation."""
        conversation_id = request.path_params["conversation_id"]
        principal = self.identify(request, conversation_id)
        return principal, conversation_ref(principal, conversation_id)

    def _reach(self, request: Request) -> tuple[Principal, ConversationRef | None]:
        """Who asks, and for which conversation, where the query may name one. A ticket needs it."""
        conversation_id = request.query_params.get("conversation")
        principal = self.identify(request, conversation_id)
        if conversation_id == "new":
            raise Refused(400, "query parameter conversation: an id; 'new' begins with a command")
        return principal, None if conversation_id is None else conversation_ref(principal, conversation_id)

    async def _open(self, request: Request) -> Conversation:
        return await self._runtime.open(self._named(request)[1])


async def _body(request: Request, most: int) -> bytes:
    try:
        return await read_body(request, most)
    except ClientDisconnect:
        raise Refused(400, "the body was cut short") from None


def _with_gaps(events: list[StoredEvent], after: int) -> tuple[list[bytes], int]:
    """Frames with ``skipped`` where numbers are missing, and the last number accounted for."""
    frames: list[bytes] = []
    for event in events:
        if event.seq != after + 1:
            frames.append(encode(Skipped(from_=after + 1, to=event.seq - 1, reason="compacted")))
        frames.append(event.data)
        after = event.seq
    return frames, after


def _limit(request: Request, most: int) -> int:
    """How long a page is to be: at least one, and no more than the setting."""
    return min(max(_count(request, "limit", most), 1), most)


def _count(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise Refused(400, f"query parameter {name}: expected a number from 0, got {text[:80]!r}")
    return int(text)
