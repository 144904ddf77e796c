"""Whatever is sent: an answer in time, never a crash, nothing kept. See :mod:`tests.faults.fuzz`.

``HERMES_WS_TESTS_LONG=1`` sends far more, from a seed that is printed; ``HERMES_WS_TESTS_SEED`` sets it.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from websockets.exceptions import ConnectionClosed

from tests.faults.fuzz import Frames, Vitals, frame, http_request, refusals_of, socket_bytes, statuses
from tests.wire import Json, Server, fresh, soon

LONG = bool(os.environ.get("HERMES_WS_TESTS_LONG"))
SEED = int(os.environ.get("HERMES_WS_TESTS_SEED") or (int.from_bytes(os.urandom(4), "big") if LONG else 20_260_101))
ROUNDS = 20 if LONG else 1
DOCUMENTED = {503, 507}
"""Statuses of 500 and more that say something about the moment, not about us."""

SETTINGS = """
[limits]
request_s = 1.0
keep_alive_s = 1
wait_ms = 200
frame_bytes = 100000
frame_bytes_max = 300000
[conversations]
idle_s = 1.0
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.start(tmp_path_factory.mktemp("fuzz"), settings=SETTINGS)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def schema() -> Json:
    document: Json = json.loads((Path(__file__).parents[2] / "schemas" / "hermes.v1.schema.json").read_text())
    return document


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    print(f"HERMES_WS_TESTS_SEED={SEED}")
    return Random(f"{SEED} {request.node.name}")


def expects(schema: Json, name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})


async def works(server: Server) -> None:
    """Somebody else is served as ever."""
    async with soon(), server.socket() as socket:
        await socket.greeted()
        assert (await socket.run("/say still here"))["type"] == "run.completed"


async def all_of(jobs: list[Callable[[], Awaitable[None]]], at_once: int) -> None:
    """Do them, so many side by side."""
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await job()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


# -- commands on a socket --------------------------------------------------------------------------------


async def answers_to(
    server: Server, frames: list[bytes], error: Draft202012Validator, ok: Draft202012Validator
) -> None:
    """Send frames as text; each gets one ``ok`` or ``error``, and no more come."""
    async with server.socket(fresh("fuzz"), from_="now") as socket:
        await socket.greeted()
        for data in frames:
            await socket.send_text_bytes(data)
        await socket.send({"type": "run.stop", "queue": "clear"})
        answered = 0
        async with soon(30):
            while answered < len(frames) + 1:
                answered += check(await socket.recv(), error, ok)
        await socket.send({"type": "ping", "id": "the last one"})
        async with soon():
            while True:
                answer = await socket.recv()
                if check(answer, error, ok):
                    assert answer.get("id") == "the last one", f"a second answer: {answer}"
                    return


def check(answer: Json, error: Draft202012Validator, ok: Draft202012Validator) -> int:
    """Whether it is an answer, as the schema has it."""
    if answer["type"] == "error":
        error.validate(answer)
        assert answer["code"] != "internal", answer
        return 1
    if answer["type"] == "ok":
        ok.validate(answer)
        return 1
    return 0


async def test_every_frame_gets_one_answer(target: Server, schema: Json, chance: Random) -> None:
    frames, error, ok = Frames(schema, chance), expects(schema, "Error"), expects(schema, "Ok")
    await answers_to(target, [frames.spoilt() for _ in range(200)], error, ok)
    vitals = Vitals(target)
    for _ in range(8 * ROUNDS):
        await answers_to(target, [frames.spoilt() for _ in range(250)], error, ok)
    vitals.expect_calm()
    grown = await vitals.expect_no_growth(25_000 if not LONG else 60_000)
    print(f"{8 * ROUNDS * 250} frames, memory +{grown} KiB")
    await works(target)


