"""Who is let in: keys, tickets, hosts and origins, the same on sockets and over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import socket as sockets
import stat
import subprocess
import sys

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import MakeServer
from tests.wire import Json, Server, bearer, clean_environment, fresh

# -- keys ------------------------------------------------------------------------------------------------


async def refused(server: Server, conversation: str = "demo", **options: object) -> tuple[int, Json]:
    """The status and body that a socket's upgrade is refused with."""
    with pytest.raises(InvalidStatus) as caught:
        async with server.socket(conversation, **options):  # type: ignore[arg-type]
            pass
    response = caught.value.response
    body: Json = json.loads(response.body or b"{}")
    return response.status_code, body


async def closed_with(server: Server, conversation: str = "demo", **options: object) -> int:
    """The code that an accepted socket is closed with at once."""
    async with server.socket(conversation, **options) as socket:  # type: ignore[arg-type]
        assert socket.connection.subprotocol == "hermes.v1"
        code, reason = await socket.closed()
        assert reason
    return code


@pytest.mark.parametrize("key", ["", "wrong", "hws_"])
async def test_a_socket_without_the_key_is_401_with_a_json_body(server: Server, key: str) -> None:
    status, body = await refused(server, key=key)
    assert status == 401
    assert body["code"] == "not_permitted"
    assert body["message"]


@pytest.mark.parametrize("key", ["", "wrong"])
async def test_one_that_offers_hermes_v1_is_accepted_and_closed_4401(server: Server, key: str) -> None:
    assert await closed_with(server, key=key, subprotocols=["hermes.v1"]) == 4401


async def test_the_key_as_a_subprotocol_opens_and_only_hermes_v1_is_selected(server: Server) -> None:
    async with server.socket(key="", subprotocols=["hermes.v1", bearer(server.key)]) as socket:
        assert socket.connection.subprotocol == "hermes.v1"
        await socket.greeted()
        assert socket.connection.response is not None
        assert server.key not in str(socket.connection.response.headers)


async def test_a_wrong_key_as_a_subprotocol_is_4401(server: Server) -> None:
    assert await closed_with(server, key="", subprotocols=["hermes.v1", bearer("wrong")]) == 4401
    assert await closed_with(server, key="", subprotocols=["hermes.v1", "hermes.bearer.!!!"]) == 4401


async def test_the_key_as_a_subprotocol_without_hermes_v1_is_400(server: Server) -> None:
    status, _ = await refused(server, key="", subprotocols=[bearer(server.key)])
    assert status == 400


async def test_no_subprotocol_is_selected_for_who_offers_none(server: Server) -> None:
    async with server.socket() as socket:
        assert socket.connection.subprotocol is None
        await socket.greeted()


async def test_an_unknown_subprotocol_is_not_selected(server: Server) -> None:
    async with server.socket(subprotocols=["chat", "hermes.v1"]) as socket:
        assert socket.connection.subprotocol == "hermes.v1"


