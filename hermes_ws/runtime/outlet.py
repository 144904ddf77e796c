"""The way out to one client: frames go to its sink until it is closed, and it is known when the last one did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.control import ControlBase, Snapshot
from hermes_ws.runtime.tail import text_frame

__all__ = ["Outlet", "Sink"]


class Sink(Protocol):
    """Where a reader's frames go."""

    @property
    def writable(self) -> bool:
        """Whether more may be sent now. When it becomes true again, ``on_writable`` is called."""
        ...

    on_writable: Callable[[], None] | None

    def send(self, frames: Sequence[bytes], joined: bytes) -> None:
        """Send text frames; ``joined`` is all of them, ready for the wire. Does not wait."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close, after what was sent."""
        ...


class Outlet(ABC):
    """What every reader has in common, whatever it reads."""

    __slots__ = ("_closed", "_sink", "written_at")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._closed = False
        self.written_at = self._uptime()

    @abstractmethod
    def _uptime(self) -> float:
        """Seconds, by a clock that only goes forward."""

    def control(self, frame: ControlBase | Snapshot) -> None:
        """Send a frame that is about the connection, or an answer."""
        self._send([text_frame(encode(frame))])

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the client's socket and stop delivering."""
        if not self._closed:
            self.stop()
            self._sink.close(code, reason)

    def stop(self) -> None:
        """Stop delivering: the client is gone."""
        self._closed = True
        self._sink.on_writable = None

    def _send(self, frames: list[bytes]) -> None:
        if not self._closed:
            self._write(frames, b"".join(frames))

    def _write(self, frames: Sequence[bytes], joined: bytes) -> None:
        self.written_at = self._uptime()
        self._sink.send(frames, joined)
