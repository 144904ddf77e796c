"""Shapes of OpenAI's Responses API: the request, the response, its items, the events of its stream.

Sources: the Open Responses specification (2026-04-24) and OpenAI's API reference. Where one of them demands a field
and the other allows null, the field has a value; every field that either demands is on the wire, null where there is
nothing to say. Times are Unix seconds here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

__all__ = [
    "ApprovalRequest",
    "ApprovalResponse",
    "ArgumentsDelta",
    "ArgumentsDone",
    "ContentPartEvent",
    "ConversationId",
    "CreateResponse",
    "FunctionCall",
    "FunctionCallOutput",
    "IncompleteDetails",
    "InputImage",
    "InputMessage",
    "InputText",
    "InputTokensDetails",
    "Item",
    "ItemStatus",
    "LifecycleEvent",
    "Metadata",
    "OutputItem",
    "OutputItemEvent",
    "OutputMessage",
    "OutputText",
    "OutputTokensDetails",
    "Reasoning",
    "Response",
    "ResponseError",
    "ResponseStatus",
    "ResponseUsage",
    "StreamEvent",
    "SummaryDelta",
    "SummaryDone",
    "SummaryPartEvent",
    "SummaryText",
    "TextConfig",
    "TextDelta",
    "TextDone",
]

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
"""Where an item stands."""

ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
"""Where a response stands."""


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything here: immutable, and every field is on the wire."""


# -- the request ---------------------------------------------------------------------------------------

_Penalty: TypeAlias = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Metadata: TypeAlias = Annotated[dict[str, Annotated[str, msgspec.Meta(max_length=512)]], msgspec.Meta(max_length=16)]
"""The client's own: 16 pairs, keys of up to 64 characters, values of up to 512."""


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The form of what is said."""

    format: dict[str, Any] | None = None
    """``text`` (the default), ``json_object``, or ``json_schema`` with ``name`` and ``schema``."""
    verbosity: str | None = None
    """Passed on to the model."""


class CreateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/responses``, and what ``response.create`` has at the socket. Fields that are not here are
    ignored; null is the same as leaving a field out."""

    input: str | list[dict[str, Any]] | None = None
    """What is said, or items: messages, calls and their outputs, answers to approval requests, references to items."""
    model: str | None = None
    """An agent's name, as ``GET /v1/models`` lists them. Default: the server's default agent."""
    instructions: str | None = None
    """Added to the agent's own, for this response only."""
    previous_response_id: str | None = None
    """Go on from this response. Not with ``conversation``."""
    conversation: str | dict[str, Any] | None = None
    """The conversation to go on in: its id, or ``{"id"}``. An id that begins with ``conv_`` has to be there; any other
    one is begun by its first use."""
    conversation_history: list[dict[str, Any]] | None = None
    """Messages that come before ``input``, as hermes-agent takes them."""
    background: bool | None = None
    """Answer at once, and go on without anybody listening."""
    store: bool | None = None
    """False: nothing is kept. Default: true."""
    stream: bool | None = None
    """Server-sent events, as the response grows."""
    generate: bool | None = None
    """False, at the socket: take the input, and say nothing yet."""
    tools: list[dict[str, Any]] | None = None
    """Functions that the client executes. Tools that OpenAI executes are ignored: the agent has its own."""
    tool_choice: str | dict[str, Any] | None = None
    """``auto``, ``none``, ``required``, one function, or ``allowed_tools``."""
    parallel_tool_calls: bool | None = None
    """Passed on to the model."""
    max_tool_calls: _Count | None = None
    """Echoed."""
    max_output_tokens: _Count | None = None
    """Bound on the tokens of one model call."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    """Passed on to the model."""
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Passed on to the model."""
    presence_penalty: _Penalty | None = None
    """Passed on to the model."""
    frequency_penalty: _Penalty | None = None
    """Passed on to the model."""
    text: TextConfig | None = None
    """The form of what is said."""
    reasoning: dict[str, Any] | None = None
    """``effort`` is passed on to the model."""
    truncation: Literal["auto", "disabled"] | None = None
    """Echoed: agents see to their context themselves."""
    metadata: Metadata | None = None
    """The client's own."""
    prompt: dict[str, Any] | None = None
    """Templates are kept nowhere here: refused."""
    user: str | None = None
    """Passed on to the model."""
    safety_identifier: str | None = None
    """Echoed."""
    prompt_cache_key: str | None = None
    """Echoed."""


