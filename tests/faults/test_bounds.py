"""Every setting that bounds something, at its bound: what just fits, what is one too many, and what becomes of it.

What is not here has its test elsewhere: heads, slow requests, connections, sockets and the weight of pages in
``tests/server/test_limits.py``, the queue in ``tests/server/test_commands.py``, tools in ``tests/tools``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.wire import Json, Server, fresh, open_interactions

SETTINGS = """
[server]
tickets = 3
[limits]
frame_bytes = 5000
body_bytes = 3000
commands_in_flight = 4
page_events = 5
page_conversations = 2
wait_ms = 300
[sessions]
open_interactions = 2
pending_steers = 2
run_deadline_max_s = 1
config_bytes = 2000
[runs]
max_steps = 3
concurrent = 2
[tools]
preview_bytes = 1000
stream_bytes = 2000
keep_bytes = 4000
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.start(tmp_path_factory.mktemp("bounds"), settings=SETTINGS)
    yield server
    server.stop()
    assert "Traceback" not in server.errors


def padded(command: str, size: int) -> str:
    """A command of just so many bytes."""
    return command.replace("}", ',"x":"' + "x" * (size - len(command) - 7) + '"}')


async def test_a_frame_of_frame_bytes_is_taken_and_one_byte_more_is_not(small: Server) -> None:
    async with small.socket() as socket:
        await socket.greeted()
        await socket.send(padded('{"type":"ping"}', 5000))
        assert (await socket.recv())["type"] == "ok"
        await socket.send(padded('{"type":"ping"}', 5001))
        assert (await socket.recv())["code"] == "too_large"


async def test_a_body_of_body_bytes_is_taken_and_one_byte_more_is_not(small: Server) -> None:
    async with small.http() as http:
        ticket = '{"conversation":"demo"}'
        fits = await http.post("/api/tickets", content=ticket.ljust(3000))
        larger = await http.post("/api/tickets", content=ticket.ljust(3001))
        command = await http.post("/api/conversations/demo/commands", content=padded('{"type":"ping"}', 5001))
    assert fits.status_code == 201
    for refused in (larger, command):
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")


