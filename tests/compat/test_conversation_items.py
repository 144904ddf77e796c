"""Items that are added to a conversation: what goes into its log, and what is kept beside that."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.compat.conversation_items import Added, Beside, CallNote, Instruction, added, ends_of, listed
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.past import Answered, Past, PastCall, Said, events_of
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import By

Json = dict[str, Any]

USER: Json = {"role": "user", "content": "hi"}
SPOKEN: Json = {"role": "assistant", "content": "hello"}
SYSTEM: Json = {"role": "system", "content": "Be kind."}


def call(call_id: str = "z") -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "look", "arguments": "{}"}


def output(call_id: str = "z", text: str = "seen") -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def read(*given: Json, waiting: dict[str, Json] | None = None, known: tuple[str, ...] = ()) -> Added:
    return added(given, waiting or {}, known, "it_1")


def settled(call_id: str = "z", text: str = "seen") -> PastCall:
    return PastCall(call_id, "look", {}, text)


def places(notes: list[Beside]) -> list[tuple[int, int]]:
    return [(note.place, note.before) for note in notes]


def events(past: Past) -> list[ev.Event]:
    ids = iter(range(1_000))
    by, agent = By(principal="someone"), "demo"
    made = events_of(past, head=10, now=1, by=by, agent=agent, model="m", new_id=lambda kind: f"{kind}_{next(ids)}")
    return made.events


def test_a_system_message_comes_after_what_was_before_it() -> None:
    new = read(USER, SYSTEM, SPOKEN, call(), output(), {"role": "developer", "content": "Be brief."})
    assert new.past == [Said("hi"), Answered("hello", calls=[settled()])]
    assert new.texts == ["Be kind.", "Be brief."]
    assert places(new.instructions) == [(1, 1), (5, 2)]


def test_a_call_without_what_it_came_to_is_no_history_yet() -> None:
    new = read(USER, SPOKEN, call("a"), call("b"), output("a"), {"role": "user", "content": "so?"})
    assert new.past == [Said("hi"), Answered("hello", calls=[settled("a")]), Said("so?")]
    assert [note.item["call_id"] for note in new.calls] == ["b"]
    assert places(new.calls) == [(3, 2)]
    assert read(call()).past == []


def test_with_what_it_came_to_it_is() -> None:
    waiting = {name: {**call(name), "id": f"fc_{name}"} for name in "abc"}
    new = read(SPOKEN, output("b", "B"), output("a", "A"), USER, waiting=waiting)
    assert new.past == [Answered("hello", calls=[settled("b", "B"), settled("a", "A")]), Said("hi")]
    assert new.calls == []


def test_a_call_of_a_tool_that_takes_text_is_one_too() -> None:
    custom = {"type": "custom_tool_call", "call_id": "z", "name": "look", "input": "there"}
    [note] = read(custom).calls
    waiting = {"z": note.item}
    new = read({**output(), "type": "custom_tool_call_output"}, waiting=waiting)
    assert new.past == [Answered("", calls=[PastCall("z", "look", {"input": "there"}, "seen")])]


def test_a_call_that_waits_already_is_not_added_again() -> None:
    waiting = {"z": {**call(), "id": "fc_z"}}
    assert read(call(), waiting=waiting).calls == []
    assert read(call(), output(), waiting=waiting).past == [Answered("", calls=[settled()])]


def test_one_that_the_log_has_is_passed_over() -> None:
    new = read(call(), USER, known=("z",))
    assert (new.past, new.calls) == ([Said("hi")], [])


@pytest.mark.parametrize(
    "given",
    [[USER, output()], [USER, call(), output(), output()], [output("a"), output("a")]],
)
def test_an_output_of_no_call_names_its_field(given: list[Json]) -> None:
    with pytest.raises(ApiError) as caught:
        read(*given, waiting={"a": {**call("a"), "id": "fc_a"}})
    assert (caught.value.code, caught.value.param) == ("unknown_tool_call", f"items[{len(given) - 1}].call_id")


def test_each_part_of_a_history_ends_with_an_event() -> None:
    pasts: list[Past] = [[Said("hi"), Answered("hello"), Said("so?")], [Answered("hello"), Said("hi")]]
    for past in pasts:
        there = {event.seq: event for event in events(past)}
        ends = [there[seq] for seq in ends_of(past, [*there.values()])]
        assert [type(event) for event in ends] == [
            ev.RunStarted if isinstance(one, Said) else ev.StepCompleted for one in past
        ]
        assert [event.input for event in ends if isinstance(event, ev.RunStarted)] == [
            one.parts for one in past if isinstance(one, Said)
        ]


def test_what_is_kept_beside_the_log_is_listed_where_it_was_added() -> None:
    past: Past = [Said("hi"), Answered("hello")]
    log = events(past)
    ends = ends_of(past, log)
    told = Instruction(text="Be kind.", after=ends[0], place=1, item={"type": "message", "id": "msg_s"})
    first = CallNote(after=ends[0], place=0, item={**call(), "id": "fc_1"})
    last = CallNote(after=ends[1], place=2, item={**call("b"), "id": "fc_2"})
    ids = [item["id"] for item in listed(log, [told], [first, last])]
    assert ids[1:3] == ["fc_1", "msg_s"]
    assert (len(ids), ids[-1]) == (5, "fc_2")


def test_a_call_is_listed_once_and_as_it_was_added() -> None:
    log = events([Said("hi"), Answered("", calls=[settled()])])
    note = CallNote(after=10, item={**call(), "id": "fc_1"})
    found = listed(log, [], [note])
    assert [item["type"] for item in found] == ["message", "function_call", "function_call_output"]
    assert found[1] == note.item
