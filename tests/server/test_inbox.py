"""The inbox at a real server: a page, what changes, and commands to any conversation."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import MakeServer
from tests.faults.test_stalled import connections_of, never_reading
from tests.wire import Json, Server, Socket, fresh, resident_kb, wait_for


class Inbox:
    """A socket at ``/ws``, and what a client makes of what it is told."""

    def __init__(self, socket: Socket, hello: Json) -> None:
        self.socket = socket
        self.hello = hello
        self.lines: dict[str, Json] = {}
        self.pages: list[Json] = []
        self.told: list[str] = []

    @classmethod
    @asynccontextmanager
    async def at(cls, server: Server, **options: Any) -> AsyncIterator[Inbox]:
        async with server.socket(None, **options) as socket:
            opened = cls(socket, await socket.recv())
            await opened.recv()
            yield opened

    async def recv(self) -> Json:
        frame = await self.socket.recv()
        self._take(frame)
        return frame

    def _take(self, frame: Json) -> None:
        self.told.append(frame["type"])
        match frame["type"]:
            case "inbox.page":
                self.pages.append(frame)
                self.lines |= {line["conversation_id"]: line for line in frame["conversations"]}
            case "inbox.changed":
                line = frame["conversation"]
                before = self.lines.get(line["conversation_id"], {"head": 0})
                assert line["head"] >= before["head"], "no older state follows a newer one"
                self.lines[line["conversation_id"]] = line
            case "inbox.removed":
                self.lines.pop(frame["conversation_id"], None)

    async def command(self, type_: str, **fields: Any) -> Json:
        """Its ``ok`` or ``error``; what comes before that is taken in."""
        command_id = fields.pop("id", None) or str(uuid.uuid4())
        await self.socket.send({"type": type_, "id": command_id, **fields})
        while True:
            frame = await self.recv()
            if frame["type"] in ("ok", "error") and frame["id"] == command_id:
                return frame

    async def ok(self, type_: str, **fields: Any) -> Json:
        answer = await self.command(type_, **fields)
        assert answer["type"] == "ok", answer
        return answer

    async def refusal(self, type_: str, **fields: Any) -> tuple[str, str | None]:
        """Code and path."""
        answer = await self.command(type_, **fields)
        assert answer["type"] == "error", answer
        assert answer["message"]
        return answer["code"], answer.get("path")

    async def until(self, conversation: str, **fields: Any) -> Json:
        """The conversation's line, when it is so."""
        async with asyncio.timeout(20):
            while True:
                line = self.lines.get(conversation)
                if line is not None and all(line.get(name) == value for name, value in fields.items()):
                    return line
                await self.recv()

    async def asked(self, conversation: str) -> Json:
        """What the conversation asks."""
        [asked] = (await self.until(conversation, status="waiting"))["interactions"]
        return dict(asked)

    async def gone(self, conversation: str) -> None:
        async with asyncio.timeout(20):
            while conversation in self.lines:
                await self.recv()


def answers(asked: Json, answer: str = "yes") -> Json:
    return {"interaction_id": asked["interaction_id"], "answers": {asked["questions"][0]["id"]: answer}}


# -- what is told ----------------------------------------------------------------------------------------


async def test_an_inbox_is_greeted_gets_a_page_and_then_what_changes(make_server: MakeServer) -> None:
    server, conversation = make_server(), fresh()
    async with Inbox.at(server) as inbox:
        hello = inbox.hello
        assert (hello["type"], hello["conversation_id"], hello["epoch"]) == ("hello", None, None)
        assert (hello["head"], hello["floor"]) == (0, 1)
        assert hello["resume"] == {"mode": "live", "from": 1, "to": 0}
        assert "conversation_id" in hello["hint"]
        assert inbox.pages == [{"type": "inbox.page", "conversations": [], "interactions": []}]
        async with server.socket(conversation) as socket:
            await socket.greeted()
            final = await socket.run("/say hello")
            line = await inbox.until(conversation, status="idle")
            assert line["head"] == final["seq"]
            assert line["last_event_at"] == final["ts"]
            assert line["usage"] == final["usage"]
            assert "run_id" not in line
    assert inbox.told.count("inbox.changed") <= 3


