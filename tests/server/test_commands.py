"""Commands: done once, in order, refused with words."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.launch import CLOCK, MODULE
from tests.wire import Json, Server, Socket, fresh, terminals


def new_id() -> str:
    return str(uuid.uuid4())


# -- ids -------------------------------------------------------------------------------------------------


async def test_a_repeated_id_is_answered_again_and_done_once(server: Server) -> None:
    conversation, command = fresh(), {"id": new_id(), "input": "hi"}
    async with server.socket(conversation) as one, server.socket(conversation) as two:
        first = await one.ok("run.start", **command)
        again = await one.ok("run.start", **command)
        across = await two.ok("run.start", **command)
        over_http = await server.post(conversation, {"type": "run.start", **command})
        await one.until_final()
    assert "duplicate" not in first
    for copy in (again, across, over_http):
        assert copy == first | {"duplicate": True}
    assert len([e for e in await server.log(conversation) if e["type"] == "run.started"]) == 1


async def test_an_id_that_begins_a_conversation_begins_another_one_when_it_is_forgotten(
    make_server: MakeServer, tmp_path: Path
) -> None:
    """As of a job that sends the same one every day."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    server = make_server(module=MODULE, environment={CLOCK: str(clock)})
    daily = {"type": "run.start", "id": "daily", "input": "hi"}
    first = await server.post("new", daily)
    assert await server.post("new", daily) == first | {"duplicate": True}
    clock.write_text(str(25 * 3_600_000))
    second = await server.post("new", daily)
    assert "duplicate" not in second
    assert second["conversation_id"] != first["conversation_id"]
    assert await server.post("new", daily) == second | {"duplicate": True}
    for conversation in (first["conversation_id"], second["conversation_id"]):
        assert len([e for e in await server.log(conversation) if e["type"] == "run.started"]) == 1


async def test_an_id_with_another_body_is_refused(server: Server) -> None:
    async with server.socket() as socket:
        command_id = new_id()
        await socket.ok("run.start", id=command_id, input="hi")
        for other in ({"input": "ho"}, {"input": "hi", "when_busy": "reject"}):
            assert (await socket.error("run.start", id=command_id, **other))["code"] == "id_reused"
        assert (await socket.error("run.stop", id=command_id))["code"] == "id_reused"
        await socket.until_final()
        assert len(socket.of("run.started")) == 1


async def test_the_same_body_spelled_otherwise_is_the_same_command(server: Server) -> None:
    async with server.socket() as socket:
        command_id = new_id()
        await socket.ok("run.start", id=command_id, input="hi")
        again = await socket.ok("run.start", input="hi", deadline_ms=None, id=command_id, unknown=1)
        assert again["duplicate"] is True


async def test_a_repeated_id_is_known_after_a_crash(make_server: MakeServer) -> None:
    server, conversation = make_server(), fresh()
    start = {"type": "run.start", "id": new_id(), "input": "hi"}
    configure = {"type": "conversation.configure", "id": new_id(), "config": {"title": "t"}}
    first = [await server.post(conversation, command) for command in (start, configure)]
    server.kill()
    server = make_server(data=server.data)
    again = [await server.post(conversation, command) for command in (start, configure)]
    assert again == [ok | {"duplicate": True} for ok in first]
    other = await server.post(conversation, {**start, "input": "other"})
    assert other["code"] == "id_reused"


async def test_copies_in_flight_wait_for_the_one_answer(server: Server) -> None:
    conversation, command = fresh(), json.dumps({"type": "run.start", "id": new_id(), "input": "hi"})
    async with server.socket(conversation) as socket:
        await socket.greeted()
        for _ in range(20):
            await socket.send(command)
        await socket.until_final()
        await socket.ok("ping")
        answers = [frame for frame in map(json.loads, socket.raw) if frame["type"] == "ok" and "run_id" in frame]
    assert len(answers) == 20
    assert len({answer["run_id"] for answer in answers}) == 1
    assert [bool(answer.get("duplicate")) for answer in answers].count(False) == 1
    assert len(socket.of("run.started")) == 1


