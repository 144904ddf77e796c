"""Walking a directory tree without ever leaving it.

Every directory is opened name by name from one that is already open, and no symbolic link is followed, at any place.
There is no moment between looking and opening in which somebody could swap one for the other. The standard library
only: the search's worker process imports this.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from itertools import islice
from typing import Final, Literal, NamedTuple

__all__ = ["READ", "Entry", "Kind", "Parts", "Tree", "descend", "fits", "kind_of", "looks_binary", "printable"]

Kind = Literal["file", "dir", "symlink", "other"]
Parts = tuple[str, ...]

READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Opens a file for reading and never waits: not for the other end of a FIFO, not for a device."""
_DIRECTORY: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_PER_DIRECTORY: Final = 50_000
_SNIFFED: Final = 8_192


class Entry(NamedTuple):
    """Something in the tree. ``parts`` are the names on the way to it; ``size`` is set for files, in bytes."""

    parts: Parts
    kind: Kind
    size: int | None


def kind_of(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "dir"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def printable(parts: Sequence[str]) -> str:
    """A path as text that can be encoded, whatever bytes the names are made of."""
    return os.fsencode("/".join(parts)).decode("utf-8", "replace")


def looks_binary(data: bytes) -> bool:
    return b"\0" in data[:_SNIFFED]


@contextmanager
def descend(start: int, names: Sequence[str], *, create: bool = False) -> Generator[int, None, None]:
    """The directory that ``names`` lead to from the open directory ``start``. Raises ``OSError``."""
    current = os.dup(start)
    try:
        for name in names:
            below = _enter(current, name, create)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _enter(directory: int, name: str, create: bool) -> int:
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


class Tree:
    """What is below an open directory, in order of names, a directory right before what it holds."""

    def __init__(self, root: int, *, check: Callable[[], None] | None = None) -> None:
        self._root = root
        self._check = check
        self.incomplete = False
        """Whether a directory could not be read, or held more than anybody wants to know."""

    def walk(self, *, recursive: bool, skip: frozenset[str] = frozenset()) -> Iterator[Entry]:
        """All entries; directories named in ``skip`` are listed but not entered."""
        waiting = self._read(())
        while waiting:
            entry = waiting.pop()
            yield entry
            if recursive and entry.kind == "dir" and entry.parts[-1] not in skip:
                waiting += self._read(entry.parts)

    def _read(self, parts: Parts) -> list[Entry]:
        """One directory, last name first."""
        if self._check is not None:
            self._check()
        try:
            with descend(self._root, parts) as directory, os.scandir(directory) as found:
                entries = [_entry(parts, one) for one in islice(found, _PER_DIRECTORY)]
        except OSError:
            self.incomplete = True
            return []
        self.incomplete |= len(entries) == _PER_DIRECTORY
        return sorted(entries, reverse=True)


def _entry(parts: Parts, found: os.DirEntry[str]) -> Entry:
    try:
        status = found.stat(follow_symlinks=False)
    except OSError:
        return Entry((*parts, found.name), "other", None)
    kind = kind_of(status.st_mode)
    return Entry((*parts, found.name), kind, status.st_size if kind == "file" else None)


def fits(parts: Parts, glob: str) -> bool:
    """Whether a path fits a glob. Without ``/`` the glob is about the name; ``**`` is any number of directories.

    The positions in the glob that have been reached move along together, so no glob takes exponential time.
    """
    wanted = glob.strip("/").split("/")
    if len(wanted) == 1 and wanted != ["**"]:
        return fnmatchcase(parts[-1], wanted[0])
    reached = _past_stars({0}, wanted)
    for name in parts:
        stay = {at for at in reached if at < len(wanted) and wanted[at] == "**"}
        move = {at + 1 for at in reached if at < len(wanted) and at not in stay and fnmatchcase(name, wanted[at])}
        reached = _past_stars(stay | move, wanted)
    return len(wanted) in reached


def _past_stars(reached: set[int], wanted: list[str]) -> set[int]:
    """``**`` may also stand for no directory at all."""
    for at, name in enumerate(wanted):
        if at in reached and name == "**":
            reached.add(at + 1)
    return reached
