"""The manners of HTTP at a real server: bodies that lie, trickle or are no JSON, streams through what is in between."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from websockets.exceptions import InvalidStatus

from tests.wire import Server, line, soon

SMALL = """
[server]
cors_max_age_s = 77
allowed_origins = ["https://app.example"]
[limits]
body_bytes = 2000
body_s = 1.0
request_s = 10.0
[compat]
keepalive_s = 0.2
"""
OURS = {"Origin": "https://app.example"}
CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits, for the tests of this module."""
    directory = tmp_path_factory.mktemp("small")
    running = Server.start(directory, settings=SMALL)
    yield running
    running.stop()
    assert "Traceback" not in running.errors, running.errors


@dataclass
class Answer:
    """An answer, byte for byte."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    names: list[str] = field(default_factory=list)

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


async def answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer on the line, which says how long it is."""
    async with soon():
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        pairs = [one.split(": ", 1) for one in lines]
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split()[1]), headers, body, [name.lower() for name, _ in pairs])


async def asked(server: Server, *pieces: bytes, method: str = "POST", path: str = CHAT, **headers: str) -> Answer:
    """What is said to a request whose body comes in these pieces, as it is."""
    given = {"host": "localhost", "authorization": f"Bearer {server.key}", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    async with line(server) as (reader, writer):
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await answer(reader)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# -- how large, how slow ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/runs", "/api/sessions", "/api/tickets"])
async def test_a_body_that_is_too_large_is_413_however_it_is_transferred(small: Server, path: str) -> None:
    declared = await asked(small, path=path, content_length="2001")
    chunked = await asked(small, *[chunk(b"x" * 100)] * 21, path=path, transfer_encoding="chunked")
    waited_for = await asked(small, path=path, content_length="2001", expect="100-continue")
    assert (declared.status, chunked.status, waited_for.status) == (413, 413, 413)
    if path.startswith("/v1/"):
        assert declared.code == chunked.code == "body_too_large"


async def test_an_encoded_body_is_415_and_none_is_unpacked(small: Server) -> None:
    refused = await asked(small, b"\x1f\x8b", content_length="2", content_encoding="gzip")
    assert (refused.status, refused.code) == (415, "unsupported_media_type")


async def test_a_body_that_trickles_is_408_though_every_piece_comes_in_time(small: Server) -> None:
    async with line(small) as (reader, writer):
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {small.key}\r\n"
        writer.write(f"{head}content-length: 2000\r\n\r\n".encode())
        answered = asyncio.create_task(answer(reader))
        while not answered.done():
            writer.write(b" ")
            await asyncio.wait([answered], timeout=0.1)
        refused = await answered
    assert (refused.status, refused.code) == (408, "request_timeout")
    assert "limits.body_s" in json.loads(refused.body)["error"]["message"]


async def test_a_body_that_is_shorter_than_it_says_is_nobody_s_answer_and_harms_nobody(small: Server) -> None:
    async with line(small) as (_, writer):
        writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{}}".encode())
        await writer.drain()
    assert (await asked(small, method="GET", path="/health")).status == 200


async def test_what_follows_a_body_is_the_next_request_and_not_more_of_it(small: Server) -> None:
    key = f"authorization: Bearer {small.key}\r\n"
    async with line(small) as (reader, writer):
        writer.write(f"POST /v1/runs HTTP/1.1\r\nhost: localhost\r\n{key}content-length: 2\r\n\r\n{{}}".encode())
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        first, second = await answer(reader), await answer(reader)
    assert (first.status, second.status) == (400, 200)


@pytest.mark.parametrize(
    "headers",
    [
        {"transfer_encoding": "chunked", "content_length": "2"},
        {"content_length": "-1"},
        {"content_length": "two"},
        {"transfer_encoding": "gzip"},
    ],
)
async def test_a_length_that_is_none_or_said_twice_is_400(small: Server, headers: dict[str, str]) -> None:
    refused = await asked(small, **headers)
    assert refused.status == 400
    assert re.fullmatch(r"req_[0-9a-f]+", refused.headers["x-request-id"])
    assert refused.headers["x-content-type-options"] == "nosniff"


# -- what is no JSON -------------------------------------------------------------------------------------

NO_JSON = [
    b"",
    b"[]",
    b'"x"',
    b"null",
    b"1",
    b"{",
    b'{"messages": [}',
    b'{"messages": NaN}',
    b'{"messages": Infinity}',
    b'{"messages": 1e999}',
    b'{"messages": "\xff"}',
    b'{"messages": "\xed\xa0\x80"}',
    b'{"messages": "\\ud800"}',
    b'{"\\udc00": 1}',
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b"[" * 1_900,
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"messages": []} x',
    b"a=b&c=d",
]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: repr(body[:24]))
async def test_a_body_that_is_no_json_object_is_400_and_never_a_failure(small: Server, body: bytes) -> None:
    for path in (CHAT, "/v1/responses", "/v1/runs", "/v1/conversations"):
        refused = await asked(small, body, path=path, content_length=str(len(body)))
        assert refused.status == 400, (path, refused)
        assert json.loads(refused.body)["error"]["type"] == "invalid_request_error"


