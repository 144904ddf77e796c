"""``/v1/conversations``: OpenAI's shape over the conversations of the socket."""

from __future__ import annotations

import pytest

from tests.server.responses_wire import WEATHER, Responses, leave, output, said
from tests.wire import Json, Server, fresh


@pytest.fixture
def client(server: Server) -> Responses:
    return Responses(server)


async def made(client: Responses, **body: object) -> Json:
    answer = await client.ask("POST", "/conversations", dict(body))
    assert answer.status_code == 200, answer.text
    conversation: Json = answer.json()
    return conversation


def texts(page: Json) -> list[tuple[str, str]]:
    return [(item["role"], item["content"][0]["text"]) for item in page["data"]]


async def test_a_conversation_is_begun_shown_changed_and_deleted(client: Responses) -> None:
    conversation = await made(client, metadata={"topic": "demo"})
    assert conversation["id"].startswith("conv_")
    assert (conversation["object"], conversation["metadata"]) == ("conversation", {"topic": "demo"})
    path = f"/conversations/{conversation['id']}"
    assert await client.get(path) == conversation
    changed = (await client.ask("POST", path, {"metadata": {"other": "1"}})).json()
    assert changed == {**conversation, "metadata": {"other": "1"}}
    assert (await client.ask("POST", path, {"metadata": None})).json()["metadata"] == {}
    deleted = (await client.ask("DELETE", path)).json()
    assert deleted == {"id": conversation["id"], "object": "conversation.deleted", "deleted": True}
    for method in ("GET", "POST", "DELETE"):
        answer = await client.ask(method, path, {"metadata": {}})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "conversation_not_found")


async def test_a_request_under_its_key_is_done_once(server: Server) -> None:
    items = [{"role": "user", "content": "I am Al."}, {"role": "assistant", "content": "Hi Al."}]
    client = Responses(server, **{"Idempotency-Key": fresh("key")})
    first, again = [await client.ask("POST", "/conversations", {"items": items}) for _ in range(2)]
    assert (again.status_code, again.json()) == (200, first.json())
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    path = f"/conversations/{first.json()['id']}"
    assert len((await client.get(f"{path}/items"))["data"]) == 2
    for where, body in ((f"{path}/items", {"items": items}), (path, {"metadata": {"a": "1"}})):
        first, again = [await client.ask("POST", where, body) for _ in range(2)]
        assert (again.status_code, again.json()) == (200, first.json())
        assert again.headers["idempotency-replayed"] == "true"
    assert len((await client.get(f"{path}/items"))["data"]) == 4
    for where in ("/conversations", path, f"{path}/items"):
        other = await client.ask("POST", where, {"items": items[:1], "metadata": {"b": "1"}})
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_conflict")


async def test_it_may_begin_with_items(client: Responses) -> None:
    items = [
        {"type": "message", "role": "system", "content": "Be kind."},
        {"type": "message", "role": "user", "content": "I am Al."},
        {"type": "message", "role": "assistant", "content": "Hi Al."},
    ]
    conversation = await made(client, items=items)
    page = await client.get(f"/conversations/{conversation['id']}/items", order="asc")
    assert texts(page) == [("system", "Be kind."), ("user", "I am Al."), ("assistant", "Hi Al.")]


async def test_system_messages_stay_where_they_were(client: Responses) -> None:
    roles = ["user", "system", "assistant", "developer", "user", "assistant", "system"]
    conversation = await made(client, items=[{"role": role, "content": f"{n}"} for n, role in enumerate(roles)])
    path = f"/conversations/{conversation['id']}/items"
    more = ["system", "assistant", "system"]
    await client.ask("POST", path, {"items": [{"role": role, "content": f"{n}"} for n, role in enumerate(more, 7)]})
    roles += more
    assert texts(await client.get(path, order="asc")) == [(role, str(n)) for n, role in enumerate(roles)]


async def test_a_call_may_be_added_before_what_it_came_to(client: Responses) -> None:
    conversation = await made(client, items=[{"role": "user", "content": "look"}])
    path = f"/conversations/{conversation['id']}/items"
    calls = [{"type": "function_call", "call_id": c, "name": "look", "arguments": '{"at": "it"}'} for c in ("z", "y")]
    added = (await client.ask("POST", path, {"items": calls})).json()["data"]
    assert [(item["type"], item["call_id"], item["status"]) for item in added] == [
        ("function_call", "z", "completed"),
        ("function_call", "y", "completed"),
    ]
    outputs = [output(c, f"{c} it is") for c in ("z", "y")]
    told = (await client.ask("POST", path, {"items": [*outputs, {"role": "assistant", "content": "done"}]})).json()
    assert [item.get("output", "") for item in told["data"]] == ["z it is", "y it is", ""]
    page = await client.get(path, order="asc")
    assert page["data"][1:3] == added, "under the same ids"
    assert page["data"][3:] == told["data"]
    again = await client.ask("POST", path, {"items": [output("z", "something else")]})
    assert (again.status_code, again.json()["error"]["code"]) == (400, "unknown_tool_call")
    answer = await client.create("/say and now?", conversation=conversation["id"])
    assert answer["status"] == "completed"


