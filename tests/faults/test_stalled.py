"""Readers that never read: they cost a bounded piece of memory for a bounded time, and nobody else anything."""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import socket as sockets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import of
from tests.faults.watched import LONG, company
from tests.wire import Server, fresh, resident_kb, wait_for

READERS = 1_000 if LONG else 200
PER_READER_KB = 96
"""What one of them may cost, at most: what waits in its buffer, and what the interpreter makes of a connection."""
STALL_S = 4.0
SCRIPT = "\n".join(f"/stream 60\n/say {n} {'word ' * 800}" for n in range(22))
"""Some 400 kB of events; far more than lies in buffers of a line that nobody reads."""
RUNS = 2


@pytest.fixture(autouse=True)
def descriptors() -> None:
    """Room for so many sockets, here and in the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < READERS * 2 + 200:
        if hard < READERS * 2 + 200:
            pytest.skip("needs more file descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def never_reading(server: Server, conversation: str | None) -> sockets.socket:
    """A socket that was accepted, and from which nothing more than that is read; None: the inbox's."""
    loop = asyncio.get_running_loop()
    made = sockets.socket()
    made.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    made.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_MAXSEG, 536)  # or the kernel sets megabytes aside for each
    made.setblocking(False)
    await loop.sock_connect(made, ("127.0.0.1", server.port))
    key = base64.b64encode(os.urandom(16)).decode()
    path = "/ws" if conversation is None else f"/ws/{conversation}"
    request = (
        f"GET {path}?from=now HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Authorization: Bearer {server.key}\r\n\r\n"
    )
    await loop.sock_sendall(made, request.encode())
    answer = await asyncio.wait_for(loop.sock_recv(made, 12), 15)
    assert answer == b"HTTP/1.1 101", answer
    return made


@asynccontextmanager
async def stalled(server: Server, conversation: str, count: int) -> AsyncIterator[list[sockets.socket]]:
    made: list[sockets.socket] = []
    try:
        for _ in range(0, count, 50):
            made += await asyncio.gather(*[never_reading(server, conversation) for _ in range(50)])
        yield made
    finally:
        for one in made:
            one.close()


def connections_of(server: Server) -> int:
    """Sockets that the server has open, the listening one too."""
    count = 0
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(OSError):
            count += str(entry.readlink()).startswith("socket:")
    return count


async def timed_runs(server: Server, conversation: str, neighbour: str) -> float:
    """The same work in both conversations, followed by readers that read; the seconds that it took."""
    async with company(server) as people:
        watched = [await people.watch(conversation, anew=0.0), await people.watch(neighbour, anew=0.0)]
        connections = [one.journal.connections for one in watched]
        begun = time.monotonic()
        before = [len(of(one.seen(), "run.completed")) for one in watched]
        for one in watched:
            for number in range(RUNS):
                await one.one.command("run.start", input=f"{SCRIPT}\n/say {number} {begun}")
        for one, count in zip(watched, before, strict=True):
            await one.until_seen("run.completed", count + RUNS)
        took_s = time.monotonic() - begun
        assert [one.journal.connections for one in watched] == connections, "nobody who reads was dropped"
        for one in watched:
            assert one.journal.violations == []
        return took_s


@pytest.mark.timeout(400 if LONG else 120)
async def test_readers_that_never_read_harm_nobody(make_server: MakeServer) -> None:
    server = make_server(settings=f"[readers]\nstall_s = {STALL_S}\n[log]\nlevel = 'warning'\n")
    alone_s = await timed_runs(server, fresh(), fresh())
    conversation, neighbour = fresh("busy"), fresh("neighbour")
    at_first = connections_of(server)
    async with stalled(server, conversation, READERS) as readers:
        before_kb, peak_kb = resident_kb(server.pid), 0
        work = asyncio.create_task(timed_runs(server, conversation, neighbour))
        while not work.done():
            await asyncio.wait([work], timeout=0.05)
            peak_kb = max(peak_kb, resident_kb(server.pid))
        took_s = await work
        assert len(readers) == READERS
        await wait_for(lambda: connections_of(server) <= at_first + 4, 30)  # they are still there, the server let go
        each_kb = (peak_kb - before_kb) / READERS
        figures = (
            f"{READERS} readers: {before_kb} kB before, {peak_kb} kB at most, {each_kb:.0f} kB each; "
            f"{alone_s:.1f} s alone, {took_s:.1f} s with them"
        )
        print(figures)
        assert each_kb < PER_READER_KB, figures
        assert took_s < alone_s * 3 + 3, figures
    await wait_for(lambda: connections_of(server) <= at_first + 4)
    async with server.socket(conversation) as socket:
        assert (await socket.run("/say well"))["type"] == "run.completed"
    async with company(server) as people:
        for name in (conversation, neighbour):
            log = await (await people.watch(name)).one.read_log()
            assert sum('"run.completed"' in raw for raw in log) >= RUNS
    assert server.errors == "", server.errors
