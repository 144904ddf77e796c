"""Messages to a session of ``/api/sessions``, and their answers, whole or as they come.

The run belongs to the server: whoever asked may go, come back by the run's id (``/v1/runs/{run_id}/events``), and find
the answer in the session's messages.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.errors import DRAINING, ApiError, envelope, of_run
from hermes_ws.compat.runs_request import message_of, text_field
from hermes_ws.compat.sessions_stream import SessionStream
from hermes_ws.compat.sessions_types import ChatAnswer, ChatMessage
from hermes_ws.errors import ConversationDeleted
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import RunStart
from hermes_ws.protocol.values import Input
from hermes_ws.routes.context import Api, Route, json_response
from hermes_ws.routes.once import REPLAYED, Once, once
from hermes_ws.routes.run_log import find, new_run_id
from hermes_ws.routes.session_log import existing
from hermes_ws.routes.streams import KEEPALIVE
from hermes_ws.runtime.commands import Beside
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import ConversationRef

__all__ = ["ROUTES"]


class _Said(NamedTuple):
    """A message to a session."""

    message: Input
    agent: str | None
    instructions: str | None


class _Begun(NamedTuple):
    """The run that answers it, and the answer's headers."""

    ref: ConversationRef
    run_id: str
    after: int
    headers: dict[str, str]


async def chat(api: Api, request: Request) -> Response:
    """Say something, and wait for the answer."""
    begun = await _begin(api, request)
    try:
        answer = await api.unless_gone(request, _answer(api, begun))
    except ApiError as failed:
        return _refused(failed, begun)
    return json_response(answer, headers=begun.headers)


def _refused(failed: ApiError, begun: _Begun) -> Response:
    """What the run failed of."""
    told, headers = envelope(failed), dict(begun.headers)
    if REPLAYED.items() <= headers.items():  # waiting and asking again would come to the same
        told["error"]["message"] += "; this is told again: under another Idempotency-Key it is said anew"
    if failed.retry_after_s is not None:
        headers["Retry-After"] = str(failed.retry_after_s)
    return json_response(told, failed.status, headers)


async def stream(api: Api, request: Request) -> Response:
    """Say something, and be told what happens."""
    begun = await _begin(api, request)
    return api.sse(_stream(api, begun), headers=begun.headers)


async def _begin(api: Api, request: Request) -> _Begun:
    caller = api.caller(request)
    conversation = await existing(api, caller, request)
    body = await api.json(request)
    said = _said(api, caller, body)
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            found = await find(api, caller, this.earlier["run_id"])
            return _Begun(found.ref, found.row.run_id, found.first_seq - 1, {**_headers(found.ref), **REPLAYED})
        return await _start(api, caller, conversation, said, this)


def _said(api: Api, caller: Caller, body: dict[str, Any]) -> _Said:
    model = text_field(body, "model")
    agent = None if model in (None, api.settings.server.model_name) else api.agent(caller, model)
    said = _Said(message_of(body), agent, _instructions(body))
    caller.check(RunStart(input=said.message))
    return said


def _instructions(body: dict[str, Any]) -> str | None:
    for name in ("system_message", "instructions"):
        if not isinstance(body.get(name), str | None):
            raise ApiError(400, "invalid_system_message", f"{name} must be a string", param=name)
    return body.get("system_message") or body.get("instructions")


async def _start(api: Api, caller: Caller, conversation: Conversation, said: _Said, this: Once) -> _Begun:
    run_id = new_run_id()
    with conversation.held():
        begun = await api.begin(
            conversation,
            caller,
            [],
            said.message,
            agent=said.agent,
            instructions=said.instructions,
            beside=Beside(run_id=run_id, records=this.records({"run_id": run_id})),
        )
    return _Begun(conversation.ref, run_id, begun.after, _headers(conversation.ref))


def _headers(ref: ConversationRef) -> dict[str, str]:
    return {"X-Hermes-Session-Id": ref.conversation_id}


async def _answer(api: Api, begun: _Begun) -> ChatAnswer:
    """What the run comes to. Raises :class:`ApiError` when that is no answer."""
    async with aclosing(api.follow(begun.ref, begun.after, begun.run_id)) as events:
        async for event in events:
            match event:
                case ev.RunCompleted():
                    return ChatAnswer(
                        object="hermes.session.chat.completion",
                        session_id=begun.ref.conversation_id,
                        run_id=begun.run_id,
                        message=ChatMessage(role="assistant", content=event.output),
                        usage=event.usage,
                    )
                case ev.RunFailed():
                    raise of_run(event.error)
                case ev.RunCancelled():
                    raise ApiError(409, "run_cancelled", f"Run was stopped: {begun.run_id}")
                case _:
                    pass
    message = f"the server goes down; run {begun.run_id} goes on with the next one"
    raise ApiError(503, DRAINING, message)


async def _stream(api: Api, begun: _Begun) -> AsyncGenerator[bytes]:
    projection = SessionStream(begun.run_id, begun.ref.conversation_id)
    try:
        async with aclosing(api.follow(begun.ref, begun.after, begun.run_id)) as events:
            async for event in events:
                if event is None:
                    yield KEEPALIVE
                elif frames := projection.feed(event):
                    yield frames
                if projection.done:
                    return
    except ConversationDeleted:
        yield projection.deleted()


ROUTES: Final[list[Route]] = [
    ("POST", "/api/sessions/{session_id}/chat", chat),
    ("POST", "/api/sessions/{session_id}/chat/stream", stream),
]
