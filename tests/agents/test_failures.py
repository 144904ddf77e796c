"""What goes wrong with an endpoint: its code, what is said of it, and whether it is tried again."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from hermes_ws.agents.llm.retry_after import retry_after_s
from hermes_ws.errors import ModelError, SettingsError
from tests.agents.conftest import Asker, Heard, hear, request_for, user
from tests.agents.endpoint_server import CUT, HANG, Endpoint, Reply, chunk, data, fails, sends, streams, text

HI = chunk({"content": "hi"})
KEY = "sk-canary-3f9c1d7ae5b2"


async def refused(ask: Asker, **settings: Any) -> ModelError:
    with pytest.raises(ModelError) as failed:
        await ask(**settings)
    return failed.value


def said(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


# -- codes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "code", "again"),
    [
        (401, said("Incorrect API key provided"), "model_auth", False),
        (403, said("no access to this model"), "model_auth", False),
        (400, said("API key not valid. Please pass a valid API key."), "model_auth", False),
        (429, said("Rate limit reached", type="requests"), "model_rate_limited", True),
        (429, said("You exceeded your current quota", code="insufficient_quota"), "model_rate_limited", False),
        (402, said("Insufficient credits"), "model_rate_limited", False),
        (503, said("Loading model", code=503, type="unavailable_error"), "model_overloaded", True),
        (500, said("loading model"), "model_overloaded", True),
        (529, said("Overloaded"), "model_overloaded", True),
        (502, "<html>Bad Gateway</html>", "model_overloaded", True),
        (504, "", "model_overloaded", True),
        (408, "", "model_unreachable", True),
        (500, said("the runner has crashed"), "model_bad_response", True),
        (400, said("unknown field top_q"), "model_bad_response", False),
        (404, said("model 'x' not found"), "model_bad_response", False),
        (422, {"detail": [{"msg": "extra fields not permitted"}]}, "model_bad_response", False),
        (307, "", "model_bad_response", False),
    ],
)
async def test_an_error_has_its_code(
    endpoint: Endpoint, ask: Asker, status: int, body: Any, code: str, again: bool
) -> None:
    endpoint.plays(fails(status, body.encode() if isinstance(body, str) else body))
    error = await refused(ask)
    assert (error.code, error.again) == (code, again)
    assert str(status) in error.message


TOO_LONG = [
    (400, said("This model's maximum context length is 8192 tokens.", code="context_length_exceeded")),
    (
        400,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you", "code": 400},
    ),
    (400, said("The decoder prompt (length 5000) is longer than the maximum model length of 4096.")),
    (400, said("'max_tokens' is too large: 2000. This model's maximum context length is 4096 tokens")),
    (
        400,
        said(
            "request (4476 tokens) exceeds the available context size (4096 tokens)", type="exceed_context_size_error"
        ),
    ),
    (500, said("Context size has been exceeded.")),
    (400, {"error": "the input length exceeds the context length"}),
    (500, {"error": "input length exceeds maximum context length"}),
    (400, said("This endpoint's maximum context length is 131072 tokens. However, you requested about 132463")),
    (
        400,
        {
            "error": "Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded "
            "with context length of only 32768 tokens, which is not enough."
        },
    ),
    (400, {"error": "The number of tokens to keep from the initial prompt is greater than the context length"}),
    (413, said("prompt is too long: 210000 tokens > 200000 maximum")),
    (422, said("Input is too long for requested model.")),
]
TOO_LARGE: list[tuple[int, Any]] = [(413, "<html>413 Request Entity Too Large</html>"), (413, {})]


@pytest.mark.parametrize(("status", "body"), [*TOO_LONG, *TOO_LARGE])
async def test_every_server_has_its_words_for_too_long(endpoint: Endpoint, ask: Asker, status: int, body: Any) -> None:
    endpoint.plays(fails(status, body))
    error = await refused(ask)
    assert (error.code, error.retryable) == ("context_length", False)


@pytest.mark.parametrize(("status", "body"), TOO_LONG)
async def test_too_long_is_also_said_in_a_stream(
    endpoint: Endpoint, ask: Asker, status: int, body: dict[str, Any]
) -> None:
    endpoint.plays(streams(data(body), done=False))
    assert (await refused(ask)).code == "context_length"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            413,
            "Request too large for model on tokens per minute (TPM): Limit 6000, Requested 9000, rate_limit_exceeded",
        ),
        (400, "the context of your question is unclear"),
        (401, "maximum context length"),
    ],
)
async def test_not_everything_that_is_large_is_too_long(
    endpoint: Endpoint, ask: Asker, status: int, message: str
) -> None:
    endpoint.plays(fails(status, said(message)))
    assert (await refused(ask)).code != "context_length"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, "model_rate_limited"),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, "model_rate_limited"),
        ({"error": {"code": 502, "message": "provider is gone"}}, "model_overloaded"),
        ({"error": "no slot available"}, "model_overloaded"),
        ({"error": "unauthorized"}, "model_auth"),
        ({"error": {"message": "it broke"}}, "model_bad_response"),
        ({"object": "error", "message": "it broke", "code": 500}, "model_bad_response"),
        (
            {"choices": [{"delta": {}, "finish_reason": "error", "error": {"message": "it broke"}}]},
            "model_bad_response",
        ),
        ({"choices": [{"delta": {}, "finish_reason": "abort"}]}, "model_bad_response"),
    ],
)
async def test_an_error_in_the_stream_has_its_code(endpoint: Endpoint, ask: Asker, event: Any, code: str) -> None:
    endpoint.plays(streams(data(event), done=False))
    error = await refused(ask)
    assert error.code == code
    assert endpoint.url in error.message


async def test_an_error_may_stand_where_the_data_should(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(b'error: {"code":500,"message":"context shift is disabled","type":"server_error"}\n\n'))
    assert (await refused(ask)).code == "context_length"


# -- what is no answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (sends(b"<!DOCTYPE html><title>Welcome</title>", "text/html"), "base_url"),
        (sends(b"\n  <html>", "text/event-stream"), "base_url"),
        (sends({"status": "ok"}), "no answer of a model"),
        (sends([1, 2]), "no piece of an answer"),
        (sends(b"{not json"), "no piece of an answer"),
        (sends(b""), "in the middle"),
        (sends(b" \n\n "), "in the middle"),
        (streams(data(b"pong")), "no piece of an answer: pong"),
        (streams(data(b'{"choices": 7}')), "no piece of an answer"),
        (streams(data(b'{"choices": ' + b"[" * 100_000)), "no piece of an answer"),
        (streams(data(b'{"choices": "\xff\xfe"}')), "no piece of an answer"),
        (fails(404, b"404 page not found"), "/v1"),
        (Reply([b"not gzip"], headers={"Content-Encoding": "gzip"}), "decompressed"),
    ],
)
async def test_what_is_no_answer_is_told_as_it_is(endpoint: Endpoint, ask: Asker, reply: Reply, expected: str) -> None:
    endpoint.plays(reply)
    error = await refused(ask)
    assert error.code == "model_bad_response"
    assert expected in error.message
    assert len(error.message) < 1_000


async def test_an_endless_line_is_cut_off(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(b"data: ", *[b"x" * 10_000] * 20, HANG))
    error = await refused(ask, event_bytes=50_000)
    assert (error.code, "event_bytes" in error.message) == ("model_bad_response", True)


async def test_an_endless_event_of_short_lines_is_cut_off(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(*[b"data: x\n" * 1_000] * 20, HANG))
    assert "event_bytes" in (await refused(ask, event_bytes=5_000)).message


async def test_an_endless_answer_is_cut_off(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(*[HI] * 1_000, HANG))
    assert "answer_bytes" in (await refused(ask, answer_bytes=10_000)).message
    endpoint.plays(sends(b'{"choices": [' + b" " * 20_000))
    assert "event_bytes" in (await refused(ask, event_bytes=10_000)).message


# -- lines that do not hold ------------------------------------------------------------------------------


async def test_an_endpoint_that_is_not_there_is_unreachable(ask: Asker) -> None:
    for url, expected in [
        ("http://127.0.0.1:1/v1", "refused"),
        ("http://nowhere.invalid/v1", "nowhere.invalid"),
    ]:
        error = await refused(ask, base_url=url)
        assert (error.code, error.again) == ("model_unreachable", True)
        assert expected in error.message
        assert "base_url" in error.message


async def test_an_endpoint_that_speaks_no_tls_is_unreachable(endpoint: Endpoint, ask: Asker) -> None:
    error = await refused(ask, base_url=endpoint.url.replace("http:", "https:"))
    assert (error.code, "TLS" in error.message) == ("model_unreachable", True)
    assert ssl.HAS_TLSv1_3


@pytest.mark.parametrize(
    "reply",
    [Reply([], before_head=[CUT]), streams(CUT), Reply([], before_head=[b"HTTP/1.1 20", CUT])],
    ids=["before the head", "before the first event", "in the head"],
)
async def test_a_line_that_breaks_before_anything_was_said_is_worth_another_try(
    endpoint: Endpoint, ask: Asker, reply: Reply
) -> None:
    endpoint.plays(reply)
    error = await refused(ask)
    assert (error.code, error.again) == ("model_unreachable", True)


async def test_an_answer_that_breaks_off_is_not_begun_again(endpoint: Endpoint, ask: Asker) -> None:
    for trouble in ([CUT], [data({"error": {"message": "overloaded"}})]):
        endpoint.plays(streams(HI, *trouble))
        heard = Heard()
        with pytest.raises(ModelError) as failed:
            await hear(ask.model(), request_for(), heard)
        assert heard.text == "hi"
        assert (failed.value.retryable, failed.value.again) == (True, False)


async def test_silence_has_an_end(endpoint: Endpoint, ask: Asker) -> None:
    for reply in (Reply([], before_head=[HANG]), streams(HANG)):
        endpoint.plays(reply)
        error = await refused(ask, first_byte_timeout_s=0.05)
        assert (error.code, error.again) == ("model_unreachable", True)
        assert "first_byte_timeout_s" in error.message
    endpoint.plays(streams(HI, HANG))
    error = await refused(ask, chunk_timeout_s=0.05)
    assert (error.code, error.again) == ("model_unreachable", False)
    assert "chunk_timeout_s" in error.message


async def test_an_error_whose_body_does_not_end_is_still_told(endpoint: Endpoint, ask: Asker) -> None:
    for trouble in (HANG, CUT):
        endpoint.plays(Reply([b"no such", trouble], 503))
        assert (await refused(ask, chunk_timeout_s=0.05)).code == "model_overloaded"


# -- connections -----------------------------------------------------------------------------------------


async def test_one_connection_serves_one_answer_after_the_other(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("hi"))
    model = ask.model()
    for _ in range(3):
        await hear(model, request_for())
    assert (len(endpoint.requests), endpoint.connections) == (3, 1)


@pytest.mark.parametrize(
    "reply",
    [
        streams(HI, *[b"data: x\n" * 1_000] * 20, HANG),
        streams(data({"error": "it broke"}), HANG),
        sends(b"<html>" + b" " * 500_000),
        Reply([b"x" * 500_000, HANG], 400),
    ],
    ids=["too much", "an error", "a web page", "an endless error"],
)
async def test_the_connection_of_an_answer_that_failed_is_let_go_of(
    endpoint: Endpoint, ask: Asker, reply: Reply
) -> None:
    endpoint.plays(reply, text("hi"))
    model = ask.model(connections=1, event_bytes=5_000, first_byte_timeout_s=2.0)
    with pytest.raises(ModelError):
        await hear(model, request_for())
    assert (await hear(model, request_for())).text == "hi"


async def test_a_cookie_that_one_request_got_goes_with_no_other(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(Reply(text("hi").pieces, headers={"Set-Cookie": "who=alice; Path=/"}))
    model = ask.model()
    for _ in range(2):
        await hear(model, request_for())
    assert "cookie" not in endpoint.last.headers


async def test_there_are_no_more_connections_than_there_may_be(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(HI, HANG))
    model = ask.model(connections=1, first_byte_timeout_s=0.2)
    async with anyio.create_task_group() as group:
        group.start_soon(hear, model, request_for())
        with anyio.fail_after(5):
            await endpoint.arrived.wait()
        with pytest.raises(ModelError, match="connections"):
            await hear(model, request_for())
        group.cancel_scope.cancel()
    assert endpoint.connections == 1


@pytest.mark.parametrize("before_head", [True, False])
async def test_who_stops_listening_hangs_up_at_once(endpoint: Endpoint, ask: Asker, before_head: bool) -> None:
    endpoint.plays(Reply([], before_head=[HANG]) if before_head else streams(HI, HANG))
    model, heard = ask.model(), Heard()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(hear, model, request_for(), heard)
            await endpoint.arrived.wait()
            while not (before_head or heard.parts):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await endpoint.last.gone.wait()


async def test_closing_closes_the_connections(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("hi"), streams(HI, HANG))
    model = ask.model()
    await hear(model, request_for())
    await model.aclose()
    await model.aclose()
    endpoint.plays(text("again"))
    assert (await hear(model, request_for())).text == "again"
    assert endpoint.connections == 2


# -- what is said of it ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        f"Bearer {KEY}",
        "sk-canary-3f9****e5b2",
        base64.b64encode(KEY.encode()).decode(),
        "x" * 480 + KEY,
        KEY * 50,
    ],
)
async def test_an_endpoint_that_repeats_the_key_does_not_get_it_into_a_message(
    endpoint: Endpoint, ask: Asker, echo: str
) -> None:
    for reply in (fails(401, said(f"bad key {echo}")), streams(data({"error": echo})), sends(f"<{echo}".encode())):
        endpoint.plays(reply)
        error = await refused(ask, api_key=KEY)
        for secret in (KEY, KEY[:10], KEY[-4:], base64.b64encode(KEY.encode()).decode()[:12]):
            assert secret not in error.message
    assert endpoint.last.headers["authorization"] == f"Bearer {KEY}"


async def test_headers_and_what_the_address_holds_are_secrets_too(endpoint: Endpoint, ask: Asker) -> None:
    url = endpoint.url.replace("127.0.0.1", "me:pa55-word@127.0.0.1") + "?token=t0ken-in-url"
    endpoint.plays(fails(400, said("no: pa55-word t0ken-in-url h3ader-value")))
    error = await refused(ask, base_url=url, headers={"X-Api-Key": "h3ader-value"})
    for secret in ("pa55-word", "t0ken-in-url", "h3ader-value"):
        assert secret not in error.message
    assert "127.0.0.1" in error.message
    assert endpoint.last.path == "/v1/chat/completions?token=t0ken-in-url"
    assert endpoint.last.headers["x-api-key"] == "h3ader-value"


async def test_a_message_is_one_line_and_no_longer_than_it_must_be(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(fails(400, said("word\n" * 10_000)))
    message = (await refused(ask)).message
    assert "\n" not in message
    assert len(message) < 700


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        (404, "The model `x` does not exist", "set the agent's model"),
        (400, "registry.ollama.ai/library/x does not support tools", "takes no tools"),
        (400, '"auto" tool choice requires --enable-auto-tool-choice', "takes no tools"),
        (500, "image input is not supported - hint: provide the mmproj", "images = false"),
        (401, "who are you", "api_key"),
    ],
)
async def test_a_message_says_what_to_do(
    endpoint: Endpoint, ask: Asker, status: int, message: str, advice: str
) -> None:
    endpoint.plays(fails(status, said(message)))
    error = await refused(ask)
    assert advice in error.message
    assert message.partition(" ")[0].strip('"') in error.message


# -- patience --------------------------------------------------------------------------------------------


async def test_how_long_to_wait_is_taken_from_the_answer(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(fails(429, said("slow"), Retry_After="7"))
    assert (await refused(ask)).retry_after_s == 7.0
    endpoint.plays(fails(503, said("slow"), retry_after_ms="1500"))
    assert (await refused(ask)).retry_after_s == 1.5


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": format_datetime(datetime(2033, 5, 18, 3, 33, 30, tzinfo=UTC), usegmt=True)}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0.5s"}, 360.5),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset": "2000000005"}, 5.0),
        ({"x-ratelimit-reset": "2000000005000"}, 5.0),
        ({"x-ratelimit-reset": "1999999999"}, 0.0),
        ({"x-ratelimit-reset": "later"}, None),
        ({"retry-after": "2", "x-ratelimit-reset": "50"}, 2.0),
    ],
)
def test_every_notation_of_a_wait_is_understood(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, limited=True, now=2_000_000_000.0) == pytest.approx(expected)


def test_when_a_limit_begins_anew_matters_only_to_who_has_exceeded_it() -> None:
    assert retry_after_s({"x-ratelimit-reset-tokens": "6m"}, limited=False) is None
    later = datetime.now(UTC) + timedelta(hours=1)
    assert (retry_after_s({"retry-after": format_datetime(later)}, limited=False) or 0) > 3_000


# -- too long --------------------------------------------------------------------------------------------


async def test_a_conversation_that_is_too_long_is_halved_and_sent_again(endpoint: Endpoint, ask: Asker) -> None:
    history = [user(f"{n} " + "word " * 200, run_id=f"r{n}") for n in range(8)]
    endpoint.plays(fails(*TOO_LONG[0]), fails(*TOO_LONG[0]), text("ok"))
    assert (await ask(request_for(history))).text == "ok"
    sizes = [len(str(request.body["messages"])) for request in endpoint.requests]
    assert sizes[1] < sizes[0] * 0.55
    assert sizes[2] < sizes[1] * 0.6
    sent = str(endpoint.last.body["messages"])
    assert "left out" in sent
    assert history[-1].text in sent


async def test_an_answer_that_was_cut_before_its_first_word_had_no_room(endpoint: Endpoint, ask: Asker) -> None:
    history = [user(f"{n} " + "word " * 200, run_id=f"r{n}") for n in range(8)]
    endpoint.plays(streams(chunk({"content": ""}), chunk(finish="length")), text("ok"))
    assert (await ask(request_for(history))).text == "ok"
    endpoint.plays(streams(chunk({"reasoning": "so much to think of"}), chunk(finish="length")))
    assert (await ask(request_for(history))).finish.reason == "length"


async def test_it_is_not_halved_for_ever(endpoint: Endpoint, ask: Asker) -> None:
    history = [user(f"{n} " + "word " * 200, run_id=f"r{n}") for n in range(50)]
    endpoint.plays(fails(*TOO_LONG[0]))
    for retries in (0, 2):
        before = len(endpoint.requests)
        with pytest.raises(ModelError) as failed:
            await ask(request_for(history), trim_retries=retries)
        assert failed.value.code == "context_length"
        assert len(endpoint.requests) - before == retries + 1


async def test_nothing_is_left_out_because_of_another_error(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(fails(400, said("unknown field top_q")))
    history = [user(f"{n} " + "word " * 200, run_id=f"r{n}") for n in range(8)]
    with pytest.raises(ModelError, match="top_q"):
        await ask(request_for(history))
    assert len(endpoint.requests) == 1


async def test_what_cannot_become_shorter_is_sent_once(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(fails(*TOO_LONG[0]))
    assert (await refused(ask)).code == "context_length"
    assert len(endpoint.requests) == 1


# -- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"base_url": "localhost:11434/v1"}, "not like http://"),
        ({"base_url": "ftp://x/v1"}, "not like http://"),
        ({"base_url": "http://[::1/v1"}, "no address"),
        ({"base_url": "http://x/v1/chat/completions"}, "leave out /chat/completions"),
        ({"api_key": "env:HERMES_TESTS_NO_SUCH_KEY"}, "HERMES_TESTS_NO_SUCH_KEY, which is not set"),
        ({"api_key": "file:no-such-file"}, "api_key is to come from the file 'no-such-file'"),
        ({"api_key": "two\nlines"}, "one line"),
        ({"api_key": "ünïcode"}, "plain ASCII"),
        ({"api_key": " "}, "api_key is empty"),
        ({"headers": {"X-Key": "env:HERMES_TESTS_NO_SUCH_KEY"}}, "headers.X-Key"),
        ({"headers": {"Bad Name": "x"}}, "no header that can be set"),
        ({"headers": {"Content-Length": "7"}}, "no header that can be set"),
        ({"options": {"stream": False, "temperature": 1}}, "options: stream"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_would_be_right(
    ask: Asker, endpoint: Endpoint, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SettingsError) as wrong:
        ask.model(**settings)
    assert expected in str(wrong.value)


async def test_a_key_may_come_from_the_environment_or_a_file(
    endpoint: Endpoint, ask: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.plays(text("hi"))
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.chdir(tmp_path)
    for value in (f"file:{tmp_path}/key", "file:key"):
        await ask(api_key=value)
        assert endpoint.last.headers["authorization"] == f"Bearer {KEY}"
    await ask()
    assert "authorization" not in endpoint.last.headers
