"""Every sentence of what a restart promises (guarantee 8), each with a server that died at the worst moment for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import AUTO, Crashing, command, died, finished, have, of, one, until_dead
from tests.faults.launch import CLOCK
from tests.session.second_fold import fold
from tests.wire import Json, Server, fresh, open_interactions, processes_with, wait_for


@pytest.fixture
def crashing(make_server: MakeServer) -> Crashing:
    return Crashing(make_server)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """What commands write to: a line for every time that they were run."""
    return tmp_path / "marks"


def lines(marks: Path) -> list[str]:
    return marks.read_text().split() if marks.exists() else []


async def crash(crashing: Crashing, point: str, script: str, *, ask: bool = False, answer: Json | None = None) -> str:
    """Run ``script`` on a server that dies at ``point``; the conversation."""
    server, conversation = crashing.start(point), fresh()
    if not ask:
        await server.post(conversation, AUTO)
    await until_dead(server, conversation, command("run.start", input=script), answer=answer)
    return conversation


# -- a run goes on under its id, and what it had done is not done again -------------------------------------


async def test_a_run_goes_on_under_its_id_and_says_so_once(crashing: Crashing) -> None:
    conversation = await crash(crashing, "commit.after:1:step.completed", "/say one\n/say two\n/say three")
    log = await finished(crashing.start(), conversation)
    started, recovered, completed = one(log, "run.started"), one(log, "run.recovered"), one(log, "run.completed")
    assert started["run_id"] == recovered["run_id"] == completed["run_id"]
    assert recovered["attempt"] == started["attempt"] + 1 == 2
    assert recovered["reason"]
    assert [e["text"] for e in of(log, "message.completed")] == ["one", "two", "three"]
    assert [e["step"] for e in of(log, "step.started")] == [1, 2, 3]
    assert completed["output"] == "three"


async def test_a_run_that_had_only_started_goes_on(crashing: Crashing) -> None:
    conversation = await crash(crashing, "commit.after:1:run.started", "/say hello")
    log = await finished(crashing.start(), conversation)
    assert one(log, "run.recovered")["attempt"] == 2
    assert one(log, "run.completed")["output"] == "hello"
    one(log, "run.started")
    one(log, "step.started")


async def test_what_was_half_said_is_discarded_and_said_again(crashing: Crashing) -> None:
    conversation = await crash(crashing, "commit.after:4:message.delta", "/stream 40 3\n/say last")
    log = await finished(crashing.start(), conversation)
    discarded = one(log, "item.discarded")
    assert discarded["reason"] == "retried"
    assert discarded["item_id"] == of(log, "message.started")[0]["item_id"]
    whole, last = of(log, "message.completed")
    assert whole["text"] == "".join(f"{n} " for n in range(40))
    assert last["text"] == "last"
    one(log, "step.started", step=1)
    recovered = one(log, "run.recovered")
    assert recovered["seq"] < discarded["seq"] < of(log, "message.started")[1]["seq"]


async def test_what_was_half_thought_is_discarded_too(crashing: Crashing) -> None:
    conversation = await crash(crashing, "commit.after:2:reasoning.delta", "/think one two three four\n/say last")
    log = await finished(crashing.start(), conversation)
    assert one(log, "item.discarded")["reason"] == "retried"
    assert one(log, "reasoning.available")["text"] == "one two three four"


async def test_an_answer_that_was_whole_is_not_asked_for_again(crashing: Crashing) -> None:
    conversation = await crash(crashing, "commit.after:1:message.completed", "/say one two\n/say three")
    log = await finished(crashing.start(), conversation)
    assert [e["text"] for e in of(log, "message.completed")] in (["one two", "three"], ["one two", "one two", "three"])
    assert one(log, "run.completed")["output"] == "three"
    one(log, "step.started", step=1)


async def test_a_failure_of_the_model_is_still_retried(crashing: Crashing) -> None:
    conversation = await crash(crashing, "commit.after:1:item.discarded", "/fail model_overloaded 1\n/say well")
    log = await finished(crashing.start(), conversation)
    assert one(log, "run.completed")["output"] == "well"


# -- tool calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "times"), [("tool.executing", 0), ("commit.after:1:tool.executing", 0), ("tool.effect", 1)]
)
async def test_a_call_in_flight_is_interrupted_and_not_made_again(
    crashing: Crashing, marks: Path, point: str, times: int
) -> None:
    conversation = await crash(crashing, point, f"/run echo mark >> {marks}\n/say went on")
    log = await finished(crashing.start(), conversation)
    assert lines(marks) == ["mark"] * times
    completed = one(log, "tool.completed")
    assert completed["status"] == "interrupted"
    assert one(log, "tool.executing")["seq"] < one(log, "run.recovered")["seq"] < completed["seq"]
    assert one(log, "run.completed")["output"] == "went on"
    one(log, "tool.started")


async def test_what_an_interrupted_call_had_printed_is_kept(crashing: Crashing) -> None:
    conversation = await crash(crashing, "commit.after:1:tool.output", "/run echo printed; sleep 5\n/say went on")
    log = await finished(crashing.start(), conversation)
    completed = one(log, "tool.completed")
    assert completed["status"] == "interrupted"
    assert completed["output"].startswith("printed\n")


@pytest.mark.parametrize("point", ["tool.executing:1:list_files", "tool.effect:1:list_files"])
async def test_a_call_in_flight_that_only_reads_is_made_again(crashing: Crashing, point: str) -> None:
    conversation = await crash(crashing, point, "/tool list_files {}\n/say went on", ask=True)
    log = await finished(crashing.start(), conversation)
    assert one(log, "tool.completed")["status"] == "ok"
    one(log, "tool.executing")
    one(log, "tool.started")


@pytest.mark.parametrize("point", ["tool.executing:1:write_file", "tool.effect:1:write_file"])
async def test_a_call_in_flight_that_is_idempotent_is_made_again(crashing: Crashing, point: str) -> None:
    script = '/tool write_file {"path": "x", "content": "written"}\n/tool read_file {"path": "x"}'
    conversation = await crash(crashing, point, script)
    log = await finished(crashing.start(), conversation)
    assert [e["status"] for e in of(log, "tool.completed")] == ["ok", "ok"]
    assert of(log, "tool.completed")[1]["output"] == "written"
    assert len(of(log, "tool.executing")) == 2


async def test_a_call_that_was_only_wished_for_is_judged_and_made(crashing: Crashing, marks: Path) -> None:
    """And nobody has to come for that."""
    conversation = await crash(crashing, "tool.wished", f"/run echo mark >> {marks}")
    server = crashing.start()
    await wait_for(lambda: lines(marks))
    log = await finished(server, conversation)
    assert lines(marks) == ["mark"]
    assert one(log, "tool.completed")["status"] == "ok"
    one(log, "tool.started")


async def test_a_call_that_was_only_wished_for_is_asked_about(crashing: Crashing, marks: Path) -> None:
    script = f"/run echo mark >> {marks}"
    conversation = await crash(crashing, "tool.wished", script, ask=True)
    server = crashing.start()
    async with server.socket(conversation, after=0) as socket:
        asked = await socket.asked()
        assert not lines(marks)
        await socket.reply(asked, option="deny")
    log = await finished(server, conversation)
    assert not lines(marks)
    assert one(log, "tool.completed")["status"] == "denied"


async def test_policy_that_was_narrowed_meanwhile_holds_for_a_call_that_was_only_wished_for(
    crashing: Crashing, marks: Path
) -> None:
    """The next server's operator does not allow what the last one's did."""
    conversation = await crash(crashing, "tool.wished", f"/run echo mark >> {marks}\n/say well")
    server = crashing.changed(settings='[approvals]\nceiling = "deny"\n').start()
    log = await finished(server, conversation)
    assert one(log, "tool.completed")["status"] == "denied"
    assert not lines(marks)


@pytest.mark.parametrize("point", ["commit.after:1:tool.completed", "commit.landed:1:tool.completed"])
async def test_a_finished_call_is_never_made_again(crashing: Crashing, marks: Path, point: str) -> None:
    conversation = await crash(crashing, point, f"/run echo mark >> {marks}\n/say well")
    log = await finished(crashing.start(), conversation)
    assert lines(marks) == ["mark"]
    assert one(log, "tool.completed")["status"] == "ok"
    one(log, "step.started", step=1)
    assert one(log, "run.completed")["output"] == "well"


async def test_of_parallel_calls_each_is_treated_by_what_became_of_it(crashing: Crashing, marks: Path) -> None:
    script = (
        f"/run echo first >> {marks}\n/par\n/run echo second >> {marks}; sleep 30\n/par\n/ask Which? | a | b\n/say well"
    )
    server, conversation = crashing.start(), fresh()
    await server.post(conversation, AUTO)
    async with server.socket(conversation, after=0) as socket:
        await socket.send(command("run.start", input=script))
        await have(socket, "tool.completed")
        await socket.asked()
        await wait_for(lambda: len(lines(marks)) == 2)
        server.kill()
    server = crashing.start()
    async with server.socket(conversation, after=0) as socket:
        await have(socket, "tool.completed", status="interrupted")
        await socket.reply(await socket.asked(), "b")
    log = await finished(server, conversation)
    assert sorted(lines(marks)) == ["first", "second"]
    assert sorted(e["status"] for e in of(log, "tool.completed")) == ["interrupted", "ok", "ok"]
    one(log, "interaction.requested")
    one(log, "step.started", step=1)


@pytest.fixture
def seconds() -> Iterator[str]:
    """What only processes of one test sleep for; whatever becomes of the test, they are gone after it."""
    chosen = f"300.{int(fresh()[2:], 16)}"
    yield chosen
    for pid in processes_with(chosen):
        os.kill(pid, signal.SIGKILL)


async def test_processes_of_a_dead_server_s_call_are_ended(crashing: Crashing, seconds: str) -> None:
    server, conversation = crashing.start(), fresh()
    await server.post(conversation, AUTO)
    async with server.socket(conversation) as socket:
        await socket.send(command("run.start", input=f"/run setsid sleep {seconds} & sleep {seconds}\n/say gone"))
        await wait_for(lambda: len(processes_with(seconds, "sleep")) == 2)
        server.kill()
    assert len(processes_with(seconds, "sleep")) == 2
    server = crashing.start()
    log = await finished(server, conversation)
    assert not processes_with(seconds)
    assert one(log, "tool.completed")["status"] == "interrupted"
    assert one(log, "run.completed")["output"] == "gone"


# -- questions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reply"),
    [("/ask Which? | a | b\n/say well", {"answers": {"answer": "b"}}), ("/run echo x\n/say well", {"option": "once"})],
    ids=["clarify", "approval"],
)
async def test_an_open_question_stays_open_as_it_is(crashing: Crashing, script: str, reply: Json) -> None:
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input=script)
        asked = await socket.asked()
        await have(socket, "run.waiting")
    server.kill()
    server = crashing.start()
    async with server.socket(conversation) as socket:
        await socket.recv()
        snapshot = await socket.until("snapshot")
        assert snapshot["interactions"] == [asked]
        assert snapshot["run"]["status"] == "waiting"
        await socket.ok("interaction.reply", interaction_id=asked["interaction_id"], **reply)
        await socket.until_final()
    log = await finished(server, conversation)
    one(log, "interaction.requested")
    one(log, "run.waiting")
    one(log, "run.resumed")
    assert one(log, "interaction.resolved")["outcome"] == "answered"
    assert one(log, "tool.completed")["status"] == "ok"
    assert one(log, "run.completed")["output"] == "well"


async def test_a_question_is_not_asked_twice_when_the_server_dies_as_it_is_asked(crashing: Crashing) -> None:
    conversation = await crash(crashing, "commit.after:1:interaction.requested", "/ask Which? | a | b", ask=True)
    server = crashing.start()
    async with server.socket(conversation, after=0) as socket:
        await socket.reply(await socket.asked(), "a")
    log = await finished(server, conversation)
    one(log, "interaction.requested")
    assert one(log, "tool.completed")["output"] == "a"


async def test_an_answer_that_was_committed_is_not_asked_for_again(crashing: Crashing) -> None:
    reply = {"answers": {"answer": "b"}}
    conversation = await crash(crashing, "answer.committed", "/ask Which? | a | b\n/say well", ask=True, answer=reply)
    log = await finished(crashing.start(), conversation)
    one(log, "interaction.requested")
    assert one(log, "interaction.resolved")["answers"] == {"answer": "b"}
    assert (one(log, "tool.completed")["status"], one(log, "tool.completed")["output"]) == ("ok", "b")


async def test_an_approval_that_was_committed_is_not_asked_for_again(crashing: Crashing, marks: Path) -> None:
    script = f"/run echo mark >> {marks}\n/say well"
    conversation = await crash(crashing, "answer.committed", script, ask=True, answer={"option": "once"})
    assert not lines(marks)
    log = await finished(crashing.start(), conversation)
    assert lines(marks) == ["mark"]
    one(log, "interaction.requested")
    assert one(log, "tool.completed")["status"] == "ok"


async def test_a_refusal_that_was_committed_holds(crashing: Crashing, marks: Path) -> None:
    answer = {"option": "deny", "comment": "not today"}
    script = f"/run echo mark >> {marks}\n/say well"
    conversation = await crash(crashing, "answer.committed", script, ask=True, answer=answer)
    log = await finished(crashing.start(), conversation)
    assert not lines(marks)
    one(log, "interaction.requested")
    assert one(log, "tool.completed")["status"] == "denied"
    assert "not today" in one(log, "tool.completed")["output"]


async def test_edited_arguments_survive(crashing: Crashing, marks: Path) -> None:
    edited = {"command": f"echo edited >> {marks}"}
    answer = {"option": "once", "arguments": edited}
    conversation = await crash(crashing, "answer.committed", f"/run echo x >> {marks}", ask=True, answer=answer)
    log = await finished(crashing.start(), conversation)
    assert lines(marks) == ["edited"]
    assert one(log, "tool.executing")["arguments"] == edited
    one(log, "interaction.requested")


async def test_a_deadline_that_passed_while_the_server_was_down_is_kept(
    make_server: MakeServer, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    crashing = Crashing(make_server, environment={CLOCK: str(clock)})
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/ask Which? | a | b\n/run echo x\n/say well")
        asked = await socket.asked()
    server.kill()
    clock.write_text(str(25 * 3600 * 1000))
    server = crashing.start()
    async with server.socket(conversation, after=0) as socket:
        resolved = await have(socket, "interaction.resolved")
        assert (resolved["interaction_id"], resolved["outcome"]) == (asked["interaction_id"], "expired")
        assert resolved["via"] == "timeout"
        late = await socket.error("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"})
        assert late["code"] == "interaction_expired"
        second = await socket.asked()
        assert second["expires_at"] == second["ts"] + 24 * 3600 * 1000
        await socket.reply(second, option="once")
    log = await finished(server, conversation)
    assert one(log, "run.completed")["output"] == "well"


async def test_a_run_s_deadline_that_passed_while_the_server_was_down_is_kept(
    make_server: MakeServer, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    crashing = Crashing(make_server, environment={CLOCK: str(clock)})
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/sleep 60", deadline_ms=30_000)
        await have(socket, "step.started")
    server.kill()
    clock.write_text("31000")
    log = await finished(crashing.start(), conversation)
    assert one(log, "run.failed")["error"]["code"] == "deadline_exceeded"


# -- remembered approvals -----------------------------------------------------------------------------------


async def test_an_approval_for_the_run_holds_after_a_restart_and_no_longer_than_the_run(
    crashing: Crashing, marks: Path
) -> None:
    script = f"/run echo mark >> {marks}\n/run echo mark >> {marks}\n/say well"
    point = "commit.after:1:tool.completed"
    conversation = await crash(crashing, point, script, ask=True, answer={"option": "run"})
    server = crashing.start()
    log = await finished(server, conversation)
    assert lines(marks) == ["mark", "mark"]
    one(log, "interaction.requested")
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input=script)
        await socket.reply(await socket.asked(), option="deny")


@pytest.mark.parametrize(("scope", "elsewhere"), [("conversation", False), ("always", True)])
async def test_a_wider_approval_holds_after_a_restart(
    crashing: Crashing, marks: Path, scope: str, elsewhere: bool
) -> None:
    script = f"/run echo mark >> {marks}"
    conversation = await crash(crashing, "answer.committed", script, ask=True, answer={"option": scope})
    server = crashing.start()
    await finished(server, conversation)
    async with server.socket(conversation) as socket:
        await socket.greeted()
        await socket.run(script)
        assert not socket.of("interaction.requested")
    async with server.socket() as other:
        await other.ok("run.start", input=script)
        if elsewhere:
            await other.until_final()
        else:
            await other.reply(await other.asked(), option="deny")
    assert lines(marks) == ["mark"] * (3 if elsewhere else 2)


# -- stopping, queueing, giving up --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["graceful", "now"])
async def test_a_run_that_was_being_stopped_ends_as_cancelled(crashing: Crashing, mode: str) -> None:
    server, conversation = crashing.start("commit.after:1:run.stopping"), fresh()
    stop, following = command("run.stop", mode=mode), command("run.start", input="/say next")
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 1000 5")
        await have(socket, "message.delta")
    await until_dead(server, conversation, following, stop)
    server = crashing.start()
    log = await finished(server, conversation)
    cancelled = one(log, "run.cancelled")
    assert cancelled["reason"] == "stop"
    assert cancelled["by"] == one(log, "run.stopping")["by"]
    assert one(log, "run.completed")["output"] == "next"
    assert (await server.post(conversation, stop))["duplicate"] is True


async def test_a_run_that_was_being_interrupted_makes_room_for_the_other(crashing: Crashing) -> None:
    server, conversation = crashing.start("commit.after:1:run.stopping"), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/sleep 30")
        await have(socket, "step.started")
        await socket.ok("run.start", input="/say patient")
    await until_dead(server, conversation, command("run.start", input="/say urgent", when_busy="interrupt"))
    log = await finished(crashing.start(), conversation)
    assert one(log, "run.cancelled")["reason"] == "interrupt"
    assert [e["output"] for e in of(log, "run.completed")] == ["urgent", "patient"]


async def test_a_call_of_a_run_that_was_being_stopped_is_not_made_again(crashing: Crashing, marks: Path) -> None:
    server, conversation = crashing.start("commit.after:1:run.stopping"), fresh()
    await server.post(conversation, AUTO)
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input=f"/run echo mark >> {marks}; sleep 30")
        await wait_for(lambda: lines(marks))
    await until_dead(server, conversation, command("run.stop"))
    log = await finished(crashing.start(), conversation)
    assert lines(marks) == ["mark"]
    assert one(log, "tool.completed")["status"] in ("cancelled", "interrupted")
    one(log, "run.cancelled")


async def test_queued_runs_keep_their_order(crashing: Crashing) -> None:
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/ask Well?")
        asked = await socket.asked()
        for word in ("one", "two", "three"):
            await socket.ok("run.start", input=f"/say {word}")
    server.kill()
    server = crashing.start()
    async with server.socket(conversation, after=0) as socket:
        await socket.greeted()
        await socket.ok("run.start", input="/say four")
        await socket.ok("run.start", input="/say first of all", when_busy="interrupt")
        await have(socket, "interaction.resolved", interaction_id=asked["interaction_id"])
    log = await finished(server, conversation)
    outputs = [e["output"] for e in of(log, "run.completed")]
    assert outputs == ["first of all", "one", "two", "three", "four"]
    assert len(of(log, "run.recovered")) == 1


async def test_a_queued_run_whose_turn_came_as_the_server_died_is_started_by_the_next(crashing: Crashing) -> None:
    server, conversation = crashing.start("commit.before:1:run.completed"), fresh()
    await until_dead(
        server, conversation, command("run.start", input="/sleep 0.3\n/say one"), command("run.start", input="/say two")
    )
    log = await finished(crashing.start(), conversation)
    assert [e["output"] for e in of(log, "run.completed")] == ["one", "two"]


async def _killed_in_vain(crashing: Crashing, conversation: str, times: int) -> Server:
    """Restart and kill so often, each time when the run was taken up; returns one more server."""
    for attempt in range(2, times + 2):
        server = crashing.start()
        async with server.socket(conversation, after=0) as socket:
            await have(socket, "run.recovered", attempt=attempt)
        server.kill()
    return crashing.start()


async def test_a_run_that_only_ever_dies_is_given_up(crashing: Crashing) -> None:
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/sleep 600")
        await socket.ok("run.start", input="/say next")
        await have(socket, "step.started")
    server.kill()
    server = await _killed_in_vain(crashing, conversation, 3)
    log = await finished(server, conversation)
    assert [e["attempt"] for e in of(log, "run.recovered")] == [2, 3, 4]
    failed = one(log, "run.failed")
    assert failed["error"]["code"] == "recovery_exhausted"
    assert failed["run_id"] == of(log, "run.started")[0]["run_id"]
    assert one(log, "run.completed")["output"] == "next"


async def test_a_run_that_gets_something_done_each_time_is_not_given_up(crashing: Crashing) -> None:
    script = "\n".join(["/run true"] * 5 + ["/say done"])
    conversation = await crash(crashing, "commit.after:1:tool.completed", script)
    for _ in range(4):
        server = crashing.start("commit.after:1:tool.completed")
        await died(server)
    log = await finished(crashing.start(), conversation)
    assert [e["attempt"] for e in of(log, "run.recovered")] == [2, 3, 4, 5, 6]
    assert [e["status"] for e in of(log, "tool.completed")] == ["ok"] * 5
    assert one(log, "run.completed")["output"] == "done"


async def test_waiting_for_people_does_not_wear_a_run_out(crashing: Crashing) -> None:
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/ask Well? | a | b\n/say done")
        await socket.asked()
    server.kill()
    for _ in range(5):
        server = crashing.start()
        async with server.socket(conversation, after=0) as socket:
            await socket.greeted()
            assert len(open_interactions(socket.log)) == 1
        server.kill()
    server = crashing.start()
    async with server.socket(conversation, after=0) as socket:
        await socket.reply(await socket.asked(), "a")
    log = await finished(server, conversation)
    assert one(log, "run.completed")["output"] == "done"
    one(log, "interaction.requested")


# -- run.retry ----------------------------------------------------------------------------------------------


async def test_a_retry_goes_on_from_the_failed_run_s_journal(crashing: Crashing, marks: Path) -> None:
    server, conversation = crashing.start(), fresh()
    await server.post(conversation, AUTO)
    async with server.socket(conversation, after=0) as socket:
        failed = await socket.run(f"/run echo mark >> {marks}\n/sleep 1\n/say well", deadline_ms=500)
        assert failed["error"]["code"] == "deadline_exceeded"
        await socket.run("/say something else")
        again = command("run.retry", run_id=failed["run_id"])
        await socket.send(again)
        ok = await socket.until("ok", id=again["id"])
        await socket.until_final(ok["run_id"])
    log = await finished(server, conversation)
    assert lines(marks) == ["mark"]
    begun = one(log, "run.started", run_id=ok["run_id"])
    assert begun["retry_of"] == failed["run_id"] != ok["run_id"]
    assert not of(log, "tool.started", run_id=ok["run_id"])
    assert one(log, "run.failed", run_id=ok["run_id"])["error"]["code"] == "deadline_exceeded"
    assert len(of(log, "tool.completed")) == 1


async def test_a_retry_survives_a_crash_and_happens_once(crashing: Crashing, marks: Path) -> None:
    server, conversation = crashing.start("commit.after:2:run.started"), fresh()
    await server.post(conversation, AUTO)
    async with server.socket(conversation, after=0) as socket:
        failed = await socket.run(f"/run echo mark >> {marks}\n/fail model_auth\n/say well")
    again = command("run.retry", run_id=failed["run_id"])
    await until_dead(server, conversation, again)
    server = crashing.start()
    answer = await server.post(conversation, again)
    assert answer["duplicate"] is True
    log = await finished(server, conversation)
    assert lines(marks) == ["mark"]
    assert len(of(log, "run.started")) == 2
    assert one(log, "run.recovered")["run_id"] == answer["run_id"]
    assert one(log, "run.started", run_id=answer["run_id"])["retry_of"] == failed["run_id"]


# -- steering -----------------------------------------------------------------------------------------------


async def test_what_was_steered_before_a_crash_is_heard_and_answered_once(crashing: Crashing) -> None:
    server, conversation = crashing.start(), fresh()
    async with server.socket(conversation, after=0) as socket:
        await socket.ok("run.start", input="/say one\n/stream 200 5\n/say three")
        await have(socket, "message.delta", delta="3 ")
        await socket.ok("run.steer", text="left")
        server.kill()
    server = crashing.start()
    log = await finished(server, conversation)
    assert [e["disposition"] for e in of(log, "run.steered")] == ["pending", "applied"]
    said = [e["text"] for e in of(log, "message.completed")]
    assert len([text for text in said if "You steered me" in text]) == 1, said
    assert said[-1] == "three"
    items = (await server.post(conversation, {"type": "snapshot.get"}))["snapshot"]["items"]
    assert items == fold(log).view()["items"]
