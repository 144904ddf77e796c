"""Images to send: as large as one wants, each like no other."""

from __future__ import annotations

import base64
import hashlib
import random

__all__ = ["blob_id", "data_url", "image", "picture", "stored"]

_HEADS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBP",
}


def picture(size: int = 100, mime: str = "image/png") -> bytes:
    """What begins like an image of this type, which is all that counts here."""
    head = _HEADS[mime]
    return head + random.randbytes(size - len(head))


def data_url(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def image(data: bytes) -> list[dict[str, str]]:
    """An input that is this image."""
    return [{"type": "image", "url": data_url(data)}]


def blob_id(data: bytes) -> str:
    return "blob_" + hashlib.sha256(data).hexdigest()


def stored(data: bytes, mime: str = "image/png") -> dict[str, object]:
    """How an event names it."""
    digest = hashlib.sha256(data).hexdigest()
    return {"type": "image", "blob": f"blob_{digest}", "sha256": digest, "mime": mime, "size": len(data)}
