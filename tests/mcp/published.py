"""Published servers: from PyPI into a virtual environment of their own, from npm beside it. Installed once and kept.

Where a registry cannot be reached or there is no Node the tests are skipped and say why; with
``HERMES_WS_TESTS_REQUIRE_PUBLISHED=1``, for npm also ``HERMES_WS_TESTS_REQUIRE_NODE=1``, they fail instead.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.mcp.running import ROOT, StdioCommand

__all__ = ["everything_server", "filesystem_server", "git_server", "memory_server", "sqlite_server", "time_server"]

HOME: Final = ROOT / ".venv" / "published"
PYPI: Final = {
    # One environment each for what cannot live together: the last release of mcp-server-sqlite is from before mcp 2.
    "current": ("mcp-server-time==2026.10.19", "mcp-server-git==2026.10.19"),
    "before-2": ("mcp-server-sqlite==2025.4.25", "mcp<2"),
}
NPM: Final = (
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-memory@2026.8.31",
)
INSTALL_S: Final = 240
"""How long an installation may take."""


def time_server() -> StdioCommand:
    return StdioCommand(str(_pypi("current") / "mcp-server-time"), ["--local-timezone", "UTC"])


def git_server() -> StdioCommand:
    return StdioCommand(str(_pypi("current") / "mcp-server-git"), [])


def sqlite_server(database: Path) -> StdioCommand:
    return StdioCommand(str(_pypi("before-2") / "mcp-server-sqlite"), ["--db-path", str(database)])


def everything_server() -> StdioCommand:
    return _npm("server-everything", "stdio")


def filesystem_server(allowed: Path) -> StdioCommand:
    return _npm("server-filesystem", str(allowed))


def memory_server(file: Path) -> StdioCommand:
    return _npm("server-memory", MEMORY_FILE_PATH=str(file))


def _pypi(name: str) -> Path:
    """The programs of an environment, made if it is not there as it should be."""
    place = HOME / name
    with _once(place, PYPI[name]) as missing:
        if missing:
            _run([sys.executable, "-m", "venv", str(place)], "no virtual environment for published MCP servers")
            pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, *PYPI[name]], "the published MCP servers were not installed from PyPI")
    return place / "bin"


def _npm(package: str, *args: str, **environment: str) -> StdioCommand:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            _unavailable(f"{program} is not installed", node=True)
    place = HOME / "npm"
    with _once(place, NPM) as missing:
        if missing:
            command = ["npm", "install", "--prefix", str(place), "--ignore-scripts", "--no-audit", "--no-fund", *NPM]
            _run(command, "the published MCP servers were not installed from npm", node=True)
    node = shutil.which("node")
    assert node is not None
    script = place / "node_modules" / "@modelcontextprotocol" / package / "dist" / "index.js"
    return StdioCommand(node, [str(script), *args], dict(environment))


@contextmanager
def _once(place: Path, wanted: Sequence[str]) -> Iterator[bool]:
    """Alone, whichever worker comes first: whether ``wanted`` still has to be installed, and a note when it was."""
    place.mkdir(parents=True, exist_ok=True)
    done = place / "installed.json"
    with (place.parent / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = not done.exists() or json.loads(done.read_text()) != list(wanted)
        yield missing
        if missing:
            done.write_text(json.dumps(list(wanted)))


def _run(command: list[str], otherwise: str, *, node: bool = False) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        _unavailable(f"{otherwise} within {INSTALL_S} s", node=node)
    else:
        if done.returncode:
            _unavailable(f"{otherwise}: {done.stderr[-500:]}", node=node)


def _unavailable(why: str, *, node: bool = False) -> None:
    names = ["HERMES_WS_TESTS_REQUIRE_PUBLISHED", *(["HERMES_WS_TESTS_REQUIRE_NODE"] if node else [])]
    for name in names:
        if os.environ.get(name) == "1":
            pytest.fail(f"{why}, and {name}=1 requires it")
    pytest.skip(why)
