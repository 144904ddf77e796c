"""Who follows the log of a conversation without being a reader: requests that are being answered from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["Followers"]


class Followers:
    """How many follow each run, and how many everything."""

    def __init__(self) -> None:
        self._of = Counter[str | None]()

    @contextmanager
    def one(self, run_id: str | None) -> Generator[None]:
        """Somebody follows the run, or everything, meanwhile."""
        self._of[run_id] += 1
        try:
            yield
        finally:
            self._of[run_id] -= 1
            self._of += Counter()  # keeps those that are left

    def of(self, run_id: str | None) -> bool:
        """Whether anybody follows the run; None: whatever it is that is followed."""
        return bool(self._of if run_id is None else self._of[run_id] + self._of[None])
