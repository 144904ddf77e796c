"""Reading a conversation: from the start, from a snapshot, from now, from where one was; filters; slow readers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket as sockets
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.wire import Json, Server, Socket, expect_contiguous, fresh, resident_kb, soon, terminals, wait_for


async def spoken(server: Server, script: str = "hello") -> tuple[str, list[Json]]:
    """A conversation with one finished run, and its log."""
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.run(script)
    return conversation, await server.log(conversation)


def without_ts(frame: Json) -> Json:
    return {name: value for name, value in frame.items() if name != "ts"}


# -- hello -----------------------------------------------------------------------------------------------


async def test_hello_comes_first_and_says_where_things_are(server: Server) -> None:
    conversation, log = await spoken(server)
    async with server.socket(conversation, from_="start") as socket:
        hello = await socket.recv()
        assert hello["type"] == "hello"
        assert hello["protocol"] == "hermes.v1"
        assert set(hello["server"]) == {"name", "version", "instance"}
        assert hello["conversation_id"] == conversation
        assert hello["epoch"] == log[0]["epoch"]
        assert (hello["head"], hello["floor"]) == (len(log), 1)
        assert hello["resume"] == {"mode": "replay", "from": 1, "to": len(log)}
        assert hello["role"]
        assert hello["principal"]
        assert hello["limits"]
        assert "\n" not in hello["hint"]
        async with server.http(key="") as http:
            schema = await http.get(hello["schema"]["url"])
        assert hashlib.sha256(schema.content).hexdigest() == hello["schema"]["sha256"]
        live = await socket.until("live")
        assert live["at"] == hello["head"]
    assert socket.log == log


async def test_new_lets_the_server_choose_an_id(server: Server) -> None:
    async with server.socket("new") as one, server.socket("new") as two:
        chosen = (await one.greeted())["conversation_id"]
        assert chosen != (await two.greeted())["conversation_id"]
        await one.run("hi")
    assert (await server.log(chosen))[0]["conversation_id"] == chosen


async def test_a_conversation_comes_into_being_with_its_first_command_for_all_who_wait(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation, after=0, epoch="whatever") as one, server.socket(conversation) as two:
        hello = await one.greeted()
        assert (hello["epoch"], hello["head"], hello["resume"]["mode"]) == (None, 0, "replay")
        await two.greeted()
        await two.ok("conversation.configure", config={"title": "here"})
        await one.until("conversation.configured")
    assert [event["type"] for event in one.log] == ["conversation.created", "conversation.configured"]


# -- where to go on --------------------------------------------------------------------------------------


async def test_after_replays_what_follows_and_then_is_live(server: Server) -> None:
    conversation, log = await spoken(server)
    for after in (0, 1, 5, len(log) - 1, len(log)):
        async with server.socket(conversation, after=after) as socket:
            hello = await socket.greeted()
            assert hello["resume"] == {"mode": "replay", "from": after + 1, "to": len(log)}
            assert socket.log == log[after:]


async def test_a_snapshot_is_the_default_and_stands_for_everything_before(server: Server) -> None:
    conversation, log = await spoken(server, "/think hm\n/tool list_files {}\n/say hello")
    async with server.socket(conversation) as socket:
        hello = await socket.recv()
        assert hello["resume"] == {"mode": "snapshot", "from": 1, "to": len(log)}
        snapshot = await socket.recv()
        assert snapshot["type"] == "snapshot"
        assert snapshot["at"] == hello["head"]
        assert (await socket.recv()) == {"type": "live", "at": len(log)}
        assert [item["type"] for item in snapshot["items"]] == ["message", "reasoning", "tool_call", "message"]
        assert snapshot["run"] is None
        assert snapshot["queue"] == snapshot["interactions"] == []
        await socket.run("more")
        assert expect_contiguous(socket.log, after=len(log)) > len(log)


async def test_a_snapshot_in_the_middle_of_a_message_has_its_partial_text(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 3000 1")
        while len(socket.of("message.delta")) < 50:
            await socket.recv()
        for _ in range(5):
            async with server.socket(conversation) as late:
                await late.recv()
                snapshot = await late.until("snapshot")
                partial = next(item for item in snapshot["items"] if item.get("status") == "in_progress")
                await late.until("message.delta")
                await socket.until_seq(snapshot["at"])
                text = "".join(e["delta"] for e in socket.of("message.delta") if e["seq"] <= snapshot["at"])
                assert partial["text"] == text
                assert late.log[0]["seq"] == snapshot["at"] + 1
        await socket.ok("run.stop")
        await socket.until_final()


async def test_now_delivers_only_what_is_new(server: Server) -> None:
    conversation, log = await spoken(server)
    async with server.socket(conversation, from_="now") as socket:
        hello = await socket.recv()
        assert hello["resume"] == {"mode": "live", "from": len(log) + 1, "to": len(log)}
        assert (await socket.recv())["type"] == "live"
        await socket.run("more")
        assert socket.log[0]["seq"] == len(log) + 1


async def test_a_client_that_is_ahead_gets_a_snapshot(server: Server) -> None:
    conversation, log = await spoken(server)
    async with server.socket(conversation, after=len(log) + 1) as socket:
        hello = await socket.recv()
        assert hello["resume"] == {"mode": "snapshot", "from": 1, "to": len(log), "reason": "ahead"}
        assert (await socket.recv())["type"] == "snapshot"


async def test_a_changed_epoch_means_a_snapshot(server: Server) -> None:
    conversation, log = await spoken(server)
    async with server.socket(conversation, after=3, epoch="other") as socket:
        hello = await socket.recv()
        assert (hello["resume"]["mode"], hello["resume"]["reason"]) == ("snapshot", "epoch_changed")
    async with server.socket(conversation, after=3, epoch=log[0]["epoch"]) as socket:
        assert (await socket.recv())["resume"]["mode"] == "replay"


async def test_after_wins_over_from(server: Server) -> None:
    conversation, log = await spoken(server)
    async with server.socket(conversation, after=2, from_="now") as socket:
        await socket.greeted()
        assert socket.log == log[2:]


async def test_a_client_connects_in_the_middle_of_a_run_and_misses_nothing(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as first:
        await first.ok("run.start", input="/stream 1500 1")
        joined: list[Socket] = []

        async def join(after: float) -> None:
            await asyncio.sleep(after)
            async with server.socket(conversation, from_="start") as socket:
                await socket.until_final()
                joined.append(socket)

        await asyncio.gather(first.until_final(), *(join(n * 0.15) for n in range(8)))
    for socket in joined:
        assert socket.log == first.log


# -- filters ---------------------------------------------------------------------------------------------


async def test_an_excluded_type_is_skipped_in_ranges_before_the_next_event_and_before_live(server: Server) -> None:
    conversation, log = await spoken(server, "/say a b c d e f\n/say g h")
    excluded = {"message.delta", "run.completed", "step.completed", "message.completed"}
    async with server.socket(conversation, after=0, exclude=",".join(excluded)) as socket:
        hello = await socket.greeted()
    assert expect_contiguous(socket.log) == hello["head"]
    assert not {frame["type"] for frame in socket.log} & excluded
    assert socket.log[-1]["type"] == "skipped"
    assert {frame["reason"] for frame in socket.log if frame["type"] == "skipped"} == {"filtered"}
    assert [f for f in socket.log if f["type"] != "skipped"] == [e for e in log if e["type"] not in excluded]
    for one, two in zip(socket.log, socket.log[1:], strict=False):
        assert (one["type"], two["type"]) != ("skipped", "skipped")


async def test_everything_may_be_excluded_and_the_heartbeat_accounts_for_it(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[readers]\nheartbeat_s = 0.4\n"), fresh()
    async with server.socket(conversation) as driver:
        await driver.ok("conversation.configure", config={"title": "x"})
        every = "run.started,step.started,message.started,message.delta,message.completed,step.completed,run.completed"
        async with server.socket(conversation, after=0, exclude=every) as socket:
            await socket.greeted()
            assert [frame["type"] for frame in socket.log] == ["conversation.created", "conversation.configured"]
            final = await driver.run("hello")
            heartbeat = await socket.until("heartbeat", head=final["seq"])
            assert heartbeat["ts"] > 1_600_000_000_000
            assert socket.log[-1] == {"type": "skipped", "from": 3, "to": final["seq"], "reason": "filtered"}


async def test_a_heartbeat_comes_only_after_silence(make_server: MakeServer) -> None:
    server = make_server(settings="[readers]\nheartbeat_s = 0.5\n")
    async with server.socket() as socket:
        await socket.greeted()
        assert (await socket.until("heartbeat"))["head"] == 0
        await socket.ok("run.start", input="/stream 200 10")
        await socket.until_final()
        beats = [frame for frame in map(json.loads, socket.raw) if frame["type"] == "heartbeat"]
    assert len(beats) <= 2


# -- slow readers ----------------------------------------------------------------------------------------


def stalled_line(server: Server, conversation: str, *, buffer: int = 4096) -> sockets.socket:
    """A socket that is upgraded and then never read from."""
    line = sockets.socket()
    line.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, buffer)
    line.settimeout(10)
    line.connect(("127.0.0.1", server.port))
    line.sendall(
        f"GET /ws/{conversation}?after=0 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Authorization: Bearer {server.key}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return line


async def test_a_reader_that_takes_nothing_is_aborted_and_harms_nobody(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[readers]\nstall_s = 1.0\n"), fresh()
    async with server.socket(conversation) as socket:
        await socket.greeted()
        unloaded = len(open_files(server))
        lines = [await asyncio.to_thread(stalled_line, server, conversation) for _ in range(20)]
        await wait_for(lambda: len(open_files(server)) >= unloaded + 20)
        before = resident_kb(server.pid)
        for _ in range(30):
            final = await socket.run("/say " + "x" * 50_000)
        assert expect_contiguous(socket.log) == final["seq"]
        assert resident_kb(server.pid) - before < 60_000
        await wait_for(lambda: len(open_files(server)) <= unloaded + 2, timeout_s=6)
        await asyncio.to_thread(_gone, lines)
        assert (await socket.ok("ping"))["head"] == final["seq"]
    async with server.socket(conversation, after=0) as again:
        await again.greeted()
        assert expect_contiguous(again.log) == final["seq"]


def open_files(server: Server) -> list[str]:
    return [file.name for file in Path(f"/proc/{server.pid}/fd").iterdir()]


def _gone(lines: list[sockets.socket]) -> None:
    """Read what is left in each; an aborted one ends before the log does."""
    for line in lines:
        received = bytearray()
        with line, suppress(ConnectionResetError):
            while data := line.recv(65_536):
                received += data
        assert received.count(b'"type":"run.completed"') < 30


async def test_a_slow_reader_falls_behind_and_catches_up_with_everything(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as driver, server.socket(conversation, after=0) as slow:
        await slow.greeted()
        slow.connection.transport.pause_reading()
        final = await driver.run("/stream 60000\n/say " + "x" * 200_000)
        assert not slow.of("run.completed")
        slow.connection.transport.resume_reading()
        await slow.until_final(timeout_s=30)
    assert slow.log == driver.log
    assert slow.reached == final["seq"]


async def test_a_client_that_sends_without_reading_its_answers_is_held_not_buffered(make_server: MakeServer) -> None:
    server = make_server(settings="[readers]\nstall_s = 2.0\n")
    conversation = fresh()
    async with server.socket(conversation) as other:
        line = await asyncio.to_thread(stalled_line, server, conversation)
        before = resident_kb(server.pid)
        payload = b'{"type":"help"}'
        frame = bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload

        def flood() -> int:
            sent = 0
            line.settimeout(0.5)
            with suppress(OSError):
                for _ in range(200_000):
                    line.sendall(frame)
                    sent += 1
            return sent

        sent = await asyncio.to_thread(flood)
        assert sent < 200_000
        assert resident_kb(server.pid) - before < 40_000
        final = await other.run("hello")
        assert final["type"] == "run.completed"
        line.close()


async def test_a_page_of_a_long_log_is_replayed_whole(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as driver:
        final = await driver.run("/stream 12000")
    async with server.socket(conversation, after=0, exclude="tool.output") as socket, soon(20):
        await socket.greeted()
    assert expect_contiguous(socket.log) == final["seq"]
    assert socket.log == driver.log


_TINY = """
[readers]
tail_bytes = 3000
page_events = 7
chunk_bytes = 600
write_buffer_bytes = 1000
[conversations]
delta_bytes = 50
"""


async def test_readers_that_must_read_the_store_see_what_those_in_the_tail_see(make_server: MakeServer) -> None:
    server, conversation = make_server(settings=_TINY), fresh()

    async def follow(every: int, exclude: str) -> list[Json]:
        seen: list[Json] = []
        after = 0
        while not any(frame["type"] == "run.completed" for frame in seen[-3:]):
            async with server.socket(conversation, after=after, exclude=exclude) as socket, soon():
                while len(socket.log) < every and not socket.of("run.completed"):
                    await socket.recv()
                socket.abort()
            seen += socket.log
            after = expect_contiguous(socket.log, after=after)
        return seen

    async with server.socket(conversation, from_="start") as live:
        await live.ok("run.start", input="/stream 1500 1\n/think " + "hm " * 300 + "\n/say " + "x " * 300)
        ways = ((1000, ""), (61, ""), (17, "message.delta"), (3, "message.delta,reasoning.delta"))
        followers = [asyncio.create_task(follow(*way)) for way in ways]
        await live.until_final()
        seen = await asyncio.gather(*followers)
    assert seen[0] == seen[1] == live.log
    for frames, (_, exclude) in zip(seen, ways, strict=True):
        left_out = set(exclude.split(","))
        assert [f for f in frames if f["type"] != "skipped"] == [f for f in live.log if f["type"] not in left_out]


# -- HTTP ------------------------------------------------------------------------------------------------


async def test_events_over_http_come_in_pages_that_go_on_where_the_last_ended(server: Server) -> None:
    conversation, log = await spoken(server, "/stream 50 1")
    events: list[Json] = []
    after = 0
    while True:
        page = await server.get(f"/api/conversations/{conversation}/events", after=after, limit=7)
        assert set(page) == {"epoch", "head", "floor", "events", "next", "at_head"}
        assert len(page["events"]) <= 7
        events += page["events"]
        after = page["next"]
        if page["at_head"]:
            break
    assert events == log
    assert page["epoch"] == log[0]["epoch"]
    assert (await server.get(f"/api/conversations/{conversation}/events", after=after))["events"] == []
    huge = await server.get(f"/api/conversations/{conversation}/events", limit=10**9)
    assert len(huge["events"]) <= 1000
    beyond = await server.get(f"/api/conversations/{conversation}/events", after=10**6)
    assert beyond["events"] == []
    assert beyond["next"] <= beyond["head"]


async def test_wait_ms_returns_as_soon_as_there_is_something(server: Server) -> None:
    conversation, log = await spoken(server)
    path = f"/api/conversations/{conversation}/events"
    waiting = asyncio.create_task(server.get(path, after=len(log), wait_ms=10_000))
    await asyncio.sleep(0.1)
    await server.post(conversation, {"type": "conversation.configure", "config": {"title": "t"}})
    async with soon(2):
        page = await waiting
    assert [event["type"] for event in page["events"]] == ["conversation.configured"]
    async with soon(2):
        empty = await server.get(path, after=len(log) + 1, wait_ms=200)
    assert empty["events"] == []
    assert empty["at_head"] is True


@pytest.mark.parametrize("query", ["after=x", "limit=-1", "wait_ms=1.5", "after=%D9%A1"])
async def test_a_parameter_over_http_that_cannot_be_read_is_400(server: Server, query: str) -> None:
    async with server.http() as http:
        answer = await http.get(f"/api/conversations/demo/events?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["message"]


async def test_conversations_are_listed_newest_first_with_what_is_open(server: Server) -> None:
    first, _ = await spoken(server)
    second = fresh()
    async with server.socket(second) as socket:
        await socket.ok("conversation.configure", config={"title": "Second"})
        await socket.ok("run.start", input="/ask Well?")
        asked = await socket.asked()
        await socket.until("run.waiting")
        listed = (await server.get("/api/conversations"))["conversations"]
        ids = [line["conversation_id"] for line in listed]
        assert ids.index(second) < ids.index(first)
        line = listed[ids.index(second)]
        assert (line["title"], line["status"], line["queue"]) == ("Second", "waiting", 0)
        assert line["interactions"] == [asked]
        assert line["head"] == socket.reached
        await socket.reply(asked, "ok")
        await socket.until_final()
    done = listed[ids.index(first)]
    assert (done["status"], done["title"]) == ("idle", "hello")
    pages: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await server.get("/api/conversations", limit=1, **cursor)
        pages += [line["conversation_id"] for line in page["conversations"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert len(pages) == len(set(pages)) >= 2


async def test_http_answers_of_commands_are_the_sockets(server: Server) -> None:
    conversation = fresh()
    path = f"/api/conversations/{conversation}/commands"
    async with server.http() as http:
        cases: list[tuple[bytes, int, str | None]] = [
            (b'{"type":"ping","id":"p"}', 200, None),
            (b"{", 400, "invalid_json"),
            (b"\xff", 400, "invalid_json"),
            (b'{"type":"pong"}', 400, "unknown_type"),
            (b'{"type":"run.start"}', 400, "invalid_frame"),
            (b'{"type":"run.stop"}', 409, "run_not_active"),
            (b'{"type":"run.stop","run_id":"run_x"}', 404, "run_not_found"),
            (b'{"type":"run.retry","run_id":"run_x"}', 404, "run_not_found"),
        ]
        for body, status, code in cases:
            answer = await http.post(path, content=body)
            assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
            assert answer.json()["type"] == ("ok" if code is None else "error")
        assert (await http.get(path)).status_code == 405
        assert (await http.post(path, content=b'{"type":"ping","x":"' + b"x" * 11_000_000 + b'"}')).status_code == 413
        chosen = (await http.post("/api/conversations/new/commands", json={"type": "run.start", "input": "hi"})).json()
        assert len(terminals(await server.log(chosen["conversation_id"]))) >= 1
        missing = await http.get("/api/nothing")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_a_frame_that_is_too_large_is_refused_and_the_socket_stays(server: Server) -> None:
    async with server.socket() as socket:
        hello = await socket.greeted()
        limit = hello["limits"]["frame_bytes"]
        await socket.send(json.dumps({"type": "run.start", "input": "x" * limit}))
        error = await socket.until("error")
        assert error["code"] == "too_large"
        assert (await socket.ok("ping"))["head"] == 0


async def test_schemas_are_served_as_they_are_kept(server: Server) -> None:
    async with server.http(key="") as http:
        for name in ("hermes.v1.schema.json", "asyncapi.json", "frames.d.ts", "reference.md"):
            answer = await http.get(f"/schemas/{name}")
            assert answer.status_code in (200, 404), name
        assert (await http.get("/schemas/nothing.json")).status_code == 404
