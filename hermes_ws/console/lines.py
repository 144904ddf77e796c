"""Lines to intentions: what a person means by what they typed."""

from __future__ import annotations

from typing import Any, Final

from hermes_ws.answer_lines import NotUnderstood, accepted, answered, declined, filled_in, json_object
from hermes_ws.protocol.commands import InteractionReply
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.readable import line_field

__all__ = ["HELP", "EditArguments", "answer"]

HELP: Final = """\
a line            starts a run; answers the open question, if there is one; while a run is
                  active, is said to it (the agent hears it between two steps)
o r c a           allow once, for this run, in this conversation, always (or the whole word)
d [WHY]           deny; the agent is told why
e [JSON]          edit the arguments, then allow once
a d               at a page to open: it is done, or will not be; d also declines a form
{...}             fill in a form; one with a single field takes a line
/answer [TEXT]    answer the question; nothing after it: an empty answer
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
_DECLINE: Final = ("d", "decline", "/deny", "/decline")
"""The latter two are what the plain view takes: here, too, they are not sent to a stranger's server as text."""
_ACCEPT: Final = ("a", "accept", "done")


class EditArguments(Exception):
    """The person wants to edit the arguments before they are allowed."""


def answer(asked: InteractionRequested, line: str) -> InteractionReply:
    """What a line says to an open interaction. Raises :class:`NotUnderstood` or :class:`EditArguments`."""
    if asked.kind == "approval":
        return _decision(asked, line)
    if asked.questions:
        return answered(asked, asked.questions[0], line)
    if asked.kind == "form":
        return _form(asked, line)
    raise NotUnderstood("this is for a client that has the tool; /stop ends the run")


def _form(asked: InteractionRequested, line: str) -> InteractionReply:
    """Its only field may hold any word, but that it is declined always goes before."""
    word = line.strip().lower()
    if word in _DECLINE:
        return declined(asked)
    if word in _ACCEPT and (asked.url is not None or line_field(asked.schema or {}) is None):
        return accepted(asked)
    if asked.url is not None:
        raise NotUnderstood("open the address, then say a; d declines (or /steer TEXT, /stop)")
    return filled_in(asked, line)


def _decision(asked: InteractionRequested, line: str) -> InteractionReply:
    word, _, rest = line.strip().partition(" ")
    option, rest = _WORDS.get(word.lower(), word.lower()), rest.strip()
    if option in ("e", "edit"):
        if not asked.editable:
            raise NotUnderstood("these arguments cannot be edited")
        if not rest:
            raise EditArguments
        return _reply(asked, "once", arguments=json_object(rest))
    offered = [option.id for option in asked.options or []]
    if option not in offered:
        raise NotUnderstood(f"a tool call waits for your decision: {', '.join(offered)} (or /steer TEXT, /stop)")
    return _reply(asked, option, comment=rest or None)


def _reply(asked: InteractionRequested, option: str, **more: Any) -> InteractionReply:
    return InteractionReply(interaction_id=asked.interaction_id, option=option, digest=asked.digest, **more)
