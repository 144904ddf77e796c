"""``/v1/conversations``: conversations in OpenAI's shape. They are those of the socket, under the same ids.

Items are read off the log. The log is only appended to, so an item cannot be taken out of it, and no DELETE
is for one: what a model has been told stays told. A whole conversation can be deleted.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.conversation_items import Added, CallNote, Instruction, added, ends_of, listed
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
from hermes_ws.compat.item_lists import page_of
from hermes_ws.compat.responses_request import check_metadata
from hermes_ws.protocol.commands import ConversationConfigure, RunStart
from hermes_ws.routes.context import Api, Route, json_response
from hermes_ws.routes.once import REPLAYED, once
from hermes_ws.routes.responses_begin import INSTRUCTION, keep
from hermes_ws.routes.responses_log import resolved
from hermes_ws.runtime.commands import Beside
from hermes_ws.runtime.conversation import Conversation as Open
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import new_id
from hermes_ws.store.base import RecordRow

__all__ = ["ROUTES"]


CALL: Final = "call"
"""The kind of record that a call is which was added without what it came to."""


# -- conversations -------------------------------------------------------------------------------------


async def create(api: Api, request: Request) -> Response:
    """Begin a conversation, with history if there is any."""
    caller, body = api.caller(request), await api.json(request)
    given = converted(body, ConversationCreate)
    check_metadata(given.metadata)
    caller.check(RunStart(input="-"))
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            there = await api.open(api.ref(caller, this.earlier["id"]))
            return json_response(await _shown(api, there), headers=REPLAYED)
        conversation = await api.new(caller)
        with conversation.held():
            new = await _read(api, caller, conversation, given.items or [])
            patch = metadata_patch(None, given.metadata)
            await api.command(conversation, ConversationConfigure(config=patch), caller)
            await _add(api, caller, conversation, new)
            await keep(conversation, this.records({"id": conversation.ref.conversation_id}))
            return json_response(await _shown(api, conversation))


async def get(api: Api, request: Request) -> Response:
    """A conversation."""
    return json_response(await _shown(api, await _named(api, request)))


async def update(api: Api, request: Request) -> Response:
    """Give a conversation other metadata."""
    caller, conversation = api.caller(request), await _named(api, request)
    body = await api.json(request)
    given = converted(body, ConversationUpdate)
    check_metadata(given.metadata)
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            return json_response(await _shown(api, conversation), headers=REPLAYED)
        with conversation.held():
            patch = metadata_patch(conversation.session.state.config.metadata, given.metadata)
            beside = Beside(records=this.records({}))
            await api.command(conversation, ConversationConfigure(config=patch), caller, beside)
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
    body = await api.json(request)
    given = converted(body, ItemsCreate)
    caller.check(RunStart(input="-"))
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            ids = set(this.earlier["ids"])
            there = [item for item in await _items(api, conversation) if item["id"] in ids]
            return json_response(page_of(there, {"limit": "100"}, order="asc"), headers=REPLAYED)
        with conversation.held():
            there = await _added(api, caller, conversation, given.items)
            await keep(conversation, this.records({"ids": [item["id"] for item in there]}))
    return json_response(page_of(there, {"limit": "100"}, order="asc"))


async def _added(api: Api, caller: Caller, conversation: Open, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the items; what of them is listed."""
    new = await _read(api, caller, conversation, given)
    before = {item["id"] for item in await _items(api, conversation)}
    await _add(api, caller, conversation, new)
    return [item for item in await _items(api, conversation) if item["id"] not in before]


async def get_item(api: Api, request: Request) -> Response:
    """One item."""
    conversation, item_id = await _named(api, request), request.path_params["item_id"]
    for item in await _items(api, conversation):
        if item["id"] == item_id:
            return json_response(item)
    raise ApiError(404, "item_not_found", f"Item with id '{item_id[:80]}' not found.", param="item_id")


async def _items(api: Api, conversation: Open) -> list[dict[str, Any]]:
    return listed(await api.events(conversation.ref, 0), *await _notes(conversation))


async def _notes(conversation: Open) -> tuple[list[Instruction], list[CallNote]]:
    """What is kept beside the log."""
    store, ref = conversation.store, conversation.ref
    instructions = [msgspec.json.decode(row.data, type=Instruction) for row in await store.records(ref, INSTRUCTION)]
    return instructions, [msgspec.json.decode(row.data, type=CallNote) for row in await store.records(ref, CALL)]


async def _read(api: Api, caller: Caller, conversation: Open, given: list[dict[str, Any]]) -> Added:
    if len(given) > MOST_ITEMS:
        raise invalid("items", f"has {len(given)} items; one request takes up to {MOST_ITEMS}")
    whole = await resolved(api, caller, given, (conversation.ref,))
    known = conversation.session.state.calls
    notes = [note.item for note in (await _notes(conversation))[1]]
    waiting = {item["call_id"]: item for item in notes if item["call_id"] not in known}
    return added(whole, waiting, known, new_id("it"))


async def _add(api: Api, caller: Caller, conversation: Open, new: Added) -> None:
    head = conversation.session.state.head
    ends: list[int] = []
    if new.past:
        await api.add_past(conversation, caller, new.past)
        ends = ends_of(new.past, await api.events(conversation.ref, head))
    instructions, calls = await _notes(conversation)
    first, after = len(instructions) + len(calls), [head, *ends]
    notes: list[Instruction | CallNote] = [
        Instruction(text=text, after=after[before], place=first + n, item=item)
        for text, (n, before, item) in zip(new.texts, new.instructions, strict=True)
    ]
    notes += [CallNote(after=after[before], place=first + n, item=item) for n, before, item in new.calls]
    if notes:
        await keep(conversation, [_row(api, conversation, note) for note in notes])


def _row(api: Api, conversation: Open, note: Instruction | CallNote) -> RecordRow:
    kind = INSTRUCTION if isinstance(note, Instruction) else CALL
    data = conversation.session.scrubber.data(msgspec.json.encode(note))
    return RecordRow(kind, new_id("note"), api.runtime.now(), data)


ROUTES: Final[list[Route]] = [
    ("POST", "/v1/conversations", create),
    ("GET", "/v1/conversations/{conversation_id}", get),
    ("POST", "/v1/conversations/{conversation_id}", update),
    ("DELETE", "/v1/conversations/{conversation_id}", delete),
    ("GET", "/v1/conversations/{conversation_id}/items", items),
    ("POST", "/v1/conversations/{conversation_id}/items", add_items),
    ("GET", "/v1/conversations/{conversation_id}/items/{item_id}", get_item),
]
