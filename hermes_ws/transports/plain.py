"""The readable terminal of ``plain=1``: frames out become short lines, lines in become commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from hermes_ws.answer_lines import NotUnderstood, accepted, answered, declined, filled_in
from hermes_ws.errors import CommandError
from hermes_ws.protocol import commands as cmd
from hermes_ws.protocol import control as ctl
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_command, decode_frame, encode
from hermes_ws.protocol.values import (
    ApprovalRule,
    ImagePart,
    Input,
    MessageItem,
    Question,
    ToolCallItem,
    ToolDescription,
)
from hermes_ws.readable import example, form_lines, line_field, one_line, page_lines, server_news, tool_name
from hermes_ws.state import State

__all__ = ["HELP", "asked_lines", "parse_line", "plain_lines", "shown"]

HELP = """\
a line           start a run with it (or answer the one open question)
/stop [now]      stop the run; now: give its tools no time
/retry           go on where the last run failed or was stopped
/steer TEXT      say something to the run at work
/approve [scope] allow what is asked: once (default), run, conversation, always; done: the page was seen to
/deny [why]      refuse it; decline a form or a page
/answer TEXT     answer the question; with nothing after it: leave it unanswered, where that is possible
/answer {...}    fill in the form; one with a single field takes a line
/tools           the tools that may be used here
/allow GLOB      let this conversation use more tools
/help            this
{...}            a JSON frame, as it is"""

_SHORT = 2_000
_ORDERS = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
_DIRECTIONS = [0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_CONTROL = dict.fromkeys([*_ORDERS, *_DIRECTIONS])
"""What a terminal may take for an order, or what has it show text in another sequence: no tool or model gives the
person's any."""


def plain_lines(payload: bytes) -> Iterable[str]:
    """The lines for one frame; none for what a reader can do without (deltas: the whole text follows)."""
    return map(shown, _lines(payload))


def shown(line: str) -> str:
    """A line without what a terminal may take for an order."""
    return line.translate(_CONTROL)


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
        case ctl.Live() | ctl.Heartbeat() | ctl.Skipped() | ctl.InboxPage() | ctl.InboxChanged() | ctl.InboxRemoved():
            return
        case _:
            yield from _event(frame)


def _snapshot(frame: ctl.SnapshotState) -> Iterable[str]:
    for item in frame.items:
        if isinstance(item, MessageItem):
            yield f"you: {_input_text(item.content)}" if item.role == "user" else f"agent: {item.text}"
        elif isinstance(item, ToolCallItem):
            yield f"▸ {item.name}{_whose(item.source)} {_json(item.arguments)} → {item.status}"
    for asked in frame.interactions:
        yield from asked_lines(asked)


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
            yield f"▸ {event.name}{_whose(event.source)} {_json(event.arguments)}"
        case ev.ToolOutput() if event.chunk:
            yield "  " + event.chunk.rstrip("\n").replace("\n", "\n  ")
        case ev.ToolOutput():
            yield f"  {event.progress}/{event.total or '?'} {one_line(event.message or '')}".rstrip()
        case ev.ToolCompleted():
            yield f"◂ {event.name}: {event.status}" + (f" · {_first_line(event)}" if event.status != "ok" else "")
            yield from (f"  {part.line}" for part in event.content or [] if isinstance(part, ImagePart))
        case ev.InteractionRequested():
            yield from asked_lines(event)
        case ev.InteractionResolved():
            yield f"· {event.outcome} by {event.by.principal}: {_answer(event)}"
        case ev.RunCompleted():
            yield f"· done ({event.stop_reason}, {event.usage.total_tokens} tokens, {event.duration_ms} ms)"
        case ev.RunFailed():
            yield f"! failed: {event.error.code}: {event.error.message}"
        case ev.RunCancelled():
            yield f"· stopped ({event.reason}) by {event.by.principal}"
        case ev.ConversationConfigured():
            yield f"· configuration {event.version}: {msgspec.json.encode(event.config).decode()}"
        case ev.McpStatus(state="failed" | "auth_required"):
            yield f"! {server_news(event)}"
        case ev.McpStatus(state="ready"):
            yield f"· {server_news(event)}"
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


def _whose(source: str) -> str:
    """Where a tool comes from, if it is not the server's own."""
    return f" ({source})" if source.startswith("mcp:") else ""


def _answer(event: ev.InteractionResolved) -> str:
    given = event.answers if event.answers is not None else event.content
    parts = [event.option, None if given is None else _json(given), event.comment]
    return " ".join(part for part in parts if part)


def asked_lines(asked: ev.InteractionRequested) -> Iterable[str]:
    """What is asked, and what may be typed."""
    yield f"? {asked.title}: {asked.message}".replace("\n", "\n  ")
    if asked.kind == "approval":
        yield from _decision(asked)
    elif asked.url is not None:
        yield from (f"  {line}" for line in page_lines(asked.url))
        yield "  /approve when it is done, or /deny [why]"
    elif asked.kind == "form":
        yield from _form(asked.schema or {})
    for question in asked.questions or []:
        yield from _question(question)


