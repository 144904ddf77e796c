"""What the handlers of the OpenAI-compatible routes share: who asks, bodies, conversations, runs, streams."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, NamedTuple, TypeVar

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.past import Answered, Imported, Past, PastCall, Said, events_of
from hermes_ws.compat.settings import RESPONSE
from hermes_ws.decisions import RunOptions
from hermes_ws.errors import CommandError, HermesError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import Command, RunStart, RunStop
from hermes_ws.protocol.control import Ok
from hermes_ws.protocol.values import ConversationId, Input
from hermes_ws.routes.body import read_body
from hermes_ws.routes.streams import EventStream, unless_gone
from hermes_ws.routes.weights import check_command, check_past
from hermes_ws.runtime.commands import Beside, do
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.following import batches, events_between, follow
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.runtime.runtime import Runtime, new_id
from hermes_ws.settings import Settings
from hermes_ws.store.base import ConversationRef, RecordRow
from hermes_ws.store.directory import is_ephemeral
from hermes_ws.validation import too_deep

__all__ = ["NEW", "Api", "Begun", "Handler", "Route", "json_response", "parsed"]

T = TypeVar("T")

NEW: Final = "new"
"""In the place of a conversation's id: the server chooses one. So there is none that is called so."""
_IDEMPOTENCY_CHARS: Final = 255
_OF_RUNS: Final = ("tools", "deadline_ms", "metadata")
"""Fields of ``run.start`` that a run has from its first moment to its last."""


class Begun(NamedTuple):
    """A run that was begun: its events follow ``after``. ``duplicate``: an earlier request has begun it."""

    run_id: str
    after: int
    duplicate: bool = False


