"""Where a run of ``/v1/runs`` goes: which conversation, and with which history."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.past import Past, past_of
from hermes_ws.compat.responses_record import RESPONSE, ResponseRecord
from hermes_ws.compat.runs_request import RunRequest, Source
from hermes_ws.protocol import events as ev
from hermes_ws.routes.context import NEW, Api
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import ConversationRef

__all__ = ["Place", "place"]


class Place(NamedTuple):
    """A conversation, and what has to be in its log before the run."""

    conversation: Conversation
    past: Past
    source: Source
    """Where the history of the run comes from."""


async def place(api: Api, caller: Caller, asked: RunRequest, name: str) -> Place:
    """The session that the request names, or that of the response that it goes on from, or a new one of this ``name``.

    What was said in a session is in its log: history that a client tells besides is not said once more.
    """
    if asked.session_id is None and asked.previous_response_id is not None:
        return await _after(api, caller, asked.previous_response_id, name)
    session_id = name if asked.session_id in (None, NEW) else asked.session_id
    conversation = await api.open(api.ref(caller, session_id))
    if conversation.session.state.epoch is not None:
        return Place(conversation, [], "session")
    if asked.previous_response_id is not None:
        ref, record = await _record(api, caller, asked.previous_response_id)
        return Place(conversation, await _past(api, ref, record), "previous_response")
    return Place(conversation, asked.past, asked.source)


async def _after(api: Api, caller: Caller, response_id: str, name: str) -> Place:
    """In the response's own conversation, if nothing has been said there since; else in a new one with its history."""
    ref, record = await _record(api, caller, response_id)
    conversation = await api.open(ref)
    state = conversation.session.state
    waiting = [*([state.active.run_id] if state.active is not None else []), *state.queue]
    newest = waiting[-1] if waiting else next(reversed(state.ended), None)
    last = state.head == record.after if record.run_id is None else newest == record.run_id
    if last and record.until is None:
        return Place(conversation, [], "previous_response")
    past = await _past(api, ref, record)
    return Place(await api.open(api.ref(caller, name)), past, "previous_response")


async def _record(api: Api, caller: Caller, response_id: str) -> tuple[ConversationRef, ResponseRecord]:
    """Raises :class:`ApiError` 400, as the Responses API does."""
    found = await api.runtime.store.record(caller.principal.namespace, RESPONSE, response_id)
    if found is None or not caller.principal.may_open(found[0].conversation_id):
        message = f"Previous response with id '{response_id[:80]}' not found."
        raise ApiError(400, "previous_response_not_found", message, param="previous_response_id")
    return found[0], msgspec.json.decode(found[1].data, type=ResponseRecord)


async def _past(api: Api, ref: ConversationRef, record: ResponseRecord) -> Past:
    """What was said and done up to the end of a response. Raises :class:`ApiError` 409 while it is not over."""
    every = await api.events(ref, 0)
    if record.run_id is None:
        return past_of(event for event in every if event.seq <= record.after)
    projection, events = record.projection(), list[ev.Event]()
    for event in every:
        events.append(event)
        projection.feed(event)
        if projection.done:
            return past_of(events)
    message = "`previous_response_id` is not over yet; wait for it, or cancel it"
    raise ApiError(409, "response_not_over", message, param="previous_response_id")
