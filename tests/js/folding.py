"""The two folds side by side: a Node process with the library's (``fold.mjs`` is the other end), and the server's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from hermes_ws.protocol.codec import decode_event
from hermes_ws.protocol.events import Event
from hermes_ws.state import State
from tests.session.world import view
from tests.wire import Json

__all__ = ["Folding", "assert_same_over_the_window", "events_of", "server_states"]

PROGRAM = Path(__file__).with_name("fold.mjs")


class Folding:
    """One process for many logs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Self]:
        with subprocess.Popen(["node", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield cls(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(10) == 0

    def states(
        self, frames: Sequence[Json], snapshot: Json | None = None, at: Sequence[int] | None = None
    ) -> list[Json]:
        """The states after so many frames each; default: after every one."""
        wanted = list(range(len(frames) + 1)) if at is None else list(at)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"snapshot": snapshot, "frames": list(frames), "at": wanted}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["complaints"] == []
        states: list[Json] = answer["states"]
        return states

    def last(self, frames: Sequence[Json], snapshot: Json | None = None) -> Json:
        """The state after all of them."""
        [state] = self.states(frames, snapshot, [len(frames)])
        return state


def events_of(frames: Iterable[Json]) -> list[Event]:
    """Frames as the server has them."""
    return [decode_event(json.dumps(frame).encode()) for frame in frames]


def server_states(events: Iterable[Event]) -> list[Json]:
    """What the server's fold says after each event, and before the first."""
    state = State("demo")
    found = [view(state)]
    for event in events:
        state.apply(event)
        found.append(view(state))
    return found


def assert_same_over_the_window(state: Json, whole: Json) -> None:
    """The same, but for older items that ``state`` does not have."""
    assert {**state, "items": [], "before": None} == {**whole, "items": [], "before": None}
    assert state["items"] == whole["items"][len(whole["items"]) - len(state["items"]) :]
    assert ("before" in state) == (len(state["items"]) < len(whole["items"]))