class Api:
    """The server, as a handler sees it."""

    def __init__(self, runtime: Runtime, settings: Settings, identify: Callable[[Request], Principal]) -> None:
        """``identify`` says who a request comes from; it raises :class:`ApiError` 401."""
        self.runtime = runtime
        self.settings = settings
        self.started_at = int(time.time())
        self._identify = identify
        self._leaving: set[tuple[ConversationRef, str | None]] = set()
        """Runs whose requests have gone, and that have yet to be stopped."""

    # -- requests --------------------------------------------------------------------------------------

    def caller(self, request: Request) -> Caller:
        """Who asks. Raises :class:`ApiError` 401."""
        return Caller(self._identify(request), "http")

    @staticmethod
    def request_id(request: Request) -> str:
        """The id that the answer carries as ``X-Request-Id``."""
        return str(request.scope.get("hermes_ws.request_id", ""))

    async def json(self, request: Request) -> dict[str, Any]:
        """The body, a JSON object. Raises :class:`ApiError` 400, or :class:`CommandError` ``too_large``."""
        return parsed(await read_body(request, self.settings.limits.body_bytes))

    def idempotent_id(self, request: Request) -> str | None:
        """A command id that follows from the ``Idempotency-Key``, if there is one: the same at the same address."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return None
        if not 1 <= len(key) <= _IDEMPOTENCY_CHARS:
            message = f"the Idempotency-Key has 1 to {_IDEMPOTENCY_CHARS} characters"
            raise ApiError(400, "invalid_idempotency_key", message)
        named = "\0".join((request.method, request.url.path, key))
        return f"key:{hashlib.sha256(named.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"

    # -- agents ----------------------------------------------------------------------------------------

    def models(self, caller: Caller) -> list[str]:
        """What ``model`` may be: the name of the default agent for such clients, then every agent's own."""
        return list(dict.fromkeys([self.settings.server.model_name, *self.runtime.agents]))

    def agent(self, caller: Caller, model: str | None) -> str:
        """The agent that a ``model`` means. Raises :class:`ApiError` 404 ``model_not_found``."""
        if not model or model == self.settings.server.model_name:
            return self.settings.server.default_agent
        if model in self.runtime.agents:
            return model
        there = ", ".join(self.models(caller))
        raise ApiError(404, "model_not_found", f"there is no model {model[:80]!r}; there are {there}", param="model")

    # -- conversations ---------------------------------------------------------------------------------

    def ref(self, caller: Caller, conversation_id: str) -> ConversationRef:
        """The conversation of that id. Raises :class:`ApiError` 400 or 403."""
        if conversation_id == NEW:
            message = f"`{NEW}` is no conversation's id: where an address or a header takes it, the server chooses one"
            raise ApiError(400, "invalid_conversation_id", message)
        try:
            msgspec.convert(conversation_id, ConversationId)
        except msgspec.ValidationError:
            message = "a conversation id is 1 to 128 of A-Z a-z 0-9 . _ : - and begins with a letter or digit"
            raise ApiError(400, "invalid_conversation_id", message) from None
        if not caller.principal.may_open(conversation_id):
            raise ApiError(403, "not_permitted", "your credential does not reach this conversation")
        return ConversationRef(caller.principal.namespace, conversation_id)

    async def open(self, ref: ConversationRef) -> Conversation:
        """See :meth:`Runtime.open`."""
        return await self.runtime.open(ref)

    async def new(self, caller: Caller, prefix: str = "conv") -> Conversation:
        """A conversation without events, under an id of its own."""
        return await self.open(self.ref(caller, new_id(prefix)))

    async def temporary(self, caller: Caller) -> Conversation:
        """A conversation that is not kept. Whoever takes it calls :meth:`discard`, or :meth:`left`, in the end."""
        caller.check(RunStart(input="-"))
        self.runtime.check_draining()
        return await self.runtime.begin_ephemeral(caller.principal.namespace)

    async def discard(self, conversation: Conversation) -> None:
        """Have a temporary conversation be over; any other stays. Whoever is cancelled here has it end all the same."""
        if is_ephemeral(conversation.ref):
            await self.runtime.delete(conversation.ref)

    async def command(
        self, conversation: Conversation, command: Command, caller: Caller, beside: Beside | None = None
    ) -> Ok:
        """Have a command done. Raises :class:`CommandError` when it is refused, and :class:`ApiError` 413 when it is
        heavier than a frame may be."""
        check_command(command, self.settings.limits.frame_bytes)
        return await do(self.runtime, conversation, command, caller, beside or Beside())

    # -- runs ------------------------------------------------------------------------------------------

    async def begin(
        self,
        conversation: Conversation,
        caller: Caller,
        past: Past,
        said: Input | None,
        *,
        agent: str | None = None,
        instructions: str | None = None,
        beside: Beside | None = None,
        **more: Any,
    ) -> Begun:
        """Begin a run. ``past`` comes before it, in a conversation that has no events yet; where nothing was ``said``,
        the past ends with what calls came to, and its last run goes on. ``more`` are further fields of ``run.start``.

        Raises :class:`ApiError` or :class:`CommandError`.
        """
        beside = beside or Beside()
        if past and conversation.session.state.epoch is not None:
            raise ApiError(409, "history_not_empty", "this conversation has a history; send only what is new")
        if said is None:
            return await self._go_on(conversation, caller, past, agent, instructions, beside, **more)
        start = RunStart(input=said, agent=agent, instructions=instructions, **more)
        caller.check(start)
        await self._stop_left(conversation, caller)
        if past:
            await self._bring(conversation, caller, past, agent)
        ok = await self.command(conversation, start, caller, beside)
        assert ok.run_id is not None
        return Begun(ok.run_id, await self.first_seq(conversation, ok.run_id) - 1, bool(ok.duplicate))

    async def _go_on(
        self,
        conversation: Conversation,
        caller: Caller,
        past: Past,
        agent: str | None,
        instructions: str | None,
        beside: Beside,
        **more: Any,
    ) -> Begun:
        """Have the last run of ``past`` go on, with what of ``more`` is for a run that is there already."""
        caller.check(RunStart(input="-"))
        self.runtime.check_draining()
        if not past:
            raise ApiError(400, "empty_input", "there is nothing to go on from: send what is said, or a history")
        options = msgspec.structs.replace(
            beside.options(),
            agent=agent,
            instructions=instructions or "",
            bounds=[] if caller.principal.tools is None else [caller.principal.tools],
            **{name: more[name] for name in _OF_RUNS if more.get(name) is not None},
        )
        run_id = beside.run_id or new_id("run")
        last = await self._bring(conversation, caller, past, agent, run_id, options, beside.records)
        await conversation.settled()
        return Begun(run_id, last)

    async def add_past(self, conversation: Conversation, caller: Caller, past: Past) -> None:
        """Append history without running anything. Raises :class:`CommandError` ``busy`` while a run is there."""
        caller.check(RunStart(input="-"))
        self.runtime.check_draining()
        await self._bring(conversation, caller, past, None)
        await conversation.settled()

    async def _bring(
        self,
        conversation: Conversation,
        caller: Caller,
        past: Past,
        agent: str | None,
        open_run: str | None = None,
        options: RunOptions | None = None,
        records: Sequence[RecordRow] = (),
    ) -> int:
        """Have the history in the log, and ``open_run`` go on from its end; the number of its last event."""
        past = await self._settled(conversation, caller, past)
        state = conversation.session.state
        name, model = self.runtime.resolve_agent(agent or state.config.agent, state.config.model)

        def make() -> tuple[list[ev.Event], dict[str, RunOptions]]:
            imported = events_of(
                past,
                head=state.head,
                now=conversation.now(),
                by=caller.by,
                agent=name,
                model=model,
                new_id=new_id,
                known=state.calls,
                open_run=open_run,
            )
            return imported.events, _options_of(imported, options)

        conversation.bring(make, records)
        last = state.head
        await self._retire(conversation, caller, past)
        return last

    async def _settled(self, conversation: Conversation, caller: Caller, past: Past) -> Past:
        """The history with its images stored."""
        check_past(past, self.settings.limits.frame_bytes)
        images, reach = self.runtime.images, caller.principal.conversations is None
        settled: Past = []
        for one in past:
            if isinstance(one, Said):
                settled.append(Said(await images.resolved(conversation, one.parts, reach=reach)))
            else:
                calls = [await self._settled_call(conversation, call) for call in one.calls]
                settled.append(Answered(one.text, one.reasoning, calls))
        return settled

    async def _settled_call(self, conversation: Conversation, call: PastCall) -> PastCall:
        """The call without secrets in what holds events together: an id that has one in it is made anew."""
        content, scrub = call.content, conversation.session.scrubber.text
        if content:
            content = await self.runtime.images.settled(conversation, content, "$.content")
        call_id = call.call_id if scrub(call.call_id) == call.call_id else ""
        return PastCall(call_id, scrub(call.name), call.arguments, call.output, call.is_error, content)

    async def first_seq(self, conversation: Conversation, run_id: str) -> int:
        """The number of a run's first event."""
        options = conversation.session.options.get(run_id)
        if options is None:
            row = await conversation.store.run(conversation.ref, run_id)
            options = msgspec.json.decode(row.options, type=RunOptions) if row is not None else RunOptions()
        return max(options.first_seq, 1)

    # -- the log ---------------------------------------------------------------------------------------

    async def follow(
        self, ref: ConversationRef, after: int, run_id: str | None = None
    ) -> AsyncGenerator[ev.Event | None]:
        """Committed events that follow ``after``, those of one run if it is named, in order and for ever; None when
        nothing came for a while. See :func:`hermes_ws.runtime.following.follow`."""
        silence_s = self.settings.compat.keepalive_s
        async with aclosing(follow(self.runtime, ref, after, silence_s=silence_s, run_id=run_id)) as events:
            async for event in events:
                if event is None or run_id is None or (isinstance(event, ev.RunEvent) and event.run_id == run_id):
                    yield event

    async def batches(
        self, ref: ConversationRef, after: int, run_id: str | None = None
    ) -> AsyncGenerator[list[ev.Event]]:
        """The same, as many at once as are there; none at all when nothing came for a while."""
        silence_s = self.settings.compat.keepalive_s
        async with aclosing(batches(self.runtime, ref, after, silence_s=silence_s, run_id=run_id)) as found:
            async for events in found:
                wanted = [e for e in events if run_id is None or (isinstance(e, ev.RunEvent) and e.run_id == run_id)]
                if wanted or not events:
                    yield wanted

    async def events(
        self, ref: ConversationRef, after: int, run_id: str | None = None, *, deltas: bool = False
    ) -> list[ev.Event]:
        """What is in the log now after ``after``, of one run if it is named."""
        conversation = await self.open(ref)
        with conversation.held():
            found = await events_between(conversation, after, deltas=deltas)
        return [e for e in found if run_id is None or (isinstance(e, ev.RunEvent) and e.run_id == run_id)]

    # -- answers ---------------------------------------------------------------------------------------

    def sse(self, frames: AsyncGenerator[bytes], *, headers: Mapping[str, str] | None = None) -> Response:
        """The frames as a stream of server-sent events."""
        return EventStream(frames, stall_s=self.settings.compat.stall_s, headers=headers)

    async def unless_gone(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """See :func:`hermes_ws.routes.streams.unless_gone`."""
        return await unless_gone(request, work)

    def left(self, conversation: Conversation, run_id: str | None, caller: Caller) -> None:
        """Whoever waited for the run has gone: it is stopped after a while, or at once where others wait for its end,
        unless somebody else follows it. A temporary conversation is over when nobody follows it."""
        ref, state = conversation.ref, conversation.session.state
        waited_for = state.queue and state.active is not None and state.active.run_id == run_id
        grace_s = 0.0 if waited_for else self.settings.compat.disconnect_grace_s
        self._leaving.add((ref, run_id))
        self.runtime.spawn(lambda: self._stop_later(ref, run_id, caller, grace_s))

    async def _stop_later(self, ref: ConversationRef, run_id: str | None, caller: Caller, grace_s: float) -> None:
        with suppress(HermesError):
            await anyio.sleep(grace_s)
            conversation = await self.open(ref)
            while is_ephemeral(ref) and conversation.is_followed() and run_id in conversation.session.state.runs:
                await conversation.wait_beyond(conversation.committed, self.settings.compat.keepalive_s)
            if run_id is not None:
                await self._stop_unless_followed(conversation, run_id, caller)
            await self.discard(conversation)
        self._leaving.discard((ref, run_id))

    async def _stop_unless_followed(self, conversation: Conversation, run_id: str, caller: Caller) -> None:
        there = run_id in conversation.session.state.runs and not conversation.dead
        if there and not conversation.is_followed(run_id):
            with suppress(CommandError):
                await self.command(conversation, RunStop(run_id=run_id), caller)

    async def _stop_left(self, conversation: Conversation, caller: Caller) -> None:
        """Something new is said: nobody comes back for what was left before."""
        for ref, run_id in [one for one in self._leaving if one[0] == conversation.ref]:
            if run_id is not None:
                await self._stop_unless_followed(conversation, run_id, caller)
                self._leaving.discard((ref, run_id))

    async def _retire(self, conversation: Conversation, caller: Caller, past: Past) -> None:
        """A client that brings its whole history along has answered calls in it that an earlier run of a response still
        waits for: nobody will answer them there."""
        calls = [call for one in past if isinstance(one, Answered) for call in one.calls if call.output is not None]
        for call in calls:
            for waiting in self.runtime.handed.of(conversation.ref.namespace, call.call_id):
                run = waiting.session.state.active
                if run is None or waiting is conversation or not _is_waiting(waiting, call, caller):
                    continue
                if is_ephemeral(waiting.ref) or await waiting.store.records(waiting.ref, RESPONSE):
                    await self._stop_unless_followed(waiting, run.run_id, caller)


def _is_waiting(conversation: Conversation, call: PastCall, caller: Caller) -> bool:
    """Whether a run of the caller's waits for this very call, and for nothing but functions of the client's."""
    state = conversation.session.state
    asked = [interaction.tool for interaction in state.interactions.values() if interaction.call_id == call.call_id]
    same = any(tool is not None and (tool.name, tool.arguments) == (call.name, call.arguments) for tool in asked)
    mine = state.active is not None and state.active.by.principal == caller.principal.name
    return same and mine and all(one.kind == "client_tool" for one in state.interactions.values())


def _options_of(imported: Imported, options: RunOptions | None) -> dict[str, RunOptions]:
    """The options of the runs that were brought along; ``options`` are for the one that goes on."""
    found: dict[str, RunOptions] = {}
    steps = 0
    for event in imported.events:
        if isinstance(event, ev.RunStarted):
            found[event.run_id] = RunOptions(first_seq=event.seq, imported=True)
            steps = 0
        steps += isinstance(event, ev.StepStarted)
    if imported.open_run is not None and options is not None:
        first_seq = found[imported.open_run].first_seq
        found[imported.open_run] = msgspec.structs.replace(options, first_seq=first_seq, choice_step=steps + 1)
    return found


def parsed(body: bytes) -> dict[str, Any]:
    """A body as the JSON object that it has to be. Raises :class:`ApiError` 400."""
    try:
        value: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.ValidationError:
        raise ApiError(400, "invalid_json", "the body is a JSON object") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, "invalid_json", f"the body is not JSON: {why}") from None
    if too_deep(value):
        raise ApiError(400, "invalid_json", "the body is nested too deeply")
    return value


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``value`` as JSON."""
    return Response(msgspec.json.encode(value), status, dict(headers or {}), media_type="application/json")


Handler = Callable[[Api, Request], Coroutine[Any, Any, Response]]
Route = tuple[str, str, Handler]
"""Method, path, handler."""
