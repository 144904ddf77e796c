"""Responses in the log: found by their id, projected as they are, and followed as they grow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.item_lists import items_of
from hermes_ws.compat.responses import ResponseProjection
from hermes_ws.compat.responses_input import references
from hermes_ws.compat.responses_items import run_in
from hermes_ws.compat.responses_record import RESPONSE, Forgotten, ResponseRecord
from hermes_ws.compat.responses_types import StreamEvent
from hermes_ws.decisions import RunOptions
from hermes_ws.errors import ConversationDeleted
from hermes_ws.protocol import events as ev
from hermes_ws.routes.context import Api
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import ConversationRef, RecordRow

__all__ = ["Found", "current", "ends_with", "find", "grow", "ids", "resolved", "row"]

_DELETED = "the conversation was deleted"


class Found(NamedTuple):
    """A response, and the conversation that it is of."""

    ref: ConversationRef
    record: ResponseRecord


def row(record: ResponseRecord, now: int) -> RecordRow:
    """As it is kept."""
    return RecordRow(RESPONSE, record.opening.id, now, msgspec.json.encode(record))


async def find(api: Api, caller: Caller, response_id: str) -> Found | None:
    """The response of that id, if the caller's credential reaches it."""
    found = await api.runtime.store.record(caller.principal.namespace, RESPONSE, response_id)
    if found is None or not caller.principal.may_open(found[0].conversation_id):
        return None
    return Found(found[0], msgspec.json.decode(found[1].data, type=ResponseRecord))


async def ids(api: Api, ref: ConversationRef) -> list[str]:
    """The ids of the responses that are kept of a conversation, oldest first."""
    return [row.record_id for row in await api.runtime.store.records(ref, RESPONSE)]


def ends_with(conversation: Conversation, one: ResponseRecord | Forgotten) -> bool:
    """Whether nothing was said in the conversation after this response."""
    state = conversation.session.state
    if one.run_id is None:
        return state.head == one.after
    under_way = [*([state.active.run_id] if state.active else []), *state.queue]
    last = under_way[-1] if under_way else next(reversed(state.ended), None)
    return last == one.run_id


async def current(api: Api, found: Found) -> ResponseProjection:
    """The response as it is. What is being said right now is in it up to the last final."""
    record, projection = found.record, found.record.projection()
    if record.run_id is None:
        projection.nothing(record.opening.created_at * 1000)
        return projection
    first = await api.first_seq(await api.open(found.ref), record.run_id)
    for event in await api.events(found.ref, first - 1, record.run_id):
        projection.feed(event)
    return projection


async def grow(
    api: Api, found: Found, projection: ResponseProjection, before: Callable[[ev.Event], Awaitable[None]] | None = None
) -> AsyncGenerator[tuple[ev.Event | None, list[StreamEvent]]]:
    """Feed the projection from the response's beginning until it is over: each event of the log with what it makes of
    the stream; without an event when nothing came for a while. ``before`` hears of each event first. Ends early when
    the server goes down."""
    record = found.record
    if record.run_id is None:
        yield None, projection.nothing(record.opening.created_at * 1000)
        return
    try:
        begin = await api.first_seq(await api.open(found.ref), record.run_id) - 1
        if record.after > begin:
            for past in await api.events(found.ref, begin, record.run_id):
                if past.seq <= record.after:
                    projection.feed(past)
        async with aclosing(api.follow(found.ref, max(begin, record.after), record.run_id)) as events:
            async for event in events:
                if before is not None and event is not None:
                    await before(event)
                yield event, [] if event is None else projection.feed(event)
                if projection.done:
                    return
    except ConversationDeleted:
        yield None, projection.abort(_DELETED, api.runtime.now())


async def resolved(
    api: Api, caller: Caller, given: list[dict[str, object]], here: tuple[ConversationRef, ...], begin: int = 0
) -> list[dict[str, object]]:
    """The items, those from number ``begin`` on with references replaced by what they mean. Those to items of the
    conversations ``here`` stay: they are in the history anyway. Raises :class:`ApiError` 404 for an item that is not
    there."""
    found: dict[int, dict[str, object]] = {}
    items_of_run: dict[str, list[dict[str, object]] | None] = {}
    for number, item_id in references(given).items():
        if number < begin:
            continue
        run_id = run_in(item_id)
        if run_id not in items_of_run:
            items_of_run[run_id] = await _items_of_run(api, caller, run_id, here)
        there = items_of_run[run_id]
        if there is None or await _was_given(api, here, item_id):
            continue
        item = next((one for one in there if one["id"] == item_id), None)
        if item is None:
            message = f"Item with id '{item_id[:80]}' not found."
            raise ApiError(404, "item_not_found", message, param=f"input[{number}].id")
        found[number] = item
    return [found.get(number, item) for number, item in enumerate(given)]


async def _was_given(api: Api, here: tuple[ConversationRef, ...], item_id: str) -> bool:
    """Whether it is an item of a request that is kept of one of these conversations."""
    rows = [row for ref in here for row in await api.runtime.store.records(ref, RESPONSE)]
    records = (msgspec.json.decode(row.data, type=ResponseRecord) for row in rows)
    return any(item["id"] == item_id for record in records for item in record.input)


async def _items_of_run(
    api: Api, caller: Caller, run_id: str, here: tuple[ConversationRef, ...]
) -> list[dict[str, object]] | None:
    """The items of a run, or of the request for a response, whose ids end alike; None: it is of one of these
    conversations."""
    asked = await find(api, caller, run_id.replace("run_", "resp_", 1))
    if asked is not None:
        return asked.record.input
    found = await api.runtime.store.find_run(caller.principal.namespace, run_id)
    if found is None or not caller.principal.may_open(found[0].conversation_id):
        return []
    ref, run = found
    if ref in here:
        return None
    first = max(msgspec.json.decode(run.options, type=RunOptions).first_seq, 1)
    return items_of(await api.events(ref, first - 1, run_id))
