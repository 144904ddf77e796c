"""What is left out when a conversation outgrows the window, and what never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_ws.agents.llm.trimming import IMAGE_TOKENS, estimate, fit
from hermes_ws.history import AssistantTurn, CallMade, HistoryEntry, ToolAnswer, UserTurn
from hermes_ws.protocol.values import ImagePart, TextPart
from tests.agents.conftest import Asker, request_for, tool, user
from tests.agents.endpoint_server import Endpoint, text

LONG = "word " * 2_000


def step(run_id: str, said: str = "", *call_ids: str, output: str = "seen") -> list[HistoryEntry]:
    """A step with its calls and their answers."""
    calls = [CallMade(call_id, "look", "builtin", {"path": call_id}) for call_id in call_ids]
    answers = [ToolAnswer(call_id, "look", "ok", output, None) for call_id in call_ids]
    return [AssistantTurn(run_id, said, "", calls), *answers]


def texts(entries: list[HistoryEntry]) -> list[str]:
    return [entry.output if isinstance(entry, ToolAnswer) else entry.text for entry in entries]


def test_what_fits_is_left_alone() -> None:
    history = [user("one"), *step("r1", "1"), user("two")]
    assert fit(history, estimate(history)) == history


def test_the_oldest_exchanges_go_whole_and_a_note_says_so() -> None:
    history = [
        user(LONG), *step("r1", LONG, "a"), *step("r1", "x"),
        user("two"), *step("r2", "", "b"), *step("r2", "2"),
        user("three"),
    ]  # fmt: skip
    kept = fit(history, 400)
    assert "left out" in texts(kept)[0]
    assert kept[1:] == history[4:]


def test_a_later_exchange_does_not_stay_where_an_earlier_one_went() -> None:
    history = [user("one"), *step("r1", "1"), user(LONG), *step("r2", "2"), user("three")]
    assert texts(fit(history, 500))[1:] == ["three"]


def test_then_old_outputs_of_the_run_are_shortened_but_not_the_newest() -> None:
    history = [
        user("old"), *step("r0", "0"),
        user("go"), *step("r1", "", "a", output=LONG), *step("r1", "", "b", output=LONG),
    ]  # fmt: skip
    kept = fit(history, 4_000)
    outputs = [entry.output for entry in kept if isinstance(entry, ToolAnswer)]
    assert len(outputs[0]) < 1_000
    assert "bytes were left out" in outputs[0]
    assert outputs[0].startswith("word ")
    assert outputs[1] == LONG
    assert "old" not in texts(kept)


def test_then_its_oldest_steps_go_and_a_note_stands_in_their_place() -> None:
    steps = [step("r1", "", f"c{n}", output="x" * 500) for n in range(20)]
    history = [user("go"), *steps[0], user("faster", steered=True), *(e for s in steps[1:] for e in s)]
    kept = fit(history, 700)
    assert texts(kept)[0] == "go"
    assert "Earlier steps of this run" in texts(kept)[1]
    assert texts(kept)[2] == "faster"
    assert kept[-2:] == steps[-1]
    assert sum("left out" in t for t in texts(kept)) == 1


def test_at_the_end_the_newest_outputs_are_shortened_too() -> None:
    history = [user("go"), *step("r1", "", "a", "b", output=LONG)]
    kept = fit(history, 1_000)
    assert estimate(kept) <= 1_000
    assert [e.call_id for e in kept if isinstance(e, ToolAnswer)] == ["a", "b"]


def test_what_people_said_to_this_run_stays_even_if_it_does_not_fit() -> None:
    history = [user(LONG), *step("r1", "1"), user("more " + LONG, steered=True)]
    assert fit(history, 10) == history


def test_an_image_has_its_price_and_goes_with_an_old_output() -> None:
    picture = ImagePart(url="data:image/png;base64,AAAA")
    shown = ToolAnswer("a", "look", "ok", "a picture", [TextPart(text="a picture"), picture])
    assert estimate([UserTurn("r", "x", [picture, picture], False)]) > 2 * IMAGE_TOKENS
    made = [CallMade("a", "look", "builtin", {})]
    history = [user("go"), AssistantTurn("r1", "", "", made), shown, *step("r1", "", "b")]
    kept = fit(history, 300)
    assert texts(kept) == texts(history)
    assert isinstance(kept[2], ToolAnswer)
    assert kept[2].content is None


# -- for every history -----------------------------------------------------------------------------------

sizes = st.integers(0, 3_000)


@st.composite
def histories(draw: st.DrawFn) -> list[HistoryEntry]:
    entries: list[HistoryEntry] = []
    numbers = iter(range(1_000))
    for run in range(draw(st.integers(1, 4))):
        entries.append(user(f"input {run} " + "i" * draw(sizes), run_id=f"r{run}"))
        for _ in range(draw(st.integers(0, 4))):
            ids = [f"c{next(numbers)}" for _ in range(draw(st.integers(0, 3)))]
            entries += step(f"r{run}", f"step {next(numbers)} " + "s" * draw(sizes), *ids, output="o" * draw(sizes))
            if draw(st.booleans()):
                entries.append(user(f"steer {next(numbers)}", steered=True))
    return entries


def current(entries: list[HistoryEntry]) -> list[HistoryEntry]:
    """What belongs to the newest run."""
    starts = [n for n, entry in enumerate(entries) if isinstance(entry, UserTurn) and not entry.steered]
    return entries[starts[-1] :]


@given(histories(), st.integers(0, 8_000))
def test_a_call_and_its_answer_stay_or_go_together(history: list[HistoryEntry], budget: int) -> None:
    kept = fit(history, budget)
    for n, entry in enumerate(kept):
        if isinstance(entry, AssistantTurn):
            following = kept[n + 1 : n + 1 + len(entry.calls)]
            assert [e.call_id for e in following if isinstance(e, ToolAnswer)] == [c.call_id for c in entry.calls]
    calls = [call for entry in kept if isinstance(entry, AssistantTurn) for call in entry.calls]
    assert sum(isinstance(entry, ToolAnswer) for entry in kept) == len(calls)


@given(histories(), st.integers(0, 8_000))
def test_what_was_said_to_the_newest_run_and_its_newest_step_stay(history: list[HistoryEntry], budget: int) -> None:
    kept = fit(history, budget)
    said = [entry for entry in current(history) if isinstance(entry, UserTurn)]
    assert [entry for entry in kept if entry in said] == said
    steps = [entry for entry in current(history) if isinstance(entry, AssistantTurn)]
    assert not steps or steps[-1] in kept


@given(histories(), st.integers(0, 8_000))
def test_the_rest_keeps_its_order_and_fits_unless_nothing_more_can_go(history: list[HistoryEntry], budget: int) -> None:
    kept = fit(history, budget)
    known = [entry for entry in history if entry in kept]
    assert [entry for entry in kept if entry in known] == known
    assert estimate(kept) <= budget or estimate(kept) <= estimate(fit(history, 0))


@given(histories(), st.integers(0, 8_000))
def test_a_note_says_so_exactly_where_something_is_missing(history: list[HistoryEntry], budget: int) -> None:
    kept = fit(history, budget)
    whole = [type(entry) for entry in history]
    notes = [entry for entry in kept if isinstance(entry, UserTurn) and "left out" in entry.text]
    assert (len(notes) > 0) == (len(kept) - len(notes) < len(whole))
    assert len(notes) <= 2


@given(histories())
def test_what_fits_once_is_not_trimmed_again(history: list[HistoryEntry]) -> None:
    kept = fit(history, 2_000)
    assert fit(kept, max(2_000, estimate(kept))) == kept


# -- the window ------------------------------------------------------------------------------------------


async def test_a_known_window_is_kept_without_asking(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("ok"))
    history = [user(f"{n} " + "word " * 400, run_id=f"r{n}") for n in range(20)]
    many = [tool(f"t{n}", parameters={"type": "object", "description": "d" * 2_000}) for n in range(4)]
    kept: dict[str, int] = {}
    for name, tools, settings in [
        ("small", [], {"context_window": 4_000}),
        ("answer", [], {"context_window": 4_000, "max_output_tokens": 2_000}),
        ("tools", many, {"context_window": 4_000}),
    ]:
        await ask(request_for(history, tools, instructions="Be brief."), **settings)
        kept[name] = sum(str(endpoint.last.body["messages"]).count(f"{n} word") for n in range(10, 20))
    assert kept["small"] > kept["answer"] > 0
    assert kept["small"] > kept["tools"] > 0
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("window", [1, 50])
async def test_a_window_that_is_too_small_for_anything_still_sends_the_input(
    endpoint: Endpoint, ask: Asker, window: int
) -> None:
    endpoint.plays(text("ok"))
    await ask(request_for([user("old"), user("the question")]), context_window=window)
    assert "the question" in str(endpoint.last.body["messages"])
