"""What a careless or hostile client, page or proxy sends, and what is then neither a crash nor a leak."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import MakeServer
from tests.wire import Json, Server, Socket, fresh, resident_kb, soon

_UPGRADE = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]


async def _status(server: Server, request: str, *headers: str, host: str = "127.0.0.1") -> int:
    """One request, byte for byte; the status that comes while no body does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        key = f"Authorization: Bearer {server.key}"
        writer.write("\r\n".join([f"{request} HTTP/1.1", f"Host: {host}", key, *headers, "", ""]).encode())
        async with soon():
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _refused(server: Server, conversation: str = "demo", **options: Any) -> tuple[int, Json]:
    with pytest.raises(InvalidStatus) as caught:
        async with server.socket(conversation, **options):
            pass
    response = caught.value.response
    assert response.headers["x-content-type-options"] == "nosniff"
    return response.status_code, json.loads(response.body or b"{}")


# -- memory ----------------------------------------------------------------------------------------------


async def test_answers_do_not_pile_up_for_a_client_that_does_not_read(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[readers]\nstall_s = 3.0\n"), fresh()
    async with server.socket(conversation) as driver, server.socket(conversation, from_="now") as silent:
        for _ in range(10):
            await driver.run("/say " + "x" * 70_000)
        await silent.greeted()
        before = resident_kb(server.pid)
        silent.connection.transport.pause_reading()
        with suppress(ConnectionClosed, OSError):
            for _ in range(200):
                await silent.send({"type": "snapshot.get"})
        await asyncio.sleep(1.5)
        assert resident_kb(server.pid) - before < 40_000
        await driver.ok("ping")
        async with soon():
            while "socket.stalled" not in server.errors:
                await asyncio.sleep(0.1)


async def test_a_client_that_is_slow_but_reads_is_no_dead_one(make_server: MakeServer) -> None:
    settings = "[server]\nping_interval_s = 0.2\nping_timeout_s = 0.2\n[readers]\nstall_s = 20.0\n"
    server, conversation = make_server(settings=settings), fresh()
    async with server.socket(conversation) as driver, server.socket(conversation, from_="now") as slow:
        await slow.greeted()
        slow.connection.transport.pause_reading()
        for _ in range(60):
            final = await driver.run("/say " + "x" * 100_000)
        await slow.send({"type": "ping"})
        await asyncio.sleep(1.0)
        slow.connection.transport.resume_reading()
        await slow.until_seq(final["seq"])


# -- HTTP bodies -----------------------------------------------------------------------------------------


async def test_a_command_is_as_large_as_a_frame_may_be_and_no_larger(server: Server) -> None:
    async with server.socket() as socket:
        most = (await socket.greeted())["limits"]["frame_bytes"]
    path = f"/api/conversations/{fresh()}/commands"
    command = b'{"type":"ping","x":"%s"}'

    async def chunks() -> AsyncIterator[bytes]:
        yield command % (b"x" * most)

    async with server.http() as http:
        fits = await http.post(path, content=command % (b"x" * (most - len(command) + 2)))
        declared = await http.post(path, content=command % (b"x" * most))
        chunked = await http.post(path, content=chunks())
    assert fits.status_code == 200
    for answer in (declared, chunked):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("path", ["/api/conversations/demo/commands", "/api/tickets"])
async def test_a_body_that_is_declared_too_large_is_not_waited_for(server: Server, path: str) -> None:
    assert await _status(server, f"POST {path}", "Content-Length: 20000000") == 413
    assert await _status(server, f"POST {path}", "Content-Length: " + "9" * 18) == 413


async def test_a_body_that_comes_slowly_finds_the_conversation_as_it_is_then(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[conversations]\nidle_s = 0\n"), fresh()
    await server.post(conversation, {"type": "conversation.configure", "config": {"title": "1"}})
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = b'{"type":"conversation.configure","config":{"title":"3"}}'
    head = [
        f"POST /api/conversations/{conversation}/commands HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {server.key}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    writer.write("\r\n".join([*head, "", ""]).encode() + body[:10])
    await asyncio.sleep(2.5)
    second = await server.post(conversation, {"type": "conversation.configure", "config": {"title": "2"}})
    assert second["type"] == "ok"
    writer.write(body[10:])
    async with soon():
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    titles = [e["config"]["title"] for e in await server.log(conversation) if e["type"] == "conversation.configured"]
    assert titles == ["1", "2", "3"]


# -- addresses -------------------------------------------------------------------------------------------


async def test_too_many_query_parameters_are_a_bad_request(server: Server) -> None:
    many: dict[str, Any] = {f"p{n}": "x" for n in range(70)}
    status, body = await _refused(server, **many)
    assert (status, body["code"]) == (400, "invalid_frame")
    async with server.socket(subprotocols=["hermes.v1"], **many) as socket:
        assert (await socket.closed())[0] == 4400


@pytest.mark.parametrize("origin", ["http://[evil", "http://", "https://[::1", "http://localhost@evil.example", "//x"])
async def test_an_origin_that_is_none_is_not_allowed(server: Server, origin: str) -> None:
    for path in ("GET /api/conversations", "OPTIONS /api/conversations"):
        assert await _status(server, path, f"Origin: {origin}") == 403
    assert await _status(server, "GET /ws/demo", f"Origin: {origin}", *_UPGRADE) == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example@localhost",
        "localhost#x",
        "localhost/x",
        "localhost?x",
        "localhost\\x",
        "localhost:x",
        "localhost:80:80",
        "[::1",
        "[evil",
        "::1",
        "local host",
        "127.0.0.1,evil.example",
    ],
)
async def test_a_host_is_a_name_and_a_port_and_nothing_else(server: Server, host: str) -> None:
    assert await _status(server, "GET /api/conversations", host=host) == 421
    assert await _status(server, "GET /ws/demo", *_UPGRADE, host=host) == 421


async def test_a_long_reason_does_not_cost_the_close_code(server: Server) -> None:
    async with server.socket(subprotocols=["hermes.v1"], from_="%F0%9F%98%80" * 80) as socket:
        code, reason = await socket.closed()
    assert code == 4400
    assert reason.startswith("query parameter from")
    assert 100 < len(reason.encode()) <= 123


async def test_a_trailing_slash_is_another_address(server: Server) -> None:
    async with server.http() as http:
        for path in ("/api/conversations/", "/health/", "/api/conversations/demo/events/"):
            answer = await http.get(path)
            assert answer.status_code == 404
            assert "slash" in answer.json()["message"]


@pytest.mark.parametrize("prefix", ["/ws", "/api"])
async def test_a_prefix_that_is_called_like_a_route_of_ours_takes_none_away(
    make_server: MakeServer, prefix: str
) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = f'[server]\npublic_url = "http://localhost{prefix}"\n'
    server = make_server("--port", str(port), settings=settings)
    server.url = f"http://127.0.0.1:{port}"
    for path in ("/api/conversations", "/health", "/"):
        assert await _status(server, f"GET {path}") == 200
        assert await _status(server, f"GET {prefix}{path}") == 200
    assert await _status(server, f"GET {prefix}") == 200
    for path in ("/ws/demo", f"{prefix}/ws/demo"):
        assert await _status(server, f"GET {path}", *_UPGRADE) == 101


# -- what browsers are told ------------------------------------------------------------------------------


async def test_health_says_nothing_to_pages_that_are_not_welcome(server: Server) -> None:
    for method in ("GET", "OPTIONS"):
        async with server.http(key="", headers={"Origin": "https://evil.example"}) as http:
            answer = await http.request(method, "/health")
            assert not [name for name in answer.headers if name.startswith("access-control-")]
        async with server.http(key="", headers={"Origin": "http://localhost:5173"}) as http:
            answer = await http.request(method, "/health")
            assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"


async def test_every_answer_has_the_headers_that_keep_browsers_from_guessing(server: Server) -> None:
    async with server.http() as http:
        for method, path in (
            ("GET", "/"),
            ("GET", "/health"),
            ("GET", "/schemas/reference.md"),
            ("GET", "/api/conversations"),
            ("GET", "/api/nothing"),
            ("DELETE", "/api/conversations"),
            ("POST", "/api/conversations/demo/commands"),
        ):
            answer = await http.request(method, path)
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.headers["referrer-policy"] == "no-referrer", path
            assert (answer.headers.get("cache-control") == "no-store") == path.startswith("/api/"), path
        foreign = await http.get("/api/conversations", headers={"Origin": "https://evil.example"})
        stranger = await http.get("/api/conversations", headers={"Authorization": ""})
    for answer, status in ((foreign, 403), (stranger, 401)):
        assert answer.status_code == status
        assert answer.headers["cache-control"] == "no-store"


async def test_a_method_that_does_not_fit_is_told_which_do(server: Server) -> None:
    async with server.http() as http:
        for method, path, fits in (
            ("DELETE", "/api/conversations", {"GET", "HEAD"}),
            ("GET", "/api/tickets", {"POST"}),
            ("PUT", "/api/conversations/demo/commands", {"POST"}),
        ):
            answer = await http.request(method, path)
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) == fits
            assert (answer.json()["type"], answer.json()["code"]) == ("error", "invalid_frame")
            assert method in answer.json()["message"]