async def test_what_needs_a_person_comes_first_also_after_kill_9(make_server: MakeServer) -> None:
    server = make_server()
    async with Inbox.at(server) as inbox:
        for name, text in (("asks", "/ask go?"), ("rests", "hi"), ("rests-too", "hi")):
            await inbox.ok("run.start", conversation_id=name, input=text)
            await inbox.until(name, status="waiting" if name == "asks" else "idle")
        asked = await inbox.asked("asks")
    server.kill()
    again = make_server(data=server.data)
    async with Inbox.at(again) as inbox:
        [page] = inbox.pages
        assert [line["conversation_id"] for line in page["conversations"]] == ["asks", "rests-too", "rests"]
        assert page["interactions"] == [{**asked, "conversation_id": "asks"}]
        await inbox.ok("interaction.reply", conversation_id="asks", **answers(asked))
        line = await inbox.until("asks", status="idle")
        assert line["interactions"] == []


async def test_pages_follow_when_asked_for_and_end(make_server: MakeServer) -> None:
    server = make_server(settings="[inbox]\npage = 2\n")
    for number in range(5):
        await server.post(f"c{number}", {"type": "conversation.configure", "config": {"title": f"{number}"}})
    async with Inbox.at(server) as inbox:
        for _ in range(3):
            await inbox.ok("inbox.more")
            assert inbox.told[-2:] == ["inbox.page", "ok"], "the page comes before the ok"
        assert [len(page["conversations"]) for page in inbox.pages] == [2, 2, 1, 0]
        assert ["next" in page for page in inbox.pages] == [True, True, False, False]
        assert set(inbox.lines) == {f"c{number}" for number in range(5)}
        await inbox.ok("inbox.more", cursor=inbox.pages[0]["next"])
        assert inbox.pages[4]["conversations"] == inbox.pages[1]["conversations"]
        for cursor in ("", "x", "12-c0", "rest-\u00b2-c0", "waiting", "rest-" + "9" * 40 + "-c0"):
            assert await inbox.refusal("inbox.more", cursor=cursor) == ("invalid_frame", "$.cursor")
        await inbox.ok("inbox.more")
        assert inbox.pages[5]["conversations"] == inbox.pages[2]["conversations"]


async def test_a_conversation_is_deleted_while_somebody_pages(make_server: MakeServer) -> None:
    server = make_server(settings="[inbox]\npage = 2\n")
    for number in range(6):
        await server.post(f"c{number}", {"type": "conversation.configure", "config": {"title": f"{number}"}})
    async with Inbox.at(server) as inbox, server.http() as http:
        assert set(inbox.lines) == {"c5", "c4"}
        for name in ("c5", "c3", "c0"):
            assert (await http.delete(f"/api/conversations/{name}")).status_code == 204
        for _ in range(3):
            await inbox.ok("inbox.more")
        await inbox.gone("c5")
        assert set(inbox.lines) == {"c4", "c2", "c1"}
        await server.post("c5", {"type": "conversation.configure", "config": {"title": "anew"}})
        inbox.lines.pop("c5", None)
        assert (await inbox.until("c5"))["title"] == "anew"


async def test_conversations_that_are_not_kept_do_not_show(make_server: MakeServer) -> None:
    server = make_server()
    async with Inbox.at(server) as inbox:
        async with server.http() as http:
            asked = {"model": "hermes-agent", "messages": [{"role": "user", "content": "hi"}]}
            assert (await http.post("/v1/chat/completions", json=asked)).status_code == 200
        await inbox.ok("run.start", conversation_id="kept", input="hi")
        await inbox.until("kept", status="idle")
        assert set(inbox.lines) == {"kept"}
        assert "inbox.removed" not in inbox.told


async def test_silence_is_broken(make_server: MakeServer) -> None:
    server = make_server(settings="[readers]\nheartbeat_s = 0.1\n")
    async with Inbox.at(server) as inbox:
        beat = await inbox.recv()
        assert (beat["type"], beat["head"]) == ("heartbeat", 0)
        assert beat["ts"] > 1_700_000_000_000


