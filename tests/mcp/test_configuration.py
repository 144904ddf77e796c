"""What conversations may say of MCP servers: by whom, within which bounds; and that no secret is ever read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.mcp.gateway import AUTO_SETTINGS, configure, crm, outputs, results, status, told
from tests.mcp.running import OfficialServer, StdioCommand, ugly_stdio
from tests.mcp.witness import Json
from tests.wire import Server, Socket, fresh, soon

TOKEN = "canary-0123456789-token"
OTHER = "canary-9876543210-other"
ADD = '/tool add {"a": 1, "b": 2}'
NOWHERE = "https://crm.example.com/mcp"


def table(name: str, command: StdioCommand, **fields: Any) -> str:
    """An operator's server that is a program."""
    env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in command.env.items())
    lines = [f"[mcp_servers.{name}]", f"command = {json.dumps(command.command)}", f"args = {json.dumps(command.args)}"]
    return "\n".join([*lines, f"env = {{ {env} }}", *(f"{k} = {json.dumps(v)}" for k, v in fields.items()), ""])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, official_process: OfficialServer) -> Iterator[Server]:
    """A server that has servers of its own to offer, shared by the tests of this file."""
    wiki = f"""
[mcp_servers.wiki]
url = "{official_process.url}"
headers = {{ Authorization = "env:WIKI_TOKEN" }}
meta = true
[mcp_servers.guarded]
url = "{official_process.url}"
headers = {{ Authorization = "Bearer operators-own-token" }}
tools = {{ deny = ["add_note"] }}
approvals = {{ mode = "ask" }}
"""
    settings = AUTO_SETTINGS.replace("[mcp]", "[mcp]\nservers = 2")
    settings += wiki + table("files", ugly_stdio("environment", THEIRS="operator"), allow_env=["MINE"])
    environment = {"WIKI_TOKEN": "Bearer wiki-token", "MINE": "the server's own", "UNRELATED": "the server's own"}
    running = Server.start(tmp_path_factory.mktemp("gateway"), settings=settings, environment=environment)
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, running.errors
    assert "Traceback" not in running.errors, running.errors
    assert "canary" not in running.errors, running.errors


def header_of(configured: Json, name: str = "Authorization") -> Any:
    """What is shown of a header."""
    return configured["config"]["mcp_servers"]["crm"]["headers"][name]


def sent(official: OfficialServer) -> list[str | None]:
    """What the calls of ``add`` came with."""
    return [entry["authorization"] for entry in official.seen(kind="request", tool="add")]


# -- nothing is read back ------------------------------------------------------------------------------------