async def test_racing_copies_over_every_way_in_have_one_effect(server: Server) -> None:
    conversation, command = fresh(), {"type": "run.start", "id": new_id(), "input": "hi"}
    async with server.socket(conversation) as one, server.socket(conversation) as two:
        fields = {"id": command["id"], "input": "hi"}
        answers = await asyncio.gather(
            one.ok("run.start", **fields),
            two.ok("run.start", **fields),
            *(server.post(conversation, command) for _ in range(5)),
        )
    assert len({answer["run_id"] for answer in answers}) == 1
    assert sum("duplicate" not in answer for answer in answers) == 1


async def test_without_an_id_every_command_counts(server: Server) -> None:
    async with server.socket() as socket:
        await socket.greeted()
        await socket.send({"type": "run.start", "input": "a"})
        assert (await socket.until("ok"))["id"] is None
        await socket.send({"type": "run.start", "input": "a", "id": None})
        assert (await socket.until("ok"))["id"] is None
        await socket.until_final()
        await socket.until_final()
    assert len(socket.of("run.started")) == 2


async def test_errors_are_not_stored_under_their_id(server: Server) -> None:
    async with server.socket() as socket:
        command_id = new_id()
        assert (await socket.error("run.stop", id=command_id))["code"] == "run_not_active"
        await socket.ok("run.start", input="/sleep 60")
        assert "duplicate" not in await socket.ok("run.stop", id=command_id)
        await socket.until_final()


async def test_reads_are_answered_afresh_and_create_nothing(server: Server) -> None:
    conversation, command_id = fresh(), new_id()
    async with server.socket(conversation) as socket:
        hello = await socket.greeted()
        assert (hello["epoch"], hello["head"]) == (None, 0)
        for kind in ("ping", "help", "snapshot.get", "tools.list", "approvals.list"):
            answer = await socket.ok(kind, id=command_id)
            assert "duplicate" not in answer
        assert (await socket.ok("ping"))["head"] == 0
        assert (await socket.error("run.stop"))["code"] == "run_not_active"
        assert (await socket.error("run.start", input=""))["code"] == "invalid_frame"
        assert (await socket.ok("ping"))["head"] == 0
    listed = await server.get("/api/conversations")
    assert conversation not in {line["conversation_id"] for line in listed["conversations"]}
    page = await server.get(f"/api/conversations/{conversation}/events")
    assert (page["epoch"], page["head"], page["events"], page["at_head"]) == (None, 0, [], True)


async def test_ok_has_the_position_of_what_it_appended(server: Server) -> None:
    async with server.socket() as socket:
        for n in range(3):
            ok = await socket.ok("conversation.configure", config={"title": str(n)})
            await socket.until_seq(ok["at"])
            assert socket.log[ok["at"] - 1]["type"] == "conversation.configured"
            assert ok["version"] == n + 1


async def test_help_has_an_example_of_every_command_that_can_be_sent_as_it_is(server: Server) -> None:
    async with server.socket() as socket:
        entries = (await socket.ok("help"))["commands"]
        assert {entry["type"] for entry in entries} >= {"run.start", "interaction.reply", "conversation.configure"}
        for entry in entries:
            await socket.send(entry["example"])
            while (answer := await socket.recv())["type"] not in ("ok", "error"):
                pass
            assert answer.get("code") not in ("invalid_json", "invalid_frame", "unknown_type"), answer


async def test_a_wrong_type_is_told_the_nearest_one(server: Server) -> None:
    async with server.socket() as socket:
        error = await socket.error("run.strat", input="x")
        assert error["code"] == "unknown_type"
        assert "run.start" in error["message"]
        assert error["path"] == "$.type"
        error = await socket.error("run.start", input="x", when_busy="never")
        assert error["path"] == "$.when_busy"
        assert "queue" in error["message"]


# -- runs ------------------------------------------------------------------------------------------------


