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

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from hermes_ws.answers import check_answers, redact, secrets_in
from hermes_ws.credentials import brings_secrets, moved, question_title, separate
from hermes_ws.decisions import Decision, Reconfigured, RememberRule, RunOptions, StartRun, StopRun
from hermes_ws.entities import Run
from hermes_ws.errors import CommandError
from hermes_ws.merge_patch import merged
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import (
    ClientTool,
    Command,
    ConversationConfigure,
    InteractionReply,
    RunRetry,
    RunStart,
    RunSteer,
    RunStop,
    command_type,
)
from hermes_ws.protocol.values import ApprovalRule, By, Input, Role, Rule, TextPart, ToolFilter, Usage
from hermes_ws.reports import Reports

__all__ = ["Session"]

Via = Literal["socket", "http"]


class Session(Reports):
    """A conversation's state machine. See the top of the module."""

    # -- commands --------------------------------------------------------------------------------------

    def command(
        self,
        command: Command,
        *,
        by: By,
        role: Role,
        via: Via,
        now: int,
        options: RunOptions | None = None,
        run_id: str | None = None,
    ) -> Decision:
        """Do what a person asks. Raises :class:`CommandError`, with nothing changed.

        ``options`` is what goes with a command and is not in it: for ``run.retry`` what the run to be retried was asked
        for, for ``run.start`` and ``interaction.reply`` what the run has from whoever starts it, or has it go on.
        ``run_id`` is for the run that a ``run.start`` makes.
        """
        self._begin(now)
        self._wanted_id = run_id
        beside = options or RunOptions()
        match command:
            case RunStart():
                self._run_start(command, by, beside)
            case RunStop():
                self._run_stop(command, by)
            case RunSteer():
                self._run_steer(command, by)
            case RunRetry():
                self._run_retry(command, by, beside)
            case InteractionReply():
                self._interaction_reply(command, by, role, via)
                if options is not None:
                    self._go_on_with(self._decision.events[0], options)
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

    @property
    def functions(self) -> list[ClientTool]:
        """Function tools of the active run, which whoever started it executes."""
        active = self.state.active
        return self.options.get(active.run_id, RunOptions()).functions if active is not None else []

    @property
    def starter(self) -> By | None:
        """Who started the active run."""
        active = self.state.active
        return active.by if active is not None else None

    def create(self, now: int) -> Decision:
        """The first event of a conversation; its caller puts it before those of the first command."""
        self._begin(now)
        self._emit(ev.ConversationCreated, conversation_id=self.state.conversation_id, epoch=self._new_id("ep"))
        return self._decision

    def adopt(self, events: list[ev.Event], options: dict[str, RunOptions]) -> Decision:
        """Take over what was said and done elsewhere. A run that is not over goes on from there."""
        self._decision = Decision()
        for event in map(self._read_back, events):
            self.state.apply(event)
            self._decision.events.append(event)
        self.options |= options
        if self.state.active is not None:
            self._decision.effects.append(StartRun(self.state.active.run_id))
        return self._decision

    def _run_start(self, command: RunStart, by: By, beside: RunOptions) -> None:
        _check_input(command.input)
        busy = command.when_busy or "queue"
        options = msgspec.structs.replace(
            beside,
            agent=command.agent,
            instructions=command.instructions,
            tools=command.tools,
            deadline_ms=command.deadline_ms,
            metadata=command.metadata,
        )
        active = self.state.active
        if self._idle:
            self._begin_run(command.input, by, options)
        elif busy == "reject":
            raise CommandError("busy", "another run is active; send when_busy queue, steer or interrupt to go on")
        elif busy == "steer" and active is not None and active.status != "stopping":
            self._answer(run_id=active.run_id, disposition="steered", steer_id=self._steer(active, command, by))
        else:
            self._enqueue(command.input, by, options, first=busy == "interrupt")
            if busy == "interrupt" and active is not None and active.status != "stopping":
                self._stop(active, by, "graceful", reason="interrupt")

    def _run_retry(self, command: RunRetry, by: By, earlier: RunOptions) -> None:
        self._must_know(command.run_id)
        self._must_be_newest(command.run_id)
        status, never_began = self.state.ended.get(command.run_id), command.run_id in self.state.never_began
        if status is None:
            raise CommandError("busy", f"run {command.run_id} has not ended", path="$.run_id")
        if status == "completed" or never_began:
            why = "it never started; send its input again" if never_began else "it completed, so nothing is left to do"
            raise CommandError("unsupported", f"run {command.run_id} cannot be retried: {why}", path="$.run_id")
        said = self.state.said(command.run_id)
        options = msgspec.structs.replace(earlier, retry_of=command.run_id)
        if self._idle:
            self._begin_run(said.input, by, options)
        else:
            self._enqueue(said.input, by, options, first=False)

    def _must_be_newest(self, run_id: str) -> None:
        """A run is retried once: what came after it is in the journal of the one that did."""
        waiting = {o.retry_of: r for r, o in self.options.items() if o.retry_of is not None}
        done = {old: new for new, old in self.state.retries.items()}
        newer = waiting.get(run_id) or done.get(run_id)
        if newer is not None:
            going = newer in self.state.runs
            why = "wait for that one" if going else "if that one failed too, retry that one"
            raise CommandError(
                "busy" if going else "unsupported",
                f"run {run_id} was retried already, as {newer}; {why}",
                path="$.run_id",
                details={"run_id": newer},
            )

    @property
    def _idle(self) -> bool:
        return self.taken_up and self.state.active is None and not self.state.queue

    def _begin_run(self, value: Input, by: By, options: RunOptions) -> None:
        run_id = self._new_run(options)
        self._start(run_id, value, by)
        self._answer(run_id=run_id, disposition="started")

    def _enqueue(self, value: Input, by: By, options: RunOptions, *, first: bool) -> str:
        if len(self.state.queue) >= self.limits.queue_length:
            raise CommandError("queue_full", f"{self.limits.queue_length} runs are waiting already")
        run_id = self._new_run(options)
        position = 1 if first else len(self.state.queue) + 1
        self._emit(ev.RunQueued, run_id=run_id, input=value, position=position, by=by)
        self._answer(run_id=run_id, disposition="queued")
        return run_id

    def _new_run(self, options: RunOptions) -> str:
        run_id, self._wanted_id = self._wanted_id or self._new_id("run"), None
        self.options[run_id] = msgspec.structs.replace(options, first_seq=self.state.head + 1)
        return run_id

    def _go_on_with(self, resolved: ev.Event, options: RunOptions) -> None:
        """Whoever answers has brought other functions, or has something else in mind for the model."""
        assert isinstance(resolved, ev.InteractionResolved)
        run = self.state.runs[resolved.run_id]
        before = self.options.get(run.run_id, RunOptions())
        self.options[run.run_id] = msgspec.structs.replace(
            before,
            instructions=before.instructions if options.instructions is None else options.instructions,
            functions=options.functions,
            tool_choice=options.tool_choice,
            choice_step=run.step.number + 1 if run.step else 1,
            parameters=options.parameters,
        )

    def _steer(self, run: Run, command: RunSteer | RunStart, by: By) -> str:
        if len(run.steers) >= self.limits.pending_steers:
            raise CommandError("overloaded", f"{self.limits.pending_steers} steers wait for the next step already")
        steer_id = self._new_id("steer")
        text = command.text if isinstance(command, RunSteer) else _only_text(command.input)
        self._emit(
            ev.RunSteered,
            run_id=run.run_id,
            steer_id=steer_id,
            text=text,
            by=by,
            disposition="pending",
            if_late="return" if isinstance(command, RunSteer) and command.if_late == "return" else None,
        )
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
        self._run_start(RunStart(input=command.text), by, RunOptions())
        self._answer(steer_id=self._new_id("steer"))

    def _run_stop(self, command: RunStop, by: By) -> None:
        run_id, mode = command.run_id, command.mode or "graceful"
        active = self.state.active
        if run_id is not None and run_id in self.state.queue:
            self._cancel_queued([run_id], by)
        elif active is not None and run_id in (None, active.run_id):
            run_id = active.run_id
            if active.status != "stopping" or (mode == "now" and active.stop_mode != "now"):
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

    def _stop(
        self, run: Run, by: By, mode: Literal["graceful", "now"], reason: Literal["interrupt"] | None = None
    ) -> None:
        self._emit(ev.RunStopping, run_id=run.run_id, by=by, mode=mode, reason=reason)
        self._decision.effects.append(StopRun(run.run_id))

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
        config, changes = separate(self.state.config, config, self.secrets, self._fingerprint)
        self._keep_secrets(changes)
        self._withdraw_questions({name.split("/")[1] for name in changes} | moved(self.state.config, config), by)
        if changes or config.mcp_servers != self.state.config.mcp_servers:
            self._decision.effects.append(Reconfigured())
        self._emit(ev.ConversationConfigured, version=version + 1, config=config, by=by)
        self._answer(version=version + 1)

    def _withdraw_questions(self, servers: Iterable[str], by: By) -> None:
        """Nobody need be asked any more for the credentials of these."""
        titles = {question_title(server) for server in servers}
        for asked in list(self.state.interactions.values()):
            if asked.title in titles and any(question.type == "secret" for question in asked.questions or []):
                self._resolve(asked, outcome="cancelled", by=by, via="policy")

    def is_confidential(self, command: Command) -> bool:
        """Whether a command has a secret in it, as far as it is one that is going to be taken."""
        match command:
            case ConversationConfigure():
                return brings_secrets(command.config)
            case InteractionReply():
                asked = self.state.interactions.get(command.interaction_id)
                return asked is not None and bool(secrets_in(asked, command.answers))
            case _:
                return False

    def _keep_secrets(self, changes: dict[str, str | None]) -> None:
        after = {name: value for name, value in {**self.secrets, **changes}.items() if value is not None}
        if len(after) > self.limits.secrets:
            message = f"a configuration has at most {self.limits.secrets} headers and environment variables"
            raise CommandError("too_large", message, path="$.config.mcp_servers")
        replaced = [self.secrets[name] for name in changes if name in self.secrets]
        self.secrets = after
        self._hide(replaced)
        self._decision.secrets = changes

    def rotate(self, server: str, place: str, header: str, value: str, *, by: By, now: int) -> Decision:
        """Another value for one header of an MCP server: what a person answered who was asked for it, when the server
        was at ``place``. Raises :class:`CommandError`, as the same by ``conversation.configure`` would, and
        ``not_found`` where the server is another by now: the value was not meant for that."""
        if self.state.config.place_of(f"mcp:{server}") != place:
            raise CommandError("not_found", f"the MCP server {server} is not what it was when this was asked for")
        self._begin(now)
        self._configure(ConversationConfigure(config={"mcp_servers": {server: {"headers": {header: value}}}}), by)
        return self._decision

    # -- interactions ----------------------------------------------------------------------------------

    def _interaction_reply(self, command: InteractionReply, by: By, role: Role, via: Via) -> None:
        asked = self._open_interaction(command.interaction_id)
        if role not in asked.answerable_by.roles:
            raise CommandError("not_permitted", f"role {role} may not answer this; {asked.answerable_by.roles} may")
        if asked.owner is not None and by != asked.owner.by:
            message = f"client {asked.owner.client_id} of {asked.owner.principal} executes this call; nobody else may"
            raise CommandError("not_permitted", message, path="$.interaction_id")
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


def _rule_for(rule: Rule, edited: dict[str, Any] | None) -> Rule:
    """What an approval remembers. A rule that was for the arguments as shown is, once they were edited, for the edited
    ones: never for those that somebody edited away."""
    return rule if edited is None or rule.match is None else msgspec.structs.replace(rule, match=edited)


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
