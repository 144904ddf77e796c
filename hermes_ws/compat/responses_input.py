"""The input of a response, read: items into what was said before, what is said now, and answers to what was asked.

Clients of this API bring along as much history as they like: everything (the stateless way), only what is new (with
``previous_response_id`` or ``conversation``), or references to items that are kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.fields import invalid, items, text, whole_object
from hermes_ws.compat.parts import parts_of, text_of
from hermes_ws.compat.past import Answered, Past, PastCall, Said
from hermes_ws.protocol.values import ContentPart, ImagePart, Input, TextPart
from hermes_ws.validation import too_deep

__all__ = ["GO_ON", "Given", "Leave", "Output", "Turn", "references", "turn_of"]

GO_ON: Final = "[Go on where your answer ends.]"
"""What is said for a client whose last item is the assistant's: it wants more of that."""
_PASSED_OVER: Final = (
    *("mcp_list_tools", "mcp_approval_request", "compaction", "item_reference"),
    *("web_search_call", "file_search_call", "image_generation_call", "code_interpreter_call"),
    *("computer_call", "computer_call_output", "local_shell_call", "local_shell_call_output"),
    *("shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output"),
    *("tool_search_call", "tool_search_output"),
)
"""Items that say nothing to the model: those of tools that OpenAI runs come with what the assistant made of them.
References have been replaced by what they mean where that was wanted."""
_ID_CHARS: Final = 512
_NAME_CHARS: Final = 128
_ECHOED: Final = 80

Given = Sequence[dict[str, Any]]
"""Items as a client sends them."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a call of an earlier response came to."""

    call_id: str
    text: str
    content: list[ContentPart] | None
    path: str


@dataclass(frozen=True, slots=True)
class Leave:
    """The answer to an approval request."""

    request_id: str
    approve: bool
    reason: str | None
    path: str


@dataclass(slots=True)
class Turn:
    """What an input comes to."""

    past: Past = field(default_factory=list[Said | Answered])
    """History that it brings along."""
    said: Input | None = None
    """What is said now. None, with a ``past``: that ends with what calls came to."""
    outputs: list[Output] = field(default_factory=list[Output])
    """Of calls that are not in this input."""
    leaves: list[Leave] = field(default_factory=list[Leave])
    """Answers to approval requests."""
    instructions: list[str] = field(default_factory=list[str])
    """System and developer messages."""

    @property
    def answers(self) -> bool:
        """Whether it answers something that an earlier response has asked."""
        return bool(self.outputs or self.leaves)


def references(given: Given, path: str = "input") -> dict[int, str]:
    """The items that are only referred to: their ids, by where they stand."""
    found = [(n, item) for n, item in enumerate(given) if _kind(item) == "item_reference"]
    return {n: _bounded(item.get("id"), f"{path}[{n}].id", _ID_CHARS) for n, item in found}


def turn_of(
    given: Given, path: str = "input", known: Container[str] = (), *, answered: bool = True, begin: int = 0
) -> Turn:
    """Read the items at ``path``. Raises :class:`ApiError`, which names the field.

    ``known`` are calls that the conversation has already: items that repeat them are passed over. Not to be
    ``answered``: the items are history, nothing is said now. The items before number ``begin`` are passed over.
    """
    reader = _Reader(known)
    for number, item in enumerate(given[begin:], begin):
        reader.read(item, f"{path}[{number}]")
    turn = reader.turn
    turn.past = [one for one in turn.past if isinstance(one, Said) or one.text or one.calls]
    if answered:
        _split(turn, path)
    return turn


def _split(turn: Turn, path: str) -> None:
    """What is said now is what the user said last."""
    said: list[ContentPart] = []
    while turn.past and isinstance(last := turn.past[-1], Said):
        said[:0] = [TextPart(text=last.parts)] if isinstance(last.parts, str) else last.parts
        turn.past.pop()
    if said:
        turn.said = said[0].text if len(said) == 1 and isinstance(said[0], TextPart) else said
    elif not turn.past or turn.answers:
        return
    elif isinstance(last := turn.past[-1], Answered) and last.calls:
        check_settled(last, path)
    else:
        turn.said = GO_ON


def check_settled(answered: Answered, path: str) -> None:
    """Raises :class:`ApiError` unless it is known what each of its calls came to."""
    for call in answered.calls:
        if call.output is None:
            raise no_output(call.call_id, path)


def no_output(call_id: str, path: str = "input") -> ApiError:
    """The model cannot go on before it is told what its calls came to."""
    return ApiError(400, "missing_tool_output", f"No tool output found for function call {call_id}.", param=path)


def no_call(output: Output) -> ApiError:
    """An output of a call that nobody has made, or that has one already."""
    message = f"No tool call found for function call output with call_id {output.call_id[:_ECHOED]}."
    return ApiError(400, "unknown_tool_call", message, param=f"{output.path}.call_id")


