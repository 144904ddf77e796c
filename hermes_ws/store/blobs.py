"""Images on disk: each is there once in its namespace, and belongs to the conversations that refer to it.

Theory of operation. A file lies in its namespace's pool under its SHA-256; the folder of each conversation that refers
to it has a hard link to it. So the number of links says whether anybody needs it: a file with one, the pool's own, goes
when the last upload of it (its modification time; 0 for what came inside a command) is ``unused_s`` ago. A folder goes
with its conversation, and with the folder its links. Where a file system has no hard links, folders hold copies.

A file is whole, and synced with the folders that it is in, before anybody is told of it, so an event never names what a
power cut could take. Who adds files or links holds the lock together with others that do, whoever removes from pools
holds it alone, in whatever process: nothing goes between being looked up and being linked.

The folder of a conversation that has no events yet bears a mark. It goes after ``unused_s`` if none have come.

Everything here blocks. Only whoever has the conversation to itself may call :meth:`Blobs.keep` for it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO, Final, NamedTuple

import msgspec

from hermes_ws.errors import CommandError, StorageFull
from hermes_ws.ranges import AtLeastOne
from hermes_ws.store.base import ConversationRef
from hermes_ws.store.directory import UNBEGUN, Folders

__all__ = ["Blob", "BlobSettings", "Blobs", "Wanted", "blob_digest", "image_type"]

_PREFIX: Final = "blob_"
_ID: Final = re.compile(rf"{_PREFIX}(?P<digest>[0-9a-f]{{64}})")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_UNFINISHED: Final = ".tmp"
"""What a file that is being written ends with. One that is there while nobody writes was cut off by a crash."""
_HEAD_BYTES: Final = 12
"""How much of an image tells its type."""
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})
"""What a file system says that has no hard links, or none from here to there."""


class BlobSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[blobs]``: images. They are kept beside the log, which only names them."""

    image_bytes: AtLeastOne = 10_000_000
    """The largest image. An upload may be no larger than ``limits.body_bytes`` either, a data URL no larger than
    ``limits.frame_bytes``."""
    input_images: AtLeastOne = 32
    """Most images in one input."""
    conversation_bytes: AtLeastOne = 268_435_456
    """What the images of one conversation may weigh together. Beyond it a command is refused with ``too_large``, and a
    tool is told."""
    unused_bytes: AtLeastOne = 1_073_741_824
    """What uploads of one namespace that no conversation refers to may weigh together; one more is refused with 507."""
    unused_s: Annotated[int, msgspec.Meta(ge=60, le=315_360_000)] = 86_400
    """How long an upload waits for a conversation to refer to it; a minute at least."""


class Blob(NamedTuple):
    """An image, by its content."""

    digest: str
    mime: str
    size: int

    @property
    def id(self) -> str:
        return _PREFIX + self.digest


class Wanted(NamedTuple):
    """An image that a conversation is to refer to. ``data`` None: it is in the pool, or in the conversation already."""

    blob: Blob
    data: bytes | None = None


def blob_digest(blob_id: str) -> str | None:
    """The SHA-256 in a blob's id; None for what is no such id."""
    found = _ID.fullmatch(blob_id)
    return found["digest"] if found else None


