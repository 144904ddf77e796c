"""The inbox: the latest state of every conversation, for whoever has an eye on all of them.

Theory of operation. A conversation in which something was committed tells the :class:`Inboxes`; while nobody has an
inbox open that is all that happens. What matters to a person (the status, the run, the queue, the title, what is asked)
is told at once; that a conversation has only come further, at most every ``quiet_ms``.

A reader has no queue. It has the names of the conversations that are another than it was told, each once, however often
they changed, and writes them as they are at the moment when its socket takes them. One frame serves every reader: the
line that was encoded for the store, with a few bytes around it. Of a conversation that last changed a while ago no line
is kept here: a reader that comes to it late reads it from the store, as it reads its pages. While it reads, changes
wait. What was read is then told as the newer of what the store knew and what is kept here, and as the store knew it if
nothing is kept; only in the first case is the change that waited told with it. One that was deleted meanwhile is in no
page: its end is told after, and what there is of it by then. So no older state follows a newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog

from hermes_ws.errors import CommandError, StoreError
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.control import Heartbeat, InboxChanged, InboxPage, InboxRemoved
from hermes_ws.protocol.summaries import ConversationSummary
from hermes_ws.ranges import AtLeastOne, NonNegative
from hermes_ws.runtime.outlet import Outlet, Sink
from hermes_ws.runtime.principal import Principal
from hermes_ws.runtime.reached import asked_in, conversations, summary_of
from hermes_ws.runtime.readers import ReaderSettings
from hermes_ws.runtime.tail import text_frame
from hermes_ws.store.base import ConversationLine, ConversationRef, Store
from hermes_ws.store.directory import is_ephemeral

if TYPE_CHECKING:
    from hermes_ws.runtime.conversation import Conversation

__all__ = ["InboxReader", "InboxSettings", "Inboxes"]

log = structlog.get_logger("hermes_ws.inbox")

KEPT_S: Final = 1.0
"""How long at least the line of a conversation is kept after its last change, for readers that are a little late."""
_BEGIN: Final = b'{"type":"inbox.changed","conversation":'


class InboxSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[inbox]``: the socket that shows all conversations."""

    page: AtLeastOne = 100
    """Most conversations in one ``inbox.page``."""
    page_bytes: AtLeastOne = 262_144
    """What the conversations of one page may weigh together; one always fits. What is asked in them is in the page
    twice."""
    quiet_ms: NonNegative = 1_000
    """How often, at most, a conversation is told of in which nothing changed but ``head``, ``last_event_at`` and
    ``usage``."""


class Around(Protocol):
    """What the inboxes need of the runtime around them."""

    store: Store

    def now(self) -> int: ...
    def uptime(self) -> float: ...
    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None: ...


