"""Between a server's messages and the SDK: what would spoil a whole answer, or the connection, is taken out one by one.

The SDK takes an answer or leaves it: one tool that is none costs the list, one block of content that it does not know
the result, and a number that is too large the connection. Here a bad tool is left out, and a bad block says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self, cast

from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp_types import ContentBlock, JSONRPCNotification, JSONRPCResponse
from mcp_types.methods import validate_server_result
from pydantic import TypeAdapter

__all__ = ["Sieve", "SiftedStream", "sifted_transport", "too_many_values"]

_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[,{\[]', re.DOTALL)
"""Strings, to pass over them, and what stands before a value."""
_NUMBERS: Final = ("progress", "total")


class SiftedStream:
    """A stream of messages from a server, read as the SDK reads it."""

    def __init__(self, stream: Any, sift: Callable[[SessionMessage | Exception], bool]) -> None:
        """``sift`` may change a message, and says whether to pass it on."""
        self._stream = stream
        self._sift = sift

    @property
    def last_context(self) -> Any:
        """In whose context the message was received: the SDK goes on in it."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """The next message."""
        while True:
            message: SessionMessage | Exception = await self._stream.receive()
            if self._sift(message):
                return message

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while True:
            message: SessionMessage | Exception = await self._stream.__anext__()
            if self._sift(message):
                return message

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        closed: bool | None = await self._stream.__aexit__(kind, error, trace)
        return closed


class Sieve:
    """What is taken out of one connection's messages. ``version`` is the protocol's, once it is known."""

    def __init__(self, *, tools: int, blocks: int, version: Callable[[], str | None]) -> None:
        self.left_out = 0
        """Tools that were none."""
        self._tools = tools
        self._blocks = blocks
        self._version = version
        self._block: TypeAdapter[ContentBlock] = TypeAdapter(ContentBlock)

    def __call__(self, message: SessionMessage | Exception) -> bool:
        """Take out of a message what cannot stay; False: all of it."""
        inner = message.message if isinstance(message, SessionMessage) else None
        if isinstance(inner, JSONRPCResponse):
            self._result(inner.result)
        elif isinstance(inner, JSONRPCNotification) and inner.params is not None:
            return all(_is_number(inner.params.get(name)) for name in _NUMBERS)
        return True

    def _result(self, result: dict[str, Any]) -> None:
        tools, content = result.get("tools"), result.get("content")
        if isinstance(tools, list):
            few = list[Any](tools)[: self._tools + 1]  # pyright: ignore[reportUnknownArgumentType]
            result["tools"] = [tool for tool in few if self._fits({**result, "tools": [tool]})]
            self.left_out += len(few) - len(result["tools"])
        if isinstance(content, list):
            blocks = list[Any](content)  # pyright: ignore[reportUnknownArgumentType]
            result["content"] = [self._understood(block) for block in blocks[: self._blocks]]
            if len(blocks) > self._blocks:
                result["content"].append(_text(f"{len(blocks) - self._blocks} further parts were left out"))

    def _fits(self, result: Mapping[str, Any]) -> bool:
        with suppress(KeyError):  # it does not know the version: then it will not check
            try:
                validate_server_result("tools/list", self._version() or "2025-11-25", result)
            except (ValueError, RecursionError):
                return False
        return True

    def _understood(self, block: Any) -> Any:
        try:
            self._block.validate_python(block, by_name=False)
        except (ValueError, RecursionError):
            return _text("a part of the result is of a kind that is not understood")
        return block


def _text(note: str) -> dict[str, str]:
    return {"type": "text", "text": f"[{note}]"}


def too_many_values(message: bytes | bytearray, most: int) -> bool:
    """Whether JSON holds more values than ``most``: what takes long is not its size but how much it is made of."""
    if sum(message.count(mark) for mark in (b",", b"{", b"[")) <= most:
        return False
    marks = (token for token in _TOKEN.finditer(message) if token[0][:1] != b'"')
    return next(islice(marks, most, None), None) is not None


def _is_number(value: Any) -> bool:
    try:
        return value is None or float(value) == float(value)
    except (TypeError, ValueError, OverflowError):
        return False


def sifted_transport(transport: Transport, sieve: Sieve) -> Transport:
    """The transport, with what it receives sifted."""
    return cast("Transport", _Sifted(transport, sieve))


class _Sifted:
    def __init__(self, transport: Transport, sieve: Sieve) -> None:
        self._transport = transport
        self._sieve = sieve

    async def __aenter__(self) -> tuple[SiftedStream, Any]:
        read, write = await self._transport.__aenter__()
        return SiftedStream(read, self._sieve), write

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._transport.__aexit__(kind, error, trace)
