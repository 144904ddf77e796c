"""Lines in, lines out: for scripts. A line is taken when what the one before began has ended, or asks something."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress

from hermes_ws.client import Conversation
from hermes_ws.console.lines import EditArguments
from hermes_ws.console.talk import Leave, Talk

__all__ = ["print_text", "talk_through_pipes"]

BLOCKS = 64
"""Blocks that are read ahead."""
BLOCK = 65_536


def print_text(text: str) -> None:
    """Append to standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


async def talk_through_pipes(talk: Talk, conversation: Conversation) -> int:
    """Returns the exit status: 0, 1 if the last run failed or waits for an answer, 130 after a second Ctrl+C."""
    loop = asyncio.get_running_loop()
    leaving = asyncio.Event()
    stopping: set[asyncio.Task[None]] = set()

    async def stop() -> None:
        try:
            await talk.interrupt(conversation)
        except Leave:
            leaving.set()

    with suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, lambda: stopping.add(asyncio.create_task(stop())))
    work = asyncio.create_task(_work(talk, conversation))
    left = asyncio.create_task(leaving.wait())
    try:
        await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else 130
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
        for task in (work, left, *stopping):
            task.cancel()
        await asyncio.gather(work, left, *stopping, return_exceptions=True)


async def _work(talk: Talk, conversation: Conversation) -> int:
    with suppress(Leave):
        async for line in _lines():
            if line.partition(" ")[0] not in ("/stop", "/steer"):
                await talk.quiet()
            try:
                await talk.line(conversation, line)
            except EditArguments:
                talk.say_problem("say e and the arguments as JSON, on one line")
        await talk.quiet()
    if talk.question is not None:
        talk.say_problem(f"the run waits for an answer; hermes-ws connect {conversation.id} comes back to it")
        return 1
    return 1 if talk.failed else 0


async def _lines() -> AsyncGenerator[str]:
    """Lines of standard input; one that ends in a backslash goes on in the next."""
    joined = ""
    blocks = _blocks()
    rest = b""
    async for block in blocks:
        *complete, rest = (rest + block).split(b"\n")
        for raw in complete:
            line = raw.decode("utf-8", "replace").rstrip("\r")
            if line.endswith("\\"):
                joined += line[:-1] + "\n"
            else:
                yield joined + line
                joined = ""
    last = joined + rest.decode("utf-8", "replace")
    if last.strip():
        yield last


async def _blocks() -> AsyncGenerator[bytes]:
    """What comes on standard input, whatever it is (files cannot be polled). A thread that may be left behind reads."""
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes] = asyncio.Queue()
    taken = threading.Semaphore(BLOCKS)

    def read() -> None:
        with suppress(RuntimeError):
            while True:
                taken.acquire()
                try:
                    block = os.read(0, BLOCK)
                except OSError:
                    block = b""
                loop.call_soon_threadsafe(blocks.put_nowait, block)
                if not block:
                    return

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while block := await blocks.get():
        taken.release()
        yield block