# -- content -------------------------------------------------------------------------------------------


class OutputText(_Shape, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """What the assistant said."""

    text: str
    """The text."""
    annotations: list[Any] = []
    """Always empty: agents cite in their text."""
    logprobs: list[Any] = []
    """Always empty."""


class SummaryText(_Shape, frozen=True, kw_only=True, tag_field="type", tag="summary_text"):
    """A block of reasoning."""

    text: str
    """The text."""


class InputText(_Shape, frozen=True, kw_only=True, tag_field="type", tag="input_text"):
    """Text that was given."""

    text: str
    """The text."""


class InputImage(_Shape, frozen=True, kw_only=True, tag_field="type", tag="input_image"):
    """An image that was given, or that a tool returned."""

    image_url: str | None
    """Where it is: as it was given, or at this server."""
    detail: str = "auto"
    """How closely the model should look."""


# -- items ---------------------------------------------------------------------------------------------


class OutputMessage(_Shape, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """Something the assistant says."""

    id: str
    """Names the item."""
    status: ItemStatus
    """``incomplete``: it was cut off."""
    role: Literal["assistant"] = "assistant"
    """Who says it."""
    content: list[OutputText] = []
    """What is said."""


class InputMessage(_Shape, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """Something that was said to the agent."""

    id: str
    """Names the item."""
    status: ItemStatus = "completed"
    """Always ``completed``."""
    role: Literal["user", "system", "developer"] = "user"
    """Who says it."""
    content: list[InputText | InputImage] = []
    """What is said."""


class Reasoning(_Shape, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """A block of the model's reasoning. The two specifications agree on how a summary is streamed, and not on how raw
    reasoning is; clients render summaries. So the block comes as one."""

    id: str
    """Names the item."""
    status: ItemStatus
    """``incomplete``: it was cut off."""
    summary: list[SummaryText] = []
    """The block."""


class FunctionCall(_Shape, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A tool call. A tool of the agent's own is executed here, and its output is an item of the same response; a
    function of the client's has no output until the client sends it."""

    id: str
    """Names the item."""
    call_id: str
    """What the output names."""
    name: str
    """The tool."""
    arguments: str
    """A JSON object."""
    status: ItemStatus
    """Whether the arguments are whole."""


class FunctionCallOutput(_Shape, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"):
    """What a tool call came to."""

    id: str
    """Names the item."""
    call_id: str
    """The call."""
    output: str | list[InputText | InputImage]
    """What the model is told: as parts where it was executed here, or has images."""
    status: ItemStatus = "completed"
    """``incomplete``: the call was cut off."""


class ApprovalRequest(_Shape, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_request"):
    """A tool call that waits for somebody's leave. Answered by an ``mcp_approval_response`` in a next request, or by
    anybody at the conversation's socket."""

    id: str
    """Names the item, and what the answer is for."""
    server_label: str
    """Where the tool comes from: an MCP server's name, or ``builtin``."""
    name: str
    """The tool."""
    arguments: str
    """A JSON object: what it would be called with."""
    status: ItemStatus = "completed"
    """Always ``completed``: it is whole. Open Responses demands a status of every item."""


class ApprovalResponse(_Shape, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_response"):
    """The answer to an approval request."""

    id: str
    """Names the item."""
    approval_request_id: str
    """The request."""
    approve: bool
    """Whether the call may be made."""
    reason: str | None = None
    """Told to the agent."""
    status: ItemStatus = "completed"
    """Always ``completed``."""


OutputItem: TypeAlias = OutputMessage | Reasoning | FunctionCall | FunctionCallOutput | ApprovalRequest
"""What a response is made of."""

Item: TypeAlias = OutputItem | InputMessage | ApprovalResponse
"""What a conversation is made of."""


# -- the response --------------------------------------------------------------------------------------


class InputTokensDetails(_Shape, frozen=True, kw_only=True):
    """What the input was made of."""

    cached_tokens: int = 0
    """Read from the endpoint's cache."""
    cache_write_tokens: int = 0
    """Always 0: no endpoint tells."""


class OutputTokensDetails(_Shape, frozen=True, kw_only=True):
    """What the output was made of."""

    reasoning_tokens: int = 0
    """Spent on reasoning."""


class ResponseUsage(_Shape, frozen=True, kw_only=True):
    """Tokens of the model calls that ended within the response. A call that asked for a tool ends with it: what it
    took is counted where the tool's outcome is."""

    input_tokens: int = 0
    """Read."""
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    """More precisely."""
    output_tokens: int = 0
    """Written."""
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    """More precisely."""
    total_tokens: int = 0
    """Both."""


class ResponseError(_Shape, frozen=True, kw_only=True):
    """Why a response failed."""

    code: str
    """One of OpenAI's codes."""
    message: str
    """For people."""


class IncompleteDetails(_Shape, frozen=True, kw_only=True):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens", "max_messages", "content_filter", "steered"]
    """``max_messages``: the bound on model calls in one run; ``steered``: something was said to the run at the socket,
    and the next response goes on with it."""


class ConversationId(_Shape, frozen=True, kw_only=True):
    """The conversation a response belongs to."""

    id: str
    """Its id, at the socket too."""


class Response(_Shape, frozen=True, kw_only=True):
    """A response: what was asked for, and what has come of it so far."""

    id: str
    """Names it."""
    object: Literal["response"] = "response"
    """Always ``response``."""
    created_at: int
    """Unix seconds."""
    completed_at: int | None = None
    """Unix seconds, once it is completed."""
    status: ResponseStatus
    """Where it stands."""
    error: ResponseError | None = None
    """Why it failed, if it did."""
    incomplete_details: IncompleteDetails | None = None
    """Why it is incomplete, if it is."""
    model: str
    """Who answers."""
    output: list[OutputItem] = []
    """What has come of it."""
    usage: ResponseUsage | None = None
    """Tokens, once it is over."""
    conversation: ConversationId | None = None
    """Null for a response that is kept nowhere."""
    previous_response_id: str | None = None
    """The response it goes on from."""
    instructions: str | None = None
    """Of this response only."""
    background: bool = False
    """Whether it goes on without anybody listening."""
    store: bool = True
    """Whether it can be fetched later."""
    tools: list[dict[str, Any]] = []
    """Functions of the client's."""
    tool_choice: Any = "auto"
    """What the model was to call."""
    parallel_tool_calls: bool = True
    """Whether one model call may ask for several."""
    max_tool_calls: int | None = None
    """Echoed."""
    max_output_tokens: int | None = None
    """Most that one model call may write."""
    temperature: float = 1.0
    """Sampling; 1 where nothing was asked for."""
    top_p: float = 1.0
    """Sampling; 1 where nothing was asked for."""
    top_logprobs: int = 0
    """Always 0."""
    presence_penalty: float = 0.0
    """Sampling; 0 where nothing was asked for."""
    frequency_penalty: float = 0.0
    """Sampling; 0 where nothing was asked for."""
    text: dict[str, Any] = {}
    """The format of what is said."""
    reasoning: dict[str, Any] | None = None
    """Effort and summary, as asked for."""
    truncation: Literal["auto", "disabled"] = "disabled"
    """Echoed."""
    service_tier: str = "default"
    """Always ``default``."""
    metadata: dict[str, str] = {}
    """The client's own."""
    user: str | None = None
    """Echoed."""
    safety_identifier: str | None = None
    """Echoed."""
    prompt_cache_key: str | None = None
    """Echoed."""


# -- events of a stream --------------------------------------------------------------------------------


class LifecycleEvent(_Shape, frozen=True, kw_only=True):
    """The response as it is: when it begins, and when it ends."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.failed",
        "response.incomplete",
    ]
    """``response.incomplete`` also ends a response that was cancelled."""
    sequence_number: int
    """Counts from 0 in each response."""
    response: Response
    """The response."""


class OutputItemEvent(_Shape, frozen=True, kw_only=True):
    """An item begins, or is whole."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    """Which."""
    sequence_number: int
    """Counts from 0 in each response."""
    output_index: int
    """Which item."""
    item: OutputItem
    """The item as it is."""


class ContentPartEvent(_Shape, frozen=True, kw_only=True):
    """A part of a message begins, or is whole."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    """Which."""
    sequence_number: int
    """Counts from 0 in each response."""
    item_id: str
    """The message."""
    output_index: int
    """Which item."""
    content_index: int = 0
    """Which part."""
    part: OutputText
    """The part as it is."""


class TextDelta(_Shape, frozen=True, kw_only=True):
    """A piece of what is said."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    """Always this."""
    sequence_number: int
    """Counts from 0 in each response."""
    item_id: str
    """The message."""
    output_index: int
    """Which item."""
    content_index: int = 0
    """Which part."""
    delta: str
    """Append it."""
    logprobs: list[Any] = []
    """Always empty."""


class TextDone(_Shape, frozen=True, kw_only=True):
    """All of what is said."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    """Always this."""
    sequence_number: int
    """Counts from 0 in each response."""
    item_id: str
    """The message."""
    output_index: int
    """Which item."""
    content_index: int = 0
    """Which part."""
    text: str
    """The text; authoritative."""
    logprobs: list[Any] = []
    """Always empty."""


class ArgumentsDelta(_Shape, frozen=True, kw_only=True):
    """A call's arguments, in one piece."""

    type: Literal["response.function_call_arguments.delta"] = "response.function_call_arguments.delta"
    """Always this."""
    sequence_number: int
    """Counts from 0 in each response."""
    item_id: str
    """The call's item."""
    output_index: int
    """Which item."""
    delta: str
    """Append it."""


class ArgumentsDone(_Shape, frozen=True, kw_only=True):
    """A call's arguments, whole."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    """Always this."""
    sequence_number: int
    """Counts from 0 in each response."""
    item_id: str
    """The call's item."""
    output_index: int
    """Which item."""
    name: str
    """The tool."""
    arguments: str
    """A JSON object."""


class SummaryPartEvent(_Shape, frozen=True, kw_only=True):
    """A block of reasoning begins, or is whole."""

    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    """Which."""
    sequence_number: int
    """Counts from 0 in each response."""
    item_id: str
    """The reasoning item."""
    output_index: int
    """Which item."""
    summary_index: int = 0
    """Which part."""
    part: SummaryText
    """The part as it is."""


class SummaryDelta(_Shape, frozen=True, kw_only=True):
    """A piece of reasoning."""

    type: Literal["response.reasoning_summary_text.delta"] = "response.reasoning_summary_text.delta"
    """Always this."""
    sequence_number: int
    """Counts from 0 in each response."""
    item_id: str
    """The reasoning item."""
    output_index: int
    """Which item."""
    summary_index: int = 0
    """Which part."""
    delta: str
    """Append it."""


class SummaryDone(_Shape, frozen=True, kw_only=True):
    """All of a block of reasoning."""

    type: Literal["response.reasoning_summary_text.done"] = "response.reasoning_summary_text.done"
    """Always this."""
    sequence_number: int
    """Counts from 0 in each response."""
    item_id: str
    """The reasoning item."""
    output_index: int
    """Which item."""
    summary_index: int = 0
    """Which part."""
    text: str
    """The block; authoritative."""


StreamEvent: TypeAlias = (
    LifecycleEvent
    | OutputItemEvent
    | ContentPartEvent
    | TextDelta
    | TextDone
    | ArgumentsDelta
    | ArgumentsDone
    | SummaryPartEvent
    | SummaryDelta
    | SummaryDone
)
"""What a stream is made of."""
