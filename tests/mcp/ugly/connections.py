"""Switches that are about time and connections: what hangs, what breaks off, what never ends."""

from __future__ import annotations

import asyncio
import json

from tests.mcp.ugly.server import Exchange, accepted, as_event, initialized, switch, text_result

HANGS = {
    "hang_on_connect": "connect",
    "hang_on_initialize": "initialize",
    "hang_on_initialized": "notifications/initialized",
    "hang_on_list": "tools/list",
    "hang_on_call": "tools/call",
    "hang_on_delete": "DELETE",
    "hang_on_cancel": "notifications/cancelled",
}


async def hang(x: Exchange) -> None:
    """Take it and never answer."""
    await x.hang()


for name, method in HANGS.items():
    switch(name, method)(hang)
switch("hang_on_cancel", "tools/call")(hang)


@switch("slow_call", "tools/call")
async def slow_call(x: Exchange) -> None:
    """Answer after ``seconds``."""
    await asyncio.sleep(x.options.get("seconds", 1))
    await x.result(text_result("fine, in the end"))


@switch("slow_initialize", "initialize")
async def slow_initialize(x: Exchange) -> None:
    """Be initialized after ``seconds``."""
    await asyncio.sleep(x.options.get("seconds", 1))
    await x.result(initialized(x))


@switch("trickle", "tools/call")
async def trickle(x: Exchange) -> None:
    """One byte of the answer every ``seconds``: always alive, never done."""
    await x.head("200 OK", "Content-Type: application/json", "Content-Length: 100000")
    while True:
        await x.send(b" ")
        await asyncio.sleep(x.options.get("seconds", 0.1))


@switch("die_in_call", "tools/call")
async def die_in_call(x: Exchange) -> None:
    """Half a JSON answer, then a reset."""
    await x.head("200 OK", "Content-Type: application/json", "Content-Length: 1000")
    await x.send(b'{"jsonrpc": "2.0", "id": ')
    x.cut()


@switch("die_before_answer", "tools/call")
async def die_before_answer(x: Exchange) -> None:
    """A reset where an answer is due."""
    x.cut()


@switch("cut_stream", "tools/call")
async def cut_stream(x: Exchange) -> None:
    """Progress, then the stream breaks off."""
    await x.stream()
    await x.event(progress(x, 1))
    x.cut()


@switch("end_stream", "tools/call")
async def end_stream(x: Exchange) -> None:
    """Progress, then the stream ends as if all had been said."""
    await x.stream()
    await x.event(progress(x, 1))
    await x.end()


@switch("resume_for_ever", "tools/call", "GET")
async def resume_for_ever(x: Exchange) -> None:
    """Streams that end without an answer but with an id to resume from, at once: a client that obliges spins."""
    await x.stream()
    await x.chunk(b"id: 7\nretry: 0\ndata:\n\n")
    await x.end()


@switch("reconnect_for_ever", "GET")
async def reconnect_for_ever(x: Exchange) -> None:
    """The server's own stream ends at once and asks to be opened again at once."""
    await x.stream()
    await x.chunk(b"retry: 0\ndata:\n\n")
    await x.end()


@switch("retry_beyond_numbers", "GET")
async def retry_beyond_numbers(x: Exchange) -> None:
    """A reconnection delay that fits no float."""
    await x.stream()
    await x.chunk(b"retry: 1" + b"0" * 400 + b"\ndata:\n\n")
    await x.end()


@switch("endless_keepalives", "tools/call")
async def endless_keepalives(x: Exchange) -> None:
    """A stream that is always alive and never says anything."""
    await x.stream()
    while True:
        await x.chunk(b": keep-alive\n\n")
        await asyncio.sleep(x.options.get("seconds", 0.05))


@switch("endless_line", "tools/call")
async def endless_line(x: Exchange) -> None:
    """An event whose data never ends."""
    await x.stream()
    await x.chunk(b"data: ")
    while True:
        await x.chunk(b"x" * 65536)


@switch("endless_headers", "tools/call")
async def endless_headers(x: Exchange) -> None:
    """Headers for ever."""
    await x.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await x.send(b"X-More: " + b"x" * 1000 + b"\r\n")


@switch("not_http", "any")
async def not_http(x: Exchange) -> None:
    """What speaks on this port is something else."""
    await x.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    x.cut()


# -- the old transport ---------------------------------------------------------------------------------------


@switch("sse_without_endpoint", "GET")
async def sse_without_endpoint(x: Exchange) -> None:
    """The old transport's stream, without the address to post to."""
    await endless_keepalives(x)


@switch("sse_foreign_endpoint", "GET")
async def sse_foreign_endpoint(x: Exchange) -> None:
    """The address to post to is somebody else's: ``to``."""
    await x.stream()
    to = x.options.get("to", "http://169.254.169.254/latest/")
    await x.chunk(f"event: endpoint\ndata: {to}\n\n".encode())
    await x.hang()


@switch("sse", "GET")
async def sse(x: Exchange) -> None:
    """The old transport, polite: what other ``sse_`` switches differ from."""
    await x.stream()
    x.server.memory["stream"] = x
    await x.chunk(b"event: endpoint\ndata: /messages\n\n")
    await x.hang()


@switch("sse", "initialize")
async def sse_initialize(x: Exchange) -> None:
    await to_stream(x, initialized(x))


@switch("sse", "tools/list")
async def sse_list(x: Exchange) -> None:
    await to_stream(x, {"tools": [{"name": "tool", "inputSchema": {"type": "object"}}]})


@switch("sse", "tools/call")
async def sse_call(x: Exchange) -> None:
    await to_stream(x, text_result("fine"))


async def sse_post_refused(x: Exchange) -> None:
    """A call is refused with ``status`` where it is posted: nothing on the stream will ever answer it."""
    await x.answer(b"no", status=x.options.get("status", "401 Unauthorized"), content_type="text/plain")


async def sse_cut_in_call(x: Exchange) -> None:
    """The stream breaks off when a call comes."""
    x.server.memory["stream"].cut()
    await accepted(x)


for name, behaviour in {"sse_post_refused": sse_post_refused, "sse_cut_in_call": sse_cut_in_call}.items():
    switch(name, "GET")(sse)
    switch(name, "initialize")(sse_initialize)
    switch(name, "tools/list")(sse_list)
    switch(name, "tools/call")(behaviour)


async def to_stream(x: Exchange, result: object) -> None:
    await accepted(x)
    message = {"jsonrpc": "2.0", "id": x.id, "result": result}
    await x.server.memory["stream"].chunk(as_event(message))


def progress(x: Exchange, done: object, **fields: object) -> dict[str, object]:
    """A progress notification for the call, if it asked for any."""
    token = (x.params.get("_meta") or {}).get("progressToken", 0)
    params = {"progressToken": token, "progress": done} | fields
    return json.loads(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))  # type: ignore[no-any-return]
