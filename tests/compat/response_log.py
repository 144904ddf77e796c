"""A log to project responses from, written as a run is."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hermes_ws.compat.responses import ResponseProjection
from hermes_ws.compat.responses_types import Response, StreamEvent
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import (
    Annotations,
    AnswerableBy,
    By,
    Choice,
    ErrorInfo,
    InteractionTool,
    OnExpire,
    Question,
    TextPart,
    Usage,
)

ME = By(principal="me")
RUN = "run_0123"
OPENING = Response(id="resp_1", created_at=1_700_000_000, model="demo", status="in_progress")
READS = Annotations(read_only=True, idempotent=True, destructive=False)


class Log:
    """Events of one run, numbered from 1; each method appends some."""

    def __init__(self, run_id: str = RUN) -> None:
        self.run_id = run_id
        self.events: list[ev.Event] = []

    def add(self, event_class: Any, **fields: Any) -> Log:
        seq = len(self.events) + 1
        self.events.append(event_class(seq=seq, ts=1_700_000_000_000 + seq * 1000, run_id=self.run_id, **fields))
        return self

    @property
    def head(self) -> int:
        return len(self.events)

    def started(self) -> Log:
        return self.add(ev.RunStarted, input="hi", agent_name="demo", model="demo", attempt=1, by=ME)

    def queued(self) -> Log:
        return self.add(ev.RunQueued, input="hi", position=1, by=ME)

    def step(self, number: int = 1) -> Log:
        return self.add(ev.StepStarted, step=number)

    def stepped(self, number: int = 1, read: int = 3, written: int = 2) -> Log:
        usage = Usage(input_tokens=read, output_tokens=written, total_tokens=read + written, reasoning_tokens=1)
        return self.add(ev.StepCompleted, step=number, usage=usage, duration_ms=1)

    def begins(self, item: str = "msg_a") -> Log:
        return self.add(ev.MessageStarted, item_id=item, step=1)

    def says(self, *deltas: str, item: str = "msg_a") -> Log:
        for delta in deltas:
            self.add(ev.MessageDelta, item_id=item, delta=delta)
        return self

    def said(self, text: str, item: str = "msg_a", *, partial: bool | None = None) -> Log:
        return self.add(ev.MessageCompleted, item_id=item, text=text, content=[TextPart(text=text)], partial=partial)

    def thinks(self, *deltas: str, item: str = "rsn_a") -> Log:
        for delta in deltas:
            self.add(ev.ReasoningDelta, item_id=item, delta=delta)
        return self

    def thought(self, text: str, item: str = "rsn_a") -> Log:
        return self.add(ev.ReasoningAvailable, item_id=item, text=text)

    def add_discarded(self, item: str) -> Log:
        return self.add(ev.ItemDiscarded, item_id=item, reason="retried")

    def calls(self, call: str, name: str = "read_file", source: str = "builtin", **arguments: Any) -> Log:
        return self.add(
            ev.ToolStarted,
            call_id=call,
            step=1,
            name=name,
            source=source,
            title=name,
            arguments=arguments,
            annotations=READS,
        )

    def called(self, call: str, output: str = "fine", status: str = "ok", name: str = "read_file", **more: Any) -> Log:
        fields = {"name": name, "status": status, "output": output, "truncated": False, "duration_ms": 1}
        return self.add(ev.ToolCompleted, call_id=call, **fields, **more)

    def asks(self, interaction: str, kind: str = "approval", call: str | None = None, **more: Any) -> Log:
        return self.add(
            ev.InteractionRequested,
            interaction_id=interaction,
            kind=kind,
            call_id=call,
            title="Allow it?",
            message="rm -r /",
            editable=False,
            requested_at=1,
            expires_at=2,
            on_expire=OnExpire(cancel=True),
            answerable_by=AnswerableBy(roles=["driver"]),
            **more,
        )

    def asks_leave(self, interaction: str, call: str, source: str = "builtin", **arguments: Any) -> Log:
        tool = InteractionTool(call_id=call, name="terminal", source=source, arguments=arguments, risk="high")
        return self.asks(interaction, "approval", call, tool=tool)

    def asks_question(self, interaction: str, call: str | None = None, choices: list[str] | None = None) -> Log:
        offered = [Choice(id=c, label=c) for c in choices or []] or None
        kind: Literal["single", "text"] = "single" if offered else "text"
        question = Question(id="answer", prompt="Which?", type=kind, options=offered, required=True, allow_other=False)
        return self.asks(interaction, "clarify", call, questions=[question])

    def answered(self, interaction: str, outcome: str = "answered") -> Log:
        return self.add(ev.InteractionResolved, interaction_id=interaction, outcome=outcome, by=ME, via="http")

    def completed(self, stop_reason: str = "end") -> Log:
        fields = {"output": "", "stop_reason": stop_reason, "usage": Usage.zero(), "duration_ms": 1}
        return self.add(ev.RunCompleted, **fields)

    def failed(self, code: str = "model_unreachable") -> Log:
        error = ErrorInfo(code=code, message="it broke", retryable=True)
        return self.add(ev.RunFailed, error=error, usage=Usage.zero())

    def cancelled(self) -> Log:
        return self.add(ev.RunCancelled, reason="stop", by=ME, usage=Usage.zero())

    # -- what comes of it ------------------------------------------------------------------------------

    def project(self, after: int = 0, **more: Any) -> Projected:
        """All of it, projected."""
        return Projected(ResponseProjection(OPENING, self.run_id, after, **more), self)


class Projected:
    """A projection that was fed a whole log, and the stream that it made, as JSON has it."""

    def __init__(self, projection: ResponseProjection, log: Log) -> None:
        self.projection = projection
        made: list[StreamEvent] = [event for given in log.events for event in projection.feed(given)]
        self.stream: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(made))
        self.response: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(projection.response))

    @property
    def types(self) -> list[str]:
        return [event["type"].removeprefix("response.") for event in self.stream]

    @property
    def output(self) -> list[dict[str, Any]]:
        output: list[dict[str, Any]] = self.response["output"]
        return output

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.stream if event["type"] == f"response.{kind}"]
