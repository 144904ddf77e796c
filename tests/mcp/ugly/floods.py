"""Switches for what nobody asked for: answers, notifications, progress, in numbers and out of turn."""

from __future__ import annotations

from typing import Any

from tests.mcp.ugly.connections import progress
from tests.mcp.ugly.server import Exchange, Json, as_event, switch, text_result

AT_ONCE = 500
"""Messages that leave in one write."""


def notification(method: str, **params: Any) -> Json:
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def flood(x: Exchange, message: Json) -> None:
    """The message ``count`` times, then a decent answer."""
    count = x.options.get("count", 100_000)
    await x.stream()
    for start in range(0, count, AT_ONCE):
        await x.chunk(as_event(message) * min(AT_ONCE, count - start))
    await x.stream_result(text_result("fine, after all that"))
    await x.end()


@switch("progress_flood", "tools/call")
async def progress_flood(x: Exchange) -> None:
    """100,000 steps of progress, or ``count``."""
    await flood(x, progress(x, 1, total=100_000, message="m" * 100))


@switch("log_flood", "tools/call")
async def log_flood(x: Exchange) -> None:
    """100,000 log notifications, or ``count``."""
    await flood(x, notification("notifications/message", level="error", data="d" * 100))


@switch("list_changed_flood", "tools/call")
async def list_changed_flood(x: Exchange) -> None:
    """Says 100,000 times, or ``count``, that the tools have changed."""
    await flood(x, notification("notifications/tools/list_changed"))


@switch("unknown_flood", "tools/call")
async def unknown_flood(x: Exchange) -> None:
    """Notifications that the protocol does not know."""
    await flood(x, notification("notifications/of_nothing", data="d" * 100))


@switch("ping_flood", "tools/call")
async def ping_flood(x: Exchange) -> None:
    """Questions that have to be answered, each by a request."""
    await flood(x, {"jsonrpc": "2.0", "id": "ping", "method": "ping"})


@switch("list_changed_stream", "GET")
async def list_changed_stream(x: Exchange) -> None:
    """The server's own stream says without end that the tools have changed."""
    await x.stream()
    while True:
        await x.chunk(as_event(notification("notifications/tools/list_changed")) * AT_ONCE)


@switch("odd_progress", "tools/call")
async def odd_progress(x: Exchange) -> None:
    """Progress that goes backwards, fits no float, or has words for numbers."""
    await x.stream()
    for done, fields in ((5, {}), (1, {"total": -1}), ("most", {}), (2, {"total": "all", "message": 7}), (True, {})):
        await x.event(progress(x, done, **fields))
    await x.stream_result(text_result("fine"))
    await x.end()


@switch("progress_beyond_numbers", "tools/call")
async def progress_beyond_numbers(x: Exchange) -> None:
    """Progress that fits no float."""
    await x.stream()
    await x.event(progress(x, 10**400))
    await x.stream_result(text_result("fine"))
    await x.end()


@switch("foreign_progress", "tools/call")
async def foreign_progress(x: Exchange) -> None:
    """Progress for calls that other sessions may have open."""
    await x.stream()
    for token in range(50):
        await x.event(notification("notifications/progress", progressToken=token, progress=1, message="not yours"))
    await x.stream_result(text_result("fine"))
    await x.end()


@switch("progress_for_ever", "tools/call")
async def progress_for_ever(x: Exchange) -> None:
    """Progress as fast as it goes, and no answer ever."""
    await x.stream()
    while True:
        await x.chunk(as_event(progress(x, 1)) * AT_ONCE)


@switch("two_answers", "tools/call")
async def two_answers(x: Exchange) -> None:
    """The answer, and another one."""
    await x.stream()
    await x.stream_result(text_result("the first"))
    await x.stream_result(text_result("the second"))
    await x.end()


@switch("unasked_answers", "tools/call")
async def unasked_answers(x: Exchange) -> None:
    """Answers to questions that nobody asked, then the answer, on the server's own stream if there is one."""
    await x.stream()
    for number in (-1, 0, 10**6, "1", "x"):
        await x.event({"jsonrpc": "2.0", "id": number, "result": text_result("unasked")})
    await x.stream_result(text_result("the answer"))
    await x.end()


@switch("wrong_id_stream", "tools/call")
async def wrong_id_stream(x: Exchange) -> None:
    """An answer under an id of its own, on the call's stream."""
    await x.stream()
    await x.event({"jsonrpc": "2.0", "id": 424242, "result": text_result("for somebody else")})
    await x.end()


@switch("cancels_us", "tools/call")
async def cancels_us(x: Exchange) -> None:
    """The server cancels the call that it was asked for, then answers it."""
    await x.stream()
    await x.event(notification("notifications/cancelled", requestId=x.id, reason="no time"))
    await x.stream_result(text_result("fine"))
    await x.end()


@switch("bad_events", "tools/call")
async def bad_events(x: Exchange) -> None:
    """Events that are no JSON-RPC, of unknown kinds, empty; then the answer."""
    await x.stream()
    await x.chunk(b"event: surprise\ndata: {}\n\nid: 1\n\nnonsense\n\ndata:\n\n")
    await x.stream_result(text_result("fine"))
    await x.end()


@switch("event_no_json", "tools/call")
async def event_no_json(x: Exchange) -> None:
    """An event that is no JSON where the answer is due."""
    await x.stream()
    await x.chunk(b"event: message\ndata: certainly!\n\n")
    await x.end()
