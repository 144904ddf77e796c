"""The log as server-sent events: what a browser's ``EventSource`` gets, and what it is worth when the line is cut."""

from __future__ import annotations

import random
import socket as sockets
from pathlib import Path
from typing import Any

import pytest

from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import ConversationConfigure, RunStart
from hermes_ws.runtime.log_cursor import LogCursor
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.transports import event_stream
from hermes_ws.transports.event_stream import LogStreams
from hermes_ws.transports.log_query import LogQuery
from hermes_ws.transports.media import preferred
from tests.conftest import MakeServer
from tests.runtime.conftest import REF, GatedStore, send, until
from tests.runtime.conftest import runtime as runtime
from tests.runtime.conftest import store as store
from tests.server.lines import Line, over
from tests.server.streams import Parser, asked, dechunked, reads_on, spoken, stops_reading, stream
from tests.wire import Server, expect_contiguous, fresh, resident_kb, soon, wait_for

EVENTS = "text/event-stream"


async def counted(server: Server, conversation: str, **query: Any) -> list[str]:
    """What a socket gets, byte for byte, up to the last event there is."""
    head = (await server.get(f"/api/conversations/{conversation}"))["head"]
    async with server.socket(conversation, **{"after": 0, **query}) as socket:
        await socket.greeted()
        if not socket.log or socket.reached < head:
            await socket.until_seq(head)
        return socket.counted()


# -- what is in it -----------------------------------------------------------------------------------------


async def test_each_frame_of_the_socket_is_a_message_byte_for_byte_with_its_number_for_an_id(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket, stream(server, conversation) as live:
        await socket.greeted()
        final = await socket.run("/think hm\n/stream 2000\n/tool list_files {}\n/say größer\\n")
        await live.until_seq(final["seq"])
    assert live.data == socket.counted()
    assert [int(message.id) for message in live.messages] == [frame["seq"] for frame in socket.log]
    async with stream(server, conversation, after=0) as late:
        await late.until_seq(final["seq"])
    assert late.data == socket.counted()


async def test_the_answer_is_one_that_browsers_and_proxies_pass_on_as_it_comes(server: Server) -> None:
    async with stream(server, fresh()) as waiting:
        await waiting.until(lambda: waiting.retry is not None)
        assert waiting.retry == 1_000
        headers = waiting.answer.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "Accept" in headers["vary"]


async def test_a_conversation_that_is_yet_to_begin_is_waited_for(server: Server) -> None:
    conversation = fresh()
    async with stream(server, conversation) as waiting:
        await waiting.until(lambda: waiting.retry is not None)
        await server.post(conversation, {"type": "run.start", "input": "hi"})
        await waiting.until_type("run.completed")
    assert waiting.frames == await server.log(conversation)


async def test_what_is_excluded_is_told_before_the_next_event(server: Server) -> None:
    conversation = await spoken(server, "/stream 50 1", "/stream 50 1")
    left_out = "message.delta,run.started"
    frames = await counted(server, conversation, exclude=left_out)
    async with stream(server, conversation, exclude=left_out) as some:
        await some.until(lambda: len(some.messages) == len(frames))
    assert some.data == frames
    assert all(m.id == str(m.frame.get("seq", m.frame.get("to"))) for m in some.messages)


async def test_silence_is_broken_by_a_comment_and_tells_what_was_left_out(make_server: MakeServer) -> None:
    server = make_server(settings="[readers]\nheartbeat_s = 0.3\n")
    conversation = await spoken(server)
    head = (await server.get(f"/api/conversations/{conversation}"))["head"]
    async with stream(server, conversation, after=head, exclude="conversation.configured") as quiet:
        await quiet.until(lambda: len(quiet.comments) >= 2)
        assert quiet.messages == []
        await server.post(conversation, {"type": "conversation.configure", "config": {"title": "x"}})
        await quiet.until_seq(head + 1)
        assert quiet.frames == [{"type": "skipped", "from": head + 1, "to": head + 1, "reason": "filtered"}]
        count = len(quiet.comments)
        await quiet.until(lambda: len(quiet.comments) > count)


async def test_silence_is_broken_although_much_happens_that_is_left_out(make_server: MakeServer) -> None:
    server = make_server(settings="[readers]\nheartbeat_s = 0.3\n")
    conversation = await spoken(server)
    left_out = "run.started,step.started,message.started,message.delta"
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 100000 5")
        async with stream(server, conversation, exclude=left_out) as quiet:
            await quiet.until(lambda: len(quiet.comments) >= 3)
            assert expect_contiguous(quiet.frames) > 100
        await socket.ok("run.stop")
        await socket.until_final()


# -- where it begins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "params", "first"),
    [
        (None, {}, 1),
        (None, {"after": 3}, 4),
        ("5", {"after": 3}, 6),
        ("2", {"after": 9}, 3),
        ("", {"after": 3}, 4),
        ("0", {"after": 3}, 1),
        ("5", {"epoch": "E"}, 6),
        ("5", {"epoch": "ep_another"}, 1),
        ("1000000", {}, 1),
        (None, {"after": 10**9}, 1),
    ],
)
async def test_it_begins_after_what_was_seen_or_at_the_start_of_another_log(
    server: Server, last: str | None, params: dict[str, Any], first: int
) -> None:
    conversation = await spoken(server)
    log = await server.log(conversation)
    epoch = {"epoch": log[0]["epoch"]} if params.get("epoch") == "E" else {}
    async with stream(server, conversation, last=last, **{**params, **epoch}) as some:
        await some.until_seq(len(log))
    assert some.frames == log[first - 1 :]


