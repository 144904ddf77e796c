"""The demo model: deterministic, embedded, honest about being a demo.

It lets the real server run, with real tools and real people, where there is no key and no network. Plain text is
answered with a short reply that quotes it. A message with lines that begin with ``/`` is a script, one step per line:

=========================  =============================================================================
``/say TEXT``              say it (as does a line without ``/``)
``/think TEXT``            think it
``/tool NAME {json}``      call any tool
``/run COMMAND``           call the terminal
``/ask QUESTION | a | b``  ask the person, with choices or without
``/stream N [ms]``         a message of N deltas, with a pause after each
``/sleep S``               take S seconds
``/fail CODE [times]``     fail as a model endpoint does; with ``times``, that often and then no more
``/par``                   between two calls: make them side by side, in one step
=========================  =============================================================================

It tells where it is in a script from the history alone: one assistant turn for every step that is done. Functions that
a client brought along are called by plain text too, see :mod:`~hermes_ws.agents.llm.functions`. Of the parameters of a
run, ``max_tokens`` ends an answer early, ``response_format`` gives it its form, and ``parallel_tool_calls`` is heeded.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import anyio.lowlevel
import msgspec

from hermes_ws.agents.base import Agent
from hermes_ws.agents.llm.functions import called, calls_for, reply, shaped
from hermes_ws.agents.llm.loop import LlmAgent, LlmSettings
from hermes_ws.agents.llm.model import Finish, Model, ModelPart, ModelRequest, ReasoningDelta, TextDelta, ToolCall
from hermes_ws.errors import RUN_CODES, AgentError, ModelError, RunCode
from hermes_ws.history import AssistantTurn, HistoryEntry, ToolAnswer, UserTurn
from hermes_ws.protocol.values import Usage

__all__ = ["DemoModel", "create"]

STREAM_MAX: Final = 1_000_000
SLEEP_MAX_S: Final = 86_400.0
WORD_PAUSE_S: Final = 0.004
SPEECH_S: Final = 0.2
_WORDS: Final = re.compile(r"\S+\s*|\s+")


def create(config: dict[str, Any]) -> Agent:
    """The demo agent. ``config`` is the agent's table in the configuration (see :class:`LlmSettings`)."""
    return LlmAgent(DemoModel(), msgspec.convert(config, LlmSettings))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a script: a directive and what follows it."""

    directive: str
    rest: str


class DemoModel(Model):
    """See the top of the module."""

    @property
    def default_name(self) -> str:
        return "demo"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelPart, None]:
        written, most = 0, _most(request.parameters)
        async with aclosing(self._answer(request)) as parts:
            async for part in parts:
                match part:
                    case TextDelta(text) | ReasoningDelta(text):
                        left = most - written
                        written += min(left, len(text))
                        if left:
                            yield type(part)(text[:left])
                        if len(text) > left:
                            yield Finish("length", _usage(request, written))
                            return
                    case Finish():
                        yield Finish(part.reason, _usage(request, written))
                    case _:
                        yield part

    async def _answer(self, request: ModelRequest) -> AsyncGenerator[ModelPart, None]:
        now = _position(request.history)
        steps = parse(now.said)
        if now.steered is not None:
            parts = _speak(f"You steered me: “{now.steered}”.")
        elif steps is None:
            parts = _reply(request, now)
        else:
            parts = _perform(steps, _done(steps, now), request)
        finish = Finish()
        async for part in parts:
            if isinstance(part, Finish):
                finish = part
            else:
                yield part
        yield finish

    def goes_on(self, history: list[HistoryEntry]) -> bool:
        now = _position(history)
        steps = parse(now.said)
        if steps is None:
            return all(turn.calls for turn in now.turns)
        return _done(steps, now) < len(steps)


def parse(text: str) -> list[list[Line]] | None:
    """A script's steps, each the lines to perform together; None when the text is no script."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not any(line.startswith("/") for line in lines):
        return None
    steps: list[list[Line]] = []
    joined = False
    for line in lines:
        head, _, rest = line.partition(" ")
        if head == "/par":
            joined = True
            continue
        parsed = Line(head[1:], rest.strip()) if head.startswith("/") else Line("say", line)
        if joined and steps and _calls(parsed) and all(map(_calls, steps[-1])):
            steps[-1].append(parsed)
        else:
            steps.append([parsed])
        joined = False
    return steps


def _calls(line: Line) -> bool:
    return line.directive in ("tool", "run", "ask")


@dataclass(slots=True)
class _Position:
    """What the user said last, and what came of it: the steps that are done, what their calls were answered, and what
    was steered since and not yet answered."""

    said: str = ""
    turns: list[AssistantTurn] = field(default_factory=list[AssistantTurn])
    answers: list[ToolAnswer] = field(default_factory=list[ToolAnswer])
    steered: str | None = None


def _position(history: list[HistoryEntry]) -> _Position:
    now = _Position()
    for entry in history:
        if isinstance(entry, UserTurn) and entry.steered:
            now.steered = entry.text if now.steered is None else f"{now.steered}\n{entry.text}"
        elif isinstance(entry, UserTurn):
            now = _Position(said=entry.text)
        elif isinstance(entry, ToolAnswer):
            now.answers.append(entry)
        else:
            now.turns += [entry] if now.steered is None else []
            now.steered = None
    return now


