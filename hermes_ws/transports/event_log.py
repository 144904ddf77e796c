"""A conversation's log by request: a page of it, the whole of it as lines, or all that comes as server-sent events."""

from __future__ import annotations

from typing import Final

import anyio
import msgspec
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from hermes_ws.protocol.resources import EventPage
from hermes_ws.routes.context import json_response
from hermes_ws.routes.streams import unless_gone
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.log_cursor import LogCursor
from hermes_ws.runtime.tail import payload_of
from hermes_ws.store.base import ConversationRef
from hermes_ws.transports.event_stream import EVENT_STREAM, LogStreams
from hermes_ws.transports.export import JSON_LINES, Export
from hermes_ws.transports.log_query import LogQuery
from hermes_ws.transports.media import preferred
from hermes_ws.transports.places import Places
from hermes_ws.transports.requests import Desk

__all__ = ["EventLog"]

_PAGE: Final = "application/json"
_VARY: Final = {"vary": "Accept"}
_KEPT_BY_NOBODY: Final = {"cache-control": "no-store, no-transform"}


class EventLog:
    """The handlers of ``.../events`` and ``.../export``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._runtime = desk.runtime
        self._streams = LogStreams(desk.runtime, desk.settings.server.reconnect_after_ms)
        self._export = Export(desk.runtime)
        self._places = Places(desk.limits.streams)

    def routes(self, conversation: str) -> list[Route]:
        """Those below the address of a conversation."""
        return [
            Route(f"{conversation}/events", self._events),
            Route(f"{conversation}/export", self._exported),
        ]

    async def _events(self, request: Request) -> ASGIApp:
        """The log, in the form that is wanted."""
        ref = self._desk.named(request)[1]
        query = LogQuery.of(request, self._desk.limits)
        accept = ",".join(request.headers.getlist("accept"))
        form = preferred(accept, (_PAGE, EVENT_STREAM, *JSON_LINES))
        if form == _PAGE:
            page = await unless_gone(request, self._page(ref, query))
            return json_response(page, headers=_VARY)
        conversation = await self._runtime.open(ref)
        if form == EVENT_STREAM:
            return self._places.held(self._streams.answer(conversation, query, {**_VARY, **_KEPT_BY_NOBODY}))
        headers = {"content-type": form, **_VARY, **_KEPT_BY_NOBODY}
        return self._places.held(self._export.answer(conversation, query, headers))

    async def _exported(self, request: Request) -> ASGIApp:
        """The log as a file, for a link."""
        _, conversation = await self._desk.begun(request)
        query = LogQuery.of(request, self._desk.limits)
        name = conversation.ref.conversation_id.replace(":", "_")  # no file may be called so on Windows
        headers = {"content-type": JSON_LINES[0], "content-disposition": f'attachment; filename="{name}.jsonl"'}
        return self._places.held(self._export.answer(conversation, query, {**headers, **_KEPT_BY_NOBODY}))

    # -- pages -----------------------------------------------------------------------------------------

    async def _page(self, ref: ConversationRef, query: LogQuery) -> EventPage:
        """A page; if nothing is there that is wanted, it waits for something."""
        until = anyio.current_time() + query.wait_s
        conversation = await self._runtime.open(ref)
        cursor, most = query.page_of(conversation), self._desk.limits.page_bytes
        while True:
            head = conversation.committed
            chunk = await cursor.stored(conversation, head, limit=query.limit, max_bytes=most)
            if conversation.dead and not self._runtime.closing:
                return await self._page(ref, query.at_once(conversation.epoch))
            left_s = until - anyio.current_time()
            frames = [] if chunk is None else chunk.frames
            if frames or cursor.at != head or left_s <= 0 or conversation.dead:
                return _page(conversation, cursor, frames)
            with self._places.one():
                await conversation.wait_beyond(cursor.at, left_s)


def _page(conversation: Conversation, cursor: LogCursor, frames: list[bytes]) -> EventPage:
    head = conversation.committed
    return EventPage(
        epoch=conversation.epoch,
        head=head,
        floor=conversation.floor,
        events=[msgspec.Raw(payload_of(frame)) for frame in [*frames, *cursor.flushed()]],
        next=min(cursor.at, head),
        at_head=cursor.at >= head,
    )
