"""What clients send in fields that are read by hand: messages, items, parts, and the small bodies of hermes-agent.

Only the OpenAPI document is made of these types. They are as lenient as the readers are: what is not here is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from hermes_ws.compat.chat_types import JsonSchemaFormat
from hermes_ws.compat.openapi_types import AnyOf, ListOf

__all__ = [
    "CHAT_FORMAT",
    "CONTENT",
    "FIELDS",
    "FORMAT",
    "HISTORY",
    "INPUT",
    "MESSAGES",
    "TEXTS",
    "TOOLS",
    "AllowedFunctions",
    "Approval",
    "Clarification",
    "FunctionChoice",
    "ResponseFunctionChoice",
    "RunInput",
    "SessionCreate",
    "SessionFork",
    "SessionInput",
    "SessionPatch",
    "SteerInput",
    "StopInput",
]

_Words = Annotated[str, msgspec.Meta(min_length=1)]
_Text = Annotated[str, msgspec.Meta(pattern=r"\S")]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_CallId = Annotated[str, msgspec.Meta(max_length=512)]
_ItemId = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
_RequestId = Annotated[str, msgspec.Meta(pattern=r"\S", max_length=256)]
_Url = Annotated[str, msgspec.Meta(pattern=r"^([hH][tT][tT][pP][sS]?:|[dD][aA][tT][aA]:\s*[iI][mM][aA][gG][eE]/)")]


# -- content -------------------------------------------------------------------------------------------


class TextContent(msgspec.Struct, kw_only=True):
    """Text."""

    type: Literal["text", "input_text", "output_text"]
    """Any of them, in every API."""
    text: str
    """The text."""


class RefusalContent(msgspec.Struct, kw_only=True):
    """What the assistant did not want to say."""

    type: Literal["refusal"]
    """``refusal``."""
    refusal: str
    """Its words."""


class ImageAddress(msgspec.Struct, kw_only=True):
    """Where an image is."""

    url: _Url
    """``http:``, ``https:``, or ``data:image/``."""
    detail: str | None = None
    """How closely the model should look."""


class ImageContent(msgspec.Struct, kw_only=True):
    """An image, in the form of chat completions."""

    type: Literal["image_url", "input_image"]
    """Either."""
    image_url: ImageAddress
    """Where it is."""


class FlatImageContent(msgspec.Struct, kw_only=True):
    """An image, in the form of responses."""

    type: Literal["input_image", "image_url"]
    """Either."""
    image_url: _Url
    """``http:``, ``https:``, or ``data:image/``."""
    detail: str | None = None
    """How closely the model should look."""


TEXTS: Final = AnyOf((str, ListOf(AnyOf((str, TextContent, RefusalContent)), least=1)))
"""Text, or parts that are text."""
CONTENT: Final = AnyOf(
    (_Words, ListOf(AnyOf((str, TextContent, RefusalContent, ImageContent, FlatImageContent)), least=1))
)
"""Text, or parts."""
_RESULT: Final = AnyOf((str, ListOf(AnyOf((str, TextContent, RefusalContent, ImageContent, FlatImageContent))), None))


# -- messages of chat completions ----------------------------------------------------------------------


class SystemMessage(msgspec.Struct, kw_only=True):
    """Instructions, added to the agent's own."""

    role: Literal["system", "developer"]
    """Either."""
    content: Any
    """Text."""


class UserMessage(msgspec.Struct, kw_only=True):
    """What the user says. The last message is what is said now."""

    role: Literal["user"]
    """``user``."""
    content: Any
    """Text and images."""


class WrittenFunction(msgspec.Struct, kw_only=True):
    """A function, and what it was called with."""

    name: _Name
    """The function."""
    arguments: str | dict[str, Any] | None = None
    """A JSON object, as text; or the object itself."""


class WrittenCall(msgspec.Struct, kw_only=True):
    """A call that the assistant made."""

    id: _CallId
    """What the result names."""
    type: Literal["function"] = "function"
    """``function``."""
    function: WrittenFunction
    """What was called."""


