"""A socket as texts in and texts out, for protocols that are not ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
import structlog

__all__ = ["ReceiveText", "SendText", "serve_texts"]

log = structlog.get_logger("hermes_ws.websocket")

ReceiveText = Callable[[], Awaitable[str | None]]
"""The next text; None when the client has gone."""
SendText = Callable[[str], Awaitable[None]]


async def serve_texts(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    serve: Callable[[ReceiveText, SendText], Awaitable[None]],
    *,
    stall_s: float,
) -> None:
    """Serve an accepted socket until ``serve`` returns. A client that takes nothing for ``stall_s`` has gone."""
    gone = anyio.Event()

    async def receive_text() -> str | None:
        if gone.is_set():
            return None
        message = await receive()
        if message["type"] != "websocket.receive":
            gone.set()
            return None
        text: str | None = message.get("text")
        return text if text is not None else (message.get("bytes") or b"").decode("utf-8", "replace")

    async def send_text(text: str) -> None:
        if gone.is_set():
            return
        with anyio.move_on_after(stall_s) as patience:
            try:
                await send({"type": "websocket.send", "text": text})
            except OSError:  # how servers say that the other end has closed
                gone.set()
        if patience.cancelled_caught:
            log.info("socket.stalled")
            gone.set()

    await serve(receive_text, send_text)
    if not gone.is_set():
        await send({"type": "websocket.close", "code": 1000})
