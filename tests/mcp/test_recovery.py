"""The journal covers MCP calls (guarantee 8): what a killed server does about them when it comes back."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import Crashing, command, finished, have, of, one, until_dead
from tests.mcp.conftest import MakeOfficial, MakeUgly
from tests.mcp.desk import AUTO, LOCAL, call, configure, crm, operator_server
from tests.mcp.running import OfficialServer, official_stdio, recorded
from tests.wire import Json, fresh, open_interactions, processes_with, soon, wait_for

NOTE = call("add_note", customer_id="c1", text="likes tea")
SET = call("set_note", customer_id="c1", text="likes tea")
ON = "/say went on"
BEFORE = "commit.after:1:tool.executing"
"""The call may begin, and has not."""
AFTER = "commit.before:1:tool.completed"
"""The server has done it, and nobody knows."""


@pytest.fixture
def crashing(make_server: MakeServer) -> Crashing:
    return Crashing(make_server, settings=LOCAL)


async def crash(crashing: Crashing, point: str, script: str, servers: Json, answer: Json | None = None) -> str:
    """Run ``script`` on a server that dies at ``point``; the conversation. People are asked only if there is an
    answer."""
    host, conversation = crashing.start(point), fresh()
    config = {"mcp_servers": servers, **(AUTO if answer is None else {})}
    await host.post(conversation, {"type": "conversation.configure", "config": config})
    await until_dead(host, conversation, command("run.start", input=script), answer=answer)
    return conversation


def made(official: OfficialServer, tool: str) -> int:
    """How often the server was asked for it."""
    return len(official.seen(kind="request", method="tools/call", tool=tool))


# -- calls in flight -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "times"), [(BEFORE, 0), (AFTER, 1)])
async def test_a_call_that_writes_is_interrupted_and_never_made_twice(
    crashing: Crashing, official: OfficialServer, point: str, times: int
) -> None:
    conversation = await crash(crashing, point, f"{NOTE}\n{ON}", {"crm": crm(official)})
    log = await finished(crashing.start(), conversation)
    completed = one(log, "tool.completed")
    assert completed["status"] == "interrupted"
    assert "not" in completed["output"], "the model is told that it is not known whether it was done"
    assert one(log, "run.recovered")["seq"] < completed["seq"]
    assert one(log, "run.completed")["output"] == "went on"
    assert made(official, "add_note") == len(official.seen(kind="effect")) == times
    one(log, "tool.started")
    one(log, "tool.executing")


@pytest.mark.parametrize(("point", "times"), [(BEFORE, 1), (AFTER, 2)])
async def test_a_call_that_may_be_repeated_is_made_again(
    crashing: Crashing, official: OfficialServer, point: str, times: int
) -> None:
    conversation = await crash(crashing, point, f"{SET}\n{ON}", {"crm": crm(official)})
    log = await finished(crashing.start(), conversation)
    completed = one(log, "tool.completed")
    assert completed["status"] == "ok"
    assert completed["output"].endswith("noted")
    assert made(official, "set_note") == times
    assert official.tenants()["ada"]["notes"] == [{"customer_id": "c1", "text": "likes tea"}]
    one(log, "tool.started")
    one(log, "tool.executing")


async def test_in_the_middle_of_a_call_that_reads(crashing: Crashing, official: OfficialServer) -> None:
    servers = {"crm": crm(official)}
    conversation = await crash(crashing, "commit.after:1:tool.output", call("slow", seconds=0.5), servers)
    log = await finished(crashing.start(), conversation)
    assert one(log, "tool.completed")["output"].endswith("took 0.5 s")
    assert made(official, "slow") == 2


async def test_whose_hints_are_not_trusted_is_not_made_again(make_server: MakeServer, official: OfficialServer) -> None:
    crashing = Crashing(make_server, settings=LOCAL + "trust_annotations = false\n")
    conversation = await crash(crashing, AFTER, f"{call('find_customer')}\n{ON}", {"crm": crm(official)})
    log = await finished(crashing.start(), conversation)
    assert one(log, "tool.completed")["status"] == "interrupted"
    assert made(official, "find_customer") == 1


async def test_of_calls_side_by_side_each_is_treated_by_its_hints(crashing: Crashing, official: OfficialServer) -> None:
    host, conversation = crashing.start(), fresh()
    async with host.socket(conversation, after=0) as line:
        await configure(line, mcp_servers={"crm": crm(official, timeout_ms=2000)}, **AUTO)
        waits = call("wait_forever", key="k")
        await line.ok("run.start", input="\n/par\n".join([NOTE, waits, call("ask_name")]))
        await have(line, "tool.completed")
        await official.saw(kind="waiting", key="k")
        await line.asked()
        host.kill()
    log = await finished(crashing.start(), conversation)
    status = {event["name"]: event["status"] for event in of(log, "tool.completed")}
    assert status == {"add_note": "ok", "wait_forever": "error", "ask_name": "interrupted"}
    assert made(official, "add_note") == len(official.seen(kind="effect")) == 1
    assert made(official, "wait_forever") == 2


async def test_between_two_steps_what_was_done_is_done(crashing: Crashing, make_official: MakeOfficial) -> None:
    server = make_official(older=True)
    script = f"{call('counter')}\n{call('counter')}\n{ON}"
    conversation = await crash(crashing, "commit.after:1:step.completed", script, {"crm": crm(server)})
    log = await finished(crashing.start(), conversation)
    first, second = of(log, "tool.completed")
    assert first["output"] == "1"
    assert "was lost" in second["output"]
    assert second["output"].endswith("\n1")
    assert made(server, "counter") == 2
    assert one(log, "run.completed")["output"] == "went on"


async def test_a_server_that_does_not_come_back_does_not_hold_the_run(
    crashing: Crashing, make_official: MakeOfficial
) -> None:
    server = make_official()
    script = f"{call('find_customer')}\n{ON}"
    conversation = await crash(crashing, AFTER, script, {"crm": crm(server)})
    server.stop()
    log = await finished(crashing.start(), conversation)
    completed = one(log, "tool.completed")
    assert completed["status"] in ("error", "interrupted")
    assert "crm" in completed["output"], completed["output"]
    assert one(log, "run.completed")["output"] == "went on"


async def test_a_run_that_waits_for_its_server_to_come_back_can_be_stopped(
    crashing: Crashing, make_official: MakeOfficial
) -> None:
    server = make_official()
    conversation = await crash(crashing, AFTER, f"{call('find_customer')}\n{ON}", {"crm": crm(server)})
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)):  # takes connections, and never answers
        host = crashing.start()
        async with host.socket(conversation) as line:
            await line.until("mcp.status", state="starting")
            async with soon(2):
                await line.ok("run.stop")
                final = await line.until_final()
    assert final["type"] == "run.cancelled"
    log = await finished(host, conversation)
    assert one(log, "tool.completed")["status"] in ("cancelled", "interrupted")


async def test_an_operators_server_that_is_gone_does_not_hold_the_run(
    make_server: MakeServer, official: OfficialServer, tmp_path: Path
) -> None:
    settings = operator_server("desk", official_stdio(tmp_path / "record"))
    crashing = Crashing(make_server, settings=settings)
    conversation = await crash(crashing, AFTER, f"{call('find_customer')}\n{NOTE}\n{ON}", {"crm": {"ref": "desk"}})
    log = await finished(crashing.changed(settings=LOCAL).start(), conversation)
    first, second = of(log, "tool.completed")
    assert first["status"] in ("error", "interrupted")
    assert second["status"] == "error"
    assert one(log, "run.completed")["output"] == "went on"


async def test_a_stdio_server_of_the_life_before_is_ended_and_another_does_the_call(
    make_server: MakeServer, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    crashing = Crashing(make_server, settings=operator_server("desk", official_stdio(record)))
    script = f"{call('counter')}\n{call('slow', seconds=0.5)}\n{call('counter')}"
    conversation = await crash(crashing, "commit.after:1:tool.output", script, {"crm": {"ref": "desk"}})
    log = await finished(crashing.start(), conversation)
    outputs = [event["output"] for event in of(log, "tool.completed")]
    assert outputs[0] == "1"
    assert "was lost" in outputs[1]
    assert outputs[1].endswith("took 0.5 s")
    assert outputs[2] == "1"
    pids = [entry["pid"] for entry in recorded(record)]
    assert len(set(pids)) == 2
    await wait_for(lambda: processes_with(str(record)) == [pids[-1]])


@pytest.mark.parametrize(("script", "status", "times"), [(call("slow", seconds=1.5), "ok", 2), (NOTE, "ok", 1)])
async def test_an_orderly_end_in_the_middle_is_like_any_other(
    make_server: MakeServer, official: OfficialServer, script: str, status: str, times: int
) -> None:
    settings = LOCAL + "[server]\ndrain_grace_s = 0.2\n"
    host, conversation = make_server(settings=settings), fresh()
    async with host.socket(conversation, after=0) as line:
        await configure(line, mcp_servers={"crm": crm(official)}, **AUTO)
        await line.ok("run.start", input=f"{script}\n{call('slow', seconds=1)}\n{ON}")
        await have(line, "tool.executing")
        await official.saw(method="tools/call")
        host.terminate()
    assert await host.exited() == 0
    log = await finished(make_server(settings=settings, data=host.data), conversation)
    assert of(log, "tool.completed")[0]["status"] == status
    assert made(official, script.split(" ")[1]) >= times
    assert one(log, "run.completed")["output"] == "went on"


async def test_a_retried_run_goes_on_after_the_calls_that_were_made(
    make_server: MakeServer, official: OfficialServer
) -> None:
    host, conversation = make_server(settings=LOCAL), fresh()
    async with host.socket(conversation) as line:
        await configure(line, mcp_servers={"crm": crm(official)}, **AUTO)
        script = f"{NOTE}\n{call('wait_forever', key='w')}\n{ON}"
        started = await line.ok("run.start", input=script)
        await official.saw(kind="waiting", key="w")
        await line.ok("run.stop")
        await line.until_final(started["run_id"])
        await configure(line, mcp_servers={"crm": {"timeout_ms": 200}})
        await line.ok("run.retry", run_id=started["run_id"])
        final = await line.until_final()
    assert final["output"] == "went on"
    assert made(official, "add_note") == 1


async def test_many_conversations_killed_at_any_moment_do_nothing_twice_and_finish(
    crashing: Crashing, official: OfficialServer
) -> None:
    """Whatever each was doing: what was written was written once, or the model is told that it may have been."""
    conversations = [fresh() for _ in range(10)]
    config = {"mcp_servers": {"crm": crm(official)}, **AUTO}
    host = crashing.start()
    for n, conversation in enumerate(conversations):
        await host.post(conversation, {"type": "conversation.configure", "config": config})
        await host.post(conversation, command("run.start", input=script_of(conversation, start=n)))
    for left in (2, 5, 8):
        await wait_for(lambda left=left: len(official.seen(kind="effect")) >= 3 * left)  # type: ignore[misc]
        host.kill()
        host = crashing.start()
    effects = []
    for conversation in conversations:
        log = await finished(host, conversation)
        assert one(log, "run.completed")["output"] == conversation
        effects += [(event["status"], event["arguments"]["text"]) for event in ended(log, "add_note")]
        assert {event["status"] for event in ended(log, "set_note") + ended(log, "find_customer")} == {"ok"}
    made = [entry["text"] for entry in official.seen(kind="effect", tool="add_note")]
    assert len(made) == len(set(made)), "something was written twice"
    assert {status for status, _ in effects} <= {"ok", "interrupted"}
    assert {text for status, text in effects if status == "ok"} <= set(made)
    assert len(effects) == 3 * len(conversations)


def script_of(conversation: str, *, start: int) -> str:
    """Three notes, and what may be repeated between them; not all conversations do the same at the same time."""
    lines = [f"/sleep {start * 0.07:.2f}"]
    for n in range(3):
        lines += [call("add_note", customer_id="c1", text=f"{conversation} {n}"), call("find_customer")]
        lines += [call("set_note", customer_id="c2", text=f"{conversation} {n}"), call("slow", seconds=0.1, steps=1)]
    return "\n".join([*lines, f"/say {conversation}"])


def ended(log: list[Json], tool: str) -> list[Json]:
    """The ends of the calls of a tool, with their arguments."""
    arguments = {event["call_id"]: event["arguments"] for event in of(log, "tool.started")}
    return [event | {"arguments": arguments[event["call_id"]]} for event in of(log, "tool.completed", name=tool)]


# -- people --------------------------------------------------------------------------------------------------


async def test_an_open_approval_stays_open_and_its_answer_makes_the_call(
    crashing: Crashing, official: OfficialServer
) -> None:
    host, conversation = crashing.start(), fresh()
    async with host.socket(conversation) as line:
        await configure(line, mcp_servers={"crm": crm(official)})
        await line.ok("run.start", input=f"{NOTE}\n{ON}")
        asked = await line.asked()
    host.kill()
    host = crashing.start()
    async with host.socket(conversation, after=0) as line:
        await line.greeted()
        assert open_interactions(line.log) == [asked]
        edited = {"customer_id": "c2", "text": "edited"}
        error = await line.error(
            "interaction.reply", interaction_id=asked["interaction_id"], option="once", arguments={"text": 7}
        )
        assert error["path"] == "$.arguments"
        await line.reply(asked, option="once", arguments=edited)
    log = await finished(host, conversation)
    assert one(log, "tool.completed")["output"].endswith("noted")
    assert one(log, "tool.executing")["arguments"] == edited
    assert [entry["text"] for entry in official.seen(kind="effect")] == ["edited"]
    one(log, "interaction.requested")


async def test_an_approval_that_was_given_is_not_asked_for_again(crashing: Crashing, official: OfficialServer) -> None:
    servers = {"crm": crm(official)}
    conversation = await crash(crashing, "answer.committed", f"{NOTE}\n{ON}", servers, {"option": "once"})
    assert made(official, "add_note") == 0
    log = await finished(crashing.start(), conversation)
    one(log, "interaction.requested")
    assert one(log, "tool.completed")["status"] == "ok"
    assert made(official, "add_note") == 1


async def test_a_refusal_that_was_given_holds(crashing: Crashing, official: OfficialServer) -> None:
    servers = {"crm": crm(official)}
    conversation = await crash(crashing, "answer.committed", f"{NOTE}\n{ON}", servers, {"option": "deny"})
    log = await finished(crashing.start(), conversation)
    assert one(log, "tool.completed")["status"] == "denied"
    assert made(official, "add_note") == 0


async def test_a_form_of_a_call_that_may_not_be_repeated_goes_with_the_call(
    crashing: Crashing, official: OfficialServer
) -> None:
    host, conversation = crashing.start(), fresh()
    async with host.socket(conversation) as line:
        await configure(line, mcp_servers={"crm": crm(official)}, **AUTO)
        await line.ok("run.start", input=f"{call('ask_name')}\n{ON}")
        asked = await line.asked()
    host.kill()
    log = await finished(crashing.start(), conversation)
    assert one(log, "tool.completed")["status"] == "interrupted"
    resolved = one(log, "interaction.resolved")
    assert (resolved["interaction_id"], resolved["outcome"]) == (asked["interaction_id"], "cancelled")
    assert one(log, "run.completed")["output"] == "went on"


async def test_a_form_of_a_call_that_may_be_repeated_stays_open_and_is_not_asked_twice(
    crashing: Crashing, make_ugly: MakeUgly
) -> None:
    server = make_ugly("asks")
    host, conversation = crashing.start(), fresh()
    async with host.socket(conversation) as line:
        await configure(line, mcp_servers={"ugly": {"url": server.url}}, **AUTO)
        await line.ok("run.start", input=f"{call('tool')}\n{ON}")
        asked = await line.asked()
    host.kill()
    host = crashing.start()
    async with host.socket(conversation, after=0) as line:
        await line.greeted()
        assert open_interactions(line.log) == [asked]
        await wait_for(lambda: server.methods().count("tools/call") == 2)
        await line.reply(asked, content={"name": "Bob"})
    log = await finished(host, conversation)
    one(log, "interaction.requested")
    assert one(log, "tool.completed")["status"] == "ok"
    assert server.memory["answers"][-1]["result"] == {"action": "accept", "content": {"name": "Bob"}}


async def test_a_form_that_was_filled_in_is_not_shown_again(crashing: Crashing, make_ugly: MakeUgly) -> None:
    server = make_ugly("asks")
    answer = {"content": {"name": "Bob"}}
    servers = {"ugly": {"url": server.url, "approvals": {"mode": "auto"}}}
    conversation = await crash(crashing, "answer.committed", f"{call('tool')}\n{ON}", servers, answer)
    log = await finished(crashing.start(), conversation)
    one(log, "interaction.requested")
    assert one(log, "tool.completed")["status"] == "ok"
    assert server.memory["answers"][-1]["result"] == {"action": "accept", "content": {"name": "Bob"}}


async def test_a_form_that_expired_while_nobody_was_there_is_cancelled(
    make_server: MakeServer, make_ugly: MakeUgly
) -> None:
    server = make_ugly("asks")
    crashing = Crashing(make_server, settings=LOCAL + "[sessions]\ninteraction_timeout_s = 1\n")
    servers = {"ugly": {"url": server.url}}
    conversation = await crash(crashing, "commit.after:1:interaction.requested", f"{call('tool')}\n{ON}", servers)
    log = await finished(crashing.start(), conversation)
    assert [event["outcome"] for event in of(log, "interaction.resolved")] == ["expired"]
    assert server.memory["answers"][-1]["result"]["action"] == "cancel"
    assert one(log, "run.completed")["output"] == "went on"


async def test_a_page_that_people_were_sent_to_is_not_opened_twice(crashing: Crashing, make_ugly: MakeUgly) -> None:
    server = make_ugly("login_required")
    host, conversation = crashing.start(), fresh()
    async with host.socket(conversation) as line:
        await configure(line, mcp_servers={"ugly": {"url": server.url}}, **AUTO)
        await line.ok("run.start", input=f"{call('tool')}\n{ON}")
        asked = await line.asked()
    host.kill()
    host = crashing.start()
    async with host.socket(conversation, after=0) as line:
        await line.greeted()
        assert open_interactions(line.log) == [asked]
        await wait_for(lambda: server.methods().count("tools/call") == 2)
        await line.reply(asked, option="decline")
    log = await finished(host, conversation)
    one(log, "interaction.requested")
    assert "declined" in one(log, "tool.completed")["output"]
