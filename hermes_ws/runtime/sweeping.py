"""What a server removes now and then: deltas, outputs and images that have had their time, and what was deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import anyio
import anyio.to_thread
import structlog

from hermes_ws.errors import StoreError
from hermes_ws.runtime.images import Images
from hermes_ws.runtime.parts import RuntimeSettings
from hermes_ws.store.base import Store
from hermes_ws.store.directory import DataDirectory

__all__ = ["Sweeper"]

log = structlog.get_logger("hermes_ws.runtime")


class Sweeper:
    """Sweeps every so often, and soon after something was deleted."""

    def __init__(
        self,
        store: Store,
        directory: DataDirectory,
        images: Images,
        settings: RuntimeSettings,
        *,
        now: Callable[[], int],
    ) -> None:
        self._parts = (store, directory, images)
        self._settings = settings
        self._now = now
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """There is something to remove."""
        self._soon.set()

    async def forever(self) -> None:
        """Until cancelled."""
        while True:
            with anyio.move_on_after(self._settings.sweep_every_s or None):
                await self._soon.wait()
            self._soon = asyncio.Event()
            try:
                await self._sweep()
            except Exception:
                log.exception("sweep.crashed")

    async def _sweep(self) -> None:
        settings = self._settings
        await _sweep(
            *self._parts,
            now=self._now(),
            deltas_s=settings.retention_s,
            outputs_s=settings.outputs_retention_s,
            records_s=settings.records_retention_s,
        )


async def _sweep(
    store: Store,
    directory: DataDirectory,
    images: Images,
    *,
    now: int,
    deltas_s: int,
    outputs_s: int,
    records_s: Mapping[str, int],
) -> None:
    """Remove deltas of runs that ended ``deltas_s`` ago, and so on; ``now`` in Unix ms. ``records_s``: how long records
    of a kind stay.

    Images come last: those that only a deleted conversation referred to are free by then.
    """
    try:
        freed = await store.sweep(now - deltas_s * 1000)
        for kind, stays_s in records_s.items():
            await store.forget_records(kind, now - stays_s * 1000)
        await anyio.to_thread.run_sync(directory.remove_old_outputs, now - outputs_s * 1000)
        await anyio.to_thread.run_sync(directory.empty_trash)
        unused = await images.sweep(store, now)
    except StoreError as error:
        log.warning("sweep.failed", error=str(error))
        return
    if freed.events or unused:
        log.info("sweep.done", events=freed.events, bytes=freed.bytes, images=unused)
