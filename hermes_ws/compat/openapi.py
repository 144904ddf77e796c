"""The HTTP routes as an OpenAPI 3.1 document, made of the types that travel.

An :class:`Operation` says what a route takes and what it answers, by types; schemas, what is required, and what each
field is for are read off these. The operations themselves are listed by family, in the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from hermes_ws.compat.openapi_types import Schema, Types, leaves, reachable

__all__ = ["Answer", "Body", "Header", "Operation", "Parameter", "ServerSentEvents", "openapi"]

_ABOUT: Final = """\
Every HTTP route of a hermes-ws server. Requests become commands on a conversation; its WebSocket, `/ws/{conversation}`
(described in `/schemas/asyncapi.json`), shows the same runs as they happen, and `/v1/responses` can be spoken over a
WebSocket too.

Parameters that are not listed are ignored, and null in an optional field is the same as leaving it out. Every answer
has an `X-Request-Id`: the request's own, if that has one.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A part of the path, of the query, or a header. Those of the path are required."""

    name: str
    where: Literal["path", "query", "header"]
    type: Any
    about: str
    empty: bool = False
    """In the query: whether nothing after the ``=`` is as good as leaving it out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """A header of an answer, where there is something to say."""

    name: str
    about: str
    type: Any = str


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSentEvents:
    """A stream of events. ``data`` is the type of what follows ``data:``, where that is JSON."""

    data: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What is answered with one status: ``type`` by media type. Without any, there is no body."""

    about: str
    types: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Sequence[Header] = ()

    @staticmethod
    def json(type_: Any, about: str, *headers: Header) -> Answer:
        """A JSON body."""
        return Answer(about=about, types={"application/json": type_}, headers=headers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """What is sent: ``type`` by media type."""

    types: Mapping[str, Any]
    required: bool = True
    example: Any = None

    @staticmethod
    def json(type_: Any, *, required: bool = True, example: Any = None) -> Body:
        """A JSON body."""
        return Body(types={"application/json": type_}, required=required, example=example)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """What one method of one path is. ``error`` is the type of a refusal's body; ``refusals`` are the statuses that a
    request of this kind can be refused with, beside those that any can."""

    method: str
    path: str
    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    error: Any
    about: str = ""
    body: Body | None = None
    parameters: Sequence[Parameter] = ()
    refusals: Sequence[int] = ()
    key: bool = True
    ticket: bool = False
    """Whether a ticket does as well, in the query."""
    gives: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where in the answer (a JSON pointer) stands what other operations have in their path, by that name."""


REFUSALS: Final[dict[int, str]] = {
    400: "Something in the request is not as it has to be; the message names it.",
    401: "The key is missing or not known, or the ticket is not good any more.",
    403: "Pages of this origin may not talk to this server, or the credential does not reach so far.",
    404: "There is no such thing, or not for this credential.",
    408: "The body did not come in time.",
    409: "That does not go together with how things are.",
    413: "The body is larger than the limit.",
    415: "The body is of a type, or in an encoding, that is not taken here.",
    421: "The server does not answer to this Host.",
    422: "What is asked for is not offered here.",
    429: "Too much at once.",
    431: "The request line and its headers are larger than the limit.",
    500: "The agent failed at it.",
    502: "The model's endpoint cannot be used.",
    503: "The server is overloaded, or about to go down.",
    504: "It took longer than it may.",
    507: "No space is left to append to the log.",
}
"""What each status says."""
_ANY: Final = (403, 421, 503)
_WITH_BODY: Final = (400, 408, 413, 415)
_REQUEST_ID: Final = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_RETRY_AFTER: Final = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}


def openapi(
    operations: Sequence[Operation],
    *,
    version: str,
    tags: Mapping[str, str],
    fields: Mapping[tuple[type, str], Any] = MappingProxyType({}),
) -> Schema:
    """The whole document. ``tags`` says what the families are.

    ``fields`` are those that are read by hand: what stands in them, as a type in place of theirs, or as keywords of
    JSON Schema beside it; None leaves a field out. Under the name ``""`` stand keywords for the object as a whole.
    """
    types = Types(_taken(operations), _given(operations), fields)
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, types, operations)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hermes-ws",
            "summary": "A WebSocket-first run server for agents.",
            "description": _ABOUT,
            "version": version,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": name, "description": about} for name, about in tags.items()],
        "paths": paths,
        "components": {
            "securitySchemes": _security(),
            "headers": _headers(),
            "schemas": dict(sorted(reachable(paths, types.components).items())),
        },
    }


def _security() -> Schema:
    ticket = "Good for one request to one conversation, from `POST /api/tickets`: for browsers that have no key."
    return {
        "key": {"type": "http", "scheme": "bearer", "description": "The server's key: `Authorization: Bearer KEY`."},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": ticket},
    }


def _headers() -> Schema:
    return {
        "X-Request-Id": {
            "description": "The request's id: its own `X-Request-Id`, if that is 1 to 128 of `A-Za-z0-9._:-`.",
            "schema": {"type": "string"},
        },
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    }


# -- operations ------------------------------------------------------------------------------------------


def _operation(operation: Operation, types: Types, others: Sequence[Operation]) -> Schema:
    security: list[Schema] = [{"key": []}, {"ticket": []}] if operation.ticket else [{"key": []}]
    made: Schema = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": " ".join(operation.about.split()),
        "security": security if operation.key else [],
        "parameters": [_parameter(parameter, types) for parameter in operation.parameters],
        "requestBody": None if operation.body is None else _body(operation.body, types),
        "responses": {str(status): _answer(answer, types) for status, answer in sorted(_answers(operation).items())},
    }
    if operation.gives:
        made["responses"][str(min(operation.answers))]["links"] = _links(operation, others)
    return {name: value for name, value in made.items() if value or name == "security"}


def _links(operation: Operation, others: Sequence[Operation]) -> Schema:
    """What can be asked next, of what the answer names."""
    links: Schema = {}
    for other in others:
        inside = {parameter.name for parameter in other.parameters if parameter.where == "path"}
        known = {name: f"$response.body#{pointer}" for name, pointer in operation.gives.items() if name in inside}
        if known.keys() == inside and inside:
            links[other.id] = {"operationId": other.id, "parameters": known}
    return links


def _answers(operation: Operation) -> dict[int, Answer]:
    statuses = {*_ANY, *operation.refusals}
    statuses |= {*_WITH_BODY} if operation.body is not None else set()
    statuses |= {401} if operation.key else set()
    refusals = {status: Answer.json(operation.error, REFUSALS[status]) for status in statuses}
    for status in (429, 503):
        if status in refusals:
            refusals[status] = Answer.json(operation.error, REFUSALS[status], Header(name="Retry-After", about=""))
    return refusals | dict(operation.answers)


def _parameter(parameter: Parameter, types: Types) -> Schema:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.about,
        **({"required": True} if parameter.where == "path" else {}),
        **({"allowEmptyValue": True} if parameter.empty else {}),
        "schema": types.schema(parameter.type),
    }


def _body(body: Body, types: Types) -> Schema:
    example = {} if body.example is None else {"example": body.example}
    return {
        "required": body.required,
        "content": {media: {"schema": types.schema(type_), **example} for media, type_ in body.types.items()},
    }


def _answer(answer: Answer, types: Types) -> Schema:
    content = {media: _content(type_, types) for media, type_ in answer.types.items()}
    given = {
        header.name: {"description": header.about, "schema": types.schema(header.type)}
        for header in answer.headers
        if header.name not in _RETRY_AFTER
    }
    shared = _RETRY_AFTER if any(header.name in _RETRY_AFTER for header in answer.headers) else {}
    return {
        "description": answer.about,
        "headers": {**_REQUEST_ID, **shared, **given},
        **({"content": content} if content else {}),
    }


def _content(type_: Any, types: Types) -> Schema:
    if isinstance(type_, ServerSentEvents):
        return {"schema": _event(types.schema(type_.data))}
    return {"schema": types.schema(type_)}


def _event(data: Schema) -> Schema:
    """One event of a stream: that is what the schema of such a media type describes."""
    said = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    return {
        "description": "A server-sent event. Its data is JSON.",
        "type": "object",
        "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": said},
        "required": ["data"],
    }


def _taken(operations: Iterable[Operation]) -> list[Any]:
    """The types that clients send."""
    found: list[Any] = []
    for operation in operations:
        found += [] if operation.body is None else operation.body.types.values()
        found += [parameter.type for parameter in operation.parameters]
    return [leaf for type_ in found for leaf in leaves(type_)]


def _given(operations: Iterable[Operation]) -> list[Any]:
    """The types that the server sends."""
    found: list[Any] = []
    for operation in operations:
        found.append(operation.error)
        for answer in operation.answers.values():
            found += [type_.data if isinstance(type_, ServerSentEvents) else type_ for type_ in answer.types.values()]
            found += [header.type for header in answer.headers]
    return [leaf for type_ in found for leaf in leaves(type_)]
