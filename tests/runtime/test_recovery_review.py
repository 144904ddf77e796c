"""What an adversarial reading of recovery found once, so that it is not found again: whoever dies, and whenever, one
agent goes on with a run, with what people said to it and within what they allowed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from hermes_ws.agents.base import StopReason, Turn
from hermes_ws.agents.llm.loop import LlmAgent
from hermes_ws.agents.llm.model import Finish, ModelPart, ModelRequest, TextDelta
from hermes_ws.errors import CommandError, ModelError, StorageFull, StoreError
from hermes_ws.history import HistoryEntry
from hermes_ws.protocol.commands import (
    ConversationConfigure,
    ConversationFork,
    InteractionReply,
    RunRetry,
    RunStart,
    RunStop,
)
from hermes_ws.protocol.values import ToolFilter
from hermes_ws.runtime import runtime as runtime_module
from hermes_ws.runtime import work
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.runtime.turn import AgentSettings
from hermes_ws.store.base import Append, ConversationRef, Freed
from hermes_ws.tools.base import ToolSettings
from tests.runtime.conftest import REF, Collector, GatedStore, follow, runtime_over, send, until

OTHER = ConversationRef("home", "other")
LATER = 10**15
"""A time at which everything that ended before now is past its time."""


class Choosy(GatedStore):
    """A log that refuses what has an event of some types in it, or loses it without a word, as a crash does."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.refused_deltas = False
        self.lost: set[str] = set()
        self.losses = 0

    def append(self, batch: Append) -> None:
        types = {msgspec.json.decode(event)["type"] for event in batch.events}
        if types & self.lost:
            self.losses += 1
        elif types & self.refused or (self.refused_deltas and any(batch.deltas)):
            asyncio.get_running_loop().call_soon(batch.done, StorageFull("there is no room"))
        else:
            super().append(batch)


