"""What is taken out of the log again: deleted conversations, deltas that their finals made redundant, free pages.

Each function here is one short transaction on a connection that somebody else owns: the writer's, in a server, or the
one of ``hermes-ws gc``. Who calls them does so until they return None, and lets others write in between. Interrupted at
any point they go on where they were.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from hermes_ws.store.base import ConversationRef, Freed

__all__ = [
    "DELETED",
    "compact_slice",
    "delete_conversation",
    "deleted_conversations",
    "give_back_slice",
    "purge_slice",
    "rewrite",
    "transaction",
    "truncate_wal",
    "wipe_what_is_deleted",
]

SLICE_ROWS: Final = 2_000
"""Most events that one slice looks at."""
SLICE_BYTES: Final = 4 * 1024 * 1024
"""What the events of one slice may weigh, though it has one at least."""
SLICE_RUNS: Final = 100
"""Most runs whose deltas one slice removes."""
SLICE_PAGES: Final = 256
"""Free pages that are given back in one slice."""
BARELY_A_WAIT_MS: Final = 100
"""How long emptying the WAL may hold up who comes after it."""

_TO_COMPACT: Final = """
SELECT run_id, conversation, head FROM runs
WHERE ended = 1 AND compacted = 0 AND head IS NOT NULL AND updated_at < ? ORDER BY updated_at LIMIT ?
"""
_IN_RANGE: Final = "FROM events WHERE conversation = ? AND seq > ? AND seq <= ?"
_VISIT: Final = f"SELECT seq, delta, length(data) {_IN_RANGE} ORDER BY seq LIMIT ?"
_DELETE_DELTAS: Final = f"DELETE {_IN_RANGE} AND delta = 1"
_COMPACTED: Final = "UPDATE conversations SET compacted_to = ?, bytes = bytes - ? WHERE key = ?"
_EVERYTHING: Final = 2**62


@contextmanager
def transaction(db: sqlite3.Connection) -> Generator[None]:
    """All of it or nothing; waits for whoever is writing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def wipe_what_is_deleted(db: sqlite3.Connection) -> None:
    """Have this connection overwrite what it deletes: freed pages must not tell what was said."""
    db.execute("PRAGMA secure_delete = ON").fetchall()


def delete_conversation(db: sqlite3.Connection, ref: ConversationRef) -> bool:
    """Take a conversation out of the log, but for its events, which stay until they are purged, under a tombstone.

    The key of a deleted conversation is never given to another one: somebody may still hold it.
    """
    with transaction(db):
        found = db.execute("SELECT key FROM conversations WHERE namespace = ? AND id = ?", ref).fetchone()
        if found is None:
            return False
        db.execute("INSERT INTO deleted (key, namespace, id) VALUES (?, ?, ?)", (*found, *ref))
        db.execute("DELETE FROM conversations WHERE key = ?", found)
        for table in ("runs", "interactions", "commands", "rules", "secrets", "records"):
            db.execute(f"DELETE FROM {table} WHERE conversation = ?", found)  # noqa: S608
        db.execute(
            """INSERT INTO meta (name, value) VALUES ('last_deleted_key', ?)
            ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)""",
            found,
        )
    return True


def deleted_conversations(db: sqlite3.Connection) -> list[ConversationRef]:
    """See :meth:`hermes_ws.store.base.Store.deleted`."""
    return [ConversationRef(*row) for row in db.execute(DELETED)]


DELETED: Final = """
SELECT DISTINCT namespace, id FROM deleted EXCEPT SELECT namespace, id FROM conversations
"""


def purge_slice(db: sqlite3.Connection) -> Freed | None:
    """Remove some events of a deleted conversation, and with the last ones its tombstone."""
    with transaction(db):
        found = db.execute("SELECT key FROM deleted ORDER BY key LIMIT 1").fetchone()
        if found is None:
            return None
        visited, _ = _visit(db, (*found, 0, _EVERYTHING), SLICE_ROWS, SLICE_BYTES)
        if visited:
            db.execute(f"DELETE {_IN_RANGE}", (*found, 0, visited[-1].seq))
        else:
            db.execute("DELETE FROM deleted WHERE key = ?", found)
        return Freed(len(visited), sum(row.size for row in visited))


def compact_slice(db: sqlite3.Connection, before: int) -> Freed | None:
    """Remove some deltas of runs that ended before ``before`` (Unix ms).

    One run of a conversation is at work at a time: what comes up to the end of one belongs to it or to earlier ones.
    """
    freed = Freed(0, 0)
    rows_left, bytes_left = SLICE_ROWS, SLICE_BYTES
    with transaction(db):
        runs = db.execute(_TO_COMPACT, (before, SLICE_RUNS)).fetchall()
        for run_id, key, head in runs:
            (done,) = db.execute("SELECT compacted_to FROM conversations WHERE key = ?", (key,)).fetchone()
            visited, all_of_it = _visit(db, (key, done, head), rows_left, bytes_left)
            deltas = [row.size for row in visited if row.delta]
            if deltas:
                db.execute(_DELETE_DELTAS, (key, done, visited[-1].seq))
            if visited:
                db.execute(_COMPACTED, (visited[-1].seq, sum(deltas), key))
            if all_of_it:
                db.execute("UPDATE runs SET compacted = 1 WHERE run_id = ?", (run_id,))
            freed = freed.plus(Freed(len(deltas), sum(deltas)))
            rows_left -= len(visited)
            bytes_left -= sum(row.size for row in visited)
            if not all_of_it:
                break
    return freed if runs else None


class _Row(NamedTuple):
    seq: int
    delta: int
    size: int


def _visit(
    db: sqlite3.Connection, between: tuple[int, int, int], most: int, most_bytes: int
) -> tuple[list[_Row], bool]:
    """The first events of a conversation after one number and up to another (one at least), and whether that is all."""
    rows: list[_Row] = []
    weight = 0
    for row in map(_Row._make, db.execute(_VISIT, (*between, max(most, 1)))):
        weight += row.size
        if rows and weight > most_bytes:
            return rows, False
        rows.append(row)
    return rows, len(rows) < most


def give_back_slice(db: sqlite3.Connection) -> int | None:
    """Return some free pages to the file system; how many bytes. None when there are none left that could go."""
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    before = _pages(db)
    if db.execute("PRAGMA freelist_count").fetchone() == (0,):
        return None
    db.executescript(f"PRAGMA incremental_vacuum({SLICE_PAGES})")  # execute() would stop after the first page
    pages = before - _pages(db)
    return pages * page_bytes if pages > 0 else None


def _pages(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA page_count").fetchone()[0])


def rewrite(db: sqlite3.Connection) -> None:
    """Write the whole log anew. Nobody else can write meanwhile, so it is only done when somebody asks for it.

    What was deleted is overwritten, but SQLite leaves copies of rows in the unused middle of pages when it divides
    them, and overwrites those when it next needs the room. In a log written anew there are none.
    """
    db.execute("VACUUM")


def truncate_wal(db: sqlite3.Connection) -> bool:
    """Move the WAL into the database and empty it: only then is deleted content in no file any more.

    False if somebody reads an older state, or is at the same: then it takes another try, later.
    """
    (usual,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute(f"PRAGMA busy_timeout = {min(usual, BARELY_A_WAIT_MS)}")
    try:
        (busy,) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[:1]
    except sqlite3.OperationalError:
        return False
    finally:
        db.execute(f"PRAGMA busy_timeout = {usual}")
    return not busy
