"""The fold a second time, written from the protocol's documentation alone: plain JSON in, plain JSON out.

It shares no code with the package, so that a mistake would have to be made twice to go unseen. It is also what a
careful client could do: it keeps the conversation's view up to date, frame by frame, and complains of every frame
that breaks a promise of the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

RUN_TERMINALS = ("run.completed", "run.failed", "run.cancelled")
CALL_ENDS = ("ok", "error", "denied", "cancelled", "interrupted")
NO_USAGE: Json = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


class BrokenPromiseError(AssertionError):
    """A frame that the protocol does not allow here."""


def fold(frames: Iterable[Json], snapshot: Json | None = None) -> SecondFold:
    """Everything in ``frames``, after ``snapshot`` if there is one."""
    result = SecondFold(snapshot)
    for frame in frames:
        result.feed(frame)
    return result


class SecondFold:
    """A client's view of one conversation.

    ``complete``: nothing older than what we saw matters any more; otherwise items may be named that lie before the
    snapshot's window. ``lossless``: no frame was skipped, so finals must equal what was streamed.
    """

    def __init__(self, snapshot: Json | None = None) -> None:
        start = deepcopy(snapshot or {})
        self.from_start = snapshot is None
        self.complete = "before" not in start
        self.lossless = True
        self.began_at: int = start.get("at", 0)
        self.at = self.began_at
        self.epoch: str | None = None
        self.config: Json = start.get("config", {})
        self.version: int = start.get("config_version", 0)
        self.run: Json | None = start.get("run")
        self.queue: list[Json] = [_queued(queued) for queued in start.get("queue", [])]
        self.items: list[Json] = start.get("items", [])
        self.interactions: dict[str, Json] = {i["interaction_id"]: i for i in start.get("interactions", [])}
        self.usage: Json = start.get("usage", dict(NO_USAGE))
        self.ended: set[str] = set()
        self.seen: set[str] = {_id(item) for item in self.items} | set(self.interactions)
        self.open = {_id(i): i for i in self.items if i.get("status") in ("in_progress", "started", "executing")}
        self.executing_at: dict[str, int] = {}
        self.steers: dict[str, str] = {s["steer_id"]: s["text"] for s in (self.run or {}).get("steers", [])}
        self.promised: dict[str, str] = {}
        self.interrupted: bool | None = None
        self.unwanted_late: set[str] = set()
        self.waited_for: list[str] = list(self.interactions)
        self.step_open: bool | None = False if self.run is None else None
        self.output: str | None = "" if self.run is None else None
        self.due: tuple[str, list[str] | None] | None = None

    def view(self) -> Json:
        """What a snapshot would say now, its window apart."""
        return {
            "at": self.at,
            "config": self.config,
            "config_version": self.version,
            "run": self.run,
            "queue": [{**queued, "position": n} for n, queued in enumerate(self.queue, 1)],
            "items": self.items,
            "interactions": list(self.interactions.values()),
            "usage": self.usage,
        }

    def feed(self, frame: Json) -> None:
        """One event, or one ``skipped``."""
        kind = frame["type"]
        try:
            if kind == "skipped":
                _must(frame["from"] == self.at + 1, "the skipped range does not follow")
                self.at, self.lossless = frame["to"], False
                return
            self._follows(frame)
            handler: Callable[[Json], None] | None = getattr(self, "_" + kind.replace(".", "_"), None)
            if handler is not None:
                handler(frame)
        except BrokenPromiseError as broken:
            raise BrokenPromiseError(f"{broken}: {frame}") from None

    def _follows(self, e: Json) -> None:
        """What holds for every event, whatever its type."""
        _must(e["seq"] == self.at + 1, f"guarantee 1: seq {e['seq']} after {self.at}")
        _must((e["seq"] == 1) == (e["type"] == "conversation.created"), "conversation.created is seq 1, only")
        first_seen = self.at == self.began_at and not self.from_start
        self.at = e["seq"]
        if self.due is not None:
            kind, ids = self.due
            _must(e["type"] == kind and ids in (None, e["interactions"]), f"{kind} of {ids} must come first")
            self.due = None
        else:
            unfounded = e["type"] in ("run.waiting", "run.resumed") and not first_seen
            _must(not unfounded, "nothing opened or closed that this could tell of")
        if "run_id" in e:
            _must(e["run_id"] not in self.ended, "guarantee 4: the run is over")
            queued = e["type"] in ("run.queued", "run.started", "run.cancelled")
            _must(queued or (self.run is not None and self.run["run_id"] == e["run_id"]), "the run is not active")

    # -- conversation ----------------------------------------------------------------------------------

    def _conversation_created(self, e: Json) -> None:
        self.epoch = e["epoch"]

    def _conversation_configured(self, e: Json) -> None:
        _must(e["version"] == self.version + 1, f"version {e['version']} after {self.version}")
        self.version, self.config = e["version"], e["config"]

    # -- runs ------------------------------------------------------------------------------------------

    def _run_queued(self, e: Json) -> None:
        self._new(e["run_id"])
        _must(1 <= e["position"] <= len(self.queue) + 1, "there is no such position")
        promised = self.promised.pop(e["run_id"], None)
        _must(promised in (None, e["input"]), "the text that was steered is not what was queued")
        self.queue.insert(e["position"] - 1, _queued(e))

    def _run_started(self, e: Json) -> None:
        _must(self.run is None, "guarantee 9: another run is active")
        _must(not self.promised, f"never queued: {self.promised}")
        if self.queue:
            first = self.queue.pop(0)
            _must(first == _queued(e), f"the first in the queue is {first}")
        else:
            self._new(e["run_id"])
        self.run = {
            **{k: e[k] for k in ("run_id", "agent_name", "model", "attempt", "by", "retry_of") if k in e},
            "status": "running",
            "step": 0,
            "started_at": e["ts"],
            "usage": dict(NO_USAGE),
        }
        self.step_open, self.output, self.interrupted = False, "", False
        if "retry_of" in e:
            _must(e["retry_of"] in self.ended or not self.from_start, "only a run that has ended is retried")
        else:
            self._said_by_user(e["run_id"], e["run_id"], e["input"])

    def _run_waiting(self, e: Json) -> None:
        self._active["status"] = "stopping" if self._stopping else "waiting"

    def _run_resumed(self, e: Json) -> None:
        self._active["status"] = "stopping" if self._stopping else "running"
        self.waited_for.clear()

    def _run_recovered(self, e: Json) -> None:
        _must(e["attempt"] == self._active["attempt"] + 1, "attempts count by one")
        _must(not self._stopping, "a run that was being stopped is over")
        self._active["attempt"] = e["attempt"]

    def _run_stopping(self, e: Json) -> None:
        self._active["status"] = "stopping"
        self.interrupted = "reason" in e

    def _run_steered(self, e: Json) -> None:
        steer_id, disposition = e["steer_id"], e["disposition"]
        if disposition == "pending":
            self._new(steer_id)
            self.steers[steer_id] = e["text"]
            if "if_late" in e:
                self.unwanted_late.add(steer_id)
            self._show_steer({key: e[key] for key in ("steer_id", "text", "by")})
            return
        _must(self.steers.pop(steer_id, None) == e["text"], "guarantee 4: this steer is not pending")
        self._hide_steer(steer_id)
        _must(("new_run_id" in e) == (disposition == "queued"), "new_run_id goes with queued")
        if disposition == "applied":
            self._said_by_user(steer_id, e["run_id"], e["text"], steered=True)
        elif disposition == "queued":
            _must(steer_id not in self.unwanted_late, "it was not to become a run")
            self.promised[e["new_run_id"]] = e["text"]

    def _run_completed(self, e: Json) -> None:
        _must(not self._stopping, "a run that was stopped is cancelled")
        _must(self.output in (None, e["output"]), f"the output was {self.output!r}")
        self._end_active(e)

    def _run_failed(self, e: Json) -> None:
        _must(not self._stopping, "a run that was stopped is cancelled")
        self._end_active(e)

    def _run_cancelled(self, e: Json) -> None:
        if self.run is not None and self.run["run_id"] == e["run_id"]:
            _must(self._stopping, "only a run that was stopped is cancelled")
            reasons = (None,) if self.interrupted is None else ("interrupt",) if self.interrupted else ("stop",)
            _must(e["reason"] in reasons or reasons == (None,), f"it was cancelled for {reasons}")
            self._end_active(e)
            return
        left = [queued for queued in self.queue if queued["run_id"] != e["run_id"]]
        _must(len(left) == len(self.queue) - 1, "the run is neither active nor queued")
        self.queue = left
        self.ended.add(e["run_id"])

    def _end_active(self, e: Json) -> None:
        left = [*self.open, *self.interactions, *self.steers]
        _must(not left, f"guarantee 4: still open at the run's end: {left}")
        _must(e["usage"] == self._active["usage"], f"its steps used {self._active['usage']}")
        self.usage = _sum(self.usage, e["usage"])
        self.ended.add(e["run_id"])
        self.run = None

    # -- steps and what is said ------------------------------------------------------------------------

    def _step_started(self, e: Json) -> None:
        _must(not self.step_open, "the step before it is not over")
        _must(e["step"] == self._active["step"] + 1, f"step {e['step']} after {self._active['step']}")
        self._active["step"], self.step_open = e["step"], True

    def _step_completed(self, e: Json) -> None:
        _must(self.step_open is not False and not self.open, f"the step is not open, or these are: {list(self.open)}")
        self._in_step(e["step"])
        self._active["usage"], self.step_open = _sum(self._active["usage"], e["usage"]), False

    def _message_started(self, e: Json) -> None:
        self._in_step(e["step"])
        self._begin({"type": "message", "status": "in_progress", "text": "", "content": []}, e, "item_id", "role")

    def _message_delta(self, e: Json) -> None:
        if item := self._opened(e["item_id"], "message"):
            item["text"] += e["delta"]

    def _message_completed(self, e: Json) -> None:
        if item := self._opened(e["item_id"], "message"):
            self._final(item, e["text"])
            item["content"] = e["content"]
            said = "".join(part.get("text", "") for part in e["content"])
            _must(said == e["text"], "text and content differ")
            if e.get("partial"):
                _must(self._stopping, "only a run that is stopped keeps half a message")
                item["partial"] = True
        if not e.get("partial"):
            self.output = e["text"]

    def _reasoning_delta(self, e: Json) -> None:
        self._thinking(e, "")["text"] += e["delta"]

    def _reasoning_available(self, e: Json) -> None:
        self._final(self._thinking(e, e["text"]), e["text"])

    def _thinking(self, e: Json, text: str) -> Json:
        """The block of reasoning that the event is about; the first to name it begins it with ``text``."""
        if e["item_id"] not in self.open:
            self._begin({"type": "reasoning", "status": "in_progress", "text": text}, e, "item_id")
        item = self._opened(e["item_id"], "reasoning")
        assert item is not None
        return item

    def _item_discarded(self, e: Json) -> None:
        found = [i for i in self.items if _id(i) == e["item_id"] and i["type"] in ("message", "reasoning")]
        _must(len(found) == 1 or not (self.complete and self.lossless), "guarantee 4: there is no such item")
        for item in found:
            ended = item["type"] == "message" and item["status"] == "completed"
            _must(item["step"] == self._active["step"] and not ended, "guarantee 4: it has ended")
            self.items.remove(item)
        self.open.pop(e["item_id"], None)

    def _final(self, item: Json, text: str) -> None:
        _must(item["text"] == text or not self.lossless, f"the deltas said {item['text']!r}")
        item["text"], item["status"] = text, "completed"
        del self.open[_id(item)]

    # -- tools -----------------------------------------------------------------------------------------

    def _tool_started(self, e: Json) -> None:
        self._in_step(e["step"])
        names = ("call_id", "name", "source", "title", "arguments", "annotations")
        self._begin({"type": "tool_call", "status": "started", "output": "", "truncated": False}, e, *names)

    def _tool_executing(self, e: Json) -> None:
        if call := self._opened(e["call_id"], "tool_call"):
            _must(call["status"] == "started", "tool.executing twice")
            call["status"], call["arguments"] = "executing", e["arguments"]
        self.executing_at[e["call_id"]] = e["ts"]

    def _tool_output(self, e: Json) -> None:
        _must(("progress" in e) == (e["stream"] == "progress") != ("chunk" in e), "either progress or a chunk")
        if call := self._opened(e["call_id"], "tool_call"):
            _must(call["status"] == "executing", "tool.executing comes first")
            call["output"] += e.get("chunk", "")
            if "progress" in e:
                call["progress"] = {k: e[k] for k in ("progress", "total", "message") if k in e}

    def _tool_completed(self, e: Json) -> None:
        asked = [i for i in self.interactions.values() if i.get("call_id") == e["call_id"]]
        _must(not asked, "a question of this call is open")
        if call := self._opened(e["call_id"], "tool_call"):
            ran, status = call["status"] == "executing", e["status"]
            _must(status in CALL_ENDS and call["name"] == e["name"], "not how a call ends")
            _must(ran if status in ("ok", "interrupted") else not (ran and status == "denied"), f"{status}, {ran=}")
            began = self.executing_at.get(e["call_id"]) if ran else e["ts"]
            _must(began is None or e["duration_ms"] == max(0, e["ts"] - began), f"executing since {began}")
            call.update({k: e[k] for k in ("status", "output", "truncated", "duration_ms")})
            call.update({k: e[k] for k in ("structured", "content") if k in e})
            call.pop("progress", None)
            del self.open[e["call_id"]]

    # -- interactions ----------------------------------------------------------------------------------

    def _interaction_requested(self, e: Json) -> None:
        self._new(e["interaction_id"])
        _must(e["kind"] != "approval" or bool(e["options"]), "an approval offers options")
        _must(e["kind"] != "clarify" or len(e["questions"]) == 1, "a clarify has one question")
        if "call_id" in e:
            self._opened(e["call_id"], "tool_call")
        self.interactions[e["interaction_id"]] = e
        self.waited_for.append(e["interaction_id"])
        if len(self.interactions) == 1:
            self.due = ("run.waiting", [e["interaction_id"]])

    def _interaction_resolved(self, e: Json) -> None:
        asked = self.interactions.pop(e["interaction_id"], None)
        _must(asked is not None, "guarantee 6: it is not open")
        assert asked is not None
        _must(asked["run_id"] == e["run_id"], "it is another run's")
        _must((e["outcome"] == "expired") == (e["via"] == "timeout"), "what expires expires by timeout")
        offered = [option["id"] for option in asked.get("options", [])]
        if e["outcome"] == "answered" and asked["kind"] == "approval":
            _must(e["option"] in offered, "guarantee 6: this was not offered")
        if e["outcome"] == "expired":
            _must(e.get("option") == asked["on_expire"].get("option"), "not what was to happen then")
        for question in asked.get("questions", []):
            answer = e.get("answers", {}).get(question["id"])
            _must(question["type"] != "secret" or not isinstance(answer, str), "a secret is in the log")
        if not self.interactions:
            # What was answered before the snapshot, a client that begins there cannot know.
            self.due = ("run.resumed", list(self.waited_for) if self.from_start else None)

    # -- the ground ------------------------------------------------------------------------------------

    @property
    def _active(self) -> Json:
        assert self.run is not None
        return self.run

    @property
    def _stopping(self) -> bool:
        return bool(self._active["status"] == "stopping")

    def _new(self, name: str) -> None:
        _must(name not in self.seen, f"the id {name} is taken")
        self.seen.add(name)

    def _in_step(self, step: int) -> None:
        _must(self.step_open is not False and step == self._active["step"], f"step {step} is not open")

    def _begin(self, item: Json, e: Json, *names: str) -> None:
        self._new(e[names[0]])
        item.update({k: e[k] for k in ("run_id", *names)}, step=self._active["step"])
        self.open[_id(item)] = item
        self.items.append(item)

    def _opened(self, name: str, kind: str) -> Json | None:
        """The open item, or None if it lies before the snapshot's window."""
        item = self.open.get(name)
        _must(item["type"] == kind if item else not self.complete, f"guarantee 4: {kind} {name} is not open")
        return item

    def _show_steer(self, steer: Json) -> None:
        assert self.run is not None
        self.run["steers"] = [*self.run.get("steers", []), steer]

    def _hide_steer(self, steer_id: str) -> None:
        assert self.run is not None
        left = [steer for steer in self.run["steers"] if steer["steer_id"] != steer_id]
        self.run.pop("steers")
        if left:
            self.run["steers"] = left

    def _said_by_user(self, item_id: str, run_id: str, said: str | list[Json], *, steered: bool = False) -> None:
        content = [{"type": "text", "text": said}] if isinstance(said, str) else said
        text = "\n".join(part["text"] for part in content if part["type"] == "text")
        item = {"type": "message", "item_id": item_id, "run_id": run_id, "role": "user", "status": "completed"}
        self.items.append({**item, "text": text, "content": content, **({"steered": True} if steered else {})})


def _id(item: Json) -> str:
    return str(item.get("call_id") or item.get("item_id"))


def _queued(run: Json) -> Json:
    return {k: run[k] for k in ("run_id", "input", "by")}


def _sum(one: Json, other: Json) -> Json:
    return {k: one.get(k, 0) + other.get(k, 0) for k in {**one, **other}}


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenPromiseError(otherwise)
