"""Remembered approvals: which ones hold for a run."""

from __future__ import annotations

import msgspec

from hermes_ws.protocol.values import ApprovalRule
from hermes_ws.runtime.conversation import Conversation

__all__ = ["standing_rules"]

_decoder = msgspec.json.Decoder(ApprovalRule)


async def standing_rules(conversation: Conversation, run_id: str | None = None) -> list[ApprovalRule]:
    """The rules that hold in the conversation: its own, those of ``run_id``, and those that the run's starter has
    given this agent for good. Without ``run_id``: of the active run."""
    run = conversation.session.state.active
    if run is None or (run_id is not None and run.run_id != run_id):
        return [rule for rule in conversation.rules.values() if rule.scope == "conversation"]
    own = [r for r in conversation.rules.values() if r.scope == "conversation" or r.run_id == run.run_id]
    rows = await conversation.store.always_rules(conversation.ref.namespace, run.by.principal, run.agent_name)
    return [*own, *(_decoder.decode(row.data) for row in rows)]
