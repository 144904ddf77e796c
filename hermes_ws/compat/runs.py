"""A run's events as hermes-agent's run events, and what they add up to as its run object.

Theory of operation. :class:`RunEvents` is fed the events of one run in order and returns frames; what is resumed in the
middle is fed what came before as well, without looking at what it returns. Frames of one event carry the event's number
once, on the last of them, so that a reader who comes back after any number misses nothing and gets nothing twice.

Deltas are folded away some time after a run's end. A message that began after the reader's cursor and whose deltas are
not there any more is one delta then: whoever adds deltas up gets the same text at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import msgspec

from hermes_ws.compat import runs_types as frames
from hermes_ws.compat.runs_types import RunFrame, RunObject, RunState
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import Choice, Question, Usage
from hermes_ws.readable import tool_name

__all__ = ["CHOICES", "RunEvents", "RunStatus", "answer_type", "preview_of", "sse"]

CHOICES: Final[dict[str, str]] = {"once": "once", "conversation": "session", "always": "always", "deny": "deny"}
"""Our options of an approval as choices. ``run`` has no name there."""
_PREVIEW: Final = 200
"""Characters of a call's preview."""
_MAIN: Final = ("command", "path", "query", "pattern", "url", "question", "goal", "text", "name")
"""Arguments that say what a call is about, the most telling first."""


def sse(seq: int | None, given: Iterable[RunFrame]) -> bytes:
    """What one event is on the wire: ``data:`` lines as its clients know them, and an ``id:`` on the last one. None: it
    is not in the log."""
    lines = [b"data: " + msgspec.json.encode(frame) + b"\n\n" for frame in given]
    if lines and seq is not None:
        lines[-1] = b"id: %d\n" % seq + lines[-1]
    return b"".join(lines)


def preview_of(arguments: dict[str, Any]) -> str:
    """What a call is about, in one line."""
    main = next((arguments[name] for name in _MAIN if isinstance(arguments.get(name), str)), None)
    if main is None:
        main = next((value for value in arguments.values() if isinstance(value, str)), None)
    text = msgspec.json.encode(arguments).decode() if main is None and arguments else main or ""
    line = " ".join(text.split())
    return line if len(line) <= _PREVIEW else line[: _PREVIEW - 1] + "…"


@dataclass(slots=True)
class _Message:
    """A message that is being said: what its deltas told of it."""

    told: str = ""


