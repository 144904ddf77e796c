"""``/v1/conversations``: conversations in OpenAI's shape. They are those of the socket, under the same ids.

Items are read off the log. The log is only appended to, so an item cannot be taken out of it: what a model has been
told stays told. A whole conversation can be deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.conversations import (
    MOST_ITEMS,
    Conversation,
    ConversationCreate,
    ConversationDeleted,
    ConversationUpdate,
    ItemsCreate,
    metadata_patch,
)
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.fields import converted, invalid
from hermes_ws.compat.item_lists import items_of, page_of, shown
from hermes_ws.compat.past import Past
from hermes_ws.compat.responses_input import Output, Turn, no_call, turn_of
from hermes_ws.compat.responses_request import check_metadata
from hermes_ws.protocol.commands import ConversationConfigure, RunStart
from hermes_ws.routes.context import Api, Route, json_response
from hermes_ws.routes.responses_begin import INSTRUCTION, keep
from hermes_ws.routes.responses_log import resolved
from hermes_ws.runtime.conversation import Conversation as Open
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import new_id
from hermes_ws.store.base import RecordRow

__all__ = ["ROUTES"]


class _Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """A system message of a conversation: said to the agent in each of its responses."""

    text: str
    after: int
    """The number of the event that it comes after."""
    item: dict[str, Any]


# -- conversations -------------------------------------------------------------------------------------


async def create(api: Api, request: Request) -> Response:
    """Begin a conversation, with history if there is any."""
    caller = api.caller(request)
    given = converted(await api.json(request), ConversationCreate)
    check_metadata(given.metadata)
    caller.check(RunStart(input="-"))
    conversation = await api.new(caller)
    with conversation.held():
        turn = await _read(api, caller, conversation, given.items or [])
        patch = metadata_patch(None, given.metadata)
        await api.command(conversation, ConversationConfigure(config=patch), caller)
        await _add(api, caller, conversation, turn, given.items or [])
        return json_response(await _shown(api, conversation))


async def get(api: Api, request: Request) -> Response:
    """A conversation."""
    return json_response(await _shown(api, await _named(api, request)))


async def update(api: Api, request: Request) -> Response:
    """Give a conversation other metadata."""
    caller, conversation = api.caller(request), await _named(api, request)
    given = converted(await api.json(request), ConversationUpdate)
    check_metadata(given.metadata)
    with conversation.held():
        patch = metadata_patch(conversation.session.state.config.metadata, given.metadata)
        await api.command(conversation, ConversationConfigure(config=patch), caller)
        return json_response(await _shown(api, conversation))


async def delete(api: Api, request: Request) -> Response:
    """Delete a conversation, with all that is in it and everything that is at work there."""
    caller, conversation = api.caller(request), await _named(api, request)
    caller.check(RunStart(input="-"))
    await api.runtime.delete(conversation.ref)
    return json_response(ConversationDeleted(id=conversation.ref.conversation_id))


async def _named(api: Api, request: Request) -> Open:
    name = request.path_params["conversation_id"]
    conversation = await api.open(api.ref(api.caller(request), name))
    if conversation.session.state.epoch is None:
        message = f"Conversation with id '{name[:80]}' not found."
        raise ApiError(404, "conversation_not_found", message, param="conversation_id")
    return conversation


async def _shown(api: Api, conversation: Open) -> Conversation:
    first = await conversation.store.read(conversation.ref, after=0, limit=1, max_bytes=1)
    return Conversation(
        id=conversation.ref.conversation_id,
        created_at=(msgspec.json.decode(first[0].data)["ts"] if first else api.runtime.now()) // 1000,
        metadata=conversation.session.state.config.metadata or {},
    )


# -- items ---------------------------------------------------------------------------------------------


async def items(api: Api, request: Request) -> Response:
    """Everything that was said and done, the newest first."""
    conversation = await _named(api, request)
    return json_response(page_of(await _items(api, conversation), request.query_params))


async def add_items(api: Api, request: Request) -> Response:
    """Add history, without anybody answering it."""
    caller, conversation = api.caller(request), await _named(api, request)
    given = converted(await api.json(request), ItemsCreate)
    caller.check(RunStart(input="-"))
    with conversation.held():
        turn = await _read(api, caller, conversation, given.items)
        before = {item["id"] for item in await _items(api, conversation)}
        await _add(api, caller, conversation, turn, given.items)
        added = [item for item in await _items(api, conversation) if item["id"] not in before]
    return json_response(page_of(added, {"limit": "100"}, order="asc"))


async def get_item(api: Api, request: Request) -> Response:
    """One item."""
    conversation, item_id = await _named(api, request), request.path_params["item_id"]
    for item in await _items(api, conversation):
        if item["id"] == item_id:
            return json_response(item)
    raise ApiError(404, "item_not_found", f"Item with id '{item_id[:80]}' not found.", param="item_id")


async def delete_item(api: Api, request: Request) -> Response:
    """Refused: see the top of the module."""
    await _named(api, request)
    message = "single items cannot be deleted, since the log of a conversation is only appended to; delete all of it"
    raise ApiError(400, "unsupported_operation", message, param="item_id")


async def _items(api: Api, conversation: Open) -> list[dict[str, Any]]:
    """The items of the log, and system messages where they were said."""
    rows = await conversation.store.records(conversation.ref, INSTRUCTION)
    told = [msgspec.json.decode(row.data, type=_Instruction) for row in rows]
    events = await api.events(conversation.ref, 0)
    listed: list[dict[str, Any]] = []
    begin = 0
    for one in told:
        end = next((n for n, event in enumerate(events) if event.seq > one.after), len(events))
        listed += [*items_of(events[begin:end]), one.item]
        begin = end
    return [*listed, *items_of(events[begin:])]


async def _read(api: Api, caller: Caller, conversation: Open, given: list[dict[str, Any]]) -> Turn:
    if len(given) > MOST_ITEMS:
        raise invalid("items", f"has {len(given)} items; one request takes up to {MOST_ITEMS}")
    whole = await resolved(api, caller, given, (conversation.ref,))
    turn = turn_of(whole, "items", conversation.session.state.calls, answered=False)
    if turn.answers:
        raise _unanswerable(turn)
    return turn


def _unanswerable(turn: Turn) -> ApiError:
    lost: Sequence[Output] = turn.outputs
    if lost:
        return no_call(lost[0])
    message = "approval requests are answered by POST /v1/responses with this conversation"
    return ApiError(400, "unknown_approval_request", message, param=f"{turn.leaves[0].path}.approval_request_id")


async def _add(api: Api, caller: Caller, conversation: Open, turn: Turn, given: list[dict[str, Any]]) -> None:
    past: Past = turn.past
    after = conversation.session.state.head
    if past:
        await api.add_past(conversation, caller, past)
    if turn.instructions:
        items_shown = [one for one in shown(given, new_id("it")) if one.get("role") in ("system", "developer")]
        told = zip(turn.instructions, items_shown, strict=True)
        rows = [_row(api, _Instruction(text=text, after=after, item=item)) for text, item in told]
        await keep(conversation, rows)


def _row(api: Api, instruction: _Instruction) -> RecordRow:
    return RecordRow(INSTRUCTION, new_id("ins"), api.runtime.now(), msgspec.json.encode(instruction))


ROUTES: Final[list[Route]] = [
    ("POST", "/v1/conversations", create),
    ("GET", "/v1/conversations/{conversation_id}", get),
    ("POST", "/v1/conversations/{conversation_id}", update),
    ("DELETE", "/v1/conversations/{conversation_id}", delete),
    ("GET", "/v1/conversations/{conversation_id}/items", items),
    ("POST", "/v1/conversations/{conversation_id}/items", add_items),
    ("GET", "/v1/conversations/{conversation_id}/items/{item_id}", get_item),
    ("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}", delete_item),
]
