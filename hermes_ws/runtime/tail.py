"""The newest committed events of a conversation, in memory, ready to be written.

An event is kept as the bytes of a whole WebSocket frame. A server's frames are not masked (RFC 6455, 5.1), so one
frame serves every reader; and a reader that is behind gets many of them in one write. Readers at the same place share
the joined bytes too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.control import Skipped
from hermes_ws.store.base import StoredEvent

__all__ = ["Chunk", "Tail", "chunk_of", "page_chunk", "payload_of", "text_frame", "told"]


def text_frame(payload: bytes) -> bytes:
    """``payload`` as one unmasked, unfragmented text frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def payload_of(frame: bytes) -> bytes:
    """What :func:`text_frame` was given."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


@dataclass(slots=True)
class Chunk:
    """What a reader gets in one write. ``to`` is the last number that it accounts for; ``skipped_from`` is where a
    range of filtered numbers begins that is not told yet (it leaves before whatever is written next)."""

    frames: list[bytes]
    joined: bytes
    to: int
    skipped_from: int | None


def chunk_of(
    frames: Iterable[tuple[int, bytes]],
    *,
    after: int,
    exclude: frozenset[str],
    skipped_from: int | None,
    max_bytes: int,
) -> Chunk:
    """As many of the numbered ``frames`` as fit, less those of excluded types, with the gaps told.

    A number that is missing was compacted away: numbers are contiguous by guarantee, so a hole is told as such.
    """
    out: list[bytes] = []
    weight, to = 0, after
    for seq, frame in frames:
        if seq != to + 1:
            out += told(skipped_from, to)
            out += told(to + 1, seq - 1, "compacted")
            skipped_from = None
        if exclude and _type_of(frame) in exclude:
            skipped_from = seq if skipped_from is None else skipped_from
        else:
            out += told(skipped_from, seq - 1)
            skipped_from = None
            out.append(frame)
            weight += len(frame)
        to = seq
        if weight >= max_bytes:
            break
    return Chunk(out, b"".join(out), to, skipped_from)


def _whole(frames: Sequence[bytes], *, after: int, max_bytes: int) -> Chunk:
    """The same for frames that follow ``after`` without a gap, when nothing is filtered."""
    weight = 0
    for count, frame in enumerate(frames, 1):
        weight += len(frame)
        if weight >= max_bytes and count < len(frames):
            frames = frames[:count]
            break
    return Chunk(list(frames), b"".join(frames), after + len(frames), None)


def told(start: int | None, to: int, reason: Literal["filtered", "compacted"] = "filtered") -> list[bytes]:
    """The range of numbers that is not delivered, as a frame; no frame when ``start`` is None."""
    if start is None:
        return []
    return [text_frame(encode(Skipped(from_=start, to=to, reason=reason)))]


def _type_of(frame: bytes) -> str:
    """An event's type, without decoding it: ``type`` is the first field of every frame."""
    start = frame.index(b'"type":"') + 8
    return frame[start : frame.index(b'"', start)].decode()


class Tail:
    """A window over the end of the log, bounded in bytes and shared by all readers of a conversation."""

    def __init__(self, head: int, *, max_bytes: int) -> None:
        self.head = head
        self._max_bytes = max_bytes
        self._frames: list[bytes] = []
        self._bytes = 0
        self._cached: tuple[tuple[object, ...], Chunk] | None = None

    @property
    def first(self) -> int:
        """The first number in the window."""
        return self.head - len(self._frames) + 1

    def extend(self, payloads: Sequence[bytes]) -> None:
        """Events became visible."""
        frames = [text_frame(payload) for payload in payloads]
        self._frames += frames
        self.head += len(frames)
        self._bytes += sum(map(len, frames))
        self._cached = None
        if self._bytes > self._max_bytes:
            self._trim()

    def _trim(self) -> None:
        """Let go of the oldest quarter, so that this is not needed at every event."""
        wanted, count = self._max_bytes * 3 // 4, 0
        while self._bytes > wanted and count < len(self._frames) - 1:
            self._bytes -= len(self._frames[count])
            count += 1
        del self._frames[:count]

    def chunk(
        self, *, after: int, upto: int, exclude: frozenset[str], skipped_from: int | None, max_bytes: int
    ) -> Chunk | None:
        """What follows ``after`` up to ``upto``; None when that is not in the window."""
        if after + 1 < self.first:
            return None
        key = (after, upto, exclude, skipped_from, max_bytes)
        if self._cached is not None and self._cached[0] == key:
            return self._cached[1]
        start = after + 1 - self.first
        frames = self._frames[start : upto + 1 - self.first]
        if not exclude and skipped_from is None:
            chunk = _whole(frames, after=after, max_bytes=max_bytes)
        else:
            chunk = chunk_of(
                enumerate(frames, after + 1),
                after=after,
                exclude=exclude,
                skipped_from=skipped_from,
                max_bytes=max_bytes,
            )
        self._cached = (key, chunk)
        return chunk


def page_chunk(
    events: Sequence[StoredEvent],
    *,
    after: int,
    upto: int,
    exclude: frozenset[str],
    skipped_from: int | None,
    max_bytes: int,
) -> Chunk:
    """The same, for a page that was read from the store."""
    unbroken = bool(events) and events[0].seq == after + 1 and events[-1].seq == after + len(events) <= upto
    if unbroken and not exclude and skipped_from is None:
        return _whole([text_frame(event.data) for event in events], after=after, max_bytes=max_bytes)
    return chunk_of(
        ((event.seq, text_frame(event.data)) for event in events if event.seq <= upto),
        after=after,
        exclude=exclude,
        skipped_from=skipped_from,
        max_bytes=max_bytes,
    )
