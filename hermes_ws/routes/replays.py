"""Answers of requests that leave nothing behind, kept in memory for a while: whoever repeats one under its key gets the
same answer, and nothing runs again.

Where there is a conversation, what a request came to is in its log (:mod:`hermes_ws.routes.once`). Here there is none,
so a restart forgets these answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import anyio
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.routes.context import Api
from hermes_ws.routes.once import REPLAYED, conflict, payload_digest
from hermes_ws.runtime.principal import Caller

__all__ = ["KeptAnswer", "Replays", "answered_once", "replays"]

_EXTRA_BYTES = 1_024
"""What an answer takes beside its body."""


class KeptAnswer(NamedTuple):
    """An answer as it was given."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(slots=True)
class _Entry:
    digest: str
    until: float
    answer: KeptAnswer | None = None
    over: anyio.Event = field(default_factory=anyio.Event)

    @property
    def size(self) -> int:
        return _EXTRA_BYTES + len(self.answer.body if self.answer is not None else b"")


class Replays:
    """The newest answers, up to ``most_bytes`` together, each for ``ttl_s`` seconds."""

    def __init__(self, most_bytes: int, ttl_s: float) -> None:
        self._most_bytes = most_bytes
        self._ttl_s = ttl_s
        self._entries: OrderedDict[tuple[str, ...], _Entry] = OrderedDict()

    async def once(
        self, key: tuple[str, ...], body: dict[str, Any], do: Callable[[], Awaitable[KeptAnswer]]
    ) -> tuple[KeptAnswer, bool]:
        """What ``do`` came to, and whether that was earlier. Only answers that are none of an error are kept; a copy
        that comes meanwhile waits. Raises :class:`ApiError` 409 for another body under the same key."""
        digest = payload_digest(body)
        while (entry := self._found(key)) is not None:
            if entry.digest != digest:
                raise conflict()
            if entry.answer is not None:
                return entry.answer, True
            await entry.over.wait()
        return await self._do(key, _Entry(digest, anyio.current_time() + self._ttl_s), do), False

    def _found(self, key: tuple[str, ...]) -> _Entry | None:
        entry = self._entries.get(key)
        outlived = entry is not None and entry.answer is not None and entry.until < anyio.current_time()
        return None if outlived else entry

    async def _do(self, key: tuple[str, ...], entry: _Entry, do: Callable[[], Awaitable[KeptAnswer]]) -> KeptAnswer:
        self._entries[key] = entry
        try:
            answer = await do()
            if answer.status < 400:
                entry.answer = answer
            return answer
        finally:
            if entry.answer is None:
                del self._entries[key]
            else:
                self._entries.move_to_end(key)
                self._forget_oldest()
            entry.over.set()

    def _forget_oldest(self) -> None:
        now, size = anyio.current_time(), sum(entry.size for entry in self._entries.values())
        for key, entry in list(self._entries.items()):
            if entry.answer is not None and (size > self._most_bytes or entry.until < now):
                size -= entry.size
                del self._entries[key]


_REPLAYS: WeakKeyDictionary[Api, Replays] = WeakKeyDictionary()


def replays(api: Api) -> Replays:
    """Those of this server."""
    if api not in _REPLAYS:
        settings = api.settings.compat
        _REPLAYS[api] = Replays(settings.replay_bytes, settings.replay_s)
    return _REPLAYS[api]


async def answered_once(
    api: Api, caller: Caller, request: Request, body: dict[str, Any], do: Callable[[], Awaitable[Response]]
) -> Response:
    """What ``do`` answers, or has answered to the same request under the same ``Idempotency-Key``."""
    key = api.idempotent_id(request)
    if key is None:
        return await do()

    async def kept() -> KeptAnswer:
        response = await do()
        return KeptAnswer(response.status_code, bytes(response.body), dict(response.headers))

    principal = caller.principal
    answer, replayed = await replays(api).once((principal.namespace, principal.name, key), body, kept)
    return Response(answer.body, answer.status, {**answer.headers, **(REPLAYED if replayed else {})})