async def test_head_is_get_without_the_body(server: Server) -> None:
    async with server.http() as http:
        for path in ("/", "/health", "/schemas/reference.md", "/api/conversations/demo/events"):
            head, get = await http.head(path), await http.get(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(get.content))


# -- outputs ---------------------------------------------------------------------------------------------


async def test_the_output_of_a_call_that_goes_on_can_be_had_so_far(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[tools]\npreview_bytes = 1000\n"), fresh()
    async with server.socket(conversation) as socket, server.http() as http:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.ok("run.start", input="/run for i in $(seq 60000); do echo $i 0123456789; done")
        call_id = (await socket.until("tool.executing"))["call_id"]
        path = f"/api/conversations/{conversation}/tool-calls/{call_id}/output"
        ended = asyncio.create_task(socket.until("tool.completed"))
        while not ended.done():
            answer = await http.get(path)
            assert answer.status_code == 200
            await asyncio.sleep(0.01)
        head, whole = await http.head(path), await http.get(path)
    assert whole.text == "".join(f"{n} 0123456789\n" for n in range(1, 60_001))
    assert (head.headers["content-length"], head.content) == (str(len(whole.content)), b"")
    assert "Traceback" not in server.errors


# -- starting --------------------------------------------------------------------------------------------


def _fails(make_server: MakeServer, *arguments: str, data: Path, settings: str | None = None) -> str:
    """What a server says that does not come up."""
    with pytest.raises(RuntimeError) as caught:
        make_server(*arguments, data=data, settings=settings)
    said = str(caught.value)
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", None])
def test_a_key_file_that_is_no_key_is_said_in_words(
    make_server: MakeServer, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "hermes-ws.key"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert f"{file}" in _fails(make_server, data=tmp_path)


def test_a_log_that_is_no_file_is_said_in_words(make_server: MakeServer, tmp_path: Path) -> None:
    (tmp_path / "hermes-ws.db").symlink_to(tmp_path / "none" / "x")
    assert "the log in" in _fails(make_server, data=tmp_path)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ('[server]\npublic_url = "agents.example"\n', "server.public_url"),
        ('[server]\npublic_url = "http://[evil"\n', "server.public_url"),
        ('[server]\ntrusted_proxies = ["everyone"]\n', "server.trusted_proxies"),
        ('[server]\nhost = "a..b"\n', "a..b"),
        ("[limits]\npage_events = 0\n", "limits.page_events"),
    ],
)
def test_settings_that_cannot_be_are_named(make_server: MakeServer, tmp_path: Path, settings: str, name: str) -> None:
    assert name in _fails(make_server, data=tmp_path, settings=settings)


