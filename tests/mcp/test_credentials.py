"""Credentials of MCP servers: asked for when they are refused, put in force, kept sealed, and never sent elsewhere."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.faults.launch import CLOCK, SLOW_DISK
from tests.mcp.conftest import MakeUgly
from tests.mcp.gateway import AUTO_SETTINGS, configure, crm, outputs, results, status, told
from tests.mcp.running import OfficialServer
from tests.mcp.ugly.server import Exchange, Json, initialize, switch, text_result
from tests.wire import Server, Socket, fresh, open_interactions, soon, wait_for

ADD = '/tool add {"a": 1, "b": 2}'
NOTE = '/tool add_note {"customer_id": "c1", "text": "n"}'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that reaches MCP servers on this machine, shared by the tests of this file."""
    running = Server.start(tmp_path_factory.mktemp("gateway"), settings=AUTO_SETTINGS)
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, running.errors
    assert "Traceback" not in running.errors, running.errors


def authorizations(official: OfficialServer, **wanted: Any) -> list[str | None]:
    """What came with the requests, oldest first, repetitions left out."""
    every = [entry["authorization"] for entry in official.seen(kind="request", **wanted)]
    return [one for n, one in enumerate(every) if n == 0 or every[n - 1] != one]


async def asked_for_credentials(socket: Socket) -> Json:
    """The question that is open; it shows no value."""
    question = await socket.asked()
    assert question["kind"] == "clarify"
    [only] = question["questions"]
    assert (only["type"], only["required"]) == ("secret", False)
    assert "crm" in question["title"]
    return question


async def told_state(socket: Socket, state: str) -> None:
    """Receive until the server is in this state."""
    async with soon():
        while status(socket.log)[-1:] != [state]:
            await socket.recv()


async def began(socket: Socket, script: str) -> str:
    run_id: str = (await socket.ok("run.start", input=script))["run_id"]
    return run_id


async def refuse(x: Exchange) -> None:
    """A plain 401."""
    await x.answer(b"no", status="401 Unauthorized", content_type="text/plain")


# -- refused from the start ----------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["wrong", None])
async def test_a_401_before_the_tools_are_known_asks_in_the_run_which_then_goes_on_with_them(
    gateway: Server, official: OfficialServer, token: str | None
) -> None:
    official.tokens("good")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, token))
        run = await began(socket, ADD)
        question = await asked_for_credentials(socket)
        assert question["run_id"] == run
        assert official.url in question["message"]
        assert "Authorization" in question["message"]
        assert question["answerable_by"]["roles"] == ["driver", "admin"]
        assert status(socket.log) == ["starting", "auth_required"]
        resolved = await socket.reply(question, "good")
        assert "good" not in json.dumps(resolved["answers"])
        final = await socket.until_final()
        assert (final["type"], final["run_id"]) == ("run.completed", run)
        assert [event["status"] for event in results(socket.log)] == ["ok"]
        assert status(socket.log)[-2:] == ["starting", "ready"]
    assert authorizations(official) == [f"Bearer {token}" if token else None, "Bearer good"]


async def test_the_answer_is_a_new_version_of_the_configuration_by_whoever_gave_it(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("good")
    conversation = fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, "wrong", timeout_ms=5_000))
        before = told(socket.log, "conversation.configured")
        await began(socket, ADD)
        await asked_for_credentials(socket)
        async with gateway.http() as http:
            wanted = {"conversation": conversation, "principal": "ann", "role": "driver"}
            ticket = (await http.post("/api/tickets", json=wanted)).json()["ticket"]
        async with gateway.socket(conversation, key="", ticket=ticket) as ann:
            snapshot = await ann.until("snapshot")
            [question] = snapshot["interactions"]
            await ann.reply(question, "good")
        await socket.until_final()
        after = told(socket.log, "conversation.configured")
    assert after["by"] == {"principal": "ann"}
    assert after["version"] == before["version"] + 1
    markers = [event["config"]["mcp_servers"]["crm"]["headers"]["Authorization"] for event in (before, after)]
    assert [marker["set"] for marker in markers] == [True, True]
    assert markers[0]["fingerprint"] != markers[1]["fingerprint"]
    assert after["config"]["mcp_servers"]["crm"]["timeout_ms"] == 5_000


