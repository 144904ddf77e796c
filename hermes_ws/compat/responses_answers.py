"""What a next request says to the questions that an earlier response ended with, as replies to interactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec

from hermes_ws.answers import check_answers
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.responses_input import Leave, Output, Turn, no_call, no_output
from hermes_ws.compat.responses_items import answer_key
from hermes_ws.entities import ToolCall
from hermes_ws.protocol.commands import InteractionReply
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Question
from hermes_ws.validation import too_deep

__all__ = ["replies_to"]

_REFUSED: Final = ("decline", "declined", "cancel", "cancelled")
_ECHOED: Final = 80


def replies_to(
    turn: Turn, asked: Iterable[InteractionRequested], calls: Mapping[str, ToolCall]
) -> list[InteractionReply]:
    """One reply for each question that is open. Raises :class:`ApiError` when one is left out or there is no such, and
    :class:`~hermes_ws.errors.CommandError` for an answer that does not fit.

    Where nothing but one question of the agent's is open, what the user says is the answer to that.
    """
    keyed = {answer_key(one, calls.get(one.call_id or "")): one for one in asked}
    _said_in_answer(turn, keyed)
    replies: dict[str, InteractionReply] = {}
    for output in turn.outputs:
        key = _key(output, keyed)
        replies[key] = _answered(keyed[key], output)
    for leave in turn.leaves:
        key = _request(leave, keyed)
        replies[key] = _judged(keyed[key], leave)
    for key, one in keyed.items():
        if key not in replies:
            raise _no_leave(key) if one.kind == "approval" else no_output(key)
        check_answers(one, replies[key])
    return list(replies.values())


def _said_in_answer(turn: Turn, keyed: Mapping[str, InteractionRequested]) -> None:
    if turn.answers or not isinstance(turn.said, str) or [one.kind for one in keyed.values()] != ["clarify"]:
        return
    turn.outputs.append(Output(next(iter(keyed)), turn.said, None, "input"))
    turn.said = None


def _key(output: Output, keyed: Mapping[str, InteractionRequested]) -> str:
    """The question that the output is for: it names the call, or the question itself."""
    if output.call_id in keyed and keyed[output.call_id].kind != "approval":
        return output.call_id
    for key, one in keyed.items():
        if one.interaction_id == output.call_id and one.kind != "approval":
            return key
    raise no_call(output)


def _request(leave: Leave, keyed: Mapping[str, InteractionRequested]) -> str:
    """The request that the leave is for: it names the item, or the interaction."""
    for key, one in keyed.items():
        if one.kind == "approval" and leave.request_id in (key, one.interaction_id):
            return key
    raise _no_request(leave)


def _answered(asked: InteractionRequested, output: Output) -> InteractionReply:
    match asked.kind:
        case "clarify":
            values = {question.id: _value(question, output.text) for question in asked.questions or []}
            return InteractionReply(interaction_id=asked.interaction_id, answers=values)
        case "form":
            return _filled_in(asked, output)
        case _:
            content: dict[str, Any] = {"output": output.text}
            if output.content is not None:
                content["content"] = msgspec.to_builtins(output.content)
            return InteractionReply(interaction_id=asked.interaction_id, content=content)


def _value(question: Question, text: str) -> Any:
    """What a client says to a question: the bare text, or ``{"answer": ...}`` as the tool itself gives it."""
    value = (_object(text) or {}).get("answer", text)
    if question.type in ("number", "boolean") and isinstance(value, str):
        return _decoded(value.strip())
    if question.type == "multi" and isinstance(value, str):
        several = _decoded(value)
        return several if isinstance(several, list) else [value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _filled_in(asked: InteractionRequested, output: Output) -> InteractionReply:
    """A form: an object that fits its schema, ``{"action", "content"}`` as MCP has it, or a word that declines."""
    given = _object(output.text)
    action = output.text.strip().lower() if given is None else given.get("action")
    options = {option.kind: option.id for option in asked.options or []}
    if action in _REFUSED and "deny" in options:
        return InteractionReply(interaction_id=asked.interaction_id, option=options["deny"])
    if asked.schema is None:
        return InteractionReply(interaction_id=asked.interaction_id, option=options.get("allow"))
    if given is None:
        wanted = f"`{output.path}.output` is a JSON object that fits the form's schema, or `decline`"
        raise ApiError(400, "invalid_answer", wanted, param=f"{output.path}.output")
    content = given["content"] if action is not None and isinstance(given.get("content"), dict) else given
    return InteractionReply(interaction_id=asked.interaction_id, option=options.get("allow"), content=content)


def _judged(asked: InteractionRequested, leave: Leave) -> InteractionReply:
    wanted = "allow" if leave.approve else "deny"
    option = next((option.id for option in asked.options or [] if option.kind == wanted), None)
    return InteractionReply(interaction_id=asked.interaction_id, option=option, comment=leave.reason)


def _decoded(text: str) -> Any:
    """The JSON that a text is; the text itself, if it is none."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return text
    return text if too_deep(value) else value


def _object(text: str) -> dict[str, Any] | None:
    value = _decoded(text)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _no_request(leave: Leave) -> ApiError:
    message = f"No open approval request {leave.request_id[:_ECHOED]!r} is waiting here."
    return ApiError(400, "unknown_approval_request", message, param=f"{leave.path}.approval_request_id")


def _no_leave(request_id: str) -> ApiError:
    message = f"No approval response found for approval request {request_id}."
    return ApiError(400, "missing_approval_response", message, param="input")
