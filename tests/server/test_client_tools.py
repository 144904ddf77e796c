"""Tools that a client at a socket executes: offered by ``client.update``, one owner a call, and what if it is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.wire import Json, Server, Socket, fresh, open_interactions, terminals

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Json = {"name": "weather", "description": "Looks out of the window.", "parameters": CITY}
CALL = '/tool weather {"city": "Oslo"}\n/say done'


async def offers(socket: Socket, client_id: str = "tab-1", *tools: Json, **fields: Any) -> Json:
    """What the client says of itself once it is connected."""
    return await socket.ok("client.update", client_id=client_id, tools=list(tools or [WEATHER]), **fields)


async def answers(socket: Socket, asked: Json, output: str = "Rain.", **fields: Any) -> Json:
    content = {"output": output, **fields}
    return await socket.command("interaction.reply", interaction_id=asked["interaction_id"], content=content)


async def completed(socket: Socket) -> Json:
    """The outcome of the first call."""
    while not socket.of("tool.completed"):
        await socket.recv()
    return socket.of("tool.completed")[0]


# -- from the offer to the result -----------------------------------------------------------------------


async def test_a_client_executes_the_call_and_the_run_goes_on_with_what_it_says(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket, name="Ann's laptop")
        await socket.ok("run.start", input=CALL)
        asked = await socket.asked()
        [started] = socket.of("tool.started")
        assert started["source"] == "client"
        assert started["owner"] == asked["owner"]
        assert asked["kind"] == "client_tool"
        assert asked["call_id"] == started["call_id"]
        assert asked["tool"]["arguments"] == {"city": "Oslo"}
        assert asked["owner"] == {
            "principal": "owner",
            "client_id": "tab-1",
            "name": "Ann's laptop",
            "if_gone": "fail",
            "grace_ms": 30_000,
        }
        assert (await answers(socket, asked))["type"] == "ok"
        final = await socket.until_final()
    assert final["output"] == "done"
    [call] = socket.of("tool.completed")
    assert (call["status"], call["output"]) == ("ok", "Rain.")
    [resolved] = socket.of("interaction.resolved")
    assert resolved["by"] == {"principal": "owner", "client_id": "tab-1"}
    assert set(terminals(socket.log).values()) == {1}


async def test_nobody_is_asked_for_leave_since_the_client_judges_for_itself(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("run.start", input=CALL)
        asked = await socket.asked()
        assert asked["kind"] == "client_tool"
        await answers(socket, asked)
        await socket.until_final()


async def test_a_failure_that_the_client_tells_is_the_calls_error(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("run.start", input=CALL)
        await answers(socket, await socket.asked(), "The window is shut.", is_error=True)
        await socket.until_final()
    [call] = socket.of("tool.completed")
    assert (call["status"], call["output"]) == ("error", "The window is shut.")


async def test_an_answer_that_is_no_result_is_refused_and_the_call_stays_open(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("run.start", input=CALL)
        asked = await socket.asked()
        refused = await socket.error(
            "interaction.reply", interaction_id=asked["interaction_id"], content={"result": "Rain."}
        )
        assert (refused["code"], refused["path"]) == ("invalid_answer", "$.content")
        await answers(socket, asked)
        assert (await socket.until_final())["type"] == "run.completed"


async def test_what_is_offered_is_listed_and_what_is_withdrawn_is_not(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket, "tab-1", WEATHER, {"name": "time"})
        tools = {tool["name"]: tool for tool in (await socket.ok("tools.list"))["tools"] if tool["source"] == "client"}
        assert tools.keys() == {"weather", "time"}
        assert tools["weather"]["parameters"] == CITY
        await socket.ok("client.update", client_id="tab-1", tools=[WEATHER])
        tools_now = [tool["name"] for tool in (await socket.ok("tools.list"))["tools"] if tool["source"] == "client"]
        assert tools_now == ["weather"]
        await socket.ok("client.update", client_id="tab-1")  # absent: as before
        assert any(tool["source"] == "client" for tool in (await socket.ok("tools.list"))["tools"])
        await socket.ok("client.update", client_id="tab-1", tools=[])
        assert not any(tool["source"] == "client" for tool in (await socket.ok("tools.list"))["tools"])


async def test_a_conversation_that_denies_them_has_none(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("conversation.configure", config={"tools": {"deny": ["client:*"]}})
        assert not any(tool["source"] == "client" for tool in (await socket.ok("tools.list"))["tools"])
        await socket.run(CALL)
    [call] = socket.of("tool.completed")
    assert call["status"] == "denied"


@pytest.mark.parametrize("allow", [[], ["builtin:*"], ["client:time"]])
async def test_an_allowlist_holds_for_them_too(server: Server, allow: list[str]) -> None:
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("conversation.configure", config={"tools": {"allow": allow}})
        assert not any(tool["name"] == "weather" for tool in (await socket.ok("tools.list"))["tools"])
        await socket.run(CALL)
    assert socket.of("tool.completed")[0]["status"] == "denied"


async def test_an_allowlist_that_names_them_lets_them_be(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("conversation.configure", config={"tools": {"allow": ["client:weather"]}})
        await socket.ok("run.start", input=CALL)
        await answers(socket, await socket.asked())
        assert (await completed(socket))["status"] == "ok"


async def test_tools_of_one_conversation_are_not_anothers(server: Server) -> None:
    async with server.socket() as one, server.socket() as other:
        await offers(one)
        assert not any(tool["source"] == "client" for tool in (await other.ok("tools.list"))["tools"])


# -- one owner ------------------------------------------------------------------------------------------


async def test_nobody_but_the_owner_may_answer(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as owner, server.socket(conversation) as other:
        await offers(owner)
        await offers(other, "tab-2", {"name": "time"})
        await owner.ok("run.start", input=CALL)
        asked = await owner.asked()
        refused = await answers(other, asked, "Sun!")
        assert refused["code"] == "not_permitted"
        assert "tab-1" in refused["message"]
        by_http = {
            "type": "interaction.reply",
            "interaction_id": asked["interaction_id"],
            "content": {"output": "Snow!"},
        }
        assert (await server.post(conversation, by_http))["code"] == "not_permitted"
        assert (await answers(owner, asked))["type"] == "ok"
        await owner.until_final()
    assert owner.of("tool.completed")[0]["output"] == "Rain."


async def test_the_same_name_with_another_principal_is_somebody_else(server: Server) -> None:
    conversation = fresh()
    async with server.http() as http:
        request = {"conversation": conversation, "principal": "mallory"}
        ticket = (await http.post("/api/tickets", json=request)).json()["ticket"]
    async with server.socket(conversation) as owner, server.socket(conversation, key="", ticket=ticket) as mallory:
        await offers(owner)
        await owner.ok("run.start", input=CALL)
        asked = await owner.asked()
        await mallory.ok("client.update", client_id="tab-1")
        assert (await answers(mallory, asked))["code"] == "not_permitted"
        await answers(owner, asked)
        await owner.until_final()


async def test_of_two_clients_with_one_tool_the_one_that_started_the_run_executes_it(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as first, server.socket(conversation) as second:
        await offers(first, "tab-1")
        await offers(second, "tab-2")
        for socket, client_id in ((first, "tab-1"), (second, "tab-2")):
            await socket.ok("run.start", input=CALL)
            asked = await socket.asked()
            assert asked["owner"]["client_id"] == client_id
            await answers(socket, asked)
            await socket.until_final()


async def test_of_two_clients_that_did_not_start_it_the_one_that_came_last_executes_it(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as first, server.socket(conversation) as second:
        await offers(first, "tab-1")
        await offers(second, "tab-2")
        await server.post(conversation, {"type": "run.start", "input": CALL})
        asked = await second.asked()
        assert asked["owner"]["client_id"] == "tab-2"
        await answers(second, asked)
        await second.until_final()


async def test_the_second_answer_of_the_owner_is_told_that_it_is_over(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("run.start", input=CALL)
        asked = await socket.asked()
        await answers(socket, asked)
        assert (await answers(socket, asked))["code"] == "interaction_resolved"


# -- gone -----------------------------------------------------------------------------------------------


async def test_an_owner_that_is_gone_for_too_long_has_failed_the_call(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as watching:
        async with server.socket(conversation) as owner:
            await offers(owner, "tab-1", {**WEATHER, "grace_ms": 50}, name="Ann's laptop")
            await owner.ok("run.start", input=CALL)
            await owner.asked()
        call = await completed(watching)
        assert (await watching.until_final())["output"] == "done"
    assert call["status"] == "error"
    assert "Ann's laptop" in call["output"]
    [resolved] = watching.of("interaction.resolved")
    assert (resolved["outcome"], resolved["via"]) == ("cancelled", "policy")


async def test_an_owner_that_comes_back_in_time_answers_from_its_new_socket(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as owner:
        await offers(owner)
        await owner.ok("run.start", input=CALL)
        asked = await owner.asked()
        owner.abort()
    async with server.socket(conversation, after=asked["seq"]) as back:
        await offers(back)
        assert (await answers(back, asked))["type"] == "ok"
        assert (await back.until_final())["type"] == "run.completed"
        assert (await completed(back))["status"] == "ok"


async def test_an_owner_whose_old_socket_is_still_there_has_moved_when_it_comes_back(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as old, server.socket(conversation) as new:
        await offers(old, "tab-1", {**WEATHER, "grace_ms": 0})
        await old.ok("run.start", input=CALL)
        asked = await new.asked()
        await offers(new, "tab-1", {**WEATHER, "grace_ms": 0})
        old.abort()
        await new.ok("ping")
        assert (await answers(new, asked))["type"] == "ok"
        assert (await completed(new))["status"] == "ok"


async def test_a_client_is_there_as_long_as_one_of_its_sockets_is(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as first:
        await offers(first, "tab-1", {**WEATHER, "grace_ms": 0})
        async with server.socket(conversation) as second:
            await offers(second, "tab-1", {**WEATHER, "grace_ms": 0})
        await first.ok("run.start", input=CALL)
        asked = await first.asked()
        assert (await answers(first, asked))["type"] == "ok"
        assert (await completed(first))["status"] == "ok"


async def test_a_call_that_waits_for_its_owner_waits_until_it_expires(make_server: MakeServer) -> None:
    server = make_server(settings="[sessions]\ninteraction_timeout_s = 1\n")
    conversation = fresh()
    async with server.socket(conversation) as watching:
        async with server.socket(conversation) as owner:
            await offers(owner, "tab-1", {**WEATHER, "if_gone": "wait", "grace_ms": 0})
            await owner.ok("run.start", input=CALL)
            asked = await owner.asked()
            assert asked["owner"]["if_gone"] == "wait"
        call = await completed(watching)
    [resolved] = watching.of("interaction.resolved")
    assert resolved["outcome"] == "expired"
    assert "nobody answered in time" in call["output"]


async def test_a_client_that_withdraws_its_tool_still_answers_the_call_that_is_open(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket, "tab-1", {**WEATHER, "grace_ms": 0})
        await socket.ok("run.start", input=CALL)
        asked = await socket.asked()
        await socket.ok("client.update", client_id="tab-1", tools=[])
        assert (await answers(socket, asked))["type"] == "ok"
        assert (await completed(socket))["output"] == "Rain."


async def test_a_client_that_is_only_reconnecting_still_offers_its_tools(server: Server) -> None:
    """The model is not told that a tool does not exist because a line blinked between two steps."""
    conversation = fresh()
    async with server.socket(conversation) as owner:
        await offers(owner)
        owner.abort()
    async with server.socket(conversation) as back:
        await back.ok("run.start", input=CALL)
        asked = await back.asked()
        assert asked["owner"]["client_id"] == "tab-1"
        await offers(back)
        await answers(back, asked)
        assert (await completed(back))["status"] == "ok"


async def test_one_that_is_there_comes_before_one_that_may_only_be_reconnecting(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as there, server.socket(conversation) as gone:
        await offers(there, "tab-1")
        await offers(gone, "tab-2")
        await gone.ok("run.start", input="/sleep 0.3\n" + CALL)
        gone.abort()
        asked = await there.asked()
        assert asked["owner"]["client_id"] == "tab-1"
        await answers(there, asked)


async def test_no_more_of_those_gone_are_kept_than_the_setting(make_server: MakeServer) -> None:
    server = make_server(settings="[clients]\ngone = 1\n")
    conversation = fresh()
    for client_id, tool in (("tab-1", WEATHER), ("tab-2", {"name": "time"})):
        async with server.socket(conversation) as socket:
            await offers(socket, client_id, tool)
    async with server.socket(conversation) as socket:
        there = [tool["name"] for tool in (await socket.ok("tools.list"))["tools"] if tool["source"] == "client"]
    assert there == ["time"]


async def test_without_anybody_who_offers_it_there_is_no_such_tool(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await offers(socket, "tab-1", {**WEATHER, "grace_ms": 0})
    async with server.socket(conversation) as socket:
        await socket.run(CALL)
    [call] = socket.of("tool.completed")
    assert call["status"] == "error"
    assert "no tool 'weather'" in call["output"]


async def test_a_stopped_run_takes_its_call_back(server: Server) -> None:
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("run.start", input=CALL)
        asked = await socket.asked()
        await socket.ok("run.stop")
        assert (await socket.until_final())["type"] == "run.cancelled"
        assert (await answers(socket, asked))["code"] == "interaction_resolved"
    assert set(terminals(socket.log).values()) == {1}


# -- over a restart -------------------------------------------------------------------------------------


async def test_after_a_crash_the_call_is_still_its_owners_and_asked_once(
    make_server: MakeServer, tmp_path: Path
) -> None:
    data, conversation = tmp_path / "data", fresh()
    server = make_server(data=data)
    async with server.socket(conversation) as owner, server.socket(conversation):
        await offers(owner)
        await owner.ok("run.start", input=CALL)
        asked = await owner.asked()
        server.kill()
    again = make_server(data=data)
    async with again.socket(conversation, after=0) as back, again.socket(conversation) as other:
        await back.greeted()
        assert open_interactions(back.log) == [asked]
        await offers(other, "tab-2")
        assert (await answers(other, asked))["code"] == "not_permitted"
        await offers(back)
        assert (await answers(back, asked))["type"] == "ok"
        await back.until_final()
    assert len(back.of("interaction.requested")) == 1
    assert (await completed(back))["output"] == "Rain."


async def test_after_a_crash_an_owner_that_does_not_come_back_has_failed_the_call(
    make_server: MakeServer, tmp_path: Path
) -> None:
    data, conversation = tmp_path / "data", fresh()
    server = make_server(data=data)
    async with server.socket(conversation) as owner:
        await offers(owner, "tab-1", {**WEATHER, "grace_ms": 50})
        await owner.ok("run.start", input=CALL)
        await owner.asked()
        server.kill()
    again = make_server(data=data, settings="[clients]\nrestart_grace_s = 0.1\n")
    async with again.socket(conversation, after=0) as watching:
        call = await completed(watching)
        await watching.until_final()
    assert (call["status"], "is gone" in call["output"]) == ("error", True)
    assert set(terminals(watching.log).values()) == {1}


async def test_when_it_was_the_server_that_went_an_owner_with_no_patience_is_waited_for_a_little(
    make_server: MakeServer, tmp_path: Path
) -> None:
    data, conversation = tmp_path / "data", fresh()
    server = make_server(data=data)
    async with server.socket(conversation) as owner:
        await offers(owner, "tab-1", {**WEATHER, "grace_ms": 0})
        await owner.ok("run.start", input=CALL)
        asked = await owner.asked()
        server.terminate()
        await server.exited()
    again = make_server(data=data)
    async with again.socket(conversation, after=0) as back:
        await offers(back, "tab-1", {**WEATHER, "grace_ms": 0})
        assert (await answers(back, asked))["type"] == "ok"
        assert (await completed(back))["status"] == "ok"


# -- time -----------------------------------------------------------------------------------------------


async def test_a_client_that_hangs_is_held_to_the_deadline_of_the_run(server: Server) -> None:
    """It is a program that works, not a person who thinks."""
    async with server.socket() as socket:
        await offers(socket)
        await socket.ok("run.start", input=CALL, deadline_ms=300)
        await socket.asked()
        final = await socket.until_final()
    assert final["error"]["code"] == "deadline_exceeded"
    assert set(terminals(socket.log).values()) == {1}


async def test_while_a_person_is_asked_beside_it_the_deadline_stands_still(make_server: MakeServer) -> None:
    server = make_server(settings="[sessions]\ninteraction_timeout_s = 2\n")
    async with server.socket() as socket:
        await offers(socket)
        script = '/tool weather {"city": "Oslo"}\n/par\n/ask Which?\n/say done'
        await socket.ok("run.start", input=script, deadline_ms=500)
        final = await socket.until_final()
    assert final["type"] == "run.completed", "the deadline fired while a person was asked"
    assert [resolved["outcome"] for resolved in socket.of("interaction.resolved")] == ["expired"] * 2


# -- who may, and what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tools", "path"),
    [
        ([{"name": ""}], "$.tools[0].name"),
        ([{"name": "two words"}], "$.tools[0].name"),
        ([{"name": "x" * 65}], "$.tools[0].name"),
        ([{"name": "time"}, {"name": "time"}], "$.tools[1].name"),
        ([{"name": "time", "parameters": {"type": "string"}}], "$.tools[0].parameters.type"),
        ([{"name": "time", "if_gone": "panic"}], "$.tools[0].if_gone"),
        ([{"name": "time", "grace_ms": -1}], "$.tools[0].grace_ms"),
        ([{"name": "time"}, {"name": "x", "parameters": {"properties": 5}}], "$.tools[1].parameters"),
    ],
)
async def test_an_offer_that_cannot_be_names_the_field(server: Server, tools: list[Json], path: str) -> None:
    async with server.socket() as socket:
        await offers(socket)
        refused = await socket.error("client.update", client_id="tab-1", tools=tools)
        assert (refused["code"], refused["path"]) == ("invalid_frame", path)
        there = [tool["name"] for tool in (await socket.ok("tools.list"))["tools"] if tool["source"] == "client"]
        assert there == ["weather"], "what was offered before has gone"


async def test_a_client_offers_no_more_tools_than_the_setting(make_server: MakeServer) -> None:
    server = make_server(settings="[clients]\ntools = 1\n")
    async with server.socket() as socket:
        refused = await socket.error("client.update", client_id="tab-1", tools=[WEATHER, {"name": "time"}])
        assert (refused["code"], refused["path"]) == ("too_large", "$.tools")


async def test_a_tool_weighs_no_more_than_the_setting(server: Server) -> None:
    async with server.socket() as socket:
        heavy = {"name": "time", "description": "x" * 70_000}
        refused = await socket.error("client.update", client_id="tab-1", tools=[heavy])
        assert (refused["code"], refused["path"]) == ("too_large", "$.tools[0]")


async def test_a_name_is_for_people_and_no_longer_than_they_read(server: Server) -> None:
    async with server.socket() as socket:
        refused = await socket.error("client.update", client_id="tab-1", name="N" * 129)
        assert (refused["code"], refused["path"]) == ("invalid_frame", "$.name")


async def test_of_what_all_clients_offer_no_more_is_there_than_the_setting_the_newest_first(
    make_server: MakeServer,
) -> None:
    server = make_server(settings="[clients]\ntools = 2\n")
    conversation = fresh()
    async with server.socket(conversation) as one, server.socket(conversation) as other:
        await offers(one, "tab-1", {"name": "a"}, {"name": "b"})
        await offers(other, "tab-2", {"name": "c"})
        there = {tool["name"] for tool in (await one.ok("tools.list"))["tools"] if tool["source"] == "client"}
    assert there == {"b", "c"}


async def test_a_secret_of_the_conversation_is_in_nothing_that_a_client_says_of_itself(server: Server) -> None:
    secret = "sk-SECRET-0123456789"
    headers = {"Authorization": f"Bearer {secret}"}
    server_of_it = {"url": "http://127.0.0.1:9/mcp", "headers": headers}
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"mcp_servers": {"crm": server_of_it}})
        for said in ({"client_id": secret}, {"client_id": "tab-1", "name": secret}):
            assert (await socket.error("client.update", **said))["code"] == "invalid_frame"
        tool = {"name": "time", "description": f"use {secret}"}
        refused = await socket.error("client.update", client_id="tab-1", tools=[tool])
        assert secret not in str(refused)


@pytest.mark.parametrize("role", ["observer", "responder"])
async def test_who_may_not_drive_offers_no_tools(server: Server, role: str) -> None:
    conversation = fresh()
    async with server.http() as http:
        ticket = (await http.post("/api/tickets", json={"conversation": conversation, "role": role})).json()["ticket"]
    async with server.socket(conversation, key="", ticket=ticket) as socket:
        refused = await socket.error("client.update", client_id="tab-1", tools=[WEATHER])
        assert (refused["code"], refused["path"]) == ("not_permitted", "$.tools[0]")
        await socket.ok("client.update", client_id="tab-1")


async def test_a_request_has_no_client_to_ask(server: Server) -> None:
    refused = await server.post(fresh(), {"type": "client.update", "client_id": "tab-1", "tools": [WEATHER]})
    assert refused["code"] == "unsupported"


async def test_a_command_may_name_its_own_conversation_but_no_other(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        ok = await socket.ok("run.start", input="hi", id="one", conversation_id=conversation)
        again = await socket.ok("run.start", input="hi", id="one")
        assert (again["run_id"], again["duplicate"]) == (ok["run_id"], True)
        refused = await socket.error("run.start", input="hi", conversation_id="elsewhere")
        assert (refused["code"], refused["path"]) == ("invalid_frame", "$.conversation_id")


async def test_a_command_to_the_inbox_is_the_same_one_by_request(server: Server) -> None:
    command = {"type": "run.start", "id": fresh(), "conversation_id": "new", "input": "hi"}
    first = await server.post("new", command)
    assert first["type"] == "ok", first
    again = await server.post("new", command)
    assert (again["run_id"], again["duplicate"]) == (first["run_id"], True)


# -- beside the OpenAI-compatible routes ----------------------------------------------------------------


async def test_a_chat_client_is_not_handed_the_calls_of_a_page(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as page, server.http() as http:
        await offers(page)
        request = {"model": "demo", "messages": [{"role": "user", "content": CALL}]}
        headers = {"X-Hermes-Session-Id": conversation}
        answer = asyncio.create_task(http.post("/v1/chat/completions", json=request, headers=headers))
        await answers(page, await page.asked())
        body = (await answer).json()
    [choice] = body["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == "done"
    assert not choice["message"].get("tool_calls")


async def test_a_response_goes_on_while_a_page_executes(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as page, server.http() as http:
        await offers(page)
        request = {"model": "demo", "input": CALL, "conversation": conversation}
        answer = asyncio.create_task(http.post("/v1/responses", json=request))
        await answers(page, await page.asked())
        body = (await answer).json()
    assert body["status"] == "completed"
    assert [item["type"] for item in body["output"]] == ["function_call", "function_call_output", "message"]


async def test_a_run_that_brings_functions_has_these_and_no_pages(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as page, server.http() as http:
        await offers(page)
        function = {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}
        request = {"model": "demo", "messages": [{"role": "user", "content": CALL}], "tools": [function]}
        await http.post("/v1/chat/completions", json=request, headers={"X-Hermes-Session-Id": conversation})
        await page.until_final()
    [call] = page.of("tool.completed")
    assert "no tool 'weather'" in call["output"]


async def test_a_client_that_only_says_who_it_is_is_known_by_its_name(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("client.update", client_id="tab-1", name="Ann", interactions=["approval", "clarify"])
        await socket.run("hi")
    assert socket.of("run.started")[0]["by"] == {"principal": "owner", "client_id": "tab-1"}
