"""Text that waits to become deltas: pieces of one item are merged, and the end of the newest may have to wait."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from hermes_ws.scrub import Scrubber

__all__ = ["Delta", "DeltaKind", "Deltas"]

DeltaKind = Literal["message", "reasoning", "stdout", "stderr"]


@dataclass(slots=True)
class Delta:
    """Text of one item that waits together."""

    kind: DeltaKind
    run_id: str
    call_id: str | None
    chunks: list[str] = field(default_factory=list[str])
    size: int = 0

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.chunks)


class Deltas:
    """What agents and calls of one conversation said and that is no event yet, in order."""

    def __init__(self, *, merge_bytes: int) -> None:
        """``merge_bytes``: pieces of one item are merged up to this size."""
        self._merge_bytes = merge_bytes
        self._waiting: deque[Delta] = deque()
        self.size = 0
        """How much waits, but for what is held back: nothing can be done about that but to say more."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, kind: DeltaKind, run_id: str, text: str, call_id: str | None) -> None:
        """One more piece."""
        last = self._waiting[-1] if self._waiting else None
        same = last is not None and (last.kind, last.run_id, last.call_id) == (kind, run_id, call_id)
        if last is None or not same or last.size >= self._merge_bytes:
            last = Delta(kind, run_id, call_id)
            self._waiting.append(last)
        last.chunks.append(text)
        last.size += len(text)
        self.size += len(text)

    def take(self, scrubber: Scrubber | None = None) -> list[Delta]:
        """All that waits. With ``scrubber``, of the newest item only as much as cannot be the beginning of a secret of
        the conversation's: the rest goes on waiting, for more of it or for :meth:`take` without.

        What a call prints has been through a :class:`~hermes_ws.scrub.Flow` of its own already.
        """
        taken, self.size = list(self._waiting), 0
        self._waiting.clear()
        if scrubber is not None and scrubber.own and taken and taken[-1].kind in ("message", "reasoning"):
            newest, text = taken[-1], taken[-1].text
            cut = len(text) - scrubber.held_back(text)
            newest.chunks = [text[:cut]]
            if text[cut:]:
                self._waiting.append(Delta(newest.kind, newest.run_id, None, [text[cut:]]))
        return taken
