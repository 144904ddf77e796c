"""Images over HTTP: taken in from who may drive, given out to who may see them."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.errors import CommandError
from hermes_ws.protocol.resources import StoredBlob
from hermes_ws.runtime.images import OpenImage
from hermes_ws.runtime.principal import Principal
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.store.base import ConversationRef
from hermes_ws.store.blobs import image_type
from hermes_ws.transports.auth import Refused
from hermes_ws.transports.kept import KeptOutput

__all__ = ["KeptImage", "check_upload", "give_out", "take_in"]

_HEADERS: Final = {
    "cache-control": "private, max-age=31536000, immutable",
    "content-disposition": "inline",
    "content-security-policy": "default-src 'none'; sandbox",
}


class KeptImage(KeptOutput):
    """A stored image. It never changes, so whoever has it may keep it."""

    def __init__(self, image: OpenImage) -> None:
        self.media_type = image.blob.mime
        super().__init__(image.file)
        self.headers.update(_HEADERS | {"etag": f'"{image.blob.digest}"'})


def check_upload(request: Request, principal: Principal) -> None:
    """Whether this caller may upload, and says that it is an image; before any of it is read."""
    if principal.role not in ("driver", "admin"):
        raise CommandError("not_permitted", f"role {principal.role} may not upload an image")
    declared = request.headers.get("content-type", "").strip().lower()
    if not declared.startswith("image/"):
        raise Refused(415, f"the body is an image, with a Content-Type such as image/png, not {declared[:80]!r}")


async def take_in(runtime: Runtime, principal: Principal, ref: ConversationRef | None, data: bytes) -> StoredBlob:
    """Store an image: for a conversation, or for whichever one will refer to it. Who may not reach all of a namespace
    stores it for a conversation."""
    runtime.check_draining()
    if image_type(data) is None:
        raise Refused(415, "this is no image; PNG, JPEG, GIF and WebP are taken")
    if ref is None and principal.conversations is None:
        blob = await runtime.images.upload(principal.namespace, data, runtime.now())
    else:
        conversation = await runtime.open(ref or _only_one(principal))
        with conversation.held():
            blob = await runtime.images.keep(conversation, data)
    return StoredBlob(blob=blob.id, sha256=blob.digest, mime=blob.mime, size=blob.size)


def _only_one(principal: Principal) -> ConversationRef:
    names = principal.conversations or frozenset()
    if len(names) != 1:
        raise Refused(400, "say which conversation the image is for: ?conversation=ID")
    return ConversationRef(principal.namespace, *names)


async def give_out(
    runtime: Runtime, principal: Principal, ref: ConversationRef | None, blob_id: str, known: str
) -> Response:
    """A stored image, if the caller may see it: otherwise it might as well not be there. ``known``: the ETags of what
    the caller has."""
    image = await runtime.images.open(_places(principal, ref), blob_id)
    if image is None:
        raise CommandError("not_found", "there is no such image here")
    answer = KeptImage(image)
    if answer.headers["etag"] not in known:
        return answer
    image.file.close()
    return Response(status_code=304, headers={name: answer.headers[name] for name in ("etag", "cache-control")})


def _places(principal: Principal, ref: ConversationRef | None) -> list[str | ConversationRef]:
    if ref is not None:
        return [ref]
    if principal.conversations is None:
        return [principal.namespace]
    return [ConversationRef(principal.namespace, name) for name in sorted(principal.conversations)]
