"""One contract, held against every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hermes_ws.errors import StoreError
from hermes_ws.store.base import Append, ConversationRef, Store, StoredEvent
from hermes_ws.store.memory import MemoryStore
from hermes_ws.store.sqlite import SqliteStore

Committing = Callable[..., Awaitable[StoreError | None]]

REF = ConversationRef("home", "demo")


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "log.db")
    yield made
    await made.close()


def batch(
    head: int, *events: bytes, done: Callable[[StoreError | None], None], ref: ConversationRef = REF, **more: Any
) -> Append:
    """An append of ``events`` after ``head``; the first one of a conversation brings its epoch."""
    more.setdefault("deltas", [False] * len(events))
    more.setdefault("epoch", "ep_1" if head == 0 else None)
    more.setdefault("at", 1_000 + head)
    more.setdefault("sync", True)
    return Append(ref=ref, head=head, done=done, events=list(events), **more)


async def commit(store: Store, head: int, *events: bytes, **more: Any) -> StoreError | None:
    """Append and wait for the outcome."""
    future: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()
    store.append(batch(head, *events, done=future.set_result, **more))
    return await asyncio.wait_for(future, 10)


async def read_all(store: Store, ref: ConversationRef = REF, after: int = 0) -> list[StoredEvent]:
    """Everything that follows ``after``."""
    return await store.read(ref, after=after, limit=1_000_000, max_bytes=1_000_000_000)
