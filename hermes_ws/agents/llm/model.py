"""What the built-in agent needs of a language model: one streamed call.

A model is asked with the whole history and answers with parts, as they come. Its errors are
:class:`~hermes_ws.errors.ModelError`. Cancelling the iteration must end the call upstream at once. A model may have
``aclose`` and ``check``, which its agent passes on: see :mod:`hermes_ws.agents.base`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hermes_ws.history import HistoryEntry
from hermes_ws.protocol.values import ImagePart, ToolDescription, Usage

__all__ = ["Finish", "Model", "ModelPart", "ModelRequest", "ReasoningDelta", "TextDelta", "ToolCall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One call. ``attempt`` counts from 1: higher means that the same call broke off before. ``image`` gives an
    image of the history as a URL, ``data:`` where it is stored here. ``tool_choice`` and ``parameters`` are as in
    :class:`~hermes_ws.agents.base.Turn`."""

    model: str
    instructions: str | None
    history: list[HistoryEntry]
    tools: list[ToolDescription]
    attempt: int
    image: Callable[[ImagePart], Awaitable[str]]
    tool_choice: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole tool call. Several of one answer run side by side. ``call_id`` may be empty. ``name`` and ``problem`` are
    as in :class:`~hermes_ws.agents.base.RequestedCall`."""

    name: str
    arguments: dict[str, Any]
    call_id: str = ""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of the answer."""

    reason: Literal["end", "length", "refused"] = "end"
    usage: Usage | None = None


ModelPart = TextDelta | ReasoningDelta | ToolCall | Finish


class Model(Protocol):
    """A language model, real or not. One object serves every run at once."""

    @property
    def default_name(self) -> str:
        """The model's name when nobody asks for another."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelPart, None]:
        """Answer. The last part is a :class:`Finish`. Raises :class:`~hermes_ws.errors.ModelError`."""
        ...

    def goes_on(self, history: list[HistoryEntry]) -> bool:
        """Whether the model wants another turn after an answer, the last in ``history``, that called no tool."""
        ...
