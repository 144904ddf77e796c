"""Our own HTTP routes, for the OpenAPI document: images, tickets, and what says what there is."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from hermes_ws.compat.openapi import Answer, Body, Header, Operation, Parameter
from hermes_ws.compat.openapi_types import AnyOf, ListOf
from hermes_ws.protocol.commands import RunStart
from hermes_ws.protocol.control import Error
from hermes_ws.protocol.resources import StoredBlob, TicketGrant, TicketRequest
from hermes_ws.protocol.values import ContentPart, ConversationId, ImagePart

__all__ = ["FIELDS", "OPERATIONS"]

_Text: Final = {"type": "string"}
_Binary: Final[dict[str, Any]] = {}
"""OpenAPI 3.1: bytes have no schema."""
_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")

_FOR: Final = Parameter(
    name="conversation", where="query", type=ConversationId, about="The conversation that the image is in."
)


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
    (TicketRequest, "conversation"): {"pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
}
"""What their types do not say of fields."""
