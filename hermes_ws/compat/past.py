"""History that a client brings along: neutral between its format and the log's.

A conversation that goes on from such a history has it in its log as runs of its own, so that agents, snapshots and
people at the socket see it like any other. Calls in it were made elsewhere: their source is ``client``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import Annotations, By, ContentPart, Input, TextPart, Usage

__all__ = ["Answered", "Imported", "Past", "PastCall", "Said", "events_of", "past_of"]

_ELSEWHERE: Final = Annotations(read_only=False, idempotent=False, destructive=False)


@dataclass(frozen=True, slots=True)
class Said:
    """What the user said."""

    parts: Input


@dataclass(frozen=True, slots=True)
class PastCall:
    """A tool call of the assistant's, and what it came to. ``output`` None: nobody has told."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    output: str | None
    is_error: bool = False
    content: list[ContentPart] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer of the model's, with the calls that it asked for."""

    text: str
    reasoning: str = ""
    calls: list[PastCall] = field(default_factory=list[PastCall])


Past = list[Said | Answered]


class Imported(NamedTuple):
    """The events, and the run that is to go on, if one is."""

    events: list[ev.Event]
    open_run: str | None


class _Importer:
    """Numbers events one after the other."""

    def __init__(
        self, head: int, now: int, by: By, agent: str, model: str, new_id: Callable[[str], str], known: Container[str]
    ) -> None:
        self.events: list[ev.Event] = []
        self._head, self._now, self._by = head, now, by
        self._agent, self._model = agent, model
        self._new_id, self._known = new_id, known
        self._calls: set[str] = set()
        self.run_id: str | None = None
        self._steps = 0
        self._output = ""

    def _emit(self, event_class: Callable[..., ev.Event], **fields: Any) -> None:
        seq = self._head + len(self.events) + 1
        self.events.append(event_class(seq=seq, ts=self._now, **fields))

    def begin(self, parts: Input, run_id: str | None) -> None:
        self.end()
        self.run_id, self._steps, self._output = run_id or self._new_id("run"), 0, ""
        self._emit(
            ev.RunStarted,
            run_id=self.run_id,
            input=parts,
            agent_name=self._agent,
            model=self._model,
            attempt=1,
            by=self._by,
        )

    def end(self) -> None:
        if self.run_id is not None:
            self._emit(
                ev.RunCompleted,
                run_id=self.run_id,
                output=self._output,
                stop_reason="end",
                usage=Usage.zero(),
                duration_ms=0,
            )
        self.run_id = None

    def answer(self, answered: Answered) -> None:
        self._steps += 1
        self._emit(ev.StepStarted, run_id=self.run_id, step=self._steps)
        if answered.reasoning:
            self._emit(ev.ReasoningAvailable, run_id=self.run_id, item_id=self._new_id("rsn"), text=answered.reasoning)
        if answered.text:
            self._say(answered.text)
        calls = [(call, self._call_id(call.call_id)) for call in answered.calls]
        for call, call_id in calls:
            self._ask(call, call_id)
        for call, call_id in calls:
            self._settle(call, call_id)
        self._emit(ev.StepCompleted, run_id=self.run_id, step=self._steps, usage=Usage.zero(), duration_ms=0)

    def _say(self, text: str) -> None:
        item_id, self._output = self._new_id("msg"), text
        self._emit(ev.MessageStarted, run_id=self.run_id, item_id=item_id, step=self._steps)
        self._emit(ev.MessageCompleted, run_id=self.run_id, item_id=item_id, text=text, content=[TextPart(text=text)])

    def _call_id(self, wanted: str) -> str:
        """Its own, unless another call of the conversation has it."""
        call_id = wanted
        if not call_id or call_id in self._calls or call_id in self._known:
            call_id = self._new_id("call")
        self._calls.add(call_id)
        return call_id

    def _ask(self, call: PastCall, call_id: str) -> None:
        self._emit(
            ev.ToolStarted,
            run_id=self.run_id,
            call_id=call_id,
            step=self._steps,
            name=call.name,
            source="client",
            title=call.name,
            arguments=call.arguments,
            annotations=_ELSEWHERE,
        )

    def _settle(self, call: PastCall, call_id: str) -> None:
        if call.output is not None:
            self._emit(ev.ToolExecuting, run_id=self.run_id, call_id=call_id, arguments=call.arguments)
        status = "cancelled" if call.output is None else "error" if call.is_error else "ok"
        self._emit(
            ev.ToolCompleted,
            run_id=self.run_id,
            call_id=call_id,
            name=call.name,
            status=status,
            output=call.output or "",
            truncated=False,
            duration_ms=0,
            content=call.content,
        )


