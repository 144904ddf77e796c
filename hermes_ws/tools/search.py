"""``list_files`` and ``search_files``: finding things in the working directory."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec

import hermes_ws
from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import ToolDescription
from hermes_ws.tools.base import ToolContext, ToolResult, ToolSettings
from hermes_ws.tools.describe import READS, describe
from hermes_ws.tools.leftovers import mark
from hermes_ws.tools.paths import RELATIVE, in_thread, open_directory, open_file, parts_of, patience, refusing
from hermes_ws.tools.process import Stream, run_process
from hermes_ws.tools.tree import Entry, Kind, Parts, Tree, fits, printable

__all__ = ["ListFiles", "SearchFiles"]

_GLOB: Final = {
    "type": "string",
    "minLength": 1,
    "description": "Only what fits, such as *.py (a name) or src/**/*.py (a path below the one searched).",
}
_MARKS: Final[dict[Kind, str]] = {"dir": "/", "symlink": "@", "file": "", "other": "?"}


# -- list_files ----------------------------------------------------------------------------------------


class ListFiles:
    """Names, kinds and sizes. Symbolic links are shown, never followed."""

    def __init__(self, settings: ToolSettings) -> None:
        self.description: ToolDescription = describe(
            "list_files",
            "List files",
            f"List a directory, by default the working directory; at most {settings.list_entries} entries. A "
            "directory ends with /, a symbolic link with @; a file is followed by its size in bytes.",
            properties={
                "path": {"type": "string", "minLength": 1, "description": RELATIVE},
                "glob": _GLOB,
                "recursive": {
                    "type": "boolean",
                    "description": "Also what is in directories below. Default: only if the glob has a /.",
                },
            },
            required=[],
            annotations=READS,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        glob = arguments.get("glob")
        recursive = arguments.get("recursive", glob is not None and "/" in glob)
        parts = parts_of(ctx.workdir, arguments.get("path", "."))
        entries, truncated = await in_thread(_list, ctx.workdir, parts, glob, recursive, ctx.settings)
        lines = [_line(entry) for entry in entries]
        if truncated:
            lines.append("[there is more; narrow it down with path or glob]")
        structured = {"entries": [_described(entry) for entry in entries], "truncated": truncated}
        return ToolResult(output="\n".join(lines) if lines else "(nothing)", structured=structured)


def _list(
    workdir: Path, parts: Parts, glob: str | None, recursive: bool, settings: ToolSettings
) -> tuple[list[Entry], bool]:
    check = patience(settings.search_timeout_s)
    entries: list[Entry] = []
    with open_directory(workdir, parts) as directory:
        tree = Tree(directory, check=check)
        for entry in tree.walk(recursive=recursive):
            if glob is None or fits(entry.parts, glob):
                if len(entries) == settings.list_entries:
                    return entries, True
                entries.append(entry._replace(parts=(*parts, *entry.parts)))
    return entries, tree.incomplete


def _line(entry: Entry) -> str:
    size = "" if entry.size is None else f"  {entry.size}"
    return f"{printable(entry.parts)}{_MARKS[entry.kind]}{size}"


def _described(entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {"path": printable(entry.parts), "type": entry.kind}
    return described if entry.size is None else {**described, "size": entry.size}


# -- search_files --------------------------------------------------------------------------------------


class _Match(msgspec.Struct, frozen=True, tag="match"):
    path: str
    line: int
    text: str


class _Summary(msgspec.Struct, frozen=True, tag="summary"):
    searched: int
    skipped: int
    truncated: bool


class _Failure(msgspec.Struct, frozen=True, tag="failure"):
    error: str


_Said = _Match | _Summary | _Failure
_decoder: Final[msgspec.json.Decoder[_Said]] = msgspec.json.Decoder(_Said)


class SearchFiles:
    """Lines that a regular expression matches, found in a process of its own that can be killed."""

    def __init__(self, settings: ToolSettings) -> None:
        self.description: ToolDescription = describe(
            "search_files",
            "Search files",
            "Search text files, line by line, for a regular expression (Python's). Binary files, files larger than "
            f"{settings.search_file_bytes} bytes and what is in .git are left out. At most "
            f"{settings.search_matches} matches.",
            properties={
                "pattern": {"type": "string", "minLength": 1, "description": "Regular expression."},
                "path": {"type": "string", "minLength": 1, "description": f"Directory or file. {RELATIVE}"},
                "glob": _GLOB,
                "ignore_case": {"type": "boolean", "description": "Default false."},
            },
            required=["pattern"],
            annotations=READS,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        matches, summary = _parse(await _answer(ctx, arguments))
        lines = [f"{match.path}:{match.line}: {match.text}" for match in matches] or ["no matches"]
        if summary.truncated:
            lines.append("[there is more; narrow it down with path, glob or a longer pattern]")
        structured = {
            "matches": [msgspec.structs.asdict(match) for match in matches],
            **msgspec.structs.asdict(summary),
        }
        return ToolResult(output="\n".join(lines), structured=structured)


async def _answer(ctx: ToolContext, arguments: dict[str, Any]) -> str:
    """What the worker wrote."""
    parts = parts_of(ctx.workdir, arguments.get("path", "."))
    settings = ctx.settings
    answer: list[str] = []

    async def collect(stream: Stream, chunk: str) -> None:
        if stream == "stdout":
            answer.append(chunk)

    with ExitStack() as opened:
        # Not abandoned when stopped, as `in_thread` would: what was opened has to be closed again.
        fd = await anyio.to_thread.run_sync(_open_target, opened, ctx.workdir, parts)
        ended = await run_process(
            [*_worker(), _request(fd, parts, arguments, settings)],
            cwd=Path("/"),
            env={},
            marked=mark(ctx.run_id, ctx.call_id),
            timeout_s=settings.search_timeout_s,
            grace_s=lambda: 0.0,
            report=collect,
            pass_fds=[fd],
        )
    if ended.timed_out:
        raise ToolError(
            f"the search took longer than {settings.search_timeout_s:g} s; search fewer files, or use a pattern "
            "without nested repetitions such as (a+)+"
        )
    return "".join(answer)


def _open_target(opened: ExitStack, workdir: Path, parts: Parts) -> int:
    """The directory or file to search."""
    if not parts:
        return opened.enter_context(open_directory(workdir, parts))
    with open_directory(workdir, parts[:-1]) as above, refusing(printable(parts)):
        mode = os.stat(parts[-1], dir_fd=above, follow_symlinks=False).st_mode
    return opened.enter_context((open_directory if stat.S_ISDIR(mode) else open_file)(workdir, parts))


def _worker() -> list[str]:
    """A Python that sees the standard library and this package: no site, no environment, no current directory."""
    root = str(Path(hermes_ws.__file__).parents[1])
    start = "import sys; sys.path.append(sys.argv.pop(1)); from hermes_ws.tools.search_worker import main; main()"
    return [sys.executable, "-I", "-S", "-c", start, root]


def _request(fd: int, parts: Parts, arguments: dict[str, Any], settings: ToolSettings) -> str:
    request = {
        "fd": fd,
        "parts": parts,
        "pattern": arguments["pattern"],
        "ignore_case": arguments.get("ignore_case", False),
        "glob": arguments.get("glob"),
        "matches": settings.search_matches,
        "file_bytes": settings.search_file_bytes,
    }
    return msgspec.json.encode(request).decode()


def _parse(answer: str) -> tuple[list[_Match], _Summary]:
    matches: list[_Match] = []
    for line in answer.splitlines():
        match _decoder.decode(line):
            case _Match() as found:
                matches.append(found)
            case _Summary() as summary:
                return matches, summary
            case _Failure(error=error):
                raise ToolError(f"pattern: is not a regular expression of Python's: {error}")
    raise ToolError("the search ended before it was done; search fewer files")
