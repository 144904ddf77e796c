"""Everything at once, at random: many people, lost lines, killed servers. What must hold in the end holds.

The log is folded by the fold of ``tests/session``, which is written from the protocol alone and complains of every
frame that breaks a promise.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.conftest import MakeServer
from tests.session.second_fold import fold
from tests.wire import (
    Json,
    Server,
    Socket,
    expect_contiguous,
    fresh,
    open_interactions,
    processes_with,
    terminals,
    wait_for,
)

LOST = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, EOFError)
SECONDS = f"67.{uuid.uuid4().int % 10**9}"
SCRIPTS = (
    "hello",
    "/think a b c\n/say d",
    "/stream 300 1",
    "/ask Which? | a | b\n/say thanks",
    "/run echo x\n/say ran",
    "/run echo y\n/par\n/run echo z\n/par\n/ask Well?",
    f"/run sleep {SECONDS}",
    "/tool list_files {}\n/think hm\n/say done",
    "/sleep 0.05\n/sleep 0.05\n/say slept",
    "/fail model_auth",
    "/fail model_overloaded 1\n/say recovered",
    "/stream 20 5\n/fail model_bad_response",
)


@dataclass
class World:
    """What the people of one conversation have in common."""

    server: Server
    conversation: str
    random: random.Random
    over: bool = False
    snapshots: list[Json] = field(default_factory=list[Json])
    answered: dict[str, Json] = field(default_factory=dict[str, Json])


async def person(world: World) -> None:
    """Do things at random, over connections that are lost at random."""
    unanswered: list[Json] = []
    while not world.over:
        with suppress(*LOST):
            async with world.server.socket(world.conversation, from_="start") as socket:
                receiving = asyncio.create_task(_receive(world, socket))
                try:
                    for command in unanswered:
                        await socket.send(command)
                    for _ in range(world.random.randrange(3, 25)):
                        command = _something(world.random, socket)
                        unanswered.append(command)
                        await socket.send(command)
                        await asyncio.sleep(world.random.random() * 0.06)
                        if world.over:
                            break
                finally:
                    receiving.cancel()
                    with suppress(asyncio.CancelledError, *LOST):
                        await receiving
                    socket.abort()
        unanswered = [command for command in unanswered if command["id"] not in world.answered]
        await asyncio.sleep(0.01)


async def _receive(world: World, socket: Socket) -> None:
    while True:
        frame = await socket.recv(60)
        if frame["type"] in ("ok", "error"):
            if (snapshot := frame.pop("snapshot", None)) is not None:
                world.snapshots.append(snapshot)
                continue
            first = world.answered.setdefault(frame["id"], frame)
            if first["type"] == frame["type"] == "ok":
                assert {**first, "duplicate": True} == {**frame, "duplicate": True}


def _something(chance: random.Random, socket: Socket) -> Json:
    command: Json = {"id": uuid.UUID(int=chance.getrandbits(128)).hex}
    asked = open_interactions(socket.log)
    if asked and chance.random() < 0.5:
        one = chance.choice(asked)
        command |= {"type": "interaction.reply", "interaction_id": one["interaction_id"]}
        if one["kind"] == "approval":
            return command | {"option": chance.choice(["once", "run", "conversation", "deny", "bad"])}
        return command | {"answers": {"answer": chance.choice(["a", "b", "c"])}}
    kind = chance.choice(
        ("start",) * 5 + ("stop", "stop", "steer", "steer", "configure", "snapshot", "snapshot", "junk")
    )
    match kind:
        case "start":
            busy = chance.choice(["queue", "queue", "reject", "steer", "interrupt"])
            return command | {"type": "run.start", "input": chance.choice(SCRIPTS), "when_busy": busy}
        case "stop":
            return command | {
                "type": "run.stop",
                "mode": chance.choice(["graceful", "now"]),
                "queue": chance.choice(["keep", "clear"]),
            }
        case "steer":
            return command | {"type": "run.steer", "text": "steered", "if_late": chance.choice(["queue", "return"])}
        case "configure":
            mode = chance.choice(["ask", "auto", "deny"])
            tools = chance.choice([None, {"deny": ["terminal"]}, {"allow": ["builtin:*"]}])
            return command | {"type": "conversation.configure", "config": {"approvals": {"mode": mode}, "tools": tools}}
        case "snapshot":
            return command | {"type": "snapshot.get"}
        case _:
            return command | {"type": "interaction.reply", "interaction_id": "int_none", "option": "once"}


async def watcher(world: World) -> list[Json]:
    """Follow the log from its start, whatever happens to the line, and begin from snapshots in between."""
    log: list[Json] = []
    while True:
        with suppress(*LOST):
            async with world.server.socket(world.conversation) as late:
                await late.recv()
                snapshot = await late.until("snapshot")
                del snapshot["type"]
                world.snapshots.append(snapshot)
            async with world.server.socket(world.conversation, after=len(log)) as socket:
                try:
                    hello = await socket.recv()
                    assert hello["resume"]["mode"] == "replay", hello
                    for _ in range(world.random.randrange(20, 300)):
                        await socket.recv(0.5)
                finally:
                    assert expect_contiguous(socket.log, after=len(log)) == len(log) + len(socket.log)
                    log += socket.log
                    socket.abort()
        if world.over and len(log) == (await world.server.get(_events(world)))["head"]:
            return log
        await asyncio.sleep(0.01)


def _events(world: World) -> str:
    return f"/api/conversations/{world.conversation}/events"


async def _rest(world: World) -> None:
    """Stop everything, and wait until nothing goes on."""
    async with world.server.socket(world.conversation, from_="start") as socket:
        await socket.greeted()
        for _ in range(50):
            state = (await socket.ok("snapshot.get"))["snapshot"]
            if state["run"] is None and not state["queue"]:
                return
            await socket.command("run.stop", queue="clear")
            await asyncio.sleep(0.05)
    raise AssertionError("it does not come to rest")


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_people_and_networks_do_the_promises_hold(server: Server, seed: int) -> None:
    await _chaos(World(server, fresh(), random.Random(seed)), seconds=2.5)


async def test_whatever_kills_the_server_the_promises_hold(make_server: MakeServer) -> None:
    world = World(make_server(), fresh(), random.Random(99))

    async def kill() -> None:
        for _ in range(3):
            await asyncio.sleep(0.5 + world.random.random())
            world.server.kill()
            world.server = await asyncio.to_thread(make_server, data=world.server.data)

    await _chaos(world, seconds=0.5, meanwhile=kill)


async def _chaos(world: World, *, seconds: float, meanwhile: object = None) -> None:
    await world.server.post(world.conversation, {"type": "conversation.configure", "config": {"title": "chaos"}})
    watchers = [asyncio.create_task(watcher(world)) for _ in range(2)]
    people = [asyncio.create_task(person(world)) for _ in range(3)]
    if callable(meanwhile):
        await meanwhile()
    await asyncio.sleep(seconds)
    world.over = True
    async with asyncio.timeout(30):
        await asyncio.gather(*people)
        await _rest(world)
        logs = await asyncio.gather(*watchers)
    whole = await world.server.log(world.conversation)
    assert all(log == whole for log in logs)
    assert {name: count for name, count in terminals(whole).items() if count != 1} == {}
    folded = fold(whole).view()
    for snapshot in world.snapshots:
        if "before" not in snapshot:
            assert fold(whole[snapshot["at"] :], snapshot).view() == folded
    assert world.snapshots
    _expect_once(world, whole)
    await wait_for(lambda: not processes_with(SECONDS, "sleep"))
    assert "Traceback" not in world.server.errors, world.server.errors


def _expect_once(world: World, whole: list[Json]) -> None:
    """What was answered ``ok`` is in the log, once."""
    begun = [event["run_id"] for event in whole if event["type"] == "run.started"]
    assert len(begun) == len(set(begun))
    known = {event["run_id"] for event in whole if event["type"] in ("run.started", "run.queued")}
    for answer in world.answered.values():
        if answer["type"] == "ok" and answer.get("disposition") in ("started", "queued"):
            assert answer["run_id"] in known
        if answer["type"] == "error":
            assert answer["code"] != "internal" or answer["retryable"]
