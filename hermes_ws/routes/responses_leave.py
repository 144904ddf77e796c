"""Answers to approval requests: where they were asked for, and what there is to tell of those that somebody else has
answered meanwhile, or the client itself with a request whose answer was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import anyio

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.responses import ResponseProjection
from hermes_ws.compat.responses_input import Leave
from hermes_ws.compat.responses_items import allowed, approval_id, run_in
from hermes_ws.compat.responses_types import Response
from hermes_ws.protocol import events as ev
from hermes_ws.routes.context import Api
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import ConversationRef

__all__ = ["Late", "asked_in", "first_open", "late", "until_answered"]


class Late(NamedTuple):
    """Leave for what has been answered by now."""

    leaves: list[Leave]
    run_id: str
    after: int
    """The event up to which the response went that ended with the requests."""
    answers: list[str]
    """The interactions."""


async def asked_in(api: Api, caller: Caller, given: Sequence[Mapping[str, Any]]) -> ConversationRef | None:
    """The conversation of the approval request that the last answer among the items is for, if it is reached."""
    ids = [item.get("approval_request_id") for item in given if item.get("type") == "mcp_approval_response"]
    if not ids or not isinstance(ids[-1], str):
        return None
    namespace, run_id = caller.principal.namespace, run_in(ids[-1])
    found = await api.runtime.store.find_run(namespace, run_id)
    found = found or await api.runtime.ephemerals.store.find_run(namespace, run_id)
    return found[0] if found is not None and caller.principal.may_open(found[0].conversation_id) else None


def first_open(conversation: Conversation, given: Sequence[Mapping[str, Any]]) -> int:
    """Where the items begin to be new, for a client that sends all that was said: with the answer to the first request
    that is open, or else to the last one."""
    places = [number for number, item in enumerate(given) if item.get("type") == "mcp_approval_response"]
    there = {approval_id(asked) for asked in conversation.session.state.interactions.values()}
    return next((number for number in places if given[number].get("approval_request_id") in there), places[-1])


async def late(api: Api, conversation: Conversation, leaves: Sequence[Leave]) -> Late | None:
    """Those of the answers that come too late, all of one run. Raises :class:`ApiError` 409 when something else was
    decided than they say."""
    there = conversation.session.state.interactions
    gone = [one for one in leaves if not any(_means(one, asked) for asked in there.values())]
    if not gone:
        return None
    events = await api.events(conversation.ref, 0)
    requests = [event for event in events if isinstance(event, ev.InteractionRequested) and event.kind == "approval"]
    asked = [(leave, event) for event in requests for leave in gone if _means(leave, event)]
    if not asked:
        return None
    ended = {event.interaction_id: event for event in events if isinstance(event, ev.InteractionResolved)}
    for leave, request in asked:
        _check_same(leave, request, ended.get(request.interaction_id))
    last = asked[-1][1]
    answers = [request.interaction_id for _, request in asked]
    return Late([leave for leave, _ in asked], last.run_id, _end(events, last), answers)


def _means(leave: Leave, event: ev.InteractionRequested) -> bool:
    return leave.request_id in (approval_id(event), event.interaction_id)


def _check_same(leave: Leave, request: ev.InteractionRequested, ended: ev.InteractionResolved | None) -> None:
    if ended is None or leave.approve == allowed(request, ended):
        return
    done = "allowed" if allowed(request, ended) else "refused"
    who = "in time by nobody" if ended.outcome != "answered" else f"by {ended.by.principal}"
    message = f"This approval request was answered {who}, and so is {done}; say that, or something else, to go on."
    raise ApiError(409, "interaction_resolved", message, param=f"{leave.path}.approve")


def _end(events: Sequence[ev.Event], request: ev.InteractionRequested) -> int:
    """The event up to which a response goes that ends with this request."""
    nothing = Response(id="", created_at=0, status="in_progress", model="")
    projection = ResponseProjection(nothing, request.run_id, request.seq - 1)
    for event in events:
        if isinstance(event, ev.InteractionResolved) and event.interaction_id == request.interaction_id:
            break
        projection.feed(event)
        if projection.done:
            return event.seq
    return request.seq


# -- conversations that are not kept -------------------------------------------------------------------


def until_answered(api: Api, conversation: Conversation, run_id: str | None, caller: Caller) -> None:
    """A temporary conversation whose run waits for leave is not over before nobody may give it any more."""
    api.runtime.spawn(lambda: _left_later(api, conversation, run_id, caller))


async def _left_later(api: Api, conversation: Conversation, run_id: str | None, caller: Caller) -> None:
    while _is_awaited(conversation, run_id):
        await conversation.wait_beyond(conversation.committed, api.settings.compat.keepalive_s)
        if not _is_awaited(conversation, run_id):  # whoever answers begins to follow it
            await anyio.sleep(api.settings.compat.disconnect_grace_s)
    api.left(conversation, run_id, caller)


def _is_awaited(conversation: Conversation, run_id: str | None) -> bool:
    """Whether the run is there, and either somebody follows it or somebody is asked for leave."""
    state = conversation.session.state
    asked = any(one.run_id == run_id and one.kind == "approval" for one in state.interactions.values())
    return not conversation.dead and run_id in state.runs and (asked or conversation.is_followed())
