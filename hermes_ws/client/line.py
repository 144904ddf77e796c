"""One line: a WebSocket that was opened, and what the server said first.

All the ways in which a line can fail are told apart here, and only here: :class:`Lost` is to be tried again,
:class:`ConnectionRefused` is not.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from hermes_ws.client.failures import ConnectionRefused, Lost
from hermes_ws.client.frames import Violation, read_frame
from hermes_ws.client.target import Target
from hermes_ws.protocol import PROTOCOL
from hermes_ws.protocol.close import may_retry
from hermes_ws.protocol.control import Hello, Snapshot

__all__ = ["FRAME_BYTES", "Line", "judged", "open_line"]

FRAME_BYTES: Final = 33_554_432
"""Largest frame taken from a server; a snapshot is 1 MiB and a few."""
CLOSE_S: Final = 1.0
"""How long to wait for the server's side of a close."""
QUEUE_FRAMES: Final = 64
"""Frames that may wait between socket and reader; with more, the socket is not read."""

_TOO_LARGE: Final = 1009
_PASSING: Final = frozenset({408, 425, 429})
"""HTTP statuses below 500 that are worth another try."""


@dataclass(frozen=True, slots=True)
class Line:
    """A socket and its beginning: ``snapshot`` is there for ``resume.mode`` snapshot."""

    socket: ClientConnection
    hello: Hello
    snapshot: Snapshot | None
    snapshot_data: bytes


async def open_line(target: Target, query: Iterable[tuple[str, str]], *, timeout_s: float) -> Line:
    """Connect, and read ``hello`` and a snapshot. Raises :class:`Lost` or :class:`ConnectionRefused`."""
    with judged():
        async with asyncio.timeout(timeout_s):
            ticket = await target.fresh_ticket()
            pairs = [*query, *([("ticket", ticket)] if ticket else [])]
            socket = await _connect(target.url(pairs), target.headers)
            try:
                return await _begin(socket)
            except BaseException:
                socket.transport.abort()
                raise


async def _connect(url: str, headers: dict[str, str]) -> ClientConnection:
    return await connect_websocket(
        url,
        additional_headers=headers,
        subprotocols=[Subprotocol(PROTOCOL)],
        compression=None,
        proxy=None,
        open_timeout=None,
        close_timeout=CLOSE_S,
        ping_interval=None,
        max_size=FRAME_BYTES,
        max_queue=QUEUE_FRAMES,
    )


async def _begin(socket: ClientConnection) -> Line:
    hello = read_frame(await socket.recv(decode=False))
    if not isinstance(hello, Hello):
        raise Violation("the first frame is no hello: is this a hermes-ws server?")
    if hello.resume.mode != "snapshot":
        return Line(socket, hello, None, b"")
    data = await socket.recv(decode=False)
    snapshot = read_frame(data)
    if not isinstance(snapshot, Snapshot):
        raise Violation("hello said that a snapshot follows, and none did")
    return Line(socket, hello, snapshot, data)


@contextmanager
def judged() -> Generator[None]:
    """Turn whatever a socket can raise into :class:`Lost` or :class:`ConnectionRefused`."""
    try:
        yield
    except ConnectionClosed as closed:
        raise _closed(closed) from closed
    except InvalidStatus as refused:
        raise _status(refused) from refused
    except Violation as violation:
        raise Lost(f"protocol violation: {violation}") from violation
    except TimeoutError as late:
        raise Lost("no answer in time") from late
    except (OSError, EOFError, WebSocketException) as error:
        raise Lost(str(error) or type(error).__name__) from error


def _closed(closed: ConnectionClosed) -> Lost | ConnectionRefused:
    received, sent = closed.rcvd, closed.sent
    if received is None:
        if sent is not None and sent.code == _TOO_LARGE:
            return ConnectionRefused(_TOO_LARGE, f"the server sent a frame of more than {FRAME_BYTES} bytes")
        return Lost("the line was cut")
    if not may_retry(received.code):
        return ConnectionRefused(received.code, received.reason)
    return Lost(f"closed with {received.code} {received.reason}".strip(), answered=True)


def _status(refused: InvalidStatus) -> Lost | ConnectionRefused:
    response = refused.response
    status, after = response.status_code, response.headers.get("Retry-After", "")
    if 400 <= status < 500 and status not in _PASSING:
        return ConnectionRefused(status, _said(response.body))
    wait_s = float(after) if re.fullmatch(r"\d{1,6}", after) else 0.0
    return Lost(f"HTTP status {status}", answered=True, retry_after_s=wait_s)


def _said(body: bytes | bytearray | None) -> str:
    """The message in the JSON body of a refusal."""
    try:
        said: Any = msgspec.json.decode(bytes(body or b""))
    except msgspec.MsgspecError:
        return ""
    match said:
        case {"message": str(message)}:
            return message
        case _:
            return ""
