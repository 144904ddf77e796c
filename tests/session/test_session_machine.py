"""Whatever people, agents, clocks and disks do, in whatever order: the log keeps the protocol's guarantees.

Hypothesis plays everyone. Commands may be nonsense; the agent does only what a real agent's loop could do. Commits
come late, in batches, or fail. After every step the log, folded a second time by independent code, must agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hermes_ws.entities import Run, ToolCall
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


class Draw(Protocol):
    """Hypothesis' ``draw``."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T: ...


texts = st.sampled_from(["a", "", "hi ", "€", "\n", "two words"])
inputs: st.SearchStrategy[Input] = st.one_of(
    texts,
    texts,
    st.lists(
        st.sampled_from([TextPart(text="look"), TextPart(text="at"), ImagePart(url="https://example.org/cat.png")]),
        max_size=2,
    ),
)
usages = st.builds(
    Usage,
    input_tokens=st.integers(0, 9),
    output_tokens=st.integers(0, 9),
    total_tokens=st.integers(0, 18),
    cached_input_tokens=st.none() | st.integers(0, 5),
)
deadlines = st.none() | st.integers(1, 90_000)
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
            {"metadata": {"k": {"l": [1, None]}}},
            {"metadata": {"k": None}},
            {"unheard_of": 1},
            {"mcp_servers": {"crm": {"url": "https://crm.example.com/", "headers": {"A": "a-secret-value"}}}},
            {"mcp_servers": {"crm": {"url": "https://elsewhere.example.com/"}}},
            {"mcp_servers": {"crm": {"headers": {"a": None, "B": {"set": True}}}}},
            {"mcp_servers": {"crm": {"headers": {"a": {"set": True}}}}},
            {"mcp_servers": {"crm": None}},
        ]
    ),
)
OUTCOMES = ("end", "end", "max_steps", "length", "refused")
TEMPERAMENTS = {
    "somebody_commands": (0, 4),
    "somebody_answers": (1, 6),
    "somebody_answers_wrongly": (0, 2),
    "somebody_answers_late": (0, 2),
    "somebody_reads": (0, 1),
    "agent_works": (4, 20),
    "agent_crashes": (0, 1),
    "time_passes": (1, 3),
    "disk": (0, 2),
    "commit_fails": (0, 1),
}
"""How often each gets its turn, between these bounds; hypothesis chooses for each example."""
temperaments = st.fixed_dictionaries({name: st.integers(*bounds) for name, bounds in TEMPERAMENTS.items()})
BROKEN = ErrorInfo(code="model_overloaded", message="try later", retryable=True)
CRASHED = ErrorInfo(code="agent_crashed", message="a bug", retryable=True)
QUESTIONS = ("text", "single", "multi", "number", "boolean", "secret")
ANSWERS: tuple[Any, ...] = ("red", "mauve", " ", "", 3, 0.5, True, ["red"], ["red", "mauve"], [], None)


Actor = Callable[[Draw], None]


