"""History that a client brings along: as events, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_ws.compat.past import Answered, Past, PastCall, Said, events_of, past_of
from hermes_ws.decisions import RunOptions
from hermes_ws.history import AssistantTurn, ToolAnswer, UserTurn, history
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_event, encode
from hermes_ws.protocol.commands import InteractionReply, RunRetry, RunStart, RunSteer
from hermes_ws.protocol.values import By, ContentPart, ErrorInfo, ImagePart, Input, TextPart, Usage
from hermes_ws.runtime.runtime import Runtime, new_id
from hermes_ws.state import State
from tests.runtime.conftest import REF, follow, runtime_over, send, until
from tests.runtime.conftest import runtime as runtime
from tests.runtime.conftest import store as store
from tests.session.second_fold import Json, SecondFold
from tests.session.world import World, as_json, call, view

BY = By(principal="me")
CAT = ImagePart(url="https://example.org/cat.png")
SUN = PastCall("call_1", "weather", {"city": "Oslo"}, "sun")


def ids() -> Callable[[str], str]:
    """Fresh ids, one like the other from test to test."""
    count = iter(range(1, 1_000_000))
    return lambda kind: f"{kind}_{next(count)}"


def imported(past: Past, **more: Any) -> list[ev.Event]:
    """The history as the events of a conversation, its first one included."""
    options: dict[str, Any] = {"now": 5, "by": BY, "agent": "demo", "model": "m", "new_id": ids(), **more}
    created = ev.ConversationCreated(seq=1, ts=5, conversation_id="demo", epoch="ep_1")
    return [created, *events_of(past, head=1, **options).events]


def folded(events: list[ev.Event]) -> State:
    state = State("demo")
    for event in events:
        state.apply(event)
    return state


def client_view(frames: Iterable[Json]) -> Json:
    """What a client makes of it. Messages of a history were not streamed: their finals are all there is."""
    client = SecondFold()
    client.lossless = False
    for frame in frames:
        client.feed(frame)
    return client.view()


def kinds(events: list[ev.Event]) -> list[str]:
    return [ev.event_type(event) for event in events[1:]]


def seen(past: Past) -> list[Any]:
    """What an agent is shown of it, before a run that comes after."""
    return history(folded(imported(past)), "none yet")


# -- every shape ---------------------------------------------------------------------------------------


def test_nothing_makes_nothing() -> None:
    assert imported([])[1:] == []
    assert past_of([]) == []


def test_a_question_and_its_answer_are_a_run_that_completed() -> None:
    events = imported([Said("hi"), Answered("hello", "hm")])
    assert kinds(events) == [
        "run.started",
        "step.started",
        "reasoning.available",
        "message.started",
        "message.completed",
        "step.completed",
        "run.completed",
    ]
    started, completed = events[1], events[-1]
    assert isinstance(started, ev.RunStarted)
    assert isinstance(completed, ev.RunCompleted)
    assert (started.input, started.agent_name, started.model, started.by, started.attempt) == ("hi", "demo", "m", BY, 1)
    assert (completed.output, completed.stop_reason, completed.usage) == ("hello", "end", Usage.zero())
    assert {event.ts for event in events} == {5}


def test_each_thing_said_begins_a_run_and_the_answers_to_it_are_its_steps() -> None:
    events = imported([Said("one"), Answered("", calls=[SUN]), Answered("it is sunny"), Said("two"), Answered("bye")])
    state = folded(events)
    assert len(state.ended) == 2
    assert set(state.ended.values()) == {"completed"}
    assert [e.step for e in events if isinstance(e, ev.StepStarted)] == [1, 2, 1]
    assert [e.output for e in events if isinstance(e, ev.RunCompleted)] == ["it is sunny", "bye"]


def test_calls_were_made_by_the_client_side_by_side_and_came_to_what_they_came_to() -> None:
    calls = [SUN, PastCall("call_2", "time", {}, "no clock", is_error=True), PastCall("call_3", "date", {}, None)]
    events = imported([Said("hi"), Answered("one moment", calls=calls)])
    made, done = ["tool.started"] * 3, ["tool.executing", "tool.completed"]
    assert kinds(events)[2:-2] == ["message.started", "message.completed", *made, *done, *done, "tool.completed"]
    started = [e for e in events if isinstance(e, ev.ToolStarted)]
    assert [(e.call_id, e.name, e.source, e.arguments) for e in started] == [
        ("call_1", "weather", "client", {"city": "Oslo"}),
        ("call_2", "time", "client", {}),
        ("call_3", "date", "client", {}),
    ]
    completed = [e for e in events if isinstance(e, ev.ToolCompleted)]
    assert [(e.status, e.output) for e in completed] == [("ok", "sun"), ("error", "no clock"), ("cancelled", "")]


def test_images_stay_where_they_were() -> None:
    shown = PastCall("call_1", "camera", {}, "", content=[CAT])
    past: Past = [Said([TextPart(text="look"), CAT]), Answered("", calls=[shown])]
    user, _, answer = seen(past)
    assert user.content == [TextPart(text="look"), CAT]
    assert answer.content == [CAT]
    assert past_of(imported(past)) == past


def test_an_agent_is_shown_all_of_it() -> None:
    past: Past = [Said("one"), Answered("look:", "hm", [SUN]), Answered("sunny"), Said("two"), Answered("bye")]
    user, asked, told, said, other, end = seen(past)
    assert (user.text, other.text) == ("one", "two")
    assert (asked.text, asked.reasoning, [c.call_id for c in asked.calls]) == ("look:", "hm", ["call_1"])
    assert told == ToolAnswer("call_1", "weather", "ok", "sun", None)
    assert (said.text, end.text) == ("sunny", "bye")


def test_two_things_said_one_after_the_other_are_two_runs_of_which_one_said_nothing() -> None:
    past: Past = [Said("one"), Said("two"), Answered("bye")]
    events = imported(past)
    assert kinds(events)[:3] == ["run.started", "run.completed", "run.started"]
    assert past_of(events) == past


def test_a_history_that_begins_with_the_assistant_shows_no_empty_message_of_the_users() -> None:
    past: Past = [Answered("welcome"), Said("hi"), Answered("hello")]
    events = imported(past)
    assert client_view(map(as_json, events)) == view(folded(events))
    assert [type(entry) for entry in seen(past)] == [AssistantTurn, UserTurn, AssistantTurn]
    assert past_of(events) == past


def test_a_history_is_numbered_after_what_is_there() -> None:
    found = events_of([Said("hi")], head=41, now=5, by=BY, agent="demo", model="m", new_id=ids())
    assert [event.seq for event in found.events] == [42, 43]
    assert found.open_run is None


# -- ids -----------------------------------------------------------------------------------------------


def call_ids(events: list[ev.Event]) -> tuple[list[str], list[str]]:
    started = [e.call_id for e in events if isinstance(e, ev.ToolStarted)]
    return started, [e.call_id for e in events if isinstance(e, ev.ToolCompleted)]


@pytest.mark.parametrize("call_id", ["call_1", ""])
def test_calls_of_one_id_are_told_apart_in_one_step_and_over_several(call_id: str) -> None:
    same = [PastCall(call_id, "weather", {"n": n}, str(n)) for n in range(4)]
    one, two, three = Answered("", calls=same[:2]), Answered("", calls=[same[2]]), Answered("", calls=[same[3]])
    events = imported([Said("hi"), one, two, Said("and"), three])
    started, completed = call_ids(events)
    assert started == completed
    assert len(set(started)) == 4
    assert "" not in started
    assert (started[0] == call_id) == bool(call_id)
    assert [e.output for e in events if isinstance(e, ev.ToolCompleted)] == ["0", "1", "2", "3"]
    assert client_view(map(as_json, events)) == view(folded(events))


def test_a_call_that_the_conversation_knows_already_gets_another_id() -> None:
    events = imported([Said("hi"), Answered("", calls=[SUN])], known={"call_1"})
    started, _ = call_ids(events)
    assert started != ["call_1"]


# -- as values -----------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
words = texts.filter(bool)
a_part: st.SearchStrategy[ContentPart] = st.builds(lambda text: TextPart(text=text), words) | st.just(CAT)
parts: st.SearchStrategy[Input] = st.lists(a_part, min_size=1, max_size=3)
said = st.builds(Said, words | parts)
values = st.none() | st.integers(0, 9) | texts | st.lists(st.booleans(), max_size=2)
arguments = st.dictionaries(texts, values, max_size=2)


def _past_call(
    number: int, name: str, given: dict[str, Any], output: str | None, failed: bool, shown: bool
) -> PastCall:
    known = output is not None
    content: list[ContentPart] | None = [TextPart(text="look"), CAT] if shown and known else None
    return PastCall(f"call_{number}", name, given, output, failed and known, content)


calls = st.builds(_past_call, st.integers(), words, arguments, st.none() | texts, st.booleans(), st.booleans())
answers = st.builds(Answered, texts, texts, st.lists(calls, max_size=3)).filter(lambda a: a != Answered(""))


def _of_different_calls(past: Past) -> bool:
    every = [call.call_id for one in past if isinstance(one, Answered) for call in one.calls]
    return len(set(every)) == len(every)


pasts = st.lists(said | answers, max_size=8).filter(_of_different_calls)


@given(pasts)
def test_there_and_back_it_is_the_same(past: Past) -> None:
    assert past_of(imported(past)) == past


@given(pasts)
def test_what_is_written_down_is_what_was_meant(past: Past) -> None:
    events = imported(past)
    assert [decode_event(encode(event)) for event in events] == events


@given(pasts)
def test_both_folds_take_it_and_agree(past: Past) -> None:
    events = imported(past)
    state = folded(events)
    assert state.active is None
    assert state.head == events[-1].seq == len(events)
    assert client_view(map(as_json, events)) == view(state)


@given(pasts.filter(lambda past: any(isinstance(one, Said) for one in past)))
@settings(max_examples=50)
def test_a_session_goes_on_from_it(past: Past) -> None:
    world = World()
    world.fold.lossless = False
    more: dict[str, Any] = {"now": world.now, "by": BY, "agent": "demo", "model": "m", "new_id": new_id}
    world.take(world.session.adopt(events_of(past, head=1, **more).events, {}))
    world.command(RunStart(input="go on"))
    world.commit()
    world.begin_step()
    world.say("done")
    world.finish_call()
    world.finish_step()
    world.end()
    world.commit()
    assert world.state.active is None
    assert past_of(world.events()) == [*past, Said("go on"), Answered("done")]


@given(pasts.filter(lambda past: len(past) > 1 and isinstance(past[-1], Answered)))
@settings(max_examples=50)
def test_a_run_that_is_left_open_is_one_more_step_away_from_its_end(past: Past) -> None:
    events = imported(past, open_run="run_open")
    state = folded(events)
    assert client_view(map(as_json, events)) == view(state)
    assert state.active is not None
    assert state.active.run_id == "run_open"
    assert state.active.step is None or state.active.step.finished
    assert past_of(events) == past


# -- what a log says -----------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    world = World()
    world.command(RunStart(input="go"))
    world.commit()
    return world


def told(world: World) -> Past:
    world.commit()
    return past_of(world.events())


def test_what_was_discarded_does_not_count(world: World) -> None:
    world.begin_step()
    world.say("first try", "reasoning")
    world.say("half of it")
    world.take(world.session.discard_call(world.agent.run_id if world.agent else "", "retried", world.now))
    world.say("second try", "reasoning")
    world.say("all of it")
    world.finish_call()
    world.finish_step()
    world.end()
    assert told(world) == [Said("go"), Answered("all of it", "second try")]


def test_what_was_steered_in_is_something_said_between_two_steps(world: World) -> None:
    world.begin_step()
    world.say("one")
    world.finish_call()
    world.command(RunSteer(text="be brief"))
    world.finish_step()
    _, decision = world.session.take_steers(world.agent.run_id if world.agent else "", world.now)
    world.take(decision)
    world.begin_step()
    world.say("two")
    world.finish_call()
    world.finish_step()
    assert told(world) == [Said("go"), Answered("one"), Said("be brief"), Answered("two")]


def test_the_input_of_a_run_that_is_tried_again_is_not_said_twice(world: World) -> None:
    world.begin_step()
    world.finish_call(call(city="Oslo"))
    world.end(ErrorInfo(code="model_unreachable", message="no route", retryable=True))
    world.commit()
    world.command(RunRetry(run_id=next(iter(world.state.ended))))
    world.commit()
    world.begin_step()
    world.say("done")
    world.finish_call()
    world.finish_step()
    world.end()
    first, asked, answered = told(world)
    assert first == Said("go")
    assert isinstance(asked, Answered)
    assert [c.name for c in asked.calls] == ["terminal"]
    assert answered == Answered("done")


def test_what_waits_in_the_queue_was_not_said_yet(world: World) -> None:
    world.command(RunStart(input="later"))
    assert told(world) == [Said("go")]


# -- with a runtime ------------------------------------------------------------------------------------


async def brought(runtime: Runtime, past: Past, run_id: str | None = None) -> Any:
    conversation = await runtime.open(REF)

    def make() -> tuple[list[ev.Event], dict[str, RunOptions]]:
        state = conversation.session.state
        more: dict[str, Any] = {"now": conversation.now(), "by": BY, "agent": "demo", "model": "demo", "new_id": new_id}
        found = events_of(past, head=state.head, known=state.calls, open_run=run_id, **more)
        return found.events, {}

    conversation.bring(make)
    await conversation.settled()
    return conversation


SCRIPT = '/tool weather {"city": "Oslo"}\n/say done'


async def test_an_open_run_goes_on_where_its_history_ends(runtime: Runtime) -> None:
    past: Past = [Said("hi"), Answered("hello"), Said(SCRIPT), Answered("", calls=[SUN])]
    conversation = await brought(runtime, past, "run_open")
    sink = follow(runtime, conversation)
    await until(lambda: sink.types.count("run.completed") == 2)
    end = sink.events[-1]
    assert (end["run_id"], end["output"]) == ("run_open", "done")
    assert client_view(sink.events) == view(conversation.session.state)
    assert past_of(decode_event(raw) for raw in sink.raw if b'"seq"' in raw) == [*past, Answered("done")]
    found = await runtime.store.find_run("home", "run_open")
    assert found is not None
    assert found[1].status == "completed"


async def test_an_open_run_that_asks_outlives_the_server(store: Any, tmp_path: Path) -> None:
    past: Past = [Said(f"{SCRIPT}\n/ask what?\n/say end"), Answered("", calls=[SUN])]
    async with runtime_over(store, tmp_path) as first:
        conversation = await brought(first, past, "run_open")
        await until(lambda: conversation.session.state.status == "waiting")
    async with runtime_over(store, tmp_path) as second:
        conversation = await second.open(REF)
        (asked,) = conversation.session.state.interactions.values()
        sink = follow(second, conversation)
        reply = InteractionReply(interaction_id=asked.interaction_id, answers={"answer": "this"})
        await send(second, conversation, reply)
        await until(lambda: "run.completed" in sink.types)
        assert sink.events[-1]["output"] == "end"
        assert client_view(sink.events) == view(conversation.session.state)


async def test_a_history_may_be_added_after_the_runs_of_a_conversation(runtime: Runtime) -> None:
    conversation = await brought(runtime, [Said("hi"), Answered("", calls=[SUN])])
    await send(runtime, conversation, RunStart(input="/say one"))
    await until(lambda: conversation.session.state.active is None)
    await brought(runtime, [Said("and"), Answered("", calls=[SUN])])
    sink = follow(runtime, conversation)
    await until(lambda: sink.types.count("run.completed") == 3)
    started = [event["call_id"] for event in sink.events if event["type"] == "tool.started"]
    assert len(set(started)) == 2
    assert client_view(sink.events) == view(conversation.session.state)
