"""The thread that writes the log: takes what waits into transactions, and between them keeps house.

Theory of operation: :mod:`hermes_ws.store.sqlite`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

import structlog

from hermes_ws.errors import LogConflict, StoreError
from hermes_ws.store.base import Append, ConversationRef, RunRow
from hermes_ws.store.failures import LogUnusable, store_error
from hermes_ws.store.recovery import mark_closed
from hermes_ws.store.upkeep import truncate_wal, wipe_what_is_deleted
from hermes_ws.store.witness import Witness

__all__ = ["Outcomes", "Writer"]

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

EMPTY_TRIES: Final = 5
"""How often emptying the WAL is tried while somebody reads."""

_INSERT_CONVERSATION = """
INSERT INTO conversations (key, namespace, id, epoch, head, floor, last_event_at, summary) VALUES (1 + max(
    (SELECT coalesce(max(key), 0) FROM conversations),
    (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'last_deleted_key')
), ?, ?, ?, 0, 1, ?, ?)
"""
_FIND = """
SELECT key, coalesce(max(seq), head), coalesce(sum(length(data)), 0)
FROM conversations LEFT JOIN events ON conversation = key AND seq > head WHERE namespace = ? AND id = ? GROUP BY key
"""
_TOUCH = """
UPDATE conversations SET head = ?1, last_event_at = ?2, summary = coalesce(?3, summary), bytes = bytes + ?4,
    waiting = iif(?3 IS NULL, waiting, ?6)
