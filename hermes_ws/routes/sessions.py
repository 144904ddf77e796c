"""``/api/sessions``: conversations as hermes-agent's sessions.

There is no other store: a session is a conversation, and what is done to it here is seen at its socket.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.runs_request import session_id_of, text_field
from hermes_ws.compat.sessions import SOURCE
from hermes_ws.compat.sessions_types import (
    Deleted,
    MessageList,
    Session,
    SessionEnvelope,
    SessionList,
    SessionRecord,
)
from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import ConversationConfigure, ConversationFork
from hermes_ws.protocol.summaries import ConversationSummary
from hermes_ws.routes import sessions_chat
from hermes_ws.routes.context import Api, Route, json_response
from hermes_ws.routes.once import REPLAYED, Once, once
from hermes_ws.routes.session_log import existing, folded, kept, record_row, session_of
from hermes_ws.routes.values import count, optional_json
from hermes_ws.runtime.commands import Beside
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import new_id
from hermes_ws.store.base import ConversationLine, ConversationRef

__all__ = ["ROUTES"]

_DEFAULT_SESSIONS: Final = 50
_MAX_OFFSET: Final = 1_000_000
_PATCHABLE: Final = ("title", "end_reason")


# -- lists ---------------------------------------------------------------------------------------------


async def listed(api: Api, request: Request) -> Response:
    """Sessions, the one where something happened last first."""
    caller, query = api.caller(request), request.query_params
    most = api.settings.limits.page_conversations
    limit = min(count(query.get("limit"), "limit", _DEFAULT_SESSIONS), most)
    offset = min(count(query.get("offset"), "offset", 0), _MAX_OFFSET)
    lines: list[ConversationLine] = []
    if query.get("source") in (None, "", SOURCE):
        lines = await _lines(api, caller, offset, limit + 1)
    sessions = [await _listed(api, caller, line) for line in lines[:limit]]
    return json_response(
        SessionList(object="list", data=sessions, limit=limit, offset=offset, has_more=len(lines) > limit)
    )


async def _lines(api: Api, caller: Caller, offset: int, limit: int) -> list[ConversationLine]:
    """As many as ``limit`` lines of those that the credential reaches, without the first ``offset``."""
    found: list[ConversationLine] = []
    cursor: str | None = None
    while len(found) < offset + limit:
        page = await api.runtime.store.conversations(
            caller.principal.namespace, limit=api.settings.limits.page_conversations, cursor=cursor
        )
        found += [line for line in page.lines if caller.principal.may_open(line.conversation_id)]
        cursor = page.next
        if cursor is None:
            break
    return found[offset : offset + limit]


async def _listed(api: Api, caller: Caller, line: ConversationLine) -> Session:
    ref = ConversationRef(caller.principal.namespace, line.conversation_id)
    summary = msgspec.json.decode(line.summary, type=ConversationSummary)
    fold = await folded(api, ref)
    return fold.session(await kept(api, ref), status=summary.status, run_id=summary.run_id)


async def messages(api: Api, request: Request) -> Response:
    """What was said and done in a session, oldest first."""
    conversation = await existing(api, api.caller(request), request)
    fold = await folded(api, conversation.ref)
    return json_response(MessageList(object="list", session_id=conversation.ref.conversation_id, data=fold.messages))


# -- one session ---------------------------------------------------------------------------------------


async def get(api: Api, request: Request) -> Response:
    """A session."""
    return await _answer(api, await existing(api, api.caller(request), request))


async def _answer(api: Api, conversation: Conversation, status: int = 200) -> Response:
    session = await session_of(api, conversation)
    headers = {"X-Hermes-Session-Id": conversation.ref.conversation_id}
    return json_response(SessionEnvelope(object="hermes.session", session=session), status, headers)


async def create(api: Api, request: Request) -> Response:
    """A session without messages."""
    caller = api.caller(request)
    body = await optional_json(api, request)
    config = _configuration(api, caller, body)
    command = ConversationConfigure(config=config)
    caller.check(command)
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            return await _again(api, caller, this.earlier["session_id"])
        session_id = _session_id(body) or new_id("api")
        conversation = await _unused(api, caller, session_id)
        with conversation.held():
            await api.command(conversation, command, caller, Beside(records=this.records({"session_id": session_id})))
            return await _answer(api, conversation, 201)


async def _again(api: Api, caller: Caller, session_id: str) -> Response:
    """The session that an earlier request made, as it is now."""
    conversation = await api.open(api.ref(caller, session_id))
    session = msgspec.to_builtins(await session_of(api, conversation))
    told = {"object": "hermes.session", "session": session, "replayed": True}
    return json_response(told, 201, {"X-Hermes-Session-Id": session_id, **REPLAYED})


def _configuration(api: Api, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    """The configuration that a new session begins with."""
    config: dict[str, Any] = {}
    if body.get("title") is not None:
        config["title"] = _title(body["title"])
    if body.get("system_prompt") is not None:
        if not isinstance(body["system_prompt"], str):
            raise ApiError(400, "invalid_system_prompt", "system_prompt must be a string", param="system_prompt")
        config["instructions"] = body["system_prompt"] or None
    model = text_field(body, "model")
    if model not in (None, api.settings.server.model_name):
        config["agent"] = api.agent(caller, model)
    return config


def _title(given: Any) -> str | None:
    """A title; an empty one is none."""
    if not isinstance(given, str):
        raise ApiError(400, "invalid_title", "title must be a string", param="title")
    return " ".join(given.split()) or None


def _session_id(body: dict[str, Any]) -> str | None:
    try:
        return session_id_of(body, "id", "session_id")
    except ApiError as wrong:
        raise ApiError(400, "invalid_session_id", wrong.message, param=wrong.param) from None


async def _unused(api: Api, caller: Caller, session_id: str) -> Conversation:
    """A conversation of that id, without events. Raises :class:`ApiError` 409 ``session_exists``."""
    conversation = await api.open(_ref(api, caller, session_id))
    if conversation.session.state.epoch is not None:
        raise _exists(session_id)
    return conversation


def _ref(api: Api, caller: Caller, session_id: str) -> ConversationRef:
    try:
        return api.ref(caller, session_id)
    except ApiError as wrong:
        code = "invalid_session_id" if wrong.status == 400 else wrong.code
        raise ApiError(wrong.status, code, wrong.message, param="id") from None


def _exists(session_id: str) -> ApiError:
    return ApiError(409, "session_exists", f"Session already exists: {session_id}", param="id")


async def patch(api: Api, request: Request) -> Response:
    """Another title, or the word that a session has ended."""
    caller = api.caller(request)
    conversation = await existing(api, caller, request)
    body = await api.json(request)
    unknown = sorted(set(body) - set(_PATCHABLE))
    if unknown:
        message = f"Unsupported session fields: {', '.join(unknown)[:200]}"
        raise ApiError(400, "unsupported_session_field", message, param=unknown[0][:80])
    config = {"title": None if body["title"] is None else _title(body["title"])} if "title" in body else {}
    reason = text_field(body, "end_reason")
    command = ConversationConfigure(config=config)
    caller.check(command)
    if config or reason is not None:
        records = [] if reason is None else [await _ended(api, conversation, reason)]
        await api.command(conversation, command, caller, Beside(records=records))
    return await _answer(api, conversation)


async def _ended(api: Api, conversation: Conversation, reason: str) -> Any:
    now, ref = conversation.now(), conversation.ref
    record = msgspec.structs.replace(await kept(api, ref), ended_at=now / 1000, end_reason=reason)
    return record_row(ref, now, record)


async def delete(api: Api, request: Request) -> Response:
    """Remove a session wholly; its sockets are closed."""
    caller = api.caller(request)
    conversation = await existing(api, caller, request)
    if caller.principal.role not in ("driver", "admin"):
        raise CommandError("not_permitted", f"role {caller.principal.role} may not delete a session")
    deleted = await api.runtime.delete(conversation.ref)
    gone = Deleted(object="hermes.session.deleted", id=conversation.ref.conversation_id, deleted=deleted)
    return json_response(gone)


async def fork(api: Api, request: Request) -> Response:
    """A new session with what was said and done in this one so far."""
    caller = api.caller(request)
    source = await existing(api, caller, request)
    body = await optional_json(api, request)
    title = _title(body["title"]) if body.get("title") is not None else None
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            return await _again(api, caller, this.earlier["session_id"])
        # With a key the id follows from it: what a crash has cut short is found again, and finished.
        session_id = _session_id(body) or f"api_{_tail(this)}"
        ref = _ref(api, caller, session_id)
        with source.held():
            await _copy(api, caller, source, ConversationFork(id=this.command_id, conversation_id=session_id))
            return await _forked(api, caller, source, await api.open(ref), title, this)


async def _copy(api: Api, caller: Caller, source: Conversation, command: ConversationFork) -> None:
    """Raises :class:`ApiError` 409 ``session_exists``, but not for a copy that this very command has made before."""
    try:
        await api.command(source, command, caller)
    except CommandError as refused:
        if refused.code == "id_reused" and refused.path == "$.conversation_id":
            raise _exists(command.conversation_id or "") from None
        raise


def _tail(this: Once) -> str:
    return new_id("")[1:] if this.command_id is None else this.command_id[-20:]


async def _forked(
    api: Api, caller: Caller, source: Conversation, there: Conversation, title: str | None, this: Once
) -> Response:
    """Say in the copy what it is a copy of, and under which title."""
    before = source.session.state.title or "fork"
    rows = [
        record_row(there.ref, there.now(), SessionRecord(parent_session_id=source.ref.conversation_id)),
        *this.records({"session_id": there.ref.conversation_id}),
    ]
    command = ConversationConfigure(config={"title": title or f"{before} (fork)"})
    await api.command(there, command, caller, Beside(records=rows))
    return await _answer(api, there, 201)


ROUTES: Final[list[Route]] = [
    ("GET", "/api/sessions", listed),
    ("POST", "/api/sessions", create),
    ("GET", "/api/sessions/{session_id}", get),
    ("PATCH", "/api/sessions/{session_id}", patch),
    ("DELETE", "/api/sessions/{session_id}", delete),
    ("GET", "/api/sessions/{session_id}/messages", messages),
    ("POST", "/api/sessions/{session_id}/fork", fork),
    *sessions_chat.ROUTES,
]
