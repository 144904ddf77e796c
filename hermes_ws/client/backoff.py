"""How long to wait before coming back."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Exponential, with full jitter: a thousand clients that were cut at once do not come back at once."""

    def __init__(self, first_s: float = 0.1, most_s: float = 15.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._attempts = 0

    def reset(self) -> None:
        """The line was good: begin again."""
        self._attempts = 0

    def next(self) -> float:
        """Seconds to wait now."""
        ceiling = min(self._most_s, self._first_s * 2 ** min(self._attempts, 30))
        self._attempts += 1
        return random.uniform(0.0, ceiling)  # noqa: S311 - spreads load, keeps no secret
