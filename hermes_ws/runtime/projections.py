"""What a commit keeps beside its events: rows for the runs and interactions that it touched, as they are now."""

from __future__ import annotations

from typing import Final

import msgspec

from hermes_ws.decisions import Answer, Decision, RunOptions
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.values import ApprovalRule
from hermes_ws.session import Session
from hermes_ws.store.base import Append, InteractionRow, RuleRow, RunRow

__all__ = ["project", "rule_row"]

_RUN_LIFE: Final = (
    ev.RunQueued,
    ev.RunStarted,
    ev.RunRecovered,
    ev.RunWaiting,
    ev.RunResumed,
    ev.RunStopping,
    ev.RunSteered,
    ev.InteractionResolved,
    ev.RunCompleted,
    ev.RunFailed,
    ev.RunCancelled,
)
"""Events that change what a run's row says; who answers a question may bring other functions along."""


def project(session: Session, decision: Decision, batch: Append) -> None:
    """Add the rows to ``batch``. Options of runs that are over are forgotten: their rows have them."""
    state, options = session.state, session.options
    for run_id in dict.fromkeys(e.run_id for e in decision.events if isinstance(e, _RUN_LIFE)):
        run = state.runs.get(run_id)
        status = run.status if run else state.ended[run_id]
        encoded = session.scrubber.data(msgspec.json.encode(options.get(run_id, RunOptions())))
        batch.runs.append(RunRow(run_id, status, encoded, batch.at, began=run_id not in state.never_began))
        if run is None:
            options.pop(run_id, None)
    settled = {e.interaction_id: e for e in decision.events if isinstance(e, ev.InteractionResolved)}
    asked = [e for e in decision.events if isinstance(e, ev.InteractionRequested)]
    for effect in decision.effects:
        if isinstance(effect, Answer):
            asked.append(effect.asked)
            settled[effect.asked.interaction_id] = effect.resolution
    batch.interactions += [_interaction_row(one, settled.get(one.interaction_id)) for one in asked]


def _interaction_row(asked: ev.InteractionRequested, settled: ev.InteractionResolved | None) -> InteractionRow:
    resolution = encode(settled) if settled is not None else None
    return InteractionRow(asked.interaction_id, encode(asked), resolution, asked.requested_at)


def rule_row(rule: ApprovalRule) -> RuleRow:
    """A remembered approval as it is stored."""
    return RuleRow(rule.rule_id, rule.scope, rule.by.principal, rule.agent, rule.run_id, msgspec.json.encode(rule))
