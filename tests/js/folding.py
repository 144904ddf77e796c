"""A Node process that folds logs with the JavaScript library. ``fold.mjs`` is the other end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.wire import Json

__all__ = ["Folding"]

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
