"""The server from outside: its process, its sockets, its HTTP, as anybody who has only read the protocol sees them.

Nothing here imports the package. Frames are plain JSON; what arrives with a ``seq`` is kept as it came, so that two
readers can be compared byte for byte and numbers counted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

__all__ = [
    "FINALS",
    "Json",
    "Server",
    "Socket",
    "bearer",
    "expect_contiguous",
    "fresh",
    "line",
    "open_interactions",
    "processes_with",
    "resident_kb",
    "soon",
    "terminals",
    "wait_for",
]

Json = dict[str, Any]

FINALS = frozenset({"run.completed", "run.failed", "run.cancelled"})
PATIENCE_S = 15.0
"""How long anything may take before a test gives up."""
MODULE = os.environ.get("HERMES_WS_TESTS_MODULE", "hermes_ws.cli")
"""What is run as the server, unless a test says otherwise."""


def fresh(prefix: str = "c") -> str:
    """A conversation id that nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def bearer(key: str) -> str:
    """The key as a subprotocol."""
    return "hermes.bearer." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


async def wait_for(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Poll what has no event to wait for: files and processes."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def soon(timeout_s: float = PATIENCE_S) -> asyncio.Timeout:
    return asyncio.timeout(timeout_s)


def processes_with(marker: str, program: str = "") -> list[int]:
    """Processes of ``program`` whose command line has ``marker``, zombies left out."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (process / "stat").read_text().rpartition(") ")[2][:1]
            if line.startswith(program) and marker in line and state != "Z":
                found.append(int(process.name))
    return found


def resident_kb(pid: int) -> int:
    """Memory of a process, KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


# -- the log ---------------------------------------------------------------------------------------------


def expect_contiguous(frames: Iterable[Json], *, after: int = 0) -> int:
    """Every number after ``after`` once, as an event or in a skipped range. Returns the last one."""
    for frame in frames:
        first, last = (frame["from"], frame["to"]) if frame["type"] == "skipped" else (frame["seq"], frame["seq"])
        assert first == after + 1, f"after {after} came {frame}"
        assert last >= first, frame
        after = last
    return after


def terminals(events: Iterable[Json]) -> dict[str, int]:
    """How many terminal events each run, item, tool call and interaction got. Fails on one that was not opened."""
    counts: dict[str, int] = {}
    for event in events:
        match event["type"]:
            case "run.queued" | "run.started":
                counts.setdefault(event["run_id"], 0)
            case "message.started" | "reasoning.delta":
                counts.setdefault(event["item_id"], 0)
            case "tool.started":
                counts.setdefault(event["call_id"], 0)
            case "interaction.requested":
                counts.setdefault(event["interaction_id"], 0)
            case "run.completed" | "run.failed" | "run.cancelled":
                counts[event["run_id"]] += 1
            case "message.completed" | "reasoning.available" | "item.discarded":
                counts[event["item_id"]] += 1
            case "tool.completed":
                counts[event["call_id"]] += 1
            case "interaction.resolved":
                counts[event["interaction_id"]] += 1
    return counts


def open_interactions(events: Iterable[Json]) -> list[Json]:
    """Interactions that were requested and not resolved."""
    found: dict[str, Json] = {}
    for event in events:
        if event["type"] == "interaction.requested":
            found[event["interaction_id"]] = event
        elif event["type"] == "interaction.resolved":
            found.pop(event["interaction_id"], None)
    return list(found.values())


# -- the process -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Server:
    """A server process. ``start`` waits until it takes connections."""

    data: Path
    url: str
    key: str
    process: subprocess.Popen[bytes]
    logs: Path

    @classmethod
    def start(
        cls,
        data: Path,
        *arguments: str,
        settings: str | None = None,
        environment: dict[str, str] | None = None,
        key: str | None = None,
        file_limit_bytes: int | None = None,
        descriptors: int | None = None,
        module: str | None = None,
    ) -> Self:
        """``settings`` is a TOML file's text; ``environment`` is added to a clean one; no file may grow beyond
        ``file_limit_bytes``, as if the disk were full, and no more than ``descriptors`` be open. ``module``: run
        instead of the command line."""
        data.mkdir(parents=True, exist_ok=True)
        given = ["--data", str(data), "--port", "0", *arguments]
        if settings is not None:
            file = data / "settings.toml"
            file.write_text(settings)
            given += ["--config", str(file)]
        limits = {"fsize": file_limit_bytes, "nofile": descriptors}
        given_limits = [f"--{name}={most}:{most}" for name, most in limits.items() if most is not None]
        wrapper = ["prlimit", *given_limits] if given_limits else []
        command = [*wrapper, sys.executable, "-m", module or MODULE, "serve", *given]
        return cls._launch(data, command, clean_environment() | (environment or {}), key)

    @classmethod
    def _launch(cls, data: Path, command: list[str], environment: dict[str, str], key: str | None) -> Self:
        logs = data / f"log-{uuid.uuid4().hex[:8]}"
        logs.mkdir()
        process = cls._spawn(command, environment, logs)
        try:
            url = _ready(process, logs)
        except BaseException:
            process.kill()
            process.wait()
            raise
        kept = data / "hermes-ws.key"
        key = key or (kept.read_text().strip() if kept.exists() else "")
        return cls(data, url, key, process, logs)

    @staticmethod
    def _spawn(command: list[str], environment: dict[str, str], logs: Path) -> subprocess.Popen[bytes]:
        out: IO[bytes]
        err: IO[bytes]
        with (logs / "out").open("wb") as out, (logs / "err").open("wb") as err:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def ws(self) -> str:
        return "ws" + self.url.removeprefix("http")

    @property
    def output(self) -> str:
        return (self.logs / "out").read_text()

    @property
    def errors(self) -> str:
        return (self.logs / "err").read_text()

    def kill(self) -> None:
        """As a power cut would, but for the disk."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def exited(self) -> int:
        await wait_for(lambda: self.process.poll() is not None)
        return int(self.process.returncode)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)

    def http(self, *, key: str | None = None, headers: dict[str, str] | None = None) -> httpx2.AsyncClient:
        """A client with the key; ``key=""`` sends none."""
        key = self.key if key is None else key
        credentials = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.AsyncClient(
            base_url=self.url, headers=credentials | (headers or {}), timeout=PATIENCE_S, trust_env=False
        )

    async def get(self, path: str, **params: Any) -> Json:
        async with self.http() as http:
            answer = await http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    async def post(self, conversation_id: str, command: Json) -> Json:
        """A command over HTTP; its ``ok`` or ``error``."""
        async with self.http() as http:
            body: Json = (await http.post(f"/api/conversations/{conversation_id}/commands", json=command)).json()
        return body

    async def log(self, conversation_id: str) -> list[Json]:
        """The whole log, over HTTP; contiguous."""
        events: list[Json] = []
        after = 0
        async with self.http() as http:
            while True:
                answer = await http.get(f"/api/conversations/{conversation_id}/events", params={"after": after})
                page = answer.json()
                events += page["events"]
                after = page["next"]
                if page["at_head"]:
                    break
        assert expect_contiguous(events) == after
        return events

    @asynccontextmanager
    async def socket(
        self,
        conversation_id: str | None = "new",
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        subprotocols: list[str] | None = None,
        **query: Any,
    ) -> AsyncIterator[Socket]:
        """A socket, with the key in a header unless ``key=""``; ``query`` are its parameters, ``from_`` is ``from``.
        Without a conversation it is the inbox."""
        key = self.key if key is None else key
        credentials = {"Authorization": f"Bearer {key}"} if key else {}
        pairs = "&".join(f"{name.rstrip('_')}={value}" for name, value in query.items())
        async with connect(
            f"{self.ws}/ws{'' if conversation_id is None else f'/{conversation_id}'}?{pairs}",
            additional_headers=credentials | (headers or {}),
            subprotocols=subprotocols,  # type: ignore[arg-type]
            compression=None,
            max_size=None,
            max_queue=None,
            proxy=None,
            open_timeout=PATIENCE_S,
            close_timeout=0.5,
            ping_interval=None,
        ) as connection:
            yield Socket(connection)


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of ours in it; what is for the tests stays."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HERMES_WS_", "API_SERVER_", "PYTEST")) or name.startswith("HERMES_WS_TESTS_")
    }


def _ready(process: subprocess.Popen[bytes], logs: Path) -> str:
    """Wait for the welcome; return the URL in it."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        said = (logs / "out").read_text()
        if "Ctrl+C" in said:
            return said.partition("listening on ")[2].split()[0]
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"the server did not come up: {(logs / 'out').read_text()}{(logs / 'err').read_text()}")