async def test_json_that_is_nested_ten_thousand_deep_or_has_a_huge_number_in_it_is_400(server: Server) -> None:
    deep = (b'{"messages":' * 10_000, b'{"messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}")
    for body in (*deep, b'{"messages":' + b"9" * 10_000 + b"}"):
        async with server.http() as http:
            for path in (CHAT, "/v1/responses", "/v1/runs", "/v1/conversations", "/api/sessions", "/api/tickets"):
                refused = await http.post(path, content=body)
                assert refused.status_code == 400, (path, refused.text)


# -- ids, methods, pages ---------------------------------------------------------------------------------


async def test_every_answer_has_the_security_headers_and_an_id_each_once(small: Server) -> None:
    hi = json.dumps(HI).encode()
    answers = [
        await asked(small, hi, content_length=str(len(hi))),
        await asked(small, b"{}", content_length="2"),
        await asked(small, method="GET", path="/v1/nothing"),
        await asked(small, method="PUT", path="/v1/models"),
        await asked(small, method="GET", path="/v1/models", authorization="Bearer wrong"),
        await asked(small, method="GET", path="/v1/models", host="evil.example"),
        await asked(small, method="GET", path="/v1/models", origin="https://evil.example"),
        await asked(small, method="OPTIONS", path="/v1/models"),
        await asked(small, method="GET", path="/x" * 40_000),
    ]
    assert [one.status for one in answers] == [200, 400, 404, 405, 401, 421, 403, 204, 431]
    for one in answers:
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["x-frame-options"] == "DENY"
        assert one.headers["x-request-id"].startswith("req_")
        assert len(set(one.names)) == len(one.names), one.names


async def test_the_client_s_id_comes_back_on_answers_streams_and_refused_sockets(small: Server) -> None:
    mine = {"X-Request-Id": "ticket-42"}
    async with small.http(headers=mine) as http:
        plain = await http.get("/v1/models")
        streamed = await http.post(CHAT, json={**HI, "stream": True})
    assert plain.headers["x-request-id"] == streamed.headers["x-request-id"] == "ticket-42"
    assert streamed.headers["x-content-type-options"] == "nosniff"
    with pytest.raises(InvalidStatus) as caught:
        async with small.socket(key="wrong", headers=mine):
            pass
    assert caught.value.response.headers["x-request-id"] == "ticket-42"


async def test_a_preflight_is_answered_without_a_key_and_may_be_remembered(small: Server) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    async with small.http(key="", headers=OURS | ask) as http:
        allowed = await http.options(CHAT)
        foreign = await http.options(CHAT, headers={"Origin": "https://evil.example"})
    assert (allowed.status_code, foreign.status_code) == (204, 403)
    assert allowed.headers["access-control-max-age"] == "77"
    assert allowed.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert "PUT" not in allowed.headers["access-control-allow-methods"]
    assert foreign.json()["error"]["code"] == "not_permitted"


async def test_a_page_that_is_let_in_may_read_the_headers_it_needs(small: Server) -> None:
    async with small.http(headers=OURS) as http:
        answered = await http.post(CHAT, json=HI)
    assert answered.headers["access-control-allow-origin"] == "https://app.example"
    seen = set(answered.headers["access-control-expose-headers"].lower().split(", "))
    assert {"x-request-id", "retry-after", "idempotency-replayed", "x-hermes-conversation-id"} <= seen


async def test_options_and_a_wrong_method_name_every_method_of_an_address(small: Server) -> None:
    path = "/v1/conversations/demo"
    options = await asked(small, method="OPTIONS", path=path)
    wrong = await asked(small, method="PATCH", path=path)
    assert set(options.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "DELETE"}


async def test_head_works_where_get_does_and_ends_where_that_is_a_stream(small: Server) -> None:
    async with small.http() as http:
        run_id = (await http.post("/v1/runs", json={"input": "/ask Go on?"})).json()["run_id"]
        for path in ("/v1/models", "/v1/capabilities", "/openapi.json", f"/v1/runs/{run_id}", "/api/sessions"):
            head = await http.head(path)
            assert (head.status_code, head.content) == (200, b""), path
        stream = await http.head(f"/v1/runs/{run_id}/events")
        assert (stream.status_code, stream.content) == (200, b"")
        assert stream.headers["content-type"].startswith("text/event-stream")
        await http.post(f"/v1/runs/{run_id}/stop")


async def test_the_openapi_document_needs_no_key(small: Server) -> None:
    async with small.http(key="") as http:
        answered = await http.get("/openapi.json")
    assert answered.headers["content-type"] == "application/json"
    assert answered.json()["openapi"] == "3.1.0"