async def test_a_client_that_offers_only_another_version_is_told_so(server: Server) -> None:
    status, body = await refused(server, subprotocols=["hermes.v2"])
    assert status == 400
    assert "hermes.v1" in body["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/conversations"),
        ("GET", "/api/conversations/demo/events"),
        ("POST", "/api/conversations/demo/commands"),
        ("POST", "/api/tickets"),
        ("GET", "/api/conversations/demo/tool-calls/x/output"),
    ],
)
@pytest.mark.parametrize("key", ["", "wrong"])
async def test_http_without_the_key_is_401_with_a_json_body(server: Server, method: str, path: str, key: str) -> None:
    async with server.http(key=key) as http:
        answer = await http.request(method, path, json={"type": "ping"} if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.json()["code"] == "not_permitted"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_health_and_the_schemas_need_no_key(server: Server) -> None:
    async with server.http(key="") as http:
        health = await http.get("/health")
        schema = await http.get("/schemas/hermes.v1.schema.json")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert schema.status_code == 200


async def test_a_key_that_is_not_ascii_is_refused_not_a_crash(server: Server) -> None:
    raw = await _raw(
        server, "GET /api/conversations HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Authorization: Bearer ké"
    )
    assert raw.startswith("HTTP/1.1 401 ")


async def test_the_generated_key_is_kept_for_its_owner_only_and_printed_in_lines_to_paste(server: Server) -> None:
    file = server.data / "hermes-ws.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() == server.key
    assert f'wscat -c "{server.ws}/ws/demo?plain=1" -H "Authorization: Bearer {server.key}"' in server.output
    assert re.search(rf"hermes-ws connect demo --url {re.escape(server.url)} --key {server.key}", server.output)
    assert server.key not in server.errors


async def test_the_generated_key_is_the_same_after_a_restart(make_server: MakeServer) -> None:
    first = make_server()
    first.stop()
    second = make_server(data=first.data)
    assert second.key == first.key
    assert second.output.count(first.key) >= 2


async def test_no_auth_lets_everybody_in_and_says_so(make_server: MakeServer) -> None:
    open_server = make_server("--no-auth")
    assert "NO KEY" in open_server.output
    async with open_server.socket(key="") as socket:
        await socket.greeted()
    assert (await refused(open_server, key="", headers={"Origin": "https://evil.example"}))[0] == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_no_auth_is_refused_on_an_address_that_others_can_reach(tmp_path: object, host: str) -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "hermes_ws.cli",
            "serve",
            "--data",
            str(tmp_path),
            "--port",
            "0",
            "--host",
            host,
            "--no-auth",
        ],
        capture_output=True,
        text=True,
        timeout=20,
        env=clean_environment(),
        check=False,
    )
    assert process.returncode != 0
    assert "loopback" in process.stderr
    assert "Traceback" not in process.stderr


# -- tickets ---------------------------------------------------------------------------------------------


async def ticket_for(server: Server, conversation: str, **fields: object) -> Json:
    async with server.http() as http:
        answer = await http.post("/api/tickets", json={"conversation": conversation, **fields})
    assert answer.status_code == 201, answer.text
    body: Json = answer.json()
    return body


async def test_a_ticket_opens_its_conversation_once(server: Server) -> None:
    conversation = fresh()
    grant = await ticket_for(server, conversation, principal="ann", role="responder")
    assert grant["url"].endswith(f"/ws/{conversation}?ticket={grant['ticket']}")
    async with server.socket(conversation, key="", ticket=grant["ticket"]) as socket:
        hello = await socket.greeted()
    assert (hello["principal"], hello["role"]) == ("ann", "responder")
    assert (await refused(server, conversation, key="", ticket=grant["ticket"]))[0] == 401
    assert await closed_with(server, conversation, key="", ticket=grant["ticket"], subprotocols=["hermes.v1"]) == 4401


@pytest.mark.parametrize("conversation", ["new", "given"])
async def test_where_the_server_chooses_a_ticket_opens_the_conversation_that_it_is_for(
    server: Server, conversation: str
) -> None:
    grant = await ticket_for(server, conversation if conversation == "new" else fresh())
    async with server.socket("new", key="", ticket=grant["ticket"]) as socket:
        assert (await socket.greeted())["conversation_id"] == grant["conversation"]
    again = await ticket_for(server, grant["conversation"])
    async with server.http(key="") as http:
        path, command = (
            f"/api/conversations/new/commands?ticket={again['ticket']}",
            {"type": "run.start", "input": "hi"},
        )
        assert (await http.post(path, json=command)).json()["conversation_id"] == grant["conversation"]


async def test_a_ticket_of_another_conversation_is_403(server: Server) -> None:
    one, other = await ticket_for(server, fresh()), await ticket_for(server, fresh())
    assert (await refused(server, fresh(), key="", ticket=one["ticket"]))[0] == 403
    code = await closed_with(server, fresh(), key="", ticket=other["ticket"], subprotocols=["hermes.v1"])
    assert code == 4403


async def test_a_ticket_expires(server: Server) -> None:
    conversation = fresh()
    grant = await ticket_for(server, conversation, ttl_s=1)
    await asyncio.sleep(1.1)
    assert (await refused(server, conversation, key="", ticket=grant["ticket"]))[0] == 401