WHERE key = ?5 AND head <= ?1
"""
_INSERT_EVENTS = "INSERT INTO events (conversation, seq, delta, data) VALUES (?, ?, ?, ?)"
_PUT_RUN = """
INSERT OR REPLACE INTO runs (run_id, conversation, status, options, updated_at, head) VALUES (?, ?, ?, ?, ?, ?)
RETURNING ended
"""
_PUT_INTERACTION = """
INSERT OR REPLACE INTO interactions (conversation, interaction_id, data, resolution, requested_at, namespace)
VALUES (?, ?, ?, ?, ?, ?)
"""
_PUT_COMMAND = """
INSERT OR REPLACE INTO commands (conversation, principal, command_id, digest, ok, created_at) VALUES (?, ?, ?, ?, ?, ?)
"""
_PUT_RULE = """
INSERT OR REPLACE INTO rules (rule_id, namespace, conversation, scope, principal, agent, run_id, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_PUT_SEALED = "INSERT OR REPLACE INTO secrets (conversation, name, data) VALUES (?, ?, ?)"
_DROP_SEALED = "DELETE FROM secrets WHERE conversation = ? AND name = ?"
_PUT_RECORD = """
INSERT OR REPLACE INTO records (namespace, conversation, kind, record_id, created_at, data) VALUES (?, ?, ?, ?, ?, ?)
"""

Outcomes = list[tuple[Append, StoreError | None]]


@dataclass(slots=True)
class _Place:
    """How far a conversation is, as this writer left it. ``added``: bytes of events that its row does not count yet."""

    key: int
    head: int
    added: int = 0
    touched_at: int = 0


class Writer:
    """The thread that owns the writing connection."""

    def __init__(
        self,
        path: Path,
        *,
        wal_limit_bytes: int,
        busy_timeout_s: float,
        witness: Witness,
        report: Callable[[Outcomes], None],
    ) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._witness = witness
        self._wal = path.with_name(path.name + "-wal")
        self._wal_limit_bytes = wal_limit_bytes
        self._report = report
        self._queue: SimpleQueue[Append | Callable[[sqlite3.Connection], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hermes-ws-log", daemon=True)
        self._db = _connect(path, busy_timeout_s)
        self._db.execute("PRAGMA wal_autocheckpoint = 0")
        wipe_what_is_deleted(self._db)
        self._checkpointer = _Checkpointer(path, busy_timeout_s=busy_timeout_s)
        self._places: dict[ConversationRef, _Place] = {}
        self._advanced: dict[int, int] = {}
        self._seen_version = 0
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
                outcome = work(db)
            except sqlite3.Error as error:
                result.set_exception(store_error(error, self._path))
            except Exception as error:  # the thread goes on, whatever it is
                log.exception("work.crashed")
                result.set_exception(error)
            else:
                result.set_result(outcome)

        self._queue.put(run)
        return await asyncio.shield(asyncio.wrap_future(result))

    async def call_synced(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same, for work whose transactions must survive a power cut."""

        def synced(db: sqlite3.Connection) -> T:
            self._set_sync(db, True)
            return work(db)

        return await self.call(synced)

    async def until_done(self, work: Callable[[sqlite3.Connection], T | None], weigh: Callable[[T], int]) -> list[T]:
        """Run ``work`` again and again until it returns None; what is queued meanwhile comes in between."""

        def slice_of_it(db: sqlite3.Connection) -> T | None:
            self._set_sync(db, False)
            outcome = work(db)
            if outcome is not None:
                self._wal_bytes += weigh(outcome)
                self._keep_wal_small(db)
            return outcome

        outcomes: list[T] = []
        while (outcome := await self.call(slice_of_it)) is not None:
            outcomes.append(outcome)
        return outcomes

    async def empty_wal(self) -> bool:
        """Leave nothing in the WAL. False if somebody else has a use for it just now."""

        def empty(db: sqlite3.Connection) -> bool:
            if self._checkpointer.busy or not truncate_wal(db):
                return False
            self._wal_bytes = self._moved_bytes = 0
            self._witness.clear()
            return True

        for _ in range(EMPTY_TRIES):
            await asyncio.to_thread(self._checkpointer.run_once)
            if await self.call(empty):
                return True
        return False

    def seal(self) -> None:
        """Take nothing more."""
        self._stopped = True

    def stop(self) -> None:
        """Finish what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()
        self._checkpointer.stop()

    def _run(self) -> None:
        with closing(self._db) as db:
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
                    break
            try:
                mark_closed(db)
            except sqlite3.Error as error:
                log.warning("log.not_marked_closed", error=str(error))
                self._witness.close(keep=True)
            else:
                self._witness.close(keep=False)

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
        if error is None or len(group) == 1 or isinstance(error, LogUnusable):
            return [(batch, error) for batch in group]
        return [(batch, self._transact(db, [batch])) for batch in group]

    def _transact(self, db: sqlite3.Connection, group: list[Append]) -> StoreError | None:
        synced = any(batch.sync for batch in group) or not self._witness.has_room(len(group))
        self._advanced.clear()
        try:
            self._set_sync(db, synced)
            db.execute("BEGIN IMMEDIATE")
            self._forget_if_others_wrote(db)
            for batch in group:
                self._keep(db, batch)
            db.execute("COMMIT")
        except Exception as error:  # whatever it is: the thread goes on, and who waits is told
            self._places.clear()
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                return store_error(error, self._path)
            if not isinstance(error, LogConflict):
                log.exception("append.crashed")
            return error if isinstance(error, LogConflict) else StoreError(f"the append cannot be kept: {error!r}")
        if synced:
            self._witness.clear()
        else:
            self._witness.record(self._advanced)
        return None

    def _forget_if_others_wrote(self, db: sqlite3.Connection) -> None:
        """Another connection may have removed a conversation that this writer remembers."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self._seen_version:
            self._seen_version = version
            self._places.clear()

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
        for asked in batch.interactions:
            db.execute(_PUT_INTERACTION, (key, *asked, batch.ref.namespace))
        for command in batch.commands:
            db.execute(_PUT_COMMAND, (key, *command))
        for rule in batch.rules:
            owner = None if rule.scope == "always" else key
            row = (rule.rule_id, batch.ref.namespace, owner, *rule[1:])
            db.execute(_PUT_RULE, row)
        for rule_id in batch.revoked:
            db.execute("DELETE FROM rules WHERE rule_id = ? AND namespace = ?", (rule_id, batch.ref.namespace))
        for name, data in batch.secrets:
            db.execute(*((_DROP_SEALED, (key, name)) if data is None else (_PUT_SEALED, (key, name, data))))
        for record in batch.records:
            db.execute(_PUT_RECORD, (batch.ref.namespace, key, *record))
        for run in batch.runs:
            self._put_run(db, key, run, batch.head + len(batch.events))

    def _put_run(self, db: sqlite3.Connection, key: int, run: RunRow, head: int) -> None:
        row = (run.run_id, key, run.status, run.options, run.updated_at, head if run.began else None)
        if db.execute(_PUT_RUN, row).fetchall() == [(1,)]:
            db.execute("DELETE FROM rules WHERE conversation = ? AND run_id = ?", (key, run.run_id))

    def forget(self, ref: ConversationRef) -> None:
        """The conversation is gone. For work that runs on this thread."""
        self._places.pop(ref, None)

    def _claim(self, db: sqlite3.Connection, batch: Append) -> int:
        """The numbers after ``batch.head`` are ours, if nobody claimed them first: then this, or the insert, fails."""
        place = self._create(db, batch) if batch.head == 0 else self._places.get(batch.ref) or self._find(db, batch)
        if place.head != batch.head:
            raise _conflict(batch)
        place.head += len(batch.events)
        weight = sum(map(len, batch.events))
        place.added += weight
        self._wal_bytes += weight
        self._advanced[place.key] = place.head
        if batch.sync or batch.at - place.touched_at >= TOUCH_MS:
            row = (place.head, batch.at, batch.summary, place.added, place.key, batch.waiting)
            if db.execute(_TOUCH, row).rowcount != 1:
                raise _conflict(batch)
            place.touched_at = batch.at
            place.added = 0
        return place.key

    def _create(self, db: sqlite3.Connection, batch: Append) -> _Place:
        try:
            key = db.execute(_INSERT_CONVERSATION, (*batch.ref, batch.epoch, batch.at, batch.summary or b"")).lastrowid
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

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
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
        while self._woken.get():
            self.run_once()
            self.busy = False

    def run_once(self) -> None:
        """Move what can be moved, on the calling thread, after whoever is at it already."""
        with (
            self._lock,
            suppress(sqlite3.Error),  # busy or full: the WAL stays longer, nothing is lost
            closing(_connect(self._path, self._busy_timeout_s)) as db,
        ):
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=busy_timeout_s, check_same_thread=False)


def _conflict(batch: Append) -> LogConflict:
    return LogConflict(f"{batch.ref.conversation_id} is not at {batch.head} any more")
