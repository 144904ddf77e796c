"""The JavaScript client on lines that break: nothing is lost, doubled or out of order, and the state is right."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.client.proxy import Proxy
from tests.conftest import MakeServer
from tests.faults.rough import RoughProxy
from tests.faults.watched import LONG
from tests.js.folding import assert_same_over_the_window, events_of, server_states
from tests.js.node import needs_node
from tests.js.remote import Client, Conversation, Heard, Iteration, JsError, Node
from tests.wire import Json, Server, expect_contiguous, fresh, soon, wait_for

pytestmark = needs_node

RUNS = 100 if LONG else 10
"""On each of the worst lines."""
HASTE = {"firstMs": 5, "mostMs": 100}
"""Come back sooner than the defaults say: these lines break all the time."""


async def hasty(node: Node, url: str, server: Server, **options: Any) -> Client:
    return await node.client(url, key=server.key, backoff=HASTE, **options)


def deltas(events: list[Json]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "message.delta")


def assert_folded(events: list[Json], states: list[Json]) -> None:
    """Each state is what the server's fold makes of the events up to its number."""
    wanted = server_states(events_of(events))
    for state in states:
        assert state == wanted[state["at"]]


class Watched:
    """Everything that a conversation tells from its first event on, checked as a whole."""

    def __init__(self, conversation: Conversation, events: Heard, states: Heard, snapshots: Heard) -> None:
        self.conversation = conversation
        self.events = events
        self.states = states
        self.snapshots = snapshots

    @classmethod
    async def begin(cls, client: Client, name: str = "", **options: Any) -> Watched:
        conversation = await client.conversation(name or fresh(), from_="start", **options)
        return cls(conversation, *[await conversation.on(what) for what in ("event", "state", "snapshot")])

    async def verdict(self, server: Server) -> list[Json]:
        """All events came, once and in order; every state was right, and is what the server's is. Returns them."""
        state = await self.conversation.settled()
        assert await self.conversation.call("snapshot") == state
        assert self.events == await server.log(await self.conversation.get("id"))
        assert expect_contiguous(self.events) == state["at"]
        assert self.snapshots == []
        assert self.states[-1] == state
        assert_folded(self.events, self.states)
        return self.events


# -- cuts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_stream_through_a_line_that_is_cut_all_the_time(node: Node, server: Server, seed: int) -> None:
    """2,000 deltas, cut every few thousand bytes, wherever that falls; the server's own snapshots agree on the way."""
    async with soon(60), Proxy.before(server.port, cut_after=(1_500, 40_000), seed=seed) as proxy:
        watched = await Watched.begin(await hasty(node, proxy.url, server))
        run = await watched.conversation.run("/stream 2000 1")
        ending = asyncio.create_task(run.done())
        snapshots: list[Json] = []
        while not ending.done():
            snapshots.append(await watched.conversation.call("snapshot"))
        events = await watched.verdict(server)
        assert [event for event in events if event.get("run_id")] == await run.events()
    assert deltas(events) == "".join(f"{n} " for n in range(2000))
    assert_folded(events, snapshots)
    assert len({snapshot["at"] for snapshot in snapshots}) >= 10
    assert proxy.cut >= 5


@pytest.mark.parametrize("seed", [11, 12])
async def test_a_line_on_which_everything_goes_wrong(node: Node, make_server: MakeServer, seed: int) -> None:
    """Cut in both directions, silent, slow, in crumbs: runs with questions in them, every command done once."""
    server = make_server(settings="[readers]\nheartbeat_s = 0.2\n")
    async with soon(300 if LONG else 100), RoughProxy.before(server.port, seed=seed) as proxy:
        client = await hasty(node, proxy.url, server, silenceMs=700, openTimeoutMs=700)
        watched = await Watched.begin(client)
        for number in range(RUNS):
            proxy.cut_all()
            run = await watched.conversation.run(f"/stream 40 1\n/ask Number? | {number} | none\n/run echo {number}")
            asked = await watched.conversation.asked("clarify")
            await watched.conversation.call("answer", asked, str(number))
            await watched.conversation.call("approve", await watched.conversation.asked("approval"))
            assert (await run.done())["type"] == "run.completed"
        proxy.calm = True
        proxy.cut_all()
        events = await watched.verdict(server)
    assert sum(event["type"] == "run.started" for event in events) == RUNS
    answered = [event["answers"] for event in events if event.get("answers")]
    assert [next(iter(answers.values())) for answers in answered] == [str(number) for number in range(RUNS)]
    assert proxy.connections >= RUNS