@pytest.mark.parametrize(
    ("answer", "sent"), [("good", "Bearer good"), ("Bearer good", "Bearer good"), ("  good\n", "Bearer good")]
)
async def test_a_token_alone_is_sent_as_a_bearer_token(
    gateway: Server, official: OfficialServer, answer: str, sent: str
) -> None:
    official.tokens("good")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url))
        await began(socket, ADD)
        await socket.reply(await asked_for_credentials(socket), answer)
        await socket.until_final()
    assert authorizations(official)[-1] == sent


async def test_a_wrong_answer_is_asked_for_again(gateway: Server, official: OfficialServer) -> None:
    official.tokens("good")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "wrong"))
        await began(socket, ADD)
        first = await asked_for_credentials(socket)
        await socket.reply(first, "worse")
        second = await asked_for_credentials(socket)
        assert second["interaction_id"] != first["interaction_id"]
        await socket.reply(second, "good")
        await socket.until_final()
        assert [event["status"] for event in results(socket.log)] == ["ok"]
    assert authorizations(official) == ["Bearer wrong", "Bearer worse", "Bearer good"]


async def test_who_keeps_answering_wrong_is_not_asked_for_ever(gateway: Server, official: OfficialServer) -> None:
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "wrong"))
        run = await began(socket, f"{ADD}\n/say on with it")
        answered = 0
        while not any(event.get("run_id") == run for event in socket.of("run.completed")):
            if questions := open_interactions(socket.log):
                answered += 1
                await socket.reply(questions[0], f"wrong-{answered}")
            else:
                await socket.recv()
        assert 2 <= answered <= 12
        assert results(socket.log)[0]["status"] == "error"


async def test_an_answer_that_no_header_can_have_is_not_sent_and_asked_for_again(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("good")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "wrong"))
        await began(socket, ADD)
        await socket.reply(await asked_for_credentials(socket), "two\nlines: of it")
        await socket.reply(await asked_for_credentials(socket), "good")
        final = await socket.until_final()
        assert final["type"] == "run.completed", final
        assert [event["status"] for event in results(socket.log)] == ["ok"]


@pytest.mark.parametrize("how", ["empty", "expired"])
async def test_without_an_answer_the_run_goes_on_without_the_server_and_the_next_run_asks_again(
    make_server: MakeServer, gateway: Server, official: OfficialServer, how: str
) -> None:
    official.tokens("good")
    if how == "expired":
        gateway = make_server(settings=AUTO_SETTINGS + "[sessions]\ninteraction_timeout_s = 1\n")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "wrong"))
        await began(socket, f"{ADD}\n/say on with it")
        question = await asked_for_credentials(socket)
        if how == "empty":
            await socket.reply(question, "")
        final = await socket.until_final()
        assert (final["type"], final["output"]) == ("run.completed", "on with it")
        [ended] = results(socket.log)
        assert ended["status"] == "error"
        assert len(socket.of("interaction.requested")) == 1
        await began(socket, ADD)
        if how == "empty":
            await socket.reply(await asked_for_credentials(socket), "good")
            await socket.until_final()
            assert results(socket.log)[-1]["status"] == "ok"
        else:
            await asked_for_credentials(socket)
            await socket.until_final()


async def test_the_model_is_told_which_server_wants_credentials(gateway: Server, official: OfficialServer) -> None:
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "wrong"))
        await began(socket, "/tool mcp:crm/add {}")
        await socket.reply(await asked_for_credentials(socket), "")
        await socket.until_final()
        [output] = outputs(socket.log)
    assert "crm" in output
    assert "credentials" in output


async def test_two_servers_that_refuse_are_asked_for_side_by_side(gateway: Server, official: OfficialServer) -> None:
    official.tokens("left", "right")
    servers = {name: {"url": official.url} for name in ("left", "right")}
    async with gateway.socket(fresh()) as socket:
        await configure(socket, {"mcp_servers": servers})
        await began(socket, '/tool mcp:left/add {"a": 1, "b": 1}\n/tool mcp:right/add {"a": 1, "b": 1}')
        while len(open_interactions(socket.log)) < 2:
            await socket.recv()
        for question in open_interactions(socket.log):
            await socket.reply(question, question["title"].split()[-1])
        await socket.until_final()
        assert [event["status"] for event in results(socket.log)] == ["ok", "ok"]
    assert [entry["authorization"] for entry in official.seen(tool="add")] == ["Bearer left", "Bearer right"]


# -- refused in the middle -----------------------------------------------------------------------------------


