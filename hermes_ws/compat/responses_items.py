"""What is in the log, as items of OpenAI's Responses API.

An item's id ends in the id of its run, so an item that a client refers to (``item_reference``) can be found from its id
alone, also in another conversation and after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from hermes_ws.compat.responses_types import (
    ApprovalRequest,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputMessage,
    InputText,
    ItemStatus,
    OutputMessage,
    OutputText,
    Reasoning,
    SummaryText,
)
from hermes_ws.entities import ToolCall
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import ContentPart, ImagePart, Input, TextPart

__all__ = [
    "CLARIFY",
    "allowed",
    "answer_key",
    "approval_id",
    "approval_request",
    "call",
    "call_output",
    "in_id",
    "is_clarify",
    "message",
    "question",
    "reasoning",
    "run_in",
    "said",
]

CLARIFY: Final = "clarify"
"""The tool that asks people, and the function that stands for a question asked by anybody else."""
_FORM: Final = "form"
"""The function that stands for a form."""
_RUN: Final = "run_"
_DETAILS: Final = ("low", "high", "auto")


def in_id(inner: str, run_id: str) -> str:
    """The id of an item of a run; ``inner`` is what the log calls it."""
    return f"{inner}_{run_id.removeprefix(_RUN)}"


def run_in(item_id: str) -> str:
    """The run that an item is of, going by its id."""
    return _RUN + item_id.rpartition("_")[2]


def message(item_id: str, text: str, status: ItemStatus, *, begun: bool = True) -> OutputMessage:
    """Something the assistant says; not ``begun``, before its first word."""
    return OutputMessage(id=item_id, status=status, content=[OutputText(text=text)] if begun else [])


def reasoning(item_id: str, text: str, status: ItemStatus, *, begun: bool = True) -> Reasoning:
    """A block of reasoning; not ``begun``, before its first word."""
    return Reasoning(id=item_id, status=status, summary=[SummaryText(text=text)] if begun else [])


def call(event: ev.ToolStarted) -> FunctionCall:
    """A tool call."""
    return _function_call(event.call_id, event.name, event.arguments, event.run_id)


def _function_call(call_id: str, name: str, arguments: dict[str, Any], run_id: str) -> FunctionCall:
    return FunctionCall(
        id=in_id(f"fc_{call_id}", run_id), call_id=call_id, name=name, arguments=_json(arguments), status="completed"
    )


def call_output(event: ev.ToolCompleted, *, of_client: bool = False) -> FunctionCallOutput:
    """What a tool call came to. Of calls that were executed here it is told as parts, whatever it is: there are clients
    that read nothing else. What a client has told comes back as it came."""
    images = [part for part in event.content or [] if isinstance(part, ImagePart)]
    return FunctionCallOutput(
        id=in_id(f"fco_{event.call_id}", event.run_id),
        call_id=event.call_id,
        output=event.output if of_client and not images else [InputText(text=event.output), *map(_image, images)],
        status="incomplete" if event.status == "cancelled" else "completed",
    )


def approval_request(asked: ev.InteractionRequested) -> ApprovalRequest:
    """A call that waits for leave."""
    tool = asked.tool
    return ApprovalRequest(
        id=approval_id(asked),
        server_label=tool.source.removeprefix("mcp:") if tool else "hermes",
        name=tool.name if tool else asked.title,
        arguments=_json(tool.arguments if tool else {}),
    )


def approval_id(asked: ev.InteractionRequested) -> str:
    """The id of the item that asks for leave."""
    return in_id(asked.interaction_id, asked.run_id)


def allowed(asked: ev.InteractionRequested, resolved: ev.InteractionResolved) -> bool:
    """Whether leave was given."""
    allowing = {option.id for option in asked.options or [] if option.kind == "allow"}
    return resolved.outcome == "answered" and resolved.option in allowing


def is_clarify(started: ev.ToolStarted | ToolCall | None) -> bool:
    """Whether the call is one of the tool that asks people: then the call itself is the question."""
    return started is not None and (started.source, started.name) == ("builtin", CLARIFY)


def answer_key(asked: ev.InteractionRequested, started: ev.ToolStarted | ToolCall | None) -> str:
    """The ``call_id`` that an answer to this names; ``started`` is the call that waits for it, if one does. For an
    approval, the ``approval_request_id``."""
    if asked.kind == "approval":
        return approval_id(asked)
    itself = asked.kind == "client_tool" or (asked.kind == "clarify" and is_clarify(started))
    return asked.call_id if itself and asked.call_id is not None else asked.interaction_id


def question(asked: ev.InteractionRequested) -> FunctionCall:
    """A question or a form that no call of its own stands for, as a call of a function."""
    if asked.kind == "clarify":
        return _function_call(asked.interaction_id, CLARIFY, _clarify_arguments(asked), asked.run_id)
    given = {"message": asked.message, "schema": asked.schema, "url": asked.url}
    present = {key: value for key, value in given.items() if value is not None}
    return _function_call(asked.interaction_id, _FORM, present, asked.run_id)


def _clarify_arguments(asked: ev.InteractionRequested) -> dict[str, Any]:
    arguments: dict[str, Any] = {"question": asked.message}
    for one in asked.questions or []:
        arguments["question"] = one.prompt
        if not one.options:
            continue
        arguments["choices"] = [option.id for option in one.options]
        arguments["allow_other"] = one.allow_other
        arguments["multiple"] = one.type == "multi"
    return arguments


def said(item_id: str, value: Input) -> InputMessage:
    """Something that was said to the agent."""
    parts: Iterable[ContentPart] = [TextPart(text=value)] if isinstance(value, str) else value
    return InputMessage(
        id=item_id, content=[InputText(text=p.text) if isinstance(p, TextPart) else _image(p) for p in parts]
    )


def _image(part: ImagePart) -> InputImage:
    url = part.url if part.blob is None else f"/api/blobs/{part.blob}"
    return InputImage(image_url=url, detail=part.detail if part.detail in _DETAILS else "auto")


def _json(arguments: dict[str, Any]) -> str:
    return msgspec.json.encode(arguments).decode()
