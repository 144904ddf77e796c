"""Small disks that can be filled, and disks that fail: a tmpfs of a few megabytes, and system calls that go wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import pytest

from tests.faults.launch import MODULE
from tests.wire import Server, clean_environment, wait_for

__all__ = ["Disk", "FailingDisk", "small_disk", "start_in_vain"]


def start_in_vain(data: Path, *more: str) -> str:
    """Start a server that must refuse; the one line that it says."""
    done = subprocess.run(
        [sys.executable, "-m", MODULE, "serve", "--port", "0", "--data", str(data), *more],
        env=clean_environment() | {"HERMES_WS_LOG_LEVEL": "error"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("hermes-ws: "), line
    return line


class Disk:
    """A file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    @property
    def data(self) -> Path:
        """A data directory on it."""
        return self.path / "data"

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Write until there is no space left, or only so much."""
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            while self.free_bytes > leave_bytes:
                file.write(b"\0" * min(65_536, self.free_bytes - leave_bytes or 1))

    def free(self) -> None:
        """Give back what :meth:`fill` took."""
        self._filler.unlink()

    def remount(self, how: str) -> None:
        """``ro`` or ``rw``; nobody may have a file open for writing."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True, timeout=10)

    def options(self) -> list[str]:
        """What makes a server keep its data here, but its diagnostics elsewhere."""
        return ["--data", str(self.data)]


@contextmanager
def small_disk(path: Path, megabytes: float = 4) -> Generator[Disk]:
    """A disk at ``path``; skips the test where file systems cannot be mounted."""
    path.mkdir(parents=True, exist_ok=True)
    size = f"size={int(megabytes * 1024)}k"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False, timeout=10).returncode:
        pytest.skip("needs to mount a file system")
    try:
        yield Disk(path)
    finally:
        if subprocess.run(["umount", str(path)], capture_output=True, check=False, timeout=10).returncode:
            subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=10)


class FailingDisk:
    """While inside, the server's system calls on its log fail with an error such as ``EROFS`` or ``EIO``."""

    def __init__(
        self, server: Server, log: Path, error: str, calls: str = "pwrite64,ftruncate,fsync,fdatasync,fallocate"
    ) -> None:
        if shutil.which("strace") is None:
            pytest.skip("needs strace")
        paths = [part for name in (log, log.with_name(log.name + "-wal")) for part in ("-P", str(name))]
        rule = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
        self._command = ["strace", "-f", "-p", str(server.pid), *paths, *rule, "-o", os.devnull]
        self._server = server
        self._tracer: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> FailingDisk:
        self._tracer = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        await wait_for(lambda: self._traced() or self._ended(), 10)
        if self._ended():
            assert self._tracer.stderr is not None
            why = self._tracer.stderr.read().decode()
            self._close()
            pytest.skip(f"needs to trace a process: {why}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if self._server.process.poll() is None:
            await wait_for(lambda: not self._traced(), 10)

    def _close(self) -> None:
        assert self._tracer is not None
        self._tracer.terminate()
        self._tracer.wait(10)
        if self._tracer.stderr is not None:
            self._tracer.stderr.close()

    def _ended(self) -> bool:
        return self._tracer is not None and self._tracer.poll() is not None

    def _traced(self) -> bool:
        """Whether every thread of the server is under the tracer."""
        for task in Path(f"/proc/{self._server.pid}/task").iterdir():
            with suppress(OSError):
                if "TracerPid:\t0\n" in (task / "status").read_text():
                    return False
        return True