async def test_a_401_in_the_middle_asks_in_the_call_which_is_then_made_once(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("good")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "good"))
        await socket.run(ADD)
        official.tokens("better")
        run = await began(socket, NOTE)
        question = await asked_for_credentials(socket)
        [call] = [event for event in socket.of("tool.started") if event["run_id"] == run]
        assert question["call_id"] == call["call_id"]
        await socket.reply(question, "better")
        await socket.until_final(run)
        assert results(socket.log)[-1]["status"] == "ok"
    assert [n["text"] for n in official.tenants()["better"]["notes"]] == ["n"]
    assert len(official.seen(kind="effect")) == 1


async def test_several_calls_that_are_refused_at_once_ask_once(gateway: Server, official: OfficialServer) -> None:
    official.tokens("good")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "good"))
        await socket.run(ADD)
        official.tokens("better")
        run = await began(socket, "\n/par\n".join([NOTE] * 6))
        await socket.reply(await asked_for_credentials(socket), "better")
        final = await socket.until_final(run)
        assert final["type"] == "run.completed"
        assert len(socket.of("interaction.requested")) == 1
        assert [event["status"] for event in results(socket.log)[1:]] == ["ok"] * 6
    assert len(official.seen(kind="effect")) == 6


async def test_several_calls_that_are_refused_and_get_nothing_ask_once_too(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("good")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "good"))
        await socket.run(ADD)
        official.tokens("better")
        run = await began(socket, "\n/par\n".join([NOTE] * 6))
        await socket.reply(await asked_for_credentials(socket), "")
        await socket.until_final(run)
        assert len(socket.of("interaction.requested")) == 1
        assert {event["status"] for event in results(socket.log)[1:]} == {"error"}
    assert all("401" in output for output in outputs(socket.log)[1:])


@pytest.mark.parametrize("refuses", ["at the start", "in the middle"])
async def test_a_token_that_is_configured_while_the_question_is_open_is_used(
    gateway: Server, official: OfficialServer, refuses: str
) -> None:
    official.tokens("good")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "wrong" if refuses == "at the start" else "good"))
        if refuses == "in the middle":
            await socket.run(ADD)
        official.tokens("better")
        run = await began(socket, ADD)
        question = await asked_for_credentials(socket)
        await configure(socket, crm(official.url, "better"))
        if question in open_interactions(socket.log):
            await socket.command("interaction.reply", interaction_id=question["interaction_id"], answers={})
        final = await socket.until_final(run)
        assert final["type"] == "run.completed"
        assert results(socket.log)[-1]["status"] == "ok"
    assert authorizations(official)[-1] == "Bearer better"


async def test_a_stop_while_the_question_is_open_ends_the_run(gateway: Server, official: OfficialServer) -> None:
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "wrong"))
        await began(socket, ADD)
        question = await asked_for_credentials(socket)
        await socket.ok("run.stop")
        assert (await socket.until_final())["type"] == "run.cancelled"
        assert open_interactions(socket.log) == []
        late = await socket.error("interaction.reply", interaction_id=question["interaction_id"], answers={})
        assert late["code"] == "interaction_resolved"


# -- who may answer ------------------------------------------------------------------------------------------


async def test_a_responder_may_not_answer_it(gateway: Server, official: OfficialServer) -> None:
    official.tokens("good")
    conversation = fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, "wrong"))
        await began(socket, ADD)
        question = await asked_for_credentials(socket)
        async with gateway.http() as http:
            wanted = {"conversation": conversation, "principal": "eve", "role": "responder"}
            ticket = (await http.post("/api/tickets", json=wanted)).json()["ticket"]
        async with gateway.socket(conversation, key="", ticket=ticket) as eve:
            given = {"interaction_id": question["interaction_id"], "answers": {"answer": "good"}}
            refused = await eve.error("interaction.reply", **given)
            assert refused["code"] == "not_permitted"
            mine = await eve.error("conversation.configure", config=crm(official.url, "good"))
            assert mine["code"] == "not_permitted"
        assert "Bearer good" not in authorizations(official)
        await socket.reply(question, "good")
        await socket.until_final()
        assert results(socket.log)[-1]["status"] == "ok"


async def test_it_is_found_and_answered_over_http(gateway: Server, official: OfficialServer) -> None:
    official.tokens("good")
    conversation = fresh()
    await gateway.post(conversation, {"type": "conversation.configure", "config": crm(official.url, "wrong")})
    async with gateway.socket(conversation) as socket:
        await began(socket, ADD)
        await asked_for_credentials(socket)
        [mine] = open_interactions(await gateway.log(conversation))
        answer = {"type": "interaction.reply", "interaction_id": mine["interaction_id"], "answers": {"answer": "good"}}
        assert (await gateway.post(conversation, answer))["type"] == "ok"
        await socket.until_final()
        assert results(socket.log)[-1]["status"] == "ok"


