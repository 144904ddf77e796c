"""Requests once: what a POST with an ``Idempotency-Key`` came to is kept beside the log, and told again.

The record is in the same commit as what the request did. Two requests under one key take turns, so the second finds the
first one's record. A key belongs to the principal, the address and the body: another body under it is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.errors import ApiError
from hermes_ws.routes.context import Api, json_response
from hermes_ws.runtime.command_ids import COMMAND_TTL_MS
from hermes_ws.runtime.locks import Locks
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import ConversationRef, RecordRow

__all__ = ["REPLAYED", "Once", "conflict", "once", "payload_digest"]

REPLAYED: Final = {"Idempotency-Replayed": "true"}
"""The header of an answer that is told again."""
_KIND: Final = "request"


class _Kept(msgspec.Struct, frozen=True):
    """What a request was, and what it came to."""

    digest: str
    answer: dict[str, Any]


@dataclass(slots=True)
class Once:
    """A request under its key. ``earlier``: what it came to when it was made before."""

    command_id: str | None
    """For the command that does it. None: the request has no key."""
    earlier: dict[str, Any] | None = None
    _row: tuple[str, int, str] | None = None

    def records(self, answer: dict[str, Any]) -> list[RecordRow]:
        """What is to be kept in the commit that does it."""
        if self._row is None:
            return []
        record_id, now, digest = self._row
        return [RecordRow(_KIND, record_id, now, msgspec.json.encode(_Kept(digest, answer)))]

    def replay(
        self, status: int = 200, newer: dict[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """The earlier answer once more, with what is newer by now."""
        assert self.earlier is not None
        told = {**self.earlier, **(newer or {}), "replayed": True}
        return json_response(told, status, {**(headers or {}), **REPLAYED})


_TURNS: Final = Locks[tuple[str, str]]()
"""Requests under way, by namespace and record."""


@asynccontextmanager
async def once(api: Api, caller: Caller, request: Request, body: dict[str, Any]) -> AsyncGenerator[Once]:
    """The request, in its turn. Raises :class:`ApiError` 409 ``idempotency_key_conflict``."""
    command_id = api.idempotent_id(request)
    if command_id is None:
        yield Once(None)
        return
    principal = caller.principal
    named = "\0".join((principal.name, command_id))
    record_id = hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:40]
    async with _TURNS.of((principal.namespace, record_id)):
        now = api.runtime.now()
        digest = payload_digest(body)
        found = await _found(api, principal.namespace, record_id)
        earlier = None
        if found is not None and found[1].created_at > now - COMMAND_TTL_MS:
            kept = msgspec.json.decode(found[1].data, type=_Kept)
            if kept.digest != digest:
                raise conflict()
            earlier = kept.answer
        yield Once(command_id, earlier, (record_id, now, digest))


def payload_digest(body: dict[str, Any]) -> str:
    """What tells one body under a key from another."""
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def conflict() -> ApiError:
    """Another body was sent under the same key."""
    message = "Idempotency-Key was already used with a different request payload"
    return ApiError(409, "idempotency_key_conflict", message)


async def _found(api: Api, namespace: str, record_id: str) -> tuple[ConversationRef, RecordRow] | None:
    """The record, also of what was done in a conversation that is not kept."""
    found = await api.runtime.store.record(namespace, _KIND, record_id)
    return found or await api.runtime.ephemerals.store.record(namespace, _KIND, record_id)
