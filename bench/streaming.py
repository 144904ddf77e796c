"""Fan-out and latency: what delivering an event costs, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles

import msgspec

from bench.report import Bench, Figure
from bench.servers import Server, ours, stock
from bench.swarm import Swarm, swarm
from bench.work import Work

__all__ = ["MILLION", "Stream", "fanout", "latency", "stream"]

FLAT_OUT = {1: 20_000, 50: 3_000, 500: 400}
"""Readers: events of one run that goes as fast as it can."""
PACED = {1: 5_000, 50: 500, 500: 50}
"""Readers: events per second of a run that does not fill the machine."""
MILLION = 1_000_000


class Stream(msgspec.Struct, frozen=True):
    """What one run came to."""

    wall_s: float
    cpu_s: float
    deliveries: int
    received_bytes: int
    latencies_ns: list[int]

    @property
    def per_s(self) -> float:
        return self.deliveries / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Server CPU per delivered event."""
        return self.cpu_s / self.deliveries * MILLION


def stream(server: Server, clients: Swarm, name: str, readers: int, work: Work) -> Stream:
    """One run to so many readers, from its command to its last delta."""
    clients.connect(server.url, [server.path(name)] * readers, opened=server.opened)
    begun, cpu = time.monotonic_ns(), server.cpu_s()
    server.start(name, work)
    seen = clients.wait()
    cpu = server.cpu_s() - cpu
    server.stop(name)
    clients.cut()
    return Stream(
        wall_s=(seen.finished_ns - begun) / 1e9,
        cpu_s=cpu,
        deliveries=work.events * readers,
        received_bytes=seen.received_bytes,
        latencies_ns=seen.latencies_ns,
    )


def _rounds(servers: Sequence[Server], clients: Swarm, readers: int, work: Work, rounds: int) -> list[list[Stream]]:
    """Every server in turn, so many times; for each server its rounds."""
    name = f"{readers}-{work.events}-{work.rate:.0f}-{work.stamped}"
    streams = [[stream(s, clients, f"{name}-{n}", readers, work) for s in servers] for n in range(rounds)]
    return [list(of_one) for of_one in zip(*streams, strict=True)]


def _middle(streams: Sequence[Stream], figure: Callable[[Stream], float]) -> float:
    return median(figure(one) for one in streams)


def fanout(quick: bool = False, readers: Sequence[int] = (1, 50, 500)) -> Bench:
    """Events delivered and what they cost the server; merging is off, so that every delta is an event."""
    figures: list[Figure] = []
    share, rounds = (4, 1) if quick else (1, 3)
    with ours(conversations__delta_bytes=1) as single, ours() as merging, stock() as plain, swarm() as clients:
        for count in readers:
            work = Work(events=FLAT_OUT[count] // share, hold=True)
            figures += _flat_out(_rounds([single, plain, merging], clients, count, work, rounds), count)
            paced = Work(events=2 * PACED[count] // share, rate=PACED[count], hold=True)
            figures += _paced(_rounds([single, plain], clients, count, paced, rounds), count, PACED[count])
    return Bench("fan-out", "stock", figures)


def _flat_out(measured: list[list[Stream]], readers: int) -> list[Figure]:
    single, plain, merging = measured
    speed, cost = (lambda s: s.per_s), (lambda s: s.cpu_us)
    name = f"{readers} reader{'s' * (readers > 1)}, flat out"
    floor = 0.5 if readers == 1 else None
    return [
        Figure(
            name=f"{name}: events/s",
            unit="/s",
            ours=_middle(single, speed),
            baseline=_middle(plain, speed),
            target=floor,
            at_least=True,
        ),
        Figure(
            name=f"{name}: CPU per event",
            unit="µs",
            ours=_middle(single, cost),
            baseline=_middle(plain, cost),
            target=1.0 if readers > 1 else None,
        ),
        Figure(
            name=f"{name}, merging: deltas/s", unit="/s", ours=_middle(merging, speed), baseline=_middle(plain, speed)
        ),
        Figure(
            name=f"{name}, merging: CPU per delta",
            unit="µs",
            ours=_middle(merging, cost),
            baseline=_middle(plain, cost),
        ),
    ]


def _paced(measured: list[list[Stream]], readers: int, rate: float) -> list[Figure]:
    single, plain = measured
    return [
        Figure(
            name=f"{readers} reader{'s' * (readers > 1)}, {rate:,.0f} events/s: CPU per event",
            unit="µs",
            ours=_middle(single, lambda s: s.cpu_us),
            baseline=_middle(plain, lambda s: s.cpu_us),
            target=1.0 if readers > 1 else None,
        )
    ]


def latency(quick: bool = False) -> Bench:
    """From the agent's ``text`` to the client's socket, durable here and published at once there."""
    rounds, figures = (1 if quick else 3), list[Figure]()
    with ours() as merging, ours(conversations__delta_bytes=1) as single, stock() as plain, swarm() as clients:
        idle = Work(events=100 if quick else 200, rate=100, stamped=True, hold=True)
        busy = Work(events=5_000 if quick else 15_000, rate=5_000, stamped=True, hold=True)
        slow = [_latencies(streams) for streams in _rounds([merging, plain], clients, 2, idle, rounds)]
        figures += _percentiles("100 events/s", slow[0], slow[1])
        fast = [_latencies(streams) for streams in _rounds([merging, plain, single], clients, 2, busy, rounds)]
        figures += _percentiles("5,000 events/s", fast[0], fast[1], p50_within_ms=0.5)
        figures += _percentiles("5,000 events/s, no merging", fast[2], fast[1], p50_within_ms=0.5)
    return Bench("latency to two clients", "publish first", figures)


def _latencies(streams: Sequence[Stream]) -> list[tuple[float, float]]:
    """The 50th and 99th percentile of every round, in ms."""
    found: list[tuple[float, float]] = []
    for one in streams:
        marks = quantiles(one.latencies_ns, n=100)
        found.append((marks[49] / MILLION, marks[98] / MILLION))
    return found


def _percentiles(
    name: str, here: list[tuple[float, float]], there: list[tuple[float, float]], *, p50_within_ms: float | None = None
) -> list[Figure]:
    return [
        Figure(
            name=f"{name}: {percentile}",
            unit="ms",
            ours=median(pair[n] for pair in here),
            baseline=median(pair[n] for pair in there),
            target=p50_within_ms if n == 0 else None,
            of="difference",
        )
        for n, percentile in enumerate(("p50", "p99"))
    ]
