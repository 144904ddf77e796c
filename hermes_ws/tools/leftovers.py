"""Finding and ending every process that belongs to a call.

A process group catches what stays in it. What leaves it (``setsid``, a double fork) still carries the environment it
was started with, so every child gets a marker there, and on Linux ``/proc`` tells who has it. From the marked ones
the rest follows: whoever shares a session with one of them, or descends from one, belongs to the call as well. This
also serves a restarted server, which knows nothing of a call's processes but the call's id.

It is best effort: a process that clears its environment, leaves the session and loses its parent is not found. Where
there is no ``/proc``, nothing is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.to_thread

__all__ = ["MARKER", "Found", "end_marked", "find", "is_alive", "kill_until_gone", "look", "mark", "send"]

MARKER: Final = "HERMES_WS_CALL"
"""Name of the environment variable that carries the call's mark."""

_PROC: Final = Path("/proc")
_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.1


def mark(run_id: str, call_id: str) -> str:
    """What the processes of a call carry. Call ids may come from a model: only with their run's are they unique."""
    return f"{run_id}/{call_id}"


class Found(NamedTuple):
    """A process, told apart by its start time from another that later has its number."""

    pid: int
    parent: int
    session: int
    started: int


def find(
    marked: str, session: int | None = None, since: int = 0, known: Collection[Found] = frozenset()
) -> list[Found]:
    """The living processes of the call with this mark.

    ``since``: none of them started before this (ticks, as in ``Found``). ``known``: processes found earlier, which
    may have lost what they were found by when their parent ended.
    """
    alive = [process for process in _processes() if process.started >= since]
    before = {(process.pid, process.started) for process in known}
    marker = f"{MARKER}={marked}".encode()
    own = {
        process.pid
        for process in alive
        if (process.pid, process.started) in before or process.session == session or _carries(process.pid, marker)
    }
    family = _with_kin(own, alive)
    return [process for process in alive if process.pid in family]


def _with_kin(own: set[int], alive: list[Found]) -> set[int]:
    """``own`` and whoever shares a session with one of them or descends from one.

    A session is either made by the call's first process or by one of its descendants, never joined from outside, so
    this cannot reach a process of somebody else. Our own session is left out all the same, and 0, which stands for
    any session that cannot be seen from here.
    """
    foreign = {0, os.getsid(0)}
    sessions = {process.session for process in alive if process.pid in own} - foreign
    while more := {p.pid for p in alive if p.pid not in own and (p.session in sessions or p.parent in own)}:
        own |= more
        sessions |= {process.session for process in alive if process.pid in more} - foreign
    return own


def _processes() -> Iterator[Found]:
    """All living processes but this one and the first; none where there is no ``/proc``."""
    me = os.getpid()
    with suppress(OSError):
        for name in os.listdir(_PROC):  # noqa: PTH208 (names are all that is needed, by the thousand)
            if name.isdigit() and int(name) not in (1, me) and (process := look(int(name))):
                yield process


def look(pid: int) -> Found | None:
    """What ``/proc`` says of one process; ``None`` if it is gone or only waits to be reaped."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The second field is the name in parentheses and may hold anything, parentheses and blanks included.
    state, parent, _, session, *rest = text[text.rindex(b")") + 2 :].split()
    return None if state in b"ZX" else Found(pid, int(parent), int(session), int(rest[15]))


def _carries(pid: int, marker: bytes) -> bool:
    """Whether the process has this mark; one that ends with a slash stands for all that begin with it."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    if marker.endswith(b"/"):
        return any(entry.startswith(marker) for entry in environment)
    return marker in environment


def is_alive(process: Found) -> bool:
    """Whether it still runs: this one, not another that got its number."""
    now = look(process.pid)
    return now is not None and now.started == process.started


def send(process: Found, number: signal.Signals) -> None:
    """Signal exactly this process: if its number has gone to another in the meantime, nobody gets it."""
    if sys.platform == "linux":
        with suppress(OSError):
            handle = os.pidfd_open(process.pid)
            try:
                if is_alive(process):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


async def kill_until_gone(search: Callable[[], list[Found]], within_s: float) -> int:
    """Kill what ``search`` finds until it finds nothing or time is over; returns how many there were."""
    deadline = anyio.current_time() + within_s
    seen: set[Found] = set()
    pause = _PAUSE_S
    while (found := await anyio.to_thread.run_sync(search)) and anyio.current_time() < deadline:
        for process in found:
            send(process, signal.SIGKILL)
        seen.update(found)
        await anyio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
    return len(seen)


async def end_marked(marked: str, *, within_s: float = 5.0) -> int:
    """Kill whatever a call of an earlier life of this server left behind.

    For recovery, before the run goes on. Returns how many processes there were; gives up after ``within_s``.
    """
    return await kill_until_gone(lambda: find(marked), within_s)
