"""``/v1/responses``: what an agent asks, and how the next request answers it."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeServer
from tests.server.responses_wire import WEATHER, Responses, leave, output, said
from tests.wire import Json, Server, fresh, soon


@pytest.fixture
def responses(server: Server) -> Responses:
    return Responses(server)


async def weather(responses: Responses, **more: object) -> tuple[Json, Json]:
    """A response that waits for a function of the client's, and the call."""
    response = await responses.create("what is the weather?", tools=[WEATHER], **more)
    return response, response["output"][-1]


# -- functions of the client's ---------------------------------------------------------------------------


async def test_a_function_is_called_and_told_what_it_came_to(responses: Responses) -> None:
    first, call = await weather(responses)
    assert (first["status"], call["type"], call["name"]) == ("completed", "function_call", "get_weather")
    second = await responses.create([output(call["call_id"], "rain")], previous_response_id=first["id"])
    assert "rain" in said(second)
    assert second["conversation"] == first["conversation"]


async def test_the_run_is_one_and_the_same(responses: Responses, server: Server) -> None:
    first, call = await weather(responses)
    await responses.create([output(call["call_id"], "rain")], previous_response_id=first["id"])
    log = await server.log(first["conversation"]["id"])
    assert len([event for event in log if event["type"] == "run.started"]) == 1


