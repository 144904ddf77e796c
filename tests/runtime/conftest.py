"""A runtime in this process, over a log that can be held up or made to fail, and readers that see all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from hermes_ws.agents.base import Agent
from hermes_ws.agents.llm.demo import create
from hermes_ws.errors import CommandError, StoreError
from hermes_ws.protocol.commands import Command
from hermes_ws.protocol.control import Ok
from hermes_ws.runtime.commands import dispatch
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.runtime.readers import Reader
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.runtime.tail import payload_of
from hermes_ws.scrub import Scrubber
from hermes_ws.store.base import Append, ConversationRef, StoredEvent
from hermes_ws.store.directory import DataDirectory
from hermes_ws.store.memory import MemoryStore
from hermes_ws.store.vault import Vault
from hermes_ws.tools.registry import builtin_tools

REF = ConversationRef("home", "demo")
ME = Caller(Principal("home", "me", "admin"), "socket")


class GatedStore(MemoryStore):
    """A log whose commits can be held back, and refused."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Append] = []
        self.holding = False
        self.failing = False
        self.reads = 0

    def append(self, batch: Append) -> None:
        if self.failing:
            asyncio.get_running_loop().call_soon(batch.done, StoreError("the disk is on fire"))
        elif self.holding:
            self.held.append(batch)
        else:
            super().append(batch)

    def let_go(self) -> None:
        """Commit what was held back."""
        self.holding = False
        held, self.held = self.held, []
        for batch in held:
            super().append(batch)

    async def read(
        self, ref: ConversationRef, *, after: int, limit: int, max_bytes: int, deltas: bool = True
    ) -> list[StoredEvent]:
        self.reads += 1
        return await super().read(ref, after=after, limit=limit, max_bytes=max_bytes, deltas=deltas)


class Collector:
    """A sink that keeps what it gets, and takes no more than it is told to."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.writes = 0
        self.closed: tuple[int, str] | None = None
        self.on_writable: Callable[[], None] | None = None
        self._writable = True

    @property
    def writable(self) -> bool:
        return self._writable

    @writable.setter
    def writable(self, value: bool) -> None:
        self._writable = value
        if value and self.on_writable is not None:
            self.on_writable()

    def send(self, frames: Sequence[bytes], joined: bytes) -> None:
        assert joined == b"".join(frames)
        self.writes += 1
        self.raw += [payload_of(frame) for frame in frames]
        self.frames += [msgspec.json.decode(payload_of(frame)) for frame in frames]

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    async def wait_writable(self) -> None:
        return

    @property
    def events(self) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if "seq" in frame]

    @property
    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]


def follow(
    runtime: Runtime, conversation: Conversation, *, after: int = 0, exclude: frozenset[str] = frozenset()
) -> Collector:
    """A reader of everything after ``after``."""
    sink = Collector()
    Reader(
        conversation,
        sink,
        cursor=after,
        live_at=conversation.committed,
        exclude=exclude,
        settings=runtime.settings.readers,
    ).start()
    return sink


async def send(runtime: Runtime, conversation: Conversation, command: Command, caller: Caller = ME) -> Ok:
    """Do a command and wait for its answer; raises the refusal."""
    answered: asyncio.Future[Ok | CommandError] = asyncio.get_running_loop().create_future()
    await dispatch(runtime, conversation, command, caller, answered.set_result)
    with anyio.fail_after(10):
        answer = await answered
    if isinstance(answer, CommandError):
        raise answer
    return answer


async def until(condition: Callable[[], bool]) -> None:
    """Let everything else run until ``condition`` holds."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.001)


@asynccontextmanager
async def runtime_over(
    store: MemoryStore, path: Path, settings: RuntimeSettings | None = None, **agents: Agent
) -> AsyncGenerator[Runtime]:
    directory = DataDirectory(path)
    settings = settings or RuntimeSettings()
    try:
        async with Runtime.running(
            store,
            directory,
            settings=settings,
            agents={"demo": create({}), **agents},
            tools=builtin_tools(settings.tools),
            vault=Vault(b"a key for tests"),
            scrubber=Scrubber(),
        ) as runtime:
            yield runtime
    finally:
        directory.close()


@pytest.fixture
def store() -> GatedStore:
    return GatedStore()


@pytest.fixture
async def runtime(store: GatedStore, tmp_path: Path) -> AsyncGenerator[Runtime]:
    """In a task of its own: a fixture's set-up and tear-down run in different ones, which a task group cannot."""
    ready: asyncio.Future[Runtime] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def hold() -> None:
        async with runtime_over(store, tmp_path) as made:
            ready.set_result(made)
            await over.wait()

    task = asyncio.create_task(hold())
    yield await ready
    over.set()
    await task
