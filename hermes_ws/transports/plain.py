"""The readable terminal of ``plain=1``: frames out become short lines, lines in become commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from hermes_ws.errors import CommandError
from hermes_ws.protocol import commands as cmd
from hermes_ws.protocol import control as ctl
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_frame
from hermes_ws.protocol.values import ApprovalRule, ImagePart, Input, MessageItem, ToolCallItem, ToolDescription
from hermes_ws.state import State

__all__ = ["HELP", "parse_line", "plain_lines"]

HELP = """\
a line           start a run with it (or answer the one open question)
/stop [now]      stop the run; now: give its tools no time
/retry           go on where the last run failed or was stopped
/steer TEXT      say something to the run at work
/approve [scope] allow what is asked: once (default), run, conversation, always
/deny [why]      refuse it
/answer TEXT     answer the question
/tools           the tools that may be used here
/allow GLOB      let this conversation use more tools
/help            this
{...}            a JSON frame, as it is"""

_SHORT = 2_000
_CONTROL = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""What a terminal may take for an order: no tool or model gives any to the person's."""


def plain_lines(payload: bytes) -> Iterable[str]:
    """The lines for one frame; none for what a reader can do without (deltas: the whole text follows)."""
    for line in _lines(payload):
        yield line.translate(_CONTROL)


def _lines(payload: bytes) -> Iterable[str]:
    frame = decode_frame(payload)
    match frame:
        case ctl.Hello():
            server = frame.server
            yield f"{server.name} {server.version} · conversation {frame.conversation_id} · {frame.hint}"
        case ctl.Snapshot():
            yield from _snapshot(frame)
        case ctl.Ok():
            yield from _ok(frame)
        case ctl.Error():
            yield f"! {frame.message}" + (f" ({frame.path})" if frame.path else "")
        case ctl.GoAway():
            yield f"· {frame.reason}; come back in {frame.reconnect_after_ms} ms"
        case ctl.Live() | ctl.Heartbeat() | ctl.Skipped():
            return
        case _:
            yield from _event(frame)


def _snapshot(frame: ctl.SnapshotState) -> Iterable[str]:
    for item in frame.items:
        if isinstance(item, MessageItem):
            yield f"you: {_input_text(item.content)}" if item.role == "user" else f"agent: {item.text}"
        elif isinstance(item, ToolCallItem):
            yield f"▸ {item.name} {_json(item.arguments)} → {item.status}"
    for asked in frame.interactions:
        yield from _asked(asked)


def _event(event: ev.Event | ev.UnknownEvent) -> Iterable[str]:
    match event:
        case ev.RunQueued():
            yield f"· queued at {event.position}: {_input_text(event.input)}"
        case ev.RunStarted() if event.retry_of is not None:
            yield f"· goes on where {event.retry_of} ended"
        case ev.RunStarted():
            yield f"you: {_input_text(event.input)}"
        case ev.RunRecovered():
            yield f"· the server was restarted; the run goes on (attempt {event.attempt})"
        case ev.RunSteered() if event.disposition != "pending":
            yield f"· steer {event.disposition}: {event.text}"
        case ev.ReasoningAvailable():
            yield f"(thinking) {event.text}"
        case ev.MessageCompleted():
            yield f"agent: {event.text}" + (" [cut short]" if event.partial else "")
        case ev.ItemDiscarded():
            yield f"· what was being said is discarded ({event.reason})"
        case ev.ToolStarted():
            yield f"▸ {event.name} {_json(event.arguments)}"
        case ev.ToolOutput() if event.chunk:
            yield "  " + event.chunk.rstrip("\n").replace("\n", "\n  ")
        case ev.ToolOutput():
            yield f"  {event.progress}/{event.total or '?'} {event.message or ''}".rstrip()
        case ev.ToolCompleted():
            yield f"◂ {event.name}: {event.status}" + (f" · {_first_line(event)}" if event.status != "ok" else "")
            yield from (f"  {part.line}" for part in event.content or [] if isinstance(part, ImagePart))
        case ev.InteractionRequested():
            yield from _asked(event)
        case ev.InteractionResolved():
            yield f"· {event.outcome} by {event.by.principal}: {event.option or _json(event.answers or {})}"
        case ev.RunCompleted():
            yield f"· done ({event.stop_reason}, {event.usage.total_tokens} tokens, {event.duration_ms} ms)"
        case ev.RunFailed():
            yield f"! failed: {event.error.code}: {event.error.message}"
        case ev.RunCancelled():
            yield f"· stopped ({event.reason}) by {event.by.principal}"
        case ev.ConversationConfigured():
            yield f"· configuration {event.version}: {msgspec.json.encode(event.config).decode()}"
        case _:
            return


def _input_text(value: Input) -> str:
    if isinstance(value, str):
        return value
    return "\n".join(part.line if isinstance(part, ImagePart) else part.text for part in value)


