"""A flood is read slowly: what a server sends costs it more than it costs us."""

from __future__ import annotations

import anyio

__all__ = ["Pace"]


class Pace:
    """So many messages a second, of all streams of a connection together; more have to wait, and their sender with
    them."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._count = 0
        self._until = 0.0

    async def keep(self, messages: int) -> None:
        """Some have come: wait as long as they are too many for this second. Others get their turn in any case."""
        now = anyio.current_time()
        if now >= self._until:
            self._count, self._until = 0, now + 1.0
        self._count += messages
        await anyio.sleep(self._until - now if self._count > self._per_s else 0)
