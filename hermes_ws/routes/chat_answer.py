"""One chat completion under way: from its run's beginning until the answer is given, or nobody waits for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.chat import ChatProjection, Frame, error_frame
from hermes_ws.compat.chat_request import ChatRequest
from hermes_ws.compat.errors import DRAINING, ApiError, envelope, of_command
from hermes_ws.errors import CommandError, ConversationDeleted, HermesError
from hermes_ws.routes.context import Api, json_response
from hermes_ws.routes.once import REPLAYED
from hermes_ws.routes.streams import KEEPALIVE
from hermes_ws.routes.values import tool_progress
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller

__all__ = ["Answer", "Asked", "Place"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read."""

    api: Api
    request: Request
    caller: Caller
    body: dict[str, Any]
    chat: ChatRequest

    @property
    def model(self) -> str:
        """What the answer says of who gave it."""
        return self.chat.model or self.api.settings.server.model_name

    @property
    def notes(self) -> bool:
        """Whether a stream tells of tools and questions."""
        return tool_progress(self.request.headers) is not False


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer is: in this run, after this number."""

    conversation: Conversation
    run_id: str
    after: int = 0
    replayed: bool = False
    """An earlier request has begun it."""

    @property
    def headers(self) -> dict[str, str]:
        """What each answer tells of it."""
        name = self.conversation.ref.conversation_id
        headers = {"X-Hermes-Conversation-Id": name, "X-Hermes-Session-Id": name, "X-Hermes-Run-Id": self.run_id}
        return {**headers, **(REPLAYED if self.replayed else {})}


class Answer:
    """See the top of the module. ``begin`` has the run begin, or go on, and says where the answer to that is."""

    def __init__(self, asked: Asked, place: Place, begin: Callable[[], Awaitable[Place]]) -> None:
        """``place``: where it will be, as far as that is known; ``begin`` may find another."""
        self._asked = asked
        self._api = asked.api
        self._place = place
        self._begin = begin
        self._projection = self._made()
        self._over = False
        """Whether there is nothing left to wait for."""

    async def response(self) -> Response:
        """The whole answer, or a stream of it. Raises :class:`ApiError` or :class:`CommandError`, or Starlette's
        ``ClientDisconnect`` when nobody waits any more."""
        request, streaming = self._asked.request, False
        try:
            if not self._asked.chat.stream:
                return await self._api.unless_gone(request, self._whole())
            frames = self._frames()
            first = await self._api.unless_gone(request, _first(frames))
            if self._projection.failure is not None:  # nothing was told yet, so it has a status of its own
                await frames.aclose()
                return self._failed(self._projection.failure)
            streaming = True
            stream = self._encoded(first or self._projection.opening(), frames)
            return self._api.sse(stream, headers=self._place.headers)
        finally:
            if not streaming:
                await self._leave()

    async def _leave(self) -> None:
        if self._over:
            await self._api.discard(self._place.conversation)
        else:
            self._api.left(self._place.conversation, self._place.run_id, self._asked.caller)

    async def _frames(self) -> AsyncGenerator[list[Frame] | None]:
        """What follows from each event; None when nothing came for a while. First of all the run is begun."""
        try:
            self._place = place = await self._begin()
        except HermesError:
            self._over = True  # nothing has begun
            raise
        self._projection = self._made()
        async with aclosing(self._api.follow(place.conversation.ref, place.after, place.run_id)) as events:
            async for event in events:
                frames = None if event is None else self._projection.feed(event)
                self._over = self._projection.done
                yield frames
                if self._over:
                    return
        raise ApiError(503, DRAINING, "the server is going down; ask again in a moment")

    def _made(self) -> ChatProjection:
        place = self._place
        return ChatProjection(
            f"chatcmpl-{place.run_id.removeprefix('run_')}-{place.after}",
            place.conversation.now() // 1000,
            self._asked.model,
            place.run_id,
            include_usage=self._asked.chat.include_usage,
            notes=self._asked.notes,
            legacy=self._asked.chat.legacy,
        )

    def _failed(self, error: ApiError) -> Response:
        """The run failed, and nothing was told of it yet."""
        retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        return json_response(envelope(error), error.status, {**self._place.headers, **retry})

    async def _whole(self) -> Response:
        async with aclosing(self._frames()) as frames:
            async for _ in frames:
                pass
        if self._projection.failure is not None:
            return self._failed(self._projection.failure)
        return json_response(self._projection.completion, headers=self._place.headers)

    async def _encoded(self, first: list[Frame], rest: AsyncGenerator[list[Frame] | None]) -> AsyncGenerator[bytes]:
        """The stream, from the first that there was to tell."""
        try:
            async with aclosing(rest):
                yield _bytes(first)
                async for frames in rest:
                    if frames is None:
                        yield KEEPALIVE
                    elif frames:
                        yield _bytes(frames)
        except HermesError as error:
            yield _bytes([error_frame(_told(error)), Frame()])
        finally:
            await self._leave()


async def _first(frames: AsyncGenerator[list[Frame] | None]) -> list[Frame]:
    """The first that there is to tell; nothing, if nothing came for a while. A stream begins only then: until then a
    failure is an answer with a status."""
    async for some in frames:
        if some is None:
            return []
        if some:
            return some
    return []


def _bytes(frames: list[Frame]) -> bytes:
    return b"".join(frame.encode() for frame in frames)


def _told(error: HermesError) -> ApiError:
    """What broke a stream off."""
    match error:
        case ApiError():
            return error
        case CommandError():
            return of_command(error)
        case ConversationDeleted():
            return ApiError(404, "not_found", str(error))
        case _:
            return ApiError(500, "internal", "the log cannot be read; the server's log says why")
