"""Images of conversations: from data URLs, uploads and tools into the store, and from there to agents.

What is stored is named in events by its blob alone, and is there, synced, before the event is committed. One worker at
a time has the images of a conversation to itself, and so does its deletion: nothing is stored for what is going away.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import BinaryIO, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import structlog

from hermes_ws.errors import AgentError, CommandError, StorageFull, StoreError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import ContentPart, ImagePart, Input
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.locks import Locks
from hermes_ws.store.base import ConversationRef, Store
from hermes_ws.store.blobs import Blob, Blobs, Wanted, blob_digest

__all__ = ["Images", "OpenImage", "image_part"]

T = TypeVar("T")

Look = Callable[[], Wanted]
"""Finds out which image is meant; blocks. Raises :class:`CommandError` if it is none, or not there."""

log = structlog.get_logger("hermes_ws.images")

_AT_ONCE: Final = 4
"""Threads that may be at work on images: a slow disk leaves the others to others."""


class OpenImage(NamedTuple):
    """An image to be sent; whoever gets it closes the file."""

    blob: Blob
    file: BinaryIO


class Images:
    """See the top of the module. Whatever cannot be done is a :class:`CommandError`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._threads = anyio.CapacityLimiter(_AT_ONCE)
        self._locks = Locks[ConversationRef]()

    @asynccontextmanager
    async def alone(self, ref: ConversationRef) -> AsyncGenerator[None]:
        """Nobody else stores anything for this conversation meanwhile."""
        async with self._locks.of(ref):
            yield

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        except StorageFull as full:
            raise CommandError("storage_full", str(full)) from full
        except OSError as error:
            log.error("images.disk_refused", error=str(error))
            raise CommandError("internal", "the disk refused it; the server's log says why") from error

    # -- in --------------------------------------------------------------------------------------------

    async def upload(self, namespace: str, data: bytes, now_ms: int) -> Blob:
        """Store an image that no conversation refers to yet."""
        return await self._in_thread(lambda: self._blobs.upload(namespace, data, now_ms / 1000))

    async def keep(self, conversation: Conversation, data: bytes) -> Blob:
        """Store an image for a conversation."""
        return (await self._kept(conversation, [lambda: Wanted(self._blobs.judged(data), data)]))[0]

    async def resolved(self, conversation: Conversation, value: Input, *, reach: bool) -> Input:
        """An input as events are to have it, with its images stored. ``reach``: blobs may be named that other
        conversations of the namespace have, or none yet. When it is refused nothing is stored."""
        images = 0 if isinstance(value, str) else sum(isinstance(part, ImagePart) for part in value)
        if images > self._blobs.settings.input_images:
            most = self._blobs.settings.input_images
            raise CommandError("too_large", f"an input has at most {most} images", path="$.input")
        return value if isinstance(value, str) else await self.settled(conversation, value, "$.input", reach=reach)

    async def settled(
        self, conversation: Conversation, parts: Sequence[ContentPart], path: str, *, reach: bool = False
    ) -> list[ContentPart]:
        """The same for parts that stand at ``path``."""
        looks: dict[int, Look] = {}
        known = list(parts)
        for number, part in enumerate(parts):
            if isinstance(part, ImagePart):
                look = self._look(conversation.ref, part, f"{path}[{number}]", reach=reach)
                if look is None:
                    known[number] = ImagePart(url=part.url, detail=part.detail)
                else:
                    looks[number] = look
        try:
            blobs = await self._kept(conversation, list(looks.values())) if looks else []
        except CommandError as refused:
            if refused.code == "too_large":
                refused.path = refused.path or path
            raise
        for number, blob in zip(looks, blobs, strict=True):
            known[number] = image_part(blob, getattr(parts[number], "detail", None))
        return known

    def _look(self, ref: ConversationRef, part: ImagePart, path: str, *, reach: bool) -> Look | None:
        """How to find the image of a part; None if there is nothing to find. Raises :class:`CommandError`."""
        if (part.url is None) == (part.blob is None):
            raise CommandError("invalid_frame", "an image has `url` or `blob`, one of the two", path=path)
        if part.blob is not None:
            return partial(self._named, ref, part.blob, f"{path}.blob", reach)
        assert part.url is not None
        path = f"{path}.url"
        if part.url[:5].lower() == "data:":
            return partial(self._enclosed, part.url, path)
        if not _is_web_address(part.url):
            raise CommandError("invalid_frame", "`url` is an http:, https: or data: URL", path=path)
        return None

    def _named(self, ref: ConversationRef, blob_id: str, path: str, reach: bool) -> Wanted:
        digest = blob_digest(blob_id)
        if digest is None:
            message = f"{blob_id[:80]!r} is no blob's id; that is blob_ and 64 hex digits, as POST /api/blobs gives it"
            raise CommandError("invalid_frame", message, path=path)
        found = self._blobs.found(ref, digest) or (self._blobs.found(ref.namespace, digest) if reach else None)
        if found is None:
            raise CommandError("not_found", f"there is no image {blob_id} here; POST /api/blobs takes it", path=path)
        return Wanted(found)

    def _enclosed(self, url: str, path: str) -> Wanted:
        try:
            data = _decoded(url, self._blobs.settings.image_bytes)
            return Wanted(self._blobs.judged(data), data)
        except CommandError as refused:
            refused.path = path
            raise

    async def _kept(self, conversation: Conversation, looks: list[Look]) -> list[Blob]:
        async with self.alone(conversation.ref):
            if conversation.dead:
                raise CommandError("internal", "the conversation is being reloaded; send the command again")
            ref, begun = conversation.ref, conversation.epoch is not None
            return await self._in_thread(lambda: self._keep(ref, looks, begun=begun))

    def _keep(self, ref: ConversationRef, looks: list[Look], *, begun: bool) -> list[Blob]:
        with self._blobs.adding():
            wanted = [look() for look in looks]
            self._blobs.keep(ref, wanted, begun=begun)
        return [one.blob for one in wanted]

    async def bring(self, source: ConversationRef, target: ConversationRef, events: Iterable[ev.Event]) -> None:
        """Have a conversation that begins with ``events`` of another one refer to their images too."""
        digests = {digest for event in events for digest in _digests(event)}
        if digests:
            async with self.alone(target):
                await self._in_thread(lambda: self._blobs.bring(source, target, digests))

    # -- out -------------------------------------------------------------------------------------------

    async def open(self, places: Iterable[str | ConversationRef], blob_id: str) -> OpenImage | None:
        """A stored image, from the first of these namespaces and conversations that has it."""
        digest = blob_digest(blob_id)
        return await self._in_thread(lambda: self._opened(places, digest)) if digest is not None else None

    def _opened(self, places: Iterable[str | ConversationRef], digest: str) -> OpenImage | None:
        for place in places:
            blob, file = self._blobs.found(place, digest), self._blobs.open(place, digest)
            if blob is not None and file is not None:
                return OpenImage(blob, file)
            if file is not None:
                file.close()
        return None

    async def url(self, ref: ConversationRef, part: ImagePart) -> str:
        """The image as a URL that can be handed on. Raises :class:`AgentError` if it is not there any more."""
        if part.url is not None:
            return part.url
        try:
            image = await self.open([ref], part.blob or "")
            if image is not None:
                return await self._in_thread(lambda: _data_url(image))
        except CommandError as refused:
            raise AgentError("agent_crashed", f"{part.blob}: {refused.message}", retryable=True) from refused
        raise AgentError("agent_crashed", f"the image {part.blob} is not there any more: its file was lost")

    # -- upkeep ----------------------------------------------------------------------------------------

    async def sweep(self, store: Store, now_ms: int) -> int:
        """Remove what nobody refers to and has waited long enough; how many. Raises :class:`StoreError`."""
        before_s = now_ms / 1000 - self._blobs.settings.unused_s
        try:
            for ref in await self._in_thread(lambda: self._blobs.unbegun(before_s)):
                async with self.alone(ref):
                    begun = await store.weight(ref) > 0
                    settle = (
                        partial(self._blobs.has_begun, ref) if begun else partial(self._blobs.forget, ref, before_s)
                    )
                    await self._in_thread(settle)
            return await self._in_thread(lambda: self._blobs.sweep(before_s))
        except CommandError as refused:
            raise StoreError(f"images could not be removed: {refused.message}") from refused


