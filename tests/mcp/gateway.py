"""The server between conversations and MCP servers: settings, configurations, and what was called with what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from tests.mcp.witness import Json
from tests.wire import Server, Socket

__all__ = ["AUTO_SETTINGS", "configure", "crm", "outputs", "requests_by", "results", "settled", "status", "told"]

AUTO_SETTINGS: Final = """
[mcp]
allow = ["127.0.0.1"]
retry_s = 0.01
[approvals]
mode = "auto"
"""
"""Servers on this machine may be named; nobody is asked before a call."""


def crm(url: str, token: str | None = None, **fields: Any) -> Json:
    """A patch that names one server, ``crm``, with this bearer token."""
    headers = {"headers": {"Authorization": f"Bearer {token}"}} if token is not None else {}
    return {"mcp_servers": {"crm": {"url": url, **headers, **fields}}}


def results(log: Iterable[Json]) -> list[Json]:
    """The ends of all calls."""
    return [event for event in log if event["type"] == "tool.completed"]


def outputs(log: Iterable[Json]) -> list[str]:
    """What all calls came to, as the model reads it."""
    return [event["output"] for event in results(log)]


def status(log: Iterable[Json], server: str = "crm") -> list[str]:
    """The states of a server, as they were told."""
    return [event["state"] for event in log if event["type"] == "mcp.status" and event["server"] == server]


def told(log: Iterable[Json], type_: str) -> Json:
    """The newest event of a type."""
    return [event for event in log if event["type"] == type_][-1]


def requests_by(entries: Iterable[Json], field: str) -> dict[Any, set[str | None]]:
    """Which ``Authorization`` came with each value of a field of the record (``session``, ``peer_port``)."""
    found: dict[Any, set[str | None]] = defaultdict(set)
    for entry in entries:
        if entry["kind"] == "request" and entry[field] is not None:
            found[entry[field]].add(entry["authorization"])
    return dict(found)


async def settled(server: Server, conversation: str, script: str, **fields: Any) -> list[Json]:
    """Run a script over HTTP alone; the log when the run is over."""
    started = await server.post(conversation, {"type": "run.start", "input": script, **fields})
    assert started["type"] == "ok", started
    async with server.http() as http:
        after, log = 0, list[Json]()
        while not any(event.get("run_id") == started["run_id"] and _ends(event) for event in log):
            query = {"after": after, "wait_ms": 5_000}
            page = (await http.get(f"/api/conversations/{conversation}/events", params=query)).json()
            log += page["events"]
            after = page["next"]
    return log


def _ends(event: Json) -> bool:
    return event["type"] in ("run.completed", "run.failed", "run.cancelled")


async def configure(socket: Socket, patch: Json) -> Json:
    """Configure; the event that says so."""
    ok = await socket.ok("conversation.configure", config=patch)
    await socket.until_seq(ok["at"])
    return told(socket.log, "conversation.configured")
