"""Was the log closed in peace, and if not: did it lose events that somebody saw?

Deltas are told as soon as they are committed, but synced only with what comes after them. A power cut may take the last
of them away, and the numbers they had would be given to other events. So such conversations begin a new epoch, before
anybody is served. Only those with a run at work can be concerned: whatever begins or ends a run is synced before it is
told.

A marker in the log says that somebody has it open; it is set and cleared with a sync. If it is still there, the
:mod:`witness <hermes_ws.store.witness>` tells what had been told without being synced; without a witness, everything
that may be concerned is taken to be.
"""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from hermes_ws.store.upkeep import transaction
from hermes_ws.store.witness import Witness, read_witness

__all__ = ["mark_closed", "mark_open", "witness_path"]

log = structlog.get_logger("hermes_ws.store")

_MARKER: Final = "open"
_HEAD: Final = "max(head, coalesce((SELECT max(seq) FROM events WHERE conversation = key), 0))"
_AT_WORK: Final = "SELECT DISTINCT conversation FROM runs WHERE ended = 0 AND status <> 'queued'"


def witness_path(path: Path) -> Path:
    """Where the witness of the log at ``path`` is."""
    return path.with_suffix(".unsynced")


def mark_open(path: Path, *, busy_timeout_s: float) -> Witness:
    """Say that the log is open from now on; first, if it was not closed, put right what that may have cost."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=busy_timeout_s)) as db:
        db.execute("PRAGMA synchronous = FULL")
        if not db.execute("SELECT 1 FROM meta WHERE name = ?", (_MARKER,)).fetchone():
            witness = Witness(witness_path(path))  # first: a marker without a witness says that the worst has happened
            with transaction(db):
                db.execute("INSERT INTO meta (name, value) VALUES (?, 1)", (_MARKER,))
            return witness
        with transaction(db):
            _begin_new_epochs(db, witness_path(path))
    return Witness(witness_path(path))


def mark_closed(db: sqlite3.Connection) -> None:
    """Sync everything, and say that nobody has the log open any more."""
    db.execute("PRAGMA synchronous = FULL")
    with transaction(db):
        db.execute("DELETE FROM meta WHERE name = ?", (_MARKER,))


def _begin_new_epochs(db: sqlite3.Connection, path: Path) -> None:
    seen = read_witness(path)
    if seen is None:
        concerned = [key for (key,) in db.execute(_AT_WORK)]
        log.warning("log.was_not_closed", known_what_was_lost=False, new_epochs=len(concerned))
    else:
        concerned = [key for key, head in seen.items() if _is_behind(db, key, head)]
        log.warning("log.was_not_closed", known_what_was_lost=True, new_epochs=len(concerned))
    for key in concerned:
        db.execute("UPDATE conversations SET epoch = ? WHERE key = ?", (f"ep_{secrets.token_hex(10)}", key))


def _is_behind(db: sqlite3.Connection, key: int, head: int) -> bool:
    found = db.execute(f"SELECT {_HEAD} FROM conversations WHERE key = ?", (key,)).fetchone()  # noqa: S608
    return found is not None and found[0] < head
