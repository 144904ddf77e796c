"""Bounds: what happens when one is reached, and that it happens to nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import MakeServer
from tests.server.streams import stream
from tests.wire import Json, Server, Socket, expect_contiguous, fresh, line, resident_kb, soon, terminals, wait_for

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


async def test_sockets_that_come_at_the_same_moment_are_counted_one_by_one(make_server: MakeServer) -> None:
    server = make_server(settings=SMALL)
    async with AsyncExitStack() as stack:
        sockets = [stack.enter_async_context(server.socket(subprotocols=["hermes.v1"])) for _ in range(12)]
        came = await asyncio.gather(*sockets)
        let_in = [socket for socket in came if not await _was_closed(socket)]
    assert len(let_in) == 3


async def _was_closed(socket: Socket) -> bool:
    """Whether it is told to come back instead of being greeted."""
    try:
        await socket.ok("ping")
    except ConnectionClosed:
        return True
    return False


async def test_one_stream_too_many_is_refused_and_all_else_goes_on(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[limits]\nstreams = 2\n"), fresh()
    log = f"/api/conversations/{conversation}"
    await server.post(conversation, {"type": "conversation.configure", "config": {"title": "x"}})
    async with server.http() as http:
        async with stream(server, conversation) as one, stream(server, conversation) as two:
            for opened in (one, two):
                await opened.until_seq(2)
            for path in (f"{log}/export", f"{log}/events?after=2&wait_ms=1"):
                refused = await http.get(path, headers={"accept": "application/json"})
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                assert (refused.json()["code"], refused.json()["retryable"]) == ("overloaded", True)
                assert "limits.streams" in refused.json()["message"]
            assert (await http.get(f"{log}/events", headers={"accept": "text/event-stream"})).status_code == 503
            assert (await http.get(f"{log}/events?wait_ms=20000")).status_code == 200, "it need not wait"
            async with server.socket(conversation) as socket:
                await socket.ok("ping")
        async with soon():
            while (await http.get(f"{log}/export")).status_code != 200:
                pass  # it takes a moment until those are gone


async def test_one_waiting_request_too_many_is_refused_and_the_others_wait_on(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[limits]\nstreams = 2\n"), fresh()
    path = f"/api/conversations/{conversation}/events?wait_ms=20000"
    async with server.http() as http:
        polls = [asyncio.create_task(http.get(path)) for _ in range(3)]
        async with soon():
            done, waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            assert [poll.result().status_code for poll in done] == [503]
            await server.post(conversation, {"type": "conversation.configure", "config": {"title": "x"}})
            for poll in waiting:
                answer = await poll
                assert (answer.status_code, answer.json()["head"]) == (200, 2)


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


# -- the edge: heads, slowness, how many -----------------------------------------------------------------

EDGE = """
[limits]
head_bytes = 10000
request_s = 1.0
keep_alive_s = 1
connections = 8
[readers]
stall_s = 1.5
"""
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"


async def status(reader: asyncio.StreamReader) -> int:
    """The status of the next answer; 0 if the line ends instead."""
    async with soon():
        try:
            first = await reader.readline()
        except ConnectionError:
            return 0
    return int(first.split()[1]) if first else 0


async def refusal(reader: asyncio.StreamReader) -> tuple[int, Json]:
    """The one answer before the line ends: its status and its frame."""
    async with soon():
        answer = await reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower(), answer
    frame: Json = json.loads(body)
    assert frame["type"] == "error"
    assert frame["error"]["message"] == frame["message"]  # for clients that look there
    assert set(frame["error"]) == {"message", "type", "param", "code"}
    return int(head.split()[1]), frame


def request(server: Server, first: str = "GET /api/conversations", *headers: str) -> bytes:
    key = f"Authorization: Bearer {server.key}"
    return "\r\n".join([f"{first} HTTP/1.1", "Host: localhost", key, *headers, "", ""]).encode()


@pytest.mark.parametrize("socket", [False, True])
async def test_a_head_may_be_as_large_as_the_limit_and_no_larger(make_server: MakeServer, socket: bool) -> None:
    server = make_server(settings=EDGE)
    more = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13") if socket else ()
    more = (*more, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==") if socket else more
    path = "GET /ws/demo" if socket else "GET /api/conversations"
    plain = request(server, path, *more)
    room = 10_000 - (len(plain) - len(b"GET  HTTP/1.1\r\n\r\n")) - 2 * len("X-Fill: \r\n")
    for fill, expected in ((room - 100, 101 if socket else 200), (room + 100, 431)):
        fills = ("X-Fill: " + "x" * (fill - fill // 2), "X-Fill: " + "x" * (fill // 2))
        async with line(server) as (reader, writer):
            writer.write(request(server, path, *more, *fills))
            if expected == 431:
                code, frame = await refusal(reader)
                assert (code, frame["code"]) == (431, "too_large")
                assert "10000" in frame["message"]
            else:
                assert await status(reader) == expected
    assert "Traceback" not in server.errors


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"GET /", b"x" * 4000),
        (b"GET / HTTP/1.1\r\nX: ", b"x" * 4000),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 500),
        (b"GET /ws/demo HTTP/1.1\r\n" + UPGRADE, b"X: y\r\n" * 500),
        (b"\r\n", b"\r\n" * 2000),
        (b"POST /api/tickets HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 500),
        (b"POST /api/tickets HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y" * 4000),
        (b"POST /api/tickets HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"y" * 4000),
    ],
    ids=["line", "value", "headers", "upgrade", "blank", "trailers", "trailer", "extension"],
)
async def test_a_head_without_end_is_refused_and_costs_no_memory(
    make_server: MakeServer, begin: bytes, again: bytes
) -> None:
    server = make_server(settings=EDGE)
    before = resident_kb(server.pid)
    async with line(server) as (reader, writer):
        writer.write(begin)
        with suppress(OSError):
            for _ in range(2000):
                writer.write(again)
                await asyncio.wait_for(writer.drain(), 5)
                if reader.at_eof():
                    break
        with suppress(ConnectionError):
            answer = await reader.read(1000)
            assert b"HTTP/1.1 4" in answer
    assert resident_kb(server.pid) - before < 8_000
    async with server.http() as http:
        assert (await http.get("/health")).status_code == 200
    assert "Traceback" not in server.errors


async def test_requests_that_do_not_come_are_refused_and_silent_lines_closed(make_server: MakeServer) -> None:
    server = make_server(settings=EDGE)
    body = ("POST /api/tickets", "Content-Length: 100")
    async with line(server) as (silent, _), line(server) as (head, slow), line(server) as (rest, stalled):
        slow.write(b"GET / HT")
        stalled.write(request(server, *body) + b'{"conv')
        async with soon():
            assert await silent.read() == b""
        for reader in (head, rest):
            code, frame = await refusal(reader)
            assert (code, frame["code"]) == (408, "invalid_frame")
    assert "Traceback" not in server.errors


async def test_a_head_that_drips_is_refused_and_a_body_that_goes_on_is_not(make_server: MakeServer) -> None:
    server = make_server(settings=EDGE)
    async with line(server) as (dripping, head), line(server) as (fed, body):
        body.write(request(server, "POST /api/tickets", "Content-Length: 40"))
        sent = 0
        head.write(b"GET / HTTP/1.1\r\nX: ")
        async with soon():
            while not dripping.at_eof() or sent < 39:
                if not dripping.at_eof():
                    head.write(b"x")
                    with suppress(TimeoutError):
                        await asyncio.wait_for(dripping.read(1000), 0.1)
                else:
                    await asyncio.sleep(0.05)
                if sent < 39:
                    sent += 1
                    body.write(b" ")
        body.write(b"{")
        assert await status(fed) == 400


async def test_long_polls_and_idle_sockets_outlive_the_time_for_requests(make_server: MakeServer) -> None:
    server, conversation = make_server(settings=EDGE), fresh()
    async with server.socket(conversation) as socket, server.http() as http:
        await socket.greeted()
        page = await http.get(f"/api/conversations/{conversation}/events", params={"wait_ms": 3000})
        assert (page.status_code, page.json()["events"]) == (200, [])
        await socket.ok("ping")


async def test_a_connection_is_kept_for_a_next_request_and_no_longer_than_said(make_server: MakeServer) -> None:
    server = make_server(settings=EDGE)
    async with line(server) as (reader, writer):
        for _ in range(2):
            writer.write(request(server, "HEAD /health"))
            async with soon():
                answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200")
        begun = asyncio.get_running_loop().time()
        async with soon():
            assert await reader.read() == b""
        assert 0.8 < asyncio.get_running_loop().time() - begun < 5


async def test_one_connection_too_many_is_told_so_and_the_others_go_on(make_server: MakeServer) -> None:
    server, conversation = make_server(settings=EDGE), fresh()
    async with server.socket(conversation) as socket, AsyncExitStack() as stack:
        await socket.greeted()
        begun = await socket.ok("run.start", input="/sleep 1\n/say done")
        sockets = [await stack.enter_async_context(server.socket()) for _ in range(7)]
        async with line(server) as (reader, writer):
            writer.write(request(server))
            async with soon():
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in answer
        flood = [await stack.enter_async_context(line(server)) for _ in range(30)]
        answers = [await status(reader) for reader, _ in flood]
        assert set(answers) <= {0, 503}
        assert 0 in answers
        assert (await socket.until_final(begun["run_id"]))["type"] == "run.completed"
        for other in sockets:
            await other.ok("ping")

    async def comes_in() -> bool:
        with suppress(OSError):
            async with line(server) as (reader, writer):
                writer.write(request(server))
                return await status(reader) == 200
        return False

    async with soon():
        while not await comes_in():
            await asyncio.sleep(0.05)
    assert "Traceback" not in server.errors


async def test_an_answer_that_nobody_takes_holds_one_page_and_not_for_ever(make_server: MakeServer) -> None:
    server, conversation = make_server(settings=EDGE), fresh()
    async with server.socket(conversation) as driver:
        for _ in range(40):
            await driver.run("/say " + "x" * 200_000)
    page = await server.get(f"/api/conversations/{conversation}/events", after=0)
    assert len(json.dumps(page["events"])) < 1_048_576 + 450_000
    assert not page["at_head"]
    before = resident_kb(server.pid)
    async with AsyncExitStack() as stack:
        for _ in range(6):
            _, writer = await stack.enter_async_context(line(server))
            for _ in range(20):
                writer.write(request(server, f"GET /api/conversations/{conversation}/events?after=0"))
            transport = writer.transport
            assert isinstance(transport, asyncio.ReadTransport)
            transport.pause_reading()
        await wait_for(lambda: server.errors.count("response.stalled") == 6)
        assert resident_kb(server.pid) - before < 40_000
    assert (await server.get("/health"))["status"] == "ok"
    assert "Traceback" not in server.errors


async def test_requests_that_wait_in_a_line_are_bounded(make_server: MakeServer) -> None:
    server = make_server()
    before = resident_kb(server.pid)
    async with line(server) as (reader, writer):
        writer.write(request(server) * 2000)
        async with soon():
            answers = await reader.read()
    assert 1 <= answers.count(b"HTTP/1.1 200") < 200
    assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200")
    async with line(server) as (reader, writer):
        writer.write(request(server) * 20 + request(server, "GET /health", "Connection: close"))
        async with soon():
            answers = await reader.read()
    assert answers.count(b"HTTP/1.1 200") == 21
    assert resident_kb(server.pid) - before < 8_000


async def test_a_body_that_goes_on_after_its_answer_leaves_an_idle_line_like_any_other(make_server: MakeServer) -> None:
    server = make_server(settings=EDGE)
    async with line(server) as (reader, writer):
        writer.write(request(server, "GET /schemas/none", "Content-Length: 200000"))
        assert await status(reader) == 404
        writer.write(b"x" * 200_000)
        async with soon(5):
            while await reader.read(1000):
                pass
