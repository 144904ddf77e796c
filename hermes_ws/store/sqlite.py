"""The log in SQLite: one file, one writer, readers beside it.

Theory of operation. Appends go through a queue to one thread that owns the writing connection. It takes all that is
waiting into one transaction (group commit), so that a slow disk makes batches larger, not queues longer. If the
transaction fails, each append is tried alone, so that one bad append harms nobody else.

The log is in WAL mode. A transaction in which any append asked for ``sync`` is committed with ``synchronous=FULL``,
which syncs the log up to and with it; one that carries only deltas is committed with ``NORMAL``, which does not: after
a power cut the log is a clean prefix that ends no earlier than the last synced append. ``kill -9`` loses nothing.

The events themselves say how far a conversation is. Its row beside them is brought up to date by every append that asks
for ``sync``, and by deltas only now and then: they come by the thousand, and each would write two more pages.

Checkpoints run in a thread of their own, so that no append waits for one. But a WAL that is written all the time is
never begun anew by that; at ``wal_limit_bytes`` the writer does it, at a moment when there is little left to move.

Reads go through aiosqlite on a connection of their own, which sees what is committed.

What is removed goes in slices on the writer's thread (:mod:`hermes_ws.store.upkeep`), each a short transaction, with
those of appends in between. Deleted content is overwritten, and the WAL emptied after it. Whether a power cut has taken
deltas away that somebody saw is found out when the log is opened (:mod:`hermes_ws.store.recovery`).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, Final

import aiosqlite
import structlog

from hermes_ws.errors import StoreError
from hermes_ws.store.base import (
    Append,
    CommandRow,
    ConversationLine,
    ConversationPage,
    ConversationRef,
    Freed,
    InteractionPage,
    Loaded,
    RecordRow,
    RuleRow,
    RunPage,
    RunRow,
    SecretRow,
    StoredEvent,
)
from hermes_ws.store.failures import store_error
from hermes_ws.store.migrations import migrate
from hermes_ws.store.paging import (
    cursor_of,
    lines_within,
    need_cursor_of,
    need_position_of,
    page_of,
    position_of,
)
from hermes_ws.store.recovery import mark_open
from hermes_ws.store.upkeep import (
    DELETED,
    compact_slice,
    delete_conversation,
    give_back_slice,
    purge_slice,
)
from hermes_ws.store.writer import Outcomes, Writer

__all__ = ["SqliteStore"]

log = structlog.get_logger("hermes_ws.store")

FIRST_ROWS: Final = 8
"""Rows of a page that tell what its events weigh, and so how many of them to read."""

_KEY = "SELECT key FROM conversations WHERE namespace = ? AND id = ?"
_FOLLOWING = """
FROM events WHERE conversation = (SELECT key FROM conversations WHERE namespace = ?1 AND id = ?2) AND seq > ?3
"""


def _page(which: str = "") -> str:
    """A page of the events that follow; ``which`` of them."""
    following = f"{_FOLLOWING} {which} ORDER BY seq"
    return f"""
    SELECT seq, data {following} LIMIT min(?5, 1 + (
        SELECT cast(?4 / max(coalesce(avg(size), 1), 1) AS INTEGER)
        FROM (SELECT length(data) AS size {following} LIMIT {FIRST_ROWS})
    ))
    """  # noqa: S608


_PAGE = _page()
_FINALS_PAGE = _page("AND delta = 0")
_HEAD = "max(head, coalesce((SELECT max(seq) FROM events WHERE conversation = key), 0))"
_LINES = f"SELECT id, {_HEAD}, last_event_at, summary"
BY_TIME: Final = f"""
{_LINES} FROM conversations
WHERE namespace = ? AND (last_event_at, id) < (?, ?) ORDER BY last_event_at DESC, id DESC LIMIT ?
"""
BY_NEED: Final = f"""
{_LINES}, waiting FROM conversations
WHERE namespace = ? AND (waiting, last_event_at, id) < (?, ?, ?)
ORDER BY waiting DESC, last_event_at DESC, id DESC LIMIT ?
"""
SOME_LINES: Final = f"{_LINES} FROM conversations WHERE namespace = ? AND id IN (SELECT value FROM json_each(?))"  # noqa: S608
OPEN_INTERACTIONS: Final = """
SELECT c.id, i.data, i.requested_at, i.interaction_id
FROM interactions i CROSS JOIN conversations c ON c.key = i.conversation
WHERE i.namespace = ? AND i.resolution IS NULL AND (i.requested_at, i.interaction_id) > (?, ?)
ORDER BY i.requested_at, i.interaction_id LIMIT ?
"""  # CROSS as below, and resolved ones are in no index
_RUNS = "SELECT run_id, status, options, updated_at FROM runs"
_RUNS_WITH_OWNERS = """
SELECT c.namespace, c.id, run_id, status, options, updated_at
FROM runs r CROSS JOIN conversations c ON c.key = r.conversation WHERE c.namespace = ?
"""
RUNS_PAGE: Final = f"""
{_RUNS_WITH_OWNERS} AND (updated_at, run_id) < (?, ?) ORDER BY updated_at DESC, run_id DESC LIMIT ?
"""  # CROSS, so that runs are gone through in their order, by an index, and not sorted for each page
_RECORDS = "SELECT kind, record_id, created_at, data FROM records"
_LINE = f"""
SELECT epoch, floor, {_HEAD}, bytes + coalesce(
    (SELECT sum(length(data)) FROM events WHERE conversation = key AND seq > conversations.head), 0
)
FROM conversations WHERE key = ?
"""  # noqa: S608


class SqliteStore:
    """See :class:`hermes_ws.store.base.Store`. Make one with :meth:`open`."""

    def __init__(self, path: Path, reader: aiosqlite.Connection, writer: Writer) -> None:
        self._path = path
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(
        cls, path: Path, *, wal_limit_bytes: int = 64 * 1024 * 1024, busy_timeout_s: float = 5.0
    ) -> SqliteStore:
        """Open the log at ``path``, made or brought up to date as need be.

        ``busy_timeout_s`` is how long a commit waits for another program to let go of the log.

        Raises :class:`~hermes_ws.errors.DataDirError` if it is of a newer version or something else altogether, and
        another :class:`~hermes_ws.errors.StoreError` if it cannot be written.
        """
        loop = asyncio.get_running_loop()

        def report(outcomes: Outcomes) -> None:
            """Called on the writer's thread: the outcomes of one transaction, as one callback on the loop."""
            with suppress(RuntimeError):  # the loop is gone: so is everybody who could want to know
                loop.call_soon_threadsafe(_tell, outcomes)

        def prepare() -> Writer:
            migrate(path, busy_timeout_s=busy_timeout_s)
            try:
                witness = mark_open(path, busy_timeout_s=busy_timeout_s)
                return Writer(
                    path,
                    wal_limit_bytes=wal_limit_bytes,
                    busy_timeout_s=busy_timeout_s,
                    witness=witness,
                    report=report,
                )
            except sqlite3.Error as error:
                raise store_error(error, path) from error

        writer = await asyncio.to_thread(prepare)
        reader = await aiosqlite.connect(path, isolation_level=None, timeout=busy_timeout_s)
        await reader.execute("PRAGMA query_only = 1")
        writer.start()
        return cls(path, reader, writer)

    # -- writing ---------------------------------------------------------------------------------------

    def append(self, batch: Append) -> None:
        self._writer.put(batch)

    async def forget_commands(self, before: int) -> int:
        def forget(db: sqlite3.Connection) -> int:
            return db.execute("DELETE FROM commands WHERE created_at < ?", (before,)).rowcount

        return await self._writer.call(forget)

    async def delete(self, ref: ConversationRef) -> bool:
        def delete(db: sqlite3.Connection) -> bool:
            self._writer.forget(ref)
            return delete_conversation(db, ref)

        return await self._writer.call_synced(delete)

    async def forget_record(self, namespace: str, kind: str, record_id: str) -> bool:
        def forget(db: sqlite3.Connection) -> bool:
            row = (namespace, kind, record_id)
            return (
                db.execute("DELETE FROM records WHERE namespace = ? AND kind = ? AND record_id = ?", row).rowcount > 0
            )

        return await self._writer.call_synced(forget)

    async def forget_records(self, kind: str, before: int) -> int:
        def forget(db: sqlite3.Connection) -> int:
            return db.execute("DELETE FROM records WHERE kind = ? AND created_at < ?", (kind, before)).rowcount

        return await self._writer.call(forget)

    async def purge(self) -> Freed:
        return await self._remove(purge_slice)

    async def compact(self, before: int) -> Freed:
        return await self._remove(lambda db: compact_slice(db, before))

    async def give_back(self) -> int:
        slices = await self._writer.until_done(give_back_slice, weigh=lambda given: given)
        if slices:
            await self._writer.empty_wal()
        return sum(slices)

    async def sweep(self, before: int) -> Freed:
        freed = (await self.purge()).plus(await self.compact(before))
        await self.give_back()
        return freed

    async def _remove(self, work: Callable[[sqlite3.Connection], Freed | None]) -> Freed:
        slices = await self._writer.until_done(work, weigh=lambda freed: freed.bytes)
        if slices:
            await self._writer.empty_wal()
        return reduce(Freed.plus, slices, Freed(0, 0))

    async def close(self) -> None:
        self._writer.seal()
        await asyncio.to_thread(self._writer.stop)
        await self._reader.close()

    # -- reading ---------------------------------------------------------------------------------------

    async def _all(self, sql: str, *parameters: Any) -> list[Any]:
        try:
            return list(await self._reader.execute_fetchall(sql, parameters))
        except sqlite3.Error as error:
            raise store_error(error, self._path) from error

    async def load(self, ref: ConversationRef) -> Loaded | None:
        found = await self._all(_KEY, *ref)
        if not found:
            return None
        key = found[0][0]
        events = await self._all("SELECT seq, data FROM events WHERE conversation = ? AND delta = 0 ORDER BY seq", key)
        runs = await self._all(f"{_RUNS} WHERE conversation = ? AND ended = 0", key)
        rules = await self._all(
            "SELECT rule_id, scope, principal, agent, run_id, data FROM rules WHERE conversation = ?", key
        )
        secrets = await self._all("SELECT name, data FROM secrets WHERE conversation = ?", key)
        line = await self._all(_LINE, key)
        if not line:  # deleted since the key was found; there may be another one already
            return await self.load(ref)
        epoch, floor, head, weight = line[0]
        return Loaded(
            epoch=epoch,
            head=head,
            floor=floor,
            bytes=weight,
            events=[StoredEvent(*row) for row in events],
            runs=[RunRow(*row) for row in runs],
            rules=[RuleRow(*row) for row in rules],
            secrets=[SecretRow(*row) for row in secrets],
        )

    async def weight(self, ref: ConversationRef) -> int:
        found = await self._all(_KEY, *ref)
        lines = await self._all(_LINE, found[0][0]) if found else []
        return int(lines[0][3]) if lines else 0

    async def read(
        self, ref: ConversationRef, *, after: int, limit: int, max_bytes: int, deltas: bool = True
    ) -> list[StoredEvent]:
        rows = await self._all(_PAGE if deltas else _FINALS_PAGE, *ref, after, max_bytes, limit)
        _must_be_text(rows, ref)
        return page_of([StoredEvent._make(row) for row in rows], max_bytes)

    async def command(self, ref: ConversationRef, principal: str, command_id: str) -> CommandRow | None:
        rows = await self._all(
            f"""SELECT principal, command_id, digest, ok, created_at FROM commands
            WHERE conversation = ({_KEY}) AND principal = ? AND command_id = ?""",  # noqa: S608
            *ref,
            principal,
            command_id,
        )
        return CommandRow(*rows[0]) if rows else None

    async def conversations(
        self,
        namespace: str,
        *,
        limit: int,
        cursor: str | None,
        waiting_first: bool = False,
        max_bytes: int | None = None,
    ) -> ConversationPage:
        if waiting_first:
            place: tuple[Any, ...] = need_position_of(cursor) if cursor is not None else (2, 0, "")
        else:
            place = position_of(cursor) if cursor is not None else (2**62, "")
        rows = await self._all(BY_NEED if waiting_first else BY_TIME, namespace, *place, limit + 1)
        page = lines_within([ConversationLine(*row[:4]) for row in rows], limit, max_bytes)
        if len(page) == len(rows):
            return ConversationPage(page, None)
        at, name = page[-1].last_event_at, page[-1].conversation_id
        there = need_cursor_of(rows[len(page) - 1][4], at, name) if waiting_first else cursor_of(at, name)
        return ConversationPage(page, there)

    async def lines(self, namespace: str, conversation_ids: Sequence[str]) -> list[ConversationLine]:
        rows = await self._all(SOME_LINES, namespace, json.dumps(list(conversation_ids)))
        return [ConversationLine(*row) for row in rows]

    async def open_interactions(self, namespace: str, *, limit: int, cursor: str | None) -> InteractionPage:
        place = position_of(cursor) if cursor is not None else (-1, "")
        rows = await self._all(OPEN_INTERACTIONS, namespace, *place, limit + 1)
        there = cursor_of(*rows[limit - 1][2:]) if len(rows) > limit else None
        return InteractionPage([(conversation_id, data) for conversation_id, data, *_ in rows[:limit]], there)

    async def unfinished(self) -> Sequence[ConversationRef]:
        rows = await self._all(
            """SELECT DISTINCT c.namespace, c.id FROM runs r JOIN conversations c ON c.key = r.conversation
            WHERE r.ended = 0"""
        )
        return [ConversationRef(*row) for row in rows]

    async def run(self, ref: ConversationRef, run_id: str) -> RunRow | None:
        rows = await self._all(f"{_RUNS} WHERE run_id = ? AND conversation = ({_KEY})", run_id, *ref)
        return RunRow(*rows[0]) if rows else None

    async def find_run(self, namespace: str, run_id: str) -> tuple[ConversationRef, RunRow] | None:
        rows = await self._all(f"{_RUNS_WITH_OWNERS} AND run_id = ?", namespace, run_id)
        return _with_owner(rows[0]) if rows else None

    async def runs(self, namespace: str, *, limit: int, cursor: str | None) -> RunPage:
        at, run_id = position_of(cursor) if cursor is not None else (2**62, "")
        rows = await self._all(RUNS_PAGE, namespace, at, run_id, limit + 1)
        page = [_with_owner(row) for row in rows[:limit]]
        return RunPage(page, cursor_of(page[-1][1].updated_at, page[-1][1].run_id) if len(rows) > limit else None)

    async def record(self, namespace: str, kind: str, record_id: str) -> tuple[ConversationRef, RecordRow] | None:
        rows = await self._all(
            """SELECT c.namespace, c.id, r.kind, r.record_id, r.created_at, r.data
            FROM records r JOIN conversations c ON c.key = r.conversation
            WHERE r.namespace = ? AND r.kind = ? AND r.record_id = ?""",
            namespace,
            kind,
            record_id,
        )
        return (ConversationRef(*rows[0][:2]), RecordRow(*rows[0][2:])) if rows else None

    async def records(self, ref: ConversationRef, kind: str) -> list[RecordRow]:
        sql = f"{_RECORDS} WHERE conversation = ({_KEY}) AND kind = ? ORDER BY created_at, record_id"
        return [RecordRow(*row) for row in await self._all(sql, *ref, kind)]

    async def deleted(self) -> list[ConversationRef]:
        return [ConversationRef(*row) for row in await self._all(DELETED)]

    async def always_rules(self, namespace: str, principal: str, agent: str | None) -> list[RuleRow]:
        rows = await self._all(
            """SELECT rule_id, scope, principal, agent, run_id, data FROM rules
            WHERE namespace = ? AND scope = 'always' AND principal = ? AND agent = coalesce(?, agent)""",
            namespace,
            principal,
            agent,
        )
        return [RuleRow(*row) for row in rows]


def _with_owner(row: Any) -> tuple[ConversationRef, RunRow]:
    return ConversationRef(*row[:2]), RunRow(*row[2:])


def _must_be_text(rows: list[Any], ref: ConversationRef) -> None:
    """A page that was damaged may still be a page to SQLite; to a client it would be no frame."""
    joined = b"".join([row[1] for row in rows])
    if not joined.isascii():
        try:
            joined.decode()
        except UnicodeDecodeError:
            raise StoreError(
                f"the log of {ref.conversation_id} is damaged: there are events that are no text"
            ) from None


def _tell(outcomes: list[tuple[Append, StoreError | None]]) -> None:
    for batch, error in outcomes:
        try:
            batch.done(error)
        except Exception:  # one conversation's trouble is not the next one's
            log.exception("append.not_told", conversation=batch.ref.conversation_id)
