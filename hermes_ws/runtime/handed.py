"""Calls that were handed over: which conversations wait for what a client's functions come to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from hermes_ws.runtime.conversation import Conversation

__all__ = ["Handed"]


class Handed:
    """An index of what waits, by the call's id."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[Conversation]] = {}

    @contextmanager
    def waiting(self, conversation: Conversation, call_id: str) -> Generator[None]:
        """The conversation waits for this call meanwhile."""
        key = (conversation.ref.namespace, call_id)
        self._waiting.setdefault(key, []).append(conversation)
        try:
            yield
        finally:
            self._waiting[key].remove(conversation)
            if not self._waiting[key]:
                del self._waiting[key]

    def of(self, namespace: str, call_id: str) -> list[Conversation]:
        """Who waits for a call of this id."""
        return list(self._waiting.get((namespace, call_id), ()))