class _Reader:
    """Takes items one by one."""

    def __init__(self, known: Container[str]) -> None:
        self.turn = Turn()
        self._known = known
        self._growing = False
        self._kinds: dict[str, Callable[[dict[str, Any], str], None]] = {
            "message": self._message,
            "reasoning": self._reasoning,
            "function_call": self._call,
            "function_call_output": self._output,
            "custom_tool_call": self._custom_call,
            "custom_tool_call_output": self._output,
            "mcp_call": self._mcp_call,
            "mcp_approval_response": self._leave,
        }

    def read(self, given: Any, path: str) -> None:
        item = whole_object(given, path)
        kind = _kind(item)
        if kind in _PASSED_OVER:
            return
        if kind not in self._kinds:
            known = ", ".join([*self._kinds, "item_reference"])
            raise invalid(f"{path}.type", f"is one of {known}, not {kind[:_ECHOED]!r}", "unsupported_value")
        self._kinds[kind](item, path)

    # -- what was said ---------------------------------------------------------------------------------

    def _message(self, item: dict[str, Any], path: str) -> None:
        role = text(item.get("role"), f"{path}.role")
        content, at = item.get("content"), f"{path}.content"
        match role:
            case "user":
                self.turn.past.append(Said(parts_of(content, at)))
                self._growing = False
            case "assistant":
                self._spoke("" if content in (None, []) else text_of(content, at))
            case "system" | "developer":
                self.turn.instructions.append(text_of(content, at))
            case _:
                raise invalid(f"{path}.role", f"is user, assistant, system or developer, not {role[:_ECHOED]!r}")

    def _spoke(self, words: str) -> None:
        answer = self._answer()
        if answer.text or answer.calls:
            answer = self._fresh()
        self.turn.past[-1] = replace(answer, text=words)

    def _reasoning(self, item: dict[str, Any], path: str) -> None:
        words = [*_texts(item.get("summary"), f"{path}.summary"), *_texts(item.get("content"), f"{path}.content")]
        answer = self._answer()
        if answer.text or answer.calls:
            answer = self._fresh()
        self.turn.past[-1] = replace(answer, reasoning="\n\n".join(filter(None, [answer.reasoning, *words])))

    def _answer(self) -> Answered:
        """The assistant's answer that is being put together."""
        last = self.turn.past[-1] if self.turn.past else None
        return last if self._growing and isinstance(last, Answered) else self._fresh()

    def _fresh(self) -> Answered:
        answer = Answered("")
        self.turn.past.append(answer)
        self._growing = True
        return answer

    # -- calls -----------------------------------------------------------------------------------------

    def _call(self, item: dict[str, Any], path: str) -> None:
        call_id = _bounded(item.get("call_id"), f"{path}.call_id", _ID_CHARS)
        name = _bounded(item.get("name"), f"{path}.name", _NAME_CHARS)
        arguments = _arguments(item.get("arguments"), f"{path}.arguments")
        if call_id not in self._known:
            self._answer().calls.append(PastCall(call_id, name, arguments, None))

    def _custom_call(self, item: dict[str, Any], path: str) -> None:
        """A call of a tool that takes text: here, a function whose one argument that is."""
        given = text(item.get("input"), f"{path}.input")
        self._call({**item, "arguments": _json({"input": given})}, path)

    def _mcp_call(self, item: dict[str, Any], path: str) -> None:
        """A call that was executed by whoever made it."""
        call_id = _bounded(item.get("id"), f"{path}.id", _ID_CHARS)
        if call_id in self._known:
            return
        self._call({**item, "call_id": call_id}, path)
        error, output = item.get("error"), item.get("output")
        told = str(output) if isinstance(output, str) else "" if error is None else _json(error)
        self._settle(Output(call_id, told, None, path), is_error=error is not None)

    def _output(self, item: dict[str, Any], path: str) -> None:
        call_id = _bounded(item.get("call_id"), f"{path}.call_id", _ID_CHARS)
        given = item.get("output")
        parts = parts_of(given, f"{path}.output") if given != [] else ""
        told = parts if isinstance(parts, str) else "\n".join(p.text for p in parts if isinstance(p, TextPart))
        images = not isinstance(parts, str) and any(isinstance(part, ImagePart) for part in parts)
        output = Output(call_id, told, list(parts) if images and not isinstance(parts, str) else None, path)
        if not self._settle(output):
            self.turn.outputs.append(output)

    def _settle(self, output: Output, *, is_error: bool = False) -> bool:
        """Whether the output is of a call in this input."""
        self._growing = False
        for answer in reversed(self.turn.past):
            for place, call in enumerate(answer.calls if isinstance(answer, Answered) else []):
                if call.call_id == output.call_id and call.output is None:
                    assert isinstance(answer, Answered)
                    answer.calls[place] = replace(call, output=output.text, is_error=is_error, content=output.content)
                    return True
        return False

    def _leave(self, item: dict[str, Any], path: str) -> None:
        request_id = _bounded(item.get("approval_request_id"), f"{path}.approval_request_id", _ID_CHARS)
        approve, reason = item.get("approve"), item.get("reason")
        if not isinstance(approve, bool):
            raise invalid(f"{path}.approve", "is true or false", "invalid_type")
        comment = None if reason is None else text(reason, f"{path}.reason")
        self.turn.leaves.append(Leave(request_id, approve, comment, path))


def _kind(item: dict[str, Any]) -> str:
    """Messages may go without a type, and so may references, which are an id and nothing else."""
    kind = item.get("type")
    if kind is None and item.keys() - {"type"} == {"id"}:
        return "item_reference"
    return "message" if kind is None and "role" in item else str(kind)


def _texts(given: Any, path: str) -> list[str]:
    """The texts of blocks of reasoning, whatever their types are called."""
    blocks = items(given, path) if given is not None else []
    wholes = [(whole_object(block, f"{path}[{n}]"), f"{path}[{n}].text") for n, block in enumerate(blocks)]
    return [text(block.get("text"), at) for block, at in wholes]


def _bounded(given: Any, path: str, most: int) -> str:
    value = text(given, path)
    if not 0 < len(value) <= most:
        raise invalid(path, f"has 1 to {most} characters")
    return value


def _arguments(given: Any, path: str) -> dict[str, Any]:
    """A call's arguments. What a model wrote wrongly is kept as it is: that it did is part of the history."""
    written = "" if given is None else text(given, path)
    try:
        arguments = msgspec.json.decode(written or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return {"unreadable": written}
    return {"unreadable": written} if too_deep(arguments) else arguments


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
