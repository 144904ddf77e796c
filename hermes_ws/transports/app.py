"""The ASGI app: routes, the gate in front of them, and errors that say what to do.

It is an ordinary ASGI app and can be mounted in another one; :mod:`hermes_ws.transports.server` runs it tuned. Sockets
do not go through Starlette's middleware: an idle one costs what its connection costs.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import time
from collections.abc import MutableMapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from hermes_ws import __version__, compat_http
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.openapi_document import document as openapi_document
from hermes_ws.errors import CommandError, FrameError, HermesError
from hermes_ws.protocol import PROTOCOL
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.codec import decode_command, encode, invalid_value
from hermes_ws.protocol.commands import Command
from hermes_ws.protocol.control import Skipped
from hermes_ws.protocol.resources import ConversationList, ConversationSummary, EventPage, TicketGrant, TicketRequest
from hermes_ws.protocol.schema import documents, sha256
from hermes_ws.protocol.values import ConversationId
from hermes_ws.routes.body import read_body
from hermes_ws.routes.context import Api, json_response
from hermes_ws.runtime.calls import call_id_file
from hermes_ws.runtime.commands import do
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.runtime.runtime import Runtime, new_id
from hermes_ws.settings import Settings
from hermes_ws.store.base import ConversationRef, StoredEvent
from hermes_ws.transports.auth import Access, Refused
from hermes_ws.transports.gate import Gate
from hermes_ws.transports.images import check_upload, give_out, take_in
from hermes_ws.transports.kept import KeptOutput
from hermes_ws.transports.refusals import HANDLERS, refusal, refuse, refuse_socket
from hermes_ws.transports.texts import serve_texts
from hermes_ws.transports.websocket import Receive, Send, SocketQuery, serve_socket

__all__ = ["App"]

_ROOT: Final = "hermes_ws.root"
"""Key in the scope: the path under which clients find us, without a trailing slash."""
_SOCKET_PATH: Final = re.compile(r"/ws/(?P<id>[^/]+)")
_VERSION: Final = re.compile(r"hermes\.v[0-9]+")


class App:
    """The server as an ASGI app, over a runtime that is running."""

    def __init__(self, runtime: Runtime, access: Access, settings: Settings, *, prefix: str = "") -> None:
        """``prefix`` is the path under which a proxy puts us, without a trailing slash."""
        self._runtime = runtime
        self._access = access
        self._settings = settings
        self._limits = settings.limits
        self._prefix = prefix
        self._sockets = 0
        sha256()  # every hello names it: rendered once and here, not while the first client waits
        self._api = Api(runtime, settings, self._caller_of)
        self._routes = self._make_routes()
        self._http = self._make_http()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        path = self._path(scope)
        if scope["type"] == "websocket":
            await self._websocket(path, scope, receive, send)
        else:
            root = self._prefix or str(scope.get("root_path", ""))
            await self._http({**scope, "path": path, "root_path": "", _ROOT: root}, receive, send)

    def _path(self, scope: MutableMapping[str, Any]) -> str:
        """The path as we know it: without where another app, or a proxy, has put us.

        A proxy may have taken its prefix off already; so what is an address of ours as it is stays as it is.
        """
        path = _without(str(scope["path"]), str(scope.get("root_path", "")))
        shorter = _without(path, self._prefix)
        return path if path == shorter or self._knows(path, scope["type"]) else shorter

    def _knows(self, path: str, kind: str) -> bool:
        if kind == "websocket":
            return path == compat_http.SOCKET_PATH or _SOCKET_PATH.fullmatch(path) is not None
        scope = {"type": "http", "path": path, "root_path": "", "method": "GET"}
        return any(route.matches(scope)[0] is not Match.NONE for route in self._routes)

    # -- sockets ---------------------------------------------------------------------------------------

    async def _websocket(self, path: str, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        offered: list[str] = scope.get("subprotocols") or []
        subprotocol = PROTOCOL if PROTOCOL in offered else None
        try:
            if path == compat_http.SOCKET_PATH:
                await self._compatible(self._admit_compatible(scope), scope, receive, send)
                return
            principal, conversation, query = await self._admit(path, scope)
        except Refused as refused:
            await refuse_socket(refused, subprotocol, scope, receive, send)
            return
        except HermesError:
            unreadable = Refused(500, "the conversation cannot be read from the log", CloseCode.INTERNAL)
            await refuse_socket(unreadable, subprotocol, scope, receive, send)
            return
        with conversation.held():
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
            self._sockets += 1
            try:
                await serve_socket(
                    self._runtime,
                    conversation,
                    principal,
                    query,
                    self._limits,
                    scope=scope,
                    receive=receive,
                    send=send,
                )
            finally:
                self._sockets -= 1

    async def _admit(self, path: str, scope: MutableMapping[str, Any]) -> tuple[Principal, Conversation, SocketQuery]:
        """Judge a socket before its upgrade. Raises :class:`Refused`."""
        self._access.check_address(scope)
        _check_version(scope.get("subprotocols") or [])
        found = _SOCKET_PATH.fullmatch(path)
        conversation_id = found["id"] if found else None
        query = SocketQuery.parse(scope["query_string"])
        principal = self._access.identify(scope, ticket=query.ticket, conversation_id=conversation_id)
        if conversation_id is None:
            raise Refused(404, f"there is no socket at {path[:200]}; it is /ws/CONVERSATION", CloseCode.NOT_FOUND)
        self._check_room()
        ref = self._ref(principal, conversation_id)
        try:
            return principal, await self._runtime.open(ref), query
        except CommandError as refused:
            if refused.code == "not_found":
                raise Refused(404, refused.message, CloseCode.NOT_FOUND) from None
            raise Refused(503, refused.message, CloseCode.TOO_MANY) from None

    def _check_room(self) -> None:
        if self._sockets >= self._limits.sockets or self._runtime.draining:
            code = CloseCode.DRAINING if self._runtime.draining else CloseCode.TOO_MANY
            raise Refused(503, "the server takes no more sockets now; come back a little later", code)

    def _admit_compatible(self, scope: MutableMapping[str, Any]) -> Caller:
        """Judge a socket of the Responses API. Raises :class:`Refused`."""
        self._access.check_address(scope)
        principal = self._access.identify(scope, ticket=None, conversation_id=None)
        self._check_room()
        return Caller(principal, "socket")

    async def _compatible(self, caller: Caller, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        self._sockets += 1
        try:
            await serve_texts(
                receive,
                send,
                partial(compat_http.serve_socket, self._api, caller, Headers(scope=scope)),
                stall_s=self._settings.compat.stall_s,
            )
        finally:
            self._sockets -= 1

    def _ref(self, principal: Principal, conversation_id: str) -> ConversationRef:
        """Raises :class:`Refused` for an id that is none, or that the credential does not reach."""
        if conversation_id == "new":
            conversation_id = new_id("conv")
        elif not _is_id(conversation_id):
            message = "a conversation id is 1 to 128 of A-Z a-z 0-9 . _ : - and begins with a letter or digit"
            raise Refused(400, message, CloseCode.BAD_REQUEST)
        if not principal.may_open(conversation_id):
            raise Refused(403, "your credential does not reach this conversation", CloseCode.FORBIDDEN)
        return ConversationRef(principal.namespace, conversation_id)

    # -- HTTP ------------------------------------------------------------------------------------------

    def _make_routes(self) -> list[Route]:
        conversation = "/api/conversations/{conversation_id}"
        return [
            Route("/", self._root),
            Route("/api/conversations", self._conversations),
            Route(conversation, self._delete, methods=["DELETE"]),
            Route(f"{conversation}/events", self._events),
            Route(f"{conversation}/commands", self._command, methods=["POST"]),
            Route(f"{conversation}/tool-calls/{{call_id:path}}/output", self._output),
            Route("/api/blobs", self._upload, methods=["POST"]),
            Route("/api/blobs/{blob}", self._image),
            Route("/api/tickets", self._ticket, methods=["POST"]),
            Route("/schemas/{name}", self._schema),
            Route("/openapi.json", self._openapi),
            *compat_http.routes(self._api),
        ]

    def _make_http(self) -> ASGIApp:
        app = Starlette(
            routes=self._routes,
            exception_handlers=HANDLERS,
        )
        app.router.redirect_slashes = False  # to where? A proxy's name and scheme are not known here
        return Gate(app, self._access, refuse, routes=self._routes, settings=self._settings)

    async def _root(self, request: Request) -> Response:
        return PlainTextResponse(
            f"hermes-ws {__version__}: a run server for agents.\n\n"
            "socket   /ws/CONVERSATION            (subprotocol hermes.v1, Authorization: Bearer KEY)\n"
            "lists    /api/conversations\n"
            "log      /api/conversations/ID/events?after=0   (DELETE /api/conversations/ID removes it)\n"
            "commands POST /api/conversations/ID/commands\n"
            "images   POST /api/blobs, GET /api/blobs/BLOB\n"
            "openai   /v1/chat/completions, /v1/responses, /v1/runs, /v1/models\n"
            "schemas  /schemas/reference.md, /openapi.json\n"
        )

    async def _conversations(self, request: Request) -> Response:
        principal = self._identify(request, None)
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

    def _caller_of(self, request: Request) -> Principal:
        """Who asks, for the OpenAI-compatible routes. Raises :class:`ApiError`."""
        try:
            return self._identify(request, None)
        except Refused as refused:
            code = "invalid_api_key" if refused.status == 401 else "not_permitted"
            raise ApiError(refused.status, code, refused.message) from None

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
        principal = self._identify(request, None)
        try:
            asked = msgspec.json.decode(await _body(request, self._limits.body_bytes), type=TicketRequest)
        except msgspec.MsgspecError as error:
            what, path = invalid_value(error, TicketRequest)
            raise CommandError("invalid_frame", f"a ticket request: {what}", path=path) from None
        except RecursionError:
            raise CommandError("invalid_frame", "a ticket request: the JSON is nested too deeply") from None
        conversation_id = new_id("conv") if asked.conversation == "new" else asked.conversation
        if not _is_id(conversation_id):
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
            url=f"{request.scope[_ROOT]}/ws/{conversation_id}?ticket={ticket}",
        )
        return json_response(grant, 201)

    async def _schema(self, request: Request) -> Response:
        found = documents().get(request.path_params["name"])
        if found is None:
            raise CommandError("not_found", f"there are {', '.join(f'/schemas/{name}' for name in documents())}")
        suffix = str(request.path_params["name"]).rpartition(".")[2]
        kind = {"json": "application/json", "md": "text/markdown; charset=utf-8"}.get(
            suffix, "text/plain; charset=utf-8"
        )
        return Response(found, headers={"content-type": kind})

    async def _openapi(self, request: Request) -> Response:
        """Made of the types when it is first asked for, while others are served."""
        return Response(await asyncio.to_thread(openapi_document), media_type="application/json")

    # -- what the routes share -------------------------------------------------------------------------

    def _identify(self, request: Request, conversation_id: str | None) -> Principal:
        ticket = request.query_params.get("ticket") if conversation_id is not None else None
        return self._access.identify(request.scope, ticket=ticket, conversation_id=conversation_id)

    def _named(self, request: Request) -> tuple[Principal, ConversationRef]:
        """Who asks, and for which conversation."""
        conversation_id = request.path_params["conversation_id"]
        principal = self._identify(request, conversation_id)
        return principal, self._ref(principal, conversation_id)

    def _reach(self, request: Request) -> tuple[Principal, ConversationRef | None]:
        """Who asks, and for which conversation, where the query may name one. A ticket needs it."""
        conversation_id = request.query_params.get("conversation")
        principal = self._identify(request, conversation_id)
        if conversation_id == "new":
            raise Refused(400, "query parameter conversation: an id; 'new' begins with a command")
        return principal, None if conversation_id is None else self._ref(principal, conversation_id)

    async def _open(self, request: Request) -> Conversation:
        return await self._runtime.open(self._named(request)[1])


async def _body(request: Request, most: int) -> bytes:
    try:
        return await read_body(request, most)
    except ClientDisconnect:
        raise Refused(400, "the body was cut short") from None


def _without(path: str, root: str) -> str:
    """``path`` below ``root``, if it is below it."""
    inside = root and (path == root or path.startswith(root + "/"))
    return (path[len(root) :] or "/") if inside else path


def _with_gaps(events: list[StoredEvent], after: int) -> tuple[list[bytes], int]:
    """Frames with ``skipped`` where numbers are missing, and the last number accounted for."""
    frames: list[bytes] = []
    for event in events:
        if event.seq != after + 1:
            frames.append(encode(Skipped(from_=after + 1, to=event.seq - 1, reason="compacted")))
        frames.append(event.data)
        after = event.seq
    return frames, after


async def _lifespan(receive: Receive, send: Send) -> None:
    """The runtime is begun and ended by whoever made it; nothing to do here."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _check_version(offered: Sequence[str]) -> None:
    """Who offers no protocol takes ours; who offers only another version of it would misread us."""
    others = [name for name in offered if _VERSION.fullmatch(name)]
    if others and PROTOCOL not in others:
        message = f"this server speaks {PROTOCOL}, not {', '.join(others)[:80]}"
        raise Refused(400, message, CloseCode.PROTOCOL_VERSION)


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


def _is_id(text: str) -> bool:
    try:
        msgspec.convert(text, ConversationId)
    except msgspec.ValidationError:
        return False
    return True
