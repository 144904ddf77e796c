"""Request bodies: read up to a limit, however they are transferred."""

from __future__ import annotations

from starlette.requests import Request

from hermes_ws.errors import CommandError

__all__ = ["read_body"]


async def read_body(request: Request, most: int) -> bytes:
    """The body, up to ``most`` bytes; one that is declared larger is not read at all.

    Raises :class:`CommandError` ``too_large``, and Starlette's ``ClientDisconnect`` when it was cut short.
    """
    body = bytearray()
    declared = request.headers.get("content-length", "")
    too_large = CommandError("too_large", f"this body is at most {most} bytes")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise too_large
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large
    return bytes(body)