async def busy(socket: Socket) -> str:
    """Start a run that goes on until it is stopped; returns its id."""
    started = await socket.ok("run.start", input="/sleep 600")
    await socket.until_seq(started["at"])
    return str(started["run_id"])


async def test_a_second_run_waits_its_turn(server: Server) -> None:
    async with server.socket() as socket:
        first = await socket.ok("run.start", input="/ask go?")
        second = await socket.ok("run.start", input="/say second")
        third = await socket.ok("run.start", input="/say third")
        assert (second["disposition"], third["disposition"]) == ("queued", "queued")
        assert [run["position"] for run in (await socket.ok("snapshot.get"))["snapshot"]["queue"]] == [1, 2]
        await socket.reply(await socket.asked(), "yes")
        await socket.until_final(third["run_id"])
    started = [event["run_id"] for event in socket.of("run.started")]
    assert started == [first["run_id"], second["run_id"], third["run_id"]]
    assert [event["position"] for event in socket.of("run.queued")] == [1, 2]
    finals = [event["seq"] for event in socket.of("run.completed")]
    assert finals[0] < socket.of("run.started")[1]["seq"] < finals[1] < socket.of("run.started")[2]["seq"]


async def test_reject_is_busy_also_while_a_person_is_asked(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/ask go?")
        asked = await socket.asked()
        error = await socket.error("run.start", input="x", when_busy="reject")
        assert (error["code"], error["retryable"]) == ("busy", True)
        await socket.reply(asked, "yes")
        await socket.until_final()
        assert (await socket.ok("run.start", input="x", when_busy="reject"))["disposition"] == "started"
        await socket.until_final()


async def test_interrupt_cancels_the_active_run_and_goes_first(server: Server) -> None:
    async with server.socket() as socket:
        active = await busy(socket)
        waiting = await socket.ok("run.start", input="/say waited")
        urgent = await socket.ok("run.start", input="/say urgent", when_busy="interrupt")
        assert urgent["disposition"] == "queued"
        await socket.until_final(waiting["run_id"])
    assert [e["run_id"] for e in socket.of("run.started")] == [active, urgent["run_id"], waiting["run_id"]]
    [cancelled] = socket.of("run.cancelled")
    assert (cancelled["run_id"], cancelled["reason"]) == (active, "interrupt")


async def test_interrupt_of_a_run_that_waits_for_a_person(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo x")
        await socket.asked()
        urgent = await socket.ok("run.start", input="/say urgent", when_busy="interrupt")
        final = await socket.until_final(urgent["run_id"])
    assert final["output"] == "urgent"
    assert set(terminals(socket.log).values()) == {1}


async def test_steer_is_applied_between_steps(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/ask wait\n/say after")
        asked = await socket.asked()
        steered = await socket.ok("run.steer", text="look left")
        also = await socket.ok("run.start", input="look right", when_busy="steer")
        assert also["disposition"] == "steered"
        await socket.reply(asked, "go")
        final = await socket.until_final()
    events = {(e["steer_id"], e["disposition"]): e for e in socket.of("run.steered")}
    assert set(events) == {(s["steer_id"], d) for s in (steered, also) for d in ("pending", "applied")}
    said = "".join(event["text"] for event in socket.of("message.completed"))
    assert "look left" in said
    assert "look right" in said
    assert final["output"] == "after"


async def test_a_late_steer_becomes_a_run_or_comes_back(server: Server) -> None:
    async with server.socket() as socket:
        final = await socket.run("/say one")
        queued = await socket.ok("run.steer", text="/say late")
        assert queued["run_id"] != final["run_id"]
        late = await socket.until_final(queued["run_id"])
        assert late["output"] == "late"
        error = await socket.error("run.steer", text="x", if_late="return")
        assert error["code"] == "run_not_active"
        assert (await socket.error("run.steer", text="x", run_id="run_none"))["code"] == "run_not_found"


@pytest.mark.parametrize("ending", ["max_steps", "failed"])
async def test_a_steer_that_no_step_is_left_to_hear_is_queued_or_returned(make_server: MakeServer, ending: str) -> None:
    server = make_server(settings='[agents.demo]\nkind = "demo"\nretries = 1\nretry_delay_s = 0.3\n')
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"limits": {"max_steps": 1}})
        await socket.ok(
            "run.start", input="/sleep 0.3\n/say never" if ending == "max_steps" else "/fail model_overloaded 9"
        )
        await socket.until("step.started")
        queued = await socket.ok("run.steer", text="/say on my own")
        returned = await socket.ok("run.steer", text="back to me", if_late="return")
        final = await socket.until_final(queued["run_id"])
        own = await socket.until_final()
    assert final.get("stop_reason", final.get("error", {}).get("code")) in ("max_steps", "model_overloaded")
    assert own["output"] == "on my own"
    seen = {e["steer_id"]: e for e in socket.of("run.steered") if e["disposition"] != "pending"}
    assert len(socket.of("run.steered")) == 4
    assert seen[queued["steer_id"]]["disposition"] == "queued"
    assert seen[queued["steer_id"]]["new_run_id"] == own["run_id"]
    assert seen[returned["steer_id"]]["disposition"] == "returned"


async def test_a_steer_to_a_stopped_run_comes_back(server: Server) -> None:
    async with server.socket() as socket:
        await busy(socket)
        steered = await socket.ok("run.steer", text="never heard")
        await socket.ok("run.stop")
        await socket.until_final()
    seen = [e["disposition"] for e in socket.of("run.steered") if e["steer_id"] == steered["steer_id"]]
    assert seen == ["pending", "returned"]


async def test_stop_of_a_queued_run_cancels_it_and_clear_cancels_all_that_wait(server: Server) -> None:
    async with server.socket() as socket:
        active = await busy(socket)
        one, two, three = [await socket.ok("run.start", input=f"/say {n}") for n in range(3)]
        await socket.ok("run.stop", run_id=two["run_id"])
        assert (await socket.until_final())["run_id"] == two["run_id"]
        assert (await socket.error("run.stop", run_id=two["run_id"]))["code"] == "run_not_active"
        assert (await socket.error("run.stop", run_id="run_none"))["code"] == "run_not_found"
        await socket.ok("run.stop", queue="clear")
        await socket.until_final(active)
        assert (await socket.ok("snapshot.get"))["snapshot"]["run"] is None
    cancelled = [e["run_id"] for e in socket.of("run.cancelled")]
    assert sorted(cancelled) == sorted([active, one["run_id"], two["run_id"], three["run_id"]])
    assert len(socket.of("run.started")) == 1


async def test_stop_keeps_the_queue_unless_told_otherwise(server: Server) -> None:
    async with server.socket() as socket:
        active = await busy(socket)
        waiting = await socket.ok("run.start", input="/say next")
        await socket.ok("run.stop")
        final = await socket.until_final(waiting["run_id"])
        assert socket.of("run.cancelled")[0]["run_id"] == active
    assert final["output"] == "next"


async def test_the_queue_is_bounded(make_server: MakeServer) -> None:
    server = make_server(settings="[sessions]\nqueue_length = 2\n")
    async with server.socket() as socket:
        await busy(socket)
        for _ in range(2):
            await socket.ok("run.start", input="hi")
        for mode in ("queue", "interrupt"):
            error = await socket.error("run.start", input="hi", when_busy=mode)
            assert (error["code"], error["retryable"]) == ("queue_full", True)
        assert not socket.of("run.stopping")
        await socket.ok("run.stop", queue="clear")
        await socket.until("run.cancelled")


async def test_max_steps_ends_a_run(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"limits": {"max_steps": 2}})
        final = await socket.run("/say a\n/say b\n/say c")
    assert (final["type"], final["stop_reason"]) == ("run.completed", "max_steps")
    assert final["output"] == "b"
    assert len(socket.of("step.completed")) == 2