class RunEvents:
    """The projection. See the top of the module."""

    def __init__(self, run_id: str, session_id: str) -> None:
        self._run_id = run_id
        self._session_id = session_id
        self._messages: dict[str, _Message] = {}
        self._asked: dict[str, ev.InteractionRequested] = {}
        self._returned: list[str] = []
        self._steers: dict[str, str] = {}
        self.done = False
        """Whether the run is over."""

    def feed(self, event: ev.Event | ev.UnknownEvent) -> list[RunFrame]:
        """What this event is to such a client; nothing for events of other runs."""
        if not isinstance(event, ev.RunEvent) or event.run_id != self._run_id:
            return []
        project = self._PROJECTIONS.get(type(event))
        return [] if project is None else project(self, event)

    def skip(self, event: ev.Event | ev.UnknownEvent) -> None:
        """An event that the reader has seen. The rest of a message that was begun in it is told as it comes."""
        self.feed(event)
        self._messages.clear()

    def _head(self, event: ev.RunEvent) -> dict[str, Any]:
        return {"run_id": event.run_id, "timestamp": event.ts / 1000}

    # -- the run ---------------------------------------------------------------------------------------

    def _queued(self, e: ev.RunQueued) -> list[RunFrame]:
        return [frames.RunQueuedFrame(**self._head(e), position=e.position)]

    def _started(self, e: ev.RunStarted) -> list[RunFrame]:
        started = frames.RunStartedFrame(
            **self._head(e), session_id=self._session_id, agent=e.agent_name, model=e.model, input=e.input
        )
        return [started]

    def _recovered(self, e: ev.RunRecovered) -> list[RunFrame]:
        return [frames.RunRecoveredFrame(**self._head(e), attempt=e.attempt, reason=e.reason)]

    def _stopping(self, e: ev.RunStopping) -> list[RunFrame]:
        return [frames.RunStoppingFrame(**self._head(e))]

    def _steered(self, e: ev.RunSteered) -> list[RunFrame]:
        if e.disposition == "pending":
            return [frames.RunSteeredFrame(**self._head(e), accepted=True, steer_id=e.steer_id, text=e.text)]
        if e.disposition == "returned":
            self._returned.append(e.text)
        resolved = frames.SteerResolved(
            **self._head(e), steer_id=e.steer_id, disposition=e.disposition, new_run_id=e.new_run_id
        )
        return [resolved]

    def _completed(self, e: ev.RunCompleted) -> list[RunFrame]:
        completed = frames.RunCompletedFrame(
            **self._end(e),
            output=e.output,
            usage=e.usage,
            completed=True,
            stop_reason=e.stop_reason,
            duration=e.duration_ms / 1000,
        )
        return [completed]

    def _failed(self, e: ev.RunFailed) -> list[RunFrame]:
        failed = frames.RunFailedFrame(
            **self._end(e),
            error=e.error.message,
            error_code=e.error.code,
            retryable=e.error.retryable,
            usage=e.usage,
            completed=False,
        )
        return [failed]

    def _cancelled(self, e: ev.RunCancelled) -> list[RunFrame]:
        return [frames.RunCancelledFrame(**self._end(e), usage=e.usage, completed=False, interrupted=True)]

    def deleted(self, at: float) -> list[RunFrame]:
        """The end of a run whose conversation was deleted under it, then: no event tells of that."""
        self.done = True
        cancelled = frames.RunCancelledFrame(
            run_id=self._run_id,
            timestamp=at,
            usage=Usage.zero(),
            completed=False,
            interrupted=True,
            reason="deleted",
        )
        return [cancelled]

    def _end(self, event: ev.RunEvent) -> dict[str, Any]:
        self.done = True
        return {**self._head(event), "pending_steer": "\n".join(self._returned) or None}

    # -- what is said and thought ----------------------------------------------------------------------

    def _message_started(self, e: ev.MessageStarted) -> list[RunFrame]:
        self._messages[e.item_id] = _Message()
        return []

    def _message_delta(self, e: ev.MessageDelta) -> list[RunFrame]:
        if e.item_id in self._messages:
            self._messages[e.item_id].told += e.delta
        return [frames.MessageDeltaFrame(**self._head(e), delta=e.delta, message_id=e.item_id)]

    def _message_completed(self, e: ev.MessageCompleted) -> list[RunFrame]:
        head, message, found = self._head(e), self._messages.pop(e.item_id, None), list[RunFrame]()
        if message is not None and e.text != message.told and e.text.startswith(message.told):
            rest = e.text.removeprefix(message.told)
            found.append(frames.MessageDeltaFrame(**head, delta=rest, message_id=e.item_id))
        found.append(frames.MessageAvailable(**head, message_id=e.item_id, text=e.text, partial=e.partial))
        return found

    def _discarded(self, e: ev.ItemDiscarded) -> list[RunFrame]:
        self._messages.pop(e.item_id, None)
        return [frames.MessageDiscarded(**self._head(e), message_id=e.item_id, reason=e.reason)]

    def _reasoning_delta(self, e: ev.ReasoningDelta) -> list[RunFrame]:
        return [frames.ReasoningDeltaFrame(**self._head(e), delta=e.delta, reasoning_id=e.item_id)]

    def _reasoning(self, e: ev.ReasoningAvailable) -> list[RunFrame]:
        return [frames.ReasoningWhole(**self._head(e), text=e.text, reasoning_id=e.item_id)]

    # -- tools -----------------------------------------------------------------------------------------

    def _tool_started(self, e: ev.ToolStarted) -> list[RunFrame]:
        started = frames.ToolStartedFrame(
            **self._head(e),
            tool=e.name,
            preview=preview_of(e.arguments),
            tool_call_id=e.call_id,
            args=e.arguments,
            source=e.source,
        )
        return [started]

    def _tool_output(self, e: ev.ToolOutput) -> list[RunFrame]:
        output = frames.ToolOutputFrame(
            **self._head(e),
            tool_call_id=e.call_id,
            stream=e.stream,
            chunk=e.chunk,
            progress=e.progress,
            total=e.total,
            message=e.message,
        )
        return [output]

    def _tool_completed(self, e: ev.ToolCompleted) -> list[RunFrame]:
        completed = frames.ToolCompletedFrame(
            **self._head(e),
            tool=e.name,
            duration=round(e.duration_ms / 1000, 3),
            error=e.status != "ok",
            tool_call_id=e.call_id,
            status=e.status,
            result=e.output,
            truncated=e.truncated,
        )
        return [completed]

    # -- questions -------------------------------------------------------------------------------------

    def _requested(self, e: ev.InteractionRequested) -> list[RunFrame]:
        if e.owner is not None:  # nobody else can answer
            return []
        self._asked[e.interaction_id] = e
        match e.kind:
            case "approval":
                return [self._approval(e)]
            case "clarify":
                return [self._clarify(e)]
            case "client_tool":
                return [self._function(e)]
            case "form":
                return [self._form(e)]

    def _approval(self, e: ev.InteractionRequested) -> RunFrame:
        assert e.tool is not None
        choices = [CHOICES[option.id] for option in e.options or [] if option.id in CHOICES]
        rules = [option.rule.tool for option in e.options or [] if option.rule is not None]
        pattern = rules[0] if rules else tool_name(e.tool.source, e.tool.name)
        command = e.tool.arguments.get("command")
        called = f"{e.tool.name} {msgspec.json.encode(e.tool.arguments).decode()}"
        return frames.ApprovalRequest(
            **self._head(e),
            request_id=e.interaction_id,
            command=command if isinstance(command, str) else called,
            pattern_key=pattern,
            pattern_keys=[pattern],
            description=e.message or e.title,
            allow_permanent="always" in choices,
            choices=choices,
            tool=e.tool.name,
            tool_call_id=e.tool.call_id,
            args=e.tool.arguments,
            risk=e.tool.risk,
            expires_at=e.expires_at / 1000,
        )

    def _clarify(self, e: ev.InteractionRequested) -> RunFrame:
        [question] = e.questions or []
        offered = _offered(question)
        return frames.ClarifyRequest(
            **self._head(e),
            request_id=e.interaction_id,
            clarify_id=e.interaction_id,
            question=question.prompt,
            choices=[choice.label for choice in offered],
            allow_other=question.allow_other or not offered,
            multi_select=question.type == "multi",
            secret=question.type == "secret",
            prompt=frames.ClarifyPrompt(
                version=1, type=answer_type(question), question=question.prompt, choices=offered
            ),
            expires_at=e.expires_at / 1000,
            tool_call_id=e.call_id,
        )

    def _form(self, e: ev.InteractionRequested) -> RunFrame:
        return frames.FormRequest(
            **self._head(e),
            request_id=e.interaction_id,
            title=e.title,
            description=e.message,
            choices=[option.id for option in e.options or []],
            expires_at=e.expires_at / 1000,
            schema=e.schema,
            url=e.url,
            tool_call_id=e.call_id,
        )

    def _function(self, e: ev.InteractionRequested) -> RunFrame:
        assert e.tool is not None
        return frames.FunctionRequest(
            **self._head(e),
            request_id=e.interaction_id,
            tool=e.tool.name,
            tool_call_id=e.tool.call_id,
            args=e.tool.arguments,
            expires_at=e.expires_at / 1000,
        )

    def _resolved(self, e: ev.InteractionResolved) -> list[RunFrame]:
        asked = self._asked.pop(e.interaction_id, None)
        if asked is None:
            return []
        head: dict[str, Any] = {**self._head(e), "request_id": e.interaction_id}
        if asked.kind == "approval":
            return [_approved(e, head)]
        if asked.kind == "clarify":
            return [_answered(asked, e, {**head, "clarify_id": e.interaction_id})]
        settled: RunFrame = frames.FormResponded(**head, outcome=e.outcome, choice=e.option)
        return [settled]

    _PROJECTIONS: ClassVar[dict[type[ev.RunEvent], Callable[[Any, Any], list[RunFrame]]]] = {
        ev.RunQueued: _queued,
        ev.RunStarted: _started,
        ev.RunRecovered: _recovered,
        ev.RunStopping: _stopping,
        ev.RunSteered: _steered,
        ev.RunCompleted: _completed,
        ev.RunFailed: _failed,
        ev.RunCancelled: _cancelled,
        ev.MessageStarted: _message_started,
        ev.MessageDelta: _message_delta,
        ev.MessageCompleted: _message_completed,
        ev.ItemDiscarded: _discarded,
        ev.ReasoningDelta: _reasoning_delta,
        ev.ReasoningAvailable: _reasoning,
        ev.ToolStarted: _tool_started,
        ev.ToolOutput: _tool_output,
        ev.ToolCompleted: _tool_completed,
        ev.InteractionRequested: _requested,
        ev.InteractionResolved: _resolved,
    }