def image_type(head: bytes) -> str | None:
    """The type of an image that begins like this. SVG is none: it can hold scripts."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if head[:4] == b"RIFF" and head[8:_HEAD_BYTES] == b"WEBP" else None


class Blobs:
    """See the top of the module. Whatever the disk says beside "no space" (:class:`StorageFull`) is an OSError."""

    def __init__(self, folders: Folders, settings: BlobSettings) -> None:
        self.settings = settings
        self._folders = folders
        self._pooling = threading.Lock()
        """Held while a file is put into a pool: replaced by its like it would lose its links."""
        self._waiting: dict[str, int] = {}
        """What the uploads of a namespace weigh that nobody refers to: never too little, counted anew if it matters."""

    def judged(self, data: bytes) -> Blob:
        """The image that ``data`` is. Raises :class:`CommandError` ``invalid_frame`` or ``too_large``."""
        if len(data) > self.settings.image_bytes:
            raise CommandError("too_large", f"an image is at most {self.settings.image_bytes} bytes, not {len(data)}")
        mime = image_type(data)
        if mime is None:
            raise CommandError("invalid_frame", "this is no image; PNG, JPEG, GIF and WebP are taken")
        return Blob(hashlib.sha256(data).hexdigest(), mime, len(data))

    # -- adding ----------------------------------------------------------------------------------------

    @contextmanager
    def adding(self) -> Generator[None]:
        """Nothing goes from a pool meanwhile."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def removing(self) -> Generator[None]:
        """Nobody adds anything meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _locked(self, how: int) -> Generator[None]:
        lock = os.open(self._folders.blobs_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)

    def upload(self, namespace: str, data: bytes, now_s: float) -> Blob:
        """Take an image in that no conversation refers to yet. Raises :class:`StorageFull` when too many wait."""
        blob = self.judged(data)
        pool = self._folders.pool(namespace)
        with self._pooling, _told_when_full(), self.adding():
            try:
                os.utime(pool / blob.digest, (now_s, now_s))
            except FileNotFoundError:
                self._make_room(pool, blob.size)
                _write(pool / blob.digest, data, now_s)
        return blob

    def _make_room(self, pool: Path, size: int) -> None:
        most, waiting = self.settings.unused_bytes, self._waiting.get(pool.name, self.settings.unused_bytes)
        if waiting + size > most:
            waiting = sum(status.st_size for _, status in _unused(pool) if status.st_mtime)
        if waiting + size > most:
            raise StorageFull(f"uploaded images that no conversation refers to weigh {most} bytes together; use them")
        self._waiting[pool.name] = waiting + size

    def keep(self, ref: ConversationRef, wanted: Sequence[Wanted], *, begun: bool) -> None:
        """Have a conversation refer to images. Call it within :meth:`adding`, with the images that were found in it.

        ``begun``: it has events. Raises :class:`CommandError` ``too_large``, with nothing done, when they are too many.
        """
        folder = self._folders.images(ref)
        there = {path.name: path.lstat().st_size for path in _files(folder)}
        new = {one.blob.digest: one for one in wanted if one.blob.digest not in there}
        if sum(there.values()) + sum(one.blob.size for one in new.values()) > self.settings.conversation_bytes:
            most = self.settings.conversation_bytes
            message = f"the images of a conversation weigh at most {most} bytes together; begin another one"
            raise CommandError("too_large", message)
        with _told_when_full():
            if not begun:
                _mark(folder, ref)
            for one in new.values():
                self._add(ref, one, folder)
            _sync(folder, folder.parent, self._folders.root)

    def _add(self, ref: ConversationRef, one: Wanted, folder: Path) -> None:
        pooled = self._folders.pool(ref.namespace) / one.blob.digest
        with self._pooling:
            if one.data is not None and not pooled.exists():
                _write(pooled, one.data, 0)
        _link(pooled, folder / one.blob.digest)

    def bring(self, source: ConversationRef, target: ConversationRef, digests: Iterable[str]) -> None:
        """Have ``target``, which has not begun, refer to images of ``source`` too; what is not there is left out."""
        theirs, folder = self._folders.images(source), self._folders.images(target)
        found = [theirs / digest for digest in digests if (theirs / digest).exists()]
        with _told_when_full(), self.adding():
            if found:
                _mark(folder, target)
            for path in found:
                _link(path, folder / path.name)
            if found:
                _sync(folder, folder.parent, self._folders.root)

    # -- looking up ------------------------------------------------------------------------------------

    def found(self, where: str | ConversationRef, digest: str) -> Blob | None:
        """An image of a namespace, or of a conversation."""
        file = self.open(where, digest)
        if file is None:
            return None
        with file:
            mime = image_type(file.read(_HEAD_BYTES))
            return Blob(digest, mime, os.fstat(file.fileno()).st_size) if mime is not None else None

    def open(self, where: str | ConversationRef, digest: str) -> BinaryIO | None:
        """The image's bytes."""
        folder = self._folders.pool(where) if isinstance(where, str) else self._folders.images(where)
        try:
            return (folder / digest).open("rb")
        except FileNotFoundError:
            return None

    # -- removing --------------------------------------------------------------------------------------

    def sweep(self, before_s: float) -> int:
        """Remove what no conversation refers to and was not uploaded since ``before_s``, and what crashes left; how
        many files."""
        return sum(
            self._removed(path, before_s)
            for pool in self._folders.pools()
            for path, status in _unused(pool)
            if _has_had_its_time(path, status, before_s)
        )

    def _removed(self, path: Path, before_s: float) -> bool:
        """Remove a file, unless somebody has come for it meanwhile."""
        with self.removing(), suppress(FileNotFoundError):
            if _has_had_its_time(path, path.lstat(), before_s):
                path.unlink()
                return True
        return False

    def unbegun(self, before_s: float) -> list[ConversationRef]:
        """Conversations that images came for before ``before_s``, and that had not begun then."""
        found: list[ConversationRef] = []
        for folder in self._folders.unbegun():
            with suppress(OSError, msgspec.MsgspecError):
                if (folder / UNBEGUN).lstat().st_mtime < before_s:
                    found.append(msgspec.json.decode((folder / UNBEGUN).read_bytes(), type=ConversationRef))
        return found

    def has_begun(self, ref: ConversationRef) -> None:
        """The conversation has events: its images stay as long as it does."""
        (self._folders.images(ref) / UNBEGUN).unlink(missing_ok=True)

    def forget(self, ref: ConversationRef, before_s: float) -> None:
        """The conversation has no events: what waits for it goes, unless something has come since ``before_s``."""
        folder = self._folders.images(ref)
        with self.removing(), suppress(FileNotFoundError):
            if (folder / UNBEGUN).lstat().st_mtime < before_s:
                self._folders.to_trash(folder)


