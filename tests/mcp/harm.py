"""What a hostile MCP server did to us: one run against it, how it ended, and what the server's health was meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.wire import FINALS, Json, Server, Socket, fresh, open_interactions

__all__ = ["CALL", "CANARY", "SETTINGS", "Pulse", "Report", "at", "descriptors", "disk_kb", "one_run", "use"]

CANARY: Final = "canary-7Qm2xW9rT4vK8sLb3Zp"
"""What every server named by URL is trusted with."""
CALL: Final = "/tool mcp:ugly/tool {}"
"""A run that calls the one tool of the one server."""
BEAT_S: Final = 0.05
TICK_S: Final = 0.01
SETTINGS: Final = """
[mcp]
allow = ["127.0.0.1"]
start_timeout_s = 2.0
close_timeout_s = 1.0
[approvals]
mode = "auto"
"""
"""Servers on this machine may be named and have little time; nobody is asked before a call."""


@dataclass(slots=True)
class Pulse:
    """Pings on a socket of its own, all the time; ``worst_s`` is the longest that one went unanswered.

    Time in which the server, or we, were ready to go on and the machine had no processor to spare does not count.
    """

    pid: int
    worst_s: float = 0.0
    beats: int = 0
    lag_s: float = 0.0

    @classmethod
    @asynccontextmanager
    async def of(cls, server: Server) -> AsyncIterator[Pulse]:
        pulse = cls(server.pid)
        async with server.socket(fresh("pulse")) as socket:
            await socket.ok("ping")
            tasks = [asyncio.create_task(pulse._tick()), asyncio.create_task(pulse._beat(socket))]
            try:
                yield pulse
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task

    async def _beat(self, socket: Socket) -> None:
        while True:
            sent, queued, self.lag_s = time.monotonic(), queued_s(self.pid), 0.0
            try:
                await socket.ok("ping")
            finally:
                waited_s = time.monotonic() - sent - (queued_s(self.pid) - queued) - self.lag_s
                self.worst_s = max(self.worst_s, waited_s)
            self.beats += 1
            await asyncio.sleep(BEAT_S)

    async def _tick(self) -> None:
        """How late we are ourselves: an ugly server is in this process."""
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.lag_s += time.monotonic() - due


def queued_s(pid: int) -> float:
    """How long the process's main thread has waited for a processor so far."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


@dataclass(slots=True)
class Report:
    """One run: its events, its end, and how long it took."""

    events: list[Json]
    final: Json
    took_s: float

    def of(self, type_: str) -> list[Json]:
        """Its events of a type."""
        return [event for event in self.events if event["type"] == type_]

    @property
    def calls(self) -> list[Json]:
        return self.of("tool.completed")

    @property
    def outcome(self) -> str:
        """``ok`` or ``error`` and what the model is told."""
        [call] = self.calls
        return f"{call['status']}: {call['output']}"

    @property
    def status(self) -> Json:
        """The first state of the server that was more than a beginning: what came of the start."""
        return next(event for event in self.of("mcp.status") if event["state"] != "starting")

    @property
    def word(self) -> str:
        """The same, in words: the state, and why."""
        return f"{self.status['state']}: {self.status.get('error') or ''}"


async def use(socket: Socket, **servers: Json) -> None:
    """Configure the conversation's MCP servers."""
    await socket.ok("conversation.configure", config={"mcp_servers": servers})


def at(url: str, timeout_s: float = 5.0, **fields: Any) -> Json:
    """How a conversation names a server by URL, and trusts it with the canary."""
    headers = {"Authorization": f"Bearer {CANARY}"}
    return {"url": url, "headers": headers, "timeout_ms": int(timeout_s * 1000), **fields}


async def one_run(
    server: Server, config: Json, script: str = CALL, *, reply: Json | None = None, deadline_ms: int = 9_000
) -> Report:
    """A run in a conversation of its own that calls the tool of the one server it has. Whatever people are asked is
    answered by ``reply``; a form is declined, a credential not given, unless it says otherwise."""
    async with server.socket(fresh("harm")) as socket:
        await use(socket, ugly=config)
        began = time.monotonic()
        ok = await socket.ok("run.start", input=script, deadline_ms=deadline_ms)
        final = await _to_the_end(socket, ok["run_id"], reply or {"option": "decline"})
        took_s = time.monotonic() - began
        return Report(socket.log, final, took_s)


async def _to_the_end(socket: Socket, run_id: str, reply: Json) -> Json:
    answered: set[str] = set()
    while True:
        for event in socket.log:
            if event["type"] in FINALS and event["run_id"] == run_id:
                return event
        for asked in open_interactions(socket.log):
            if asked["interaction_id"] not in answered:
                answered.add(asked["interaction_id"])
                given = reply if asked["kind"] == "form" else {"answers": {asked["questions"][0]["id"]: ""}}
                await socket.send({"type": "interaction.reply", "interaction_id": asked["interaction_id"], **given})
        await socket.recv()


def disk_kb(data: Path) -> int:
    """The size of all files below."""
    sizes = 0
    for file in data.rglob("*"):
        with suppress(OSError):
            sizes += file.stat().st_size if file.is_file() else 0
    return sizes // 1024


def descriptors(server: Server) -> int:
    """How many the server process has open."""
    return sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir())
