"""Runs begin in callbacks of the loop: there, too, libraries must find out which loop it is."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace

import anyio
import pytest

from hermes_ws.runtime.loop_name import known_to_sniffio


async def test_in_a_callback_anyio_knows_the_loop_whoever_has_installed_sniffio() -> None:
    pytest.importorskip("sniffio", reason="sniffio is not installed, so anyio does not ask it")
    made: asyncio.Future[anyio.CancelScope] = asyncio.get_running_loop().create_future()

    def callback() -> None:
        try:
            made.set_result(anyio.CancelScope())
        except BaseException as error:  # noqa: BLE001 - the test raises it
            made.set_exception(error)

    with known_to_sniffio():
        asyncio.get_running_loop().call_soon(callback)
        async with asyncio.timeout(5):
            assert isinstance(await made, anyio.CancelScope)


def test_what_was_said_before_is_said_again_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("sniffio")
    fake.thread_local = SimpleNamespace(name="trio")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sniffio", fake)
    with known_to_sniffio():
        assert fake.thread_local.name == "asyncio"
    assert fake.thread_local.name == "trio"


def test_without_sniffio_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sniffio", None)
    with known_to_sniffio():
        pass
