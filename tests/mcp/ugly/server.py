"""A hand-written HTTP server that speaks MCP politely, until its switch says otherwise."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Self

__all__ = ["SWITCHES", "Exchange", "Json", "Options", "UglyServer", "switch", "text_result", "tool"]

Json = dict[str, Any]
Options = dict[str, Any]
PIECE: Final = 64 * 1024
START_S: Final = 10
SESSION: Final = "ugly-session"
READ_ONLY: Final = {"readOnlyHint": True, "destructiveHint": False}


class Exchange:
    """One HTTP request and what is answered to it."""

    def __init__(self, server: UglyServer, head: str, body: bytes, streams: tuple[Any, Any]) -> None:
        self.server = server
        self.reader: asyncio.StreamReader = streams[0]
        self.writer: asyncio.StreamWriter = streams[1]
        request, *lines = head.split("\r\n")
        self.verb, self.path, _ = request.split(" ", 2)
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = body
        self.message: Json = json.loads(body) if body else {}
        self.chunked = False

    @property
    def method(self) -> str:
        """The JSON-RPC method; ``GET`` and ``DELETE`` for those; ``answer`` for an answer to a question of ours."""
        return str(self.message.get("method", "answer")) if self.verb == "POST" else self.verb

    @property
    def id(self) -> Any:
        return self.message.get("id")

    @property
    def params(self) -> Json:
        return self.message.get("params") or {}

    @property
    def options(self) -> Options:
        return self.server.options

    # -- whole answers -----------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: str = "200 OK", *headers: str) -> None:
        """Status line and headers."""
        lines = [f"HTTP/1.1 {status}", *headers, "", ""]
        await self.send("\r\n".join(lines).encode("latin-1"))

    async def answer(
        self, body: bytes, *headers: str, status: str = "200 OK", content_type: str = "application/json"
    ) -> None:
        """A whole answer."""
        await self.head(status, f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers)
        await self.send(body)

    async def result(self, result: Any, *headers: str) -> None:
        """The JSON-RPC result of this request, as one JSON body."""
        await self.answer(self.encoded(result), *headers)

    def encoded(self, result: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": self.id, "result": result}).encode()

    async def error(self, code: int, message: str, data: Any = None) -> None:
        error = {"code": code, "message": message, "data": data}
        await self.answer(json.dumps({"jsonrpc": "2.0", "id": self.id, "error": error}).encode())

    async def pieces(self, pieces: Iterable[bytes], *headers: str) -> None:
        """A JSON body that is never in memory as a whole."""
        await self.head("200 OK", "Content-Type: application/json", "Transfer-Encoding: chunked", *headers)
        self.chunked = True
        for piece in pieces:
            await self.chunk(piece)
        await self.end()

    # -- streams -----------------------------------------------------------------------------------------

    async def stream(self) -> None:
        """Begin an event stream."""
        await self.head("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        self.chunked = True

    async def chunk(self, data: bytes) -> None:
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, message: Any, *lines: str) -> None:
        """One JSON-RPC message as an event; ``lines`` are further fields, such as ``id: 7``."""
        await self.chunk(as_event(message, *lines))

    async def stream_result(self, result: Any) -> None:
        await self.event({"jsonrpc": "2.0", "id": self.id, "result": result})

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def hang(self) -> None:
        """Nothing more, until the other side has had enough."""
        while await self.reader.read(PIECE):
            pass

    def cut(self) -> None:
        """A reset, in the middle of whatever is going on."""
        self.writer.transport.abort()


def as_event(message: Any, *lines: str) -> bytes:
    """An event's bytes."""
    return "\n".join(["event: message", *lines, f"data: {json.dumps(message)}", "", ""]).encode()


Behaviour = Callable[[Exchange], Awaitable[None]]
SWITCHES: dict[str, dict[str, Behaviour]] = {"polite": {}}
"""What a switch does differently, by JSON-RPC method (or ``GET``, ``DELETE``, ``answer``, ``connect``, ``any``)."""


def switch(name: str, *methods: str) -> Callable[[Behaviour], Behaviour]:
    """Under the switch ``name``, this is what happens to these methods."""

    def register(behaviour: Behaviour) -> Behaviour:
        SWITCHES.setdefault(name, {}).update(dict.fromkeys(methods, behaviour))
        return behaviour

    return register


