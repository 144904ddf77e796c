"""From the log to a conversation: what is read, folded and seen to before anybody works with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from hermes_ws.decisions import RunOptions
from hermes_ws.entities import ToolCall
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_event
from hermes_ws.protocol.values import ApprovalRule
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.state import State
from hermes_ws.store.base import ConversationRef, Loaded, Store, StoredEvent
from hermes_ws.store.vault import Vault
from hermes_ws.tools.leftovers import end_marked, mark

__all__ = ["Folded", "add_deltas", "end_leftovers", "folded"]

log = structlog.get_logger("hermes_ws.runtime")

DELTA_PAGE: Final = 10_000
DELTA_PAGE_BYTES: Final = 8_388_608


@dataclass(slots=True)
class Folded:
    """What the log of a conversation adds up to, and what is kept beside it."""

    state: State
    options: dict[str, RunOptions] = field(default_factory=dict[str, RunOptions])
    rules: list[ApprovalRule] = field(default_factory=list[ApprovalRule])
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    unreadable: set[str] = field(default_factory=set[str])


def folded(ref: ConversationRef, loaded: Loaded | None, vault: Vault) -> Folded:
    """Fold what was loaded; None: there is nothing yet. Raises what a damaged log makes the fold raise."""
    state = State(ref.conversation_id)
    if loaded is None:
        return Folded(state)
    for event in loaded.events:
        state.skip(event.seq - 1)
        state.apply(decode_event(event.data))
    state.skip(loaded.head)
    state.epoch = loaded.epoch
    options = {row.run_id: msgspec.json.decode(row.options, type=RunOptions) for row in loaded.runs}
    rules = [msgspec.json.decode(row.data, type=ApprovalRule) for row in loaded.rules]
    return Folded(state, options, rules, *vault.open_all(ref, loaded.secrets))


async def add_deltas(store: Store, ref: ConversationRef, loaded: Loaded) -> None:
    """An agent died at work: what it had said and printed in its last step is in no final, only in deltas."""
    begun = next((n for n, e in enumerate(reversed(loaded.events)) if _begins(e)), len(loaded.events))
    del loaded.events[len(loaded.events) - begun :]
    reached = loaded.events[-1].seq if loaded.events else 0
    while reached < loaded.head:
        page = await store.read(ref, after=reached, limit=DELTA_PAGE, max_bytes=DELTA_PAGE_BYTES)
        loaded.events += page
        reached = page[-1].seq if page else loaded.head


def _begins(event: StoredEvent) -> bool:
    """Whether no delta before it matters to what came after."""
    return isinstance(decode_event(event.data), (ev.StepStarted, ev.RunStarted))


async def end_leftovers(conversation: Conversation) -> None:
    """End the processes of calls that were running when an earlier server died."""
    run = conversation.session.state.active
    for call in run.open.values() if run is not None else ():
        if isinstance(call, ToolCall) and call.status == "executing":
            count = await end_marked(mark(call.run_id, call.call_id))
            if count:
                log.warning("call.left_processes", call_id=call.call_id, ended=count)
