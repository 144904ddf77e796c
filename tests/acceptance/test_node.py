"""Clients for Node: each file of ``node/`` is a test program of its own; what it says when it fails is shown."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.clients import INSTALL_S, NODE, RUN_S, environment, node_program, unavailable
from tests.acceptance.people import PIXEL
from tests.wire import Server

pytestmark = [pytest.mark.node, pytest.mark.timeout(INSTALL_S + RUN_S + 20)]

PROGRAMS = sorted(path for path in NODE.glob("*.mjs") if path.name != "shared.mjs")


@pytest.fixture(scope="module")
def node() -> str:
    return node_program()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.stem))
def test_a_client_for_node_finds_what_it_expects(node: str, server: Server, program: Path) -> None:
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", str(program)],
        env=environment(server, HERMES_PIXEL=PIXEL),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    counts = dict(re.findall(r"^# (tests|pass|fail|skipped|cancelled) (\d+)$", done.stdout, re.MULTILINE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(counts["tests"]) >= program.read_text().count("\ntest(") > 0
    assert counts["pass"] == counts["tests"]


def test_what_is_missing_is_named_and_may_be_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_WS_TESTS_REQUIRE_CLIENTS", "0")
    with pytest.raises(pytest.skip.Exception, match="npm is not installed"):
        unavailable("npm is not installed")
    monkeypatch.setenv("HERMES_WS_TESTS_REQUIRE_CLIENTS", "1")
    with pytest.raises(pytest.fail.Exception, match="npm is not installed, and"):
        unavailable("npm is not installed")