def _first_line(event: ev.ToolCompleted) -> str:
    structured = event.structured
    if isinstance(structured, dict) and "exit_code" in structured:
        return f"exit code {structured['exit_code']}"
    return event.output.strip().split("\n")[0][:200]


def _asked(asked: ev.InteractionRequested) -> Iterable[str]:
    yield f"? {asked.title}: {asked.message}"
    if asked.kind == "approval":
        if asked.tool is not None:
            yield f"  {asked.tool.name} {_json(asked.tool.arguments)} (risk: {asked.tool.risk})"
        scopes = " | ".join(o.id for o in asked.options or [] if o.kind == "allow")
        yield f"  /approve [{scopes}] or /deny [why]"
    for question in asked.questions or []:
        if question.options:
            yield f"  one of: {' | '.join(option.label for option in question.options)}"
        yield "  type the answer"


def _ok(frame: ctl.Ok) -> Iterable[str]:
    """What the person asked to see; what a command did is told by its events."""
    if frame.head is not None:
        yield f"· head {frame.head}"
    for command in frame.commands or []:
        yield f"  {command.type} — {command.description.split('. ')[0]}"
    if frame.snapshot is not None:
        yield f"· at {frame.snapshot.at}"
        yield from _snapshot(frame.snapshot)
    yield from _several(frame.rules, _rule, "no approvals are remembered")
    yield from _several(frame.tools, _tool, "no tools are allowed here")


def _several(things: list[Any] | None, shown: Callable[[Any], str], none: str) -> Iterable[str]:
    if things is not None:
        yield from (f"  {shown(thing)}" for thing in things) if things else [f"  {none}"]


def _rule(rule: ApprovalRule) -> str:
    match = "" if rule.rule.match is None else " " + _json(rule.rule.match)
    return f"{rule.rule_id}: {rule.scope}: {rule.rule.tool}{match} (by {rule.by.principal})"


def _tool(tool: ToolDescription) -> str:
    return f"{tool.source}:{tool.name} — {tool.description.split('. ')[0]}"


def _json(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"


# -- lines in ------------------------------------------------------------------------------------------


def parse_line(line: str, state: State, default_tools: Sequence[str]) -> cmd.Command | str:
    """The command that a line means, or text to show. ``state`` tells what is open; ``default_tools`` are those
    of a conversation that names none.

    Raises :class:`CommandError` when the line needs something to be open that is not, or lacks a word.
    """
    word, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    match word:
        case "/help":
            return HELP
        case "/stop":
            return _stop(rest)
        case "/steer":
            if not rest:
                raise CommandError("invalid_frame", "/steer needs what to say")
            return cmd.RunSteer(text=rest)
        case "/retry":
            return cmd.RunRetry(run_id=_last_cut_short(state))
        case "/tools":
            return cmd.ToolsList()
        case "/approve":
            return cmd.InteractionReply(interaction_id=_open(state, "approval").interaction_id, option=rest or "once")
        case "/deny":
            asked = _open(state, "approval")
            return cmd.InteractionReply(interaction_id=asked.interaction_id, option="deny", comment=rest or None)
        case "/answer":
            return _answer(_open(state, "clarify"), rest)
        case "/allow":
            if not rest:
                raise CommandError("invalid_frame", "/allow needs a name or glob, such as builtin:read_*")
            chosen = state.config.tools.allow if state.config.tools else None
            allow = default_tools if chosen is None else chosen
            return cmd.ConversationConfigure(config={"tools": {"allow": [*allow, rest]}})
        case _:
            questions = [i for i in state.interactions.values() if i.kind == "clarify"]
            return _answer(questions[0], line.strip()) if len(questions) == 1 else cmd.RunStart(input=line.strip())


def _stop(how: str) -> cmd.RunStop:
    if how not in ("", "now"):
        raise CommandError("invalid_frame", f"it is /stop or /stop now, not /stop {how[:80]}")
    return cmd.RunStop(mode="now" if how else None)


def _last_cut_short(state: State) -> str:
    """The last run that ended, if it failed or was stopped."""
    run_id, status = next(reversed(state.ended.items()), ("", "completed"))
    if status == "completed":
        raise CommandError("run_not_found", "the last run has not failed or been stopped")
    return run_id


def _open(state: State, kind: str) -> ev.InteractionRequested:
    """The oldest open interaction of this kind."""
    found = next((asked for asked in state.interactions.values() if asked.kind == kind), None)
    if found is None:
        raise CommandError("interaction_not_found", f"no {kind} is open")
    return found


def _answer(asked: ev.InteractionRequested, text: str) -> cmd.InteractionReply:
    assert asked.questions is not None
    question = asked.questions[0]
    value: Any = [part.strip() for part in text.split(",")] if question.type == "multi" else text
    return cmd.InteractionReply(interaction_id=asked.interaction_id, answers={question.id: value})
