"""Server-sent events, out of bytes as they come: lines of every kind, cut anywhere, none of them endless."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["EventTooLarge", "Events"]

_BOM: Final = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """One event is larger than it may be."""


class Events:
    """Takes chunks, gives the data of whole events. Lines end with LF, CRLF or CR; comments are passed over, and so are
    other fields than ``data`` and (of llama.cpp's making) ``error``."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._first = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of the events that end in this chunk. Raises :class:`EventTooLarge`."""
        if not chunk:
            return
        whole = chunk.removeprefix(b"\n") if self._after_cr else chunk
        self._after_cr = chunk.endswith(b"\r")
        *ended, rest = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for piece in ended:
            yield from self._end_line(piece)
        self._line += rest
        self._check()

    def flush(self) -> Iterator[bytes]:
        """The data of an event that the end of the stream ends."""
        yield from self._end_line(b"")
        yield from self._end_line(b"")

    def _end_line(self, piece: bytes) -> Iterator[bytes]:
        line = bytes(self._line) + piece
        self._line.clear()
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        if not line:
            if self._data:
                yield b"\n".join(self._data)
            self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        if name in (b"data", b"error"):
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)
            self._check()

    def _check(self) -> None:
        if self._size + len(self._line) > self._max_bytes:
            raise EventTooLarge
