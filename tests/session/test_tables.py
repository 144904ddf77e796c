"""The transition tables, pair by pair: a legal event moves as its table says, any other changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hermes_ws.errors import IllegalTransition
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import RunStart
from hermes_ws.protocol.values import Annotations, AnswerableBy, Config, ErrorInfo, OnExpire, Usage
from hermes_ws.session import Session
from hermes_ws.state import INTERACTION, MESSAGE, REASONING, RUN, TOOL_CALL, State

from .world import ALICE, World, call, clarify, view

CLASSES = {ev.event_type(cls): cls for cls in ev.Event.__args__}
NOTES = Annotations(read_only=True, idempotent=True, destructive=False)
QUESTION: dict[str, Any] = {
    "interaction_id": "int_x",
    "kind": "clarify",
    "title": "?",
    "message": "?",
    "editable": False,
    "requested_at": 0,
    "expires_at": 1,
    "on_expire": OnExpire(cancel=True),
    "answerable_by": AnswerableBy(roles=["driver"]),
}
ANSWER: dict[str, Any] = {"interaction_id": "int_x", "outcome": "answered", "by": ALICE, "via": "socket"}
FIELDS: dict[str, dict[str, Any]] = {
    "run.queued": {"input": "hi", "position": 1, "by": ALICE},
    "run.started": {"input": "hi", "agent_name": "llm", "model": "m", "attempt": 1, "by": ALICE},
    "run.recovered": {"attempt": 2, "reason": "server_restarted"},
    "run.waiting": {"interactions": ["int_x"]},
    "run.resumed": {"interactions": ["int_x"]},
    "run.stopping": {"by": ALICE, "mode": "now"},
    "run.completed": {"output": "", "stop_reason": "end", "usage": Usage.zero(), "duration_ms": 0},
    "run.failed": {
        "error": ErrorInfo(code="agent_crashed", message="", retryable=True),
        "usage": Usage.zero(),
    },
    "run.cancelled": {"reason": "stop", "by": ALICE, "usage": Usage.zero()},
    "message.started": {"item_id": "item_x", "step": 1},
    "message.delta": {"item_id": "item_x", "delta": "b"},
    "message.completed": {"item_id": "item_x", "text": "ab", "content": []},
    "reasoning.delta": {"item_id": "item_x", "delta": "b"},
    "reasoning.available": {"item_id": "item_x", "text": "ab"},
    "item.discarded": {"item_id": "item_x", "reason": "retried"},
    "tool.started": {
        "call_id": "call_x",
        "step": 1,
        "name": "terminal",
        "source": "builtin",
        "title": "Terminal",
        "arguments": {},
        "annotations": NOTES,
    },
    "tool.executing": {"call_id": "call_x", "arguments": {}},
    "tool.output": {"call_id": "call_x", "stream": "stdout", "chunk": "x"},
    "tool.completed": {
        "call_id": "call_x",
        "name": "terminal",
        "status": "ok",
        "output": "",
        "truncated": False,
        "duration_ms": 0,
    },
    "interaction.requested": QUESTION,
    "interaction.resolved": ANSWER,
    "step.started": {"step": 1},
}
TO_RUNNING = ("run.started",)
TO_WAITING = (*TO_RUNNING, "interaction.requested", "run.waiting")
RUN_PATHS: dict[str | None, tuple[str, ...]] = {
    None: (),
    "queued": ("run.queued",),
    "running": TO_RUNNING,
    "waiting": TO_WAITING,
    "stopping": (*TO_RUNNING, "run.stopping"),
    "completed": (*TO_RUNNING, "run.completed"),
    "failed": (*TO_RUNNING, "run.failed"),
    "cancelled": (*TO_RUNNING, "run.stopping", "run.cancelled"),
}
STEP = ("run.started", "step.started")
ITEM_PATHS: dict[str, tuple[dict[str, dict[str | None, str]], dict[str | None, tuple[str, ...]]]] = {
    "message": (
        MESSAGE,
        {
            None: STEP,
            "in_progress": (*STEP, "message.started", "message.delta"),
            "completed": (*STEP, "message.started", "message.completed"),
        },
    ),
    "reasoning": (
        REASONING,
        {
            None: STEP,
            "in_progress": (*STEP, "reasoning.delta"),
            "completed": (*STEP, "reasoning.delta", "reasoning.available"),
        },
    ),
    "tool_call": (
        TOOL_CALL,
        {
            None: STEP,
            "started": (*STEP, "tool.started"),
            "executing": (*STEP, "tool.started", "tool.executing"),
            "completed": (*STEP, "tool.started", "tool.executing", "tool.completed"),
        },
    ),
    "interaction": (
        INTERACTION,
        {
            None: TO_RUNNING,
            "open": TO_WAITING,
            "resolved": (*TO_WAITING, "interaction.resolved", "run.resumed"),
        },
    ),
}
ITEM_CASES = [
    pytest.param(table, paths[before], kind, before, id=f"{name}-{kind}-{before}")
    for name, (table, paths) in ITEM_PATHS.items()
    for kind in table
    for before in paths
    # A discarded item that nothing has told of is one whose deltas were folded away: reasoning, for all we know.
    if not (name == "message" and kind == "item.discarded" and before is None)
]


def apply(state: State, *kinds: str, **fields: Any) -> None:
    for kind in kinds:
        given = {**FIELDS[kind], **fields}
        if issubclass(CLASSES[kind], ev.RunEvent):
            given.setdefault("run_id", "run_x")
        state.apply(CLASSES[kind](seq=state.head + 1, ts=state.head, **given))


def conversation(*kinds: str) -> State:
    state = State("demo")
    state.apply(ev.ConversationCreated(seq=1, ts=0, conversation_id="demo", epoch="ep"))
    apply(state, *kinds)
    return state


def status(state: State) -> str | None:
    return state.runs["run_x"].status if "run_x" in state.runs else state.ended.get("run_x")


def refuses(state: State, kind: str, **fields: Any) -> None:
    before = repr(vars(state))
    with pytest.raises(IllegalTransition):
        apply(state, kind, **fields)
    assert repr(vars(state)) == before


@pytest.mark.parametrize("before", RUN_PATHS)
@pytest.mark.parametrize("kind", RUN)
def test_a_run_moves_as_its_table_says(kind: str, before: str | None) -> None:
    state = conversation(*RUN_PATHS[before])
    if kind == "run.waiting" and before in ("running", "stopping"):
        apply(state, "interaction.requested")
    if kind == "run.resumed" and before == "stopping":
        state = conversation(*TO_WAITING, "run.stopping")
    if state.interactions and kind in ("run.resumed", "run.failed"):
        apply(state, "interaction.resolved")
    if before in RUN[kind]:
        apply(state, kind)
        assert status(state) == RUN[kind][before]
    else:
        refuses(state, kind)


@pytest.mark.parametrize(("table", "path", "kind", "before"), ITEM_CASES)
def test_whatever_is_in_a_run_moves_as_its_table_says(
    table: dict[str, dict[str | None, str]], path: tuple[str, ...], kind: str, before: str | None
) -> None:
    state = conversation(*path)
    if before in table[kind]:
        apply(state, kind)
    else:
        refuses(state, kind)


@pytest.mark.parametrize(
    ("path", "kind", "fields"),
    [
        pytest.param((), "run.started", {"seq": 3}, id="a gap in seq"),
        pytest.param(("run.queued",), "run.started", {"run_id": "run_y"} | {"seq": 2}, id="a seq that was there"),
        pytest.param(("run.started",), "run.started", {"run_id": "run_y"}, id="a second active run (guarantee 9)"),
        pytest.param(("run.queued",), "run.queued", {"run_id": "run_y", "position": 3}, id="a place past the end"),
        pytest.param(STEP, "step.started", {"step": 2}, id="a step in a step"),
        pytest.param(("run.started",), "step.started", {"step": 2}, id="a step too far"),
        pytest.param(("run.started",), "message.started", {}, id="a message outside of a step"),
        pytest.param(STEP, "message.started", {"step": 2}, id="a message of another step"),
        pytest.param((*STEP, "tool.started"), "run.failed", {}, id="an end with a call open (guarantee 4)"),
        pytest.param((*STEP, "message.started"), "run.failed", {}, id="an end with a message open (guarantee 4)"),
        pytest.param(TO_WAITING, "run.failed", {}, id="an end with a question open (guarantee 4)"),
        pytest.param(TO_WAITING, "run.waiting", {}, id="waiting twice"),
        pytest.param(TO_WAITING, "run.resumed", {}, id="resuming with a question open"),
        pytest.param(("run.started",), "message.delta", {"run_id": "run_y"}, id="an event of a run that is not active"),
    ],
)
def test_what_no_table_shows_is_refused_too(path: tuple[str, ...], kind: str, fields: dict[str, Any]) -> None:
    state = conversation(*path)
    if "seq" in fields:
        before = repr(vars(state))
        with pytest.raises(IllegalTransition):
            state.apply(CLASSES[kind](ts=0, **{"run_id": "run_x", **FIELDS[kind], **fields}))
        assert repr(vars(state)) == before
    else:
        refuses(state, kind, **fields)


def test_a_conversation_begins_with_its_creation_and_is_created_once() -> None:
    refuses(State("demo"), "run.started")
    state = conversation()
    with pytest.raises(IllegalTransition):
        state.apply(ev.ConversationCreated(seq=2, ts=0, conversation_id="demo", epoch="ep_2"))
    assert state.epoch == "ep"


def test_configurations_are_numbered() -> None:
    state = conversation()
    with pytest.raises(IllegalTransition, match="version 2 after 0"):
        state.apply(ev.ConversationConfigured(seq=2, ts=0, version=2, config=Config(), by=ALICE))


def test_the_state_of_an_mcp_server_changes_nothing_but_the_head() -> None:
    state = conversation()
    before = {**view(state), "at": 2}
    state.apply(ev.McpStatus(seq=2, ts=0, server="github", state="ready"))
    assert view(state) == before


def test_a_steer_is_pending_once_and_settled_once() -> None:
    state = conversation("run.started")

    def steered(disposition: str) -> Callable[[], None]:
        fields = {"steer_id": "steer_1", "text": "left", "by": ALICE, "disposition": disposition}
        event = ev.RunSteered(seq=state.head + 1, ts=0, run_id="run_x", **fields)  # type: ignore[arg-type]
        return lambda: state.apply(event)

    with pytest.raises(IllegalTransition):
        steered("applied")()
    steered("pending")()
    with pytest.raises(IllegalTransition):
        steered("pending")()
    steered("returned")()
    with pytest.raises(IllegalTransition):
        steered("queued")()


def test_nobody_skips_back() -> None:
    state = conversation()
    state.skip(7)
    assert state.head == 7
    with pytest.raises(IllegalTransition):
        state.skip(6)


def test_a_discarded_block_of_reasoning_may_have_lost_all_its_deltas() -> None:
    state = conversation(*STEP)
    state.skip(state.head + 5)
    apply(state, "item.discarded", "run.failed")
    assert [item["role"] for item in view(state)["items"]] == ["user"]


# -- an agent that reports what cannot be -----------------------------------------------------------------


def begun() -> World:
    """A run whose first step is open."""
    world = World()
    world.command(RunStart(input="hi"))
    world.commit()
    world.begin_step()
    return world


def over(world: World) -> None:
    world.end(ErrorInfo(code="agent_crashed", message="", retryable=True))


def called(world: World) -> None:
    """One call waits for a person, the other is over."""
    world.finish_call(call("c1"), call("c2"))
    world.ask(clarify(call_id="c1"))
    world.ask(clarify(call_id="c2"))
    world.execute("c2")
    world.complete("c2")


IMPOSSIBLE: dict[str, tuple[Callable[[World], object], Callable[[Session], object]]] = {
    "a step after the end": (over, lambda s: s.begin_step("run_2", 0)),
    "a second end": (over, lambda s: s.end_run("run_2", "end", 0)),
    "a question after the end": (over, lambda s: s.ask("run_2", clarify(), 0)),
    "steers after the end": (over, lambda s: s.take_steers("run_2", 0)),
    "a step of an unknown run": (World.commit, lambda s: s.begin_step("run_9", 0)),
    "a step in a step": (World.commit, lambda s: s.begin_step("run_2", 0)),
    "a step over while calls are open": (called, lambda s: s.finish_step("run_2", Usage.zero(), 0)),
    "output before executing": (called, lambda s: s.tool_output("run_2", "c1", 0, stream="stdout", chunk="a")),
    "a call that runs twice": (called, lambda s: s.tool_executing("run_2", "c2", {}, 0)),
    "an unknown call": (called, lambda s: s.tool_executing("run_2", "c9", {}, 0)),
    "a second result": (called, lambda s: s.tool_completed("run_2", "c2", 0, status="ok", output="")),
    "a stray result": (called, lambda s: s.tool_completed("run_2", "c9", 0, status="ok", output="")),
    "words between steps": (World.finish_step, lambda s: s.delta("run_2", "message", "a", 0)),
    "thoughts between steps": (World.finish_step, lambda s: s.delta("run_2", "reasoning", "a", 0)),
    "calls between steps": (World.finish_step, lambda s: s.finish_call("run_2", [call("c1")], 0)),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_report_is_a_bug_and_changes_nothing(name: str) -> None:
    prepare, report = IMPOSSIBLE[name]
    world = begun()
    prepare(world)
    before = repr(vars(world.state))
    with pytest.raises(IllegalTransition):
        report(world.session)
    assert repr(vars(world.state)) == before
