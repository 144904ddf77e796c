"""What the sessions API says: hermes-agent's sessions, their messages, and the events of a chat in one."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hermes_ws.protocol.values import Usage

__all__ = [
    "ChatAnswer",
    "ChatMessage",
    "Deleted",
    "FunctionCalled",
    "MessageList",
    "Session",
    "SessionCalls",
    "SessionEnvelope",
    "SessionList",
    "SessionMessage",
    "SessionRecord",
]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session: a conversation of ours, whoever began it. Times are Unix seconds; costs are nobody's to know here."""

    id: str
    """The conversation's id: ``/ws/{id}`` is its socket."""
    source: str
    """``api_server``: every conversation comes in through this server."""
    user_id: str | None
    """Null."""
    model: str | None
    """The model that answered last, or is configured; null before."""
    title: str | None
    """Its title; null: it has none."""
    started_at: float
    """When it began."""
    ended_at: float | None
    """When somebody said that it ended."""
    end_reason: str | None
    """Why, as they said."""
    message_count: int
    """Messages of all roles."""
    tool_call_count: int
    """Tool calls."""
    input_tokens: int
    """Tokens read."""
    output_tokens: int
    """Tokens written."""
    cache_read_tokens: int
    """Part of ``input_tokens`` that endpoints had cached."""
    cache_write_tokens: int
    """0: endpoints do not say."""
    reasoning_tokens: int
    """Part of ``output_tokens``."""
    estimated_cost_usd: float | None
    """Null."""
    actual_cost_usd: float | None
    """Null."""
    api_call_count: int
    """Calls of models."""
    parent_session_id: str | None
    """The session that it was forked from."""
    last_active: float
    """When something last happened."""
    preview: str
    """The beginning of what was said first."""
    has_system_prompt: bool
    """Whether it has instructions of its own."""
    has_model_config: bool
    """Whether an agent or a model is configured."""
    status: str
    """The status of its active run, or ``idle``."""
    run_id: str | None
    """Its active run, for ``/v1/runs/{run_id}``."""


class SessionEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """One session."""

    object: Literal["hermes.session"]
    """``hermes.session``."""
    session: Session
    """The session."""


class SessionList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of sessions, the one where something happened last first."""

    object: Literal["list"]
    """``list``."""
    data: list[Session]
    """The sessions."""
    limit: int
    """How many there may be in a page."""
    offset: int
    """How many came before."""
    has_more: bool
    """Whether there are more."""


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """A session that was deleted."""

    object: Literal["hermes.session.deleted"]
    """``hermes.session.deleted``."""
    id: str
    """Its id."""
    deleted: bool
    """True."""


class FunctionCalled(msgspec.Struct, frozen=True, kw_only=True):
    """What a call calls."""

    name: str
    """The tool."""
    arguments: str
    """The arguments as JSON text."""


class SessionCalls(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call in a message."""

    id: str
    """Its id."""
    type: Literal["function"]
    """``function``."""
    function: FunctionCalled
    """What is called."""


class SessionMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A message of a session, in the shape of chat completions."""

    id: int
    """The number of the event that it began with; grows within the session."""
    session_id: str
    """The session."""
    run_id: str
    """The run it belongs to."""
    role: Literal["user", "assistant", "tool"]
    """Who says it."""
    content: Any
    """Text, or parts where there are images."""
    timestamp: float
    """Unix seconds."""
    tool_call_id: str | None = None
    """For ``tool``: the call that this came of."""
    tool_calls: list[SessionCalls] | None = None
    """For ``assistant``: the calls that it asked for."""
    tool_name: str | None = None
    """For ``tool``: the tool."""
    tool_status: str | None = None
    """For ``tool``: ``ok``, ``error``, ``denied``, ``cancelled`` or ``interrupted``."""
    finish_reason: str | None = None
    """For ``assistant``: ``stop``, ``tool_calls``, ``length`` or ``refused``."""
    reasoning: str | None = None
    """For ``assistant``: what it thought."""
    reasoning_content: str | None = None
    """The same, under its other name."""
    partial: bool | None = None
    """True: the run was stopped while it was being said."""
    steered: bool | None = None
    """True: said to a run that was already going."""


class MessageList(msgspec.Struct, frozen=True, kw_only=True):
    """The messages of a session, oldest first."""

    object: Literal["list"]
    """``list``."""
    session_id: str
    """The session."""
    data: list[SessionMessage]
    """The messages."""


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered."""

    role: Literal["assistant"]
    """``assistant``."""
    content: str
    """The answer."""


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a message in a session."""

    object: Literal["hermes.session.chat.completion"]
    """``hermes.session.chat.completion``."""
    session_id: str
    """The session."""
    run_id: str
    """The run that answered."""
    message: ChatMessage
    """The answer."""
    usage: Usage
    """Tokens of the run."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a session beside its log."""

    parent_session_id: str | None = None
    """The session that it was forked from."""
    ended_at: float | None = None
    """When somebody said that it ended."""
    end_reason: str | None = None
    """Why, as they said."""
