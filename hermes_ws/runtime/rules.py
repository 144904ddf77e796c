"""Remembered approvals: which ones hold for a run."""

from __future__ import annotations

import msgspec

from hermes_ws.protocol.values import ApprovalRule
from hermes_ws.runtime.conversation import Conversation

__all__ = ["standing_rules"]

_decoder = msgspec.json.Decoder(ApprovalRule)


async def standing_rules(
    conversation: Conversation, run_id: str | None = None, *, principal: str | None = None, agent: str | None = None
) -> list[ApprovalRule]:
    """The rules that hold in the conversation: its own, those of its active run (only if that is ``run_id``, when one
    is named), and those that ``principal`` has given ``agent`` for good (the run's starter and agent, when none is)."""
    run = conversation.session.state.active
    if run is not None and run_id in (None, run.run_id):
        own = [r for r in conversation.rules.values() if r.run_id in (None, run.run_id)]
        principal, agent = principal or run.by.principal, agent or run.agent_name
    else:
        own = [r for r in conversation.rules.values() if r.run_id is None]
    if principal is None:
        return own
    rows = await conversation.store.always_rules(conversation.ref.namespace, principal, agent)
    return [*own, *(_decoder.decode(row.data) for row in rows)]
