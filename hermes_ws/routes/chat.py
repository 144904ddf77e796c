"""``POST /v1/chat/completions``: a run as a chat completion, whole or streamed.

Without a conversation a request is a whole in itself: its messages become the past of a conversation that is not kept,
and its answer is the last thing that happens there. With one (a header names it) the conversation has a past of its
own, which the messages only bring along where it has none yet: of them the last count, what the user says now, or what
the client's functions came to.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.calls import is_of_caller
from hermes_ws.compat.chat_messages import Result
from hermes_ws.compat.chat_request import ChatRequest, read_chat
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.fields import invalid
from hermes_ws.compat.past import Answered, Past
from hermes_ws.errors import CommandError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import InteractionReply
from hermes_ws.routes.chat_answer import Answer, Asked, Place
from hermes_ws.routes.context import NEW, Api, Route
from hermes_ws.routes.once import Once, once
from hermes_ws.routes.replays import answered_once
from hermes_ws.runtime.commands import Beside
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.locks import Locks
from hermes_ws.runtime.runtime import new_id
from hermes_ws.store.base import ConversationRef, RecordRow
from hermes_ws.store.directory import EPHEMERAL

__all__ = ["ROUTES"]

_JOINING: Final = ("x-hermes-conversation-id", "x-hermes-session-id")
_BRINGING: Final = Locks[ConversationRef]()
"""Held while messages become the past of a conversation."""
_NOT_CALLED: Final = {"output": "The client did not call this function.", "is_error": True}


async def _complete(api: Api, request: Request) -> Response:
    """Answer a chat, in a conversation if a header names one."""
    caller = api.caller(request)
    body = await api.json(request)
    asked = Asked(api, request, caller, body, read_chat(body, api.settings.compat))
    name = _joined(request)
    return await (_stateless(asked) if name is None or _outlived(asked, name) else _in_conversation(asked, name))


ROUTES: Final[list[Route]] = [("POST", "/v1/chat/completions", _complete)]


def _joined(request: Request) -> str | None:
    """The conversation that the request is part of; None if it stands alone."""
    names = {request.headers[header] for header in _JOINING if header in request.headers}
    if len(names) > 1:
        message = "X-Hermes-Conversation-Id and X-Hermes-Session-Id name two conversations; send one of them"
        raise ApiError(400, "invalid_conversation_id", message)
    return names.pop() if names else None


def _outlived(asked: Asked, name: str) -> bool:
    """Whether a client sends back the name of a conversation that was not kept, and its history with it: then it lacks
    nothing. Without the history it is told that the conversation is over."""
    if not name.startswith(EPHEMERAL):
        return False
    try:
        asked.api.runtime.ephemerals.check(asked.api.ref(asked.caller, name))
    except CommandError:
        return bool(asked.chat.past())
    return False


def _agent(asked: Asked) -> str | None:
    """The agent that was asked for by name; None: whoever answers in that conversation. Raises :class:`ApiError`."""
    model = asked.chat.model
    default = not model or model == asked.api.settings.server.model_name
    return None if default else asked.api.agent(asked.caller, model)


def _beside(asked: Asked, run_id: str | None, records: list[RecordRow]) -> Beside:
    chat = asked.chat
    return Beside(
        run_id=run_id,
        functions=chat.functions,
        tool_choice=chat.tool_choice,
        parameters=chat.parameters,
        records=records,
    )


async def _begin(asked: Asked, place: Place, past: Past, records: list[RecordRow], **more: Any) -> Place:
    """Have something said, or go on from the results that the past ends with."""
    chat = asked.chat
    begun = await asked.api.begin(
        place.conversation,
        asked.caller,
        past,
        chat.said,
        agent=_agent(asked),
        instructions=chat.instructions,
        beside=_beside(asked, place.run_id, records),
        **more,
    )
    return replace(place, run_id=begun.run_id, after=begun.after)


# -- requests that stand alone -------------------------------------------------------------------------


async def _stateless(asked: Asked) -> Response:
    """In a conversation of its own, which is not kept; so answers are, for those who repeat a request under its key. A
    stream cannot be told twice."""
    if asked.chat.stream:
        return await _alone(asked)
    return await answered_once(asked.api, asked.caller, asked.request, asked.body, lambda: _alone(asked))


async def _alone(asked: Asked) -> Response:
    _agent(asked)
    past = asked.chat.past()
    place = Place(await asked.api.temporary(asked.caller), new_id("run"))
    return await Answer(asked, place, lambda: _begin(asked, place, past, [])).response()


# -- requests of a conversation ------------------------------------------------------------------------


async def _in_conversation(asked: Asked, name: str) -> Response:
    api, caller = asked.api, asked.caller
    _agent(asked)
    place = Place(await (api.new(caller) if name == NEW else api.open(api.ref(caller, name))), new_id("run"))

    async def begin() -> Place:
        async with once(api, caller, asked.request, {**asked.body, "conversation": name}) as request:
            if request.earlier is not None:
                return await _earlier(asked, request.earlier)
            with place.conversation.held():
                return await _begun(asked, place, request)

    return await Answer(asked, place, begin).response()


async def _begun(asked: Asked, place: Place, request: Once) -> Place:
    conversation = place.conversation
    if _takes_past(asked, conversation):
        async with _BRINGING.of(conversation.ref):
            if _takes_past(asked, conversation):  # of several side by side the first one brings it
                return await _bring(asked, place, request)
    return await (_reply if asked.chat.said is None else _say)(asked, place, request)


async def _earlier(asked: Asked, kept: dict[str, Any]) -> Place:
    """Where the answer is that the same request was given earlier."""
    conversation = await asked.api.open(asked.api.ref(asked.caller, kept["conversation_id"]))
    run_id: str = kept["run_id"]
    after: int | None = kept["after"]
    if after is None:
        after = await asked.api.first_seq(conversation, run_id) - 1
        events = await asked.api.events(conversation.ref, after, run_id)
        ends = [event.seq for event in events if isinstance(event, ev.StepCompleted)]
        steps: int = kept.get("steps", 0)
        after = ends[steps - 1] if steps else after
    return Place(conversation, run_id, after, replayed=True)


def _kept(place: Place, after: int | None, steps: int = 0) -> dict[str, Any]:
    """Where the answer is, for a request that is repeated; ``after`` None: ``steps`` after the run's beginning."""
    name = place.conversation.ref.conversation_id
    return {"conversation_id": name, "run_id": place.run_id, "after": after, "steps": steps}


