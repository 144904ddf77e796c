"""What the clients need that we did not write.

Those for Python come with the ``dev`` extra, but for one that wants other versions of what we use: it has a virtual
environment of its own. Those for Node come from npm by ``node/package.json``. Both are installed once and kept.
Where one is missing its tests are skipped and say why; with ``HERMES_WS_TESTS_REQUIRE_CLIENTS=1`` they fail instead.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.wire import Server, clean_environment

__all__ = ["INSTALL_S", "NODE", "RUN_S", "agents_program", "environment", "need", "node_program", "unavailable"]

NODE: Final = Path(__file__).parent / "node"
AGENTS: Final = Path(__file__).parents[2] / ".venv" / "published" / "openai-agents"
"""Where OpenAI's Agents SDK is installed."""
AGENTS_SDK: Final = "openai-agents[websocket]==0.24.0"
INSTALL_S: Final = 240
"""How long an installation may take."""
RUN_S: Final = 60
"""How long a program of a client's may take."""
_REQUIRED: Final = "HERMES_WS_TESTS_REQUIRE_CLIENTS"


def unavailable(why: str) -> NoReturn:
    """Skip, or fail where clients are required. Of use while a module is imported, too."""
    if os.environ.get(_REQUIRED) == "1":
        pytest.fail(f"{why}, and {_REQUIRED}=1 requires it")
    pytest.skip(why, allow_module_level=True)


def need(*modules: str) -> None:
    """Skip the module that is being imported unless these Python packages are there."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            unavailable(f"{name} is not installed (it comes with the dev extra)")


def node_program() -> str:
    """Node, with what ``node/package.json`` asks for installed: once, whichever worker comes first."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed")
    with _alone(NODE / "node_modules"):
        if not _installed():
            _install()
    return shutil.which("node") or "node"


def agents_program() -> str:
    """Python with OpenAI's Agents SDK."""
    note = AGENTS / "installed"
    with _alone(AGENTS):
        if not note.exists() or note.read_text() != AGENTS_SDK:
            _run([sys.executable, "-m", "venv", str(AGENTS)], AGENTS)
            _run([str(AGENTS / "bin" / "python"), "-m", "pip", "install", "--quiet", AGENTS_SDK], AGENTS)
            note.write_text(AGENTS_SDK)
    return str(AGENTS / "bin" / "python")


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One worker after the other."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".hermes-ws-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _installed() -> bool:
    """Whether exactly the versions that ``package.json`` pins are there."""
    wanted: dict[str, str] = json.loads((NODE / "package.json").read_text())["dependencies"]
    return all(_version(name) == version for name, version in wanted.items())


def _version(package: str) -> str | None:
    manifest = NODE / "node_modules" / package / "package.json"
    return json.loads(manifest.read_text())["version"] if manifest.exists() else None


def _install() -> None:
    # Not `npm ci`: it begins by removing node_modules, and with it the lock that others wait for.
    _run(["npm", "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund"], NODE)
    if not _installed():
        unavailable("npm install did not bring the versions that node/package.json pins")


def _run(command: list[str], place: Path) -> None:
    named = " ".join(command[-3:])
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        unavailable(f"{named} did not end within {INSTALL_S} s")
    if done.returncode:
        unavailable(f"{named} failed: {done.stderr[-500:]}")


def environment(server: Server, **more: str) -> dict[str, str]:
    """A client program's: where the server is, and nothing of anybody's own account."""
    clean = {name: value for name, value in clean_environment().items() if not name.startswith(("OPENAI_", "LLM_"))}
    return clean | {"HERMES_URL": f"{server.url}/v1", "HERMES_KEY": server.key, "NO_PROXY": "*"} | more
