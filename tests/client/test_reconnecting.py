"""The line breaks, again and again. Nothing is lost, repeated or out of order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_ws.client import Connected, Conversation, Disconnected, Received, Resynchronized, Unreachable, connect
from hermes_ws.protocol.commands import RunStart
from hermes_ws.protocol.control import Snapshot
from hermes_ws.protocol.events import MessageDelta, RunCancelled, RunCompleted, RunFailed, RunRecovered, RunStarted
from tests.client.conftest import Connect
from tests.client.proxy import Proxy
from tests.conftest import MakeServer
from tests.wire import Server, fresh, soon


async def followed(conversation: Conversation, run: str) -> tuple[list[int], list[str]]:
    """Start a run; the numbers of all events up to its end, and the deltas."""
    seqs, deltas = [], []
    events = conversation.events()
    await conversation.send(RunStart(input=run))
    async for event in events:
        assert not isinstance(event, Snapshot)
        seqs.append(event.seq)
        if isinstance(event, MessageDelta):
            deltas.append(event.delta)
        if isinstance(event, RunCompleted | RunFailed):
            return seqs, deltas
    raise AssertionError("the events ended before the run")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_stream_through_a_line_that_is_cut_all_the_time(server: Server, connected: Connect, seed: int) -> None:
    """2,000 deltas, cut every few thousand bytes, wherever that falls."""
    async with (
        soon(30),
        Proxy.before(server.port, cut_after=(1_500, 40_000), seed=seed) as proxy,
        connected(fresh(), url=proxy.url, wait_for_server=True, after=0) as conversation,
    ):
        seqs, deltas = await followed(conversation, "/stream 2000 1")
        name = conversation.id
    assert seqs == list(range(1, len(seqs) + 1))
    assert "".join(deltas) == "".join(f"{n} " for n in range(2000))
    assert len(await server.log(name)) == len(seqs)
    assert proxy.cut >= 5


async def test_a_run_is_followed_through_cuts(server: Server, connected: Connect) -> None:
    async with (
        soon(30),
        Proxy.before(server.port, cut_after=(1_500, 30_000), seed=4) as proxy,
        connected(fresh(), url=proxy.url, wait_for_server=True) as conversation,
    ):
        events = [event async for event in conversation.run("/stream 500 1")]
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunCompleted)
    assert [event.seq for event in events] == list(range(2, len(events) + 2))
    assert proxy.cut >= 2


async def test_a_filter_holds_through_cuts_and_every_number_is_accounted_for(
    server: Server, connected: Connect
) -> None:
    async with (
        soon(30),
        Proxy.before(server.port, cut_after=(1_500, 30_000), seed=5) as proxy,
        connected(fresh(), url=proxy.url, wait_for_server=True, after=0, exclude=["message.delta"]) as conversation,
    ):
        received: list[Received] = []
        frames = conversation.frames()
        await conversation.send(RunStart(input="/stream 500 1"))
        async for frame in frames:
            received.append(frame)
            if isinstance(frame.frame, RunCompleted):
                break
    ends = [0] + [frame.last for frame in received]
    assert [frame.first for frame in received] == [end + 1 for end in ends[:-1]]
    assert not any(isinstance(frame.frame, MessageDelta) for frame in received)


async def test_commands_sent_right_before_a_cut_have_one_effect(server: Server, connected: Connect) -> None:
    async with (
        soon(30),
        Proxy.before(server.port, seed=6) as proxy,
        connected(fresh(), url=proxy.url, after=0) as conversation,
    ):
        for _ in range(10):
            before = proxy.connections
            sent = asyncio.create_task(conversation.send(RunStart(input="once")))
            while proxy.connections == before:
                await asyncio.sleep(0)
                proxy.cut_all()
                await asyncio.sleep(0.001)
            assert (await sent).run_id is not None
        name = conversation.id
        while (await conversation.snapshot()).run is not None:
            await asyncio.sleep(0.02)
    log = await server.log(name)
    assert sum(event["type"] == "run.started" for event in log) == 10


async def test_a_line_on_which_nothing_is_heard_is_made_again(server: Server, connected: Connect) -> None:
    async with (
        soon(20),
        Proxy.before(server.port) as proxy,
        connected(fresh(), url=proxy.url, silence_s=0.5, open_timeout_s=0.5) as conversation,
    ):
        await conversation.ping()
        proxy.passing.clear()
        pinged = asyncio.create_task(conversation.ping())
        while proxy.connections < 2:
            await asyncio.sleep(0.02)
        proxy.passing.set()
        assert await pinged == 0


async def test_a_slow_line_is_only_slow(server: Server, connected: Connect) -> None:
    async with (
        soon(20),
        Proxy.before(server.port, delay_s=0.02) as proxy,
        connected(fresh(), url=proxy.url) as conversation,
    ):
        events = [event async for event in conversation.run("/stream 100 1")]
    assert isinstance(events[-1], RunCompleted)
    assert proxy.connections == 1


async def test_the_server_is_killed_in_mid_stream(make_server: MakeServer, tmp_path: Path) -> None:
    """The client goes on with the next server, and the log has no hole."""
    server = make_server(data=tmp_path / "data")
    news: list[Connected | Disconnected] = []
    async with (
        soon(30),
        connect(server.url, "c", key=server.key, after=0, on_connection=news.append) as conversation,
    ):
        seqs: list[int] = []
        run = conversation.run("/stream 100000 1")
        events = conversation.events()
        async for said in run:
            if isinstance(said, MessageDelta):
                break
        server.kill()
        server = make_server("--port", str(server.port), data=tmp_path / "data")
        async for event in events:
            assert not isinstance(event, Snapshot)
            seqs.append(event.seq)
            if isinstance(event, RunFailed | RunCompleted | RunCancelled):
                break
            if isinstance(event, RunRecovered):
                await conversation.stop()
        assert seqs == list(range(1, len(seqs) + 1))
        [*_, last] = [event async for event in conversation.run("still there?")]
        assert isinstance(last, RunCompleted)
    assert [type(told) for told in news[:2]] == [Connected, Disconnected]
    assert isinstance(news[-1], Connected)


async def test_a_server_that_goes_away_in_order(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(data=tmp_path / "data")
    async with soon(30), connect(server.url, "c", key=server.key) as conversation:
        await conversation.ping()
        server.terminate()
        await server.exited()
        make_server("--port", str(server.port), data=tmp_path / "data")
        [*_, last] = [event async for event in conversation.run("hello again")]
        assert isinstance(last, RunCompleted)


async def test_a_log_that_is_gone_is_told_by_a_snapshot(make_server: MakeServer, tmp_path: Path) -> None:
    """The server comes back with an empty data directory, under the same name and key."""
    server = make_server("--no-auth", data=tmp_path / "one")
    async with soon(30), connect(server.url, "c") as conversation:
        events = conversation.events()
        run = conversation.run("/sleep 60")
        assert isinstance(await anext(run), RunStarted)
        server.kill()
        make_server("--no-auth", "--port", str(server.port), data=tmp_path / "two")
        with pytest.raises(Resynchronized) as failure:
            [event async for event in run]
        assert failure.value.reason == "ahead"
        async for event in events:
            if isinstance(event, Snapshot):
                assert event.at == 0
                break
        assert conversation.seq == 0
        [*_, last] = [event async for event in conversation.run("anew")]
        assert isinstance(last, RunCompleted)


async def test_heartbeats_keep_a_line_up_and_agree_with_what_was_received(make_server: MakeServer) -> None:
    """Also where the last numbers were filtered out, and where there is no conversation yet."""
    server = make_server(settings="[readers]\nheartbeat_s = 0.1\n")
    news: list[Connected | Disconnected] = []
    async with soon(20), connect(server.url, "c", key=server.key, on_connection=news.append, silence_s=2.5) as early:
        events = early.events()
        await asyncio.sleep(1.5)
        exclude = ["run.completed", "step.completed"]
        async with connect(
            server.url, "c", key=server.key, on_connection=news.append, silence_s=2.5, exclude=exclude
        ) as late:
            told = late.frames()
            head = (await early.send(RunStart(input="hi"))).at
            async for event in events:
                head = event.at if isinstance(event, Snapshot) else event.seq
                if isinstance(event, RunCompleted):
                    break
            async for frame in told:
                if frame.last == head:
                    break
            await asyncio.sleep(1.5)
            assert late.seq == early.seq == head
    assert [type(one) for one in news] == [Connected, Connected]


async def test_a_consumer_that_stops_for_longer_than_the_server_waits(make_server: MakeServer) -> None:
    """A line that the server drops is not made again before there is room; then it goes on where it was."""
    server = make_server(settings="[readers]\nstall_s = 0.5\nwrite_buffer_bytes = 4096\n")
    news: list[Connected | Disconnected] = []
    async with (
        soon(40),
        connect(
            server.url, "c", key=server.key, after=0, buffer_bytes=10_000, on_connection=news.append
        ) as conversation,
    ):
        events = conversation.events()
        for _ in range(8):
            await conversation.send(RunStart(input="x" * 900_000))
        while (await server.get("/api/conversations"))["conversations"][0]["status"] != "idle":
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        assert len(news) == 1
        seqs, ended = [], 0
        async for event in events:
            assert not isinstance(event, Snapshot)
            seqs.append(event.seq)
            ended += isinstance(event, RunCompleted)
            if ended == 8:
                break
    assert seqs == list(range(1, len(seqs) + 1))


async def test_giving_up(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(data=tmp_path / "data")
    async with soon(20), connect(server.url, "c", key=server.key, give_up_after_s=0.5) as conversation:
        events = conversation.events()
        server.kill()
        with pytest.raises(Unreachable, match="given up"):
            async for _ in events:
                pass
        with pytest.raises(Unreachable):
            await conversation.ping()


async def test_waiting_for_a_server_that_is_not_there_yet(server: Server, connected: Connect) -> None:
    async with Proxy.before(server.port, refusing=True) as proxy, soon(20):
        with pytest.raises(Unreachable):
            async with connected(url=proxy.url):
                pass
        waiting = connected(url=proxy.url, wait_for_server=True)
        entering = asyncio.create_task(waiting.__aenter__())
        await asyncio.sleep(0)
        proxy.refusing = False
        conversation = await entering
        assert await conversation.ping() == 0
        await waiting.__aexit__(None, None, None)