def _takes_past(asked: Asked, conversation: Conversation) -> bool:
    """Whether nothing was said in the conversation. Going on from results is how it begins, or it does not."""
    state = conversation.session.state
    nothing_said = not (state.ended or state.active or state.queue)
    return state.epoch is None or (nothing_said and asked.chat.said is not None)


async def _bring(asked: Asked, place: Place, request: Once) -> Place:
    """In a conversation without a past the messages are it."""
    past = asked.chat.past()
    if past and place.conversation.session.state.epoch is not None:
        await asked.api.add_past(place.conversation, asked.caller, past)
        past = []
    brought = 0 if asked.chat.said is not None else _steps_at_the_end(past)
    return await _begin(asked, place, past, request.records(_kept(place, None, brought)))


def _steps_at_the_end(past: Past) -> int:
    """How many steps the run has that goes on from there."""
    return len(list(takewhile(lambda one: isinstance(one, Answered), reversed(past))))


async def _say(asked: Asked, place: Place, request: Once) -> Place:
    """What the user says begins a run. One that still waits for the client's functions gives way: the client has gone
    on to something else."""
    waits = bool(_waiting(place.conversation))
    records = request.records(_kept(place, None))
    return await _begin(asked, place, [], records, when_busy="interrupt" if waits else "queue")


async def _reply(asked: Asked, place: Place, request: Once) -> Place:
    """What the client's functions came to lets the run go on that waits for it."""
    await place.conversation.settled()
    replies = _replies(place.conversation, asked.chat)
    place = replace(place, run_id=replies[0].run_id, after=place.conversation.committed)
    records = request.records(_kept(place, place.after))
    for reply in replies:
        await asked.api.command(place.conversation, reply.command, asked.caller, _beside(asked, None, records))
        records = []
    return place


class _Answered(NamedTuple):
    """The reply to a call that waits, and the run that made it."""

    run_id: str
    command: InteractionReply


def _replies(conversation: Conversation, chat: ChatRequest) -> list[_Answered]:
    """A reply to each call that waits. Raises :class:`ApiError` for results of others, and for calls without one."""
    waiting = _waiting(conversation)
    replies: list[_Answered] = []
    for result in chat.results:
        call = next((one for one in waiting if one.tool and result.answers(one.tool.call_id, one.tool.name)), None)
        if call is None:
            raise _unasked(conversation, result)
        waiting.remove(call)
        replies.append(_to(call, result.told))
    if waiting and not chat.legacy:  # the older form has no more than one call in an answer
        ids = ", ".join(one.call_id or "" for one in waiting)
        raise invalid("messages", f"lacks results: send a `tool` message for each of {ids[:200]}")
    return [*replies, *(_to(call, _NOT_CALLED) for call in waiting)]


def _unasked(conversation: Conversation, result: Result) -> ApiError:
    """The result of a call that does not wait for one."""
    calls = [call for call in conversation.session.state.calls.values() if is_of_caller(call)]
    if any(result.answers(call.call_id, call.name) and call.phase == "completed" for call in calls):
        message = (
            f"`{result.named_at}` is a call that has its result, by an earlier request or because nobody waited any "
            "longer; what followed is in the conversation: say something to go on. With an `Idempotency-Key` the same "
            "request gets the same answer"
        )
        return ApiError(409, "tool_call_answered", message, param=result.named_at)
    return invalid(result.named_at, "is no call that waits for its result in this conversation")


def _waiting(conversation: Conversation) -> list[ev.InteractionRequested]:
    """Calls of the client's functions whose results are waited for."""
    every = conversation.session.state.interactions.values()
    return [asked for asked in every if asked.kind == "client_tool" and asked.owner is None]


def _to(call: ev.InteractionRequested, content: dict[str, Any]) -> _Answered:
    return _Answered(call.run_id, InteractionReply(interaction_id=call.interaction_id, content=content))
