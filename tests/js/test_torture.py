"""Two JavaScript clients of one conversation, each on a bad line of its own, and a server that is killed under them.

They start, steer, stop, configure, ask for snapshots and answer what is asked, as a seed says. In the end both have
seen the whole log, every state on the way was the server's, and everything that was said was done once.
``HERMES_WS_TESTS_SEED`` chooses what happens, ``HERMES_WS_TESTS_LONG=1`` makes it longer.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.rough import RoughProxy
from tests.faults.watched import LONG, SEED
from tests.js.folding import assert_same_over_the_window, events_of, server_states
from tests.js.node import needs_node
from tests.js.remote import Conversation, Heard, JsError, Node
from tests.wire import Json, expect_contiguous, soon, terminals

pytestmark = needs_node

ACTS = 400 if LONG else 36
KILLS = 10 if LONG else 2
SCRIPTS = (
    "/stream 30 1",
    "/think hm\n/say well",
    "/ask Which? | red | blue\n/say noted",
    "/run echo hi\n/say done",
    '/tool weather {"city": "Oslo"}\n/say done',
    '/tool weather {"city": "Rome"}\n/par\n/tool weather {"city": "Oslo"}',
    "/sleep 0.05\n/stream 10 1",
    "/fail model_auth 1",
    "just a word",
)
STEER = "and now?"
"""Too late, it becomes a run of its own."""
SETTINGS = "[readers]\nheartbeat_s = 0.2\n[sessions]\nqueue_length = 4\n"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
REFUSALS = {"queue_full", "run_not_active", "run_not_found", "interaction_resolved", "interaction_not_found"}
"""What one may be told when somebody else is at it as well."""


@dataclass
class Person:
    """Somebody at a client. What the server confirmed to them is kept."""

    conversation: Conversation
    line: RoughProxy
    chance: random.Random
    events: Heard
    states: Heard
    begun: list[str] = field(default_factory=list[str])
    runs: list[str] = field(default_factory=list[str])
    versions: list[int] = field(default_factory=list[int])
    snapshots: list[Json] = field(default_factory=list[Json])
    refused: Counter[str] = field(default_factory=Counter[str])

    @classmethod
    async def at(cls, node: Node, line: RoughProxy, key: str, seed: float) -> Person:
        client = await node.client(
            line.url, key=key, backoff={"firstMs": 5, "mostMs": 100}, silenceMs=1_500, openTimeoutMs=1_000
        )
        conversation = await client.conversation("c", from_="start")
        events, states = await conversation.on("event"), await conversation.on("state")
        person = cls(conversation, line, random.Random(seed), events, states)
        await conversation.call("tool", "weather", CITY, person.looks_out, {"if_gone": "wait"})
        return person

    def looks_out(self, arguments: Json, call: Json) -> str:
        self.begun.append(call["interaction"]["interaction_id"])
        return f"Rain in {arguments['city']}."

    async def lives(self, acts: int) -> None:
        everything = [self.starts, self.starts, self.answers, self.answers, self.answers]
        everything += [self.steers, self.stops, self.configures, self.looks]
        for _ in range(acts):
            if self.chance.random() < 0.15:
                self.line.cut_all()
            try:
                await self.chance.choice(everything)()
            except JsError as refused:
                self.refused[refused.fields.get("code", refused.name)] += 1

    async def starts(self) -> None:
        run = await self.conversation.run(self.chance.choice(SCRIPTS))
        self.runs.append(await run.run_id())

    async def steers(self) -> None:
        await self.conversation.call("steer", STEER, {"if_late": self.chance.choice(["queue", "return"])})

    async def stops(self) -> None:
        await self.conversation.call("stop", {"mode": self.chance.choice(["graceful", "now"])})

    async def configures(self) -> None:
        self.versions.append(await self.conversation.call("configure", {"metadata": {"n": self.chance.random()}}))

    async def looks(self) -> None:
        self.snapshots.append(await self.conversation.call("snapshot"))

    async def answers(self) -> None:
        for asked in (await self.conversation.state())["interactions"]:
            if asked["kind"] == "approval":
                await self.conversation.call(self.chance.choice(["approve", "deny"]), asked)
            elif asked["kind"] == "clarify":
                await self.conversation.call("answer", asked, self.chance.choice(["red", "blue"]))

    async def finishes(self) -> None:
        """Stop whatever is left."""
        while True:
            await self.conversation.reached(await self.conversation.call("ping"))
            state = await self.conversation.state()
            if state["run"] is None and not state["queue"]:
                return
            with suppress(JsError):  # it ended by itself
                await self.conversation.call("stop", {"queue": "clear"})


def verdict(people: list[Person], log: list[Json]) -> None:
    assert [name for name, ends in terminals(log).items() if ends != 1] == []
    folded = server_states(events_of(log))
    for person in people:
        assert person.events == log
        assert expect_contiguous(person.events) == len(log)
        for state in person.states:
            assert state == folded[state["at"]]
        for snapshot in person.snapshots:
            assert_same_over_the_window(snapshot, folded[snapshot["at"]])
        assert set(person.refused) <= REFUSALS
    begins = [event for event in log if event["type"] in ("run.queued", "run.started") and event["input"] != STEER]
    assert {event["run_id"] for event in begins} == {run for person in people for run in person.runs}
    assert len({run for person in people for run in person.runs}) == sum(len(person.runs) for person in people)
    configured = [event["version"] for event in log if event["type"] == "conversation.configured"]
    assert configured == sorted(version for person in people for version in person.versions)
    begun = [name for person in people for name in person.begun]
    executed = [event["interaction_id"] for event in log if event.get("kind") == "client_tool"]
    assert len(begun) == len(set(begun))
    assert set(begun) <= set(executed)


@pytest.mark.timeout(1_000 if LONG else 100)
async def test_whatever_happens_everything_is_done_once_and_everybody_sees_the_same(
    node: Node, make_server: MakeServer, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    data = tmp_path / "data"
    server = make_server(data=data, settings=SETTINGS)
    async with (
        soon(900 if LONG else 90),
        RoughProxy.before(server.port, seed=SEED) as one,
        RoughProxy.before(server.port, seed=SEED + 1) as two,
    ):
        proxies = (one, two)
        people = [await Person.at(node, proxy, server.key, chance.random()) for proxy in proxies]
        for kills in range(KILLS + 1):
            await asyncio.gather(*(person.lives(ACTS // (KILLS + 1)) for person in people))
            if kills < KILLS:
                living = [asyncio.create_task(person.lives(1)) for person in people]
                server.kill()
                server = await asyncio.to_thread(make_server, "--port", str(server.port), data=data, settings=SETTINGS)
                await asyncio.gather(*living)
        for proxy in proxies:
            proxy.calm = True
            proxy.cut_all()
        await people[0].finishes()
        log = await server.log("c")
        for person in people:
            await person.conversation.reached(len(log))
        cuts = [proxy.cut for proxy in proxies]
        told = [dict(person.refused) for person in people]
        print(f"{len(log)} events, {cuts} cuts, {[p.connections for p in proxies]} lines, refused: {told}")
        verdict(people, log)
