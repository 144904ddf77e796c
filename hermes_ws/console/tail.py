"""``hermes-ws tail``: a conversation's events to a pipe, a line each, exactly as the server sends them."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress

from hermes_ws.client import Connected, Conversation, Disconnected, Received, connect
from hermes_ws.console.target import Server
from hermes_ws.protocol.events import RunCancelled, RunCompleted, RunFailed

__all__ = ["tail"]


async def tail(
    server: Server,
    conversation_id: str,
    *,
    after: int | None,
    epoch: str | None,
    exclude: Sequence[str],
    until_idle: bool,
) -> None:
    """Print until nobody reads any more, or, with ``until_idle``, until no run is active. Raises ``ClientError``."""
    async with connect(
        server.url,
        conversation_id,
        key=server.key,
        after=after,
        epoch=epoch,
        exclude=exclude,
        on_connection=_tell,
    ) as conversation:
        if after is None and sys.stderr.isatty():
            _say(f"what comes after {conversation.seq}")
        printing = asyncio.create_task(_print(conversation, until_idle))
        gone = asyncio.create_task(_nobody_reads())
        try:
            await asyncio.wait([printing, gone], return_when=asyncio.FIRST_COMPLETED)
            if printing.done():
                printing.result()
        except BrokenPipeError:
            pass
        finally:
            for task in (printing, gone):
                task.cancel()
            await asyncio.gather(printing, gone, return_exceptions=True)


async def _print(conversation: Conversation, until_idle: bool) -> None:
    out = sys.stdout.buffer
    frames = conversation.frames()
    head, at = conversation.hello.head, conversation.seq
    if until_idle and at >= head and await _idle(conversation, at):
        return
    async for received in frames:
        out.write(received.data + b"\n")
        out.flush()
        at = received.last
        if until_idle and at >= head and _may_end(received, head) and await _idle(conversation, at):
            return


def _may_end(received: Received, head: int) -> bool:
    """Whether to look if all is quiet: when everything old is told, and whenever a run has ended."""
    return received.last == head or isinstance(received.frame, RunCompleted | RunFailed | RunCancelled)


async def _idle(conversation: Conversation, at: int) -> bool:
    snapshot = await conversation.snapshot()
    return snapshot.run is None and not snapshot.queue and snapshot.at <= at


async def _nobody_reads() -> None:
    """Return when the pipe that we write to is closed at its other end, though there is nothing to write."""
    out = sys.stdout.fileno()
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    if not stat.S_ISFIFO(os.fstat(out).st_mode):
        await closed.wait()
    with suppress(OSError, NotImplementedError):
        loop.add_reader(out, closed.set)
    try:
        await closed.wait()
    finally:
        loop.remove_reader(out)


def _tell(news: Connected | Disconnected) -> None:
    if isinstance(news, Disconnected):
        _say(f"disconnected ({news.reason}); next attempt in {news.retry_in_s:.1f} s")


def _say(text: str) -> None:
    sys.stderr.write(f"hermes-ws: {text}\n")
    sys.stderr.flush()
