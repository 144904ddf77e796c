"""What an agent reports of its run, how a run ends, and what a restart makes of it: the lower half of a session.

See :mod:`hermes_ws.session`, which adds what people send. Recovery stands at the end: :meth:`Reports.take_up`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, cast

import msgspec

from hermes_ws.answers import secrets_in
from hermes_ws.decisions import Answer, Ask, CallRequest, Decision, RunOptions, SessionLimits, StartRun, StopRun
from hermes_ws.entities import Message, Reasoning, Run, Step, ToolCall
from hermes_ws.errors import CommandError, IllegalTransition
from hermes_ws.preview import preview
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_event, encode
from hermes_ws.protocol.values import AnswerableBy, By, ContentPart, ErrorInfo, Input, TextPart, Usage
from hermes_ws.scrub import Scrubber
from hermes_ws.state import State

__all__ = ["DELTAS", "INTERRUPTED", "AnswerEnd", "RecoveryReason", "Reports"]

SERVER: Final = By(principal="server")
"""Who did it when no person did."""

AnyEvent = TypeVar("AnyEvent", bound=ev.Event)

AnswerEnd = Literal["length", "refused"]
StopReason = Literal["end", "max_steps", "length", "refused"]
RecoveryReason = Literal["server_restarted", "log_unwritable"]
ToolEnd = Literal["ok", "error", "denied", "cancelled", "interrupted"]

INTERRUPTED: Final = (
    "[interrupted: the server stopped while this call was running, and it was not made again. "
    "What it did up to then is done; look before you repeat it.]"
)
"""What the model is told of a call that a restart found in flight."""
DELTAS: Final = (ev.MessageDelta, ev.ReasoningDelta, ev.ToolOutput)
"""Events whose finals make them redundant."""


class Reports:
    """See the top of the module."""

    def __init__(
        self,
        state: State,
        *,
        new_id: Callable[[str], str],
        limits: SessionLimits,
        resolve_agent: Callable[[str | None, str | None], tuple[str, str]],
        fingerprint: Callable[[str, str], str],
        options: Mapping[str, RunOptions] | None = None,
        secrets: Mapping[str, str] | None = None,
        scrubber: Scrubber | None = None,
        preview_bytes: int = 32_768,
    ) -> None:
        """``resolve_agent`` turns the configured agent and model (None: the default) into their names, ``fingerprint``
        the name and value of a secret into what may be shown of it. ``scrubber`` knows the server's secrets.

        ``preview_bytes``: what ``tool.completed`` shows of the output of a call that a stop or a restart cut off.
        """
        self._preview_bytes = preview_bytes
        self.state = state
        self.limits = limits
        self.options: dict[str, RunOptions] = dict(options or {})
        self.secrets: dict[str, str] = dict(secrets or {})
        """The secrets of the configuration, by name (:mod:`hermes_ws.credentials`). In memory only."""
        self.scrubber = Scrubber(scrubber)
        """Knows those, what people answered in secret, and the server's."""
        self._hidden: deque[str] = deque(maxlen=limits.secrets)
        self._hide()
        self._fingerprint = fingerprint
        self._new_id = new_id
        self._resolve_agent = resolve_agent
        self.holding = False
        """While true no queued run starts: the server is going down, and the next one will start them."""
        self.taken_up = True
        """False while what an earlier server left has yet to be taken up: no run starts meanwhile."""
        self._failing: dict[str, ErrorInfo] = {}
        self._wanted_id: str | None = None
        self._jumped_ms = 0
        self._now = 0
        self._decision = Decision()

    # -- the ground ------------------------------------------------------------------------------------

    def _begin(self, now: int) -> None:
        self._now = now
        self._decision = Decision()

    def _emit(self, event_class: Callable[..., AnyEvent], /, **fields: Any) -> AnyEvent:
        event = event_class(seq=self.state.head + 1, ts=self._now, **fields)
        if not isinstance(event, DELTAS):
            event = self._read_back(event)
        self.state.apply(event)
        self._decision.events.append(event)
        return event

    def _read_back(self, event: AnyEvent) -> AnyEvent:
        """The event as the log will have it: readable, whoever's code it comes from, and without secrets."""
        encoded = encode(event)
        scrubbed = self.scrubber.data(encoded)
        decoded = decode_event(scrubbed)
        return event if scrubbed is encoded else cast(AnyEvent, decoded)

    def _hide(self, secrets: Iterable[str] = ()) -> None:
        """Have these appear nowhere from here on, beside those of the configuration."""
        self._hidden += [secret for secret in secrets if secret not in self._hidden]
        self.scrubber.set([*self.secrets.values(), *self._hidden])

    def _answer(self, **fields: Any) -> None:
        self._decision.result.update(fields)

    def _start(self, run_id: str, value: Input, by: By) -> None:
        config, options = self.state.config, self.options.get(run_id, RunOptions())
        agent, model = self._resolve_agent(options.agent or config.agent, config.model)
        # What it began with, it goes on with, also after a restart: the configuration may have changed by then.
        instructions = options.instructions if options.instructions is not None else config.instructions or ""
        self.options[run_id] = msgspec.structs.replace(options, instructions=instructions)
        self._jumped_ms = 0
        self._emit(
            ev.RunStarted,
            run_id=run_id,
            input=value,
            agent_name=agent,
            model=model,
            attempt=1,
            retry_of=options.retry_of,
            by=by,
        )
        self._decision.effects.append(StartRun(run_id))

    # -- questions ------------------------------------------------------------------------------------

    def ask(self, run_id: str, question: Ask, now: int) -> tuple[str, Decision]:
        """Open an interaction; returns its id. Raises :class:`CommandError` when too many are open."""
        self._begin(now)
        if len(self.state.interactions) >= self.limits.open_interactions:
            raise CommandError("overloaded", f"{self.limits.open_interactions} questions are open already")
        interaction_id = self._new_id("int")
        timeout_ms = question.timeout_ms or self.limits.interaction_timeout_s * 1000
        self._emit(
            ev.InteractionRequested,
            run_id=run_id,
            interaction_id=interaction_id,
            kind=question.kind,
            call_id=question.call_id,
            title=question.title,
            message=question.message,
            tool=question.tool,
            options=question.options,
            questions=question.questions,
            schema=question.schema,
            url=question.url,
            editable=question.editable,
            digest=question.digest,
            requested_at=now,
            expires_at=now + timeout_ms,
            on_expire=question.on_expire,
            answerable_by=AnswerableBy(roles=list(question.roles)),
            owner=question.owner,
        )
        run = self.state.runs[run_id]
        if len(run.interactions) == 1:
            self._emit(ev.RunWaiting, run_id=run_id, interactions=[interaction_id])
        return interaction_id, self._decision

    def withdraw(self, interaction_id: str, now: int) -> Decision:
        """Whoever asked does not ask any more."""
        self._begin(now)
        self._resolve(self.state.interactions[interaction_id], outcome="cancelled", by=SERVER, via="policy")
        return self._decision

    def _resolve(
        self,
        asked: ev.InteractionRequested,
        *,
        outcome: Literal["answered", "expired", "cancelled"],
        by: By,
        via: Literal["socket", "http", "policy", "timeout"],
        real_answers: dict[str, Any] | None = None,
        **fields: Any,
    ) -> ev.InteractionResolved:
        self._hide(secrets_in(asked, real_answers))
        resolution = self._emit(
            ev.InteractionResolved,
            run_id=asked.run_id,
            interaction_id=asked.interaction_id,
            outcome=outcome,
            by=by,
            via=via,
            **fields,
        )
        run = self.state.runs[asked.run_id]
        if not run.interactions:
            self._emit(ev.RunResumed, run_id=asked.run_id, interactions=list(run.waited_for))
        self._decision.effects.append(Answer(asked, resolution, real_answers))
        return resolution

    # -- agent's reports -------------------------------------------------------------------------------

    def _reporting(self, run_id: str) -> Run:
        """The run that an agent reports of. It must be the active one: no other has an agent."""
        run = self.state.active
        if run is None or run.run_id != run_id:
            raise IllegalTransition(f"a report of run {run_id}, which is not active")
        return run

    def _open_step(self, run: Run) -> Step:
        if run.step is None or run.step.finished:
            raise IllegalTransition(f"{run.run_id} has no open step")
        return run.step

    def begin_step(self, run_id: str, now: int) -> Decision:
        """A model call begins."""
        self._begin(now)
        run = self._reporting(run_id)
        self._emit(ev.StepStarted, run_id=run_id, step=run.step.number + 1 if run.step else 1)
        return self._decision

    def delta(self, run_id: str, kind: Literal["message", "reasoning"], text: str, now: int) -> Decision:
        """The model said or thought a piece. Items begin by themselves; speaking ends a block of thought."""
        self._begin(now)
        text = self.scrubber.text(text)
        run = self._reporting(run_id)
        step = self._open_step(run)
        if step.whole:
            raise IllegalTransition(f"step {step.number} has had its answer; more takes a step of its own")
        if kind == "message":
            self._end_reasoning(run)
            message = _open_item(run, Message)
            item_id = message.item_id if message else self._begin_message(step)
            self._emit(ev.MessageDelta, run_id=run_id, item_id=item_id, delta=text)
        else:
            block = _open_item(run, Reasoning)
            item_id = block.item_id if block else self._new_id("rsn")
            self._emit(ev.ReasoningDelta, run_id=run_id, item_id=item_id, delta=text)
        return self._decision

    def _begin_message(self, step: Step) -> str:
        item_id = self._new_id("msg")
        self._emit(ev.MessageStarted, run_id=step.run_id, item_id=item_id, step=step.number)
        return item_id

    def _end_reasoning(self, run: Run) -> None:
        block = _open_item(run, Reasoning)
        if block is not None:
            self._emit(ev.ReasoningAvailable, run_id=run.run_id, item_id=block.item_id, text=block.text)

    def _end_message(self, run: Run, *, partial: bool = False) -> None:
        message = _open_item(run, Message)
        if message is not None:
            text = message.text
            content: list[ContentPart] = [TextPart(text=text)] if text else []
            self._emit(
                ev.MessageCompleted,
                run_id=run.run_id,
                item_id=message.item_id,
                text=text,
                content=content,
                partial=partial or None,
            )

    def finish_call(
        self, run_id: str, calls: Sequence[CallRequest], now: int, usage: Usage | None = None
    ) -> tuple[list[str], Decision]:
        """The model's answer is whole: its finals and all its tool calls, in one commit. Returns the ids of the calls
        that are to be made. ``usage``: what the answer has cost, if that is known."""
        self._begin(now)
        run = self._reporting(run_id)
        step = self._open_step(run)
        if step.whole:
            raise IllegalTransition(f"step {step.number} has had its answer; more takes a step of its own")
        self._end_reasoning(run)
        self._end_message(run)
        call_ids: list[str] = []
        problems: dict[str, str] = {}
        for call in calls:
            call_id = call.call_id if self._is_usable(call.call_id) else self._new_id("call")
            self._emit(
                ev.ToolStarted,
                run_id=run_id,
                call_id=call_id,
                step=step.number,
                name=call.name if call.problem is None else self.scrubber.text(call.name),
                source=call.source,
                title=call.title,
                arguments=call.arguments,
                annotations=call.annotations,
                owner=call.owner,
                usage=usage if call is calls[-1] else None,
            )
            if call.problem is None:
                call_ids.append(call_id)
            else:
                problems[call_id] = call.problem
        for call_id, problem in problems.items():
            self._complete(self.state.calls[call_id], status="error", output=problem)
        return call_ids, self._decision

    def _is_usable(self, call_id: str) -> bool:
        """Whether a call may have the id that a model gave it."""
        return bool(call_id) and call_id not in self.state.calls and self.scrubber.text(call_id) == call_id

    def discard_call(self, run_id: str, reason: Literal["retried", "failed"], now: int) -> Decision:
        """The model's answer broke off: what it streamed in this step does not count."""
        self._begin(now)
        self._discard(self._reporting(run_id), reason)
        return self._decision

    def _discard(self, run: Run, reason: Literal["retried", "failed"], *, open_only: bool = False) -> None:
        items = run.step.items if run.step else []
        for item in [i for i in items if isinstance(i, (Message, Reasoning))]:
            if item.item_id in run.open or not open_only:
                self._emit(ev.ItemDiscarded, run_id=run.run_id, item_id=item.item_id, reason=reason)

    def finish_step(self, run_id: str, usage: Usage, now: int, stop_reason: AnswerEnd | None = None) -> Decision:
        """The model call and its tools are done. Where it asked for none, its finals come in the same commit: after a
        crash an answer is either finished or asked for again."""
        self._begin(now)
        run = self._reporting(run_id)
        step = self._open_step(run)
        self._end_reasoning(run)
        self._end_message(run)
        self._emit(
            ev.StepCompleted,
            run_id=run_id,
            step=step.number,
            usage=usage,
            duration_ms=max(0, now - step.started_at),
            stop_reason=stop_reason,
        )
        return self._decision

    def tool_executing(self, run_id: str, call_id: str, arguments: dict[str, Any], now: int) -> Decision:
        """Policy has let the call pass; nothing has run yet. Wait for the commit before anything does."""
        self._begin(now)
        self._emit(ev.ToolExecuting, run_id=run_id, call_id=call_id, arguments=arguments)
        return self._decision

    def tool_output(self, run_id: str, call_id: str, now: int, **fields: Any) -> Decision:
        """The call printed something, or tells how far it is: the fields of ``tool.output``."""
        self._begin(now)
        texts = {name: self.scrubber.text(value) for name, value in fields.items() if isinstance(value, str)}
        self._emit(ev.ToolOutput, run_id=run_id, call_id=call_id, **{**fields, **texts})
        return self._decision

    def tool_completed(
        self,
        run_id: str,
        call_id: str,
        now: int,
        *,
        status: ToolEnd,
        output: str,
        truncated: bool = False,
        structured: Any = None,
        content: list[ContentPart] | None = None,
    ) -> Decision:
        """The call is over. Questions that it left open are cancelled."""
        self._begin(now)
        call = self._reporting(run_id).open.get(call_id)
        if not isinstance(call, ToolCall):
            raise IllegalTransition(f"call {call_id} is not open in run {run_id}")
        self._complete(call, status=status, output=output, truncated=truncated, structured=structured, content=content)
        return self._decision

    def _complete(
        self, call: ToolCall, *, status: ToolEnd, output: str, truncated: bool = False, **fields: Any
    ) -> None:
        for asked in [i for i in self.state.interactions.values() if i.call_id == call.call_id]:
            self._resolve(asked, outcome="cancelled", by=SERVER, via="policy")
        self._emit(
            ev.ToolCompleted,
            run_id=call.run_id,
            call_id=call.call_id,
            name=call.name,
            status=status,
            output=output,
            truncated=truncated,
            duration_ms=call.elapsed_ms(self._now),
            **fields,
        )

    def mcp_status(
        self,
        server: str,
        state: Literal["starting", "ready", "auth_required", "failed", "stopped"],
        now: int,
        *,
        tools: list[str] | None = None,
        error: str | None = None,
    ) -> Decision:
        """An MCP server of the conversation has changed state, or its tools."""
        self._begin(now)
        self._emit(ev.McpStatus, server=server, state=state, tools=tools, error=error)
        return self._decision

    def take_steers(self, run_id: str, now: int) -> tuple[list[str], Decision]:
        """Between two steps: what was said to the run since. It is in the history from here on."""
        self._begin(now)
        run = self._reporting(run_id)
        texts: list[str] = []
        if run.status != "stopping":
            for steer in list(run.steers.values()):
                self._settle_steer(run, steer.steer_id, "applied")
                texts.append(steer.text)
        return texts, self._decision

    def _settle_steer(
        self, run: Run, steer_id: str, disposition: Literal["applied", "queued", "returned"], **fields: Any
    ) -> None:
        steer = run.steers[steer_id]
        self._emit(
            ev.RunSteered,
            run_id=run.run_id,
            steer_id=steer_id,
            text=steer.text,
            by=steer.by,
            disposition=disposition,
            **fields,
        )

    # -- the end of a run ------------------------------------------------------------------------------

    def end_run(self, run_id: str, outcome: StopReason | ErrorInfo, now: int) -> Decision:
        """The agent is done, by itself or because it was stopped: what it left open is closed, the run ends, and
        the next one in the queue starts. A stop or a deadline that was under way decides how it ended."""
        self._begin(now)
        run = self._reporting(run_id)
        failure = self._failing.pop(run_id, None) or (outcome if isinstance(outcome, ErrorInfo) else None)
        stopped = run.status == "stopping"
        self._close_questions(run)
        self._close_calls(run)
        if failure is not None and not stopped:
            self._discard(run, "failed", open_only=True)
        self._end_reasoning(run)
        self._end_message(run, partial=stopped)
        late = self._close_steers(run, stopped)
        bounds = self.options.get(run_id, RunOptions()).bounds
        self._emit_terminal(run, outcome, failure)
        for new_run_id, steer_text, by in late:
            self.options[new_run_id] = RunOptions(bounds=bounds, first_seq=self.state.head + 1)
            self._emit(ev.RunQueued, run_id=new_run_id, input=steer_text, position=len(self.state.queue) + 1, by=by)
        self._start_next()
        return self._decision

    def _close_questions(self, run: Run) -> None:
        for interaction_id in list(run.interactions):
            asked = self.state.interactions[interaction_id]
            self._resolve(asked, outcome="cancelled", by=run.stopped_by or SERVER, via="policy")

    def _close_calls(self, run: Run) -> None:
        for call in [i for i in run.open.values() if isinstance(i, ToolCall)]:
            cut_off = call.status == "executing" and not call.repeatable
            status: ToolEnd = "interrupted" if cut_off else "cancelled"
            self._complete(call, status=status, **self._printed(call))

    def _printed(self, call: ToolCall, note: str = "") -> dict[str, Any]:
        """What a call that did not end by itself had printed, as a preview, with a note to the model."""
        output, truncated = preview(call.output, self._preview_bytes)
        return {"output": f"{output}\n{note}" if output and note else output or note, "truncated": truncated}

    def _close_steers(self, run: Run, stopped: bool) -> list[tuple[str, str, By]]:
        """Text that came too late becomes a run, or goes back. After a stop it goes back: stop means stop."""
        late: list[tuple[str, str, By]] = []
        for steer in list(run.steers.values()):
            if steer.if_late == "queue" and not stopped and self._room_for(len(late)):
                new_run_id = self._new_id("run")
                self._settle_steer(run, steer.steer_id, "queued", new_run_id=new_run_id)
                late.append((new_run_id, steer.text, steer.by))
            else:
                self._settle_steer(run, steer.steer_id, "returned")
        return late

    def _room_for(self, more: int) -> bool:
        return len(self.state.queue) + more < self.limits.queue_length

    def _emit_terminal(self, run: Run, outcome: StopReason | ErrorInfo, failure: ErrorInfo | None) -> None:
        if run.status == "stopping":
            reason = "interrupt" if run.interrupted else "stop"
            by = run.stopped_by or SERVER
            self._emit(ev.RunCancelled, run_id=run.run_id, reason=reason, by=by, usage=run.usage)
        elif failure is not None:
            self._emit(ev.RunFailed, run_id=run.run_id, error=failure, usage=run.usage)
        else:
            self._emit(
                ev.RunCompleted,
                run_id=run.run_id,
                output=run.output,
                stop_reason=outcome,
                usage=run.usage,
                duration_ms=max(0, self._now - run.started_at),
            )

    def _start_next(self) -> None:
        if self.state.active is None and self.state.queue and self.taken_up and not self.holding:
            run = self.state.runs[self.state.queue[0]]
            self._start(run.run_id, run.input, run.by)

    # -- recovery --------------------------------------------------------------------------------------

    def take_up(self, now: int, *, max_attempts: int, reason: RecoveryReason = "server_restarted") -> Decision:
        """After a restart: go on with the run whose agent is gone, from the journal, and with the queue.

        A run that was being stopped is over. Any other goes on, unless it was taken up ``max_attempts`` times without
        anything of it being finished in between (guarantee 8).
        """
        self._take_up(now, max_attempts, reason)
        for last in self.stale_servers():
            self._emit(ev.McpStatus, server=last, state="stopped")
        return self._decision

    def stale_servers(self) -> list[str]:
        """MCP servers that the log calls connected, which after a restart none is."""
        return [name for name, last in self.state.mcp.items() if last.state in ("starting", "ready")]

    def _take_up(self, now: int, max_attempts: int, reason: RecoveryReason) -> None:
        self._begin(now)
        self.taken_up = True
        run = self.state.active
        if run is None:
            self._start_next()
        elif run.status == "stopping" or run.run_id in self._failing:
            self.end_run(run.run_id, "end", now)
        elif run.fruitless >= max_attempts and run.status != "waiting":
            message = f"the server stopped during this run {max_attempts + 1} times, and nothing of it was finished"
            self.end_run(run.run_id, ErrorInfo(code="recovery_exhausted", message=message, retryable=True), now)
        else:
            self._emit(ev.RunRecovered, run_id=run.run_id, attempt=run.attempt + 1, reason=reason)
            self._mend_step(run)
            self._decision.effects.append(StartRun(run.run_id))

    def _mend_step(self, run: Run) -> None:
        """What the crash cut in two. An answer that was not whole is asked for again; a call that was in flight and
        may not run twice is over. The other calls go on where they were, which is the runtime's to do."""
        if run.step is None or run.step.finished:
            return
        self._discard(run, "retried", open_only=run.step.whole)
        for call in run.step.calls:
            if call.status == "executing" and not call.repeatable:
                self._complete(call, status="interrupted", **self._printed(call, INTERRUPTED))

    # -- time ------------------------------------------------------------------------------------------

    def next_timer(self) -> int | None:
        """When :meth:`tick` has something to do (Unix ms), or None."""
        due = [asked.expires_at for asked in self.state.interactions.values()]
        run = self.state.active
        if run is not None and run.at_work and run.run_id not in self._failing:
            due.append(run.started_at + run.waited_ms + self._jumped_ms + self.deadline_ms(run.run_id))
        return min(due, default=None)

    def jumped(self, by_ms: int) -> None:
        """The clock was set: to the deadline of a run at work that is no time that passed."""
        run = self.state.active
        self._jumped_ms += by_ms if run is not None and run.asking_since is None else 0

    def give_up(self, run_id: str, error: ErrorInfo) -> Decision:
        """End the active run as failed: its agent is cancelled, and reports the end."""
        self._decision = Decision()
        if run_id not in self._failing:
            self._failing[run_id] = error
            self._decision.effects.append(StopRun(run_id))
        return self._decision

    def tick(self, now: int) -> Decision:
        """Expire what is due: questions take their default, a run past its deadline is cancelled to fail."""
        self._begin(now)
        for asked in [i for i in self.state.interactions.values() if i.expires_at <= now]:
            self._resolve(asked, outcome="expired", option=asked.on_expire.option, by=SERVER, via="timeout")
        run = self.state.active
        if run is not None and run.at_work and run.run_id not in self._failing:
            deadline_ms = self.deadline_ms(run.run_id)
            if run.elapsed_ms(now) - self._jumped_ms >= deadline_ms:
                message = f"the run took longer than its {deadline_ms} ms"
                self._failing[run.run_id] = ErrorInfo(code="deadline_exceeded", message=message, retryable=True)
                self._decision.effects.append(StopRun(run.run_id))
        return self._decision

    def deadline_ms(self, run_id: str) -> int:
        """How long a run may work: what it asked for, else the conversation's, else the server's; bounded."""
        options, config = self.options.get(run_id, RunOptions()), self.state.config.limits
        asked = options.deadline_ms or (config.deadline_ms if config else None)
        most = self.limits.run_deadline_max_s * 1000
        return min(asked or self.limits.run_deadline_s * 1000, most)


def _open_item(run: Run, kind: type[Any]) -> Any:
    for item in run.open.values():  # a plain loop: this is asked at every delta
        if isinstance(item, kind):
            return item
    return None
