"""The jail of the file tools: paths that a model names, opened inside the working directory or not at all.

A path is first judged as text (no ``..`` out, no other absolute path), then opened name by name without following a
symbolic link (:mod:`~hermes_ws.tools.tree`). Links are refused even where they point inside: the error says so, and
nothing depends on where a link points at which moment.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, NoReturn, ParamSpec, TypeVar

import anyio.from_thread
import anyio.to_thread

from hermes_ws.errors import ToolError
from hermes_ws.tools.tree import READ, Parts, descend, kind_of, printable

__all__ = ["RELATIVE", "in_thread", "open_directory", "open_file", "parts_of", "patience", "refuse_kind", "refusing"]

P = ParamSpec("P")
T = TypeVar("T")

RELATIVE: Final = "Relative to the working directory."

_REASONS: Final = {
    errno.ENOENT: "does not exist; list_files shows what does",
    errno.ENOTDIR: "leads through something that is not a directory",
    errno.ELOOP: "leads through a symbolic link; the file tools follow none, so use the path it points to",
    errno.EISDIR: "is a directory",
    errno.EACCES: "may not be accessed: permission denied",
    errno.EPERM: "may not be accessed: permission denied",
    errno.ENAMETOOLONG: "is too long, or one of its names is",
    errno.ENOSPC: "cannot be written: no space left",
    errno.EROFS: "cannot be written: the file system is read-only",
    errno.ENXIO: "is not a regular file",
}


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` off the event loop. A stop does not wait for it: it notices by its ``patience`` and ends."""
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), abandon_on_cancel=True)


def patience(seconds: float) -> Callable[[], None]:
    """A check for long work in a thread: it raises when the call was stopped or has taken too long."""
    deadline = time.monotonic() + seconds

    def check() -> None:
        anyio.from_thread.check_cancelled()
        if time.monotonic() > deadline:
            raise ToolError(f"took longer than {seconds:g} s; narrow it down to fewer or smaller files")

    return check


def parts_of(workdir: Path, path: str) -> Parts:
    """The names that lead from the working directory to ``path``; none for the directory itself."""
    if "\0" in path:
        raise ToolError("path: must not contain a NUL character")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ToolError("path: must not contain half of a surrogate pair") from error
    normal = posixpath.normpath("/" + path.lstrip("/") if path.startswith("/") else path)
    if normal.startswith("/"):
        if not PurePosixPath(normal).is_relative_to(workdir):
            raise ToolError(f"{_shown(path)} is outside of the working directory; use a path relative to it")
        normal = str(PurePosixPath(normal).relative_to(workdir))
    parts = () if normal == "." else tuple(normal.split("/"))
    if ".." in parts:
        raise ToolError(f"{_shown(path)} leads out of the working directory; use a path inside of it")
    return parts


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else path[:200] + "…")


@contextmanager
def refusing(path: str) -> Generator[None, None, None]:
    """Turns the system's errors into ones that tell the model what is wrong with ``path``."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or "cannot be used")
        raise ToolError(f"{_shown(path)} {reason}") from error


@contextmanager
def open_directory(workdir: Path, parts: Parts, *, create: bool = False) -> Generator[int, None, None]:
    """The directory at ``parts``; with ``create`` it is made where it is missing. Raises ``ToolError``."""
    with refusing(printable(parts) or "."):
        root = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with _link_told(root, parts, create) as directory:
                yield directory
        finally:
            os.close(root)


@contextmanager
def _link_told(root: int, parts: Parts, create: bool) -> Generator[int, None, None]:
    """``descend``, but a link on the way is told apart from a file: the system calls both "not a directory"."""
    opened = False
    try:
        with descend(root, parts, create=create) as directory:
            opened = True
            yield directory
    except NotADirectoryError as error:
        if not opened and _has_link(root, parts):
            raise OSError(errno.ELOOP, "symbolic link") from error
        raise


def _has_link(root: int, parts: Parts) -> bool:
    for at, name in enumerate(parts):
        with descend(root, parts[:at]) as directory:
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                return stat.S_ISLNK(mode)
    return False


@contextmanager
def open_file(workdir: Path, parts: Parts) -> Generator[int, None, None]:
    """The regular file at ``parts``, for reading. Raises ``ToolError`` for anything else."""
    path = printable(parts) or "."
    if not parts:
        refuse_kind(path, stat.S_IFDIR)
    with open_directory(workdir, parts[:-1]) as directory, refusing(path):
        # Looked at before it is opened, because opening a device can already do something; and after, because it
        # may have been swapped in between.
        _must_be_file(path, os.stat(parts[-1], dir_fd=directory, follow_symlinks=False).st_mode)
        file = os.open(parts[-1], READ, dir_fd=directory)
        try:
            _must_be_file(path, os.fstat(file).st_mode)
            yield file
        finally:
            os.close(file)


def _must_be_file(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        refuse_kind(path, mode)


def refuse_kind(path: str, mode: int) -> NoReturn:
    """Raise the ``ToolError`` that says what is at ``path`` instead of a regular file."""
    what = {
        "dir": "is a directory; list_files shows what is in it",
        "symlink": "is a symbolic link; the file tools follow none, so use the path it points to",
    }.get(kind_of(mode), "is not a regular file but a FIFO, a socket or a device")
    raise ToolError(f"{_shown(path)} {what}")
