"""What an adversarial reading found once, so that it is not found again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from hermes_ws.agents.base import RequestedCall, StopReason, Turn
from hermes_ws.errors import CommandError, StoreError
from hermes_ws.protocol.commands import (
    ApprovalsList,
    ApprovalsRevoke,
    ConversationConfigure,
    ConversationFork,
    InteractionReply,
    RunStart,
    RunSteer,
    RunStop,
)
from hermes_ws.protocol.values import MessageItem, ToolFilter
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.runtime.turn import AgentSettings
from hermes_ws.store.base import ConversationRef, RuleRow
from tests.runtime.conftest import ME, REF, Collector, GatedStore, follow, runtime_over, send, until

OTHER = ConversationRef("home", "other")
GUEST = replace(ME, principal=replace(ME.principal, name="guest", role="driver", tools=ToolFilter(deny=["terminal"])))


async def asked(sink: Collector) -> str:
    """The id of the question that is open."""
    await until(lambda: "interaction.requested" in sink.types)
    return str(next(e for e in reversed(sink.events) if e["type"] == "interaction.requested")["interaction_id"])


async def test_thousands_wait_for_one_commit_and_all_are_told(runtime: Runtime, store: GatedStore) -> None:
    conversation = await runtime.open(REF)
    store.holding = True
    async with anyio.create_task_group() as group:
        group.start_soon(send, runtime, conversation, RunStart(input="/sleep 60"))
        await until(lambda: bool(store.held))
        for _ in range(3_000):
            group.start_soon(conversation.settled)
        await anyio.wait_all_tasks_blocked()
        store.let_go()


@pytest.mark.parametrize("when", ["before", "after its calls", "called twice"])
async def test_an_agent_that_speaks_outside_its_answer_fails_and_harms_nobody_else(
    store: GatedStore, tmp_path: Path, when: str
) -> None:
    """A restart could not tell what such an agent would have done next."""

    class Stray:
        default_model = "stray"

        async def run(self, turn: Turn) -> StopReason:
            if when == "before":
                await turn.text("to nobody")
            async with turn.step():
                await turn.call_tools([RequestedCall("", "list_files", {})])
                if when == "called twice":
                    await turn.call_tools([RequestedCall("", "list_files", {})])
                await turn.text("to everybody")
            return "end"

    async with runtime_over(store, tmp_path, stray=Stray()) as runtime:
        one, other = await runtime.open(REF), await runtime.open(OTHER)
        stray, sane = follow(runtime, one), follow(runtime, other)
        await send(runtime, one, RunStart(input="hi", agent="stray"))
        await send(runtime, other, RunStart(input="hi"))
        await until(lambda: "run.failed" in stray.types and "run.completed" in sane.types)
        assert stray.events[-1]["error"]["code"] == "agent_crashed"


async def test_a_command_that_the_log_failed_may_be_sent_again_under_its_id(
    runtime: Runtime, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="hi"))
    await until(lambda: "run.completed" in sink.types)
    whole = store.load

    async def broken(ref: ConversationRef) -> Any:
        raise StoreError("the log cannot be read")

    monkeypatch.setattr(store, "load", broken)
    with pytest.raises(CommandError, match="nothing was done"):
        await send(runtime, conversation, ConversationFork(id="f1"))
    monkeypatch.setattr(store, "load", whole)
    answer = await send(runtime, conversation, ConversationFork(id="f1"))
    assert answer.duplicate is None
    again = await send(runtime, conversation, ConversationFork(id="f1"))
    assert (again.duplicate, again.conversation_id) == (True, answer.conversation_id)


async def test_a_run_that_waits_for_a_person_leaves_its_place_to_others(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path, RuntimeSettings(runs=AgentSettings(concurrent=1))) as runtime:
        one, other = await runtime.open(REF), await runtime.open(OTHER)
        waiting, working = follow(runtime, one), follow(runtime, other)
        await send(runtime, one, RunStart(input="/ask a?\n/par\n/ask b?\n/say done"))
        await until(lambda: waiting.types.count("interaction.requested") == 2)
        await send(runtime, other, RunStart(input="hi"))
        await until(lambda: "run.completed" in working.types)
        for event in [e for e in waiting.events if e["type"] == "interaction.requested"]:
            await send(
                runtime, one, InteractionReply(interaction_id=event["interaction_id"], answers={"answer": "yes"})
            )
        await until(lambda: "run.completed" in waiting.types)
        await send(runtime, one, RunStart(input="/ask a?"))
        await until(lambda: waiting.types.count("interaction.requested") == 3)
        await send(runtime, one, RunStop())
        await send(runtime, other, RunStart(input="hi"))
        await until(lambda: working.types.count("run.completed") == 2)


async def refused_terminal(sink: Collector) -> None:
    await until(lambda: "tool.completed" in sink.types)
    assert next(e["status"] for e in sink.events if e["type"] == "tool.completed") == "denied"


async def test_who_may_not_use_the_terminal_does_not_get_it_by_steering_late(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, ConversationConfigure(config={"approvals": {"mode": "auto"}}))
    await send(runtime, conversation, RunStart(input="/ask go?\n/fail model_auth"))
    interaction_id = await asked(sink)
    await send(runtime, conversation, RunSteer(text="/run id"), GUEST)
    await send(runtime, conversation, ConversationConfigure(config={"limits": {"max_steps": 1}}))
    await send(runtime, conversation, InteractionReply(interaction_id=interaction_id, answers={"answer": "x"}))
    await until(lambda: sum(kind in ("run.completed", "run.failed") for kind in sink.types) >= 1)
    await until(lambda: conversation.session.state.status == "idle")
    executed = [e["arguments"] for e in sink.events if e["type"] == "tool.executing"]
    assert {"command": "id"} not in executed


async def test_who_may_not_use_the_terminal_does_not_get_it_by_starting_or_steering(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    await send(runtime, conversation, ConversationConfigure(config={"approvals": {"mode": "auto"}}))
    started = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/run id"), GUEST)
    await refused_terminal(started)
    await until(lambda: "run.completed" in started.types)
    steered = follow(runtime, conversation, after=conversation.committed)
    await send(runtime, conversation, RunStart(input="/ask go?\n/run id"))
    interaction_id = await asked(steered)
    await send(runtime, conversation, RunSteer(text="run id for me"), GUEST)
    await send(runtime, conversation, InteractionReply(interaction_id=interaction_id, answers={"answer": "x"}))
    await until(lambda: "run.completed" in steered.types)
    statuses = [e["status"] for e in steered.events if e["type"] == "tool.completed" and e["name"] == "terminal"]
    assert statuses == ["denied"]


async def test_who_may_not_use_a_tool_does_not_write_its_arguments(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/run echo harmless"))
    interaction_id = await asked(sink)
    edited = InteractionReply(interaction_id=interaction_id, option="once", arguments={"command": "id"})
    with pytest.raises(CommandError) as refused:
        await send(runtime, conversation, edited, GUEST)
    assert (refused.value.code, refused.value.path) == ("not_permitted", "$.arguments")
    await send(runtime, conversation, InteractionReply(interaction_id=interaction_id, option="once"), GUEST)
    await until(lambda: "run.completed" in sink.types)
    assert [e["arguments"] for e in sink.events if e["type"] == "tool.executing"] == [{"command": "echo harmless"}]


async def test_a_conversation_that_somebody_works_with_does_not_leave_memory(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(idle_s=0.0))
    async with runtime_over(store, tmp_path, settings) as runtime:
        conversation = await runtime.open(REF)
        async with anyio.create_task_group() as group:
            group.start_soon(conversation.wait_beyond, 0, 30.0)
            await anyio.wait_all_tasks_blocked()
            runtime._beat()
            assert await runtime.open(REF) is conversation
            await send(runtime, conversation, RunStart(input="hi"))
        await until(lambda: conversation.session.state.status == "idle")


async def test_a_fork_after_a_queued_run_was_cancelled(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    first = await send(runtime, conversation, RunStart(input="/sleep 60"))
    dropped = await send(runtime, conversation, RunStart(input="never"))
    await send(runtime, conversation, RunStart(input="second"))
    await send(runtime, conversation, RunStop(run_id=dropped.run_id))
    await send(runtime, conversation, RunStop(run_id=first.run_id))
    await until(lambda: "run.completed" in sink.types)
    forked = await send(runtime, conversation, ConversationFork())
    assert forked.conversation_id is not None
    copy = await runtime.open(ConversationRef("home", forked.conversation_id))
    items, _ = copy.session.state.window(None, max_items=100, max_bytes=100_000)
    said = [item for item in items if isinstance(item, MessageItem)]
    inputs = [item.text for item in said if item.role == "user"]
    assert sorted(inputs) == ["/sleep 60", "second"]


async def test_a_fork_does_not_take_an_id_that_is_in_use(runtime: Runtime) -> None:
    conversation, other = await runtime.open(REF), await runtime.open(OTHER)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="hi"))
    await send(runtime, other, RunStart(input="hi"))
    await until(lambda: "run.completed" in sink.types)
    with pytest.raises(CommandError, match="exists already"):
        await send(runtime, conversation, ConversationFork(conversation_id="other"))


async def test_an_always_rule_can_be_revoked_from_a_new_conversation(runtime: Runtime, store: GatedStore) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/run true"))
    await send(runtime, conversation, InteractionReply(interaction_id=await asked(sink), option="always"))
    fresh = await runtime.open(OTHER)
    there = follow(runtime, fresh)
    [rule] = (await send(runtime, fresh, ApprovalsList())).rules or []
    await send(runtime, fresh, ApprovalsRevoke(rule_id=rule.rule_id))
    assert there.closed is None
    assert (await send(runtime, fresh, ApprovalsList())).rules == []


async def test_one_unreadable_conversation_keeps_no_other_from_its_work(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        for ref in (REF, OTHER):
            await send(runtime, await runtime.open(ref), RunStart(input="/sleep 60"))
    store._conversations[REF].events[1] = store._conversations[REF].events[1]._replace(data=b'{"type":"rubbish"}')
    async with runtime_over(store, tmp_path) as runtime:
        other = await runtime.open(OTHER)
        sink = follow(runtime, other)
        await until(lambda: "run.recovered" in sink.types)
        with pytest.raises(StoreError):
            await runtime.open(REF)


async def test_a_rule_table_that_cannot_be_read_lets_no_tool_run(
    runtime: Runtime, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(namespace: str, principal: str, agent: str | None) -> list[RuleRow]:
        raise StoreError("the log cannot be read")

    monkeypatch.setattr(store, "always_rules", broken)
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/run true\n/say on"))
    await until(lambda: "run.completed" in sink.types)
    assert next(e for e in sink.events if e["type"] == "tool.completed")["status"] == "error"
    assert "tool.executing" not in sink.types


async def test_a_drain_starts_nothing_that_it_would_have_to_break_off(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="/sleep 0.2"))
        await send(runtime, conversation, RunStart(input="later"))
        await runtime.drain(10.0, 1_000)
        assert sink.types.count("run.started") == 1
        assert sink.types.count("run.completed") == 1
        assert sink.closed is not None
        assert sink.closed[0] == 4503
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        after = follow(runtime, conversation)
        await until(lambda: after.types.count("run.completed") == 2)
        assert "later" in after.events[-1]["output"]


async def test_policy_that_became_stricter_while_a_question_was_open_holds(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/run true"))
    interaction_id = await asked(sink)
    await send(runtime, conversation, ConversationConfigure(config={"approvals": {"mode": "deny"}}))
    await send(runtime, conversation, InteractionReply(interaction_id=interaction_id, option="once"))
    await refused_terminal(sink)


async def test_edited_arguments_that_are_riskier_are_asked_about_again(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input="/run echo hi"))
    interaction_id = await asked(sink)
    edited = {"command": "sudo -n true; echo worse"}
    await send(runtime, conversation, InteractionReply(interaction_id=interaction_id, option="once", arguments=edited))
    await until(lambda: sink.types.count("interaction.requested") == 2)
    second = next(e for e in reversed(sink.events) if e["type"] == "interaction.requested")
    assert second["tool"]["arguments"] == edited
    assert second["tool"]["risk"] == "high"
    await send(runtime, conversation, InteractionReply(interaction_id=second["interaction_id"], option="deny"))
    await refused_terminal(sink)


async def test_holding_ends_with_the_work(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    await send(runtime, conversation, RunStart(input="hi"))
    await asyncio.sleep(0)
    assert conversation.holders == 0


async def test_who_may_not_use_every_tool_does_not_turn_approvals_off_for_others(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    await send(runtime, conversation, ConversationConfigure(config={"approvals": {"mode": "auto"}}))
    with pytest.raises(CommandError) as refused:
        await send(runtime, conversation, ConversationConfigure(config={"approvals": {"mode": "auto"}}), GUEST)
    assert (refused.value.code, refused.value.path) == ("not_permitted", "$.config.approvals.mode")
    await send(runtime, conversation, ConversationConfigure(config={"title": "ours"}), GUEST)
    await send(runtime, conversation, ConversationConfigure(config={"approvals": {"mode": "ask"}}), GUEST)


async def test_a_server_that_goes_down_leaves_open_questions_and_calls_in_the_log_as_they_are(
    store: GatedStore, tmp_path: Path
) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="/ask go?\n/par\n/run sleep 60"))
        await until(lambda: sink.types.count("interaction.requested") == 2)
        seen = list(sink.events)
        async with anyio.create_task_group() as group:
            group.start_soon(conversation.wait_beyond, conversation.committed, 60.0)
            await anyio.wait_all_tasks_blocked()
            await runtime.drain(0.0, 1_000)
    kept = await store.read(REF, after=0, limit=1_000, max_bytes=1_000_000)
    assert len(kept) == len(seen), "nothing was written by going down, and a long poll ended"
