"""``POST /v1/chat/completions`` in a conversation that a header names: it has its own past, and others see it too."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from tests.conftest import MakeServer
from tests.pictures import data_url, picture
from tests.server.chat_client import PATH, WEATHER, call_of, chat, complete, content, finish, read, say, streaming
from tests.wire import Json, Server, fresh, soon, terminals

GRACE = "[compat]\ndisconnect_grace_s = 0.1\n"


def joined(name: str, **more: str) -> Json:
    return {"X-Hermes-Conversation-Id": name, **more}


def result(call: Json, output: str) -> Json:
    return {"role": "tool", "tool_call_id": call["id"], "content": output}


# -- what is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["X-Hermes-Conversation-Id", "X-Hermes-Session-Id"])
async def test_a_conversation_comes_into_being_and_is_kept(server: Server, header: str) -> None:
    name = fresh()
    answer = await chat(server, say("hi"), headers={header: name})
    assert answer.headers["x-hermes-conversation-id"] == answer.headers["x-hermes-session-id"] == name
    events = await server.log(name)
    [started] = [event for event in events if event["type"] == "run.started"]
    assert started["run_id"] == answer.headers["x-hermes-run-id"]
    assert started["input"] == "hi"
    assert events[-1]["output"] == answer.json()["choices"][0]["message"]["content"]


async def test_the_server_chooses_a_name_when_asked_to(server: Server) -> None:
    answer = await chat(server, say("hi"), headers=joined("new"))
    name = answer.headers["x-hermes-conversation-id"]
    assert name != "new"
    assert (await server.log(name))[-1]["type"] == "run.completed"


async def test_of_the_messages_only_the_last_counts(server: Server) -> None:
    name = fresh()
    await complete(server, say("one"), headers=joined(name))
    await complete(server, say("something else"), say("altogether", "assistant"), say("two"), headers=joined(name))
    inputs = [event["input"] for event in await server.log(name) if event["type"] == "run.started"]
    assert inputs == ["one", "two"]


@pytest.mark.parametrize("name", ["new", ""])
async def test_a_conversation_without_a_past_takes_that_of_the_messages(server: Server, name: str) -> None:
    history = [say("I am Al"), say("Hello Al.", "assistant"), say("who am I?")]
    answer = await chat(server, *history, headers=joined(name or fresh()))
    assert answer.status_code == 200
    events = await server.log(answer.headers["x-hermes-conversation-id"])
    assert [event["input"] for event in events if event["type"] == "run.started"] == ["I am Al", "who am I?"]
    assert next(e["text"] for e in events if e["type"] == "message.completed") == "Hello Al."


async def test_of_several_side_by_side_one_brings_the_past(server: Server) -> None:
    name, seen = fresh(), say([{"type": "image_url", "image_url": {"url": data_url(picture())}}])
    history = [seen, say("A picture.", "assistant")]
    asked = [chat(server, *history, say(f"and {n}?"), headers=joined(name)) for n in range(4)]
    answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [200] * 4
    first, *others = [event["input"] for event in await server.log(name) if event["type"] == "run.started"]
    assert first[0]["type"] == "image"
    assert sorted(others) == [f"and {n}?" for n in range(4)]


async def test_one_that_was_set_up_before_anything_was_said_takes_it_too(server: Server) -> None:
    name = fresh()
    assert (await server.post(name, {"type": "conversation.configure", "config": {"title": "Al"}}))["type"] == "ok"
    await complete(server, say("I am Al"), say("Hello Al.", "assistant"), say("who am I?"), headers=joined(name))
    inputs = [event["input"] for event in await server.log(name) if event["type"] == "run.started"]
    assert inputs == ["I am Al", "who am I?"]


async def test_all_that_is_said_at_the_end_is_said(server: Server) -> None:
    name = fresh()
    await complete(server, say("one"), headers=joined(name))
    await complete(server, say("hello", "assistant"), say("two"), say("three"), headers=joined(name))
    inputs = [event["input"] for event in await server.log(name) if event["type"] == "run.started"]
    assert inputs == ["one", "two\n\nthree"]


async def test_the_past_is_the_conversations_own(server: Server) -> None:
    name = fresh()
    first = await complete(server, say("a" * 4_000), headers=joined(name))
    second = await complete(server, say("hi"), headers=joined(name))
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] > 1_000


async def test_somebody_at_the_socket_sees_the_same_run_and_can_answer(server: Server) -> None:
    name = fresh()
    async with (
        server.socket(name) as person,
        streaming(server, say("/run echo yes\n/say done"), headers=joined(name)) as c,
    ):
        await person.greeted()
        asked = await person.asked()
        await person.reply(asked, option="once")
        await c.until(done=True)
        final = await person.until_final()
    assert final["output"] == content(c.seen) == "done"
    assert final["run_id"] == c.response.headers["x-hermes-run-id"]


async def test_a_second_run_waits_for_the_first(server: Server) -> None:
    name = fresh()
    async with server.socket(name) as person:
        await person.greeted()
        first = await person.ok("run.start", input="/ask Ready? | yes\n/say first")
        asked = await person.asked()
        waiting = asyncio.create_task(complete(server, say("/say second"), headers=joined(name)))
        await person.until("run.queued")
        await person.reply(asked, "yes")
        body = await waiting
        await person.until_final()
    assert body["choices"][0]["message"]["content"] == "second"
    ended = [event["run_id"] for event in await server.log(name) if event["type"] == "run.completed"]
    assert ended[0] == first["run_id"]
    assert len(ended) == 2


async def test_an_agent_that_may_go_no_further_is_told_as_length(server: Server) -> None:
    name = fresh()
    configured = {"type": "conversation.configure", "config": {"limits": {"max_steps": 1}}}
    assert (await server.post(name, configured))["type"] == "ok"
    body = await complete(server, say("/tool list_files {}\n/say done"), headers=joined(name))
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["hermes"] == {"status": "completed", "stop_reason": "max_steps"}


async def test_a_run_that_somebody_stops_ends_with_what_it_had_said(server: Server) -> None:
    name = fresh()
    async with streaming(server, say("/say Half.\n/sleep 600"), headers=joined(name)) as chunks:
        await chunks.until(object="chat.completion.chunk")
        assert (await server.post(name, {"type": "run.stop"}))["type"] == "ok"
        await chunks.until(done=True)
    assert content(chunks.seen) == "Half."
    assert finish(chunks.seen) == "stop"


async def test_a_conversation_that_is_deleted_meanwhile_ends_the_stream_with_an_error(server: Server) -> None:
    name = fresh()
    async with streaming(server, say("/say Half.\n/sleep 600"), headers=joined(name)) as chunks:
        await chunks.until(object="chat.completion.chunk")
        async with server.http() as http:
            assert (await http.delete(f"/api/conversations/{name}")).status_code == 204
        await chunks.until(done=True)
    assert chunks.seen[-2]["error"]["code"] == "not_found"


# -- functions of the client ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_result_lets_the_same_run_go_on(server: Server, stream: bool) -> None:
    name = fresh()
    asked = await chat(server, say("weather in Rome?"), tools=[WEATHER], headers=joined(name))
    call = call_of(asked.json())
    more: Json = {"tools": [WEATHER], "headers": joined(name)}
    if stream:
        said = content(await read(server, result(call, "sunny"), **more))
    else:
        body = await complete(server, result(call, "sunny"), **more)
        said = body["choices"][0]["message"]["content"]
    assert "sunny" in said
    events = await server.log(name)
    assert [event["run_id"] for event in events if event["type"] == "run.started"] == [asked.headers["x-hermes-run-id"]]
    assert set(terminals(events).values()) == {1}


async def test_a_call_is_still_waited_for_after_a_restart(make_server: MakeServer) -> None:
    server, name = make_server(), fresh()
    call = call_of(await complete(server, say("weather?"), tools=[WEATHER], headers=joined(name)))
    server.kill()
    server = make_server(data=server.data)
    body = await complete(server, result(call, "sunny"), tools=[WEATHER], headers=joined(name))
    assert "sunny" in body["choices"][0]["message"]["content"]


async def test_the_history_may_come_along_with_the_result(server: Server) -> None:
    name = fresh()
    body = await complete(server, say("weather?"), tools=[WEATHER], headers=joined(name))
    message, call = body["choices"][0]["message"], call_of(body)
    after = await complete(
        server, say("weather?"), message, result(call, "hail"), tools=[WEATHER], headers=joined(name)
    )
    assert "hail" in after["choices"][0]["message"]["content"]


async def test_results_that_nobody_waits_for_are_refused(server: Server) -> None:
    name = fresh()
    call = call_of(await complete(server, say("weather?"), tools=[WEATHER], headers=joined(name)))
    refused = await chat(server, result({"id": "call_other"}, "x"), headers=joined(name))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0].tool_call_id")
    await complete(server, result(call, "fine"), headers=joined(name))
    again = await chat(server, result(call, "fine"), headers=joined(name))
    error = again.json()["error"]
    assert (again.status_code, error["code"], error["param"]) == (409, "tool_call_answered", "messages[0].tool_call_id")


async def test_a_conversation_without_a_past_goes_on_from_results(make_server: MakeServer) -> None:
    server, name = make_server(), fresh()
    body = await complete(server, say("weather?"), tools=[WEATHER])
    asked, told = body["choices"][0]["message"], result(call_of(body), "hail")
    headers = joined(name, **{"Idempotency-Key": "k1"})
    messages = [say("weather?"), {**asked, "content": "Let me see."}, told]
    first = await complete(server, *messages, tools=[WEATHER], headers=headers)
    assert "hail" in first["choices"][0]["message"]["content"]
    assert "Let me see." not in first["choices"][0]["message"]["content"]
    server.kill()
    server = make_server(data=server.data)
    again = await complete(server, *messages, tools=[WEATHER], headers=headers)
    assert again["choices"] == first["choices"], "what the messages brought is no part of the answer"
    assert len([event for event in await server.log(name) if event["type"] == "run.started"]) == 1


async def test_every_call_needs_its_result(server: Server) -> None:
    name, time = fresh(), {"type": "function", "function": {"name": "get_time"}}
    body = await complete(server, say("weather and time"), tools=[WEATHER, time], headers=joined(name))
    one, other = body["choices"][0]["message"]["tool_calls"]
    refused = await chat(server, result(one, "x"), headers=joined(name))
    assert refused.status_code == 400
    assert other["id"] in refused.json()["error"]["message"]
    assert (await chat(server, result(other, "y"), result(one, "x"), headers=joined(name))).status_code == 200


async def test_in_the_older_form_only_one_call_is_answered_and_the_others_are_said_not_to_be_made(
    server: Server,
) -> None:
    name, functions = fresh(), [WEATHER["function"], {"name": "get_time"}]
    body = await complete(server, say("weather and time"), functions=functions, headers=joined(name))
    called = body["choices"][0]["message"]["function_call"]["name"]
    told = {"role": "function", "name": called, "content": "something"}
    after = await complete(server, told, functions=functions, headers=joined(name))
    assert after["choices"][0]["finish_reason"] == "stop"
    outcomes = {e["name"]: e["status"] for e in await server.log(name) if e["type"] == "tool.completed"}
    assert outcomes == {called: "ok", ({"get_weather", "get_time"} - {called}).pop(): "error"}


async def test_saying_something_else_gives_up_the_calls_that_wait(server: Server) -> None:
    name = fresh()
    await complete(server, say("weather?"), tools=[WEATHER], headers=joined(name))
    body = await complete(server, say("never mind"), headers=joined(name))
    assert "never mind" in body["choices"][0]["message"]["content"]
    events = await server.log(name)
    [cancelled] = [event for event in events if event["type"] == "run.cancelled"]
    assert cancelled["reason"] == "interrupt"


# -- once ----------------------------------------------------------------------------------------------


async def test_under_a_key_something_is_said_once_also_after_a_restart(make_server: MakeServer) -> None:
    server, name = make_server(), fresh()
    headers = joined(name, **{"Idempotency-Key": "k1"})
    first = await complete(server, say("hi"), headers=headers)
    server.kill()
    server = make_server(data=server.data)
    again = await chat(server, say("hi"), headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["choices"] == first["choices"]
    assert again.json()["id"] == first["id"]
    other = await chat(server, say("hi there"), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_conflict")
    assert len([event for event in await server.log(name) if event["type"] == "run.started"]) == 1


async def test_under_a_key_a_stream_is_told_again(server: Server) -> None:
    headers = joined(fresh(), **{"Idempotency-Key": fresh("key")})
    first = await read(server, say("/say one\n/tool list_files {}\n/say two"), headers=headers)
    again = await read(server, say("/say one\n/tool list_files {}\n/say two"), headers=headers)
    assert content(first) == content(again) == "one\n\ntwo"


async def test_under_a_key_results_are_told_once(server: Server) -> None:
    name = fresh()
    call = call_of(await complete(server, say("weather?"), tools=[WEATHER], headers=joined(name)))
    headers = joined(name, **{"Idempotency-Key": fresh("key")})
    first = await complete(server, result(call, "sunny"), headers=headers)
    again = await complete(server, result(call, "sunny"), headers=headers)
    assert first["choices"] == again["choices"]


async def test_two_at_once_under_a_key_are_one(server: Server) -> None:
    name = fresh()
    headers = joined(name, **{"Idempotency-Key": fresh("key")})
    both = await asyncio.gather(*(complete(server, say("hi"), headers=headers) for _ in range(2)))
    assert both[0]["choices"] == both[1]["choices"]
    assert len([event for event in await server.log(name) if event["type"] == "run.started"]) == 1


# -- clients that go -----------------------------------------------------------------------------------


async def test_a_run_that_nobody_waits_for_is_stopped_after_a_while(make_server: MakeServer) -> None:
    server, name = make_server(settings=GRACE), fresh()
    async with streaming(server, say("/say one\n/sleep 600"), headers=joined(name)) as chunks:
        await chunks.until(object="chat.completion.chunk")
    async with soon():
        while (await server.log(name))[-1]["type"] != "run.cancelled":
            await asyncio.sleep(0.02)


async def test_the_same_for_a_client_that_waits_for_the_whole(make_server: MakeServer) -> None:
    server, name = make_server(settings=GRACE), fresh()
    async with server.http(headers=joined(name)) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.post(PATH, json={"messages": [say("/sleep 600")]}, timeout=0.5)
    async with soon():
        while (await server.log(name))[-1]["type"] != "run.cancelled":
            await asyncio.sleep(0.02)


async def test_a_run_that_somebody_else_follows_goes_on(make_server: MakeServer) -> None:
    server, name = make_server(settings=GRACE), fresh()
    async with server.socket(name) as person:
        await person.greeted()
        async with streaming(server, say("/stream 40 25\n/say done"), headers=joined(name)) as chunks:
            await chunks.until(object="chat.completion.chunk")
        final = await person.until_final()
    assert (final["type"], final["output"]) == ("run.completed", "done")


# -- names ---------------------------------------------------------------------------------------------


async def test_a_name_that_cannot_be_one_is_refused(server: Server) -> None:
    assert (await chat(server, say("hi"), headers=joined("a b"))).status_code == 400
    two = {"X-Hermes-Conversation-Id": "one", "X-Hermes-Session-Id": "two"}
    assert (await chat(server, say("hi"), headers=two)).status_code == 400


async def test_the_name_of_a_conversation_that_was_not_kept_cannot_be_joined(server: Server) -> None:
    gone = (await chat(server, say("hi"))).headers["x-hermes-session-id"]
    assert (await chat(server, say("more"), headers=joined(gone))).status_code == 404
    answer = await chat(server, say("hi"), say("hello", "assistant"), say("more"), headers=joined(gone))
    assert answer.status_code == 200, "with the history it is a request like any other"
    assert answer.headers["x-hermes-session-id"] != gone