def _done(steps: list[list[Line]], now: _Position) -> int:
    """How many steps of a script are done: one for every turn. A client that brings the history along tells only of the
    turns that called its functions, so what came before such a call is done as well."""
    done = 0
    for turn in now.turns:
        names = {call.name for call in turn.calls if call.source == "client"}
        done = next((n for n in range(done, len(steps)) if names & _functions(steps[n])), done) + 1
    return done


def _functions(step: list[Line]) -> set[str]:
    """The names that ``/tool`` calls in a step."""
    return {line.rest.partition(" ")[0].removeprefix("client:") for line in step if line.directive == "tool"}


async def _reply(request: ModelRequest, now: _Position) -> AsyncGenerator[ModelPart, None]:
    """Plain text is answered with calls of a client's functions, or with words."""
    calls, problems = calls_for(request, now.said, (call.name for turn in now.turns for call in turn.calls))
    words, reason = " ".join(problems), Finish().reason
    if not calls:
        words, reason = shaped(request, now.said, " ".join([*problems, reply(now.said, now.answers)]))
    async for part in _speak(words):
        yield part
    for call in calls:
        yield call
    yield Finish(reason)


async def _perform(steps: list[list[Line]], done: int, request: ModelRequest) -> AsyncGenerator[ModelPart, None]:
    """The next step of a script."""
    for line in steps[done] if done < len(steps) else []:
        async for part in _line(line, request):
            yield part


async def _line(line: Line, request: ModelRequest) -> AsyncGenerator[ModelPart, None]:
    """One line of a script."""
    match line.directive:
        case "say":
            parts = _speak(line.rest)
        case "think":
            parts = _speak(line.rest, ReasoningDelta)
        case "stream":
            parts = _stream(line.rest)
        case "sleep":
            parts = _sleep(line.rest)
        case "fail":
            parts = _fail(line.rest, request.attempt)
        case "tool" | "run" | "ask":
            parts = _call(line, request)
        case unknown:
            known = "/say /think /tool /run /ask /stream /sleep /fail /par"
            parts = _speak(f"I do not know /{unknown}. I know {known}.")
    async for part in parts:
        yield part


async def _speak(
    text: str, kind: type[TextDelta] | type[ReasoningDelta] = TextDelta
) -> AsyncGenerator[ModelPart, None]:
    """Word by word, at a pace that shows it is streamed but keeps nobody waiting."""
    words = _WORDS.findall(text)
    pause_s = min(WORD_PAUSE_S, SPEECH_S / (len(words) or 1))
    for word in words:
        yield kind(word)
        await anyio.sleep(pause_s)


async def _stream(rest: str) -> AsyncGenerator[ModelPart, None]:
    count, pause_ms = _numbers(rest)
    for n in range(int(min(count, STREAM_MAX))):
        yield TextDelta(f"{n} ")
        await (anyio.sleep(pause_ms / 1000) if pause_ms else anyio.lowlevel.checkpoint())


async def _sleep(rest: str) -> AsyncGenerator[ModelPart, None]:
    seconds, _ = _numbers(rest)
    await anyio.sleep(min(seconds, SLEEP_MAX_S))
    return
    yield  # makes this a generator


async def _fail(rest: str, attempt: int) -> AsyncGenerator[ModelPart, None]:
    code, _, times = rest.partition(" ")
    if times and attempt > _numbers(times)[0]:
        yield TextDelta(f"Failed {times.strip()} times with {code}, and then no more.")
        return
    known: dict[str, RunCode] = {name: name for name in RUN_CODES}  # type: ignore[misc]
    if code not in known:
        raise AgentError("model_bad_response", f"/fail does not know {code!r}; it knows {', '.join(RUN_CODES)}")
    if times:
        yield TextDelta("This half-said answer will be discarded … ")
    raise ModelError(known[code], f"the script said /fail {rest}")


async def _call(line: Line, request: ModelRequest) -> AsyncGenerator[ModelPart, None]:
    try:
        yield _tool_call(line, request)
    except ValueError as problem:
        async for part in _speak(f"I cannot make a call of “/{line.directive} {line.rest}”: {problem}."):
            yield part


def _tool_call(line: Line, request: ModelRequest) -> ToolCall:
    if line.directive == "run":
        return ToolCall("terminal", {"command": line.rest})
    if line.directive == "ask":
        question, *choices = [piece.strip() for piece in line.rest.split("|")]
        return ToolCall("clarify", {"question": question, **({"choices": choices} if choices else {})})
    name, _, given = line.rest.partition(" ")
    if not name:
        raise ValueError("it goes /tool NAME {json object}")
    return ToolCall(called(name, request.tools), msgspec.json.decode(given.strip() or "{}", type=dict[str, Any]))


def _numbers(rest: str) -> tuple[float, float]:
    """The one or two numbers after a directive; what is no number is 0."""
    numbers = [*map(_number, rest.split()), 0.0, 0.0]
    return numbers[0], numbers[1]


def _number(word: str) -> float:
    return float(word) if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", word) else 0.0


def _most(parameters: dict[str, Any]) -> int:
    """How many characters an answer may have."""
    asked = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    return asked * 4 - 1 if type(asked) is int and asked > 0 else sys.maxsize


def _usage(request: ModelRequest, written: int) -> Usage:
    """What the call would have cost: four characters a token."""
    read = sum(len(getattr(entry, "text", "") or getattr(entry, "output", "")) for entry in request.history)
    asked, answered = read // 4 + 1, written // 4 + 1
    return Usage(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered)
