"""A run's events as a response of OpenAI's Responses API, and as the events of its stream.

A response is a part of a run: from the request that began it, or had it go on, up to where the run ends or waits for
nothing but people and functions of the client's. What it waits for is then the last of its items, and the next response
goes on from there. Everything follows from the log: fed again after a restart, the same numbers come out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from msgspec.structs import replace

from hermes_ws.compat import responses_items as items
from hermes_ws.compat.calls import is_of_caller
from hermes_ws.compat.responses_types import (
    ArgumentsDelta,
    ArgumentsDone,
    ContentPartEvent,
    FunctionCall,
    IncompleteDetails,
    InputTokensDetails,
    ItemStatus,
    LifecycleEvent,
    OutputItem,
    OutputItemEvent,
    OutputText,
    OutputTokensDetails,
    Response,
    ResponseError,
    ResponseStatus,
    ResponseUsage,
    StreamEvent,
    SummaryDelta,
    SummaryDone,
    SummaryPartEvent,
    SummaryText,
    TextDelta,
    TextDone,
)
from hermes_ws.compat.spending import Spending
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import ErrorInfo, Usage

__all__ = ["ResponseProjection", "usage_of"]

_Kind = Literal["message", "reasoning"]
_End = Literal["response.completed", "response.failed", "response.incomplete"]

_CODES: Final = {"model_rate_limited": "rate_limit_exceeded", "context_length": "context_length_exceeded"}
"""Error codes that OpenAI has too; every other failure is a ``server_error``."""
_STEERED: Final = IncompleteDetails(reason="steered")
_INCOMPLETE: Final[dict[str, Literal["max_output_tokens", "max_messages", "content_filter"]]] = {
    "length": "max_output_tokens",
    "max_steps": "max_messages",
    "refused": "content_filter",
}


@dataclass(slots=True)
class _Slot:
    """One item of the output."""

    index: int
    item: OutputItem
    kind: _Kind | None = None
    chunks: list[str] = field(default_factory=list[str])
    open: bool = True
    dropped: bool = False


class ResponseProjection:
    """See the top of the module. Feed it the events of a conversation from the run's first one on; those up to
    ``after`` only tell it what is under way."""

    def __init__(
        self,
        opening: Response,
        run_id: str,
        after: int = 0,
        *,
        skip_steps: int = 0,
        until: int | None = None,
        answers: Iterable[str] = (),
        own_tools: bool = True,
    ) -> None:
        """``opening`` is the response as asked for, ``answers`` the ids of the interactions that its request answers.
        ``skip_steps``: so many of the run's steps are history that the client brought along; ``until``: with this event
        another response takes over. Without ``own_tools`` the items of calls that are executed here are left out, for
        clients that would execute whatever they see called.
        """
        self._opening = opening
        self._run_id = run_id
        self._after = after
        self._skip_steps = skip_steps
        self.until = until
        self._answers = frozenset(answers)
        self._own_tools = own_tools
        self._slots: list[_Slot] = []
        self._texts: dict[str, _Slot] = {}
        self._shown: set[str] = set()
        self._calls: dict[str, ev.ToolStarted] = {}
        self._under_way: set[str] = set()
        self._asked: dict[str, ev.InteractionRequested] = {}
        self._answered_calls: set[str] = set()
        self.failure: ErrorInfo | None = None
        """Why the run failed, if it did."""
        self._spending = Spending()
        self._status: ResponseStatus = opening.status
        self._ending: dict[str, Any] = {}
        self._begun = False
        self._out: list[StreamEvent] = []
        self._sent = 0

    # -- what there is ---------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the response is over."""
        return bool(self._ending)

    @property
    def response(self) -> Response:
        """The response as it is."""
        output = [_as_it_is(slot) for slot in self._slots if not slot.dropped]
        return replace(self._opening, status=self._status, output=output, **self._ending)

    @property
    def asks_leave(self) -> bool:
        """Whether it waits for an approval."""
        return any(asked.kind == "approval" for asked in self._asked.values())

    @property
    def required(self) -> list[dict[str, Any]]:
        """Stubs of the items that answer the questions that are open."""
        return [self._stub(asked) for asked in self._asked.values()]

    def _stub(self, asked: ev.InteractionRequested) -> dict[str, Any]:
        started = self._calls.get(asked.call_id or "")
        key = items.answer_key(asked, started)
        if asked.kind == "approval":
            return {"type": "mcp_approval_response", "approval_request_id": key}
        itself = started is not None and started.call_id == key
        name = started.name if started is not None and itself else items.question(asked).name
        return {"type": "function_call_output", "call_id": key, "name": name}

    # -- feeding ---------------------------------------------------------------------------------------

    def feed(self, event: ev.Event) -> list[StreamEvent]:
        """One event of the conversation; returns the events of the stream that it makes."""
        if self.done or not isinstance(event, ev.RunEvent) or event.run_id != self._run_id:
            return []
        self._track(event)
        earlier = event.seq <= self._after or bool(self._skip_steps)
        self._spending.feed(event, counts=not earlier)
        if earlier:
            self._skip_steps -= bool(self._skip_steps) and isinstance(event, ev.StepCompleted)
            return []
        self._open(queued=isinstance(event, ev.RunQueued))
        if self.until is not None and event.seq >= self.until:
            self._end("response.incomplete", "incomplete", event.ts, incomplete_details=_STEERED)
            return self._take()
        self._project(event)
        if isinstance(event, ev.InteractionRequested | ev.ToolCompleted) and not self.done and self._waits():
            self._end("response.completed", "completed", event.ts)
        return self._take()

    def abort(self, message: str, ts: int) -> list[StreamEvent]:
        """The response is over for a reason that is not in the log."""
        if not self.done:
            self._open()
            self._fail("server_error", message, ts)
        return self._take()

    def nothing(self, ts: int) -> list[StreamEvent]:
        """Nothing was to be generated: the response is over as it begins."""
        self._open()
        self._end("response.completed", "completed", ts)
        return self._take()

    def _take(self) -> list[StreamEvent]:
        out, self._out = self._out, []
        return out

    def _track(self, event: ev.RunEvent) -> None:
        """What is under way: calls that have no outcome, questions that have no answer."""
        match event:
            case ev.ToolStarted():
                self._calls[event.call_id] = event
                self._under_way.add(event.call_id)
            case ev.ToolCompleted():
                self._under_way.discard(event.call_id)
            case ev.InteractionRequested(owner=None):
                self._asked[event.interaction_id] = event
            case ev.InteractionResolved():
                asked = self._asked.pop(event.interaction_id, None)
                if asked is not None and asked.call_id and event.interaction_id in self._answers:
                    self._answered_calls.add(asked.call_id)
            case _:
                pass

    def _waits(self) -> bool:
        """Whether everything that is under way waits for an answer, and for none that this request brings."""
        waiting = {asked.call_id for asked in self._asked.values()}
        return bool(self._asked) and waiting.issuperset(self._under_way) and self._answers.isdisjoint(self._asked)

    def _project(self, event: ev.RunEvent) -> None:
        match event:
            case ev.RunStarted():
                self._go()
            case ev.MessageStarted():
                self._text("message", event.item_id)
            case ev.MessageDelta():
                self._delta(self._text("message", event.item_id), event.delta)
            case ev.MessageCompleted():
                self._whole(self._text("message", event.item_id), event.text, cut=bool(event.partial))
            case ev.ReasoningDelta():
                self._delta(self._text("reasoning", event.item_id), event.delta)
            case ev.ReasoningAvailable():
                self._whole(self._text("reasoning", event.item_id), event.text)
            case ev.ItemDiscarded():
                self._discard(event.item_id)
            case ev.ToolStarted():
                if self._own_tools or is_of_caller(event):
                    self._call(event)
            case ev.ToolCompleted():
                self._call_is_over(event)
            case ev.InteractionRequested(owner=None):
                self._ask(event)
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                self._run_is_over(event)
            case _:
                pass

    # -- the beginning and the end ---------------------------------------------------------------------

    def _open(self, *, queued: bool = False) -> None:
        if self._begun:
            return
        self._begun, self._status = True, "queued" if queued else "in_progress"
        self._lifecycle("response.created")
        self._lifecycle("response.queued" if queued else "response.in_progress")

    def _go(self) -> None:
        """A run that had to wait its turn begins."""
        if self._status == "queued":
            self._status = "in_progress"
            self._lifecycle("response.in_progress")

    def _run_is_over(self, event: ev.RunCompleted | ev.RunFailed | ev.RunCancelled) -> None:
        if isinstance(event, ev.RunFailed):
            self.failure = event.error
            self._fail(_CODES.get(event.error.code, "server_error"), event.error.message, event.ts)
        elif isinstance(event, ev.RunCancelled):
            self._end("response.incomplete", "cancelled", event.ts)
        elif event.stop_reason in _INCOMPLETE:
            details = IncompleteDetails(reason=_INCOMPLETE[event.stop_reason])
            self._end("response.incomplete", "incomplete", event.ts, incomplete_details=details)
        else:
            self._end("response.completed", "completed", event.ts)

    def _fail(self, code: str, message: str, ts: int) -> None:
        self._end("response.failed", "failed", ts, error=ResponseError(code=code, message=message))

    def _end(self, kind: _End, status: ResponseStatus, ts: int, **fields: Any) -> None:
        for slot in self._slots:
            if slot.open:
                self._close(slot, "".join(slot.chunks), "incomplete")
        self._status = status
        at = ts // 1000 if status == "completed" else None
        self._ending = {"usage": usage_of(self._spending.total), "completed_at": at, **fields}
        self._lifecycle(kind)

    # -- text ------------------------------------------------------------------------------------------

    def _text(self, kind: _Kind, item_id: str) -> _Slot:
        """The item that text goes to; its first mention begins it."""
        slot = self._texts.get(item_id)
        if slot is not None:
            return slot
        make = items.message if kind == "message" else items.reasoning
        slot = self._add(make(items.in_id(item_id, self._run_id), "", "in_progress", begun=False), kind)
        self._texts[item_id] = slot
        if kind == "message":
            self._part("response.content_part.added", slot, "")
        else:
            self._summary("response.reasoning_summary_part.added", slot, "")
        return slot

    def _delta(self, slot: _Slot, delta: str) -> None:
        if not slot.open or not delta:
            return
        slot.chunks.append(delta)
        event = TextDelta if slot.kind == "message" else SummaryDelta
        self._emit(event, item_id=slot.item.id, output_index=slot.index, delta=delta)

    def _whole(self, slot: _Slot, text: str, *, cut: bool = False) -> None:
        """The final says it all; what no delta has told of it is told first."""
        if not slot.open:
            return
        told = "".join(slot.chunks)
        if text.startswith(told):
            self._delta(slot, text[len(told) :])
        self._close(slot, text, "incomplete" if cut else "completed")

    def _close(self, slot: _Slot, text: str, status: ItemStatus) -> None:
        if slot.kind == "message":
            self._emit(TextDone, item_id=slot.item.id, output_index=slot.index, text=text)
            self._part("response.content_part.done", slot, text)
            slot.item = items.message(slot.item.id, text, status)
        else:
            self._emit(SummaryDone, item_id=slot.item.id, output_index=slot.index, text=text)
            self._summary("response.reasoning_summary_part.done", slot, text)
            slot.item = items.reasoning(slot.item.id, text, status)
        self._finish(slot)

    def _discard(self, item_id: str) -> None:
        """It does not count. Its place in the stream stays taken, so that those after it keep theirs; the response does
        not have it in the end."""
        slot = self._texts.get(item_id)
        if slot is None:
            return
        slot.dropped = True
        if slot.open:
            self._close(slot, "".join(slot.chunks), "incomplete")

    # -- calls and questions ---------------------------------------------------------------------------

    def _call(self, event: ev.ToolStarted) -> None:
        self._shown.add(event.call_id)
        self._function(items.call(event))

    def _function(self, item: FunctionCall) -> None:
        slot = self._add(replace(item, arguments="", status="in_progress"))
        place: dict[str, Any] = {"item_id": item.id, "output_index": slot.index}
        self._emit(ArgumentsDelta, **place, delta=item.arguments)
        self._emit(ArgumentsDone, **place, name=item.name, arguments=item.arguments)
        slot.item = item
        self._finish(slot)

    def _call_is_over(self, event: ev.ToolCompleted) -> None:
        """What it came to, unless the request itself has said so. That nobody will execute a function of the client's
        any more is told as well."""
        started = self._calls.get(event.call_id)
        of_client = is_of_caller(started)
        if event.call_id in self._answered_calls and (of_client or items.is_clarify(started)):
            return
        if self._own_tools or of_client or event.call_id in self._shown:
            self._at_once(items.call_output(event, of_client=of_client))

    def _ask(self, asked: ev.InteractionRequested) -> None:
        """What the run waits for, as an item, unless the call that waits is one already."""
        started = self._calls.get(asked.call_id or "")
        if asked.kind == "approval":
            self._at_once(items.approval_request(asked))
        elif items.answer_key(asked, started) == asked.interaction_id:
            self._function(items.question(asked))
        elif started is not None and started.call_id not in self._shown:
            self._call(started)

    # -- items -----------------------------------------------------------------------------------------

    def _add(self, item: OutputItem, kind: _Kind | None = None) -> _Slot:
        slot = _Slot(len(self._slots), item, kind)
        self._slots.append(slot)
        self._emit(OutputItemEvent, type="response.output_item.added", output_index=slot.index, item=item)
        return slot

    def _finish(self, slot: _Slot) -> None:
        slot.open = False
        self._emit(OutputItemEvent, type="response.output_item.done", output_index=slot.index, item=slot.item)

    def _at_once(self, item: OutputItem) -> None:
        """An item that is whole as it comes."""
        self._finish(self._add(item))

    def _part(self, kind: str, slot: _Slot, text: str) -> None:
        part = OutputText(text=text)
        self._emit(ContentPartEvent, type=kind, item_id=slot.item.id, output_index=slot.index, part=part)

    def _summary(self, kind: str, slot: _Slot, text: str) -> None:
        part = SummaryText(text=text)
        self._emit(SummaryPartEvent, type=kind, item_id=slot.item.id, output_index=slot.index, part=part)

    def _lifecycle(self, kind: str) -> None:
        self._emit(LifecycleEvent, type=kind, response=self.response)

    def _emit(self, event_class: type[StreamEvent], **fields: Any) -> None:
        self._out.append(event_class(sequence_number=self._sent, **fields))
        self._sent += 1


def _as_it_is(slot: _Slot) -> OutputItem:
    if not (slot.open and slot.kind):
        return slot.item
    make = items.message if slot.kind == "message" else items.reasoning
    return make(slot.item.id, "".join(slot.chunks), "in_progress")


def usage_of(usage: Usage) -> ResponseUsage:
    """Tokens as OpenAI tells them."""
    return ResponseUsage(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_input_tokens or 0),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens or 0),
        total_tokens=usage.total_tokens,
    )
