"""A run's events, made by hand: numbered and dated as a log has them."""

from __future__ import annotations

import json
from typing import Any

from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import (
    Annotations,
    AnswerableBy,
    By,
    Choice,
    ErrorInfo,
    InteractionTool,
    OnExpire,
    Option,
    Question,
    Rule,
    TextPart,
    Usage,
)

__all__ = ["ALICE", "RUN", "USAGE", "Log", "parsed"]

RUN = "run_1"
ALICE = By(principal="alice")
USAGE = Usage(input_tokens=3, output_tokens=4, total_tokens=7)
_NOTHING_SAID = Annotations(read_only=False, idempotent=False, destructive=True)


class Log:
    """Appends events of one run; each a second after the one before."""

    def __init__(self, first: int = 5) -> None:
        self.events: list[Any] = []
        self._seq = first - 1

    def add(self, event: type[ev.EventBase], **fields: Any) -> Any:
        self._seq += 1
        if issubclass(event, ev.RunEvent):
            fields = {"run_id": RUN, **fields}
        made = event(seq=self._seq, ts=1_700_000_000_000 + 1000 * self._seq, **fields)
        self.events.append(made)
        return made

    def started(self, said: Any = "hi", **fields: Any) -> Log:
        given = {"agent_name": "demo", "model": "demo-1", "attempt": 1, "by": ALICE, **fields}
        self.add(ev.RunStarted, input=said, **given)
        return self

    def step(self, number: int = 1) -> Log:
        self.add(ev.StepStarted, step=number)
        return self

    def said(self, text: str, *pieces: str, item: str = "msg_1", step: int = 1) -> Log:
        self.add(ev.MessageStarted, item_id=item, step=step)
        for piece in pieces:
            self.add(ev.MessageDelta, item_id=item, delta=piece)
        self.add(ev.MessageCompleted, item_id=item, text=text, content=[TextPart(text=text)])
        return self

    def thought(self, text: str, item: str = "rsn_1") -> Log:
        self.add(ev.ReasoningDelta, item_id=item, delta=text)
        self.add(ev.ReasoningAvailable, item_id=item, text=text)
        return self

    def called(self, call_id: str = "call_1", name: str = "terminal", **arguments: Any) -> Log:
        self.add(
            ev.ToolStarted,
            call_id=call_id,
            step=1,
            name=name,
            source="builtin",
            title=name,
            arguments=arguments,
            annotations=_NOTHING_SAID,
        )
        return self

    def returned(self, output: str, call_id: str = "call_1", name: str = "terminal", status: Any = "ok") -> Log:
        self.add(
            ev.ToolCompleted,
            call_id=call_id,
            name=name,
            status=status,
            output=output,
            truncated=False,
            duration_ms=1234,
        )
        return self

    def stepped(self, number: int = 1, **fields: Any) -> Log:
        self.add(ev.StepCompleted, step=number, usage=USAGE, duration_ms=10, **fields)
        return self

    def completed(self, output: str, **fields: Any) -> Log:
        given = {"stop_reason": "end", "usage": USAGE, "duration_ms": 2500, **fields}
        self.add(ev.RunCompleted, output=output, **given)
        return self

    def failed(self, code: str = "model_auth") -> Log:
        error = ErrorInfo(code=code, message="the endpoint refuses the key", retryable=False)
        self.add(ev.RunFailed, error=error, usage=USAGE)
        return self

    def cancelled(self) -> Log:
        self.add(ev.RunCancelled, reason="stop", by=ALICE, usage=USAGE)
        return self

    def asks_leave(self, request_id: str = "int_1", *, always: bool = True, **arguments: Any) -> Log:
        rule = Rule(tool="builtin:terminal", match=arguments or {"command": "ls"})
        options = [
            Option(id="once", label="Once", kind="allow", scope="once"),
            Option(id="run", label="This run", kind="allow", scope="run", rule=rule),
            Option(id="conversation", label="Here", kind="allow", scope="conversation", rule=rule),
        ]
        if always:
            options.append(Option(id="always", label="Always", kind="allow", scope="always", rule=rule))
        options.append(Option(id="deny", label="Deny", kind="deny"))
        tool = InteractionTool(
            call_id="call_1", name="terminal", source="builtin", arguments=arguments or {"command": "ls"}, risk="high"
        )
        return self._asks(request_id, kind="approval", tool=tool, options=options)

    def asks_function(self, request_id: str = "int_1") -> Log:
        tool = InteractionTool(
            call_id="call_1", name="weather", source="client", arguments={"city": "Bern"}, risk="low"
        )
        return self._asks(request_id, kind="client_tool", tool=tool)

    def asks_form(self, request_id: str = "int_1") -> Log:
        return self._asks(request_id, kind="form", schema={"type": "object"})

    def asks(self, *choices: str, kind: Any = None, request_id: str = "int_1", allow_other: bool = False) -> Log:
        question = Question(
            id="q",
            prompt="Which?",
            type=kind or ("single" if choices else "text"),
            options=[Choice(id=choice.lower(), label=choice) for choice in choices] or None,
            required=True,
            allow_other=allow_other,
        )
        return self._asks(request_id, kind="clarify", questions=[question])

    def _asks(self, request_id: str, **fields: Any) -> Log:
        self.add(
            ev.InteractionRequested,
            interaction_id=request_id,
            call_id="call_1",
            title="A question",
            message="May it?",
            editable=False,
            requested_at=1_700_000_000_000,
            expires_at=1_700_000_060_000,
            on_expire=OnExpire(cancel=True),
            answerable_by=AnswerableBy(roles=["driver"]),
            **fields,
        )
        return self

    def settled(self, request_id: str = "int_1", outcome: Any = "answered", **fields: Any) -> Log:
        given = {"by": ALICE, "via": "http", **fields}
        self.add(ev.InteractionResolved, interaction_id=request_id, outcome=outcome, **given)
        return self


def parsed(stream: bytes) -> list[tuple[dict[str, str], Any]]:
    """Server-sent events: the fields beside ``data``, and what is in it."""
    found: list[tuple[dict[str, str], Any]] = []
    for block in stream.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((fields, json.loads(fields.pop("data"))))
    return found
