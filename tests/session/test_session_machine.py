"""Whatever people, agents, clocks and disks do, in whatever order: the log keeps the protocol's guarantees.

Hypothesis plays everyone. Commands may be nonsense; the agent does only what a real agent's loop could do. Commits
come late, in batches, or fail. After every step the log, folded a second time by independent code, must agree.
"""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hermes_ws.errors import CommandError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import (
    Command,
    ConversationConfigure,
    InteractionReply,
    RunRetry,
    RunStart,
    RunSteer,
    RunStop,
)
from hermes_ws.protocol.values import ErrorInfo, ImagePart, Input, TextPart, Usage

from .second_fold import Json, fold
from .world import ALICE, BOB, Agent, World, approval, as_json, call, clarify, fold_state, view, without_deltas

T = TypeVar("T")

texts = st.sampled_from(["", "a", "hi ", "€", "\n", "two words"])
indices = st.integers(0, 11)
usages = st.builds(
    Usage,
    input_tokens=st.integers(0, 9),
    output_tokens=st.integers(0, 9),
    total_tokens=st.integers(0, 18),
    cached_input_tokens=st.none() | st.integers(0, 5),
)
inputs: st.SearchStrategy[Input] = st.one_of(
    texts,
    st.lists(
        st.sampled_from([TextPart(text="look"), TextPart(text="at"), ImagePart(url="https://example.org/cat.png")]),
        max_size=2,
    ),
)
deadlines = st.none() | st.integers(1, 90_000)
question_types: st.SearchStrategy[Any] = st.sampled_from(["text", "single", "multi", "number", "boolean", "secret"])
stop_modes = st.sampled_from([None, "graceful", "now"])
call_ids = st.sampled_from(["", "c1", "c2"])
patches: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({}, optional={"model": st.sampled_from(["m1", None]), "title": st.sampled_from(["t", None])}),
    st.builds(lambda ms: {"limits": {"deadline_ms": ms}}, deadlines),
    st.sampled_from(
        [
            {"tools": {"allow": ["x"], "deny": None}},
            {"tools": {"allowed": []}},
            {"tools": 5},
            {"limits": None},
            {"limits": {"deadline_ms": 0}},
            {"mcp_servers": {"a": {"url": "https://example.org"}}},
            {"metadata": {"k": {"l": [1, None]}}},
            {"metadata": {"k": None}},
            {"unheard_of": 1},
        ]
    ),
)
outcomes: st.SearchStrategy[Literal["end", "max_steps", "length", "refused"] | ErrorInfo] = st.one_of(
    st.sampled_from(["end", "max_steps", "length", "refused"]),
    st.just(ErrorInfo(code="model_overloaded", message="try later", retryable=True)),
)


