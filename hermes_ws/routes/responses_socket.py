"""The Responses API over a WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hermes_ws.routes.context import Api
from hermes_ws.runtime.principal import Caller

__all__ = ["serve"]


async def serve(
    api: Api, caller: Caller, receive: Callable[[], Awaitable[str | None]], send: Callable[[str], Awaitable[None]]
) -> None:
    """Serve a socket until the client has gone."""
    while await receive() is not None:
        await send('{"type":"error","status":501,"error":{"type":"server_error","code":"unsupported","message":"soon"}}')
