"""The Responses API over a WebSocket, as the SDK's ``client.responses.connect()`` speaks it.

Requests come as ``response.create``, and each is answered with the events of its stream, a text each. Requests with the
same ``stream_id``, or without any, take turns; others run side by side. What is not stored (``store`` false) is known
as long as the socket is open, and can be gone on from here. A run that is under way can be told something
(``response.steer``): where its agent hears it the response ends, and the next one begins by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc
import msgspec
import structlog
from msgspec.structs import replace

from hermes_ws.compat.errors import ApiError, envelope, of_command
from hermes_ws.compat.fields import invalid, items, text
from hermes_ws.compat.item_lists import shown
from hermes_ws.compat.responses import ResponseProjection
from hermes_ws.compat.responses_input import turn_of
from hermes_ws.compat.responses_record import ResponseRecord
from hermes_ws.compat.responses_request import read_create
from hermes_ws.compat.responses_steer import accepted, failed, pending
from hermes_ws.entities import as_text
from hermes_ws.errors import CommandError, HermesError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import RunSteer
from hermes_ws.protocol.values import ImagePart
from hermes_ws.routes.context import Api, parsed
from hermes_ws.routes.responses import draining
from hermes_ws.routes.responses_begin import Asked, begin, keep
from hermes_ws.routes.responses_log import Found, find, grow, row
from hermes_ws.routes.values import tool_progress
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import new_id
from hermes_ws.store.directory import is_ephemeral

__all__ = ["serve"]

Receive = Callable[[], Awaitable[str | None]]
Send = Callable[[str], Awaitable[None]]
_Lane = str | None

log = structlog.get_logger("hermes_ws.routes")


async def serve(api: Api, caller: Caller, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
    """Serve a socket until the client has gone; ``headers`` are those of its handshake."""
    socket = _Socket(api, caller, tool_progress(headers), send)
    async with anyio.create_task_group() as group:
        try:
            while (given := await receive()) is not None:
                await socket.take(given, group)
        finally:
            socket.close()
            group.cancel_scope.cancel()


@dataclass(slots=True)
class _Live:
    """A response that is on its way."""

    found: Found
    projection: ResponseProjection
    conversation: Conversation
    lane: _Lane
    sent: int = 0
    """The number of the last event that was sent."""
    steers: set[str] = field(default_factory=set[str])
    """What was said to its run from here, and not heard yet."""
    steering: anyio.Lock = field(default_factory=anyio.Lock)
    """Held while something is being said: what comes of it waits until that is acknowledged."""

    @property
    def response_id(self) -> str:
        return self.found.record.opening.id


class _Socket:
    """See the top of the module."""

    def __init__(self, api: Api, caller: Caller, progress: bool | None, send: Send) -> None:
        self._api, self._caller, self._send = api, caller, send
        self._progress = progress
        self._sending = anyio.Lock()
        self._lanes: dict[_Lane, anyio.abc.ObjectSendStream[dict[str, Any]]] = {}
        self._under_way = 0
        self._live: dict[str, _Live] = {}
        self._local: dict[str, Found] = {}
        self._temporary: dict[str, Conversation] = {}

    # -- in --------------------------------------------------------------------------------------------

    async def take(self, given: str, group: anyio.abc.TaskGroup) -> None:
        """One text of the client's."""
        lane: _Lane = None
        try:
            body = parsed(given.encode("utf-8", "surrogatepass"))
            kind = text(body.get("type"), "type")
            if kind == "response.steer":
                await self._steer(body)
                return
            if kind != "response.create":
                raise invalid("type", f"is response.create or response.steer, not {kind[:80]!r}", "unknown_event")
            named = body.get("stream_id")
            lane = None if named is None else text(named, "stream_id")
            await self._queue(body, lane, group)
        except HermesError as error:
            await self._refuse(error, lane)

    async def _queue(self, body: dict[str, Any], lane: _Lane, group: anyio.abc.TaskGroup) -> None:
        if body.get("background"):
            raise invalid("background", "is not for sockets; ask for it by POST", "unsupported_parameter")
        settings = self._api.settings.compat
        if self._under_way >= settings.socket_responses:
            message = f"{settings.socket_responses} responses of this socket are under way; wait for one of them"
            raise ApiError(429, "websocket_stream_limit_reached", message)
        if lane not in self._lanes:
            if len(self._lanes) >= settings.socket_lanes:
                message = f"a socket has up to {settings.socket_lanes} `stream_id`"
                raise ApiError(429, "websocket_stream_limit_reached", message)
            self._lanes[lane], requests = anyio.create_memory_object_stream[dict[str, Any]](settings.socket_responses)
            group.start_soon(self._work, lane, requests)
        self._under_way += 1
        await self._lanes[lane].send(body)

    async def _work(self, lane: _Lane, requests: anyio.abc.ObjectReceiveStream[dict[str, Any]]) -> None:
        async for body in requests:
            try:
                await self._create(body, lane)
            except HermesError as error:
                self._forget_refused(body.get("previous_response_id"))
                await self._refuse(error, lane)
            finally:
                self._under_way -= 1

    # -- out -------------------------------------------------------------------------------------------

    async def _tell(self, event: Any, lane: _Lane) -> None:
        if lane is not None:
            event = {**msgspec.to_builtins(event), "stream_id": lane}
        async with self._sending:
            with suppress(OSError):  # the client has gone; whoever receives is told so too
                await self._send(msgspec.json.encode(event).decode())

    async def _refuse(self, error: HermesError, lane: _Lane) -> None:
        if isinstance(error, CommandError):
            error = of_command(error)
        if not isinstance(error, ApiError):
            log.error("log.unusable", error=str(error))
            error = ApiError(500, "internal", "the log cannot be read or written; the server's log says why")
        await self._tell({"type": "error", "status": error.status, **envelope(error)}, lane)

    # -- responses -------------------------------------------------------------------------------------

    async def _create(self, body: dict[str, Any], lane: _Lane) -> None:
        settings = self._api.settings.compat
        request = read_create(body, most_items=settings.messages, most_functions=settings.functions)
        asked = Asked(self._api, self._caller, request, self._progress, self._local)
        found: Found | None = await begin(asked, new_id("resp"))
        while found is not None:
            found = await self._stream(found, lane)

    async def _stream(self, found: Found, lane: _Lane) -> Found | None:
        """Send a response as it grows; returns the one that goes on from it by itself, if one does."""
        conversation = await self._api.open(found.ref)
        live = _Live(found, found.record.projection(), conversation, lane)
        self._live[live.response_id] = live
        self._remember(found, conversation)
        successor: Found | None = None
        try:
            async with aclosing(grow(self._api, found, live.projection, self._listen(live))) as growing:
                async for event, made in growing:
                    for one in made:
                        await self._tell(one, lane)
                        live.sent = one.sequence_number
                    if isinstance(event, ev.RunSteered):
                        successor = await self._succeeded(live, event) or successor
        finally:
            del self._live[live.response_id]
        if not live.projection.done:
            raise draining()
        if successor is None and live.steers:
            await self._still_waiting(live)
        return successor

    def _remember(self, found: Found, conversation: Conversation) -> None:
        if not is_ephemeral(found.ref):
            return
        self._local[found.record.opening.id] = found
        self._temporary[found.ref.conversation_id] = conversation
        settings = self._api.settings.compat
        full = len(self._api.runtime.ephemerals) > settings.temporary
        over = next((name for name in self._local if name not in self._live), None)  # not one under way
        if over is not None and (full or len(self._local) > settings.socket_unstored):
            self._forget(over)

    def _forget(self, response_id: str) -> None:
        forgotten = self._local.pop(response_id)
        if all(one.ref != forgotten.ref for one in self._local.values()):
            self._api.left(self._temporary.pop(forgotten.ref.conversation_id), None, self._caller)

    def _forget_refused(self, response_id: Any) -> None:
        """What a refused request would have gone on from is not known any more, as both specifications have it: the
        client begins again with all that was said."""
        if isinstance(response_id, str) and response_id in self._local and response_id not in self._live:
            self._forget(response_id)

    def close(self) -> None:
        """The client has gone: what it waited for is not gone on with, what only it knew of is over."""
        runs = {live.found.ref.conversation_id: live for live in self._live.values()}
        for live in runs.values():
            self._api.left(live.conversation, live.found.record.run_id, self._caller)
        for name, conversation in self._temporary.items():
            if name not in runs:
                self._api.left(conversation, None, self._caller)

    # -- saying something to a run ---------------------------------------------------------------------

    async def _steer(self, body: dict[str, Any]) -> None:
        target = body.get("previous_response_id")
        live = self._live.get(target) if isinstance(target, str) else None
        try:
            if live is None:
                raise await self._not_live(target)
            said = _said(body.get("input"))
            async with live.steering:
                steer = RunSteer(text=said, run_id=live.found.record.run_id)
                ok = await self._api.command(live.conversation, steer, self._caller)
                assert ok.steer_id is not None
                live.steers.add(ok.steer_id)
                await self._tell(accepted(ok.steer_id, live.response_id, live.sent), live.lane)
        except (ApiError, CommandError) as refused:
            lane, sent = (live.lane, live.sent) if live is not None else (None, 0)
            await self._tell(failed(body, refused, sent), lane)

    async def _not_live(self, target: Any) -> ApiError:
        known = isinstance(target, str) and (
            target in self._local or await find(self._api, self._caller, target) is not None
        )
        if known:
            return ApiError(400, "response_already_completed", "the response is over; send response.create")
        return ApiError(400, "response_not_found", "no such response is under way at this socket")

    def _listen(self, live: _Live) -> Callable[[ev.Event], Awaitable[None]]:
        """Where what was said from here is heard, the response ends."""

        async def before(event: ev.Event) -> None:
            if isinstance(event, ev.RunSteered) and event.disposition == "applied":
                async with live.steering:
                    if event.steer_id in live.steers:
                        live.projection.until = event.seq

        return before

    async def _succeeded(self, live: _Live, event: ev.RunSteered) -> Found | None:
        """The response that goes on with what was said: in the same run, or in one of its own if it came too late."""
        async with live.steering:
            if event.steer_id not in live.steers or event.disposition == "pending":
                return None
            live.steers.discard(event.steer_id)
        own = event.new_run_id
        record = _next(live.found.record, event)
        ended = live.found.record if own else replace(live.found.record, until=event.seq)
        if ended.opening.store:
            now = live.conversation.now()
            await keep(live.conversation, [row(ended, now - 1), row(record, now)])  # in this order
        self._remember(live.found._replace(record=ended), live.conversation)
        return live.found._replace(record=record)

    async def _still_waiting(self, live: _Live) -> None:
        """The response has ended with questions: what was said is heard when those are answered."""
        for steer_id in sorted(live.steers):
            told = pending(steer_id, live.response_id, live.sent, live.projection.required)
            await self._tell(told, live.lane)


def _next(record: ResponseRecord, heard: ev.RunSteered) -> ResponseRecord:
    """What goes on from a response without having been asked for, with what was said to it: with the same settings."""
    response_id, created_at = new_id("resp"), heard.ts // 1000
    opening = replace(record.opening, id=response_id, created_at=created_at, previous_response_id=record.opening.id)
    return ResponseRecord(
        opening=opening,
        run_id=heard.new_run_id or record.run_id,
        after=0 if heard.new_run_id else heard.seq,
        input=shown([{"role": "user", "content": heard.text}], response_id),
        own_tools=record.own_tools,
        system=record.system,
        implicit=record.implicit,
    )


def _said(given: Any) -> str:
    """What is to be said to the run: text, or messages of the user's that are text."""
    if isinstance(given, str) and given:
        return given
    turn = turn_of(items(given, "input"))
    if turn.said is None or turn.past or turn.answers or turn.instructions:
        raise invalid("input", "has messages with role `user` only")
    if not isinstance(turn.said, str) and any(isinstance(part, ImagePart) for part in turn.said):
        raise invalid("input", "is text only: a run that is going on hears nothing else", "unsupported_content_type")
    return as_text(turn.said)
