"""Dying while coming up or going down, and what people send again after it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import AUTO, Crashing, command, died, finished, have, of, one, until_dead
from tests.faults.launch import SLOW_DISK
from tests.wire import Json, fresh

STARTUP = ("startup.lock", "startup.migrate:6", "startup.marked", "startup.load", "startup.take_up", "startup.listen")
RECOVERY = ("commit.before", "commit.during", "commit.landed", "commit.after")


@pytest.fixture
def crashing(make_server: MakeServer) -> Crashing:
    return Crashing(make_server)


@pytest.mark.parametrize("point", STARTUP)
async def test_dying_while_coming_up_is_like_never_having_come_up(
    crashing: Crashing, point: str, tmp_path: Path
) -> None:
    server, conversation, marks = crashing.start("tool.effect"), fresh(), tmp_path / "marks"
    await server.post(conversation, AUTO)
    script = f"/run echo mark >> {marks}\n/say well"
    seen = await until_dead(server, conversation, command("run.start", input=script))
    crashing.dies_starting(point)
    crashing.dies_starting(point)
    server = crashing.start()
    log = await finished(server, conversation, seen)
    assert one(log, "tool.completed")["status"] == "interrupted"
    assert one(log, "run.completed")["output"] == "well"
    assert marks.read_text().split() == ["mark"]
    assert len({e["attempt"] for e in of(log, "run.recovered")}) == len(of(log, "run.recovered"))
    [epoch] = {e["epoch"] for e in of(log, "conversation.created")}
    assert (await server.get(f"/api/conversations/{conversation}/events"))["epoch"] == epoch


@pytest.mark.parametrize("point", [f"{point}:1:run.recovered" for point in RECOVERY])
async def test_dying_as_a_run_is_taken_up_leaves_it_to_the_next(crashing: Crashing, point: str) -> None:
    server, conversation = crashing.start("commit.after:3:message.delta"), fresh()
    seen = await until_dead(server, conversation, command("run.start", input="/stream 30 3\n/say well"))
    with suppress(RuntimeError):  # before it could say that it is there
        await died(crashing.start(point))
    log = await finished(crashing.start(), conversation, seen)
    landed = "landed" in point or "after" in point
    assert [e["attempt"] for e in of(log, "run.recovered")] == ([2, 3] if landed else [2])
    assert one(log, "run.completed")["output"] == "well"
    assert len(of(log, "message.completed")) == 2


@pytest.mark.parametrize("statement", range(1, 22, 4))
async def test_dying_while_the_log_is_made_leaves_nothing_in_the_way(
    crashing: Crashing, statement: int, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="did not come up"):
        crashing.start_in(tmp_path / "data", f"startup.migrate:{statement}")
    server, conversation = crashing.start_in(tmp_path / "data"), fresh()
    await server.post(conversation, command("run.start", input="/say well"))
    assert one(await finished(server, conversation), "run.completed")["output"] == "well"


async def test_the_epoch_stays_when_a_server_that_was_closed_in_peace_dies_while_coming_up(crashing: Crashing) -> None:
    """Nothing was lost: what a run that waits had told is all on disk."""
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/ask Well?")
        await socket.asked()
        epoch = (await server.get(_events(conversation)))["epoch"]
    server.terminate()
    assert await server.exited() == 0
    crashing.dies_starting("startup.marked")
    assert (await crashing.start().get(_events(conversation)))["epoch"] == epoch


def _events(conversation: str) -> str:
    return f"/api/conversations/{conversation}/events"


async def test_dying_while_going_down_is_like_dying(crashing: Crashing) -> None:
    server, conversation = crashing.start("drain"), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 600 5\n/say well")
        await have(socket, "message.delta")
        server.terminate()
        await died(server)
        seen = socket.counted()
    log = await finished(crashing.start(), conversation, seen)
    assert one(log, "run.recovered")["attempt"] == 2
    assert one(log, "run.completed")["output"] == "well"


async def test_a_run_that_outlasts_the_drain_goes_on_in_the_next_server(make_server: MakeServer) -> None:
    crashing = Crashing(make_server, settings="[server]\ndrain_grace_s = 0.2\n")
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 400 5\n/say well")
        await socket.ok("run.start", input="/say next")
        await have(socket, "message.delta")
        server.terminate()
        await socket.closed()
    assert await server.exited() == 0
    log = await finished(crashing.start(), conversation)
    assert one(log, "run.recovered")["attempt"] == 2
    assert [e["output"] for e in of(log, "run.completed")] == ["well", "next"]


async def test_calls_that_end_while_the_server_goes_down_are_no_crash(make_server: MakeServer) -> None:
    """When the grace is over nothing is committed any more, and agents are not let go of at that very moment."""
    crashing = Crashing(make_server, settings="[server]\ndrain_grace_s = 0.2\n")
    server, conversation = crashing.start(), fresh()
    await server.post(conversation, AUTO)
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="\n".join(["/run sleep 0.03"] * 45))
        await have(socket, "tool.executing")
        server.terminate()
        await socket.closed()
        assert await server.exited() == 0
    assert "Traceback" not in server.errors, server.errors[:3000]
    log = await finished(crashing.start(), conversation)
    assert len(of(log, "tool.started")) == 45
    one(log, "run.completed")


# -- commands, sent again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["socket", "http"])
async def test_a_command_sent_again_after_a_restart_on_the_other_road_is_a_duplicate(
    crashing: Crashing, first: str
) -> None:
    server, conversation = crashing.start(), fresh()
    start = command("run.start", input="/say well")
    answers: list[Json] = []
    for road in (first, "http" if first == "socket" else "socket"):
        if road == "http":
            answers.append(await server.post(conversation, start))
        else:
            async with server.socket(conversation) as socket:
                await socket.send(start)
                answers.append(await socket.until("ok", id=start["id"]))
        if road == first:
            server.kill()
            server = crashing.start()
    assert answers[1] == {**answers[0], "duplicate": True}
    assert len(of(await finished(server, conversation), "run.started")) == 1


@pytest.mark.parametrize(("point", "done"), [("before", False), ("during", False), ("landed", True), ("after", True)])
async def test_a_command_whose_answer_was_lost_with_the_server_is_done_once(
    crashing: Crashing, point: str, done: bool
) -> None:
    server, conversation = crashing.start(f"commit.{point}:1:run.started"), fresh()
    start = command("run.start", input="/say well")
    await until_dead(server, conversation, start)
    server = crashing.start()
    answer = await server.post(conversation, start)
    assert answer["type"] == "ok"
    assert answer.get("duplicate", False) is done
    assert one(await finished(server, conversation), "run.started")["run_id"] == answer["run_id"]


async def test_an_answer_whose_ok_was_lost_with_the_server_counts_once(crashing: Crashing) -> None:
    server, conversation = crashing.start("answer.committed"), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/ask Which? | a | b\n/say well")
        asked = await socket.asked()
    reply = command("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"})
    await until_dead(server, conversation, reply)
    server = crashing.start()
    assert (await server.post(conversation, reply))["duplicate"] is True
    late = await server.post(conversation, {**reply, "id": "another", "answers": {"answer": "b"}})
    assert late["code"] == "interaction_resolved"
    log = await finished(server, conversation)
    assert late["details"]["resolution"] == one(log, "interaction.resolved")
    assert one(log, "tool.completed")["output"] == "a"


async def test_nobody_is_told_of_an_answer_that_a_crash_can_still_undo(make_server: MakeServer) -> None:
    """Who comes second is refused because of the first answer. If they were told, it is there after a crash."""
    crashing = Crashing(make_server, environment={SLOW_DISK: "300"})
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/ask Which? | a | b")
        asked = await socket.asked()
        for value in ("a", "b"):
            frame = command("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": value})
            await socket.send(frame)
        while (answer := await socket.recv())["type"] not in ("ok", "error"):
            pass
        server.kill()
    server = Crashing(make_server).start_in(server.data)
    async with server.socket(conversation, after=0) as socket:
        hello = await socket.greeted()
        await socket.until_seq(hello["head"])
        resolved = socket.of("interaction.resolved")
        if answer["type"] == "error":
            assert resolved == [answer["details"]["resolution"]]
        else:
            assert [e["answers"] for e in resolved] == [{"answer": "a"}]


async def test_the_same_id_with_another_body_is_refused_after_a_restart_too(crashing: Crashing) -> None:
    server, conversation = crashing.start(), fresh()
    start = command("run.start", input="/say well")
    await server.post(conversation, start)
    server.kill()
    server = crashing.start()
    refused = await server.post(conversation, {**start, "input": "/say something else"})
    assert refused["code"] == "id_reused"
    assert len(of(await finished(server, conversation), "run.started")) == 1


async def test_a_configuration_is_changed_once(crashing: Crashing) -> None:
    server, conversation = crashing.start("commit.after:2:conversation.configured"), fresh()
    await server.post(conversation, command("conversation.configure", config={"title": "one"}))
    second = command("conversation.configure", config={"title": "two"}, if_version=1)
    await until_dead(server, conversation, second)
    server = crashing.start()
    answer = await server.post(conversation, second)
    assert (answer["duplicate"], answer["version"]) == (True, 2)
    assert [e["version"] for e in of(await server.log(conversation), "conversation.configured")] == [1, 2]
