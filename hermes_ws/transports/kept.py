"""A tool call's output as it was when it was asked for, also while the call goes on writing it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import BinaryIO, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["KeptOutput"]

_CHUNK_BYTES: Final = 65_536


class KeptOutput(Response):
    """The first ``size`` bytes of an open file, which is closed when they are sent."""

    media_type = "text/plain"

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        super().__init__(headers={"content-length": str(self._size)})

    @classmethod
    async def of(cls, path: Path) -> KeptOutput | None:
        """None if there is no such file."""
        try:
            return cls(await asyncio.to_thread(path.open, "rb"))
        except FileNotFoundError:
            return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            left = 0 if scope["method"] == "HEAD" else self._size
            while left:
                chunk = await asyncio.to_thread(self._file.read, min(left, _CHUNK_BYTES))
                if not chunk:  # begun anew meanwhile: the server cuts an answer that is shorter than it said
                    break
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
