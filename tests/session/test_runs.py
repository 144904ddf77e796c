"""What an agent's reports, the clock and a restart make of a run. One sentence a case."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.decisions import Decision, StartRun, StopRun
from hermes_ws.history import AssistantTurn, CallMade, ToolAnswer, UserTurn, history
from hermes_ws.protocol.commands import ConversationConfigure, InteractionReply, RunStart, RunStop
from hermes_ws.protocol.values import ErrorInfo, ImagePart, TextPart, Usage

from .second_fold import BrokenPromiseError, Json, fold
from .world import LIMITS, World, approval, as_json, call, clarify, event_types, view

MINUTE_MS = 60_000
CRASHED = ErrorInfo(code="agent_crashed", message="a bug", retryable=True)


@pytest.fixture
def world() -> World:
    """One run, ``run_2``, that has just begun."""
    world = World()
    world.command(RunStart(input="hi"))
    world.commit()
    return world


def last(decision: Decision) -> Json:
    return as_json(decision.events[-1])


def tick(world: World, after_ms: int) -> Decision:
    world.now += after_ms
    return world.take(world.session.tick(world.now))


# -- what is said and done --------------------------------------------------------------------------------


def test_speaking_begins_a_message_and_ends_a_thought(world: World) -> None:
    world.begin_step()
    assert event_types(world.say("hm", "reasoning").events) == ["reasoning.delta"]
    assert event_types(world.say("He").events) == ["reasoning.available", "message.started", "message.delta"]
    assert event_types(world.say("llo").events) == ["message.delta"]


def test_the_finals_and_all_calls_of_a_model_call_are_one_decision(world: World) -> None:
    world.begin_step()
    world.say("Let me look.")
    world.say("hm", "reasoning")
    call_ids, decision = world.session.finish_call("run_2", [call("c1"), call("c2")], world.now)
    kinds = ["reasoning.available", "message.completed", "tool.started", "tool.started"]
    assert (call_ids, event_types(world.take(decision).events)) == (["c1", "c2"], kinds)


def test_a_model_that_repeats_or_forgets_call_ids_is_given_new_ones(world: World) -> None:
    world.begin_step()
    first, second, third = world.finish_call(call("c1"), call("c1"), call(""))
    assert first == "c1"
    assert len({first, second, third}) == 3


def test_a_retried_call_discards_all_that_it_streamed(world: World) -> None:
    world.begin_step()
    world.say("hm", "reasoning")
    world.say("Hel")
    decision = world.take(world.session.discard_call("run_2", "retried", world.now))
    assert event_types(decision.events) == ["item.discarded", "item.discarded"]
    assert [item["role"] for item in view(world.state)["items"]] == ["user"]
    assert world.take(world.session.discard_call("run_2", "retried", world.now)).events == []


def test_a_call_lasts_from_its_execution_and_one_that_never_ran_took_no_time(world: World) -> None:
    world.begin_step()
    world.finish_call(call("c1"), call("c2"))
    world.now += 5000
    world.execute("c1")
    world.now += 70
    assert last(world.complete("c1"))["duration_ms"] == 70
    assert last(world.complete("c2", "denied"))["duration_ms"] == 0


def test_output_grows_until_the_final_replaces_it(world: World) -> None:
    world.begin_step()
    world.finish_call(call("c1"))
    world.execute("c1", command="ls -l")
    for fields in ({"stream": "stdout", "chunk": "a"}, {"stream": "progress", "progress": 0.5, "message": "half"}):
        world.take(world.session.tool_output("run_2", "c1", world.now, **fields))
    item = view(world.state)["items"][-1]
    assert (item["status"], item["output"], item["arguments"]) == ("executing", "a", {"command": "ls -l"})
    assert item["progress"] == {"progress": 0.5, "message": "half"}
    world.complete("c1", output="a, b", truncated=True, structured={"exit_code": 0})
    item = view(world.state)["items"][-1]
    assert (item["status"], item["output"], item["truncated"]) == ("ok", "a, b", True)
    assert "progress" not in item


def test_history_has_an_entry_for_every_finished_step_even_an_empty_one(world: World) -> None:
    world.begin_step()
    world.say("hm", "reasoning")
    world.say("Looking.")
    world.finish_call(call("c1", command="ls"))
    world.execute("c1", command="ls")
    world.complete("c1", output="a.txt")
    world.finish_step()
    world.begin_step()
    world.finish_call()
    world.finish_step()
    said = UserTurn("run_2", "hi", [TextPart(text="hi")], steered=False)
    first = AssistantTurn("run_2", "Looking.", "hm", [CallMade("c1", "terminal", "builtin", {"command": "ls"})])
    answer = ToolAnswer("c1", "terminal", "ok", "a.txt", None)
    assert history(world.state, "run_2") == [said, first, answer, AssistantTurn("run_2", "", "")]


def test_history_shows_no_step_that_holds_nothing_final(world: World) -> None:
    world.begin_step()
    world.say("Hel")
    assert len(history(world.state, "run_2")) == 1


# -- ends -------------------------------------------------------------------------------------------------


def test_a_completed_run_tells_what_was_said_last_and_what_it_used(world: World) -> None:
    for text in ("one", "two"):
        world.begin_step()
        world.say(text)
        world.finish_call()
        world.finish_step(Usage(input_tokens=3, output_tokens=2, total_tokens=5, reasoning_tokens=1))
    world.now += 1234
    end = last(world.end("length"))
    assert (end["output"], end["stop_reason"], end["duration_ms"]) == ("two", "length", 1234)
    assert end["usage"] == {"input_tokens": 6, "output_tokens": 4, "total_tokens": 10, "reasoning_tokens": 2}
    assert view(world.state)["usage"] == end["usage"]


def test_a_run_that_said_nothing_has_an_empty_output(world: World) -> None:
    assert last(world.end())["output"] == ""


def test_a_failed_run_discards_half_a_message(world: World) -> None:
    world.begin_step()
    world.say("Hel")
    decision = world.end(CRASHED)
    assert event_types(decision.events) == ["item.discarded", "run.failed"]
    assert last(decision)["error"] == {"code": "agent_crashed", "message": "a bug", "retryable": True}


def test_a_stopped_run_keeps_half_a_message_as_partial(world: World) -> None:
    world.begin_step()
    world.say("Hel")
    world.command(RunStop())
    completed, cancelled = map(as_json, world.end(CRASHED).events)
    assert (completed["text"], completed["partial"], completed["content"]) == (
        "Hel",
        True,
        [{"type": "text", "text": "Hel"}],
    )
    assert cancelled["type"] == "run.cancelled"


@pytest.mark.parametrize(("executing", "status"), [(False, "cancelled"), (True, "interrupted")])
def test_calls_that_an_agent_leaves_open_are_closed_for_it(world: World, executing: bool, status: str) -> None:
    world.begin_step()
    world.finish_call(call("c1"))
    if executing:
        world.execute("c1")
    completed, _ = map(as_json, world.end(CRASHED).events)
    assert (completed["type"], completed["status"]) == ("tool.completed", status)


def test_the_next_run_starts_in_the_same_decision(world: World) -> None:
    queued = world.command(RunStart(input="next")).result["run_id"]
    decision = world.end()
    assert event_types(decision.events) == ["run.completed", "run.started"]
    assert decision.effects == [StartRun(queued)]


# -- time -------------------------------------------------------------------------------------------------


def test_a_run_past_its_deadline_is_stopped_and_fails(world: World) -> None:
    assert world.session.next_timer() == world.now + MINUTE_MS
    assert tick(world, MINUTE_MS - 1).effects == []
    decision = tick(world, 1)
    assert (decision.events, decision.effects) == ([], [StopRun("run_2")])
    assert world.session.next_timer() is None
    assert last(world.end())["error"]["code"] == "deadline_exceeded"


def test_the_deadline_stands_still_while_a_person_is_asked(world: World) -> None:
    tick(world, 10_000)
    name = world.ask(clarify())
    assert tick(world, 10 * MINUTE_MS).effects == []
    world.command(InteractionReply(interaction_id=name, answers={"q": "a"}))
    assert world.session.next_timer() == world.now + MINUTE_MS - 10_000
    assert tick(world, MINUTE_MS - 10_001).effects == []
    assert tick(world, 1).effects == [StopRun("run_2")]


def test_a_stop_has_the_last_word_over_a_deadline(world: World) -> None:
    tick(world, MINUTE_MS)
    world.command(RunStop())
    assert last(world.end())["type"] == "run.cancelled"


def test_a_clock_that_is_set_back_breaks_nothing(world: World) -> None:
    world.begin_step()
    world.finish_call(call("c1"))
    name = world.ask(approval("c1"))
    world.now -= 5000
    world.command(InteractionReply(interaction_id=name, option="once"))
    world.execute("c1")
    world.now -= 5000
    assert last(world.complete("c1"))["duration_ms"] == 0
    assert last(world.finish_step())["duration_ms"] == 0


@pytest.mark.parametrize(
    ("asked", "configured", "deadline_ms"),
    [(None, None, MINUTE_MS), (None, 5000, 5000), (700, 5000, 700), (10**12, None, LIMITS.run_deadline_max_s * 1000)],
)
def test_the_nearest_deadline_holds_within_the_server_s(asked: Any, configured: Any, deadline_ms: int) -> None:
    world = World()
    world.command(ConversationConfigure(config={"limits": {"deadline_ms": configured}}))
    run_id = world.command(RunStart(input="hi", deadline_ms=asked)).result["run_id"]
    assert world.session.deadline_ms(run_id) == deadline_ms


# -- what a snapshot shows --------------------------------------------------------------------------------


def test_a_snapshot_shows_the_newest_items_and_where_the_older_ones_are(world: World) -> None:
    world.begin_step()
    world.finish_call(*(call(f"c{n}") for n in range(5)))
    snapshot = view(world.state, max_items=2)
    assert [item["call_id"] for item in snapshot["items"]] == ["c3", "c4"]
    assert snapshot["before"] == "c3"
    assert "before" not in view(world.state)


def test_images_weigh_in_a_snapshot() -> None:
    world = World()
    for n in range(3):
        world.command(RunStart(input=[ImagePart(url=f"data:image/png;base64,{'A' * 400}{n}")]))
        world.commit()
        world.end()
    snapshot = world.state.snapshot(max_items=100, max_bytes=1200)
    assert (len(snapshot.items), snapshot.before) == (2, "run_3")


def test_the_newest_item_is_shown_however_heavy_it_is(world: World) -> None:
    assert len(world.state.snapshot(max_items=1, max_bytes=1).items) == 1


def test_a_title_is_what_was_configured_or_what_was_said_first() -> None:
    world = World()
    assert world.state.title is None
    world.command(RunStart(input="  what\nis this? "))
    assert world.state.title == "what is this?"
    world.command(ConversationConfigure(config={"title": "A talk"}))
    assert world.state.title == "A talk"


# -- the second fold can fail -----------------------------------------------------------------------------


@pytest.mark.parametrize("lost", range(1, 17))
def test_the_second_fold_notices_whatever_event_is_missing(world: World, lost: int) -> None:
    world.begin_step()
    world.say("h", "reasoning")
    world.say("m", "reasoning")
    world.say("Looking.")
    world.finish_call(call("c1"))
    name = world.ask(approval("c1"))
    world.command(InteractionReply(interaction_id=name, option="once"))
    world.execute("c1")
    world.complete("c1")
    world.finish_step()
    world.end()
    frames = [as_json(event) for event in world.everything()]
    assert len(frames) == 18
    del frames[lost]
    with pytest.raises(BrokenPromiseError):
        fold({**frame, "seq": n} for n, frame in enumerate(frames, 1))
