"""A log in memory: the same promises as the one on disk, but for surviving the process."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress, islice

from hermes_ws.errors import LogConflict, StoreError
from hermes_ws.store.base import (
    Append,
    CommandRow,
    ConversationLine,
    ConversationPage,
    ConversationRef,
    Freed,
    InteractionPage,
    InteractionRow,
    Loaded,
    RecordRow,
    RuleRow,
    RunPage,
    RunRow,
    SecretRow,
    StoredEvent,
)
from hermes_ws.store.paging import (
    cursor_of,
    lines_within,
    need_cursor_of,
    need_position_of,
    page_of,
    position_of,
)

__all__ = ["MemoryStore"]

_ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True)
class _Conversation:
    epoch: str
    head: int = 0
    at: int = 0
    summary: bytes = b""
    waiting: bool = False
    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    deltas: list[bool] = field(default_factory=list[bool])
    runs: dict[str, RunRow] = field(default_factory=dict[str, RunRow])
    run_heads: dict[str, int] = field(default_factory=dict[str, int])
    interactions: dict[str, InteractionRow] = field(default_factory=dict[str, InteractionRow])
    commands: dict[tuple[str, str], CommandRow] = field(default_factory=dict[tuple[str, str], CommandRow])
    secrets: dict[str, SecretRow] = field(default_factory=dict[str, SecretRow])

    def weight(self) -> Freed:
        """What all its events come to."""
        return Freed(len(self.events), sum(len(event.data) for event in self.events))


class MemoryStore:
    """See :class:`hermes_ws.store.base.Store`."""

    def __init__(self) -> None:
        self._conversations: dict[ConversationRef, _Conversation] = {}
        self._rules: dict[str, tuple[ConversationRef, RuleRow]] = {}
        self._records: dict[tuple[str, str, str], tuple[ConversationRef, RecordRow]] = {}
        self._tombstones: list[tuple[ConversationRef, Freed]] = []
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
        head = kept.head if kept else 0
        if head != batch.head or (kept is None and batch.epoch is None):
            raise LogConflict(f"{batch.ref.conversation_id} is at {head}, not at {batch.head}")
        if kept is None:
            kept = self._conversations[batch.ref] = _Conversation(batch.epoch or "")
        kept.head += len(batch.events)
        kept.at = batch.at if batch.events else kept.at
        if batch.summary is not None:
            kept.summary, kept.waiting = batch.summary, batch.waiting
        kept.events += [StoredEvent(seq, data) for seq, data in enumerate(batch.events, batch.head + 1)]
        kept.deltas += batch.deltas
        kept.runs |= {row.run_id: row for row in batch.runs}
        kept.run_heads |= {row.run_id: kept.head if row.began else 0 for row in batch.runs}
        kept.interactions |= {row.interaction_id: row for row in batch.interactions}
        kept.commands |= {(row.principal, row.command_id): row for row in batch.commands}
        kept.secrets |= {row.name: row for row in batch.secrets}
        self._records |= {(batch.ref.namespace, *row[:2]): (batch.ref, row) for row in batch.records}
        for row in [row for row in kept.secrets.values() if row.data is None]:
            del kept.secrets[row.name]
        self._rules |= {row.rule_id: (batch.ref, row) for row in batch.rules}
        for rule_id in batch.revoked:
            if rule_id in self._rules and self._rules[rule_id][0].namespace == batch.ref.namespace:
                del self._rules[rule_id]
        ended = {row.run_id for row in batch.runs if row.status in _ENDED}
        if ended:
            self._forget_rules([row for row in self._rules_of(batch.ref) if row.run_id in ended])

    def _rules_of(self, ref: ConversationRef) -> list[RuleRow]:
        return [row for owner, row in self._rules.values() if owner == ref and row.scope != "always"]

    def _forget_rules(self, rows: list[RuleRow]) -> None:
        for row in rows:
            del self._rules[row.rule_id]

    async def load(self, ref: ConversationRef) -> Loaded | None:
        kept = self._conversations.get(ref)
        if kept is None:
            return None
        return Loaded(
            epoch=kept.epoch,
            head=kept.head,
            floor=1,
            bytes=kept.weight().bytes,
            events=[event for event, delta in zip(kept.events, kept.deltas, strict=True) if not delta],
            runs=[row for row in kept.runs.values() if row.status not in _ENDED],
            rules=self._rules_of(ref),
            secrets=list(kept.secrets.values()),
        )

    async def weight(self, ref: ConversationRef) -> int:
        kept = self._conversations.get(ref)
        return kept.weight().bytes if kept else 0

    async def read(
        self, ref: ConversationRef, *, after: int, limit: int, max_bytes: int, deltas: bool = True
    ) -> list[StoredEvent]:
        kept = self._conversations.get(ref)
        if kept is None:
            return []
        begin = bisect_right(kept.events, after, key=lambda event: event.seq)
        if deltas:
            return page_of(kept.events[begin : begin + limit], max_bytes)
        rest = zip(islice(kept.events, begin, None), islice(kept.deltas, begin, None), strict=True)
        return page_of(list(islice((event for event, delta in rest if not delta), limit)), max_bytes)

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

    async def conversations(
        self,
        namespace: str,
        *,
        limit: int,
        cursor: str | None,
        waiting_first: bool = False,
        max_bytes: int | None = None,
    ) -> ConversationPage:
        rows = [
            ((waiting_first and kept.waiting, kept.at, ref.conversation_id), self._line(ref, kept))
            for ref, kept in self._conversations.items()
            if ref.namespace == namespace
        ]
        rows.sort(reverse=True)
        if cursor is not None:
            place = need_position_of(cursor) if waiting_first else (False, *position_of(cursor))
            rows = [row for row in rows if row[0] < place]
        page = lines_within([line for _, line in rows], limit, max_bytes)
        if len(page) == len(rows):
            return ConversationPage(page, None)
        waiting, at, name = rows[len(page) - 1][0]
        return ConversationPage(page, need_cursor_of(waiting, at, name) if waiting_first else cursor_of(at, name))

    @staticmethod
    def _line(ref: ConversationRef, kept: _Conversation) -> ConversationLine:
        return ConversationLine(ref.conversation_id, kept.head, kept.at, kept.summary)

    async def lines(self, namespace: str, conversation_ids: Sequence[str]) -> list[ConversationLine]:
        refs = [ConversationRef(namespace, name) for name in dict.fromkeys(conversation_ids)]
        return [self._line(ref, self._conversations[ref]) for ref in refs if ref in self._conversations]

    async def open_interactions(self, namespace: str, *, limit: int, cursor: str | None) -> InteractionPage:
        rows = [
            (row.requested_at, row.interaction_id, ref.conversation_id, row.data)
            for ref, kept in self._conversations.items()
            if ref.namespace == namespace
            for row in kept.interactions.values()
            if row.resolution is None
        ]
        rows.sort()
        if cursor is not None:
            place = position_of(cursor)
            rows = [row for row in rows if row[:2] > place]
        there = cursor_of(*rows[limit - 1][:2]) if len(rows) > limit else None
        return InteractionPage([row[2:] for row in rows[:limit]], there)

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

    async def run(self, ref: ConversationRef, run_id: str) -> RunRow | None:
        kept = self._conversations.get(ref)
        return kept.runs.get(run_id) if kept else None

    async def find_run(self, namespace: str, run_id: str) -> tuple[ConversationRef, RunRow] | None:
        found = ((ref, kept.runs.get(run_id)) for ref, kept in self._conversations.items())
        return next(((ref, row) for ref, row in found if row is not None and ref.namespace == namespace), None)

    async def runs(self, namespace: str, *, limit: int, cursor: str | None) -> RunPage:
        lines = [
            (ref, row)
            for ref, kept in self._conversations.items()
            if ref.namespace == namespace
            for row in kept.runs.values()
        ]
        lines.sort(key=lambda line: (line[1].updated_at, line[1].run_id), reverse=True)
        if cursor is not None:
            position = position_of(cursor)
            lines = [line for line in lines if (line[1].updated_at, line[1].run_id) < position]
        page = lines[:limit]
        return RunPage(page, cursor_of(page[-1][1].updated_at, page[-1][1].run_id) if len(lines) > limit else None)

    async def record(self, namespace: str, kind: str, record_id: str) -> tuple[ConversationRef, RecordRow] | None:
        return self._records.get((namespace, kind, record_id))

    async def records(self, ref: ConversationRef, kind: str) -> list[RecordRow]:
        rows = [row for owner, row in self._records.values() if owner == ref and row.kind == kind]
        return sorted(rows, key=lambda row: (row.created_at, row.record_id))

    async def forget_record(self, namespace: str, kind: str, record_id: str) -> bool:
        self._commit()
        return self._records.pop((namespace, kind, record_id), None) is not None

    async def forget_records(self, kind: str, before: int) -> int:
        self._commit()
        return self._drop_records(lambda owner, row: row.kind == kind and row.created_at < before)

    def _drop_records(self, which: Callable[[ConversationRef, RecordRow], bool]) -> int:
        old = [key for key, one in self._records.items() if which(*one)]
        for key in old:
            del self._records[key]
        return len(old)

    async def delete(self, ref: ConversationRef) -> bool:
        self._commit()
        kept = self._conversations.pop(ref, None)
        if kept is None:
            return False
        self._forget_rules(self._rules_of(ref))
        self._drop_records(lambda owner, row: owner == ref)
        self._tombstones.append((ref, kept.weight()))
        return True

    async def deleted(self) -> list[ConversationRef]:
        return [ref for ref in dict.fromkeys(ref for ref, _ in self._tombstones) if ref not in self._conversations]

    async def purge(self) -> Freed:
        freed, self._tombstones = [weight for _, weight in self._tombstones], []
        return Freed(sum(weight.events for weight in freed), sum(weight.bytes for weight in freed))

    async def compact(self, before: int) -> Freed:
        self._commit()
        freed = Freed(0, 0)
        for kept in self._conversations.values():
            ended = [row.run_id for row in kept.runs.values() if row.status in _ENDED and row.updated_at < before]
            upto = max((kept.run_heads.get(run_id, 0) for run_id in ended), default=0)
            stays = [event.seq > upto or not delta for event, delta in zip(kept.events, kept.deltas, strict=True)]
            whole = kept.weight()
            kept.events, kept.deltas = list(compress(kept.events, stays)), list(compress(kept.deltas, stays))
            rest = kept.weight()
            freed = freed.plus(Freed(whole.events - rest.events, whole.bytes - rest.bytes))
        return freed

    async def give_back(self) -> int:
        return 0

    async def sweep(self, before: int) -> Freed:
        return (await self.purge()).plus(await self.compact(before))

    async def close(self) -> None:
        self._commit()
