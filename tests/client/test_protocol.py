"""What a server may say, and what it must not."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from hermes_ws.client import CommandRefused, Connected, ConnectionRefused, Disconnected, Unreachable, connect
from hermes_ws.protocol.control import Snapshot
from hermes_ws.protocol.events import MessageDelta, UnknownEvent
from tests.client.conftest import Connect
from tests.client.scripted import ZERO, hello, message, saying, scripted
from tests.wire import Server, fresh, soon

SNAPSHOT = {
    "type": "snapshot",
    "at": 7,
    "config": {},
    "config_version": 0,
    "run": None,
    "queue": [],
    "items": [],
    "interactions": [],
    "usage": ZERO,
}


async def numbers(url: str, count: int, **options: Any) -> list[int]:
    """The numbers of the first ``count`` events; a snapshot counts as minus its position."""
    found: list[int] = []
    async with soon(10), connect(url, "c", **options) as conversation:
        async for event in conversation.events():
            found.append(-event.at if isinstance(event, Snapshot) else event.seq)
            if len(found) == count:
                break
    return found


# -- every number is accounted for -----------------------------------------------------------------------


async def test_a_hole_is_a_violation_and_is_filled_by_asking_again() -> None:
    acts = [
        saying(hello(to=4), message(1), message(3)),
        saying(hello(first=2, to=4), message(2), message(3), message(4)),
    ]
    async with scripted(*acts) as (url, asked):
        assert await numbers(url, 4, after=0) == [1, 2, 3, 4]
    assert asked == ["/ws/c?after=0", "/ws/c?after=1&epoch=ep_1"]


@pytest.mark.parametrize(
    "wrong",
    [
        message(1),
        {"type": "skipped", "from": 3, "to": 4, "reason": "compacted"},
        {"type": "skipped", "from": 2, "to": 1, "reason": "compacted"},
        {"type": "live", "at": 2},
        {"type": "heartbeat", "head": 2, "ts": 1},
        {"type": "live"},
        {"seq": 2},
        hello(),
    ],
    ids=lambda frame: json.dumps(frame)[:40],
)
async def test_what_does_not_follow_drops_the_line(wrong: dict[str, Any]) -> None:
    acts = [saying(hello(to=2), message(1), wrong), saying(hello(first=2, to=2), message(2))]
    async with scripted(*acts) as (url, asked):
        assert await numbers(url, 2, after=0) == [1, 2]
    assert len(asked) == 2


async def test_a_replay_from_elsewhere_than_asked_is_a_violation() -> None:
    acts = [
        saying(hello(to=1), message(1), close=4500),
        saying(hello(first=1, to=1)),
        saying(hello(first=2), message(2)),
    ]
    async with scripted(*acts) as (url, asked):
        assert await numbers(url, 2, after=0) == [1, 2]
    assert len(asked) == 3


async def test_skipped_ranges_count() -> None:
    skipped = {"type": "skipped", "from": 2, "to": 9, "reason": "compacted"}
    acts = [saying(hello(to=10), message(1), skipped, close=4503), saying(hello(first=10, to=10), message(10))]
    async with scripted(*acts) as (url, asked):
        assert await numbers(url, 2, after=0) == [1, 10]
    assert asked[1] == "/ws/c?after=9&epoch=ep_1"


async def test_a_snapshot_in_place_of_a_replay() -> None:
    acts = [
        saying(hello(to=2), message(1), message(2), close=4500),
        saying(hello("snapshot", to=7, epoch="ep_2", reason="epoch_changed"), SNAPSHOT, message(8)),
    ]
    async with scripted(*acts) as (url, asked):
        assert await numbers(url, 4, after=0) == [1, 2, -7, 8]
    assert asked[1].endswith("epoch=ep_1")


async def test_beginning_with_a_snapshot_with_now_or_with_the_start() -> None:
    async with scripted(saying(hello("snapshot", to=7), SNAPSHOT, message(8))) as (url, asked):
        assert await numbers(url, 2, start="snapshot") == [-7, 8]
        assert asked == ["/ws/c?from=snapshot"]
    async with scripted(saying(hello("live", first=8, to=7), message(8))) as (url, asked):
        assert await numbers(url, 1) == [8]
        assert asked == ["/ws/c?from=now"]
    async with scripted(saying(hello(first=1, to=1), message(1))) as (url, asked):
        assert await numbers(url, 1, start="start") == [1]
        assert asked == ["/ws/c?from=start"]


async def test_an_overfull_stream_lets_go_and_asks_again() -> None:
    """A command's answer is behind more events than are kept: it comes through, and nothing is lost."""

    async def act(connection: ServerConnection) -> None:
        assert connection.request is not None
        after = int(connection.request.path.partition("after=")[2].partition("&")[0])
        await connection.send(json.dumps(hello(first=after + 1, to=1000)))
        if after == 0:
            command = json.loads(await connection.recv())
        for seq in range(after + 1, 1001):
            await connection.send(json.dumps(message(seq)))
        if after == 0:
            await connection.send(json.dumps({"type": "ok", "id": command["id"], "at": 1000, "head": 1000}))
        await connection.wait_closed()

    async with soon(10), scripted(act) as (url, asked), connect(url, "c", after=0, buffer_bytes=2_000) as conversation:
        events = conversation.events()
        assert await conversation.ping() == 1000
        assert [(await anext(events)).seq for _ in range(1000)] == list(range(1, 1001))  # type: ignore[union-attr]
    assert len(asked) == 2


# -- later versions --------------------------------------------------------------------------------------