async def test_one_unanswered_command_too_many_is_overloaded(small: Server) -> None:
    """The log is held by somebody else for a moment, so that nothing is committed."""
    async with small.socket() as socket:
        await socket.greeted()
        await socket.ok("conversation.configure", config={"title": "0"})
        with closing(sqlite3.connect(small.data / "hermes-ws.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for n in range(10):
                await socket.send({"type": "conversation.configure", "config": {"title": str(n)}, "id": str(n)})
            for n in range(4, 10):
                refused = await socket.until("error")
                assert (refused["id"], refused["code"], refused["retryable"]) == (str(n), "overloaded", True)
                assert refused["retry_after_ms"] > 0
            other.execute("ROLLBACK")
        for n in range(4):
            assert (await socket.until("ok"))["id"] == str(n)
        await socket.ok("ping")


async def test_one_open_question_too_many_is_refused_to_the_agent(small: Server) -> None:
    async with small.socket() as socket:
        await socket.greeted()
        begun = await socket.ok("run.start", input="/ask a?\n/par\n/ask b?\n/par\n/ask c?")
        refused = await socket.until("tool.completed")
        assert refused["status"] == "error"
        assert "open" in refused["output"], refused
        assert len(open_interactions(socket.log)) == 2
        for asked in open_interactions(socket.log):
            await socket.reply(asked, "yes")
        assert (await socket.until_final(begun["run_id"]))["type"] == "run.completed"


async def test_one_waiting_steer_too_many_is_overloaded(small: Server) -> None:
    async with small.socket() as socket:
        await socket.greeted()
        begun = await socket.ok("run.start", input="/sleep 0.6\n/say done")
        await socket.until("step.started")
        for text in ("one", "two"):
            await socket.ok("run.steer", text=text)
        refused = await socket.error("run.steer", text="three")
        assert (refused["code"], refused["retryable"]) == ("overloaded", True)
        assert (await socket.until_final(begun["run_id"]))["type"] == "run.completed"


async def test_no_run_may_ask_for_more_time_than_the_server_gives(small: Server) -> None:
    async with small.socket() as socket:
        await socket.greeted()
        final = await socket.run("/sleep 60", deadline_ms=10**9)
        assert (final["type"], final["error"]["code"]) == ("run.failed", "deadline_exceeded")


async def test_no_conversation_may_have_more_steps_than_the_server_gives(small: Server) -> None:
    async with small.socket() as socket:
        await socket.greeted()
        assert (await socket.run("/say a\n/say b\n/say c"))["stop_reason"] == "end"
        await socket.command("conversation.configure", config={"limits": {"max_steps": 100}})
        final = await socket.run("/say a\n/say b\n/say c\n/say d")
        assert final["stop_reason"] == "max_steps"
        assert len([step for step in socket.of("step.started") if step["run_id"] == final["run_id"]]) == 3


async def test_one_run_too_many_waits_for_its_turn(small: Server) -> None:
    async with small.socket() as a, small.socket() as b, small.socket() as c:
        for socket in (a, b):
            await socket.greeted()
            await socket.ok("run.start", input="/sleep 60")
            await socket.until("step.started")
        third = await c.ok("run.start", input="/say my turn")
        await a.ok("run.stop")
        ended = await a.until_final()
        await c.until_final(third["run_id"])
        [begun] = c.of("step.started")
        assert begun["ts"] >= ended["ts"]
        assert c.of("run.completed")


async def test_an_output_is_previewed_streamed_and_kept_up_to_what_is_set(small: Server) -> None:
    conversation = fresh()
    async with small.socket(conversation) as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run("/run for i in $(seq 1000); do echo 0123456789; done")
        [ended] = socket.of("tool.completed")
        streamed = sum(len(event["chunk"]) for event in socket.of("tool.output"))
    assert ended["truncated"]
    assert len(ended["output"]) < 1_500
    assert streamed <= 2_100
    async with small.http() as http:
        path = f"/api/conversations/{conversation}/tool-calls/{ended['call_id']}/output"
        kept = await http.get(path)
    assert kept.status_code == 200
    assert 4_000 <= len(kept.content) < 4_300


async def test_one_ticket_too_many_is_refused_until_one_is_used(small: Server) -> None:
    async with small.http() as http:

        async def ask() -> tuple[int, Json]:
            answer = await http.post("/api/tickets", json={"conversation": "demo"})
            return answer.status_code, answer.json()

        granted: list[Json] = []
        for _ in range(4):
            status, body = await ask()
            if status == 201:
                granted.append(body)
        assert (status, body["code"], body["retryable"]) == (503, "overloaded", True)
        async with small.socket("demo", key="", ticket=granted[-1]["ticket"]) as socket:
            await socket.greeted()
        assert (await ask())[0] == 201
        assert (await ask())[0] == 503


async def test_pages_and_waits_are_no_longer_than_what_is_set(small: Server) -> None:
    conversation = fresh()
    async with small.socket(conversation) as socket:
        await socket.run("/say hello")
    path = f"/api/conversations/{conversation}/events"
    assert len((await small.get(path, after=0, limit=1000))["events"]) == 5
    assert (await small.get(path, after=10**9, wait_ms=10**9))["events"] == []
    for _ in range(3):
        await small.post(fresh(), {"type": "conversation.configure", "config": {"title": "x"}})
    page = await small.get("/api/conversations", limit=1000)
    assert len(page["conversations"]) == 2
    assert page["next"]


async def test_a_configuration_of_config_bytes_is_taken_and_a_larger_one_is_not(small: Server) -> None:
    async with small.socket() as socket:
        await socket.greeted()
        await socket.ok("conversation.configure", config={"instructions": "x" * 1900})
        refused = await socket.error("conversation.configure", config={"instructions": "x" * 2100})
        assert refused["code"] in ("invalid_frame", "too_large"), refused
