"""Agents at work, and conversations whose commits failed lately."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import anyio

__all__ = ["RETAKE_FIRST_S", "RETAKE_MAX_S", "Drops", "Work"]

RETAKE_FIRST_S: Final = 1.0
RETAKE_MAX_S: Final = 60.0
"""Waits between tries to go on with the runs of a conversation that could not be read or written."""


@dataclass(slots=True)
class Work:
    """An agent at work, and how to know that it has let go of everything."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Drops:
    """How often commits of a conversation have failed lately, and when the last did."""

    count: int = 0
    at: float = 0.0

    def pause_s(self, uptime: float) -> float:
        """How long to leave its runs alone: a model must not be called again and again for a disk that is full."""
        wait_s = min(RETAKE_FIRST_S * 2.0 ** (self.count - 1), RETAKE_MAX_S)
        return max(0.0, self.at + wait_s - uptime)
