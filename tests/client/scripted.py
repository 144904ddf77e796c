"""A server that says what a test tells it to: what the real one never does, or does once a year."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

__all__ = ["Act", "hello", "message", "scripted"]

Json = dict[str, Any]
Act = Callable[[ServerConnection], Awaitable[None]]

ZERO = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def hello(mode: str = "replay", *, first: int = 1, to: int = 0, epoch: str = "ep_1", **more: Any) -> Json:
    resume = {"mode": mode, "from": first, "to": to} | more
    return {
        "type": "hello",
        "protocol": "hermes.v1",
        "server": {"name": "scripted", "version": "0", "instance": "1"},
        "conversation_id": "c",
        "epoch": epoch,
        "head": to,
        "floor": 1,
        "principal": "owner",
        "role": "driver",
        "limits": {},
        "resume": resume,
        "schema": {"url": "/", "sha256": ""},
        "hint": "",
    }


def message(seq: int) -> Json:
    return {"type": "message.delta", "seq": seq, "ts": 1, "run_id": "r", "item_id": "m", "delta": f"{seq} "}


@asynccontextmanager
async def scripted(*acts: Act) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that plays one act for each connection, the last one again and again. Its URL; the paths asked for."""
    asked: list[str] = []

    async def play(connection: ServerConnection) -> None:
        assert connection.request is not None
        asked.append(connection.request.path)
        await acts[min(len(asked), len(acts)) - 1](connection)

    async with serve(play, "127.0.0.1", 0, subprotocols=[Subprotocol("hermes.v1")], compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}", asked


def saying(*frames: Json, close: int | None = None) -> Act:
    """Send these; then close with a code, or stay silent."""

    async def act(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(json.dumps(frame))
        if close is not None:
            await connection.close(close, "as scripted")
        else:
            await asyncio.wait_for(connection.wait_closed(), 20)

    return act
