"""The HTTP routes as an OpenAPI 3.1 document, made of the types that travel.

An :class:`Operation` says what a route takes and what it answers, by types; schemas, what is required, and what each
field is for are read off these. The operations themselves are listed by family, in the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeGuard, cast

import msgspec
from msgspec import NODEFAULT, UNSET, inspect

from hermes_ws.protocol.schema import docstrings

__all__ = ["Answer", "Body", "Header", "Operation", "Parameter", "ServerSentEvents", "openapi"]

Schema = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
_NOT_A_LINE: Final = "(?!\\n)"
"""Python's ``$`` also stands before a last line break; that of JSON Schema does not."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """A header of an answer, where there is something to say."""

    name: str
    about: str
    type: Any = str


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSentEvents:
    """A stream of events. ``data`` is the type of what follows ``data:``."""

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


def openapi(operations: Sequence[Operation], *, version: str, tags: Mapping[str, str]) -> Schema:
    """The whole document. ``tags`` says what the families are."""
    types = _Types(operations)
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, types)
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
            "schemas": dict(sorted(types.components.items())),
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


def _operation(operation: Operation, types: _Types) -> Schema:
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
    return {name: value for name, value in made.items() if value or name == "security"}


def _answers(operation: Operation) -> dict[int, Answer]:
    statuses = {*_ANY, *operation.refusals}
    statuses |= {*_WITH_BODY} if operation.body is not None else set()
    statuses |= {401} if operation.key else set()
    refusals = {status: Answer.json(operation.error, REFUSALS[status]) for status in statuses}
    for status in (429, 503):
        if status in refusals:
            refusals[status] = Answer.json(operation.error, REFUSALS[status], Header(name="Retry-After", about=""))
    return refusals | dict(operation.answers)


def _parameter(parameter: Parameter, types: _Types) -> Schema:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.about,
        **({"required": True} if parameter.where == "path" else {}),
        "schema": types.schema(parameter.type),
    }


def _body(body: Body, types: _Types) -> Schema:
    example = {} if body.example is None else {"example": body.example}
    return {
        "required": body.required,
        "content": {media: {"schema": types.schema(type_), **example} for media, type_ in body.types.items()},
    }


def _answer(answer: Answer, types: _Types) -> Schema:
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


def _content(type_: Any, types: _Types) -> Schema:
    if isinstance(type_, ServerSentEvents):
        about = "Server-sent events; each `data:` line is one JSON value"
        return {"schema": {"type": "string", "description": f"{about}: {types.named(type_.data)}."}}
    return {"schema": types.schema(type_)}


# -- schemas ---------------------------------------------------------------------------------------------


class _Types:
    """The schemas of every type that the operations name, and of what those are made of."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        taken, given = _taken(operations), _given(operations)
        every = [*taken, *given]
        schemas, components = msgspec.json.schema_components(every, ref_template=_REF)
        classes = {name: cls for cls in _classes(every) for name in (cls.__name__, _full_name(cls))}
        renamed = {name: _short(name) for name in components}
        requests = set(_classes(taken))
        self.components: dict[str, Schema] = {}
        for name, schema in components.items():
            cls = classes[name]
            self.components[renamed[name]] = _object(_mended(schema, renamed), cls, sent=cls not in requests)
        self._schemas = list(zip(every, (_mended(schema, renamed) for schema in schemas), strict=True))

    def schema(self, type_: Any) -> Schema:
        """The schema of one of the types, as it stands where it is used."""
        if isinstance(type_, dict):  # a schema already
            return cast("Schema", type_)
        return next(schema for known, schema in self._schemas if known == type_)

    def named(self, type_: Any) -> str:
        """The names of the types that it may be, in words."""
        schema = self.schema(type_)
        refs = [schema["$ref"]] if "$ref" in schema else [one["$ref"] for one in schema.get("anyOf", [])]
        return " or ".join(f"`{ref.rpartition('/')[2]}`" for ref in refs) or "an object"


def _taken(operations: Iterable[Operation]) -> list[Any]:
    """The types that clients send."""
    found: list[Any] = []
    for operation in operations:
        found += [] if operation.body is None else operation.body.types.values()
        found += [parameter.type for parameter in operation.parameters]
    return [type_ for type_ in found if not isinstance(type_, dict)]


def _given(operations: Iterable[Operation]) -> list[Any]:
    """The types that the server sends."""
    found: list[Any] = []
    for operation in operations:
        found.append(operation.error)
        for answer in operation.answers.values():
            found += [type_.data if isinstance(type_, ServerSentEvents) else type_ for type_ in answer.types.values()]
            found += [header.type for header in answer.headers]
    return [type_ for type_ in found if not isinstance(type_, dict)]


def _classes(types: Iterable[Any]) -> list[type]:
    """Every Struct in the types."""
    found: dict[type, None] = {}
    for type_ in types:
        _find(inspect.type_info(type_), found)
    return list(found)


def _find(info: inspect.Type, found: dict[type, None]) -> None:
    match info:
        case inspect.StructType():
            if info.cls not in found:
                found[info.cls] = None
                for one in info.fields:
                    _find(one.type, found)
        case inspect.UnionType():
            for branch in info.types:
                _find(branch, found)
        case inspect.ListType():
            _find(info.item_type, found)
        case inspect.DictType():
            _find(info.value_type, found)
        case inspect.Metadata():
            _find(info.type, found)
        case _:
            return


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _short(name: str) -> str:
    """A name that several modules have is told apart by its module's: ``chat_types.FunctionCall``."""
    return name.removeprefix("hermes_ws.").replace("compat.", "").replace("protocol.", "").replace("_types", "")


def _mended(schema: Any, renamed: Mapping[str, str]) -> Any:
    """References under the names we use, and regular expressions that all engines read."""
    prefix = _REF.format(name="")
    if _is_list(schema):
        return [_mended(one, renamed) for one in schema]
    if isinstance(schema, str) and schema.startswith(prefix):
        return prefix + renamed[schema.removeprefix(prefix)]
    if not isinstance(schema, dict):
        return schema
    mended = {
        key: _mended(value, renamed)
        for key, value in cast("Schema", schema).items()
        if key != "title" or not isinstance(value, str)  # a field of that name is none
    }
    if isinstance(mended.get("pattern"), str):
        mended["pattern"] = mended["pattern"].replace(_NOT_A_LINE, "")
    if mended.get("default", "") is None:
        del mended["default"]
    return mended


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _object(schema: Schema, cls: type, *, sent: bool) -> Schema:
    """The schema of a Struct, with what its fields are for; if it is only ever sent, what is always there is
    required."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    properties: Schema = schema.get("properties", {})
    for one in info.fields:
        about = docstrings.of_field(cls, one.name)
        if about:
            properties[one.encode_name] = {**properties[one.encode_name], "description": about}
    always = [one.encode_name for one in info.fields if _always_there(one, cls)] if sent else []
    tag = [info.tag_field] if info.tag_field else []
    required = list(dict.fromkeys([*tag, *schema.get("required", []), *always]))
    made = {**schema, "description": docstrings.of_class(cls), "properties": properties}
    return made | ({"required": required} if required else {})


def _always_there(one: inspect.Field, cls: type) -> bool:
    if one.required:
        return True
    omits = cls.__struct_config__.omit_defaults  # type: ignore[attr-defined]
    return (
        not omits
        and one.default is not UNSET
        and (one.default is not NODEFAULT or one.default_factory is not NODEFAULT)
    )