# -- what stays ----------------------------------------------------------------------------------------------


async def test_the_answer_is_kept_for_the_next_run_and_the_next_life_of_the_server(
    make_server: MakeServer, official: OfficialServer
) -> None:
    official.tokens("good")
    gateway, conversation = make_server(settings=AUTO_SETTINGS), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, "wrong"))
        await began(socket, ADD)
        await socket.reply(await asked_for_credentials(socket), "good")
        await socket.until_final()
        await socket.run(ADD)
    gateway.kill()
    again = make_server(settings=AUTO_SETTINGS, data=gateway.data)
    async with again.socket(conversation, from_="start") as socket:
        await socket.run(ADD)
        assert len(socket.of("interaction.requested")) == 1
        assert [event["status"] for event in results(socket.log)] == ["ok"] * 3
    assert authorizations(official) == ["Bearer wrong", "Bearer good"]


@pytest.mark.parametrize("refuses", ["at the start", "in the middle"])
async def test_a_crash_while_the_question_is_open_asks_again_and_the_run_goes_on(
    make_server: MakeServer, official: OfficialServer, refuses: str
) -> None:
    official.tokens("good")
    gateway, conversation = make_server(settings=AUTO_SETTINGS), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, "wrong" if refuses == "at the start" else "good"))
        if refuses == "in the middle":
            await socket.run(ADD)
        official.tokens("better")
        run = await began(socket, f"{ADD}\n/say done")
        await asked_for_credentials(socket)
    gateway.kill()
    again = make_server(settings=AUTO_SETTINGS, data=gateway.data)
    async with again.socket(conversation, from_="start") as socket:
        await socket.greeted()
        await socket.reply(await asked_for_credentials(socket), "better")
        final = await socket.until_final(run)
        assert (final["type"], final["run_id"], final["output"]) == ("run.completed", run, "done")
        assert results(socket.log)[-1]["status"] == "ok"
        assert open_interactions(socket.log) == []
    assert authorizations(official)[-1] == "Bearer better"


@switch("gated", "initialize")
async def refuse_at_the_gate(x: Exchange) -> None:
    """From when it is told, the token "good" is refused; and not before the gate opens."""
    if x.options["refusing"].is_set() and x.headers["authorization"] == "Bearer good":
        await asyncio.to_thread(x.options["gate"].wait)
        await refuse(x)
    else:
        await initialize(x)


@switch("gated", "tools/call")
async def refuse_when_told(x: Exchange) -> None:
    if x.options["refusing"].is_set() and x.headers["authorization"] == "Bearer good":
        await refuse(x)
    else:
        await x.result(text_result("fine"))


async def test_an_answer_that_is_being_written_down_while_its_call_looks_for_it_is_heard(
    make_server: MakeServer, make_ugly: MakeUgly
) -> None:
    refusing, gate = threading.Event(), threading.Event()
    server = make_ugly("gated", refusing=refusing, gate=gate)
    gateway, conversation = make_server(settings=AUTO_SETTINGS), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(server.url, "good"))
        await socket.run("/tool tool {}")
        refusing.set()
        await began(socket, "/tool tool {}")
        await asked_for_credentials(socket)
    gateway.kill()
    begun = server.methods().count("initialize")
    slow: Any = {"environment": {SLOW_DISK: "150"}, "module": "tests.faults.launch"}
    again = make_server(settings=AUTO_SETTINGS, data=gateway.data, **slow)
    try:
        async with again.socket(conversation, from_="start") as socket:
            question = await asked_for_credentials(socket)
            await wait_for(lambda: server.methods().count("initialize") > begun)
            answer = {"interaction_id": question["interaction_id"], "answers": {"answer": "better"}}
            await socket.send({"type": "interaction.reply", **answer})
            await socket.ok("ping")
            gate.set()
            await socket.until_final()
            assert len(socket.of("interaction.requested")) == 1
            assert [event["status"] for event in results(socket.log)] == ["ok", "ok"]
    finally:
        gate.set()


