"""Conversations that nobody asked to have kept: they live in memory, and leave nothing behind.

A request without a conversation of its own still is one: a person can watch it, answer its questions and stop it like
any other while it lasts. Its log is one in memory; what its tools put on disk lies in folders that are marked, and goes
with it, or when the next server starts.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from hermes_ws.errors import CommandError
from hermes_ws.store.base import ConversationRef, RuleRow, Store
from hermes_ws.store.directory import EPHEMERAL, is_ephemeral
from hermes_ws.store.memory import MemoryStore

__all__ = ["Ephemerals"]


class _EphemeralStore(MemoryStore):
    """A log in memory where approvals that were given for always, in any conversation, hold as well."""

    def __init__(self, kept: Store) -> None:
        super().__init__()
        self._kept = kept

    async def always_rules(self, namespace: str, principal: str, agent: str | None) -> list[RuleRow]:
        own = await super().always_rules(namespace, principal, agent)
        return [*own, *await self._kept.always_rules(namespace, principal, agent)]


class Ephemerals:
    """Which conversations are of this kind, and their log."""

    def __init__(self, kept: Store) -> None:
        self.store = _EphemeralStore(kept)
        self._kept = kept
        self._there: set[ConversationRef] = set()

    @contextmanager
    def begun(self, ref: ConversationRef) -> Generator[None]:
        """There is one of this name from here on, until it is deleted; or none, if what comes with this fails."""
        assert is_ephemeral(ref)
        self._there.add(ref)
        try:
            yield
        except BaseException:
            self._there.discard(ref)
            raise

    def __len__(self) -> int:
        return len(self._there)

    def check(self, ref: ConversationRef) -> None:
        """Raises :class:`CommandError` ``not_found`` for one that is over: its name is never used again."""
        if is_ephemeral(ref) and ref not in self._there:
            message = f"{ref.conversation_id!r} is over; ids that begin with {EPHEMERAL} are the server's to give"
            raise CommandError("not_found", message)

    def store_of(self, ref: ConversationRef) -> Store:
        """The log that a conversation is in."""
        return self.store if is_ephemeral(ref) else self._kept

    async def over(self, ref: ConversationRef) -> None:
        """It was deleted."""
        if ref in self._there:
            self._there.discard(ref)
            await self.store.purge()
