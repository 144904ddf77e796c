"""The same stack with nothing on it: stock uvicorn, a plain Starlette app, ``await send`` for every event and reader.

No log, no session, no resume. What it sends are the bytes that the other server would send, encoded beforehand.
"""

from __future__ import annotations

import asyncio
import socket

import aiosqlite
import click
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from bench.work import END, Work, event, text, texts

REPLAYED = "~REPLAYED~"
_ROWS = "SELECT data FROM events ORDER BY conversation, seq LIMIT ?"


class Stock:
    """All sockets are readers of one stream."""

    def __init__(self) -> None:
        self.sockets: set[WebSocket] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.sockets.add(websocket)
        try:
            async for _ in websocket.iter_text():
                await websocket.send_text(event(1, END).decode())
        finally:
            self.sockets.discard(websocket)

    async def start(self, request: Request) -> PlainTextResponse:
        """Stream a piece of work to whoever is connected."""
        work = msgspec.json.decode(await request.body(), type=Work)
        task = asyncio.create_task(self._stamped(work) if work.stamped else self._publish(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return PlainTextResponse("ok")

    async def _publish(self, work: Work) -> None:
        ready = [event(n + 1, text(work, n)).decode() for n in range(work.events)]
        n = 0
        async for _ in texts(work):
            for websocket in self.sockets:
                await websocket.send_text(ready[n])
            n += 1

    async def _stamped(self, work: Work) -> None:
        async for said in texts(work):
            encoded = event(1, said).decode()
            for websocket in self.sockets:
                await websocket.send_text(encoded)


async def replay(websocket: WebSocket) -> None:
    """A log's events, fetched at once and sent one by one."""
    await websocket.accept()
    async with aiosqlite.connect(websocket.query_params["file"]) as db:
        for (data,) in await db.execute_fetchall(_ROWS, (int(websocket.query_params["events"]),)):
            await websocket.send_text(data.decode())
    await websocket.send_text(REPLAYED)
    async for _ in websocket.iter_text():
        pass


@click.command()
def main() -> None:
    """Serve on a free port, and print its address."""
    stock = Stock()
    app = Starlette(
        routes=[
            Route("/start", stock.start, methods=["POST"]),
            WebSocketRoute("/replay", replay),
            WebSocketRoute("/{path:path}", stock.serve),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, ws_per_message_deflate=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