@contextmanager
def _told_when_full() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull("no space is left to store the image") from error
        raise


def _files(folder: Path) -> Iterator[Path]:
    """The images in a folder; none if there is no such folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from [folder / entry.name for entry in entries if _DIGEST.fullmatch(entry.name)]


def _unused(pool: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files of a pool that nobody refers to, unfinished ones included."""
    with suppress(FileNotFoundError), os.scandir(pool) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink == 1:
                    yield pool / entry.name, status


def _has_had_its_time(path: Path, status: os.stat_result, before_s: float) -> bool:
    return path.suffix == _UNFINISHED or (status.st_nlink == 1 and status.st_mtime < before_s)


def _mark(folder: Path, ref: ConversationRef) -> None:
    """Note which conversation it is that has no events yet, and that something has come for it now."""
    _write(folder / UNBEGUN, msgspec.json.encode(ref), None)


def _write(path: Path, data: bytes, at_s: float | None) -> None:
    """A file that is there wholly or not at all, whatever happens. ``at_s`` None: its time is now."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = path.with_name(secrets.token_hex(16) + _UNFINISHED)
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            if at_s is not None:
                os.utime(file.fileno(), (at_s, at_s))
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync(path.parent, path.parent.parent)


def _link(path: Path, target: Path) -> None:
    """Have the file at ``path`` under ``target`` too; as a copy where there are no links, or too many already."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        os.link(path, target)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS | {errno.EMLINK}:
            raise
        _write(target, path.read_bytes(), None)


def _sync(*folders: Path) -> None:
    """Have the names in these folders survive a power cut."""
    for folder in folders:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
