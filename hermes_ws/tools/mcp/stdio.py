"""An MCP server as a child process: one JSON message a line, over its stdin and stdout.

The SDK's own transport reads a line of any length, and knows nothing of who left the process group; this one bounds the
line and ends whoever belongs to the server, as :mod:`hermes_ws.tools.process` does for commands. What the server
writes to stderr is kept as far as it may explain its end.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from hermes_ws.errors import ToolError
from hermes_ws.tools.leftovers import MARKER, end_marked
from hermes_ws.tools.mcp.pace import Pace
from hermes_ws.tools.mcp.settings import McpSettings
from hermes_ws.tools.mcp.sift import too_many_values
from hermes_ws.tools.mcp.target import Target
from hermes_ws.tools.process import open_pidfd
from hermes_ws.tools.terminal import command_environment

__all__ = ["stdio_streams"]

_READ_BYTES: Final = 65_536
_LAST_WORDS_BYTES: Final = 2_048
_BREAK: Final = re.compile(rb"^\S*\s*")
_EXIT_POLL_S: Final = 0.02
_LAST_WORDS_S: Final = 0.2
"""Time for what a server had written when it ended to be read."""

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def stdio_streams(
    target: Target,
    *,
    marked: str,
    settings: McpSettings,
    close_s: float,
    said: deque[str],
    ended: Callable[[str], None],
) -> AsyncGenerator[Streams]:
    """Run the server; the SDK's transport seam. ``said`` gets its last words on stderr. ``close_s``: the time it gets
    to go by itself. ``ended`` is told why nothing will come any more. Raises :class:`ToolError` if it cannot be
    started."""
    process = await _start(target, marked)
    incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with incoming, read, write, outgoing, anyio.create_task_group() as pumps:
            pumps.start_soon(_pump_out, process, incoming, settings, ended)
            pumps.start_soon(_pump_in, process, outgoing)
            pumps.start_soon(_pump_words, process, said)
            pumps.start_soon(_notice_exit, process, ended)
            try:
                yield read, write
            finally:
                pumps.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process, marked, close_s)


async def _start(target: Target, marked: str) -> anyio.abc.Process:
    cwd = target.cwd
    assert cwd is not None
    try:
        cwd.mkdir(mode=0o700, parents=True, exist_ok=True)
        return await anyio.open_process(
            list(target.command),
            cwd=cwd,
            env=_environment(target, marked),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it, or its environment, holds a NUL character"
        raise ToolError(f"{target.command[0]!r} could not be started: {reason}") from None


def _environment(target: Target, marked: str) -> Mapping[str, str]:
    assert target.cwd is not None
    return {**command_environment(target.cwd, ()), **target.env, MARKER: marked}


async def _pump_out(
    process: anyio.abc.Process,
    incoming: MemoryObjectSendStream[SessionMessage | Exception],
    settings: McpSettings,
    ended: Callable[[str], None],
) -> None:
    """Lines of the server to messages, until it has no more or one is too large."""
    assert process.stdout is not None
    line, pace = bytearray(), Pace(settings.messages_per_s)
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
        while len(line) <= settings.message_bytes:
            first, *rest = (await process.stdout.receive(_READ_BYTES)).split(b"\n")
            line += first
            for following in rest:
                if too_many_values(line, settings.message_values):
                    ended("it sent a message with more in it than mcp.message_values")
                    return
                await pace.keep(1)
                await _pass_on(bytes(line), incoming)
                line = bytearray(following)
        ended("it sent a message larger than mcp.message_bytes")
        return
    await anyio.sleep(2 * _LAST_WORDS_S)  # if it has ended, that is the better reason
    ended("it closed its output")


async def _pass_on(line: bytes, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    if not line.strip():
        return
    message: SessionMessage | None = None
    with suppress(ValueError, RecursionError):  # a server that prints something else: nobody needs to know
        message = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    if message is not None:
        await incoming.send(message)


async def _pump_in(process: anyio.abc.Process, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        async for message in outgoing:
            line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            await process.stdin.send(line.encode("utf-8", "replace") + b"\n")


async def _pump_words(process: anyio.abc.Process, said: deque[str]) -> None:
    assert process.stderr is not None
    last = b""
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
        while True:
            last += await process.stderr.receive(_READ_BYTES)
            if len(last) > _LAST_WORDS_BYTES:  # from the beginning of a line or a word on: nothing is to be cut in two
                last = _BREAK.sub(b"", last[-_LAST_WORDS_BYTES:], count=1)
            said.append(last.decode("utf-8", "replace"))


async def _notice_exit(process: anyio.abc.Process, ended: Callable[[str], None]) -> None:
    """A child of the server may hold its stdout open: its exit is the end all the same."""
    handle = open_pidfd(process.pid)
    try:
        if handle is not None:
            await anyio.wait_readable(handle)
    finally:
        if handle is not None:
            os.close(handle)
    while process.returncode is None:  # noqa: ASYNC110 (nothing tells)
        await anyio.sleep(_EXIT_POLL_S)
    await anyio.sleep(_LAST_WORDS_S)
    ended(f"it ended (exit status {process.returncode})")


async def _end(process: anyio.abc.Process, marked: str, close_s: float) -> None:
    """Close its stdin, give it time, then end it and all it has started."""
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        if process.stdin is not None:
            await process.stdin.aclose()
    with anyio.move_on_after(close_s):
        while process.returncode is None:  # noqa: ASYNC110 (nothing tells)
            await anyio.sleep(_EXIT_POLL_S)
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    await end_marked(marked)
    _let_go(process)


def _let_go(process: Any) -> None:
    """Close the pipes, whoever still holds their other ends."""
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    close = getattr(transport, "close", None)
    if callable(close):
        with suppress(OSError):
            close()