async def test_a_header_is_write_only_wherever_a_configuration_is_shown(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens(TOKEN)
    conversation = fresh()
    async with gateway.socket(conversation) as socket, gateway.socket(conversation, plain=1) as plain:
        command = {"id": "once", "config": crm(official.url, TOKEN)}
        await socket.ok("conversation.configure", **command)
        assert (await socket.ok("conversation.configure", **command))["duplicate"]
        reused = await socket.error("conversation.configure", id="once", config=crm(official.url, OTHER))
        assert reused["code"] == "id_reused"
        await socket.run(ADD)
        for reading in ("snapshot.get", "tools.list", "approvals.list", "help"):
            await socket.ok(reading)
        posted = await gateway.post(conversation, {"type": "snapshot.get"})
        lines = [await plain.recv_line()]
        while not any("add" in line for line in lines):
            lines.append(await plain.recv_line())
    async with gateway.socket(conversation, from_="start") as again, gateway.socket(conversation) as snapshotted:
        await again.greeted()
        await snapshotted.greeted()
    async with gateway.http() as http:
        listed = (await http.get("/api/conversations")).text
        events = (await http.get(f"/api/conversations/{conversation}/events", params={"after": 0})).text
    shown = [*socket.raw, *again.raw, *snapshotted.raw, *lines, listed, events, json.dumps(posted)]
    assert not [text for text in shown if "canary" in text]
    marker = header_of(told(again.log, "conversation.configured"))
    assert marker == {"set": True, "fingerprint": marker["fingerprint"]}
    assert sent(official) == [f"Bearer {TOKEN}"]


async def test_a_fingerprint_tells_whether_a_value_changed_and_nothing_across_conversations(gateway: Server) -> None:
    async with gateway.socket(fresh()) as one, gateway.socket(fresh()) as two:
        first = header_of(await configure(one, crm(NOWHERE, TOKEN)))
        same = header_of(await configure(one, crm(NOWHERE, TOKEN)))
        other = header_of(await configure(one, crm(NOWHERE, OTHER)))
        elsewhere = header_of(await configure(two, crm(NOWHERE, TOKEN)))
    assert first == same
    assert len({first["fingerprint"], other["fingerprint"], elsewhere["fingerprint"]}) == 3


# -- keep, replace, remove -----------------------------------------------------------------------------------


async def used_after(gateway: Server, official: OfficialServer, *patches: Json) -> str | None:
    """What is sent after these patches, one after the other; None also where credentials had to be asked for."""
    official.tokens(TOKEN, OTHER)
    async with gateway.socket(fresh()) as socket:
        for patch in patches:
            await configure(socket, patch)
        run = await socket.ok("run.start", input=ADD)
        async with soon():
            while not socket.of("run.completed") and not socket.of("interaction.requested"):
                await socket.recv()
        if socket.of("interaction.requested"):
            await socket.ok("run.stop", run_id=run["run_id"])
            await socket.until_final()
            return None
    return sent(official)[-1]


def headers(**given: Any) -> Json:
    return {"mcp_servers": {"crm": {"headers": {name.replace("_", "-"): value for name, value in given.items()}}}}


KEEP = {"set": True}
OURS = f"Bearer {TOKEN}"
THEIRS = f"Bearer {OTHER}"


@pytest.mark.parametrize(
    ("patch", "used"),
    [
        pytest.param({"mcp_servers": {"crm": {"timeout_ms": 9_000}}}, OURS, id="what is left out stays"),
        pytest.param({"title": "another thing"}, OURS, id="what has nothing to do with it leaves it"),
        pytest.param(headers(Authorization=KEEP), OURS, id="a marker keeps"),
        pytest.param(headers(authorization=KEEP), OURS, id="a marker keeps, in any case"),
        pytest.param(headers(Authorization={**KEEP, "fingerprint": "0" * 16}), OURS, id="with any fingerprint"),
        pytest.param(headers(X_Other="something"), OURS, id="another header is added"),
        pytest.param(headers(Authorization=THEIRS), THEIRS, id="a value replaces"),
        pytest.param(headers(AUTHORIZATION=THEIRS), THEIRS, id="a value replaces, in any case"),
        pytest.param(headers(Authorization=None), None, id="null removes"),
        pytest.param(headers(authorization=None), None, id="null removes, in any case"),
        pytest.param({"mcp_servers": {"crm": {"headers": None}}}, None, id="null for all of them removes them"),
    ],
)
async def test_a_patch_keeps_replaces_or_removes_a_header(
    gateway: Server, official: OfficialServer, patch: Json, used: str | None
) -> None:
    assert await used_after(gateway, official, crm(official.url, TOKEN), patch) == used


async def test_another_url_drops_the_headers_markers_or_not(gateway: Server, official: OfficialServer) -> None:
    before = crm(official.url + "/", TOKEN)
    assert await used_after(gateway, official, before, {"mcp_servers": {"crm": {"url": official.url}}}) is None
    moved = {"mcp_servers": {"crm": {"url": official.url, "headers": {"Authorization": KEEP}}}}
    assert await used_after(gateway, official, before, moved) is None
    assert {entry["authorization"] for entry in official.seen(kind="request")} == {None}


async def test_another_transport_drops_the_headers(gateway: Server, official: OfficialServer) -> None:
    before = crm(official.url, TOKEN, transport="sse")
    assert await used_after(gateway, official, before, {"mcp_servers": {"crm": {"transport": None}}}) is None
    assert {entry["authorization"] for entry in official.seen(kind="request")} == {None}


async def test_a_server_that_was_removed_and_named_again_has_no_headers(
    gateway: Server, official: OfficialServer
) -> None:
    gone = {"mcp_servers": {"crm": None}}
    assert await used_after(gateway, official, crm(official.url, TOKEN), gone, crm(official.url)) is None
    assert (
        await used_after(gateway, official, crm(official.url, TOKEN), {"mcp_servers": None}, crm(official.url)) is None
    )


async def test_a_configuration_that_is_read_and_sent_back_whole_is_the_same(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens(TOKEN)
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, TOKEN, timeout_ms=9_000))
        config = (await socket.ok("snapshot.get"))["snapshot"]["config"]
        assert (await configure(socket, config))["config"] == config
        await socket.run(ADD)
        assert [event["status"] for event in results(socket.log)] == ["ok"]
    assert sent(official) == [OURS]


