"""Bounds on what one conversation may take, and on how many are in memory."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.conftest import MakeServer
from tests.wire import fresh, terminals


async def test_more_conversations_than_may_be_in_memory_take_turns(make_server: MakeServer) -> None:
    server = make_server(settings="[conversations]\nin_memory = 3\n")
    names = [fresh() for _ in range(8)]
    for name in names:
        async with server.socket(name) as socket:
            await socket.run(f"/say I am {name}")
    for name in names:
        async with server.socket(name, from_="start") as socket:
            await socket.greeted()
            assert socket.of("run.completed")[0]["output"] == f"I am {name}"


async def test_when_all_in_memory_are_in_use_one_more_is_told_to_come_back(make_server: MakeServer) -> None:
    server = make_server(settings="[conversations]\nin_memory = 3\n")
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(server.socket(fresh())) for _ in range(3)]
        async with server.http() as http:
            answer = await http.post(f"/api/conversations/{fresh()}/commands", json={"type": "ping"})
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert answer.json()["retry_after_ms"] > 0
        async with server.socket(fresh(), subprotocols=["hermes.v1"]) as one_more:
            assert (await one_more.closed())[0] == 4529
        for socket in sockets:
            await socket.ok("ping")
    async with asyncio.timeout(10):
        while True:
            async with server.http() as http:
                answer = await http.post(f"/api/conversations/{fresh()}/commands", json={"type": "ping"})
            if answer.status_code == 200:
                break
    assert "Traceback" not in server.errors


async def test_a_log_that_is_full_takes_no_more_work_but_answers_and_stops(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[conversations]\nlog_bytes = 60000\n"), fresh()
    async with server.socket(conversation) as socket, server.socket(fresh()) as neighbour:
        await socket.ok("run.start", input="/stream 100000")
        await socket.ok("run.start", input="/say queued")
        failed = await socket.until("run.failed")
        assert failed["error"]["code"] == "storage_full"
        assert "fork" in failed["error"]["message"]
        await socket.until("run.failed")
        refused = await socket.error("run.start", input="more")
        assert (refused["code"], refused["retryable"]) == ("storage_full", True)
        assert (await socket.error("run.stop"))["code"] == "run_not_active"
        assert (await neighbour.run("hi"))["type"] == "run.completed"
    log = await server.log(conversation)
    assert set(terminals(log).values()) == {1}
    assert sum(len(str(event)) for event in log) < 200_000
    server.kill()
    server = make_server(data=server.data, settings="[conversations]\nlog_bytes = 60000\n")
    async with server.socket(conversation) as socket:
        assert (await socket.error("run.start", input="more"))["code"] == "storage_full"
        fork = await socket.ok("conversation.fork")
    async with server.socket(fork["conversation_id"]) as socket:
        assert (await socket.run("/say there is room here"))["type"] == "run.completed"
