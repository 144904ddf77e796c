"""A person at a terminal: a process on a pseudo-terminal, and what is on its screen."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

__all__ = ["CTRL_C", "CTRL_D", "Terminal", "command"]

CTRL_C, CTRL_D = "\x03", "\x04"
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_=>])")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hermes_ws.cli", *arguments]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HERMES_WS_", "API_SERVER_"))}
    return kept | {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONWARNINGS": "error"} | more


class Terminal:
    """``expect`` what comes up, ``type`` what a person would."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._seen = ""
        self._from = 0
        self._news = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def running(cls, arguments: list[str], *, rows: int = 40, columns: int = 100) -> AsyncIterator[Self]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = subprocess.Popen(
            arguments, stdin=slave, stdout=slave, stderr=slave, env=environment(), start_new_session=True
        )
        os.close(slave)
        terminal = cls(process, master)
        loop = asyncio.get_running_loop()
        loop.add_reader(master, terminal._read)
        try:
            yield terminal
        finally:
            loop.remove_reader(master)
            process.kill()
            process.wait()
            os.close(master)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65_536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self._seen += data.decode("utf-8", "replace")
        self._news.set()

    @property
    def text(self) -> str:
        """What was written since the last thing that was expected, without escape sequences."""
        return _SEQUENCE.sub("", self._seen).replace("\r", "")[self._from :]

    async def expect(self, wanted: str, timeout_s: float = 10.0) -> str:
        """Wait for this text; what came before it. The next search begins after it."""
        try:
            async with asyncio.timeout(timeout_s):
                while wanted not in (text := self.text):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {wanted!r} in {self.text!r}") from None
        before, found, _ = text.partition(wanted)
        self._from += len(before + found)
        return before

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def exited(self, timeout_s: float = 10.0) -> int:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.process.poll() is None:
                    await asyncio.sleep(0.02)
        assert self.process.returncode is not None, f"still running: {self.text!r}"
        return self.process.returncode
