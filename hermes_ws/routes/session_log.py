"""Sessions, and what the log and the record beside it say of them."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.requests import Request

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.sessions import SessionFold
from hermes_ws.compat.sessions_types import Session, SessionRecord
from hermes_ws.errors import CommandError
from hermes_ws.protocol.codec import decode_event
from hermes_ws.routes.context import Api
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import ConversationRef, RecordRow

__all__ = ["existing", "folded", "kept", "record_row", "session_of"]

_KIND: Final = "session"
_PAGE: Final = 1_000
_PAGE_BYTES: Final = 1_048_576


async def existing(api: Api, caller: Caller, request: Request) -> Conversation:
    """The session that the path names. Raises :class:`ApiError` 404: one that the credential does not reach, or whose
    name is none, is not there."""
    session_id = request.path_params["session_id"]
    missing = ApiError(404, "session_not_found", f"Session not found: {session_id[:200]}")
    try:
        conversation = await api.open(api.ref(caller, session_id))
    except ApiError:
        raise missing from None
    except CommandError as refused:
        raise missing if refused.code == "not_found" else refused from None
    if conversation.epoch is None:
        raise missing
    return conversation


async def folded(api: Api, ref: ConversationRef) -> SessionFold:
    """All of a session's log, as messages and counts."""
    fold = SessionFold(ref.conversation_id, api.settings.server.model_name)
    after, store = 0, api.runtime.store_of(ref)
    while page := await store.read(ref, after=after, limit=_PAGE, max_bytes=_PAGE_BYTES, deltas=False):
        for stored in page:
            fold.feed(decode_event(stored.data))
        after = page[-1].seq
    return fold


async def kept(api: Api, ref: ConversationRef) -> SessionRecord:
    """What is kept of a session beside its log."""
    rows = await api.runtime.store_of(ref).records(ref, _KIND)
    return msgspec.json.decode(rows[-1].data, type=SessionRecord) if rows else SessionRecord()


def record_row(ref: ConversationRef, now: int, record: SessionRecord) -> RecordRow:
    """The record, to be kept with a command."""
    return RecordRow(_KIND, ref.conversation_id, now, msgspec.json.encode(record))


async def session_of(api: Api, conversation: Conversation) -> Session:
    """The session as it is now."""
    await conversation.settled()
    fold = await folded(api, conversation.ref)
    state = conversation.session.state
    active = state.active.run_id if state.active is not None else None
    return fold.session(await kept(api, conversation.ref), status=state.status, run_id=active)
