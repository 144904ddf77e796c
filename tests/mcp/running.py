"""The official server as a process of its own, and the HTTP side of asking it what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx2

from tests.mcp.ugly_stdio import STDIO_SWITCHES
from tests.mcp.witness import Json
from tests.wire import wait_for

__all__ = ["ROOT", "OfficialServer", "StdioCommand", "official_stdio", "ours", "recorded", "ugly_stdio"]

ROOT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 15.0
"""How long the process may take to come up or go, or a side route to answer."""


@dataclass(frozen=True, slots=True)
class StdioCommand:
    """What an operator's configuration of a stdio server needs."""

    command: str
    args: list[str]
    env: dict[str, str] = field(default_factory=dict)


def official_stdio(record: Path | None = None) -> StdioCommand:
    """The official server over stdio; what it saw goes into ``record``, one JSON object a line."""
    args = ["-m", "tests.mcp.official", "--stdio"]
    return ours(*args) if record is None else ours(*args, "--record", str(record))


def ours(*args: str, **environment: str) -> StdioCommand:
    """A module of these tests as a program, wherever it is started."""
    return StdioCommand(sys.executable, list(args), {"PYTHONPATH": str(ROOT), **environment})


def ugly_stdio(switch: str, pids: Path | None = None, **environment: str) -> StdioCommand:
    """A misbehaving stdio server. ``pids``: a file that takes the ids of its processes, one a line."""
    assert switch in STDIO_SWITCHES, switch
    return ours("-m", "tests.mcp.ugly_stdio", switch, *([str(pids)] if pids else []), **environment)


class OfficialServer:
    """The official server over HTTP. ``stop`` and ``start`` again: the same port, and everything forgotten."""

    def __init__(self, logs: Path, *, json_response: bool = False, older: bool = False) -> None:
        """``older``: it speaks only what was spoken before 2026, with sessions."""
        self._flags = [*(["--json"] if json_response else []), *(["--older"] if older else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = logs / "official-errors"
        self.port = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where streamable HTTP is."""
        return self.base + "/mcp"

    @property
    def sse_url(self) -> str:
        """Where the old transport is."""
        return self.base + "/sse"

    @property
    def errors(self) -> str:
        """What the process has said on standard error."""
        return self._errors.read_text(errors="replace") if self._errors.exists() else ""

    def start(self) -> Self:
        """Returns when the port takes connections."""
        command = [sys.executable, "-m", "tests.mcp.official", "--port", str(self.port)]
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, *self._flags],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            self.stop()
            raise RuntimeError(f"the official MCP server did not come up: {self.errors}")
        self.port = int(said)
        return self

    def stop(self) -> None:
        """As a crash would: open streams are cut, nothing is said."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(PATIENCE_S)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    # -- the side routes ---------------------------------------------------------------------------------

    def tokens(self, *known: str, **tenants: Json) -> None:
        """Let in exactly these tokens: plain ones, and ``TOKEN={"customers": [...], "extra_tools": [...]}``."""
        self._side("PUT", "/tokens", json={token: {} for token in known} | tenants)

    def tenants(self) -> dict[str, Json]:
        """What every token has: customers, notes, tools of its own."""
        shown: dict[str, Json] = self._side("GET", "/tokens").json()
        return shown

    def seen(self, **wanted: Any) -> list[Json]:
        """What the server saw, oldest first; only entries with these fields (``kind="request"``, ``tool="add"``)."""
        entries: list[Json] = self._side("GET", "/seen").json()
        return [entry for entry in entries if all(entry.get(name) == value for name, value in wanted.items())]

    async def saw(self, **wanted: Any) -> list[Json]:
        """The entries, once there is one."""
        await wait_for(lambda: self.seen(**wanted))
        return self.seen(**wanted)

    def forget_sessions(self) -> None:
        """From now on every session begun until now is answered 404, as after a restart."""
        self._side("POST", "/forget")

    def reset(self) -> None:
        """Nothing seen, nobody let in."""
        self._side("DELETE", "/seen")
        self._side("PUT", "/tokens", json={})

    def _side(self, method: str, path: str, **options: Any) -> httpx2.Response:
        with httpx2.Client(base_url=self.base, trust_env=False, timeout=PATIENCE_S) as http:
            return http.request(method, path, **options).raise_for_status()


def recorded(record: Path) -> list[Json]:
    """What a stdio server wrote into its record."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
