"""The process in which ``search_files`` matches.

A regular expression can take longer than the world lasts, and nothing in Python stops one. So it runs here, where it
can be killed. The request is one JSON argument; the answer is JSON lines on stdout: matches, then a summary, or one
failure. The directory to search is an open descriptor that was inherited: no path is trusted here.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import Any, Final

from hermes_ws.tools.tree import READ, Parts, Tree, descend, fits, looks_binary, printable

__all__ = ["main"]

_WIDTH: Final = 400
"""Characters of a line that are shown."""
_BEFORE: Final = 100
_UNSEARCHED: Final = frozenset({".git"})


class _Search:
    def __init__(self, request: dict[str, Any], pattern: re.Pattern[str]) -> None:
        self._fd: int = request["fd"]
        self._prefix: Parts = tuple(request["parts"])
        self._glob: str | None = request["glob"]
        self._largest: int = request["file_bytes"]
        self._pattern = pattern
        self._left: int = request["matches"]
        self.summary: dict[str, Any] = {"searched": 0, "skipped": 0, "truncated": False}

    def run(self) -> None:
        for parts, data in self._texts():
            self.summary["searched"] += 1
            for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
                if match := self._pattern.search(line):
                    if not self._left:
                        self.summary["truncated"] = True
                        return
                    self._left -= 1
                    _answer("match", path=printable(parts), line=number, text=_shown(line, match.start()))

    def _texts(self) -> Iterator[tuple[Parts, bytes]]:
        if stat.S_ISREG(os.fstat(self._fd).st_mode):
            yield from self._text(self._prefix, self._fd)
            return
        tree = Tree(self._fd)
        for entry in tree.walk(recursive=True, skip=_UNSEARCHED):
            if entry.kind == "file" and (self._glob is None or fits(entry.parts, self._glob)):
                yield from self._open(entry.parts)
        self.summary["truncated"] = self.summary["truncated"] or tree.incomplete

    def _open(self, parts: Parts) -> Iterator[tuple[Parts, bytes]]:
        try:
            with descend(self._fd, parts[:-1]) as directory:
                fd = os.open(parts[-1], READ, dir_fd=directory)
        except OSError:
            self.summary["skipped"] += 1
            return
        try:
            yield from self._text((*self._prefix, *parts), fd)
        finally:
            os.close(fd)

    def _text(self, parts: Parts, fd: int) -> Iterator[tuple[Parts, bytes]]:
        """The file's bytes if it is a text file of a size that is searched."""
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_size <= self._largest:
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(self._largest)
            if not looks_binary(data):
                yield parts, data
                return
        self.summary["skipped"] += 1


def _shown(line: str, at: int) -> str:
    start = max(0, at - _BEFORE) if at > _WIDTH - _BEFORE else 0
    end = start + _WIDTH
    return ("…" if start else "") + line[start:end].rstrip("\r") + ("…" if len(line) > end else "")


def _answer(kind: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"type": kind, **fields}) + "\n")


def main() -> None:
    """Search as the first argument says."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    try:
        pattern = re.compile(request["pattern"], re.IGNORECASE if request["ignore_case"] else 0)
    except (re.error, RecursionError, OverflowError) as error:
        _answer("failure", error=str(error))
        return
    search = _Search(request, pattern)
    search.run()
    _answer("summary", **search.summary)
