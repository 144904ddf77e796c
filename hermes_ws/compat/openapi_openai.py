"""OpenAI's routes, for the OpenAPI document: chat completions, responses, conversations."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from hermes_ws.compat.chat_types import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from hermes_ws.compat.conversations import (
    MOST_ITEMS,
    Conversation,
    ConversationCreate,
    ConversationDeleted,
    ConversationUpdate,
    ItemsCreate,
)
from hermes_ws.compat.item_lists import ItemPage
from hermes_ws.compat.openapi import Answer, Body, Header, Operation, Parameter, ServerSentEvents
from hermes_ws.compat.openapi_content import CHAT_FORMAT, FORMAT, MESSAGES, AllowedFunctions, FunctionChoice
from hermes_ws.compat.openapi_items import ADDED, HISTORY, INPUT, TOOLS, AllowedTools, ResponseFunctionChoice
from hermes_ws.compat.openapi_types import AnyOf, ListOf
from hermes_ws.compat.responses_types import CreateResponse, Item, Response, StreamEvent, TextConfig
from hermes_ws.protocol.values import ConversationId

__all__ = ["ERROR", "FIELDS", "IDEMPOTENT", "JOINED", "OPERATIONS", "REPLAYED", "ErrorEnvelope"]


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong."""

    message: str
    """For people: what is wrong, and what would be right."""
    type: str
    """Whose fault it is: ``invalid_request_error``, ``authentication_error``, ``server_error`` and such."""
    param: str | None
    """The field that is wrong, if it is one."""
    code: str
    """For programs."""


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal, as OpenAI's clients expect it."""

    error: ErrorInfo
    """What is wrong."""


class ResponseDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """That a response was deleted."""

    id: str
    """Its id."""
    object: Literal["response"]
    """Always ``response``."""
    deleted: bool
    """Always true."""


ERROR: Final = ErrorEnvelope
IDEMPOTENT: Final = Parameter(
    name="Idempotency-Key",
    where="header",
    type=Annotated[str, msgspec.Meta(min_length=1, max_length=255)],
    about="Sent again under its key, a request is answered again and done once; another body under it is refused.",
)
REPLAYED: Final = Header(name="Idempotency-Replayed", about="`true`: this was answered before, and not done again.")
JOINED: Final = (
    Header(name="X-Hermes-Conversation-Id", about="The conversation: `/ws/{id}` is its socket."),
    Header(name="X-Hermes-Session-Id", about="The same, as hermes-agent calls it."),
)
_RUN: Final = Header(name="X-Hermes-Run-Id", about="The run that answered: `/v1/runs/{run_id}`.")
_RUN_REFUSALS: Final = (404, 409, 429, 500, 502, 504, 507)
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]


# -- chat completions ----------------------------------------------------------------------------------

_CHAT: Final = Operation(
    method="POST",
    path="/v1/chat/completions",
    id="createChatCompletion",
    tag="chat",
    summary="A run as a chat completion, whole or streamed",
    about="""Without a conversation the request is a whole in itself, and nothing of it is kept. With one, only what is
        said last counts: the past is in the conversation, unless it has none yet. Calls of the client's `tools` end the
        answer; the next request brings what they came to. The agent's own tools run here; a stream tells of them in
        `event: hermes.tool.progress`. The older forms of OpenAI's fields are read as well.""",
    parameters=(
        Parameter(
            name="X-Hermes-Conversation-Id",
            where="header",
            type=ConversationId,
            about="The conversation to speak in; also `X-Hermes-Session-Id`. `new`: one that is kept, of its own.",
        ),
        Parameter(
            name="X-Hermes-Tool-Progress",
            where="header",
            type=str,
            about="`off`: no named events in the stream, for clients that take every line for a chunk.",
        ),
        IDEMPOTENT,
    ),
    body=Body.json(ChatCompletionRequest, example={"messages": [{"role": "user", "content": "hi"}]}),
    answers={
        200: Answer(
            about="The answer, or with `stream` what comes of it, up to `[DONE]`.",
            types={"application/json": ChatCompletion, "text/event-stream": ServerSentEvents(data=ChatCompletionChunk)},
            headers=[*JOINED, _RUN, REPLAYED],
        )
    },
    error=ERROR,
    refusals=_RUN_REFUSALS,
)