async def test_changes_travel_and_not_the_world(make_server: MakeServer) -> None:
    server = make_server()
    async with Inbox.at(server) as inbox:
        started = await inbox.ok("run.start", conversation_id="long", input="/stream 2000")
        await inbox.until("long", status="idle")
        assert (await server.log("long"))[-1]["run_id"] == started["run_id"]
        sizes = [len(text) for text in inbox.socket.raw if "inbox.changed" in text]
        assert len(sizes) < 30
        assert max(sizes) < 400


# -- commands --------------------------------------------------------------------------------------------


async def test_a_run_starts_where_it_is_told_and_the_answer_says_where(server: Server) -> None:
    conversation = fresh()
    async with Inbox.at(server) as inbox:
        ok = await inbox.ok("run.start", conversation_id=conversation, input="hi")
        assert (ok["conversation_id"], ok["disposition"]) == (conversation, "started")
        await inbox.until(conversation, status="idle")
        chosen = await inbox.ok("run.start", conversation_id="new", input="hi")
        assert chosen["conversation_id"].startswith("conv_")
        await inbox.until(chosen["conversation_id"], status="idle")
        other = await inbox.ok("run.start", conversation_id="new", input="hi")
        assert other["conversation_id"] != chosen["conversation_id"]


async def test_a_command_sent_again_is_done_once_at_whichever_socket(server: Server) -> None:
    conversation, same = fresh(), str(uuid.uuid4())
    async with Inbox.at(server) as inbox, server.socket(conversation) as socket:
        await socket.greeted()
        first = await inbox.ok("run.start", id=same, conversation_id=conversation, input="hi")
        again = await inbox.ok("run.start", id=same, conversation_id=conversation, input="hi")
        assert again == {**first, "duplicate": True}
        there = await socket.ok("run.start", id=same, input="hi")
        assert (there["duplicate"], there["run_id"]) == (True, first["run_id"])
        reused = await inbox.refusal("run.start", id=same, conversation_id=conversation, input="ho")
        assert reused[0] == "id_reused"
        begun = await inbox.ok("run.start", id=same, conversation_id="new", input="hi")
        assert await inbox.ok("run.start", id=same, conversation_id="new", input="hi") == {**begun, "duplicate": True}


async def test_a_question_is_answered_and_a_run_stopped_from_the_inbox(server: Server) -> None:
    conversation = fresh()
    async with Inbox.at(server) as inbox:
        await inbox.ok("client.update", client_id="my-dashboard")
        await inbox.ok("run.start", conversation_id=conversation, input="/ask go?\n/sleep 600")
        asked = await inbox.asked(conversation)
        ok = await inbox.ok("interaction.reply", conversation_id=conversation, **answers(asked))
        assert (ok["conversation_id"], ok["interaction_id"]) == (conversation, asked["interaction_id"])
        late = await inbox.command("interaction.reply", conversation_id=conversation, **answers(asked))
        assert late["code"] == "interaction_resolved"
        await inbox.until(conversation, status="running")
        stopped = await inbox.ok("run.stop", conversation_id=conversation)
        assert stopped["conversation_id"] == conversation
        await inbox.until(conversation, status="idle")
    [resolved] = [event for event in await server.log(conversation) if event["type"] == "interaction.resolved"]
    assert resolved["by"] == {"principal": "owner", "client_id": "my-dashboard"}


async def test_two_inboxes_answer_and_the_first_one_wins(server: Server) -> None:
    conversation = fresh()
    async with Inbox.at(server) as one, Inbox.at(server) as two:
        await one.ok("run.start", conversation_id=conversation, input="/ask go?")
        asked = await one.asked(conversation)
        assert await two.asked(conversation) == asked
        replies = await asyncio.gather(
            *(box.command("interaction.reply", conversation_id=conversation, **answers(asked)) for box in (one, two))
        )
        assert sorted(reply["type"] for reply in replies) == ["error", "ok"]
        for box in (one, two):
            await box.until(conversation, status="idle", interactions=[])