async def test_a_model_that_fails_is_asked_again_and_what_it_said_is_discarded(make_server: MakeServer) -> None:
    server = make_server(settings='[agents.demo]\nkind = "demo"\nretry_delay_s = 0.01\n')
    async with server.socket() as socket:
        final = await socket.run("/fail model_overloaded 1")
        assert final["type"] == "run.completed"
        [discarded] = socket.of("item.discarded")
        assert discarded["reason"] == "retried"
        assert set(terminals(socket.log).values()) == {1}
        failed = await socket.run("/fail model_auth")
        assert (failed["type"], failed["error"]["code"]) == ("run.failed", "model_auth")
        gave_up = await socket.run("/fail model_overloaded 9")
        assert (gave_up["type"], gave_up["error"]["code"]) == ("run.failed", "model_overloaded")
        assert gave_up["error"]["retryable"] is True
    assert set(terminals(socket.log).values()) == {1}


async def test_content_parts_are_an_input(server: Server) -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image", "url": "https://example.com/disk.png"}]
    async with server.socket() as socket:
        final = await socket.run(parts)
        assert socket.of("run.started")[0]["input"] == parts
    assert "look" in final["output"]


async def test_usage_of_a_run_is_the_sum_of_its_steps(server: Server) -> None:
    async with server.socket() as socket:
        final = await socket.run("/say a\n/say b\n/say c")
        snapshot = (await socket.ok("snapshot.get"))["snapshot"]
    steps = socket.of("step.completed")
    assert [step["step"] for step in steps] == [1, 2, 3]
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert final["usage"][name] == sum(step["usage"][name] for step in steps) == snapshot["usage"][name]


