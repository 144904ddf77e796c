"""Servers that are made to die at a point, and what was seen of them."""

from __future__ import annotations

import json
import signal
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import MakeServer
from tests.faults.launch import CRASH_AT, MODULE
from tests.session.second_fold import fold
from tests.wire import FINALS, Json, Server, Socket, terminals

__all__ = ["AUTO", "Crashing", "command", "died", "finished", "have", "of", "one", "until_dead"]

AUTO: Json = {"type": "conversation.configure", "config": {"approvals": {"mode": "auto"}}}
"""Nobody is asked for permission."""


def command(type_: str, **fields: Any) -> Json:
    """A command with an id."""
    return {"type": type_, "id": uuid.uuid4().hex, **fields}


class Crashing:
    """Starts servers over one data directory that die where they are told to."""

    def __init__(self, make_server: MakeServer, **options: Any) -> None:
        self._make = make_server
        self._options = options
        self._data: Path | None = None

    def start(self, crash_at: str = "") -> Server:
        """A server that takes connections, and will die at ``crash_at``."""
        environment = {**self._options.get("environment", {}), CRASH_AT: crash_at}
        server: Server = self._make(data=self._data, module=MODULE, **{**self._options, "environment": environment})
        self._data = server.data
        return server

    def start_in(self, data: Path, crash_at: str = "") -> Server:
        """The same, over another directory, which need not be there yet."""
        self._data = data
        return self.start(crash_at)

    def dies_starting(self, crash_at: str) -> None:
        """It dies before it could say that it takes connections."""
        with pytest.raises(RuntimeError, match="did not come up"):
            self.start(crash_at)

    def changed(self, **options: Any) -> Crashing:
        """Over the same directory, started in another way."""
        other = Crashing(self._make, **options)
        other._data = self._data
        return other


async def died(server: Server) -> None:
    """By its own hand."""
    assert await server.exited() == -signal.SIGKILL, server.errors


async def until_dead(server: Server, conversation: str, *frames: Json, answer: Json | None = None) -> list[str]:
    """Send ``frames`` and follow until the server is dead; every event that was seen, as it came. ``answer`` are the
    fields of a reply to every question that comes up."""
    seen: list[str] = []
    with suppress(ConnectionClosed, OSError):
        async with server.socket(conversation, after=0) as socket:
            for frame in frames:
                await socket.send(frame)
            while True:
                frame = await socket.recv()
                if "seq" in frame:
                    seen.append(socket.raw[-1])
                if frame["type"] == "interaction.requested" and answer is not None:
                    await socket.send(command("interaction.reply", interaction_id=frame["interaction_id"], **answer))
    await died(server)
    return seen


async def have(socket: Socket, type_: str, **fields: Any) -> Json:
    """The first such event, received or to come."""
    found = of(socket.log, type_, **fields)
    return found[0] if found else await socket.until(type_, **fields)


async def finished(server: Server, conversation: str, seen: list[str] | None = None) -> list[Json]:
    """The log once the last run has ended: what was seen is in it, the second fold takes it, everything ended once."""
    async with server.socket(conversation, after=0) as socket:
        await socket.greeted()
        while True:
            ok = await socket.ok("snapshot.get")
            await socket.until_seq(ok["at"])
            if ok["snapshot"]["run"] is None and not ok["snapshot"]["queue"]:
                break
            if ok["snapshot"]["run"] is not None:
                await _ended(socket, ok["snapshot"]["run"]["run_id"])
        raws = socket.counted()
    for text in seen or []:
        assert raws[json.loads(text)["seq"] - 1] == text
    log = [json.loads(raw) for raw in raws]
    fold(log)
    assert {name: count for name, count in terminals(log).items() if count != 1} == {}
    assert "Traceback" not in server.errors, server.errors
    return log


async def _ended(socket: Socket, run_id: str) -> None:
    if not any(event["type"] in FINALS and event["run_id"] == run_id for event in socket.log):
        await socket.until_final(run_id)


def of(log: list[Json], type_: str, **fields: Any) -> list[Json]:
    """The events of a type, with these fields."""
    return [e for e in log if e["type"] == type_ and all(e.get(name) == value for name, value in fields.items())]


def one(log: list[Json], type_: str, **fields: Any) -> Json:
    """The only such event."""
    found = of(log, type_, **fields)
    assert len(found) == 1, found
    return found[0]