class AssistantMessage(msgspec.Struct, kw_only=True):
    """What was answered earlier."""

    role: Literal["assistant"]
    """``assistant``."""
    content: Any = None
    """Text; null, or nothing, where there are only calls."""
    tool_calls: list[WrittenCall] | None = None
    """Calls that were made. Each is answered by a ``tool`` message after it."""
    function_call: WrittenFunction | None = None
    """The older form of a call."""


class ToolMessage(msgspec.Struct, kw_only=True):
    """What a call came to."""

    role: Literal["tool"]
    """``tool``."""
    tool_call_id: str
    """The call, of the assistant's message before it."""
    content: Any = None
    """Text; parts, where there are images."""


class FunctionMessage(msgspec.Struct, kw_only=True):
    """What a call came to, in the older form."""

    role: Literal["function"]
    """``function``."""
    name: str
    """The function that was called."""
    content: Any = None
    """Text; parts, where there are images."""


MESSAGES: Final = ListOf(AnyOf((SystemMessage, UserMessage, AssistantMessage, ToolMessage, FunctionMessage)), least=1)
"""Messages of a chat completion."""


class NamedFunction(msgspec.Struct, kw_only=True):
    """A function by its name."""

    name: str
    """One of the request's own."""


class FunctionChoice(msgspec.Struct, kw_only=True):
    """The one function that is to be called."""

    type: Literal["function"]
    """``function``."""
    function: NamedFunction
    """Which."""


class AllowedFunctions(msgspec.Struct, kw_only=True):
    """The functions that may be called."""

    type: Literal["allowed_tools"]
    """``allowed_tools``."""
    allowed_tools: dict[str, Any]
    """``mode`` (``auto`` or ``required``) and ``tools``."""


class PlainFormat(msgspec.Struct, kw_only=True):
    """Text, or some JSON object."""

    type: Literal["text", "json_object"]
    """Which."""


class ChatSchemaFormat(msgspec.Struct, kw_only=True):
    """JSON that fits a schema, in the form of chat completions."""

    type: Literal["json_schema"]
    """``json_schema``."""
    json_schema: JsonSchemaFormat
    """Which."""


class SchemaFormat(msgspec.Struct, kw_only=True):
    """JSON that fits a schema, in the form of responses."""

    type: Literal["json_schema"]
    """``json_schema``."""
    name: str
    """For the model."""
    schema: dict[str, Any]
    """The JSON Schema."""
    description: str | None = None
    """For the model."""
    strict: bool | None = None
    """Whether the model is held to it, where its endpoint can."""


CHAT_FORMAT: Final = AnyOf((PlainFormat, ChatSchemaFormat, None))
"""The form of an answer, in chat completions."""
FORMAT: Final = AnyOf((PlainFormat, SchemaFormat, None))
"""The form of an answer, in responses."""


# -- items of responses --------------------------------------------------------------------------------


class MessageGiven(msgspec.Struct, kw_only=True):
    """A message to the agent. Its type may be left out."""

    type: Literal["message"] | None = None
    """``message``."""
    role: Literal["user", "system", "developer"]
    """Who says it."""
    content: Any
    """Text; from the user images too."""


class AnswerGiven(msgspec.Struct, kw_only=True):
    """What the assistant said earlier. Its type may be left out."""

    type: Literal["message"] | None = None
    """``message``."""
    role: Literal["assistant"]
    """Who says it."""
    content: Any = None
    """Text."""


class ReasoningBlock(msgspec.Struct, kw_only=True):
    """A block of reasoning."""

    text: str
    """The text."""


class ReasoningGiven(msgspec.Struct, kw_only=True):
    """What the assistant thought earlier."""

    type: Literal["reasoning"]
    """``reasoning``."""
    summary: list[ReasoningBlock] | None = None
    """The blocks."""
    content: list[ReasoningBlock] | None = None
    """More of them."""


