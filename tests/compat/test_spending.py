"""Each model call counts once, for the answer that it was made in."""

from __future__ import annotations

from hermes_ws.compat.spending import Spending
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import Annotations, Usage

TEN = Usage(input_tokens=8, output_tokens=2, total_tokens=10)
BEGUN = ev.StepStarted(seq=1, ts=0, run_id="r", step=1)
DONE = ev.StepCompleted(seq=9, ts=0, run_id="r", step=1, usage=TEN, duration_ms=0)


def called(usage: Usage | None) -> ev.ToolStarted:
    return ev.ToolStarted(
        seq=2,
        ts=0,
        run_id="r",
        call_id="c",
        step=1,
        name="find",
        source="client",
        title="Find",
        arguments={},
        annotations=Annotations(read_only=True, idempotent=True, destructive=False),
        usage=usage,
    )


def spent(*events: ev.Event) -> int:
    spending = Spending()
    for event in events:
        spending.feed(event)
    return spending.total.total_tokens


def test_an_answer_that_ends_with_a_call_has_what_asking_for_it_has_cost() -> None:
    assert spent(BEGUN, called(None), called(TEN)) == 10


def test_a_step_is_not_counted_again_when_it_is_over() -> None:
    assert spent(BEGUN, called(TEN), DONE) == 10


def test_a_step_that_has_told_nothing_before_counts_when_it_is_over() -> None:
    assert spent(BEGUN, called(None), DONE) == 10
    assert spent(BEGUN, DONE) == 10


def test_an_answer_that_goes_on_in_the_middle_of_a_step_does_not_count_it_again() -> None:
    assert spent(DONE) == 0


def test_what_only_says_what_is_under_way_is_not_counted() -> None:
    spending = Spending()
    for event in (BEGUN, called(TEN)):
        spending.feed(event, counts=False)
    spending.feed(DONE)
    assert spending.total == Usage.zero()
