"""Server-sent events as a browser makes them of an answer, and answers read byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx2

from tests.wire import PATIENCE_S, Json, Server, fresh, line

LINES = ("application/jsonl", "application/x-ndjson")


async def spoken(server: Server, *scripts: str) -> str:
    """A conversation with finished runs."""
    conversation = fresh()
    async with server.socket(conversation) as socket:
        for script in scripts or ("hello",):
            await socket.run(script)
    return conversation


class Message(NamedTuple):
    """What ``onmessage`` gets."""

    id: str
    data: str

    @property
    def frame(self) -> Json:
        frame: Json = json.loads(self.data)
        return frame


class Parser:
    """Messages out of bytes, however those are cut; what is not finished is no message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.comments: list[str] = []
        self.retry: int | None = None
        self._bare: str | None = None
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            self._block(block.decode())

    def _block(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        if "" in fields:
            self.comments.append(fields.pop(""))
        if "retry" in fields:
            self.retry = int(fields.pop("retry"))
        self._bare = None
        if list(fields) == ["id"]:  # no message without data, but a browser keeps the number
            self._bare = fields["id"]
        elif fields:
            assert list(fields) == ["id", "data"], "without `event`, or `onmessage` would not see it"
            self.messages.append(Message(**fields))

    @property
    def last(self) -> str:
        """What a browser comes back with."""
        if self._bare is not None:
            return self._bare
        return self.messages[-1].id if self.messages else ""

    @property
    def frames(self) -> list[Json]:
        return [message.frame for message in self.messages]

    @property
    def data(self) -> list[str]:
        return [message.data for message in self.messages]


class Stream(Parser):
    """An open stream."""

    def __init__(self, answer: httpx2.Response) -> None:
        super().__init__()
        self.answer = answer
        self.over = False
        self._pieces = answer.aiter_raw()

    async def until(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Read until the condition holds."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                try:
                    self.feed(await anext(self._pieces))
                except StopAsyncIteration:
                    self.over = True
                    assert condition(), "the stream is over"

    async def until_seq(self, seq: int) -> None:
        await self.until(lambda: self.messages and int(self.last) >= seq)

    async def until_type(self, type_: str) -> Json:
        """Read until an event of a type is there; the last of these."""
        await self.until(lambda: any(frame["type"] == type_ for frame in self.frames))
        return next(frame for frame in reversed(self.frames) if frame["type"] == type_)

    async def until_over(self) -> None:
        await self.until(lambda: self.over)


@asynccontextmanager
async def stream(
    server: Server, conversation: str, *, last: str | None = None, key: str | None = None, **params: Any
) -> AsyncIterator[Stream]:
    """The log of a conversation as a stream; ``last`` is the ``Last-Event-ID``."""
    headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last is not None else {})
    async with server.http(key=key, headers=headers) as http:
        path = f"/api/conversations/{conversation}/events"
        async with http.stream("GET", path, params=params) as answer:
            if answer.status_code != 200:
                await answer.aread()
            assert answer.status_code == 200, answer.text
            yield Stream(answer)


@asynccontextmanager
async def asked(
    server: Server, rest: str, accept: str, *headers: str, **params: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A line on which ``/api/conversations/REST`` was asked for, and nothing read of what comes."""
    lines = (
        f"GET /api/conversations/{rest}?{urlencode(params)} HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Authorization: Bearer {server.key}",
        f"Accept: {accept}",
        *headers,
    )
    async with line(server) as (reader, writer):
        writer.write("\r\n".join([*lines, "", ""]).encode())
        yield reader, writer


def stops_reading(writer: asyncio.StreamWriter) -> None:
    """From here on nothing more is taken, but what fits into the kernel's buffers."""
    transport = writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()


def reads_on(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.resume_reading()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the line is gone, however it ends."""
    found = bytearray()
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_S * 2):
            while piece := await reader.read(1 << 20):
                found += piece
    return bytes(found)


def dechunked(body: bytes) -> bytes:
    """What was sent in chunks, as far as it goes."""
    found, at = bytearray(), 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:end], 16)
        found += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
    return bytes(found)
