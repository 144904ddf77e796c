"""Asking people for new credentials of an MCP server, and putting them in force."""

from __future__ import annotations

from typing import Final

from hermes_ws.credentials import question_title
from hermes_ws.decisions import Answer, Ask
from hermes_ws.errors import CommandError
from hermes_ws.protocol.values import Question
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.questions import CLARIFY_ID, Questions

__all__ = ["renewed"]

_TRIES: Final = 3


async def renewed(
    conversation: Conversation, questions: Questions, server: str, header: str, call_id: str | None
) -> bool:
    """Whether somebody gave a new value for the header; it is in force then, and stored."""
    problem, place = "", conversation.session.state.config.place_of(f"mcp:{server}")
    for _ in range(_TRIES):
        if place is None:
            return False
        answer = await questions.ask(_question(conversation, server, header, call_id, problem))
        value = _given(answer, header)
        if value is None:
            return False
        conversation.flush()
        try:
            by = answer.resolution.by
            decision = conversation.session.rotate(server, place, header, value, by=by, now=conversation.now())
        except CommandError as refused:
            if refused.code == "not_found":
                return False
            problem = f"That was no value for it: {refused.message}. "
            continue
        conversation.commit(decision)
        await conversation.settled()
        return True
    return False


def _question(conversation: Conversation, server: str, header: str, call_id: str | None, problem: str) -> Ask:
    config = (conversation.session.state.config.mcp_servers or {}).get(server)
    where = f" at {config.url}" if config is not None and config.url else ""
    hint = " A token alone is sent as “Bearer TOKEN”." if header.lower() == "authorization" else ""
    prompt = (
        f"{problem}The MCP server {server}{where} does not take the credentials it gets, or there are none. Give a new "
        f"value for the header {header}, or an empty answer to go on without this server.{hint}"
    )
    question = Question(id=CLARIFY_ID, prompt=prompt, type="secret", required=False, allow_other=False)
    return Ask(
        kind="clarify",
        title=question_title(server),
        message=prompt,
        call_id=call_id,
        questions=[question],
        roles=("driver", "admin"),
    )


def _given(answer: Answer, header: str) -> str | None:
    """The header's new value, if one was given."""
    if answer.resolution.outcome != "answered" or not answer.answers:
        return None
    value = str(answer.answers.get(CLARIFY_ID) or "").strip()
    bare = value and " " not in value and header.lower() == "authorization"
    return f"Bearer {value}" if bare else value or None
