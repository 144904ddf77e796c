"""The log, as the rest of the server sees it.

A store keeps, for every conversation, its events in order, and beside them the projections that are cheaper to look
up than to fold: a line per conversation, per run, per interaction, per command id, per remembered approval; and the
secrets, sealed, which are in no event. An :class:`Append` carries events and all that together, and a store commits all
of it or nothing.

What an implementation promises (``tests/store`` holds each of them to it):

* appends to one conversation are contiguous: one that does not begin at ``head + 1`` fails with ``LogConflict`` and
  leaves nothing, whoever else writes to the same log;
* ``done(None)`` is called on the event loop once the append is committed, and synced to disk when ``sync`` was asked;
  ``done(error)`` when nothing of it was kept. Every append gets exactly one call, in order per conversation;
* a read that starts after ``done(None)`` sees the append;
* deltas may go once their run has ended long enough ago (:meth:`Store.compact`), finals never, but with the whole
  conversation (:meth:`Store.delete`), which is gone for every read and append before the space of its events is.

Names, not keys: a conversation is known by namespace and id everywhere outside a store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from hermes_ws.errors import StoreError
from hermes_ws.protocol.values import Scope

__all__ = [
    "Append",
    "CommandRow",
    "ConversationLine",
    "ConversationPage",
    "ConversationRef",
    "Done",
    "Freed",
    "InteractionPage",
    "InteractionRow",
    "Loaded",
    "RecordRow",
    "RuleRow",
    "RunPage",
    "RunRow",
    "SecretRow",
    "Store",
    "StoredEvent",
]


class ConversationRef(NamedTuple):
    """Which conversation: ids live in the key's namespace."""

    namespace: str
    conversation_id: str


class StoredEvent(NamedTuple):
    """An event as it is in the log: its number and its encoded frame."""

    seq: int
    data: bytes


class RunRow(NamedTuple):
    """A run, findable by its id alone. ``options`` is what ``run.start`` asked for, encoded.

    Beside it a store keeps the head that the conversation had with the commit that wrote the row, if the run ``began``:
    the end of one that was cancelled in the queue says nothing about the deltas before it. A row of a run that has
    ended takes the run's remembered approvals with it.
    """

    run_id: str
    status: str
    options: bytes
    updated_at: int
    began: bool = True


class InteractionRow(NamedTuple):
    """An interaction. ``data`` is its ``interaction.requested`` frame; ``resolution`` the frame that settled it."""

    interaction_id: str
    data: bytes
    resolution: bytes | None
    requested_at: int


class CommandRow(NamedTuple):
    """A command that was done: a repeated id gets the stored ``ok``."""

    principal: str
    command_id: str
    digest: bytes
    ok: bytes
    created_at: int


class RuleRow(NamedTuple):
    """A remembered approval. ``always`` rules belong to a principal and agent, the others to the conversation."""

    rule_id: str
    scope: Scope
    principal: str
    agent: str
    run_id: str | None
    data: bytes


class SecretRow(NamedTuple):
    """A secret of a conversation's configuration, sealed (:mod:`hermes_ws.store.vault`). ``data`` None: it goes."""

    name: str
    data: bytes | None


class RecordRow(NamedTuple):
    """Something small that belongs to a conversation and is in none of its events, such as what a response of the
    OpenAI-compatible routes was asked for. Ids are unique in a namespace and kind. It goes with its conversation."""

    kind: str
    record_id: str
    created_at: int
    data: bytes


class ConversationLine(NamedTuple):
    """A conversation in a list. ``summary`` is encoded; ``head`` and ``last_event_at`` are newer than in it."""

    conversation_id: str
    head: int
    last_event_at: int
    summary: bytes


class ConversationPage(NamedTuple):
    """One page of the list, and the cursor to the next one."""

    lines: list[ConversationLine]
    next: str | None


class InteractionPage(NamedTuple):
    """One page of a list of open interactions, oldest first, and the cursor to the next one: whose each is, and its
    ``interaction.requested`` frame."""

    lines: list[tuple[str, bytes]]
    next: str | None


class RunPage(NamedTuple):
    """One page of a list of runs, the one that something happened to last first, and the cursor to the next one."""

    lines: list[tuple[ConversationRef, RunRow]]
    next: str | None


class Freed(NamedTuple):
    """What was removed: how many events, and what their frames weighed."""

    events: int
    bytes: int

    def plus(self, more: Freed) -> Freed:
        """Both together."""
        return Freed(self.events + more.events, self.bytes + more.bytes)


Done = Callable[[StoreError | None], None]


@dataclass(slots=True)
class Append:
    """What one commit adds to one conversation. ``events`` follow ``head``; ``deltas`` marks, for each, whether a
    final makes it redundant. ``summary`` None leaves the stored one; ``waiting``, whether anything in it waits for a
    person, goes with it. ``sync``: it must survive a power cut."""

    ref: ConversationRef
    head: int
    at: int
    sync: bool
    done: Done
    events: list[bytes] = field(default_factory=list[bytes])
    deltas: list[bool] = field(default_factory=list[bool])
    epoch: str | None = None
    summary: bytes | None = None
    waiting: bool = False
    runs: list[RunRow] = field(default_factory=list[RunRow])
    interactions: list[InteractionRow] = field(default_factory=list[InteractionRow])
    commands: list[CommandRow] = field(default_factory=list[CommandRow])
    rules: list[RuleRow] = field(default_factory=list[RuleRow])
    revoked: list[str] = field(default_factory=list[str])
    secrets: list[SecretRow] = field(default_factory=list[SecretRow])
    records: list[RecordRow] = field(default_factory=list[RecordRow])


