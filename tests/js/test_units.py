"""What of the JavaScript client needs no server, or one that cannot be had: its own unit tests, run by Node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.js.node import JS_CLIENT, needs_node, run_node

pytestmark = needs_node

UNITS = sorted((JS_CLIENT / "test").glob("*.test.mjs"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit(unit: Path, node_modules: Path) -> None:
    done = run_node("node", "--test", "--test-reporter=spec", unit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\u2139 pass 0\n" not in done.stdout, "nothing was tested"