# -- responses -----------------------------------------------------------------------------------------

_RESPONSE: Final = Parameter(name="response_id", where="path", type=str, about="The response.")
_STREAM: Final = ServerSentEvents(data=AnyOf(get_args(StreamEvent)))
_PAGE: Final = (
    Parameter(name="after", where="query", type=str, about="`last_id` of the page before."),
    Parameter(
        name="limit", where="query", type=Annotated[int, msgspec.Meta(ge=1, le=100)], about="Most items in the page."
    ),
    Parameter(name="order", where="query", type=Literal["asc", "desc"], about="Oldest first, or newest first."),
)
_INCLUDE: Final = Parameter(name="include", where="query", type=str, about="Ignored: everything is there.")
_OWN_TOOLS: Final = Parameter(
    name="X-Hermes-Tool-Progress",
    where="header",
    type=str,
    about="`on`: items for calls of the agent's own; `off`: none. Else they are there unless `tools` has functions.",
)

_RESPONSES: Final = (
    Operation(
        method="POST",
        path="/v1/responses",
        id="createResponse",
        tag="responses",
        summary="A run as a response, whole, streamed, or in the background",
        about="""The same can be spoken over a WebSocket at this address. Approvals are `mcp_approval_request` items, a
            question of the agent's is a call of the function `clarify`; the next request answers them, or anybody at
            the conversation's socket.""",
        parameters=(_OWN_TOOLS, IDEMPOTENT),
        body=Body.json(CreateResponse, example={"input": "hi"}),
        answers={
            200: Answer(
                about="The response, or with `stream` its events.",
                types={"application/json": Response, "text/event-stream": _STREAM},
                headers=[*JOINED, REPLAYED],
            )
        },
        error=ERROR,
        refusals=_RUN_REFUSALS,
        gives={"response_id": "/id"},
    ),
    Operation(
        method="GET",
        path="/v1/responses/{response_id}",
        id="getResponse",
        tag="responses",
        summary="A response as it is now, or its events",
        parameters=(
            _RESPONSE,
            Parameter(name="stream", where="query", type=str, about="`true`: its events, those that have been too."),
            Parameter(
                name="starting_after",
                where="query",
                type=Annotated[int, msgspec.Meta(ge=0, le=10**15 - 1)],
                about="With `stream`: those that follow this `sequence_number`.",
            ),
            _INCLUDE,
        ),
        answers={
            200: Answer(
                about="The response, or with `stream` its events.",
                types={"application/json": Response, "text/event-stream": _STREAM},
                headers=JOINED,
            )
        },
        error=ERROR,
        refusals=(400, 404),
    ),
    Operation(
        method="DELETE",
        path="/v1/responses/{response_id}",
        id="deleteResponse",
        tag="responses",
        summary="Forget a response",
        about="What was said stays in its conversation.",
        parameters=(_RESPONSE,),
        answers={200: Answer.json(ResponseDeleted, "It is forgotten.")},
        error=ERROR,
        refusals=(400, 404, 507),
    ),
    Operation(
        method="POST",
        path="/v1/responses/{response_id}/cancel",
        id="cancelResponse",
        tag="responses",
        summary="Stop a response that goes on in the background",
        parameters=(_RESPONSE,),
        answers={200: Answer.json(Response, "The response as it is now.")},
        error=ERROR,
        refusals=(400, 404, 409, 507),
    ),
    Operation(
        method="GET",
        path="/v1/responses/{response_id}/input_items",
        id="listInputItems",
        tag="responses",
        summary="The items that a response was asked with",
        parameters=(_RESPONSE, *_PAGE, _INCLUDE),
        answers={200: Answer.json(ItemPage, "A page of them.")},
        error=ERROR,
        refusals=(400, 404),
    ),
)

# -- conversations -------------------------------------------------------------------------------------

_CONVERSATION: Final = Parameter(name="conversation_id", where="path", type=_Name, about="The conversation.")
_ITEM: Final = Parameter(name="item_id", where="path", type=str, about="The item.")

_CONVERSATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/conversations",
        id="createConversation",
        tag="conversations (OpenAI)",
        summary="Begin a conversation",
        parameters=(IDEMPOTENT,),
        body=Body.json(ConversationCreate, example={"metadata": {"topic": "demo"}}),
        answers={200: Answer.json(Conversation, "The conversation.", REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
        gives={"conversation_id": "/id"},
    ),
    Operation(
        method="GET",
        path="/v1/conversations/{conversation_id}",
        id="getConversation",
        tag="conversations (OpenAI)",
        summary="A conversation",
        parameters=(_CONVERSATION,),
        answers={200: Answer.json(Conversation, "The conversation.")},
        error=ERROR,
        refusals=(400, 404),
    ),
    Operation(
        method="POST",
        path="/v1/conversations/{conversation_id}",
        id="updateConversation",
        tag="conversations (OpenAI)",
        summary="Give a conversation other metadata",
        parameters=(_CONVERSATION, IDEMPOTENT),
        body=Body.json(ConversationUpdate, example={"metadata": {"topic": "demo"}}),
        answers={200: Answer.json(Conversation, "The conversation.", REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
    ),
    Operation(
        method="DELETE",
        path="/v1/conversations/{conversation_id}",
        id="removeConversation",
        tag="conversations (OpenAI)",
        summary="Remove a conversation wholly",
        parameters=(_CONVERSATION,),
        answers={200: Answer.json(ConversationDeleted, "It is gone.")},
        error=ERROR,
        refusals=(400, 404, 409, 507),
    ),
    Operation(
        method="GET",
        path="/v1/conversations/{conversation_id}/items",
        id="listItems",
        tag="conversations (OpenAI)",
        summary="What was said and done in a conversation",
        parameters=(_CONVERSATION, *_PAGE, _INCLUDE),
        answers={200: Answer.json(ItemPage, "A page of it.")},
        error=ERROR,
        refusals=(400, 404),
    ),
    Operation(
        method="POST",
        path="/v1/conversations/{conversation_id}/items",
        id="createItems",
        tag="conversations (OpenAI)",
        summary="Add history to a conversation, without running anything",
        parameters=(_CONVERSATION, _INCLUDE, IDEMPOTENT),
        body=Body.json(ItemsCreate, example={"items": [{"role": "user", "content": "hi"}]}),
        answers={200: Answer.json(ItemPage, "The items, as they are kept.", REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
    ),
    Operation(
        method="GET",
        path="/v1/conversations/{conversation_id}/items/{item_id}",
        id="getItem",
        tag="conversations (OpenAI)",
        summary="One item of a conversation",
        parameters=(_CONVERSATION, _ITEM, _INCLUDE),
        answers={200: Answer.json(AnyOf(get_args(Item)), "The item.")},
        error=ERROR,
        refusals=(400, 404),
    ),
)

OPERATIONS: Final = (_CHAT, *_RESPONSES, *_CONVERSATIONS)
_PAIRS: Final = {"propertyNames": {"minLength": 1, "maxLength": 64}}
FIELDS: Final[dict[tuple[type, str], Any]] = {
    (ChatCompletionRequest, "messages"): MESSAGES,
    (ChatCompletionRequest, "tool_choice"): AnyOf(
        (Literal["auto", "none", "required"], FunctionChoice, ResponseFunctionChoice, AllowedFunctions, None)
    ),
    (ChatCompletionRequest, "functions"): None,
    (ChatCompletionRequest, "function_call"): None,
    (CreateResponse, "input"): INPUT,
    (CreateResponse, "conversation_history"): AnyOf((HISTORY, None)),
    (CreateResponse, "prompt"): AnyOf((None,)),
    (TextConfig, "format"): FORMAT,
    (ChatCompletionRequest, "response_format"): CHAT_FORMAT,
    (CreateResponse, "tools"): TOOLS,
    (CreateResponse, "tool_choice"): AnyOf(
        (Literal["auto", "none", "required"], FunctionChoice, ResponseFunctionChoice, AllowedTools, None)
    ),
    (CreateResponse, "metadata"): _PAIRS,
    (ConversationCreate, "metadata"): _PAIRS,
    (ConversationUpdate, "metadata"): _PAIRS,
    (ConversationCreate, "items"): AnyOf((ListOf(ADDED, most=MOST_ITEMS), None)),
    (ItemsCreate, "items"): ListOf(ADDED, most=MOST_ITEMS),
}
