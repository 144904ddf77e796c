"""The generated files, judged by those who will read them: the TypeScript compiler and the AsyncAPI parser.

Both come from npm, by ``package.json``. Where there is no Node the tests are skipped and say what is missing;
with ``HERMES_WS_TESTS_REQUIRE_NODE=1`` they fail instead.
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

from hermes_ws.protocol.commands import COMMAND_TYPES
from hermes_ws.protocol.control import CONTROL_TYPES
from hermes_ws.protocol.events import EVENT_TYPES

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
MODULES: Final = ROOT / "node_modules"
INSTALL_S: Final = 300
RUN_S: Final = 100

pytestmark = [pytest.mark.node, pytest.mark.timeout(INSTALL_S + RUN_S)]


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """What ``package.json`` asks for, installed: once, whichever worker comes first."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed")
    MODULES.mkdir(exist_ok=True)
    with (MODULES / ".hermes-ws-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed():
            install()
    return MODULES


def unavailable(why: str) -> None:
    if os.environ.get("HERMES_WS_TESTS_REQUIRE_NODE") == "1":
        pytest.fail(f"{why}, and HERMES_WS_TESTS_REQUIRE_NODE=1 requires it")
    pytest.skip(why)


def installed() -> bool:
    """Whether exactly the versions that ``package.json`` pins are there."""
    wanted: dict[str, str] = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    return all(version_of(name) == version for name, version in wanted.items())


def version_of(package: str) -> str | None:
    manifest = MODULES / package / "package.json"
    return json.loads(manifest.read_text())["version"] if manifest.exists() else None


def install() -> None:
    # Not `npm ci`: it begins by removing node_modules, and with it the lock that others wait for.
    command = ["npm", "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        unavailable(f"npm install did not end within {INSTALL_S} s")
    else:
        if done.returncode or not installed():
            unavailable(f"npm install failed: {done.stderr[-500:]}")


def test_the_declarations_compile_and_narrow_by_type(node_modules: Path) -> None:
    compiler = node_modules / ".bin" / "tsc"
    options = ["--strict", "--noEmit", "--exactOptionalPropertyTypes", "--target", "es2022", "--module", "nodenext"]
    files = [ROOT / "schemas" / "frames.d.ts", HERE / "narrowing.ts"]
    done = subprocess.run(
        [compiler, *options, *files], cwd=ROOT, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_asyncapi_parser_has_nothing_to_say(node_modules: Path) -> None:
    document = (ROOT / "schemas" / "asyncapi.json").read_text()
    done = subprocess.run(
        ["node", HERE / "parse_asyncapi.mjs"],
        input=document,
        cwd=node_modules.parent,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=True,
    )
    parsed = json.loads(done.stdout)
    assert parsed["diagnostics"] == []
    assert parsed["channels"] == ["/ws/{conversationId}"]
    assert set(parsed["messages"]) == {*EVENT_TYPES, *CONTROL_TYPES, *COMMAND_TYPES}
    assert sorted(parsed["operations"]) == ["receive", "send"]
    assert set(parsed["security"]) == {"bearer", "subprotocol", "ticket"}


@pytest.mark.parametrize("program", ["node", "npm"])
def test_what_is_missing_is_named_and_may_be_required(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_WS_TESTS_REQUIRE_NODE", "0")
    with pytest.raises(pytest.skip.Exception, match=f"{program} is not installed"):
        unavailable(f"{program} is not installed")
    monkeypatch.setenv("HERMES_WS_TESTS_REQUIRE_NODE", "1")
    with pytest.raises(pytest.fail.Exception, match=f"{program} is not installed, and"):
        unavailable(f"{program} is not installed")
