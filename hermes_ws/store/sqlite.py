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
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import aiosqlite
import structlog

from hermes_ws.errors import LogConflict, StorageFull, StoreError
from hermes_ws.store.base import (
    Append,
    CommandRow,
    ConversationLine,
    ConversationPage,
    ConversationRef,
    Loaded,
    RuleRow,
    RunRow,
    StoredEvent,
)
from hermes_ws.store.migrations import migrate
from hermes_ws.store.paging import cursor_of, page_of, position_of

__all__ = ["SqliteStore"]

T = TypeVar("T")
log = structlog.get_logger("hermes_ws.store")

GROUP: Final = 512
"""Most appends in one transaction."""
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
"""WAL growth after which the checkpointer is woken."""
COMMIT_BYTES: Final = 8 * 1024
"""About what a transaction writes to the WAL beside its events: whole pages, however little changed in them."""
TOUCH_MS: Final = 1_000
"""How far behind ``last_event_at`` may be while nothing but deltas come."""
PLACES: Final = 1_000
"""Conversations whose key and head the writer remembers; when there are more, it looks them up again."""
FIRST_ROWS: Final = 8
"""Rows of a page that tell what its events weigh, and so how many of them to read."""

_KEY = "SELECT key FROM conversations WHERE namespace = ? AND id = ?"
_FOLLOWING = """
FROM events WHERE conversation = (SELECT key FROM conversations WHERE namespace = ?1 AND id = ?2) AND seq > ?3
ORDER BY seq
"""
_PAGE = f"""
SELECT seq, data {_FOLLOWING} LIMIT min(?5, 1 + (
    SELECT cast(?4 / max(coalesce(avg(size), 1), 1) AS INTEGER)
    FROM (SELECT length(data) AS size {_FOLLOWING} LIMIT {FIRST_ROWS})
))
"""  # noqa: S608
_INSERT_CONVERSATION = """
INSERT INTO conversations (namespace, id, epoch, head, floor, last_event_at, summary) VALUES (?, ?, ?, ?, 1, ?, ?)
"""
_HEAD = "max(head, coalesce((SELECT max(seq) FROM events WHERE conversation = key), 0))"
_FIND = f"SELECT key, {_HEAD} FROM conversations WHERE namespace = ? AND id = ?"  # noqa: S608
_TOUCH = """
UPDATE conversations SET head = ?1, last_event_at = ?2, summary = coalesce(?3, summary) WHERE key = ?4 AND head <= ?1
"""
_INSERT_EVENTS = "INSERT INTO events (conversation, seq, delta, data) VALUES (?, ?, ?, ?)"
_PUT_RUN = "INSERT OR REPLACE INTO runs (run_id, conversation, status, options, updated_at) VALUES (?, ?, ?, ?, ?)"
_PUT_INTERACTION = """
INSERT OR REPLACE INTO interactions (conversation, interaction_id, data, resolution) VALUES (?, ?, ?, ?)
"""
_PUT_COMMAND = """
INSERT OR REPLACE INTO commands (conversation, principal, command_id, digest, ok, created_at) VALUES (?, ?, ?, ?, ?, ?)
"""
_PUT_RULE = """
INSERT OR REPLACE INTO rules (rule_id, namespace, conversation, scope, principal, agent, run_id, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


class SqliteStore:
    """See :class:`hermes_ws.store.base.Store`. Make one with :meth:`open`."""

    def __init__(self, path: Path, reader: aiosqlite.Connection, *, wal_limit_bytes: int) -> None:
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._writer = _Writer(path, wal_limit_bytes=wal_limit_bytes, report=self._report)

    @classmethod
    async def open(cls, path: Path, *, wal_limit_bytes: int = 64 * 1024 * 1024) -> SqliteStore:
        """Open the log at ``path``, made or brought up to date as need be.

        Raises :class:`~hermes_ws.errors.DataDirError` if it is of a newer version or something else altogether.
        """
        await asyncio.to_thread(migrate, path)
        reader = await aiosqlite.connect(path, isolation_level=None)
        await reader.execute("PRAGMA query_only = 1")
        store = cls(path, reader, wal_limit_bytes=wal_limit_bytes)
        store._writer.start()
        return store

    # -- writing ---------------------------------------------------------------------------------------

    def append(self, batch: Append) -> None:
        self._writer.put(batch)

    def _report(self, outcomes: list[tuple[Append, StoreError | None]]) -> None:
        """Called on the writer's thread: the outcomes of one transaction, as one callback on the loop."""
        with suppress(RuntimeError):  # the loop is gone: so is everybody who could want to know
            self._loop.call_soon_threadsafe(_tell, outcomes)

    async def forget_commands(self, before: int) -> int:
        def forget(db: sqlite3.Connection) -> int:
            return db.execute("DELETE FROM commands WHERE created_at < ?", (before,)).rowcount

        return await self._writer.call(forget)

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.stop)
        await self._reader.close()

    # -- reading ---------------------------------------------------------------------------------------

    async def _all(self, sql: str, *parameters: Any) -> list[Any]:
        try:
            return list(await self._reader.execute_fetchall(sql, parameters))
        except sqlite3.Error as error:
            raise _store_error(error) from error

    async def load(self, ref: ConversationRef) -> Loaded | None:
        found = await self._all("SELECT key, epoch, floor FROM conversations WHERE namespace = ? AND id = ?", *ref)
        if not found:
            return None
        key, epoch, floor = found[0]
        events = await self._all("SELECT seq, data FROM events WHERE conversation = ? AND delta = 0 ORDER BY seq", key)
        runs = await self._all(
            "SELECT run_id, status, options, updated_at FROM runs WHERE conversation = ? AND ended = 0", key
        )
        rules = await self._all(
            "SELECT rule_id, scope, principal, agent, run_id, data FROM rules WHERE conversation = ?", key
        )
        head = (await self._all(f"SELECT {_HEAD} FROM conversations WHERE key = ?", key))[0][0]  # noqa: S608
        return Loaded(
            epoch=epoch,
            head=head,
            floor=floor,
            events=[StoredEvent(*row) for row in events],
            runs=[RunRow(*row) for row in runs],
            rules=[RuleRow(*row) for row in rules],
        )

    async def read(self, ref: ConversationRef, *, after: int, limit: int, max_bytes: int) -> list[StoredEvent]:
        rows = await self._all(_PAGE, *ref, after, max_bytes, limit)
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

    async def conversations(self, namespace: str, *, limit: int, cursor: str | None) -> ConversationPage:
        at, conversation_id = position_of(cursor) if cursor is not None else (2**62, "")
        rows = await self._all(
            f"""SELECT id, {_HEAD}, last_event_at, summary FROM conversations
            WHERE namespace = ? AND (last_event_at, id) < (?, ?) ORDER BY last_event_at DESC, id DESC LIMIT ?""",  # noqa: S608
            namespace,
            at,
            conversation_id,
            limit + 1,
        )
        page = [ConversationLine(*row) for row in rows[:limit]]
        return ConversationPage(page, cursor_of(page[-1]) if len(rows) > limit else None)

    async def unfinished(self) -> Sequence[ConversationRef]:
        rows = await self._all(
            """SELECT DISTINCT c.namespace, c.id FROM runs r JOIN conversations c ON c.key = r.conversation
            WHERE r.ended = 0"""
        )
        return [ConversationRef(*row) for row in rows]

    async def always_rules(self, namespace: str, principal: str, agent: str | None) -> list[RuleRow]:
        rows = await self._all(
            """SELECT rule_id, scope, principal, agent, run_id, data FROM rules
            WHERE namespace = ? AND scope = 'always' AND principal = ? AND agent = coalesce(?, agent)""",
            namespace,
            principal,
            agent,
        )
        return [RuleRow(*row) for row in rows]