def events_of(
    past: Past,
    *,
    head: int,
    now: int,
    by: By,
    agent: str,
    model: str,
    new_id: Callable[[str], str],
    known: Container[str] = (),
    open_run: str | None = None,
) -> Imported:
    """The history as the events that follow ``head``. Each thing said begins a run, the answers to it are its steps.

    ``known`` are the ids of calls that the conversation has already. ``open_run`` is the id for the last run if that is
    not over: its agent has yet to hear what its last calls came to.
    """
    importer = _Importer(head, now, by, agent, model, new_id, known)
    if past and not isinstance(past[0], Said):
        past = [Said(""), *past]
    last = max((n for n, one in enumerate(past) if isinstance(one, Said)), default=0)
    for number, one in enumerate(past):
        if isinstance(one, Said):
            importer.begin(one.parts, open_run if number == last else None)
        else:
            importer.answer(one)
    if open_run is None:
        importer.end()
    return Imported(importer.events, open_run)


@dataclass(slots=True)
class _Step:
    """A step, as its events tell of it, one after the other."""

    said: dict[str, str] = field(default_factory=dict[str, str])
    thought: dict[str, str] = field(default_factory=dict[str, str])
    calls: dict[str, PastCall] = field(default_factory=dict[str, PastCall])

    def note(self, event: ev.Event | ev.UnknownEvent) -> None:
        match event:
            case ev.MessageCompleted():
                self.said[event.item_id] = event.text
            case ev.ReasoningAvailable():
                self.thought[event.item_id] = event.text
            case ev.ItemDiscarded():
                self.said.pop(event.item_id, None)
                self.thought.pop(event.item_id, None)
            case ev.ToolStarted():
                self.calls[event.call_id] = PastCall(event.call_id, event.name, event.arguments, None)
            case ev.ToolCompleted() if event.call_id in self.calls:
                self.calls[event.call_id] = _settled(self.calls[event.call_id], event)
            case _:
                pass

    def answered(self) -> Answered:
        return Answered("".join(self.said.values()), "\n\n".join(self.thought.values()), list(self.calls.values()))


def past_of(events: Iterable[ev.Event | ev.UnknownEvent]) -> Past:
    """What was said and done in these events, as history for another conversation. Of a run that goes on from another
    one's end nothing is said anew."""
    past: list[Said | _Step] = []
    current = _Step()
    for event in events:
        match event:
            case ev.RunStarted(retry_of=None):
                past.append(Said(event.input))
            case ev.RunSteered(disposition="applied"):
                past.append(Said(event.text))
            case ev.StepStarted():
                current = _Step()
                past.append(current)
            case _:
                current.note(event)
    return [one for one in (_plain(one) for one in past) if one not in _NOTHING]


_NOTHING: Final = (Said(""), Answered(""))


def _plain(one: Said | _Step) -> Said | Answered:
    return one if isinstance(one, Said) else one.answered()


def _settled(call: PastCall, event: ev.ToolCompleted) -> PastCall:
    if event.status == "cancelled" and not event.output:
        return call
    return PastCall(call.call_id, call.name, call.arguments, event.output, event.status != "ok", event.content)
