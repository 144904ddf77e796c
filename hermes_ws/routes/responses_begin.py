"""How a request for a response becomes a run, or has one go on: by HTTP and at the socket alike."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.item_lists import shown
from hermes_ws.compat.past import Answered, Past, PastCall, Said, past_of
from hermes_ws.compat.responses_answers import replies_to
from hermes_ws.compat.responses_input import Leave, Output, Turn, check_settled, no_call, turn_of
from hermes_ws.compat.responses_record import RESPONSE, ResponseRecord
from hermes_ws.compat.responses_request import ResponseRequest
from hermes_ws.decisions import Decision
from hermes_ws.entities import as_text
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import RunStart, RunSteer
from hermes_ws.protocol.values import ImagePart, Input
from hermes_ws.routes.context import Api
from hermes_ws.routes.responses_leave import Late, asked_in, first_open, late
from hermes_ws.routes.responses_log import Found, ends_with, find, ids, resolved, row
from hermes_ws.runtime.commands import Beside
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.locks import Locks
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import new_id
from hermes_ws.store.base import ConversationRef, RecordRow
from hermes_ws.store.directory import is_ephemeral

__all__ = ["INSTRUCTION", "Asked", "begin", "keep", "not_found"]

INSTRUCTION: Final = "instruction"
"""The kind of record that a system message of a conversation is."""
_OF_OPENAI: Final = "conv_"
"""How ids begin that are given out here: nobody chooses such a one."""
_BEGINNING: Final = Locks[ConversationRef]()
"""Held while a response begins that goes on from another one, by the conversation of that."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and who makes it."""

    api: Api
    caller: Caller
    request: ResponseRequest
    tool_progress: bool | None = None
    """What the client says of items for the agent's own tools; None: nothing."""
    local: Mapping[str, Found] = field(default_factory=dict[str, Found])
    """Responses that only this socket knows, oldest first."""

    @property
    def own_tools(self) -> bool:
        """Whether calls of the agent's own tools are items. Clients that bring functions take every call for one of
        those, so they are told of no others unless they say that they want to be."""
        return not self.request.tools if self.tool_progress is None else self.tool_progress

    @property
    def agent(self) -> str | None:
        """The agent that the request names. Raises :class:`ApiError` 404."""
        model = self.request.given.model
        default = not model or model == self.api.settings.server.model_name
        return None if default else self.api.agent(self.caller, model)


@dataclass(slots=True)
class _Place:
    """Where the response goes: the conversation, and the history to be copied there first."""

    conversation: Conversation
    implicit: bool = True
    past: Past = field(default_factory=list[Said | Answered])
    system: list[str] = field(default_factory=list[str])
    source: ConversationRef | None = None
    """Where the history is copied from."""
    begin: int = 0
    """The items of the request before this one are in the conversation already."""

    @property
    def refs(self) -> tuple[ConversationRef, ...]:
        here = self.conversation.ref
        return (here,) if self.source is None else (here, self.source)


async def begin(asked: Asked, response_id: str, records: Sequence[RecordRow] = ()) -> Found:
    """Begin the response. ``records`` are kept in the same commit. Raises :class:`ApiError` or
    :class:`~hermes_ws.errors.CommandError`, with nothing begun; a temporary conversation is over then."""
    agent = asked.agent
    async with _placed(asked) as place:
        conversation = place.conversation
        try:
            with conversation.held():
                return await _Beginning(asked, place, agent, response_id, records).begin()
        except BaseException:
            if is_ephemeral(conversation.ref) and not any(one.ref == conversation.ref for one in asked.local.values()):
                asked.api.left(conversation, None, asked.caller)
            raise


def not_found(response_id: str) -> ApiError:
    """There is no such response to go on from."""
    message = f"Previous response with id '{response_id[:80]}' not found."
    return ApiError(400, "previous_response_not_found", message, param="previous_response_id")


async def keep(conversation: Conversation, records: Sequence[RecordRow]) -> None:
    """Keep records in a commit of their own."""
    conversation.flush()
    conversation.commit(Decision(), records=records)
    await conversation.settled()


# -- where ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def _placed(asked: Asked) -> AsyncGenerator[_Place]:
    """The place, while the response begins there. Of two that go on from the same one side by side, one finds that it
    is not the last any more."""
    request = asked.request
    asking = await asked_in(asked.api, asked.caller, request.items)
    if request.given.previous_response_id is None and asking is not None and request.conversation is None:
        yield await _where_asked(asked, asking)
        return
    if request.given.previous_response_id is None:
        yield await (_new(asked) if request.conversation is None else _in(asked, request.conversation))
        return
    found = await _previous(asked, request.given.previous_response_id)
    async with _BEGINNING.of(found.ref):
        place = await _right_after(asked, found, asking == found.ref)
        if place is not None:
            yield place
            return
    yield await _copied(asked, found)


