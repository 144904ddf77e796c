"""A conversation can be deleted wholly, and its log gives back what has had its time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import MakeServer
from tests.wire import Json, Server, expect_contiguous, fresh, open_interactions, processes_with, wait_for

CANARY = "kanarienvogel-4711"


def holding(data: Path, text: str) -> list[str]:
    """Files of a data directory that have ``text`` in them or in their names."""
    files = [path for path in data.rglob("*") if path.is_file() and path.parent.name[:4] != "log-"]
    return [str(path) for path in files if text in str(path) or text.encode() in path.read_bytes()]


async def delete(server: Server, conversation: str, *, key: str | None = None) -> int:
    async with server.http(key=key) as http:
        return (await http.delete(f"/api/conversations/{conversation}")).status_code


async def test_everything_of_it_is_gone_and_its_readers_are_told(make_server: MakeServer) -> None:
    server, conversation, other = make_server(), fresh(), fresh()
    async with (
        server.socket(conversation) as one,
        server.socket(conversation, from_="now") as two,
        server.socket(other) as neighbour,
    ):
        await one.ok("conversation.configure", config={"approvals": {"mode": "auto"}, "title": CANARY})
        await neighbour.ok("run.start", input="/stream 100 5\n/say undisturbed")
        await one.ok("run.start", input=f"/run echo {CANARY} | tee kept.txt; seq 30000\n/ask {CANARY}?")
        await one.until("run.waiting")
        assert holding(server.data, CANARY)
        assert await delete(server, conversation) == 204
        assert (await one.closed())[0] == 4410
        assert (await two.closed())[0] == 4410
        assert (await neighbour.until("run.completed"))["output"] == "undisturbed"
    async with server.http() as http:
        assert (await http.delete(f"/api/conversations/{conversation}")).status_code == 404
        listed = (await http.get("/api/conversations")).json()["conversations"]
        assert [line["conversation_id"] for line in listed] == [other]
    await wait_for(lambda: not holding(server.data, CANARY))
    assert "Traceback" not in server.errors


async def test_who_waits_for_a_conversation_that_is_yet_to_begin_is_not_told_that_it_was_deleted(
    server: Server,
) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.greeted()
        assert await delete(server, conversation) == 404
        await socket.run("hi")
        expect_contiguous(socket.log)


async def test_a_run_at_work_is_ended_with_all_its_processes(server: Server) -> None:
    conversation, seconds = fresh(), f"71.{fresh()[2:8].translate(str.maketrans('abcdef', '123456'))}"
    async with server.socket(conversation) as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.ok("run.start", input=f"/run sleep {seconds}")
        await socket.until("tool.executing")
        await wait_for(lambda: processes_with(seconds, "sleep"))
        assert await delete(server, conversation) == 204
        assert (await socket.closed())[0] == 4410
    await wait_for(lambda: not processes_with(seconds, "sleep"))


async def test_the_name_can_be_used_anew_and_has_another_epoch(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.run("first", id="the-same-id")
    async with server.socket(conversation) as socket:
        before = await socket.greeted()
    assert await delete(server, conversation) == 204
    async with server.socket(conversation, after=before["head"], epoch=before["epoch"]) as socket:
        gone = await socket.greeted()
        assert (gone["head"], gone["epoch"]) == (0, None)
        answer = await socket.ok("run.start", input="second", id="the-same-id")
        assert "duplicate" not in answer
        await socket.until_final()
    log = await server.log(conversation)
    assert [event["input"] for event in log if event["type"] == "run.started"] == ["second"]
    assert log[0]["epoch"] != before["epoch"]


async def test_who_waits_for_events_is_told(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.run("hi")
        head = socket.reached
    async with server.http() as http:
        poll = asyncio.create_task(
            http.get(f"/api/conversations/{conversation}/events", params={"after": head, "wait_ms": 20_000})
        )
        await asyncio.sleep(0.1)
        assert await delete(server, conversation) == 204
        page = (await poll).json()
    assert page["events"] == []
    assert (page["epoch"], page["head"]) == (None, 0)


async def test_an_observer_deletes_nothing(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.run("hi")
    async with server.http() as http:
        for role, status in (("observer", 403), ("responder", 403), ("driver", 204)):
            asked = {"conversation": conversation, "role": role}
            ticket = (await http.post("/api/tickets", json=asked)).json()["ticket"]
            async with server.http(key="") as stranger:
                answer = await stranger.delete(f"/api/conversations/{conversation}", params={"ticket": ticket})
                assert answer.status_code == status, answer.text


async def test_commands_in_flight_are_answered_once_whatever_comes_first(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.greeted()
        for n in range(50):
            await socket.send({"type": "conversation.configure", "config": {"title": str(n)}, "id": str(n)})
        assert await delete(server, conversation) in (204, 404)
        answers: list[Json] = []
        with suppress(ConnectionClosed):
            while True:
                answers.append(await socket.recv())
    given = [frame["id"] for frame in answers if frame["type"] in ("ok", "error")]
    assert len(given) == len(set(given))
    assert "Traceback" not in server.errors


async def test_a_kill_right_after_leaves_nothing_behind(make_server: MakeServer) -> None:
    server, conversation = make_server(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run(f"/run echo {CANARY} > kept.txt; seq 30000")
    assert await delete(server, conversation) == 204
    server.kill()
    server = make_server(data=server.data, settings="[store]\nsweep_every_s = 0.1\n")
    await wait_for(lambda: not holding(server.data, CANARY))


# -- retention -------------------------------------------------------------------------------------------


async def test_deltas_are_folded_away_in_time_and_nothing_that_counts_is(make_server: MakeServer) -> None:
    settings = "[store]\nretention_s = 1\nsweep_every_s = 0.1\n[readers]\ntail_bytes = 2000\n"
    server, conversation = make_server(settings=settings), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run("/think a b c\n/stream 50\n/run seq 5\n/say end")
        whole = list(socket.log)
        await socket.ok("run.start", input="/stream 20\n/ask still going?")
        await socket.until("run.waiting")

        async def compacted() -> list[Json]:
            async with server.http() as http:
                page = (await http.get(f"/api/conversations/{conversation}/events", params={"after": 0})).json()
            return list(page["events"])

        async with asyncio.timeout(20):
            while not any(event["type"] == "skipped" for event in await compacted()):
                await asyncio.sleep(0.05)
        left = await compacted()
        assert expect_contiguous(left) == socket.reached
        assert {event["reason"] for event in left if event["type"] == "skipped"} == {"compacted"}
        deltas = ("message.delta", "reasoning.delta", "tool.output")
        ended = whole[-1]["seq"]
        kept = [event for event in left if event["type"] != "skipped"]
        assert [e for e in kept if e["seq"] <= ended] == [e for e in whole if e["type"] not in deltas]
        assert sum(e["type"] == "message.delta" for e in kept if e["seq"] > ended) > 0, "that run goes on"
        async with server.socket(conversation, from_="start") as late:
            await late.greeted()
            assert late.log == left
        asked = open_interactions(socket.log)[0]
        await socket.ok("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "yes"})
        await socket.until_final()


@pytest.mark.parametrize("running", [True, False])
async def test_gc_beside_a_server_and_without_one(make_server: MakeServer, running: bool) -> None:
    server, conversation = make_server(), fresh()
    async with server.socket(conversation) as socket:
        await socket.run("/stream 2000")
        head = socket.reached
    if not running:
        server.terminate()
        await server.exited()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "hermes_ws.cli", "gc", "--data", str(server.data), "--older-than", "0h"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "deltas of ended runs: 0 events" not in done.stdout
    if not running:
        server = make_server(data=server.data)
    log = await server.log(conversation)
    assert expect_contiguous(log) == head
    assert not any(event["type"] == "message.delta" for event in log)
    async with server.socket(conversation) as socket:
        await socket.run("/say on")
