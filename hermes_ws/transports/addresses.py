"""Which conversation an address means."""

from __future__ import annotations

from typing import Final

import msgspec

from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.values import ConversationId
from hermes_ws.runtime.principal import Principal
from hermes_ws.runtime.runtime import new_id
from hermes_ws.store.base import ConversationRef
from hermes_ws.transports.auth import Refused

__all__ = ["ROOT", "conversation_ref", "is_conversation_id"]

ROOT: Final = "hermes_ws.root"
"""Key in the scope: the path under which clients find us, without a trailing slash."""


def conversation_ref(principal: Principal, conversation_id: str) -> ConversationRef:
    """The conversation of that id; for ``new`` the only one that the credential reaches, or one that nobody has yet.

    Raises :class:`Refused` for an id that is none, or that the credential does not reach.
    """
    if conversation_id == "new":
        conversation_id = principal.only or new_id("conv")
    elif not is_conversation_id(conversation_id):
        message = "a conversation id is 1 to 128 of A-Z a-z 0-9 . _ : - and begins with a letter or digit"
        raise Refused(400, message, CloseCode.BAD_REQUEST)
    if not principal.may_open(conversation_id):
        raise Refused(403, "your credential does not reach this conversation", CloseCode.FORBIDDEN)
    return ConversationRef(principal.namespace, conversation_id)


def is_conversation_id(text: str) -> bool:
    """Whether a conversation may be called so."""
    try:
        msgspec.convert(text, ConversationId)
    except msgspec.ValidationError:
        return False
    return True
