"""What a restart makes of a conversation (guarantee 8): each of these is a crash at one point of a run."""

from __future__ import annotations

import pytest

from hermes_ws.errors import CommandError
from hermes_ws.history import AssistantTurn, ToolAnswer, UserTurn, history
from hermes_ws.protocol.commands import ConversationConfigure, InteractionReply, RunRetry, RunStart, RunSteer, RunStop
from hermes_ws.protocol.values import ErrorInfo

from .second_fold import Json
from .world import World, approval, as_json, call, clarify, event_types

BROKEN = ErrorInfo(code="model_unreachable", message="no route", retryable=True)


@pytest.fixture
def world() -> World:
    """A run that has just begun."""
    world = World()
    world.command(RunStart(input="go"))
    world.commit()
    return world


def crash(world: World) -> list[Json]:
    """The server stops with everything decided so far in its log; what the next one makes of it."""
    world.commit()
    world.fail()
    events = [as_json(event) for event in world.pending[-1].events]
    world.commit()
    return events


def kinds(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


def test_a_run_goes_on_under_its_own_id_and_attempts_count(world: World) -> None:
    for attempt in (2, 3, 4):
        (recovered,) = crash(world)
        assert (recovered["type"], recovered["run_id"], recovered["attempt"]) == ("run.recovered", "run_2", attempt)
        assert recovered["reason"] == "server_restarted"
        assert world.agent is not None


def test_after_too_many_in_vain_it_fails(world: World) -> None:
    for _ in range(3):
        crash(world)
    events = crash(world)
    assert kinds(events) == ["run.failed"]
    assert events[0]["error"]["code"] == "recovery_exhausted"
    assert world.agent is None


def test_what_was_finished_in_between_starts_the_count_anew(world: World) -> None:
    for _ in range(2):
        for _ in range(3):
            assert kinds(crash(world))[0] == "run.recovered"
        world.begin_step()
        world.finish_step()
    assert kinds(crash(world)) == ["run.recovered"]


def test_a_call_that_was_cut_off_is_nothing_finished(world: World) -> None:
    world.begin_step()
    world.finish_call(call("c1"), call("c2", repeatable=True))
    world.execute("c1")
    world.execute("c2")
    assert kinds(crash(world)) == ["run.recovered", "tool.completed"]
    assert kinds(crash(world)) == kinds(crash(world)) == ["run.recovered"]
    assert kinds(crash(world))[-1] == "run.failed"


def test_a_run_that_waits_for_people_outlives_any_number_of_restarts(world: World) -> None:
    world.begin_step()
    for _ in range(3):
        crash(world)
    world.finish_call(call("c1"))
    name = world.ask(approval("c1"))
    for _ in range(9):
        assert kinds(crash(world)) == ["run.recovered"]
    world.command(InteractionReply(interaction_id=name, option="once"))
    assert kinds(crash(world)) == ["run.recovered"]


def test_a_half_streamed_answer_does_not_count_and_its_step_goes_on(world: World) -> None:
    world.begin_step()
    world.say("hm", "reasoning")
    world.say("half an ")
    events = crash(world)
    assert kinds(events) == ["run.recovered", "item.discarded", "item.discarded"]
    assert {event["reason"] for event in events[1:]} == {"retried"}
    assert world.work().phase == "calling"
    assert world.state.active is not None
    assert world.state.active.step is not None
    assert not world.state.active.step.finished


def test_an_answer_without_calls_is_finished_with_its_step(world: World) -> None:
    world.begin_step()
    world.say("all of it")
    world.finish_step()
    assert event_types(world.pending[-1].events) == ["message.completed", "step.completed"]
    assert kinds(crash(world)) == ["run.recovered"]
    assert history(world.state, "run_2")[-1] == AssistantTurn("run_2", "all of it", "")


def test_the_boundary_is_tool_executing(world: World) -> None:
    world.begin_step()
    world.say("I will")
    world.finish_call(call("over"), call("flying"), call("reading", repeatable=True), call("wished"))
    for name in ("over", "flying", "reading"):
        world.execute(name)
    world.complete("over")
    world.take(world.session.tool_output("run_2", "flying", world.now, stream="stdout", chunk="so far"))
    events = crash(world)
    assert kinds(events) == ["run.recovered", "tool.completed"]
    assert (events[1]["call_id"], events[1]["status"]) == ("flying", "interrupted")
    assert events[1]["output"].startswith("so far\n[interrupted: ")
    assert world.work().calls == ["reading", "wished"]
    assert [world.state.calls[c].status for c in world.work().calls] == ["executing", "started"]


def test_a_question_stays_open_unless_its_call_is_over(world: World) -> None:
    world.begin_step()
    world.finish_call(call("flying"), call("reading", repeatable=True), call("wished"))
    world.execute("flying")
    lost = world.ask(clarify(call_id="flying"))
    world.execute("reading")
    kept = {world.ask(clarify(call_id="reading")), world.ask(approval("wished"))}
    before = {i: world.state.interactions[i].expires_at for i in kept}
    events = crash(world)
    assert kinds(events) == ["run.recovered", "interaction.resolved", "tool.completed"]
    assert (events[1]["interaction_id"], events[1]["outcome"]) == (lost, "cancelled")
    assert {i: asked.expires_at for i, asked in world.state.interactions.items()} == before
    assert world.state.status == "waiting"


def test_who_asked_finds_what_it_asked_in_order(world: World) -> None:
    world.begin_step()
    outside = world.ask(clarify())
    world.finish_call(call("c1"))
    first = world.ask(approval("c1"))
    world.command(InteractionReply(interaction_id=first, option="once"))
    second = world.ask(approval("c1"))
    crash(world)
    run = world.state.active
    assert run is not None
    assert [asked.interaction_id for asked in run.asked] == [outside]
    assert [asked.interaction_id for asked in world.state.calls["c1"].asked] == [first, second]
    world.complete("c1", "denied")
    assert world.state.calls["c1"].asked == []
    world.command(InteractionReply(interaction_id=outside, answers={"q": "yes"}))
    world.finish_step()
    assert run.asked == []


def test_a_run_that_was_being_stopped_is_over(world: World) -> None:
    world.begin_step()
    world.say("half")
    world.finish_call(call("c1"))
    world.execute("c1")
    world.command(RunStart(input="me first", when_busy="interrupt"))
    events = crash(world)
    assert kinds(events) == ["tool.completed", "run.cancelled", "run.started"]
    assert events[0]["status"] == "interrupted"
    assert events[1]["reason"] == "interrupt"


def test_a_plain_stop_after_an_interrupt_is_a_stop(world: World) -> None:
    world.command(RunStart(input="me first", when_busy="interrupt"))
    world.command(RunStop(mode="now"))
    assert crash(world)[0]["reason"] == "stop"


def test_a_steer_keeps_what_is_to_become_of_it(world: World) -> None:
    world.command(RunSteer(text="now or never", if_late="return"))
    world.command(RunSteer(text="whenever"))
    crash(world)
    steered = [as_json(e) for e in world.end().events if as_json(e)["type"] == "run.steered"]
    assert [(e["text"], e["disposition"]) for e in steered] == [("now or never", "returned"), ("whenever", "queued")]


def test_the_queue_keeps_its_order(world: World) -> None:
    for text in ("second", "third"):
        world.command(RunStart(input=text))
    world.command(RunStart(input="first", when_busy="interrupt"))
    inputs: list[str] = []
    crash(world)
    while world.agent is not None:
        assert world.state.active is not None
        inputs.append(str(world.state.active.input))
        world.begin_step()
        crash(world)
        world.end()
        world.commit()
    assert inputs == ["first", "second", "third"]


def test_what_was_lost_with_a_commit_was_never_there(world: World) -> None:
    world.command(RunStart(input="lost"))
    world.fail()
    assert kinds([as_json(e) for e in world.pending[-1].events]) == ["run.recovered"]
    assert world.state.queue == []


def test_a_run_goes_on_with_the_instructions_it_began_with() -> None:
    world = World()
    world.command(ConversationConfigure(config={"instructions": "be kind"}))
    run_id = world.command(RunStart(input="go")).result["run_id"]
    world.command(ConversationConfigure(config={"instructions": "be rude"}))
    crash(world)
    assert world.session.options[run_id].instructions == "be kind"


# -- deadlines --------------------------------------------------------------------------------------------


def test_a_question_that_expired_meanwhile_expires_at_once(world: World) -> None:
    world.begin_step()
    world.finish_call(call("c1"))
    world.ask(approval("c1", timeout_ms=1000))
    world.now += 5000
    crash(world)
    assert world.session.next_timer() == world.now - 4000
    events = [as_json(e) for e in world.take(world.session.tick(world.now)).events]
    assert [e.get("outcome") for e in events] == ["expired", None]
    assert kinds(events)[1] == "run.resumed"


def test_a_run_past_its_deadline_is_stopped_again(world: World) -> None:
    world.now += 61_000
    world.take(world.session.tick(world.now))
    crash(world)
    world.take(world.session.tick(world.now))
    world.commit()
    assert world.work().stopped
    assert as_json(world.end().events[-1])["error"]["code"] == "deadline_exceeded"


def test_a_clock_that_jumps_is_no_time_that_passed_for_a_run_at_work(world: World) -> None:
    for by_ms in (3_600_000, -7_200_000):
        world.now += by_ms
        world.session.jumped(by_ms)
        assert not world.session.tick(world.now).effects
    due = world.session.next_timer()
    assert due == world.now + 60_000


def test_nor_is_it_counted_twice_for_one_that_waits(world: World) -> None:
    world.begin_step()
    name = world.ask(clarify())
    world.now += 3_600_000
    world.session.jumped(3_600_000)
    world.command(InteractionReply(interaction_id=name, answers={"q": "yes"}))
    assert world.session.next_timer() == world.now + 60_000


# -- run.retry --------------------------------------------------------------------------------------------


def test_a_retry_goes_on_from_the_failed_run_s_journal(world: World) -> None:
    world.begin_step()
    world.finish_call(call("c1"))
    world.execute("c1")
    world.complete("c1", output="sent")
    world.finish_step()
    world.begin_step()
    world.say("half")
    world.end(BROKEN)
    decision = world.command(RunRetry(run_id="run_2"))
    started = as_json(decision.events[0])
    assert (started["type"], started["retry_of"], started["input"], started["attempt"]) == (
        "run.started",
        "run_2",
        "go",
        1,
    )
    run_id = decision.result["run_id"]
    assert decision.result["disposition"] == "started"
    assert run_id != "run_2"
    seen = history(world.state, run_id)
    assert [type(entry) for entry in seen] == [UserTurn, AssistantTurn, ToolAnswer]


def test_a_retry_sees_its_journal_last_whatever_was_said_in_between(world: World) -> None:
    world.begin_step()
    world.say("step one")
    world.finish_step()
    world.end(BROKEN)
    between = world.command(RunStart(input="something else")).result["run_id"]
    world.commit()
    world.begin_step()
    world.finish_step()
    world.end()
    retried = world.command(RunRetry(run_id="run_2")).result["run_id"]
    world.commit()
    world.end(BROKEN)
    again = world.command(RunRetry(run_id=retried)).result["run_id"]
    order = [entry.run_id for entry in history(world.state, again) if not isinstance(entry, ToolAnswer)]
    assert order == [between, between, "run_2", "run_2"]


def test_a_retry_waits_its_turn_and_keeps_what_the_run_was_asked_for(world: World) -> None:
    world.session.options["run_2"] = world.session.options["run_2"].__class__(instructions="be brief")
    world.options.update(world.session.options)
    world.end(BROKEN)
    world.command(RunStart(input="busy"))
    queued = world.command(RunRetry(run_id="run_2"))
    assert queued.result["disposition"] == "queued"
    crash(world)
    world.end()
    world.commit()
    assert world.state.active is not None
    assert world.state.active.retry_of == "run_2"
    assert world.session.options[queued.result["run_id"]].instructions == "be brief"


@pytest.mark.parametrize(("outcome", "code"), [("end", "unsupported"), (None, "busy")])
def test_only_what_ended_badly_is_retried(world: World, outcome: str | None, code: str) -> None:
    if outcome is not None:
        world.end("end")
    with pytest.raises(CommandError) as refused:
        world.command(RunRetry(run_id="run_2"))
    assert refused.value.code == code


def test_what_never_was_cannot_be_retried(world: World) -> None:
    queued = world.command(RunStart(input="later")).result["run_id"]
    world.command(RunStop(run_id=queued))
    for run_id, code in ((queued, "unsupported"), ("run_x", "run_not_found")):
        with pytest.raises(CommandError) as refused:
            world.command(RunRetry(run_id=run_id))
        assert refused.value.code == code


def test_a_run_is_retried_once_and_then_the_one_that_did(world: World) -> None:
    world.end(BROKEN)
    second = world.command(RunRetry(run_id="run_2")).result["run_id"]
    world.commit()
    for status, code in (("going", "busy"), ("failed", "unsupported")):
        if status == "failed":
            world.end(BROKEN)
        with pytest.raises(CommandError) as refused:
            world.command(RunRetry(run_id="run_2"))
        assert (refused.value.code, refused.value.details) == (code, {"run_id": second})
    assert world.command(RunRetry(run_id=second)).result["disposition"] == "started"


def test_a_call_that_may_run_again_is_cancelled_with_its_run_not_interrupted(world: World) -> None:
    world.begin_step()
    world.finish_call(call("c1", repeatable=True), call("c2"))
    world.execute("c1")
    world.execute("c2")
    world.command(RunStop())
    statuses = {e["call_id"]: e["status"] for e in crash(world) if e["type"] == "tool.completed"}
    assert statuses == {"c1": "cancelled", "c2": "interrupted"}
