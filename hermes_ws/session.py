"""One conversation as a state machine without I/O.

Theory of operation. A :class:`Session` holds a :class:`~hermes_ws.state.State` (what the log adds up to) and turns
what happens into events and effects:

* a person's command (:meth:`Session.command`),
* an agent's report (``begin_step``, ``delta``, ``finish_call``, ``tool_*``, ``ask``, ``finish_step``, ``end_run``),
* the clock (:meth:`Session.tick`, due at :meth:`Session.next_timer`).

Each call returns one :class:`Decision`: events, already folded into the state, and effects. The caller appends the
events to the log in one commit and carries the effects out only after that. If the commit fails, the caller throws
the whole session away and folds the log anew: there is no undo. A refused command raises
:class:`~hermes_ws.errors.CommandError` before anything was changed.

Time and ids are passed in; nothing here reads a clock. Which event is legal when stands in ``state.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from hermes_ws.answers import check_answers, redact
from hermes_ws.decisions import (
    Answer,
    Ask,
    CallRequest,
    Decision,
    RememberRule,
    RunOptions,
    SessionLimits,
    StartRun,
    StopRun,
)
from hermes_ws.entities import Message, Reasoning, Run, Step, ToolCall
from hermes_ws.errors import CommandError, IllegalTransition
from hermes_ws.merge_patch import merged
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import (
    Command,
    ConversationConfigure,
    InteractionReply,
    RunStart,
    RunSteer,
    RunStop,
    command_type,
)
from hermes_ws.protocol.values import (
    AnswerableBy,
    ApprovalRule,
    By,
    ContentPart,
    ErrorInfo,
    Input,
    Role,
    Rule,
    TextPart,
    ToolFilter,
    Usage,
)
from hermes_ws.state import State

__all__ = ["Session"]

SERVER: Final = By(principal="server")
"""Who did it when no person did."""

AnyEvent = TypeVar("AnyEvent", bound=ev.Event)

StopReason = Literal["end", "max_steps", "length", "refused"]
Via = Literal["socket", "http"]


class Session:
    """A conversation's state machine. See the top of the module."""

    def __init__(
        self,
        state: State,
        *,
        new_id: Callable[[str], str],
        limits: SessionLimits,
        resolve_agent: Callable[[str | None, str | None], tuple[str, str]],
        options: Mapping[str, RunOptions] | None = None,
    ) -> None:
        """``resolve_agent`` turns the configured agent and model (None: the default) into their names."""
        self.state = state
        self.limits = limits
        self.options: dict[str, RunOptions] = dict(options or {})
        self._new_id = new_id
        self._resolve_agent = resolve_agent
        self.holding = False
        """While true no queued run starts: the server is going down, and the next one will start them."""
        self._failing: dict[str, ErrorInfo] = {}
        self._interrupted: set[str] = set()
        self._now = 0
        self._decision = Decision()

    # -- commands --------------------------------------------------------------------------------------

    def command(self, command: Command, *, by: By, role: Role, via: Via, now: int) -> Decision:
        """Do what a person asks. Raises :class:`CommandError`, with nothing changed."""
        self._begin(now)
        match command:
            case RunStart():
                self._run_start(command, by)
            case RunStop():
                self._run_stop(command, by)
            case RunSteer():
                self._run_steer(command, by)
            case InteractionReply():
                self._interaction_reply(command, by, role, via)
            case ConversationConfigure():
                self._configure(command, by)
            case _:
                raise CommandError("unsupported", f"{command_type(command)} is not supported by this server yet")
        return self._decision

    def bound(self, run_id: str, bounds: ToolFilter) -> None:
        """The run may use no more than the key of whoever started or steered it."""
        options = self.options.get(run_id, RunOptions())
        if bounds not in options.bounds:
            self.options[run_id] = msgspec.structs.replace(options, bounds=[*options.bounds, bounds])

    def create(self, now: int) -> Decision:
        """The first event of a conversation; its caller puts it before those of the first command."""
        self._begin(now)
        self._emit(ev.ConversationCreated, conversation_id=self.state.conversation_id, epoch=self._new_id("ep"))
        return self._decision

    def _run_start(self, command: RunStart, by: By) -> None:
        _check_input(command.input)
        active, busy = self.state.active, command.when_busy or "queue"
        options = RunOptions(
            agent=command.agent,
            instructions=command.instructions,
            tools=command.tools,
            deadline_ms=command.deadline_ms,
            metadata=command.metadata,
        )
        if active is None and not self.state.queue:
            run_id = self._new_run(options)
            self._start(run_id, command.input, by)
            self._answer(run_id=run_id, disposition="started")
        elif busy == "reject":
            raise CommandError("busy", "another run is active; send when_busy queue, steer or interrupt to go on")
        elif busy == "steer" and active is not None and active.status != "stopping":
            self._answer(run_id=active.run_id, disposition="steered", steer_id=self._steer(active, command, by))
        else:
            self._enqueue(command.input, by, options, first=busy == "interrupt")
            if busy == "interrupt" and active is not None and active.status != "stopping":
                self._interrupted.add(active.run_id)
                self._stop(active, by, "graceful")

    def _enqueue(self, value: Input, by: By, options: RunOptions, *, first: bool) -> str:
        if len(self.state.queue) >= self.limits.queue_length:
            raise CommandError("queue_full", f"{self.limits.queue_length} runs are waiting already")
        run_id = self._new_run(options)
        position = 1 if first else len(self.state.queue) + 1
        self._emit(ev.RunQueued, run_id=run_id, input=value, position=position, by=by)
        self._answer(run_id=run_id, disposition="queued")
        return run_id

    def _new_run(self, options: RunOptions) -> str:
        run_id = self._new_id("run")
        self.options[run_id] = options
        return run_id

    def _start(self, run_id: str, value: Input, by: By) -> None:
        config, options = self.state.config, self.options.get(run_id, RunOptions())
        agent, model = self._resolve_agent(options.agent or config.agent, config.model)
        self._emit(ev.RunStarted, run_id=run_id, input=value, agent_name=agent, model=model, attempt=1, by=by)
        self._decision.effects.append(StartRun(run_id))

    def _steer(self, run: Run, command: RunSteer | RunStart, by: By) -> str:
        if len(run.steers) >= self.limits.pending_steers:
            raise CommandError("overloaded", f"{self.limits.pending_steers} steers wait for the next step already")
        steer_id = self._new_id("steer")
        text = command.text if isinstance(command, RunSteer) else _only_text(command.input)
        self._emit(ev.RunSteered, run_id=run.run_id, steer_id=steer_id, text=text, by=by, disposition="pending")
        if isinstance(command, RunSteer):
            run.steers[steer_id].if_late = command.if_late or "queue"
        return steer_id

    def _run_steer(self, command: RunSteer, by: By) -> None:
        run = self.state.active
        if run is not None and command.run_id in (None, run.run_id) and run.status != "stopping":
            self._answer(run_id=run.run_id, steer_id=self._steer(run, command, by))
            return
        self._must_know(command.run_id)
        if command.run_id in self.state.queue:
            raise CommandError("run_not_active", f"run {command.run_id} is still queued; there is nothing to steer yet")
        if command.if_late == "return" or not (self.state.ended or self.state.active):
            raise CommandError("run_not_active", "no run is there to be steered; send the text as run.start")
        # Late: the text becomes a run of its own. Its run was over, so no event may name that run any more.
        start = RunStart(input=command.text)
        self._run_start(start, by)
        self._answer(steer_id=self._new_id("steer"))

    def _run_stop(self, command: RunStop, by: By) -> None:
        run_id, mode = command.run_id, command.mode or "graceful"
        active = self.state.active
        if run_id is not None and run_id in self.state.queue:
            self._cancel_queued([run_id], by)
        elif active is not None and run_id in (None, active.run_id):
            run_id = active.run_id
            if active.status != "stopping" or (mode == "now" and active.stop_mode != "now"):
                self._interrupted.discard(run_id)
                self._stop(active, by, mode)
        elif run_id is None and command.queue == "clear" and self.state.queue:
            pass
        else:
            self._must_know(run_id)
            raise CommandError("run_not_active", "no run is active" if run_id is None else f"run {run_id} is over")
        if command.queue == "clear":
            self._cancel_queued(list(self.state.queue), by)
        self._answer(run_id=run_id)

    def _must_know(self, run_id: str | None) -> None:
        if run_id is not None and run_id not in self.state.runs and run_id not in self.state.ended:
            raise CommandError("run_not_found", f"there is no run {run_id!r} in this conversation", path="$.run_id")

    def _stop(self, run: Run, by: By, mode: Literal["graceful", "now"]) -> None:
        self._emit(ev.RunStopping, run_id=run.run_id, by=by, mode=mode)
        self._decision.effects.append(StopRun(run.run_id, mode))

    def _cancel_queued(self, run_ids: Iterable[str], by: By) -> None:
        for run_id in run_ids:
            self._emit(ev.RunCancelled, run_id=run_id, reason="stop", by=by, usage=Usage.zero())

    def _configure(self, command: ConversationConfigure, by: By) -> None:
        version = self.state.config_version
        if command.if_version is not None and command.if_version != version:
            message = f"the configuration is at version {version}, not {command.if_version}"
            raise CommandError("version_conflict", message, path="$.if_version", details={"version": version})
        config = merged(self.state.config, command.config)
        if len(msgspec.json.encode(config)) > self.limits.config_bytes:
            raise CommandError("too_large", f"a configuration weighs at most {self.limits.config_bytes} bytes")
        if config.mcp_servers:
            raise CommandError("unsupported", "MCP servers are not supported yet", path="$.config.mcp_servers")
        self._emit(ev.ConversationConfigured, version=version + 1, config=config, by=by)
        self._answer(version=version + 1)

    # -- interactions ----------------------------------------------------------------------------------

    def _interaction_reply(self, command: InteractionReply, by: By, role: Role, via: Via) -> None:
        asked = self._open_interaction(command.interaction_id)
        if role not in asked.answerable_by.roles:
            raise CommandError("not_permitted", f"role {role} may not answer this; {asked.answerable_by.roles} may")
        if command.digest is not None and command.digest != asked.digest:
            details = {"digest": asked.digest}
            raise CommandError(
                "digest_mismatch",
                "this is not what was shown: the arguments differ",
                path="$.digest",
                details=details,
            )
        check_answers(asked, command)
        answers = command.answers if asked.kind == "clarify" else None
        resolution = self._resolve(
            asked,
            outcome="answered",
            option=command.option,
            answers=redact(asked, answers),
            content=command.content,
            arguments=command.arguments,
            comment=command.comment,
            by=by,
            via=via,
            real_answers=answers,
        )
        self._remember(asked, resolution)
        self._answer(interaction_id=asked.interaction_id)

    def _open_interaction(self, interaction_id: str) -> ev.InteractionRequested:
        asked = self.state.interactions.get(interaction_id)
        if asked is not None:
            return asked
        settled = self.state.resolutions.get(interaction_id)
        if settled is None:
            message = f"there is no interaction {interaction_id!r} in this conversation"
            raise CommandError("interaction_not_found", message, path="$.interaction_id")
        details = {"resolution": msgspec.to_builtins(settled)}
        if settled.outcome == "expired":
            raise CommandError("interaction_expired", "nobody answered in time; it is closed", details=details)
        message = f"it was {settled.outcome} by {settled.by.principal} already"
        raise CommandError("interaction_resolved", message, details=details)

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

    def _remember(self, asked: ev.InteractionRequested, resolution: ev.InteractionResolved) -> None:
        option = next((o for o in asked.options or [] if o.id == resolution.option), None)
        if option is None or option.kind != "allow" or option.rule is None or option.scope in (None, "once"):
            return
        rule = ApprovalRule(
            rule_id=self._new_id("rule"),
            scope=option.scope,
            rule=_rule_for(option.rule, resolution.arguments),
            agent=self.state.runs[asked.run_id].agent_name,
            by=resolution.by,
            created_at=self._now,
            run_id=asked.run_id if option.scope == "run" else None,
        )
        self._decision.effects.append(RememberRule(rule))

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
            editable=question.editable,
            digest=question.digest,
            requested_at=now,
            expires_at=now + timeout_ms,
            on_expire=question.on_expire,
            answerable_by=AnswerableBy(roles=list(question.roles)),
        )
        run = self.state.runs[run_id]
        if len(run.interactions) == 1:
            self._emit(ev.RunWaiting, run_id=run_id, interactions=[interaction_id])
        return interaction_id, self._decision

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
        run = self._reporting(run_id)
        step = self._open_step(run)
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

    def finish_call(self, run_id: str, calls: Iterable[CallRequest], now: int) -> tuple[list[str], Decision]:
        """The model's answer is whole: its finals and all its tool calls, in one commit. Returns the calls' ids."""
        self._begin(now)
        run = self._reporting(run_id)
        step = self._open_step(run)
        self._end_reasoning(run)
        self._end_message(run)
        call_ids: list[str] = []
        for call in calls:
            call_id = call.call_id if call.call_id and call.call_id not in self.state.calls else self._new_id("call")
            self._emit(
                ev.ToolStarted,
                run_id=run_id,
                call_id=call_id,
                step=step.number,
                name=call.name,
                source=call.source,
                title=call.title,
                arguments=call.arguments,
                annotations=call.annotations,
            )
            call_ids.append(call_id)
        return call_ids, self._decision

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

    def finish_step(self, run_id: str, usage: Usage, now: int) -> Decision:
        """The model call and its tools are done."""
        self._begin(now)
        step = self._open_step(self._reporting(run_id))
        self._emit(
            ev.StepCompleted,
            run_id=run_id,
            step=step.number,
            usage=usage,
            duration_ms=max(0, now - step.started_at),
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
        self._emit(ev.ToolOutput, run_id=run_id, call_id=call_id, **fields)
        return self._decision

    def tool_completed(
        self,
        run_id: str,
        call_id: str,
        now: int,
        *,
        status: Literal["ok", "error", "denied", "cancelled", "interrupted"],
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
        for asked in [i for i in self.state.interactions.values() if i.call_id == call_id]:
            self._resolve(asked, outcome="cancelled", by=SERVER, via="policy")
        self._emit(
            ev.ToolCompleted,
            run_id=run_id,
            call_id=call_id,
            name=call.name,
            status=status,
            output=output,
            truncated=truncated,
            structured=structured,
            content=content,
            duration_ms=call.elapsed_ms(now),
        )
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
        self._interrupted.discard(run_id)
        for new_run_id, steer_text, by in late:
            self.options[new_run_id] = RunOptions(bounds=bounds)
            self._emit(ev.RunQueued, run_id=new_run_id, input=steer_text, position=len(self.state.queue) + 1, by=by)
        self._start_next()
        return self._decision

    def _close_questions(self, run: Run) -> None:
        for interaction_id in list(run.interactions):
            asked = self.state.interactions[interaction_id]
            self._resolve(asked, outcome="cancelled", by=run.stopped_by or SERVER, via="policy")

    def _close_calls(self, run: Run) -> None:
        for call in [i for i in run.open.values() if isinstance(i, ToolCall)]:
            self._emit(
                ev.ToolCompleted,
                run_id=run.run_id,
                call_id=call.call_id,
                name=call.name,
                status="interrupted" if call.status == "executing" else "cancelled",
                output=call.output,
                truncated=False,
                duration_ms=call.elapsed_ms(self._now),
            )

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
            reason = "interrupt" if run.run_id in self._interrupted else "stop"
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
        if self.state.active is None and self.state.queue and not self.holding:
            run = self.state.runs[self.state.queue[0]]
            self._start(run.run_id, run.input, run.by)

    def take_up(self, now: int) -> Decision:
        """After a restart: what to do with a run whose agent died with the old server, and with the queue."""
        active = self.state.active
        if active is not None:
            message = "the server lost this run: it stopped, or could not write its log"
            return self.end_run(active.run_id, ErrorInfo(code="agent_crashed", message=message, retryable=True), now)
        self._begin(now)
        self._start_next()
        return self._decision

    # -- time ------------------------------------------------------------------------------------------

    def next_timer(self) -> int | None:
        """When :meth:`tick` has something to do (Unix ms), or None."""
        due = [asked.expires_at for asked in self.state.interactions.values()]
        run = self.state.active
        if run is not None and run.status == "running" and run.run_id not in self._failing:
            due.append(run.started_at + run.waited_ms + self.deadline_ms(run.run_id))
        return min(due, default=None)

    def tick(self, now: int) -> Decision:
        """Expire what is due: questions take their default, a run past its deadline is cancelled to fail."""
        self._begin(now)
        for asked in [i for i in self.state.interactions.values() if i.expires_at <= now]:
            self._resolve(asked, outcome="expired", option=asked.on_expire.option, by=SERVER, via="timeout")
        run = self.state.active
        if run is not None and run.status == "running" and run.run_id not in self._failing:
            deadline_ms = self.deadline_ms(run.run_id)
            if run.elapsed_ms(now) >= deadline_ms:
                message = f"the run took longer than its {deadline_ms} ms"
                self._failing[run.run_id] = ErrorInfo(code="deadline_exceeded", message=message, retryable=True)
                self._decision.effects.append(StopRun(run.run_id, "graceful"))
        return self._decision

    def deadline_ms(self, run_id: str) -> int:
        """How long a run may work: what it asked for, else the conversation's, else the server's; bounded."""
        options, config = self.options.get(run_id, RunOptions()), self.state.config.limits
        asked = options.deadline_ms or (config.deadline_ms if config else None)
        most = self.limits.run_deadline_max_s * 1000
        return min(asked or self.limits.run_deadline_s * 1000, most)

    # -- the ground ------------------------------------------------------------------------------------

    def _begin(self, now: int) -> None:
        self._now = now
        self._decision = Decision()

    def _emit(self, event_class: Callable[..., AnyEvent], /, **fields: Any) -> AnyEvent:
        event = event_class(seq=self.state.head + 1, ts=self._now, **fields)
        self.state.apply(event)
        self._decision.events.append(event)
        return event

    def _answer(self, **fields: Any) -> None:
        self._decision.result.update(fields)


def _rule_for(rule: Rule, edited: dict[str, Any] | None) -> Rule:
    """What an approval remembers. A rule that was for the arguments as shown is, once they were edited, for the edited
    ones: never for those that somebody edited away."""
    return rule if edited is None or rule.match is None else Rule(tool=rule.tool, match=edited)


def _check_input(value: Input) -> None:
    if not value:
        raise CommandError("invalid_frame", "`input` is empty; send text or content parts", path="$.input")


def _only_text(value: Input) -> str:
    if isinstance(value, str):
        return value
    if all(isinstance(part, TextPart) for part in value):
        return "\n".join(part.text for part in value if isinstance(part, TextPart))
    raise CommandError(
        "invalid_frame", "only text can steer a run; send the images as a run of their own", path="$.input"
    )


def _open_item(run: Run, kind: type[Any]) -> Any:
    for item in run.open.values():  # a plain loop: this is asked at every delta
        if isinstance(item, kind):
            return item
    return None
