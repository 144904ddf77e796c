"""``read_file``, ``write_file``, ``edit_file``: whole text files of the working directory."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import ToolDescription
from hermes_ws.tools.base import ToolContext, ToolResult, ToolSettings
from hermes_ws.tools.describe import ACTS, READS, REPLACES, describe
from hermes_ws.tools.paths import (
    RELATIVE,
    in_thread,
    open_directory,
    open_file,
    parts_of,
    patience,
    refuse_kind,
    refusing,
)
from hermes_ws.tools.tree import Parts, kind_of, looks_binary, printable

__all__ = ["EditFile", "ReadFile", "WriteFile"]

_PATH: Final = {"type": "string", "minLength": 1, "description": RELATIVE}
_CHUNK: Final = 65_536
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS: Final = 20

_swap = threading.Lock()
"""Held between the last look at a file and its replacement, so that of two edits at once neither is lost."""


class _Changed(Exception):
    """The file is no longer the one that was read."""


# -- read_file -----------------------------------------------------------------------------------------


class _Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    path: str
    size: int
    first_line: int
    lines: int
    truncated: bool
    next_offset_line: int | None = None


class ReadFile:
    """Returns text, by lines where it is too long to be returned at once."""

    def __init__(self, settings: ToolSettings) -> None:
        self.description: ToolDescription = describe(
            "read_file",
            "Read file",
            f"Read a text file. At most {settings.read_bytes} bytes come at once; go on with offset_line.",
            properties={
                "path": _PATH,
                "offset_line": {"type": "integer", "minimum": 1, "description": "First line, counted from 1."},
                "limit_lines": {"type": "integer", "minimum": 1, "description": "At most this many lines."},
            },
            required=["path"],
            annotations=READS,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        parts = parts_of(ctx.workdir, arguments["path"])
        page, text = await in_thread(
            _read_page,
            ctx.workdir,
            parts,
            first=arguments.get("offset_line", 1),
            count=arguments.get("limit_lines"),
            limit=ctx.settings.read_bytes,
            within_s=ctx.settings.search_timeout_s,
        )
        return ToolResult(output=text, structured=msgspec.to_builtins(page))


def _read_page(
    workdir: Path, parts: Parts, *, first: int, count: int | None, limit: int, within_s: float
) -> tuple[_Page, str]:
    with open_file(workdir, parts) as fd, os.fdopen(fd, "rb", closefd=False) as file:
        path, size = printable(parts), os.fstat(fd).st_size
        if looks_binary(file.peek()):
            raise ToolError(f"{path!r} is a binary file of {size} bytes; use the terminal to look into it")
        _skip_lines(file, first - 1, path, patience(within_s))
        data = file.read(limit + 1)
        kept = _cut(data, count, limit)
        more = len(kept) < len(data)
        text = kept.decode("utf-8", "ignore" if more and not kept.endswith(b"\n") and _is_utf8(kept) else "replace")
    lines = kept.count(b"\n") + (not kept.endswith(b"\n") and kept != b"")
    page = _Page(path=path, size=size, first_line=first, lines=lines, truncated=more)
    if not more:
        return page, text
    following = first + lines
    note = f"[lines {first} to {following - 1}; the file goes on: read_file with offset_line={following}]"
    line_end = "" if text.endswith("\n") else "\n"
    return msgspec.structs.replace(page, next_offset_line=following), f"{text}{line_end}{note}\n"


def _skip_lines(file: BinaryIO, lines: int, path: str, check: Callable[[], None]) -> None:
    left = lines
    while left:
        check()
        chunk = file.read(_CHUNK)
        if not chunk:
            raise ToolError(f"offset_line: {path!r} has only {lines - left + 1} lines")
        after = _end_of_line(chunk, left)
        left -= chunk.count(b"\n", 0, after)
        file.seek(after - len(chunk), os.SEEK_CUR)


def _end_of_line(chunk: bytes, lines: int) -> int:
    """Where the ``lines``-th line of the chunk ends, or the chunk."""
    at = 0
    for _ in range(lines):
        found = chunk.find(b"\n", at)
        if found < 0:
            return len(chunk)
        at = found + 1
    return at


def _cut(data: bytes, lines: int | None, limit: int) -> bytes:
    """At most ``limit`` bytes, whole lines if one fits, and no more of them than ``lines``."""
    kept = data if len(data) <= limit else data[: data.rfind(b"\n", 0, limit) + 1] or data[:limit]
    return kept if lines is None else kept[: _end_of_line(kept, lines)]


def _is_utf8(data: bytes) -> bool:
    """Whether it is UTF-8 up to a character that may be cut off at the end."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(data) and len(data) - error.start < 4
    return True


# -- write_file ----------------------------------------------------------------------------------------


