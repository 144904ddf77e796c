"""A conversation at work: what is visible when, what a failed commit costs, how deltas merge."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import pytest

from hermes_ws.agents.base import StopReason, Turn
from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import Ping, RunStart, RunStop
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from tests.runtime.conftest import REF, Collector, GatedStore, follow, runtime_over, send, until


class Echo:
    """The agent of docs/architecture.md."""

    default_model = "echo"

    async def run(self, turn: Turn) -> StopReason:
        async with turn.step():
            await turn.text(getattr(turn.history()[-1], "text", ""))
        return "end"


class Talker:
    """Says what it is told to say, when it is told to."""

    default_model = "talker"

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self.done = anyio.Event()

    async def run(self, turn: Turn) -> StopReason:
        async with turn.step():
            self.turn = turn
            await self.done.wait()
        return "end"


def said_last(sink: Collector, text: str) -> bool:
    return bool(sink.events[-1].get("delta") == text)


async def test_an_agent_of_a_page_of_code_fits_the_seam(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path, echo=Echo()) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="over there", agent="echo"))
        await until(lambda: "run.completed" in sink.types)
        assert sink.events[-1]["output"] == "over there"
        assert [event["seq"] for event in sink.events] == list(range(1, len(sink.events) + 1))


async def test_nothing_is_seen_before_it_is_committed(runtime: Runtime, store: GatedStore) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    store.holding = True
    answers: list[object] = []
    async with anyio.create_task_group() as group:

        async def ask() -> None:
            answers.append(await send(runtime, conversation, RunStart(input="hi")))

        group.start_soon(ask)
        await until(lambda: bool(store.held))
        await anyio.wait_all_tasks_blocked()
        assert sink.events == []
        assert answers == []
        assert runtime.active_runs == 0, "no agent starts before its run is committed"
        assert conversation.epoch is None
        store.let_go()
    await until(lambda: "run.completed" in sink.types)
    assert answers


async def test_deltas_that_wait_together_become_one_event_and_keep_their_order(
    store: GatedStore, tmp_path: Path
) -> None:
    talker = Talker()
    async with runtime_over(store, tmp_path, talker=talker) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi", agent="talker"))
        await until(lambda: talker.turn is not None and "step.started" in sink.types)
        turn = talker.turn
        assert turn is not None
        store.holding = True
        for word in ["a", "b", "c"]:
            await turn.text(word)
        await turn.reasoning("hm")
        await turn.text("d")
        store.let_go()
        talker.done.set()
        await until(lambda: "run.completed" in sink.types)
        deltas = [(e["type"], e["delta"]) for e in sink.events if e["type"].endswith(".delta")]
        assert deltas == [
            ("message.delta", "a"),
            ("message.delta", "bc"),
            ("reasoning.delta", "hm"),
            ("message.delta", "d"),
        ]
        assert sink.events[-1]["output"] == "abcd"


async def test_a_delta_that_finds_the_pipe_idle_goes_out_at_once(store: GatedStore, tmp_path: Path) -> None:
    talker = Talker()
    async with runtime_over(store, tmp_path, talker=talker) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi", agent="talker"))
        await until(lambda: talker.turn is not None and "step.started" in sink.types)
        assert talker.turn is not None
        for word in ["a", "b", "c"]:
            await talker.turn.text(word)
            await until(partial(said_last, sink, word))
        talker.done.set()
        await until(lambda: "run.completed" in sink.types)


async def test_an_agent_that_outruns_the_log_is_made_to_wait(store: GatedStore, tmp_path: Path) -> None:
    talker = Talker()
    settings = RuntimeSettings(conversations=ConversationSettings(backlog_bytes=1000))
    async with runtime_over(store, tmp_path, settings, talker=talker) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi", agent="talker"))
        await until(lambda: talker.turn is not None and "step.started" in sink.types)
        turn = talker.turn
        assert turn is not None
        store.holding = True
        await turn.text("first")
        said: list[int] = []

        async def talk() -> None:
            for number in range(10):
                await turn.text("x" * 400)
                said.append(number)

        async with anyio.create_task_group() as group:
            group.start_soon(talk)
            await anyio.wait_all_tasks_blocked()
            assert len(said) == 2
            store.let_go()
        talker.done.set()
        await until(lambda: "run.completed" in sink.types)
        assert len(sink.events[-1]["output"]) == 4005


async def test_a_failed_commit_drops_the_conversation_and_the_next_one_folds_it_anew(
    runtime: Runtime, store: GatedStore
) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/sleep 60"))
    await until(lambda: "step.started" in sink.types)
    store.failing = True
    with pytest.raises(CommandError) as refused:
        await send(runtime, conversation, RunStart(input="more"))
    assert refused.value.code == "internal"
    assert sink.closed is not None
    assert sink.closed[0] == 4500
    await until(lambda: runtime.active_runs == 0)
    store.failing = False
    again = await runtime.open(REF)
    assert again is not conversation
    after = follow(runtime, again)
    await until(lambda: "run.recovered" in after.types)
    assert after.events[: len(sink.events)] == sink.events, "what was seen is in the log"
    assert [event["seq"] for event in after.events] == list(range(1, len(after.events) + 1))
    assert runtime.active_runs == 1
    await send(runtime, again, RunStop())
    await until(lambda: "run.cancelled" in after.types)
    await send(runtime, again, RunStart(input="hi"))
    await until(lambda: "run.completed" in after.types)


async def test_a_crashing_agent_fails_its_run_and_nothing_else(store: GatedStore, tmp_path: Path) -> None:
    class Crash:
        default_model = "none"

        async def run(self, turn: Turn) -> StopReason:
            async with turn.step():
                await turn.text("half a")
                raise ZeroDivisionError("secret details")

    async with runtime_over(store, tmp_path, crash=Crash()) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi", agent="crash"))
        await send(runtime, conversation, RunStart(input="hi"))
        await until(lambda: "run.completed" in sink.types)
        failed = next(event for event in sink.events if event["type"] == "run.failed")
        assert failed["error"]["code"] == "agent_crashed"
        assert "secret" not in failed["error"]["message"]
        assert "item.discarded" in sink.types


async def test_reads_create_nothing_and_an_idle_conversation_leaves_memory(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(idle_s=0.0))
    async with runtime_over(store, tmp_path, settings) as runtime:
        conversation = await runtime.open(REF)
        assert (await send(runtime, conversation, Ping())).head == 0
        await until(lambda: runtime.conversations == 0)
        assert await store.load(REF) is None
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi"))
        await until(lambda: "run.completed" in sink.types)
        for reader in tuple(conversation.readers):
            reader.stop()
        await until(lambda: runtime.conversations == 0)
        back = await runtime.open(REF)
        assert back is not conversation
        assert back.session.state.head == len(sink.events)
        again = follow(runtime, back)
        await until(lambda: len(again.events) == len(sink.events))
        assert again.events == sink.events


async def test_a_stop_cuts_a_model_call_at_once(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/say half\n/sleep 3600"))
    await until(lambda: sink.types.count("step.started") == 2)
    await send(runtime, conversation, RunStop())
    await until(lambda: "run.cancelled" in sink.types)
    assert runtime.active_runs == 0
