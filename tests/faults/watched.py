"""Conversations that model clients follow while something goes wrong, and what must hold of them in the end."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.faults.model_client import LOST, Journal, ModelClient, Place, ServedSchema, Violation, same_state
from tests.faults.verdict import judge
from tests.session.second_fold import BrokenPromiseError
from tests.wire import Json, Server, terminals

__all__ = ["LONG", "SEED", "Company", "Watched", "company"]

SEED = int(os.environ.get("HERMES_WS_TESTS_SEED") or 7)
LONG = os.environ.get("HERMES_WS_TESTS_LONG") == "1"
REST_S = 40.0
"""How long it may take until everything has come to its end."""


@dataclass
class Watched:
    """A conversation and those who follow it."""

    journal: Journal
    clients: list[ModelClient]

    @property
    def name(self) -> str:
        return self.journal.conversation

    @property
    def one(self) -> ModelClient:
        return self.clients[0]

    def seen(self) -> list[Json]:
        """The events that anybody saw, of the newest epoch."""
        frames = self.journal.seen.get(self.journal.epochs[-1], {}) if self.journal.epochs else {}
        return [json.loads(frames[seq]) for seq in sorted(frames)]

    def look(self) -> None:
        """Raise :class:`Violation` if anybody saw a promise broken."""
        if self.journal.violations:
            raise Violation(f"{self.name}: {self.journal.violations[0]}")

    async def until(self, condition: Callable[[], object], timeout_s: float = REST_S) -> None:
        """Wait for what the clients come to see."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.look()
                await asyncio.sleep(0.02)

    async def until_seen(self, type_: str, count: int = 1, timeout_s: float = REST_S, **fields: object) -> Json:
        """Wait until somebody saw so many such events; the last of them."""
        found: list[Json] = []

        def enough() -> bool:
            found[:] = [
                e for e in self.seen() if e["type"] == type_ and all(e.get(n) == value for n, value in fields.items())
            ]
            return len(found) >= count

        await self.until(enough, timeout_s)
        return found[count - 1]

    async def at_rest(self) -> Json:
        """A snapshot in which nothing is going on."""
        async with asyncio.timeout(REST_S):
            while True:
                self.look()
                with suppress(*LOST):
                    async with asyncio.timeout(5):
                        answer = await self.one.command("snapshot.get")
                    snapshot: Json = answer.get("snapshot", {})
                    if snapshot and snapshot["run"] is None and not snapshot["queue"]:
                        return snapshot
                await asyncio.sleep(0.1)

    async def verdict(self, marks: Path | None = None) -> list[Json]:
        """The log, once all is at its end: every client, the server's snapshot and the log's fold are the same,
        everything that was seen is in it, every command was done once, everything ended once."""
        snapshot = await self.at_rest()
        log = await self.one.read_log()
        await self.until(lambda: all(client.at >= len(log) for client in self.clients))
        self.look()
        try:
            judge(self.journal, log, marks or Path("/nowhere"), snapshot)
        except (Violation, BrokenPromiseError) as broken:
            raise Violation(f"{self.name}: {broken}") from None
        for client in self.clients:
            assert client.view is not None
            difference = same_state(client.view.view(), snapshot)
            assert not difference, f"{client.name} ended with another {difference}"
        events: list[Json] = [json.loads(raw) for raw in log]
        assert {name: count for name, count in terminals(events).items() if count != 1} == {}
        return events


@dataclass
class Company:
    """All who are there. ``place`` is where they find the server."""

    place: Place
    _stack: AsyncExitStack
    _schema: ServedSchema
    _http: httpx2.AsyncClient
    _chance: random.Random
    watched: list[Watched] = field(default_factory=list[Watched])

    async def watch(self, name: str, clients: int = 2, *, anew: float = 0.15, may_lose: bool = False) -> Watched:
        """So many clients follow ``name``; the first never begins anew by itself."""
        journal = Journal(name, may_lose=may_lose)
        made = [
            ModelClient(
                self.place,
                journal,
                self._schema,
                self._http,
                f"{name}/{number}",
                random.Random(self._chance.random()),
                anew if number else 0.0,
            )
            for number in range(clients)
        ]
        for client in made:
            await self._stack.enter_async_context(client.following())
        one = Watched(journal, made)
        self.watched.append(one)
        await one.until(lambda: all(client.live.is_set() for client in made))
        return one

    def moved(self, server: Server, url: str | None = None) -> None:
        """The server is somewhere else now, or to be reached by another address."""
        self.place.url, self.place.key = url or server.url, server.key

    async def verdict(self) -> list[list[Json]]:
        """The log of each conversation, once all are at rest and found right."""
        return [await one.verdict() for one in self.watched]


@asynccontextmanager
async def company(server: Server, seed: int = SEED, url: str | None = None) -> AsyncIterator[Company]:
    """People who follow conversations on ``server``."""
    place = Place()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=15))
        schema = await ServedSchema.of(Place(server.url, server.key))
        people = Company(place, stack, schema, http, random.Random(seed))
        people.moved(server, url)
        try:
            yield people
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
