"""The beginning and the end of a text that is too long."""

from __future__ import annotations

__all__ = ["cut", "preview"]


def cut(data: bytes, limit: int) -> bytes:
    """At most ``limit`` bytes of UTF-8, and no part of a character."""
    return data if len(data) <= limit else data[: max(0, limit)].decode("utf-8", "ignore").encode()


def preview(text: str, limit: int) -> tuple[str, bool]:
    """The text, or its first three and its last quarter, about ``limit`` bytes; and whether it was cut."""
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data.decode(), False
    head, tail = cut(data, limit * 3 // 4).decode(), data[len(data) - limit // 4 :].decode("utf-8", "ignore")
    return f"{head}\n[{len(data) - limit} bytes are left out here]\n{tail}", True
