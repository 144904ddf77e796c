"""A streamed answer: chunks become text, reasoning and calls, and in the end it is known how it ended.

Endpoints end their answers in every way: with a reason and ``[DONE]``, with one of them, with neither. What was said
counts if something whole was said; a call that is half there does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal

from hermes_ws.agents.llm.assembly import Assembly
from hermes_ws.agents.llm.chunks import Choice, Chunk, Said, fragments
from hermes_ws.agents.llm.model import Finish, ModelPart, ReasoningDelta, TextDelta, ToolCall
from hermes_ws.agents.llm.names import FunctionNames
from hermes_ws.agents.llm.refusals import Refusals
from hermes_ws.agents.llm.thinking import ThinkTags
from hermes_ws.protocol.values import Usage

__all__ = ["Answer"]

_LENGTH: Final = frozenset({"length", "max_tokens", "model_length"})
_REFUSED: Final = frozenset({"content_filter", "refusal", "safety"})
_BROKEN: Final = frozenset({"error", "abort"})


class Answer:
    """One answer, as it comes."""

    def __init__(self, model: str, names: FunctionNames, refusals: Refusals, *, think_tags: bool) -> None:
        self._model = model
        self._names = names
        self._refusals = refusals
        self._tags = ThinkTags() if think_tags else None
        self._calls = Assembly()
        self._usage: Usage | None = None
        self._reason = ""
        self._said = False
        self._thought = False
        self._refusing = False

    @property
    def ended(self) -> bool:
        """Whether it has said why it ended. Only its usage may follow."""
        return bool(self._reason)

    def take(self, chunk: Chunk) -> Iterator[ModelPart]:
        """What one more chunk says. Raises :class:`~hermes_ws.errors.ModelError` for an error in its place."""
        if chunk.problem:
            raise self._refusals.in_stream(chunk.problem, self._model)
        self._usage = chunk.cost or self._usage
        choice = chunk.choice
        if choice is None:
            return
        said = choice.delta or choice.message
        if said is not None:
            yield from self._take(said)
        self._end(choice)

    def _take(self, said: Said) -> Iterator[ModelPart]:
        if said.thought:
            self._thought = True
            yield ReasoningDelta(said.thought)
        yield from self._text(said.text)
        if isinstance(said.refusal, str) and said.refusal:
            self._refusing = True
            yield from self._text(said.refusal)
        for piece in fragments(said):
            self._calls.add(piece)

    def _text(self, text: str) -> Iterator[ModelPart]:
        parts = self._tags.feed(text) if self._tags is not None else [TextDelta(text)] if text else []
        for part in parts:
            self._note(part)
            yield part

    def _note(self, part: ModelPart) -> None:
        """What kind of thing there has been."""
        self._said = self._said or (isinstance(part, TextDelta) and bool(part.text.strip()))
        self._thought = self._thought or isinstance(part, ReasoningDelta)

    def _end(self, choice: Choice) -> None:
        reason = choice.finish_reason
        if reason in _BROKEN:
            raise self._refusals.in_stream(choice.error or f"finish_reason {reason!r}", self._model)
        if isinstance(reason, str) and reason:
            self._reason = reason.lower()

    def end(self, *, done: bool) -> Iterator[ModelPart]:
        """The stream is over; ``done``: it said so. Raises :class:`~hermes_ws.errors.ModelError` if it broke off."""
        if self._tags is not None:
            for part in self._tags.flush():
                self._note(part)
                yield part
        answered = self._said or bool(self._calls)
        if not (self.ended or done) and (self._calls.half or not answered):
            raise self._refusals.bad("ended its answer in the middle")
        reason = self._why()
        if reason == "length" and not (answered or self._thought):
            raise self._refusals.no_room()
        for call in self._calls.finished(cut=reason == "length"):
            yield self._named(call)
        yield Finish(reason, self._usage)

    def _why(self) -> Literal["end", "length", "refused"]:
        if self._refusing or self._reason in _REFUSED:
            return "refused"
        return "length" if self._reason in _LENGTH else "end"

    def _named(self, call: ToolCall) -> ToolCall:
        return replace(call, name=self._names.meant(call.name))
