"""What clients send in the messages of a chat: content, messages, the choice of a function, the form of the answer.

Only the OpenAPI document is made of these types. They are as lenient as the readers are: what is not here is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from hermes_ws.compat.chat_types import JsonSchemaFormat
from hermes_ws.compat.openapi_types import AnyOf, ListOf

__all__ = [
    "ANSWER",
    "CHAT_FORMAT",
    "CONTENT",
    "EARLIER",
    "FIELDS",
    "FORMAT",
    "MESSAGES",
    "RESULT",
    "TEXTS",
    "AllowedFunctions",
    "FunctionChoice",
    "FunctionName",
]

_Words = Annotated[str, msgspec.Meta(min_length=1)]
FunctionName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_CallId = Annotated[str, msgspec.Meta(max_length=512)]
_Url = Annotated[
    str, msgspec.Meta(pattern=r"^(https?://[!-~]+|data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*)$")
]


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
_PART: Final = AnyOf((str, TextContent, RefusalContent, ImageContent, FlatImageContent))
CONTENT: Final = AnyOf((_Words, ListOf(_PART, least=1)))
"""Text, or parts."""
EARLIER: Final = AnyOf((str, ListOf(_PART, least=1)))
ANSWER: Final = AnyOf((str, ListOf(AnyOf((str, TextContent, RefusalContent))), None))
RESULT: Final = AnyOf((str, ListOf(_PART), None))


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

    name: FunctionName
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


class ToolMessage(msgspec.Struct, kw_only=True):
    """What a call came to."""

    role: Literal["tool"]
    """``tool``."""
    tool_call_id: str
    """The call, of the assistant's message before it."""
    content: Any = None
    """Text; parts, where there are images."""


MESSAGES: Final = ListOf(AnyOf((SystemMessage, UserMessage, AssistantMessage, ToolMessage)), least=1)
"""Messages of a chat completion. The older form of calls (``function_call``, role ``function``) is read as well."""


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


class AllowedInside(msgspec.Struct, kw_only=True):
    """The functions that may be called."""

    mode: Literal["auto", "required"] = "auto"
    """Whether one has to be."""
    tools: list[FunctionChoice]
    """Which."""


class AllowedFunctions(msgspec.Struct, kw_only=True):
    """The functions that may be called, in the form of chat completions."""

    type: Literal["allowed_tools"]
    """``allowed_tools``."""
    allowed_tools: AllowedInside
    """Which."""


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
    description: Any = None
    """For the model."""
    strict: Any = None
    """Whether the model is held to it, where its endpoint can."""


CHAT_FORMAT: Final = AnyOf((PlainFormat, ChatSchemaFormat, None))
"""The form of an answer, in chat completions."""
_NO_FORMAT: Final = {"type": "object", "maxProperties": 0}
FORMAT: Final = AnyOf((PlainFormat, SchemaFormat, _NO_FORMAT, None))
"""The form of an answer, in responses."""


FIELDS: Final[dict[tuple[type, str], Any]] = {
    (SystemMessage, "content"): TEXTS,
    (UserMessage, "content"): EARLIER,
    (AssistantMessage, "content"): ANSWER,
    (ToolMessage, "content"): RESULT,
}
"""What stands in fields of these."""
