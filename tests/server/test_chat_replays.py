"""Answers that are kept in memory for those who repeat a request under its key."""

from __future__ import annotations

import asyncio

import pytest

from hermes_ws.compat.errors import ApiError
from hermes_ws.routes.replays import KeptAnswer, Replays

BODY = {"messages": ["hi"]}


class Work:
    """Counts how often it is done. ``gate``: what it waits for."""

    def __init__(self, status: int = 200, size: int = 10, gate: asyncio.Event | None = None) -> None:
        self.times = 0
        self.status, self.size, self.gate = status, size, gate
        self.begun = asyncio.Event()

    async def __call__(self) -> KeptAnswer:
        self.times += 1
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        return KeptAnswer(self.status, b"x" * self.size, {"n": str(self.times)})


async def test_the_second_time_it_is_told_and_not_done() -> None:
    replays, work = Replays(10_000, 60), Work()
    first, earlier = await replays.once(("a",), BODY, work)
    again, told = await replays.once(("a",), BODY, work)
    assert (earlier, told, work.times) == (False, True, 1)
    assert first == again


async def test_another_body_under_the_key_is_refused() -> None:
    replays, work = Replays(10_000, 60), Work()
    await replays.once(("a",), BODY, work)
    with pytest.raises(ApiError) as caught:
        await replays.once(("a",), {}, work)
    assert (caught.value.status, caught.value.code) == (409, "idempotency_key_conflict")


async def test_another_principal_has_keys_of_its_own() -> None:
    replays, work = Replays(10_000, 60), Work()
    await replays.once(("a", "k"), BODY, work)
    assert (await replays.once(("b", "k"), BODY, work))[1] is False


async def test_a_copy_that_comes_meanwhile_waits() -> None:
    gate = asyncio.Event()
    replays, work = Replays(10_000, 60), Work(gate=gate)
    both = [asyncio.create_task(replays.once(("a",), BODY, work)) for _ in range(2)]
    async with asyncio.timeout(5):
        await work.begun.wait()
        gate.set()
        (one, first), (other, second) = await asyncio.gather(*both)
    assert one == other
    assert [first, second] == [False, True]
    assert work.times == 1


async def test_when_the_first_goes_away_the_copy_does_it() -> None:
    gate = asyncio.Event()
    replays, work = Replays(10_000, 60), Work(gate=gate)
    first, copy = [asyncio.create_task(replays.once(("a",), BODY, work)) for _ in range(2)]
    async with asyncio.timeout(5):
        await work.begun.wait()
        first.cancel()
        gate.set()
        _, told = await copy
    assert told is False
    assert work.times == 2


async def test_errors_are_not_kept() -> None:
    replays, work = Replays(10_000, 60), Work(status=502)
    await replays.once(("a",), BODY, work)
    assert (await replays.once(("a",), BODY, work))[1] is False


async def test_an_answer_is_kept_for_a_while() -> None:
    replays, work = Replays(10_000, -1), Work()
    await replays.once(("a",), BODY, work)
    assert (await replays.once(("a",), BODY, work))[1] is False


async def test_the_oldest_are_forgotten_first() -> None:
    replays, work = Replays(10_000, 60), Work(size=4_000)
    for name in "abc":
        await replays.once((name,), BODY, work)
    assert (await replays.once(("c",), BODY, work))[1] is True
    assert (await replays.once(("a",), BODY, work))[1] is False
