"""How many runs work at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

__all__ = ["Slot"]


class Slot:
    """A run's place among those that work at once. While it waits for people, others may have it."""

    def __init__(self, places: anyio.Semaphore) -> None:
        self._places = places
        self._waiting = 0
        self._held = False

    async def __aenter__(self) -> None:
        await self._take()

    async def __aexit__(self, *_: object) -> None:
        self._give()

    async def _take(self) -> None:
        await self._places.acquire()
        self._held = True

    def _give(self) -> None:
        if self._held:
            self._held = False
            self._places.release()

    @asynccontextmanager
    async def given_up(self) -> AsyncGenerator[None]:
        """Meanwhile the place is free; it is taken again when nothing of the run waits any more."""
        self._waiting += 1
        self._give()
        try:
            yield
        finally:
            self._waiting -= 1
        if not (self._waiting or self._held):
            await self._take()