def _approved(e: ev.InteractionResolved, head: dict[str, Any]) -> RunFrame:
    if e.outcome == "cancelled":
        return frames.ApprovalCancelled(**head)
    choice = "deny" if e.option is None else CHOICES.get(e.option, e.option)
    return frames.ApprovalResponded(**head, choice=choice, resolved=1, outcome=e.outcome)


def _answered(asked: ev.InteractionRequested, e: ev.InteractionResolved, head: dict[str, Any]) -> RunFrame:
    if e.outcome != "answered":
        return frames.ClarifyCancelled(**head, reason=e.outcome)
    [question] = asked.questions or []
    answer = None if question.type == "secret" else (e.answers or {}).get(question.id)
    return frames.ClarifyResponded(**head, answer=answer, response_type=answer_type(question))


def answer_type(question: Question) -> Literal["choice", "choices", "text"]:
    """What an answer to the question is."""
    if question.type == "multi":
        return "choices"
    return "choice" if _offered(question) else "text"


def _offered(question: Question) -> list[Choice]:
    """What may be answered; yes and no where those are the answers."""
    if question.type == "boolean":
        return [Choice(id="true", label="Yes"), Choice(id="false", label="No")]
    return list(question.options or [])


_STATES: Final[dict[type[RunFrame], RunState]] = {
    frames.RunQueuedFrame: "queued",
    frames.RunStartedFrame: "running",
    frames.RunStoppingFrame: "stopping",
    frames.RunCompletedFrame: "completed",
    frames.RunFailedFrame: "failed",
    frames.RunCancelledFrame: "cancelled",
}
"""Events that say by themselves where the run stands."""
_REQUESTS: Final = (frames.ApprovalRequest, frames.ClarifyRequest, frames.FormRequest, frames.FunctionRequest)
_SETTLED: Final = (frames.ApprovalResponded, frames.ApprovalCancelled, frames.ClarifyResponded, frames.ClarifyCancelled)
_OUTCOME: Final = ("output", "usage", "stop_reason", "error", "error_code", "retryable", "pending_steer")
"""What the end of a run and its object have in common."""