class SessionMachine(RuleBasedStateMachine):
    """Everyone around one conversation."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.winners: dict[str, str] = {}
        self.disk_is_slow = False
        self.actors: list[Actor] = []

    @initialize(deadline_ms=deadlines, weights=temperaments)
    def somebody_begins(self, deadline_ms: int | None, weights: dict[str, int]) -> None:
        self.actors = [getattr(self, name) for name, weight in weights.items() for _ in range(weight)]
        self.world.command(RunStart(input="hello", deadline_ms=deadline_ms))
        self.world.commit()

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """One rule for everything: hypothesis' own choice among many would leave most examples without an agent."""
        actor = data.draw(st.sampled_from([actor for actor in self.actors if self.able(actor)]))
        note(actor.__name__)
        actor(data.draw)

    def able(self, actor: Actor) -> bool:
        world = self.world
        needs: dict[str, object] = {
            "somebody_answers": world.state.interactions,
            "somebody_answers_wrongly": world.state.interactions,
            "somebody_answers_late": world.state.resolutions,
            "agent_works": world.agent,
            "agent_crashes": world.agent,
            "commit_fails": world.pending,
        }
        return bool(needs.get(actor.__name__, True))

    # -- people ----------------------------------------------------------------------------------------

    def somebody_commands(self, draw: Draw) -> None:
        commands = [self.run_start, self.run_start, self.run_stop, self.run_steer, self.run_retry, self.configure]
        draw(st.sampled_from(commands))(draw)

    def send(self, command: Command, **who: Any) -> CommandError | None:
        """Send it; a refusal is an answer, anything else that is raised is a bug."""
        note(repr(command))
        try:
            self.world.command(command, **who)
        except CommandError as refused:
            note(f"refused: {refused.code} {refused.message}")
            return refused
        return None

    def some_run(self, draw: Draw) -> str | None:
        """A run that is active, queued, over, unknown or not named."""
        state = self.world.state
        active = [state.active.run_id] if state.active else []
        return draw(st.sampled_from([None, *active, *state.queue, *list(state.ended)[-1:], "run_x"]))

    def run_start(self, draw: Draw) -> None:
        idle, value = self.world.state.active is None, draw(inputs)
        when_busy: Any = draw(st.sampled_from([None, "queue", "reject", "steer", "interrupt"]))
        agent = draw(st.sampled_from([None, "other"]))
        refused = self.send(RunStart(input=value, when_busy=when_busy, deadline_ms=draw(deadlines), agent=agent))
        if idle:
            assert (refused is not None) == (not value)
        elif when_busy == "reject" and value:
            assert refused is not None
            assert refused.code == "busy"

    def run_stop(self, draw: Draw) -> None:
        mode: Any = draw(st.sampled_from([None, "graceful", "now"]))
        queue: Any = draw(st.sampled_from([None, "keep", "clear"]))
        refused = self.send(RunStop(run_id=self.some_run(draw), mode=mode, queue=queue), by=BOB)
        if refused is None and queue == "clear":
            assert not self.world.state.queue

    def run_steer(self, draw: Draw) -> None:
        if_late: Any = draw(st.sampled_from([None, "queue", "return"]))
        self.send(RunSteer(text=draw(texts) or "b", run_id=self.some_run(draw), if_late=if_late))

    def run_retry(self, draw: Draw) -> None:
        run_id = self.some_run(draw) or "run_y"
        status, before = self.world.state.ended.get(run_id), len(self.world.state.timeline)
        refused = self.send(RunRetry(run_id=run_id), by=BOB)
        if refused is None:
            assert status in ("failed", "cancelled")
            assert len(self.world.state.timeline) == before, "a retry says nothing new"
        elif status == "failed":
            again = {**self.world.state.retries, **{r: o.retry_of for r, o in self.world.session.options.items()}}
            assert refused.code == "queue_full" or run_id in again.values()

    def configure(self, draw: Draw) -> None:
        version, if_version = self.world.state.config_version, draw(st.none() | st.integers(0, 3))
        refused = self.send(ConversationConfigure(config=draw(patches), if_version=if_version))
        if if_version not in (None, version):
            assert refused is not None
            assert refused.code == "version_conflict"

    def somebody_answers(self, draw: Draw) -> None:
        """An answer that has a chance to be valid."""
        asked = draw(st.sampled_from(list(self.world.state.interactions.values())))
        name = asked.interaction_id
        if asked.kind == "approval":
            option = draw(st.sampled_from([option.id for option in asked.options or []]))
            edited = draw(st.none() | st.just({"command": "ls -l"}))
            answer = InteractionReply(interaction_id=name, option=option, arguments=edited, digest=asked.digest)
        else:
            answers = {"q": draw(st.sampled_from(ANSWERS))}
            answer = InteractionReply(interaction_id=name, answers=answers, comment="as you like")
        by = draw(st.sampled_from([ALICE, BOB]))
        if self.send(answer, by=by) is None:
            assert name not in self.winners, "guarantee 6: two answers were valid"
            self.winners[name] = by.principal

    def somebody_answers_wrongly(self, draw: Draw) -> None:
        wrong = draw(st.integers(0, 5))
        asked = draw(st.sampled_from(list(self.world.state.interactions.values())))
        refused = self.send(wrong_reply(asked, wrong), role="observer" if wrong == 0 else "driver")
        assert refused is not None

    def somebody_answers_late(self, draw: Draw) -> None:
        """Guarantee 6: whoever comes second is told who was first."""
        settled = draw(st.sampled_from(list(self.world.state.resolutions.values())))
        refused = self.send(InteractionReply(interaction_id=settled.interaction_id, option="once"))
        assert refused is not None
        assert refused.code == ("interaction_expired" if settled.outcome == "expired" else "interaction_resolved")
        assert refused.details is not None
        resolution = refused.details["resolution"]
        assert resolution["by"]["principal"] == self.winners.get(settled.interaction_id, "server") or (
            settled.outcome == "cancelled"
        )

    # -- the agent: only what a loop of model calls and tools can do -----------------------------------

    def agent_works(self, draw: Draw) -> None:
        draw(st.sampled_from(self.moves(self.world.work())))(draw)

    def moves(self, agent: Agent) -> list[Actor]:
        if agent.phase == "between":
            return [self.begin_step, self.begin_step, self.begin_step, self.take_steers, self.end]
        ends = [self.end] if agent.stopped else []
        if agent.phase == "calling":
            return [self.speak, self.speak, self.finish_call, self.finish_call, self.discard_call, *ends]
        if not agent.calls:
            return [self.finish_step, *ends]
        return [self.use_tool, self.use_tool, self.use_tool, self.use_tool, *ends]

    def agent_crashes(self, draw: Draw) -> None:
        """Anywhere."""
        if draw(st.integers(0, 5)) == 0:
            self.world.end(CRASHED)

    def end(self, draw: Draw) -> None:
        run_id = self.world.work().run_id
        self.world.end(draw(st.sampled_from([*OUTCOMES, BROKEN])))
        assert run_id in self.world.state.ended

    def begin_step(self, draw: Draw) -> None:
        if draw(st.booleans()):
            self.take_steers(draw)
        self.world.begin_step()

    def take_steers(self, draw: Draw) -> None:
        taken, decision = self.world.session.take_steers(self.world.work().run_id, self.world.now)
        self.world.take(decision)
        assert [e.text for e in decision.events if isinstance(e, ev.RunSteered)] == taken

    def speak(self, draw: Draw) -> None:
        kinds: list[Literal["message", "reasoning"]] = ["message", "reasoning"]
        self.world.say(draw(texts), draw(st.sampled_from(kinds)))

    def discard_call(self, draw: Draw) -> None:
        reasons: list[Literal["retried", "failed"]] = ["retried", "failed"]
        reason = draw(st.sampled_from(reasons))
        self.world.take(self.world.session.discard_call(self.world.work().run_id, reason, self.world.now))

    def finish_call(self, draw: Draw) -> None:
        wanted = draw(st.lists(st.sampled_from(["c1", "c2", ""]), max_size=3))
        given = self.world.finish_call(
            *(call(call_id, command="ls", repeatable=draw(st.booleans())) for call_id in wanted)
        )
        assert len(set(given)) == len(wanted), "calls of the same id are told apart"

    def finish_step(self, draw: Draw) -> None:
        self.world.finish_step(draw(usages))

    def use_tool(self, draw: Draw) -> None:
        """One of the open calls gets on."""
        name = draw(st.sampled_from(self.world.work().calls))
        asked = any(i.call_id == name for i in self.world.state.interactions.values())
        if self.world.state.calls[name].status == "executing":
            draw(st.sampled_from([self.print_something, self.ask, self.complete]))(draw, name)
        elif asked:
            # It may be cancelled, or be one of several questions; it does not run before its answer.
            draw(st.sampled_from([self.ask, self.complete]))(draw, name)
        else:
            draw(st.sampled_from([self.ask, self.execute, self.execute, self.complete]))(draw, name)

    def ask(self, draw: Draw, name: str) -> None:
        easy, timeout_ms = draw(st.booleans()), draw(deadlines)
        if self.world.state.calls[name].status == "started":
            question = approval(name, editable=easy, timeout_ms=timeout_ms)
        else:
            kind: Any = draw(st.sampled_from(QUESTIONS))
            question = clarify(kind, call_id=name, required=not easy, allow_other=easy, timeout_ms=timeout_ms)
        if len(self.world.state.interactions) < self.world.limits.open_interactions:
            self.world.ask(question)
        else:
            with pytest.raises(CommandError, match="open already"):
                self.world.ask(question)

    def execute(self, draw: Draw, name: str) -> None:
        self.world.execute(name, command=draw(st.sampled_from(["ls", "ls -l"])))

    def print_something(self, draw: Draw, name: str) -> None:
        world, text = self.world, draw(texts)
        fields: dict[str, Any] = {"stream": draw(st.sampled_from(["stdout", "stderr"])), "chunk": text}
        if draw(st.booleans()):
            total = draw(st.sampled_from([None, 1.0]))
            fields = {"stream": "progress", "progress": draw(st.floats(0, 1)), "total": total, "message": text or None}
        world.take(world.session.tool_output(world.work().run_id, name, world.now, **fields))

    def complete(self, draw: Draw, name: str) -> None:
        ran = self.world.state.calls[name].status == "executing"
        statuses = ["ok", "error", "cancelled", "interrupted"] if ran else ["denied", "error", "cancelled"]
        status: Any = draw(st.sampled_from(statuses))
        extra = {"structured": {"exit_code": 0}, "content": [TextPart(text="x")], "truncated": True}
        self.world.complete(name, status, draw(texts), **(extra if draw(st.booleans()) else {}))
        assert not [i for i in self.world.state.interactions.values() if i.call_id == name]

    # -- time and disk ---------------------------------------------------------------------------------

    def time_passes(self, draw: Draw) -> None:
        """Clocks may also be set back. A tick before its time does nothing; after one nothing is due any more, so
        that nobody spins."""
        ms, wait = draw(st.sampled_from([0, 1, 250, 20_000, 60_000, -5_000])), draw(st.booleans())
        session, due = self.world.session, self.world.session.next_timer()
        self.world.now = max(self.world.now, due) + max(0, ms) if wait and due is not None else self.world.now + ms
        decision = self.world.take(session.tick(self.world.now))
        assert bool(decision.events or decision.effects) == (due is not None and due <= self.world.now)
        following = session.next_timer()
        assert following is None or following > self.world.now

    def disk(self, draw: Draw) -> None:
        """A slow disk commits only what is asked for here."""
        self.disk_is_slow = draw(st.booleans())
        self.world.commit(draw(st.integers(0, 4)))

    def commit_fails(self, draw: Draw) -> None:
        self.world.commit(draw(st.integers(0, 3)))
        run = fold_state(self.world.events(), head=len(self.world.log)).active
        self.world.fail()
        self.check_recovery(run, self.world.pending[-1].events)
        self.winners = {i: w for i, w in self.winners.items() if i in self.world.state.resolutions}

    def check_recovery(self, run: Run | None, events: list[ev.Event]) -> None:
        """Guarantee 8: what a restart makes of the run that the log holds."""
        if run is None:
            assert not any(isinstance(event, ev.RunRecovered) for event in events)
            return
        over = {event.call_id: event for event in events if isinstance(event, ev.ToolCompleted)}
        recovered = [event for event in events if isinstance(event, ev.RunRecovered)]
        if run.status == "stopping" or run.fruitless >= self.world.max_attempts:
            assert not recovered
            assert run.run_id in self.world.state.ended
            return
        assert [event.attempt for event in recovered] == [run.attempt + 1]
        for item in run.open.values():
            if isinstance(item, ToolCall):
                in_flight = item.status == "executing" and not item.repeatable
                assert (item.call_id in over) == in_flight
                assert not in_flight or over[item.call_id].status == "interrupted"
        assert not any(isinstance(event, (ev.StepStarted, ev.ToolExecuting, ev.RunWaiting)) for event in events)
        kept = {i for i, asked in self.world.state.interactions.items() if asked.run_id == run.run_id}
        lost = set(run.interactions) - kept
        assert all(call_id in over for call_id in (a.call_id for a in run_questions(run) if a.interaction_id in lost))

    # -- what must hold --------------------------------------------------------------------------------

    @invariant()
    def a_fast_disk_keeps_up(self) -> None:
        if not self.disk_is_slow:
            self.world.commit()

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

    @invariant()
    def secrets_are_those_that_the_configuration_tells_of(self) -> None:
        servers = (self.world.state.config.mcp_servers or {}).items()
        told = {f"mcp_servers/{name}/headers/{key.lower()}" for name, one in servers for key in one.headers or {}}
        assert set(self.world.session.secrets) == told
        assert not any(b"a-secret-value" in line for line in self.world.log)

    def somebody_reads(self, draw: Draw) -> None:
        """Guarantee 3: a snapshot and what follows it come to the same as everything, over its window."""
        self.check_cut(draw(st.integers(0, len(self.world.log))), draw(st.sampled_from([1, 3, 8, 1000])))

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


def run_questions(run: Run) -> list[ev.InteractionRequested]:
    """What the run and its open calls have asked."""
    return [*run.asked, *(asked for i in run.open.values() if isinstance(i, ToolCall) for asked in i.asked)]


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