async def test_a_marker_cannot_be_carried_to_another_server(gateway: Server, official: OfficialServer) -> None:
    async with gateway.socket(fresh()) as socket:
        marker = header_of(await configure(socket, crm(official.url, TOKEN)))
        stolen = {"evil": {"url": official.url, "headers": {"Authorization": marker}}}
        refused = await socket.error("conversation.configure", config={"mcp_servers": stolen})
    assert (refused["code"], refused["path"]) == ("invalid_frame", "$.config.mcp_servers.evil.headers.Authorization")


async def test_a_server_that_is_removed_is_stopped_and_its_tools_are_gone(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens(TOKEN)
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, TOKEN))
        await socket.run(ADD)
        await configure(socket, {"mcp_servers": {"crm": None}})
        await socket.run(ADD)
        assert [event["status"] for event in results(socket.log)] == ["ok", "error"]
        assert {t["source"] for t in (await socket.ok("tools.list"))["tools"]} == {"builtin"}
        assert status(socket.log) == ["starting", "ready", "stopped"]
    assert len(sent(official)) == 1


async def test_a_refused_patch_changes_nothing(gateway: Server, official: OfficialServer) -> None:
    official.tokens(TOKEN)
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, TOKEN))
        mixed = {"crm": {"headers": {"Authorization": THEIRS}}, "bad name": {"url": NOWHERE}}
        await socket.error("conversation.configure", config={"mcp_servers": mixed})
        stale = await socket.error("conversation.configure", config=crm(official.url, OTHER), if_version=7)
        assert stale["code"] == "version_conflict"
        await socket.run(ADD)
    assert sent(official) == [OURS]


# -- what is refused -----------------------------------------------------------------------------------------

SERVERS = "$.config.mcp_servers"


def server(**fields: Any) -> Json:
    return {"crm": {"url": NOWHERE, **fields}}