# -- people ----------------------------------------------------------------------------------------------


async def _lines_until(person: Socket, text: str) -> list[str]:
    lines = [await person.recv_line()]
    async with soon():
        while text not in lines[-1]:
            lines.append(await person.recv_line())
    return lines


async def test_a_person_steers_and_stops_now(server: Server) -> None:
    async with server.socket(plain=1) as person:
        await person.send("/sleep 1\n/say one\n/sleep 60")
        await _lines_until(person, "you: ")
        await person.send("/steer")
        await _lines_until(person, "! /steer needs")
        await person.send("/steer look left")
        await _lines_until(person, "steer applied: look left")
        await person.send("/stop soon")
        await _lines_until(person, "! it is /stop")
        await person.send("/stop now")
        await _lines_until(person, "stopped")


async def test_answers_to_frames_are_lines_too(server: Server) -> None:
    async with server.socket(plain=1) as person:
        await person.send("/say hello")
        await _lines_until(person, "done")
        await person.send({"type": "ping"})
        await _lines_until(person, "· head ")
        await person.send({"type": "help"})
        await _lines_until(person, "run.start — ")
        await person.send({"type": "snapshot.get"})
        assert "agent: hello" in await _lines_until(person, "agent: hello")
        await person.send({"type": "approvals.list"})
        await _lines_until(person, "no approvals are remembered")
        await person.send("/run echo x")
        await _lines_until(person, "/approve [")
        await person.send("/approve conversation")
        await _lines_until(person, "done")
        await person.send({"type": "approvals.list"})
        [*_, rule] = await _lines_until(person, "builtin:terminal")
        assert "conversation" in rule
        assert not rule.startswith("{")