async def test_a_stream_ends_with_the_call(responses: Responses) -> None:
    stream = await responses.stream("what is the weather?", tools=[WEATHER])
    assert [event["type"].removeprefix("response.") for event in stream] == [
        "created",
        "in_progress",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


async def test_without_anything_stored_the_whole_history_comes_again(responses: Responses) -> None:
    first, call = await weather(responses, store=False)
    assert first["conversation"] is None
    given = [{"role": "user", "content": "what is the weather?"}, call, output(call["call_id"], "rain")]
    stream = await responses.stream(given, tools=[WEATHER], store=False)
    assert "rain" in said(stream[-1]["response"])
    assert [item["type"] for item in stream[-1]["response"]["output"]] == ["message"]


async def test_a_history_that_ends_with_outputs_can_be_stored(responses: Responses) -> None:
    _, call = await weather(responses)
    given = [{"role": "user", "content": "what is the weather?"}, call, output(call["call_id"], "rain")]
    response = await responses.create(given, tools=[WEATHER])
    assert "rain" in said(response)
    assert await responses.get(f"/responses/{response['id']}") == response


async def test_an_output_may_be_parts(responses: Responses) -> None:
    first, call = await weather(responses)
    parts = [{"type": "input_text", "text": "rain"}]
    second = await responses.create([output(call["call_id"], parts)], previous_response_id=first["id"])
    assert "rain" in said(second)


async def test_nothing_goes_on_without_the_output(responses: Responses) -> None:
    first, call = await weather(responses)
    status, error = await responses.refused("never mind", previous_response_id=first["id"])
    assert (status, error["message"]) == (400, f"No tool output found for function call {call['call_id']}.")


async def test_an_output_that_comes_again_goes_on_in_a_copy(responses: Responses) -> None:
    first, call = await weather(responses)
    one = await responses.create([output(call["call_id"], "rain")], previous_response_id=first["id"])
    other = await responses.create([output(call["call_id"], "snow")], previous_response_id=first["id"], tools=[WEATHER])
    assert "snow" in said(other)
    assert other["conversation"] != one["conversation"]


async def test_what_else_the_user_says_is_heard_with_the_output(responses: Responses) -> None:
    first, call = await weather(responses)
    given = [output(call["call_id"], "rain"), {"role": "user", "content": "and hurry"}]
    second = await responses.create(given, previous_response_id=first["id"])
    assert "and hurry" in said(second)


async def test_a_function_survives_the_server(make_server: MakeServer) -> None:
    server = make_server()
    first, call = await weather(Responses(server))
    server.kill()
    after = Responses(make_server(data=server.data))
    second = await after.create([output(call["call_id"], "rain")], previous_response_id=first["id"])
    assert "rain" in said(second)
    assert [item["type"] for item in (await after.get(f"/responses/{first['id']}"))["output"]] == ["function_call"]


async def test_no_tool_is_called_where_none_may_be(responses: Responses) -> None:
    response = await responses.create("what is the weather?", tools=[WEATHER], tool_choice="none")
    assert [item["type"] for item in response["output"]] == ["message"]


async def test_a_named_function_is_called(responses: Responses) -> None:
    choice = {"type": "function", "name": "get_weather"}
    response = await responses.create("hello", tools=[WEATHER], tool_choice=choice)
    assert [item["type"] for item in response["output"]] == ["function_call"]
    assert response["tool_choice"] == choice


async def test_only_allowed_functions_are_called(responses: Responses) -> None:
    other = {**WEATHER, "name": "other"}
    choice = {"type": "allowed_tools", "tools": [{"type": "function", "name": "other"}]}
    response = await responses.create("what is the weather?", tools=[WEATHER, other], tool_choice=choice)
    assert "get_weather" not in [item.get("name") for item in response["output"]]
    assert response["tool_choice"] == {**choice, "mode": "auto"}


async def test_functions_that_come_nested_are_shown_as_the_specification_has_them(responses: Responses) -> None:
    flat = {"type": "function", "name": "get_weather"}
    nested = {"type": "function", "function": {"name": "get_weather"}}
    named = await responses.create("hello", tools=[WEATHER], tool_choice=nested)
    assert named["tool_choice"] == flat
    choice = {"type": "allowed_tools", "mode": "required"}
    allowed = await responses.create("hello", tools=[WEATHER], tool_choice={**choice, "tools": [nested]})
    assert allowed["tool_choice"] == {**choice, "tools": [flat]}


# -- tools of the agent's --------------------------------------------------------------------------------


async def test_the_agents_own_calls_are_items_with_their_outputs(responses: Responses) -> None:
    response = await responses.create('/tool read_file {"path": "nope"}\n/say done')
    assert [item["type"] for item in response["output"]] == ["function_call", "function_call_output", "message"]
    call, outcome, _ = response["output"]
    assert call["call_id"] == outcome["call_id"]


async def test_clients_that_would_execute_them_can_do_without(server: Server) -> None:
    client = Responses(server, **{"X-Hermes-Tool-Progress": "off"})
    response = await client.create('/tool read_file {"path": "nope"}\n/say done')
    assert [item["type"] for item in response["output"]] == ["message"]
    assert await client.get(f"/responses/{response['id']}") == response


async def test_clients_with_functions_of_their_own_are_told_of_those_alone(responses: Responses) -> None:
    first = await responses.create(
        '/tool list_files {}\n/tool get_weather {"city": "Oslo"}\n/say done', tools=[WEATHER]
    )
    assert [item["name"] for item in first["output"]] == ["get_weather"]
    assert await responses.get(f"/responses/{first['id']}") == first
    more = [output(first["output"][0]["call_id"], "rain")]
    second = await responses.create(more, previous_response_id=first["id"], tools=[WEATHER])
    assert [item["type"] for item in second["output"]] == ["message"]


async def test_a_request_without_functions_goes_by_itself_whatever_came_before(responses: Responses) -> None:
    script = '/tool get_weather {"city": "Oslo"}\n/tool list_files {}\n/say done'
    first = await responses.create(script, tools=[WEATHER])
    more = [output(first["output"][0]["call_id"], "rain")]
    second = await responses.create(more, previous_response_id=first["id"])
    assert [item["type"] for item in second["output"]] == ["function_call", "function_call_output", "message"]


async def test_clients_with_functions_are_told_of_the_others_too_if_they_say_so(server: Server) -> None:
    client = Responses(server, **{"X-Hermes-Tool-Progress": "on"})
    response = await client.create("/tool list_files {}\n/say done", tools=[WEATHER])
    assert [item["type"] for item in response["output"]] == ["function_call", "function_call_output", "message"]


# -- approvals -------------------------------------------------------------------------------------------


async def asked_for_leave(responses: Responses, script: str = "/run echo hi\n/say done") -> tuple[Json, Json]:
    response = await responses.create(script)
    assert response["output"][-1]["type"] == "mcp_approval_request"
    return response, response["output"][-1]


async def test_a_call_that_needs_leave_waits_for_it(responses: Responses) -> None:
    first, request = await asked_for_leave(responses)
    assert (request["server_label"], request["name"]) == ("builtin", "terminal")
    assert request["arguments"] == '{"command":"echo hi"}'
    second = await responses.create([leave(request["id"], True)], previous_response_id=first["id"])
    assert [item["type"] for item in second["output"]] == ["function_call_output", "message"]
    assert second["output"][0]["output"][0]["text"] == "hi\n"


async def test_a_refusal_and_its_reason_reach_the_agent(responses: Responses) -> None:
    first, request = await asked_for_leave(responses)
    given = [leave(request["id"], False, reason="not on my machine")]
    second = await responses.create(given, previous_response_id=first["id"])
    (told,) = second["output"][0]["output"]
    assert "not on my machine" in told["text"]
    assert told["text"].startswith("Denied")


async def test_calls_side_by_side_are_judged_together(responses: Responses) -> None:
    first = await responses.create("/run echo one\n/par\n/run echo two\n/say done")
    requests = [item for item in first["output"] if item["type"] == "mcp_approval_request"]
    assert len(requests) == 2
    status, error = await responses.refused([leave(requests[0]["id"], True)], previous_response_id=first["id"])
    assert (status, error["code"]) == (400, "missing_approval_response")
    given = [leave(requests[0]["id"], True), leave(requests[1]["id"], False)]
    second = await responses.create(given, previous_response_id=first["id"])
    outputs = [item["output"] for item in second["output"] if item["type"] == "function_call_output"]
    assert sorted(output[0]["text"].split()[0] for output in outputs) == ["Denied:", "one"]
    assert said(second) == "done"


async def test_leave_for_something_that_nobody_asks_is_refused(responses: Responses) -> None:
    first, _ = await asked_for_leave(responses)
    status, error = await responses.refused([leave("int_nope", True)], previous_response_id=first["id"])
    assert (status, error["param"]) == (400, "input[0].approval_request_id")


async def judged_at_the_socket(server: Server, response: Json, option: str) -> None:
    async with server.socket(response["conversation"]["id"], after=0) as socket:
        asked = await socket.until("interaction.requested")
        await socket.ok("interaction.reply", interaction_id=asked["interaction_id"], option=option)
        await socket.until("run.completed")


async def test_a_person_at_the_socket_may_give_leave_first(responses: Responses, server: Server) -> None:
    name = fresh()
    first = await responses.create("/run echo hi\n/say done", conversation=name)
    await judged_at_the_socket(server, first, "once")
    second = await responses.create("next", previous_response_id=first["id"])
    assert second["conversation"] == {"id": name}
    assert "next" in said(second)


async def test_what_somebody_elses_run_asks_is_not_asked_of_those_who_come_after_it(
    responses: Responses, server: Server
) -> None:
    name = fresh()
    async with server.socket(name, after=0) as socket:
        await socket.ok("run.start", input="/run echo hi\n/say done")
        asked = await socket.until("interaction.requested")
        begun = await responses.create("hello", conversation=name, background=True)
        assert begun["status"] == "queued"
        await socket.ok("interaction.reply", interaction_id=asked["interaction_id"], option="once")
        await socket.until("run.completed")
    (last,) = [event for event in await responses.streamed(begun["id"]) if event["type"] == "response.completed"]
    assert "hello" in said(last["response"])


async def test_whoever_gives_leave_too_is_told_what_has_followed_since(responses: Responses, server: Server) -> None:
    first, request = await asked_for_leave(responses)
    await judged_at_the_socket(server, first, "once")
    second = await responses.create([leave(request["id"], True)], previous_response_id=first["id"])
    assert [item["type"] for item in second["output"]] == ["function_call_output", "message"]
    assert second["conversation"] == first["conversation"]
    assert await responses.get(f"/responses/{second['id']}") == second
    third = await responses.create("next", previous_response_id=second["id"])
    assert third["conversation"] == first["conversation"]


async def test_whoever_repeats_an_answer_is_told_the_same_again(responses: Responses) -> None:
    first, request = await asked_for_leave(responses)
    given = [leave(request["id"], True)]
    second, again = [await responses.create(given, previous_response_id=first["id"]) for _ in range(2)]
    assert again["output"] == second["output"]


async def test_whoever_refuses_what_was_allowed_is_told_so(responses: Responses, server: Server) -> None:
    first, request = await asked_for_leave(responses)
    await judged_at_the_socket(server, first, "once")
    status, error = await responses.refused([leave(request["id"], False)], previous_response_id=first["id"])
    assert (status, error["code"], error["param"]) == (409, "interaction_resolved", "input[0].approve")


async def test_one_of_two_requests_may_be_answered_by_somebody_else(responses: Responses, server: Server) -> None:
    first = await responses.create("/run echo one\n/par\n/run echo two\n/say done")
    requests = [item for item in first["output"] if item["type"] == "mcp_approval_request"]
    async with server.socket(first["conversation"]["id"], after=0) as socket:
        asked = await socket.until("interaction.requested")
        await socket.ok("interaction.reply", interaction_id=asked["interaction_id"], option="once")
        await socket.until("tool.completed")
    given = [leave(request["id"], True) for request in requests]
    second = await responses.create(given, previous_response_id=first["id"])
    assert [item["type"] for item in second["output"]] == [*2 * ["function_call_output"], "message"]


async def test_a_request_may_be_referred_to(responses: Responses) -> None:
    first, request = await asked_for_leave(responses)
    given = [{"type": "item_reference", "id": request["id"]}, leave(request["id"], True)]
    assert said(await responses.create(given, previous_response_id=first["id"])) == "done"


@pytest.mark.parametrize("here", [True, False])
async def test_items_of_a_request_may_be_referred_to(responses: Responses, here: bool) -> None:
    first = await responses.create("one")
    (item,) = (await responses.get(f"/responses/{first['id']}/input_items"))["data"]
    given = [{"type": "item_reference", "id": item["id"]}, {"role": "user", "content": "two"}]
    second = await responses.create(given, previous_response_id=first["id"] if here else None)
    listed = await responses.get(f"/conversations/{second['conversation']['id']}/items", order="asc")
    told = [part["text"] for item in listed["data"] if item.get("role") == "user" for part in item["content"]]
    assert told == ["one", "two"]


async def test_a_client_may_send_all_that_was_said_with_its_leave(responses: Responses) -> None:
    script = {"role": "user", "content": "/run echo one\n/run echo two\n/say done"}
    first = await responses.create([script])
    history = [script, *first["output"], leave(first["output"][-1]["id"], True)]
    second = await responses.create(history)
    assert second["output"][-1]["type"] == "mcp_approval_request"
    history += [*second["output"], leave(second["output"][-1]["id"], True)]
    third = await responses.create(history)
    assert [item["type"] for item in third["output"]] == ["function_call_output", "message"]
    assert third["conversation"] == first["conversation"]


async def test_every_item_of_a_request_is_listed_with_a_status(responses: Responses) -> None:
    first = await responses.create("/think hm\n/run echo hi\n/say done")
    given = [*first["output"][:1], leave(first["output"][-1]["id"], True)]
    given[0].pop("status")
    second = await responses.create(given, previous_response_id=first["id"])
    listed = await responses.get(f"/responses/{second['id']}/input_items", order="asc")
    kinds = [(item["type"], item["status"]) for item in listed["data"]]
    assert kinds == [("reasoning", "completed"), ("mcp_approval_response", "completed")]


async def test_a_background_response_waits_for_leave_too(responses: Responses) -> None:
    first = await responses.create("/run echo hi\n/say done", background=True)
    stream = await responses.streamed(first["id"])
    request = stream[-1]["response"]["output"][-1]
    given = [leave(request["id"], True)]
    second = await responses.create(given, previous_response_id=first["id"], background=True)
    assert said((await responses.streamed(second["id"]))[-1]["response"]) == "done"


async def test_what_is_not_stored_can_be_given_leave_for_a_while(responses: Responses, server: Server) -> None:
    first = await responses.create("/run echo hi\n/say done", store=False)
    given = [{"role": "user", "content": "/run echo hi"}, *first["output"], leave(first["output"][-1]["id"], True)]
    second = await responses.create(given, store=False)
    assert [item["type"] for item in second["output"]] == ["function_call_output", "message"]
    there = await server.get("/api/conversations", limit=200)
    assert not [one for one in there["conversations"] if one["conversation_id"].startswith("ephemeral")]
    status, error = await responses.refused(given, store=False)
    assert (status, error["code"]) == (400, "unknown_approval_request")


async def test_what_is_not_stored_is_over_when_nobody_gives_leave(make_server: MakeServer) -> None:
    server = make_server(settings="[compat]\ninteraction_timeout_s = 1\ndisconnect_grace_s = 0.1\nkeepalive_s = 0.2")
    answer = await Responses(server).ask("POST", "/responses", {"input": "/run echo hi\n/say done", "store": False})
    path = f"/api/conversations/{answer.headers['X-Hermes-Conversation-Id']}/events"
    async with soon(), server.http() as http:
        assert (await http.get(path)).status_code == 200
        while (await http.get(path)).status_code != 404:
            await asyncio.sleep(0.05)


# -- questions -------------------------------------------------------------------------------------------


async def test_a_question_is_a_call_of_clarify(responses: Responses, server: Server) -> None:
    first = await responses.create("/ask Which? | red | blue\n/say done")
    (call,) = first["output"]
    assert (call["name"], call["arguments"]) == ("clarify", '{"question":"Which?","choices":["red","blue"]}')
    second = await responses.create([output(call["call_id"], "red")], previous_response_id=first["id"])
    assert said(second) == "done"
    log = await server.log(first["conversation"]["id"])
    (resolved,) = [event for event in log if event["type"] == "interaction.resolved"]
    assert list(resolved["answers"].values()) == ["red"]


async def test_an_answer_that_is_not_offered_is_refused(responses: Responses) -> None:
    first = await responses.create("/ask Which? | red | blue\n/say done")
    given = [output(first["output"][-1]["call_id"], "green")]
    status, error = await responses.refused(given, previous_response_id=first["id"])
    assert (status, error["code"]) == (400, "invalid_answer")
    assert "red" in error["message"]


async def test_a_client_that_knows_no_functions_just_says_the_answer(responses: Responses) -> None:
    first = await responses.create("/ask Which? | red | blue\n/say done")
    second = await responses.create("blue", previous_response_id=first["id"])
    assert said(second) == "done"


async def test_an_answer_that_the_run_no_longer_waits_for_goes_on_in_a_copy(make_server: MakeServer) -> None:
    server = make_server(settings="[sessions]\ninteraction_timeout_s = 1")
    client = Responses(server)
    first, call = await weather(client)
    name = first["conversation"]["id"]
    async with soon():
        while not [event for event in await server.log(name) if event["type"] == "run.completed"]:
            await asyncio.sleep(0.05)
    second = await client.create([output(call["call_id"], "rain")], previous_response_id=first["id"], tools=[WEATHER])
    assert "rain" in said(second)
    assert second["conversation"] != first["conversation"]