# -- configuration ---------------------------------------------------------------------------------------


async def test_configuration_is_a_merge_patch(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"title": "t", "metadata": {"a": 1, "b": {"c": 2}}})
        await socket.ok("conversation.configure", config={"metadata": {"a": None, "b": {"d": 3}}})
        ok = await socket.ok("conversation.configure", config={"title": None, "tools": {"allow": []}})
        snapshot = (await socket.ok("snapshot.get"))["snapshot"]
    assert ok["version"] == 3
    assert snapshot["config"] == {"metadata": {"b": {"c": 2, "d": 3}}, "tools": {"allow": []}}
    assert snapshot["config_version"] == 3
    assert socket.of("conversation.configured")[-1]["config"] == snapshot["config"]


async def test_a_stale_version_is_a_conflict(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"title": "a"}, if_version=0)
        error = await socket.error("conversation.configure", config={"title": "b"}, if_version=0)
        assert error["code"] == "version_conflict"
        assert error["details"]["version"] == 1
        await socket.ok("conversation.configure", config={"title": "b"}, if_version=1)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"tools": {"alow": ["x"]}}, "$.config.tools"),
        ({"approvals": {"mode": "yes"}}, "$.config.approvals.mode"),
        ({"tools": {"allow": "terminal"}}, "$.config.tools.allow"),
        ({"limits": {"max_steps": 0}}, "$.config.limits.max_steps"),
        ({"title": 7}, "$.config.title"),
        ({"agent": "nobody"}, "$.config.agent"),
        ({"approvals": {"rules": [{"tool": "x", "decision": "maybe"}]}}, "$.config.approvals.rules[0].decision"),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused_with_the_place(
    server: Server, config: Json, path: str
) -> None:
    async with server.socket() as socket:
        error = await socket.error("conversation.configure", config=config)
        assert error["path"].startswith(path)
        assert error["code"] in ("invalid_frame", "not_found")
        assert (await socket.ok("ping"))["head"] == 0


async def test_unknown_keys_at_the_top_of_a_configuration_are_ignored_as_everywhere(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"title": "x", "colour": "red"})
        assert (await socket.ok("snapshot.get"))["snapshot"]["config"] == {"title": "x"}


