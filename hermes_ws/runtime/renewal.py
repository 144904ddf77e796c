"""Asking people for new credentials of an MCP server, and putting them in force."""

from __future__ import annotations

from hermes_ws.decisions import Answer, Ask
from hermes_ws.errors import CommandError, ToolError
from hermes_ws.protocol.values import By, Question
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.questions import CLARIFY_ID, Questions

__all__ = ["renewed"]


async def renewed(
    conversation: Conversation, questions: Questions, server: str, header: str, call_id: str | None
) -> bool:
    """Whether somebody gave a new value for the header; it is in force then, and stored. Raises :class:`ToolError` for
    one that no header can have."""
    answer = await questions.ask(_question(conversation, server, header, call_id))
    value = _given(answer, header)
    if value is None:
        return False
    by: By = answer.resolution.by
    conversation.flush()
    try:
        decision = conversation.session.rotate(server, header, value, by=by, now=conversation.now())
    except CommandError as refused:
        raise ToolError(refused.message) from None
    conversation.commit(decision)
    await conversation.settled()
    return True


def _question(conversation: Conversation, server: str, header: str, call_id: str | None) -> Ask:
    config = (conversation.session.state.config.mcp_servers or {}).get(server)
    where = f" at {config.url}" if config is not None and config.url else ""
    hint = " A token alone is sent as “Bearer TOKEN”." if header.lower() == "authorization" else ""
    prompt = (
        f"The MCP server {server}{where} refuses the credentials it gets (401). Give a new value for the header "
        f"{header}, or an empty answer to go on without this server.{hint}"
    )
    question = Question(id=CLARIFY_ID, prompt=prompt, type="secret", required=False, allow_other=False)
    return Ask(
        kind="clarify",
        title=f"Credentials for {server}",
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
