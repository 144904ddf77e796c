"""Keys in files that only their owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import structlog

from hermes_ws.errors import SettingsError

__all__ = ["make_key", "read_key"]

log = structlog.get_logger("hermes_ws.server")


def make_key(path: Path, key: str) -> None:
    """Keep a new key, on disk before this returns. Raises :class:`FileExistsError` where there is one, and any other
    OSError with nothing kept."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(path.parent)
    except OSError:
        path.unlink()
        raise


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_key(path: Path, *, if_broken: str, if_empty: str) -> str:
    """The key in a file, with a warning if others can read it. Raises :class:`SettingsError` that ends with what to do
    about it."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            log.warning("key.readable_by_others", path=str(path))
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not text"
        raise SettingsError(f"the key in {path} cannot be read: {reason}; {if_broken}") from None
    if not key:
        raise SettingsError(f"{path} is empty; {if_empty}")
    return key
