"""One request to a server on its way: its clock, which stands still while people are asked, and its progress."""

from __future__ import annotations

import contextvars
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import anyio

from hermes_ws.tools.base import ToolContext

__all__ = ["Exchange", "current"]

_MESSAGE_LENGTH: Final = 500


@dataclass(eq=False)
class Exchange:
    """See the top of the module. ``waiting`` is the scope of whoever waits for the answer, ``asking`` that of the task
    that got it sent."""

    ctx: ToolContext
    waiting: anyio.CancelScope
    progress_every_s: float
    scrub: Callable[[str], str]
    asking: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    questions: int = 0
    _open: int = 0
    _left_s: float = 0.0
    _newest: tuple[float, float | None, str | None] | None = None
    _report_at: float = 0.0
    _reporting: bool = False

    @property
    def timed_out(self) -> bool:
        """Whether its time is over."""
        return anyio.current_time() >= self.waiting.deadline

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        """Meanwhile its time does not run."""
        if not self._open:
            self._left_s = self.waiting.deadline - anyio.current_time()
            self.waiting.deadline = math.inf
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self.waiting.deadline = anyio.current_time() + self._left_s

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        """Pass progress on; reports that come too soon replace each other."""
        if not math.isfinite(progress) or (total is not None and not math.isfinite(total)):
            return
        self._newest = (progress, total, None if message is None else self.scrub(message)[:_MESSAGE_LENGTH])
        if self._reporting:
            return
        self._reporting = True
        try:
            while self._newest is not None and not self.done.is_set():
                await anyio.sleep_until(self._report_at)
                newest, self._newest = self._newest, None
                with suppress(Exception):  # the call is over, or its log is gone: nobody to report to
                    await self.ctx.progress(*newest)
                self._report_at = anyio.current_time() + self.progress_every_s
        finally:
            self._reporting = False


current: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("current", default=None)
"""The exchange that the running task belongs to."""
