"""The inbox of the JavaScript client: all conversations as they are now, answerable, whatever the line does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client.proxy import Proxy
from tests.conftest import MakeServer
from tests.js.node import needs_node
from tests.js.remote import Heard, Inbox, JsError, Node
from tests.wire import Json, Server, fresh, soon

pytestmark = needs_node

HASTE = {"firstMs": 5, "mostMs": 100}


class Watched:
    """An inbox, and what it tells."""

    def __init__(self, inbox: Inbox, told: Heard) -> None:
        self.inbox = inbox
        self.told = told

    @classmethod
    async def begin(cls, node: Node, server: Server, url: str = "", **options: Any) -> Watched:
        client = await node.client(url or server.url, key=server.key, backoff=HASTE, **options)
        inbox, told = await client.inbox(), Heard()
        for what in ("changed", "removed", "page", "connection"):
            await inbox.call("on", what, told)
        await inbox.ready()
        return cls(inbox, told)

    async def conversations(self) -> list[Json]:
        found: list[Json] = await self.inbox.get("conversations")
        return found

    async def names(self) -> list[str]:
        return [summary["conversation_id"] for summary in await self.conversations()]

    async def interactions(self) -> list[Json]:
        found: list[Json] = await self.inbox.get("interactions")
        return found

    async def until(self, holds: Callable[[list[Json]], object]) -> list[Json]:
        """Wait until this holds of the list of conversations."""
        async with soon():
            while True:
                seen = len(self.told)
                if holds(found := await self.conversations()):
                    return found
                await self.told.until(lambda _, seen=seen: len(self.told) > seen)  # type: ignore[misc]

    async def asked(self, name: str) -> Json:
        """What the conversation asks."""
        await self.until(lambda found: any(one["conversation_id"] == name and one["interactions"] for one in found))
        return next(one for one in await self.interactions() if one["conversation_id"] == name)

    async def status(self, name: str, status: str) -> Json:
        """Wait until the conversation stands so."""
        found = await self.until(
            lambda found: any((one["conversation_id"], one["status"]) == (name, status) for one in found)
        )
        return next(one for one in found if one["conversation_id"] == name)


async def listed(server: Server) -> list[Json]:
    """All conversations, as HTTP has them."""
    found: list[Json] = (await server.get("/api/conversations", limit=200))["conversations"]
    return found


@pytest.fixture
def own(make_server: MakeServer) -> Server:
    """A server of which no other test has conversations."""
    return make_server(settings="[inbox]\npage = 3\nquiet_ms = 50\n")


async def talk(server: Server, name: str, said: str = "/say hi") -> None:
    async with server.socket(name) as socket:
        await socket.run(said)


async def test_it_begins_with_those_that_need_a_person_then_the_newest(node: Node, own: Server) -> None:
    await own.post("asks", {"type": "run.start", "input": "/ask Well?"})
    for name in ("one", "two"):
        await talk(own, name)
    watched = await Watched.begin(node, own)
    assert await watched.names() == ["asks", "two", "one"]
    assert sorted(await watched.conversations(), key=str) == sorted(await listed(own), key=str)
    [asked] = await watched.interactions()
    assert (asked["conversation_id"], asked["questions"][0]["prompt"]) == ("asks", "Well?")


async def test_what_happens_is_seen(node: Node, own: Server) -> None:
    watched = await Watched.begin(node, own)
    assert await watched.names() == []
    await own.post("c", {"type": "conversation.configure", "config": {"title": "Budget"}})
    assert (await watched.status("c", "idle"))["title"] == "Budget"
    await own.post("c", {"type": "run.start", "input": "/sleep 60"})
    running = await watched.status("c", "running")
    assert running["run_id"]
    await own.post("c", {"type": "run.stop"})
    assert "run_id" not in await watched.status("c", "idle")


async def test_it_answers_and_approves(node: Node, own: Server) -> None:
    watched = await Watched.begin(node, own)
    for name, said in (("a", "/ask Who?\n/say thanks"), ("b", "/run echo hi"), ("c", "/run echo no")):
        await own.post(name, {"type": "run.start", "input": said})
    await watched.inbox.call("answer", await watched.asked("a"), "me")
    await watched.inbox.call("approve", await watched.asked("b"))
    await watched.inbox.call("deny", await watched.asked("c"), "not now")
    for name in "abc":
        await watched.status(name, "idle")
    assert await watched.interactions() == []
    assert (await own.log("a"))[-1]["output"] == "thanks"
    outcomes = [[e["status"] for e in await own.log(name) if e["type"] == "tool.completed"] for name in "bc"]
    assert outcomes == [["ok"], ["denied"]]


async def test_runs_are_started_and_stopped_from_it(node: Node, own: Server) -> None:
    watched = await Watched.begin(node, own)
    ok = await watched.inbox.call("run", "new", "/sleep 60")
    assert ok["disposition"] == "started"
    running = await watched.status(ok["conversation_id"], "running")
    assert running["run_id"] == ok["run_id"]
    queued = await watched.inbox.call("run", ok["conversation_id"], "next", {"when_busy": "queue"})
    assert (queued["conversation_id"], queued["disposition"]) == (ok["conversation_id"], "queued")
    await watched.inbox.call("stop", ok["conversation_id"], {"queue": "clear"})
    assert (await watched.status(ok["conversation_id"], "idle"))["queue"] == 0


async def test_what_it_refuses_says_why(node: Node, own: Server) -> None:
    watched = await Watched.begin(node, own)
    for path, *arguments, code in (
        ("stop", "nowhere", "run_not_active"),
        ("run", "not an id", "hi", "invalid_frame"),
        ("send", {"type": "snapshot.get"}, "unsupported"),
    ):
        with pytest.raises(JsError) as failure:
            await watched.inbox.call(str(path), *arguments)
        assert (failure.value.name, failure.value.code) == ("CommandRefused", code)
    assert await listed(own) == []


async def test_a_conversation_that_is_deleted_is_gone_from_it(node: Node, own: Server) -> None:
    await talk(own, "c")
    await talk(own, "d")
    watched = await Watched.begin(node, own)
    async with own.http() as http:
        await http.delete("/api/conversations/c")
    await watched.told.until(lambda told: told == "c")
    assert await watched.names() == ["d"]


async def test_more_of_them_come_page_by_page(node: Node, own: Server) -> None:
    names = [f"c{n}" for n in range(8)]
    for name in names:
        await talk(own, name)
    watched = await Watched.begin(node, own)
    assert await watched.names() == names[:-4:-1]
    for shown in (6, 8):
        assert await watched.inbox.get("hasMore") is True
        await watched.inbox.call("more")
        assert len(await watched.names()) == shown
    assert await watched.inbox.get("hasMore") is False
    await watched.inbox.call("more")
    assert await watched.conversations() == await listed(own)


async def test_one_that_is_not_shown_yet_comes_up_when_something_happens(node: Node, own: Server) -> None:
    for name in ("old", "a", "b", "c"):
        await talk(own, name)
    watched = await Watched.begin(node, own)
    assert "old" not in await watched.names()
    await own.post("old", {"type": "run.start", "input": "/ask Still there?"})
    await watched.asked("old")
    assert await watched.names() == ["old", "c", "b", "a"]
    await watched.inbox.call("more")
    assert sorted(await watched.names()) == ["a", "b", "c", "old"]


async def test_what_a_client_executes_needs_no_person(node: Node, own: Server) -> None:
    watched = await Watched.begin(node, own)
    async with own.socket("tool") as socket:
        await socket.ok("client.update", client_id="tab", tools=[{"name": "look"}])
        await socket.ok("run.start", input="/tool look {}")
        await watched.asked("tool")
        await talk(own, "later")
        await watched.status("later", "idle")
        assert await watched.names() == ["later", "tool"]


async def test_of_two_inboxes_the_first_answer_wins(node: Node, own: Server) -> None:
    one, two = await Watched.begin(node, own), await Watched.begin(node, own)
    await own.post("c", {"type": "run.start", "input": "/ask Who?"})
    asked, also = await one.asked("c"), await two.asked("c")
    answers = await asyncio.gather(
        one.inbox.call("answer", asked, "me"), two.inbox.call("answer", also, "you"), return_exceptions=True
    )
    [failure] = [answer for answer in answers if isinstance(answer, JsError)]
    assert failure.code == "interaction_resolved"
    await two.status("c", "idle")


async def test_a_reconnect_begins_anew_and_shows_the_old_until_then(node: Node, own: Server) -> None:
    await talk(own, "a")
    await talk(own, "b")
    async with Proxy.before(own.port) as proxy:
        watched = await Watched.begin(node, own, proxy.url)
        proxy.refusing = True
        proxy.cut_all()
        await watched.told.until(lambda told: isinstance(told, dict) and told.get("status") == "waiting")
        assert await watched.names() == ["b", "a"]
        async with own.http() as http:
            await http.delete("/api/conversations/b")
        await talk(own, "c")
        assert await watched.names() == ["b", "a"]
        proxy.refusing = False
        await watched.until(lambda found: [one["conversation_id"] for one in found] == ["c", "a"])


async def test_commands_sent_right_before_a_cut_have_one_effect(node: Node, own: Server) -> None:
    async with soon(40), Proxy.before(own.port, seed=3) as proxy:
        watched = await Watched.begin(node, own, proxy.url)
        for _ in range(8):
            before = proxy.connections
            sent = asyncio.create_task(watched.inbox.call("run", "c", "once"))
            while proxy.connections == before:
                proxy.cut_all()
                await asyncio.sleep(0.001)
            assert (await sent)["conversation_id"] == "c"
        await watched.status("c", "idle")
    assert sum(event["type"] == "run.started" for event in await own.log("c")) == 8


@pytest.mark.parametrize("seed", [31, 32])
async def test_on_a_line_that_is_cut_all_the_time_it_ends_as_things_are(node: Node, own: Server, seed: int) -> None:
    async with soon(40), Proxy.before(own.port, cut_after=(500, 6_000), seed=seed) as proxy:
        watched = await Watched.begin(node, own, proxy.url)
        await asyncio.gather(*(talk(own, fresh(), "/stream 30 10") for _ in range(3)))
        proxy.cut_after = None
        proxy.cut_all()
        wanted = await listed(own)
        await watched.until(lambda found: found == wanted)
    assert proxy.cut >= 2


async def test_the_server_is_killed(node: Node, make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(data=tmp_path / "data")
    async with soon(40):
        watched = await Watched.begin(node, server)
        await server.post("c", {"type": "run.start", "input": "/ask Who?\n/say thanks"})
        asked = await watched.asked("c")
        server.kill()
        answer = asyncio.create_task(watched.inbox.call("answer", asked, "me"))
        server = make_server("--port", str(server.port), data=tmp_path / "data")
        assert (await answer)["interaction_id"] == asked["interaction_id"]
        await watched.status("c", "idle")
    assert (await server.log("c"))[-1]["output"] == "thanks"


async def test_a_wrong_key_ends_it(node: Node, server: Server) -> None:
    inbox = await (await node.client(server.url, key="wrong")).inbox()
    with pytest.raises(JsError) as failure:
        await inbox.ready()
    assert (failure.value.name, failure.value.code) == ("ConnectionRefused", 4401)
    with pytest.raises(JsError):
        await inbox.call("run", "c", "hi")


async def test_what_is_asked_of_a_closed_one_is_refused(node: Node, server: Server) -> None:
    watched = await Watched.begin(node, server)
    await watched.inbox.call("close")
    with pytest.raises(JsError) as failure:
        await watched.inbox.call("run", "c", "hi")
    assert failure.value.name == "ConversationClosed"
