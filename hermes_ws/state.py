"""What a conversation's log adds up to: the fold.

:class:`State` is changed by :meth:`State.apply` alone, one event at a time, and the tables below say which event is
legal when. An illegal event raises :class:`~hermes_ws.errors.IllegalTransition` and changes nothing. Everything that
the server knows of a conversation after a restart comes through here, from the log; what is not in the log
(a queued run's options) is passed in beside it.

The tables: for each kind of thing, event -> {state before: state after}. ``None`` is "not there yet".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final

import msgspec

from hermes_ws.entities import (
    Entry,
    Message,
    Reasoning,
    Run,
    Steer,
    Step,
    StepItem,
    TextItem,
    ToolCall,
    UserMessage,
    as_parts,
    as_text,
)
from hermes_ws.errors import IllegalTransition
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.control import SnapshotState
from hermes_ws.protocol.values import (
    Config,
    Item,
    ProgressInfo,
    QueuedRun,
    RunStatus,
    TextPart,
    ToolCallItem,
    Usage,
)

__all__ = ["ACTIVE", "INTERACTION", "MESSAGE", "REASONING", "RUN", "TERMINAL", "TOOL_CALL", "State"]

Table = dict[str, dict[str | None, str]]

RUN: Final[Table] = {
    "run.queued": {None: "queued"},
    "run.started": {None: "running", "queued": "running"},
    "run.recovered": {"running": "running", "waiting": "waiting", "stopping": "stopping"},
    "run.waiting": {"running": "waiting", "stopping": "stopping"},
    "run.resumed": {"waiting": "running", "stopping": "stopping"},
    "run.stopping": {"running": "stopping", "waiting": "stopping", "stopping": "stopping"},
    "run.completed": {"running": "completed"},
    "run.failed": {"running": "failed", "waiting": "failed", "stopping": "failed"},
    "run.cancelled": {"queued": "cancelled", "stopping": "cancelled"},
}
MESSAGE: Final[Table] = {
    "message.started": {None: "in_progress"},
    "message.delta": {"in_progress": "in_progress"},
    "message.completed": {"in_progress": "completed"},
    "item.discarded": {"in_progress": "discarded"},
}
REASONING: Final[Table] = {
    "reasoning.delta": {None: "in_progress", "in_progress": "in_progress"},
    "reasoning.available": {None: "completed", "in_progress": "completed"},
    # ``None``: all its deltas were folded away, so nothing has told of it before.
    "item.discarded": {None: "discarded", "in_progress": "discarded", "completed": "discarded"},
}
TOOL_CALL: Final[Table] = {
    "tool.started": {None: "started"},
    "tool.executing": {"started": "executing"},
    "tool.output": {"executing": "executing"},
    "tool.completed": {"started": "completed", "executing": "completed"},
}
INTERACTION: Final[Table] = {
    "interaction.requested": {None: "open"},
    "interaction.resolved": {"open": "resolved"},
}
ACTIVE: Final = frozenset({"running", "waiting", "stopping"})
"""A run in one of these holds the conversation; there is at most one (guarantee 9)."""
TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})


class State:
    """One conversation, folded. Read freely; change only by :meth:`apply`."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.epoch: str | None = None
        self.head = 0
        self.last_ts = 0
        self.config = Config()
        self.config_version: int = 0
        self.runs: dict[str, Run] = {}
        self.ended: dict[str, RunStatus] = {}
        self.retries: dict[str, str] = {}
        """Runs that went on from another one's journal: run id to that one's."""
        self.never_began: set[str] = set()
        """Runs that were cancelled in the queue."""
        self.active: Run | None = None
        self.queue: list[str] = []
        self.timeline: list[Entry] = []
        self.calls: dict[str, ToolCall] = {}
        self.interactions: dict[str, ev.InteractionRequested] = {}
        self.resolutions: dict[str, ev.InteractionResolved] = {}
        self.usage = Usage.zero()
        self.mcp: dict[str, ev.McpStatus] = {}
        """The last that was told of each MCP server. What was connected when the server died still says so."""

    # -- the fold --------------------------------------------------------------------------------------

    def apply(self, event: ev.Event) -> None:
        """Fold one event. Raises :class:`IllegalTransition`, with the state as it was."""
        if event.seq != self.head + 1:
            raise IllegalTransition(f"seq {event.seq} after {self.head}")
        if (self.epoch is None) != isinstance(event, ev.ConversationCreated):
            raise IllegalTransition(f"{ev.event_type(event)} at seq {event.seq}")
        self._FOLDS[type(event)](self, event)
        self.head = event.seq
        self.last_ts = max(self.last_ts, event.ts)

    def skip(self, to: int) -> None:
        """Pass over events that are not here (compacted, or deltas whose finals follow) up to and with ``to``."""
        if to < self.head:
            raise IllegalTransition(f"cannot skip back from {self.head} to {to}")
        self.head = to

    def _created(self, e: ev.ConversationCreated) -> None:
        self.epoch = e.epoch

    def _configured(self, e: ev.ConversationConfigured) -> None:
        if e.version != self.config_version + 1:
            raise IllegalTransition(f"configuration version {e.version} after {self.config_version}")
        self.config, self.config_version = e.config, e.version

    def _run_queued(self, e: ev.RunQueued) -> None:
        _move(RUN, e, self._status(e.run_id))
        if not 1 <= e.position <= len(self.queue) + 1:
            raise IllegalTransition(f"queue position {e.position} of {len(self.queue)}")
        self.runs[e.run_id] = Run(run_id=e.run_id, status="queued", input=e.input, by=e.by)
        self.queue.insert(e.position - 1, e.run_id)

    def _run_started(self, e: ev.RunStarted) -> None:
        before = self._status(e.run_id)
        _move(RUN, e, before)
        if self.active is not None or (before == "queued" and self.queue[0] != e.run_id):
            raise IllegalTransition(f"{e.run_id} cannot start: another run comes before it")
        run = self.runs.setdefault(e.run_id, Run(run_id=e.run_id, status="running", input=e.input, by=e.by))
        if before == "queued":
            self.queue.pop(0)
        run.status, run.agent_name, run.model = "running", e.agent_name, e.model
        run.attempt, run.retry_of, run.started_at = e.attempt, e.retry_of, e.ts
        self.active = run
        if e.retry_of is not None:  # nothing new was said
            self.retries[e.run_id] = e.retry_of
            return
        self.timeline.append(UserMessage(e.run_id, e.run_id, as_parts(e.input), as_text(e.input)))

    def _run_moved(self, e: ev.RunRecovered | ev.RunStopping) -> None:
        run = self._active_run(e)
        _move(RUN, e, run.status)
        if isinstance(e, ev.RunRecovered):
            run.attempt = e.attempt
            # A run that waits for people is at no fault, nor is one whose log could not be written for a while.
            run.fruitless += run.status != "waiting" and e.reason == "server_restarted"
        else:
            run.status, run.stopped_by, run.stop_mode = "stopping", e.by, e.mode
            run.interrupted = e.reason == "interrupt"

    def _run_waiting(self, e: ev.RunWaiting) -> None:
        run = self._active_run(e)
        after = _move(RUN, e, run.status)
        if run.waiting_since is not None or run.interactions != e.interactions:
            raise IllegalTransition("run.waiting belongs after the first open interaction")
        run.status = "waiting" if after == "waiting" else "stopping"
        run.waiting_since = e.ts

    def _run_resumed(self, e: ev.RunResumed) -> None:
        run = self._active_run(e)
        after = _move(RUN, e, run.status)
        if run.waiting_since is None or run.interactions:
            raise IllegalTransition("run.resumed belongs after the last open interaction is resolved")
        run.status = "running" if after == "running" else "stopping"
        run.waiting_since = None
        run.waited_for.clear()

    def _run_steered(self, e: ev.RunSteered) -> None:
        run = self._active_run(e)
        if e.disposition == "pending":
            if e.steer_id in run.steers:
                raise IllegalTransition(f"steer {e.steer_id} twice")
            run.steers[e.steer_id] = Steer(e.steer_id, e.text, e.by, e.if_late or "queue")
            return
        if e.steer_id not in run.steers:
            raise IllegalTransition(f"steer {e.steer_id} is not pending")
        if e.disposition == "applied" and run.step is not None and not run.step.finished:
            raise IllegalTransition(f"steer {e.steer_id} is applied in the middle of step {run.step.number}")
        del run.steers[e.steer_id]
        if e.disposition == "applied":
            self.timeline.append(UserMessage(e.steer_id, e.run_id, [TextPart(text=e.text)], e.text, steered=True))

    def _run_ended(self, e: ev.RunCompleted | ev.RunFailed | ev.RunCancelled) -> None:
        run = self._run(e.run_id)
        after = _move(RUN, e, run.status)
        if run.open or run.interactions or run.steers:
            left = [*run.open, *run.interactions, *run.steers]
            raise IllegalTransition(f"{e.run_id} ends with something still open: {left}")
        del self.runs[e.run_id]
        if self.active is run:
            self.active = None
        else:
            self.queue.remove(e.run_id)
            self.never_began.add(e.run_id)
        self.ended[e.run_id] = after  # type: ignore[assignment]
        self.usage = self.usage + e.usage

    def _step_started(self, e: ev.StepStarted) -> None:
        run = self._active_run(e)
        previous = run.step.number if run.step else 0
        if run.open or e.step != previous + 1 or (run.step and not run.step.finished):
            raise IllegalTransition(f"step {e.step} after {previous}")
        run.step = Step(e.run_id, e.step, e.ts)
        self.timeline.append(run.step)

    def _step_completed(self, e: ev.StepCompleted) -> None:
        run = self._active_run(e)
        step = self._step(run, e.step)
        if run.open or step.finished:
            raise IllegalTransition(f"step {e.step} cannot complete")
        step.finished, step.stop_reason = True, e.stop_reason
        run.usage = run.usage + e.usage
        run.fruitless = 0
        run.asked.clear()

    def _message_started(self, e: ev.MessageStarted) -> None:
        run = self._active_run(e)
        step = self._step(run, e.step)
        said = _said(step, e.item_id)
        _move(MESSAGE, e, said.status if said else None)
        self._add(run, Message(e.item_id, e.run_id, step.number))

    def _message_delta(self, e: ev.MessageDelta) -> None:
        self._open(self._active_run(e), e.item_id, Message).chunks.append(e.delta)

    def _message_completed(self, e: ev.MessageCompleted) -> None:
        run = self._active_run(e)
        item = self._open(run, e.item_id, Message)
        item.status, item.chunks, item.content = "completed", [e.text], e.content
        item.partial = bool(e.partial)
        del run.open[e.item_id]
        run.output = run.output if e.partial else e.text

    def _reasoning_delta(self, e: ev.ReasoningDelta) -> None:
        self._reasoning(e).chunks.append(e.delta)

    def _reasoning_available(self, e: ev.ReasoningAvailable) -> None:
        item = self._reasoning(e)
        item.status, item.chunks = "completed", [e.text]
        del self.runs[e.run_id].open[e.item_id]

    def _reasoning(self, e: ev.ReasoningDelta | ev.ReasoningAvailable) -> Reasoning:
        """The block that the event is about, begun by it if it is the first to name it."""
        run = self._active_run(e)
        if e.item_id not in run.open:
            step = self._step(run, None)
            said = _said(step, e.item_id)
            _move(REASONING, e, said.status if said else None)
            self._add(run, Reasoning(e.item_id, e.run_id, step.number))
        return self._open(run, e.item_id, Reasoning)

    def _item_discarded(self, e: ev.ItemDiscarded) -> None:
        run = self._active_run(e)
        said = _said(run.step, e.item_id) if run.step else None
        _move(MESSAGE if isinstance(said, Message) else REASONING, e, said.status if said else None)
        if run.step is not None and said is not None:
            run.step.items.remove(said)
            run.open.pop(e.item_id, None)

    def _tool_started(self, e: ev.ToolStarted) -> None:
        run = self._active_run(e)
        _move(TOOL_CALL, e, self.calls[e.call_id].phase if e.call_id in self.calls else None)
        call = ToolCall(
            e.call_id,
            e.run_id,
            self._step(run, e.step).number,
            e.name,
            e.source,
            e.title,
            e.arguments,
            e.annotations,
            e.ts,
            e.owner,
        )
        self.calls[e.call_id] = call
        self._add(run, call)
        if run.step is not None and e.usage is not None:
            run.step.usage = e.usage

    def _tool_executing(self, e: ev.ToolExecuting) -> None:
        call = self._call(e)
        call.status, call.arguments, call.executing_at = "executing", e.arguments, e.ts
        call.place = self.config.place_of(call.source)

    def _tool_output(self, e: ev.ToolOutput) -> None:
        call = self._call(e)
        if e.chunk is not None:
            call.chunks.append(e.chunk)
        if e.progress is not None:
            call.progress = ProgressInfo(progress=e.progress, total=e.total, message=e.message)

    def _tool_completed(self, e: ev.ToolCompleted) -> None:
        call = self._call(e)
        call.status, call.chunks, call.truncated = e.status, [e.output], e.truncated
        call.structured, call.content, call.duration_ms = e.structured, e.content, e.duration_ms
        call.progress = None
        call.asked.clear()
        run = self.runs[e.run_id]
        del run.open[e.call_id]
        run.fruitless = run.fruitless if e.status in ("interrupted", "cancelled") else 0

    def _interaction_requested(self, e: ev.InteractionRequested) -> None:
        run = self._active_run(e)
        known = e.interaction_id in self.interactions or e.interaction_id in self.resolutions
        _move(INTERACTION, e, "open" if known else None)
        self.interactions[e.interaction_id] = e
        run.interactions.append(e.interaction_id)
        if e.owner is None and run.asking_since is None:
            run.asking_since = e.ts
        run.waited_for.append(e.interaction_id)
        asker = run.open.get(e.call_id) if e.call_id is not None else None
        (asker.asked if isinstance(asker, ToolCall) else run.asked).append(e)

    def _interaction_resolved(self, e: ev.InteractionResolved) -> None:
        run = self._active_run(e)
        _move(INTERACTION, e, "open" if e.interaction_id in self.interactions else "resolved")
        del self.interactions[e.interaction_id]
        run.interactions.remove(e.interaction_id)
        if run.asking_since is not None and all(self.interactions[i].owner is not None for i in run.interactions):
            run.waited_ms += max(0, e.ts - run.asking_since)
            run.asking_since = None
        self.resolutions[e.interaction_id] = e
        run.fruitless = run.fruitless if e.outcome == "cancelled" else 0

    def _mcp_status(self, e: ev.McpStatus) -> None:
        self.mcp[e.server] = e

    _FOLDS: ClassVar[dict[type[ev.EventBase], Callable[[Any, Any], None]]] = {
        ev.ConversationCreated: _created,
        ev.ConversationConfigured: _configured,
        ev.RunQueued: _run_queued,
        ev.RunStarted: _run_started,
        ev.RunWaiting: _run_waiting,
        ev.RunResumed: _run_resumed,
        ev.RunRecovered: _run_moved,
        ev.RunSteered: _run_steered,
        ev.RunStopping: _run_moved,
        ev.RunCompleted: _run_ended,
        ev.RunFailed: _run_ended,
        ev.RunCancelled: _run_ended,
        ev.StepStarted: _step_started,
        ev.StepCompleted: _step_completed,
        ev.ReasoningDelta: _reasoning_delta,
        ev.ReasoningAvailable: _reasoning_available,
        ev.MessageStarted: _message_started,
        ev.MessageDelta: _message_delta,
        ev.MessageCompleted: _message_completed,
        ev.ItemDiscarded: _item_discarded,
        ev.ToolStarted: _tool_started,
        ev.ToolExecuting: _tool_executing,
        ev.ToolOutput: _tool_output,
        ev.ToolCompleted: _tool_completed,
        ev.InteractionRequested: _interaction_requested,
        ev.InteractionResolved: _interaction_resolved,
        ev.McpStatus: _mcp_status,
    }

    # -- looking things up -----------------------------------------------------------------------------

    def _status(self, run_id: str) -> str | None:
        run = self.runs.get(run_id)
        return run.status if run else self.ended.get(run_id)

    def _run(self, run_id: str) -> Run:
        run = self.runs.get(run_id)
        if run is None:
            raise IllegalTransition(f"run {run_id} is {self.ended.get(run_id, 'unknown')}")
        return run

    def _active_run(self, e: ev.RunEvent) -> Run:
        run = self.active
        if run is None or run.run_id != e.run_id:
            raise IllegalTransition(f"{ev.event_type(e)}: run {e.run_id} is not active")
        return run

    def _step(self, run: Run, number: int | None) -> Step:
        step = run.step
        if step is None or step.finished or (number is not None and step.number != number):
            raise IllegalTransition(f"step {number} of {run.run_id} is not open")
        return step

    def _add(self, run: Run, item: StepItem) -> None:
        run.open[item.call_id if isinstance(item, ToolCall) else item.item_id] = item
        self._step(run, item.step).items.append(item)

    def _open(self, run: Run, item_id: str, kind: type[TextItem]) -> TextItem:
        item = run.open.get(item_id)
        if not isinstance(item, kind):
            raise IllegalTransition(f"{kind.__name__.lower()} {item_id} is not open")
        return item

    def _call(self, e: ev.ToolExecuting | ev.ToolOutput | ev.ToolCompleted) -> ToolCall:
        self._active_run(e)
        call = self.calls.get(e.call_id)
        _move(TOOL_CALL, e, call.phase if call else None)
        assert call is not None
        return call

    # -- what others see -------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """The active run's status, or ``idle``."""
        return self.active.status if self.active else "idle"

    @property
    def needs_person(self) -> bool:
        """Whether something is open that people are asked; what a client executes is not."""
        return any(asked.needs_person for asked in self.interactions.values())

    def chain(self, run_id: str) -> list[str]:
        """The run, the one it retries, the one that one retries, and so on."""
        found = [run_id]
        while found[-1] in self.retries:
            found.append(self.retries[found[-1]])
        return found

    def said(self, run_id: str) -> UserMessage:
        """What was said to begin the run, or the one that it retries. It must have begun."""
        begun = self.chain(run_id)[-1]
        return next(e for e in self.timeline if isinstance(e, UserMessage) and e.item_id == begun)

    @property
    def title(self) -> str | None:
        """The configured title, or the beginning of what was said first."""
        if self.config.title:
            return self.config.title
        first = next((e for e in self.timeline if isinstance(e, UserMessage)), None)
        return " ".join(first.text.split())[:80] or None if first else None

    def _newest_first(self) -> Iterator[UserMessage | StepItem]:
        for entry in reversed(self.timeline):
            if isinstance(entry, UserMessage):
                yield entry
            else:
                yield from reversed(entry.items)

    def window(self, before: str | None, *, max_items: int, max_bytes: int) -> tuple[list[Item], str | None]:
        """The newest items, or those right before the one of that id, oldest first: at most ``max_items`` that weigh
        at most ``max_bytes``, but one at least. With them the id of the oldest, if there are older ones.

        Raises ``KeyError`` when there is no item ``before``.
        """
        older, items, weight = self._newest_first(), list[Item](), 0
        if before is not None and not any(_id_of(item) == before for item in older):
            raise KeyError(before)
        for one in older:
            item = one.view()
            weight += _weight(item)
            if items and (len(items) >= max_items or weight > max_bytes):
                items.reverse()
                return items, _item_id(items[0])
            items.append(item)
        items.reverse()
        return items, None

    def snapshot(self, *, max_items: int, max_bytes: int) -> SnapshotState:
        """The state, with the newest items only: at most ``max_items`` that weigh at most ``max_bytes``."""
        items, before = self.window(None, max_items=max_items, max_bytes=max_bytes)
        return SnapshotState(
            at=self.head,
            config=self.config,
            config_version=self.config_version,
            run=self.active.view() if self.active else None,
            queue=[
                QueuedRun(run_id=r, input=self.runs[r].input, position=n, by=self.runs[r].by)
                for n, r in enumerate(self.queue, 1)
            ],
            items=items,
            interactions=list(self.interactions.values()),
            usage=self.usage,
            before=before,
        )


def _move(table: Table, event: ev.Event, before: str | None) -> str:
    kind = ev.event_type(event)
    after = table[kind].get(before)
    if after is None:
        raise IllegalTransition(f"{kind} is not allowed when it is {before or 'not there'}")
    return after


def _said(step: Step, item_id: str) -> Message | Reasoning | None:
    """What was said or thought in this step under that id."""
    return next((i for i in step.items if not isinstance(i, ToolCall) and i.item_id == item_id), None)


def _id_of(item: UserMessage | StepItem) -> str:
    return item.call_id if isinstance(item, ToolCall) else item.item_id


def _item_id(item: Item) -> str:
    return item.call_id if isinstance(item, ToolCallItem) else item.item_id


def _weight(item: Item) -> int:
    return len(msgspec.json.encode(item))
