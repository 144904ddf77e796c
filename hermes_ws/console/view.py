"""Frames to text: what a person at a terminal reads.

Text is to be appended as it is: what the model says arrives in pieces and stays one line until it has a line break.
What comes from models and tools is shown without its control characters: an escape sequence in a command must not hide
from the person who approves it what the command is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from hermes_ws.protocol import events as ev
from hermes_ws.protocol.control import Snapshot
from hermes_ws.protocol.values import (
    By,
    ImagePart,
    Input,
    InteractionTool,
    Item,
    MessageItem,
    Option,
    Question,
    ReasoningItem,
    ToolCallItem,
)
from hermes_ws.readable import example, form_lines, line_field, one_line, page_lines, server_news, tool_name

__all__ = ["View", "input_text", "safe"]

SHORT: Final = 2_000
"""Characters of arguments that are shown in one line."""
RECENT: Final = 12
"""Items of the past that are shown on arrival."""
PREVIEW_LINES: Final = 20
"""Lines of a tool's output that are shown when it did not stream it."""

_UNSAFE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DIM, _BOLD, _RED, _YELLOW, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[0m"


def safe(text: str) -> str:
    """Text without control characters; each shows as its code."""
    return _UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))


def input_text(value: Input) -> str:
    """An input as text."""
    if isinstance(value, str):
        return value
    return "\n".join(part.line if isinstance(part, ImagePart) else part.text for part in value)


