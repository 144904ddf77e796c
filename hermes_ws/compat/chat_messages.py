"""The messages of a chat completion, read: who said what, which calls were made, what they came to.

Endpoints insist that every ``tool`` message answers a call of the assistant's message before it; so do we, for what a
model would otherwise be shown is a history that never was. Calls that nobody answered are let pass (clients shorten
histories), save in the last message: there the answer is what is waited for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from hermes_ws.compat.fields import invalid, items, text, whole_object
from hermes_ws.compat.parts import parts_of, text_of
from hermes_ws.compat.past import Answered, Past, PastCall, Said
from hermes_ws.protocol.values import ContentPart, ImagePart, Input, TextPart
from hermes_ws.validation import too_deep

__all__ = [
    "Assistant",
    "Call",
    "Instruction",
    "Message",
    "Result",
    "User",
    "check_answered",
    "past_before",
    "read_messages",
]

_ROLES: Final = "system, developer, user, assistant, tool, function"
_CALL_ID_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Instruction:
    """A message with role ``system`` or ``developer``."""

    text: str


@dataclass(frozen=True, slots=True)
class User:
    """A message of the user's. ``path`` is where it stands, for errors."""

    parts: Input
    path: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call in a message of the assistant's."""

    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Assistant:
    """A message of the assistant's."""

    text: str
    reasoning: str
    path: str
    calls: list[Call] = field(default_factory=list[Call])


@dataclass(frozen=True, slots=True)
class Result:
    """What a call came to: of the call ``call_id``, or, in the older form, of the last call of ``name``."""

    call_id: str | None
    name: str | None
    output: str
    content: list[ContentPart] | None
    path: str

    def answers(self, call_id: str, name: str) -> bool:
        """Whether it is the result of that call."""
        return call_id == self.call_id if self.call_id is not None else name == self.name

    @property
    def named_at(self) -> str:
        """The field that says which call it is of."""
        return f"{self.path}.{'name' if self.call_id is None else 'tool_call_id'}"

    @property
    def told(self) -> dict[str, Any]:
        """As a reply to the interaction of a call that waits for it."""
        content = {} if self.content is None else {"content": msgspec.to_builtins(self.content)}
        return {"output": self.output, **content}


Message = Instruction | User | Assistant | Result


def read_messages(given: list[dict[str, Any]]) -> list[Message]:
    """All of them, in order. Raises :class:`ApiError`, which names the field."""
    return [_message(message, f"messages[{number}]") for number, message in enumerate(given)]


def past_before(messages: list[Message]) -> Past:
    """The history that these messages are. Raises :class:`ApiError` for results of calls that nobody made."""
    past: Past = []
    open_calls: dict[int, Call] = {}
    for message in messages:
        match message:
            case User():
                past.append(Said(message.parts))
                open_calls = {}
            case Assistant():
                open_calls = dict(enumerate(message.calls))
                if message.text or message.calls:
                    past.append(_answered(message))
            case Result():
                place = _answering(message, open_calls)
                _settle(past, place, open_calls.pop(place), message)
            case Instruction():
                pass
    return past


def _answered(message: Assistant) -> Answered:
    calls = [PastCall(call.call_id, call.name, call.arguments, None) for call in message.calls]
    return Answered(message.text, message.reasoning, calls)


def _answering(result: Result, open_calls: dict[int, Call]) -> int:
    for place, call in open_calls.items():
        if result.answers(call.call_id, call.name):
            return place
    message = "answers no call of the assistant's message before it, or one that is answered already"
    raise invalid(result.named_at, message)


def _settle(past: Past, place: int, call: Call, result: Result) -> None:
    answered = past[-1]
    assert isinstance(answered, Answered), "a result follows its call"
    answered.calls[place] = PastCall(call.call_id, call.name, call.arguments, result.output, content=result.content)