async def test_an_observer_watches_and_does_nothing(server: Server) -> None:
    conversation = fresh()
    grant = await ticket_for(server, conversation, role="observer")
    async with server.socket(conversation, key="", ticket=grant["ticket"]) as socket:
        await socket.greeted()
        for command in (
            {"input": "hi"},
            {"config": {"title": "mine"}},
        ):
            kind = "run.start" if "input" in command else "conversation.configure"
            assert (await socket.error(kind, **command))["code"] == "not_permitted"
        assert (await socket.error("conversation.fork"))["code"] == "not_permitted"
        assert (await socket.ok("ping"))["head"] == 0


async def test_a_responder_answers_but_starts_nothing(server: Server) -> None:
    conversation = fresh()
    await server.post(conversation, {"type": "run.start", "input": "/ask Who?\n/say bye"})
    grant = await ticket_for(server, conversation, role="responder", principal="bob")
    async with server.socket(conversation, key="", ticket=grant["ticket"], from_="start") as socket:
        assert (await socket.error("run.start", input="hi"))["code"] == "not_permitted"
        assert (await socket.error("run.stop"))["code"] == "not_permitted"
        asked = await socket.asked()
        resolved = await socket.reply(asked, "me")
        assert resolved["by"]["principal"] == "bob"
        await socket.until_final()


async def test_a_ticket_never_widens_the_one_that_asked(server: Server) -> None:
    conversation = fresh()
    async with server.http() as http:
        bad = await http.post("/api/tickets", json={"conversation": "not an id"})
        worse = await http.post("/api/tickets", json={"conversation": conversation, "role": "king"})
        nothing = await http.post("/api/tickets", content=b"{")
    assert [answer.status_code for answer in (bad, worse, nothing)] == [400, 400, 400]
    assert worse.json()["path"] == "$.role"


@pytest.mark.parametrize(
    ("fields", "status", "path"),
    [
        ({"principal": ""}, 400, "$.principal"),
        ({"principal": "x" * 129}, 400, "$.principal"),
        ({"principal": "server"}, 403, "$.principal"),
        ({"ttl_s": -1}, 400, "$.ttl_s"),
        ({"ttl_s": "soon"}, 400, "$.ttl_s"),
    ],
)
async def test_a_ticket_request_that_cannot_be_is_refused_with_the_place(
    server: Server, fields: Json, status: int, path: str
) -> None:
    async with server.http() as http:
        answer = await http.post("/api/tickets", json={"conversation": "demo", **fields})
        deep = await http.post("/api/tickets", content=b'{"x":' * 100_000)
    assert (answer.status_code, answer.json()["path"]) == (status, path)
    assert deep.status_code == 400


async def test_a_ticket_for_new_names_the_conversation_that_it_opens(server: Server) -> None:
    grant = await ticket_for(server, "new")
    assert grant["conversation"] != "new"
    async with server.socket(grant["conversation"], key="", ticket=grant["ticket"]) as socket:
        assert (await socket.greeted())["conversation_id"] == grant["conversation"]


async def test_a_holder_of_a_ticket_in_another_name_gets_no_terminal_unless_the_operator_says_so(
    server: Server, make_server: MakeServer
) -> None:
    for running, status in (
        (server, "denied"),
        (make_server(settings="[tools]\nterminal_shared = true\n"), "ok"),
    ):
        conversation = fresh()
        grant = await ticket_for(running, conversation, principal="guest", role="driver")
        async with running.socket(conversation) as owner:
            await owner.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        async with running.socket(conversation, key="", ticket=grant["ticket"]) as socket:
            await socket.run("/run id\n/tool list_files {}")
        assert [call["status"] for call in socket.of("tool.completed")] == [status, "ok"]