class View:
    """Renders what happens. Remembers what is half said."""

    def __init__(self, *, color: bool, echoed: str | None = None) -> None:
        """``echoed`` is the client id of a terminal that shows by itself what its person types."""
        self._color = color
        self._echoed = echoed
        self._queued: set[str] = set()
        self._item: str | None = None
        self._said: dict[str, str] = {}
        self._at_line_start = True
        self._printed: set[str] = set()
        self._asking: set[str] = set()

    # -- pieces ----------------------------------------------------------------------------------------

    def note(self, text: str) -> str:
        """A line of ours, on a line of its own."""
        return self._line(text, _DIM)

    def problem(self, text: str) -> str:
        """A line about something that went wrong."""
        return self._line(f"! {safe(text)}", _RED)

    def _style(self, text: str, style: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._color and style and text.strip() else text

    def _line(self, text: str, style: str = "") -> str:
        return self._fresh() + "\n".join(self._style(line, style) for line in text.split("\n")) + "\n"

    def _fresh(self) -> str:
        """What it takes to be at the start of a line."""
        broken, self._at_line_start, self._item = not self._at_line_start, True, None
        return "\n" if broken else ""

    def _piece(self, item: str, text: str, style: str = "", *, indent: str = "") -> str:
        """More of what is being said under ``item``."""
        lead = self._fresh() if self._item != item else ""
        self._item = item
        shown = ""
        for line in re.findall(r"[^\n]*\n|[^\n]+", safe(text)):
            body = line.removesuffix("\n")
            shown += (indent if self._at_line_start else "") + self._style(body, style) + line[len(body) :]
            self._at_line_start = line.endswith("\n")
        return lead + shown

    # -- events ----------------------------------------------------------------------------------------

    def event(self, event: ev.Event | ev.UnknownEvent) -> str:
        """What to append for an event."""
        match event:
            case ev.MessageDelta():
                return self._delta(event.item_id, event.delta)
            case ev.ReasoningDelta():
                return self._thought(event.item_id, event.delta)
            case ev.MessageCompleted():
                cut = self.note("[cut short]") if event.partial else ""
                return self._whole(event.item_id, event.text) + cut
            case ev.ReasoningAvailable():
                lead = "" if event.item_id in self._said else self._thought(event.item_id, "")
                return lead + self._whole(event.item_id, event.text, _DIM)
            case ev.ItemDiscarded():
                self._said.pop(event.item_id, None)
                return self.note(f"· that does not count ({event.reason})")
            case ev.ToolStarted() | ev.ToolOutput() | ev.ToolCompleted():
                return self._tool(event)
            case ev.InteractionRequested():
                return self.asked(event)
            case ev.InteractionResolved():
                return self._resolved(event)
            case _:
                return self._run(event)

    def _delta(self, item: str, text: str, style: str = "") -> str:
        self._said[item] = self._said.get(item, "") + text
        return self._piece(item, text, style)

    def _thought(self, item: str, text: str) -> str:
        lead = "" if item in self._said else self._piece(item, "(thinking) ", _DIM)
        return lead + self._delta(item, text, _DIM)

    def _whole(self, item: str, text: str, style: str = "") -> str:
        """The rest of it; all of it, if what was shown is not how it begins."""
        said = self._said.pop(item, "")
        rest = text[len(said) :] if text.startswith(said) else text
        if not text:
            return ""
        return (self._piece(item, rest, style) if rest else "") + self._fresh()

    def _run(self, event: ev.Event | ev.UnknownEvent) -> str:
        match event:
            case ev.RunQueued():
                self._queued.add(event.run_id)
                return self.note(f"· waits, at place {event.position}: {safe(input_text(event.input))}")
            case ev.RunStarted():
                return self._started(event)
            case ev.RunSteered():
                return self._steered(event)
            case ev.RunRecovered():
                return self.note(f"· the server was restarted; the run goes on (attempt {event.attempt})")
            case ev.RunStopping():
                return self.note(f"· stopping, says {_who(event.by)}")
            case ev.RunCompleted():
                tokens, seconds = event.usage.total_tokens, event.duration_ms / 1000
                ended = "" if event.stop_reason == "end" else f"{event.stop_reason}, "
                return self.note(f"· done ({ended}{tokens} tokens, {seconds:.1f} s)")
            case ev.RunFailed():
                return self.problem(f"failed: {event.error.code}: {event.error.message}")
            case ev.RunCancelled():
                return self.note(f"· stopped by {_who(event.by)}")
            case ev.ConversationConfigured():
                return self.note(f"· configuration {event.version}: {_json(event.config)}")
            case ev.McpStatus(state="failed" | "auth_required"):
                return self.problem(server_news(event))
            case ev.McpStatus():
                return self.note(f"· {safe(server_news(event))}")
            case _:
                return ""

    def _started(self, event: ev.RunStarted) -> str:
        on_screen = self._echoed is not None and event.by.client_id == self._echoed and event.run_id not in self._queued
        self._queued.discard(event.run_id)
        if event.retry_of is not None:
            return self.note(f"· goes on where {event.retry_of} ended")
        if on_screen:
            return ""
        return self.said_by_person(input_text(event.input))

    def said_by_person(self, text: str) -> str:
        """What a person said, to the agent or to us."""
        return self._line("> " + safe(text).replace("\n", "\n  "), _BOLD)

    def _steered(self, event: ev.RunSteered) -> str:
        match event.disposition:
            case "applied":
                return self.note(f"· the agent has heard: {safe(event.text)}")
            case "queued":
                return self.note(f"· too late for this run, so it is the next one: {safe(event.text)}")
            case "returned":
                return self.note(f"· too late, not said: {safe(event.text)}")
            case "pending":
                return ""

    # -- tools -----------------------------------------------------------------------------------------

    def _tool(self, event: ev.ToolStarted | ev.ToolOutput | ev.ToolCompleted) -> str:
        match event:
            case ev.ToolStarted(name="clarify", source="builtin"):
                self._asking.add(event.call_id)
                return ""
            case ev.ToolCompleted(status="ok") if event.call_id in self._asking:
                self._asking.discard(event.call_id)
                return ""
            case ev.ToolStarted():
                return self._line(f"▸ {_called(event)} {_json(event.arguments)}", _YELLOW)
            case ev.ToolOutput(chunk=str(chunk)):
                self._printed.add(event.call_id)
                return self._piece(event.call_id, chunk, _DIM, indent="  ")
            case ev.ToolOutput():
                total = f"/{event.total:g}" if event.total else ""
                return self.note(f"  {event.progress or 0:g}{total} {safe(one_line(event.message or ''))}".rstrip())
            case ev.ToolCompleted():
                return self._tool_completed(event)

    def _tool_completed(self, event: ev.ToolCompleted) -> str:
        streamed = event.call_id in self._printed
        self._printed.discard(event.call_id)
        shown = "" if streamed else self._preview(event.output)
        result = f"◂ {safe(event.name)}: {event.status}"
        match event.structured:
            case {"exit_code": int(code)} if code:
                result += f", exit code {code}"
            case _:
                pass
        more = ", there is more" if event.truncated else ""
        images = [f"  {safe(part.line)}" for part in event.content or [] if isinstance(part, ImagePart)]
        ended = f"{result}{more} ({event.duration_ms / 1000:.1f} s)"
        return shown + self._line("\n".join([ended, *images]), _YELLOW)

    def _preview(self, output: str) -> str:
        lines = safe(output).rstrip("\n").split("\n")
        if not output.strip():
            return ""
        more = [f"… {len(lines) - PREVIEW_LINES} more lines"] if len(lines) > PREVIEW_LINES else []
        return self._line("\n".join(f"  {line}" for line in [*lines[:PREVIEW_LINES], *more]), _DIM)

    # -- questions -------------------------------------------------------------------------------------

    def asked(self, asked: ev.InteractionRequested) -> str:
        """A question, with what may be answered."""
        lines = [f"? {safe(one_line(asked.title))}" + (f"  (risk: {asked.tool.risk})" if asked.tool else "")]
        if asked.tool is not None:
            lines.append(f"    {safe(_qualified(asked.tool))} {_json(asked.tool.arguments, None)}")
        elif asked.message and asked.message != asked.title:
            lines += [f"    {line}" for line in safe(asked.message).split("\n")]
        lines += [f"    {line}" for line in _choices(asked)]
        return self._line("\n".join(lines), _BOLD)

    def _resolved(self, event: ev.InteractionResolved) -> str:
        if event.outcome != "answered":
            return self.note(f"· the question is {event.outcome}")
        filled = [] if event.content is None else [_json(event.content)]
        given = [_given(value) for value in (event.answers or {}).values()]
        answer = ", ".join([*([event.option] if event.option else []), *given, *filled])
        edited = f" with {_json(event.arguments)}" if event.arguments is not None else ""
        why = f" ({safe(event.comment)})" if event.comment else ""
        return self.note(f"· answered by {_who(event.by)}: {safe(answer)}{edited}{why}")

    # -- the past --------------------------------------------------------------------------------------

    def snapshot(self, snapshot: Snapshot) -> str:
        """The state on arrival: the newest items, what runs, what is asked."""
        self._said.clear()
        left_out = max(0, len(snapshot.items) - RECENT)
        shown = self.note("· there is more before this") if left_out or snapshot.before else ""
        shown += "".join(self._past(item) for item in snapshot.items[left_out:])
        shown += "".join(self.note(f"· waits: {safe(input_text(run.input))}") for run in snapshot.queue)
        return shown + "".join(self.asked(asked) for asked in snapshot.interactions)

    def _past(self, item: Item) -> str:
        match item:
            case MessageItem(role="user"):
                return self.said_by_person(input_text(item.content))
            case MessageItem(status="in_progress"):
                return self._delta(item.item_id, item.text)
            case ReasoningItem(status="in_progress"):
                return self._thought(item.item_id, item.text)
            case MessageItem():
                return self._whole(item.item_id, item.text)
            case ReasoningItem():
                return self._thought(item.item_id, "") + self._whole(item.item_id, item.text, _DIM)
            case ToolCallItem(name="clarify", source="builtin", status="executing"):
                self._asking.add(item.call_id)
                return ""
            case ToolCallItem():
                return self._line(f"▸ {_called(item)} {_json(item.arguments)} → {item.status}", _YELLOW)


def _qualified(tool: InteractionTool) -> str:
    return tool_name(tool.source, tool.name)


def _called(call: ev.ToolStarted | ToolCallItem) -> str:
    """The tool, and whose it is if it is not the server's own."""
    return safe(f"{call.name} ({call.source})" if call.source.startswith("mcp:") else call.name)


def _given(answer: Any) -> str:
    return "•••" if answer == {"redacted": True} else str(answer)


def _who(by: By) -> str:
    return safe(f"{by.principal} ({by.client_id})" if by.client_id else by.principal)


def _json(value: Any, limit: int | None = SHORT) -> str:
    text = safe(msgspec.json.encode(value).decode())
    return text if limit is None or len(text) <= limit else text[:limit] + "…"


def _choices(asked: ev.InteractionRequested) -> Iterable[str]:
    if asked.kind == "form":
        yield from _form(asked)
        return
    for option in asked.options or []:
        yield _option(option)
    if asked.kind == "approval" and asked.editable:
        yield "[e]dit          change the arguments, then allow it once"
    for question in asked.questions or []:
        yield from _question(question)
    if asked.kind == "client_tool":
        yield "nothing to answer here: a program executes it"


def _form(asked: ev.InteractionRequested) -> Iterable[str]:
    if asked.url is not None:
        yield from map(safe, page_lines(asked.url))
        yield "[a]ccept        It is done"
    else:
        schema = asked.schema or {}
        lines = form_lines(schema)
        yield from map(safe, lines)
        either = "type the answer, or " if line_field(schema) else ""
        yield f"{either}a JSON object, such as {safe(example(schema))}" if lines else "[a]ccept"
    yield "[d]ecline"


def _option(option: Option) -> str:
    name = f"[{option.id[:1]}]{option.id[1:]}"
    remembers = ""
    if option.rule is not None:
        match = option.rule.match
        when = f" when {_json(match)}" if match else ", whatever its arguments"
        remembers = f" — remembers {safe(option.rule.tool)}{when}"
    why = "; say why after it" if option.kind == "deny" else ""
    return f"{name:<15} {safe(option.label)}{why}{remembers}"


def _question(question: Question) -> Iterable[str]:
    for number, option in enumerate(question.options or [], 1):
        yield f"{number}) {safe(one_line(option.label))}"
    match question.type:
        case "multi":
            yield "(one or several, separated by commas)"
        case "boolean":
            yield "(yes or no)"
        case "number":
            yield "(a number)"
        case "secret":
            yield "(neither shown nor written down)"
        case _:
            pass
    if question.options and question.allow_other:
        yield "(or something else)"
    if not question.required:
        yield "(/answer alone gives none)"
