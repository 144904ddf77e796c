"""The two servers that are compared, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import psutil

from bench.work import READS, Work

__all__ = ["Ours", "Server", "Stock", "ours", "stock"]

_ROOT = Path(__file__).resolve().parent.parent
_CONFIG = '[server]\ndefault_agent = "bench"\n[agents.bench]\nkind = "bench"\n'


class Server:
    """A server process: what it costs, and how it is told to stream."""

    opened = b"\r\n\r\n"
    """In what a socket gets first, when it is ready."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.url = url
        self.process = process

    def cpu_s(self) -> float:
        """CPU used so far: by the scheduler's own books where there are some, which are finer than 10 ms."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        with suppress(OSError):
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def rss(self) -> int:
        return int(self.process.memory_info().rss)

    def path(self, name: str) -> str:
        """Where a reader connects that follows ``name`` from now on."""
        return f"/ws/{name}"

    def start(self, name: str, work: Work) -> None:
        self._post("/start", msgspec.json.encode(work))

    def stop(self, name: str) -> None:
        """End what :meth:`start` began and holds."""

    def _post(self, path: str, body: bytes) -> Any:
        request = urllib.request.Request(self.url + path, data=body, method="POST")
        with urllib.request.urlopen(request) as answer:
            return answer.read()


class Stock(Server):
    """The stack with nothing on it."""


class Ours(Server):
    """``hermes-ws serve``, with the benchmark's agent."""

    opened = b'"type":"live"'

    def __init__(self, url: str, process: psutil.Process, log: Path) -> None:
        super().__init__(url, process)
        self.log = log

    def path(self, name: str) -> str:
        return f"/ws/{name}?from=now"

    def start(self, name: str, work: Work) -> None:
        self.command(name, type="run.start", input=msgspec.json.encode(work).decode())

    def stop(self, name: str) -> None:
        self.command(name, type="run.stop", mode="now")

    def command(self, name: str, **fields: Any) -> dict[str, Any]:
        answer = self._post(f"/api/conversations/{name}/commands", msgspec.json.encode(fields))
        return msgspec.json.decode(answer, type=dict[str, Any])

    def head(self, name: str) -> int:
        """The last number of a conversation."""
        return int(self.command(name, type="ping")["at"])

    def run(self, name: str, work: Work | str) -> int:
        """A whole run, waited for; returns the last number then."""
        text = work if isinstance(work, str) else msgspec.json.encode(work).decode()
        self.command(name, type="run.start", input=text)
        while self.command(name, type="snapshot.get")["snapshot"].get("run"):
            time.sleep(0.01)
        return self.head(name)

    def reads(self) -> int:
        """Pages read from the log so far."""
        self.run(READS, READS)
        snapshot = self.command(READS, type="snapshot.get")["snapshot"]
        return int(snapshot["items"][-1]["text"])


@contextmanager
def stock() -> Iterator[Stock]:
    with _process([sys.executable, "-m", "bench.stock"], {"PYTHONPATH": str(_ROOT)}) as (url, process):
        yield Stock(url, process)


@contextmanager
def ours(data: Path | None = None, **settings: Any) -> Iterator[Ours]:
    """Settings by their dotted names, with ``__`` for the dot: ``conversations__delta_bytes=1``."""
    with TemporaryDirectory(prefix="hermes-ws-bench-") as directory:
        root = Path(directory)
        _install_agent(root)
        config = root / "bench.toml"
        config.write_text(_CONFIG)
        place = data or root / "data"
        environment = {
            "PYTHONPATH": f"{root}{os.pathsep}{_ROOT}",
            **{f"HERMES_WS_{name.replace('__', '_').upper()}": str(value) for name, value in settings.items()},
        }
        command = [sys.executable, "-c", "from hermes_ws.cli import main; main()", "serve", "--no-auth", "--port", "0"]
        with _process([*command, "--data", str(place), "--config", str(config)], environment) as (url, process):
            yield Ours(url, process, next(place.glob("*.db")))


def _install_agent(where: Path) -> None:
    """An entry point, as a package that brings an agent has it."""
    package = where / "hermes_ws_bench-0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: hermes-ws-bench\nVersion: 0\n")
    (package / "entry_points.txt").write_text("[hermes_ws.agents]\nbench = bench.agent:create\n")


@contextmanager
def _process(command: list[str], environment: Mapping[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment}, text=True)
    try:
        assert server.stdout is not None
        url = next((found[1] for line in server.stdout if (found := re.search(r"listening on (http\S+)", line))), None)
        if url is None:
            raise RuntimeError(f"the server did not start: {' '.join(command)}")
        yield url, psutil.Process(server.pid)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        assert server.stdout is not None
        server.stdout.close()
