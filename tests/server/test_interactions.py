"""People in the loop: approvals, questions, edits, scopes, deadlines, races."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeServer
from tests.wire import Json, Server, Socket, fresh, open_interactions, terminals


async def test_an_approval_says_everything_that_is_needed_to_answer_it(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo hi")
        asked = await socket.asked()
        started = socket.of("tool.started")[0]
        assert asked["kind"] == "approval"
        assert asked["call_id"] == started["call_id"]
        assert asked["tool"]["source"] == "builtin"
        assert asked["tool"]["risk"] in ("low", "medium", "high")
        assert [option["id"] for option in asked["options"]] == ["once", "run", "conversation", "always", "deny"]
        assert [option["kind"] for option in asked["options"]] == ["allow"] * 4 + ["deny"]
        for option in asked["options"][1:4]:
            assert option["rule"]["match"] == {"command": "echo hi"}
        assert "rule" not in asked["options"][0]
        assert asked["on_expire"] == {"option": "deny"}
        assert 23 * 3600_000 < asked["expires_at"] - asked["requested_at"] <= 24 * 3600_000
        assert set(asked["answerable_by"]["roles"]) == {"driver", "responder", "admin"}
        waiting = await socket.until("run.waiting")
        assert waiting["interactions"] == [asked["interaction_id"]]
        resolved = await socket.reply(asked, option="deny", comment="not today")
        await socket.until_final()
    assert (resolved["outcome"], resolved["option"], resolved["via"]) == ("answered", "deny", "socket")
    assert resolved["comment"] == "not today"
    [completed] = socket.of("tool.completed")
    assert completed["status"] == "denied"
    assert "not today" in completed["output"]
    assert not socket.of("tool.executing")
    assert socket.of("run.resumed")


async def test_a_high_risk_is_called_one(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run rm -rf ./x")
        asked = await socket.asked()
        assert asked["tool"]["risk"] == "high"
        await socket.reply(asked, option="deny")
        await socket.until_final()


async def test_read_only_tools_are_not_asked_for(server: Server) -> None:
    async with server.socket() as socket:
        final = await socket.run("/tool list_files {}\n/say ok")
    assert final["output"] == "ok"
    assert not socket.of("interaction.requested")


async def test_once_is_for_one_call(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo a\n/run echo a")
        await socket.reply(await socket.asked(), option="once")
        await socket.reply(await socket.asked(), option="deny")
        await socket.until_final()
    assert [call["status"] for call in socket.of("tool.completed")] == ["ok", "denied"]


async def test_run_is_remembered_to_the_end_of_the_run(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo a\n/run echo a\n/run echo b")
        await socket.reply(await socket.asked(), option="run")
        other = await socket.asked()
        assert other["tool"]["arguments"] == {"command": "echo b"}
        rules = (await socket.ok("approvals.list"))["rules"]
        assert [(rule["scope"], rule["rule"]["match"]) for rule in rules] == [("run", {"command": "echo a"})]
        await socket.reply(other, option="deny")
        await socket.until_final()
        assert (await socket.ok("approvals.list"))["rules"] == []
        await socket.ok("run.start", input="/run echo a")
        await socket.reply(await socket.asked(), option="deny")
        await socket.until_final()


async def test_conversation_is_remembered_here_and_can_be_listed_and_revoked(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo a")
        await socket.reply(await socket.asked(), option="conversation")
        await socket.until_final()
        final = await socket.run("/run echo a\n/say again")
        assert final["output"] == "again"
        [rule] = (await socket.ok("approvals.list"))["rules"]
        assert rule["scope"] == "conversation"
        assert rule["by"]["principal"]
        revoked = await socket.ok("approvals.revoke", rule_id=rule["rule_id"])
        assert revoked["rule_id"] == rule["rule_id"]
        assert (await socket.ok("approvals.list"))["rules"] == []
        assert (await socket.error("approvals.revoke", rule_id=rule["rule_id"]))["code"] == "not_found"
        await socket.ok("run.start", input="/run echo a")
        await socket.reply(await socket.asked(), option="deny")
        await socket.until_final()
    async with server.socket() as elsewhere:
        assert (await elsewhere.ok("approvals.list"))["rules"] == []


async def test_always_holds_in_every_conversation_until_it_is_revoked(make_server: MakeServer) -> None:
    server = make_server()
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo everywhere")
        await socket.reply(await socket.asked(), option="always")
        await socket.until_final()
    server.stop()
    server = make_server(data=server.data)
    async with server.socket() as other:
        final = await other.run("/run echo everywhere\n/say done")
        assert final["output"] == "done"
        assert other.of("tool.completed")[0]["status"] == "ok"
        [rule] = (await other.ok("approvals.list"))["rules"]
        assert rule["scope"] == "always"
        await other.ok("approvals.revoke", rule_id=rule["rule_id"])
    async with server.socket() as third:
        await third.ok("run.start", input="/run echo everywhere")
        await third.reply(await third.asked(), option="deny")
        await third.until_final()


async def test_a_remembered_conversation_rule_survives_a_restart(make_server: MakeServer) -> None:
    server, conversation = make_server(), fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/run echo kept")
        await socket.reply(await socket.asked(), option="conversation")
        await socket.until_final()
    server.kill()
    server = make_server(data=server.data)
    async with server.socket(conversation) as socket:
        assert (await socket.run("/run echo kept\n/say done"))["output"] == "done"
        assert len((await socket.ok("approvals.list"))["rules"]) == 1


async def test_a_wrong_digest_is_refused_and_the_question_stays(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo hi")
        asked = await socket.asked()
        reply = {"interaction_id": asked["interaction_id"], "option": "once"}
        error = await socket.error("interaction.reply", **reply, digest="0" * 32)
        assert error["code"] == "digest_mismatch"
        assert open_interactions(socket.log)
        await socket.reply(asked, option="once", digest=asked["digest"])
        await socket.until_final()


async def test_answers_that_do_not_fit_are_refused_with_what_would(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo hi\n/ask Which? | red | blue\n/ask Why?")
        asked = await socket.asked()
        this = {"interaction_id": asked["interaction_id"]}
        for fields, code, path in (
            ({"option": "maybe"}, "invalid_option", "$.option"),
            ({}, "invalid_option", "$.option"),
            ({"option": "ONCE"}, "invalid_option", "$.option"),
            ({"answers": {"answer": "yes"}}, "invalid_answer", "$.answers"),
            ({"option": "deny", "arguments": {"command": "x"}}, "invalid_answer", "$.arguments"),
            ({"option": "once", "arguments": {"command": 7}}, "invalid_answer", "$.arguments"),
            ({"option": "once", "arguments": {}}, "invalid_answer", "$.arguments"),
        ):
            error = await socket.error("interaction.reply", **this, **fields)
            assert (error["code"], error["path"]) == (code, path), error
        await socket.reply(asked, option="once")

        single = await socket.asked()
        this = {"interaction_id": single["interaction_id"]}
        for answers in ({"answer": "green"}, {"answer": ["red"]}, {"answer": None}, {}, {"answer": "red", "more": 1}):
            error = await socket.error("interaction.reply", **this, answers=answers)
            assert error["code"] == "invalid_answer"
            assert error["path"].startswith("$.answers")
        assert (await socket.error("interaction.reply", **this, option="once"))["code"] == "invalid_answer"
        await socket.reply(single, "red")

        text = await socket.asked()
        assert (await socket.error("interaction.reply", interaction_id=text["interaction_id"], answers={"answer": 7}))[
            "code"
        ] == "invalid_answer"
        assert (await socket.error("interaction.reply", interaction_id="int_none", option="once"))[
            "code"
        ] == "interaction_not_found"
        await socket.reply(text, "because")
        final = await socket.until_final()
    assert final["type"] == "run.completed"


async def test_edited_arguments_that_policy_denies_are_refused(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input='/tool write_file {"path": "a.txt", "content": "one"}')
        asked = await socket.asked()
        await socket.reply(asked, option="once", arguments={"path": "b.txt", "content": "two"})
        await socket.until_final()
        assert socket.of("tool.executing")[0]["arguments"]["path"] == "b.txt"
        final = await socket.run("/tool list_files {}")
    assert final["type"] == "run.completed"
    assert "b.txt" in socket.of("tool.completed")[-1]["output"]
    assert "a.txt" not in socket.of("tool.completed")[-1]["output"]


async def test_an_edit_that_raises_the_risk_is_asked_for_again(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo mild")
        first = await socket.asked()
        await socket.reply(first, option="once", arguments={"command": "rm -rf ./nothing"})
        second = await socket.asked()
        assert second["tool"]["arguments"] == {"command": "rm -rf ./nothing"}
        assert second["tool"]["risk"] == "high"
        assert second["digest"] != first["digest"]
        await socket.reply(second, option="once")
        await socket.until_final()
    assert socket.of("tool.executing")[0]["arguments"] == {"command": "rm -rf ./nothing"}


async def test_an_edited_approval_for_good_remembers_what_was_approved(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo shown\n/run echo typed\n/run echo shown")
        await socket.reply(await socket.asked(), option="conversation", arguments={"command": "echo typed"})
        again = await socket.asked()
        assert again["tool"]["arguments"] == {"command": "echo shown"}
        await socket.reply(again, option="deny")
        await socket.until_final()
        [rule] = (await socket.ok("approvals.list"))["rules"]
    assert rule["rule"]["match"] == {"command": "echo typed"}
    assert [call["status"] for call in socket.of("tool.completed")] == ["ok", "ok", "denied"]


async def test_the_first_valid_answer_wins_and_the_others_get_the_resolution(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as one, server.socket(conversation, from_="start") as two:
        await one.greeted()
        await two.greeted()
        await one.ok("run.start", input="/ask Quick? | a | b\n/say end")
        asked = await one.asked()
        await two.asked()
        reply = {"interaction_id": asked["interaction_id"]}
        first, second, third = await asyncio.gather(
            one.command("interaction.reply", **reply, answers={"answer": "a"}),
            two.command("interaction.reply", **reply, answers={"answer": "b"}),
            server.post(conversation, {"type": "interaction.reply", **reply, "answers": {"answer": "b"}}),
        )
        await one.until_final()
        await two.until_final()
    answers = [first, second, third]
    assert sorted(answer["type"] for answer in answers) == ["error", "error", "ok"]
    [resolved] = one.of("interaction.resolved")
    for error in (answer for answer in answers if answer["type"] == "error"):
        assert error["code"] == "interaction_resolved"
        assert error["details"]["resolution"]["answers"] == resolved["answers"]
        assert error["details"]["resolution"]["by"] == resolved["by"]
    assert one.of("interaction.resolved") == two.of("interaction.resolved")


async def test_an_answer_over_http_says_so(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/ask Well?")
        asked = await socket.asked()
        answer = await server.post(
            conversation,
            {"type": "interaction.reply", "interaction_id": asked["interaction_id"], "answers": {"answer": "yes"}},
        )
        assert answer["type"] == "ok"
        resolved = await socket.until("interaction.resolved")
        await socket.until_final()
    assert resolved["via"] == "http"


async def test_a_client_that_named_itself_is_named_in_by(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("client.update", client_id="tab-1", name="A tab")
        final = await socket.run("hi")
    assert socket.of("run.started")[0]["by"]["client_id"] == "tab-1"
    assert final["type"] == "run.completed"


async def test_several_are_open_at_once_and_are_answered_in_any_order(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo one\n/par\n/run echo two\n/par\n/ask Three? | x | y\n/say end")
        while len(open_interactions(socket.log)) < 3:
            await socket.recv()
        by_text = {asked["message"]: asked for asked in open_interactions(socket.log)}
        await socket.reply(by_text["Three?"], "y")
        await socket.reply(by_text["echo two"], option="once")
        assert not socket.of("run.resumed")
        snapshot = (await socket.ok("snapshot.get"))["snapshot"]
        assert [asked["message"] for asked in snapshot["interactions"]] == ["echo one"]
        await socket.reply(by_text["echo one"], option="deny")
        final = await socket.until_final()
    assert final["output"] == "end"
    assert len(socket.of("run.waiting")) == len(socket.of("run.resumed")) == 1
    assert {call["status"] for call in socket.of("tool.completed")} == {"ok", "denied"}
    assert [call["step"] for call in socket.of("tool.started")] == [1, 1, 1]


_SHORT = "[sessions]\ninteraction_timeout_s = 1\n"


async def test_an_approval_that_nobody_answers_refuses_and_a_question_tells_the_model(make_server: MakeServer) -> None:
    server = make_server(settings=_SHORT)
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo no\n/par\n/ask Anybody?\n/say on we go")
        while len(open_interactions(socket.log)) < 2:
            await socket.recv()
        approval, clarify = sorted(open_interactions(socket.log), key=lambda asked: str(asked["kind"]))
        assert clarify["on_expire"] == {"cancel": True}
        final = await socket.until_final()
        assert final["output"] == "on we go"
        late = await socket.error("interaction.reply", interaction_id=approval["interaction_id"], option="once")
    assert late["code"] == "interaction_expired"
    assert late["details"]["resolution"]["outcome"] == "expired"
    outcomes = {e["interaction_id"]: e for e in socket.of("interaction.resolved")}
    assert outcomes[approval["interaction_id"]]["option"] == "deny"
    assert {e["via"] for e in outcomes.values()} == {"timeout"}
    by_name = {call["name"]: call for call in socket.of("tool.completed")}
    assert by_name["terminal"]["status"] == "denied"
    assert "Nobody answered" in by_name["clarify"]["output"]


async def test_a_deadline_of_the_run_does_not_count_while_a_person_is_asked(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/ask Take your time\n/say fine", deadline_ms=700)
        asked = await socket.asked()
        await asyncio.sleep(1.0)
        await socket.reply(asked, "thanks")
        final = await socket.until_final()
    assert (final["type"], final["output"]) == ("run.completed", "fine")


@pytest.mark.parametrize("via", ["command", "config"])
async def test_a_deadline_fails_the_run_and_ends_its_tools(server: Server, via: str) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        fields: Json = {"deadline_ms": 300}
        if via == "config":
            await socket.ok("conversation.configure", config={"limits": {"deadline_ms": 300}})
            fields = {}
        final = await socket.run("/run sleep 77", **fields)
    assert final["type"] == "run.failed"
    assert final["error"]["code"] == "deadline_exceeded"
    assert socket.of("tool.completed")[0]["status"] in ("interrupted", "cancelled")
    assert set(terminals(socket.log).values()) == {1}


async def test_a_tools_own_timeout_ends_it_and_the_run_goes_on(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        final = await socket.run('/tool terminal {"command": "echo begun; sleep 60", "timeout_s": 0.3}\n/say on')
    assert final["output"] == "on"
    [call] = socket.of("tool.completed")
    assert call["status"] == "error"
    assert "begun" in call["output"]
    assert "timed out" in call["output"]


async def test_a_stopped_run_cancels_what_it_asked(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo hi\n/par\n/ask What?")
        while len(open_interactions(socket.log)) < 2:
            await socket.recv()
        asked = open_interactions(socket.log)[0]
        await socket.ok("run.stop")
        await socket.until_final()
        assert {e["outcome"] for e in socket.of("interaction.resolved")} == {"cancelled"}
        assert {e["status"] for e in socket.of("tool.completed")} == {"cancelled"} or {
            e["status"] for e in socket.of("tool.completed")
        } <= {"cancelled", "interrupted"}
        late = await socket.error("interaction.reply", interaction_id=asked["interaction_id"], option="once")
    assert late["code"] == "interaction_resolved"
    assert late["details"]["resolution"]["outcome"] == "cancelled"


async def _modes(socket: Socket, script: str) -> list[str]:
    await socket.run(script)
    return [call["status"] for call in socket.of("tool.completed")]


async def test_mode_deny_refuses_what_would_ask_and_runs_what_only_reads(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "deny"}})
        assert await _modes(socket, "/run echo hi\n/tool list_files {}") == ["denied", "ok"]
        assert not socket.of("interaction.requested")


async def test_rules_come_before_the_mode_and_deny_wins(server: Server) -> None:
    rules = [{"tool": "builtin:write_*", "decision": "allow"}, {"tool": "list_files", "decision": "deny"}]
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"rules": rules}})
        script = '/tool write_file {"path": "x", "content": "y"}\n/tool list_files {}'
        assert await _modes(socket, script) == ["ok", "denied"]


async def test_a_run_narrows_its_tools_and_never_widens_them(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"tools": {"allow": ["list_files", "search_files"]}})
        await socket.run('/tool list_files {}\n/tool search_files {"pattern": "x"}', tools={"deny": ["search_*"]})
        await socket.run('/tool read_file {"path": "x"}', tools={"allow": ["read_file"]})
        await socket.run("/tool list_files {}")
    assert [call["status"] for call in socket.of("tool.completed")] == ["ok", "denied", "denied", "ok"]


async def test_the_ceiling_of_the_operator_holds(make_server: MakeServer) -> None:
    server = make_server(settings='[approvals]\nceiling = "ask"\n')
    async with server.socket() as socket:
        error = await socket.error("conversation.configure", config={"approvals": {"mode": "auto"}})
        assert error["code"] == "not_permitted"
        assert "mode" in error["path"]
        rules = [{"tool": "terminal", "decision": "allow"}]
        error = await socket.error("conversation.configure", config={"approvals": {"rules": rules}})
        assert error["code"] == "not_permitted"
        assert (await socket.ok("ping"))["head"] == 0
        await socket.ok("run.start", input="/run echo hi")
        await socket.reply(await socket.asked(), option="once")
        await socket.until_final()


async def test_an_operator_widens_the_rule_for_the_terminal_and_it_is_shown(make_server: MakeServer) -> None:
    server = make_server(settings='[approvals]\nterminal_rule = "program"\n')
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo a\n/run echo b\n/run echo a; echo c")
        asked = await socket.asked()
        assert asked["options"][1]["rule"]["match"] == {"program": "echo"}
        await socket.reply(asked, option="run")
        other = await socket.asked()
        assert other["tool"]["arguments"] == {"command": "echo a; echo c"}
        await socket.reply(other, option="deny")
        await socket.until_final()
    assert [call["status"] for call in socket.of("tool.completed")] == ["ok", "ok", "denied"]