def _decision(asked: ev.InteractionRequested) -> Iterable[str]:
    if asked.tool is not None:
        tool = asked.tool
        name = tool_name(tool.source, tool.name) if tool.source.startswith("mcp:") else tool.name
        yield f"  {name} {_json(tool.arguments)} (risk: {tool.risk})"
    scopes = " | ".join(o.id for o in asked.options or [] if o.kind == "allow")
    yield f"  /approve [{scopes}] or /deny [why]"


def _form(schema: dict[str, Any]) -> Iterable[str]:
    lines = form_lines(schema)
    yield from (f"  {line}" for line in lines)
    fill = f"/answer {example(schema)}" if lines else "/approve"
    yield f"  {'type the answer, ' if line_field(schema) else ''}{fill} or /deny [why]"


def _question(question: Question) -> Iterable[str]:
    if question.options:
        yield f"  one of: {' | '.join(one_line(option.label) for option in question.options)}"
    hints = {"multi": ", several separated by commas", "boolean": ": yes or no", "number": ": a number"}
    how = "/answer VALUE" if question.type == "secret" else f"type the answer{hints.get(question.type, '')}"
    yield f"  {how}" + ("" if question.required else ", or /answer alone to give none")


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
    return f"{tool_name(tool.source, tool.name)} — {tool.description.split('. ')[0]}"


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
            return _approved(state, rest)
        case "/deny" | "/decline":
            return _denied(_oldest(state, "form") if word == "/decline" else _oldest(state, "approval", "form"), rest)
        case "/answer":
            return _reply(_oldest(state, "clarify", "form"), rest)
        case "/allow":
            if not rest:
                raise CommandError("invalid_frame", "/allow needs a name or glob, such as builtin:read_*")
            chosen = state.config.tools.allow if state.config.tools else None
            allow = default_tools if chosen is None else chosen
            return cmd.ConversationConfigure(config={"tools": {"allow": [*allow, rest]}})
        case _:
            return _said(state, line.strip())


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


def _open(state: State, *kinds: str) -> list[ev.InteractionRequested]:
    """Open interactions of these kinds, the oldest first."""
    return [asked for asked in state.interactions.values() if asked.kind in kinds]


def _oldest(state: State, *kinds: str) -> ev.InteractionRequested:
    for asked in _open(state, *kinds):
        return asked
    raise CommandError("interaction_not_found", f"no {' or '.join(kinds)} is open")


def _approved(state: State, how: str) -> cmd.InteractionReply:
    """A call goes ahead, or a form does: which one is not guessed where both are open."""
    if how in ("done", "accept"):
        return accepted(_oldest(state, "form"))
    if how:
        return _allowed(_oldest(state, "approval"), how)
    asked = _oldest(state, "approval", "form")
    if len({other.kind for other in _open(state, "approval", "form")}) > 1:
        message = "a tool call and a form are open: it is /approve once for the call, /approve done for the form"
        raise CommandError("invalid_option", message)
    return _allowed(asked, "once") if asked.kind == "approval" else accepted(asked)


def _allowed(asked: ev.InteractionRequested, scope: str) -> cmd.InteractionReply:
    return cmd.InteractionReply(interaction_id=asked.interaction_id, option=scope)


def _denied(asked: ev.InteractionRequested, why: str) -> cmd.InteractionReply:
    return _understood(asked, lambda: declined(asked, why or None))


def _said(state: State, line: str) -> cmd.Command:
    """What a line that is no command means: an answer, or else the beginning of a run. Which of several questions it
    would answer is not guessed, and what may have been meant for one of them does not become a run. A secret is never
    just a line: what is said to the agent would be kept, and sent to a server, as one."""
    questions = _open(state, "clarify", "form")
    if not questions:
        return cmd.RunStart(input=line)
    if len(questions) > 1:
        message = f"{len(questions)} questions are open; /answer answers the oldest, which is {questions[0].title!r}"
        raise CommandError("invalid_answer", message)
    if any(question.type == "secret" for question in questions[0].questions or []):
        raise CommandError("invalid_answer", f"{questions[0].title}: it is /answer VALUE, or /answer alone for none")
    return _reply(questions[0], line)


def _reply(asked: ev.InteractionRequested, line: str) -> cmd.InteractionReply:
    """The answer that a line is, within the bounds of a frame that came as one."""
    reply = _understood(asked, lambda: _read(asked, line))
    bounded = decode_command(encode(reply))
    assert isinstance(bounded, cmd.InteractionReply)
    return bounded


def _read(asked: ev.InteractionRequested, line: str) -> cmd.InteractionReply:
    if asked.url is not None:
        raise NotUnderstood("this waits for /approve, once it is done at its address, or /deny")
    if asked.kind == "form":
        return filled_in(asked, line)
    assert asked.questions is not None
    return answered(asked, asked.questions[0], line)


def _understood(asked: ev.InteractionRequested, read: Callable[[], cmd.InteractionReply]) -> cmd.InteractionReply:
    try:
        return read()
    except NotUnderstood as problem:
        raise CommandError("invalid_answer", f"{asked.title}: {problem}") from None