# -- the socket ------------------------------------------------------------------------------------------


class Socket:
    """One connection. ``raw`` has every frame as it came, ``log`` those that count (events and ``skipped``)."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.raw: list[str] = []
        self.log: list[Json] = []
        self._answers: dict[str, Json] = {}

    async def send(self, frame: Json | str | bytes) -> None:
        """``bytes`` go as a binary frame."""
        await self.connection.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def send_text_bytes(self, data: bytes) -> None:
        """A text frame that need not be UTF-8."""
        await self.connection.send(data, text=True)

    async def recv(self, timeout_s: float = PATIENCE_S) -> Json:
        async with asyncio.timeout(timeout_s):
            text = await self.connection.recv()
        assert isinstance(text, str)
        frame: Json = json.loads(text)
        self.raw.append(text)
        if "seq" in frame or frame["type"] == "skipped":
            self.log.append(frame)
        return frame

    async def recv_line(self, timeout_s: float = PATIENCE_S) -> str:
        """For ``plain=1``."""
        async with asyncio.timeout(timeout_s):
            text = await self.connection.recv()
        assert isinstance(text, str)
        return text

    async def until(self, type_: str, timeout_s: float = PATIENCE_S, **fields: Any) -> Json:
        """Receive up to a frame of this type with these fields."""
        async with asyncio.timeout(timeout_s):
            while True:
                frame = await self.recv(timeout_s)
                if frame["type"] == type_ and all(frame.get(name) == value for name, value in fields.items()):
                    return frame

    async def until_final(self, run_id: str | None = None, timeout_s: float = PATIENCE_S) -> Json:
        """Receive up to the end of a run."""
        async with asyncio.timeout(timeout_s):
            while True:
                frame = await self.recv(timeout_s)
                if frame["type"] in FINALS and run_id in (None, frame["run_id"]):
                    return frame

    async def until_seq(self, seq: int, timeout_s: float = PATIENCE_S) -> None:
        async with asyncio.timeout(timeout_s):
            while not self.log or self.reached < seq:
                await self.recv(timeout_s)

    @property
    def reached(self) -> int:
        last = self.log[-1]
        return int(last["to"] if last["type"] == "skipped" else last["seq"])

    async def greeted(self) -> Json:
        """Receive ``hello`` and what was asked for, up to ``live``. Returns ``hello``."""
        hello = await self.recv()
        assert hello["type"] == "hello", hello
        await self.until("live")
        return hello

    async def command(self, type_: str, timeout_s: float = PATIENCE_S, **fields: Any) -> Json:
        """Send a command, with an id unless ``id`` is given; return its ``ok`` or ``error``."""
        frame = {"type": type_, "id": str(uuid.uuid4()), **fields}
        await self.send(frame)
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await self.recv(timeout_s)
                if answer["type"] in ("ok", "error") and answer["id"] == frame["id"]:
                    return answer

    async def ok(self, type_: str, **fields: Any) -> Json:
        answer = await self.command(type_, **fields)
        assert answer["type"] == "ok", answer
        return answer

    async def error(self, type_: str, **fields: Any) -> Json:
        answer = await self.command(type_, **fields)
        assert answer["type"] == "error", answer
        return answer

    async def run(self, script: str | list[Json], **fields: Any) -> Json:
        """Start a run and receive up to its end. Returns the final."""
        started = await self.ok("run.start", input=script, **fields)
        for event in self.log:
            if event["type"] in FINALS and event["run_id"] == started["run_id"]:
                return event
        return await self.until_final(started["run_id"])

    async def asked(self, timeout_s: float = PATIENCE_S) -> Json:
        """The oldest open interaction; receives up to one."""
        async with asyncio.timeout(timeout_s):
            while not (found := open_interactions(self.log)):
                await self.recv(timeout_s)
        return found[0]

    async def reply(self, asked: Json, answer: Any = None, **fields: Any) -> Json:
        """Answer a question, or an approval by ``option=``, and receive up to its resolution."""
        if answer is not None:
            fields["answers"] = {asked["questions"][0]["id"]: answer}
        ok = await self.ok("interaction.reply", interaction_id=asked["interaction_id"], **fields)
        await self.until_seq(ok["at"])
        [resolved] = [e for e in self.of("interaction.resolved") if e["interaction_id"] == asked["interaction_id"]]
        return resolved

    async def closed(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Receive until the server closes; return its code and reason."""
        with suppress(ConnectionClosed):
            async with asyncio.timeout(timeout_s):
                while True:
                    await self.recv(timeout_s)
        assert self.connection.close_code not in (None, 1006), "the line was dropped without a close frame"
        return self.connection.close_code or 0, self.connection.close_reason or ""

    def abort(self) -> None:
        """Cut the line, without a close frame."""
        self.connection.transport.abort()

    def of(self, type_: str) -> list[Json]:
        """The events of a type so far."""
        return [event for event in self.log if event["type"] == type_]

    def counted(self) -> list[str]:
        """Events and ``skipped`` as they came."""
        return [text for text in self.raw if '"seq":' in text[:80] or text.startswith('{"type":"skipped"')]


@asynccontextmanager
async def line(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, byte for byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