@dataclass(slots=True)
class _Entry:
    """A conversation that changed lately, as it is now. ``summary`` None: it was deleted. ``encoded`` is the summary's,
    unless the conversation has come further since."""

    summary: ConversationSummary | None
    encoded: bytes | None
    head: int
    told_at: float
    changed_at: float
    timer: asyncio.TimerHandle | None = None
    made: bytes | None = None

    def take(self, summary: ConversationSummary, encoded: bytes | None, head: int, at: int) -> None:
        """It is so now."""
        if encoded is None:
            summary = msgspec.structs.replace(summary, head=head, last_event_at=at)
        self.summary, self.encoded, self.head, self.made = summary, encoded, head, None

    def frame(self, conversation_id: str) -> bytes:
        """What readers are told, made once."""
        if self.made is None:
            self.made = _told(conversation_id, self.summary, self.encoded)
        return self.made

    def still(self) -> None:
        """Tell nothing later."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _told(conversation_id: str, summary: ConversationSummary | None, encoded: bytes | None = None) -> bytes:
    if summary is None:
        return text_frame(encode(InboxRemoved(conversation_id=conversation_id)))
    if encoded is None:
        return text_frame(encode(InboxChanged(conversation=summary)))
    return text_frame(_BEGIN + encoded + b"}")


def _in_turn(conversation_id: str, told: bytes, removed: bool) -> list[bytes]:
    """What is to be told of a conversation, after its end if it was ``removed`` and is another one by now: numbers of
    the new one are lower, and no news may look old."""
    gone = _told(conversation_id, None)
    return [gone, told] if removed and told != gone else [told]


def _matters(summary: ConversationSummary) -> tuple[Any, ...]:
    """What a person wants to know at once."""
    asked = [one.interaction_id for one in summary.interactions]
    return summary.status, summary.run_id, summary.queue, summary.title, asked


class Inboxes:
    """All inboxes that are open, and what changed lately."""

    def __init__(self, host: Around, settings: InboxSettings, readers: ReaderSettings) -> None:
        self.host = host
        self.settings = settings
        self.reader_settings = readers
        self._readers: dict[str, set[InboxReader]] = {}
        self._entries: dict[ConversationRef, _Entry] = {}
        self._wake_due = False

    @property
    def readers(self) -> list[InboxReader]:
        """Everybody who has one open."""
        return [reader for readers in self._readers.values() for reader in readers]

    def enter(self, reader: InboxReader) -> None:
        """Tell this one too from now on."""
        self._readers.setdefault(reader.namespace, set()).add(reader)

    def leave(self, reader: InboxReader) -> None:
        """Tell it no more; what nobody is told of any more is forgotten."""
        readers = self._readers.get(reader.namespace, set())
        readers.discard(reader)
        if not readers and self._readers.pop(reader.namespace, None) is not None:
            self._forget([ref for ref in self._entries if ref.namespace == reader.namespace])

    def _forget(self, refs: Iterable[ConversationRef]) -> None:
        for ref in refs:
            self._entries.pop(ref).still()

    def changed(self, conversation: Conversation, encoded: bytes | None) -> None:
        """Something was committed in a conversation. ``encoded``: its line, unless it is the one from before."""
        ref, summary = conversation.ref, conversation.line
        if ref.namespace not in self._readers or summary is None or is_ephemeral(ref):
            return
        entry, uptime = self._entries.get(ref), self.host.uptime()
        before = entry.summary if entry is not None else None
        if entry is None:
            entry = self._entries[ref] = _Entry(None, None, 0, 0.0, uptime)
        entry.take(summary, encoded, conversation.committed, conversation.last_event_at)
        entry.changed_at = uptime
        wait_s = entry.told_at + self.settings.quiet_ms / 1000 - uptime
        if before is None or wait_s <= 0 or (encoded is not None and _matters(before) != _matters(summary)):
            self._tell(ref, entry)
        elif entry.timer is None:
            entry.timer = asyncio.get_running_loop().call_later(wait_s, self._tell, ref, entry)

    def removed(self, ref: ConversationRef) -> None:
        """A conversation was deleted."""
        if ref.namespace in self._readers and not is_ephemeral(ref):
            uptime = self.host.uptime()
            self._forget([ref] if ref in self._entries else [])
            entry = self._entries[ref] = _Entry(None, None, 0, uptime, uptime)
            self._tell(ref, entry)

    def _tell(self, ref: ConversationRef, entry: _Entry) -> None:
        entry.still()
        entry.told_at = self.host.uptime()
        for reader in self._readers.get(ref.namespace, ()):
            reader.mark(ref.conversation_id, removed=entry.summary is None)
        if not self._wake_due:
            self._wake_due = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._wake_due = False
        for reader in self.readers:
            try:
                reader.wake()
            except Exception:  # one reader's trouble is not the next one's
                log.exception("inbox.crashed")
                reader.close(CloseCode.INTERNAL, "the server failed at this; reconnect")

    def frame(self, ref: ConversationRef) -> bytes | None:
        """What there is to tell of a conversation; None if it has to be read."""
        entry = self._entries.get(ref)
        return None if entry is None else entry.frame(ref.conversation_id)

    def newest(self, ref: ConversationRef, line: ConversationLine) -> ConversationSummary | None:
        """The newer of what is to be told of a conversation and what was read of it; None if nothing is known of the
        first: what was read may be older than what was to be told once."""
        entry = self._entries.get(ref)
        if entry is None:
            return None
        return entry.summary if entry.summary is not None and entry.head >= line.head else summary_of(line)

    def beat(self, uptime: float) -> None:
        """Heartbeats, and lines that nobody has asked for lately are let go of."""
        late = uptime - max(KEPT_S, self.settings.quiet_ms / 1000)
        self._forget([ref for ref, one in self._entries.items() if one.timer is None and one.changed_at < late])
        for reader in self.readers:
            reader.beat(uptime)


class InboxReader(Outlet):
    """One open inbox."""

    def __init__(self, inboxes: Inboxes, principal: Principal, sink: Sink) -> None:
        self.namespace = principal.namespace
        self._inboxes = inboxes
        self._principal = principal
        self._dirty: dict[str, bool] = {}
        """Conversations to tell of, and of each whether it was deleted in between."""
        self._next: str | None = None
        self._reading = 0
        self._one_at_a_time = asyncio.Lock()
        super().__init__(sink)

    def _uptime(self) -> float:
        return self._inboxes.host.uptime()

    def start(self) -> None:
        """Begin to follow: from here on no change is missed."""
        self._inboxes.enter(self)
        self._sink.on_writable = self.wake

    def mark(self, conversation_id: str, *, removed: bool = False) -> None:
        """There is something to tell of a conversation."""
        if self._principal.may_open(conversation_id):
            self._dirty[conversation_id] = removed or self._dirty.get(conversation_id, False)

    def wake(self) -> None:
        """Tell what there is to tell, as far as the sink takes it."""
        while self._dirty and not (self._reading or self._closed) and self._sink.writable:
            frames, unknown = self._take()
            if frames:
                self._send(frames)
            if unknown:
                self._reading += 1
                self._inboxes.host.spawn(partial(self._look_up, unknown))

    def _take(self) -> tuple[list[bytes], dict[str, bool]]:
        """As much as is sent at once, and those that have to be looked up, as they are marked."""
        frames: list[bytes] = []
        unknown: dict[str, bool] = {}
        weight, most = 0, self._inboxes.reader_settings.chunk_bytes
        while self._dirty and weight < most and len(unknown) < self._inboxes.settings.page:
            conversation_id = next(iter(self._dirty))
            removed = self._dirty.pop(conversation_id)
            told = self._inboxes.frame(self._ref(conversation_id))
            if told is None:
                unknown[conversation_id] = removed
            else:
                frames += _in_turn(conversation_id, told, removed)
                weight += len(told)
        return frames, unknown

    def _ref(self, conversation_id: str) -> ConversationRef:
        return ConversationRef(self.namespace, conversation_id)

    async def _look_up(self, unknown: Mapping[str, bool]) -> None:
        """Tell of conversations by what the store knows of them. ``_reading`` counts this one already."""
        try:
            async with self._one_at_a_time:
                lines = await self._inboxes.host.store.lines(self.namespace, list(unknown))
                self._send_looked_up(unknown, {line.conversation_id: line for line in lines})
        except StoreError as error:
            log.warning("inbox.failed", error=str(error))
            self.close(CloseCode.INTERNAL, "the log cannot be read")
        except Exception:  # whatever it is, the client must not wait for what will never come
            log.exception("inbox.crashed")
            self.close(CloseCode.INTERNAL, "the server failed at this; reconnect")
        finally:
            self._reading -= 1
        self.wake()

    def _send_looked_up(self, unknown: Mapping[str, bool], there: Mapping[str, ConversationLine]) -> None:
        """Those that are not there were deleted. What was deleted meanwhile is told after; what the sink does not take
        is looked up again when it does."""
        for name, removed in unknown.items():
            if self._sink.writable and not self._dirty.get(name):
                summary = self._newest(there[name]) if name in there else None
                self._send(_in_turn(name, _told(name, summary), removed))
            else:
                self.mark(name, removed=removed)

    async def first_page(self) -> None:
        """Send the first page. Raises :class:`StoreError`."""
        await self._page(None)

    async def more(self, cursor: str | None) -> None:
        """Send the page at ``cursor``, by default the one after the newest; an empty one after the last.

        Raises :class:`StoreError`; :class:`CommandError` for a cursor that is none.
        """
        if cursor is None and self._next is None:
            self.control(InboxPage(conversations=[], interactions=[]))
            return
        try:
            await self._page(self._next if cursor is None else cursor)
        except ValueError as error:
            raise CommandError("invalid_frame", f"{error}; it is the `next` of a page", path="$.cursor") from None

    async def _page(self, cursor: str | None) -> None:
        settings = self._inboxes.settings
        self._reading += 1
        try:
            async with self._one_at_a_time:
                page = await conversations(
                    self._inboxes.host.store,
                    self._principal,
                    limit=settings.page,
                    cursor=cursor,
                    waiting_first=True,
                    max_bytes=settings.page_bytes,
                )
                self._next = page.next
                self.control(self._shown(page.lines))
        finally:
            self._reading -= 1
        self.wake()

    def _shown(self, lines: Sequence[ConversationLine]) -> InboxPage:
        summaries = [self._newest(line) for line in lines if not self._dirty.get(line.conversation_id)]
        asked = [one for summary in summaries for one in asked_in(summary)]
        asked.sort(key=lambda one: (one.requested_at, one.interaction_id))
        return InboxPage(conversations=summaries, interactions=asked, next=self._next)

    def _newest(self, line: ConversationLine) -> ConversationSummary:
        """A conversation that is about to be told, as it is. It is told once more if it is not known whether that is
        all that there is to tell."""
        known = self._inboxes.newest(self._ref(line.conversation_id), line)
        if known is None:
            return summary_of(line)
        self._dirty.pop(line.conversation_id, None)
        return known

    def beat(self, uptime: float) -> None:
        """Break the silence, if it has lasted and nothing is waiting to be told."""
        silent = uptime - self.written_at >= self._inboxes.reader_settings.heartbeat_s
        if silent and not self._dirty and not self._reading and self._sink.writable:
            self.control(Heartbeat(head=0, ts=self._inboxes.host.now()))

    def stop(self) -> None:
        super().stop()
        self._dirty.clear()
        self._inboxes.leave(self)
