"""What travels at ``POST /v1/chat/completions``: OpenAI's shapes, as far as we read and write them.

Fields that we do not know are ignored. Null is the same as leaving a field out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from hermes_ws.compat.fields import FUNCTION_NAME

__all__ = [
    "CalledFunction",
    "ChatChoice",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "ChatDelta",
    "ChatMessage",
    "ChatUsage",
    "ChunkChoice",
    "CompletionTokensDetails",
    "FinishReason",
    "FunctionCall",
    "FunctionTool",
    "HermesNote",
    "InputTool",
    "Interaction",
    "JsonSchemaFormat",
    "PromptTokensDetails",
    "ResponseFormat",
    "StreamOptions",
    "ToolProgress",
]

FunctionName: TypeAlias = Annotated[str, msgspec.Meta(pattern=FUNCTION_NAME)]
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "function_call", "content_filter"]
_Penalty: TypeAlias = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Bias: TypeAlias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
_Seed: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


# -- request -------------------------------------------------------------------------------------------


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the client executes."""

    name: FunctionName
    """What the model calls it."""
    description: str | None = None
    """For the model."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments, an object."""


class InputTool(msgspec.Struct, frozen=True, kw_only=True):
    """One of ``tools``. Only functions are taken: the agent's own tools are the server's matter."""

    type: Literal["function"]
    """Always ``function``."""
    function: FunctionTool
    """Which function."""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has beside the answer."""

    include_usage: bool | None = None
    """One more chunk, the last, with ``usage`` and no choices."""


class JsonSchemaFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer's JSON has to look like."""

    name: str
    """For the model."""
    schema: dict[str, Any] | None = None
    """The JSON Schema."""
    description: str | None = None
    """For the model."""
    strict: bool | None = None
    """Whether the model is held to it, where its endpoint can."""


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    """``text`` is the default."""
    json_schema: JsonSchemaFormat | None = None
    """With ``json_schema``."""


class ChatCompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a request. Parameters that are not here are ignored."""

    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    """The conversation so far, and what is said now."""
    model: str | None = None
    """An agent's name, as ``GET /v1/models`` lists them. Default: the server's default agent."""
    stream: bool | None = None
    """Server-sent events, as the answer comes."""
    stream_options: StreamOptions | None = None
    """What a stream has beside the answer."""
    tools: list[InputTool] | None = None
    """Functions that the client executes: calls of them end the answer."""
    tool_choice: str | dict[str, Any] | None = None
    """``auto``, ``none``, ``required``, one function, or ``allowed_tools``."""
    functions: list[FunctionTool] | None = None
    """The older form of ``tools``."""
    function_call: str | dict[str, Any] | None = None
    """The older form of ``tool_choice``."""
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = None
    """How many answers: 1."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    """Passed on to the model, as is all that follows."""
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Share of the probable tokens."""
    top_k: int | None = None
    """Number of the probable tokens."""
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Least probability of a token."""
    max_tokens: _Count | None = None
    """Bound on the tokens of one model call."""
    max_completion_tokens: _Count | None = None
    """The same, by its newer name."""
    stop: str | list[str] | None = None
    """Where an answer ends."""
    seed: _Seed | None = None
    """For answers that can be had again."""
    presence_penalty: _Penalty | None = None
    """For tokens that have occurred."""
    frequency_penalty: _Penalty | None = None
    """For tokens that have occurred often."""
    logit_bias: dict[str, _Bias] | None = None
    """By token id."""
    response_format: ResponseFormat | None = None
    """Text, or JSON."""
    reasoning_effort: str | None = None
    """How much the model thinks."""
    verbosity: str | None = None
    """How much the model says."""
    parallel_tool_calls: bool | None = None
    """Whether one step may make several calls."""
    user: str | None = None
    """Who asks, for the model's endpoint."""


# -- answer --------------------------------------------------------------------------------------------


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """Which function is called, and with what."""

    name: str
    """The function."""
    arguments: str
    """A JSON object, as text."""


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the client is to make."""

    index: int | UnsetType = UNSET
    """In chunks: its place among the calls of the message."""
    id: str
    """A ``tool`` message answers it under this id."""
    type: Literal["function"] = "function"
    """Always ``function``."""
    function: CalledFunction
    """Which function, and with what."""


class PromptTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Where the tokens that were read came from."""

    cached_tokens: int
    """Read from a cache."""


class CompletionTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What the tokens that were written were for."""

    reasoning_tokens: int
    """Spent on thinking."""


class ChatUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of all model calls of this answer."""

    prompt_tokens: int
    """Read."""
    completion_tokens: int
    """Written, thinking included."""
    total_tokens: int
    """Both."""
    prompt_tokens_details: PromptTokensDetails
    """Where they came from."""
    completion_tokens_details: CompletionTokensDetails
    """What they were for."""


class HermesNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the run stands, where ``finish_reason`` has no word for it."""

    status: Literal["completed", "cancelled"]
    """Of the run."""
    stop_reason: str | None = None
    """``max_steps``: the agent made as many model calls as it may; ``stop``: somebody stopped it; ``interrupt``:
    another run took its place."""


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    """Always ``assistant``."""
    content: str | None
    """What was said; null if there are only calls."""
    refusal: None = None
    """Always null: a refusal is content with ``content_filter``."""
    reasoning_content: str | UnsetType = UNSET
    """What was thought, if anything."""
    tool_calls: list[FunctionCall] | UnsetType = UNSET
    """Calls that the client is to make."""
    function_call: CalledFunction | UnsetType = UNSET
    """The call, for clients that gave ``functions``."""


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The only choice."""

    index: int = 0
    """Always 0."""
    message: ChatMessage
    """The answer."""
    logprobs: None = None
    """Always null."""
    finish_reason: FinishReason
    """Why it ended."""


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer."""

    id: str
    """``chatcmpl-`` and more."""
    object: Literal["chat.completion"] = "chat.completion"
    """Always ``chat.completion``."""
    created: int
    """Unix seconds."""
    model: str
    """As asked for."""
    choices: list[ChatChoice]
    """Exactly one."""
    usage: ChatUsage
    """Of this answer."""
    hermes: HermesNote | UnsetType = UNSET
    """Only where the run did not simply end."""


class ChatDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What is new in the message."""

    role: Literal["assistant"] | UnsetType = UNSET
    """In the first chunk."""
    content: str | UnsetType = UNSET
    """More of what is said."""
    reasoning_content: str | UnsetType = UNSET
    """More of what is thought."""
    tool_calls: list[FunctionCall] | UnsetType = UNSET
    """Calls that the client is to make, whole."""
    function_call: CalledFunction | UnsetType = UNSET
    """The call, for clients that gave ``functions``."""


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The only choice, as far as it is new."""

    index: int = 0
    """Always 0."""
    delta: ChatDelta
    """What is new."""
    logprobs: None = None
    """Always null."""
    finish_reason: FinishReason | None = None
    """In the last one."""


class ToolProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call of one of the agent's own tools began or ended."""

    tool: str
    """The tool's name."""
    tool_call_id: str = msgspec.field(name="toolCallId")
    """The call."""
    status: Literal["running", "completed"]
    """Whether it began or ended."""
    emoji: str | None = None
    """For people, with ``running``."""
    label: str | None = None
    """For people, with ``running``: what it is about."""
    outcome: str | None = None
    """With ``completed``: ``ok``, ``error``, ``denied``, ``cancelled`` or ``interrupted``."""


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody is asked, or was."""

    interaction: msgspec.Raw
    """The event ``interaction.requested`` or ``interaction.resolved``, as the socket has it."""


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer. Named events (``hermes.tool.progress`` and others) are such chunks too, with no
    choices and with fields of their own beside."""

    id: str
    """The same in all chunks."""
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    """Always ``chat.completion.chunk``."""
    created: int
    """Unix seconds, the same in all chunks."""
    model: str
    """As asked for."""
    choices: list[ChunkChoice]
    """One; none in named events and in the chunk with the usage."""
    usage: ChatUsage | UnsetType | None = UNSET
    """With ``include_usage``: null, and set in the last chunk."""
    hermes: HermesNote | UnsetType = UNSET
    """With ``finish_reason``, only where the run did not simply end."""
