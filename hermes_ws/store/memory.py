"""A log in memory: the same promises as the one on disk, but for surviving the process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from hermes_ws.errors import LogConflict, StoreError
from hermes_ws.store.base import (
    Append,
    CommandRow,
    ConversationLine,
    ConversationPage,
    ConversationRef,
    InteractionRow,
    Loaded,
    RuleRow,
    RunRow,
    StoredEvent,
)
from hermes_ws.store.paging import cursor_of, page_of, position_of

__all__ = ["MemoryStore"]

_ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True)
class _Conversation:
    epoch: str
    at: int = 0
    summary: bytes = b""
    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    deltas: list[bool] = field(default_factory=list[bool])
    runs: dict[str, RunRow] = field(default_factory=dict[str, RunRow])
    interactions: dict[str, InteractionRow] = field(default_factory=dict[str, InteractionRow])
    commands: dict[tuple[str, str], CommandRow] = field(default_factory=dict[tuple[str, str], CommandRow])


class MemoryStore:
    """See :class:`hermes_ws.store.base.Store`."""

    def __init__(self) -> None:
        self._conversations: dict[ConversationRef, _Conversation] = {}
        self._rules: dict[str, tuple[ConversationRef, RuleRow]] = {}
        self._queue: list[Append] = []

    def append(self, batch: Append) -> None:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._commit)
        self._queue.append(batch)

    def _commit(self) -> None:
        batches, self._queue = self._queue, []
        for batch in batches:
            error: StoreError | None = None
            try:
                self._keep(batch)
            except StoreError as refused:
                error = refused
            batch.done(error)

    def _keep(self, batch: Append) -> None:
        kept = self._conversations.get(batch.ref)
        head = len(kept.events) if kept else 0
        if head != batch.head or (kept is None and batch.epoch is None):
            raise LogConflict(f"{batch.ref.conversation_id} is at {head}, not at {batch.head}")
        if kept is None:
            kept = self._conversations[batch.ref] = _Conversation(batch.epoch or "")
        kept.at = batch.at if batch.events else kept.at
        kept.summary = batch.summary or kept.summary
        kept.events += [StoredEvent(seq, data) for seq, data in enumerate(batch.events, batch.head + 1)]
        kept.deltas += batch.deltas
        kept.runs |= {row.run_id: row for row in batch.runs}
        kept.interactions |= {row.interaction_id: row for row in batch.interactions}
        kept.commands |= {(row.principal, row.command_id): row for row in batch.commands}
        self._rules |= {row.rule_id: (batch.ref, row) for row in batch.rules}
        for rule_id in batch.revoked:
            if rule_id in self._rules and self._rules[rule_id][0].namespace == batch.ref.namespace:
                del self._rules[rule_id]

    async def load(self, ref: ConversationRef) -> Loaded | None:
        kept = self._conversations.get(ref)
        if kept is None:
            return None
        return Loaded(
            epoch=kept.epoch,
            head=len(kept.events),
            floor=1,
            events=[event for event, delta in zip(kept.events, kept.deltas, strict=True) if not delta],
            runs=[row for row in kept.runs.values() if row.status not in _ENDED],
            rules=[row for owner, row in self._rules.values() if owner == ref and row.scope != "always"],
        )

    async def read(self, ref: ConversationRef, *, after: int, limit: int, max_bytes: int) -> list[StoredEvent]:
        kept = self._conversations.get(ref)
        return page_of(kept.events[after : after + limit], max_bytes) if kept else []

    async def command(self, ref: ConversationRef, principal: str, command_id: str) -> CommandRow | None:
        kept = self._conversations.get(ref)
        return kept.commands.get((principal, command_id)) if kept else None

    async def forget_commands(self, before: int) -> int:
        count = 0
        for kept in self._conversations.values():
            old = [key for key, row in kept.commands.items() if row.created_at < before]
            for key in old:
                del kept.commands[key]
            count += len(old)
        return count

    async def conversations(self, namespace: str, *, limit: int, cursor: str | None) -> ConversationPage:
        lines = [
            ConversationLine(ref.conversation_id, len(kept.events), kept.at, kept.summary)
            for ref, kept in self._conversations.items()
            if ref.namespace == namespace
        ]
        lines.sort(key=lambda line: (line.last_event_at, line.conversation_id), reverse=True)
        if cursor is not None:
            position = position_of(cursor)
            lines = [line for line in lines if (line.last_event_at, line.conversation_id) < position]
        page = lines[:limit]
        return ConversationPage(page, cursor_of(page[-1]) if len(lines) > limit else None)

    async def unfinished(self) -> Sequence[ConversationRef]:
        return [
            ref
            for ref, kept in self._conversations.items()
            if any(row.status not in _ENDED for row in kept.runs.values())
        ]

    async def always_rules(self, namespace: str, principal: str, agent: str | None) -> list[RuleRow]:
        return [
            row
            for owner, row in self._rules.values()
            if owner.namespace == namespace
            and row.scope == "always"
            and row.principal == principal
            and agent in (None, row.agent)
        ]

    async def close(self) -> None:
        self._commit()
