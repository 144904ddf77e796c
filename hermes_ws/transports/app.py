"""The ASGI app: routes, the gate in front of them, and errors that say what to do.

It is an ordinary ASGI app and can be mounted in another one; :mod:`hermes_ws.transports.server` runs it tuned. Sockets
do not go through Starlette's middleware: an idle one costs what its connection costs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, MutableMapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from hermes_ws import __version__, compat_http
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.openapi_document import document as openapi_document
from hermes_ws.errors import CommandError, HermesError
from hermes_ws.protocol import PROTOCOL
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.schema import documents, sha256
from hermes_ws.routes.context import Api
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.settings import Settings
from hermes_ws.transports import pages
from hermes_ws.transports.addresses import ROOT, conversation_ref
from hermes_ws.transports.auth import Access, Refused
from hermes_ws.transports.gate import Gate
from hermes_ws.transports.inbox import INBOX_PATH, serve_inbox
from hermes_ws.transports.incoming import Receive, Send
from hermes_ws.transports.refusals import HANDLERS, refuse, refuse_socket
from hermes_ws.transports.texts import serve_texts
from hermes_ws.transports.twins import Twins
from hermes_ws.transports.websocket import SocketQuery, serve_socket

__all__ = ["App"]

_SOCKET_PATH: Final = re.compile(r"/ws/(?P<id>[^/]+)")
_VERSION: Final = re.compile(r"hermes\.v[0-9]+")


class _Serve(Protocol):
    """What serves a socket that was let in, until it is gone."""

    def __call__(self, *, receive: Receive, send: Send) -> Coroutine[Any, Any, None]: ...


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
        self._twins = Twins(runtime, access, settings)
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
            await self._http({**scope, "path": path, "root_path": "", ROOT: root}, receive, send)

    def _path(self, scope: MutableMapping[str, Any]) -> str:
        """The path as we know it: without where another app, or a proxy, has put us.

        A proxy may have taken its prefix off already; so what is an address of ours as it is stays as it is.
        """
        path = _without(str(scope["path"]), str(scope.get("root_path", "")))
        shorter = _without(path, self._prefix)
        return path if path == shorter or self._knows(path, scope["type"]) else shorter

    def _knows(self, path: str, kind: str) -> bool:
        if kind == "websocket":
            return path in (compat_http.SOCKET_PATH, INBOX_PATH) or _SOCKET_PATH.fullmatch(path) is not None
        scope = {"type": "http", "path": path, "root_path": "", "method": "GET"}
        return any(route.matches(scope)[0] is not Match.NONE for route in self._routes)

    # -- sockets ---------------------------------------------------------------------------------------

    async def _websocket(self, path: str, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        offered: list[str] = scope.get("subprotocols") or []
        subprotocol = PROTOCOL if PROTOCOL in offered else None
        with ExitStack() as held:
            try:
                serve = await self._admit(path, scope, held)
            except Refused as refused:
                await refuse_socket(refused, subprotocol, scope, receive, send)
                return
            except HermesError:
                unreadable = Refused(500, "the conversation cannot be read from the log", CloseCode.INTERNAL)
                await refuse_socket(unreadable, subprotocol, scope, receive, send)
                return
            ours = path != compat_http.SOCKET_PATH
            await send({"type": "websocket.accept", "subprotocol": subprotocol if ours else None, "headers": []})
            await serve(receive=receive, send=send)

    async def _admit(self, path: str, scope: MutableMapping[str, Any], held: ExitStack) -> _Serve:
        """Judge a socket before its upgrade; what serves it then. What it takes up meanwhile goes into ``held``. Raises
        :class:`Refused`."""
        if path == compat_http.SOCKET_PATH:
            return self._admit_compatible(scope, held)
        if path == INBOX_PATH:
            return self._admit_to_inbox(scope, held)
        principal, conversation, query = await self._admit_to_one(path, scope, held)
        held.enter_context(conversation.held())
        return partial(serve_socket, self._runtime, conversation, principal, query, self._limits, scope=scope)

    async def _admit_to_one(
        self, path: str, scope: MutableMapping[str, Any], held: ExitStack
    ) -> tuple[Principal, Conversation, SocketQuery]:
        """Judge the socket of a conversation."""
        self._access.check_address(scope)
        _check_version(scope.get("subprotocols") or [])
        found = _SOCKET_PATH.fullmatch(path)
        conversation_id = found["id"] if found else None
        query = SocketQuery.parse(scope["query_string"])
        principal = self._access.identify(scope, ticket=query.ticket, conversation_id=conversation_id)
        if conversation_id is None:
            message = f"there is no socket at {path[:200]}; it is /ws/CONVERSATION, or /ws for all of them"
            raise Refused(404, message, CloseCode.NOT_FOUND)
        self._take_place(held)
        ref = conversation_ref(principal, conversation_id)
        try:
            return principal, await self._runtime.open(ref), query
        except CommandError as refused:
            if refused.code == "not_found":
                raise Refused(404, refused.message, CloseCode.NOT_FOUND) from None
            raise Refused(503, refused.message, CloseCode.TOO_MANY) from None

    def _take_place(self, held: ExitStack) -> None:
        """Count one more socket, as long as there is room: many may come at once, and each is let in with a wait."""
        if self._sockets >= self._limits.sockets or self._runtime.draining:
            code = CloseCode.DRAINING if self._runtime.draining else CloseCode.TOO_MANY
            raise Refused(503, "the server takes no more sockets now; come back a little later", code)
        self._sockets += 1
        held.callback(self._leave_place)

    def _leave_place(self) -> None:
        self._sockets -= 1

    def _admit_to_inbox(self, scope: MutableMapping[str, Any], held: ExitStack) -> _Serve:
        """Judge a socket that is about all conversations."""
        self._access.check_address(scope)
        _check_version(scope.get("subprotocols") or [])
        query = SocketQuery.parse(scope["query_string"])
        principal = self._access.identify(scope, ticket=query.ticket, conversation_id=None)
        self._take_place(held)
        return partial(serve_inbox, self._runtime, principal, self._limits, plain=query.plain, scope=scope)

    def _admit_compatible(self, scope: MutableMapping[str, Any], held: ExitStack) -> _Serve:
        """Judge a socket of the Responses API."""
        self._access.check_address(scope)
        principal = self._access.identify(scope, ticket=None, conversation_id=None)
        self._take_place(held)
        talk = partial(compat_http.serve_socket, self._api, Caller(principal, "socket"), Headers(scope=scope))
        return partial(serve_texts, serve=talk, stall_s=self._settings.compat.stall_s)

    # -- HTTP ------------------------------------------------------------------------------------------

    def _make_routes(self) -> list[Route]:
        return [
            Route("/", self._root),
            *self._twins.routes(),
            Route("/schemas/{name}", self._schema),
            Route("/openapi.json", self._openapi),
            *pages.routes(),
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
            "inbox    /ws                         (all conversations, as they change)\n"
            "lists    /api/conversations, /api/interactions\n"
            "log      /api/conversations/ID/events?after=0, or /export   (DELETE /api/conversations/ID removes it)\n"
            "commands POST /api/conversations/ID/commands\n"
            "images   POST /api/blobs, GET /api/blobs/BLOB\n"
            "openai   /v1/chat/completions, /v1/responses, /v1/runs, /v1/models\n"
            "schemas  /schemas/reference.md, /openapi.json\n"
            "browser  /hermes-ws.js to import, /example#key=KEY&c=CONVERSATION to look at\n"
        )

    def _caller_of(self, request: Request) -> Principal:
        """Who asks, for the OpenAI-compatible routes. Raises :class:`ApiError`."""
        try:
            return self._twins.identify(request, None)
        except Refused as refused:
            code = "invalid_api_key" if refused.status == 401 else "not_permitted"
            raise ApiError(refused.status, code, refused.message) from None

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


def _without(path: str, root: str) -> str:
    """``path`` below ``root``, if it is below it."""
    inside = root and (path == root or path.startswith(root + "/"))
    return (path[len(root) :] or "/") if inside else path


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
