"""What a run and its conversation were told before the crash still holds after it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import AUTO, Crashing, command, died, finished, have, of, one, until_dead
from tests.wire import Json, Server, fresh, open_interactions

PREVIEW = 32_768
"""``tools.preview_bytes``: how much of an output an event has."""


@pytest.fixture
def crashing(make_server: MakeServer) -> Crashing:
    return Crashing(make_server)


async def at_work(server: Server, conversation: str, script: str, **options: object) -> None:
    """A run that is in its first step."""
    async with server.socket(conversation, after=0) as socket:
        await socket.ok("run.start", input=script, **options)
        await have(socket, "step.started")


async def test_a_run_has_no_more_tools_than_it_was_started_with(crashing: Crashing, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    server, conversation = crashing.start(), fresh()
    await server.post(conversation, AUTO)
    script = f"/sleep 0.3\n/run echo mark >> {marks}\n/say well"
    await at_work(server, conversation, script, tools={"deny": ["terminal"]})
    await server.post(conversation, command("run.start", input=script, tools={"allow": ["list_files"]}))
    server.kill()
    log = await finished(crashing.start(), conversation)
    assert [e["status"] for e in of(log, "tool.completed")] == ["denied", "denied"]
    assert [e["output"] for e in of(log, "run.completed")] == ["well", "well"]
    assert not marks.exists()


async def test_a_call_in_flight_that_is_not_allowed_any_more_is_interrupted_not_denied(
    crashing: Crashing, tmp_path: Path
) -> None:
    """It could be made again, but for policy. Denied would mean that it never ran, and it may have."""
    server, conversation = crashing.start("tool.effect:1:write_file"), fresh()
    await server.post(conversation, AUTO)
    script = '/tool write_file {"path": "x", "content": "y"}\n/say well'
    await until_dead(server, conversation, command("run.start", input=script))
    narrowed = crashing.changed(settings='[tools]\ndefault = ["builtin:read_file"]\n')
    log = await finished(narrowed.start(), conversation)
    assert one(log, "tool.completed")["status"] == "interrupted"
    assert one(log, "run.completed")["output"] == "well"


async def test_a_run_takes_no_more_steps_than_it_may(crashing: Crashing) -> None:
    server, conversation = crashing.start("commit.after:2:step.completed"), fresh()
    await server.post(conversation, command("conversation.configure", config={"limits": {"max_steps": 3}}))
    await until_dead(server, conversation, command("run.start", input="\n".join(["/say word"] * 6)))
    log = await finished(crashing.start(), conversation)
    assert one(log, "run.completed")["stop_reason"] == "max_steps"
    assert len(of(log, "step.completed")) == 3


@pytest.mark.parametrize(("if_late", "last"), [("queue", "queued"), ("return", "returned")])
async def test_what_was_steered_too_late_goes_where_it_was_to_go(crashing: Crashing, if_late: str, last: str) -> None:
    server, conversation = crashing.start(), fresh()
    await server.post(conversation, command("conversation.configure", config={"limits": {"max_steps": 1}}))
    await at_work(server, conversation, "/sleep 0.4\n/say never")
    await server.post(conversation, command("run.steer", text="/say steered", if_late=if_late))
    server.kill()
    log = await finished(crashing.start(), conversation)
    assert [e["disposition"] for e in of(log, "run.steered")] == ["pending", last]
    assert [e["output"] for e in of(log, "run.completed")] == ["", "steered"][: 2 if last == "queued" else 1]


async def test_of_two_open_questions_the_answered_one_is_done_and_the_other_stays(
    crashing: Crashing, tmp_path: Path
) -> None:
    one_mark, other_mark = tmp_path / "one", tmp_path / "other"
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation, after=0) as socket:
        await socket.ok("run.start", input=f"/run echo x >> {one_mark}\n/par\n/run echo x >> {other_mark}\n/say well")
        while len(asked := open_interactions(socket.log)) < 2:
            await socket.recv()
        first, second = sorted(asked, key=lambda e: str(one_mark) not in e["message"])
        await socket.reply(first, option="once")
        await have(socket, "tool.completed")
        server.kill()
    server = crashing.start()
    async with server.socket(conversation, after=0) as socket:
        await socket.greeted()
        assert await socket.asked() == second
        await socket.reply(second, option="once")
    log = await finished(server, conversation)
    assert one_mark.read_text() == other_mark.read_text() == "x\n"
    assert len(of(log, "interaction.requested")) == 2
    one(log, "run.waiting")
    assert one(log, "run.resumed")["interactions"] == [e["interaction_id"] for e in of(log, "interaction.requested")]


async def test_a_second_question_about_an_edit_stays_open_and_the_edit_with_it(
    crashing: Crashing, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("x")
    edited = {"command": f"rm -rf {target}"}
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation, after=0) as socket:
        await socket.ok("run.start", input="/run echo harmless\n/say well")
        first = await socket.asked()
        await socket.reply(first, option="once", arguments=edited)
        second = await have(socket, "interaction.requested", message=edited["command"])
        assert second["tool"]["arguments"] == edited
        server.kill()
    server = crashing.start()
    async with server.socket(conversation, after=0) as socket:
        await socket.greeted()
        assert await socket.asked() == second
        assert target.exists()
        await socket.reply(second, option="once")
    log = await finished(server, conversation)
    assert one(log, "tool.executing")["arguments"] == edited
    assert not target.exists()
    assert len(of(log, "interaction.requested")) == 2


async def printed_and_died(crashing: Crashing) -> tuple[Server, Json]:
    """A call that had printed a lot when its server died: the next server, and how the call ended."""
    server, conversation = crashing.start(), fresh()
    await server.post(conversation, AUTO)
    async with server.socket(conversation, after=0) as socket:
        await socket.ok("run.start", input="/run seq 1 30000; sleep 30")
        while "30000\n" not in "".join(e["chunk"] for e in socket.of("tool.output")):
            await socket.recv()
        server.kill()
    server = crashing.start()
    return server, one(await finished(server, conversation), "tool.completed") | {"conversation": conversation}


async def test_what_an_interrupted_call_had_printed_is_a_preview(crashing: Crashing) -> None:
    _, completed = await printed_and_died(crashing)
    assert completed["status"] == "interrupted"
    assert completed["truncated"] is True
    assert len(completed["output"].encode()) < 2 * PREVIEW


async def test_what_was_seen_of_an_interrupted_call_s_output_is_all_at_its_address(crashing: Crashing) -> None:
    server, completed = await printed_and_died(crashing)
    address = f"/api/conversations/{completed['conversation']}/tool-calls/{completed['call_id']}/output"
    async with server.http() as http:
        kept = (await http.get(address)).text
    assert kept.startswith("".join(f"{n}\n" for n in range(1, 30_001))), f"{len(kept)} characters, {kept[-40:]!r}"


async def test_an_approval_that_was_revoked_stays_revoked(crashing: Crashing) -> None:
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation, after=0) as socket:
        await socket.ok("run.start", input="/run true")
        await socket.reply(await socket.asked(), option="always")
        rules = (await socket.ok("approvals.list"))["rules"]
    revoke = command("approvals.revoke", rule_id=rules[0]["rule_id"])
    assert (await server.post(conversation, revoke))["type"] == "ok"
    server.kill()
    server = crashing.start()
    assert (await server.post(conversation, revoke))["duplicate"] is True
    async with server.socket(conversation) as socket:
        assert (await socket.ok("approvals.list"))["rules"] == []


@pytest.mark.parametrize("point", ["commit.before", "commit.during", "commit.landed", "commit.after"])
async def test_a_fork_is_made_once(crashing: Crashing, point: str) -> None:
    server, conversation = crashing.start(f"{point}:2:conversation.created"), fresh()
    async with server.socket(conversation) as socket:
        await socket.run("/say well")
    fork = command("conversation.fork")
    await until_dead(server, conversation, fork)
    server = crashing.start()
    first = await server.post(conversation, fork)
    assert first["type"] == "ok"
    assert (await server.post(conversation, fork))["conversation_id"] == first["conversation_id"]
    assert one(await server.log(first["conversation_id"]), "run.completed")["output"] == "well"
    assert len((await server.get("/api/conversations"))["conversations"]) == 2


@pytest.mark.parametrize(
    "point",
    [
        "commit.before:2:conversation.created",
        "commit.landed:2:conversation.created",
        "commit.before:1:conversation.configured",
        "commit.landed:1:conversation.configured",
    ],
)
async def test_a_session_is_forked_once_under_its_key(crashing: Crashing, point: str) -> None:
    server, session, headers = crashing.start(point), fresh(), {"Idempotency-Key": fresh("key")}
    async with server.socket(session) as socket:
        await socket.run("/say well")
    async with server.http() as http:
        with pytest.raises(httpx2.TransportError):
            await http.post(f"/api/sessions/{session}/fork", json={"title": "other"}, headers=headers)
    await died(server)
    server = crashing.start()
    async with server.http() as http:
        address, body = f"/api/sessions/{session}/fork", {"title": "other"}
        answers = [await http.post(address, json=body, headers=headers) for _ in range(2)]
        listed = (await http.get("/api/sessions")).json()["data"]
    assert [answer.status_code for answer in answers] == [201, 201], answers[0].text
    first, again = (answer.json()["session"] for answer in answers)
    assert again == first
    assert (first["parent_session_id"], first["title"], first["message_count"]) == (session, "other", 2)
    assert {listed_one["id"] for listed_one in listed} == {session, first["id"]}


async def test_many_conversations_are_taken_up_together(crashing: Crashing) -> None:
    server, names = crashing.start(), [fresh() for _ in range(25)]
    for name in names:
        assert (await server.post(name, command("run.start", input="/say one\n/sleep 3\n/say two")))["type"] == "ok"
    server.kill()
    server = crashing.start()
    logs = await asyncio.gather(*(finished(server, name) for name in names))
    assert [one(log, "run.completed")["output"] for log in logs] == ["two"] * 25
    assert [one(log, "run.recovered")["attempt"] for log in logs] == [2] * 25


async def test_a_conversation_that_waits_costs_the_others_nothing_at_a_restart(make_server: MakeServer) -> None:
    """There is room for one run at work; those that wait for people do not take it."""
    crashing = Crashing(make_server, settings="[runs]\nconcurrent = 1\n")
    server, waiting = crashing.start(), [fresh() for _ in range(3)]
    for name in waiting:
        async with server.socket(name) as socket:
            await socket.ok("run.start", input="/ask Well? | a | b\n/say done")
            await socket.asked()
    server.kill()
    server, other = crashing.start(), fresh()
    async with server.socket(other) as socket:
        assert (await socket.run("/say well"))["output"] == "well"
    for name in waiting:
        async with server.socket(name, after=0) as socket:
            await socket.reply(await socket.asked(), "a")
        assert one(await finished(server, name), "run.completed")["output"] == "done"


@pytest.mark.parametrize("point", ["before", "landed"])
async def test_a_conversation_begins_once(crashing: Crashing, point: str) -> None:
    server, conversation = crashing.start(f"commit.{point}:1:conversation.created"), fresh()
    start: Json = command("run.start", input="/say well")
    await until_dead(server, conversation, start)
    server = crashing.start()
    assert (await server.post(conversation, start))["type"] == "ok"
    log = await finished(server, conversation)
    one(log, "conversation.created")
    assert one(log, "run.completed")["output"] == "well"
