"""What a program does with a conversation, against the real server."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from hermes_ws.client import CommandRefused, Conversation, ConversationClosed
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import InteractionReply, RunStart
from hermes_ws.protocol.control import Snapshot
from tests.client.conftest import Connect
from tests.wire import Server, fresh, soon

SMALL = 20_000
"""A buffer that a stream of deltas fills at once."""


async def asked(events: Any) -> ev.InteractionRequested:
    async for event in events:
        if isinstance(event, ev.InteractionRequested):
            return event
    raise AssertionError("nothing was asked")


# -- runs ------------------------------------------------------------------------------------------------


async def test_a_run_from_its_beginning_to_its_end(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        events = [event async for event in conversation.run("hi")]
        assert isinstance(events[0], ev.RunStarted)
        assert isinstance(events[-1], ev.RunCompleted)
        assert "hi" in events[-1].output
        assert conversation.seq == events[-1].seq == await conversation.ping()
        assert conversation.epoch is not None
        assert conversation.id == conversation.hello.conversation_id


async def test_a_run_that_waits_behind_another_is_told_alone(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        first = asyncio.create_task(collect(conversation, "/sleep 0.3\n/stream 50"))
        await asyncio.sleep(0.1)
        second = await collect(conversation, "me too")
        assert isinstance(second[0], ev.RunQueued)
        assert isinstance(second[1], ev.RunStarted)
        assert isinstance(second[-1], ev.RunCompleted)
        assert len({event.run_id for event in second}) == 1
        assert (await first)[-1].seq < second[1].seq


async def collect(conversation: Conversation, script: str) -> list[Any]:
    return [event async for event in conversation.run(script)]


async def test_leaving_the_loop_does_not_stop_the_run(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        async for event in conversation.run("/sleep 60"):
            assert isinstance(event, ev.RunStarted)
            break
        snapshot = await conversation.snapshot()
        assert snapshot.run is not None
        events = conversation.events()
        await conversation.stop()
        async for later in events:
            if isinstance(later, ev.RunCancelled):
                break


async def test_stopping_and_steering(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        events = []
        async for event in conversation.run("/sleep 0.2\n/say done\n/sleep 60"):
            events.append(event)
            if isinstance(event, ev.StepStarted) and event.step == 1:
                assert (await conversation.steer("be brief")).steer_id is not None
            if isinstance(event, ev.StepStarted) and event.step == 4:
                await conversation.stop(mode="now")
        applied = [e.disposition for e in events if isinstance(e, ev.RunSteered)]
        assert applied == ["pending", "applied"]
        assert isinstance(events[-1], ev.RunCancelled)


async def test_closing_ends_what_is_being_read(connected: Connect) -> None:
    async with soon(10):
        async with connected() as conversation:
            events = conversation.events()
            run = conversation.run("/sleep 60")
            await anext(run)
        assert [event async for event in events]
        with pytest.raises(ConversationClosed):
            await anext(run)
        with pytest.raises(ConversationClosed):
            await conversation.ping()


# -- answering -------------------------------------------------------------------------------------------


async def test_an_approval_with_edited_arguments(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        async for event in conversation.run("/run echo before"):
            if isinstance(event, ev.InteractionRequested):
                await conversation.approve(event, arguments={"command": "echo after"}, comment="better so")
            if isinstance(event, ev.ToolCompleted):
                assert event.output == "after\n"


async def test_remembered_approvals(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        async for event in conversation.run("/run true\n/run true"):
            if isinstance(event, ev.InteractionRequested):
                await conversation.approve(event, "conversation")
        [rule] = await conversation.approvals()
        await conversation.revoke(rule.rule_id)
        assert await conversation.approvals() == []


async def test_denying_and_answering(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        async for event in conversation.run("/run true\n/ask Which? | red | blue"):
            match event:
                case ev.InteractionRequested(kind="approval"):
                    await conversation.deny(event, "not now")
                case ev.InteractionRequested(questions=[question]):
                    await conversation.reply(event, answers={question.id: "blue"})
                case ev.ToolCompleted(name="terminal"):
                    assert event.status == "denied"
                case ev.ToolCompleted(name="clarify"):
                    assert event.output == "blue"
                case _:
                    pass


async def test_two_clients_answer_the_same_approval(connected: Connect) -> None:
    """One of them decides; the other is told who did."""
    name = fresh()
    async with soon(10), connected(name, client_id="one") as one, connected(name, client_id="two") as two:
        run = one.run("/run true")
        events = two.events()
        first, second = await asked(run), await asked(events)
        assert first == second
        answers = await asyncio.gather(
            one.approve(first, comment="one"), two.deny(second, "two"), return_exceptions=True
        )
        [refused] = [answer for answer in answers if isinstance(answer, CommandRefused)]
        assert refused.code == "interaction_resolved"
        resolved = [event async for event in run if isinstance(event, ev.InteractionResolved)]
        assert len(resolved) == 1
        assert refused.details["resolution"]["by"]["client_id"] == resolved[0].by.client_id


async def test_a_refusal_says_where_and_why(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        with pytest.raises(CommandRefused) as refused:
            await conversation.configure({"tools": {"allow": [3]}})
        assert refused.value.code == "invalid_frame"
        assert refused.value.path == "$.config.tools.allow[0]"
        with pytest.raises(CommandRefused) as refused:
            await conversation.reply("int_none", option="once")
        assert refused.value.code == "interaction_not_found"
        async for _ in conversation.run("/sleep 60"):
            with pytest.raises(CommandRefused, match="busy"):
                await anext(conversation.run("no", when_busy="reject"))
            break


async def test_configuring_forking_and_looking(connected: Connect) -> None:
    name = fresh()
    async with soon(10), connected(name) as conversation:
        version = await conversation.configure({"title": "A title", "tools": {"allow": ["read_file"]}})
        with pytest.raises(CommandRefused, match="version_conflict"):
            await conversation.configure({"title": "B"}, if_version=version + 1)
        assert [tool.name for tool in await conversation.tools()] == ["read_file"]
        [*_, last] = [event async for event in conversation.run("remember this")]
        snapshot = await conversation.snapshot()
        assert snapshot.config.title == "A title"
        assert snapshot.at == last.seq
        forked = await conversation.fork()
    async with soon(10), connected(forked, start="snapshot") as conversation:
        first = await anext(conversation.events())
        assert isinstance(first, Snapshot)
        assert len(first.items) == 2


async def test_a_command_of_ones_own_id_is_done_once(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        one = await conversation.send(RunStart(id="mine", input="hi"))
        two = await conversation.send(RunStart(id="mine", input="hi"))
        assert (two.run_id, two.duplicate) == (one.run_id, True)
        with pytest.raises(CommandRefused, match="id_reused"):
            await conversation.send(RunStart(id="mine", input="ho"))


# -- slow consumers --------------------------------------------------------------------------------------


async def test_the_first_stream_misses_nothing_since_connecting(connected: Connect) -> None:
    """Also when other things were done before it was asked for."""
    async with soon(10), connected() as conversation:
        ran = [event async for event in conversation.run("hi")]
        events = conversation.events()
        seqs = [1]
        assert (await anext(events)).seq == 1  # type: ignore[union-attr]
        async for event in events:
            assert not isinstance(event, Snapshot)
            seqs.append(event.seq)
            if event == ran[-1]:
                break
        assert seqs == list(range(1, ran[-1].seq + 1))
        later = conversation.events()
        assert (await conversation.send(RunStart(input="again"))).run_id is not None
        assert (await anext(later)).seq == ran[-1].seq + 1  # type: ignore[union-attr]


async def test_a_slow_consumer_is_waited_for(connected: Connect) -> None:
    """Memory stays bounded: the socket is not read, and the server, whose log it is, does not mind."""
    async with soon(30), connected(buffer_bytes=SMALL, after=0) as conversation:
        events = conversation.events()
        await conversation.send(RunStart(input="/stream 20000"))
        await asyncio.sleep(0.5)
        stuck_at = conversation.seq
        await asyncio.sleep(0.3)
        assert conversation.seq - stuck_at < 200
        assert stuck_at < 2_000
        seqs = []
        async for event in events:
            assert not isinstance(event, Snapshot)
            seqs.append(event.seq)
            if isinstance(event, ev.RunCompleted):
                break
        assert seqs == list(range(1, len(seqs) + 1))


async def test_answers_come_through_to_a_consumer_that_is_behind(connected: Connect) -> None:
    """The answer is behind the events on the socket; the consumer waits for it before it takes the next event."""
    async with soon(30), connected(buffer_bytes=SMALL, after=0) as conversation:
        seqs = []
        events = conversation.events()
        await conversation.send(RunStart(input="/stream 20000"))
        async for event in events:
            assert not isinstance(event, Snapshot)
            seqs.append(event.seq)
            if event.seq in (100, 1_000, 5_000):
                await asyncio.sleep(0.2)
                await asyncio.gather(*(conversation.ping() for _ in range(20)))
            if isinstance(event, ev.RunCompleted):
                break
        assert seqs == list(range(1, len(seqs) + 1))


async def test_a_stream_that_nobody_reads_any_more_holds_up_nobody(connected: Connect) -> None:
    async with soon(30), connected(buffer_bytes=SMALL) as conversation:
        events = conversation.events()
        await conversation.send(RunStart(input="hi"))
        async for _ in events:
            break
        del events
        dropped: Any = conversation.events()
        closed = conversation.events()
        run = conversation.run("/stream 3000")
        await anext(run)
        del dropped
        gc.collect()
        closed.close()
        [*_, last] = [event async for event in run]
        assert isinstance(last, ev.RunCompleted)


async def test_two_streams_of_different_speed(connected: Connect) -> None:
    async with soon(30), connected(buffer_bytes=SMALL, after=0) as conversation:
        slow, fast = conversation.events(), conversation.events()
        await conversation.send(RunStart(input="/stream 3000"))

        async def read(events: Any, pause_s: float) -> list[int]:
            seqs = []
            async for event in events:
                seqs.append(event.seq)
                if isinstance(event, ev.RunCompleted):
                    return seqs
                if event.seq % 500 == 0:
                    await asyncio.sleep(pause_s)
            raise AssertionError

        one, two = await asyncio.gather(read(slow, 0.05), read(fast, 0))
        assert one == list(range(1, len(one) + 1))
        assert two == one


# -- cancelling ------------------------------------------------------------------------------------------


async def test_cancelling_whatever_is_waited_for(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        events = conversation.events()
        for waiting in (anext(events), conversation.run("/sleep 60").__anext__(), conversation.ping()):
            task: asyncio.Future[Any] = asyncio.ensure_future(waiting)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await conversation.send(RunStart(input="hi", when_busy="interrupt"))
        async for event in events:
            if isinstance(event, ev.RunCompleted):
                break


async def test_cancelling_the_block_closes_the_line(server: Server, connected: Connect) -> None:
    inside = asyncio.Event()

    async def stay() -> None:
        async with connected() as conversation:
            inside.set()
            async for _ in conversation.events():
                pass

    async with soon(10):
        task = asyncio.create_task(stay())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_in_the_block_comes_out_as_it_is(connected: Connect) -> None:
    with pytest.raises(ZeroDivisionError):
        async with soon(10), connected():
            raise ZeroDivisionError


async def test_a_command_in_flight_twice_is_a_mistake(connected: Connect) -> None:
    async with soon(10), connected() as conversation:
        command = InteractionReply(id="x", interaction_id="int_none")
        first = asyncio.create_task(conversation.send(command))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="has no answer yet"):
            await conversation.send(command)
        with pytest.raises(CommandRefused):
            await first


async def test_a_failed_run_is_gone_on_with(connected: Connect) -> None:
    async with soon(20), connected() as conversation:
        await conversation.configure({"approvals": {"mode": "auto"}})
        first = [event async for event in conversation.run("/run echo once >> ran.txt\n/fail model_auth")]
        assert isinstance(first[-1], ev.RunFailed)
        again = [event async for event in conversation.retry(first[-1].run_id)]
        started = again[0]
        assert isinstance(started, ev.RunStarted)
        assert (started.retry_of, started.attempt) == (first[-1].run_id, 1)
        assert isinstance(again[-1], ev.RunFailed)
        assert not any(isinstance(event, ev.ToolStarted) for event in again), "what was done is not done again"