async def test_tools_list_is_what_the_policy_leaves(server: Server) -> None:
    async with server.socket() as socket:
        every = (await socket.ok("tools.list"))["tools"]
        assert {tool["name"] for tool in every} == {
            "terminal",
            "read_file",
            "write_file",
            "edit_file",
            "list_files",
            "search_files",
            "fetch_url",
            "clarify",
        }
        for tool in every:
            assert tool["source"] == "builtin"
            assert tool["parameters"]["type"] == "object"
            assert set(tool["annotations"]) == {"read_only", "idempotent", "destructive"}
        for tools, left in (
            ({"allow": ["builtin:*_file"]}, {"read_file", "write_file", "edit_file"}),
            ({"allow": ["*"], "deny": ["builtin:*_file*", "terminal", "fetch_url"]}, {"clarify"}),
            ({"allow": []}, set()),
            ({"allow": ["mcp:github/*"]}, set()),
        ):
            await socket.ok("conversation.configure", config={"tools": None})
            await socket.ok("conversation.configure", config={"tools": tools})
            assert {tool["name"] for tool in (await socket.ok("tools.list"))["tools"]} == left


async def test_agent_and_instructions_hold_from_the_next_run_on(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/ask go?")
        asked = await socket.asked()
        await socket.ok("conversation.configure", config={"model": "other-model"})
        await socket.reply(asked, "yes")
        await socket.until_final()
        await socket.run("hi")
        assert [event["model"] for event in socket.of("run.started")] == ["demo", "other-model"]
        assert (await socket.error("run.start", input="hi", agent="nobody"))["code"] == "not_found"


# -- fork ------------------------------------------------------------------------------------------------


async def test_a_fork_has_the_history_and_goes_its_own_way(server: Server) -> None:
    conversation, branch = fresh(), fresh("branch")
    async with server.socket(conversation) as socket:
        first = await socket.run("/say one")
        await socket.run("/say two")
        await socket.ok("run.start", input="/run echo x")
        await socket.reply(await socket.asked(), option="conversation")
        await socket.until_final()
        forked = await socket.ok("conversation.fork", after_run=first["run_id"], conversation_id=branch)
        assert forked["conversation_id"] == branch
        again = await socket.error("conversation.fork", conversation_id=branch)
        assert again["code"] == "id_reused"
        assert (await socket.error("conversation.fork", after_run="run_none"))["code"] == "run_not_found"
    log = await server.log(branch)
    assert log[0]["type"] == "conversation.created"
    assert log[0]["conversation_id"] == branch
    assert [e["output"] for e in log if e["type"] == "run.completed"] == ["one"]
    assert first["run_id"] not in json.dumps(log)
    async with server.socket(branch) as socket:
        hello = await socket.recv()
        assert hello["epoch"] == log[0]["epoch"]
        assert (await socket.ok("approvals.list"))["rules"] == []
        assert (await socket.run("/say own"))["output"] == "own"
    assert [e["output"] for e in await server.log(conversation) if e["type"] == "run.completed"][:2] == ["one", "two"]


async def test_a_fork_to_a_new_conversation_is_under_a_name_that_can_be_reached(server: Server) -> None:
    async with server.socket(fresh()) as socket:
        await socket.run("/say one")
        forked = (await socket.ok("conversation.fork", conversation_id="new"))["conversation_id"]
    assert forked != "new"
    assert [e["output"] for e in await server.log(forked) if e["type"] == "run.completed"] == ["one"]


async def test_a_fork_in_the_middle_of_a_run_takes_what_is_finished(server: Server) -> None:
    async with server.socket() as socket:
        await socket.run("/say done")
        active = await busy(socket)
        assert (await socket.error("conversation.fork", after_run=active))["code"] == "busy"
        command_id = new_id()
        forked = await socket.ok("conversation.fork", id=command_id)
        again = await socket.ok("conversation.fork", id=command_id)
        assert again == forked | {"duplicate": True}
        await socket.ok("run.stop")
        await socket.until_final(active)
    log = await server.log(forked["conversation_id"])
    assert len([e for e in log if e["type"] == "run.started"]) == 1
    assert set(terminals(log).values()) == {1}


async def test_there_is_nothing_to_fork_of_a_conversation_that_does_not_exist(server: Server) -> None:
    async with server.socket() as socket:
        assert (await socket.error("conversation.fork"))["code"] == "not_found"