async def test_a_command_says_where_or_is_refused(server: Server) -> None:
    nowhere = ("invalid_frame", "$.conversation_id")
    async with Inbox.at(server) as inbox:
        assert await inbox.refusal("run.start", input="hi") == nowhere
        assert await inbox.refusal("run.stop") == nowhere
        assert await inbox.refusal("interaction.reply", interaction_id="int_1", option="once") == nowhere
        assert await inbox.refusal("run.start", input="hi", conversation_id="a/b") == nowhere
        assert await inbox.refusal("run.stop", conversation_id="new") == nowhere
        assert await inbox.refusal("interaction.reply", conversation_id="new", interaction_id="int_1") == nowhere


async def test_a_refused_command_creates_nothing(server: Server) -> None:
    conversation = fresh()
    async with Inbox.at(server) as inbox:
        before = set(inbox.lines)
        assert await inbox.refusal("run.stop", conversation_id=conversation) == ("run_not_active", None)
        unknown = await inbox.refusal("interaction.reply", conversation_id=conversation, interaction_id="int_1")
        assert unknown[0] == "interaction_not_found"
        agent = await inbox.refusal("run.start", conversation_id=conversation, input="hi", agent="nobody")
        assert agent == ("not_found", "$.agent")
        assert await inbox.refusal("run.start", conversation_id="new", input="hi", agent="nobody") == agent
        await inbox.ok("ping")
        assert set(inbox.lines) == before
    async with server.http() as http:
        assert (await http.get(f"/api/conversations/{conversation}/events")).json()["head"] == 0


@pytest.mark.parametrize(
    "command",
    [
        {"type": "run.steer", "text": "hi"},
        {"type": "run.retry", "run_id": "run_1"},
        {"type": "approvals.list"},
        {"type": "approvals.revoke", "rule_id": "rule_1"},
        {"type": "conversation.configure", "config": {}},
        {"type": "conversation.fork"},
        {"type": "tools.list"},
        {"type": "snapshot.get"},
    ],
    ids=lambda command: str(command["type"]),
)
async def test_what_is_for_one_conversation_is_unsupported_and_says_where_it_is_not(
    server: Server, command: Json
) -> None:
    async with Inbox.at(server) as inbox:
        answer = await inbox.command(type_=command.pop("type"), **command)
        assert (answer["code"], answer["path"], answer["retryable"]) == ("unsupported", "$.type", False)
        assert "/ws/CONVERSATION" in answer["message"]


async def test_help_lists_what_the_inbox_takes_with_examples_that_can_be_sent(server: Server) -> None:
    async with Inbox.at(server) as inbox:
        ok = await inbox.ok("help")
        listed = {entry["type"]: entry["example"] for entry in ok["commands"]}
        places = {"run.start", "run.stop", "interaction.reply"}
        assert set(listed) == {*places, "client.update", "inbox.more", "ping", "help"}
        assert all(("conversation_id" in listed[kind]) == (kind in places) for kind in listed)
        assert (await inbox.ok("ping"))["head"] == 0
        for kind in set(listed) - places:
            await inbox.ok(type_=kind, **{name: v for name, v in listed[kind].items() if name != "type"})


async def test_tools_are_not_offered_at_the_inbox(server: Server) -> None:
    async with Inbox.at(server) as inbox:
        offered = await inbox.refusal("client.update", client_id="me", tools=[{"name": "show"}])
        assert offered == ("unsupported", "$.tools")


async def test_inbox_more_is_for_the_inbox(server: Server) -> None:
    async with server.socket() as socket:
        error = await socket.error("inbox.more")
        assert error["code"] == "unsupported"
        assert "/ws" in error["message"]


async def test_garbage_is_answered_and_the_inbox_goes_on(server: Server) -> None:
    async with Inbox.at(server) as inbox:
        garbage: list[str | bytes] = [
            "",
            "hello",
            "[]",
            "{}",
            '{"type":"inbox.mroe"}',
            b"\x00\xff",
            "{" * 5_000,
            "null",
        ]
        for piece in garbage:
            await inbox.socket.send(piece)
            answer = await inbox.recv()
            while answer["type"] != "error":
                answer = await inbox.recv()
            assert (answer["id"], answer["retryable"]) == (None, False)
        await inbox.socket.send_text_bytes(b'{"type":"ping\xff"}')
        assert (await inbox.refusal("inbox.mroe"))[0] == "unknown_type"
        await inbox.ok("ping")


