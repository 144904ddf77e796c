"""``/v1/responses``: the Responses API, as OpenAI's SDKs speak it. The socket of the same name is in
:mod:`hermes_ws.routes.responses_socket`.

A response is a part of a run in a conversation, kept or not. Its record says where it begins; the rest is in the log.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.errors import DRAINING, ApiError, of_run
from hermes_ws.compat.item_lists import page_of
from hermes_ws.compat.responses import ResponseProjection
from hermes_ws.compat.responses_record import FORGOTTEN, RESPONSE, Forgotten, ResponseRecord
from hermes_ws.compat.responses_request import read_create
from hermes_ws.compat.responses_types import Response as ResponseObject
from hermes_ws.compat.responses_types import StreamEvent
from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import RunStart, RunStop
from hermes_ws.routes.context import Api, Route, json_response
from hermes_ws.routes.conversations import CALL
from hermes_ws.routes.once import REPLAYED, Once, once
from hermes_ws.routes.replays import answered_once
from hermes_ws.routes.responses_begin import INSTRUCTION, Asked, begin, keep
from hermes_ws.routes.responses_leave import until_answered
from hermes_ws.routes.responses_log import Found, current, ends_with, find, grow, ids
from hermes_ws.routes.streams import KEEPALIVE
from hermes_ws.routes.values import count, tool_progress
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import new_id
from hermes_ws.store.base import RecordRow
from hermes_ws.store.directory import is_ephemeral

__all__ = ["ROUTES", "draining"]

_DONE: Final = b"data: [DONE]\n\n"
"""Open Responses demands it at the end of every stream; OpenAI's SDKs end there too."""


def draining() -> ApiError:
    """The server goes down; a response that is kept is gone on with by the next one."""
    return ApiError(503, DRAINING, "the server is going down; ask again", retry_after_s=1)


# -- creating ------------------------------------------------------------------------------------------


async def create(api: Api, request: Request) -> Response:
    """Begin a response, and give it whole, as a stream, or, in the background, as it is."""
    caller = api.caller(request)
    body = await api.json(request)
    settings = api.settings.compat
    asked = Asked(
        api,
        caller,
        read_create(body, most_items=settings.messages, most_functions=settings.functions),
        tool_progress(request.headers),
    )
    if asked.request.store:
        async with once(api, caller, request, body) as this:
            if this.earlier is None:
                found, extra = await begin(asked, *_named_now(this)), {}
            else:
                found, extra = await _earlier(asked, this.earlier["id"]), REPLAYED
        return await _answered(asked, request, found, extra)

    async def unkept() -> Response:
        return await _answered(asked, request, await begin(asked, new_id("resp")), {})

    return await (unkept() if asked.request.given.stream else answered_once(api, caller, request, body, unkept))


async def _answered(asked: Asked, request: Request, found: Found, extra: dict[str, str]) -> Response:
    """The response as it was asked for. ``extra`` are headers of one that an earlier request has begun."""
    api, headers = asked.api, {**_headers(found), **extra}
    if asked.request.background and not asked.request.given.stream:
        return json_response((await current(api, found)).response, headers=headers)
    watched = _Watched(asked, found, await api.open(found.ref), goes_on=asked.request.background or bool(extra))
    if asked.request.given.stream:
        return api.sse(await watched.stream(), headers=headers)
    return json_response(await api.unless_gone(request, watched.whole()), headers=headers)


def _named_now(this: Once) -> tuple[str, list[RecordRow]]:
    """An id, and the records that tell of it whoever repeats the request."""
    response_id = new_id("resp")
    return response_id, this.records({"id": response_id})


async def _earlier(asked: Asked, response_id: str) -> Found:
    """The response that an earlier request with the same key has begun."""
    found = await find(asked.api, asked.caller, response_id)
    if found is None:
        raise _not_found(response_id)
    return found


def _headers(found: Found) -> dict[str, str]:
    run = {} if found.record.run_id is None else {"X-Hermes-Run-Id": found.record.run_id}
    return {"X-Hermes-Conversation-Id": found.ref.conversation_id, **run}


