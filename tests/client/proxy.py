"""A bad network: a TCP proxy that cuts, stalls, delays and truncates.

Nothing here knows about WebSockets, so cuts fall anywhere: in a handshake, in a frame's header, between two frames.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

__all__ = ["Proxy"]


@dataclass
class Proxy:
    """``port`` is where clients connect. What it does to them may be changed at any time."""

    upstream: int
    cut_after: tuple[int, int] | None = None
    """Bytes from the server after which a connection is cut, drawn from this range; the rest of what came with the
    last of them is thrown away. Half of the cuts are orderly (what was passed on arrives), half are resets (what was
    not read yet is gone)."""
    cuts: int | None = None
    """So many connections are cut and no more; None: all."""
    delay_s: float = 0.0
    """Every read is passed on so much later."""
    seed: int = 1
    port: int = 0
    connections: int = 0
    cut: int = 0
    passing: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, nothing passes, and nobody is told."""
    refusing: bool = False
    """Whether new connections are dropped at once."""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _random: random.Random = field(default_factory=random.Random)

    @classmethod
    @asynccontextmanager
    async def before(cls, port: int, **options: object) -> AsyncIterator[Self]:
        """A proxy in front of ``port``."""
        proxy = cls(port, **options)  # type: ignore[arg-type]
        proxy._random.seed(proxy.seed)
        proxy.passing.set()
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut_all()
            for task in tuple(proxy._tasks):
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut_all(self) -> None:
        """Cut every connection that is there."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if not self.refusing:
                await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        self._writers.add(up_writer)
        try:
            pumps = [
                asyncio.create_task(self._pump(reader, up_writer, None)),
                asyncio.create_task(self._pump(up_reader, writer, self._budget())),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._writers.discard(up_writer)
            up_writer.transport.abort()

    def _budget(self) -> int | None:
        if self.cut_after is None or (self.cuts is not None and self.cut >= self.cuts):
            return None
        return self._random.randint(*self.cut_after)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> None:
        with suppress(OSError):
            while data := await reader.read(4096):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self.passing.wait()
                writer.write(data if budget is None else data[:budget])
                await writer.drain()
                if budget is not None:
                    budget -= len(data)
                    if budget <= 0:
                        self.cut += 1
                        if self._random.random() < 0.5:
                            writer.close()
                        return