@pytest.mark.parametrize(
    ("servers", "path"),
    [
        ({"crm": {"headers": {"Authorization": TOKEN}}}, f"{SERVERS}.crm"),
        ({"crm": {"url": NOWHERE, "ref": "wiki"}}, f"{SERVERS}.crm"),
        ({"crm": {"command": "sh", "args": ["-c", "true"]}}, f"{SERVERS}.crm"),
        ({"crm": {"url": NOWHERE, "command": "sh"}}, f"{SERVERS}.crm"),
        ({"crm": {"url": f"https://user:{TOKEN}@crm.example.com/"}}, f"{SERVERS}.crm.url"),
        ({"crm": {"url": f"https://crm.example.com/#{TOKEN}"}}, f"{SERVERS}.crm.url"),
        ({"crm": {"url": f"file:///{TOKEN}"}}, f"{SERVERS}.crm.url"),
        ({"crm": {"url": f"stdio:{TOKEN}"}}, f"{SERVERS}.crm.url"),
        ({"crm": {"url": f"https://{TOKEN}.\n"}}, f"{SERVERS}.crm.url"),
        ({"crm": {"url": f"https:///{TOKEN}"}}, f"{SERVERS}.crm.url"),
        ({"crm": {"url": "https://crm.example.com:99999/" + TOKEN}}, f"{SERVERS}.crm.url"),
        ({"crm": {"url": "https://crm.example.com/" + TOKEN * 100}}, f"{SERVERS}.crm.url"),
        ({"crm": {"url": ["https://" + TOKEN]}}, f"{SERVERS}.crm.url"),
        (server(transport="stdio"), f"{SERVERS}.crm.transport"),
        (server(timeout_ms=0), f"{SERVERS}.crm.timeout_ms"),
        (server(env={"A": TOKEN}), f"{SERVERS}.crm.env.A"),
        (server(headers={"X-A": f"{TOKEN}\r\nX-B: b"}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": f"{TOKEN}\0"}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": f" {TOKEN}"}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": f"{TOKEN}\u00e9"}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": f"{TOKEN}\ud83d\ude00"}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": ""}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": TOKEN * 400}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": 7}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": [TOKEN]}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": {"set": False, "value": TOKEN}}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X-A": {"set": True}}), f"{SERVERS}.crm.headers.X-A"),
        (server(headers={"X A": TOKEN}), f"{SERVERS}.crm.headers.X A"),
        (server(headers={"": TOKEN}), f"{SERVERS}.crm.headers."),
        (server(headers={"Host": TOKEN}), f"{SERVERS}.crm.headers.Host"),
        (server(headers={"mcp-SESSION-id": TOKEN}), f"{SERVERS}.crm.headers.mcp-SESSION-id"),
        (server(headers={"Content-Length": TOKEN}), f"{SERVERS}.crm.headers.Content-Length"),
        (server(headers={"Transfer-Encoding": TOKEN}), f"{SERVERS}.crm.headers.Transfer-Encoding"),
        (server(headers={"Proxy-Authorization": TOKEN}), f"{SERVERS}.crm.headers.Proxy-Authorization"),
        (server(headers=[TOKEN]), f"{SERVERS}.crm.headers"),
        ({"a/b": {"url": NOWHERE}}, f"{SERVERS}.a/b"),
        ({"": {"url": NOWHERE}}, f"{SERVERS}."),
        ({"x" * 65: {"url": NOWHERE}}, f"{SERVERS}.{'x' * 65}"),
        ({"crm": TOKEN}, f"{SERVERS}.crm"),
        ([TOKEN], SERVERS),
        ({"one": {"ref": "nobody"}}, f"{SERVERS}.one.ref"),
        ({"one": {"ref": ""}}, f"{SERVERS}.one.ref"),
        ({"one": {"ref": "wiki", "headers": {"Authorization": TOKEN}}}, f"{SERVERS}.one.headers.Authorization"),
        ({"one": {"ref": "files", "env": {"THEIRS": TOKEN}}}, f"{SERVERS}.one.env.THEIRS"),
        ({"one": {"ref": "files", "env": {"LD_PRELOAD": TOKEN}}}, f"{SERVERS}.one.env.LD_PRELOAD"),
        ({"one": {"ref": "files", "env": {"MINE": f"{TOKEN}\0"}}}, f"{SERVERS}.one.env.MINE"),
        ({str(n): {"url": NOWHERE} for n in range(3)}, SERVERS),
    ],
)
async def test_what_is_wrong_is_refused_with_its_path_and_without_its_value(
    gateway: Server, servers: Any, path: str
) -> None:
    conversation = fresh()
    async with gateway.socket(conversation) as socket:
        refused = await socket.error("conversation.configure", config={"mcp_servers": servers})
        assert refused["path"] == path
        assert refused["code"] in ("invalid_frame", "not_found", "not_permitted", "too_large")
        assert not refused["retryable"]
        assert "canary" not in json.dumps({**refused, "path": ""})
        assert len(refused["message"]) < 300
        assert await gateway.log(conversation) == []


async def test_the_same_header_twice_in_different_case_is_refused(gateway: Server) -> None:
    async with gateway.socket(fresh()) as socket:
        twice = server(headers={"X-Key": TOKEN, "x-key": OTHER})
        refused = await socket.error("conversation.configure", config={"mcp_servers": twice})
    assert refused["path"].lower() == f"{SERVERS}.crm.headers.x-key".lower()


