"""The manners of HTTP, piece by piece: what a request says, what an answer gets, what a gate lets through."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import anyio
import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import CapturingLogger

from hermes_ws import observe
from hermes_ws.observe import lines_of_request
from hermes_ws.runtime.principal import Principal
from hermes_ws.settings import LimitSettings, ServerSettings, Settings
from hermes_ws.transports.auth import Access, Refused
from hermes_ws.transports.gate import Gate
from hermes_ws.transports.manners import (
    REQUEST_ID,
    Patience,
    cors_headers,
    has_body,
    is_preflight,
    preflight_headers,
    request_id,
)

Scope = dict[str, Any]
Headers = dict[str, str]

FOREIGN = "https://evil.example"
OURS = "https://app.example"


def scope(method: str = "GET", path: str = "/v1/models", **headers: str) -> Scope:
    """A request; in header names an underscore is a hyphen."""
    named = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "query_string": b"",
        "server": ("127.0.0.1", 8642),
        "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
    }


# -- ids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "abc-1.2:3_4", "x" * 128])
def test_a_request_keeps_the_id_that_its_client_gave_it(given: str) -> None:
    assert request_id(scope(x_request_id=given)) == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", "é", "a/b", "<script>", "a\x7f"])
def test_an_id_that_could_not_stand_in_a_log_line_is_replaced(given: str) -> None:
    made = request_id(scope(x_request_id=given))
    assert made.startswith("req_")
    assert made != given


def test_a_request_without_an_id_gets_one_of_its_own_once() -> None:
    one, other = scope(), scope()
    assert request_id(one) == request_id(one) == one[REQUEST_ID]
    assert request_id(one) != request_id(other)


def _line_logger() -> tuple[Any, CapturingLogger]:
    kept = CapturingLogger()
    processors: list[Any] = [observe._with_request, structlog.processors.KeyValueRenderer(sort_keys=True)]
    return structlog.wrap_logger(kept, processors=processors), kept


def test_lines_that_are_written_during_a_request_have_its_id_and_no_others() -> None:
    log, kept = _line_logger()
    log.info("before")
    with lines_of_request("req-1"):
        log.info("during")
    log.info("after")
    assert [call.args[0] for call in kept.calls] == [
        "event='before'",
        "event='during' request_id='req-1'",
        "event='after'",
    ]


async def test_a_task_that_outlives_its_request_does_not_go_on_in_its_name() -> None:
    log, kept = _line_logger()
    answered = anyio.Event()

    async def run() -> None:
        log.info("run.started")
        await answered.wait()
        log.info("run.completed")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            with lines_of_request("req-1"):
                tasks.start_soon(run)
                await anyio.wait_all_tasks_blocked()
            answered.set()
    assert ["req-1" in call.args[0] for call in kept.calls] == [True, False]


# -- bodies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "there"),
    [
        ({}, False),
        ({"content_length": "0"}, False),
        ({"content_length": "1"}, True),
        ({"transfer_encoding": "chunked"}, True),
    ],
)
def test_a_body_follows_where_the_head_says_so(headers: Headers, there: bool) -> None:
    assert has_body(scope("POST", **headers)) == there


def _piece(more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x", "more_body": more}


async def _trickle() -> dict[str, Any]:
    await anyio.sleep(0)
    return _piece(more=True)


async def _whole_body(receive: Patience) -> None:
    while (await receive())["more_body"]:
        pass


async def test_a_body_that_trickles_is_given_up_on_though_every_piece_comes_in_time() -> None:
    with anyio.fail_after(5), pytest.raises(Refused, match=r"limits\.body_s") as caught:
        await _whole_body(Patience(_trickle, 0.05))
    assert caught.value.status == 408


async def test_what_the_reader_of_a_body_takes_for_itself_is_not_held_against_the_client() -> None:
    pieces = [_piece(more=False), _piece(more=True), _piece(more=True)]

    async def receive() -> dict[str, Any]:
        return pieces.pop()

    patient = Patience(receive, 0.05)
    with anyio.fail_after(5):
        while (await patient())["more_body"]:
            time.sleep(0.06)  # a reader that is slow, in the loop's eyes too
    assert not pieces


async def test_after_the_body_waiting_for_the_client_to_go_has_no_limit() -> None:
    pieces = [_piece(more=False)]

    async def receive() -> dict[str, Any]:
        if not pieces:
            await anyio.sleep_forever()
        return pieces.pop()

    patient = Patience(receive, 0.02)
    await patient()
    with anyio.move_on_after(0.1) as waited:
        await patient()
    assert waited.cancelled_caught


# -- pages -----------------------------------------------------------------------------------------------


def test_a_preflight_is_options_with_an_origin_and_the_method_that_is_meant() -> None:
    asked = {"origin": OURS, "access_control_request_method": "POST"}
    assert is_preflight(scope("OPTIONS", **asked))
    assert not is_preflight(scope("GET", **asked))
    assert not is_preflight(scope("OPTIONS", origin=OURS))
    assert not is_preflight(scope("OPTIONS", access_control_request_method="POST"))


def _named(headers: list[tuple[bytes, bytes]]) -> Headers:
    return {name.decode(): value.decode() for name, value in headers}


def test_a_page_may_send_every_header_it_asks_for_if_that_is_a_plain_name() -> None:
    asked = "authorization, x-stainless-os,X-Stainless-Retry-Count, *, a b, , x:y, ü"
    allowed = _named(preflight_headers(scope("OPTIONS", access_control_request_headers=asked), 600))
    assert allowed["access-control-allow-headers"] == "authorization, x-stainless-os, X-Stainless-Retry-Count"


def test_a_page_may_not_put() -> None:
    assert (
        _named(preflight_headers(scope("OPTIONS"), 600))["access-control-allow-methods"] == "GET, POST, PATCH, DELETE"
    )


def test_how_long_a_preflight_holds_is_a_setting_and_it_holds_for_what_it_was_asked() -> None:
    allowed = _named(preflight_headers(scope("OPTIONS"), 42))
    assert allowed["access-control-max-age"] == "42"
    assert allowed["vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def test_a_public_page_that_is_let_in_may_reach_this_private_network_if_its_browser_asks() -> None:
    name = "access-control-allow-private-network"
    asked = scope("OPTIONS", access_control_request_private_network="true")
    assert _named(preflight_headers(asked, 600))[name] == "true"
    assert name not in _named(preflight_headers(scope("OPTIONS"), 600))


def test_a_page_may_read_the_headers_that_clients_go_by_and_all_of_ours() -> None:
    own = [(b"X-Hermes-Conversation-Id", b"c"), (b"content-type", b"text/plain"), (b"x-request-id", b"r")]
    seen = _named(cors_headers(b"https://app.example", own))["access-control-expose-headers"].split(", ")
    assert {"X-Request-Id", "Retry-After", "Idempotency-Replayed", "ETag", "Location"} < set(seen)
    assert "X-Hermes-Conversation-Id" in seen
    assert "content-type" not in seen
    assert len({name.lower() for name in seen}) == len(seen)


# -- the gate --------------------------------------------------------------------------------------------


async def _crash(request: Request) -> Response:
    raise RuntimeError("boom")


async def _left(request: Request) -> Response:
    raise ClientDisconnect


async def _busy(request: Request) -> Response:
    return PlainTextResponse("busy", int(request.path_params["status"]))


async def _later(request: Request) -> Response:
    return PlainTextResponse("busy", 429, headers={"Retry-After": "17", "Cache-Control": "max-age=5"})


async def _echo(request: Request) -> Response:
    return JSONResponse({"id": request.scope[REQUEST_ID], "body": (await request.body()).decode()})


ROUTES = [
    Route("/health", _echo),
    Route("/v1/models", _echo),
    Route("/v1/things/{id}", _echo),
    Route("/v1/things/{id}", _echo, methods=["DELETE"]),
    Route("/v1/echo", _echo, methods=["POST"]),
    Route("/v1/crash", _crash),
    Route("/v1/left", _left),
    Route("/v1/later", _later),
    Route("/v1/busy/{status}", _busy),
]


def gate() -> Gate:
    """One that lets in pages of ``OURS``, over an app that misbehaves on request."""
    access = Access(None, anonymous=Principal("default", "owner", "admin"), origins=[OURS])
    settings = Settings(server=ServerSettings(cors_max_age_s=300), limits=LimitSettings(body_s=0.1))

    def refuse(scope: Any, refused: Refused) -> Response:
        return PlainTextResponse(refused.message, refused.status)

    async def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return PlainTextResponse(error.message, error.status)

    return Gate(
        Starlette(routes=ROUTES, exception_handlers={Refused: on_refused}),
        access,
        refuse,
        routes=ROUTES,
        settings=settings,
    )


async def answered(request: Scope, *body: bytes, ends: bool = True) -> tuple[int, Headers, bytes]:
    """Status, headers and body. The client stays until it has its answer; then it is gone."""
    pieces = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]
    messages = [*pieces, {"type": "http.request", "body": b"", "more_body": False}] if ends else pieces
    sent: list[Any] = []
    complete = anyio.Event()

    async def receive() -> Any:
        if not messages:
            await complete.wait()
            return {"type": "http.disconnect"}
        return messages.pop(0)

    async def send(message: Any) -> None:
        assert not complete.is_set(), "something is sent after the end"
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            complete.set()

    with anyio.fail_after(5):
        await gate()(request, receive, send)
    start, *rest = sent
    names = [name for name, _ in start["headers"]]
    assert len(set(names)) == len(names), f"a header twice: {names}"
    assert complete.is_set()
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, b"".join(message.get("body", b"") for message in rest)


EVERY = [
    (scope(), 200),
    (scope("HEAD"), 200),
    (scope(origin=OURS), 200),
    (scope(origin=FOREIGN), 403),
    (scope(host="evil.example"), 421),
    (scope(path="/nothing"), 404),
    (scope("PUT"), 405),
    (scope(path="/v1/crash"), 500),
    (scope(path="/v1/busy/503"), 503),
    (scope("OPTIONS"), 204),
    (scope("OPTIONS", origin=OURS, access_control_request_method="POST"), 204),
    (scope("OPTIONS", origin=FOREIGN, access_control_request_method="POST"), 403),
    (scope("POST", path="/v1/echo", content_encoding="gzip", content_length="3"), 415),
]


@pytest.mark.parametrize(("request_", "status"), EVERY, ids=lambda value: str(value)[:60])
async def test_every_answer_has_the_security_headers_and_an_id(request_: Scope, status: int) -> None:
    seen, headers, _ = await answered({**request_})
    assert seen == status
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-request-id"].startswith("req_")
    assert "Origin" in headers["vary"]


async def test_the_id_in_the_answer_is_the_one_that_handlers_and_log_lines_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, kept = _line_logger()
    monkeypatch.setattr("hermes_ws.transports.gate.log", log)
    _, headers, body = await answered(scope(x_request_id="mine-1"))
    assert headers["x-request-id"] == json.loads(body)["id"] == "mine-1"
    _, headers, _ = await answered(scope(path="/v1/crash", x_request_id="mine-2"))
    assert headers["x-request-id"] == "mine-2"
    [call] = kept.calls
    assert "request_id='mine-2'" in call.args[0]
    assert "event='request.failed'" in call.args[0]


async def test_a_client_that_left_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await answered(scope(path="/v1/left"))
    assert not caplog.records


@pytest.mark.parametrize("status", [429, 503])
async def test_who_is_told_to_come_back_is_told_when(status: int) -> None:
    _, headers, _ = await answered(scope(path=f"/v1/busy/{status}"))
    assert headers["retry-after"] == "1"
    _, headers, _ = await answered(scope(path="/v1/busy/500"))
    assert "retry-after" not in headers


async def test_what_an_answer_says_itself_stands() -> None:
    _, headers, _ = await answered(scope(path="/v1/later"))
    assert (headers["retry-after"], headers["cache-control"]) == ("17", "max-age=5")


async def test_nobody_keeps_an_answer_that_does_not_say_that_it_may_be_kept() -> None:
    assert (await answered(scope()))[1]["cache-control"] == "no-store"
    assert "cache-control" not in (await answered(scope(path="/health")))[1]


async def test_options_without_a_page_behind_it_says_what_an_address_takes() -> None:
    status, headers, body = await answered(scope("OPTIONS", path="/v1/things/1"))
    assert (status, headers["allow"], body) == (204, "DELETE, GET, HEAD, OPTIONS", b"")
    assert (await answered(scope("OPTIONS", path="/v1/nothing")))[0] == 404


async def test_a_preflight_says_what_a_page_may_send_and_for_how_long() -> None:
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "x-stainless-lang"}
    status, headers, body = await answered(scope("OPTIONS", origin=OURS, **asked))
    assert (status, body) == (204, b"")
    assert headers["access-control-allow-origin"] == OURS
    assert headers["access-control-allow-headers"] == "x-stainless-lang"
    assert headers["access-control-max-age"] == "300"
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/v1/models", "/nothing"])
async def test_a_preflight_of_a_foreign_page_is_403_wherever_it_asks(path: str) -> None:
    request = scope("OPTIONS", path, origin=FOREIGN, access_control_request_method="GET")
    status, headers, _ = await answered(request)
    assert status == 403
    assert not [name for name in headers if name.startswith("access-control-")]


async def test_a_probe_is_answered_under_whatever_name_it_knows_us() -> None:
    assert (await answered(scope(path="/health", host="10.0.0.1:80")))[0] == 200
    assert (await answered(scope(path="/v1/models", host="10.0.0.1:80")))[0] == 421


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "GZIP"])
async def test_an_encoded_body_is_415(encoding: str) -> None:
    request = scope("POST", "/v1/echo", content_encoding=encoding, content_length="3")
    status, _, body = await answered(request, b"abc")
    assert status == 415
    assert b"Content-Encoding" in body


async def test_a_body_that_says_it_is_not_encoded_is_read() -> None:
    request = scope("POST", "/v1/echo", content_encoding="Identity", content_length="3")
    assert json.loads((await answered(request, b"a", b"bc"))[2])["body"] == "abc"


async def test_a_body_that_does_not_come_is_408_in_the_form_of_other_refusals() -> None:
    status, headers, body = await answered(scope("POST", "/v1/echo", transfer_encoding="chunked"), b"a", ends=False)
    assert status == 408
    assert b"limits.body_s" in body
    assert headers["x-request-id"]
