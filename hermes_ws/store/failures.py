"""What SQLite's errors mean to whoever runs the server."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from hermes_ws.errors import StorageFull, StoreError

__all__ = ["LogUnusable", "store_error"]

_PROBE_BYTES: Final = 65_536
"""What must be writable for an I/O error to have another reason than a full disk."""
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL: Final = "no space is left to append to the log"


class LogUnusable(StoreError):
    """Nothing can be written just now, whatever it is: to try appends one by one would not help."""


def store_error(error: sqlite3.Error, log: Path) -> StoreError:
    """What to tell of ``error``, and what to do; ``log`` is the file it is about."""
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    if name == "SQLITE_FULL":
        return StorageFull(_FULL)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LogUnusable(f"another program holds the log {log} and has not let go of it in time; see who has it open")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return LogUnusable(
            f"the log {log} is damaged ({error}): stop the server, keep a copy of the file and of those beside it, "
            f"then put back a backup, or save what can be read with: sqlite3 {log.name} .recover"
        )
    if name.startswith("SQLITE_READONLY"):
        return LogUnusable(f"the log {log} cannot be written: it, or the file system it is on, is read-only")
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
        if _out_of_space(log):
            return StorageFull(_FULL)
        if not os.access(log, os.W_OK):
            return LogUnusable(f"the log {log} cannot be written: it, or the file system it is on, is read-only")
        return LogUnusable(f"the disk refused the log {log}: {error} ({name})")
    return StoreError(f"the log refused: {error} ({name})")


def _out_of_space(log: Path) -> bool:
    """SQLite knows a full disk by one errno, at some calls; a quota, a limit or a full tmpfs it calls an I/O error."""
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY:
        for path in (log, log.with_name(log.name + "-wal")):
            with suppress(OSError):
                if path.stat().st_size + _PROBE_BYTES > largest:
                    return True
    try:
        with tempfile.TemporaryFile(dir=log.parent, prefix="hermes-ws-") as probe:
            probe.write(b"\0" * _PROBE_BYTES)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.errno in _NO_SPACE
    return False
