"""``/v1/runs``: runs as hermes-agent's clients start and watch them.

A run is found by its id alone, whatever conversation it is in and whoever began it there. What is told of it is read
off the log each time: by any number of readers, from any point, after its end and after a restart.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.runs import RunEvents, sse
from hermes_ws.compat.runs_request import RunRequest, run_request
from hermes_ws.errors import ConversationDeleted
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import RunStart
from hermes_ws.routes import runs_control, runs_list
from hermes_ws.routes.context import Api, Route, json_response
from hermes_ws.routes.once import Once, once
from hermes_ws.routes.run_log import Found, finals, find, named, new_run_id, run_object
from hermes_ws.routes.runs_place import place
from hermes_ws.routes.streams import KEEPALIVE
from hermes_ws.routes.values import count
from hermes_ws.runtime.commands import Beside
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.directory import is_ephemeral

__all__ = ["ROUTES"]

_AT_ONCE: Final = 65_536
"""Bytes of a stream that are written together."""
_CLOSED: Final = b": stream closed\n\n"


# -- starting ------------------------------------------------------------------------------------------


async def start(api: Api, request: Request) -> Response:
    """Begin a run, and answer at once."""
    caller = api.caller(request)
    body = await api.json(request)
    asked = run_request(body, api.settings.compat.messages)
    caller.check(RunStart(input=asked.said))
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            found = await find(api, caller, this.earlier["run_id"])
            now = {"status": (await run_object(api, found)).status}
            return this.replay(202, now, {"X-Hermes-Session-Id": this.earlier["session_id"]})
        return await _start(api, caller, asked, this)


async def _start(api: Api, caller: Caller, asked: RunRequest, this: Once) -> Response:
    agent = None if asked.model in (None, api.settings.server.model_name) else api.agent(caller, asked.model)
    run_id = new_run_id()
    conversation, past, source = await place(api, caller, asked, run_id)
    with conversation.held():
        answer = {"run_id": run_id, "session_id": conversation.ref.conversation_id}
        await api.begin(
            conversation,
            caller,
            past,
            asked.said,
            agent=agent,
            instructions=asked.instructions,
            beside=Beside(run_id=run_id, records=this.records(answer)),
            tools=asked.tools,
            metadata=asked.metadata,
        )
        status = "queued" if run_id in conversation.session.state.queue else "started"
    told = {**answer, "status": status, "history": source, "replayed": False}
    return json_response(told, 202, {"X-Hermes-Session-Id": answer["session_id"]})


# -- looking -------------------------------------------------------------------------------------------


async def get(api: Api, request: Request) -> Response:
    """A run as it is now."""
    _, found = await named(api, request)
    return json_response(await run_object(api, found))


async def events(api: Api, request: Request) -> Response:
    """The run's events as they come, and those that have been."""
    _, found = await named(api, request)
    # A page that reconnects sends its first address again: the header says how far it has come since.
    since = count(request.query_params.get("after"), "after", 0)
    after = max(since, count(request.headers.get("last-event-id"), "Last-Event-ID", 0))
    return api.sse(_stream(api, found, after), headers={"X-Hermes-Session-Id": found.ref.conversation_id})


async def _stream(api: Api, found: Found, after: int) -> AsyncGenerator[bytes]:
    projection = RunEvents(found.row.run_id, found.ref.conversation_id)
    if after >= found.first_seq:
        async with aclosing(finals(api, found, after)) as seen:
            async for past in seen:
                projection.skip(past)
    try:
        if not projection.done:
            head = (await api.open(found.ref)).committed  # a number that is yet to come would wait for itself
            since = min(max(after, found.first_seq - 1), head)
            async with aclosing(api.batches(found.ref, since, found.row.run_id)) as following:
                async for some in following:
                    for frames in _joined(projection, some) if some else [KEEPALIVE]:
                        yield frames
                    if projection.done:
                        break
        if not projection.done:
            return  # the server goes down: whoever comes back goes on from here
    except ConversationDeleted:
        if not is_ephemeral(found.ref):  # one of those is over as soon as its run is
            yield sse(None, projection.deleted(api.runtime.now() / 1000))
    yield _CLOSED


def _joined(projection: RunEvents, some: list[ev.Event]) -> Iterator[bytes]:
    """What is there at once goes out at once: with many readers, each write costs more than what is in it."""
    waiting = bytearray()
    for event in some:
        if frames := projection.feed(event):
            waiting += sse(event.seq, frames)
        if projection.done:
            break
        if len(waiting) >= _AT_ONCE:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


ROUTES: Final[list[Route]] = [
    ("POST", "/v1/runs", start),
    ("GET", "/v1/runs", runs_list.listed),
    ("GET", "/v1/runs/{run_id}", get),
    ("GET", "/v1/runs/{run_id}/events", events),
    *runs_control.ROUTES,
]
