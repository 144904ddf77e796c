"""Many WebSocket clients in one process of their own, each as cheap as can be, so that the server is what is measured.

A client does its handshake, and then looks in the bytes that come for two marks: the one that says that it is
connected, and the one that says that it has everything. Frames are not parsed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec

from bench.work import END

__all__ = ["Connect", "Cut", "Say", "Seen", "Stall", "Swarm", "Wait", "swarm"]

_REQUEST: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_STAMP: Final = re.compile(rb"@(\d{16});")


class Connect(msgspec.Struct, frozen=True, tag=True):
    """Open a socket to each path. Answered when all have seen ``opened``, with the time that took in ns."""

    url: str
    paths: list[str]
    opened: bytes
    done: bytes = END.encode()


class Wait(msgspec.Struct, frozen=True, tag=True):
    """Answered with :class:`Seen` when every client has seen its last mark."""


class Say(msgspec.Struct, frozen=True, tag=True):
    """Send a text on every client, one client after the other with a pause between; answered with each one's time in
    ns until ``mark`` came back."""

    text: str
    mark: bytes
    pause_s: float


class Stall(msgspec.Struct, frozen=True, tag=True):
    """Open sockets that take their handshake and never read again."""

    url: str
    paths: list[str]


class Cut(msgspec.Struct, frozen=True, tag=True):
    """Drop every client without a word."""


Order = Connect | Wait | Say | Stall | Cut


class Seen(msgspec.Struct, frozen=True):
    """What the clients have seen."""

    finished_ns: int
    """When the last of them had everything (``time.monotonic_ns``)."""
    received_bytes: int
    latencies_ns: list[int]


class Swarm:
    """The other end, in the benchmark's process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def connect(self, url: str, paths: Sequence[str], *, opened: bytes, done: bytes = END.encode()) -> int:
        return int(self._ask(Connect(url, list(paths), opened, done)))

    def wait(self) -> Seen:
        return cast(Seen, self._ask(Wait()))

    def say(self, text: str, *, mark: bytes, pause_s: float = 0.0) -> list[int]:
        return cast("list[int]", self._ask(Say(text, mark, pause_s)))

    def stall(self, url: str, paths: Sequence[str]) -> None:
        self._ask(Stall(url, list(paths)))

    def cut(self) -> None:
        self._ask(Cut())

    def _ask(self, order: Order) -> Any:
        self._pipe.send(order)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def swarm() -> Iterator[Swarm]:
    """A process of clients."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Swarm(ours)
    finally:
        ours.close()
        process.join(10)
        process.kill()


# -- in the process of the clients -----------------------------------------------------------------------


class _Client(asyncio.Protocol):
    """One socket. ``next`` resolves when the mark that is looked for has come."""

    def __init__(self, order: Connect, path: str, latencies_ns: list[int]) -> None:
        self._address = _address(order.url)
        self._request = _request(*self._address, path)
        self._latencies_ns = latencies_ns
        self._rest = b""
        self.transport: asyncio.Transport
        self.received = 0
        self.seen_ns = 0
        self.look_for(order.opened)
        self.next.add_done_callback(lambda _: self.look_for(order.done))

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, *self._address)

    def look_for(self, mark: bytes) -> None:
        self._mark = mark
        self.next: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.received += len(data)
        mark = self._mark
        if mark in data or mark in self._rest + data[: len(mark)]:
            self.seen_ns = now
            if not self.next.done():
                self.next.set_result(None)
        self._rest = data[-len(mark) :]
        if b"@" in data:
            self._latencies_ns += [now - int(sent) for sent in _STAMP.findall(data)]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.next.done():
            self.next.set_exception(ConnectionError("the server closed the socket"))

    def say(self, text: str) -> None:
        """Send a text frame, masked with zeros."""
        payload = text.encode()
        size = len(payload)
        head = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self.transport.write(b"\x81" + head + b"\0\0\0\0" + payload)


class _Clients:
    def __init__(self) -> None:
        self._all: list[_Client] = []
        self._stalled: list[socket.socket] = []
        self._latencies_ns: list[int] = []

    async def obey(self, order: Order) -> Any:
        match order:
            case Connect():
                return await self._connect(order)
            case Wait():
                await asyncio.gather(*(client.next for client in self._all))
                return Seen(
                    finished_ns=max(client.seen_ns for client in self._all),
                    received_bytes=sum(client.received for client in self._all),
                    latencies_ns=self._latencies_ns,
                )
            case Say():
                return [await self._say(client, order) for client in self._all]
            case Stall():
                host, port = _address(order.url)
                self._stalled += [_stalled(host, port, path) for path in order.paths]
            case Cut():
                await self.cut()
        return None

    async def _connect(self, order: Connect) -> int:
        begun = time.monotonic_ns()
        clients = [_Client(order, path, self._latencies_ns) for path in order.paths]
        self._all += clients
        opened = [client.next for client in clients]
        await asyncio.gather(*(client.connect() for client in clients))
        await asyncio.gather(*opened)
        return time.monotonic_ns() - begun

    async def _say(self, client: _Client, order: Say) -> int:
        await asyncio.sleep(order.pause_s)
        client.look_for(order.mark)
        begun = time.monotonic_ns()
        client.say(order.text)
        await client.next
        return client.seen_ns - begun

    async def cut(self) -> None:
        for client in self._all:
            client.next.cancel()
            client.transport.abort()
        for stalled in self._stalled:
            stalled.close()
        self._all, self._stalled, self._latencies_ns = [], [], []
        await asyncio.sleep(0.1)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _request(host: str, port: int, path: str) -> bytes:
    return _REQUEST.format(path=path, host=f"{host}:{port}").encode()


def _stalled(host: str, port: int, path: str) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, port))
    client.sendall(_request(host, port, path))
    client.recv(1, socket.MSG_PEEK)
    return client


def _main(pipe: Connection) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    clients = _Clients()
    while True:
        try:
            order = await asyncio.to_thread(pipe.recv)
        except EOFError:
            await clients.cut()
            return
        try:
            pipe.send(await clients.obey(order))
        except OSError as error:
            pipe.send(error)
