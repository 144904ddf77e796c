"""The agent that benchmarks run in the server, plugged in like anybody's: its run's input says what to stream."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from bench.work import READS, Work, texts
from hermes_ws.agents.base import Agent, StopReason, Turn
from hermes_ws.history import UserTurn
from hermes_ws.store.base import ConversationRef, StoredEvent
from hermes_ws.store.sqlite import SqliteStore

__all__ = ["BenchAgent", "create"]


class _Reads:
    """Counts the pages that readers take from the log."""

    count = 0

    @classmethod
    def watch(cls) -> None:
        read = SqliteStore.read

        async def counted(
            store: SqliteStore, ref: ConversationRef, *, after: int, limit: int, max_bytes: int
        ) -> list[StoredEvent]:
            cls.count += 1
            return await read(store, ref, after=after, limit=limit, max_bytes=max_bytes)

        SqliteStore.read = counted  # type: ignore[method-assign, assignment]


class BenchAgent(Agent):
    """Streams what its input asks for."""

    @property
    def default_model(self) -> str:
        return "none"

    async def run(self, turn: Turn) -> StopReason:
        asked = turn.history()[-1]
        assert isinstance(asked, UserTurn)
        async with turn.step():
            if asked.text == READS:
                await turn.text(str(_Reads.count))
                return "end"
            work = msgspec.json.decode(asked.text, type=Work)
            async for text in texts(work):
                await turn.text(text)
            if work.hold:
                await asyncio.Event().wait()
        return "end"


def create(config: dict[str, Any]) -> Agent:
    """The entry point."""
    _Reads.watch()
    return BenchAgent()