@dataclass(slots=True)
class Loaded:
    """What is needed to fold a conversation again: its events without the deltas, and its unfinished runs' rows.

    ``epoch`` is the one that holds: it is newer than the one in the first event if the log lost events that somebody
    may have seen. ``bytes`` is what all events' frames weigh together, those of the deltas that are there included.
    """

    epoch: str
    head: int
    floor: int
    bytes: int
    events: list[StoredEvent]
    runs: list[RunRow]
    rules: list[RuleRow]
    secrets: list[SecretRow]


class Store(Protocol):
    """An event log with projections."""

    def append(self, batch: Append) -> None:
        """Queue a commit; never blocks, never raises. The outcome goes to ``batch.done``."""
        ...

    async def load(self, ref: ConversationRef) -> Loaded | None:
        """The conversation, or None if it was never created."""
        ...

    async def read(
        self, ref: ConversationRef, *, after: int, limit: int, max_bytes: int, deltas: bool = True
    ) -> list[StoredEvent]:
        """Events that follow ``after``, at most ``limit`` and about ``max_bytes`` (but one at least). Without
        ``deltas``, those that no final makes redundant."""
        ...

    async def command(self, ref: ConversationRef, principal: str, command_id: str) -> CommandRow | None:
        """The stored outcome of a command."""
        ...

    async def forget_commands(self, before: int) -> int:
        """Drop outcomes older than ``before`` (Unix ms); returns how many."""
        ...

    async def conversations(
        self,
        namespace: str,
        *,
        limit: int,
        cursor: str | None,
        waiting_first: bool = False,
        max_bytes: int | None = None,
    ) -> ConversationPage:
        """Conversations, the one with the newest event first; with ``waiting_first``, after those in which something
        waits for a person. At most ``limit``, whose summaries weigh about ``max_bytes`` (but one at least). Raises
        ValueError for a cursor that this order did not give."""
        ...

    async def lines(self, namespace: str, conversation_ids: Sequence[str]) -> list[ConversationLine]:
        """These conversations, as far as they are there, in any order."""
        ...

    async def open_interactions(self, namespace: str, *, limit: int, cursor: str | None) -> InteractionPage:
        """Interactions that are open, the one that was asked first comes first. Raises ValueError for a cursor it did
        not give."""
        ...

    async def unfinished(self) -> Sequence[ConversationRef]:
        """Conversations with a run that has not ended."""
        ...

    async def always_rules(self, namespace: str, principal: str, agent: str | None) -> list[RuleRow]:
        """Remembered approvals that hold in every conversation of a principal with an agent (None: any agent)."""
        ...

    async def run(self, ref: ConversationRef, run_id: str) -> RunRow | None:
        """A run of the conversation, also one that has ended."""
        ...

    async def find_run(self, namespace: str, run_id: str) -> tuple[ConversationRef, RunRow] | None:
        """A run, and the conversation that it is of."""
        ...

    async def runs(self, namespace: str, *, limit: int, cursor: str | None) -> RunPage:
        """Runs, the one that something happened to last first. Raises ValueError for a cursor it did not give."""
        ...

    async def record(self, namespace: str, kind: str, record_id: str) -> tuple[ConversationRef, RecordRow] | None:
        """A record, and the conversation that it belongs to."""
        ...

    async def records(self, ref: ConversationRef, kind: str) -> list[RecordRow]:
        """The records of a conversation, oldest first."""
        ...

    async def forget_record(self, namespace: str, kind: str, record_id: str) -> bool:
        """Remove a record, synced; False if there is none."""
        ...

    async def forget_records(self, kind: str, before: int) -> int:
        """Remove the records of a kind that are older than ``before`` (Unix ms); how many."""
        ...

    async def weight(self, ref: ConversationRef) -> int:
        """What the events of a conversation weigh together, in bytes; 0 if there is none."""
        ...

    async def delete(self, ref: ConversationRef) -> bool:
        """Remove the conversation, synced; False if there is none. Approvals for always stay.

        From then on no read shows it, appends to it fail, and its id can be created anew. What its events weigh is
        freed by :meth:`purge`.
        """
        ...

    async def deleted(self) -> list[ConversationRef]:
        """Conversations that were deleted and not purged yet, and do not exist anew: nobody needs their files."""
        ...

    async def purge(self) -> Freed:
        """Remove the events of deleted conversations, a little at a time: appends go on meanwhile."""
        ...

    async def compact(self, before: int) -> Freed:
        """Remove the deltas of runs that ended before ``before`` (Unix ms), a little at a time as well."""
        ...

    async def give_back(self) -> int:
        """Return free space to the file system, a little at a time; how many bytes the log has shrunk by."""
        ...

    async def sweep(self, before: int) -> Freed:
        """:meth:`purge`, :meth:`compact` and :meth:`give_back`: for now and then, in the background."""
        ...

    async def close(self) -> None:
        """Finish what is queued, then let go of everything."""
        ...
