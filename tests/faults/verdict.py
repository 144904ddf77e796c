"""What must hold of a conversation in the end, whatever happened to it on the way."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.faults.model_client import Journal, Json, Sent, Violation, same_state
from tests.session.second_fold import SecondFold, fold
from tests.wire import terminals

__all__ = ["MAX_ATTEMPTS", "judge"]

MAX_ATTEMPTS = 3
"""Fruitless recoveries in a row that a run survives."""
_MARK = re.compile(r"echo (m\d+\.\S+) >>")


def judge(journal: Journal, log: list[str], marks: Path, snapshot: Json) -> Counter[str]:
    """Raise :class:`Violation` for the first promise that was broken. Returns what happened, in numbers."""
    folded = journal.compare(log)
    events = [json.loads(raw) for raw in log]
    left = {name: count for name, count in terminals(events).items() if count != 1}
    _must(not left, f"without exactly one terminal event: {left}")
    _must(folded.run is None and not folded.queue, "it is not at rest")
    difference = same_state(folded.view(), snapshot)
    _must(not difference, f"the server's snapshot and the fold of the log differ in {difference}")
    _snapshots(journal, events, folded)
    _marks(events, marks)
    _recoveries(events)
    _commands(journal.sent.values(), events)
    _answers(journal.sent.values(), events)
    kinds = Counter(event["type"] for event in events)
    return Counter(
        events=len(events),
        runs=kinds["run.started"],
        calls=kinds["tool.executing"],
        interactions=kinds["interaction.requested"],
        recoveries=kinds["run.recovered"],
        interrupted=sum(e["type"] == "tool.completed" and e["status"] == "interrupted" for e in events),
        discarded=kinds["item.discarded"],
        exhausted=sum(e["type"] == "run.failed" and e["error"]["code"] == "recovery_exhausted" for e in events),
        retries=sum(e["type"] == "run.started" and "retry_of" in e for e in events),
        commands=len(journal.sent),
        resent=sum(sent.tries > 1 for sent in journal.sent.values()),
    )


def _snapshots(journal: Journal, events: list[Json], folded: SecondFold) -> None:
    """Whoever began at a snapshot knows in the end what the others know (a dozen of them, evenly drawn)."""
    snapshots = [one for one in journal.snapshots if one["at"]]
    for snapshot in snapshots[:: len(snapshots) // 12 + 1]:
        late = fold(events[snapshot["at"] :], snapshot)
        difference = same_state(late.view(), folded.view())
        _must(not difference, f"from the snapshot at {snapshot['at']} one comes to another {difference}")


def _marks(events: list[Json], marks: Path) -> None:
    """What a command did outside: once if the log says that it was done, never if it says that it was not."""
    found = Counter(marks.read_text().split() if marks.exists() else [])
    ended = {event["call_id"]: event for event in events if event["type"] == "tool.completed"}
    known: set[str] = set()
    for call in (event for event in events if event["type"] == "tool.executing"):
        mark = _MARK.search(call["arguments"].get("command", ""))
        if mark is not None:
            name, end = mark[1], ended[call["call_id"]]
            known.add(name)
            _must(found[name] <= 1, f"{name} was done {found[name]} times: {end}")
            _must(end["status"] != "ok" or found[name] == 1, f"{name} was not done, but the log says so: {end}")
    _must(set(found) <= known, f"done without tool.executing: {set(found) - known}")


def _recoveries(events: list[Json]) -> None:
    """A run is given up after too many fruitless recoveries in a row, and not before. While it waits for people there
    is nothing that it could finish."""
    fruitless: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for event in events:
        run_id = event.get("run_id", "")
        if _is_fruit(event):
            fruitless[run_id] = 0
        if event["type"] in ("interaction.requested", "interaction.resolved"):
            waiting[run_id] += 1 if event["type"] == "interaction.requested" else -1
        elif event["type"] == "run.recovered" and not waiting[run_id]:
            fruitless[run_id] += 1
            _must(fruitless[run_id] <= MAX_ATTEMPTS, f"{run_id} was recovered once more, in vain", event)
        elif event["type"] == "run.failed" and event["error"]["code"] == "recovery_exhausted":
            _must(fruitless[run_id] == MAX_ATTEMPTS, f"{run_id} was given up after {fruitless[run_id]} attempts", event)


def _is_fruit(event: Json) -> bool:
    """Whether something of a run was finished, and not just broken off."""
    match event["type"]:
        case "step.completed":
            return True
        case "tool.completed":
            return event["status"] not in ("interrupted", "cancelled")
        case "interaction.resolved":
            return bool(event["outcome"] != "cancelled")
        case _:
            return False


def _commands(sent: Iterable[Sent], events: list[Json]) -> None:
    """What was answered ``ok`` is in the log once; what was refused is not there."""
    sent = list(sent)
    again = {ok["run_id"] for one in sent if one.frame["type"] == "run.retry" for ok in one.oks}
    again |= {event["new_run_id"] for event in events if "new_run_id" in event}
    inputs = {event["run_id"]: event["input"] for event in events if event["type"] in ("run.queued", "run.started")}
    texts = Counter(str(said) for run_id, said in inputs.items() if run_id not in again)
    steers = Counter(e["text"] for e in events if e["type"] == "run.steered" and e["disposition"] == "pending")
    titles = Counter(e["config"].get("title") for e in events if e["type"] == "conversation.configured")
    for one in sent:
        frame, ok = one.frame, one.oks[0] if one.oks else None
        wanted = int(ok is not None)
        match frame["type"]:
            case "run.start":
                there = texts[frame["input"]] + steers[frame["input"]]
            case "run.steer":
                there = texts[frame["text"]] + steers[frame["text"]]
            case "conversation.configure":
                there = titles[frame["config"]["title"]]
            case "run.retry":
                there = int(ok is not None and inputs.get(ok["run_id"]) == inputs[frame["run_id"]])
            case _:
                continue
        _must(there == wanted, f"in the log {there} times, answered {ok or one.errors}", frame)
        _must(ok is None or "run_id" not in ok or ok["run_id"] in inputs, f"no such run is there: {ok}", frame)


def _answers(sent: Iterable[Sent], events: list[Json]) -> None:
    """Of those who answered a question one was right, and the others were told whose answer it was."""
    resolved = {event["interaction_id"]: event for event in events if event["type"] == "interaction.resolved"}
    asked = {event["interaction_id"]: event for event in events if event["type"] == "interaction.requested"}
    ended = {event["call_id"]: event for event in events if event["type"] == "tool.completed"}
    accepted: dict[str, list[Json]] = {}
    for one in sent:
        if one.frame["type"] == "interaction.reply" and one.frame["interaction_id"] in resolved:
            name = one.frame["interaction_id"]
            if one.oks:
                accepted.setdefault(name, []).append(one.frame)
            elif one.errors:
                codes = {error["code"] for error in one.errors}
                _must(codes <= {"interaction_resolved", "interaction_expired"}, f"refused as {codes}", one.frame)
                told = one.errors[-1]["details"]["resolution"]
                _must(told == resolved[name], f"told {told} instead of {resolved[name]}", one.frame)
    for name, resolution in resolved.items():
        frames = accepted.get(name, [])
        wanted = int(resolution["outcome"] == "answered")
        _must(len(frames) == wanted, f"{len(frames)} answers were taken", resolution)
        for frame in frames:
            for part in ("option", "answers", "arguments"):
                _must(frame.get(part) == resolution.get(part), f"{part} is not what was answered", frame)
            end = ended.get(asked[name].get("call_id", ""))
            if end is not None and "answers" in frame and end["status"] == "ok":
                _must(end["output"] == frame["answers"]["answer"], f"the model was told {end['output']!r}", frame)


def _must(holds: bool, otherwise: str, what: object = "") -> None:
    if not holds:
        raise Violation(f"{otherwise}: {str(what)[:2000]}")
