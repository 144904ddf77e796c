"""The data directory: whose it is, and where in it things are.

It may hold other people's files; ours all begin with ``hermes-ws`` (or lie in folders that do). One server at a time:
an advisory lock that the kernel drops when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from hermes_ws.errors import DataDirError
from hermes_ws.store.base import ConversationRef

__all__ = ["DataDirectory"]


class DataDirectory:
    """A locked data directory. Raises :class:`DataDirError` when it cannot be had."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.root / "hermes-ws.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(f"the data directory {self.root} cannot be used: {error.strerror}") from error
        self._take_lock()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            message = (
                f"the data directory {self.root} is in use by another hermes-ws (process {holder}); "
                "stop that one, or choose another with --data"
            )
            raise DataDirError(message) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    @property
    def log(self) -> Path:
        """The log's file; made here, so that it is nobody else's to read."""
        path = self.root / "hermes-ws.db"
        path.touch(mode=0o600)
        return path

    @property
    def key(self) -> Path:
        return self.root / "hermes-ws.key"

    def workdir(self, ref: ConversationRef) -> Path:
        """The working directory of a conversation's tools."""
        return self._own("hermes-ws-work") / _name(ref)

    def outputs(self, ref: ConversationRef) -> Path:
        """Where the whole outputs of a conversation's tool calls are kept."""
        return self._own("hermes-ws-outputs") / _name(ref)

    def _own(self, name: str) -> Path:
        """A folder of ours that nobody else may look into, also where the directory is somebody else's."""
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def close(self) -> None:
        """Let another server have it."""
        os.close(self._lock)


def _name(ref: ConversationRef) -> str:
    """Names on disk are hashes: ids are the client's, and file systems have opinions about names."""
    return hashlib.sha256("\0".join(ref).encode()).hexdigest()[:32]