class WriteFile:
    """Creates a file or replaces what it holds, in one step: nobody sees half of it."""

    def __init__(self, settings: ToolSettings) -> None:
        self.description: ToolDescription = describe(
            "write_file",
            "Write file",
            f"Create a text file or replace its whole content (at most {settings.write_bytes} bytes). Missing "
            "directories are created. Use edit_file to change a part of a file.",
            properties={"path": _PATH, "content": {"type": "string", "description": "All that the file will hold."}},
            required=["path", "content"],
            annotations=REPLACES,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        parts = parts_of(ctx.workdir, arguments["path"])
        data = _encode(arguments["content"], ctx.settings.write_bytes)
        check = patience(ctx.settings.search_timeout_s)
        created = await in_thread(_replace, ctx.workdir, parts, data, check)
        path = printable(parts)
        return ToolResult(
            output=f"{'created' if created else 'replaced'} {path} ({len(data)} bytes)",
            structured={"path": path, "bytes": len(data), "created": created},
        )


def _encode(text: str, limit: int) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ToolError("the text cannot be written as UTF-8: it holds half of a surrogate pair") from error
    if len(data) > limit:
        raise ToolError(f"the file would hold {len(data)} bytes; at most {limit} are allowed")
    return data


def _replace(
    workdir: Path, parts: Parts, data: bytes, check: Callable[[], None], expected: os.stat_result | None = None
) -> bool:
    """Put ``data`` at ``parts``; returns whether the file is new.

    A file beside it is written and renamed over it: a reader sees the old or the new, a hard link elsewhere keeps
    the old, and a link put there in the meantime is replaced, not followed. Raises ``_Changed`` if the file is not
    the ``expected`` one.
    """
    path = printable(parts) or "."
    if not parts:
        raise ToolError("path: is the working directory; name a file in it")
    with open_directory(workdir, parts[:-1], create=True) as directory, refusing(path):
        old = _look(directory, parts[-1])
        if old is not None and kind_of(old.st_mode) != "file":
            refuse_kind(path, old.st_mode)
        draft = f".{secrets.token_hex(8)}.tmp"
        try:
            _write_draft(directory, draft, data, old)
            check()
            _swap_in(directory, draft, parts[-1], expected)
        except BaseException:
            _remove(directory, draft)
            raise
    return old is None


def _look(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _write_draft(directory: int, draft: str, data: bytes, old: os.stat_result | None) -> None:
    with os.fdopen(os.open(draft, _NEW, 0o666, dir_fd=directory), "wb") as file:
        if old is not None:
            os.fchmod(file.fileno(), old.st_mode & 0o777)
        file.write(data)


def _swap_in(directory: int, draft: str, name: str, expected: os.stat_result | None) -> None:
    with _swap:
        if expected is not None and _version(_look(directory, name)) != _version(expected):
            raise _Changed
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)


def _version(status: os.stat_result | None) -> tuple[int, ...] | None:
    return None if status is None else (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


# -- edit_file -----------------------------------------------------------------------------------------


class EditFile:
    """Replaces a passage, which must be there exactly once unless all are meant."""

    def __init__(self, settings: ToolSettings) -> None:
        self.description: ToolDescription = describe(
            "edit_file",
            "Edit file",
            "Replace a passage of a text file. old_text must be in the file exactly as given, white space included, "
            "and only once, unless replace_all is true.",
            properties={
                "path": _PATH,
                "old_text": {"type": "string", "minLength": 1, "description": "What is there now."},
                "new_text": {"type": "string", "description": "What is to be there instead."},
                "replace_all": {"type": "boolean", "description": "Replace every occurrence. Default false."},
            },
            required=["path", "old_text", "new_text"],
            annotations=ACTS,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        if arguments["old_text"] == arguments["new_text"]:
            raise ToolError("new_text: is the same as old_text; there is nothing to change")
        parts = parts_of(ctx.workdir, arguments["path"])
        check = patience(ctx.settings.search_timeout_s)
        count = await in_thread(
            _edit,
            ctx.workdir,
            parts,
            lambda text: _substitute(
                text, arguments["old_text"], arguments["new_text"], arguments.get("replace_all", False)
            ),
            ctx.settings.write_bytes,
            check,
        )
        path = printable(parts)
        passages = "1 passage" if count == 1 else f"{count} passages"
        return ToolResult(output=f"replaced {passages} in {path}", structured={"path": path, "replacements": count})


def _edit(
    workdir: Path,
    parts: Parts,
    change: Callable[[str], tuple[str, int]],
    limit: int,
    check: Callable[[], None],
) -> int:
    """Read, change, write; anew if somebody wrote in between. Returns how many passages were changed."""
    for _ in range(_ATTEMPTS):
        text, read = _read_whole(workdir, parts, limit)
        changed, count = change(text)
        try:
            _replace(workdir, parts, _encode(changed, limit), check, expected=read)
        except _Changed:
            continue
        return count
    raise ToolError(f"{printable(parts)!r} keeps being changed by somebody else; try again later")


def _read_whole(workdir: Path, parts: Parts, limit: int) -> tuple[str, os.stat_result]:
    path = printable(parts)
    with open_file(workdir, parts) as fd, os.fdopen(fd, "rb", closefd=False) as file:
        status = os.fstat(fd)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ToolError(f"{path!r} is larger than {limit} bytes; use the terminal to change it")
    try:
        return data.decode(), status
    except UnicodeDecodeError as error:
        raise ToolError(f"{path!r} is not UTF-8 text; use the terminal to change it") from error


def _substitute(text: str, old: str, new: str, everywhere: bool) -> tuple[str, int]:
    count = text.count(old)
    if not count:
        raise ToolError(f"old_text: is not in the file{_near_miss(text, old)}")
    if count > 1 and not everywhere:
        raise ToolError(
            f"old_text: is in the file {count} times (lines {_lines(text, old)}); add text around it until it is "
            "there only once, or set replace_all"
        )
    return text.replace(old, new), count


def _near_miss(text: str, old: str) -> str:
    if old.replace("\r\n", "\n") in text.replace("\r\n", "\n"):
        return ", but it would be if its line ends were those of the file (\\r\\n or \\n)"
    if " ".join(old.split()) in " ".join(text.split()):
        return ", but it would be with other white space; copy it exactly from read_file"
    return "; read_file shows what is"


def _lines(text: str, old: str) -> str:
    """The numbers of the first lines in which ``old`` begins."""
    starts: list[int] = []
    at = text.find(old)
    while at >= 0 and len(starts) < 5:
        starts.append(text.count("\n", 0, at) + 1)
        at = text.find(old, at + len(old))
    return ", ".join(map(str, starts)) + (", …" if at >= 0 else "")
