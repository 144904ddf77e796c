"""The data directory: whose it is, where in it things are, and how they go away.

It may hold other people's files; ours all begin with ``hermes-ws`` (or lie in folders that do). One server at a time:
an advisory lock that the kernel drops when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final

import structlog

from hermes_ws.errors import DataDirError
from hermes_ws.store.base import ConversationRef

__all__ = ["EPHEMERAL", "LOG", "UNBEGUN", "DataDirectory", "Folders", "is_ephemeral"]

log = structlog.get_logger("hermes_ws.store")

LOG: Final = "hermes-ws.db"
"""Name of the log in its data directory."""
UNBEGUN: Final = "unbegun"
"""A file in a conversation's folder of images that was made before its first event: its namespace and id are in it."""
EPHEMERAL: Final = "ephemeral_"
"""What the ids of conversations begin with that are not kept."""
_PASSING: Final = ".ephemeral"
"""What their folders end with: those that a crash left are nobody's."""
_WORK: Final = "hermes-ws-work"
_OUTPUTS: Final = "hermes-ws-outputs"
_IMAGES: Final = "hermes-ws-images"
_POOLS: Final = "hermes-ws-blobs"
_KINDS: Final = (_WORK, _OUTPUTS, _IMAGES)
"""Where each conversation has a folder of its own."""
_TRASH: Final = "hermes-ws-trash"
_ASIDE: Final = ".deleting"
"""What the folders of a conversation that is just being deleted end with."""
_DELETED: Final = ".deleted"
"""What folders of deleted conversations end with that could not be moved into the trash."""


def is_ephemeral(ref: ConversationRef) -> bool:
    """Whether a conversation is one that is not kept."""
    return ref.conversation_id.startswith(EPHEMERAL)


class Folders:
    """The files of conversations in a data directory, for whoever may touch them, locked or not."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def workdir(self, ref: ConversationRef) -> Path:
        """The working directory of a conversation's tools."""
        return self._own(_WORK) / _name(ref)

    def outputs(self, ref: ConversationRef) -> Path:
        """Where the whole outputs of a conversation's tool calls are kept."""
        return self._own(_OUTPUTS) / _name(ref)

    def images(self, ref: ConversationRef) -> Path:
        """The images that a conversation refers to."""
        return self._own(_IMAGES) / _name(ref)

    def pool(self, namespace: str) -> Path:
        """All images of a namespace, each once."""
        return self._own(_POOLS) / hashlib.sha256(namespace.encode()).hexdigest()[:32]

    @property
    def blobs_lock(self) -> Path:
        """The file that is locked by who adds images, together, and by who removes some, alone."""
        return self._own(_POOLS) / "lock"

    def pools(self) -> Iterator[Path]:
        """The pools of all namespaces."""
        return (path for path in _entries(self.root / _POOLS) if path.is_dir())

    def unbegun(self) -> Iterator[Path]:
        """Folders of images that were made before their conversation. Those of one that is not kept go with it."""
        ours = (path for path in _entries(self.root / _IMAGES) if not path.name.endswith((_ASIDE, _PASSING)))
        return (path for path in ours if _waits(path))

    def _own(self, name: str) -> Path:
        """A folder of ours that nobody else may look into, also where the directory is somebody else's."""
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _folders_of(self, ref: ConversationRef) -> list[Path]:
        return [self.root / kind / _name(ref) for kind in _KINDS]

    def set_aside(self, ref: ConversationRef) -> None:
        """Take a conversation's files out of use: it is about to be deleted from the log. After that they are
        discarded; if it comes to nothing, :meth:`put_back`. Raises OSError, with everything where it was."""
        try:
            for path in self._folders_of(ref):
                aside = _aside(path)
                if aside.exists():  # of an earlier life under the same name
                    self.to_trash(aside)
                with suppress(FileNotFoundError):
                    path.rename(aside)
        except OSError:
            self.put_back(ref)
            raise

    def put_back(self, ref: ConversationRef) -> None:
        """The conversation stays: so do its files."""
        for path in self._folders_of(ref):
            with suppress(OSError):
                _aside(path).rename(path)

    def put_all_back(self) -> None:
        """After a crash, when those of deleted conversations are discarded: what is still set aside belongs to one that
        was not deleted after all."""
        for kind in _KINDS:
            for path in _entries(self.root / kind):
                if path.name.endswith(_ASIDE):
                    with suppress(OSError):
                        path.rename(path.with_name(path.name.removesuffix(_ASIDE)))

    def has_files(self, ref: ConversationRef) -> bool:
        """Whether anything of a conversation is on disk."""
        return any(path.exists() for path in self._folders_of(ref))

    def discard_ephemeral(self) -> int:
        """Take away what conversations that were not to be kept have left; how many folders. Only at the start: later
        there are some in use."""
        left = [p for kind in _KINDS for p in _entries(self.root / kind) if _PASSING in p.name]
        for path in left:
            with suppress(OSError):  # what cannot be moved is no reason not to start
                self.to_trash(path)
        return len(left)

    def discard(self, ref: ConversationRef) -> None:
        """Take a conversation's files away, at once; :meth:`empty_trash` removes them. Raises OSError if they stay.

        Images that wait for a conversation to begin belong to the next one of that name.
        """
        for path in self._folders_of(ref):
            for one in (path, _aside(path)):
                if one is path and _waits(path):
                    continue
                with suppress(FileNotFoundError):
                    self.to_trash(one)

    def to_trash(self, path: Path) -> None:
        """Move ``path`` into the trash beside it; if that cannot be, at least away from its name, for good."""
        if not path.is_symlink():
            path.chmod(0o700)  # only a folder that may be written to can be moved into another one
        trash = path.parent / _TRASH
        try:
            trash.mkdir(mode=0o700, exist_ok=True)
            path.rename(trash / secrets.token_hex(16))
        except OSError:
            path.rename(path.with_name(secrets.token_hex(16) + _DELETED))

    def empty_trash(self) -> None:
        """Remove what was discarded. Blocks; what cannot be removed stays there, and is logged.

        Folders in folders are moved up before they are removed, so that no path is too long, however deep they are.
        """
        waiting: list[Path] = []
        for folder in (self.root / kind for kind in _KINDS):
            for path in _entries(folder):
                if path.name.endswith(_DELETED):
                    with suppress(OSError):
                        self.to_trash(path)
            waiting += _entries(folder / _TRASH)
        left = 0
        while waiting:
            path = waiting.pop()
            try:
                if path.is_symlink() or not path.is_dir():
                    path.unlink()
                else:
                    waiting += _emptied(path)
                    path.rmdir()
            except FileNotFoundError:  # somebody else is emptying it too
                continue
            except OSError:
                left += 1
        if left:
            log.warning("trash.not_empty", directory=str(self.root), left=left)

    def remove_old_outputs(self, before: int) -> int:
        """Remove outputs of tool calls that were last written before ``before`` (Unix ms); how many. Blocks."""
        count = 0
        for path in chain.from_iterable(map(_entries, _entries(self.root / _OUTPUTS))):
            with suppress(OSError):
                if path.suffix == ".txt" and path.lstat().st_mtime_ns < before * 1_000_000:
                    path.unlink()
                    count += 1
        return count


