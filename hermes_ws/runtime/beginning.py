"""The conversation that a command to ``new`` begins."""

from __future__ import annotations

import hashlib
import itertools

from hermes_ws.protocol.commands import Command
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import Runtime, new_id
from hermes_ws.store.base import ConversationRef

__all__ = ["begun_by"]


async def begun_by(runtime: Runtime, command: Command, caller: Caller) -> Conversation:
    """One that nobody has yet; but a command that is sent again under its id finds the one that it began, as long as
    the id is remembered. For who reaches one conversation only it is that. Raises as :meth:`Runtime.open`."""
    principal = caller.principal
    if principal.only is not None:
        return await runtime.open(ConversationRef(principal.namespace, principal.only))
    if command.id is None:
        return await runtime.open(ConversationRef(principal.namespace, new_id("conv")))
    for count in itertools.count():
        key = "\0".join((principal.namespace, principal.name, command.id, str(count)))
        name = f"conv_{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"
        conversation = await runtime.open(ConversationRef(principal.namespace, name))
        if conversation.session.state.epoch is None or await conversation.knows(command, caller):
            return conversation
    raise AssertionError("there is always another number")
