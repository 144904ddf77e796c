"""What a call wrote: all of it on disk, up to a bound, and its beginning and end in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final

from hermes_ws.preview import cut

__all__ = ["OutputKeeper"]

_SLICE: Final = 65_536
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class OutputKeeper:
    """Takes a call's output as it grows; gives the preview of it that the event and the model get.

    The file is made only when the text no longer fits a preview, is readable for its owner alone, and holds at most
    ``keep_bytes`` plus a closing line that says what was dropped. Memory is bounded by ``preview_bytes``. If the file
    cannot be written, the call goes on, and the preview says that the rest is lost.
    """

    def __init__(
        self, path: Path, *, preview_bytes: int, keep_bytes: int, address: str, together_bytes: int | None = None
    ) -> None:
        """``address`` is where a client fetches the whole. The files beside it and this one hold ``together_bytes`` at
        most."""
        self._together_bytes = together_bytes
        self._path = path
        self._address = address
        self._preview_bytes = preview_bytes
        self._keep_bytes = keep_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._file: BinaryIO | None = None
        self._keeping = True
        self._kept = 0
        self._failure = ""
        self.total_bytes = 0
        """How much was written, in bytes of UTF-8."""

    @property
    def path(self) -> Path | None:
        """The file, if there is one."""
        return self._path if self._kept else None

    @property
    def dropped_bytes(self) -> int:
        """How much of what does not fit the preview is in no file: it was too much, or could not be written."""
        return self.total_bytes - self._kept if self._overflown else 0

    @property
    def _overflown(self) -> bool:
        return self.total_bytes > self._preview_bytes

    def write(self, text: str) -> None:
        """Add what the call wrote. Blocks no longer than a buffered write to a file does."""
        for at in range(0, len(text), _SLICE):
            self._add(text[at : at + _SLICE].encode(errors="replace"))

    def _add(self, data: bytes) -> None:
        unkept = data if self._overflown else bytes(self._head) + data
        self.total_bytes += len(data)
        self._head += data[: self._preview_bytes - len(self._head)]
        self._tail += data
        del self._tail[: -(self._preview_bytes // 4 + 1)]
        if self._overflown and self._keeping:
            self._keep(unkept)

    def _keep(self, data: bytes) -> None:
        fitting = cut(data, self._keep_bytes - self._kept)
        self._keeping = len(fitting) == len(data)
        try:
            if self._file is None:
                self._file = _create(self._path)
                fitting = self._within_room(fitting)
            self._file.write(fitting)
            self._file.flush()  # what is told of it must be there, also if the server dies
        except OSError as error:
            self._fail(error)
        else:
            self._kept += len(fitting)

    def _within_room(self, data: bytes) -> bytes:
        """As much of the first piece as the files together leave room for; that bounds what follows as well."""
        if self._together_bytes is not None:
            others = sum(path.stat().st_size for path in self._path.parent.iterdir() if path != self._path)
            self._keep_bytes = max(0, min(self._keep_bytes, self._together_bytes - others))
        fitting = cut(data, self._keep_bytes)
        self._keeping = self._keeping and len(fitting) == len(data)
        return fitting

    def _fail(self, error: OSError) -> None:
        self._failure = error.strerror or str(error)
        self._keeping = False

    def preview(self) -> tuple[str, bool]:
        """The text, or its first three and its last quarter, at most ``preview_bytes``; and whether it was cut."""
        if not self._overflown:
            return self._head.decode(), False
        room = max(0, self._preview_bytes - len(self._marker(self.total_bytes).encode()))
        head = cut(bytes(self._head), room * 3 // 4)
        tail = bytes(self._tail)[-(room // 4) :] if room >= 4 else b""
        ending = tail.decode("utf-8", "ignore")  # which drops the rest of a character that the cut went through
        missing = self.total_bytes - len(head) - len(ending.encode())
        marker = cut(self._marker(missing).encode(), self._preview_bytes)
        return f"{head.decode()}{marker.decode()}{ending}", True

    def _marker(self, missing: int) -> str:
        return f"\n[{missing} bytes are left out here; {self._whereabouts()}]\n"

    def _whereabouts(self) -> str:
        if self._failure:
            return f"they could not be kept: {self._failure}"
        if self.dropped_bytes:
            return f"the first {self._kept} bytes of the output are at {self._address}, the rest was dropped"
        return f"the whole output is at {self._address}"

    def close(self) -> None:
        """Finish the file. Writing after this is an error; a preview can still be had."""
        self._keeping = False
        file, self._file = self._file, None
        if file is None:
            return
        try:
            with file:
                if self.dropped_bytes:
                    file.write(f"\n[{self.dropped_bytes} more bytes were dropped]\n".encode())
        except OSError as error:
            self._fail(error)


def _create(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    file = os.fdopen(os.open(path, _NEW, 0o600), "wb", buffering=_SLICE)
    os.fchmod(file.fileno(), 0o600)  # it may be there already, from an attempt before a crash
    return file