async def test_an_unknown_ref_names_those_that_there_are(gateway: Server) -> None:
    async with gateway.socket(fresh()) as socket:
        refused = await socket.error("conversation.configure", config={"mcp_servers": {"a": {"ref": "nobody"}}})
    assert refused["code"] == "not_found"
    assert all(name in refused["message"] for name in ("files", "guarded", "wiki"))


async def test_a_configuration_with_too_many_headers_is_refused(gateway: Server) -> None:
    many = {f"X-{n}": TOKEN for n in range(65)}
    async with gateway.socket(fresh()) as socket:
        refused = await socket.error("conversation.configure", config={"mcp_servers": server(headers=many)})
    assert refused["code"] == "too_large"


# -- the operator's servers ----------------------------------------------------------------------------------


async def test_a_ref_uses_the_operators_headers_which_nobody_is_shown(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("wiki-token")
    async with gateway.socket(fresh()) as socket:
        configured = await configure(socket, {"mcp_servers": {"crm": {"ref": "wiki"}}})
        assert configured["config"]["mcp_servers"] == {"crm": {"ref": "wiki"}}
        await socket.run(ADD)
        assert [event["status"] for event in results(socket.log)] == ["ok"]
        assert "wiki-token" not in "".join(socket.raw)
    assert sent(official) == ["Bearer wiki-token"]


async def test_credentials_of_the_operators_are_not_asked_for(gateway: Server, official: OfficialServer) -> None:
    async with gateway.socket(fresh()) as socket:
        await configure(socket, {"mcp_servers": {"crm": {"ref": "wiki"}}})
        await socket.run(ADD)
        assert socket.of("interaction.requested") == []
        assert results(socket.log)[0]["status"] == "error"
        assert status(socket.log)[-1] == "auth_required"


async def test_the_operators_filter_and_approvals_bound_the_conversations(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("operators-own-token")
    looser = {"ref": "guarded", "tools": {"allow": ["*"]}, "approvals": {"mode": "auto"}}
    async with gateway.socket(fresh()) as socket:
        await configure(socket, {"mcp_servers": {"crm": looser}, "approvals": {"mode": "auto"}})
        names = {t["name"] for t in (await socket.ok("tools.list"))["tools"] if t["source"] == "mcp:crm"}
        assert ("add_note" in names, "set_note" in names) == (False, True)
        arguments = '{"customer_id": "c1", "text": "n"}'
        await socket.ok("run.start", input=f"/tool add_note {arguments}\n/tool set_note {arguments}")
        asked = await socket.asked()
        assert (asked["kind"], asked["tool"]["name"]) == ("approval", "set_note")
        await socket.reply(asked, option="deny")
        await socket.until_final()
        assert [event["status"] for event in results(socket.log)] == ["denied", "denied"]
    assert official.seen(kind="effect") == []


async def environment_of(socket: Socket) -> dict[str, str]:
    """What a process of the operator's server sees."""
    await socket.run("/tool tool {}")
    seen: dict[str, str] = results(socket.log)[-1]["structured"]["environment"]
    return seen


async def test_each_conversation_sets_the_variables_that_it_may_for_its_own_process(gateway: Server) -> None:
    async with gateway.socket(fresh()) as one, gateway.socket(fresh()) as two, gateway.socket(fresh()) as three:
        await configure(one, {"mcp_servers": {"files": {"ref": "files", "env": {"MINE": "one's"}}}})
        await configure(two, {"mcp_servers": {"files": {"ref": "files", "env": {"MINE": "two's"}}}})
        await configure(three, {"mcp_servers": {"files": {"ref": "files"}}})
        seen = [await environment_of(socket) for socket in (one, two, three)]
    assert [environment.get("MINE") for environment in seen] == ["one's", "two's", None]
    assert {environment["THEIRS"] for environment in seen} == {"operator"}
    assert not [name for name in seen[0] if "UNRELATED" in name or "WIKI" in name or name.startswith("HERMES_WS_K")]
    assert gateway.key not in json.dumps(seen)


async def test_a_variable_is_write_only_and_rotated_like_a_header(gateway: Server) -> None:
    async with gateway.socket(fresh()) as socket:
        first = await configure(socket, {"mcp_servers": {"files": {"ref": "files", "env": {"MINE": TOKEN}}}})
        assert (await environment_of(socket))["MINE"] == "[secret]"
        again = await configure(socket, {"mcp_servers": {"files": {"env": {"MINE": "short"}}}})
        assert (await environment_of(socket))["MINE"] == "short"
        await configure(socket, {"mcp_servers": {"files": {"env": {"MINE": None}}}})
        assert "MINE" not in await environment_of(socket)
        assert "canary" not in "".join(socket.raw)
    markers = [event["config"]["mcp_servers"]["files"]["env"]["MINE"] for event in (first, again)]
    assert markers[0] != markers[1]


# -- _meta ---------------------------------------------------------------------------------------------------


def ours(entry: Json) -> Json:
    """What we put into ``_meta``."""
    return {key: value for key, value in (entry["meta"] or {}).items() if key.startswith("hermes-ws/")}


async def test_a_server_that_may_know_is_told_who_asks_and_others_are_not(
    gateway: Server, official: OfficialServer
) -> None:
    official.tokens("wiki-token", TOKEN)
    conversation = fresh()
    servers = {"wiki": {"ref": "wiki"}, **crm(official.url, TOKEN)["mcp_servers"]}
    async with gateway.http() as http:
        wanted = {"conversation": conversation, "principal": "ann", "role": "driver"}
        ticket = (await http.post("/api/tickets", json=wanted)).json()["ticket"]
    async with gateway.socket(conversation, key="", ticket=ticket) as socket:
        await configure(socket, {"mcp_servers": servers, "metadata": {"tenant": "t1", "plan": "free"}})
        script = '/tool mcp:wiki/add {"a": 1, "b": 1}\n/tool mcp:crm/add {"a": 1, "b": 1}'
        final = await socket.run(script, metadata={"plan": "paid"})
    trusted, stranger = official.seen(kind="request", tool="add")
    assert ours(trusted) == {
        "hermes-ws/principal": "ann",
        "hermes-ws/conversation_id": conversation,
        "hermes-ws/run_id": final["run_id"],
        "hermes-ws/metadata": {"tenant": "t1", "plan": "paid"},
    }
    assert ours(stranger) == {}
    others = [entry for entry in official.seen(kind="request") if entry["tool"] != "add"]
    assert not any(ours(entry) for entry in others)


async def test_a_servers_url_may_be_listed_to_be_told(make_server: MakeServer, official: OfficialServer) -> None:
    official.tokens(TOKEN)
    listed = f'send_meta = ["{official.base}/m?p"]\n'
    gateway = make_server(settings=AUTO_SETTINGS.replace("retry_s", listed + "retry_s"))
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, TOKEN))
        await socket.run(ADD)
        await configure(socket, crm(official.sse_url, TOKEN, transport="sse"))
        await socket.run(ADD)
    told_one, not_told = official.seen(kind="request", tool="add")
    assert ours(told_one)["hermes-ws/principal"] == "owner"
    assert ours(not_told) == {}


