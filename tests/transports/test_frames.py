"""The WebSocket protocol class, where a whole server could not be brought to the point in time for certain."""

from __future__ import annotations

import asyncio

from websockets.server import ServerProtocol

from hermes_ws.transports.frames import FrameProtocol


class Line(asyncio.Transport):
    """A line that knows whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_refusal_that_comes_after_the_server_s_own_goodbye_closes_and_says_nothing() -> None:
    """A server that goes down answers whoever is still on the way in; the refusal may come right after that."""
    protocol = FrameProtocol.__new__(FrameProtocol)
    protocol.conn, protocol.transport = ServerProtocol(), Line()
    protocol.conn.send_eof()
    await protocol.send({"type": "websocket.http.response.start", "status": 503, "headers": []})
    await protocol.send({"type": "websocket.http.response.body", "body": b"{}"})
    assert protocol.transport.closed
    assert protocol.handshake_complete, "so that nobody logs that it was not"
