"""The link: the line to the server, made again whenever it breaks.

One task connects, reads, and comes back; a second one, as long as a line lasts, writes. What a line must not lose is
kept here and not in it: the number up to which everything was received, the commands that have no answer yet (they are
sent again, under their ids, on the next line), and the streams.

Every number is accounted for, by an event or by a ``skipped`` range. What does not follow is a violation of the
protocol: the line is dropped, and the next one asks for what is missing.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar
from weakref import WeakSet

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hermes_ws.client.backoff import Backoff
from hermes_ws.client.failures import CommandRefused, ConversationClosed, Lost, Unreachable
from hermes_ws.client.frames import Violation, read_frame
from hermes_ws.client.line import Line, judged, open_line
from hermes_ws.client.stream import Pick, Received, Stream
from hermes_ws.client.target import Target
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.commands import ClientUpdate, Command
from hermes_ws.protocol.control import Control, Error, GoAway, Heartbeat, Hello, Live, Ok, Skipped
from hermes_ws.protocol.events import ConversationCreated, Event, EventBase, UnknownEvent

__all__ = ["Connected", "Disconnected", "Link", "LinkSettings", "Start"]

log = logging.getLogger("hermes_ws.client")

T = TypeVar("T")
Start: TypeAlias = Literal["now", "snapshot", "start"]


@dataclass(frozen=True, slots=True)
class Connected:
    """The line is there; ``hello`` is what the server said first."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The line is down; the next attempt is in ``retry_in_s``."""

    reason: str
    retry_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How a link behaves."""

    start: Start = "now"
    after: int | None = None
    epoch: str | None = None
    exclude: tuple[str, ...] = ()
    client_id: str | None = None
    buffer_bytes: int = 1_048_576
    silence_s: float = 45.0
    open_timeout_s: float = 10.0
    wait_for_server: bool = False
    give_up_after_s: float | None = None
    on_connection: Callable[[Connected | Disconnected], None] | None = None


@dataclass(slots=True)
class _Unanswered:
    frame: bytes
    answer: asyncio.Future[Ok | Error]


class Link:
    """See the top of the module. ``open`` it, and ``close`` it whatever happens."""

    def __init__(self, target: Target, settings: LinkSettings) -> None:
        self.target = target
        self.hello: Hello | None = None
        self.epoch = settings.epoch
        self.position = settings.after if settings.after is not None else 0
        """Every number up to this one was received."""
        self._settings = settings
        self._beginning: Received | None = None
        self._begun_at = self.position
        self._claimed = False
        self._streams: WeakSet[Stream[Any]] = WeakSet()
        self._unanswered: dict[str, _Unanswered] = {}
        self._outbox: deque[bytes] = deque()
        self._to_write = asyncio.Event()
        self._wanted = asyncio.Event()
        self._relieved = asyncio.Event()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._backoff = Backoff()
        self._progressed = False
        self._going_back = False
        self._come_back_at = 0.0
        self._lost_at = 0.0
        self._socket: ClientConnection | None = None
        self._greeting: ClientUpdate | None = None
        """The first command of every line."""
        self.first_hello: Hello | None = None
        if settings.client_id is not None:
            self.introduce(ClientUpdate(client_id=settings.client_id))
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    # -- opening and closing ---------------------------------------------------------------------------

    async def open(self) -> None:
        """Returns with the first ``hello``. Raises :class:`ClientError`."""
        self._task = asyncio.create_task(self._run(), name=f"hermes-ws {self.target.conversation_id}")
        self._task.add_done_callback(self._ended)
        await self._opened

    async def close(self) -> None:
        """Close the line, if there is one; streams end, and what waits for an answer is told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        closed = ConversationClosed("the conversation was closed")
        self._failure = failure if isinstance(failure, Exception) else closed
        self._fail_unanswered(self._failure)
        for stream in tuple(self._streams):
            stream.end(None if self._failure is closed else self._failure)
        if not self._opened.done():
            self._opened.set_exception(self._failure)
            self._opened.exception()

    def _fail_unanswered(self, failure: Exception) -> None:
        for waiting in self._unanswered.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(failure)
        self._unanswered.clear()

    # -- commands --------------------------------------------------------------------------------------

    def introduce(self, update: ClientUpdate) -> None:
        """Say this first on every line from the next one on."""
        self._greeting = msgspec.structs.replace(update, id=str(uuid.uuid4()))

    async def exchange(self, command: Command) -> Ok | Error:
        """Send a command, as often as lines break, until it is answered. It must have an id.

        Cancelled, it is not sent again; whether it was done is not known.
        """
        if self._failure is not None:
            raise self._failure
        assert command.id is not None
        if command.id in self._unanswered:
            raise ValueError(f"a command with the id {command.id!r} has no answer yet; ids are for one command each")
        waiting = _Unanswered(encode(command), asyncio.get_running_loop().create_future())
        self._unanswered[command.id] = waiting
        self._outbox.append(waiting.frame)
        self._to_write.set()
        self._wanted.set()
        self._relieved.set()
        try:
            return await waiting.answer
        finally:
            self._unanswered.pop(command.id, None)

    # -- streams ---------------------------------------------------------------------------------------

    def stream(self, pick: Pick[T], *, from_beginning: bool = False) -> Stream[T]:
        """A new stream, of what follows; ``from_beginning``: of what ``connect`` was told to begin with."""
        stream = Stream(self, self._begun_at if from_beginning else self.position, pick, self._settings.buffer_bytes)
        if from_beginning and self._beginning is not None:
            stream.resynchronize(self._beginning)
        if self._failure is not None:
            stream.end(None if isinstance(self._failure, ConversationClosed) else self._failure)
        self._streams.add(stream)
        self._wanted.set()
        return stream

    def claim_beginning(self) -> bool:
        """True once: the first stream of events begins with the beginning."""
        first, self._claimed = not self._claimed, True
        return first

    def relieved(self) -> None:
        self._relieved.set()

    def release(self, stream: Stream[Any]) -> None:
        self._streams.discard(stream)
        self._relieved.set()

    def starving(self, position: int) -> None:
        """Go back to where that stream is, if the line is beyond it."""
        if position < self.position and self._socket is not None and not self._going_back:
            self._going_back = True
            self._socket.transport.abort()

    # -- connecting ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                line = await open_line(self.target, self._query(), timeout_s=self._settings.open_timeout_s)
                await self._serve(line)
            except Lost as lost:
                await self._pause(lost)

    def _query(self) -> list[tuple[str, str]]:
        """Begin as told; afterwards, go on from the stream that is farthest behind and can take more."""
        query = [("exclude", ",".join(self._settings.exclude))] if self._settings.exclude else []
        if self.hello is None and self._settings.after is None:
            return [*query, ("from", self._settings.start)]
        self.position = min([self.position, *(s.position for s in self._streams if not s.full)])
        query.append(("after", str(self.position)))
        return [*query, ("epoch", self.epoch)] if self.epoch is not None else query

    async def _pause(self, lost: Lost) -> None:
        loop = asyncio.get_running_loop()
        if self._going_back:
            self._going_back = False
            return
        if self.hello is None and not lost.answered and not self._settings.wait_for_server:
            raise Unreachable(lost.reason) from lost
        if self._progressed:
            self._progressed = False
            self._backoff.reset()
        delay_s = max(self._backoff.next(), lost.retry_after_s, self._come_back_at - loop.time())
        patience_s = self._patience(loop.time())
        if patience_s <= 0:
            raise Unreachable(f"given up: {lost.reason}") from lost
        delay_s = min(delay_s, patience_s)
        log.info("disconnected (%s); next attempt in %.2f s", lost.reason, delay_s)
        self._tell(Disconnected(lost.reason, delay_s))
        await asyncio.sleep(delay_s)

    def _patience(self, now: float) -> float:
        """How much longer to try; counts from when the line was lost."""
        self._lost_at = self._lost_at or now
        limit = self._settings.give_up_after_s
        return float("inf") if limit is None else self._lost_at + limit - now

    def _tell(self, news: Connected | Disconnected) -> None:
        if self._settings.on_connection is not None:
            self._settings.on_connection(news)

    # -- a line ----------------------------------------------------------------------------------------

    async def _serve(self, line: Line) -> None:
        """Returns never; raises what ended the line."""
        self._socket = socket = line.socket
        writer: asyncio.Task[None] | None = None
        try:
            with judged():
                self._adopt(line)
                writer = asyncio.create_task(self._write(socket))
                await self._read(socket)
        except Lost:
            socket.transport.abort()
            raise
        finally:
            self._socket = None
            if writer is not None:
                writer.cancel()
                await asyncio.wait([writer])
            await socket.close()

    def _adopt(self, line: Line) -> None:
        """Take over where the server says that it begins."""
        hello, resume, first = line.hello, line.hello.resume, self.hello is None
        if resume.mode == "replay" and not (first and self._settings.after is None):
            self._must(resume.from_ == self.position + 1, f"asked for {self.position + 1}, given {resume.from_}")
        self.hello, self._lost_at, self._come_back_at = hello, 0.0, 0.0
        self.epoch = hello.epoch
        self.target = self.target.named(hello.conversation_id or self.target.conversation_id)
        if line.snapshot is not None:
            self._resynchronize(line, first)
        elif first:
            self.position = resume.from_ - 1
        if first:
            self._begun_at, self.first_hello = self.position, hello
        self._outbox = deque(waiting.frame for waiting in self._unanswered.values())
        self._tell(Connected(hello))
        if not self._opened.done():
            self._opened.set_result(None)
        for stream in tuple(self._streams):
            if stream.waiting:
                self.starving(stream.position)

    def _resynchronize(self, line: Line, first: bool) -> None:
        assert line.snapshot is not None
        at, reason = line.snapshot.at, line.hello.resume.reason
        received = Received(line.snapshot, line.snapshot_data, 0, at)
        self.position, self._progressed = at, True
        if first:
            self._beginning = received
        for stream in tuple(self._streams):
            if reason != "gap" or stream.position < at:
                stream.resynchronize(received)

    async def _write(self, socket: ClientConnection) -> None:
        """Who we are; what has no answer yet; what comes."""
        with suppress(ConnectionClosed):
            if self._greeting is not None:
                await socket.send(encode(self._greeting), text=True)
            while True:
                while self._outbox:
                    await socket.send(self._outbox.popleft(), text=True)
                self._to_write.clear()
                await self._to_write.wait()

    async def _read(self, socket: ClientConnection) -> None:
        """Nothing is read before somebody wants it: a stream that is made right after ``connect`` misses nothing."""
        await self._wanted.wait()
        loop, silence_s = asyncio.get_running_loop(), self._settings.silence_s
        async with asyncio.timeout(silence_s) as patience:
            while True:
                self._take(await socket.recv(decode=False))
                if self._must_wait:
                    patience.reschedule(None)
                    await self._until_relieved()
                patience.reschedule(loop.time() + silence_s)

    @property
    def _must_wait(self) -> bool:
        return not self._unanswered and any(stream.full for stream in self._streams)

    async def _until_relieved(self) -> None:
        while self._must_wait:
            self._relieved.clear()
            await self._relieved.wait()

    # -- a frame ---------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        frame = read_frame(data)
        if isinstance(frame, EventBase | UnknownEvent):
            self._take_event(frame, data)
        elif isinstance(frame, Skipped):
            self._advance(Received(frame, data, frame.from_, frame.to))
        elif frame is not None:
            self._take_control(frame)

    def _take_event(self, event: Event | UnknownEvent, data: bytes) -> None:
        if isinstance(event, ConversationCreated) and self.epoch is None:  # `hello` knows of a newer one
            self.epoch = event.epoch
        self._advance(Received(event, data, event.seq, event.seq))

    def _advance(self, received: Received) -> None:
        expected = self.position + 1
        self._must(received.first == expected <= received.last, f"expected {expected}, got {received.first}")
        self.position, self._progressed = received.last, True
        for stream in tuple(self._streams):
            stream.offer(received)

    def _take_control(self, frame: Control) -> None:
        match frame:
            case Ok() | Error():
                self._take_answer(frame)
            case Live(at=at):
                self._must(at == self.position, f"live at {at}, but received up to {self.position}")
                self._progressed = True
            case Heartbeat(head=head):
                self._must(head == self.position, f"the head is {head}, but received up to {self.position}")
            case GoAway():
                self._come_back_at = asyncio.get_running_loop().time() + frame.reconnect_after_ms / 1000
            case _:
                raise Violation("hello or snapshot in mid-stream")

    def _take_answer(self, answer: Ok | Error) -> None:
        waiting = self._unanswered.pop(answer.id, None) if answer.id is not None else None
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(answer)
        elif isinstance(answer, Error) and self._greeting is not None and answer.id == self._greeting.id:
            raise CommandRefused(answer)

    def _must(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise Violation(otherwise)