class CallGiven(msgspec.Struct, kw_only=True):
    """A call that the assistant made."""

    type: Literal["function_call"]
    """``function_call``."""
    call_id: _ItemId
    """What the output names."""
    name: _Name
    """What was called."""
    arguments: str | None = None
    """A JSON object, as text."""


class OutputGiven(msgspec.Struct, kw_only=True):
    """What a call came to: one of this input, or one that an earlier response asked for."""

    type: Literal["function_call_output"]
    """``function_call_output``."""
    call_id: _ItemId
    """The call."""
    output: Any
    """Text; parts, where there are images."""


class McpCallGiven(msgspec.Struct, kw_only=True):
    """A call that was executed by whoever made it."""

    type: Literal["mcp_call"]
    """``mcp_call``."""
    id: _ItemId
    """Names it."""
    name: _Name
    """What was called."""
    arguments: str | None = None
    """A JSON object, as text."""
    output: Any = None
    """What it came to."""
    error: Any = None
    """Why it failed, if it did."""


class ApprovalGiven(msgspec.Struct, kw_only=True):
    """The answer to an approval request of an earlier response."""

    type: Literal["mcp_approval_response"]
    """``mcp_approval_response``."""
    approval_request_id: _ItemId
    """The request."""
    approve: bool
    """Whether the call may be made."""
    reason: str | None = None
    """Told to the agent."""


class PassedOver(msgspec.Struct, kw_only=True):
    """What says nothing to the model. A reference to an item is that where it is history."""

    type: Literal["mcp_list_tools", "mcp_approval_request", "compaction", "item_reference"]
    """Which."""


class Referred(msgspec.Struct, kw_only=True):
    """An item that is kept here."""

    type: Literal["item_reference"]
    """``item_reference``."""
    id: _ItemId
    """Its id."""


_HISTORY: Final = (MessageGiven, AnswerGiven, ReasoningGiven, CallGiven, OutputGiven, McpCallGiven, PassedOver)
HISTORY: Final = ListOf(AnyOf(_HISTORY))
"""Items that were said and done before."""
INPUT: Final = AnyOf((str, ListOf(AnyOf((*_HISTORY, ApprovalGiven, Referred))), None))
"""The input of a response."""


class FunctionGiven(msgspec.Struct, kw_only=True):
    """A function that the client executes, in the form of responses."""

    type: Literal["function"]
    """``function``."""
    name: Annotated[str, msgspec.Meta(pattern=r"^\S{1,128}$")]
    """What the model calls it."""
    description: str | None = None
    """For the model."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments, an object."""
    strict: bool | None = None
    """Echoed."""


class NestedFunctionGiven(msgspec.Struct, kw_only=True):
    """A function that the client executes, in the form of chat completions."""

    type: Literal["function"]
    """``function``."""
    function: FunctionGivenInside
    """The function."""


class FunctionGivenInside(msgspec.Struct, kw_only=True):
    """A function that the client executes."""

    name: Annotated[str, msgspec.Meta(pattern=r"^\S{1,128}$")]
    """What the model calls it."""
    description: str | None = None
    """For the model."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments, an object."""
    strict: bool | None = None
    """Echoed."""


class HostedTool(msgspec.Struct, kw_only=True):
    """A tool that OpenAI executes: ignored, for the agent has its own."""

    type: Literal[
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "code_interpreter",
        "image_generation",
        "computer_use_preview",
        "computer",
        "tool_search",
    ]
    """Which."""


TOOLS: Final = AnyOf((ListOf(AnyOf((FunctionGiven, NestedFunctionGiven, HostedTool))), None))
"""The tools of a response."""


class ResponseFunctionChoice(msgspec.Struct, kw_only=True):
    """The one function that is to be called."""

    type: Literal["function"]
    """``function``."""
    name: str
    """Which."""


# -- runs of hermes-agent ------------------------------------------------------------------------------