async def test_a_filter_holds_through_cuts(node: Node, server: Server) -> None:
    async with soon(40), Proxy.before(server.port, cut_after=(1_500, 10_000), seed=5) as proxy:
        client = await hasty(node, proxy.url, server)
        conversation = await client.conversation(fresh(), from_="start", exclude=["message.delta"])
        heard = await conversation.on("event")
        for _ in range(8):
            await conversation.said("/stream 100 1")
        state = await conversation.settled()
        assert state == await conversation.call("snapshot")
        log = await server.log(await conversation.get("id"))
    assert heard == [event for event in log if event["type"] != "message.delta"]
    assert proxy.cut >= 2


async def test_from_a_snapshot_the_state_is_right_through_cuts(node: Node, make_server: MakeServer) -> None:
    """A window of two items, and a run that goes on under it."""
    server, name = make_server(settings="[sessions]\nsnapshot_items = 2\n"), fresh()
    script = "/say one\n/think two\n/stream 600 1\n/run echo three"
    await server.post(name, {"type": "conversation.configure", "config": {"approvals": {"mode": "auto"}}})
    await server.post(name, {"type": "run.start", "input": script})
    async with soon(40), Proxy.before(server.port, cut_after=(1_500, 10_000), seed=6) as proxy:
        conversation = await (await hasty(node, proxy.url, server)).conversation(name)
        states = await conversation.on("state")
        await conversation.ready()
        await conversation.settled()
        wanted = server_states(events_of(await server.log(name)))
        for state in states:
            assert_same_over_the_window(state, wanted[state["at"]])
        assert states[-1]["at"] == len(wanted) - 1
        assert len(states) > 20
    assert proxy.cut >= 2


async def test_a_handshake_that_is_cut_off_is_made_again(node: Node, server: Server) -> None:
    async with soon(), Proxy.before(server.port, cut_after=(5, 400), cuts=8, seed=7) as proxy:
        conversation = await (await hasty(node, proxy.url, server)).conversation(fresh())
        await conversation.ready()
        assert proxy.cut == 8


async def test_a_server_that_is_not_there_yet_is_waited_for(node: Node, server: Server) -> None:
    async with soon(), Proxy.before(server.port, refusing=True) as proxy:
        conversation = await (await hasty(node, proxy.url, server)).conversation(fresh())
        heard = await conversation.on("connection")
        sent = asyncio.create_task(conversation.send("ping"))
        waiting = await heard.until(lambda connection: connection["status"] == "waiting")
        assert 0 <= waiting["retry_in_ms"] <= HASTE["mostMs"]
        assert waiting["reason"]
        proxy.refusing = False
        assert (await sent)["head"] == 0
        assert (await conversation.get("connection"))["status"] == "live"


# -- commands --------------------------------------------------------------------------------------------


async def test_commands_sent_right_before_a_cut_have_one_effect(node: Node, server: Server) -> None:
    async with soon(40), Proxy.before(server.port, seed=8) as proxy:
        watched = await Watched.begin(await hasty(node, proxy.url, server))
        for _ in range(15):
            before = proxy.connections
            sent = asyncio.create_task(watched.conversation.send("run.start", input="once"))
            while proxy.connections == before:
                proxy.cut_all()
                await asyncio.sleep(0.001)
            assert (await sent)["run_id"]
        events = await watched.verdict(server)
    assert sum(event["type"] == "run.started" for event in events) == 15


async def test_what_is_said_while_the_line_is_down_goes_out_in_order(node: Node, server: Server) -> None:
    async with soon(), Proxy.before(server.port) as proxy:
        conversation = await (await hasty(node, proxy.url, server)).conversation(fresh(), from_="start")
        await conversation.ready()
        proxy.refusing = True
        proxy.cut_all()
        heard = await conversation.on("connection")
        await heard.until(lambda connection: connection["status"] == "waiting")
        sent = [asyncio.create_task(conversation.call("configure", {"title": title})) for title in "abcdef"]
        await asyncio.sleep(0)
        proxy.refusing = False
        assert await asyncio.gather(*sent) == [1, 2, 3, 4, 5, 6]


async def test_an_answer_that_was_given_before_a_cut_is_given_once(node: Node, server: Server) -> None:
    """Its ok is lost; the answer that is sent again is the same one, and not too late."""
    async with soon(), Proxy.before(server.port) as proxy:
        watched = await Watched.begin(await hasty(node, proxy.url, server))
        run = await watched.conversation.run("/ask Who? | me | you")
        asked = await watched.conversation.asked()
        proxy.passing.clear()
        answer = asyncio.create_task(watched.conversation.call("answer", asked, "me"))
        await asyncio.sleep(0)
        proxy.cut_all()
        proxy.passing.set()
        assert (await answer)["interaction_id"] == asked["interaction_id"]
        await run.done()
        events = await watched.verdict(server)
    assert sum(event["type"] == "interaction.resolved" for event in events) == 1