def image_part(blob: Blob, detail: str | None = None) -> ImagePart:
    """How a stored image is named in an event."""
    return ImagePart(blob=blob.id, sha256=blob.digest, mime=blob.mime, size=blob.size, detail=detail)


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False


def _decoded(url: str, most: int) -> bytes:
    """What a data URL holds. Raises :class:`CommandError`."""
    head, comma, payload = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        message = "a data URL with an image is like data:image/png;base64,iVBORw0KGgo…"
        raise CommandError("invalid_frame", message)
    if len(payload) // 4 * 3 > most + 2:
        raise CommandError("too_large", f"an image is at most {most} bytes; this one is larger")
    try:
        return binascii.a2b_base64(payload, strict_mode=True)
    except ValueError as error:
        raise CommandError("invalid_frame", f"what follows `;base64,` is not base64: {error}") from None


def _data_url(image: OpenImage) -> str:
    with image.file:
        return f"data:{image.blob.mime};base64,{base64.b64encode(image.file.read()).decode()}"


def _digests(event: ev.Event) -> Iterable[str]:
    """The blobs that an event names."""
    parts: Input | list[ContentPart] | None = None
    if isinstance(event, ev.RunQueued | ev.RunStarted):
        parts = event.input
    elif isinstance(event, ev.ToolCompleted | ev.MessageCompleted):
        parts = event.content
    for part in parts if isinstance(parts, list) else ():
        digest = blob_digest(part.blob) if isinstance(part, ImagePart) and part.blob is not None else None
        if digest is not None:
            yield digest
