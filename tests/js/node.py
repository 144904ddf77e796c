"""Node and what ``package.json`` asks for: the TypeScript compiler, the AsyncAPI parser, npm's WebSocket.

Where there is no Node the tests are skipped and say what is missing; with ``HERMES_WS_TESTS_REQUIRE_NODE=1`` they fail
instead. Tests that take the fixture ``node_modules`` are marked with :data:`needs_node`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

__all__ = ["JS_CLIENT", "ROOT", "RUN_S", "needs_node", "node_modules", "ready_modules", "run_node", "unavailable"]

ROOT: Final = Path(__file__).parents[2]
JS_CLIENT: Final = ROOT / "examples" / "js-client"
MODULES: Final = ROOT / "node_modules"
INSTALL_S: Final = 300
RUN_S: Final = 100

needs_node: Final = [pytest.mark.node, pytest.mark.timeout(INSTALL_S + RUN_S)]


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """What ``package.json`` asks for, installed: once, whichever worker comes first."""
    return ready_modules()


def ready_modules() -> Path:
    """``node_modules`` with exactly what is pinned in it. Skips the test where there cannot be one."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed")
    MODULES.mkdir(exist_ok=True)
    with (MODULES / ".hermes-ws-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _installed():
            _install()
    return MODULES


def unavailable(why: str) -> None:
    """Skip the test, or fail where Node is required."""
    if os.environ.get("HERMES_WS_TESTS_REQUIRE_NODE") == "1":
        pytest.fail(f"{why}, and HERMES_WS_TESTS_REQUIRE_NODE=1 requires it")
    pytest.skip(why)


def run_node(
    *command: str | Path, stdin: str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of Node's in the repository; ``env`` comes on top of the environment."""
    return subprocess.run(
        command,
        cwd=ROOT,
        input=stdin,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def _installed() -> bool:
    """Whether exactly the versions that ``package.json`` pins are there."""
    wanted: dict[str, str] = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    return all(_version_of(name) == version for name, version in wanted.items())


def _version_of(package: str) -> str | None:
    manifest = MODULES / package / "package.json"
    return json.loads(manifest.read_text())["version"] if manifest.exists() else None


def _install() -> None:
    # Not `npm ci`: it begins by removing node_modules, and with it the lock that others wait for.
    command = ["npm", "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        unavailable(f"npm install did not end within {INSTALL_S} s")
    else:
        if done.returncode or not _installed():
            unavailable(f"npm install failed: {done.stderr[-500:]}")