async def _new(asked: Asked) -> _Place:
    return _Place(await (asked.api.new(asked.caller) if asked.request.store else asked.api.temporary(asked.caller)))


async def _in(asked: Asked, name: str) -> _Place:
    """In a conversation that is named."""
    api = asked.api
    conversation = await api.open(api.ref(asked.caller, name))
    if conversation.session.state.epoch is None and name.startswith(_OF_OPENAI):
        raise ApiError(
            404, "conversation_not_found", f"Conversation with id '{name[:80]}' not found.", param="conversation"
        )
    rows = await api.runtime.store.records(conversation.ref, INSTRUCTION)
    system = [msgspec.json.decode(row.data)["text"] for row in rows]
    return _Place(conversation, implicit=False, system=system)


async def _previous(asked: Asked, response_id: str) -> Found:
    found = asked.local.get(response_id) or await find(asked.api, asked.caller, response_id)
    if found is None:
        raise not_found(response_id)
    return found


async def _where_asked(asked: Asked, ref: ConversationRef) -> _Place:
    """Where the approval request is that a client answers who names nothing, but sends all that was said along."""
    conversation = await asked.api.open(ref)
    rows = await conversation.store.records(ref, RESPONSE)
    last = msgspec.json.decode(rows[-1].data, type=ResponseRecord) if rows else None
    begin = first_open(conversation, asked.request.items)
    implicit, system = (last.implicit, last.system) if last is not None else (False, [])
    return _Place(conversation, implicit, system=system, begin=begin)


async def _right_after(asked: Asked, found: Found, asking: bool) -> _Place | None:
    """In the conversation of an earlier response, where that is the last thing in it, or an approval request of it is
    answered (``asking``): that is done there and nowhere else."""
    conversation, request = await asked.api.open(found.ref), asked.request
    if asking:
        return _Place(conversation, found.record.implicit, system=found.record.system)
    here = request.store != is_ephemeral(found.ref) and not _too_late(request, conversation)
    if not here or not await _is_last(asked, found, conversation):
        return None
    return _Place(conversation, found.record.implicit, system=found.record.system)


async def _copied(asked: Asked, found: Found) -> _Place:
    """In a copy of the conversation as it was when the response ended."""
    past = await _past_up_to(asked.api, found)
    place = await _new(asked)
    place.past, place.system, place.source = past, found.record.system, found.ref
    return place


def _too_late(request: ResponseRequest, conversation: Conversation) -> bool:
    """Whether it says what a call came to that has an outcome by now: somebody else has told it, or nobody had in
    time. In a copy of the history it can still be said."""
    calls = conversation.session.state.calls
    outputs = [item.get("call_id") for item in request.items if item.get("type") == "function_call_output"]
    told = [calls[call_id] for call_id in outputs if isinstance(call_id, str) and call_id in calls]
    return any(call.phase == "completed" for call in told)


async def _is_last(asked: Asked, found: Found, conversation: Conversation) -> bool:
    """Whether nothing has been said in the conversation since."""
    if is_ephemeral(found.ref):
        known = [response_id for response_id, one in asked.local.items() if one.ref == found.ref]
    else:
        known = await ids(asked.api, found.ref)
    return known[-1:] == [found.record.opening.id] and ends_with(conversation, found.record)


async def _past_up_to(api: Api, found: Found) -> Past:
    """What was said and done up to the end of a response."""
    projection, past = found.record.projection(), list[ev.Event]()
    until = found.record.until
    for event in await api.events(found.ref, 0):
        if found.record.run_id is None and event.seq > found.record.after:
            break
        if until is not None and event.seq >= until:  # what was heard there is of the next one
            break
        past.append(event)
        projection.feed(event)
        if projection.done:
            break
    else:
        if found.record.run_id is not None:
            message = "is not over yet; wait for it, or cancel it"
            raise ApiError(409, "response_not_over", f"`previous_response_id` {message}", param="previous_response_id")
    return past_of(past)


# -- what ----------------------------------------------------------------------------------------------


