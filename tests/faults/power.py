"""Power cuts: what of the write-ahead log was synced is learned from the server's own system calls."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.wire import Server, wait_for

__all__ = ["Power", "with_another_boot"]

_BEGUN = re.compile(r"^(?P<thread>\d+) +(?P<name>pwrite64|fsync|fdatasync)\((?:.*?, (?P<size>\d+), (?P<at>\d+))?")
_DONE = re.compile(r"^(?P<thread>\d+) .*\) += \d+$")
"""A call may be told in two lines, when another thread's comes in between."""


class Power:
    """The power supply of one server: :meth:`cut` ends it, and takes from its disk what was never synced."""

    def __init__(self, server: Server, trace: Path) -> None:
        self._server = server
        self._wal = server.data / "hermes-ws.db-wal"
        self._trace = trace
        self._tracer: subprocess.Popen[bytes] | None = None
        self._before = 0

    async def watch(self) -> None:
        """From now on it is known what is synced. The server should be idle; what it wrote before was synced."""
        if shutil.which("strace") is None:
            pytest.skip("needs strace")
        self._before = self._wal.stat().st_size
        calls = "trace=pwrite64,fsync,fdatasync"
        command = ["strace", "-f", "-p", str(self._server.pid), "-P", str(self._wal), "-e", calls, "-s", "0"]
        self._tracer = subprocess.Popen([*command, "-o", str(self._trace)], stderr=subprocess.DEVNULL)
        await wait_for(lambda: self._tracer_is_there() or (self._tracer and self._tracer.poll() is not None))
        if self._tracer.poll() is not None:
            pytest.skip("needs to trace a process")

    def _tracer_is_there(self) -> bool:
        tasks = Path(f"/proc/{self._server.pid}/task").iterdir()
        return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)

    def synced_bytes(self) -> int:
        """How much of the write-ahead log is on the disk for certain."""
        written = synced = self._before
        begun: dict[str, int | None] = {}  # up to where a write goes; None: a sync, of what is written as it begins
        covered: dict[str, int] = {}
        for line in self._trace.read_text().splitlines():
            if call := _BEGUN.match(line):
                thread = call["thread"]
                begun[thread] = int(call["at"]) + int(call["size"]) if call["name"] == "pwrite64" else None
                covered[thread] = written
            if (done := _DONE.match(line)) and done["thread"] in begun:
                upto = begun.pop(done["thread"])
                if upto is None:
                    synced = max(synced, covered[done["thread"]])
                else:
                    written = max(written, upto)
        return synced

    def cut(self, chance: random.Random | None = None) -> tuple[int, int]:
        """The power is gone. Of what was not synced nothing is left, or, by
        chance, some. Returns the bytes that were
        written and those that are left."""
        self._server.kill()
        if self._tracer is not None:
            self._tracer.wait(10)
        written, least = self._wal.stat().st_size, self.synced_bytes()
        assert least <= written
        left = chance.randint(least, (least + written) // 2) if chance is not None else least
        os.truncate(self._wal, left)
        self._wal.with_name("hermes-ws.db-shm").unlink(missing_ok=True)
        return written, left

    def leave(self) -> None:
        """Stop watching."""
        if self._tracer is not None:
            self._tracer.terminate()
            self._tracer.wait(10)


def with_another_boot(witness: Path) -> None:
    """The witness as it may have found its way to the disk: it is of a boot that is over."""
    with witness.open("r+b") as file:
        file.seek(8)
        file.write(b"00000000-0000-0000-0000-000000000000")
