"""Answers of people, and who waits for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hermes_ws.decisions import Answer

__all__ = ["Answers"]


@dataclass(slots=True)
class Answers:
    """Who waits for the answer to which interaction of a conversation.

    ``kept``: answers that came, after a restart, before the one who had asked was there again to take them.
    """

    waiting: dict[str, asyncio.Future[Answer]] = field(default_factory=dict[str, "asyncio.Future[Answer]"])
    kept: dict[str, Answer] = field(default_factory=dict[str, Answer])

    def expect(self, interaction_id: str) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting[interaction_id] = future
        return future

    def deliver(self, answer: Answer) -> None:
        future = self.waiting.pop(answer.resolution.interaction_id, None)
        if future is None:
            self.kept[answer.resolution.interaction_id] = answer
        elif not future.done():
            future.set_result(answer)
