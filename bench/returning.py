"""Starting and coming back: the first event of a run, a replay, a thousand clients at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import aiosqlite
import msgspec

from bench.report import Bench, Figure
from bench.servers import Ours, Stock, ours, stock
from bench.stock import REPLAYED
from bench.swarm import Swarm, swarm
from bench.work import END, Work

__all__ = ["first_event", "replay", "return_at_once"]

MILLISECOND = 1_000_000
RUN_PAUSE_S = 0.05
"""Between two measured runs: the rest of the first one is over by then."""


def _ms(times_ns: Sequence[int]) -> float:
    return median(times_ns) / MILLISECOND


def first_event(quick: bool = False) -> Bench:
    """From ``run.start`` leaving a client to the run's first event, and to its first delta, arriving there."""
    count = 20 if quick else 100
    start = msgspec.json.encode({"type": "run.start", "input": msgspec.json.encode(Work(events=1)).decode()}).decode()
    times: dict[bytes, list[int]] = {}
    with ours() as server, stock() as plain, swarm() as clients:
        for mark in (b'"type":"run.started"', b'"type":"message.delta"'):
            paths = [server.path(f"{mark[8:-1].decode()}-{n}") for n in range(count)]
            clients.connect(server.url, paths, opened=server.opened)
            times[mark] = clients.say(start, mark=mark, pause_s=RUN_PAUSE_S)
            clients.cut()
        clients.connect(plain.url, ["/ws"] * count, opened=plain.opened)
        echo = clients.say("hi", mark=END.encode(), pause_s=RUN_PAUSE_S)
    started, said = times.values()
    figures = [
        Figure(name="run.started: p50", unit="ms", ours=_ms(started), baseline=_ms(echo), target=5, of="value"),
        Figure(name="run.started: p90", unit="ms", ours=_p90(started), baseline=_p90(echo)),
        Figure(name="first delta: p50", unit="ms", ours=_ms(said), baseline=_ms(echo)),
        Figure(name="first delta: p90", unit="ms", ours=_p90(said), baseline=_p90(echo)),
    ]
    return Bench("from run.start", "bare echo", figures)


def _p90(times_ns: Sequence[int]) -> float:
    return quantiles(times_ns, n=10)[8] / MILLISECOND


def replay(quick: bool = False) -> Bench:
    """A conversation of 10,000 events, from the log to one client, after a restart."""
    events, rounds = 10_000, 5 if quick else 15
    with TemporaryDirectory(prefix="hermes-ws-bench-") as directory, swarm() as clients:
        data = Path(directory)
        with ours(data, conversations__delta_bytes=1) as server:
            head = server.run("replay", Work(events=events))
        with ours(data) as server, stock() as plain:
            sent, fetched_sent, fetched = list[int](), list[int](), list[int]()
            for _ in range(rounds):
                path = "/ws/replay?after=0"
                sent.append(clients.connect(server.url, [path], opened=b'"live"'))
                clients.cut()
                path = f"/replay?file={server.log}&events={head}"
                fetched_sent.append(clients.connect(plain.url, [path], opened=REPLAYED.encode()))
                clients.cut()
                fetched.append(asyncio.run(_fetch(server.log, head)))
    figures = [
        Figure(name="against a bare fetch", unit="ms", ours=_ms(sent), baseline=_ms(fetched), target=3),
        Figure(name="against fetch and send", unit="ms", ours=_ms(sent), baseline=_ms(fetched_sent)),
    ]
    return Bench(f"replay of {events:,} events", "baseline", figures)


async def _fetch(log: Path, events: int) -> int:
    async with aiosqlite.connect(log) as db:
        begun = time.monotonic_ns()
        rows = await db.execute_fetchall("SELECT data FROM events ORDER BY conversation, seq LIMIT ?", (events,))
        assert len(list(rows)) == events
        return time.monotonic_ns() - begun


def return_at_once(quick: bool = False) -> Bench:
    """A thousand clients cut at once, each resuming 100 events; against as many handshakes with nothing after them."""
    clients_count, rounds = (200, 2) if quick else (1_000, 5)
    figures: list[Figure] = []
    with ours(conversations__delta_bytes=1) as server, stock() as plain, swarm() as clients:
        bare = [_handshakes(plain, clients, clients_count) for _ in range(rounds)]
        for conversations in (1, 100):
            names = [f"back-{conversations}-{n}" for n in range(conversations)]
            reads = server.reads()
            back = [_return(server, clients, names, clients_count) for _ in range(rounds)]
            figures.append(
                Figure(
                    name=f"{clients_count:,} clients of {conversations} conversation{'s' * (conversations > 1)}",
                    unit="ms",
                    ours=_ms(back),
                    baseline=_ms(bare),
                    target=3,
                )
            )
            figures.append(
                Figure(name="pages read from the log", unit="", ours=server.reads() - reads, target=0, of="value")
            )
    return Bench("all back at once", "bare handshakes", figures)


def _handshakes(plain: Stock, clients: Swarm, count: int) -> int:
    took = clients.connect(plain.url, ["/ws"] * count, opened=plain.opened)
    clients.cut()
    return took


def _return(server: Ours, clients: Swarm, names: Sequence[str], count: int) -> int:
    """Connect, cut, have 100 events appended by a run, and come back for them."""
    paths = [server.path(names[n % len(names)]) for n in range(count)]
    clients.connect(server.url, paths, opened=server.opened)
    heads = {name: server.head(name) for name in names}
    clients.cut()
    for name in names:
        server.run(name, Work(events=100))
        heads[name] = max(heads[name], server.head(name) - 100)
    paths = [f"/ws/{name}?after={heads[name]}" for n in range(count) for name in (names[n % len(names)],)]
    took = clients.connect(server.url, paths, opened=b'"live"')
    clients.cut()
    return took
