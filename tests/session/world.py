"""A small world around one :class:`Session`: a clock, ids, a log that can fail, and one agent that behaves.

It stands in for the runtime. Decisions wait in ``pending`` until :meth:`World.commit` appends them to the log and
carries their effects out, or :meth:`World.fail` loses them together with the session, as a broken disk would.
Everything is folded a second time on the way (``second_fold.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

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
from hermes_ws.errors import CommandError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_event, encode
from hermes_ws.protocol.commands import Command, RunRetry
from hermes_ws.protocol.values import (
    Annotations,
    By,
    Choice,
    ErrorInfo,
    OnExpire,
    Option,
    Question,
    Role,
    Rule,
    Usage,
)
from hermes_ws.session import Session
from hermes_ws.state import State

from .second_fold import Json, SecondFold

__all__ = [
    "ALICE",
    "ALL",
    "BOB",
    "LIMITS",
    "Agent",
    "World",
    "approval",
    "as_json",
    "call",
    "clarify",
    "event_types",
    "fold_state",
    "view",
    "without_deltas",
]

ALICE = By(principal="alice")
BOB = By(principal="bob", client_id="phone")
LIMITS = SessionLimits(queue_length=3, open_interactions=3, pending_steers=2, run_deadline_s=60)
ALL = 1_000_000
START = 1_700_000_000_000


def as_json(event: ev.Event) -> Json:
    """An event as a client reads it."""
    decoded: Json = json.loads(encode(event))
    return decoded


def event_types(events: Iterable[ev.EventBase]) -> list[str]:
    return [ev.event_type(event) for event in events]


def view(state: State, *, max_items: int = ALL) -> Json:
    """The snapshot as a client reads it."""
    snapshot = state.snapshot(max_items=max_items, max_bytes=ALL * 100)
    decoded: Json = json.loads(msgspec.json.encode(snapshot))
    return decoded


def without_deltas(events: list[ev.Event]) -> list[ev.Event]:
    """What the loader reads: deltas and output of runs that ended are left out."""
    ended = {e.run_id for e in events if isinstance(e, (ev.RunCompleted, ev.RunFailed, ev.RunCancelled))}
    return [e for e in events if not (ev.event_type(e) in ev.DELTA_TYPES and getattr(e, "run_id", "") in ended)]


def fold_state(events: Iterable[ev.Event], *, head: int) -> State:
    """The state after these events; gaps between them are passed over."""
    state = State("demo")
    for event in events:
        state.skip(event.seq - 1)
        state.apply(event)
    state.skip(head)
    return state


def call(call_id: str = "", name: str = "terminal", *, repeatable: bool = False, **arguments: Any) -> CallRequest:
    annotations = Annotations(read_only=repeatable, idempotent=False, destructive=not repeatable)
    return CallRequest(call_id, name, "builtin", name.title(), arguments, annotations)


def approval(call_id: str, *, editable: bool = True, timeout_ms: int | None = None) -> Ask:
    rule = Rule(tool="builtin:terminal", match={"command": "ls"})
    return Ask(
        kind="approval",
        title="Run a command?",
        message="ls",
        call_id=call_id,
        options=[
            Option(id="once", label="Once", kind="allow", scope="once"),
            Option(id="run", label="This run", kind="allow", scope="run", rule=rule),
            Option(id="conversation", label="Here", kind="allow", scope="conversation", rule=rule),
            Option(id="always", label="Always", kind="allow", scope="always", rule=rule),
            Option(id="deny", label="No", kind="deny"),
        ],
        editable=editable,
        digest="sha256:1",
        timeout_ms=timeout_ms,
        on_expire=OnExpire(option="deny"),
    )


def clarify(
    kind: Literal["text", "single", "multi", "number", "boolean", "secret"] = "text",
    *,
    call_id: str | None = None,
    required: bool = True,
    allow_other: bool = False,
    timeout_ms: int | None = None,
) -> Ask:
    choices = [Choice(id=c, label=c) for c in ("red", "blue")] if kind in ("single", "multi") else None
    question = Question(id="q", prompt="Which?", type=kind, options=choices, required=required, allow_other=allow_other)
    return Ask(
        kind="clarify",
        title="A question",
        message="Which?",
        call_id=call_id,
        questions=[question],
        timeout_ms=timeout_ms,
        roles=("driver", "responder"),
    )


@dataclass
class Agent:
    """Where the one running agent is in its loop. ``stopped``: it was cancelled and should end soon."""

    run_id: str
    phase: Literal["between", "calling", "tools"] = "between"
    calls: list[str] = field(default_factory=list[str])
    stopped: bool = False


class World:
    """See the top of the module."""

    def __init__(self, limits: SessionLimits = LIMITS) -> None:
        self.now = START
        self.limits = limits
        self.max_attempts = 3
        self.log: list[bytes] = []
        self.pending: list[Decision] = []
        self.options: dict[str, RunOptions] = {}
        self.agent: Agent | None = None
        self.answers: dict[str, Answer] = {}
        self.rules: list[RememberRule] = []
        self.secrets: dict[str, str] = {}
        self.fold = SecondFold()
        self._ids = 0
        self.session = self._new_session(State("demo"))
        self.take(self.session.create(self.now))

    @property
    def state(self) -> State:
        return self.session.state

    # -- what a runtime does ---------------------------------------------------------------------------

    def command(self, command: Command, *, by: By = ALICE, role: Role = "driver") -> Decision:
        """A command; if it is refused, nothing may have changed."""
        before = self._everything()
        try:
            earlier = self.options.get(command.run_id) if isinstance(command, RunRetry) else None
            decision = self.session.command(command, by=by, role=role, via="socket", now=self.now, options=earlier)
        except CommandError:
            assert self._everything() == before, "a refused command changed something"
            raise
        return self.take(decision)

    def take(self, decision: Decision) -> Decision:
        """Put a decision in line for the next commit."""
        for event in decision.events:
            self.fold.feed(as_json(event))
        self.options.update(self.session.options)
        for run_id in set(self.session.options) - set(self.state.runs):
            del self.session.options[run_id]
        self.pending.append(decision)
        return decision

    def commit(self, count: int = ALL) -> None:
        """One transaction with the first ``count`` decisions; then their effects."""
        batch, self.pending = self.pending[:count], self.pending[count:]
        self.log.extend(encode(event) for decision in batch for event in decision.events)
        for decision in batch:
            self.secrets |= {name: value for name, value in decision.secrets.items() if value is not None}
            for name in [name for name, value in decision.secrets.items() if value is None]:
                del self.secrets[name]
            self._carry_out(decision)

    def fail(self) -> None:
        """The commit fails: whatever is not in the log is gone, the agent with it; the rest is folded anew."""
        self.pending, self.agent = [], None
        events = self.events()
        self.fold = SecondFold()
        for line in self.log:
            self.fold.feed(json.loads(line))
        state = fold_state(without_deltas(events), head=len(events))
        self.session = self._new_session(state)
        self.session.options = {run_id: self.options[run_id] for run_id in state.runs}
        if events:
            assert view(state) == self.fold.view(), "the log does not fold into what it was"
            self.take(self.session.take_up(self.now, max_attempts=self.max_attempts))
        else:
            self.take(self.session.create(self.now))

    def events(self) -> list[ev.Event]:
        """What is in the log."""
        return [decode_event(line) for line in self.log]

    def everything(self) -> list[ev.Event]:
        """What was decided so far, committed or not."""
        return [*self.events(), *(event for decision in self.pending for event in decision.events)]

    def _new_session(self, state: State) -> Session:
        return Session(
            state,
            new_id=self._new_id,
            limits=self.limits,
            resolve_agent=lambda agent, model: (agent or "llm", model or "demo-1"),
            fingerprint=lambda name, value: f"{len(name)}:{len(value)}",
            secrets=self.secrets,
        )

    def _new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_{self._ids}"

    def _carry_out(self, decision: Decision) -> None:
        for effect in decision.effects:
            match effect:
                case StartRun(run_id):
                    assert self.agent is None, "guarantee 9: another agent is at work"
                    self.agent = self._agent(run_id)
                case StopRun(run_id):
                    if self.agent is not None and self.agent.run_id == run_id:
                        self.agent.stopped = True
                case Answer(resolution):
                    assert resolution.interaction_id not in self.answers, "guarantee 6: answered twice"
                    self.answers[resolution.interaction_id] = effect
                case RememberRule():
                    self.rules.append(effect)

    def _agent(self, run_id: str) -> Agent:
        """An agent set to work: at the beginning of the run, or where a restart found it."""
        run = self.state.runs.get(run_id)
        if run is None or run.step is None or run.step.finished:
            return Agent(run_id)
        if not run.step.whole:
            return Agent(run_id, "calling")
        return Agent(run_id, "tools", [call.call_id for call in run.step.calls if call.call_id in run.open])

    def _everything(self) -> str:
        """All that the session knows, written out."""
        told = {k: v for k, v in vars(self.session).items() if k not in ("state", "_now", "_decision")}
        return repr((vars(self.state), told))

    # -- what an agent does ----------------------------------------------------------------------------

    def work(self) -> Agent:
        assert self.agent is not None
        return self.agent

    def begin_step(self) -> Decision:
        agent = self.work()
        agent.phase = "calling"
        return self.take(self.session.begin_step(agent.run_id, self.now))

    def say(self, text: str, kind: Literal["message", "reasoning"] = "message") -> Decision:
        return self.take(self.session.delta(self.work().run_id, kind, text, self.now))

    def finish_call(self, *calls: CallRequest) -> list[str]:
        agent = self.work()
        call_ids, decision = self.session.finish_call(agent.run_id, calls, self.now)
        self.take(decision)
        agent.phase, agent.calls = "tools", call_ids
        return call_ids

    def execute(self, call_id: str, **arguments: Any) -> Decision:
        return self.take(self.session.tool_executing(self.work().run_id, call_id, arguments, self.now))

    def complete(
        self,
        call_id: str,
        status: Literal["ok", "error", "denied", "cancelled", "interrupted"] = "ok",
        output: str = "done",
        **fields: Any,
    ) -> Decision:
        agent = self.work()
        agent.calls = [c for c in agent.calls if c != call_id]
        fields = {"status": status, "output": output, **fields}
        return self.take(self.session.tool_completed(agent.run_id, call_id, self.now, **fields))

    def ask(self, question: Ask) -> str:
        interaction_id, decision = self.session.ask(self.work().run_id, question, self.now)
        self.take(decision)
        return interaction_id

    def finish_step(self, usage: Usage | None = None) -> Decision:
        agent = self.work()
        agent.phase = "between"
        used = usage or Usage(input_tokens=3, output_tokens=2, total_tokens=5)
        return self.take(self.session.finish_step(agent.run_id, used, self.now))

    def end(self, outcome: Literal["end", "max_steps", "length", "refused"] | ErrorInfo = "end") -> Decision:
        agent, self.agent = self.work(), None
        return self.take(self.session.end_run(agent.run_id, outcome, self.now))