# -- an operator who lets little happen ----------------------------------------------------------------------


STRICT = '[mcp]\nclient_servers = false\n[approvals]\nceiling = "ask"\n'


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, official_process: OfficialServer) -> Iterator[Server]:
    """Servers by ref alone, and nothing looser than asking."""
    wiki = f'[mcp_servers.wiki]\nurl = "{official_process.url}"\nheaders = {{ Authorization = "Bearer wiki-token" }}\n'
    running = Server.start(tmp_path_factory.mktemp("strict"), settings=STRICT + wiki)
    yield running
    running.stop()


async def test_urls_of_clients_are_refused_where_only_refs_are_taken(strict: Server, official: OfficialServer) -> None:
    official.tokens("wiki-token")
    async with strict.socket(fresh()) as socket:
        refused = await socket.error("conversation.configure", config=crm(official.url, TOKEN))
        assert (refused["code"], refused["path"]) == ("not_permitted", f"{SERVERS}.crm.url")
        await configure(socket, {"mcp_servers": {"crm": {"ref": "wiki"}}})
        await socket.run(ADD)
        moved = {"mcp_servers": {"crm": {"ref": None, "url": official.url}}}
        refused = await socket.error("conversation.configure", config=moved)
        assert (refused["code"], refused["path"]) == ("not_permitted", f"{SERVERS}.crm.url")
    assert sent(official) == ["Bearer wiki-token"]


