"""Sinks on somebody else's server: who waits for one that breaks is let go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hermes_ws.runtime.tail import text_frame
from hermes_ws.transports.sinks import AsgiSink

FRAME = text_frame(b"x" * 100)


async def _let_go(sink: AsgiSink) -> None:
    async with asyncio.timeout(2):
        await sink.wait_writable()


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("closed")])
async def test_a_send_that_fails_releases_who_waits_and_takes_nothing_more(error: Exception) -> None:
    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        raise error

    sink = AsgiSink(send, buffer_bytes=10, stall_s=10.0)
    async with sink.sending():
        sink.send([FRAME], FRAME)
        assert not sink.writable
        await _let_go(sink)
        assert not sink.writable
        sink.send([FRAME], FRAME)
        await _let_go(sink)


async def test_after_a_close_nothing_waits_and_nothing_is_sent() -> None:
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    sink = AsgiSink(send, buffer_bytes=10, stall_s=10.0)
    async with sink.sending():
        sink.close(4500, "over")
        sink.send([FRAME], FRAME)
        await _let_go(sink)
        sink.send([FRAME], FRAME)
        await _let_go(sink)
    assert sent == ["websocket.close"]


async def test_who_is_cancelled_while_the_sender_ends_stays_cancelled() -> None:
    ending, over = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await over.wait()

    async def serve() -> None:
        sink = AsgiSink(send, buffer_bytes=10, stall_s=10.0)
        async with sink.sending():
            sink.send([FRAME], FRAME)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(serve())
    await ending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    over.set()


async def test_a_client_that_takes_nothing_any_more_is_left() -> None:
    """What serves the socket is let out of wherever it waits, and is not cancelled for it."""
    begun = asyncio.Event()

    async def send(message: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    sink = AsgiSink(send, buffer_bytes=10, stall_s=0.05)
    async with asyncio.timeout(5):
        async with sink.sending():
            sink.send([FRAME], FRAME)
            await begun.wait()
            await asyncio.Event().wait()
            raise AssertionError("nobody ended this")
    assert not sink.writable
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_client_that_is_slow_but_takes_what_it_gets_stays() -> None:
    taken: list[str] = []
    over = asyncio.Event()

    async def send(message: Any) -> None:
        await asyncio.sleep(0.03)
        taken.append(message["type"])
        if len(taken) == 10:
            over.set()

    sink = AsgiSink(send, buffer_bytes=10, stall_s=0.2)
    async with asyncio.timeout(5), sink.sending():
        for _ in range(10):
            sink.send([FRAME], FRAME)
        await over.wait()
        assert sink.writable or taken


async def test_somebody_elses_time_limit_is_not_swallowed() -> None:
    async def send(message: Any) -> None:
        await asyncio.Event().wait()

    sink = AsgiSink(send, buffer_bytes=10, stall_s=10.0)
    with pytest.raises(TimeoutError, match="ours"):
        async with sink.sending():
            raise TimeoutError("ours")
