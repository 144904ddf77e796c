"""What becomes of each command: one sentence a case."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.decisions import Decision, SessionLimits, StartRun, StopRun
from hermes_ws.errors import CommandError
from hermes_ws.history import UserTurn, history
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import Command, ConversationConfigure, ConversationFork, RunStart, RunSteer, RunStop
from hermes_ws.protocol.values import By, ImagePart, TextPart

from .world import ALICE, BOB, LIMITS, World, clarify, event_types


@pytest.fixture
def world() -> World:
    """A conversation in which nothing was said yet."""
    return World()


@pytest.fixture
def busy(world: World) -> World:
    """One with ``run_2`` at work."""
    world.command(RunStart(input="first"))
    world.commit()
    return world


def refused(world: World, command: Command, **who: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        world.command(command, **who)
    return caught.value


def steer(world: World, text: str, **fields: Any) -> Decision:
    return world.command(RunSteer(text=text, **fields))


def dispositions(decision: Decision) -> list[str]:
    return [e.disposition for e in decision.events if isinstance(e, ev.RunSteered)]


# -- run.start --------------------------------------------------------------------------------------------


def test_a_run_starts_at_once_when_nothing_is_going_on(world: World) -> None:
    decision = world.command(RunStart(input="hi"))
    assert event_types(decision.events) == ["run.started"]
    assert decision.result == {"run_id": "run_2", "disposition": "started"}
    assert decision.effects == [StartRun("run_2")]


@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_input_is_refused(world: World, empty: Any) -> None:
    error = refused(world, RunStart(input=empty))
    assert (error.code, error.path) == ("invalid_frame", "$.input")


def test_a_run_names_the_agent_and_model_that_were_configured_when_it_began(busy: World) -> None:
    busy.command(RunStart(input="second", agent="mine"))
    busy.command(RunStart(input="third"))
    busy.command(ConversationConfigure(config={"agent": "ours", "model": "m2"}))
    busy.end()
    busy.commit()
    busy.end()
    started = [e for e in busy.everything() if isinstance(e, ev.RunStarted)][1:]
    assert [(e.agent_name, e.model) for e in started] == [("mine", "m2"), ("ours", "m2")]


@pytest.mark.parametrize("when_busy", [None, "queue"])
def test_while_another_runs_it_queues_in_order(busy: World, when_busy: Any) -> None:
    for position in (1, 2):
        decision = busy.command(RunStart(input="next", when_busy=when_busy), by=BOB)
        assert decision.result["disposition"] == "queued"
        (queued,) = decision.events
        assert isinstance(queued, ev.RunQueued)
        assert (queued.position, queued.by) == (position, BOB)


def test_the_queue_is_bounded(busy: World) -> None:
    for _ in range(LIMITS.queue_length):
        busy.command(RunStart(input="next"))
    policies: list[Any] = ["queue", "interrupt"]
    for when_busy in policies:
        error = refused(busy, RunStart(input="one too many", when_busy=when_busy))
        assert (error.code, error.retryable) == ("queue_full", True)


def test_reject_is_refused_as_busy(busy: World) -> None:
    assert refused(busy, RunStart(input="next", when_busy="reject")).code == "busy"


def test_a_run_that_waits_for_a_person_is_busy_too(busy: World) -> None:
    busy.ask(clarify())
    assert refused(busy, RunStart(input="next", when_busy="reject")).code == "busy"
    assert busy.command(RunStart(input="next")).result["disposition"] == "queued"


def test_steer_says_it_to_the_active_run(busy: World) -> None:
    decision = busy.command(RunStart(input=[TextPart(text="a"), TextPart(text="b")], when_busy="steer"))
    (steered,) = decision.events
    assert isinstance(steered, ev.RunSteered)
    assert (steered.run_id, steered.text, steered.disposition) == ("run_2", "a\nb", "pending")
    assert decision.result == {"run_id": "run_2", "disposition": "steered", "steer_id": steered.steer_id}


def test_images_cannot_steer(busy: World) -> None:
    image = ImagePart(url="https://example.org/cat.png")
    error = refused(busy, RunStart(input=[image], when_busy="steer"))
    assert (error.code, error.path) == ("invalid_frame", "$.input")


def test_a_run_that_is_being_stopped_cannot_be_steered_so_the_text_queues(busy: World) -> None:
    busy.command(RunStop())
    assert busy.command(RunStart(input="next", when_busy="steer")).result["disposition"] == "queued"


def test_interrupt_cancels_the_active_run_and_goes_first(busy: World) -> None:
    busy.command(RunStart(input="patient"))
    decision = busy.command(RunStart(input="urgent", when_busy="interrupt"), by=BOB)
    assert event_types(decision.events) == ["run.queued", "run.stopping"]
    assert decision.effects == [StopRun("run_2")]
    assert decision.result["disposition"] == "queued"
    cancelled, started = busy.end().events
    assert isinstance(cancelled, ev.RunCancelled)
    assert (cancelled.reason, cancelled.by) == ("interrupt", BOB)
    assert isinstance(started, ev.RunStarted)
    assert (started.run_id, started.input) == (decision.result["run_id"], "urgent")


def test_an_interrupted_run_is_not_stopped_again_by_the_next_interrupt(busy: World) -> None:
    busy.command(RunStart(input="urgent", when_busy="interrupt"))
    decision = busy.command(RunStart(input="more urgent", when_busy="interrupt"))
    assert event_types(decision.events) == ["run.queued"]
    assert [busy.state.runs[run_id].input for run_id in busy.state.queue] == ["more urgent", "urgent"]


# -- run.stop ---------------------------------------------------------------------------------------------


def test_stop_asks_the_active_run_to_end_gracefully(busy: World) -> None:
    decision = busy.command(RunStop(), by=BOB)
    (stopping,) = decision.events
    assert isinstance(stopping, ev.RunStopping)
    assert (stopping.mode, stopping.by) == ("graceful", BOB)
    assert decision.effects == [StopRun("run_2")]
    assert decision.result == {"run_id": "run_2"}
    (cancelled,) = busy.end().events
    assert isinstance(cancelled, ev.RunCancelled)
    assert (cancelled.reason, cancelled.by) == ("stop", BOB)


def test_stop_twice_is_fine_and_does_nothing_more(busy: World) -> None:
    busy.command(RunStop())
    decision = busy.command(RunStop(), by=BOB)
    assert (decision.events, decision.effects) == ([], [])
    assert decision.result == {"run_id": "run_2"}


def test_now_outdoes_graceful_but_not_the_other_way_round(busy: World) -> None:
    busy.command(RunStop())
    assert busy.command(RunStop(mode="now")).effects == [StopRun("run_2")]
    assert busy.command(RunStop(mode="graceful")).effects == []
    assert busy.command(RunStop(mode="now")).effects == []


def test_a_queued_run_that_is_stopped_is_cancelled_and_the_active_one_goes_on(busy: World) -> None:
    queued = busy.command(RunStart(input="next")).result["run_id"]
    decision = busy.command(RunStop(run_id=queued))
    assert event_types(decision.events) == ["run.cancelled"]
    assert decision.result == {"run_id": queued}
    assert busy.state.status == "running"


def test_stop_may_clear_the_queue(busy: World) -> None:
    for _ in range(2):
        busy.command(RunStart(input="next"))
    decision = busy.command(RunStop(queue="clear"))
    assert event_types(decision.events) == ["run.stopping", "run.cancelled", "run.cancelled"]
    assert event_types(busy.end().events) == ["run.cancelled"]


def test_otherwise_the_next_run_starts(busy: World) -> None:
    busy.command(RunStart(input="next"))
    busy.command(RunStop())
    assert event_types(busy.end().events) == ["run.cancelled", "run.started"]


def test_there_must_be_something_to_stop(busy: World) -> None:
    assert refused(busy, RunStop(run_id="run_9")).code == "run_not_found"
    busy.end()
    assert refused(busy, RunStop(run_id="run_2")).code == "run_not_active"
    assert refused(busy, RunStop()).code == "run_not_active"
    assert refused(busy, RunStop(queue="clear")).code == "run_not_active"


# -- run.steer --------------------------------------------------------------------------------------------


def test_a_steer_is_pending_until_the_agent_takes_it(busy: World) -> None:
    assert dispositions(steer(busy, "left")) == ["pending"]
    assert dispositions(steer(busy, "right", run_id="run_2")) == ["pending"]
    texts, decision = busy.session.take_steers("run_2", busy.now)
    assert texts == ["left", "right"]
    assert dispositions(busy.take(decision)) == ["applied", "applied"]
    assert [(e.text, e.steered) for e in history(busy.state, "run_2") if isinstance(e, UserTurn)][1:] == [
        ("left", True),
        ("right", True),
    ]


def test_pending_steers_are_bounded(busy: World) -> None:
    for _ in range(LIMITS.pending_steers):
        steer(busy, "left")
    assert refused(busy, RunSteer(text="right")).code == "overloaded"


def test_a_steer_that_no_step_heard_becomes_a_run_of_its_own(busy: World) -> None:
    steer(busy, "left")
    decision = busy.end()
    assert event_types(decision.events) == ["run.steered", "run.completed", "run.queued", "run.started"]
    steered, _, _, started = decision.events
    assert isinstance(steered, ev.RunSteered)
    assert isinstance(started, ev.RunStarted)
    assert (steered.disposition, steered.new_run_id, started.input) == ("queued", started.run_id, "left")


def test_or_it_goes_back_if_that_was_asked_for(busy: World) -> None:
    steer(busy, "left", if_late="return")
    decision = busy.end()
    assert dispositions(decision) == ["returned"]
    assert event_types(decision.events) == ["run.steered", "run.completed"]


def test_a_late_steer_goes_back_when_the_queue_is_full(busy: World) -> None:
    for _ in range(LIMITS.queue_length):
        busy.command(RunStart(input="next"))
    steer(busy, "left")
    assert dispositions(busy.end()) == ["returned"]


def test_stop_means_stop_so_pending_steers_go_back(busy: World) -> None:
    steer(busy, "left")
    busy.command(RunStop())
    decision = busy.end()
    assert dispositions(decision) == ["returned"]
    assert busy.state.status == "idle"


def test_a_run_that_is_being_stopped_takes_no_steers(busy: World) -> None:
    steer(busy, "left")
    busy.command(RunStop())
    assert busy.session.take_steers("run_2", busy.now)[0] == []


def test_a_steer_after_the_end_is_a_run_of_its_own_or_refused(busy: World) -> None:
    busy.end()
    assert refused(busy, RunSteer(text="left", if_late="return")).code == "run_not_active"
    decision = steer(busy, "left", run_id="run_2")
    assert event_types(decision.events) == ["run.started"]
    assert decision.result.keys() == {"run_id", "disposition", "steer_id"}


def test_a_steer_needs_a_run_that_can_hear_it(world: World) -> None:
    assert refused(world, RunSteer(text="left")).code == "run_not_active"
    assert refused(world, RunSteer(text="left", run_id="run_9")).code == "run_not_found"
    world.command(RunStart(input="first"))
    queued = world.command(RunStart(input="next")).result["run_id"]
    assert refused(world, RunSteer(text="left", run_id=queued)).code == "run_not_active"


# -- conversation.configure -------------------------------------------------------------------------------


def configured(world: World, *patches: dict[str, Any]) -> dict[str, Any]:
    for patch in patches:
        world.command(ConversationConfigure(config=patch))
    config: dict[str, Any] = world.fold.config
    return config


def test_a_merge_patch_changes_what_it_names(world: World) -> None:
    config = configured(
        world,
        {"title": "t", "tools": {"allow": ["a"], "deny": ["b"]}, "metadata": {"k": {"x": 1}}},
        {"tools": {"deny": ["c"]}, "metadata": {"k": {"y": 2}}},
    )
    assert config == {"title": "t", "tools": {"allow": ["a"], "deny": ["c"]}, "metadata": {"k": {"x": 1, "y": 2}}}


def test_null_removes_and_lists_are_replaced_whole(world: World) -> None:
    config = configured(
        world,
        {"title": "t", "tools": {"allow": ["a", "b"], "deny": ["b"]}},
        {"title": None, "tools": {"allow": [], "deny": None}, "agent": None},
    )
    assert config == {"tools": {"allow": []}}


def test_versions_count_and_guard(world: World) -> None:
    decision = world.command(ConversationConfigure(config={"title": "a"}, if_version=0))
    assert decision.result == {"version": 1}
    error = refused(world, ConversationConfigure(config={"title": "b"}, if_version=0))
    assert (error.code, error.details) == ("version_conflict", {"version": 1})


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"tools": {"allowed": []}}, "$.config.tools"),
        ({"tools": {"allow": ["a", 1]}}, "$.config.tools.allow[1]"),
        ({"limits": {"deadline_ms": 0}}, "$.config.limits.deadline_ms"),
        ({"approvals": {"mode": "maybe"}}, "$.config.approvals.mode"),
        ({"title": 5}, "$.config.title"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_path(world: World, patch: dict[str, Any], path: str) -> None:
    error = refused(world, ConversationConfigure(config=patch))
    assert (error.code, error.path) == ("invalid_frame", path)


def test_a_configuration_nested_too_deeply_is_refused(world: World) -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    assert refused(world, ConversationConfigure(config={"metadata": deep})).code == "invalid_frame"


def test_a_configuration_is_bounded() -> None:
    world = World(SessionLimits(config_bytes=100))
    assert refused(world, ConversationConfigure(config={"title": "x" * 100})).code == "too_large"


def test_what_a_session_cannot_do_alone_it_says_so(world: World) -> None:
    assert refused(world, ConversationFork()).code == "unsupported"


def test_events_say_who_did_it(world: World) -> None:
    decision = world.command(RunStart(input="hi"), by=By(principal="carol", client_id="tab"))
    (started,) = decision.events
    assert isinstance(started, ev.RunStarted)
    assert started.by == By(principal="carol", client_id="tab") != ALICE
