"""A child process that cannot outlive its call.

The child leads a session of its own. However the call ends (the child exits, time runs out, somebody stops it), the
whole group is ended, and after it whoever left the group (:mod:`~hermes_ws.tools.leftovers`).

The leader is waited for without being reaped (a pidfd turns readable), and it is reaped last: as long as it is there,
its number is taken, so a signal to the group cannot hit strangers. This, and that pipes are read only when there is
somebody to take what they hold, is why neither asyncio's nor uvloop's own subprocess support is used.
"""

from __future__ import annotations

import codecs
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Literal

import anyio
import anyio.to_thread
import msgspec

from hermes_ws.errors import ToolError
from hermes_ws.tools.leftovers import MARKER, Found, find, is_alive, kill_until_gone, look, send

__all__ = ["Exit", "Report", "Stream", "open_pidfd", "run_process"]

Stream = Literal["stdout", "stderr"]
Report = Callable[[Stream, str], Awaitable[None]]

READ_BYTES: Final = 65_536
BATCH_S: Final = 0.02
"""After a small read, others get this long to follow before the next report."""
DRAIN_S: Final = 0.25
"""Time for the pipes to reach their end by themselves once the child has exited."""
LAST_WORDS_S: Final = 2.0
"""Time for what the pipes still hold to be reported once everything is ended."""
END_LIMIT_S: Final = 5.0
"""Time for killed processes to vanish. One that hangs in the kernel longer is left to it."""
POLL_S: Final = 0.02
"""How often to look where nothing tells of an exit or an end."""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended; a negative ``code`` is the number of the signal that ended it."""

    code: int
    timed_out: bool


async def run_process(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    marked: str,
    timeout_s: float,
    grace_s: Callable[[], float],
    report: Report,
    pass_fds: Sequence[int] = (),
) -> Exit:
    """Run ``argv`` to its end and report what it writes, as it comes.

    ``marked`` is what its processes are found by (:func:`~hermes_ws.tools.leftovers.mark`).
    ``grace_s`` is asked when the child has to be ended: the time between SIGTERM and SIGKILL, 0 for SIGKILL at once.
    Raises ``ToolError`` if it cannot be started. When this returns, raises or is cancelled, no process of the call is
    left; that takes at most ``grace_s`` plus twice ``END_LIMIT_S``.
    """
    child = _start(argv, cwd=cwd, env={**env, MARKER: marked}, marked=marked, pass_fds=pass_fds)
    try:
        return await child.supervise(timeout_s, grace_s, report)
    finally:
        with anyio.CancelScope(shield=True):
            await child.end(grace_s())
            child.close()


def _start(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], marked: str, pass_fds: Sequence[int]) -> _Child:
    try:
        process = subprocess.Popen(  # noqa: S603 (running what the model says is the purpose)
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except UnicodeEncodeError as error:
        raise ToolError("the command cannot be written as UTF-8: it holds half of a surrogate pair") from error
    except OSError as error:
        hint = "; put long text into a file and use that" if error.errno == errno.E2BIG else ""
        raise ToolError(f"the command could not be started: {error.strerror}{hint}") from error
    return _Child(process, marked)


class _Child:
    def __init__(self, process: subprocess.Popen[bytes], marked: str) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._pipes: dict[Stream, IO[bytes]] = {"stdout": process.stdout, "stderr": process.stderr}
        self._pid = process.pid
        self._pidfd = open_pidfd(self._pid)
        self._exited = anyio.Event()
        self._drained = anyio.Event()
        self._open_pipes = len(self._pipes)
        self._ended = False
        self._marked = marked
        itself = look(self._pid)
        self._since = itself.started if itself else 0
        self._known: set[Found] = set()

    async def supervise(self, timeout_s: float, grace_s: Callable[[], float], report: Report) -> Exit:
        timed_out = False
        try:
            async with anyio.create_task_group() as pumps:
                for stream, pipe in self._pipes.items():
                    pumps.start_soon(self._pump, stream, pipe, report)
                timed_out = await self._finish(timeout_s, grace_s)
                pumps.cancel_scope.cancel()
        except ExceptionGroup as failures:
            # Only reporting can fail, and for both pipes alike: the caller gets its own exception back.
            raise failures.exceptions[0] from None
        return Exit(code=self._process.returncode or 0, timed_out=timed_out)

    async def _finish(self, timeout_s: float, grace_s: Callable[[], float]) -> bool:
        """Wait for the exit, end what remains, let the last words be reported. Returns whether time ran out."""
        with anyio.move_on_after(timeout_s) as clock:
            await self._wait()
        timed_out = clock.cancelled_caught
        if not timed_out:
            with anyio.move_on_after(DRAIN_S):
                await self._drained.wait()
        await self.end(grace_s())
        with anyio.move_on_after(LAST_WORDS_S):
            await self._drained.wait()
        return timed_out

    async def _pump(self, stream: Stream, pipe: IO[bytes], report: Report) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while data := await _read(pipe.fileno()):
            if text := decoder.decode(data):
                await report(stream, text)
            if len(data) < READ_BYTES // 4:
                with anyio.move_on_after(BATCH_S):
                    await self._exited.wait()
        if text := decoder.decode(b"", final=True):
            await report(stream, text)
        self._open_pipes -= 1
        if not self._open_pipes:
            self._drained.set()

    async def _wait(self) -> None:
        """Until the child has exited; it is not reaped (but where there is no pidfd)."""
        if self._pidfd is not None:
            await anyio.wait_readable(self._pidfd)
        while self._pidfd is None and self._process.poll() is None:  # noqa: ASYNC110 (nothing tells)
            await anyio.sleep(POLL_S)
        self._exited.set()

    async def end(self, grace_s: float) -> None:
        """End the group and whoever left it, and reap the child. Does nothing the second time."""
        if self._ended:
            return
        # Before anything is signalled: a process that hides is found by its parent, for as long as that one lives.
        found = await anyio.to_thread.run_sync(self._find)
        if grace_s > 0:
            await self._terminate(found, grace_s)
        for process in self._known:
            send(process, signal.SIGKILL)
        self._signal_group(signal.SIGKILL)
        await kill_until_gone(self._find, END_LIMIT_S)
        with anyio.move_on_after(END_LIMIT_S):
            await self._wait()
        self._process.poll()
        self._ended = True

    def _find(self) -> list[Found]:
        found = find(self._marked, self._pid, self._since, self._known)
        self._known.update(found)
        return found

    async def _terminate(self, found: list[Found], grace_s: float) -> None:
        """Ask all of them to go, and wait until they have gone or their time is over."""
        self._signal_group(signal.SIGTERM)
        for process in found:
            if process.session != self._pid:
                send(process, signal.SIGTERM)
        with anyio.move_on_after(grace_s):
            await self._wait()
            while any(map(is_alive, found)):  # noqa: ASYNC110 (nothing tells)
                await anyio.sleep(POLL_S)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def close(self) -> None:
        for pipe in self._pipes.values():
            pipe.close()
        if self._pidfd is not None:
            os.close(self._pidfd)


def open_pidfd(pid: int) -> int | None:
    """A handle that turns readable when the process exits; ``None`` where the system has no such thing."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None


async def _read(fd: int) -> bytes:
    """What the pipe holds, as soon as it holds something; empty at its end."""
    await anyio.wait_readable(fd)
    return os.read(fd, READ_BYTES)
