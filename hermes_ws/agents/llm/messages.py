"""A history as the messages of a chat completion.

What endpoints insist on, and what holds for every history: right after an assistant message with tool calls come the
answers to all of them, in order and under ids that each occur once; what the user says in one go is one message (many
chat templates want the roles to alternate); the last message is not the assistant's. Tool messages carry no images, so
those follow in a message of the user's.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

import msgspec

from hermes_ws.agents.llm.names import FunctionNames
from hermes_ws.errors import HermesError
from hermes_ws.history import AssistantTurn, CallMade, HistoryEntry, ToolAnswer, UserTurn
from hermes_ws.protocol.values import ContentPart, ImagePart, TextPart

__all__ = ["Messages", "shown"]

Message = dict[str, Any]

_CALL_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,40}")
"""What every endpoint takes back; some models are particular about the ids they gave themselves, so those are kept."""
_NO_ANSWER: Final = "[there is no answer to this call]"
_NO_OUTPUT: Final = "[no output]"
_NOT_SHOWN: Final = "[an image, which this model is not shown]"
_GONE: Final = "[an image, which is not there any more]"
_GO_ON: Final = "[Your answer was cut off here. Go on where it ends.]"


def shown(history: Sequence[HistoryEntry], *, reasoning: bool) -> list[HistoryEntry]:
    """The history without the reasoning that is not sent back: with ``reasoning`` that of earlier runs, without it
    all."""
    inputs = (n for n, entry in enumerate(history) if isinstance(entry, UserTurn) and not entry.steered)
    current = max(inputs, default=0)
    return [
        replace(entry, reasoning="") if isinstance(entry, AssistantTurn) and not (reasoning and n > current) else entry
        for n, entry in enumerate(history)
    ]


@dataclass(frozen=True, slots=True)
class Messages:
    """Makes the messages of one request. ``image`` gives an image's URL; ``images``: whether the model takes any."""

    names: FunctionNames
    image: Callable[[ImagePart], Awaitable[str]]
    images: bool

    async def of(self, instructions: str | None, history: Sequence[HistoryEntry]) -> list[Message]:
        """All of them."""
        messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
        ids = _Ids()
        for n, entry in enumerate(history):
            if isinstance(entry, UserTurn):
                _add(messages, {"role": "user", "content": await self._content(entry.content or [_text(entry.text)])})
            elif isinstance(entry, AssistantTurn):
                for message in await self._step(entry, _answers(history, n + 1), ids):
                    _add(messages, message)
        if messages and messages[-1]["role"] == "assistant":
            _add(messages, {"role": "user", "content": _GO_ON})
        return messages

    async def _step(self, turn: AssistantTurn, answers: dict[str, ToolAnswer], ids: _Ids) -> list[Message]:
        """What the model said and called, and what it was answered. Nothing, if it did neither."""
        if not (turn.text or turn.calls):
            return []
        said: Message = {"role": "assistant", "content": turn.text}
        if turn.reasoning:
            said["reasoning_content"] = turn.reasoning
        if not turn.calls:
            return [said]
        called = [(call, ids.of(call.call_id)) for call in turn.calls]
        said["tool_calls"] = [self._call(call, call_id) for call, call_id in called]
        told = [
            {"role": "tool", "tool_call_id": call_id, "content": _told(answers.get(call.call_id))}
            for call, call_id in called
        ]
        return [said, *told, *await self._pictures([answers[c.call_id] for c, _ in called if c.call_id in answers])]

    def _call(self, call: CallMade, call_id: str) -> Message:
        arguments = msgspec.json.encode(call.arguments).decode()
        return {
            "id": call_id,
            "type": "function",
            "function": {"name": self.names.of(call), "arguments": arguments},
        }

    async def _pictures(self, answers: Iterable[ToolAnswer]) -> list[Message]:
        """The images that calls came to, in a message of their own."""
        parts: list[ContentPart] = []
        for answer in answers:
            images = [part for part in answer.content or [] if isinstance(part, ImagePart)]
            parts += [_text(f"[Images that {answer.name} returned:]"), *images] if images else []
        return [{"role": "user", "content": await self._content(parts)}] if parts else []

    async def _content(self, parts: Sequence[ContentPart]) -> str | list[Message]:
        """Parts; or plain text, if that is all there is. That is what the simplest servers understand."""
        made = [await self._part(part) for part in parts]
        if all(part["type"] == "text" for part in made):
            return "\n".join(part["text"] for part in made)
        return made

    async def _part(self, part: ContentPart) -> Message:
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.text}
        if not self.images:
            return {"type": "text", "text": _NOT_SHOWN}
        try:
            url = await self.image(part)
        except HermesError:
            return {"type": "text", "text": _GONE}
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": url, **detail}}


class _Ids:
    """Ids of calls: valid, and each once in a request."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def of(self, call_id: str) -> str:
        made = call_id
        while made in self._used or not _CALL_ID.fullmatch(made):
            made = "call_" + sha256(f"{len(self._used)} {made}".encode("utf-8", "replace")).hexdigest()[:24]
        self._used.add(made)
        return made


def _answers(history: Sequence[HistoryEntry], start: int) -> dict[str, ToolAnswer]:
    """The answers that follow a step, by the id of their call."""
    found: dict[str, ToolAnswer] = {}
    for entry in history[start:]:
        if not isinstance(entry, ToolAnswer):
            break
        found.setdefault(entry.call_id, entry)
    return found


def _told(answer: ToolAnswer | None) -> str:
    """What the model reads of an outcome. That a call failed is nowhere else in a tool message."""
    if answer is None:
        return _NO_ANSWER
    match answer.status:
        case "ok":
            return answer.output or _NO_OUTPUT
        case "started" | "executing":
            return f"{answer.output}\n{_NO_ANSWER}".lstrip()
        case "interrupted" | "denied" if answer.output:  # these say so themselves
            return answer.output
        case status:
            return f"[{status}] {answer.output}".rstrip()


def _add(messages: list[Message], message: Message) -> None:
    """Append a message; one that goes on from the last is joined to it."""
    last = messages[-1] if messages else None
    if last is None or last["role"] != message["role"] or message["role"] == "tool" or "tool_calls" in last:
        messages.append(message)
        return
    joined = _join(last["content"], message["content"])
    messages[-1] = {**last, **message, "content": joined}


def _join(one: str | list[Message], other: str | list[Message]) -> str | list[Message]:
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    return [*_parts(one), *_parts(other)]


def _parts(content: str | list[Message]) -> list[Message]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content


def _text(text: str) -> TextPart:
    return TextPart(text=text)