class RunStatus:
    """What a run's events add up to. Deltas may be left out."""

    def __init__(self, run_id: str, session_id: str, model: str, updated_at: int = 0) -> None:
        """``model`` until the run's own events tell; ``updated_at`` Unix ms, for a run of which there are none."""
        self._events = RunEvents(run_id, session_id)
        self._open: dict[str, RunFrame] = {}
        self._usage: Usage | None = None
        at = updated_at / 1000
        self.run = RunObject(
            object="hermes.run",
            run_id=run_id,
            status="queued",
            created_at=at,
            updated_at=at,
            session_id=session_id,
            model=model,
        )

    def feed(self, event: ev.Event | ev.UnknownEvent) -> None:
        """Take one event of the conversation in."""
        if isinstance(event, ev.StepCompleted) and event.run_id == self.run.run_id:
            self._usage = event.usage if self._usage is None else self._usage + event.usage
            self.run.usage = self._usage
        for frame in self._events.feed(event):
            self._take(event.seq, frame)

    def _take(self, seq: int, frame: RunFrame) -> None:
        run = self.run
        if run.last_event is None:
            run.created_at = frame.timestamp
        run.updated_at = frame.timestamp
        run.last_event, run.last_event_id = str(frame.__struct_config__.tag), seq
        run.status = _STATES.get(type(frame), run.status)
        if isinstance(frame, frames.RunStartedFrame):
            run.model, run.attempt = frame.model or frame.agent, 1
        elif isinstance(frame, frames.RunRecoveredFrame):
            run.attempt = frame.attempt
        elif isinstance(frame, _REQUESTS):
            self._open[frame.request_id] = frame
        elif isinstance(frame, (*_SETTLED, frames.FormResponded)):
            self._open.pop(frame.request_id, None)
        if run.status in frames.TERMINAL:
            self._finish(frame)
        elif run.status not in ("queued", "stopping"):
            run.status = self._waiting()
        self._show_open()

    def _finish(self, frame: RunFrame) -> None:
        for name in _OUTCOME:
            if getattr(frame, name, None) is not None:
                setattr(self.run, name, getattr(frame, name))
        self._open.clear()

    def _waiting(self) -> RunState:
        kinds = [type(frame) for frame in self._open.values()]
        if frames.ApprovalRequest in kinds:
            return "waiting_for_approval"
        if frames.ClarifyRequest in kinds or frames.FormRequest in kinds:
            return "waiting_for_clarification"
        return "waiting_for_tool_output" if kinds else "running"

    def _show_open(self) -> None:
        run, waiting = self.run, list(self._open.values())
        run.approval = next((f for f in waiting if isinstance(f, frames.ApprovalRequest)), None)
        run.clarification = next((f for f in waiting if isinstance(f, frames.ClarifyRequest)), None)
        run.requests, run.awaiting_user = waiting or None, True if waiting else None
