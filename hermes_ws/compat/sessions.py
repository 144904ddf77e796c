"""A conversation's events as a session of hermes-agent's: its messages, and its line in a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec

from hermes_ws.compat.fields import items
from hermes_ws.compat.sessions_types import (
    FunctionCalled,
    Session,
    SessionCalls,
    SessionMessage,
    SessionRecord,
)
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import Config, ContentPart, Input, TextPart, Usage

__all__ = ["SOURCE", "SessionFold", "content_of"]

SOURCE: Final = "api_server"
"""Where every session comes from."""
_PREVIEW: Final = 60
"""Characters of a session's preview."""
_FINISHED: Final[dict[str | None, str]] = {None: "stop", "length": "length", "refused": "refused"}


def content_of(parts: Input) -> Any:
    """Text, or parts in the shape of chat completions where there are images."""
    if isinstance(parts, str):
        return parts
    if all(isinstance(part, TextPart) for part in parts):
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return [_part(part) for part in parts]


def _part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    url = part.url if part.blob is None else f"/api/blobs/{part.blob}"
    detail = {} if part.detail is None else {"detail": part.detail}
    return {"type": "image_url", "image_url": {"url": url, **detail}}


class SessionFold:
    """What the events of a conversation add up to. Deltas may be left out."""

    def __init__(self, session_id: str, model: str | None = None) -> None:
        """``model``: what a session is answered by as long as nothing else is said of it."""
        self.messages: list[SessionMessage] = []
        """Oldest first."""
        self._session_id = session_id
        self._answer: SessionMessage | None = None
        self._thoughts: dict[str, str] = {}
        self._config = Config()
        self._model: str | None = None
        self._default = model
        self._usage = Usage.zero()
        self._calls = 0
        self._steps = 0
        self._began: float | None = None
        self._last = 0.0

    def feed(self, event: ev.Event | ev.UnknownEvent) -> None:
        """Take one event in."""
        if isinstance(event, ev.UnknownEvent):
            return
        self._last = max(self._last, event.ts / 1000)
        self._began = self._last if self._began is None else self._began
        fold = self._FOLDS.get(type(event))
        if fold is not None:
            fold(self, event)

    def of_run(self, run_id: str) -> list[SessionMessage]:
        """What the agent said and the tools answered in a run."""
        return [message for message in self.messages if message.run_id == run_id and message.role != "user"]

    # -- messages --------------------------------------------------------------------------------------

    def _add(self, e: ev.RunEvent, **fields: Any) -> SessionMessage:
        message = SessionMessage(
            id=e.seq, session_id=self._session_id, run_id=e.run_id, timestamp=e.ts / 1000, **fields
        )
        self.messages.append(message)
        return message

    def _started(self, e: ev.RunStarted) -> None:
        self._model = e.model or e.agent_name
        if e.retry_of is None:
            self._add(e, role="user", content=content_of(e.input))

    def _steered(self, e: ev.RunSteered) -> None:
        if e.disposition == "applied":
            self._add(e, role="user", content=e.text, steered=True)

    def _step_started(self, e: ev.StepStarted) -> None:
        self._answer, self._thoughts = None, {}

    def _answering(self, e: ev.RunEvent) -> SessionMessage:
        """The assistant's message of this step."""
        if self._answer is None:
            self._answer = self._add(e, role="assistant", content="")
        return self._answer

    def _said(self, e: ev.MessageCompleted) -> None:
        answer = self._answering(e)
        answer.content, answer.partial = answer.content + e.text, e.partial

    def _thought(self, e: ev.ReasoningAvailable) -> None:
        self._thoughts[e.item_id] = e.text
        self._think(self._answering(e))

    def _discarded(self, e: ev.ItemDiscarded) -> None:
        if self._thoughts.pop(e.item_id, None) is not None and self._answer is not None:
            self._think(self._answer)

    def _think(self, answer: SessionMessage) -> None:
        answer.reasoning = answer.reasoning_content = "\n\n".join(self._thoughts.values()) or None

    def _called(self, e: ev.ToolStarted) -> None:
        self._calls += 1
        answer = self._answering(e)
        arguments = msgspec.json.encode(e.arguments).decode()
        called = SessionCalls(id=e.call_id, type="function", function=FunctionCalled(name=e.name, arguments=arguments))
        answer.tool_calls = [*(answer.tool_calls or []), called]
        answer.finish_reason = "tool_calls"

    def _returned(self, e: ev.ToolCompleted) -> None:
        content = content_of(e.content) if e.content else e.output
        self._add(e, role="tool", content=content, tool_call_id=e.call_id, tool_name=e.name, tool_status=e.status)

    def _step_completed(self, e: ev.StepCompleted) -> None:
        self._steps += 1
        self._usage += e.usage
        if self._answer is not None and self._answer.finish_reason is None:
            self._answer.finish_reason = _FINISHED[e.stop_reason]

    def _configured(self, e: ev.ConversationConfigured) -> None:
        self._config = e.config

    _FOLDS: ClassVar[dict[type[ev.EventBase], Callable[[Any, Any], None]]] = {
        ev.ConversationConfigured: _configured,
        ev.RunStarted: _started,
        ev.RunSteered: _steered,
        ev.StepStarted: _step_started,
        ev.StepCompleted: _step_completed,
        ev.MessageCompleted: _said,
        ev.ReasoningAvailable: _thought,
        ev.ItemDiscarded: _discarded,
        ev.ToolStarted: _called,
        ev.ToolCompleted: _returned,
    }

    # -- the session -----------------------------------------------------------------------------------

    def session(self, record: SessionRecord, *, status: str, run_id: str | None) -> Session:
        """The session as it is now. ``status`` and ``run_id`` are the active run's."""
        usage, config = self._usage, self._config
        return Session(
            id=self._session_id,
            source=SOURCE,
            user_id=None,
            model=config.model or self._model or config.agent or self._default,
            title=config.title,
            started_at=self._began or 0.0,
            ended_at=record.ended_at,
            end_reason=record.end_reason,
            message_count=len(self.messages),
            tool_call_count=self._calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_input_tokens or 0,
            cache_write_tokens=0,
            reasoning_tokens=usage.reasoning_tokens or 0,
            estimated_cost_usd=None,
            actual_cost_usd=None,
            api_call_count=self._steps,
            parent_session_id=record.parent_session_id,
            last_active=self._last,
            preview=self._preview(),
            has_system_prompt=bool(config.instructions),
            has_model_config=bool(config.agent or config.model),
            status=status,
            run_id=run_id,
        )

    def _preview(self) -> str:
        first = next((message for message in self.messages if message.role == "user"), None)
        if first is None:
            return ""
        parts = [{"text": first.content}] if isinstance(first.content, str) else items(first.content, "content")
        line = " ".join(" ".join(part.get("text", "") for part in parts).split())
        return line if len(line) <= _PREVIEW else line[:_PREVIEW] + "..."