async def test_a_frame_that_is_too_large_is_refused(make_server: MakeServer) -> None:
    server = make_server(settings="[limits]\nframe_bytes = 2000\n")
    async with Inbox.at(server) as inbox:
        await inbox.socket.send({"type": "run.start", "conversation_id": "demo", "input": "x" * 3_000})
        assert (await inbox.recv())["code"] == "too_large"
        await inbox.ok("ping")


# -- who is let in ---------------------------------------------------------------------------------------


async def refused(server: Server, **options: Any) -> tuple[int, Json]:
    with pytest.raises(InvalidStatus) as caught:
        async with server.socket(None, **options):
            pass
    return caught.value.response.status_code, json.loads(caught.value.response.body or b"{}")


async def closed_with(server: Server, **options: Any) -> int:
    async with server.socket(None, subprotocols=["hermes.v1"], **options) as socket:
        return (await socket.closed())[0]


async def test_the_inbox_takes_a_key_and_no_other(server: Server) -> None:
    for key in ("", "wrong"):
        assert (await refused(server, key=key))[0] == 401
        assert await closed_with(server, key=key) == 4401
    assert (await refused(server, headers={"Origin": "https://evil.example"}))[0] == 403


async def test_a_ticket_is_for_one_conversation(server: Server) -> None:
    async with server.http() as http:
        tickets = [(await http.post("/api/tickets", json={"conversation": "demo"})).json()["ticket"] for _ in "12"]
    status, body = await refused(server, key="", ticket=tickets[0])
    assert status == 403
    assert "/ws/CONVERSATION" in body["message"]
    assert await closed_with(server, key="", ticket=tickets[1]) == 4403


async def test_an_inbox_counts_among_the_sockets(make_server: MakeServer) -> None:
    server = make_server(settings="[limits]\nsockets = 1\n")
    async with Inbox.at(server):
        assert (await refused(server))[0] == 503
        assert await closed_with(server) == 4529
    async with asyncio.timeout(10):
        while True:
            try:
                async with Inbox.at(server):
                    return
            except InvalidStatus:
                await asyncio.sleep(0.01)


# -- at a terminal ---------------------------------------------------------------------------------------


