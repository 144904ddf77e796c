"""Answers over a line that no app has seen, or can be told of: bytes, in the form of every other refusal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from hermes_ws.compat.errors import ApiError, envelope
from hermes_ws.errors import CommandCode
from hermes_ws.protocol.control import Error
from hermes_ws.transports.manners import SECURITY_HEADERS, fresh_request_id

__all__ = ["raw_answer"]


def raw_answer(status: int, code: CommandCode, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A refusal as HTTP; the line ends with it. Nobody knows yet which address is meant, so its body is both: a frame
    of ours, and what OpenAI's clients look for."""
    frame = msgspec.to_builtins(Error(id=None, code=code, message=message, retryable=status == 503))
    body = msgspec.json.encode({**frame, **envelope(ApiError(status, code, message))})
    every = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *SECURITY_HEADERS,
        (b"x-request-id", fresh_request_id().encode()),
        *headers,
    ]
    lines = [STATUS_LINE[status], *(name + b": " + value + b"\r\n" for name, value in every), b"\r\n", body]
    return b"".join(lines)