@pytest.fixture
def store() -> Choosy:
    return Choosy()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken up again after a while is taken up at once."""
    for module in (runtime_module, work):
        monkeypatch.setattr(module, "RETAKE_FIRST_S", 0.002)


def logged(store: GatedStore, ref: ConversationRef = REF) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event.data) for event in store._conversations[ref].events]


def types_in(store: GatedStore, ref: ConversationRef = REF) -> list[str]:
    return [event["type"] for event in logged(store, ref)]


async def asked(sink: Collector, count: int = 1) -> str:
    """The id of the newest question, once there are ``count``."""
    await until(lambda: sink.types.count("interaction.requested") == count)
    return str(next(e for e in reversed(sink.events) if e["type"] == "interaction.requested")["interaction_id"])


async def answer(runtime: Runtime, conversation: Conversation, interaction_id: str, text: str = "yes") -> None:
    await send(runtime, conversation, InteractionReply(interaction_id=interaction_id, answers={"answer": text}))


# -- who takes a run up, and when ------------------------------------------------------------------------


async def test_a_run_that_begins_before_the_rest_was_taken_up_gets_one_agent(store: Choosy, tmp_path: Path) -> None:
    begun: list[str] = []

    class Counting:
        default_model = "counting"

        async def run(self, turn: Turn) -> StopReason:
            begun.append(turn.run_id)
            async with turn.step():
                await turn.text("hello")
            return "end"

    async with runtime_over(store, tmp_path, counting=Counting()) as runtime:
        conversation = await runtime.open(REF)
        first = await send(runtime, conversation, RunStart(input="/sleep 60"))
        queued = await send(runtime, conversation, RunStart(input="two", agent="counting"))
        conversation.session.holding = True  # as a drain has it
        await send(runtime, conversation, RunStop(run_id=first.run_id))
        await until(lambda: conversation.session.state.active is None and conversation.committed == len(logged(store)))
    assert len(await store.unfinished()) == 1
    assert begun == []
    store.holding = True  # a slow disk: whether the log can be written is not known for a while
    async with runtime_over(store, tmp_path, counting=Counting()) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        async with anyio.create_task_group() as group:
            group.start_soon(send, runtime, conversation, RunStop(run_id=queued.run_id))
            await until(lambda: len(store.held) == 2)
            group.start_soon(send, runtime, conversation, RunStart(input="three", agent="counting"))
            await until(lambda: len(store.held) == 3)
            [third] = conversation.session.state.runs
            store.let_go()
        await until(lambda: bool({"run.completed", "run.failed"} & set(sink.types[-1:])))
        assert begun == [third]
        assert "run.recovered" not in sink.types
        assert sink.types[-1] == "run.completed"


async def test_a_run_whose_end_could_not_be_committed_is_taken_up_again(runtime: Runtime, store: Choosy) -> None:
    conversation = await runtime.open(REF)
    store.refused = {"run.completed"}
    await send(runtime, conversation, RunStart(input="hi"))
    await until(lambda: conversation.dead)
    store.refused = set()
    await until(lambda: types_in(store)[-1] == "run.completed")
    assert await store.unfinished() == []


@pytest.mark.parametrize("what", ["log", "files"])
async def test_a_deletion_that_fails_leaves_the_files_where_they_are_and_the_run_at_work(
    runtime: Runtime, store: Choosy, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(ref: ConversationRef) -> bool:
        raise StorageFull("there is no room")

    def refuse(ref: ConversationRef) -> None:
        raise PermissionError

    conversation = await runtime.open(REF)
    files = runtime.directory.workdir(REF)
    files.mkdir(parents=True)
    (files / "mine").write_text("kept")
    await send(runtime, conversation, RunStart(input="/sleep 0.05\n/say done"))
    with monkeypatch.context() as failing:
        if what == "log":
            failing.setattr(store, "delete", full)
        else:
            failing.setattr(runtime.directory, "set_aside", refuse)
        with pytest.raises(StoreError):
            await runtime.delete(REF)
    assert (files / "mine").read_text() == "kept"
    await until(lambda: types_in(store)[-1] == "run.completed")
    assert await runtime.delete(REF)
    assert not files.exists()


async def test_a_deletion_that_cannot_be_finished_keeps_the_server_from_nothing(store: Choosy, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        await send(runtime, await runtime.open(REF), RunStart(input="hi"))
        runtime.directory.workdir(REF).mkdir(parents=True)
    await store.delete(REF)
    (tmp_path / "hermes-ws-work" / "hermes-ws-trash").touch()
    for _ in range(2):
        async with runtime_over(store, tmp_path) as runtime:
            await send(runtime, await runtime.open(OTHER), RunStart(input="hi"))
            assert not runtime.directory.workdir(REF).exists(), "nobody finds them under the name"


async def test_a_deletion_of_what_is_not_there_closes_nobody(runtime: Runtime, store: Choosy) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    assert not await runtime.delete(REF)
    assert sink.closed is None
    await send(runtime, await runtime.open(REF), RunStart(input="hi"))
    await until(lambda: "run.completed" in sink.types)


async def test_many_deletions_make_few_sweeps_and_one_at_a_time(
    runtime: Runtime, store: Choosy, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = at_once = most = 0
    go_on = asyncio.Event()

    async def sweep(before: int) -> Freed:
        nonlocal begun, at_once, most
        begun, at_once = begun + 1, at_once + 1
        most = max(most, at_once)
        await go_on.wait()
        at_once -= 1
        return Freed(0, 0)

    monkeypatch.setattr(store, "sweep", sweep)
    for name in range(20):
        ref = ConversationRef("home", f"c{name}")
        await send(runtime, await runtime.open(ref), ConversationConfigure(config={"title": "x"}))
        assert await runtime.delete(ref)
    await until(lambda: begun > 0)
    await anyio.wait_all_tasks_blocked()
    assert (begun, most) == (1, 1)
    go_on.set()
    await until(lambda: begun == 2 and at_once == 0)
    assert most == 1


async def test_a_full_disk_is_not_the_fault_of_the_run(store: Choosy, tmp_path: Path) -> None:
    settings = RuntimeSettings(runs=AgentSettings(max_attempts=2))
    async with runtime_over(store, tmp_path, settings) as runtime:
        conversation = await runtime.open(REF)
        store.refused_deltas = True
        await send(runtime, conversation, RunStart(input="/say here I am"))
        await until(lambda: types_in(store).count("run.recovered") == 5 or "run.failed" in types_in(store))
        store.refused_deltas = False
        await until(lambda: types_in(store)[-1] in ("run.completed", "run.failed"))
    assert logged(store)[-1].get("output") == "here I am"
    assert {e["reason"] for e in logged(store) if e["type"] == "run.recovered"} == {"log_unwritable"}


async def test_a_server_that_goes_down_takes_nothing_up_any_more(store: Choosy, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        await send(runtime, conversation, RunStart(input="/sleep 60"))
    before = len(logged(store))
    store.holding = True
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        async with anyio.create_task_group() as group:
            group.start_soon(runtime.drain, 0.1, 100)
            await until(lambda: conversation.session.holding)
            fresh = await runtime.open(OTHER)
            assert fresh.session.holding, "nor does what is loaded only now"
            store.let_go()
        assert runtime.active_runs == 0
        assert (await runtime.open(ConversationRef("home", "late"))).dead
    assert len(logged(store)) == before


async def test_who_has_a_conversation_in_hand_that_left_memory_is_told_so(store: Choosy, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(in_memory=1))
    async with runtime_over(store, tmp_path, settings) as runtime:
        orphan = await runtime.open(REF)
        await runtime.open(OTHER)
        twin = await runtime.open(REF)
        assert twin is not orphan
        assert orphan.dead
        with pytest.raises(CommandError) as refused:
            await send(runtime, orphan, RunStart(input="hi"))
        assert refused.value.code == "internal"
        with twin.held(), pytest.raises(CommandError) as refused:
            await runtime.open(OTHER)
        assert refused.value.code == "overloaded"
        await send(runtime, twin, RunStart(input="hi"))
        await until(lambda: "run.completed" in types_in(store))


# -- what people said and allowed ------------------------------------------------------------------------


async def test_arguments_that_somebody_took_away_are_not_used(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    rules = {"approvals": {"rules": [{"tool": "list_files", "decision": "ask"}]}}
    await send(runtime, conversation, ConversationConfigure(config=rules))
    await send(runtime, conversation, RunStart(input='/tool list_files {"path":"."}'))
    reply = InteractionReply(interaction_id=await asked(sink), option="once", arguments={})
    await send(runtime, conversation, reply)
    await until(lambda: "run.completed" in sink.types)
    assert [e["arguments"] for e in sink.events if e["type"] == "tool.executing"] == [{}]


class Asking:
    """Asks for a name in words that are not the same in every life, then works through two steps."""

    default_model = "asking"

    def __init__(self, prompt: str, *, gate: asyncio.Event | None = None) -> None:
        self.prompt = prompt
        self.gate = gate

    async def run(self, turn: Turn) -> StopReason:
        name = await turn.ask(self.prompt)
        while turn.steps_taken < 2:
            async with turn.step():
                await turn.text(f"{name} ")
                if self.gate is not None and turn.steps_taken == 1:
                    await self.gate.wait()
        return "end"


async def test_a_question_that_nobody_will_hear_the_answer_to_is_withdrawn(store: Choosy, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path, asking=Asking("Your name?")) as runtime:
        conversation = await runtime.open(REF)
        await send(runtime, conversation, RunStart(input="hi", agent="asking"))
        old = await asked(follow(runtime, conversation))
    gate = asyncio.Event()
    async with runtime_over(store, tmp_path, asking=Asking("And your name is?", gate=gate)) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        new = await asked(sink, 2)
        await answer(runtime, conversation, new, "Ann")
        await until(lambda: sink.types.count("step.started") == 2)
        assert conversation.session.state.status == "running"
        assert not conversation.session.state.interactions
        outcomes = {e["interaction_id"]: e["outcome"] for e in sink.events if e["type"] == "interaction.resolved"}
        assert outcomes == {old: "cancelled", new: "answered"}
        gate.set()
        await until(lambda: "run.completed" in sink.types)


async def test_questions_that_come_back_in_another_order_are_not_asked_twice(store: Choosy, tmp_path: Path) -> None:
    class Both:
        default_model = "both"

        def __init__(self, *prompts: str) -> None:
            self.prompts = prompts

        async def run(self, turn: Turn) -> StopReason:
            async with anyio.create_task_group() as group:
                for prompt in self.prompts:
                    group.start_soon(turn.ask, prompt)
            return "end"

    async with runtime_over(store, tmp_path, both=Both("one?", "two?")) as runtime:
        conversation = await runtime.open(REF)
        await send(runtime, conversation, RunStart(input="hi", agent="both"))
        await asked(follow(runtime, conversation), 2)
    async with runtime_over(store, tmp_path, both=Both("two?", "one?")) as runtime:
        conversation = await runtime.open(REF)
        for interaction_id in list(conversation.session.state.interactions):
            await answer(runtime, conversation, interaction_id)
        await until(lambda: "run.completed" in types_in(store))
    assert types_in(store).count("interaction.requested") == 2


async def test_an_answer_from_before_a_finished_step_answers_nothing_after_it(store: Choosy, tmp_path: Path) -> None:
    """The same words may mean another thing by then: rather ask once too often."""
    async with runtime_over(store, tmp_path, asking=Asking("Go on?", gate=asyncio.Event())) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi", agent="asking"))
        await answer(runtime, conversation, await asked(sink), "once")
        await until(lambda: sink.types.count("step.started") == 2)
    async with runtime_over(store, tmp_path, asking=Asking("Go on?")):
        await until(lambda: types_in(store).count("interaction.requested") == 2)


@pytest.mark.parametrize("restart", [False, True])
async def test_configuration_holds_for_a_run_at_work_with_and_without_a_restart(
    store: Choosy, tmp_path: Path, restart: bool
) -> None:
    lives = [Path("first"), Path("second")] if restart else [Path("first")]
    for life in lives:
        async with runtime_over(store, tmp_path) as runtime:
            conversation = await runtime.open(REF)
            sink = follow(runtime, conversation)
            if life == lives[0]:
                await send(runtime, conversation, RunStart(input="/say 1\n/ask go on?\n/say 3\n/say 4"))
                await asked(sink)
                await send(runtime, conversation, ConversationConfigure(config={"limits": {"max_steps": 3}}))
            if life == lives[-1]:
                await answer(runtime, conversation, await asked(sink))
                await until(lambda: "run.completed" in types_in(store))
    assert types_in(store).count("step.completed") == 3
    assert logged(store)[-1]["stop_reason"] == "max_steps"


# -- what the log weighs, and what is in it --------------------------------------------------------------


async def test_the_row_of_a_run_that_was_cancelled_in_the_queue_says_that_it_never_began(
    runtime: Runtime, store: Choosy
) -> None:
    """What the run before it streams lies around its end, and must not be taken for its own."""
    conversation = await runtime.open(REF)
    first = await send(runtime, conversation, RunStart(input="/ask well?"))
    behind = await send(runtime, conversation, RunStart(input="behind"))
    await send(runtime, conversation, RunStop(run_id=behind.run_id))
    await send(runtime, conversation, RunStop(run_id=first.run_id))
    await until(lambda: types_in(store).count("run.cancelled") == 2)
    rows = store._conversations[REF].runs.values()
    assert {row.run_id: row.began for row in rows} == {first.run_id: True, behind.run_id: False}


async def test_what_was_folded_away_weighs_nothing(store: Choosy, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(log_bytes=30_000))
    async with runtime_over(store, tmp_path, settings) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)  # somebody watches: it stays in memory

        async def stream() -> str:
            await send(runtime, conversation, RunStart(input="/stream 50"))
            before = sum(kind in ("run.completed", "run.failed") for kind in sink.types)
            await until(lambda: sum(kind in ("run.completed", "run.failed") for kind in sink.types) > before)
            return str(sink.events[-1]["type"])

        while conversation.log_bytes < 25_000:
            assert await stream() == "run.completed"
        await store.compact(LATER)
        assert await stream() == "run.completed", "nor does a run fail that seems to have gone beyond the limit"
        while not conversation.too_heavy:
            last = await stream()
        assert last == "run.failed"
        with pytest.raises(CommandError) as refused:
            await send(runtime, conversation, RunStart(input="hi"))
        assert refused.value.code == "storage_full"
        await store.compact(LATER)
        assert await stream() == "run.completed"


async def test_a_run_that_is_too_heavy_when_it_is_taken_up_ends_all_the_same(store: Choosy, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        await send(runtime, conversation, RunStart(input="/par\n/ask a?\n/par\n/ask b?\n/sleep 60"))
        await asked(follow(runtime, conversation), 2)
    store.failing = True
    settings = RuntimeSettings(conversations=ConversationSettings(log_bytes=1_000))
    async with runtime_over(store, tmp_path, settings) as runtime:
        conversation = await runtime.open(REF)
        await until(lambda: conversation._timer is not None)
        store.failing = False
        sink = follow(runtime, conversation)
        for interaction_id in list(conversation.session.state.interactions):
            await answer(runtime, conversation, interaction_id)
        await until(lambda: "run.failed" in sink.types)
        assert sink.events[-1]["error"]["code"] == "storage_full"
        await until(lambda: runtime.active_runs == 0)


class Cut:
    """A model whose answers are cut."""

    default_name = "cut"

    def __init__(self, finish: Finish) -> None:
        self._finish = finish

    def goes_on(self, history: list[HistoryEntry]) -> bool:
        return False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelPart, None]:
        yield TextDelta("I will")
        yield self._finish


@pytest.mark.parametrize("finish", [Finish("refused"), Finish("length"), Finish("end")], ids=lambda f: f.reason)
async def test_why_an_answer_ended_outlives_a_crash_right_after_it(
    store: Choosy, tmp_path: Path, finish: Finish
) -> None:
    agent = LlmAgent(Cut(finish))
    store.lost = {"run.completed"}
    async with runtime_over(store, tmp_path, cut=agent) as runtime:
        await send(runtime, await runtime.open(REF), RunStart(input="hi", agent="cut"))
        await until(lambda: store.losses > 0)
    store.lost = set()
    async with runtime_over(store, tmp_path, cut=agent):
        await until(lambda: types_in(store)[-1] == "run.completed")
    assert types_in(store).count("step.completed") == 1
    assert logged(store)[-1]["stop_reason"] == finish.reason


@pytest.mark.parametrize("stopped", [False, True])
async def test_what_an_interrupted_call_had_printed_is_shown_as_a_preview(
    store: Choosy, tmp_path: Path, stopped: bool
) -> None:
    settings = RuntimeSettings(tools=ToolSettings(preview_bytes=1_000))
    async with runtime_over(store, tmp_path, settings) as runtime:
        conversation = await runtime.open(REF)
        await send(runtime, conversation, ConversationConfigure(config={"approvals": {"mode": "auto"}}))
        await send(runtime, conversation, RunStart(input="/run seq 5000; sleep 60\n/say well"))
        calls = conversation.session.state.calls
        await until(lambda: any("\n5000\n" in call.output for call in calls.values()))
        if stopped:
            store.lost = {"tool.completed", "run.cancelled"}
            await send(runtime, conversation, RunStop())
            await until(lambda: store.losses > 0)
    store.lost = set()
    async with runtime_over(store, tmp_path, settings):
        await until(lambda: types_in(store)[-1] in ("run.completed", "run.cancelled"))
    [completed] = [e for e in logged(store) if e["type"] == "tool.completed"]
    assert completed["status"] == "interrupted"
    assert completed["truncated"] is True
    assert completed["output"].startswith("1\n2\n3\n")
    assert "\n5000\n" in completed["output"]
    assert len(completed["output"]) < 1_500


# -- forks -----------------------------------------------------------------------------------------------


async def test_the_id_of_a_fork_is_free_in_the_conversation_that_it_makes(store: Choosy, tmp_path: Path) -> None:
    fork = ConversationFork(id="1", conversation_id="other")
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        await send(runtime, conversation, RunStart(input="hi"))
        await until(lambda: types_in(store)[-1] == "run.completed")
        await send(runtime, conversation, fork)
    async with runtime_over(store, tmp_path) as runtime:
        there = await runtime.open(OTHER)
        assert (await send(runtime, there, RunStart(id="1", input="hi"))).duplicate is None
        assert (await send(runtime, there, RunStart(id="1", input="hi"))).duplicate is True
        with pytest.raises(CommandError) as refused:
            await send(runtime, there, fork)
        assert refused.value.code == "id_reused"
        assert (await send(runtime, await runtime.open(REF), fork)).duplicate is True


async def test_a_retry_in_a_fork_is_as_narrow_as_the_run_was(runtime: Runtime, store: Choosy) -> None:
    seen: list[tuple[str | None, int]] = []

    class Failing:
        default_model = "failing"

        async def run(self, turn: Turn) -> StopReason:
            seen.append((turn.instructions, len(await turn.tools())))
            raise ModelError("model_auth", "no")

    runtime.agents["failing"] = Failing()
    conversation = await runtime.open(REF)
    narrow = RunStart(input="hi", agent="failing", instructions="be brief", tools=ToolFilter(allow=["clarify"]))
    first = await send(runtime, conversation, narrow)
    await until(lambda: types_in(store)[-1] == "run.failed")
    await send(runtime, conversation, RunRetry(run_id=first.run_id or ""))
    await until(lambda: types_in(store).count("run.failed") == 2)
    await send(runtime, conversation, ConversationFork(conversation_id="other"))
    there = await runtime.open(OTHER)
    await send(runtime, there, RunRetry(run_id=list(there.session.state.ended)[-1]))
    await until(lambda: types_in(store, OTHER).count("run.failed") == 3)
    assert seen == [("be brief", 1)] * 3
