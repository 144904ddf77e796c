"""Calls of MCP tools through the real server: what is told of them, what comes back, how they end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.mcp.conftest import MakeUgly
from tests.mcp.desk import ADA, AUTO, LOCAL, call, calls, configure, crm, last
from tests.mcp.official_tools import png
from tests.mcp.running import OfficialServer
from tests.wire import Json, Server, Socket, soon, terminals

READS: Json = {"read_only": True, "idempotent": True, "destructive": False}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.start(tmp_path_factory.mktemp("calls"), settings=LOCAL)
    yield server
    server.stop()
    assert "Traceback" not in server.errors, server.errors


@pytest.fixture
async def socket(host: Server, official: OfficialServer) -> AsyncIterator[Socket]:
    """A conversation with the CRM, where nobody is asked."""
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        yield socket
    assert set(terminals(socket.log).values()) <= {1}, "something ended twice"


# -- what is told --------------------------------------------------------------------------------------------


async def test_a_call_is_told_with_its_source_title_and_hints(socket: Socket) -> None:
    await socket.run(call("find_customer", query="Ada"))
    started, executing, completed = (socket.of(f"tool.{kind}")[0] for kind in ("started", "executing", "completed"))
    assert (started["name"], started["source"], started["title"]) == ("find_customer", "mcp:crm", "find_customer")
    assert started["annotations"] == READS
    assert started["arguments"] == executing["arguments"] == {"query": "Ada"}
    assert started["call_id"] == executing["call_id"] == completed["call_id"]
    assert (completed["name"], completed["status"], completed["truncated"]) == ("find_customer", "ok", False)
    assert completed["duration_ms"] >= 0


@pytest.mark.parametrize(
    ("tool", "hints"),
    [
        ("add_note", {"read_only": False, "idempotent": False, "destructive": False}),
        ("set_note", {"read_only": False, "idempotent": True, "destructive": False}),
        ("delete_customer", {"read_only": False, "idempotent": False, "destructive": True}),
        ("grow", {"read_only": False, "idempotent": False, "destructive": True}),
    ],
)
async def test_hints_are_told_as_the_specification_reads_them(socket: Socket, tool: str, hints: Json) -> None:
    described = {t["name"]: t for t in (await socket.ok("tools.list"))["tools"] if t["source"] == "mcp:crm"}
    assert described[tool]["annotations"] == hints


async def test_a_tool_is_called_by_its_qualified_name_too(socket: Socket) -> None:
    await socket.run(call("mcp:crm/add", a=2, b=3))
    assert socket.of("tool.started")[0]["name"] == "add"
    assert calls(socket.log) == [("ok", "5")]


async def test_the_server_sees_the_arguments_and_its_own_credentials(socket: Socket, official: OfficialServer) -> None:
    await socket.run(call("add", a=20, b=22))
    [seen] = official.seen(kind="request", tool="add")
    assert (seen["arguments"], seen["authorization"]) == ({"a": 20, "b": 22}, "Bearer ada")


async def test_calls_side_by_side_share_a_connection_and_get_their_own_answers(socket: Socket) -> None:
    lines = [call("slow", seconds=0.3, steps=1), call("add", a=1, b=1), call("add", a=2, b=2), call("add", a=3, b=3)]
    await socket.run("\n/par\n".join(lines))
    by_call = {event["call_id"]: event["output"] for event in socket.of("tool.completed")}
    assert [by_call[event["call_id"]] for event in socket.of("tool.started")] == ["took 0.3 s", "2", "4", "6"]
    assert {event["step"] for event in socket.of("tool.started")} == {1}
    assert last(socket)["output"] == "took 0.3 s"
    assert [event["state"] for event in socket.of("mcp.status")] == ["starting", "ready"]


# -- what comes back -----------------------------------------------------------------------------------------


async def test_a_structured_result_is_one(socket: Socket) -> None:
    await socket.run("\n".join([call("find_customer", query="ad"), call("people"), call("add", a=1, b=2)]))
    found, people, added = socket.of("tool.completed")
    assert found["structured"] == {"customers": [{"id": "c1", "name": "Ada"}], "total": 1}
    assert json.loads(found["output"]) == found["structured"]
    assert people["structured"] == {"result": ADA["customers"]}
    assert added["structured"] == {"result": 3}


async def test_a_picture_is_a_blob_that_can_be_fetched(host: Server, socket: Socket) -> None:
    await socket.run(call("picture", side=40, seed=3))
    [image] = [part for part in last(socket)["content"] if part["type"] == "image"]
    assert (image["mime"], image["size"]) == ("image/png", len(png(40, 3)))
    async with host.http() as http:
        fetched = await http.get(f"/api/blobs/{image['blob']}")
    assert fetched.status_code == 200
    assert fetched.content == png(40, 3)
    assert fetched.headers["content-type"] == "image/png"
    snapshot = (await socket.ok("snapshot.get"))["snapshot"]
    [item] = [item for item in snapshot["items"] if item["type"] == "tool_call"]
    assert image in item["content"]


async def test_sounds_and_bytes_are_mentioned_and_texts_are_read(socket: Socket) -> None:
    await socket.run("\n".join([call("sound"), call("embedded"), call("linked")]))
    sound, embedded, linked = socket.of("tool.completed")
    assert "audio" in sound["output"]
    assert "audio/wav" in sound["output"]
    assert "embedded text" in embedded["output"]
    assert [part["type"] for part in embedded["content"]] == ["text", "image"]
    assert "see there" in linked["output"]
    assert "crm://readme" in linked["output"]


async def test_a_long_text_is_cut_and_can_be_fetched_whole(host: Server, socket: Socket) -> None:
    await socket.run(call("long_text", length=200_000))
    completed = last(socket)
    assert completed["truncated"] is True
    assert len(completed["output"]) < 40_000
    async with host.http() as http:
        created = socket.of("conversation.created")[0]["conversation_id"]
        whole = await http.get(f"/api/conversations/{created}/tool-calls/{completed['call_id']}/output")
    assert whole.text == "x" * 200_000


async def test_resources_are_listed_and_read(socket: Socket) -> None:
    script = [call("list_resources"), *(call("read_resource", uri=f"crm://{uri}") for uri in ("readme", "logo"))]
    await socket.run("\n".join([*script, call("read_resource", uri="crm://customers/c2")]))
    listed, readme, logo, customer = socket.of("tool.completed")
    for uri in ("crm://readme", "crm://logo", "crm://customers/{customer_id}"):
        assert uri in listed["output"]
    assert readme["output"] == "How this CRM is used."
    assert [part["type"] for part in logo["content"]] == ["image"]
    assert json.loads(customer["output"]) == {"id": "c2", "name": "Grace"}
    assert {event["source"] for event in socket.of("tool.started")} == {"mcp:crm"}


async def test_prompts_are_listed_and_filled_in(socket: Socket) -> None:
    letter = call("get_prompt", name="letter", arguments={"customer": "Ada", "tone": "stern"})
    await socket.run("\n".join([call("list_prompts"), letter]))
    listed, filled = socket.of("tool.completed")
    assert "letter(customer, tone?)" in listed["output"]
    assert "Write a stern letter to Ada." in filled["output"]


async def test_what_cannot_be_read_is_an_error_that_says_so(socket: Socket) -> None:
    script = [call("read_resource", uri="crm://nowhere"), call("get_prompt", name="nobody")]
    await socket.run("\n".join(script))
    resource, prompt = socket.of("tool.completed")
    assert (resource["status"], prompt["status"]) == ("error", "error")
    assert "crm://nowhere" in resource["output"]
    assert "the server refused" in prompt["output"]


# -- errors --------------------------------------------------------------------------------------------------


async def test_a_failing_tool_says_why_and_the_run_goes_on(socket: Socket) -> None:
    final = await socket.run("\n".join([call("fail", message="no customer of that name"), call("crash"), "/say on"]))
    failed, crashed = socket.of("tool.completed")
    assert failed["status"] == crashed["status"] == "error"
    assert "no customer of that name" in failed["output"]
    assert "a reason that nobody is told" not in crashed["output"]
    assert final["output"] == "on"


async def test_arguments_that_do_not_fit_never_reach_the_server(socket: Socket, official: OfficialServer) -> None:
    await socket.run("\n".join([call("add", a=1), call("add", a="one", b=2)]))
    missing, wrong = socket.of("tool.completed")
    assert missing["status"] == wrong["status"] == "error"
    assert "b" in missing["output"]
    assert "$.a" in wrong["output"] or "'a'" in wrong["output"]
    assert not official.seen(tool="add")
    assert not socket.of("tool.executing")


async def test_a_tool_that_is_not_there_is_answered_with_those_that_are(socket: Socket) -> None:
    await socket.run(call("find_customers"))
    assert last(socket)["status"] == "error"
    assert "find_customer" in last(socket)["output"]


async def test_of_a_server_that_failed_the_model_is_told_why(host: Server) -> None:
    async with host.socket() as socket:
        config = {"crm": {"url": "http://127.0.0.1:9/mcp"}}
        await configure(socket, mcp_servers=config, **AUTO)
        await socket.run(f"{call('mcp:crm/add', a=1, b=2)}\n{call('find_customer')}")
    [_, failed] = socket.of("mcp.status")
    assert failed["state"] == "failed"
    assert failed["error"]
    for status, output in calls(socket.log):
        assert status == "error"
        assert "crm" in output
        assert failed["error"] in output


# -- names ---------------------------------------------------------------------------------------------------


async def test_a_name_that_two_servers_have_needs_the_server(host: Server, official: OfficialServer) -> None:
    official.tokens(ada=ADA, bob={"customers": [{"id": "c9", "name": "Bob"}]})
    async with host.socket() as socket:
        servers = {"crm": crm(official, "ada"), "other": crm(official, "bob")}
        await configure(socket, mcp_servers=servers, **AUTO)
        script = [call("find_customer"), call("mcp:crm/find_customer"), call("mcp:other/find_customer")]
        await socket.run("\n".join(script))
    unclear, ada, bob = socket.of("tool.completed")
    assert unclear["status"] == "error"
    assert "mcp:crm/find_customer" in unclear["output"]
    assert "mcp:other/find_customer" in unclear["output"]
    assert ada["structured"]["total"] == 2
    assert bob["structured"]["customers"] == [{"id": "c9", "name": "Bob"}]
    assert [event["source"] for event in socket.of("tool.started")][1:] == ["mcp:crm", "mcp:other"]


async def test_a_tool_that_is_called_like_one_of_ours_does_not_take_its_place(
    host: Server, official: OfficialServer
) -> None:
    official.tokens(ada=ADA | {"extra_tools": ["read_file", "terminal"]})
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)})
        await socket.run("\n".join([call("read_file", path="none.txt"), call("mcp:crm/read_file")]))
        ours, theirs = socket.of("tool.started")
        assert (ours["source"], theirs["source"]) == ("builtin", "mcp:crm")
        assert last(socket)["output"] == "read_file at your service"
        await socket.ok("run.start", input="/run echo hi")
        asked = await socket.asked()
        assert asked["tool"]["source"] == "builtin"
        await socket.reply(asked, option="deny")
        await socket.until_final()


# -- taking time ---------------------------------------------------------------------------------------------


async def test_progress_is_told_now_and_then_and_ends_before_the_call(socket: Socket) -> None:
    await socket.run(call("slow", seconds=0.6, steps=60))
    reports = [event for event in socket.of("tool.output") if event["stream"] == "progress"]
    assert 2 <= len(reports) <= 6
    assert {event["total"] for event in reports} == {60}
    steps = [event["progress"] for event in reports]
    assert steps == sorted(steps)
    assert reports[-1]["message"] == f"step {steps[-1]:g}"
    assert reports[-1]["seq"] < last(socket)["seq"]


async def test_a_stop_reaches_the_server_within_a_second(host: Server, official: OfficialServer) -> None:
    for mode in ("graceful", "now"):
        async with host.socket() as socket:
            await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
            await socket.ok("run.start", input=call("wait_forever", key=mode))
            await official.saw(kind="waiting", key=mode)
            began = time.monotonic()
            await socket.ok("run.stop", mode=mode)
            final = await socket.until_final()
            assert time.monotonic() - began < 1
            async with soon(1):
                await official.saw(kind="cancelled", key=mode)
        assert final["type"] == "run.cancelled"
        assert calls(socket.log)[0][0] == "cancelled"


async def test_a_call_that_takes_too_long_is_cancelled_and_the_model_is_told(
    host: Server, official: OfficialServer
) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official, timeout_ms=300)}, **AUTO)
        await socket.run(f"{call('wait_forever', key='late')}\n{call('add', a=1, b=2)}")
        await official.saw(kind="cancelled", key="late")
    late, after = calls(socket.log)
    assert late[0] == "error"
    assert "0.3 s" in late[1]
    assert after == ("ok", "3")
    assert [event["state"] for event in socket.of("mcp.status")] == ["starting", "ready"]


async def test_a_deadline_of_the_run_ends_the_call_and_reaches_the_server(
    host: Server, official: OfficialServer
) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        final = await socket.run(call("wait_forever", key="deadline"), deadline_ms=1000)
        await official.saw(kind="cancelled", key="deadline")
    assert (final["type"], final["error"]["code"]) == ("run.failed", "deadline_exceeded")


async def test_a_slow_call_keeps_nobody_else_waiting(host: Server, official: OfficialServer) -> None:
    async with host.socket() as slow, host.socket() as quick:
        for socket in (slow, quick):
            await configure(socket, mcp_servers={"crm": crm(official)}, **AUTO)
        await slow.ok("run.start", input=call("wait_forever", key="slow"))
        await official.saw(kind="waiting", key="slow")
        await quick.run(call("add", a=1, b=2))
        assert calls(quick.log) == [("ok", "3")]
        await slow.ok("run.stop")
        await slow.until_final()


async def test_more_calls_than_a_server_likes_to_see_given_up_do_not_spoil_the_conversation(
    host: Server, official: OfficialServer
) -> None:
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official, timeout_ms=150)}, **AUTO)
        await socket.run("\n/par\n".join(call("wait_forever", key=f"k{n}") for n in range(12)))
        await socket.run(call("add", a=1, b=2))
    assert [status for status, _ in calls(socket.log)] == ["error"] * 12 + ["ok"]


async def test_a_server_that_is_slow_but_in_time_is_waited_for(host: Server, make_ugly: MakeUgly) -> None:
    server = make_ugly("slow_call", seconds=0.5)
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"ugly": {"url": server.url, "timeout_ms": 5000}}, **AUTO)
        await asyncio.wait_for(socket.run(call("tool")), 5)
    assert calls(socket.log) == [("ok", "fine, in the end")]