def check_answered(past: Past, path: str) -> None:
    """Where an answer is to go on from the results of calls, each of them is there. Raises :class:`ApiError`."""
    last = past[-1] if past else None
    if isinstance(last, Answered):
        open_ids = [call.call_id or call.name for call in last.calls if call.output is None]
        if open_ids:
            raise invalid(path, f"lacks results: send a `tool` message for each of {', '.join(open_ids)[:200]}")


# -- one message ---------------------------------------------------------------------------------------


def _message(message: dict[str, Any], path: str) -> Message:
    role = text(message.get("role"), f"{path}.role")
    match role:
        case "system" | "developer":
            return Instruction(text_of(message.get("content"), f"{path}.content"))
        case "user":
            return User(parts_of(message.get("content"), f"{path}.content"), path)
        case "assistant":
            return _assistant(message, path)
        case "tool":
            call_id = text(message.get("tool_call_id"), f"{path}.tool_call_id")
            return _result(message, path, call_id=call_id)
        case "function":
            return _result(message, path, name=text(message.get("name"), f"{path}.name"))
        case _:
            raise invalid(f"{path}.role", f"is one of {_ROLES}, not {role[:80]!r}")


def _assistant(message: dict[str, Any], path: str) -> Assistant:
    calls = _calls(message, path)
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return Assistant(_said(message, path), reasoning if isinstance(reasoning, str) else "", path, calls)


def _said(message: dict[str, Any], path: str) -> str:
    """What the assistant said. Nothing is fine where it called something; many clients send null elsewhere too."""
    content, refusal = message.get("content"), message.get("refusal")
    if content is None or content == []:
        return refusal if isinstance(refusal, str) else ""
    return text_of(content, f"{path}.content")


def _calls(message: dict[str, Any], path: str) -> list[Call]:
    if message.get("tool_calls") is not None:
        path = f"{path}.tool_calls"
        return [_call(call, f"{path}[{n}]") for n, call in enumerate(items(message["tool_calls"], path))]
    if message.get("function_call") is not None:
        path = f"{path}.function_call"
        return [_called("", whole_object(message["function_call"], path), path)]
    return []


def _call(given: Any, path: str) -> Call:
    call = whole_object(given, path)
    kind = call.get("type", "function")
    if kind != "function":
        raise invalid(f"{path}.type", "is `function`: calls of other kinds are not taken", "unsupported_value")
    call_id = _id(call.get("id"), f"{path}.id")
    return _called(call_id, whole_object(call.get("function"), f"{path}.function"), f"{path}.function")


def _id(given: Any, path: str) -> str:
    call_id = text(given, path)
    if len(call_id) > _CALL_ID_CHARS:
        raise invalid(path, f"is at most {_CALL_ID_CHARS} characters")
    return call_id


def _called(call_id: str, function: dict[str, Any], path: str) -> Call:
    name = text(function.get("name"), f"{path}.name")
    if not 0 < len(name) <= 128:
        raise invalid(f"{path}.name", "is a name of 1 to 128 characters")
    return Call(call_id, name, _arguments(function.get("arguments"), f"{path}.arguments"))


def _arguments(given: Any, path: str) -> dict[str, Any]:
    """A call's arguments: the text of a JSON object, or the object itself. What a model wrote wrongly is kept as it is:
    that it did is part of the history."""
    if isinstance(given, dict):
        return whole_object(given, path)
    written = "" if given is None else text(given, path)
    try:
        arguments = msgspec.json.decode(written or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return {"unreadable": written}
    return {"unreadable": written} if too_deep(arguments) else arguments


def _result(message: dict[str, Any], path: str, *, call_id: str | None = None, name: str | None = None) -> Result:
    content = message.get("content")
    parts = "" if content in (None, []) else parts_of(content, f"{path}.content")
    if isinstance(parts, str):
        return Result(call_id, name, parts, None, path)
    output = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    images = any(isinstance(part, ImagePart) for part in parts)
    return Result(call_id, name, output, parts if images else None, path)