async def test_what_has_no_answer_when_it_is_closed_says_so(node: Node, server: Server) -> None:
    async with soon(), Proxy.before(server.port) as proxy:
        conversation = await (await hasty(node, proxy.url, server)).conversation(fresh())
        await conversation.ready()
        proxy.passing.clear()
        run = await conversation.run("hi")
        waiting = [conversation.call("ping"), conversation.call("configure", {"title": "t"}), run.done(), run.events()]
        told = asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0)
        await conversation.call("close")
        assert [getattr(failure, "name", failure) for failure in await told] == ["ConversationClosed"] * 4
        proxy.passing.set()


# -- silence ---------------------------------------------------------------------------------------------


async def test_a_line_on_which_nothing_is_heard_is_made_again(node: Node, make_server: MakeServer) -> None:
    server = make_server(settings="[readers]\nheartbeat_s = 0.1\n")
    async with soon(), Proxy.before(server.port) as proxy:
        client = await hasty(node, proxy.url, server, silenceMs=500, openTimeoutMs=300)
        conversation = await client.conversation(fresh())
        heard = await conversation.on("connection")
        await conversation.ready()
        proxy.passing.clear()
        pinged = asyncio.create_task(conversation.call("ping"))
        await heard.until(lambda connection: connection["status"] == "waiting")
        await wait_for(lambda: proxy.connections >= 3)
        proxy.passing.set()
        assert await pinged == 0


async def test_heartbeats_keep_a_line_up(node: Node, make_server: MakeServer) -> None:
    """Also where the last numbers were filtered out, and where there is no conversation yet."""
    server = make_server(settings="[readers]\nheartbeat_s = 0.1\n")
    async with soon(), Proxy.before(server.port) as proxy:
        client = await hasty(node, proxy.url, server, silenceMs=2_000)
        empty = await client.conversation(fresh())
        filtered = await client.conversation(fresh(), exclude=["run.completed", "step.completed"])
        await filtered.send("run.start", input="hi")
        await wait_for_end(server, await filtered.get("id"))
        await filtered.reached(len(await server.log(await filtered.get("id"))))
        heard = [await one.on("connection") for one in (empty, filtered)]
        async with server.socket(fresh()) as beside:
            for _ in range(3):
                await beside.until("heartbeat")
        assert heard == [[], []]
        assert proxy.connections == 2


async def test_a_slow_line_is_only_slow(node: Node, server: Server) -> None:
    async with soon(), Proxy.before(server.port, delay_s=0.02) as proxy:
        watched = await Watched.begin(await hasty(node, proxy.url, server))
        await watched.conversation.said("/stream 100 1")
        await watched.verdict(server)
        assert proxy.connections == 1


async def test_the_network_is_gone_for_a_while_in_mid_stream(node: Node, make_server: MakeServer) -> None:
    """Nothing passes and nobody is told, until long after the run is over."""
    server = make_server(settings="[readers]\nheartbeat_s = 0.1\n")
    async with soon(), Proxy.before(server.port) as proxy:
        client = await hasty(node, proxy.url, server, silenceMs=500, openTimeoutMs=300)
        watched = await Watched.begin(client)
        run = await watched.conversation.run("/stream 500 1")
        await watched.events.until_type("message.delta")
        proxy.passing.clear()
        await wait_for_end(server, await watched.conversation.get("id"))
        assert await watched.conversation.get("state.run") is not None
        await wait_for(lambda: proxy.connections >= 3)
        proxy.passing.set()
        assert (await run.done())["type"] == "run.completed"
        await watched.verdict(server)


async def wait_for_end(server: Server, name: str) -> None:
    """Wait, elsewhere, until the conversation is idle."""
    async with server.socket(name, from_="start") as socket:
        await socket.until_final()


# -- the server goes -------------------------------------------------------------------------------------


async def test_the_server_is_killed_in_mid_stream(node: Node, make_server: MakeServer, tmp_path: Path) -> None:
    """The client goes on with the next server, and the log has no hole."""
    server = make_server(data=tmp_path / "data")
    async with soon(40):
        watched = await Watched.begin(await hasty(node, server.url, server), "c")
        run = await watched.conversation.run("/stream 100000 1")
        await watched.events.until_type("message.delta")
        server.kill()
        server = make_server("--port", str(server.port), data=tmp_path / "data")
        await watched.events.until_type("run.recovered")
        await watched.conversation.call("stop")
        assert (await run.done())["type"] == "run.cancelled"
        assert (await watched.conversation.said("still there?"))["type"] == "run.completed"
        events = await watched.verdict(server)
    assert any(event["type"] == "item.discarded" for event in events)