def tool(name: str = "tool", **fields: Any) -> Json:
    """A tool as it is listed, harmless unless ``fields`` say otherwise."""
    return {"name": name, "inputSchema": {"type": "object"}, "annotations": READ_ONLY} | fields


def text_result(text: str, **fields: Any) -> Json:
    return {"content": [{"type": "text", "text": text}]} | fields


# -- how a polite server answers -----------------------------------------------------------------------------


async def initialize(x: Exchange) -> None:
    await x.result(initialized(x), f"Mcp-Session-Id: {SESSION}")


def initialized(x: Exchange) -> Json:
    """What a server says of itself."""
    version = x.params.get("protocolVersion", "2025-11-25")
    info = {"name": "ugly", "version": "1"}
    return {"protocolVersion": version, "capabilities": {"tools": {"listChanged": True}}, "serverInfo": info}


async def list_tools(x: Exchange) -> None:
    await x.result({"tools": [tool()]})


async def call_tool(x: Exchange) -> None:
    await x.result(text_result("fine"))


async def accepted(x: Exchange) -> None:
    await x.head("202 Accepted", "Content-Length: 0")


async def no_stream(x: Exchange) -> None:
    await x.head("405 Method Not Allowed", "Content-Length: 0")


async def gone(x: Exchange) -> None:
    await x.head("200 OK", "Content-Length: 0")


async def unknown(x: Exchange) -> None:
    if x.id is None or x.method == "answer":
        await accepted(x)
    else:
        await x.error(-32601, "Method not found")


async def pong(x: Exchange) -> None:
    await x.result({})


POLITE: Final[dict[str, Behaviour]] = {
    "initialize": initialize,
    "tools/list": list_tools,
    "tools/call": call_tool,
    "ping": pong,
    "GET": no_stream,
    "DELETE": gone,
}


class UglyServer:
    """A server with one switch on, in a thread of its own. ``options`` are what the switch can be told."""

    def __init__(self, switch: str, **options: Any) -> None:
        self.options: Options = options
        self.seen: list[Json] = []
        self.open_connections = 0
        self.connections = 0
        self.port = 0
        self.memory: Json = {}
        self._behaviours = SWITCHES[switch]
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._talks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"ugly-{switch}", daemon=True)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where streamable HTTP is said to be."""
        return self.base + "/mcp"

    @property
    def sse_url(self) -> str:
        """Where the old transport is said to be."""
        return self.base + "/sse"

    def methods(self) -> list[str]:
        """The JSON-RPC methods seen, in order; ``GET`` and ``DELETE`` for those."""
        return [entry["method"] for entry in list(self.seen)]

    def start(self) -> Self:
        """Returns when the port takes connections."""
        self._thread.start()
        assert self._ready.wait(START_S), "the ugly server did not come up"
        return self

    def stop(self) -> None:
        """Cuts whatever is still open. Once more does no harm."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**24)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(5):  # connections that were accepted already need the server to begin
            await asyncio.sleep(0)
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)  # who waits for an event that nobody will set is held by nothing else
        self.connections += 1
        self.open_connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            self.open_connections -= 1
            self._talks.discard(task)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "connect" in self._behaviours:
            await self._behaviours["connect"](Exchange(self, "CONNECT / HTTP/1.1", b"", (reader, writer)))
            return
        while not writer.is_closing():
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n")
            exchange = Exchange(self, head, b"", (reader, writer))
            body = await reader.readexactly(int(exchange.headers.get("content-length", 0)))
            exchange = Exchange(self, head, body, (reader, writer))
            self._remember(exchange)
            await self._behave(exchange)

    def _remember(self, x: Exchange) -> None:
        port = x.writer.get_extra_info("peername")[1]
        entry = {"method": x.method, "path": x.path, "headers": x.headers, "message": x.message, "peer_port": port}
        self.seen.append(entry)

    async def _behave(self, x: Exchange) -> None:
        chosen = self._behaviours.get(x.method) or self._behaviours.get("any") or POLITE.get(x.method, unknown)
        await chosen(x)
