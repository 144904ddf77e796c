"""The HTTP twins: conversations, items and pages of the log by request, the same as at a socket."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import MakeServer
from tests.server.streams import spoken
from tests.wire import Json, Server, expect_contiguous, fresh, soon

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
TALK = "/think hm\n/tool list_files {}\n/say hello"


def at(conversation: str, rest: str = "") -> str:
    return f"/api/conversations/{conversation}{rest}"


async def snapshot(server: Server, conversation: str) -> Json:
    taken: Json = (await server.post(conversation, {"type": "snapshot.get"}))["snapshot"]
    return taken


async def patched(server: Server, conversation: str, body: Any, **headers: str) -> httpx2.Response:
    async with server.http() as http:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await http.patch(at(conversation), headers=headers, **content)


# -- a conversation ----------------------------------------------------------------------------------------


async def test_a_conversation_is_what_the_snapshot_says_without_its_items(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("conversation.configure", config={"title": "Mine", "metadata": {"a": 1}})
        await socket.ok("run.start", input="/ask Well?")
        asked = await socket.asked()
        await socket.ok("run.start", input="later")
        view = await server.get(at(conversation))
        taken = await snapshot(server, conversation)
        listed = next(
            line
            for line in (await server.get("/api/conversations"))["conversations"]
            if line["conversation_id"] == conversation
        )
        assert {name: view[name] for name in listed} == listed
        assert (view["epoch"], view["floor"]) == (socket.log[0]["epoch"], 1)
        assert (view["config"], view["config_version"]) == (taken["config"], 1)
        assert (view["head"], view["interactions"], view["queue"]) == (taken["at"], [asked], 1)
        assert set(view) == {*listed, "epoch", "floor", "config", "config_version"}


async def test_secrets_of_the_configuration_are_not_shown(server: Server) -> None:
    conversation = fresh()
    server_config = {"url": "https://mcp.example/", "headers": {"Authorization": "Bearer canary-4711-secret"}}
    await server.post(conversation, {"type": "conversation.configure", "config": {"mcp_servers": {"x": server_config}}})
    view = await server.get(at(conversation))
    assert view["config"]["mcp_servers"]["x"]["headers"]["Authorization"]["set"] is True
    assert "canary-4711" not in str(view)


@pytest.mark.parametrize("rest", ["", "/items", "/export"])
async def test_a_conversation_that_nobody_began_is_not_found(server: Server, rest: str) -> None:
    async with server.http() as http:
        for conversation in (fresh(), "new"):
            answer = await http.get(at(conversation, rest))
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert (await http.get(at("-", rest))).status_code == 400


# -- its configuration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "application/merge-patch+json"])
async def test_a_patch_is_what_conversation_configure_does(server: Server, kind: str) -> None:
    conversation = await spoken(server)
    async with server.socket(conversation, from_="now") as socket:
        await socket.greeted()
        before = await server.get(at(conversation))
        answer = await patched(server, conversation, b'{"config":{"title":"New"}}', **{"content-type": kind})
        view = answer.json()
        assert (answer.status_code, view["title"]) == (200, "New")
        assert (view["config_version"], before["config_version"]) == (1, 0)
        event = await socket.until("conversation.configured")
        assert (event["seq"], event["config"], event["version"]) == (view["head"], view["config"], 1)
    gone = (await patched(server, conversation, {"config": {"title": None}})).json()
    assert (gone["title"], gone["config_version"]) == ("hello", 2)
    assert gone == await server.get(at(conversation))


async def test_a_patch_of_another_version_is_a_conflict_and_changes_nothing(server: Server) -> None:
    conversation = await spoken(server)
    await patched(server, conversation, {"config": {"title": "One"}, "if_version": 0})
    late = await patched(server, conversation, {"config": {"title": "Two"}, "if_version": 0})
    assert (late.status_code, late.json()["code"]) == (409, "version_conflict")
    assert (await server.get(at(conversation)))["title"] == "One"
    assert (await patched(server, conversation, {"config": {"title": "Two"}, "if_version": 1})).status_code == 200


async def test_a_patch_under_an_id_is_done_once_and_by_any_way(server: Server) -> None:
    conversation, patch = await spoken(server), {"id": "p1", "config": {"title": "Once"}}
    for _ in range(2):
        assert (await patched(server, conversation, patch)).json()["config_version"] == 1
    ok = await server.post(conversation, {"type": "conversation.configure", **patch})
    assert ok["duplicate"] is True
    other = await patched(server, conversation, {"id": "p1", "config": {"title": "Other"}})
    assert (other.status_code, other.json()["code"], other.json()["id"]) == (409, "id_reused", "p1")


async def test_a_patch_creates_no_conversation(server: Server) -> None:
    conversation = fresh()
    for name in (conversation, "new"):
        answer = await patched(server, name, {"config": {}})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await server.get(at(conversation, "/events")))["head"] == 0


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        (b"{", 400, "$"),
        (b"\xff", 400, "$"),
        (b"[]", 400, "$"),
        (b"{}", 400, "$"),
        (b'{"config":5}', 400, "$.config"),
        (b'{"config":{"title":5}}', 400, "$.config.title"),
        (b'{"config":{},"if_version":-1}', 400, "$.if_version"),
        (b'{"config":{"agent":"nobody"}}', 404, "$.config.agent"),
        (b'{"config":{"metadata":' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}}", 400, "$"),
        (b"[" * 100_000, 400, None),
    ],
)
async def test_a_patch_that_cannot_be_used_says_where(
    server: Server, body: bytes, status: int, path: str | None
) -> None:
    conversation = await spoken(server)
    answer = await patched(server, conversation, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["path"] == path if path else True
    assert (await server.get(at(conversation)))["config_version"] == 0


async def test_whoever_only_looks_patches_nothing(server: Server) -> None:
    conversation = await spoken(server)
    async with server.http() as http, server.http(key="") as stranger:
        for role, status in (("observer", 403), ("driver", 200)):
            asked = {"conversation": conversation, "role": role}
            ticket = (await http.post("/api/tickets", json=asked)).json()["ticket"]
            answer = await stranger.patch(at(conversation), params={"ticket": ticket}, json={"config": {"title": "x"}})
            assert answer.status_code == status, answer.text
        assert (await stranger.patch(at(conversation), json={"config": {}})).status_code == 401


# -- its items ---------------------------------------------------------------------------------------------


async def every_item(server: Server, conversation: str, **params: Any) -> list[list[Json]]:
    """Pages, from the newest to the oldest."""
    pages: list[list[Json]] = []
    before: dict[str, Any] = {}
    while True:
        page = await server.get(at(conversation, "/items"), **params, **before)
        assert set(page) == {"at", "items", "before"}
        pages.append(page["items"])
        if page["before"] is None:
            return pages
        assert page["before"] == page["items"][0].get("item_id", page["items"][0].get("call_id"))
        before = {"before": page["before"]}


async def test_items_go_back_page_by_page_to_the_first(server: Server) -> None:
    conversation = await spoken(server, *[TALK] * 3)
    everything = (await snapshot(server, conversation))["items"]
    assert len(everything) == 12
    for limit in (1, 5, 12, 10**9):
        pages = await every_item(server, conversation, limit=limit)
        assert [item for page in reversed(pages) for item in page] == everything
        assert all(len(page) == min(limit, 12) for page in pages[:-1])


async def test_what_lies_before_a_snapshot_goes_on_where_its_window_begins(make_server: MakeServer) -> None:
    server = make_server(settings="[sessions]\nsnapshot_items = 3\n")
    conversation = await spoken(server, *[TALK] * 2)
    taken = await snapshot(server, conversation)
    page = await server.get(at(conversation, "/items"), before=taken["before"])
    assert len(taken["items"]) == 3
    [every] = await every_item(server, conversation)
    assert page["items"] + taken["items"] == every
    assert page["before"] is None
    assert page["at"] == taken["at"]


async def test_a_page_of_items_weighs_no_more_than_is_set_but_has_one_at_least(make_server: MakeServer) -> None:
    server = make_server(settings="[limits]\npage_items = 4\npage_bytes = 3000\n")
    conversation = await spoken(server, "/say " + "x" * 10_000, *["hi"] * 6)
    pages = await every_item(server, conversation, limit=10**9)
    assert [len(page) for page in pages] == [4, 4, 4, 1, 1]
    assert len(pages[3][0]["text"]) == 10_000


async def test_an_item_that_is_not_there_is_not_found(server: Server) -> None:
    conversation = await spoken(server)
    async with server.http() as http:
        answer = await http.get(at(conversation, "/items"), params={"before": "item_none"})
    assert answer.status_code == 404
    assert "before" in answer.json()["message"]
    assert "item_none" in answer.json()["message"]
    newest = await server.get(at(conversation, "/items"), before="")
    assert len(newest["items"]) == 2


async def test_items_show_the_partial_text_of_what_is_being_said(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/stream 3000 1")
        while len(socket.of("message.delta")) < 20:
            await socket.recv()
        page = await server.get(at(conversation, "/items"))
        await socket.until_seq(page["at"])
        text = "".join(e["delta"] for e in socket.of("message.delta") if e["seq"] <= page["at"])
        assert (page["items"][-1]["status"], page["items"][-1]["text"]) == ("in_progress", text)
        await socket.ok("run.stop")
        await socket.until_final()


# -- pages of the log --------------------------------------------------------------------------------------


async def test_what_is_excluded_is_told_as_skipped_as_at_a_socket(server: Server) -> None:
    conversation = await spoken(server, "/stream 50 1\n/say a", "/stream 50 1\n/say b")
    left_out = "message.delta,message.started"
    async with server.socket(conversation, after=0, exclude=left_out) as socket:
        await socket.greeted()
        await socket.until_seq((await server.get(at(conversation)))["head"])
    page = await server.get(at(conversation, "/events"), exclude=left_out)
    assert page["events"] == socket.log
    assert {"from", "to"} < set(next(e for e in page["events"] if e["type"] == "skipped"))
    events: list[Json] = []
    after = 0
    for _ in range(500):
        page = await server.get(at(conversation, "/events"), exclude=left_out, after=after, limit=7)
        events += page["events"]
        assert expect_contiguous(page["events"], after=after) == page["next"]
        after = page["next"]
        if page["at_head"]:
            break
    assert [e for e in events if e["type"] != "skipped"] == [e for e in socket.log if e["type"] != "skipped"]


async def test_an_event_type_that_there_is_not_cannot_be_excluded(server: Server) -> None:
    async with server.http() as http:
        answer = await http.get(at("demo", "/events"), params={"exclude": "message.delta,message.dleta"})
    assert answer.status_code == 400
    assert "exclude" in answer.json()["message"]
    assert "message.dleta" in answer.json()["message"]


async def test_a_long_poll_does_not_return_for_what_is_excluded(server: Server) -> None:
    conversation = await spoken(server)
    head = (await server.get(at(conversation)))["head"]
    left_out = "run.started,step.started,message.started,message.delta"
    poll = asyncio.create_task(server.get(at(conversation, "/events"), after=head, wait_ms=15_000, exclude=left_out))
    await server.post(conversation, {"type": "run.start", "input": "/stream 100 5\n/say there"})
    async with soon():
        page = await poll
    assert [event["type"] for event in page["events"]][:2] == ["skipped", "message.completed"]
    assert page["events"][0]["from"] == head + 1
    assert expect_contiguous(page["events"], after=head) == page["next"]


async def test_a_long_poll_that_is_for_a_while_says_what_it_passed_over(server: Server) -> None:
    conversation = await spoken(server)
    head = (await server.get(at(conversation)))["head"]
    poll = asyncio.create_task(
        server.get(at(conversation, "/events"), after=head, wait_ms=1_000, exclude="conversation.configured")
    )
    await patched(server, conversation, {"config": {"title": "x"}})
    async with soon():
        page = await poll
    assert page["events"] == [{"type": "skipped", "from": head + 1, "to": head + 1, "reason": "filtered"}]
    assert (page["next"], page["at_head"]) == (head + 1, True)


async def test_a_long_poll_that_would_wait_for_the_past_returns_at_once(server: Server) -> None:
    conversation = await spoken(server)
    async with soon(5):
        page = await server.get(at(conversation, "/events"), after=10**6, wait_ms=25_000)
    assert (page["events"], page["next"], page["at_head"]) == ([], page["head"], True)


async def test_numbers_of_another_epoch_are_answered_from_the_start(server: Server) -> None:
    conversation = await spoken(server)
    log = await server.log(conversation)
    for epoch, events in ((log[0]["epoch"], log[3:]), ("", log[3:]), ("ep_other", log)):
        page = await server.get(at(conversation, "/events"), after=3, epoch=epoch)
        assert (page["epoch"], page["events"]) == (log[0]["epoch"], events)
    async with soon(5):
        page = await server.get(at(conversation, "/events"), after=len(log), epoch="ep_other", wait_ms=25_000)
    assert page["events"] == log


async def test_a_long_poll_is_told_when_the_conversation_is_another_by_now(server: Server) -> None:
    conversation = await spoken(server)
    head = (await server.get(at(conversation)))["head"]
    async with server.http() as http:
        poll = asyncio.create_task(
            http.get(at(conversation, "/events"), params={"after": head, "wait_ms": 25_000}, timeout=30)
        )
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(poll), 0.2)  # it waits
        deleting = asyncio.create_task(http.delete(at(conversation)))
        again = asyncio.create_task(server.post(conversation, {"type": "run.start", "input": "anew"}))
        async with soon():
            page = (await poll).json()
            assert (await deleting).status_code == 204
            await again
    log = await server.log(conversation)
    assert page["epoch"] in (None, log[0]["epoch"])
    assert page["events"] == log[: len(page["events"])]
    assert page["next"] == len(page["events"])


async def test_a_long_poll_returns_when_the_server_goes_down(make_server: MakeServer) -> None:
    server = make_server()
    conversation = await spoken(server)
    head = (await server.get(at(conversation)))["head"]
    poll = asyncio.create_task(server.get(at(conversation, "/events"), after=head, wait_ms=14_000))
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(poll), 0.2)
    server.terminate()
    async with soon(10):
        page = await poll
    assert (page["events"], page["next"]) == ([], head)
    assert await server.exited() == 0
    assert "Traceback" not in server.errors


# -- what waits for people ---------------------------------------------------------------------------------


async def test_open_interactions_of_all_conversations_come_oldest_first_and_whole(make_server: MakeServer) -> None:
    server = make_server()
    assert await server.get("/api/interactions") == {"interactions": [], "next": None}
    asked: list[Json] = []
    for script in ("/ask One? | a | b", "/run echo two", "/ask Three?"):
        conversation = fresh()
        async with server.socket(conversation) as socket:
            await socket.ok("run.start", input=script)
            asked.append({**await socket.asked(), "conversation_id": conversation})
    listed = await server.get("/api/interactions")
    assert listed == {"interactions": asked, "next": None}
    assert {one["kind"] for one in asked} == {"clarify", "approval"}
    answer = {asked[0]["questions"][0]["id"]: "a"}
    reply = {"type": "interaction.reply", "interaction_id": asked[0]["interaction_id"], "answers": answer}
    assert (await server.post(asked[0]["conversation_id"], reply))["type"] == "ok"
    assert (await server.get("/api/interactions"))["interactions"] == asked[1:]
    async with server.http() as http:
        await http.delete(at(asked[1]["conversation_id"]))
    assert (await server.get("/api/interactions"))["interactions"] == asked[2:]


async def test_open_interactions_come_in_pages(make_server: MakeServer) -> None:
    server = make_server(settings="[limits]\npage_interactions = 3\n")
    names = [fresh() for _ in range(7)]
    for name in names:
        async with server.socket(name) as socket:
            await socket.ok("run.start", input="/ask Well?")
            await socket.asked()
    for limit, sizes in ((10**9, [3, 3, 1]), (2, [2, 2, 2, 1])):
        pages: list[list[str]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await server.get("/api/interactions", limit=limit, **cursor)
            pages.append([one["conversation_id"] for one in page["interactions"]])
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        assert [len(page) for page in pages] == sizes
        assert [name for page in pages for name in page] == names
    async with server.http() as http:
        answer = await http.get("/api/interactions", params={"cursor": "nonsense"})
        assert answer.status_code == 400
        assert "cursor" in answer.json()["message"]


async def test_a_call_that_one_client_executes_is_in_its_conversations_line_and_not_among_what_people_can_answer(
    make_server: MakeServer,
) -> None:
    server, conversation = make_server(), fresh()
    async with server.socket(conversation) as socket:
        tool = {"name": "weather", "description": "Looks out of the window."}
        await socket.ok("client.update", client_id="tab-1", tools=[tool])
        await socket.ok("run.start", input="/tool weather {}")
        asked = await socket.asked()
        assert await server.get("/api/interactions") == {"interactions": [], "next": None}
        [line] = (await server.get("/api/conversations"))["conversations"]
        assert line["interactions"] == [asked]


async def test_open_interactions_are_for_keys_and_not_for_tickets(server: Server) -> None:
    conversation = await spoken(server)
    async with server.http() as http:
        ticket = (await http.post("/api/tickets", json={"conversation": conversation})).json()["ticket"]
    async with server.http(key="") as stranger:
        assert (await stranger.get("/api/interactions", params={"ticket": ticket})).status_code == 401


# -- the page that tells of them ---------------------------------------------------------------------------


def commands_of_the_page() -> list[str]:
    """The commands of docs/protocol.md, as they stand there."""
    section = PAGE.read_text().partition("## HTTP twins\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [command for block in blocks for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_commands_on_the_page_answer(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    said: list[str] = []
    for command in commands_of_the_page():
        script = command.replace("http://127.0.0.1:8642", server.url)
        script = script.replace("curl ", "curl --silent --show-error --fail-with-body --max-time 3 ", 1)
        run = await asyncio.create_subprocess_exec(
            *("sh", "-c", script), env={**os.environ, "KEY": server.key}, cwd=tmp_path, stdout=PIPE, stderr=PIPE
        )
        out, err = await run.communicate()
        follows_for_ever = " -N " in command
        assert run.returncode == (28 if follows_for_ever else 0), (script, out, err)
        said.append(out.decode())
    assert len(said) == 11
    assert '"title":"Plans"' in said[2]
    assert '"type":"message"' in said[3]
    assert "data: {" in said[7]
    assert "id: 10\ndata: {" in said[8]
    file = (tmp_path / "demo.jsonl").read_text().splitlines()
    assert len(file) == len(await server.log("demo"))
    assert len(said[10].splitlines()) < len(file)
