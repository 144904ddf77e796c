"""What the official server saw, and whom it lets in: kept outside of the SDK, so that the SDK cannot hide anything.

As HTTP it is the outermost ASGI application. Side routes, for the tests: ``GET /seen`` and ``DELETE /seen``,
``GET`` and ``PUT /tokens``, ``POST /forget`` (sessions begun until now are gone). Everything else needs a known token.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["DEFAULT_CUSTOMERS", "Json", "Tenant", "Witness"]

Json = dict[str, Any]

DEFAULT_CUSTOMERS: Final = [{"id": "c1", "name": "Ada"}, {"id": "c2", "name": "Grace"}]
"""Whom the server knows where it has no tokens: over stdio."""
STDIO: Final = ""
"""The token of a server that is asked for none."""


class Tenant:
    """What belongs to one token: customers, notes, tools that nobody else sees, a count."""

    def __init__(self, customers: list[Json], extra_tools: list[str] | None = None) -> None:
        self.customers = [dict(customer) for customer in customers]
        self.notes: list[Json] = []
        self.extra_tools = list(extra_tools or [])

    def shown(self) -> Json:
        return {"customers": self.customers, "notes": self.notes, "extra_tools": self.extra_tools}


class Witness:
    """The record and the tokens. ``record``: a file that takes every entry as a line, where there is no side route."""

    def __init__(self, record: Path | None = None) -> None:
        self.seen: list[Json] = []
        self.tenants: dict[str, Tenant] = {STDIO: Tenant(DEFAULT_CUSTOMERS)}
        self.sessions: set[str] = set()
        self.forgotten: set[str] = set()
        self._record = record

    def note(self, kind: str, **fields: Any) -> None:
        """One more thing that happened: ``request`` for what came by HTTP, anything else for what a tool says."""
        entry = {"kind": kind, "at": time.time(), "pid": os.getpid(), **fields}
        self.seen.append(entry)
        if self._record is not None:
            with self._record.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def tenant(self, authorization: str | None) -> Tenant:
        """Whose data a caller sees: by the token, never by anything in the request's body."""
        return self.tenants[(authorization or STDIO).removeprefix("Bearer ")]

    def replace_tokens(self, tokens: dict[str, Json]) -> None:
        """``{token: {customers, extra_tools}}``. A token that stays keeps what it has."""
        kept = {token: tenant for token, tenant in self.tenants.items() if token in {STDIO, *tokens}}
        made = {
            token: Tenant(given.get("customers", []), given.get("extra_tools"))
            for token, given in tokens.items()
            if token not in kept
        }
        self.tenants = kept | made


class WitnessApp:
    """The ASGI application around the SDK's."""

    def __init__(self, inner: ASGIApp, witness: Witness) -> None:
        self._inner = inner
        self._witness = witness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        request = Request(scope, receive)
        if scope["path"] in {"/seen", "/tokens", "/forget"}:
            await (await self._side(request))(scope, receive, send)
            return
        body = await request.body()
        self._remember(request, body)
        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._inner(scope, _replayed(body, receive), self._watched(send))

    async def _side(self, request: Request) -> Response:
        witness = self._witness
        match request.method, request.url.path:
            case "GET", "/seen":
                return JSONResponse(witness.seen)
            case "DELETE", "/seen":
                witness.seen.clear()
            case "GET", "/tokens":
                return JSONResponse({token: tenant.shown() for token, tenant in witness.tenants.items()})
            case "PUT", "/tokens":
                witness.replace_tokens(await request.json())
            case "POST", "/forget":
                witness.forgotten |= witness.sessions
            case _:
                return Response(status_code=405)
        return Response(status_code=204)

    def _remember(self, request: Request, body: bytes) -> None:
        message = json.loads(body) if body else {}
        params = message.get("params") or {}
        self._witness.note(
            "request",
            http_method=request.method,
            path=request.url.path,
            headers=dict(request.headers),
            authorization=request.headers.get("authorization"),
            session=request.headers.get("mcp-session-id") or request.query_params.get("session_id"),
            peer_port=request.client.port if request.client else None,
            method=message.get("method"),
            id=message.get("id"),
            tool=params.get("name"),
            arguments=params.get("arguments"),
            meta=params.get("_meta"),
        )

    def _refusal(self, request: Request) -> Response | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not token or token not in self._witness.tenants:
            return JSONResponse(
                {"error": "invalid_token"},
                status_code=401,
                headers={"WWW-Authenticate": 'Bearer realm="crm", error="invalid_token"'},
            )
        if request.headers.get("mcp-session-id") in self._witness.forgotten:
            error = {"code": -32600, "message": "Session not found"}
            return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status_code=404)
        return None

    def _watched(self, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                if b"mcp-session-id" in headers:
                    self._witness.sessions.add(headers[b"mcp-session-id"].decode())
            await send(message)

        return watched


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever really comes: the caller going away, above all."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
