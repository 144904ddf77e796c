"""``hermes-ws gc``: what the server's sweep does, from outside, whether a server has the data directory open or not.

It takes no lock but SQLite's own, for one slice at a time, and that of the images, for one file; and it leaves the
marker and the witness of an open log alone (:mod:`hermes_ws.store.recovery`): it is a guest.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from hermes_ws.errors import DataDirError, StoreError
from hermes_ws.store.base import Freed
from hermes_ws.store.blobs import Blobs, BlobSettings
from hermes_ws.store.directory import LOG, Folders
from hermes_ws.store.failures import store_error
from hermes_ws.store.migrations import check
from hermes_ws.store.upkeep import (
    compact_slice,
    deleted_conversations,
    give_back_slice,
    purge_slice,
    rewrite,
    transaction,
    truncate_wal,
    wipe_what_is_deleted,
)

__all__ = ["Collected", "collect"]

T = TypeVar("T")

_SHORTEST_PAUSE_S: Final = 0.002
"""After each slice others get as long as it took, and this at least: SQLite gives nobody a turn by itself."""


class Collected(NamedTuple):
    """What a collection freed. ``shrunk_bytes``: by how much the log's file is smaller, or will be."""

    deleted: Freed
    deltas: Freed
    outputs: int
    images: int
    shrunk_bytes: int
    wal_emptied: bool


def collect(
    root: Path,
    *,
    deltas_before: int,
    outputs_before: int,
    images_before: int,
    busy_timeout_s: float,
    rewriting: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Collected:
    """Remove what has had its time from the data directory ``root``; times in Unix ms. Blocks.

    ``rewriting`` writes the whole log anew in the end; a server's commits wait for that. ``progress`` is told now and
    then what has been done so far. Raises :class:`~hermes_ws.errors.StoreError` that says what is in the way.
    """
    path = root / LOG
    if not root.is_dir():
        raise DataDirError(f"there is no directory {root}; say --data")
    if not path.is_file():
        raise DataDirError(f"{root} holds no log ({LOG}): it is no data directory of hermes-ws; say --data")
    folders = Folders(root)
    blobs = Blobs(folders, BlobSettings())
    try:
        with closing(_open(path, busy_timeout_s)) as db:
            size = path.stat().st_size
            _discard_files(db, folders, blobs)
            _forget_unbegun(db, blobs, images_before / 1000)
            deleted = _in_slices(db, purge_slice, lambda all_: progress(_told("deleted conversations", _sum(all_))))
            deltas = _in_slices(
                db,
                lambda db: compact_slice(db, deltas_before),
                lambda all_: progress(_told("deltas of ended runs", _sum(all_))),
            )
            given = _in_slices(db, give_back_slice, lambda all_: progress(f"giving back: {sum(all_):,} bytes"))
            if rewriting:
                progress("writing the log anew")
                rewrite(db)
            emptied = truncate_wal(db)
            shrunk = size - path.stat().st_size if rewriting and emptied else sum(given)
        folders.empty_trash()
        outputs = folders.remove_old_outputs(outputs_before)
        images = blobs.sweep(images_before / 1000)
    except sqlite3.Error as error:
        raise store_error(error, path) from error
    except OSError as error:
        raise StoreError(f"{root} cannot be cleared: {error}") from error
    return Collected(_sum(deleted), _sum(deltas), outputs, images, shrunk, emptied)


def _open(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """The log as it is: neither made nor brought up to date, for a server of another version may have it open."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=busy_timeout_s)
    try:
        check(db, path, exactly=True)
        wipe_what_is_deleted(db)
    except BaseException:
        db.close()
        raise
    return db


def _discard_files(db: sqlite3.Connection, folders: Folders, blobs: Blobs) -> None:
    """Files that a server left behind. Within a transaction, and while nobody adds images: nobody can create the
    conversation anew meanwhile."""
    with transaction(db), blobs.removing():
        for ref in deleted_conversations(db):
            folders.discard(ref)


def _forget_unbegun(db: sqlite3.Connection, blobs: Blobs, before_s: float) -> None:
    """Images of conversations that have never begun."""
    for ref in blobs.unbegun(before_s):
        found = db.execute("SELECT 1 FROM conversations WHERE namespace = ? AND id = ?", ref).fetchone()
        if found is None:
            blobs.forget(ref, before_s)


def _in_slices(
    db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T | None], progress: Callable[[list[T]], None]
) -> list[T]:
    done: list[T] = []
    while True:
        begun = time.monotonic()
        outcome = work(db)
        if outcome is None:
            return done
        done.append(outcome)
        progress(done)
        time.sleep(max(time.monotonic() - begun, _SHORTEST_PAUSE_S))


def _sum(parts: list[Freed]) -> Freed:
    return Freed(sum(part.events for part in parts), sum(part.bytes for part in parts))


def _told(what: str, freed: Freed) -> str:
    return f"{what}: {freed.events:,} events, {freed.bytes:,} bytes"
