"""What the model calls of one answer have cost.

A call's usage is told with the last tool call that it asks for, or else when its step is over. An answer may end
between the two, and the next one go on from there: each model call counts once, for the answer that it was made in.
"""

from __future__ import annotations

from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import Usage

__all__ = ["Spending"]


class Spending:
    """Feed it the events of a run, in order."""

    def __init__(self) -> None:
        self.total = Usage.zero()
        self._due = False

    def feed(self, event: ev.EventBase, *, counts: bool = True) -> None:
        """Not to be counted are events that only say what is under way."""
        match event:
            case ev.StepStarted():
                self._due = True
            case ev.ToolStarted(usage=Usage() as usage):
                self._add(usage, counts)
            case ev.StepCompleted() if self._due:
                self._add(event.usage, counts)
            case _:
                pass

    def _add(self, usage: Usage, counts: bool) -> None:
        self.total += usage if counts else Usage.zero()
        self._due = False
