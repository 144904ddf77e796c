"""What was committed but not yet synced, kept where ``kill -9`` leaves it and a power cut does not.

A small file beside the log, mapped into memory and never synced: what is written to it survives the process, because it
is the kernel's, but not the machine. Its header names the kernel's boot, so that after a power cut an old copy that had
found its way to the disk is not taken for the truth. Each entry is the key of a conversation and the head it was told
to have; while all of them are in the log, nothing that anybody saw is lost.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

__all__ = ["Witness", "boot_id", "read_witness"]

log = structlog.get_logger("hermes_ws.store")

_MAGIC: Final = b"HWSUNSY1"
_HEADER: Final = struct.Struct("@8s40sQ")
"""Magic, boot id, number of entries."""
_COUNT: Final = struct.Struct("@Q")
_COUNT_AT: Final = _HEADER.size - _COUNT.size
_ENTRY: Final = struct.Struct("@QQ")
"""Key and head. Native and aligned: each number is one store, never seen half done."""
_FILE_BYTES: Final = 65_536
_MOST: Final = (_FILE_BYTES - _HEADER.size) // _ENTRY.size
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> bytes | None:
    """Which boot of the kernel this is; None where it does not say."""
    try:
        return _BOOT_ID.read_bytes().strip()[:40] or None
    except OSError:
        return None


def read_witness(path: Path) -> dict[int, int] | None:
    """The heads by key that the last one to write ``path`` left, if it did so since the machine was started."""
    boot = boot_id()
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if boot is None or len(data) != _FILE_BYTES:
        return None
    magic, written_in, count = _HEADER.unpack_from(data)
    if magic != _MAGIC or written_in.rstrip(b"\0") != boot or count > _MOST:
        return None
    return dict(_ENTRY.unpack_from(data, _HEADER.size + n * _ENTRY.size) for n in range(count))


class Witness:
    """Writes the file, from empty. For one thread; costs a few stores into memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[int, int] = {}
        self._map: mmap.mmap | None = None
        try:
            self._map = _made(path)
        except (OSError, ValueError) as error:  # without it, more is taken for lost than is: an epoch too many
            log.warning("log.no_witness", path=str(path), error=str(error))
            with suppress(OSError):
                path.unlink()

    def has_room(self, entries: int) -> bool:
        """Whether that many more conversations can be recorded for certain."""
        return len(self._places) + entries <= _MOST

    def record(self, heads: dict[int, int]) -> None:
        """These conversations are that far, but not yet on disk."""
        if self._map is None:
            return
        places, before = self._places, len(self._places)
        for key, head in heads.items():
            place = places.get(key)
            if place is None:
                place = places[key] = _HEADER.size + len(places) * _ENTRY.size
            _ENTRY.pack_into(self._map, place, key, head)
        if len(places) != before:
            _COUNT.pack_into(self._map, _COUNT_AT, len(places))

    def clear(self) -> None:
        """All is on disk."""
        if self._places and self._map is not None:
            _COUNT.pack_into(self._map, _COUNT_AT, 0)
            self._places.clear()

    def close(self, *, keep: bool) -> None:
        """Let go of the file; without ``keep`` it is removed: there is nothing left to tell."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if not keep:
            with suppress(OSError):
                self._path.unlink()


def _made(path: Path) -> mmap.mmap:
    """The file, with its space allocated: a store into a page that the disk has no room for would end the process."""
    new = path.with_name(path.name + ".new")
    handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        header = _HEADER.pack(_MAGIC, boot_id() or b"", 0)
        os.pwrite(handle, header.ljust(_FILE_BYTES, b"\0"), 0)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, _FILE_BYTES)
        os.ftruncate(handle, _FILE_BYTES)
        new.replace(path)  # whole or not at all, whenever we die
        return mmap.mmap(handle, _FILE_BYTES)
    finally:
        os.close(handle)
