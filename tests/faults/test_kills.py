"""The torture in short: a dozen kills at random moments, and every named point once.

``HERMES_WS_TESTS_SEED`` chooses what happens, ``HERMES_WS_TESTS_LONG=1`` makes it longer; ``make torture`` much longer.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.launch import POINTS
from tests.faults.torture import Plan, Torture

SEED = int(os.environ.get("HERMES_WS_TESTS_SEED") or 7)
LONG = os.environ.get("HERMES_WS_TESTS_LONG") == "1"


@pytest.mark.timeout(600 if LONG else 120)
@pytest.mark.parametrize("proxy", [False, True], ids=["straight", "proxy"])
async def test_whatever_moment_kills_the_server_nothing_is_lost(tmp_path: Path, proxy: bool) -> None:
    figures = await Torture(
        Plan(seed=SEED + proxy, data=tmp_path, kills=60 if LONG else 6, conversations=2, proxy=proxy)
    ).run()
    assert figures["commands"] > 10
    assert figures["events"] > 100


@pytest.mark.timeout(600 if LONG else 120)
async def test_whatever_point_kills_the_server_nothing_is_lost(tmp_path: Path) -> None:
    figures = await Torture(Plan(seed=SEED, data=tmp_path, kills=0, conversations=2, points=True)).run()
    reached = {point for point in POINTS if figures[f"at {point}"]}
    assert reached == set(POINTS)