class SessionMachine(RuleBasedStateMachine):
    """Everyone around one conversation."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.winners: dict[str, str] = {}

    # -- people ----------------------------------------------------------------------------------------

    def send(self, command: Command, **who: Any) -> CommandError | None:
        """Send it; a refusal is an answer, anything else that is raised is a bug."""
        try:
            self.world.command(command, **who)
        except CommandError as refused:
            note(f"refused: {refused.code} {refused.message}")
            return refused
        return None

    def some_run(self, index: int) -> str | None:
        """A run that is active, queued, over, unknown or not named."""
        state = self.world.state
        known = [*([state.active.run_id] if state.active else []), *state.queue, *list(state.ended)[-1:], "run_x"]
        return None if index == 0 else known[index % len(known)]

    @rule(
        value=inputs,
        when_busy=st.sampled_from([None, "queue", "reject", "steer", "interrupt"]),
        deadline_ms=deadlines,
        agent=st.sampled_from([None, "other"]),
    )
    def run_start(self, value: Input, when_busy: Any, deadline_ms: int | None, agent: str | None) -> None:
        idle = self.world.state.active is None
        refused = self.send(RunStart(input=value, when_busy=when_busy, deadline_ms=deadline_ms, agent=agent))
        if idle:
            assert (refused is not None) == (not value)
        elif when_busy == "reject" and value:
            assert refused is not None
            assert refused.code == "busy"

    @rule(index=indices, mode=stop_modes, queue=st.sampled_from([None, "keep", "clear"]))
    def run_stop(self, index: int, mode: Any, queue: Any) -> None:
        refused = self.send(RunStop(run_id=self.some_run(index), mode=mode, queue=queue), by=BOB)
        if refused is None and queue == "clear":
            assert not self.world.state.queue

    @rule(index=indices, text=texts.filter(bool), if_late=st.sampled_from([None, "queue", "return"]))
    def run_steer(self, index: int, text: str, if_late: Any) -> None:
        self.send(RunSteer(text=text, run_id=self.some_run(index), if_late=if_late))

    @rule(patch=patches, if_version=st.none() | st.integers(0, 3))
    def configure(self, patch: dict[str, Any], if_version: int | None) -> None:
        version = self.world.state.config_version
        refused = self.send(ConversationConfigure(config=patch, if_version=if_version))
        if if_version not in (None, version):
            assert refused is not None
            assert refused.code == "version_conflict"

    @rule()
    def something_unsupported(self) -> None:
        assert self.send(RunRetry(run_id="run_2")) is not None

    @precondition(lambda self: self.world.state.interactions)
    @rule(
        index=indices,
        option=st.sampled_from(["once", "run", "conversation", "always", "deny"]),
        value=st.sampled_from(["red", "mauve", 3, True, ["red"], None]),
        edited=st.none() | st.just({"command": "ls -l"}),
        by=st.sampled_from([ALICE, BOB]),
    )
    def reply(self, index: int, option: str, value: Any, edited: Json | None, by: Any) -> None:
        """An answer that has a chance to be valid."""
        asked = pick(list(self.world.state.interactions.values()), index)
        name = asked.interaction_id
        if asked.kind == "approval":
            answer = InteractionReply(interaction_id=name, option=option, arguments=edited, digest=asked.digest)
        else:
            answer = InteractionReply(interaction_id=name, answers={"q": value}, comment="as you like")
        if self.send(answer, by=by) is None:
            assert name not in self.winners, "guarantee 6: two answers were valid"
            self.winners[name] = by.principal

    @precondition(lambda self: self.world.state.interactions)
    @rule(index=indices, wrong=st.integers(0, 5))
    def reply_wrongly(self, index: int, wrong: int) -> None:
        asked = pick(list(self.world.state.interactions.values()), index)
        refused = self.send(wrong_reply(asked, wrong), role="observer" if wrong == 0 else "driver")
        assert refused is not None

    @precondition(lambda self: self.world.state.resolutions)
    @rule(index=indices)
    def reply_late(self, index: int) -> None:
        """Guarantee 6: whoever comes second is told who was first."""
        settled = pick(list(self.world.state.resolutions.values()), index)
        refused = self.send(InteractionReply(interaction_id=settled.interaction_id, option="once"))
        assert refused is not None
        assert refused.code == ("interaction_expired" if settled.outcome == "expired" else "interaction_resolved")
        assert refused.details is not None
        resolution = refused.details["resolution"]
        assert resolution["by"]["principal"] == self.winners.get(settled.interaction_id, resolution["by"]["principal"])

    # -- the agent: only what a loop of model calls and tools can do -----------------------------------

    @property
    def agent(self) -> Agent | None:
        return self.world.agent

    def in_phase(self, phase: str) -> bool:
        return self.agent is not None and self.agent.phase == phase

    def some_call(self, index: int, *statuses: str, waiting: bool | None = None) -> str | None:
        """One of the agent's calls in one of these states; ``waiting``: for a person."""
        assert self.agent is not None
        asked = {i.call_id for i in self.world.state.interactions.values()}
        fitting = [
            c
            for c in self.agent.calls
            if self.world.state.calls[c].status in statuses and waiting in (None, c in asked)
        ]
        return pick(fitting, index) if fitting else None

    @precondition(lambda self: self.in_phase("between"))
    @rule(steered=st.booleans())
    def begin_step(self, steered: bool) -> None:
        if steered:
            self.take_steers()
        self.world.begin_step()

    @precondition(lambda self: self.in_phase("between") and self.world.state.active.steers)
    @rule()
    def take_steers(self) -> None:
        texts_taken, decision = self.world.session.take_steers(self.world.work().run_id, self.world.now)
        self.world.take(decision)
        applied = [e.text for e in decision.events if isinstance(e, ev.RunSteered)]
        assert applied == texts_taken

    @precondition(lambda self: self.in_phase("calling"))
    @rule(kind=st.sampled_from(["message", "reasoning"]), text=texts)
    def speak(self, kind: Literal["message", "reasoning"], text: str) -> None:
        self.world.say(text, kind)

    @precondition(lambda self: self.in_phase("calling"))
    @rule(reason=st.sampled_from(["retried", "failed"]))
    def discard_call(self, reason: Any) -> None:
        self.world.take(self.world.session.discard_call(self.world.work().run_id, reason, self.world.now))

    @precondition(lambda self: self.in_phase("calling"))
    @rule(wanted=st.lists(call_ids, max_size=3))
    def finish_call(self, wanted: list[str]) -> None:
        given = self.world.finish_call(*(call(call_id, command="ls") for call_id in wanted))
        assert len(set(given)) == len(wanted), "calls of the same id are told apart"

    @precondition(lambda self: self.in_phase("tools") and self.some_call(0, "started", "executing"))
    @rule(index=indices, secret=st.booleans(), timeout_ms=st.none() | st.integers(1, 90_000), data=st.data())
    def ask(self, index: int, secret: bool, timeout_ms: int | None, data: st.DataObject) -> None:
        name = self.some_call(index, "started", "executing")
        assert name is not None
        if self.world.state.calls[name].status == "started":
            question = approval(name, editable=secret, timeout_ms=timeout_ms)
        else:
            kind = data.draw(question_types)
            question = clarify(kind, call_id=name, required=not secret, allow_other=secret, timeout_ms=timeout_ms)
        if len(self.world.state.interactions) < self.world.limits.open_interactions:
            self.world.ask(question)
        else:
            with pytest.raises(CommandError, match="open already"):
                self.world.ask(question)

    @precondition(lambda self: self.in_phase("tools") and self.some_call(0, "started", waiting=False))
    @rule(index=indices, edited=st.booleans())
    def execute(self, index: int, edited: bool) -> None:
        name = self.some_call(index, "started", waiting=False)
        assert name is not None
        self.world.execute(name, command="ls -l" if edited else "ls")

    @precondition(lambda self: self.in_phase("tools") and self.some_call(0, "executing"))
    @rule(index=indices, chunk=texts, progress=st.none() | st.floats(0, 1), total=st.sampled_from([None, 1.0]))
    def output(self, index: int, chunk: str, progress: float | None, total: float | None) -> None:
        name = self.some_call(index, "executing")
        assert name is not None
        world = self.world
        fields: dict[str, Any] = {"stream": "stdout", "chunk": chunk}
        if progress is not None:
            fields = {"stream": "progress", "progress": progress, "total": total, "message": chunk or None}
        world.take(world.session.tool_output(world.work().run_id, name, world.now, **fields))

    @precondition(lambda self: self.in_phase("tools") and self.some_call(0, "started", "executing"))
    @rule(index=indices, ran=st.sampled_from(["ok", "error", "cancelled", "interrupted"]), extra=st.booleans())
    def complete(self, index: int, ran: Any, extra: bool) -> None:
        name = self.some_call(index, "started", "executing")
        assert name is not None
        executing = self.world.state.calls[name].status == "executing"
        status = ran if executing else {"ok": "denied", "interrupted": "denied"}.get(ran, ran)
        fields = {"structured": {"exit_code": 0}, "content": [TextPart(text="x")], "truncated": True} if extra else {}
        self.world.complete(name, status, "out", **fields)
        assert not [i for i in self.world.state.interactions.values() if i.call_id == name]

    @precondition(lambda self: self.in_phase("tools") and not self.agent.calls)
    @rule(usage=usages)
    def finish_step(self, usage: Usage) -> None:
        self.world.finish_step(usage)

    @precondition(lambda self: self.agent is not None)
    @rule(outcome=outcomes)
    def end_run(self, outcome: Any) -> None:
        """An agent ends by itself between steps, fails anywhere, and returns from anywhere once it was stopped."""
        agent = self.world.work()
        if agent.phase != "between" and not agent.stopped and not isinstance(outcome, ErrorInfo):
            outcome = ErrorInfo(code="agent_crashed", message="crashed", retryable=True)
        self.world.end(outcome)
        assert agent.run_id in self.world.state.ended

    # -- time and disk ---------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([0, 1, 250, 20_000, 60_000, -5_000]))
    def time_passes(self, ms: int) -> None:
        """Clocks may also be set back."""
        self.world.now += ms

    @rule(late_ms=st.sampled_from([0, 0, 1, 60_000]), wait=st.booleans())
    def tick(self, late_ms: int, wait: bool) -> None:
        """A tick before its time does nothing; after one, nothing is due any more, so nobody spins."""
        session, due = self.world.session, self.world.session.next_timer()
        if wait and due is not None:
            self.world.now = max(self.world.now, due + late_ms)
        decision = self.world.take(session.tick(self.world.now))
        acted = bool(decision.events or decision.effects)
        assert acted == (due is not None and due <= self.world.now)
        following = session.next_timer()
        assert following is None or following > self.world.now

    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        self.world.commit(count)

    @rule()
    def commit_all(self) -> None:
        self.world.commit()
        assert view(fold_state(self.world.events(), head=len(self.world.log))) == self.world.fold.view()

    @precondition(lambda self: len(self.world.pending) > 1)
    @rule()
    def commit_fails(self) -> None:
        self.world.fail()
        self.winners = {i: w for i, w in self.winners.items() if i in self.world.state.resolutions}

    # -- what must hold --------------------------------------------------------------------------------

    @invariant()
    def views_agree(self) -> None:
        """Guarantees 1, 4, 6 and 9 are checked by the second fold as it goes; here, that it came to the same."""
        assert view(self.world.state) == self.world.fold.view()

    @invariant()
    def no_agent_without_its_run(self) -> None:
        """Guarantee 9, seen from the agents."""
        agent, active = self.world.agent, self.world.state.active
        assert agent is None or (active is not None and active.run_id == agent.run_id)

    @invariant()
    def options_live_as_long_as_their_runs(self) -> None:
        assert set(self.world.session.options) == set(self.world.state.runs)

    @rule(cut=st.floats(0, 1), window=st.sampled_from([1, 3, 8, 1000]))
    def read_from_a_snapshot(self, cut: float, window: int) -> None:
        """Guarantee 3: a snapshot and what follows it come to the same as everything, over its window."""
        self.check_cut(round(cut * len(self.world.log)), window)

    def check_cut(self, cut: int, window: int) -> None:
        events = self.world.events()
        frames: list[Json] = [json.loads(line) for line in self.world.log]
        snapshot = view(fold_state(events[:cut], head=cut), max_items=window)
        resumed, whole = fold(frames[cut:], snapshot).view(), fold(frames).view()
        kept = resumed.pop("items")
        assert whole.pop("items")[-len(kept) or ALL_ITEMS :] == kept
        assert resumed == whole

    def teardown(self) -> None:
        """Guarantee 3 again: with the deltas of ended runs folded away, for server and client alike."""
        self.world.commit()
        events = self.world.events()
        whole = fold(json.loads(line) for line in self.world.log)
        compacted = without_deltas(events)
        assert view(fold_state(compacted, head=len(events))) == whole.view()
        assert fold(skipping(compacted, len(events))).view() == whole.view()
        for cut in range(0, len(events) + 1, max(1, len(events) // 5)):
            self.check_cut(cut, 5)


ALL_ITEMS = 1_000_000


def pick(things: list[T], index: int) -> T:
    return things[index % len(things)]


def wrong_reply(asked: ev.InteractionRequested, wrong: int) -> InteractionReply:
    """An answer that is wrong whatever was asked (0: only because an observer gives it)."""
    name = asked.interaction_id
    right: dict[str, Any] = {"option": "once"} if asked.kind == "approval" else {"answers": {"q": "red"}}
    return InteractionReply(
        interaction_id="int_0" if wrong == 5 else name,
        **{
            0: right,
            1: {**right, "digest": "sha256:2"},
            2: {"option": "perhaps"},
            3: {"option": "once", "answers": {"q": "red"}},
            4: {"answers": {"r": "red"}},
            5: right,
        }[wrong],
    )


def skipping(events: list[ev.Event], head: int) -> list[Json]:
    """The frames a client gets when only these events are left."""
    frames: list[Json] = []
    at = 0
    for seq, event in [*((e.seq, e) for e in events), (head + 1, None)]:
        if seq > at + 1:
            frames.append({"type": "skipped", "from": at + 1, "to": seq - 1, "reason": "compacted"})
        if event is not None:
            frames.append(as_json(event))
        at = seq
    return frames


TestSession = SessionMachine.TestCase
