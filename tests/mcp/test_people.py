"""People and MCP tools: who is asked before a call, and what servers ask people themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.mcp.conftest import MakeOfficial, MakeUgly
from tests.mcp.desk import ADA, AUTO, LOCAL, call, calls, configure, crm, last
from tests.mcp.official_tools import LOGIN_URL
from tests.mcp.running import OfficialServer
from tests.wire import Json, Server, Socket, fresh, open_interactions, soon, terminals

NOTE = call("add_note", customer_id="c1", text="likes tea")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server.start(tmp_path_factory.mktemp("people"), settings=LOCAL)
    yield server
    server.stop()
    assert "Traceback" not in server.errors, server.errors


@pytest.fixture(scope="module")
def older_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfficialServer]:
    server = OfficialServer(tmp_path_factory.mktemp("older"), older=True).start()
    yield server
    server.stop()


@pytest.fixture(params=["2026", "2025"])
def either(request: pytest.FixtureRequest, official: OfficialServer) -> OfficialServer:
    """The official server, as it is and as it was before 2026."""
    if request.param == "2026":
        return official
    older: OfficialServer = request.getfixturevalue("older_process")
    older.reset()
    return older


@asynccontextmanager
async def talking(host: Server, official: OfficialServer, /, **config: Any) -> AsyncIterator[Socket]:
    """A conversation with the CRM. ``server`` is said of the CRM, the rest of the conversation."""
    async with host.socket() as socket:
        server = config.pop("server", {})
        await configure(socket, mcp_servers={"crm": crm(official, **server)}, **config)
        yield socket
    assert set(terminals(socket.log).values()) <= {0, 1}, "something ended twice"


@pytest.fixture
async def socket(host: Server, official: OfficialServer) -> AsyncIterator[Socket]:
    async with talking(host, official) as socket:
        yield socket


# -- approvals -----------------------------------------------------------------------------------------------


async def test_tools_that_only_read_run_and_others_ask(socket: Socket, official: OfficialServer) -> None:
    await socket.ok("run.start", input=f"{call('find_customer')}\n{NOTE}\n{call('delete_customer', customer_id='c1')}")
    note = await socket.asked()
    assert calls(socket.log)[0][0] == "ok"
    assert (note["kind"], note["tool"]["name"], note["tool"]["source"]) == ("approval", "add_note", "mcp:crm")
    assert note["tool"]["arguments"] == {"customer_id": "c1", "text": "likes tea"}
    assert "mcp:crm/add_note" in note["message"]
    await socket.reply(note, option="once")
    delete = await socket.asked()
    assert (note["tool"]["risk"], delete["tool"]["risk"]) == ("medium", "high")
    await socket.reply(delete, option="deny", comment="never")
    await socket.until_final()
    assert [status for status, _ in calls(socket.log)] == ["ok", "ok", "denied"]
    assert [entry["tool"] for entry in official.seen(kind="effect")] == ["add_note"]
    assert not official.seen(tool="delete_customer")


async def test_wider_approvals_are_for_the_tool_of_that_server(host: Server, official: OfficialServer) -> None:
    official.tokens(ada=ADA, bob=ADA)
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": crm(official, "ada"), "other": crm(official, "bob")})
        script = [f"/tool mcp:{name}/counter {{}}" for name in ("crm", "crm", "other")]
        await socket.ok("run.start", input="\n".join(script))
        asked = await socket.asked()
        offered = {option["id"]: option.get("rule") for option in asked["options"]}
        assert {name: rule and rule["tool"] for name, rule in offered.items()} == {
            "once": None,
            "run": "mcp:crm/counter",
            "conversation": "mcp:crm/counter",
            "always": "mcp:crm/counter",
            "deny": None,
        }
        await socket.reply(asked, option="run")
        other = await socket.asked()
        assert other["tool"]["source"] == "mcp:other"
        await socket.reply(other, option="deny")
        await socket.until_final()
    assert [status for status, _ in calls(socket.log)] == ["ok", "ok", "denied"]


@pytest.mark.parametrize(("scope", "asked_again"), [("once", True), ("run", True), ("conversation", False)])
async def test_an_approval_holds_as_far_as_its_scope(
    host: Server, official: OfficialServer, scope: str, asked_again: bool
) -> None:
    async with talking(host, official) as socket:
        await socket.ok("run.start", input=call("counter"))
        await socket.reply(await socket.asked(), option=scope)
        await socket.until_final()
        await socket.ok("run.start", input=call("counter"))
        if asked_again:
            await socket.reply(await socket.asked(), option="deny")
        await socket.until_final()
        assert len(socket.of("interaction.requested")) == 1 + asked_again


async def test_always_holds_in_the_next_conversation_until_it_is_revoked(
    make_server: MakeServer, official: OfficialServer
) -> None:
    host = make_server(settings=LOCAL)
    async with talking(host, official) as socket:
        await socket.ok("run.start", input=NOTE)
        await socket.reply(await socket.asked(), option="always")
        await socket.until_final()
    async with talking(host, official) as socket:
        await socket.run(NOTE)
        assert calls(socket.log) == [("ok", "noted")]
        [rule] = (await socket.ok("approvals.list"))["rules"]
        assert (rule["scope"], rule["rule"]["tool"]) == ("always", "mcp:crm/add_note")
        await socket.ok("approvals.revoke", rule_id=rule["rule_id"])
        await socket.ok("run.start", input=NOTE)
        await socket.reply(await socket.asked(), option="deny")
        await socket.until_final()


@pytest.mark.parametrize("scope", ["conversation", "always"])
async def test_an_approval_is_not_for_another_server_that_takes_the_name(
    host: Server, official: OfficialServer, older_process: OfficialServer, scope: str
) -> None:
    older_process.reset()
    name = f"crm-{scope}"
    async with host.socket() as socket:
        await configure(socket, mcp_servers={name: crm(official)})
        await socket.ok("run.start", input=call("counter"))
        await socket.reply(await socket.asked(), option=scope)
        await socket.until_final()
        await configure(socket, mcp_servers={name: crm(older_process)})
        await socket.ok("run.start", input=call("counter"))
        asked = await socket.asked()
        await socket.reply(asked, option="deny")
        await socket.until_final()
        assert not older_process.seen(tool="counter")


async def test_rules_name_tools_of_servers(make_server: MakeServer, official: OfficialServer) -> None:
    """The operator's come first, and a refusal of anybody's holds."""
    rules = [{"tool": "mcp:crm/add_*", "decision": "allow"}, {"tool": "mcp:*/delete_*", "decision": "deny"}]
    lines = "".join(
        f'[[approvals.rules]]\ntool = "{rule["tool"]}"\ndecision = "{rule["decision"]}"\n' for rule in rules
    )
    host = make_server(settings=LOCAL + lines)
    own = [{"tool": "mcp:crm/counter", "decision": "allow"}, {"tool": "delete_customer", "decision": "allow"}]
    async with talking(host, official, approvals={"rules": own}) as socket:
        script = [NOTE, call("counter"), call("delete_customer", customer_id="c1"), call("fail")]
        await socket.ok("run.start", input="\n".join(script))
        asked = await socket.asked()
        assert asked["tool"]["name"] == "fail"
        await socket.reply(asked, option="deny")
        await socket.until_final()
    assert [status for status, _ in calls(socket.log)] == ["ok", "ok", "denied", "denied"]


async def test_edited_arguments_are_what_the_servers_schema_takes(socket: Socket, official: OfficialServer) -> None:
    await socket.ok("run.start", input=NOTE)
    asked = await socket.asked()
    wrong = {"customer_id": "c1", "text": 7}
    fields = {"interaction_id": asked["interaction_id"], "option": "once", "digest": asked["digest"]}
    error = await socket.error("interaction.reply", arguments=wrong, **fields)
    assert (error["code"], error["path"]) == ("invalid_answer", "$.arguments")
    assert "text" in error["message"]
    error = await socket.error("interaction.reply", arguments={"text": "x"}, **fields)
    assert "customer_id" in error["message"]
    await socket.reply(asked, option="once", arguments={"customer_id": "c2", "text": "likes coffee"})
    await socket.until_final()
    assert socket.of("tool.executing")[0]["arguments"] == {"customer_id": "c2", "text": "likes coffee"}
    assert official.tenants()["ada"]["notes"] == [{"customer_id": "c2", "text": "likes coffee"}]


async def test_what_is_narrowed_while_a_question_is_open_holds(socket: Socket, official: OfficialServer) -> None:
    await socket.ok("run.start", input=f"{NOTE}\n/say on")
    asked = await socket.asked()
    await configure(socket, mcp_servers={"crm": {"tools": {"deny": ["add_*"]}}})
    await socket.reply(asked, option="conversation")
    final = await socket.until_final()
    assert calls(socket.log)[0][0] == "denied"
    assert final["output"] == "on"
    assert not official.seen(kind="effect")


async def test_a_server_that_goes_while_a_question_is_open_is_not_called(
    socket: Socket, official: OfficialServer
) -> None:
    await socket.ok("run.start", input=f"{NOTE}\n/say on")
    asked = await socket.asked()
    await configure(socket, mcp_servers={"crm": None})
    await socket.reply(asked, option="once")
    final = await socket.until_final()
    status, output = calls(socket.log)[0]
    assert status in ("denied", "error")
    assert "crm" in output
    assert final["output"] == "on"
    assert not official.seen(kind="effect")


async def test_a_server_has_approvals_of_its_own(host: Server, official: OfficialServer) -> None:
    rules = [{"tool": "delete_*", "decision": "deny"}, {"tool": "mcp:crm/find_customer", "decision": "ask"}]
    async with talking(host, official, server={"approvals": {"mode": "auto", "rules": rules}}) as socket:
        script = [NOTE, call("delete_customer", customer_id="c1"), call("find_customer"), "/run echo hi"]
        await socket.ok("run.start", input="\n".join(script))
        found = await socket.asked()
        assert found["tool"]["name"] == "find_customer"
        await socket.reply(found, option="once")
        ours = await socket.asked()
        assert ours["tool"]["source"] == "builtin", "what is said of a server is only for its tools"
        await socket.reply(ours, option="deny")
        await socket.until_final()
    assert [status for status, _ in calls(socket.log)] == ["ok", "denied", "ok", "denied"]


async def test_a_server_may_be_stricter_than_its_conversation(host: Server, official: OfficialServer) -> None:
    async with talking(host, official, server={"approvals": {"mode": "deny"}}, **AUTO) as socket:
        await socket.run(f"{NOTE}\n{call('add', a=1, b=2)}\n/run echo hi")
    assert [status for status, _ in calls(socket.log)] == ["denied", "ok", "ok"]


async def test_a_ceiling_bounds_what_is_said_of_a_server(make_server: MakeServer, official: OfficialServer) -> None:
    host = make_server(settings=LOCAL + '[approvals]\nceiling = "ask"\n')
    async with host.socket() as socket:
        server = crm(official)
        for approvals, path in (
            ({"mode": "auto"}, "mode"),
            ({"rules": [{"tool": "add_note", "decision": "allow"}]}, "rules[0].decision"),
        ):
            config = {"mcp_servers": {"crm": {**server, "approvals": approvals}}}
            error = await socket.error("conversation.configure", config=config)
            assert error["code"] == "not_permitted"
            assert error["path"] == f"$.config.mcp_servers.crm.approvals.{path}"


async def test_an_operators_servers_and_agents_bound_conversations(
    make_server: MakeServer, official: OfficialServer
) -> None:
    official.tokens(ada=ADA)
    host = make_server(
        settings=f"""{LOCAL}