class DataDirectory(Folders):
    """A locked data directory. Raises :class:`DataDirError` when it cannot be had."""

    def __init__(self, root: Path) -> None:
        super().__init__(root.expanduser().resolve())
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
        with suppress(OSError):  # no room, even for that: whoever makes something of more use here says so
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    @property
    def log(self) -> Path:
        """The log's file; made here, so that it is nobody else's to read."""
        path = self.root / LOG
        path.touch(mode=0o600)
        return path

    @property
    def key(self) -> Path:
        return self.root / "hermes-ws.key"

    def close(self) -> None:
        """Let another server have it."""
        os.close(self._lock)


def _entries(folder: Path) -> Iterator[Path]:
    """What is in a folder; nothing if there is none."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from [folder / entry.name for entry in entries]


def _emptied(folder: Path) -> list[Path]:
    """Remove what is in ``folder``, whatever its permissions; folders in it are moved up, beside it, and returned."""
    folder.chmod(0o700)
    moved: list[Path] = []
    for path in _entries(folder):
        with suppress(OSError):  # then the folder is not empty, and says so
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            else:
                path.chmod(0o700)
                moved.append(path.rename(folder.parent / secrets.token_hex(16)))
    return moved


def _waits(folder: Path) -> bool:
    """Whether a folder holds images whose conversation has not begun."""
    return folder.parent.name == _IMAGES and (folder / UNBEGUN).exists()


def _aside(path: Path) -> Path:
    return path.with_name(path.name + _ASIDE)


def _name(ref: ConversationRef) -> str:
    """Names on disk are hashes: ids are the client's, and file systems have opinions about names."""
    name = hashlib.sha256("\0".join(ref).encode()).hexdigest()[:32]
    return name + _PASSING if is_ephemeral(ref) else name