async def test_a_question_outlives_the_server(node: Node, make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(data=tmp_path / "data")
    async with soon(40):
        watched = await Watched.begin(await hasty(node, server.url, server), "c")
        told = await watched.conversation.on("interaction")
        run = await watched.conversation.run("/ask Who?\n/say thanks")
        asked = await watched.conversation.asked()
        server.kill()
        answer = asyncio.create_task(watched.conversation.call("answer", asked, "me"))
        server = make_server("--port", str(server.port), data=tmp_path / "data")
        assert (await answer)["interaction_id"] == asked["interaction_id"]
        assert (await run.done())["output"] == "thanks"
        await watched.verdict(server)
    assert [interaction["interaction_id"] for interaction in told] == [asked["interaction_id"]]


async def test_a_server_that_drains_says_when_to_come_back(node: Node, make_server: MakeServer, tmp_path: Path) -> None:
    settings = "[server]\nreconnect_after_ms = 400\n"
    server = make_server(data=tmp_path / "data", settings=settings)
    async with soon(40):
        watched = await Watched.begin(await hasty(node, server.url, server), "c")
        heard = await watched.conversation.on("connection")
        run = await watched.conversation.run("/sleep 0.3\n/say finished")
        await watched.events.until_type("step.started")
        server.terminate()
        late = asyncio.create_task(watched.conversation.said("afterwards"))
        assert (await run.done())["output"] == "finished"
        waiting = await heard.until(lambda connection: connection["status"] == "waiting")
        assert (waiting["code"], waiting["retry_in_ms"] >= 400) == (4503, True)
        await server.exited()
        server = make_server("--port", str(server.port), data=tmp_path / "data", settings=settings)
        assert (await late)["type"] == "run.completed"
        events = await watched.verdict(server)
    assert [event["input"] for event in events if event["type"] == "run.started"][1:] == ["afterwards"]


# -- another log -----------------------------------------------------------------------------------------


async def test_a_log_that_is_gone_is_told_by_a_snapshot(node: Node, make_server: MakeServer, tmp_path: Path) -> None:
    """The server comes back with an empty data directory, under the same address."""
    server = make_server("--no-auth", data=tmp_path / "one")
    async with soon(40):
        conversation = await (await node.client(server.url, backoff=HASTE)).conversation("c")
        await conversation.ready()
        events = await Iteration.over(await conversation.call("events"))
        run = await conversation.run("/sleep 60")
        told = await Iteration.over(run)
        assert [event["type"] for event in await told.take(1)] == ["run.started"]
        server.kill()
        make_server("--no-auth", "--port", str(server.port), data=tmp_path / "two")
        for failing in (told.take(), run.done()):
            with pytest.raises(JsError) as failure:
                await failing
            assert (failure.value.name, failure.value.reason) == ("Resynchronized", "ahead")
            assert failure.value.snapshot["at"] == 0
        before = []
        while (event := await events.next()) and event["type"] != "snapshot":
            before.append(event)
        assert expect_contiguous(before) >= 2
        assert event == {"type": "snapshot", **failure.value.snapshot}
        assert (await conversation.seq(), (await conversation.state())["items"]) == (0, [])
        assert (await conversation.said("anew"))["type"] == "run.completed"
        assert await conversation.call("snapshot") == await conversation.state()


async def test_a_conversation_that_was_deleted_and_made_again_is_another_one(node: Node, server: Server) -> None:
    async with soon(), Proxy.before(server.port) as proxy:
        name = fresh()
        conversation = await (await hasty(node, proxy.url, server)).conversation(name)
        snapshots, heard = await conversation.on("snapshot"), await conversation.on("connection")
        await conversation.said("/say the first")
        epoch = await conversation.get("epoch")
        proxy.refusing = True
        proxy.cut_all()
        await heard.until(lambda connection: connection["status"] == "waiting")
        async with server.http() as http:
            await http.delete(f"/api/conversations/{name}")
        async with server.socket(name) as socket:
            for _ in range(3):
                await socket.run("/say the second")
        proxy.refusing = False
        await snapshots.until(lambda snapshot: snapshot["items"] and snapshot["items"][-1]["text"] == "the second")
        assert await conversation.get("epoch") != epoch
        assert (await conversation.state())["items"][0]["text"] == "/say the second"
        assert (await conversation.said("/say on"))["output"] == "on"
        assert await conversation.call("snapshot") == await conversation.state()
