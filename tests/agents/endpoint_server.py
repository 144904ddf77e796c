"""A model endpoint that does as it is told, over real HTTP: well, badly, slowly, or not to the end.

It answers every request for a completion with the next reply of its script, and notes what it was asked, over which
connection, and whether the asker stayed. The simple way::

    async with endpoint() as model:
        model.plays(calls(("read_file", {"path": "a.txt"})), text("It says hello."))
        ...
        assert model.requests[1].body["messages"][-1]["role"] == "tool"

Replies are made of pieces of bytes, of :data:`HANG` (nothing comes any more) and :data:`CUT` (the connection breaks).
Nothing here imports the package.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = [
    "CUT",
    "HANG",
    "Endpoint",
    "Reply",
    "Request",
    "calls",
    "chunk",
    "data",
    "endpoint",
    "fails",
    "sends",
    "streams",
    "text",
]

Json = dict[str, Any]


class Trouble(Enum):
    """What can happen instead of bytes."""

    HANG = "nothing comes any more"
    CUT = "the connection breaks"


HANG, CUT = Trouble.HANG, Trouble.CUT
Piece = bytes | Trouble | asyncio.Event
"""Bytes to send, a trouble, or an event to wait for."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to one request."""

    pieces: Sequence[Piece]
    status: int = 200
    headers: Json = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    before_head: Sequence[Piece] = ()
    """What happens before the status line."""


@dataclass(slots=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the asker hung up before the reply was over."""


class Endpoint:
    """See the top of the module."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        """Those for completions."""
        self.others: list[Request] = []
        """All others."""
        self.connections = 0
        self.models: list[str] | None = ["test-model"]
        """What ``/models`` lists; None: there is no such route."""
        self.arrived = asyncio.Event()
        """Set by every request for a completion."""
        self._script: list[Reply | Callable[[Request], Reply]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def plays(self, *replies: Reply | Callable[[Request], Reply]) -> None:
        """What comes next. The last one is repeated when there is nothing after it."""
        self._script = list(replies)

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def settings(self, name: str = "llm", **more: Any) -> str:
        """TOML of an agent that uses this endpoint, and is the default."""
        table = {"kind": "llm", "base_url": self.url, "model": "test-model", "retry_delay_s": 0.0, **more}
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        return "\n".join(["[server]", f'default_agent = "{name}"', f"[agents.{name}]", *lines, ""])

    # -- one connection --------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                early = b""
                while (request := await _read(reader, number, early)) is not None:
                    early = await self._answer(request, reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Play the reply. Returns what came of the next request meanwhile."""
        reply = self._reply(request)
        watcher = asyncio.create_task(reader.read(1))
        playing = asyncio.create_task(_play(reply, writer))
        try:
            await asyncio.wait([watcher, playing], return_when=asyncio.FIRST_COMPLETED)
            if not playing.done() and not await watcher:
                request.gone.set()
                raise ConnectionResetError
            await playing
            return watcher.result() if watcher.done() else b""
        finally:
            playing.cancel()
            watcher.cancel()
            await asyncio.gather(watcher, playing, return_exceptions=True)

    def _reply(self, request: Request) -> Reply:
        if request.path.partition("?")[0].endswith("/chat/completions"):
            self.requests.append(request)
            self.arrived.set()
            reply = self._script.pop(0) if len(self._script) > 1 else self._script[0]
            return reply if isinstance(reply, Reply) else reply(request)
        self.others.append(request)
        if request.path.partition("?")[0].endswith("/models") and self.models is not None:
            return sends({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        return fails(404, {"error": "page not found"})

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def endpoint(port: int = 0) -> AsyncIterator[Endpoint]:
    """An endpoint on this port, or a free one."""
    model = Endpoint()
    server = await asyncio.start_server(model.serve, "127.0.0.1", port)
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield model
    finally:
        server.close()
        await model.close()
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader, connection: int, early: bytes) -> Request | None:
    line = early + await reader.readline()
    if not line:
        return None
    method, path, _ = line.decode().split()
    headers: dict[str, str] = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, json.loads(body) if body else None, connection)


async def _play(reply: Reply, writer: asyncio.StreamWriter) -> None:
    for piece in reply.before_head:
        await _perform(piece, writer, framed=False)
    head = [f"HTTP/1.1 {reply.status} X", *(f"{k}: {v}" for k, v in reply.headers.items())]
    writer.write("\r\n".join([*head, "Transfer-Encoding: chunked", "", ""]).encode("latin-1"))
    for piece in reply.pieces:
        await _perform(piece, writer, framed=True)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _perform(piece: Piece, writer: asyncio.StreamWriter, *, framed: bool) -> None:
    match piece:
        case bytes():
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framed else piece)
            await writer.drain()
            await asyncio.sleep(0)
        case asyncio.Event():
            await piece.wait()
        case Trouble.HANG:
            await asyncio.Event().wait()
        case Trouble.CUT:
            await writer.drain()
            writer.transport.abort()
            raise ConnectionResetError


# -- replies ---------------------------------------------------------------------------------------------


def chunk(delta: Json | None = None, finish: str | None = None, **fields: Any) -> bytes:
    """One event of a stream, by the book."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return data({"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **fields})


def data(value: Any) -> bytes:
    """Any event."""
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


DONE = data(b"[DONE]")


def streams(*pieces: Piece, done: bool = True) -> Reply:
    """A stream of events."""
    return Reply([*pieces, *([DONE] if done else [])])


def text(*deltas: str, reasoning: str | None = None, usage: Json | None = None) -> Reply:
    """Say this, in these pieces, and end."""
    thought = [chunk({"reasoning_content": reasoning})] if reasoning else []
    counted = [data({"choices": [], "usage": usage})] if usage else []
    return streams(*thought, *(chunk({"content": delta}) for delta in deltas), chunk(finish="stop"), *counted)


def calls(*wanted: tuple[str, Json]) -> Reply:
    """Call these tools, side by side, the arguments in fragments."""
    pieces: list[bytes] = []
    for n, (name, arguments) in enumerate(wanted):
        written = json.dumps(arguments)
        begun = {"index": n, "id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": ""}}
        pieces.append(chunk({"tool_calls": [begun]}))
        pieces += [
            chunk({"tool_calls": [{"index": n, "function": {"arguments": written[at : at + 7]}}]})
            for at in range(0, len(written), 7)
        ]
    return streams(*pieces, chunk(finish="tool_calls"))


def sends(body: Any, content_type: str = "application/json") -> Reply:
    """A whole body: JSON, or bytes."""
    return Reply([body if isinstance(body, bytes) else json.dumps(body).encode()], 200, {"Content-Type": content_type})


def fails(status: int, body: Any = b"", **headers: str) -> Reply:
    """An error. Header names with ``_`` for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([body if isinstance(body, bytes) else json.dumps(body).encode()], status, named)