class _Beginning:
    """One request, in its place."""

    def __init__(
        self, asked: Asked, place: _Place, agent: str | None, response_id: str, records: Sequence[RecordRow]
    ) -> None:
        self._asked = asked
        self._api, self._caller, self._request = asked.api, asked.caller, asked.request
        self._place, self._conversation = place, place.conversation
        self._agent = agent
        self._response_id = response_id
        self._records = list(records)

    async def begin(self) -> Found:
        await self._conversation.settled()
        begin = self._place.begin
        given = await resolved(self._api, self._caller, self._request.items, self._place.refs, begin)
        turn = self._turn(given)
        record = self._record(turn, given[begin:])
        missed = await late(self._api, self._conversation, turn.leaves)
        if missed is not None:
            turn.leaves = [leave for leave in turn.leaves if leave not in missed.leaves]
            if turn.said is None and not (turn.past or turn.answers):
                return await self._tell(record, missed)
        state = self._conversation.session.state
        active = state.active
        of_run = [one for one in state.interactions.values() if active and one.run_id == active.run_id]
        waiting = [one for one in of_run if one.owner is None]
        if not turn.answers and active and not await self._is_known(active.run_id):
            waiting = []
        if waiting and active and self._request.given.generate is not False:
            after = missed.after if missed is not None and missed.run_id == active.run_id else state.head
            record = replace_run(record, active.run_id, after=after, answers=[i.interaction_id for i in waiting])
            await self._answer(turn, waiting, record)
        elif self._request.given.generate is False:
            record = await self._take_in(turn, record)
        else:
            record = await self._say(turn, record)
        return Found(self._conversation.ref, record)

    async def _is_known(self, run_id: str) -> bool:
        """Whether the run is one of a response. What any other asks is not for these clients: they wait their turn."""
        conversation = self._conversation
        rows = await conversation.store.records(conversation.ref, RESPONSE)
        kept = [msgspec.json.decode(row.data, type=ResponseRecord) for row in rows]
        local = [found.record for found in self._asked.local.values() if found.ref == conversation.ref]
        return any(record.run_id == run_id for record in (*kept, *local))

    async def _tell(self, record: ResponseRecord, missed: Late) -> Found:
        """Nothing is to be done any more: what has followed since is the response."""
        record = replace_run(record, missed.run_id, after=missed.after, answers=missed.answers)
        if self._kept(record):
            await keep(self._conversation, self._kept(record))
        return Found(self._conversation.ref, record)

    def _turn(self, given: list[dict[str, object]]) -> Turn:
        request, known = self._request, self._conversation.session.state.calls
        turn = turn_of(given, "input", known, begin=self._place.begin)
        before = turn_of(request.history, "conversation_history", known, answered=False)
        turn.past = [*before.past, *turn.past]
        turn.instructions = [*before.instructions, *turn.instructions]
        if turn.said is None and not (turn.past or turn.answers) and turn.instructions:
            turn.said = turn.instructions.pop()
        return turn

    def _record(self, turn: Turn, given: list[dict[str, object]]) -> ResponseRecord:
        request, ref = self._request, self._conversation.ref
        name = None if is_ephemeral(ref) else ref.conversation_id
        model = self._agent or self._api.settings.server.model_name
        opening = request.opening(self._response_id, self._conversation.now() // 1000, model, name)
        return ResponseRecord(
            opening=opening if name is not None else msgspec.structs.replace(opening, store=False),
            run_id=None,
            own_tools=self._asked.own_tools,
            input=shown(given, self._response_id),
            system=[*self._place.system, *turn.instructions],
            implicit=self._place.implicit,
        )

    def _beside(self, record: ResponseRecord, *, records: bool = True) -> Beside:
        request = self._request
        return Beside(
            run_id=record.run_id,
            functions=request.functions or [],
            tool_choice=request.tool_choice,
            parameters=request.parameters,
            records=self._kept(record) if records else [],
        )

    def _kept(self, record: ResponseRecord) -> list[RecordRow]:
        kept = [row(record, self._conversation.now())] if self._request.store else []
        return [*kept, *self._records]

    # -- going on ------------------------------------------------------------------------------------------

    async def _answer(self, turn: Turn, waiting: list[ev.InteractionRequested], record: ResponseRecord) -> None:
        """Answer what the run waits for. What the user says beside that is said to the run first, so that it hears of
        it together with the answers."""
        replies = replies_to(turn, waiting, self._conversation.session.state.calls)
        if turn.past:
            message = "`input` brings history along, and a run of this conversation waits for answers; send only those"
            raise ApiError(409, "conversation_busy", message, param="input")
        if turn.said is not None:
            steer = RunSteer(text=_text_only(turn.said), run_id=record.run_id)
            await self._api.command(self._conversation, steer, self._caller)
        for number, reply in enumerate(replies):
            beside = replace(self._beside(record, records=not number), **self._for_the_rest(turn, record))
            await self._api.command(self._conversation, reply, self._caller, beside)

    def _for_the_rest(self, turn: Turn, record: ResponseRecord) -> dict[str, Any]:
        """What is another for the run that goes on. Functions that the request says nothing of stay."""
        request = self._request
        instructions = self._instructions(record) if request.given.instructions or turn.instructions else None
        functions = request.functions
        if functions is None and (instructions or request.parameters):
            functions = self._conversation.session.functions
        return {"functions": functions, "instructions": instructions}

    # -- beginning -----------------------------------------------------------------------------------------

    async def _say(self, turn: Turn, record: ResponseRecord) -> ResponseRecord:
        past = self._settled(turn)
        if turn.said is None:
            _check_goes_on(past)
        elif past and self._conversation.session.state.epoch is not None:
            await self._api.add_past(self._conversation, self._caller, past)
            past = []
        skip = 0 if turn.said is not None else _steps_at_the_end(past)
        record = replace_run(record, new_id("run"), skip_steps=skip)
        await self._api.begin(
            self._conversation,
            self._caller,
            past,
            turn.said,
            agent=self._agent,
            instructions=self._instructions(record),
            beside=self._beside(record),
        )
        return record

    async def _take_in(self, turn: Turn, record: ResponseRecord) -> ResponseRecord:
        """Keep what is given, and say nothing to it yet."""
        past = self._settled(turn)
        said: Past = [] if turn.said is None else [Said(turn.said)]
        self._caller.check(RunStart(input="-"))
        if past or said or self._conversation.session.state.epoch is None:  # what is kept needs a conversation
            await self._api.add_past(self._conversation, self._caller, [*past, *said])
        record = msgspec.structs.replace(record, after=self._conversation.session.state.head)
        if self._kept(record):
            await keep(self._conversation, self._kept(record))
        return record

    def _settled(self, turn: Turn) -> Past:
        """The whole history to begin with. Outputs in the input may be of calls in a history that is copied."""
        past = [*self._place.past, *turn.past]
        for output in turn.outputs:
            if not _settle(past, output):
                raise no_call(output)
        if turn.leaves:
            raise _nothing_to_judge(turn.leaves[0])
        return past

    def _instructions(self, record: ResponseRecord) -> str | None:
        """The client's own, beside those of the conversation, which they would otherwise take the place of."""
        own = [*record.system, *filter(None, [self._request.given.instructions])]
        config = self._conversation.session.state.config
        return "\n\n".join([*filter(None, [config.instructions]), *own]) if own else None


def replace_run(
    record: ResponseRecord, run_id: str, *, after: int = 0, skip_steps: int = 0, answers: Sequence[str] = ()
) -> ResponseRecord:
    """The record, of this run."""
    return msgspec.structs.replace(record, run_id=run_id, after=after, skip_steps=skip_steps, answers=list(answers))


def _settle(past: Past, output: Output) -> bool:
    for answer in reversed(past):
        for place, call in enumerate(answer.calls if isinstance(answer, Answered) else list[PastCall]()):
            if call.call_id == output.call_id and call.output is None:
                assert isinstance(answer, Answered)
                answer.calls[place] = replace(call, output=output.text, content=output.content)
                return True
    return False


def _check_goes_on(past: Past) -> None:
    """Raises :class:`ApiError` unless the history ends with what calls came to."""
    last = past[-1] if past else None
    if not isinstance(last, Answered) or not last.calls:
        message = "`input` is missing: say something, or send what calls came to"
        raise ApiError(400, "missing_required_parameter", message, param="input")
    check_settled(last, "input")


def _steps_at_the_end(past: Past) -> int:
    """How many of the steps are of the run that is not over."""
    steps = 0
    for one in reversed(past):
        if isinstance(one, Said):
            break
        steps += 1
    return steps


def _text_only(said: Input) -> str:
    if not isinstance(said, str) and any(isinstance(part, ImagePart) for part in said):
        message = "`input` has an image beside answers to what was asked; a run that is going on hears text only"
        raise ApiError(400, "unsupported_content_type", message, param="input")
    return as_text(said)


def _nothing_to_judge(leave: Leave) -> ApiError:
    message = f"No open approval request {leave.request_id[:80]!r} is waiting here."
    return ApiError(400, "unknown_approval_request", message, param=f"{leave.path}.approval_request_id")
