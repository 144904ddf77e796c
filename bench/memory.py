"""Memory: idle sockets, conversations that nobody uses, readers that do not read."""

from __future__ import annotations

import time

from bench.report import Bench, Figure
from bench.servers import Ours, Server, ours, stock
from bench.streaming import stream
from bench.swarm import Swarm, swarm
from bench.work import Work

__all__ = ["KB", "idle", "sockets", "stalled"]

KB = 1024
FILL = Work(events=2_000, text_bytes=4_000, rate=4_000, hold=True)
"""So much that the kernel's buffers are full too."""


def idle(quick: bool = False) -> Bench:
    """What a socket costs on which nothing happens, and what is left of conversations that nobody uses."""
    count = 300 if quick else 1_000
    with swarm() as clients:
        with ours() as server, stock() as plain:
            socket = sockets(server, clients, [server.path("idle")] * count)
            bare = sockets(plain, clients, [plain.path("idle")] * count)
        with ours() as server:
            own = sockets(server, clients, [server.path(f"idle-{n}") for n in range(count)])
        with ours() as server:
            _conversations(server, range(100))
            kept = _conversations(server, range(100, count))
        with ours(conversations__idle_s=0.1) as server:
            _conversations(server, range(4 * count))
            left = _conversations(server, range(4 * count, 8 * count))
    figures = [
        Figure(name="an idle socket", unit="kB", ours=socket, baseline=bare, target=1.3),
        Figure(name="an idle socket on its own conversation", unit="kB", ours=own, baseline=bare),
        Figure(name="an idle conversation in memory", unit="kB", ours=kept),
        Figure(name="an idle conversation that left it", unit="kB", ours=left, target=1, of="value"),
    ]
    return Bench("memory", "bare uvicorn", figures)


def sockets(server: Server, clients: Swarm, paths: list[str], opened: bytes | None = None) -> float:
    """kB a socket. The first hundred pay for what all share."""
    warm, rest = paths[:100], paths[100:]
    clients.connect(server.url, warm, opened=opened or server.opened)
    before = server.rss()
    clients.connect(server.url, rest, opened=opened or server.opened)
    time.sleep(0.5)
    after = server.rss()
    clients.cut()
    return (after - before) / len(rest) / KB


def _conversations(server: Ours, names: range) -> float:
    """kB a conversation that somebody made and left."""
    before = server.rss()
    for n in names:
        server.command(f"idle-{n}", type="conversation.configure", config={"title": "idle"})
    time.sleep(1.3)
    return (server.rss() - before) / len(names) / KB


def stalled(quick: bool = False) -> Bench:
    """Readers that take their handshake and no byte more, while a run streams beside them."""
    few, many = (10, 200) if quick else (10, 1_000)
    work = Work(events=10_000, hold=True)
    grown: dict[int, int] = {}
    speeds: dict[int, float] = {}
    for count in (0, few, many):
        with ours(conversations__delta_bytes=1) as server, swarm() as clients, swarm() as neighbour:
            clients.stall(server.url, [server.path("stalled")] * count)
            before = server.rss()
            stream(server, neighbour, "stalled", 1, FILL)
            speeds[count] = stream(server, neighbour, "stalled", 1, work).per_s
            grown[count] = server.rss() - before
    figures = [
        Figure(name=f"{few} stalled readers", unit="kB", ours=grown[few] / KB, baseline=grown[0] / KB),
        Figure(name=f"{many:,} stalled readers", unit="kB", ours=grown[many] / KB, baseline=grown[0] / KB),
        Figure(
            name="a stalled reader",
            unit="kB",
            ours=(grown[many] - grown[few]) / (many - few) / KB,
            target=128,
            of="value",
        ),
        Figure(name=f"its neighbour's events/s beside {many:,}", unit="/s", ours=speeds[many], baseline=speeds[0]),
    ]
    return Bench("readers that do not read", "without them", figures)
