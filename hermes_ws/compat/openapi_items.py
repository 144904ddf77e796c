"""What clients send in the items and the tools of a response.

Only the OpenAPI document is made of these types. They are as lenient as the readers are: what is not here is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from hermes_ws.compat.fields import FUNCTION_NAME
from hermes_ws.compat.openapi_content import ANSWER, EARLIER, RESULT, TEXTS, FunctionName
from hermes_ws.compat.openapi_types import AnyOf, ListOf

__all__ = [
    "ADDED",
    "FIELDS",
    "HISTORY",
    "INPUT",
    "TOOLS",
    "AllowedTools",
    "ResponseFunctionChoice",
]

_ItemId = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


# -- items of responses --------------------------------------------------------------------------------


class MessageGiven(msgspec.Struct, kw_only=True):
    """What the user says. Its type may be left out."""

    type: Literal["message"] | None = None
    """``message``."""
    role: Literal["user"]
    """Who says it."""
    content: Any
    """Text and images."""


class InstructionGiven(msgspec.Struct, kw_only=True):
    """What the agent is to go by. Its type may be left out."""

    type: Literal["message"] | None = None
    """``message``."""
    role: Literal["system", "developer"]
    """Who says it."""
    content: Any
    """Text."""


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
    name: FunctionName
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


class CustomCallGiven(msgspec.Struct, kw_only=True):
    """A call of a tool that takes text. It is read as one of a function with the argument ``input``."""

    type: Literal["custom_tool_call"]
    """``custom_tool_call``."""
    call_id: _ItemId
    """What the output names."""
    name: FunctionName
    """What was called."""
    input: str
    """With what."""


class CustomOutputGiven(msgspec.Struct, kw_only=True):
    """What such a call came to."""

    type: Literal["custom_tool_call_output"]
    """``custom_tool_call_output``."""
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
    name: FunctionName
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
    """What says nothing to the model."""

    type: Literal[
        "mcp_list_tools",
        "mcp_approval_request",
        "compaction",
        "web_search_call",
        "file_search_call",
        "image_generation_call",
        "code_interpreter_call",
        "computer_call",
        "computer_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "tool_search_call",
        "tool_search_output",
    ]
    """Which."""


class ReferredBefore(msgspec.Struct, kw_only=True):
    """A reference among what came before, which is passed over."""

    type: Literal["item_reference"]
    """``item_reference``."""


class Referred(msgspec.Struct, kw_only=True):
    """An item that is kept here."""

    type: Literal["item_reference"]
    """``item_reference``."""
    id: _ItemId
    """Its id."""


_GIVEN: Final = (
    MessageGiven,
    InstructionGiven,
    AnswerGiven,
    ReasoningGiven,
    CallGiven,
    OutputGiven,
    CustomCallGiven,
    CustomOutputGiven,
    McpCallGiven,
    PassedOver,
)
HISTORY: Final = ListOf(AnyOf((*_GIVEN, ReferredBefore)))
"""Items that were said and done before."""
ADDED: Final = AnyOf((*_GIVEN, Referred))
"""An item of a conversation."""
INPUT: Final = AnyOf((str, ListOf(AnyOf((*_GIVEN, ApprovalGiven, Referred))), None))
"""The input of a response."""


class FunctionGiven(msgspec.Struct, kw_only=True):
    """A function that the client executes, in the form of responses."""

    type: Literal["function"]
    """``function``."""
    name: Annotated[str, msgspec.Meta(pattern=FUNCTION_NAME)]
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

    name: Annotated[str, msgspec.Meta(pattern=FUNCTION_NAME)]
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


class AllowedTools(msgspec.Struct, kw_only=True):
    """The functions that may be called, in the form of responses."""

    type: Literal["allowed_tools"]
    """``allowed_tools``."""
    mode: Literal["auto", "required", "none"] = "auto"
    """Whether one has to be."""
    tools: list[ResponseFunctionChoice]
    """Which."""


FIELDS: Final[dict[tuple[type, str], Any]] = {
    (OutputGiven, "output"): AnyOf(RESULT.types[:2]),
    (CustomOutputGiven, "output"): AnyOf(RESULT.types[:2]),
    (MessageGiven, "content"): EARLIER,
    (InstructionGiven, "content"): TEXTS,
    (AnswerGiven, "content"): ANSWER,
}
"""What stands in fields of these."""