class _Watched:
    """A response that somebody waits for. When they go, it does not go on, unless it ``goes_on`` in the background."""

    def __init__(self, asked: Asked, found: Found, conversation: Conversation, *, goes_on: bool) -> None:
        self._api, self._caller = asked.api, asked.caller
        self._found, self._conversation = found, conversation
        self._goes_on = goes_on
        self._projection = found.record.projection()

    async def whole(self) -> ResponseObject:
        """The response when it is over. Raises :class:`ApiError` for a run that failed before it came to anything."""
        try:
            async with aclosing(grow(self._api, self._found, self._projection)) as growing:
                async for _ in growing:
                    pass
        finally:
            await self._leave()
        projection = self._projection
        if not projection.done:
            raise draining()
        if projection.failure is not None and not projection.response.output:
            raise of_run(projection.failure)
        return projection.response

    async def stream(self) -> AsyncGenerator[bytes]:
        """The stream, begun: from here on its end is seen to, whoever drops it."""
        frames = self._frames()
        return _after_first(await anext(frames), frames)

    async def _frames(self) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(_frames(self._api, self._found, self._projection, -1)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            await self._leave()

    async def _leave(self) -> None:
        """The response is over, or nobody waits for it any more."""
        if not (self._projection.done or self._goes_on):
            self._api.left(self._conversation, self._found.record.run_id, self._caller)
        elif self._projection.asks_leave and is_ephemeral(self._found.ref):
            until_answered(self._api, self._conversation, self._found.record.run_id, self._caller)
        elif is_ephemeral(self._found.ref):
            with anyio.CancelScope(shield=True):
                await self._api.discard(self._conversation)


async def _after_first(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        yield first
        async for frame in rest:
            yield frame


# -- looking -------------------------------------------------------------------------------------------


async def get(api: Api, request: Request) -> Response:
    """A response as it is; or its stream from any point on, as often as anybody wants it."""
    found = await _named(api, request)
    after = count(request.query_params.get("starting_after"), "starting_after", -1)
    if request.query_params.get("stream", "").lower() in ("true", "1"):
        frames = _frames(api, found, found.record.projection(), after)
        return api.sse(frames, headers=_headers(found))
    return json_response((await current(api, found)).response, headers=_headers(found))


async def _frames(api: Api, found: Found, projection: ResponseProjection, after: int) -> AsyncGenerator[bytes]:
    """The events of the stream that follow the one numbered ``after``, as frames. Whoever has them all is told that it
    is over."""
    async with aclosing(grow(api, found, projection)) as growing:
        async for event, made in growing:
            wanted = [one for one in made if one.sequence_number > after]
            if wanted:
                yield b"".join(map(_frame, wanted))
            elif event is None and not made:
                yield KEEPALIVE
    if projection.done:
        yield _DONE


def _frame(event: StreamEvent) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), msgspec.json.encode(event))


async def input_items(api: Api, request: Request) -> Response:
    """The items of the request."""
    found = await _named(api, request)
    return json_response(page_of(found.record.input, request.query_params))


async def _named(api: Api, request: Request) -> Found:
    response_id = request.path_params["response_id"]
    found = await find(api, api.caller(request), response_id)
    if found is None:
        raise _not_found(response_id)
    return found


def _not_found(response_id: str) -> ApiError:
    return ApiError(404, "not_found", f"Response with id '{response_id[:80]}' not found.", param="response_id")


# -- ending --------------------------------------------------------------------------------------------


async def cancel(api: Api, request: Request) -> Response:
    """Stop the run that the response is a part of, and give the response as it has become. One that is over stays as
    it is."""
    found = await _named(api, request)
    caller = api.caller(request)
    caller.check(RunStop())
    projection = await current(api, found)
    if not projection.done and found.record.run_id is not None:
        projection = await api.unless_gone(request, _stopped(api, caller, found))
    return json_response(projection.response, headers=_headers(found))


async def _stopped(api: Api, caller: Caller, found: Found) -> ResponseProjection:
    conversation = await api.open(found.ref)
    projection = found.record.projection()
    with conversation.held():
        try:
            await api.command(conversation, RunStop(run_id=found.record.run_id), caller)
        except CommandError as refused:  # it has just ended by itself
            if refused.code not in ("run_not_active", "run_not_found"):
                raise
        with anyio.move_on_after(api.settings.compat.cancel_s):
            async with aclosing(grow(api, found, projection)) as growing:
                async for _ in growing:
                    pass
    return projection


async def delete(api: Api, request: Request) -> Response:
    """Forget a response. A conversation that was made for it, and has nothing else, goes with it."""
    found = await _named(api, request)
    caller = api.caller(request)
    caller.check(RunStart(input="-"))
    conversation, response_id = await api.open(found.ref), found.record.opening.id
    with conversation.held():
        alone = await ids(api, found.ref) == [response_id]
        empty = alone and found.record.implicit and await _is_all(conversation, found.record)
        if found.record.implicit and not alone:
            await keep(conversation, [_forgotten(found.record, conversation.now())])
        await api.runtime.store.forget_record(found.ref.namespace, RESPONSE, response_id)
    if empty and not conversation.is_followed():
        await api.runtime.delete(found.ref)
    told: dict[str, Any] = {"id": response_id, "object": "response", "deleted": True}
    return json_response(told)


async def _is_all(conversation: Conversation, record: ResponseRecord) -> bool:
    """Whether nobody has said anything in the conversation but to this response and to those that are forgotten."""
    for kind in (INSTRUCTION, CALL):
        if await conversation.store.records(conversation.ref, kind):
            return False
    rows = await conversation.store.records(conversation.ref, FORGOTTEN)
    forgotten = [msgspec.json.decode(row.data, type=Forgotten) for row in rows]
    return ends_with(conversation, record) or any(ends_with(conversation, one) for one in forgotten)


def _forgotten(record: ResponseRecord, now: int) -> RecordRow:
    kept = Forgotten(run_id=record.run_id, after=record.after)
    return RecordRow(FORGOTTEN, record.opening.id, now, msgspec.json.encode(kept))


ROUTES: Final[list[Route]] = [
    ("POST", "/v1/responses", create),
    ("GET", "/v1/responses/{response_id}", get),
    ("DELETE", "/v1/responses/{response_id}", delete),
    ("POST", "/v1/responses/{response_id}/cancel", cancel),
    ("GET", "/v1/responses/{response_id}/input_items", input_items),
]