async def test_a_call_that_is_added_twice_is_one(client: Responses) -> None:
    conversation = await made(client)
    path = f"/conversations/{conversation['id']}/items"
    call = {"type": "function_call", "call_id": "z", "name": "look", "arguments": "{}"}
    for _ in range(2):
        await client.ask("POST", path, {"items": [call]})
    await client.ask("POST", path, {"items": [call, output("z", "seen")]})
    page = await client.get(path, order="asc")
    assert [item["type"] for item in page["data"]] == ["function_call", "function_call_output"]
    for item in page["data"]:
        assert await client.get(f"{path}/{item['id']}") == item


async def test_items_are_added_listed_and_fetched(client: Responses) -> None:
    conversation = await made(client)
    path = f"/conversations/{conversation['id']}/items"
    first = (await client.ask("POST", path, {"items": [{"role": "user", "content": "one"}]})).json()
    assert (first["object"], texts(first), first["has_more"]) == ("list", [("user", "one")], False)
    assert first["first_id"] == first["last_id"] == first["data"][0]["id"]
    await client.ask("POST", path, {"items": [{"role": "assistant", "content": "two"}]})
    assert texts(await client.get(path)) == [("assistant", "two"), ("user", "one")]
    assert await client.get(f"{path}/{first['first_id']}") == first["data"][0]
    assert (await client.ask("GET", f"{path}/nope")).status_code == 404


async def test_an_item_cannot_be_taken_out_of_the_log(client: Responses) -> None:
    conversation = await made(client, items=[{"role": "user", "content": "one"}])
    path = f"/conversations/{conversation['id']}/items"
    item = (await client.get(path))["data"][0]
    answer = await client.ask("DELETE", f"{path}/{item['id']}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "DELETE" not in answer.headers["allow"]
    assert (await client.get(path))["data"] == [item]


async def test_what_a_response_was_made_of_is_in_its_conversation_under_the_same_ids(client: Responses) -> None:
    conversation = await made(client)
    script = '/think hm\n/tool read_file {"path": "nope"}\n/run echo hi\n/say done'
    first = await client.create(script, conversation=conversation["id"])
    request = first["output"][-1]
    second = await client.create([leave(request["id"], True)], conversation=conversation["id"])
    page = await client.get(f"/conversations/{conversation['id']}/items", order="asc")
    listed = {item["id"]: item for item in page["data"]}
    for item in [*first["output"], *second["output"]]:
        assert listed[item["id"]] == item
    assert {item["status"] for item in page["data"]} == {"completed"}
    assert [item["type"] for item in page["data"]] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "function_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "function_call_output",
        "message",
    ]


async def test_what_was_done_at_the_socket_is_listed_too(client: Responses, server: Server) -> None:
    name = fresh()
    async with server.socket(name) as socket:
        await socket.run("hello")
    page = await client.get(f"/conversations/{name}/items", order="asc")
    assert texts(page)[0] == ("user", "hello")


async def test_a_function_of_the_clients_and_what_it_came_to_are_items(client: Responses) -> None:
    name = fresh()
    first = await client.create("what is the weather?", conversation=name, tools=[WEATHER])
    call = first["output"][-1]
    second = await client.create([output(call["call_id"], "rain")], conversation=name)
    assert "rain" in said(second)
    page = await client.get(f"/conversations/{name}/items", order="asc")
    assert [item["type"] for item in page["data"]] == ["message", "function_call", "function_call_output", "message"]
    assert page["data"][2]["output"] == "rain"


async def test_history_is_not_added_while_a_run_is_there(client: Responses) -> None:
    name = fresh()
    await client.create("/sleep 30", conversation=name, background=True)
    answer = await client.ask("POST", f"/conversations/{name}/items", {"items": [{"role": "user", "content": "x"}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "busy")
    await client.ask("DELETE", f"/conversations/{name}")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": [{"role": "user", "content": "x"}] * 21}, "items"),
        ({"items": [{"role": "nobody", "content": "x"}]}, "items[0].role"),
        ({"items": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "items[0].call_id"),
        ({"items": [{"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}]}, "items[0].appr"),
        ({"items": "x"}, "items"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
    ],
)
async def test_what_cannot_be_done_names_the_field(client: Responses, body: Json, param: str) -> None:
    answer = await client.ask("POST", "/conversations", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(param)


async def test_an_empty_list_is_a_list(client: Responses) -> None:
    conversation = await made(client)
    page = await client.get(f"/conversations/{conversation['id']}/items")
    assert page == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}
