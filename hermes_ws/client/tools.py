"""Tools that a program executes for the agent: offered on every line, each call made once.

A call reaches us as an interaction whose ``owner`` is this client. It may be told again (after a reconnect, in a
snapshot), so what was begun is remembered for as long as the conversation is open. A call that was made for an earlier
life of a client of the same ``client_id`` may have been executed by that: it is made again only where that does no
harm.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import msgspec

from hermes_ws.client.failures import ClientError, CommandRefused
from hermes_ws.client.stream import Received, Stream
from hermes_ws.protocol.commands import ClientTool, ClientUpdate, Command, InteractionReply, SnapshotGet
from hermes_ws.protocol.control import Hello, Ok, SnapshotState
from hermes_ws.protocol.events import InteractionRequested, InteractionResolved
from hermes_ws.protocol.values import By

__all__ = ["Handler", "Tools", "ToolsOwner", "pick_interactions"]

Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[Any] | Any]
"""Takes the arguments of a call. A string is the output, anything else is told as JSON; what it raises is the call's
error. Cancelled when nobody waits for the result any more."""

_OVER = frozenset({"interaction_resolved", "interaction_expired", "interaction_not_found", "not_permitted"})
"""Nobody waits for the result, and the log says why."""
_RESTARTED = "The client was restarted while it executed this, so it may have been done or not."


class ToolsOwner(Protocol):
    """The conversation, as its tools see it."""

    @property
    def first_hello(self) -> Hello:
        """What the server said first on the first line."""
        ...

    async def send(self, command: Command) -> Ok: ...
    def introduce(self, update: ClientUpdate) -> None: ...
    def interactions(self) -> Stream[Any]: ...


@dataclass(frozen=True, slots=True)
class _Offer:
    tool: ClientTool
    handler: Handler
    idempotent: bool


class Tools:
    """What one client executes in one conversation."""

    def __init__(self, owner: ToolsOwner, client_id: str, name: str | None = None) -> None:
        self._owner = owner
        self._client_id = client_id
        self._name = name
        self._offers: dict[str, _Offer] = {}
        self._begun: dict[str, asyncio.Task[None]] = {}
        self._listening: asyncio.Task[None] | None = None

    async def offer(self, tool: ClientTool, handler: Handler, *, idempotent: bool) -> None:
        """Execute a tool from now on. Raises :class:`CommandRefused`, with everything as it was."""
        offers = {**self._offers, tool.name: _Offer(tool, handler, idempotent)}
        before, self._offers = self._offers, offers  # a call may come before the ``ok``
        self._listen()
        try:
            await self._say()
        except BaseException:
            self._offers = before
            raise

    async def withdraw(self, name: str) -> None:
        """Execute it no longer, but for the calls that were begun."""
        self._offers.pop(name, None)
        await self._say()

    async def _say(self) -> None:
        tools = [offer.tool for offer in self._offers.values()]
        update = ClientUpdate(client_id=self._client_id, name=self._name, tools=tools)
        await self._owner.send(update)
        self._owner.introduce(update)

    def _listen(self) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._follow(self._owner.interactions()))

    async def _follow(self, stream: Stream[Any]) -> None:
        with stream, suppress(ClientError):
            snapshot = (await self._owner.send(SnapshotGet())).snapshot
            if snapshot is not None:
                self._look_at(snapshot)
            async for told in stream:
                match told:
                    case InteractionRequested():
                        self._begin(told)
                    case InteractionResolved():
                        self._end(told)
                    case _:
                        self._look_at(told)

    def _look_at(self, snapshot: SnapshotState) -> None:
        for asked in snapshot.interactions:
            self._begin(asked)

    def _begin(self, asked: InteractionRequested) -> None:
        owner, hello = asked.owner, self._owner.first_hello
        ours = owner is not None and owner.by == By(principal=hello.principal, client_id=self._client_id)
        if ours and asked.interaction_id not in self._begun:
            self._begun[asked.interaction_id] = asyncio.create_task(self._execute(asked, asked.seq <= hello.head))

    def _end(self, resolved: InteractionResolved) -> None:
        """Somebody else has ended it: nobody waits for the result."""
        task = self._begun.get(resolved.interaction_id)
        if task is not None and resolved.outcome != "answered":
            task.cancel()

    async def _execute(self, asked: InteractionRequested, earlier_life: bool) -> None:
        content = await self._result(asked, earlier_life)
        try:
            await self._owner.send(InteractionReply(interaction_id=asked.interaction_id, content=content))
        except CommandRefused as refused:
            if refused.code not in _OVER:
                told = {"output": f"The result could not be handed over: {refused.message}"[:1000], "is_error": True}
                with suppress(ClientError):
                    await self._owner.send(InteractionReply(interaction_id=asked.interaction_id, content=told))
        except ClientError:
            pass  # the conversation was closed, or lost: its user is told

    async def _result(self, asked: InteractionRequested, earlier_life: bool) -> dict[str, Any]:
        assert asked.tool is not None
        offer = self._offers.get(asked.tool.name)
        if offer is None:
            return {"output": f"The client does not execute {asked.tool.name} any more.", "is_error": True}
        if earlier_life and not offer.idempotent:
            return {"output": _RESTARTED, "is_error": True}
        try:
            result = offer.handler(asked.tool.arguments)
            if inspect.isawaitable(result):
                result = await result
            return {"output": result if isinstance(result, str) else msgspec.json.encode(result).decode()}
        except Exception as failure:  # noqa: BLE001 - the program's own; the model is told
            return {"output": f"{type(failure).__name__}: {failure}", "is_error": True}

    async def close(self) -> None:
        """Stop listening, and what is being executed."""
        tasks = [*self._begun.values(), *([self._listening] if self._listening is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def pick_interactions(received: Received) -> Any:
    """What of a conversation its tools go by."""
    frame = received.frame
    return frame if isinstance(frame, InteractionRequested | InteractionResolved | SnapshotState) else None
