"""The schema of the log on disk, and how an older one becomes the newest."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from hermes_ws.errors import DataDirError, StorageFull
from hermes_ws.store.failures import LogUnusable, store_error

__all__ = ["APPLICATION_ID", "MIGRATIONS", "check", "migrate"]

log = structlog.get_logger("hermes_ws.store")

APPLICATION_ID: Final = 0x48575331
"""``HWS1``: marks the file as ours."""
_INCREMENTAL: Final = 2
"""What ``PRAGMA auto_vacuum`` says of a database that can be made smaller a little at a time."""

MIGRATIONS: Final = (
    """
    CREATE TABLE conversations (
        key           INTEGER PRIMARY KEY,
        namespace     TEXT NOT NULL,
        id            TEXT NOT NULL,
        epoch         TEXT NOT NULL,
        head          INTEGER NOT NULL,
        floor         INTEGER NOT NULL,
        last_event_at INTEGER NOT NULL,
        summary       BLOB NOT NULL,
        UNIQUE (namespace, id)
    ) STRICT;
    CREATE INDEX conversations_by_time ON conversations (namespace, last_event_at DESC, id DESC);

    CREATE TABLE events (
        conversation INTEGER NOT NULL,
        seq          INTEGER NOT NULL,
        delta        INTEGER NOT NULL,
        data         BLOB NOT NULL,
        PRIMARY KEY (conversation, seq)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE runs (
        run_id       TEXT PRIMARY KEY,
        conversation INTEGER NOT NULL,
        status       TEXT NOT NULL,
        ended        INTEGER NOT NULL GENERATED ALWAYS AS (status IN ('completed', 'failed', 'cancelled')) STORED,
        options      BLOB NOT NULL,
        updated_at   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX runs_unfinished ON runs (conversation) WHERE ended = 0;

    CREATE TABLE interactions (
        conversation   INTEGER NOT NULL,
        interaction_id TEXT NOT NULL,
        data           BLOB NOT NULL,
        resolution     BLOB,
        PRIMARY KEY (conversation, interaction_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX interactions_open ON interactions (conversation) WHERE resolution IS NULL;

    CREATE TABLE commands (
        conversation INTEGER NOT NULL,
        principal    TEXT NOT NULL,
        command_id   TEXT NOT NULL,
        digest       BLOB NOT NULL,
        ok           BLOB NOT NULL,
        created_at   INTEGER NOT NULL,
        PRIMARY KEY (conversation, principal, command_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX commands_by_age ON commands (created_at);

    CREATE TABLE rules (
        rule_id      TEXT PRIMARY KEY,
        namespace    TEXT NOT NULL,
        conversation INTEGER,
        scope        TEXT NOT NULL,
        principal    TEXT NOT NULL,
        agent        TEXT NOT NULL,
        run_id       TEXT,
        data         BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX rules_of_conversation ON rules (conversation);
    CREATE INDEX rules_of_principal ON rules (namespace, principal, agent) WHERE scope = 'always';
    """,
    """
    ALTER TABLE conversations ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE conversations ADD COLUMN compacted_to INTEGER NOT NULL DEFAULT 0;
    UPDATE conversations SET bytes = (
        SELECT coalesce(sum(length(data)), 0) FROM events WHERE conversation = key AND seq <= conversations.head
    );

    ALTER TABLE runs ADD COLUMN head INTEGER;
    ALTER TABLE runs ADD COLUMN compacted INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX runs_of_conversation ON runs (conversation);
    CREATE INDEX runs_to_compact ON runs (updated_at) WHERE ended = 1 AND compacted = 0 AND head IS NOT NULL;

    CREATE TABLE deleted (
        key       INTEGER PRIMARY KEY,
        namespace TEXT NOT NULL,
        id        TEXT NOT NULL
    ) STRICT;

    CREATE TABLE meta (
        name  TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE secrets (
        conversation INTEGER NOT NULL,
        name         TEXT NOT NULL,
        data         BLOB NOT NULL,
        PRIMARY KEY (conversation, name)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE records (
        namespace    TEXT NOT NULL,
        kind         TEXT NOT NULL,
        record_id    TEXT NOT NULL,
        conversation INTEGER NOT NULL,
        created_at   INTEGER NOT NULL,
        data         BLOB NOT NULL,
        PRIMARY KEY (namespace, kind, record_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX records_of_conversation ON records (conversation, kind, created_at);

    CREATE INDEX runs_by_time ON runs (updated_at DESC, run_id DESC);
    """,
    """
    ALTER TABLE conversations ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
    UPDATE conversations SET waiting = 1 WHERE EXISTS (
        SELECT 1 FROM json_each(
            CASE WHEN json_valid(cast(summary AS TEXT)) THEN cast(summary AS TEXT) ELSE '{}' END, '$.interactions'
        ) asked
        WHERE json_extract(asked.value, '$.kind') <> 'client_tool'
    );
    CREATE INDEX conversations_by_need ON conversations (namespace, waiting DESC, last_event_at DESC, id DESC);

    -- Forks used to leave rows that nothing ever resolved.
    DELETE FROM interactions WHERE resolution IS NULL AND interaction_id NOT IN (
        SELECT json_extract(asked.value, '$.interaction_id') FROM conversations c, json_each(
            CASE WHEN json_valid(cast(summary AS TEXT)) THEN cast(summary AS TEXT) ELSE '{}' END, '$.interactions'
        ) asked
        WHERE c.key = interactions.conversation
    );
    ALTER TABLE interactions ADD COLUMN requested_at INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE interactions ADD COLUMN namespace TEXT NOT NULL DEFAULT '';
    UPDATE interactions SET
        requested_at = CASE WHEN json_valid(cast(data AS TEXT))
            THEN coalesce(json_extract(cast(data AS TEXT), '$.requested_at'), 0) ELSE 0 END,
        namespace = coalesce((SELECT namespace FROM conversations WHERE key = conversation), '')
    WHERE resolution IS NULL;
    CREATE INDEX interactions_open_by_age ON interactions (namespace, requested_at, interaction_id)
        WHERE resolution IS NULL;
    """,
)
"""Each entry takes the schema from the version of its index to the next. Never edit one that was released."""


def migrate(path: Path, *, busy_timeout_s: float = 5.0) -> None:
    """Make the log at ``path``, or bring it up to date; each step in one transaction.

    Raises :class:`DataDirError` when the file is not ours, or of a newer version than this program knows.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=busy_timeout_s)) as db:
            check(db, path)
            if _version(db) == 0:  # of an empty database this is only noted, so it has to come before everything else
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            for version in range(_version(db), len(MIGRATIONS)):
                db.executescript(
                    f"BEGIN IMMEDIATE; {MIGRATIONS[version]};"
                    f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version + 1}; COMMIT"
                )
            if db.execute("PRAGMA auto_vacuum").fetchone() != (_INCREMENTAL,):
                _make_shrinkable(db, path)
    except sqlite3.Error as error:
        why = store_error(error, path)
        reason = why if isinstance(why, LogUnusable | StorageFull) and not _is_foreign(error) else error
        raise DataDirError(f"{path} cannot be opened as the log: {reason}") from error


def _is_foreign(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB"


def _make_shrinkable(db: sqlite3.Connection, path: Path) -> None:
    """Write the database anew, once, with the bookkeeping that lets it give free pages back."""
    log.info("log.rewriting", path=str(path), bytes=path.stat().st_size)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:  # no room for a second copy: everything else works without
        log.warning("log.not_rewritten", path=str(path), error=str(error))


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def check(db: sqlite3.Connection, path: Path, *, exactly: bool = False) -> None:
    """Raise :class:`DataDirError` unless the database is ours (or empty) and no newer than this program.

    ``exactly``: nor empty, nor older.
    """
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if owner != APPLICATION_ID and (owner or tables or exactly):
        raise DataDirError(f"{path} is a database of something else; choose another data directory")
    version = _version(db)
    if version > len(MIGRATIONS):
        raise DataDirError(
            f"{path} was written by a newer hermes-ws (schema {version}; this one knows {len(MIGRATIONS)})"
        )
    if exactly and version < len(MIGRATIONS):
        raise DataDirError(f"{path} was written by an older hermes-ws; start the server once to bring it up to date")
