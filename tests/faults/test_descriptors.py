"""No file descriptors left: who is there is served, who comes is turned away, and nothing is broken afterwards."""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.fuzz import Vitals, cpu_s
from tests.wire import Server, Socket, fresh, soon, wait_for

FEW = "[limits]\nkeep_alive_s = 1\nrequest_s = 2.0\n"


@contextmanager
def none_left(server: Server, spare: int = 0) -> Iterator[None]:
    """As if the server had opened all that it may, but for ``spare``."""
    taken = {int(entry.name) for entry in Path(f"/proc/{server.pid}/fd").iterdir()}
    free = (number for number in itertools.count() if number not in taken)
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (next(itertools.islice(free, spare, None)), before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)


async def get_in(server: Server) -> int:
    """The status of a request on a line of its own; 0 if the line was dropped."""
    with suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return int((await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)).split()[1])
        finally:
            writer.close()
    return 0


async def output_of(socket: Socket, command: str) -> tuple[str, str]:
    """What a command that somebody allows ends with, and what it wrote or was told."""
    await socket.run(f"/run {command}")
    ended = socket.of("tool.completed")[-1]
    return ended["status"], str(ended)


async def test_with_few_descriptors_connections_are_refused_before_they_run_out(make_server: MakeServer) -> None:
    server, conversation = make_server(settings=FEW, descriptors=64), fresh()
    assert "connections.limited" in server.errors
    async with server.socket(conversation) as socket, AsyncExitStack() as stack:
        await socket.greeted()
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        run = await socket.ok("run.start", input="/stream 40 50\n/say done")
        refused = 0
        for _ in range(80):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            with suppress(TimeoutError, ConnectionError):
                refused += bool(await asyncio.wait_for(reader.read(9), 0.02)) or reader.at_eof()
        assert refused > 30
        assert (await get_in(server)) in (0, 503)
        assert (await socket.until_final(run["run_id"]))["type"] == "run.completed"
        status, said = await output_of(socket, "echo x")
        assert status == "ok", said
    async with soon():
        while await get_in(server) != 200:
            await asyncio.sleep(0.05)
    Vitals(server).expect_calm()


async def test_with_none_left_who_is_there_goes_on_and_tools_say_why_they_cannot(make_server: MakeServer) -> None:
    server, conversation = make_server(settings=FEW), fresh()
    async with server.socket(conversation) as socket:
        await socket.greeted()
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        assert (await output_of(socket, "echo x"))[0] == "ok"
        vitals = Vitals(server)
        with none_left(server):
            assert (await socket.run("/say hello"))["type"] == "run.completed"
            status, said = await output_of(socket, "echo x")
            assert status == "error"
            assert "open files" in said, said
            await socket.run('/tool write_file {"path": "a", "content": "x"}')
            ended = socket.of("tool.completed")[-1]
            assert (ended["status"], "open files" in str(ended)) == ("error", True), ended
        assert (await output_of(socket, "echo x"))[0] == "ok"
        await vitals.expect_no_growth(20_000)
    vitals.expect_calm()


@pytest.mark.parametrize("spare", [0, 1, 3, 5])
async def test_a_server_that_cannot_accept_neither_spins_nor_stays_deaf(make_server: MakeServer, spare: int) -> None:
    server, conversation = make_server(settings=FEW), fresh()
    async with server.socket(conversation) as socket, AsyncExitStack() as stack:
        await socket.greeted()
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        with none_left(server, spare):
            for _ in range(40):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                stack.callback(writer.close)
            await socket.ok("ping")
            begun, used = time.monotonic(), cpu_s(server.pid)
            await wait_for(lambda: time.monotonic() - begun > 1.0)
            assert cpu_s(server.pid) - used < 0.3
            assert (await output_of(socket, "echo x"))[0] == "error"
            assert (await socket.run("/say hello"))["type"] == "run.completed"
        await stack.aclose()
        async with soon():
            while await get_in(server) != 200:
                await asyncio.sleep(0.05)
        assert (await output_of(socket, "echo x"))[0] == "ok"
    async with server.socket() as other:
        assert (await other.run("/say hello"))["type"] == "run.completed"
    Vitals(server).expect_calm()


async def test_many_commands_at_once_share_what_descriptors_there_are(make_server: MakeServer) -> None:
    server, conversation = make_server(settings=FEW, descriptors=64), fresh()
    async with server.socket(conversation) as socket:
        await socket.greeted()
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run("\n/par\n".join(["/run echo x; sleep 0.3"] * 24))
        ended = socket.of("tool.completed")
        assert len(ended) == 24
        for one in ended:
            assert one["status"] == "ok" or "open files" in str(one), one
        assert any(one["status"] == "ok" for one in ended)
        assert (await output_of(socket, "echo x"))[0] == "ok"
    Vitals(server).expect_calm()