class Terminal:
    """What a person sees who opened ``/ws?plain=1``, line by line."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.seen: list[str] = []

    @classmethod
    @asynccontextmanager
    async def at(cls, server: Server) -> AsyncIterator[Terminal]:
        async with server.socket(None, plain=1) as socket:
            yield cls(socket)

    async def type(self, line: str) -> None:
        await self.socket.send(line)

    async def sees(self, *parts: str) -> str:
        """The next line that has all of these in it."""
        while True:
            line = await self.socket.recv_line()
            self.seen.append(line)
            if all(part in line for part in parts):
                return line


async def test_a_person_runs_answers_and_stops_from_a_terminal(make_server: MakeServer) -> None:
    server = make_server()
    async with Terminal.at(server) as terminal:
        assert "all conversations" in await terminal.sees("hermes-ws")
        await terminal.sees("no more conversations")
        await terminal.type("@demo /run echo hi")
        await terminal.sees("▸ demo", "waiting", "1 open")
        await terminal.sees("? ", "echo hi")
        await terminal.sees("/approve [once")
        await terminal.sees("begin the answer with @demo")
        await terminal.type("@demo /approve")
        await terminal.sees("▸ demo", "idle")
        await terminal.type("@demo /ask go?\n/sleep 600")
        await terminal.sees("? ", "go?")
        await terminal.type("@demo yes")
        await terminal.sees("▸ demo", "running")
        await terminal.type("@demo /stop now")
        await terminal.sees("▸ demo", "idle")
        await terminal.type("@new hi")
        await terminal.sees("▸ conv_", "idle")
        async with server.http() as http:
            await http.delete("/api/conversations/demo")
        await terminal.sees("demo was deleted")
    asked = [line for line in terminal.seen if "? " in line]
    assert len(asked) == 2, "each question is shown once, however often its conversation changes"


async def test_a_line_at_the_inbox_says_where_or_is_refused(make_server: MakeServer) -> None:
    server = make_server()
    async with Terminal.at(server) as terminal:
        await terminal.sees("no more")
        for line, said in {
            "hi": "say where",
            "/approve": "say where",
            "@": "it is @CONVERSATION",
            "@demo": "it is @CONVERSATION",
            "@de/mo hi": "it is @CONVERSATION",
            "@demo /approve": "no approval or form is open",
            "@demo /tools": "/ws/demo?plain=1",
            "@demo /steer left": "/ws/demo?plain=1",
            "{}": "has no `type`",
        }.items():
            await terminal.type(line)
            assert (await terminal.sees("! ")).find(said) > 0, line
        await terminal.type("/help")
        await terminal.sees("@NAME")
        await terminal.type("   ")
        await terminal.type('{"type":"ping"}')
        await terminal.sees("head 0")


async def test_pages_are_short_lists_at_a_terminal(make_server: MakeServer) -> None:
    server = make_server(settings="[inbox]\npage = 2\n")
    for number in range(3):
        title = f"t{number}\u001b[2J\nwith a second line"
        await server.post(f"c{number}", {"type": "conversation.configure", "config": {"title": title}})
    async with Terminal.at(server) as terminal:
        assert await terminal.sees("c2") == "▸ c2 · idle · t2[2J with a second line"
        await terminal.sees("c1")
        await terminal.sees("/more")
        await terminal.type("/more")
        await terminal.sees("c0")
        await terminal.type("/more")
        await terminal.sees("no more conversations")


# -- the end, and those who do not read ------------------------------------------------------------------


async def test_a_drain_says_goodbye_and_closes_4503(make_server: MakeServer) -> None:
    server = make_server(settings="[server]\ndrain_grace_s = 0.2\n")
    async with Inbox.at(server) as inbox:
        await inbox.ok("run.start", conversation_id="demo", input="/sleep 600")
        server.terminate()
        await inbox.socket.until("goaway")
        assert (await inbox.socket.closed())[0] == 4503
    assert await server.exited() == 0


async def test_a_drain_refuses_new_work_from_the_inbox(make_server: MakeServer) -> None:
    server = make_server(settings="[server]\ndrain_grace_s = 5\n")
    async with Inbox.at(server) as inbox:
        await inbox.ok("run.start", conversation_id="demo", input="/sleep 2")
        server.terminate()
        await inbox.socket.until("goaway")
        answer = await inbox.command("run.start", conversation_id="other", input="hi")
        assert (answer["type"], answer["retryable"]) == ("error", True)


async def test_a_client_that_does_not_read_costs_little_and_is_let_go_of(make_server: MakeServer) -> None:
    """2,000 changes of 400 conversations, which would be 50 MB for 20 of them who do not read."""
    server = make_server(settings="[readers]\nstall_s = 2\n[inbox]\nquiet_ms = 0\n[conversations]\nidle_s = 1\n")
    title = " word" * 200

    async def change(number: int) -> None:
        config = {"type": "conversation.configure", "config": {"title": f"{number}{title}"}}
        answer = await http.post(f"/api/conversations/c{number % 400}/commands", json=config)
        assert answer.json()["type"] == "ok"

    async with server.http() as http, Inbox.at(server) as reading:
        for begin in range(0, 400, 20):
            await asyncio.gather(*(change(number) for number in range(begin, begin + 20)))
        stalled = [await never_reading(server, None) for _ in range(20)]
        before, connections = resident_kb(server.pid), connections_of(server)
        for begin in range(400, 2_400, 20):
            await asyncio.gather(*(change(number) for number in range(begin, begin + 20)))
        assert resident_kb(server.pid) - before < 16_000
        await reading.until("c399", title=f"2399{title}")
        await wait_for(lambda: connections_of(server) <= connections - 20)
        for one in stalled:
            one.close()
        await reading.ok("ping")
    assert "Traceback" not in server.errors


async def test_one_that_comes_back_begins_anew_and_sees_what_is_so(make_server: MakeServer) -> None:
    server = make_server()
    async with Inbox.at(server) as inbox:
        await inbox.ok("run.start", conversation_id="demo", input="hi")
        before = await inbox.until("demo", status="idle")
        inbox.socket.abort()
    server.kill()
    again = make_server(data=server.data)
    async with Inbox.at(again) as inbox:
        assert inbox.pages[0]["conversations"] == [before]