[mcp_servers.desk]
url = "{official.url}"
headers = {{ Authorization = "Bearer ada" }}
tools = {{ deny = ["delete_*"] }}
approvals = {{ mode = "ask", rules = [{{ tool = "set_note", decision = "deny" }}] }}
[agents.demo]
kind = "demo"
[agents.reader]
kind = "demo"
tools = {{ allow = ["mcp:crm/*"], deny = ["counter"] }}
approvals = {{ mode = "deny" }}
"""
    )
    script = [NOTE, call("set_note", customer_id="c1", text="x"), call("delete_customer", customer_id="c1")]
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"crm": {"ref": "desk"}}, **AUTO)
        await socket.ok("run.start", input="\n".join(script))
        asked = await socket.asked()
        assert asked["tool"]["name"] == "add_note", "the operator's ask is as loose as it gets"
        await socket.reply(asked, option="once")
        await socket.until_final()
        assert [status for status, _ in calls(socket.log)] == ["ok", "denied", "denied"]
        more = [NOTE, call("counter"), call("find_customer"), "/tool list_files {}"]
        await socket.run("\n".join(more), agent="reader")
        assert [status for status, _ in calls(socket.log)][3:] == ["denied", "denied", "ok", "denied"]


# -- forms ---------------------------------------------------------------------------------------------------


async def form(socket: Socket, script: str) -> Json:
    await socket.ok("run.start", input=script)
    return await socket.asked()


async def test_a_form_is_shown_filled_in_and_sent(host: Server, either: OfficialServer) -> None:
    async with talking(host, either, **AUTO) as socket:
        asked = await form(socket, f"{call('ask_name', greeting='Good morning')}\n/say done")
        assert asked["kind"] == "form"
        assert asked["call_id"] == socket.of("tool.started")[0]["call_id"]
        assert "Good morning" in asked["message"]
        assert "crm" in asked["title"], "people must see who asks"
        assert set(asked["schema"]["properties"]) == {"name", "age", "newsletter"}
        assert [(option["id"], option["kind"]) for option in asked["options"]] == [
            ("accept", "allow"),
            ("decline", "deny"),
        ]
        assert asked["on_expire"] == {"cancel": True}
        waiting = await socket.until("run.waiting")
        assert waiting["interactions"] == [asked["interaction_id"]]
        content = {"name": "Bob", "age": 41, "newsletter": True}
        resolved = await socket.reply(asked, option="accept", content=content)
        final = await socket.until_final()
    assert (resolved["outcome"], resolved["option"], resolved["content"]) == ("answered", "accept", content)
    assert calls(socket.log) == [("ok", "Hello Bob, aged 41, newsletter: True")]
    assert final["output"] == "done"
    assert socket.of("run.resumed")


async def test_content_alone_accepts_a_form(host: Server, official: OfficialServer) -> None:
    async with talking(host, official, **AUTO) as socket:
        await socket.reply(await form(socket, call("ask_name")), content={"name": "Bob"})
        await socket.until_final()
    assert calls(socket.log)[0] == ("ok", "Hello Bob, aged 30, newsletter: False")


async def test_a_form_may_be_declined(host: Server, either: OfficialServer) -> None:
    async with talking(host, either, **AUTO) as socket:
        await socket.reply(await form(socket, call("ask_name")), option="decline")
        await socket.until_final()
    assert calls(socket.log) == [("ok", "the user said decline")]


async def test_a_form_that_is_filled_in_wrongly_is_refused_with_the_place(
    host: Server, official: OfficialServer
) -> None:
    async with talking(host, official, **AUTO) as socket:
        asked = await form(socket, call("ask_name"))
        for fields, code, path in (
            ({"option": "accept", "content": {"name": "Bob", "age": "old"}}, "invalid_answer", "$.content.age"),
            ({"option": "accept", "content": {"name": ""}}, "invalid_answer", "$.content.name"),
            ({"option": "accept", "content": {"name": "Bob", "age": 200}}, "invalid_answer", "$.content.age"),
            ({"option": "accept", "content": {}}, "invalid_answer", "$.content"),
            ({"option": "accept"}, "invalid_answer", "$.content"),
            ({"option": "maybe", "content": {"name": "Bob"}}, "invalid_option", "$.option"),
            ({"option": "decline", "content": {"name": "Bob"}}, "invalid_answer", "$.content"),
            ({"answers": {"name": "Bob"}}, "invalid_answer", "$.answers"),
            ({}, "invalid_answer", "$.content"),
        ):
            error = await socket.error("interaction.reply", interaction_id=asked["interaction_id"], **fields)
            assert (error["code"], error["path"].split(".name")[0]) == (code, path.split(".name")[0]), fields
        assert open_interactions(socket.log)
        await socket.reply(asked, option="accept", content={"name": "Bob"})
        await socket.until_final()
    assert last(socket)["status"] == "ok"


async def test_nobody_answers_a_form_and_the_server_is_told_cancel(
    make_server: MakeServer, official: OfficialServer
) -> None:
    host = make_server(settings=LOCAL + "[sessions]\ninteraction_timeout_s = 1\n")
    async with talking(host, official, **AUTO) as socket:
        asked = await form(socket, f"{call('ask_name')}\n/say on")
        final = await socket.until_final()
        [resolved] = socket.of("interaction.resolved")
    assert (resolved["interaction_id"], resolved["outcome"]) == (asked["interaction_id"], "expired")
    assert last(socket)["output"] == "the user said cancel"
    assert final["output"] == "on"


async def test_a_stop_cancels_the_form_and_the_call(host: Server, either: OfficialServer) -> None:
    async with talking(host, either, **AUTO) as socket:
        asked = await form(socket, call("ask_name"))
        async with soon(1):
            await socket.ok("run.stop")
            final = await socket.until_final()
        [resolved] = socket.of("interaction.resolved")
        late = await socket.error("interaction.reply", interaction_id=asked["interaction_id"], content={"name": "Late"})
        assert late["code"] == "interaction_resolved"
        await socket.run(call("add", a=1, b=2))
    assert (final["type"], resolved["outcome"]) == ("run.cancelled", "cancelled")
    assert [status for status, _ in calls(socket.log)] == ["cancelled", "ok"]


async def test_the_clock_of_a_call_stands_still_while_people_are_asked(host: Server, either: OfficialServer) -> None:
    async with talking(host, either, server={"timeout_ms": 400}, **AUTO) as socket:
        asked = await form(socket, call("ask_name"))
        await asyncio.sleep(1)
        await socket.reply(asked, content={"name": "Bob"})
        await socket.until_final()
        assert last(socket)["status"] == "ok", last(socket)
        await socket.run(call("wait_forever", key="after"))
    assert "0.4 s" in last(socket)["output"], "it goes on afterwards"


async def test_two_calls_may_ask_at_the_same_time(host: Server, either: OfficialServer) -> None:
    async with talking(host, either, **AUTO) as socket:
        await socket.ok("run.start", input=f"{call('ask_name', greeting='A')}\n/par\n{call('ask_name', greeting='B')}")
        async with soon():
            while len(asked := open_interactions(socket.log)) < 2:
                await socket.recv()
        by_call = {event["call_id"]: event["arguments"]["greeting"] for event in socket.of("tool.started")}
        for one in reversed(asked):
            letter = one["message"][0]
            assert by_call[one["call_id"]] == letter, "the question belongs to the other call"
            await socket.reply(one, content={"name": f"Name {letter}"})
        await socket.until_final()
    said = {by_call[event["call_id"]]: event["output"] for event in socket.of("tool.completed")}
    assert said == {x: f"Hello Name {x}, aged 30, newsletter: False" for x in ("A", "B")}


async def test_an_approval_comes_before_the_form(socket: Socket) -> None:
    approval = await form(socket, call("ask_name"))
    assert approval["kind"] == "approval"
    await socket.reply(approval, option="once")
    shown = await socket.asked()
    assert shown["kind"] == "form"
    await socket.reply(shown, content={"name": "Bob"})
    await socket.until_final()
    assert last(socket)["output"].startswith("Hello Bob")


async def test_a_form_is_answered_over_http(host: Server, official: OfficialServer) -> None:
    conversation = fresh()
    await host.post(
        conversation, {"type": "conversation.configure", "config": {"mcp_servers": {"crm": crm(official)}, **AUTO}}
    )
    async with host.socket(conversation) as socket:
        asked = await form(socket, call("ask_name"))
        reply = {"type": "interaction.reply", "interaction_id": asked["interaction_id"], "content": {"name": "Bob"}}
        assert (await host.post(conversation, reply))["type"] == "ok"
        await socket.until_final()
        [resolved] = socket.of("interaction.resolved")
    assert resolved["via"] == "http"


# -- pages to go to ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "said"), [("accept", "accept"), ("decline", "decline")])
async def test_people_are_sent_to_a_page(host: Server, either: OfficialServer, option: str, said: str) -> None:
    async with talking(host, either, **AUTO) as socket:
        asked = await form(socket, call("ask_login"))
        assert (asked["kind"], asked["url"]) == ("form", LOGIN_URL)
        assert asked.get("schema") is None
        assert "log in" in asked["message"]
        assert [one["id"] for one in asked["options"]] == ["accept", "decline"]
        error = await socket.error("interaction.reply", interaction_id=asked["interaction_id"], content={"name": "Bob"})
        assert error["code"] in ("invalid_answer", "invalid_option")
        await socket.reply(asked, option=option)
        await socket.until_final()
    assert calls(socket.log) == [("ok", f"the user said {said}")]


async def test_a_call_that_needs_a_page_first_is_made_again_once_that_is_done(
    host: Server, make_ugly: MakeUgly
) -> None:
    server = make_ugly("login_required")
    async with host.socket() as socket:
        await configure(socket, mcp_servers={"ugly": {"url": server.url}}, **AUTO)
        asked = await form(socket, call("tool"))
        assert asked["url"] == "https://crm.example.com/login"
        assert server.methods().count("tools/call") == 1
        await socket.reply(asked, option="accept")
        again = await socket.asked()
        assert server.methods().count("tools/call") == 2
        await socket.reply(again, option="decline")
        await socket.until_final()
    assert last(socket)["status"] == "error"
    assert "declined" in last(socket)["output"]
    assert server.methods().count("tools/call") == 2


async def test_questions_stay_for_those_who_come_later(host: Server, make_official: MakeOfficial) -> None:
    server = make_official()
    conversation = fresh()
    async with host.socket(conversation) as socket:
        await configure(socket, mcp_servers={"crm": crm(server)}, **AUTO)
        await form(socket, call("ask_name"))
    async with host.socket(conversation) as later:
        await later.greeted()
        snapshot = (await later.ok("snapshot.get"))["snapshot"]
        [asked] = snapshot["interactions"]
        assert asked["schema"]["properties"]["name"]
        await later.ok("interaction.reply", interaction_id=asked["interaction_id"], content={"name": "Bob"})
        await later.until_final()
        assert last(later)["output"].startswith("Hello Bob")
