"""What a request for a conversation's log asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from starlette.requests import Request

from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.events import EVENT_TYPES
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.log_cursor import LogCursor
from hermes_ws.settings import LimitSettings
from hermes_ws.transports.auth import Refused
from hermes_ws.transports.requests import count, limited, number

__all__ = ["LogQuery", "event_types"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """The parameters, and the header that says where a stream was cut."""

    after: int
    """What follows this number is wanted."""
    seen: int
    """The same for a stream: where a client that comes back has got to."""
    epoch: str | None
    """The incarnation of the log that ``after`` is a number of; None: the one that is there."""
    exclude: frozenset[str]
    """Event types that are not wanted."""
    limit: int
    """How many numbers a page may cover."""
    wait_s: float
    """How long a page may wait for an event, if there is none."""

    @classmethod
    def of(cls, request: Request, limits: LimitSettings) -> LogQuery:
        """Raises :class:`Refused` 400 that names what cannot be read."""
        after = count(request, "after", 0)
        return cls(
            after=after,
            seen=number(request.headers.get("last-event-id"), "Last-Event-ID", after),
            epoch=request.query_params.get("epoch") or None,
            exclude=event_types(request.query_params.get("exclude", "")),
            limit=limited(request, limits.page_events),
            wait_s=min(count(request, "wait_ms", 0), limits.wait_ms) / 1000,
        )

    def at_once(self, epoch: str | None) -> LogQuery:
        """The same without waiting, by somebody who has seen ``epoch``."""
        return replace(self, epoch=self.epoch or epoch, wait_s=0.0)

    def page_of(self, conversation: Conversation) -> LogCursor:
        """Where a page begins."""
        return LogCursor(0 if self._of_another(conversation) else self.after, self.exclude)

    def stream_of(self, conversation: Conversation, after: int) -> LogCursor:
        """Where a stream begins that is to follow ``after``: at the start, if that is no number of this log."""
        lost = self._of_another(conversation) or after > conversation.committed
        return LogCursor(0 if lost else after, self.exclude)

    def _of_another(self, conversation: Conversation) -> bool:
        """Whether the numbers are of another incarnation of the log."""
        return self.epoch is not None and conversation.epoch is not None and self.epoch != conversation.epoch


def event_types(text: str) -> frozenset[str]:
    """The event types that ``exclude`` names. Raises :class:`Refused` 400 for one that there is not."""
    named = frozenset(filter(None, text.split(",")))
    for unknown in sorted(named - set(EVENT_TYPES)):
        message = f"expected event types separated by commas, such as message.delta, got {unknown[:80]!r}"
        raise Refused(400, f"query parameter exclude: {message}", CloseCode.BAD_REQUEST)
    return named
