"""What a measured run streams, the same for both stacks, and at what pace.

The event loop's own timers are too coarse for 5,000 events/s, so the beat comes out of a small process of its own, as
a model's answer would.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.events import MessageDelta

__all__ = ["END", "READS", "Work", "event", "text", "texts"]

END: Final = "~END~"
"""In the last text of a run: who sees it has everything."""
READS: Final = "reads"
"""An input that asks how many pages were read from the log since the server began."""
SETTLE_S: Final = 0.1
"""A paced run waits so long at first: its beginning is synced to disk, and belongs to another measurement."""
_IDS: Final = {"run_id": "run_" + "0" * 20, "item_id": "msg_" + "0" * 20}

_METRONOME: Final = """
import os, sys, time
rate, count = float(sys.argv[1]), int(sys.argv[2])
start = time.monotonic()
for n in range(count):
    wait = start + n / rate - time.monotonic()
    if wait > 0:
        time.sleep(wait)
    os.write(1, b".")
"""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One run's task. ``rate`` in events/s; 0 is as fast as it goes, with one turn of the event loop an event."""

    events: int
    rate: float = 0
    stamped: bool = False
    """Each text is the time at which it was said (``time.monotonic_ns``)."""
    text_bytes: int = 13
    """How long each text is; with 13 an event is 150 bytes."""
    hold: bool = False
    """Do not end by yourself: the finals repeat the whole text, and belong to no measurement of deltas."""


def event(seq: int, said: str) -> bytes:
    """An event as this server would send it, for the stack that only sends."""
    return encode(MessageDelta(seq=seq, ts=1_790_000_000_000, delta=said, **_IDS))


def text(work: Work, n: int) -> str:
    """The ``n``-th of a run's texts."""
    if work.stamped:
        return f"@{time.monotonic_ns():016d};" + (END if n == work.events - 1 else "")
    return (END if n == work.events - 1 else f"{n:07d}").ljust(work.text_bytes, ".")


async def texts(work: Work) -> AsyncIterator[str]:
    """What is said, when it is due."""
    if not work.rate:
        for n in range(work.events):
            yield text(work, n)
            await asyncio.sleep(0)
        return
    await asyncio.sleep(SETTLE_S)
    n = 0
    async for due in _beats(work):
        for _ in range(due):
            yield text(work, n)
            n += 1


async def _beats(work: Work) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    command = [sys.executable, "-S", "-E", "-c", _METRONOME, str(work.rate), str(work.events)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as metronome:
        assert metronome.stdout is not None
        pipe, left = metronome.stdout.fileno(), work.events
        ready = asyncio.Event()
        loop.add_reader(pipe, ready.set)
        try:
            while left:
                await ready.wait()
                ready.clear()
                due = len(metronome.stdout.read1(4096))  # type: ignore[attr-defined]
                left -= due
                yield due
        finally:
            loop.remove_reader(pipe)
            metronome.kill()
