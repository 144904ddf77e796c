"""Runs, found by their id alone, and what the log says of them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, NamedTuple

import msgspec
from starlette.requests import Request

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.runs import RunStatus
from hermes_ws.compat.runs_types import RunObject
from hermes_ws.decisions import RunOptions
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_event
from hermes_ws.routes.context import Api
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import ConversationRef, RunRow

__all__ = ["Found", "finals", "find", "named", "new_run_id", "run_object"]

_PAGE: Final = 1_000
_PAGE_BYTES: Final = 1_048_576
_ENDS: Final = (ev.RunCompleted, ev.RunFailed, ev.RunCancelled)


class Found(NamedTuple):
    """A run, and where it is."""

    ref: ConversationRef
    row: RunRow

    @property
    def first_seq(self) -> int:
        """The number of its first event."""
        return max(msgspec.json.decode(self.row.options, type=RunOptions).first_seq, 1)


def new_run_id() -> str:
    """A fresh id of the form that clients of hermes-agent check for: 32 hexadecimal digits."""
    return f"run_{secrets.token_hex(16)}"


async def named(api: Api, request: Request) -> tuple[Caller, Found]:
    """Who asks, and the run that the path names. Raises :class:`ApiError` 401 or 404."""
    caller = api.caller(request)
    return caller, await find(api, caller, request.path_params["run_id"])


async def find(api: Api, caller: Caller, run_id: str) -> Found:
    """The run. Raises :class:`ApiError` 404: one that the credential does not reach is not there."""
    namespace, runtime = caller.principal.namespace, api.runtime
    found = await runtime.store.find_run(namespace, run_id)
    found = found or await runtime.ephemerals.store.find_run(namespace, run_id)
    if found is None or not caller.principal.may_open(found[0].conversation_id):
        raise ApiError(404, "run_not_found", f"Run not found: {run_id[:200]}")
    return Found(*found)


async def finals(api: Api, found: Found, upto: int | None = None) -> AsyncGenerator[ev.Event]:
    """The run's events that are in the log now, without deltas, to its end or up to ``upto``."""
    store, after, over = api.runtime.store_of(found.ref), found.first_seq - 1, False
    while not over and (upto is None or after < upto):
        page = await store.read(found.ref, after=after, limit=_PAGE, max_bytes=_PAGE_BYTES, deltas=False)
        for stored in page:
            if upto is not None and stored.seq > upto:
                return
            event = decode_event(stored.data)
            if isinstance(event, ev.RunEvent) and event.run_id == found.row.run_id:
                yield event
                over = over or isinstance(event, _ENDS)
        if not page:
            return
        after = page[-1].seq


async def run_object(api: Api, found: Found) -> RunObject:
    """The run as it is now."""
    row, session_id = found.row, found.ref.conversation_id
    status = RunStatus(row.run_id, session_id, api.settings.server.model_name, row.updated_at)
    async with aclosing(finals(api, found)) as events:
        async for event in events:
            status.feed(event)
    return status.run
