"""The inbox's socket: ``hello``, the first page, then what changes; commands to any conversation."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from typing import Any, Final

import structlog

from hermes_ws.errors import HermesError
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.commands import Command
from hermes_ws.protocol.control import Hello, Resume
from hermes_ws.runtime.inbox import InboxReader
from hermes_ws.runtime.inbox_commands import dispatch_inbox
from hermes_ws.runtime.principal import Caller, Principal, Seat
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.settings import LimitSettings
from hermes_ws.transports.hello import hello
from hermes_ws.transports.incoming import Incoming, Line, Receive, Send, until_gone
from hermes_ws.transports.plain_inbox import PlainInbox
from hermes_ws.transports.sinks import PlainSink, SocketSink, sink_of

__all__ = ["INBOX_PATH", "serve_inbox"]

log = structlog.get_logger("hermes_ws.websocket")

INBOX_PATH: Final = "/ws"
_PLAIN_HINT: Final = "type @CONVERSATION and a message, or /help"
_HINT: Final = 'send {"type":"run.start","conversation_id":"new","input":"hi"} or {"type":"help"}'


async def serve_inbox(
    runtime: Runtime,
    principal: Principal,
    limits: LimitSettings,
    *,
    plain: bool,
    scope: MutableMapping[str, Any],
    receive: Receive,
    send: Send,
) -> None:
    """Serve an accepted socket until it is gone."""
    caller = Caller(principal, "socket", Seat(principal.name))
    async with sink_of(scope, send, runtime.settings.readers) as sink:
        lines = None
        if plain:
            sink, lines = _readable(sink)
        reader = InboxReader(runtime.inboxes, principal, sink)
        try:
            reader.control(_hello(runtime, caller, limits, plain=plain))
            reader.start()
            await reader.first_page()
            do = partial(dispatch_inbox, runtime, reader)
            await Incoming(caller, limits, sink, where="inbox", tell=reader.control, do=do, line=lines).take(receive)
        except HermesError as error:
            log.warning("inbox.failed", error=str(error))
            sink.close(CloseCode.INTERNAL, "the conversations could not be read")
            await until_gone(receive)
        finally:
            reader.stop()


def _hello(runtime: Runtime, caller: Caller, limits: LimitSettings, *, plain: bool) -> Hello:
    resume, hint = Resume(mode="live", from_=1, to=0), _PLAIN_HINT if plain else _HINT
    return hello(runtime, caller, limits, conversation_id=None, epoch=None, floor=1, resume=resume, hint=hint)


def _readable(inner: SocketSink) -> tuple[PlainSink, Line]:
    """The terminal's side: how frames are shown, and what lines mean."""
    view = PlainInbox()
    sink = PlainSink(inner, view.lines)

    def line(text: str) -> Command | None:
        meant = view.command(text) if text.strip() else None
        if isinstance(meant, str):
            sink.say(meant)
            return None
        return meant

    return sink, line
