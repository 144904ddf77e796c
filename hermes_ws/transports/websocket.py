"""The conversation's socket: attach a reader, then take commands until the client goes. One task a socket."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import structlog

from hermes_ws.errors import HermesError, StoreError
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.commands import Command
from hermes_ws.protocol.control import Hello, Resume, Snapshot
from hermes_ws.runtime.commands import dispatch
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller, Principal, Seat
from hermes_ws.runtime.readers import Reader
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.settings import LimitSettings
from hermes_ws.transports.auth import Refused
from hermes_ws.transports.hello import hello
from hermes_ws.transports.incoming import Incoming, Receive, Send, until_gone
from hermes_ws.transports.log_query import event_types
from hermes_ws.transports.plain import parse_line
from hermes_ws.transports.sinks import PlainSink, SocketSink, sink_of

__all__ = ["SocketQuery", "attach", "serve_socket"]

log = structlog.get_logger("hermes_ws.websocket")

Start = Literal["start", "snapshot", "now"]

_STARTS: Final[dict[str, Start]] = {"start": "start", "snapshot": "snapshot", "now": "now"}
_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_MOST_PARAMETERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketQuery:
    """The query parameters of a conversation's socket."""

    after: int | None = None
    epoch: str | None = None
    start: Start = "snapshot"
    exclude: frozenset[str] = frozenset()
    plain: bool = False
    ticket: str | None = None

    @classmethod
    def parse(cls, query: bytes) -> SocketQuery:
        """Raises :class:`Refused` 400 (4400) that names the parameter. Unknown parameters are ignored."""
        if query.count(b"&") >= _MOST_PARAMETERS:
            message = f"a query has at most {_MOST_PARAMETERS} parameters"
            raise Refused(400, message, CloseCode.BAD_REQUEST)
        given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
        start = given.get("from", "snapshot")
        if start not in _STARTS:
            raise _bad_query("from", "start, snapshot or now", start)
        plain = given.get("plain", "0")
        if plain not in ("0", "1", ""):
            raise _bad_query("plain", "1", plain)
        return cls(
            after=_position(given.get("after")),
            epoch=given.get("epoch") or None,
            start=_STARTS[start],
            exclude=event_types(given.get("exclude", "")),
            plain=plain == "1",
            ticket=given.get("ticket"),
        )


def _position(text: str | None) -> int | None:
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise _bad_query("after", "a sequence number (0 is from the start)", text)
    return int(text)


def _bad_query(name: str, wanted: str, given: str) -> Refused:
    return Refused(400, f"query parameter {name}: expected {wanted}, got {given[:80]!r}", CloseCode.BAD_REQUEST)


async def serve_socket(
    runtime: Runtime,
    conversation: Conversation,
    principal: Principal,
    query: SocketQuery,
    limits: LimitSettings,
    *,
    scope: MutableMapping[str, Any],
    receive: Receive,
    send: Send,
) -> None:
    """Serve an accepted socket until it is gone."""
    seat = Seat(principal.name)
    caller = Caller(principal, "socket", seat)
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(sink_of(scope, send, runtime.settings.readers))
        stack.callback(seat.leave)
        lines = None
        if query.plain:
            sink = plain = PlainSink(sink)
            lines = _lines(runtime, conversation, plain)
        try:
            reader = await attach(runtime, conversation, caller, query, limits, sink)
            stack.callback(reader.stop)
            await Incoming(
                caller,
                limits,
                sink,
                where=conversation.ref.conversation_id,
                tell=reader.control,
                do=partial(dispatch, runtime, conversation),
                line=lines,
            ).take(receive)
        except HermesError as error:
            log.warning("socket.failed", conversation=conversation.ref.conversation_id, error=str(error))
            sink.close(CloseCode.INTERNAL, "the conversation could not be read")
            await until_gone(receive)


async def attach(
    runtime: Runtime,
    conversation: Conversation,
    caller: Caller,
    query: SocketQuery,
    limits: LimitSettings,
    sink: SocketSink,
) -> Reader:
    """Bring a client up to date: ``hello``, then what it asked for. Delivery goes on by itself.

    Raises :class:`StoreError` for a conversation that was dropped since it was opened: nothing more comes of it.
    """
    resume = _resume(conversation, query)
    snapshot: Snapshot | None = None
    if resume.mode == "snapshot":
        state = conversation.snapshot()
        snapshot = Snapshot(**{name: getattr(state, name) for name in state.__struct_fields__})
        await conversation.settled()
        resume = Resume(mode="snapshot", from_=1, to=snapshot.at, reason=resume.reason)
    if conversation.dead:
        raise StoreError("the conversation was dropped; come back and it is read anew from the log")
    cursor = resume.from_ - 1 if resume.mode == "replay" else resume.to
    reader = Reader(
        conversation,
        sink,
        cursor=cursor,
        live_at=resume.to,
        exclude=query.exclude,
        settings=runtime.settings.readers,
    )
    reader.control(_hello(runtime, conversation, caller, limits, resume, plain=query.plain))
    if snapshot is not None:
        reader.control(snapshot)
    reader.start()
    return reader


def _resume(conversation: Conversation, query: SocketQuery) -> Resume:
    """How to bring the client up to date. Only a changed epoch, a gap or a client ahead of us overrule it."""
    head, floor, epoch = conversation.committed, conversation.floor, conversation.epoch
    after = query.after if query.after is not None else 0 if query.start == "start" else None
    if after is None:
        if query.start == "now":
            return Resume(mode="live", from_=head + 1, to=head)
        return Resume(mode="snapshot", from_=1, to=head)
    if query.after is not None and query.epoch is not None and epoch is not None and query.epoch != epoch:
        return Resume(mode="snapshot", from_=1, to=head, reason="epoch_changed")
    if after > head:
        return Resume(mode="snapshot", from_=1, to=head, reason="ahead")
    if after + 1 < floor:
        return Resume(mode="snapshot", from_=1, to=head, reason="gap")
    return Resume(mode="replay", from_=after + 1, to=head)


def _hello(
    runtime: Runtime, conversation: Conversation, caller: Caller, limits: LimitSettings, resume: Resume, *, plain: bool
) -> Hello:
    return hello(
        runtime,
        caller,
        limits,
        conversation_id=conversation.ref.conversation_id,
        epoch=conversation.epoch,
        floor=conversation.floor,
        resume=resume,
        hint="type a message, or /help" if plain else _hint(conversation),
    )


def _hint(conversation: Conversation) -> str:
    asked = next(iter(conversation.session.state.interactions.values()), None)
    if asked is None:
        return 'send {"type":"run.start","input":"hi"} or {"type":"help"}'
    answer = '"option":"once"' if asked.kind == "approval" else '"answers":{"answer":"…"}'
    return f'answer with {{"type":"interaction.reply","interaction_id":"{asked.interaction_id}",{answer}}}'


def _lines(runtime: Runtime, conversation: Conversation, sink: PlainSink) -> Callable[[str], Command | None]:
    """What a line means that a person typed: a command, or an answer that is said at once."""

    def line(text: str) -> Command | None:
        if not text.strip():
            return None
        meant = parse_line(text, conversation.session.state, runtime.settings.tools.default)
        if isinstance(meant, str):
            sink.say(meant)
            return None
        return meant

    return line