@pytest.mark.parametrize(
    ("approvals", "path"),
    [
        ({"mode": "auto"}, f"{SERVERS}.crm.approvals.mode"),
        ({"rules": [{"tool": "*", "decision": "allow"}]}, f"{SERVERS}.crm.approvals.rules[0].decision"),
    ],
)
async def test_a_servers_approvals_stay_below_the_ceiling(strict: Server, approvals: Json, path: str) -> None:
    async with strict.socket(fresh()) as socket:
        await configure(socket, {"mcp_servers": {"crm": {"ref": "wiki"}}})
        patch = {"mcp_servers": {"crm": {"approvals": approvals}}}
        refused = await socket.error("conversation.configure", config=patch)
        assert (refused["code"], refused["path"]) == ("not_permitted", path)


async def test_who_is_somebody_else_by_ticket_cannot_let_a_servers_tools_run_unasked(
    gateway: Server, official: OfficialServer
) -> None:
    conversation = fresh()
    async with gateway.http() as http:
        wanted = {"conversation": conversation, "principal": "ann", "role": "driver"}
        ticket = (await http.post("/api/tickets", json=wanted)).json()["ticket"]
    async with gateway.socket(conversation, key="", ticket=ticket) as ann:
        patch = crm(official.url, TOKEN, approvals={"mode": "auto"})
        refused = await ann.error("conversation.configure", config=patch)
    assert (refused["code"], refused["path"]) == ("not_permitted", f"{SERVERS}.crm.approvals.mode")


async def test_what_the_operator_took_back_is_not_used_any_more_and_says_so(
    make_server: MakeServer, official: OfficialServer
) -> None:
    official.tokens(TOKEN, "wiki-token")
    wiki = f'[mcp_servers.wiki]\nurl = "{official.url}"\nheaders = {{ Authorization = "Bearer wiki-token" }}\n'
    gateway, conversation = make_server(settings=AUTO_SETTINGS + wiki), fresh()
    servers = {"wiki": {"ref": "wiki"}, **crm(official.url, TOKEN)["mcp_servers"]}
    script = '/tool mcp:wiki/add {"a": 1, "b": 1}\n/tool mcp:crm/add {"a": 1, "b": 1}'
    async with gateway.socket(conversation) as socket:
        await configure(socket, {"mcp_servers": servers})
        await socket.run(script)
    gateway.kill()
    before = len(official.seen())
    again = make_server(settings=AUTO_SETTINGS.replace("[mcp]", "[mcp]\nclient_servers = false"), data=gateway.data)
    async with again.socket(conversation, from_="start") as socket:
        await socket.run(script)
        assert [event["status"] for event in results(socket.log)] == ["ok", "ok", "error", "error"]
        errors = {event["server"]: event["error"] for event in socket.of("mcp.status") if event["state"] == "failed"}
        assert "operator" in errors["wiki"]
        assert "ref" in errors["crm"]
        assert all(name in output for name, output in zip(("wiki", "crm"), outputs(socket.log)[2:], strict=True))
        await configure(socket, {"title": "other things can be changed all the same"})
    assert len(official.seen()) == before


async def test_a_timeout_that_is_changed_holds_from_the_next_call_on(gateway: Server, official: OfficialServer) -> None:
    official.tokens(TOKEN)
    async with gateway.socket(fresh()) as socket:
        await configure(socket, crm(official.url, TOKEN, timeout_ms=60_000))
        await socket.run(ADD)
        await configure(socket, {"mcp_servers": {"crm": {"timeout_ms": 300}}})
        await socket.run('/tool wait_forever {"key": "k"}')
        assert [event["status"] for event in results(socket.log)] == ["ok", "error"]
        await configure(socket, {"mcp_servers": {"crm": {"timeout_ms": None}}})
        await socket.run(ADD)
        assert results(socket.log)[-1]["status"] == "ok"
    assert sent(official) == [OURS, OURS]
