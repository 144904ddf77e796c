"""uvicorn's HTTP protocol with bounds: on a request's head, its time, what waits behind it, and on lines at once.

The parser below it takes heads of any size and waits for ever. Here each of that has a limit from ``[limits]`` and an
answer in our own form. Time is looked at by the server's watch (:meth:`EdgeProtocol.look`), not by a timer per request.
A line that is refused is answered, closed for writing and read for a moment more, so that the answer is not lost to a
peer that is still sending.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hermes_ws.settings import LimitSettings
from hermes_ws.transports.frames import LINGER_S, FrameProtocol
from hermes_ws.transports.raw import raw_answer

__all__ = ["EdgeProtocol", "Stall"]

log = structlog.get_logger("hermes_ws.edge")

PIPELINED: Final = 32
"""Requests of one line that may wait for the answer to an earlier one; after more the line ends with that answer."""
SPARE: Final = 64
"""Lines above ``limits.connections`` that are told so; those above these are closed without a word."""


class Stall:
    """Whether a peer takes nothing of what waits for it, by how much waits each time one looks."""

    __slots__ = ("_since", "_waiting")

    def __init__(self) -> None:
        self._waiting = 0
        self._since = 0.0

    def lasts(self, waiting: int, now: float) -> float:
        """For how long now nothing has been taken."""
        if waiting < self._waiting or not self._waiting:
            self._since = now
        self._waiting = waiting
        return now - self._since


class EdgeProtocol(HttpToolsProtocol):
    """One line that speaks HTTP. Its bounds are set by the server that uses it."""

    limits = LimitSettings()
    """For heads and requests."""
    connections_most = 12_000
    """``limits.connections``, or as many as there are file descriptors for."""
    stall_s = 30.0
    """How long a peer may take nothing of an answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._since: float | None = self.loop.time()
        """Since when we wait for the peer to go on; None while it waits for us."""
        self._in_body = False
        self._parsed = 0
        self._unparsed = 0
        self._progress = False
        self._refusal: bytes | None = None
        self._over = False
        self._linger_until: float | None = None
        self._active: RequestResponseCycle | None = None
        self._stall = Stall()
        above = len(self.connections) - self.connections_most
        if above > min(SPARE, self.connections_most // 8 + 1):
            self._over = True
            self.transport.abort()
        elif above > 0:
            message = "the server has as many connections as it takes; come back a little later"
            self._refuse(raw_answer(503, "overloaded", message, [(b"retry-after", b"1")]))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._active is not None and not self._active.response_complete:
            self._active.disconnected = True
            self._active.message_event.set()

    # -- what comes in ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        parser = self.parser
        if self._over or parser is None:
            return
        self._unset_keepalive_if_required()
        if self._since is None and not self._in_body:
            self._since = self.loop.time()
        self._progress = False
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal or raw_answer(400, "invalid_frame", "that is no HTTP request"))
        else:
            self._unparsed = 0 if self._progress else self._unparsed + len(data)
            if self._unparsed > self.limits.head_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._parsed = 0
        if self._since is None:
            self._since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer after the body."""
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def _count(self, size: int) -> None:
        """Count what was parsed of a head. What is raised here ends the parsing, with ``_refusal`` for an answer."""
        self._parsed += size
        if self._parsed > self.limits.head_bytes:
            self._refusal = self._too_large()
            raise ValueError("the head is too large")

    def _too_large(self) -> bytes:
        message = f"the request line and its headers are at most {self.limits.head_bytes} bytes (limits.head_bytes)"
        return raw_answer(431, "too_large", message)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests at once")
        super().on_headers_complete()
        self._in_body = self._progress = True
        self._since = self.loop.time()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._progress = True
        if not self._answered:
            self._since = self.loop.time()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        self._progress = True
        self._since = None
        if self._answered:  # uvicorn gave the next request its time at the answer, and took it back with the rest
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _upgrade(self, early: bytes) -> None:
        """A request to become something else; of what else there is only sockets are taken."""
        if not self._should_upgrade():
            self.cycle.keep_alive = False  # the parser is at its end with this line
            self._over = True
        elif self._busy:
            self._refuse(None)
        else:
            self.handle_websocket_upgrade()
            protocol = self.transport.get_protocol()
            if early and isinstance(protocol, FrameProtocol):
                protocol.data_received(early)

    # -- what goes out ---------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self._active is not None and not self._active.response_complete

    @property
    def _answered(self) -> bool:
        """Whether the message that comes in has been answered before its end."""
        cycle = cast(RequestResponseCycle | None, self.cycle)
        return cycle is not None and cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if self._over:
            self._linger()
            return
        super().on_response_complete()
        if self._in_body and not self._busy:
            self._since = self.loop.time()  # what is left of the body is read away, for so long and no longer
        if self._since is not None:
            self._unset_keepalive_if_required()

    def _refuse(self, answer: bytes | None) -> None:
        """Take nothing more from this line. ``answer`` is for the request that comes in: what came before it is
        answered first, and if that is not over yet the line ends with it, without ``answer``."""
        log.debug("request.refused", client=self.client)
        self._over = True
        self._since = None
        self.pipeline.clear()
        active = self._active
        if active is not None and self._busy:
            if active is not self.cycle or not self._in_body or active.response_started:
                return
            active.disconnected = True
            active.message_event.set()
        if answer is not None and not (self._in_body and self._answered):
            self.transport.write(answer)
        self._linger()

    def _linger(self) -> None:
        """Say that nothing more is sent, and read on for a moment: closed at once, what was sent could be lost."""
        if not self.transport.is_closing():
            self._linger_until = self.loop.time() + LINGER_S
            self.flow.resume_reading()
            self.transport.write_eof()

    # -- time ------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """End the line if its peer takes too long: for a head, for more of a body, or to take an answer."""
        if self._stall.lasts(self.transport.get_write_buffer_size(), now) >= self.stall_s:
            log.info("response.stalled", client=self.client)
            self.transport.abort()
        elif self._linger_until is not None and now >= self._linger_until:
            self.transport.close()
        elif self._since is not None and self.flow.read_paused:
            self._since = now
        elif self._since is not None and now - self._since >= self.limits.request_s:
            self._too_slow()

    def _too_slow(self) -> None:
        """A line on which nothing was ever asked is closed without a word: browsers open some just in case."""
        if self._in_body or self._parsed or self._unparsed:
            message = f"the request did not come within {self.limits.request_s:g} s (limits.request_s)"
            self._refuse(raw_answer(408, "invalid_frame", message))
        elif not self.transport.is_closing():
            self._over = True
            self.transport.close()
