"""Shapes of OpenAI's Responses API that this server sends: the response, its items, the events of its stream.

Sources: the Open Responses specification (2026-04-24) and OpenAI's API reference. Where one of them demands a field
and the other allows null, the field has a value; every field that either demands is on the wire, null where there is
nothing to say. Times are Unix seconds here.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

__all__ = [
    "ApprovalRequest",
    "ApprovalResponse",
    "ArgumentsDelta",
    "ArgumentsDone",
    "ContentPartEvent",
    "ConversationId",
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
    "TextDelta",
    "TextDone",
]

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
"""Where an item stands."""

ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
"""Where a response stands."""


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything here: immutable, and every field is on the wire."""


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
    """What the model is told; parts, where there are images."""
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

    reason: Literal["max_output_tokens", "max_messages", "content_filter"]
    """``max_messages``: the bound on model calls in one run."""


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
