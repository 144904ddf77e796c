"""What clients send to hermes-agent's routes, in bodies that are read by hand.

Only the OpenAPI document is made of these types. They are as lenient as the readers are: what is not here is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from hermes_ws.compat.openapi_content import CONTENT
from hermes_ws.compat.openapi_types import AnyOf, ListOf

__all__ = [
    "FIELDS",
    "Approval",
    "Clarification",
    "RunInput",
    "SessionCreate",
    "SessionFork",
    "SessionInput",
    "SessionPatch",
    "SteerInput",
    "StopInput",
]

_Text = Annotated[str, msgspec.Meta(pattern=r"\S")]
_SessionId = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:-]{0,127})?$")]
_RequestId = Annotated[str, msgspec.Meta(pattern=r"\S", max_length=256)]


# -- runs of hermes-agent ------------------------------------------------------------------------------


class RunInput(msgspec.Struct, kw_only=True):
    """The body of ``POST /v1/runs``."""

    input: Any
    """What is to be done: text, parts, or messages of which the last is the user's."""
    instructions: str | None = None
    """Added to the agent's own, for this run only."""
    session_id: str | None = None
    """The conversation to run in; what was said there before is its history. Default: one of its own."""
    conversation_history: Any = None
    """Messages that come before, for a conversation that has none yet."""
    previous_response_id: str | None = None
    """A response to go on from."""
    model: str | None = None
    """An agent's name, as ``GET /v1/models`` lists them."""
    tools: Any = None
    """``{"allow": [...], "deny": [...]}`` narrows what the agent may use; anything else is ignored."""
    metadata: dict[str, Any] | None = None
    """Handed to the agent."""


class StopInput(msgspec.Struct, kw_only=True):
    """How a run is stopped. The body may be missing, and whatever cannot be read is as good as missing."""

    mode: Any = None
    """``now``: running tools are killed."""


class SteerInput(msgspec.Struct, kw_only=True):
    """What is said to a running run."""

    input: Any
    """The text; also ``message`` or ``text``."""


class Approval(msgspec.Struct, kw_only=True):
    """The answer to an approval."""

    choice: Any
    """``once``, ``session``, ``always`` or ``deny``; ``approve``, ``approved`` and ``allow`` are ``once``."""
    request_id: _RequestId | None = None
    """Which approval. Default: the oldest."""
    all: Any = None
    """True: every one that waits. Also ``resolve_all``."""
    comment: str | None = None
    """The agent is told."""
    arguments: dict[str, Any] | None = None
    """The edited arguments of the call, whole."""


class Clarification(msgspec.Struct, kw_only=True):
    """The answer to a question. For forms ``content`` or ``choice``, for functions of the client's ``output``."""

    request_id: _RequestId | None = None
    """Which question. Default: the oldest."""
    answer: Any = None
    """One of the choices, several, or words; also ``response``, or an object with ``choice_id``, ``choice_ids`` or
    ``text``."""
    content: dict[str, Any] | None = None
    """What a form is filled in with."""
    choice: Any = None
    """What a form offers instead."""
    output: Any = None
    """What a function came to."""


# -- sessions of hermes-agent --------------------------------------------------------------------------


class SessionCreate(msgspec.Struct, kw_only=True):
    """A session without messages. The body may be missing."""

    id: _SessionId | None = None
    """The id that it is to have; also ``session_id``. Default: the server chooses."""
    title: str | None = None
    """For people."""
    system_prompt: str | None = None
    """Added to the agent's own instructions."""
    model: str | None = None
    """An agent's name, as ``GET /v1/models`` lists them."""


class SessionPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be changed of a session."""

    title: str | None = None
    """Another title; null or empty: none."""
    end_reason: str | None = None
    """That it has ended, and why."""


class SessionFork(msgspec.Struct, kw_only=True):
    """The copy of a session. The body may be missing."""

    id: _SessionId | None = None
    """The id that it is to have; also ``session_id``. Default: the server chooses."""
    title: str | None = None
    """Its title."""


class SessionInput(msgspec.Struct, kw_only=True):
    """A message to a session."""

    message: Any
    """Text, or parts; also ``input``."""
    system_message: str | None = None
    """Added to the agent's own instructions, for this run only; also ``instructions``."""
    model: str | None = None
    """An agent's name, for this run only."""


FIELDS: Final[dict[tuple[type, str], Any]] = {
    (SteerInput, "input"): AnyOf((_Text, ListOf(_Text, least=1))),
    (SessionInput, "message"): CONTENT,
}
"""What stands in fields of these."""