def test_frames_that_hypothesis_finds(target: Server, schema: Json) -> None:
    error, ok = expects(schema, "Error"), expects(schema, "Ok")

    @settings(
        max_examples=2000 if LONG else 40,
        derandomize=not LONG,
        print_blob=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(chances=st.randoms(use_true_random=False), count=st.integers(1, 8), noise=st.binary(max_size=40))
    def send(chances: Random, count: int, noise: bytes) -> None:
        frames = Frames(schema, chances)
        asyncio.run(answers_to(target, [*(frames.spoilt() for _ in range(count)), noise], error, ok))

    send()
    Vitals(target).expect_calm()


# -- the bytes of a socket -------------------------------------------------------------------------------


@asynccontextmanager
async def opened(
    server: Server, early: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A socket after its handshake, byte for byte; ``early`` is sent along with the handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        head = [
            f"GET /ws/{fresh('fuzz')}?from=now HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {server.key}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        writer.write("\r\n".join([*head, "", ""]).encode() + early)
        async with soon():
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def close_code(reader: asyncio.StreamReader) -> int:
    """The code that a server closes with, after whatever else it sends."""
    async with soon():
        data = await reader.read()
    while data:
        length, start = data[1], 2
        if length == 126:
            length, start = struct.unpack("!H", data[2:4])[0], 4
        elif length == 127:
            length, start = struct.unpack("!Q", data[2:10])[0], 10
        if data[0] == 0x88:
            return int(struct.unpack("!H", data[start : start + 2])[0])
        data = data[start + length :]
    return 0


PING = b'{"type":"ping"}'
MALFORMED = {
    "opcode": (frame(3, b"x"), 1002),
    "control opcode": (frame(11, b"x"), 1002),
    "reserved bit": (frame(1, PING, reserved=4), 1002),
    "unmasked": (frame(1, PING, masked=False), 1002),
    "continuation of nothing": (frame(0, PING), 1002),
    "a text within a text": (frame(1, b"{", fin=False) + frame(1, PING), 1002),
    "control frame too long": (frame(9, b"x" * 126), 1002),
    "control frame in pieces": (frame(9, b"x", fin=False), 1002),
    "close of one byte": (frame(8, b"x"), 1002),
    "close with no such code": (frame(8, struct.pack("!H", 1005)), 1002),
    "close with a reason that is no text": (frame(8, struct.pack("!H", 1000) + b"\xff"), 1007),
    "too large": (frame(1, b"", length=10**6), 4413),
    "too large in pieces": (frame(1, b"x" * 200_000, fin=False) + frame(0, b"x" * 200_000), 4413),
    "far too large": (frame(1, b"", length=2**62), 4413),
    "length with the highest bit": (frame(1, b"", length=2**63 + 5), 0),
}


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", list(MALFORMED))
async def test_a_malformed_frame_closes(target: Server, name: str, early: bool) -> None:
    data, code = MALFORMED[name]
    async with opened(target, data if early else b"") as (reader, writer):
        writer.write(b"" if early else data)
        closed = await close_code(reader)
        assert closed == code or not code
    Vitals(target).expect_calm()


async def test_fragments_however_many_are_one_message_and_cost_what_they_hold(target: Server) -> None:
    vitals = Vitals(target)
    async with opened(target) as (reader, writer):
        writer.write(frame(1, PING[:3], fin=False))
        for _ in range(1000):
            writer.write(frame(0, b"", fin=False) * 500)
            await writer.drain()
        writer.write(frame(0, PING[3:]))
        async with soon():
            await reader.readuntil(b'{"type":"ok"')
    await vitals.expect_no_growth(8_000)
    vitals.expect_calm()


async def test_pings_whose_answers_nobody_reads_do_not_pile_up(target: Server) -> None:
    vitals = Vitals(target)
    async with opened(target) as (reader, writer):
        transport = writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while True:
                    writer.write(frame(9, b"x" * 125) * 500)
                    await writer.drain()
        await vitals.expect_no_growth(8_000)
        writer.write(frame(1, PING))
        transport.resume_reading()
        got = b""
        async with soon():
            while b'{"type":"ok"' not in got:
                got = got[-20:] + await reader.read(65_536)
    vitals.expect_calm()
    await works(target)


async def test_frames_that_come_before_the_handshake_is_answered_are_answered_after_it(target: Server) -> None:
    async with opened(target, frame(1, b'{"type":"ping","id":"early"}')) as (reader, _), soon():
        await reader.readuntil(b'"id":"early"')


async def test_bytes_that_are_no_frames_harm_nobody(target: Server, schema: Json, chance: Random) -> None:
    frames = Frames(schema, chance)

    def job(data: bytes, early: bool) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            async with opened(target, data if early else b"") as (reader, writer):
                with suppress(ConnectionError, TimeoutError):
                    for at in range(0, 0 if early else len(data), 700):
                        writer.write(data[at : at + 700])
                        await writer.drain()
                    writer.write(frame(8, b""))
                    async with asyncio.timeout(0.3):
                        await reader.read()

        return send

    def batch(count: int) -> list[Callable[[], Awaitable[None]]]:
        return [job(socket_bytes(chance, frames), chance.random() < 0.3) for _ in range(count)]

    await all_of(batch(60), 20)
    vitals = Vitals(target)
    for _ in range(ROUNDS):
        await all_of(batch(250), 20)
        vitals.expect_calm()
    grown = await vitals.expect_no_growth(25_000)
    print(f"{250 * ROUNDS} sockets, memory +{grown} KiB")
    await works(target)


# -- HTTP ------------------------------------------------------------------------------------------------


async def exchange(server: Server, data: bytes, chance: Random) -> bytes:
    """All that a line brings until it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        with suppress(ConnectionError):
            cut = chance.randrange(len(data) + 1) if chance.random() < 0.2 else len(data)
            for part in (data[:cut], data[cut:]):
                writer.write(part)
                await writer.drain()
        got = bytearray()
        with suppress(ConnectionError):
            try:
                async with soon():
                    while block := await reader.read(65_536):
                        got += block
                        if got.startswith(b"HTTP/1.1 101 ") and not got.endswith(b"\r\n\r\n"):
                            break  # a socket, which says hello and stays
                        if b"content-type: text/event-stream" in got:
                            break  # a stream, which stays too
            except TimeoutError:
                raise AssertionError(f"no end: {data[:3000]!r} {bytes(got[:1000])!r}") from None
        return bytes(got)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def test_requests_of_every_kind_are_answered_or_closed_in_time(
    target: Server, schema: Json, chance: Random
) -> None:
    frames, error, conversation = Frames(schema, chance), expects(schema, "Error"), fresh("fuzz")
    seen: dict[int, int] = {}

    def job(data: bytes) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            answer = await exchange(target, data, chance)
            for status in statuses(answer):
                seen[status] = seen.get(status, 0) + 1
                assert status < 500 or status in DOCUMENTED, (data, answer[:2000])
            for refusal in refusals_of(answer):
                error.validate(refusal)

        return send

    def batch(count: int) -> list[Callable[[], Awaitable[None]]]:
        return [job(http_request(chance, frames, target.key, conversation)) for _ in range(count)]

    await all_of(batch(100), 50)
    vitals = Vitals(target)
    for _ in range(ROUNDS):
        await all_of(batch(900), 100)
        vitals.expect_calm()
    grown = await vitals.expect_no_growth(25_000)
    print(f"{900 * ROUNDS} requests, memory +{grown} KiB, statuses {dict(sorted(seen.items()))}")
    assert {200, 400, 404, 405, 408, 413} <= set(seen)
    await works(target)


async def test_random_bytes_and_silence_leave_nothing_behind(target: Server, chance: Random) -> None:
    vitals = Vitals(target)
    for _ in range(100 * ROUNDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(chance.randbytes(chance.choice((0, 1, 100, 5000))))
        writer.transport.abort()
        del reader
    with suppress(ConnectionClosed):
        async with target.socket() as socket:
            socket.abort()
    await vitals.expect_no_growth(10_000)
    vitals.expect_calm()