async def test_what_a_later_version_says_is_taken_as_far_as_it_goes() -> None:
    """Unknown events count; unknown control frames do not; an event that cannot be read is still an event."""
    acts = saying(
        hello(to=3),
        {"type": "x_vendor", "seq": 1, "ts": 1, "run_id": "r", "more": True},
        {"type": "weather", "sunny": True},
        {"type": "run.completed", "seq": 2, "ts": 1, "run_id": "r", "stop_reason": "bored"},
        message(3),
    )
    async with soon(10), scripted(acts) as (url, asked), connect(url, "c", after=0) as conversation:
        events = conversation.events()
        vendor, completed, delta = [await anext(events) for _ in range(3)]
        assert isinstance(vendor, UnknownEvent)
        assert vendor.fields == {"run_id": "r", "more": True}
        assert isinstance(completed, UnknownEvent)
        assert completed.fields["stop_reason"] == "bored"
        assert isinstance(delta, MessageDelta)
    assert len(asked) == 1


async def test_an_error_of_an_unknown_code_answers_its_command() -> None:
    async def act(connection: ServerConnection) -> None:
        await connection.send(json.dumps(hello()))
        command = json.loads(await connection.recv())
        error = {"type": "error", "id": command["id"], "code": "moonphase", "message": "wait", "retryable": False}
        await connection.send(json.dumps(error))
        await connection.wait_closed()

    async with soon(10), scripted(act) as (url, _), connect(url, "c", after=0) as conversation:
        with pytest.raises(CommandRefused, match="moonphase: wait"):
            await conversation.ping()


# -- being sent away -------------------------------------------------------------------------------------


async def test_a_44xx_close_in_mid_stream_raises_once_what_came_was_told() -> None:
    gone = saying(hello(to=1), message(1), close=4410)
    async with soon(10), scripted(gone) as (url, asked), connect(url, "c", after=0) as conversation:
        events = conversation.events()
        first = await anext(events)
        assert isinstance(first, MessageDelta)
        with pytest.raises(ConnectionRefused) as refused:
            await anext(events)
        assert (refused.value.code, refused.value.reason) == (4410, "as scripted")
        with pytest.raises(ConnectionRefused):
            await conversation.ping()
        with pytest.raises(ConnectionRefused):
            await anext(conversation.events())
    assert len(asked) == 1


async def test_a_45xx_close_and_a_restart_are_tried_again() -> None:
    acts = [saying(close=4529), saying(hello(to=1), close=1012), saying(hello(to=1), message(1))]
    async with scripted(*acts) as (url, asked):
        assert await numbers(url, 1, after=0) == [1]
    assert len(asked) == 3


async def test_goaway_says_when_to_come_back() -> None:
    away = {"type": "goaway", "reason": "drain", "reconnect_after_ms": 400}
    news: list[Connected | Disconnected] = []
    acts = [saying(hello(to=1), message(1), away, close=4503), saying(hello(first=2, to=2), message(2))]
    async with scripted(*acts) as (url, _):
        began = time.monotonic()
        assert await numbers(url, 2, after=0, on_connection=news.append) == [1, 2]
        assert time.monotonic() - began >= 0.39
    [waited] = [told.retry_in_s for told in news if isinstance(told, Disconnected)]
    assert waited > 0.3


async def test_a_wrong_key(server: Server) -> None:
    with pytest.raises(ConnectionRefused) as refused:
        async with soon(5), connect(server.url, "c", key="wrong"):
            pass
    assert refused.value.code == 4401


async def test_something_that_is_no_hermes_server() -> None:
    with pytest.raises(Unreachable, match="is this a hermes-ws server"):
        async with soon(5), scripted(saying({"type": "welcome"})) as (url, _), connect(url, "c"):
            pass


async def test_a_path_that_is_not_there(server: Server) -> None:
    with pytest.raises(ConnectionRefused):
        async with soon(5), connect(f"{server.url}/elsewhere", "c", key=server.key):
            pass


async def test_a_ticket_for_every_connect(server: Server) -> None:
    name, given = fresh(), []

    async def get_ticket() -> str:
        async with server.http() as http:
            answer = await http.post("/api/tickets", json={"conversation": name, "principal": "guest"})
        given.append(answer.json()["ticket"])
        return str(given[-1])

    async with soon(10), connect(server.url, name, get_ticket=get_ticket) as conversation:
        assert conversation.hello.principal == "guest"
        assert await conversation.ping() == 0
    async with soon(10), connect(f"{server.ws}/ws/{name}?ticket={await get_ticket()}") as conversation:
        assert conversation.hello.principal == "guest"
    assert len(given) == 2


async def test_a_client_id_is_beside_the_principal(connected: Connect) -> None:
    async with soon(10), connected(fresh(), client_id="laptop") as conversation:
        started = await anext(conversation.run("hi"))
        assert started.by.client_id == "laptop"  # type: ignore[union-attr]


async def test_a_client_id_that_is_refused_is_told(connected: Connect) -> None:
    async with soon(10), connected(fresh(), client_id="x" * 200) as conversation:
        with pytest.raises(CommandRefused, match="client_id"):
            await anext(conversation.events())


@pytest.mark.parametrize(
    ("url", "conversation_id"),
    [("http://localhost:1", None), ("localhost:8642", "c"), ("ftp://localhost", "c"), ("ws://localhost/ws/", None)],
)
async def test_addresses_that_cannot_be(url: str, conversation_id: str | None) -> None:
    with pytest.raises(ValueError):
        async with connect(url, conversation_id):
            pass


async def test_nothing_is_left_behind(connected: Connect) -> None:
    before = asyncio.all_tasks()
    async with soon(10), connected(fresh()) as conversation:
        async for _ in conversation.run("/stream 100000 1"):
            break
        await conversation.stop()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
