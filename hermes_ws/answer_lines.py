"""Lines as answers: what a person who types means, at a question, a form or a page to open.

Shared by the plain view and the console. Whether an answer is a good one is the server's to say
(:mod:`hermes_ws.answers`); here it only gets its type.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, Final

import msgspec

from hermes_ws.errors import HermesError
from hermes_ws.protocol.commands import InteractionReply
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Question
from hermes_ws.readable import Field, example, line_field

__all__ = ["NotUnderstood", "accepted", "answered", "declined", "filled_in", "json_object"]

_YES_NO: Final = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


class NotUnderstood(HermesError):
    """A line that is no answer to what is asked; the message says what would be one."""


def answered(asked: InteractionRequested, question: Question, line: str) -> InteractionReply:
    """The reply that answers a question. An empty line leaves out what may be left out."""
    return InteractionReply(interaction_id=asked.interaction_id, answers={question.id: _value(question, line.strip())})


def filled_in(asked: InteractionRequested, line: str) -> InteractionReply:
    """The reply that fills in a form: by a JSON object, or, where there is one field, by its value."""
    return accepted(asked, _content(asked.schema or {}, line.strip()))


def accepted(asked: InteractionRequested, content: dict[str, Any] | None = None) -> InteractionReply:
    """The reply that accepts a form, filled in with ``content``, or says that what was to be done elsewhere is done."""
    option = next((option.id for option in asked.options or [] if option.kind == "allow"), None)
    filled = (content or {}) if asked.schema is not None or option is None else None
    return InteractionReply(interaction_id=asked.interaction_id, option=option, content=filled)


def declined(asked: InteractionRequested, comment: str | None = None) -> InteractionReply:
    """The reply that declines a form."""
    for option in asked.options or []:
        if option.kind == "deny":
            return InteractionReply(interaction_id=asked.interaction_id, option=option.id, comment=comment)
    raise NotUnderstood("this cannot be declined; /stop ends the run")


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a text is."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotUnderstood(f"that is no JSON object: {error}") from None


# -- values --------------------------------------------------------------------------------------------


def _content(schema: dict[str, Any], text: str) -> dict[str, Any]:
    if text.startswith("{"):
        return json_object(text)
    field = line_field(schema)
    if field is None:
        raise NotUnderstood(f"it takes a JSON object, such as {example(schema)}")
    return {field.name: _field_value(field, text)}


def _field_value(field: Field, text: str) -> Any:
    match field.kind:
        case "choice":
            return _choice(field.choices, text)
        case "choices":
            return [_choice(field.choices, piece) for piece in _pieces(text)]
        case "integer" | "number":
            return _number(text)
        case "boolean":
            return _yes_or_no(text)
        case "text" | "json":
            return text


def _value(question: Question, text: str) -> Any:
    choices: list[tuple[Any, str]] = [(option.id, option.label) for option in question.options or []]
    if not text and not question.required and question.type not in ("text", "secret"):
        return None
    match question.type:
        case "single":
            return _choice(choices, text, other=question.allow_other)
        case "multi":
            return [_choice(choices, piece, other=question.allow_other) for piece in _pieces(text)]
        case "number":
            return _number(text)
        case "boolean":
            return _yes_or_no(text)
        case "text" | "secret":
            return text


def _pieces(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def _choice(choices: list[tuple[Any, str]], text: str, *, other: bool = False) -> Any:
    """A choice by its name or its number; else the text, where other answers are taken."""
    by_name = [value for value, label in choices if text.lower() in (str(value).lower(), label.lower())]
    by_number = [value for number, (value, _) in enumerate(choices, 1) if text == str(number)]
    for value in [*by_name, *by_number]:
        return value
    if other and text:
        return text
    raise NotUnderstood(f"one of: {', '.join(label for _, label in choices)} (or its number)")


def _yes_or_no(text: str) -> bool:
    if text.lower() not in _YES_NO:
        raise NotUnderstood("yes or no?")
    return _YES_NO[text.lower()]


def _number(text: str) -> float | int:
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    raise NotUnderstood("a number, such as 3 or 0.5")