async def test_a_writing_call_that_was_refused_and_then_cut_off_by_a_crash_is_not_made_twice(
    make_server: MakeServer, official: OfficialServer
) -> None:
    official.tokens("good")
    gateway, conversation = make_server(settings=AUTO_SETTINGS), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, "good"))
        await socket.run(ADD)
        official.tokens("better")
        run = await began(socket, f"{NOTE}\n/say done")
        await asked_for_credentials(socket)
    gateway.kill()
    again = make_server(settings=AUTO_SETTINGS, data=gateway.data)
    async with again.socket(conversation, from_="start") as socket:
        await socket.greeted()
        async with soon():
            while not any(event["run_id"] == run for event in socket.of("run.completed")):
                if questions := open_interactions(socket.log):  # it may be withdrawn in this moment
                    given = {"interaction_id": questions[0]["interaction_id"], "answers": {"answer": "better"}}
                    await socket.command("interaction.reply", **given)
                else:
                    await socket.recv()
        assert open_interactions(socket.log) == []
    assert len(official.seen(kind="effect")) <= 1


async def test_stored_tokens_are_good_after_a_restart_with_the_same_key_in_a_setting(
    make_server: MakeServer, official: OfficialServer
) -> None:
    official.tokens("a-token-of-some-length")
    settings = AUTO_SETTINGS + '[secrets]\nkey = "0123456789abcdef"\n'
    gateway, conversation = make_server(settings=settings), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, "a-token-of-some-length"))
    gateway.kill()
    files = [file for file in gateway.data.rglob("*") if file.is_file()]
    assert not any(b"a-token-of-some-length" in file.read_bytes() for file in files)
    assert not (gateway.data / "hermes-ws.secrets-key").exists()
    again = make_server(settings=settings, data=gateway.data)
    async with again.socket(conversation, from_="start") as socket:
        await socket.run(ADD)
        assert [event["status"] for event in results(socket.log)] == ["ok"]
        assert socket.of("interaction.requested") == []


@pytest.mark.parametrize(("header", "scheme"), [("Authorization", "Bearer "), ("X-Api-Key", "")])
async def test_with_another_key_for_secrets_the_server_is_not_spoken_to_before_they_are_given_anew(
    make_server: MakeServer, make_ugly: MakeUgly, header: str, scheme: str
) -> None:
    open_to_all = make_ugly("polite")
    patch = {"mcp_servers": {"crm": {"url": open_to_all.url, "headers": {header: f"{scheme}first"}}}}
    gateway, conversation = make_server(settings=AUTO_SETTINGS + '[secrets]\nkey = "0123456789abcdef"\n'), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, patch)
        await socket.run("/tool tool {}")
    gateway.kill()
    before = len(open_to_all.seen)
    again = make_server(settings=AUTO_SETTINGS + '[secrets]\nkey = "fedcba9876543210"\n', data=gateway.data)
    async with again.socket(conversation, from_="start") as socket:
        await began(socket, "/tool tool {}")
        question = await asked_for_credentials(socket)
        assert header in question["message"]
        state = told(socket.log, "mcp.status")
        assert state["state"] == "auth_required"
        assert "key" in state["error"]
        assert open_to_all.seen[before:] == []
        await socket.reply(question, "second")
        await socket.until_final()
        assert [event["status"] for event in results(socket.log)] == ["ok", "ok"]
    assert {entry["headers"].get(header.lower()) for entry in open_to_all.seen[before:]} == {f"{scheme}second"}
    assert "secrets.unreadable" in again.errors


# -- other headers -------------------------------------------------------------------------------------------


async def test_the_one_header_that_there_is_is_the_one_that_is_asked_for(gateway: Server, make_ugly: MakeUgly) -> None:
    refusing = make_ugly("unauthorized_always")
    async with gateway.socket(fresh()) as socket:
        patch = {"url": refusing.url, "headers": {"X-Api-Key": "wrong"}}
        await configure(socket, {"mcp_servers": {"crm": patch}})
        await began(socket, "/tool tool {}")
        question = await asked_for_credentials(socket)
        assert "X-Api-Key" in question["message"]
        await socket.reply(question, "right")
        await socket.reply(await asked_for_credentials(socket), "")
        await socket.until_final()
    keys = [entry["headers"]["x-api-key"] for entry in refusing.seen]
    assert (keys[0], keys[-1]) == ("wrong", "right")
    assert all("authorization" not in entry["headers"] for entry in refusing.seen)


async def test_a_403_is_an_error_and_no_question(gateway: Server, make_ugly: MakeUgly) -> None:
    forbidding = make_ugly("forbidden")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(forbidding.url, "known"))
        await socket.run("/tool tool {}")
        assert socket.of("interaction.requested") == []
        assert "403" in outputs(socket.log)[0]


