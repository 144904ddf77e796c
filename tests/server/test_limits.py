"""Bounds: what happens when one is reached, and that it happens to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import MakeServer
from tests.wire import Json, Server, expect_contiguous, fresh, terminals

SMALL = """
[limits]
sockets = 3
commands_in_flight = 4
frame_bytes = 5000
frame_bytes_max = 20000
"""


async def test_one_socket_too_many_is_told_to_come_back(make_server: MakeServer) -> None:
    server = make_server(settings=SMALL)
    async with server.socket(), server.socket(), server.socket() as third:
        with pytest.raises(InvalidStatus) as caught:
            async with server.socket():
                pass
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["retry-after"]
        async with server.socket(subprotocols=["hermes.v1"]) as fourth:
            assert (await fourth.closed())[0] == 4529
        await third.ok("ping")
    async with server.socket() as again:
        await again.greeted()
    assert "ERROR" not in server.errors


async def test_commands_beyond_those_in_flight_are_overloaded_and_can_be_sent_again(make_server: MakeServer) -> None:
    server = make_server(settings=SMALL)
    async with server.socket() as socket:
        await socket.greeted()
        for n in range(50):
            await socket.send({"type": "conversation.configure", "config": {"title": str(n)}, "id": str(n)})
        answers: dict[str, Json] = {}
        while len(answers) < 50:
            frame = await socket.recv()
            if frame["type"] in ("ok", "error"):
                answers[frame["id"]] = frame
        refused = [frame for frame in answers.values() if frame["type"] == "error"]
        for frame in refused:
            assert (frame["code"], frame["retryable"]) == ("overloaded", True)
            assert frame["retry_after_ms"] > 0
        assert len(refused) < 50
        for frame in refused:
            await socket.ok("conversation.configure", config={"title": frame["id"]}, id=frame["id"])


async def test_a_large_frame_is_an_error_and_a_huge_one_closes(make_server: MakeServer) -> None:
    server = make_server(settings=SMALL)
    async with server.socket() as socket:
        assert (await socket.greeted())["limits"]["frame_bytes"] == 5000
        await socket.send('{"type":"ping","x":"' + "x" * 6000 + '"}')
        assert (await socket.until("error"))["code"] == "too_large"
        await socket.ok("ping")
        await socket.send("x" * 30_000)
        assert (await socket.closed())[0] == 4413


async def test_messages_in_fragments_are_put_together(server: Server) -> None:
    async def pieces() -> AsyncIterator[str]:
        for piece in ('{"type":"pi', 'ng","id":"😀', 'x"}'):
            yield piece

    async with server.socket() as socket:
        await socket.connection.send(pieces())
        assert (await socket.until("ok"))["id"] == "😀x"
        async with asyncio.timeout(5):
            await (await socket.connection.ping(b"still there?"))


async def test_many_commands_at_once_are_answered_in_order(server: Server) -> None:
    async with server.socket() as socket:
        await socket.greeted()
        for n in range(200):
            await socket.send({"type": "conversation.configure", "config": {"title": str(n)}, "id": str(n)})
        for n in range(200):
            ok = await socket.until("ok")
            assert (ok["id"], ok["version"]) == (str(n), n + 1)
        await socket.until_seq(ok["at"])
    assert [event["config"]["title"] for event in socket.of("conversation.configured")] == [str(n) for n in range(200)]


async def test_a_log_that_cannot_be_written_closes_4500_and_loses_nothing_that_was_seen(
    make_server: MakeServer,
) -> None:
    server, conversation = make_server(file_limit_bytes=3_000_000), fresh()
    async with server.socket(conversation, from_="start") as socket:
        await socket.greeted()
        for _ in range(30):
            await socket.send({"type": "run.start", "input": "/say " + "x" * 100_000})
        assert (await socket.closed())[0] == 4500
        seen = socket.log
    async with server.http() as http:
        assert (await http.get("/health")).status_code == 200
    assert (await server.log(conversation))[: len(seen)] == seen
    server.kill()
    server = make_server(data=server.data)
    log = await server.log(conversation)
    assert log[: len(seen)] == seen
    async with server.socket(conversation, after=len(seen)) as socket:
        await socket.greeted()
        final = await socket.run("hi")
        assert expect_contiguous(socket.log, after=len(seen)) == final["seq"]
    done = terminals(await server.log(conversation))
    assert set(done.values()) == {1}
