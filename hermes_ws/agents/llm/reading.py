"""A response, read as the chunks of an answer, whatever shape it has: events, one JSON object, or a web page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

import anyio
import httpx2
import msgspec

from hermes_ws.agents.llm.chunks import Chunk
from hermes_ws.agents.llm.endpoint_settings import EndpointSettings
from hermes_ws.agents.llm.refusals import HTML_ADVICE, Refusals
from hermes_ws.agents.llm.sse import Events, EventTooLarge

__all__ = ["Reading"]

_DONE: Final = b"[DONE]"
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"
_ERROR_BYTES: Final = 65_536
_USAGE_S: Final = 5.0
"""How long usage is waited for when the answer has ended but the stream has not."""
_CLOSE_S: Final = 0.25
"""How long the end of the stream is waited for after the last event: then the connection can be used again."""


class Reading:
    """One response, at work."""

    def __init__(self, response: httpx2.Response, settings: EndpointSettings, refusals: Refusals) -> None:
        self._response = response
        self._pieces = response.aiter_bytes()
        self._settings = settings
        self._refusals = refusals
        self._read = 0
        self.done = False
        """Whether the stream has said that it is over."""

    @property
    def status(self) -> int:
        """The response's status."""
        return self._response.status_code

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers, their names in lower case."""
        return {name.lower(): value for name, value in self._response.headers.items()}

    async def aclose(self) -> None:
        """Let go of the connection; what was not read to its end is cut off."""
        await self._pieces.aclose()
        await self._response.aclose()

    async def error(self) -> bytes:
        """The beginning of an error's body."""
        return await self.body(_ERROR_BYTES)

    async def body(self, most: int) -> bytes:
        """The body, or as much of it as there may be, and comes in time."""
        body = bytearray()
        try:
            with anyio.move_on_after(self._settings.chunk_timeout_s):
                async for piece in self._pieces:
                    body += piece
                    if len(body) > most:
                        break
        except httpx2.HTTPError:
            pass
        return bytes(body[:most])

    async def chunks(self, ended: Callable[[], bool]) -> AsyncGenerator[Chunk, None]:
        """Chunks, as they come. ``ended``: whether the answer has said that it ends. Raises
        :class:`~hermes_ws.errors.ModelError`."""
        start = b""
        while not start.strip(_BLANK):
            piece = await self._next(self._settings.first_byte_timeout_s, "first_byte_timeout_s")
            if piece is None:
                return
            start += piece
        if start.lstrip(_BLANK)[:1] in (b"{", b"["):
            yield await self._whole(start)
            return
        if start.lstrip(_BLANK)[:1] == b"<":
            raise self._refusals.bad("answered with a web page", advice=HTML_ADVICE, retryable=False)
        async for chunk in self._events(start, ended):
            yield chunk

    async def _events(self, start: bytes, ended: Callable[[], bool]) -> AsyncGenerator[Chunk, None]:
        events = Events(self._settings.event_bytes)
        piece: bytes | None = start
        while piece is not None:
            for data in self._fed(events, piece):
                if data.strip() == _DONE:
                    self.done = True
                    await self._drain()
                    return
                if data.strip():
                    yield self._decoded(data)
            wait_s = min(self._settings.chunk_timeout_s, _USAGE_S if ended() else self._settings.chunk_timeout_s)
            piece = await self._next(wait_s, "chunk_timeout_s")
        for data in events.flush():
            self.done = self.done or data.strip() == _DONE
            if data.strip() and not self.done:
                yield self._decoded(data)

    def _fed(self, events: Events, piece: bytes) -> Iterator[bytes]:
        try:
            yield from events.feed(piece)
        except EventTooLarge:
            most = self._settings.event_bytes
            raise self._refusals.bad(f"sent an event of more than {most} bytes (event_bytes)") from None

    async def _whole(self, start: bytes) -> Chunk:
        """An answer that is not streamed, or an error."""
        most, body = self._settings.event_bytes, bytearray()
        piece: bytes | None = start
        while piece is not None:
            body += piece
            if len(body) > most:
                raise self._refusals.bad(f"sent an answer of more than {most} bytes (event_bytes)")
            piece = await self._next(self._settings.chunk_timeout_s, "chunk_timeout_s")
        chunk = self._decoded(bytes(body).strip(_BLANK))
        if chunk.choice is None and not chunk.problem:
            raise self._refusals.bad("answered with JSON that is no answer of a model", bytes(body), HTML_ADVICE)
        return chunk

    def _decoded(self, data: bytes) -> Chunk:
        try:
            return msgspec.json.decode(data, type=Chunk)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise self._refusals.bad("sent what is no piece of an answer", data) from None

    async def _next(self, wait_s: float, setting: str) -> bytes | None:
        """The next bytes, or None at the end."""
        try:
            with anyio.fail_after(wait_s):
                piece = await anext(self._pieces, None)
        except TimeoutError:
            raise self._refusals.silent("said nothing", wait_s, setting) from None
        self._read += len(piece or b"")
        if self._read > self._settings.answer_bytes:
            raise self._refusals.bad(f"sent more than {self._settings.answer_bytes} bytes (answer_bytes)")
        return piece

    async def _drain(self) -> None:
        """Take the end of the stream too, if it is there."""
        with anyio.move_on_after(_CLOSE_S):
            async for _ in self._pieces:
                return
