"""Lists of what a credential reaches: conversations, and what is asked in them.

A credential for all of a namespace goes through it page by page. One for some conversations gets these, all at once: a
page of the namespace could be empty of them, and the cursor to the next one would name a conversation of others.
"""

from __future__ import annotations

from itertools import chain
from typing import Final

import msgspec

from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.summaries import ConversationSummary, OpenInteraction
from hermes_ws.runtime.principal import Principal
from hermes_ws.store.base import ConversationLine, ConversationPage, Store
from hermes_ws.store.paging import cursor_of

__all__ = ["asked_in", "conversations", "for_people", "summary_of"]

_AT_ONCE: Final = 100
"""How many open interactions are read at once, at the least: those that no person can answer come in numbers."""


async def conversations(
    store: Store,
    principal: Principal,
    *,
    limit: int,
    cursor: str | None,
    waiting_first: bool = False,
    max_bytes: int | None = None,
) -> ConversationPage:
    """A page of :meth:`Store.conversations`; of a credential for some of them, these. Raises ValueError for a cursor
    that is none."""
    if principal.conversations is None:
        return await store.conversations(
            principal.namespace, limit=limit, cursor=cursor, waiting_first=waiting_first, max_bytes=max_bytes
        )
    _must_begin(cursor)
    lines = await store.lines(principal.namespace, sorted(principal.conversations))
    lines.sort(key=lambda line: (line.last_event_at, line.conversation_id), reverse=True)
    if waiting_first:
        lines.sort(key=lambda line: not _waits(summary_of(line)))
    return ConversationPage(lines, None)


async def for_people(
    store: Store, principal: Principal, *, limit: int, cursor: str | None
) -> tuple[list[OpenInteraction], str | None]:
    """Open interactions that a person can answer, the one that was asked first first, and the cursor to the next page.
    A call that one client executes is only that client's to answer. Raises ValueError for a cursor that is none."""
    if principal.conversations is None:
        return await _for_people_anywhere(store, principal.namespace, limit, cursor)
    _must_begin(cursor)
    lines = await store.lines(principal.namespace, sorted(principal.conversations))
    asked = chain.from_iterable(asked_in(summary_of(line)) for line in lines)
    return sorted(filter(_is_for_people, asked), key=_age), None


async def _for_people_anywhere(
    store: Store, namespace: str, limit: int, cursor: str | None
) -> tuple[list[OpenInteraction], str | None]:
    """As many pages of the store as one page takes, and one more interaction, which says that there is a next one."""
    found: list[OpenInteraction] = []
    while True:
        page = await store.open_interactions(namespace, limit=max(limit + 1, _AT_ONCE), cursor=cursor)
        opened = (_placed(msgspec.json.decode(data, type=InteractionRequested), name) for name, data in page.lines)
        found += filter(_is_for_people, opened)
        cursor = page.next
        if len(found) > limit:
            return found[:limit], cursor_of(*_age(found[limit - 1]))
        if cursor is None:
            return found, None


def summary_of(line: ConversationLine) -> ConversationSummary:
    """A line of the store as it is now: it may have come further than when its summary was written."""
    summary = msgspec.json.decode(line.summary, type=ConversationSummary)
    if line.head == summary.head:
        return summary
    return msgspec.structs.replace(summary, head=line.head, last_event_at=line.last_event_at)


def asked_in(summary: ConversationSummary) -> list[OpenInteraction]:
    """What is asked in a conversation, each with where it is."""
    return [_placed(asked, summary.conversation_id) for asked in summary.interactions]


def _placed(asked: InteractionRequested, conversation_id: str) -> OpenInteraction:
    fields = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return OpenInteraction(**fields, conversation_id=conversation_id)


def _age(asked: InteractionRequested) -> tuple[int, str]:
    return asked.requested_at, asked.interaction_id


def _is_for_people(asked: InteractionRequested) -> bool:
    return asked.owner is None


def _waits(summary: ConversationSummary) -> bool:
    """Whether it waits for a person, as :attr:`hermes_ws.state.State.needs_person` says of one in memory."""
    return any(asked.needs_person for asked in summary.interactions)


def _must_begin(cursor: str | None) -> None:
    if cursor is not None:
        raise ValueError(f"{cursor[:80]!r} is not a cursor of this list, which has one page")