async def test_a_ticket_is_good_over_http_too_and_only_for_its_conversation(server: Server) -> None:
    conversation = fresh()
    grant = await ticket_for(server, conversation)
    async with server.http(key="") as http:
        answer = await http.get(f"/api/conversations/{conversation}/events", params={"ticket": grant["ticket"]})
        again = await http.get(f"/api/conversations/{conversation}/events", params={"ticket": grant["ticket"]})
    assert (answer.status_code, again.status_code) == (200, 401)


async def test_the_key_is_in_no_answer_and_no_log(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run("/run env\n/run cat ../../hermes-ws.key; true")
    assert server.key not in server.errors


# -- origins and hosts -----------------------------------------------------------------------------------

_ORIGINS = [
    ("null", False),
    ("https://evil.example", False),
    ("http://127.0.0.1.evil.example", False),
    ("http://localhost.evil.example:8642", False),
    ("file://", False),
    ("chrome-extension://abcdef", False),
    ("http://127.0.0.1:{port}", True),
    ("http://localhost:5173", True),
    ("http://[::1]:3000", True),
]


@pytest.mark.parametrize(("origin", "welcome"), _ORIGINS)
async def test_pages_of_this_machine_may_talk_to_it_and_no_others(server: Server, origin: str, welcome: bool) -> None:
    origin = origin.format(port=server.port)
    async with server.http(headers={"Origin": origin}) as http:
        answer = await http.get("/api/conversations")
    assert answer.status_code == (200 if welcome else 403)
    assert answer.headers.get("access-control-allow-origin") == (origin if welcome else None)
    if welcome:
        async with server.socket(headers={"Origin": origin}) as socket:
            await socket.greeted()
    else:
        status, body = await refused(server, headers={"Origin": origin})
        assert status == 403
        assert body["code"] == "not_permitted"
        assert (await refused(server, headers={"Origin": origin}, subprotocols=["hermes.v1"]))[0] == 403


async def test_a_foreign_origin_is_refused_before_the_key_is_looked_at(server: Server) -> None:
    assert (await refused(server, key="", headers={"Origin": "https://evil.example"}))[0] == 403


async def test_a_preflight_of_a_welcome_page_is_answered_without_a_key(server: Server) -> None:
    ask = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": "POST"}
    async with server.http(key="", headers=ask) as http:
        answer = await http.options("/api/conversations/demo/commands")
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    async with server.http(key="", headers=ask | {"Origin": "https://evil.example"}) as http:
        assert (await http.options("/api/conversations/demo/commands")).status_code == 403


async def _raw(server: Server, *lines: str) -> str:
    """One request, byte for byte; the answer's head and body as far as they come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        async with asyncio.timeout(10):
            return (await reader.read()).decode(errors="replace")
    finally:
        writer.close()
        await writer.wait_closed()


_UPGRADE = [
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["127.0.0.1:{port}"], 200),
        (["localhost"], 200),
        (["hermes.localhost:1"], 200),
        (["[::1]:80"], 200),
        (["evil.example"], 421),
        (["127.0.0.1.nip.io"], 421),
        (["127.0.0.1@evil.example"], 421),
        (["evil.example#127.0.0.1"], 421),
        (["127.0.0.1", "127.0.0.1"], 400),
        (["127.0.0.1", "evil.example"], 400),
        ([], 400),
        ([""], 421),
    ],
)
async def test_only_known_hosts_are_answered(server: Server, hosts: list[str], status: int) -> None:
    lines = [f"Host: {host}".format(port=server.port) for host in hosts]
    key = f"Authorization: Bearer {server.key}"
    answer = await _raw(server, "GET /api/conversations HTTP/1.1", *lines, key)
    assert answer.startswith(f"HTTP/1.1 {status} "), answer[:300]
    request = ["GET /ws/demo HTTP/1.1", *lines, key, *_UPGRADE]
    upgrade = await _raw_upgrade(server, *request)
    assert upgrade.startswith(f"HTTP/1.1 {101 if status == 200 else status} "), upgrade[:300]


async def _raw_upgrade(server: Server, *lines: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write("\r\n".join([*lines, "Connection: Upgrade", "", ""]).encode())
        async with asyncio.timeout(10):
            return (await reader.readline()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_health_skips_the_host(server: Server) -> None:
    answer = await _raw(server, "GET /health HTTP/1.1", "Host: anything.example")
    assert answer.startswith("HTTP/1.1 200 ")


async def test_operators_add_hosts_and_origins_and_a_path_prefix_works(make_server: MakeServer) -> None:
    settings = """
    [server]
    public_url = "https://agents.example/hermes"
    allowed_hosts = ["box.lan"]
    allowed_origins = ["https://app.example"]
    """
    with sockets.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = make_server("--port", str(port), settings=settings)
    assert server.url == "https://agents.example/hermes"
    assert "wss://agents.example/hermes/ws/demo" in server.output
    server.url = f"http://127.0.0.1:{port}"
    key = f"Authorization: Bearer {server.key}"
    for host, origin, path, status in (
        ("agents.example", "https://agents.example", "/hermes/api/conversations", 200),
        ("agents.example", "https://agents.example", "/api/conversations", 200),
        ("box.lan:99", "https://app.example", "/api/conversations", 200),
        ("box.lan", "http://box.lan", "/api/conversations", 200),
        ("other.lan", "https://app.example", "/api/conversations", 421),
        ("box.lan", "https://app.example.evil.example", "/api/conversations", 403),
    ):
        answer = await _raw(server, f"GET {path} HTTP/1.1", f"Host: {host}", f"Origin: {origin}", key)
        assert answer.startswith(f"HTTP/1.1 {status} "), (host, origin, answer[:200])
    upgrade = await _raw_upgrade(server, "GET /hermes/ws/demo HTTP/1.1", "Host: agents.example", key, *_UPGRADE)
    assert upgrade.startswith("HTTP/1.1 101 ")
    async with server.http() as http:
        grant = (await http.post("/hermes/api/tickets", json={"conversation": "demo"})).json()
    assert grant["url"].startswith("/hermes/ws/demo?ticket=")


# -- addresses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conversation", ["-x", ".x", "a%20b", "a%2Fb", "x" * 129, "%C3%A9", "a%0A", "a%00"])
async def test_an_id_that_is_none_is_400_or_4400(server: Server, conversation: str) -> None:
    assert (await refused(server, conversation))[0] in (400, 404)
    assert await closed_with(server, conversation, subprotocols=["hermes.v1"]) in (4400, 4404)
    async with server.http() as http:
        answer = await http.get(f"/api/conversations/{conversation}/events")
    assert answer.status_code in (400, 404)
    assert answer.json()["code"]


@pytest.mark.parametrize("conversation", ["a", "A.b_c:d-e", "0", "x" * 128])
async def test_an_id_of_the_clients_choice_is_taken(server: Server, conversation: str) -> None:
    async with server.socket(conversation) as socket:
        assert (await socket.greeted())["conversation_id"] == conversation


async def test_a_path_that_is_no_socket_is_404(server: Server) -> None:
    assert (await refused(server, "a/b"))[0] == 404
    assert await closed_with(server, "a/b", subprotocols=["hermes.v1"]) == 4404


@pytest.mark.parametrize(
    "query",
    [
        {"after": "x"},
        {"after": "-1"},
        {"after": "1e3"},
        {"after": "9" * 40},
        {"from_": "middle"},
        {"exclude": "message.dleta"},
        {"plain": "2"},
        {"after": "%C2%B2"},
        {"after": "%D9%A1"},
    ],
)
async def test_a_query_parameter_that_cannot_be_read_is_named(server: Server, query: dict[str, str]) -> None:
    status, body = await refused(server, **query)
    assert status == 400
    assert next(iter(query)).rstrip("_") in body["message"]
    assert await closed_with(server, subprotocols=["hermes.v1"], **query) == 4400


async def test_a_port_scanner_does_not_upset_it(server: Server) -> None:
    for junk in (b"", b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"A" * 200_000):
        with sockets.create_connection(("127.0.0.1", server.port), 5) as line:
            line.sendall(junk)
    async with server.http(key="") as http:
        assert (await http.get("/health")).status_code == 200