switch("refuses_to_be_listened_to", "GET")(refuse)


@switch("refuses_to_be_listened_to", "tools/call")
async def break_in_call(x: Exchange) -> None:
    await x.answer(b"broken", status="500 Internal Server Error", content_type="text/plain")


async def test_a_call_that_broke_is_not_made_again_because_something_else_was_refused(
    gateway: Server, make_ugly: MakeUgly
) -> None:
    server = make_ugly("refuses_to_be_listened_to")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(server.url, "known"))
        await began(socket, "/tool tool {}\n/tool tool {}")
        async with soon():
            while not socket.of("run.completed") and not socket.of("interaction.requested"):
                await socket.recv()
        assert socket.of("interaction.requested") == []
        assert [event["status"] for event in results(socket.log)] == ["error", "error"]
    assert server.methods().count("tools/call") == 2


@switch("refuses_one_and_breaks_the_other", "tools/call")
async def refuse_or_break(x: Exchange) -> None:
    """The one called "refused" is; the other has done what it does, and then breaks."""
    if x.params["arguments"].get("refused") and x.headers["authorization"] == "Bearer wrong":
        await refuse(x)
    elif x.params["arguments"].get("refused"):
        await x.result(text_result("fine"))
    else:
        await break_in_call(x)


async def test_calls_side_by_side_are_judged_each_by_its_own_answer(gateway: Server, make_ugly: MakeUgly) -> None:
    server = make_ugly("refuses_one_and_breaks_the_other")
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(server.url, "wrong"))
        breaking = ["/tool tool {}"] * 4
        await began(socket, "\n/par\n".join(['/tool tool {"refused": true}', *breaking]))
        await socket.reply(await asked_for_credentials(socket), "right")
        await socket.until_final()
        assert sorted(event["status"] for event in results(socket.log)) == ["error"] * 4 + ["ok"]
    made = [entry["message"]["params"]["arguments"] for entry in server.seen if entry["method"] == "tools/call"]
    assert made.count({}) == 4


async def test_tools_list_does_not_ask_and_says_what_is_wrong(gateway: Server, official: OfficialServer) -> None:
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, "wrong"))
        tools = (await socket.ok("tools.list"))["tools"]
        assert {t["source"] for t in tools} == {"builtin"}
        await socket.ok("ping")
        assert socket.of("interaction.requested") == []
        await told_state(socket, "auth_required")
        assert "401" in told(socket.log, "mcp.status")["error"]


async def test_a_question_that_nobody_answered_for_a_day_expires_after_a_restart_too(
    make_server: MakeServer, official: OfficialServer, tmp_path: Any
) -> None:
    official.tokens("good")
    clock = tmp_path / "clock"
    clock.write_text("0")
    options = {"settings": AUTO_SETTINGS, "environment": {CLOCK: str(clock)}, "module": "tests.faults.launch"}
    gateway, conversation = make_server(**options), fresh()
    async with gateway.socket(conversation) as socket:
        await configure(socket, crm(official.url, "wrong"))
        await began(socket, f"{ADD}\n/say on with it")
        await asked_for_credentials(socket)
    gateway.kill()
    clock.write_text(str(25 * 3600 * 1000))
    again = make_server(data=gateway.data, **options)
    async with again.socket(conversation, from_="start") as socket:
        await socket.greeted()
        final = socket.of("run.completed")[0] if socket.of("run.completed") else await socket.until_final()
        assert final["output"] == "on with it"
        assert [event["outcome"] for event in socket.of("interaction.resolved")] == ["expired"]


async def test_parallel_conversations_are_asked_each_for_its_own(gateway: Server, official: OfficialServer) -> None:
    official.tokens("token-1", "token-2", "token-3")

    async def one(n: int) -> None:
        async with gateway.socket(fresh()) as socket:
            await configure(socket, crm(official.url))
            await began(socket, f'/tool add_note {{"customer_id": "c1", "text": "{n}"}}')
            await socket.reply(await asked_for_credentials(socket), f"token-{n}")
            await socket.until_final()

    await asyncio.gather(*map(one, (1, 2, 3)))
    notes = {token: tenant["notes"] for token, tenant in official.tenants().items() if token}
    assert {token: [n["text"] for n in written] for token, written in notes.items()} == {
        f"token-{n}": [str(n)] for n in (1, 2, 3)
    }
