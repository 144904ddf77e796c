"""The incoming side of a socket: messages are read, commands handed over, answers told.

Reading never waits for a run or a commit: a command is answered when it is done. It waits only when the client does
not take its answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from hermes_ws.errors import CommandError, FrameError
from hermes_ws.protocol.codec import decode_command
from hermes_ws.protocol.commands import Command
from hermes_ws.protocol.control import ControlBase, Error, Ok
from hermes_ws.runtime.command_ids import Reply
from hermes_ws.runtime.principal import Caller
from hermes_ws.settings import LimitSettings
from hermes_ws.transports.sinks import SocketSink

__all__ = ["Incoming", "Line", "Receive", "Send", "error_frame", "until_gone"]

log = structlog.get_logger("hermes_ws.websocket")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Do = Callable[[Command, Caller, Reply], Awaitable[None]]
Line = Callable[[str], Command | None]


def error_frame(refused: CommandError, command_id: str | None) -> Error:
    """A refusal as it travels."""
    return Error(
        id=command_id,
        code=refused.code,
        message=refused.message,
        retryable=refused.retryable,
        retry_after_ms=refused.retry_after_ms,
        path=refused.path,
        details=refused.details,
    )


async def until_gone(receive: Receive) -> None:
    """Read and forget until the client is gone."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


class Incoming:
    """What comes in at one socket."""

    def __init__(
        self,
        caller: Caller,
        limits: LimitSettings,
        sink: SocketSink,
        *,
        where: str,
        tell: Callable[[ControlBase], None],
        do: Do,
        line: Line | None = None,
    ) -> None:
        """``tell`` sends an answer. ``do`` does a command and calls its reply once. ``line`` reads what a person typed;
        None: nobody may type here. ``where`` is for the server's log."""
        self._caller = caller
        self._limits = limits
        self._sink = sink
        self._where = where
        self._tell = tell
        self._do = do
        self._line = line
        self._in_flight = 0

    async def take(self, receive: Receive) -> None:
        """Take commands until the client is gone; none while it does not take what it was sent."""
        while True:
            if not self._sink.writable:
                await self._sink.wait_writable()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._one(message)

    async def _one(self, message: MutableMapping[str, Any]) -> None:
        try:
            command = self._read(message)
        except FrameError as refused:
            self._tell(error_frame(refused, refused.command_id))
            return
        except CommandError as refused:
            self._tell(error_frame(refused, None))
            return
        if command is not None:
            await self._hand_over(command)

    def _read(self, message: MutableMapping[str, Any]) -> Command | None:
        """The command in a message; None when it was a line that needs no command."""
        text, data = message.get("text"), message.get("bytes")
        if text is None and not message.get("is_text"):
            raise FrameError("invalid_frame", "binary frames are not understood; send JSON in a text frame", path="$")
        payload: bytes = text.encode("utf-8", "surrogatepass") if text is not None else data or b""
        if len(payload) > self._limits.frame_bytes:
            most = self._limits.frame_bytes
            raise FrameError("too_large", f"a frame is at most {most} bytes; this one has {len(payload)}", path="$")
        if self._line is not None and not payload.lstrip().startswith(b"{"):
            return self._line(payload.decode("utf-8", "replace"))
        return decode_command(payload)

    async def _hand_over(self, command: Command) -> None:
        if self._in_flight >= self._limits.commands_in_flight:
            refused = CommandError("overloaded", "too many commands of this socket are unanswered", retry_after_ms=100)
            self._tell(error_frame(refused, command.id))
            return
        self._in_flight += 1

        def reply(answer: Ok | CommandError) -> None:
            self._in_flight -= 1
            self._tell(answer if isinstance(answer, Ok) else error_frame(answer, command.id))

        try:
            await self._do(command, self._caller, reply)
        except Exception:
            log.exception("command.crashed", where=self._where)
            reply(CommandError("internal", "the server failed at this; its log says why"))
