"""What the clients need that we did not write.

Those for Python come with the ``dev`` extra, those for Node from npm by ``node/package.json``, installed once and kept.
Where one is missing its tests are skipped and say why; with ``HERMES_WS_TESTS_REQUIRE_CLIENTS=1`` they fail instead.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.wire import Server, clean_environment

__all__ = ["INSTALL_S", "NODE", "RUN_S", "environment", "need", "node_program", "unavailable"]

NODE: Final = Path(__file__).parent / "node"
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
    modules = NODE / "node_modules"
    modules.mkdir(exist_ok=True)
    with (modules / ".hermes-ws-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _installed():
            _install()
    return shutil.which("node") or "node"


def _installed() -> bool:
    """Whether exactly the versions that ``package.json`` pins are there."""
    wanted: dict[str, str] = json.loads((NODE / "package.json").read_text())["dependencies"]
    return all(_version(name) == version for name, version in wanted.items())


def _version(package: str) -> str | None:
    manifest = NODE / "node_modules" / package / "package.json"
    return json.loads(manifest.read_text())["version"] if manifest.exists() else None


def _install() -> None:
    # Not `npm ci`: it begins by removing node_modules, and with it the lock that others wait for.
    command = ["npm", "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        unavailable(f"npm install did not end within {INSTALL_S} s")
    if done.returncode or not _installed():
        unavailable(f"npm install failed: {done.stderr[-500:]}")


def environment(server: Server, **more: str) -> dict[str, str]:
    """A client program's: where the server is, and nothing of anybody's own account."""
    clean = {name: value for name, value in clean_environment().items() if not name.startswith(("OPENAI_", "LLM_"))}
    return clean | {"HERMES_URL": f"{server.url}/v1", "HERMES_KEY": server.key, "NO_PROXY": "*"} | more
