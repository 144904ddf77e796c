"""Our own HTTP routes, for the OpenAPI document: the twins of what sockets do, and what says what there is."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from hermes_ws.compat.openapi import Answer, Body, Header, Operation, Parameter
from hermes_ws.compat.openapi_types import AnyOf, ListOf
from hermes_ws.protocol.commands import Command, ConversationConfigure, RunStart
from hermes_ws.protocol.control import Error, Ok
from hermes_ws.protocol.resources import ConversationList, EventPage, StoredBlob, TicketGrant, TicketRequest
from hermes_ws.protocol.values import ContentPart, ConversationId, ImagePart

__all__ = ["FIELDS", "OPERATIONS"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=10**15 - 1)]
_Cursor = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}-")]
_Text: Final = {"type": "string"}
_Binary: Final[dict[str, Any]] = {}
"""OpenAPI 3.1: bytes have no schema."""
_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")

_CONVERSATION: Final = Parameter(
    name="conversation_id", where="path", type=ConversationId, about="The conversation. `new`: the server chooses."
)
_FOR: Final = Parameter(
    name="conversation", where="query", type=ConversationId, about="The conversation that the image is in."
)


def _limit(what: str) -> Parameter:
    about = f"Most {what} in the page; what is more than the server's own limit is that."
    return Parameter(name="limit", where="query", type=_Count, about=about, empty=True)


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/",
        id="getRoot",
        tag="about",
        summary="What is where, for people",
        answers={200: Answer(about="Text.", types={"text/plain": _Text})},
        error=Error,
        refusals=(400,),
        key=False,
    ),
    Operation(
        method="GET",
        path="/api/conversations",
        id="listConversations",
        tag="conversations",
        summary="Conversations, the one with the newest event first",
        parameters=(
            _limit("conversations"),
            Parameter(name="cursor", where="query", type=_Cursor, about="`next` of the page before."),
        ),
        answers={200: Answer.json(ConversationList, "A page of them.")},
        error=Error,
        refusals=(400,),
    ),
    Operation(
        method="DELETE",
        path="/api/conversations/{conversation_id}",
        id="deleteConversation",
        tag="conversations",
        summary="Remove a conversation wholly",
        about="Its sockets are closed with 4410.",
        parameters=(_CONVERSATION,),
        answers={204: Answer(about="It is gone.")},
        error=Error,
        refusals=(400, 404, 409, 507),
        ticket=True,
    ),
    Operation(
        method="GET",
        path="/api/conversations/{conversation_id}/events",
        id="listEvents",
        tag="conversations",
        summary="A page of a conversation's log",
        about="Exactly the socket's frames. With `wait_ms` it waits for the first one that is not there yet.",
        parameters=(
            _CONVERSATION,
            Parameter(
                name="after", where="query", type=_Count, about="What follows this `seq`; 0 is everything.", empty=True
            ),
            _limit("events"),
            Parameter(
                name="wait_ms",
                where="query",
                type=_Count,
                about="How long to wait for an event, if none is there.",
                empty=True,
            ),
        ),
        answers={200: Answer.json(EventPage, "A page of it.")},
        error=Error,
        refusals=(400, 404),
        ticket=True,
    ),
    Operation(
        method="POST",
        path="/api/conversations/{conversation_id}/commands",
        id="sendCommand",
        tag="conversations",
        summary="Any command that the socket takes",
        parameters=(_CONVERSATION,),
        body=Body.json(Command, example={"type": "run.start", "input": "hi"}),
        answers={200: Answer.json(Ok, "It was done; what it appended is at or before `at`.")},
        error=Error,
        refusals=(404, 409, 422, 429, 507),
        ticket=True,
        gives={"run_id": "/run_id"},
    ),
    Operation(
        method="GET",
        path="/api/conversations/{conversation_id}/tool-calls/{call_id}/output",
        id="getToolOutput",
        tag="conversations",
        summary="The whole output of a tool call",
        about="Also while it goes on: what is there so far.",
        parameters=(_CONVERSATION, Parameter(name="call_id", where="path", type=str, about="From `tool.started`.")),
        answers={200: Answer(about="The output.", types={"text/plain": _Text})},
        error=Error,
        refusals=(400, 404),
        ticket=True,
    ),
    Operation(
        method="POST",
        path="/api/blobs",
        id="uploadImage",
        tag="images",
        summary="Store an image, for an input to refer to",
        parameters=(_FOR,),
        body=Body(types=dict.fromkeys(_IMAGES, _Binary)),
        answers={201: Answer.json(StoredBlob, "It is there, and may have been before.")},
        error=Error,
        refusals=(404, 409, 507),
        ticket=True,
        gives={"blob": "/blob"},
    ),
    Operation(
        method="GET",
        path="/api/blobs/{blob}",
        id="getImage",
        tag="images",
        summary="A stored image",
        about="It never changes: whoever has it may keep it.",
        parameters=(
            Parameter(name="blob", where="path", type=str, about="From the event, or the upload."),
            _FOR,
            Parameter(name="If-None-Match", where="header", type=str, about="The ETag of what is there already."),
        ),
        answers={
            200: Answer(
                about="The image.",
                types=dict.fromkeys(_IMAGES, _Binary),
                headers=[Header(name="ETag", about="Names what it contains.")],
            ),
            304: Answer(about="It is the one that is there already.", headers=[Header(name="ETag", about="Its ETag.")]),
        },
        error=Error,
        refusals=(400, 404),
        ticket=True,
    ),
    Operation(
        method="POST",
        path="/api/tickets",
        id="makeTicket",
        tag="conversations",
        summary="A right to connect once, no wider than the key's",
        body=Body.json(TicketRequest, example={"conversation": "demo", "principal": "ann", "role": "observer"}),
        answers={201: Answer.json(TicketGrant, "The ticket.")},
        error=Error,
    ),
    Operation(
        method="GET",
        path="/schemas/{name}",
        id="getSchema",
        tag="about",
        summary="The socket's protocol, written down for programs and people",
        parameters=(
            Parameter(
                name="name",
                where="path",
                type=Literal["hermes.v1.schema.json", "asyncapi.json", "frames.d.ts", "reference.md"],
                about="Which form.",
            ),
        ),
        answers={
            200: Answer(
                about="The document.",
                types={"application/json": {"type": "object"}, "text/markdown": _Text, "text/plain": _Text},
            )
        },
        error=Error,
        refusals=(400, 404),
        key=False,
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        id="getOpenAPI",
        tag="about",
        summary="This document",
        answers={200: Answer.json({"type": "object"}, "OpenAPI 3.1.")},
        error=Error,
        refusals=(400,),
        key=False,
    ),
)
_SET: Final = {"type": "string"}
_NULL: Final = {"type": "null"}
FIELDS: Final[dict[tuple[type, str], Any]] = {
    (RunStart, "input"): AnyOf((Annotated[str, msgspec.Meta(min_length=1)], ListOf(ContentPart, least=1))),
    (ImagePart, ""): {
        "oneOf": [
            {"properties": {"url": _SET, "blob": _NULL}, "required": ["url"]},
            {"properties": {"url": _NULL, "blob": _SET}, "required": ["blob"]},
        ]
    },
    (RunStart, "deadline_ms"): {"maximum": 2**53},
    (ConversationConfigure, "if_version"): {"maximum": 2**53},
    (TicketRequest, "conversation"): {"pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
}
"""What their types do not say of fields."""