class RunInput(msgspec.Struct, kw_only=True):
    """The body of ``POST /v1/runs``."""

    input: Any
    """What is to be done: text, parts, or messages of which the last is the user's."""
    instructions: str | None = None
    """Added to the agent's own, for this run only."""
    session_id: str | None = None
    """The conversation to run in; what was said there before is its history. Default: one of its own."""
    conversation_history: Any = None
    """Messages that come before, for a conversation that has none yet."""
    previous_response_id: str | None = None
    """A response to go on from."""
    model: str | None = None
    """An agent's name, as ``GET /v1/models`` lists them."""
    tools: Any = None
    """``{"allow": [...], "deny": [...]}`` narrows what the agent may use; anything else is ignored."""
    metadata: dict[str, Any] | None = None
    """Handed to the agent."""


class StopInput(msgspec.Struct, kw_only=True):
    """How a run is stopped. The body may be missing, and whatever cannot be read is as good as missing."""

    mode: Any = None
    """``now``: running tools are killed."""


class SteerInput(msgspec.Struct, kw_only=True):
    """What is said to a running run."""

    input: Any
    """The text; also ``message`` or ``text``."""


class Approval(msgspec.Struct, kw_only=True):
    """The answer to an approval."""

    choice: Any
    """``once``, ``session``, ``always`` or ``deny``; ``approve``, ``approved`` and ``allow`` are ``once``."""
    request_id: _RequestId | None = None
    """Which approval. Default: the oldest."""
    all: Any = None
    """True: every one that waits. Also ``resolve_all``."""
    comment: str | None = None
    """The agent is told."""
    arguments: Any = None
    """An object: the edited arguments of the call, whole."""


class Clarification(msgspec.Struct, kw_only=True):
    """The answer to a question. For forms ``content`` or ``choice``, for functions of the client's ``output``."""

    request_id: _RequestId | None = None
    """Which question. Default: the oldest."""
    answer: Any = None
    """One of the choices, several, or words; also ``response``, or an object with ``choice_id``, ``choice_ids`` or
    ``text``."""
    content: Any = None
    """An object: what a form is filled in with."""
    choice: Any = None
    """What a form offers instead."""
    output: Any = None
    """What a function came to."""


# -- sessions of hermes-agent --------------------------------------------------------------------------


class SessionCreate(msgspec.Struct, kw_only=True):
    """A session without messages. The body may be missing."""

    id: str | None = None
    """The id that it is to have; also ``session_id``. Default: the server chooses."""
    title: str | None = None
    """For people."""
    system_prompt: str | None = None
    """Added to the agent's own instructions."""
    model: str | None = None
    """An agent's name, as ``GET /v1/models`` lists them."""


class SessionPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be changed of a session."""

    title: str | None = None
    """Another title; null or empty: none."""
    end_reason: str | None = None
    """That it has ended, and why."""


class SessionFork(msgspec.Struct, kw_only=True):
    """The copy of a session. The body may be missing."""

    id: str | None = None
    """The id that it is to have; also ``session_id``. Default: the server chooses."""
    title: str | None = None
    """Its title."""


class SessionInput(msgspec.Struct, kw_only=True):
    """A message to a session."""

    message: Any
    """Text, or parts; also ``input``."""
    system_message: str | None = None
    """Added to the agent's own instructions, for this run only; also ``instructions``."""
    model: str | None = None
    """An agent's name, for this run only."""


FIELDS: Final[dict[tuple[type, str], Any]] = {
    (SystemMessage, "content"): TEXTS,
    (UserMessage, "content"): CONTENT,
    (AssistantMessage, "content"): AnyOf((*TEXTS.types, None)),
    (ToolMessage, "content"): _RESULT,
    (FunctionMessage, "content"): _RESULT,
    (OutputGiven, "output"): AnyOf(_RESULT.types[:2]),
    (MessageGiven, "content"): CONTENT,
    (AnswerGiven, "content"): AnyOf((str, ListOf(AnyOf((str, TextContent, RefusalContent))), None)),
    (SteerInput, "input"): AnyOf((_Text, ListOf(AnyOf((_Text, TextContent)), least=1))),
    (SessionInput, "message"): CONTENT,
}
"""What stands in fields of these."""
