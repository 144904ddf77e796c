"""Lines to intentions: what a person means by what they typed."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from hermes_ws.errors import HermesError
from hermes_ws.protocol.commands import InteractionReply
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Question

__all__ = ["HELP", "EditArguments", "NotUnderstood", "answer"]

HELP: Final = """\
a line            starts a run; answers the open question, if there is one; while a run is
                  active, is said to it (the agent hears it between two steps)
o r c a           allow once, for this run, in this conversation, always (or the whole word)
d [WHY]           deny; the agent is told why
e [JSON]          edit the arguments, then allow once
/stop             stop the run
/retry            go on where the last run failed or was stopped
/steer TEXT       say something to the running agent
/tools            the tools that may be used here
/allow GLOB       let this conversation use more tools, such as mcp:github/*
/help             this
/quit             leave; a run goes on without you, and `connect` comes back to it
any other /LINE   goes to the agent as it is (and waits its turn while a run is active)
a line that ends in \\ goes on in the next one
Ctrl+C            stops the run; pressed again, leaves. Ctrl+D leaves."""

_WORDS: Final = {
    "o": "once",
    "y": "once",
    "yes": "once",
    "r": "run",
    "c": "conversation",
    "a": "always",
    "d": "deny",
    "n": "deny",
    "no": "deny",
}
_YES_NO: Final = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


class NotUnderstood(HermesError):
    """A line that is no answer to what is asked; the message says what would be one."""


class EditArguments(Exception):
    """The person wants to edit the arguments before they are allowed."""


def answer(asked: InteractionRequested, line: str) -> InteractionReply:
    """What a line says to an open interaction. Raises :class:`NotUnderstood` or :class:`EditArguments`."""
    if asked.kind == "approval":
        return _decision(asked, line)
    if asked.questions:
        question = asked.questions[0]
        return InteractionReply(interaction_id=asked.interaction_id, answers={question.id: _value(question, line)})
    if asked.kind == "form":
        return InteractionReply(interaction_id=asked.interaction_id, content=_object(line))
    raise NotUnderstood("this is for a client that has the tool; /stop ends the run")


def _decision(asked: InteractionRequested, line: str) -> InteractionReply:
    word, _, rest = line.strip().partition(" ")
    option, rest = _WORDS.get(word.lower(), word.lower()), rest.strip()
    if option in ("e", "edit"):
        if not asked.editable:
            raise NotUnderstood("these arguments cannot be edited")
        if not rest:
            raise EditArguments
        return _reply(asked, "once", arguments=_object(rest))
    offered = [option.id for option in asked.options or []]
    if option not in offered:
        raise NotUnderstood(f"a tool call waits for your decision: {', '.join(offered)} (or /steer TEXT, /stop)")
    return _reply(asked, option, comment=rest or None)


def _reply(asked: InteractionRequested, option: str, **more: Any) -> InteractionReply:
    return InteractionReply(interaction_id=asked.interaction_id, option=option, digest=asked.digest, **more)


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise NotUnderstood(f"that is no JSON object: {error}") from None


def _value(question: Question, line: str) -> Any:
    text = line.strip()
    match question.type:
        case "single":
            return _choice(question, text)
        case "multi":
            return [_choice(question, piece.strip()) for piece in text.split(",") if piece.strip()]
        case "number":
            return _number(text)
        case "boolean":
            if text.lower() not in _YES_NO:
                raise NotUnderstood("yes or no?")
            return _YES_NO[text.lower()]
        case "text" | "secret":
            return text


def _choice(question: Question, text: str) -> str:
    """An option by its name or its number; else the text, where other answers are taken."""
    options = question.options or []
    for option in options:
        if text.lower() in (option.id.lower(), option.label.lower()):
            return option.id
    if text.isdecimal() and 1 <= int(text) <= len(options):
        return options[int(text) - 1].id
    if question.allow_other:
        return text
    raise NotUnderstood(f"one of: {', '.join(option.label for option in options)} (or its number)")


def _number(text: str) -> float | int:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise NotUnderstood("a number, such as 3 or 0.5")
    return int(number) if number.is_integer() else number
