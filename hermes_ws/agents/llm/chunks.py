"""What endpoints stream, read tolerantly: servers agree on the names of the fields, and on little else.

Wherever servers differ a field may be anything; the functions here make of it what it means, or nothing.
"""

from __future__ import annotations

from typing import Any, TypeGuard, cast

import msgspec

from hermes_ws.protocol.values import Usage

__all__ = ["Choice", "Chunk", "Fragment", "Said", "fragments", "usage"]


class Said(msgspec.Struct):
    """A delta of a streamed answer, or the whole message of one that is not."""

    content: Any = None
    """Text, or a list of parts."""
    reasoning_content: Any = None
    """Reasoning, as DeepSeek, llama.cpp, older vLLM and LM Studio have it."""
    reasoning: Any = None
    """Reasoning, as Ollama, OpenRouter and newer vLLM have it."""
    reasoning_details: Any = None
    """Reasoning in parts, as OpenRouter has it."""
    refusal: Any = None
    """What a model says instead, when it will not."""
    tool_calls: Any = None
    """Fragments of calls, or whole ones."""
    function_call: Any = None
    """The only call, in the older form."""

    @property
    def text(self) -> str:
        """What is said."""
        return _joined(self.content, "text")

    @property
    def thought(self) -> str:
        """What is thought. Servers that fill several fields say the same in each."""
        return (
            _joined(self.reasoning_content, "text")
            or _joined(self.reasoning, "text")
            or _joined(self.reasoning_details, "text", "summary")
            or _joined(_thinking_parts(self.content), "text")
        )


class Choice(msgspec.Struct):
    """One answer. There is one."""

    delta: Said | None = None
    """A piece of it."""
    message: Said | None = None
    """All of it."""
    finish_reason: Any = None
    """Why it ended."""
    error: Any = None
    """Why it broke off (OpenRouter)."""
    usage: Any = None
    """What it cost (Moonshot)."""


class Extra(msgspec.Struct):
    """What one endpoint tells beside the answer."""

    usage: Any = None
    """What it cost."""


class Chunk(msgspec.Struct):
    """One event of a streamed answer, or an answer that is not streamed."""

    choices: list[Choice | None] | None = None
    """Empty in a chunk that is only about usage."""
    usage: Any = None
    """What it cost, so far or in all."""
    x_groq: Extra | None = None
    """Groq's own, in the last chunk."""
    error: Any = None
    """Why there is no answer, or no more of it."""
    message: Any = None
    """The same, where the whole chunk is the error (vLLM, llama.cpp)."""
    code: Any = None
    """Its code or status."""

    @property
    def cost(self) -> Usage | None:
        """The usage, wherever it is told."""
        told = self.choice.usage if self.choice is not None else None
        return usage(self.usage) or usage(told) or usage(self.x_groq.usage if self.x_groq is not None else None)

    @property
    def problem(self) -> Any:
        """The error, if it is one."""
        bare = {"message": self.message, "code": self.code} if self.message and self.choices is None else None
        return self.error or (self.choice.error if self.choice is not None else None) or bare

    @property
    def choice(self) -> Choice | None:
        """The answer's part of it."""
        return next((choice for choice in self.choices or [] if choice is not None), None)


class Fragment(msgspec.Struct, frozen=True):
    """A piece of a tool call, or all of one."""

    index: int | None
    id: str
    name: str
    arguments: str | dict[str, Any]


def fragments(said: Said) -> list[Fragment]:
    """The pieces of tool calls in a delta."""
    calls = said.tool_calls if _is_list(said.tool_calls) else [said.tool_calls]
    found = [_fragment(call, _dict(call).get("function")) for call in calls]
    return [piece for piece in [*found, _fragment({"index": 0}, said.function_call)] if piece is not None]


def _fragment(call: Any, function: Any) -> Fragment | None:
    about, called = _dict(call), _dict(function)
    if not (called or about.get("id")):
        return None
    arguments = called.get("arguments")
    return Fragment(
        index=_count(about.get("index")),
        id=_text(about.get("id")),
        name=_text(called.get("name")),
        arguments=_dict(arguments) or _text(arguments),
    )


def usage(told: Any) -> Usage | None:
    """What a call cost, if it says so."""
    numbers = _dict(told)
    read, written = _count(numbers.get("prompt_tokens")), _count(numbers.get("completion_tokens"))
    if read is None and written is None:
        return None
    total = _count(numbers.get("total_tokens"))
    return Usage(
        input_tokens=read or 0,
        output_tokens=written or 0,
        total_tokens=total if total is not None else (read or 0) + (written or 0),
        cached_input_tokens=_count(_dict(numbers.get("prompt_tokens_details")).get("cached_tokens")),
        reasoning_tokens=_count(_dict(numbers.get("completion_tokens_details")).get("reasoning_tokens")),
    )


def _joined(value: Any, *keys: str) -> str:
    """Text, or the text of a list of parts."""
    if not _is_list(value):
        return _text(value)
    parts = [_dict(part) for part in value]
    return "".join(_text(part.get(key)) for part in parts for key in keys)


def _thinking_parts(content: Any) -> list[Any]:
    """Reasoning among the parts of a content (Mistral)."""
    thoughts = [_dict(part).get("thinking") for part in content] if _is_list(content) else []
    return [piece for thought in thoughts if _is_list(thought) for piece in thought]


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _dict(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    """A number of something, however it is written."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        return None
    return int(value)