@pytest.mark.parametrize(
    ("params", "headers", "named"),
    [
        ({"after": "x"}, {}, "after"),
        ({}, {"last-event-id": "5x"}, "Last-Event-ID"),
        ({}, {"last-event-id": "-1"}, "Last-Event-ID"),
        ({"exclude": "message.dleta"}, {}, "exclude"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_status(
    server: Server, params: dict[str, str], headers: dict[str, str], named: str
) -> None:
    async with server.http(headers={"accept": EVENTS, **headers}) as http:
        answer = await http.get("/api/conversations/demo/events", params=params)
    assert answer.status_code == 400
    assert named in answer.json()["message"]


async def test_whoever_is_cut_at_any_byte_and_comes_back_misses_nothing_and_gets_nothing_twice(server: Server) -> None:
    conversation = await spoken(server, "/think hm\n/stream 20\n/say größer")
    frames = await counted(server, conversation)
    whole = len("".join(frames)) + 40 * len(frames)
    for seed in range(25):
        chance, got, last = random.Random(seed), Parser(), ""
        while len(got.messages) < len(frames):
            async with asked(server, f"{conversation}/events", EVENTS, f"Last-Event-ID: {last}") as (reader, writer):
                await reader.readuntil(b"\r\n\r\n")
                seen, most = Parser(), chance.randrange(1, whole)
                raw = bytearray()
                while len(raw) < most and len(got.messages) + len(seen.messages) < len(frames):
                    async with soon():
                        raw += await reader.read(most - len(raw))
                    seen = Parser()
                    seen.feed(dechunked(bytes(raw)))
                writer.transport.abort()
            got.messages += seen.messages
            last = got.last
        assert got.data == frames, seed


# -- where it ends -----------------------------------------------------------------------------------------


async def test_it_ends_when_the_conversation_is_deleted_and_a_return_finds_the_next_from_the_start(
    server: Server,
) -> None:
    conversation = await spoken(server)
    before = await server.log(conversation)
    async with stream(server, conversation) as some, server.http() as http:
        await some.until_seq(len(before))
        assert (await http.delete(f"/api/conversations/{conversation}")).status_code == 204
        await server.post(conversation, {"type": "run.start", "input": "anew"})
        await some.until_over()
    assert some.frames == before
    assert some.comments == ["the conversation was deleted"]
    async with stream(server, conversation, last=some.last, epoch=before[0]["epoch"]) as again:
        await again.until_type("run.completed")
    assert again.frames == await server.log(conversation)
    assert again.frames[0]["epoch"] != before[0]["epoch"]


async def test_whoever_comes_back_after_a_deletion_gets_the_next_log_whole_although_it_is_longer_by_then(
    server: Server,
) -> None:
    """A browser comes back to the same address, which names no epoch."""
    conversation = await spoken(server)
    before = await server.log(conversation)
    async with stream(server, conversation) as some, server.http() as http:
        await some.until_seq(len(before))
        assert (await http.delete(f"/api/conversations/{conversation}")).status_code == 204
        await some.until_over()
    assert (some.last, some.frames) == ("0", before)
    async with server.socket(conversation) as socket:
        for _ in range(2):
            await socket.run("anew")
    after = await server.log(conversation)
    assert len(after) > len(before)
    async with stream(server, conversation, last=some.last) as again:
        await again.until_seq(len(after))
    assert again.frames == after


async def test_it_ends_when_the_server_goes_down_and_goes_on_with_the_next(
    make_server: MakeServer, tmp_path: Path
) -> None:
    settings = "[server]\nreconnect_after_ms = 250\ndrain_grace_s = 0.2\n"
    server = make_server(data=tmp_path / "d", settings=settings)
    conversation = await spoken(server)
    await server.post(conversation, {"type": "run.start", "input": "/ask Well?\n/say so"})
    async with stream(server, conversation) as some:
        question = await some.until_type("interaction.requested")
        assert some.retry == 250
        server.terminate()
        await some.until_over()
    assert some.comments == ["the server is going down; come back"]
    async with soon():
        assert await server.exited() == 0
    assert "Traceback" not in server.errors
    server = make_server(data=tmp_path / "d")
    async with stream(server, conversation, last=some.last, after=0) as again:
        answer = {question["questions"][0]["id"]: "yes"}
        reply = {"type": "interaction.reply", "interaction_id": question["interaction_id"], "answers": answer}
        await server.post(conversation, reply)
        await again.until_type("run.completed")
    assert some.frames + again.frames == await server.log(conversation)


async def test_after_a_kill_it_goes_on_where_it_was(make_server: MakeServer, tmp_path: Path) -> None:
    got: list[str] = []
    conversation = fresh()
    server = make_server(data=tmp_path / "d")
    await server.post(conversation, {"type": "run.start", "input": "/stream 1000 1\n/say over"})
    last = ""
    for kill_at in (100, 200, None):
        async with stream(server, conversation, last=last) as some:
            if kill_at is None:
                await some.until_type("run.completed")
            else:
                await some.until(lambda: len(some.messages) >= kill_at)  # noqa: B023 - awaited at once
                server.kill()
        got += some.data
        last = some.last
        if kill_at is not None:
            server = make_server(data=tmp_path / "d")
    frames = await counted(server, conversation)
    assert got == frames
    assert sum('"type":"run.recovered"' in frame for frame in got) == 2


async def test_one_that_is_asked_for_while_the_server_goes_down_says_so_and_is_not_refused(runtime: Runtime) -> None:
    conversation = await runtime.open(REF)
    await send(runtime, conversation, RunStart(input="/ask Well?"))
    during, after = Line(), Line()
    runtime.draining = True
    task = during.answer(_streams(runtime).answer(conversation, _query(), {}))
    await until(lambda: b'"type":"run.waiting"' in during.body)
    await runtime.drain(0, 1_000)
    await over(task)
    await _streams(runtime).answer(conversation, _query(), {})(after.scope, after.receive, after.send)
    for line in (during, after):
        parser = Parser()
        parser.feed(line.body)
        assert line.complete
        assert (parser.retry, parser.comments) == (1_000, ["the server is going down; come back"])
    assert parser.messages == []


async def test_a_failed_commit_does_not_end_it(runtime: Runtime, store: GatedStore) -> None:
    conversation, line = await runtime.open(REF), Line()
    await send(runtime, conversation, ConversationConfigure(config={"title": "one"}))
    task = line.answer(_streams(runtime).answer(conversation, _query(), {}))
    await until(lambda: b'"title":"one"' in line.body)
    store.failing = True
    with pytest.raises(CommandError):
        await send(runtime, conversation, ConversationConfigure(config={"title": "lost"}))
    store.failing = False
    again = await runtime.open(REF)
    assert again is not conversation
    await send(runtime, again, ConversationConfigure(config={"title": "two"}))
    await until(lambda: b'"title":"two"' in line.body)
    assert b"lost" not in line.body
    assert again.is_followed()
    line.goes()
    await over(task)
    assert not again.is_followed()
    parser = Parser()
    parser.feed(line.body)
    assert [message.id for message in parser.messages] == ["1", "2", "3"]


# -- many, slow, far behind --------------------------------------------------------------------------------


def _streams(runtime: Runtime) -> LogStreams:
    return LogStreams(runtime, 1_000)


def _query(after: int = 0) -> LogQuery:
    return LogQuery(after=after, seen=after, epoch=None, exclude=frozenset(), limit=1_000, wait_s=0)


async def test_what_many_get_at_once_is_made_once(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    message = event_stream._message

    def counting(frame: bytes) -> bytes:
        made.append(frame)
        return message(frame)

    monkeypatch.setattr(event_stream, "_message", counting)
    conversation, streams = await runtime.open(REF), _streams(runtime)
    await send(runtime, conversation, ConversationConfigure(config={"title": "one"}))
    lines = [Line() for _ in range(20)]
    tasks = [line.answer(streams.answer(conversation, _query(), {})) for line in lines]
    await until(lambda: all(b'"title":"one"' in line.body for line in lines))
    await send(runtime, conversation, RunStart(input="/say hello"))
    await until(lambda: all(b'"type":"run.completed"' in line.body for line in lines))
    assert len({line.body for line in lines}) == 1
    assert len(made) == conversation.committed
    for line in lines:
        line.goes()
    for task in tasks:
        await over(task)


async def test_a_stream_that_is_behind_the_memory_is_paged_from_the_store(runtime: Runtime, store: GatedStore) -> None:
    conversation = await runtime.open(REF)
    for n in range(30):
        await send(runtime, conversation, ConversationConfigure(config={"title": f"{n}" + "x" * 70_000}))
    assert conversation.tail.first > 2
    reads, cursor, frames = store.reads, LogCursor(0), list[bytes]()
    while cursor.at < conversation.committed:
        chunk = await cursor.next(conversation, conversation.committed, limit=5, max_bytes=100_000)
        assert chunk is not None
        assert len(chunk.joined) < 180_000
        frames += chunk.frames
    assert len(frames) == conversation.committed
    assert store.reads - reads >= 3
    assert len(conversation.tail._frames) < conversation.committed


async def test_one_that_takes_nothing_is_dropped_and_costs_nobody_anything(make_server: MakeServer) -> None:
    server = make_server(settings="[readers]\nstall_s = 1.5\n")
    conversation = fresh()
    async with server.socket(conversation) as socket, asked(server, f"{conversation}/events", EVENTS) as (_, writer):
        writer.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        stops_reading(writer)
        await socket.greeted()
        async with stream(server, conversation) as other:
            for _ in range(4):
                final = await socket.run("\n".join(["/say " + "x" * 100_000] * 8))
                await other.until_seq(final["seq"])
            assert other.data == socket.counted()
            await wait_for(lambda: "stream.stalled" in server.errors or "response.stalled" in server.errors)
        await socket.ok("ping")
    assert "Traceback" not in server.errors


async def test_readers_far_behind_hold_a_piece_of_the_log_each_and_not_the_whole(make_server: MakeServer) -> None:
    server = make_server()
    conversation = await spoken(server, *["\n".join(["/say " + "x" * 200_000] * 5)] * 16)
    frames = await counted(server, conversation)
    assert sum(map(len, frames)) > 16_000_000
    async with stream(server, conversation) as warm:
        await warm.until_seq(len(frames))
    before = resident_kb(server.pid)
    lines = [asked(server, f"{conversation}/events", EVENTS) for _ in range(10)]
    ends = [await one.__aenter__() for one in lines]
    try:
        for reader, writer in ends:
            await reader.readuntil(b"\r\n\r\n")
            stops_reading(writer)
        await server.get(f"/api/conversations/{conversation}")
        assert resident_kb(server.pid) - before < 40_000, "ten times the log would be far more"
        for reader, writer in ends[:2]:
            reads_on(writer)
            got = Parser()
            body = bytearray()
            async with soon(30):
                while b"id: %d\n" % len(frames) not in body[-400_000:]:
                    body += await reader.read(1 << 20)
                while not body.endswith(b"\n\n\r\n"):
                    body += await reader.read(1 << 20)
            got.feed(dechunked(bytes(body)))
            assert got.data == frames
    finally:
        for one in lines:
            await one.__aexit__(None, None, None)


# -- who may, and how --------------------------------------------------------------------------------------


async def test_a_ticket_opens_one_stream_once(server: Server) -> None:
    conversation = await spoken(server)
    async with server.http() as http:
        asked_for = {"conversation": conversation, "role": "observer"}
        ticket = (await http.post("/api/tickets", json=asked_for)).json()["ticket"]
    async with stream(server, conversation, key="", ticket=ticket) as some:
        await some.until_type("run.completed")
    async with server.http(key="", headers={"accept": EVENTS}) as stranger:
        path = f"/api/conversations/{conversation}/events"
        assert (await stranger.get(path, params={"ticket": ticket})).status_code == 401
        assert (await stranger.get(path)).status_code == 401


async def test_head_is_answered_without_a_body_and_at_once(server: Server) -> None:
    async with server.http(headers={"accept": EVENTS}) as http, soon(5):
        answer = await http.head(f"/api/conversations/{fresh()}/events")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith(EVENTS)


JSON, LINES = "application/json", "application/jsonl"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/html", JSON),
        (EVENTS, EVENTS),
        ("Text/Event-Stream", EVENTS),
        ("text/*", EVENTS),
        ("text/event-stream, */*", EVENTS),
        ("*/*, text/event-stream", EVENTS),
        ("text/event-stream, application/json", EVENTS),
        ("application/json, text/event-stream", JSON),
        ("application/json;q=0.5, text/event-stream;q=0.4", JSON),
        ("application/json; q=0.1, text/event-stream; charset=utf-8; q=0.9", EVENTS),
        ("text/event-stream;q=0, */*", JSON),
        ("application/json;q=0, */*;q=0.1", EVENTS),
        (LINES, LINES),
        ("application/jsonl;q=nonsense", LINES),
        (",,;;/,text/event-stream,", EVENTS),
    ],
)
async def test_the_form_is_the_one_that_accept_prefers(accept: str, wanted: str) -> None:
    assert preferred(accept, (JSON, EVENTS, LINES)) == wanted


async def test_what_accept_does_not_name_is_a_page(server: Server) -> None:
    for accept, wanted in (("image/png", JSON), (f"{JSON};q=0.2, {EVENTS};q=0.1", JSON), (LINES, LINES)):
        async with server.http(headers={"accept": accept}) as http:
            answer = await http.get(f"/api/conversations/{fresh()}/events")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == wanted
