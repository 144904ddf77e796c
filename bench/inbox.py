"""The inbox over 10,000 conversations: its first page, all its pages, and what a change costs."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from websockets.sync.client import ClientConnection, connect

from bench.memory import KB, sockets
from bench.report import Bench, Figure
from bench.servers import Ours, ours, stock
from bench.streaming import MILLION, stream
from bench.swarm import Swarm, swarm
from bench.work import Work
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.events import ConversationCreated, InteractionRequested
from hermes_ws.protocol.summaries import ConversationSummary
from hermes_ws.protocol.values import AnswerableBy, OnExpire, Option, Usage
from hermes_ws.store.base import Append, ConversationRef
from hermes_ws.store.directory import LOG
from hermes_ws.store.sqlite import SqliteStore

__all__ = ["inbox"]

COUNT: Final = 10_000
WAITING: Final = 100
"""In every so-manieth conversation something waits for a person."""
PATH: Final = "/ws"
OPENED: Final = b'"next":"'
"""At the end of a first page that is not the last one."""
RATE: Final = 500


def inbox(quick: bool = False) -> Bench:
    """What a dashboard over 10,000 conversations costs."""
    with TemporaryDirectory(prefix="hermes-ws-bench-") as directory, swarm() as clients, swarm() as watchers:
        data = Path(directory)
        asyncio.run(_filled(data))
        figures = [*_pages(data, clients, 10 if quick else 50), *_changes(data, clients, watchers, quick)]
        with ours(data) as server, stock() as plain:
            count = 300 if quick else 1_000
            each = sockets(server, clients, [PATH] * count, opened=OPENED)
            bare = sockets(plain, clients, [plain.path("idle")] * count)
        figures.append(Figure(name="an open inbox: memory", unit="kB", ours=each, baseline=bare))
    return Bench(f"inbox of {COUNT:,}", "baseline", figures)


# -- what is there ---------------------------------------------------------------------------------------


async def _filled(data: Path) -> None:
    """A log with conversations of one event each."""
    store = await SqliteStore.open(data / LOG)
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = COUNT

    def done(error: Exception | None) -> None:
        nonlocal left
        left -= 1
        if error is not None or not left:
            told.set_exception(error) if error is not None else told.set_result(None)

    for n in range(COUNT):
        store.append(_conversation(n, done=done))
    await told
    await store.close()


def _conversation(n: int, done: object) -> Append:
    name, at = f"conversation-{n}", 1_790_000_000_000 + n
    asked = [_question(n, at)] if n % WAITING == 0 else []
    summary = ConversationSummary(
        conversation_id=name,
        title=f"What conversation number {n} is about",
        status="idle",
        queue=0,
        interactions=asked,
        last_event_at=at,
        head=1,
        usage=Usage(input_tokens=1_000, output_tokens=200, total_tokens=1_200),
    )
    return Append(
        ref=ConversationRef("default", name),
        head=0,
        at=at,
        sync=True,
        done=done,  # type: ignore[arg-type]
        events=[encode(ConversationCreated(seq=1, ts=at, conversation_id=name, epoch=f"ep_{n}"))],
        deltas=[False],
        epoch=f"ep_{n}",
        summary=msgspec.json.encode(summary),
        waiting=bool(asked),
    )


def _question(n: int, at: int) -> InteractionRequested:
    return InteractionRequested(
        seq=1,
        ts=at,
        run_id=f"run_{n:020d}",
        interaction_id=f"int_{n:020d}",
        kind="approval",
        title="Run a command",
        message="rm -rf /var/cache/apt/archives",
        options=[Option(id="once", label="Allow once", kind="allow"), Option(id="deny", label="Deny", kind="deny")],
        editable=True,
        requested_at=at,
        expires_at=at + 86_400_000,
        on_expire=OnExpire(option="deny"),
        answerable_by=AnswerableBy(roles=["driver"]),
    )


# -- pages -----------------------------------------------------------------------------------------------


def _pages(data: Path, clients: Swarm, rounds: int) -> list[Figure]:
    with ours(data) as server, stock() as plain:
        first: list[int] = []
        bare: list[int] = []
        for _ in range(rounds):
            first.append(clients.connect(server.url, [PATH], opened=OPENED))
            clients.cut()
            bare.append(clients.connect(plain.url, [plain.path("idle")], opened=plain.opened))
            clients.cut()
        cpu = server.cpu_s()
        begun = time.monotonic()
        with _dashboard(server) as dashboard:
            sizes = _all_pages(dashboard)
        took, cpu = time.monotonic() - begun, server.cpu_s() - cpu
    fetched = median(_fetch(data / LOG) for _ in range(5))
    return [
        Figure(
            name="first page, from connect: p50",
            unit="ms",
            ours=median(first) / MILLION,
            baseline=median(bare) / MILLION,
        ),
        Figure(name="first page: size", unit="kB", ours=sizes[0] / KB, baseline=sum(sizes) / KB),
        Figure(name="all pages, one after the other", unit="ms", ours=took * 1e3, baseline=fetched * 1e3),
        Figure(name="all pages: CPU per conversation", unit="µs", ours=cpu / COUNT * MILLION),
    ]


@contextmanager
def _dashboard(server: Ours) -> Generator[ClientConnection]:
    url = server.url.replace("http", "ws", 1) + PATH
    with connect(url, compression=None, proxy=None, max_size=None) as dashboard:
        dashboard.recv()
        yield dashboard


def _all_pages(dashboard: ClientConnection) -> list[int]:
    """Ask for page after page; what each weighed."""
    page = str(dashboard.recv())
    pages = [page]
    while '"next":"' in page[-100:]:
        dashboard.send('{"type":"inbox.more"}')
        page, _ = str(dashboard.recv()), dashboard.recv()
        pages.append(page)
    assert sum(page.count('"title":"What conversation') for page in pages) == COUNT
    return [len(page) for page in pages]


def _fetch(log: Path) -> float:
    """Seconds in which all summaries are read from the log, and nothing else."""
    begun = time.monotonic()
    with closing(sqlite3.connect(log)) as db:
        db.execute("SELECT id, head, last_event_at, summary FROM conversations ORDER BY last_event_at DESC").fetchall()
    return time.monotonic() - begun


# -- changes ---------------------------------------------------------------------------------------------


def _changes(data: Path, clients: Swarm, watchers: Swarm, quick: bool) -> list[Figure]:
    """A run at an even pace, of which every commit is told, and one as the defaults have it."""
    work = Work(events=RATE * (2 if quick else 6), rate=RATE, hold=True)
    cost: dict[int, float] = {}
    with ours(data, conversations__delta_bytes=1, inbox__quiet_ms=0) as server:
        for count in (0, 1, 50):
            watchers.connect(server.url, [PATH] * count, opened=OPENED)
            cost[count] = median(_cpu_us(server, clients, f"{count}-{n}", work) for n in range(1 if quick else 3))
            watchers.cut()
        told, each = _told(server, clients, "told", work)
    with ours(data, conversations__delta_bytes=1) as server:
        quiet, _ = _told(server, clients, "quiet", work)
    return [
        Figure(name="a change: size", unit="bytes", ours=each, target=1_000, of="value"),
        Figure(name=f"{work.events:,} commits of a run, told at every one", unit="frames", ours=told),
        Figure(name=f"{work.events:,} commits of a run, told by default", unit="frames", ours=quiet),
        Figure(name="a commit, nobody looks: CPU", unit="µs", ours=cost[0]),
        Figure(name="a change to 1 inbox: CPU beside that", unit="µs", ours=cost[1] - cost[0], baseline=cost[0]),
        Figure(name="a change to 50 inboxes: CPU beside that", unit="µs", ours=cost[50] - cost[0], baseline=cost[0]),
    ]


def _cpu_us(server: Ours, clients: Swarm, name: str, work: Work) -> float:
    """Server CPU per commit of a run with one reader at its socket."""
    return stream(server, clients, name, 1, work).cpu_s / work.events * MILLION


def _told(server: Ours, clients: Swarm, name: str, work: Work) -> tuple[int, float]:
    """How many changes a dashboard is told of while a run goes on, and how long they are."""
    with _dashboard(server) as dashboard:
        dashboard.recv()
        stream(server, clients, name, 1, work)
        sizes: list[int] = []
        try:
            while True:
                sizes.append(len(dashboard.recv(timeout=1.5)))
        except TimeoutError:
            return len(sizes), median(sizes)
