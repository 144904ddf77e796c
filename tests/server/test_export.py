"""A conversation's log as lines of JSON: a file that is whole, or visibly is not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from tests.conftest import MakeServer
from tests.server.streams import LINES, asked, dechunked, everything, reads_on, stops_reading, stream
from tests.wire import Json, Server, expect_contiguous, fresh, resident_kb, soon, wait_for

HEAVY = ["\n".join(["/say " + "x" * 200_000] * 5)] * 8
"""Some 16 MB of log: far more than lies in buffers of a line that nobody reads."""
END = b"0\r\n\r\n"


async def spoken(server: Server, *scripts: str) -> tuple[str, list[str]]:
    """A conversation with finished runs, and what a socket got of it, byte for byte."""
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.greeted()
        for script in scripts or ("hello",):
            await socket.run(script)
        return conversation, socket.counted()


async def exported(server: Server, conversation: str, **params: object) -> list[str]:
    async with server.http() as http:
        answer = await http.get(f"/api/conversations/{conversation}/export", params=params)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    assert not answer.text or answer.text.endswith("\n")
    return answer.text.splitlines()


async def test_each_frame_of_the_socket_is_a_line_byte_for_byte(server: Server) -> None:
    conversation, frames = await spoken(server, "/think hm\n/stream 2000\n/tool list_files {}\n/say größer", "hi")
    assert await exported(server, conversation) == frames
    for form in LINES:
        async with server.http(headers={"accept": form}) as http:
            answer = await http.get(f"/api/conversations/{conversation}/events")
        assert answer.headers["content-type"] == form
        assert answer.text.splitlines() == frames


async def test_a_link_to_it_is_a_file_with_the_name_of_the_conversation(server: Server) -> None:
    conversation, frames = await spoken(server)
    async with server.http() as http:
        asked_for = {"conversation": conversation, "role": "observer"}
        ticket = (await http.post("/api/tickets", json=asked_for)).json()["ticket"]
        head = await http.head(f"/api/conversations/{conversation}/export")
    async with server.http(key="", headers={"accept": "text/html,*/*;q=0.8"}) as browser:
        answer = await browser.get(f"/api/conversations/{conversation}/export", params={"ticket": ticket})
        assert (await browser.get(f"/api/conversations/{conversation}/export")).status_code == 401
    assert answer.text.splitlines() == frames
    for one in (answer, head):
        assert one.headers["content-type"] == "application/jsonl"
        assert one.headers["cache-control"] == "no-store, no-transform"
        assert one.headers["content-disposition"] == f'attachment; filename="{conversation}.jsonl"'
    assert (head.status_code, head.content) == (200, b"")


async def test_no_file_has_a_colon_in_its_name(server: Server) -> None:
    name = f"a:{fresh()}:b"
    await server.post(name, {"type": "conversation.configure", "config": {"title": "x"}})
    async with server.http() as http:
        answer = await http.get(f"/api/conversations/{name}/export")
    assert f'filename="{name.replace(":", "_")}.jsonl"' in answer.headers["content-disposition"]


async def test_it_ends_at_the_head_of_the_moment_although_more_is_coming(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 100000 1")
        await socket.until("message.delta")
        async with soon(10):
            lines = await exported(server, conversation)
        await socket.until_seq(expect_contiguous(map(json.loads, lines)))
        assert lines == socket.counted()[: len(lines)]
        await socket.ok("run.stop")
        await socket.until_final()


async def test_a_part_of_it_can_be_asked_for(server: Server) -> None:
    conversation, frames = await spoken(server, "/stream 20 1", "/stream 20 1")
    epoch = json.loads(frames[0])["epoch"]
    assert await exported(server, conversation, after=5) == frames[5:]
    assert await exported(server, conversation, after=5, epoch=epoch) == frames[5:]
    assert await exported(server, conversation, after=5, epoch="ep_other") == frames
    assert await exported(server, conversation, after=len(frames)) == []
    assert await exported(server, conversation, after=10**9) == frames
    async with server.socket(conversation, after=0, exclude="message.delta,run.completed") as socket:
        await socket.greeted()
    assert await exported(server, conversation, exclude="message.delta,run.completed") == socket.counted()
    assert json.loads(socket.counted()[-1])["type"] == "skipped"


async def test_what_was_folded_away_is_told(make_server: MakeServer) -> None:
    server = make_server()
    conversation, frames = await spoken(server, "/stream 2000")
    command = [sys.executable, "-m", "hermes_ws.cli", "gc", "--data", str(server.data), "--older-than", "0h"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
    lines: list[Json] = [json.loads(line) for line in await exported(server, conversation)]
    assert expect_contiguous(lines) == len(frames)
    assert [line["reason"] for line in lines if line["type"] == "skipped"] == ["compacted"]
    assert not any(line["type"] == "message.delta" for line in lines)
    left = [json.dumps(line) for line in lines if line["type"] != "skipped"]
    assert left == [json.dumps(json.loads(f)) for f in frames if '"type":"message.delta"' not in f]


@pytest.mark.parametrize("what", ["deleted", "deleted and begun anew", "the server goes down"])
async def test_one_that_cannot_be_finished_does_not_look_whole(make_server: MakeServer, what: str) -> None:
    server = make_server(settings="[server]\ndrain_grace_s = 0.1\n")
    conversation, frames = await spoken(server, *HEAVY)
    async with asked(server, f"{conversation}/export", "*/*") as (reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        stops_reading(writer)
        assert b"transfer-encoding: chunked" in head
        if what == "the server goes down":
            async with server.socket() as socket:
                await socket.greeted()
                server.terminate()
                assert (await socket.closed())[0] == 4503
        else:
            async with server.http() as http:
                assert (await http.delete(f"/api/conversations/{conversation}")).status_code == 204
        if what == "deleted and begun anew":
            await server.post(conversation, {"type": "run.start", "input": "anew"})
        reads_on(writer)
        body = await everything(reader)
    assert not body.endswith(END)
    got = dechunked(body).decode().splitlines()
    assert 0 < len(got) < len(frames)
    assert got[:-1] == frames[: len(got) - 1]
    assert "Traceback" not in server.errors


async def test_it_is_never_whole_in_memory(make_server: MakeServer) -> None:
    server = make_server()
    conversation, frames = await spoken(server, *HEAVY)
    assert await exported(server, conversation) == frames
    before = resident_kb(server.pid)
    lines = [asked(server, f"{conversation}/export", "*/*") for _ in range(8)]
    ends = [await one.__aenter__() for one in lines]
    try:
        for reader, writer in ends:
            await reader.readuntil(b"\r\n\r\n")
            stops_reading(writer)
        await server.get(f"/api/conversations/{conversation}")
        assert resident_kb(server.pid) - before < 40_000, "eight times the log would be far more"
    finally:
        for one in lines:
            await one.__aexit__(None, None, None)


async def test_one_that_nobody_takes_is_dropped(make_server: MakeServer) -> None:
    server = make_server(settings="[readers]\nstall_s = 1\n")
    conversation, _ = await spoken(server, *HEAVY[:4])
    async with asked(server, f"{conversation}/export", "*/*") as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        stops_reading(writer)
        await wait_for(lambda: "stalled" in server.errors)
        async with stream(server, conversation) as other:
            await other.until_type("run.completed")
    assert "Traceback" not in server.errors
