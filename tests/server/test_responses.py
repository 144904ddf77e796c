"""``/v1/responses``: what is asked for comes, whole, as a stream, or later."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeServer
from tests.server.responses_wire import Responses, said
from tests.wire import Json, Server, fresh, soon

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="


@pytest.fixture
def responses(server: Server) -> Responses:
    return Responses(server)


# -- creating --------------------------------------------------------------------------------------------


async def test_a_text_is_answered(responses: Responses) -> None:
    response = await responses.create("hello")
    assert (response["object"], response["status"]) == ("response", "completed")
    assert "hello" in said(response)
    assert response["usage"]["total_tokens"] > 0


async def test_a_stream_is_the_same_response_bit_by_bit(responses: Responses) -> None:
    stream = await responses.stream("hello")
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    assert [stream[0]["type"], stream[1]["type"]] == ["response.created", "response.in_progress"]
    assert stream[-1]["type"] == "response.completed"
    deltas = [event["delta"] for event in stream if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == said(stream[-1]["response"])
    kept = await responses.get(f"/responses/{stream[-1]['response']['id']}")
    assert kept == stream[-1]["response"]


async def test_what_was_asked_for_is_told_back(responses: Responses) -> None:
    asked: Json = {
        "instructions": "Be kind.",
        "temperature": 0.25,
        "top_p": 0.5,
        "max_output_tokens": 500,
        "parallel_tool_calls": False,
        "metadata": {"topic": "demo"},
        "user": "u-1",
        "truncation": "auto",
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}},
    }
    response = await responses.create("hello", **asked)
    told = {**asked, "reasoning": {"effort": "low", "summary": None}}
    assert {name: response[name] for name in told} == told


@pytest.mark.parametrize("body", [{}, {"input": None}, {"input": []}, {"instructions": "Be kind."}])
async def test_nothing_may_be_taken_in_before_anything_is_generated(responses: Responses, body: Json) -> None:
    begun = await responses.ask("POST", "/responses", {"generate": False, **body})
    assert begun.status_code == 200, begun.text
    first = begun.json()
    assert (first["status"], first["output"]) == ("completed", [])
    assert await responses.get(f"/responses/{first['id']}") == first
    second = await responses.create("hello", previous_response_id=first["id"])
    assert "hello" in said(second)
    assert second["conversation"] == first["conversation"]


async def test_history_may_come_along(responses: Responses) -> None:
    given = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Al."},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi Al."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Who am I?"}]},
    ]
    response = await responses.create(given)
    assert "Who am I?" in said(response)
    listed = await responses.get(f"/responses/{response['id']}/input_items", order="asc")
    assert [item["role"] for item in listed["data"]] == ["system", "user", "assistant", "user"]
    assert all(item["id"] for item in listed["data"])


async def test_history_is_in_the_conversation_for_everybody_to_see(responses: Responses, server: Server) -> None:
    given = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "3"},
    ]
    response = await responses.create(given)
    log = await server.log(response["conversation"]["id"])
    assert [event["input"] for event in log if event["type"] == "run.started"] == ["one", "3"]


async def test_an_image_is_stored_once_and_listed_by_its_address(responses: Responses) -> None:
    url = f"data:image/png;base64,{PIXEL}"
    content = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": url, "detail": "low"}]
    response = await responses.create([{"role": "user", "content": content}])
    (item,) = (await responses.get(f"/responses/{response['id']}/input_items"))["data"]
    address = item["content"][1]["image_url"]
    assert address.startswith("/api/blobs/blob_")
    assert (await responses.ask("GET", f"/..{address}")).status_code == 200


async def test_branches_that_begin_at_once_do_not_hear_each_other(responses: Responses) -> None:
    """An image takes the server a moment to store: time for the next one to come."""
    for _ in range(5):
        first = await responses.create("root")

        async def branch(number: int, previous: str) -> Json:
            content = [
                {"type": "input_text", "text": f"b{number}"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
            ]
            return await responses.create([{"role": "user", "content": content}], previous_response_id=previous)

        made = await asyncio.gather(*(branch(number, first["id"]) for number in range(12)))
        assert len({one["conversation"]["id"] for one in made}) == len(made)
        assert first["conversation"] in [one["conversation"] for one in made]


async def test_a_run_that_comes_to_nothing_is_an_error_with_its_status(responses: Responses) -> None:
    status, error = await responses.refused("/fail model_auth")
    assert (status, error["code"]) == (502, "model_auth")
    stream = await responses.stream("/fail model_auth")
    assert [event["type"] for event in stream] == ["response.created", "response.in_progress", "response.failed"]
    assert stream[-1]["response"]["error"]["code"] == "server_error"


async def test_a_run_that_fails_after_it_said_something_is_a_failed_response(responses: Responses) -> None:
    response = await responses.create("/say first\n/fail model_auth")
    assert (response["status"], said(response)) == ("failed", "first")
    assert response["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"input": [{"type": "message"}]}, "input[0].role"),
        ({"input": [{"type": ["x"], "role": "user"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "web_search_call"}]}, "input"),
        ({"input": [{"type": "no_such_item"}]}, "input[0].type"),
        ({"input": [{"type": "custom_tool_call", "call_id": "c", "name": "patch"}]}, "input[0].input"),
        ({"input": [{"type": "function_call_output", "call_id": "nope", "output": "x"}]}, "input[0].call_id"),
        ({"input": "x", "tools": [{"type": "mcp", "server_url": "https://a.example"}]}, "tools[0].type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "x", "tools": [{"type": "function", "name": "a/b"}]}, "tools[0].name"),
        ({"input": "x", "tools": [{"type": "function", "name": "caf\u00e9"}]}, "tools[0].name"),
        ({"input": "x", "tools": [{"type": "function", "function": {"name": "a*"}}]}, "tools[0].function.name"),
        ({"input": "x", "tool_choice": {"type": "function", "name": "nope"}}, "tool_choice.name"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice"),
        ({"input": "x", "temperature": 9}, "temperature"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata[...]"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "conversation": "a", "previous_response_id": "b"}, "previous_response_id"),
        ({"input": "x", "previous_response_id": "resp_nope"}, "previous_response_id"),
    ],
)
async def test_what_cannot_be_done_names_the_field(responses: Responses, body: Json, param: str) -> None:
    answer = await responses.ask("POST", "/responses", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_tools_that_openai_would_run_are_let_pass(responses: Responses) -> None:
    response = await responses.create("hello", tools=[{"type": "web_search"}])
    assert response["tools"] == []


async def test_what_was_begun_at_openai_is_gone_on_with(responses: Responses) -> None:
    there: list[Json] = [
        {"role": "user", "content": "search, and patch"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "patch", "input": "+ line"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "patched"}]},
        {"role": "user", "content": "and now?"},
    ]
    response = await responses.create(there)
    assert "and now?" in said(response)
    items = (await responses.get(f"/conversations/{response['conversation']['id']}/items", order="asc"))["data"]
    assert [item["type"] for item in items[:3]] == ["message", "function_call", "function_call_output"]
    asked = await responses.get(f"/responses/{response['id']}/input_items", order="asc")
    assert [item.get("type") for item in asked["data"]] == [item.get("type", "message") for item in there]


async def test_a_model_that_is_not_there_is_404(responses: Responses) -> None:
    status, error = await responses.refused("x", model="gpt-none")
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")


# -- going on --------------------------------------------------------------------------------------------


async def test_a_response_is_gone_on_from_in_its_own_conversation(responses: Responses, server: Server) -> None:
    first = await responses.create("one")
    second = await responses.create("two", previous_response_id=first["id"])
    assert second["conversation"] == first["conversation"]
    assert second["previous_response_id"] == first["id"]
    log = await server.log(first["conversation"]["id"])
    assert [event["input"] for event in log if event["type"] == "run.started"] == ["one", "two"]


async def test_from_an_older_response_a_copy_goes_on(responses: Responses, server: Server) -> None:
    first = await responses.create("one")
    second = await responses.create("two", previous_response_id=first["id"])
    other = await responses.create("three", previous_response_id=first["id"])
    assert other["conversation"] != second["conversation"]
    log = await server.log(other["conversation"]["id"])
    assert [event["input"] for event in log if event["type"] == "run.started"] == ["one", "three"]


async def test_system_messages_hold_on_and_instructions_do_not(responses: Responses, server: Server) -> None:
    system = {"role": "system", "content": "SYSTEM"}
    first = await responses.create([system, {"role": "user", "content": "one"}], instructions="INSTRUCTIONS")
    second = await responses.create("two", previous_response_id=first["id"])
    assert second["instructions"] is None
    listed = await responses.get(f"/responses/{first['id']}/input_items", order="asc")
    assert listed["data"][0]["role"] == "system"


async def test_a_conversation_of_a_name_is_begun_by_its_first_use(responses: Responses) -> None:
    name = fresh()
    first = await responses.create("one", conversation=name)
    second = await responses.create("two", conversation={"id": name})
    assert first["conversation"] == second["conversation"] == {"id": name}


async def test_a_conversation_that_was_given_an_id_has_to_be_there(responses: Responses) -> None:
    status, error = await responses.refused("x", conversation="conv_nope")
    assert (status, error["param"]) == (404, "conversation")


async def test_items_can_be_referred_to_from_anywhere(responses: Responses) -> None:
    first = await responses.create("one")
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    second = await responses.create([{"role": "user", "content": "one"}, reference, {"role": "user", "content": "two"}])
    listed = await responses.get(f"/responses/{second['id']}/input_items", order="asc")
    assert listed["data"][1]["content"][0]["text"] == said(first)
    status, error = await responses.refused([{"type": "item_reference", "id": "msg_none_none"}])
    assert (status, error["param"]) == (404, "input[0].id")


async def test_a_reference_is_an_id_and_needs_no_type(responses: Responses) -> None:
    first = await responses.create("one")
    reference = {"id": first["output"][0]["id"]}
    again = await responses.create([reference, {"role": "user", "content": "two"}], previous_response_id=first["id"])
    (listed,) = (await responses.get(f"/responses/{again['id']}/input_items"))["data"]
    assert listed["role"] == "user"
    status, error = await responses.refused([{"id": "msg_none_none"}])
    assert (status, error["code"]) == (404, "item_not_found")


async def test_what_waits_its_turn_is_queued(responses: Responses) -> None:
    name = fresh()
    first = await responses.create("/sleep 1", conversation=name, background=True)
    stream = await responses.stream("two", conversation=name)
    assert [event["type"] for event in stream[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert (await responses.get(f"/responses/{first['id']}"))["status"] == "completed"


async def test_a_person_at_the_socket_sees_the_same_run(responses: Responses, server: Server) -> None:
    name = fresh()
    async with server.socket(name) as socket:
        response = await responses.create("hello", conversation=name)
        completed = await socket.until("run.completed")
        assert completed["output"] == said(response)


# -- keeping and forgetting ------------------------------------------------------------------------------


async def test_what_is_not_stored_is_nowhere(responses: Responses, server: Server) -> None:
    response = await responses.create("hello", store=False)
    assert (response["store"], response["conversation"]) == (False, None)
    assert (await responses.ask("GET", f"/responses/{response['id']}")).status_code == 404
    there = await server.get("/api/conversations", limit=200)
    assert not [one for one in there["conversations"] if one["conversation_id"].startswith("ephemeral")]


async def test_a_deleted_response_is_gone_and_so_is_its_conversation(responses: Responses) -> None:
    response = await responses.create("hello")
    told = (await responses.ask("DELETE", f"/responses/{response['id']}")).json()
    assert told == {"id": response["id"], "object": "response", "deleted": True}
    assert (await responses.ask("GET", f"/responses/{response['id']}")).status_code == 404
    assert (await responses.ask("GET", f"/conversations/{response['conversation']['id']}")).status_code == 404


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_conversation_goes_with_the_last_of_its_responses(responses: Responses, order: tuple[int, int]) -> None:
    first = await responses.create("one")
    both = [first, await responses.create("two", previous_response_id=first["id"])]
    path = f"/conversations/{first['conversation']['id']}"
    await responses.ask("DELETE", f"/responses/{both[order[0]]['id']}")
    assert (await responses.ask("GET", path)).status_code == 200
    await responses.ask("DELETE", f"/responses/{both[order[1]]['id']}")
    assert (await responses.ask("GET", path)).status_code == 404


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "two"},
        {"role": "system", "content": "two"},
        {"type": "function_call", "call_id": "two", "name": "look", "arguments": "{}"},
    ],
)
async def test_what_was_said_in_its_conversation_by_other_ways_outlives_a_response(
    responses: Responses, item: Json
) -> None:
    response = await responses.create("one")
    path = f"/conversations/{response['conversation']['id']}"
    assert (await responses.ask("POST", f"{path}/items", {"items": [item]})).status_code == 200
    await responses.ask("DELETE", f"/responses/{response['id']}")
    assert (await responses.ask("GET", f"/responses/{response['id']}")).status_code == 404
    assert "two" in (await responses.ask("GET", f"{path}/items")).text


async def test_a_run_of_somebody_elses_outlives_a_response(responses: Responses, server: Server) -> None:
    response = await responses.create("one")
    name = response["conversation"]["id"]
    chat = {"messages": [{"role": "user", "content": "two"}]}
    async with server.http(headers={"X-Hermes-Conversation-Id": name}) as http:
        assert (await http.post("/v1/chat/completions", json=chat)).status_code == 200
    await responses.ask("DELETE", f"/responses/{response['id']}")
    assert "two" in (await responses.ask("GET", f"/conversations/{name}/items")).text


async def test_a_conversation_of_its_own_outlives_its_responses(responses: Responses) -> None:
    name = fresh()
    response = await responses.create("hello", conversation=name)
    await responses.ask("DELETE", f"/responses/{response['id']}")
    assert (await responses.get(f"/conversations/{name}"))["id"] == name


@pytest.mark.parametrize("path", ["", "/input_items"])
async def test_a_response_that_is_not_there_is_404(responses: Responses, path: str) -> None:
    answer = await responses.ask("GET", f"/responses/resp_nope{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_what_is_not_stored_is_told_again_under_its_key(server: Server) -> None:
    client = Responses(server, **{"Idempotency-Key": fresh("key")})
    body = {"input": "hello", "store": False}
    first, again = [await client.ask("POST", "/responses", body) for _ in range(2)]
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    status, error = await client.refused("other", store=False)
    assert (status, error["code"]) == (409, "idempotency_key_conflict")


async def test_the_same_request_under_one_key_is_done_once(server: Server) -> None:
    key = {"Idempotency-Key": fresh("key")}
    client = Responses(server, **key)
    first = await client.ask("POST", "/responses", {"input": "hello"})
    again = await client.ask("POST", "/responses", {"input": "hello"})
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    stream = await client.ask("POST", "/responses", {"input": "other"})
    assert (stream.status_code, stream.json()["error"]["code"]) == (409, "idempotency_key_conflict")


# -- in the background -----------------------------------------------------------------------------------


async def test_in_the_background_the_answer_comes_at_once_and_the_response_later(responses: Responses) -> None:
    response = await responses.create("/sleep 0.2\n/say done", background=True)
    assert response["status"] in ("queued", "in_progress")
    stream = await responses.streamed(response["id"])
    assert stream[-1]["type"] == "response.completed"
    assert said(await responses.get(f"/responses/{response['id']}")) == "done"


async def test_a_stream_is_taken_up_again_from_any_point(responses: Responses) -> None:
    response = await responses.create("/stream 20", background=True)
    whole = await responses.streamed(response["id"])
    for after in (0, 7, len(whole) - 2):
        assert await responses.streamed(response["id"], starting_after=after) == whole[after + 1 :]


async def test_whoever_asks_for_what_comes_after_the_end_is_told_that_there_is_nothing(responses: Responses) -> None:
    response = await responses.create("hello")
    last = (await responses.streamed(response["id"]))[-1]
    assert await responses.streamed(response["id"], starting_after=last["sequence_number"]) == []


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_a_place_in_the_stream_is_a_number_whether_or_not_it_is_streamed(
    responses: Responses, stream: str
) -> None:
    response = await responses.create("hello")
    answer = await responses.ask("GET", f"/responses/{response['id']}", stream=stream, starting_after="here")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "starting_after")


async def test_a_stream_that_broke_off_goes_on_where_it_was(responses: Responses) -> None:
    body = {"input": "/stream 20 20", "stream": True, "background": True}
    seen: list[Json] = []
    async with responses.streaming("POST", "/responses", body) as lines:
        async for event in lines:
            seen.append(event)
            if len(seen) == 8:
                break
    rest = await responses.streamed(seen[0]["response"]["id"], starting_after=seen[-1]["sequence_number"])
    numbers = [event["sequence_number"] for event in [*seen, *rest]]
    assert numbers == list(range(len(numbers)))
    assert rest[-1]["type"] == "response.completed"


async def test_a_response_survives_the_server(make_server: MakeServer) -> None:
    server = make_server()
    response = await Responses(server).create("/stream 5\n/sleep 0.5\n/say end", background=True)
    async with soon():
        while not (await Responses(server).get(f"/responses/{response['id']}"))["output"]:
            await asyncio.sleep(0.02)
    server.kill()
    after = Responses(make_server(data=server.data))
    stream = await after.streamed(response["id"])
    assert stream[0]["type"] == "response.created"
    assert stream[-1]["type"] == "response.completed"
    assert said(stream[-1]["response"]).endswith("end")
    assert await after.get(f"/responses/{response['id']}") == stream[-1]["response"]


async def test_a_response_can_be_cancelled(responses: Responses) -> None:
    response = await responses.create("/say first\n/sleep 30", background=True)
    cancelled = (await responses.ask("POST", f"/responses/{response['id']}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    assert (await responses.streamed(response["id"]))[-1]["response"]["status"] == "cancelled"
    again = (await responses.ask("POST", f"/responses/{response['id']}/cancel")).json()
    assert again == cancelled


async def test_cancelling_what_is_over_changes_nothing(responses: Responses) -> None:
    response = await responses.create("hello")
    assert (await responses.ask("POST", f"/responses/{response['id']}/cancel")).json() == response


async def test_a_client_that_goes_away_stops_its_run(make_server: MakeServer) -> None:
    server = make_server(settings="[compat]\ndisconnect_grace_s = 0.1")
    body = {"input": "/say first\n/sleep 60", "stream": True, "conversation": "c"}
    async with Responses(server).streaming("POST", "/responses", body) as lines:
        async for event in lines:
            if event["type"] == "response.output_text.done":
                break
    async with soon():
        while not [event for event in await server.log("c") if event["type"] == "run.cancelled"]:
            await asyncio.sleep(0.02)


async def test_the_steps_of_a_limit_make_a_response_incomplete(responses: Responses) -> None:
    stream = await responses.stream("\n".join(f"/say {n}" for n in range(200)))
    assert stream[-1]["type"] == "response.incomplete"
    assert stream[-1]["response"]["incomplete_details"] == {"reason": "max_messages"}


async def test_input_items_come_in_pages(responses: Responses) -> None:
    given = [{"role": "user", "content": str(number)} for number in range(5)]
    response = await responses.create(given)
    path = f"/responses/{response['id']}/input_items"
    first = await responses.get(path, limit=2, order="asc")
    assert [item["content"][0]["text"] for item in first["data"]] == ["0", "1"]
    assert first["has_more"]
    rest = await responses.get(path, limit=100, order="asc", after=first["last_id"])
    assert [item["content"][0]["text"] for item in rest["data"]] == ["2", "3", "4"]
    assert not rest["has_more"]
    assert [item["content"][0]["text"] for item in (await responses.get(path))["data"]] == ["4", "3", "2", "1", "0"]
    for wrong in ({"limit": 0}, {"limit": "x"}, {"order": "up"}):
        assert (await responses.ask("GET", path, **wrong)).status_code == 400
    assert (await responses.ask("GET", path, after="nope")).status_code == 404
