"""A line on which everything goes wrong, in both directions, as a seed says."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from tests.client.proxy import Proxy

__all__ = ["RoughProxy"]

KINDS = ("clean", "cut up", "cut down", "stall up", "stall down", "slow", "crumbs")


@dataclass
class RoughProxy(Proxy):
    """Each connection draws its fate: cut after some bytes (from the client, or from the server: amid a handshake, a
    frame, a header), silent for a while and then cut, slow, or in crumbs of a few bytes. ``calm``: they all pass."""

    calm: bool = False
    fates: Counter[str] = field(default_factory=Counter[str])

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        fate = "clean" if self.calm else self._random.choices(KINDS, (2, 3, 4, 1, 1, 2, 1))[0]
        self.fates[fate] += 1
        chance = random.Random(self._random.random())
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        self._writers.add(up_writer)
        try:
            pumps = [
                asyncio.create_task(self._pass(reader, up_writer, fate, "up", chance)),
                asyncio.create_task(self._pass(up_reader, writer, fate, "down", chance)),
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

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fate: str,
        direction: str,
        chance: random.Random,
    ) -> None:
        budget = None
        if fate.endswith(direction):
            budget = int(chance.expovariate(1 / (600 if direction == "up" else 30_000)))
        with suppress(OSError):
            while data := await reader.read(4096):
                if fate == "slow":
                    await asyncio.sleep(chance.random() * 0.02)
                if budget is not None and len(data) >= budget:
                    await self._end(writer, data[:budget], fate, chance)
                    return
                budget = None if budget is None else budget - len(data)
                await self._write(writer, data, fate == "crumbs", chance)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, crumbs: bool, chance: random.Random) -> None:
        while data:
            size = chance.randint(1, 400) if crumbs else len(data)
            writer.write(data[:size])
            data = data[size:]
            await writer.drain()
            if crumbs:
                await asyncio.sleep(0)

    async def _end(self, writer: asyncio.StreamWriter, data: bytes, fate: str, chance: random.Random) -> None:
        """The last bytes; half of the ends are orderly, half are resets."""
        self.cut += 1
        writer.write(data)
        if fate.startswith("stall"):
            await asyncio.sleep(chance.random() * 1.5)
        if chance.random() < 0.5:
            with suppress(OSError):
                await writer.drain()
            writer.close()
