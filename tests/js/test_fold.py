"""The fold in JavaScript comes to what the server's comes to: whatever happened, wherever it begins.

Logs are made by the real session machine, with hypothesis as people, agents, clocks and disks (tests/session).
``HERMES_WS_TESTS_LONG=1`` makes many more.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from hermes_ws.protocol.events import Event
from tests.faults.watched import LONG
from tests.js.folding import Folding, assert_same_over_the_window, server_states
from tests.js.node import needs_node
from tests.session.test_session_machine import SessionMachine, skipping
from tests.session.world import as_json, fold_state, without_deltas
from tests.wire import Json

EXAMPLES = 2_000 if LONG else 50
WINDOWS = [(1_000_000, 100_000_000), (1, 100_000_000), (3, 100_000_000), (1_000_000, 1), (1_000_000, 700)]
"""``max_items`` and ``max_bytes`` of snapshots."""

pytestmark = needs_node


@pytest.fixture(scope="module")
def folding(node_modules: object) -> Iterator[Folding]:
    with Folding.started() as folding:
        yield folding


def snapshot(events: list[Event], window: tuple[int, int]) -> Json:
    """What the server would say after these."""
    state = fold_state(events, head=len(events)).snapshot(max_items=window[0], max_bytes=window[1])
    said: Json = json.loads(msgspec.json.encode(state))
    return said


def check_everything(folding: Folding, events: list[Event], chance: random.Random) -> None:
    """From the start; without what is folded away; and from snapshots in between, of every size."""
    frames, wanted = [as_json(event) for event in events], server_states(events)
    assert folding.states(frames) == wanted
    compacted = without_deltas(events)
    assert folding.last(skipping(compacted, len(events))) == wanted[-1]
    for cut in sorted({0, len(events), *(chance.randint(0, len(events)) for _ in range(4))}):
        for window in chance.sample(WINDOWS, 2):
            begun = snapshot(events[:cut], window)
            for state, whole in zip(folding.states(frames[cut:], begun), wanted[cut:], strict=True):
                assert_same_over_the_window(state, whole)


def test_any_log_from_any_place(folding: Folding) -> None:
    class Written(SessionMachine):
        """Its log, folded by both when all is over."""

        def teardown(self) -> None:
            self.world.commit()
            check_everything(folding, self.world.events(), random.Random(len(self.world.log)))

    run_state_machine_as_test(
        Written,
        settings=settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)),
    )