def _tell(outcomes: list[tuple[Append, StoreError | None]]) -> None:
    for batch, error in outcomes:
        try:
            batch.done(error)
        except Exception:  # one conversation's trouble is not the next one's
            log.exception("append.not_told", conversation=batch.ref.conversation_id)


@dataclass(slots=True)
class _Place:
    """How far a conversation is, as this writer left it."""

    key: int
    head: int
    touched_at: int = 0


class _Writer:
    """The thread that owns the writing connection."""

    def __init__(
        self,
        path: Path,
        *,
        wal_limit_bytes: int,
        report: Callable[[list[tuple[Append, StoreError | None]]], None],
    ) -> None:
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._wal_limit_bytes = wal_limit_bytes
        self._report = report
        self._queue: SimpleQueue[Append | Callable[[sqlite3.Connection], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hermes-ws-log", daemon=True)
        self._checkpointer = _Checkpointer(path)
        self._places: dict[ConversationRef, _Place] = {}
        self._full: bool | None = None
        self._wal_bytes = 0
        self._moved_bytes = 0
        self._stopped = False

    def start(self) -> None:
        self._thread.start()

    def put(self, batch: Append) -> None:
        if self._stopped:
            self._report([(batch, StoreError("the log is closed"))])
        else:
            self._queue.put(batch)

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on the writer's thread, between two transactions."""
        if self._stopped:
            raise StoreError("the log is closed")
        result: Future[T] = Future()

        def run(db: sqlite3.Connection) -> None:
            try:
                result.set_result(work(db))
            except sqlite3.Error as error:
                result.set_exception(_store_error(error))

        self._queue.put(run)
        return await asyncio.shield(asyncio.wrap_future(result))

    def stop(self) -> None:
        """Finish what is queued and end the thread."""
        self._stopped = True
        self._queue.put(None)
        self._thread.join()
        self._checkpointer.stop()

    def _run(self) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA busy_timeout = 5000")
            with suppress(OSError):
                self._wal_bytes = self._wal.stat().st_size
            while True:
                group, last = self._take()
                if group:
                    self._report(self._commit(db, group))
                    self._keep_wal_small(db)
                if callable(last):
                    last(db)
                elif last is None:
                    return

    def _take(self) -> tuple[list[Append], Callable[[sqlite3.Connection], None] | Append | None]:
        """All that is waiting, up to what is not an append; that comes second (an append there: nothing did)."""
        first = self._queue.get()
        group: list[Append] = []
        while isinstance(first, Append):
            group.append(first)
            if len(group) == GROUP:
                break
            try:
                first = self._queue.get_nowait()
            except Empty:
                break
        return group, first

    def _commit(self, db: sqlite3.Connection, group: list[Append]) -> list[tuple[Append, StoreError | None]]:
        error = self._transact(db, group)
        if error is None or len(group) == 1:
            return [(batch, error) for batch in group]
        return [(batch, self._transact(db, [batch])) for batch in group]

    def _transact(self, db: sqlite3.Connection, group: list[Append]) -> StoreError | None:
        try:
            self._set_sync(db, any(batch.sync for batch in group))
            db.execute("BEGIN IMMEDIATE")
            for batch in group:
                self._keep(db, batch)
            db.execute("COMMIT")
        except Exception as error:  # whatever it is: the thread goes on, and who waits is told
            self._places.clear()
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                return _store_error(error)
            if not isinstance(error, LogConflict):
                log.exception("append.crashed")
            return error if isinstance(error, LogConflict) else StoreError(f"the append cannot be kept: {error!r}")
        return None

    def _set_sync(self, db: sqlite3.Connection, full: bool) -> None:
        if full is not self._full:
            db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._full = full

    def _keep(self, db: sqlite3.Connection, batch: Append) -> None:
        key = self._claim(db, batch)
        numbered = enumerate(zip(batch.events, batch.deltas, strict=True), batch.head + 1)
        try:
            db.executemany(_INSERT_EVENTS, [(key, seq, delta, data) for seq, (data, delta) in numbered])
        except sqlite3.IntegrityError:
            raise _conflict(batch) from None
        self._wal_bytes += sum(map(len, batch.events))
        for run in batch.runs:
            db.execute(_PUT_RUN, (run.run_id, key, run.status, run.options, run.updated_at))
        for asked in batch.interactions:
            db.execute(_PUT_INTERACTION, (key, *asked))
        for command in batch.commands:
            db.execute(_PUT_COMMAND, (key, *command))
        for rule in batch.rules:
            owner = None if rule.scope == "always" else key
            row = (rule.rule_id, batch.ref.namespace, owner, *rule[1:])
            db.execute(_PUT_RULE, row)
        for rule_id in batch.revoked:
            db.execute("DELETE FROM rules WHERE rule_id = ? AND namespace = ?", (rule_id, batch.ref.namespace))

    def _claim(self, db: sqlite3.Connection, batch: Append) -> int:
        """The numbers after ``batch.head`` are ours, if nobody claimed them first: then this, or the insert, fails."""
        place = self._create(db, batch) if batch.head == 0 else self._places.get(batch.ref) or self._find(db, batch)
        if place.head != batch.head:
            raise _conflict(batch)
        place.head += len(batch.events)
        if batch.sync or batch.at - place.touched_at >= TOUCH_MS:
            if db.execute(_TOUCH, (place.head, batch.at, batch.summary, place.key)).rowcount != 1:
                raise _conflict(batch)
            place.touched_at = batch.at
        return place.key

    def _create(self, db: sqlite3.Connection, batch: Append) -> _Place:
        try:
            key = db.execute(
                _INSERT_CONVERSATION, (*batch.ref, batch.epoch, 0, batch.at, batch.summary or b"")
            ).lastrowid
        except sqlite3.IntegrityError:
            raise LogConflict(f"{batch.ref.conversation_id} exists already") from None
        assert key is not None
        return self._remember(batch.ref, _Place(key, 0))

    def _find(self, db: sqlite3.Connection, batch: Append) -> _Place:
        found = db.execute(_FIND, batch.ref).fetchone()
        if found is None:
            raise LogConflict(f"{batch.ref.conversation_id} does not exist")
        return self._remember(batch.ref, _Place(*found))

    def _remember(self, ref: ConversationRef, place: _Place) -> _Place:
        if len(self._places) >= PLACES:
            self._places.clear()
        self._places[ref] = place
        return place

    def _keep_wal_small(self, db: sqlite3.Connection) -> None:
        """Have the WAL moved now and then; at its limit begin it anew, right after that: little is left to move."""
        self._wal_bytes += COMMIT_BYTES
        if self._checkpointer.busy:
            return
        if self._moved_bytes >= self._wal_limit_bytes:
            self._begin_wal_anew(db)
        elif self._wal_bytes - self._moved_bytes >= CHECKPOINT_BYTES or self._wal_bytes >= self._wal_limit_bytes:
            self._moved_bytes = self._wal_bytes
            self._checkpointer.wake()

    def _begin_wal_anew(self, db: sqlite3.Connection) -> None:
        self._wal_bytes = 0
        with suppress(sqlite3.Error):
            (held,) = db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[:1]
            if held:  # by a reader of an older state: try again a little later
                self._wal_bytes = max(0, self._wal_limit_bytes - CHECKPOINT_BYTES)
        self._moved_bytes = self._wal_bytes


class _Checkpointer:
    """Moves the WAL into the database on a thread of its own, when woken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._woken: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.busy = False

    def wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hermes-ws-checkpoint", daemon=True)
            self._thread.start()
        self.busy = True
        self._woken.put(True)

    def stop(self) -> None:
        if self._thread is not None:
            self._woken.put(False)
            self._thread.join()

    def _run(self) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            while self._woken.get():
                with suppress(sqlite3.Error):  # busy or full: the WAL stays longer, nothing is lost
                    db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self.busy = False


def _conflict(batch: Append) -> LogConflict:
    return LogConflict(f"{batch.ref.conversation_id} is not at {batch.head} any more")


def _store_error(error: sqlite3.Error) -> StoreError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        return StorageFull("no space is left to append to the log")
    return StoreError(f"the log refused: {error} ({name or type(error).__name__})")
