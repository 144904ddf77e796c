"""uvicorn's WebSocket protocol, with a way to write ready-made frames.

uvicorn's Sans-I/O protocol does the handshake, pings, closing and reading. What it lacks for a server of this kind is
a write that does not encode: events are encoded once, as whole frames, and joined for readers that are behind. This
subclass offers that to the app as the ASGI extension :data:`EXTENSION`, with the transport's flow control beside it.
Incoming text it hands over as bytes, so that what is not UTF-8 becomes an error frame instead of a dead socket.

Where some other server hosts the app the extension is not there, and plain ``websocket.send`` takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Close, Frame, Opcode

from hermes_ws.protocol.close import CloseCode
from hermes_ws.transports.raw import raw_answer

__all__ = ["EXTENSION", "LINGER_S", "FrameConnection", "FrameProtocol"]

EXTENSION: Final = "hermes_ws.frames"
MESSAGE_TOO_BIG: Final = 1009
"""RFC 6455, 7.4.1; what the protocol library closes with by itself."""
PROTOCOL_ERROR: Final = 1002
LINGER_S: Final = 2.0
"""How long a line that was refused is still read, for its peer to take the answer."""


class FrameProtocol(WebSocketsSansIOProtocol):
    """One connection. ``write_buffer_bytes`` is set by the server that uses it."""

    write_buffer_bytes = 32_768

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._early: bytearray | None = None
        self._failed = False
        self.transport.set_write_buffer_limits(high=self.write_buffer_bytes)
        self.frame_connection = FrameConnection(self)

    def data_received(self, data: bytes) -> None:
        """Frames that come before the handshake is over wait for its end."""
        if self._failed:
            return
        if self._early is not None:
            self._early += data
            return
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None and not self.close_sent:
            self._refuse_handshake()

    def _refuse_handshake(self) -> None:
        """A request that is good HTTP but no handshake: the protocol library would leave it without an answer."""
        message = "that is no WebSocket handshake, or one of its header lines is too long"
        answer = raw_answer(431 if any(self.conn.data_to_send()) else 400, "invalid_frame", message)
        self.handshake_complete = self.close_sent = True
        self.transport.write(answer)
        self.transport.close()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            extensions = cast(dict[str, Any], self.scope.get("extensions"))
            extensions[EXTENSION] = self.frame_connection
            self._early = bytearray()
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        if message["type"].startswith("websocket.http.response") and self.conn.eof_sent:
            self.handshake_complete = self.close_sent = True  # it was told already that the server goes down
            self.transport.close()
            return
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # or uvicorn logs an error for every refusal
        if self.handshake_complete and self._early is not None:
            early, self._early = bytes(self._early), None
            if not self.transport.is_closing():
                if not self.read_paused:
                    self.transport.resume_reading()
                self.data_received(early)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.frame_connection.writable = False

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.read_paused and self.queue.empty() and not self.transport.is_closing():
            self.read_paused = False  # it was paused by handle_ping
            self.transport.resume_reading()
        self.frame_connection.resumed()

    def handle_ping(self) -> None:
        """Answer it; but nobody who does not read the answers is listened to on and on."""
        super().handle_ping()
        if not (self.frame_connection.writable or self.read_paused or self.transport.is_closing()):
            self.read_paused = True
            self.transport.pause_reading()

    def handle_text(self, event: Frame) -> None:
        self.curr_msg_data_type = "text"
        self._begin(event)

    def handle_bytes(self, event: Frame) -> None:
        self.curr_msg_data_type = "bytes"
        self._begin(event)

    def _begin(self, event: Frame) -> None:
        self.frames = [event.data if event.fin else bytearray(event.data)]  # type: ignore[list-item]
        if event.fin:
            self.send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        """Fragments are put together as they come: they may be empty, and as many as one likes."""
        cast(Any, self.frames[0]).extend(event.data)
        if event.fin:
            self.send_receive_event_to_app()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.frame_connection.on_writable = None
        self.frame_connection.writable = False

    def send_receive_event_to_app(self) -> None:
        """Hand a whole message to the app, text as bytes too; what comes after a close is read and forgotten."""
        [data], self.frames = self.frames, []
        if self.close_sent:
            return
        message = {"type": "websocket.receive", "bytes": bytes(data), "is_text": self.curr_msg_data_type == "text"}
        self.queue.put_nowait(cast(Any, message))
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def handle_parser_exception(self) -> None:
        """Close with what the protocol library says of a frame that is none; for one too large with our own code, which
        says not to try it again. What the peer still sends is read for a moment, or the close frame could be lost."""
        close = self.conn.close_sent or Close(PROTOCOL_ERROR, "")
        frames = b"".join(self.conn.data_to_send())
        if close.code == MESSAGE_TOO_BIG:
            close = Close(CloseCode.TOO_LARGE, "a frame larger than limits.frame_bytes_max")
            frames = Frame(Opcode.CLOSE, close.serialize()).serialize(mask=False)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self._failed = self.close_sent = True
        if self.transport.is_closing():
            return
        self.transport.write(frames)
        self.transport.write_eof()
        self.read_paused = False
        self.transport.resume_reading()
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def keepalive_timeout(self) -> None:
        """A ping that waits behind other bytes, or whose answer is not read, says nothing of the peer: it is the
        watchdog that ends one which takes no byte."""
        if self.transport.get_write_buffer_size() or self.read_paused:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()


class FrameConnection:
    """The extension: what the app may do with the connection beside ASGI. It is the sink of a reader.

    ``writable`` says whether the transport takes more; what is sent to one that is closing goes nowhere.
    """

    __slots__ = ("_accepted", "_protocol", "_stalled_at", "_written", "on_writable", "writable")

    def __init__(self, protocol: FrameProtocol) -> None:
        self._protocol = protocol
        self._written = 0
        self._accepted = 0
        self._stalled_at: float | None = None
        self.on_writable: Callable[[], None] | None = None
        self.writable = True

    @property
    def _open(self) -> bool:
        protocol = self._protocol
        return not (protocol.close_sent or protocol.disconnected or protocol.transport.is_closing())

    def resumed(self) -> None:
        """The transport takes more again."""
        self.writable = self._open
        if self.on_writable is not None:
            self.on_writable()

    def send(self, frames: Sequence[bytes], joined: bytes) -> None:
        """Write whole frames, as they are."""
        if self._open:
            self._written += len(joined)
            self._protocol.transport.write(joined)

    async def wait_writable(self) -> None:
        """Wait until the transport takes more, or is gone."""
        await self._protocol.writable.wait()

    def close(self, code: int, reason: str) -> None:
        """Close with a code; if the peer takes no byte, the watchdog ends what is left."""
        protocol = self._protocol
        if self._open:
            protocol.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
            protocol.conn.send_close(code, reason)
            protocol.transport.write(b"".join(protocol.conn.data_to_send()))
            protocol.close_sent = True
            self.writable = False
            if protocol.read_paused:
                protocol.read_paused = False
                protocol.transport.resume_reading()
            protocol.close_timer = protocol.loop.call_later(protocol.close_timeout, protocol.transport.close)

    def is_stalled(self, now: float, limit_s: float) -> bool:
        """Whether the peer has accepted no byte for ``limit_s`` although some wait. Call it now and then."""
        waiting = self._protocol.transport.get_write_buffer_size()
        accepted = self._written - waiting
        if not waiting or accepted > self._accepted:
            self._stalled_at = None
        elif self._stalled_at is None:
            self._stalled_at = now
        self._accepted = accepted
        return self._stalled_at is not None and now - self._stalled_at >= limit_s

    def abort(self) -> None:
        """Drop the connection without a word: a close frame would sit behind the full buffer."""
        self._protocol.transport.abort()
