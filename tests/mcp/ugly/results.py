"""Switches for results: too big, not what they claim to be, not JSON, not an answer."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

from tests.mcp.ugly.server import PIECE, Exchange, Json, switch, text_result, tool

MIB = 2**20


def gives(name: str, *contents: Json, **fields: Any) -> None:
    """A switch whose calls give this content."""

    async def giving(x: Exchange) -> None:
        await x.result({"content": list(contents)} | fields)

    switch(name, "tools/call")(giving)


def sends(name: str, text: bytes) -> None:
    """A switch whose calls give these bytes as JSON; ``ID`` is the request's id."""

    async def sending(x: Exchange) -> None:
        await x.answer(text.replace(b"ID", json.dumps(x.id).encode()))

    switch(name, "tools/call")(sending)


def image(data: str, mime: str = "image/png") -> Json:
    return {"type": "image", "data": data, "mimeType": mime}


def around(x: Exchange, before: bytes, fill: bytes, size: int, after: bytes) -> Iterator[bytes]:
    """A result with a long middle, a piece at a time."""
    yield json.dumps({"jsonrpc": "2.0", "id": x.id})[:-1].encode() + b', "result": ' + before
    for _ in range(size // PIECE):
        yield fill * PIECE
    yield after + b"}"


TEXT = (b'{"content": [{"type": "text", "text": "', b'"}]}')
IMAGE = (b'{"content": [{"type": "image", "mimeType": "image/png", "data": "', b'"}]}')


@switch("huge_text", "tools/call")
async def huge_text(x: Exchange) -> None:
    """100 MB of text, or ``size``, in one JSON."""
    await x.pieces(around(x, TEXT[0], b"x", x.options.get("size", 100 * MIB), TEXT[1]))


@switch("huge_text_stream", "tools/call")
async def huge_text_stream(x: Exchange) -> None:
    """The same as one event of a stream."""
    await x.stream()
    await x.chunk(b"event: message\ndata: ")
    for piece in around(x, TEXT[0], b"x", x.options.get("size", 100 * MIB), TEXT[1]):
        await x.chunk(piece)
    await x.chunk(b"\n\n")
    await x.end()


@switch("gzip_bomb", "tools/call")
async def gzip_bomb(x: Exchange) -> None:
    """The same, in a hundred thousand bytes. Sent whatever the client says that it accepts."""
    squeeze = zlib.compressobj(9, wbits=31)
    whole = around(x, TEXT[0], b"x", x.options.get("size", 100 * MIB), TEXT[1])
    body = b"".join(squeeze.compress(piece) for piece in whole) + squeeze.flush()
    await x.answer(body, "Content-Encoding: gzip")


@switch("broken_gzip", "tools/call")
async def broken_gzip(x: Exchange) -> None:
    """Says gzip and is not."""
    await x.answer(x.encoded(text_result("fine")), "Content-Encoding: gzip")


@switch("huge_image", "tools/call")
async def huge_image(x: Exchange) -> None:
    """An image of 30 MB, or ``size``, in base64; of no format."""
    await x.pieces(around(x, IMAGE[0], b"A", x.options.get("size", 40 * MIB), IMAGE[1]))


@switch("many_items", "tools/call")
async def many_items(x: Exchange) -> None:
    """100,000 pieces of content, or ``count``."""
    await x.result({"content": [{"type": "text", "text": "x"}] * x.options.get("count", 100_000)})


SCRIPT = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>").decode()
gives("false_image", image(base64.b64encode(b"not a picture at all").decode()))
gives("script_image", image(SCRIPT, "image/svg+xml"), image(SCRIPT, "text/html"))
gives("bad_base64", image("***not base64***"), image("QUJD" + "=" * 9), image("QUJ\n\nD"))
gives("odd_mime", image("QUJD", "image/png\r\nX-Injected: 1"), image("QUJD", "m" * 10_000))
gives("unknown_content", {"type": "hologram", "data": "x"}, {"type": "text"}, {"no": "type"})
gives("result_no_content", structuredContent=["not", "an", "object"])
gives("empty_result")
gives("error_result", {"type": "text", "text": "it went wrong"}, isError=True)
gives("nul", {"type": "text", "text": "before\x00after\x1b[31m\x07\u202e"}, structuredContent={"\x00": "\x00"})
gives(
    "hostile_links",
    {"type": "resource_link", "uri": "file:///etc/passwd", "name": "p"},
    {"type": "resource", "resource": {"uri": "javascript:alert(1)", "text": "t", "mimeType": "text/html"}},
)
sends("lone_surrogate", b'{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"a\\ud800b"}]}}')
sends("invalid_utf8", b'{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"a\xff\xfeb"}]}}')
sends("half_json", b'{"jsonrpc":"2.0","id":ID,"result":{"content":[')
sends("no_json", b"certainly!")
sends("empty_body", b"")
sends("no_jsonrpc", b'{"id":ID,"result":{"content":[]}}')
sends("json_batch", b'[{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}]')
sends(
    "big_number", b'{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"n":1' + b"0" * 5000 + b"}}}"
)
sends("nan", b'{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"n":NaN,"i":Infinity}}}')
sends("wrong_id", b'{"jsonrpc":"2.0","id":424242,"result":{"content":[{"type":"text","text":"for somebody else"}]}}')
sends("null_id", b'{"jsonrpc":"2.0","id":null,"result":{"content":[]}}')
sends("question_for_answer", b'{"jsonrpc":"2.0","id":ID,"method":"ping"}')
sends("error_no_object", b'{"jsonrpc":"2.0","id":ID,"error":"oops"}')
sends("long_error", b'{"jsonrpc":"2.0","id":ID,"error":{"code":-32000,"message":"' + b"e" * MIB + b'"}}')


@switch("deep_json", "tools/call")
async def deep_json(x: Exchange) -> None:
    """Brackets 100,000 deep, or ``depth``."""
    depth = x.options.get("depth", 100_000)
    middle = b'{"content": [], "structuredContent": {"deep": ' + b"[" * depth + b"]" * depth + b"}}"
    await x.answer(b'{"jsonrpc": "2.0", "id": ' + json.dumps(x.id).encode() + b', "result": ' + middle + b"}")


@switch("wrong_output", "tools/list")
async def output_schema(x: Exchange) -> None:
    """A schema of what calls give..."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    await x.result({"tools": [tool(outputSchema=schema)]})


@switch("wrong_output", "tools/call")
async def wrong_output(x: Exchange) -> None:
    """... that what calls give does not fit."""
    await x.result(text_result("fine", structuredContent={"n": "seven"}))


@switch("missing_output", "tools/call")
async def missing_output(x: Exchange) -> None:
    """... or does not give."""
    await x.result(text_result("fine"))


switch("missing_output", "tools/list")(output_schema)
