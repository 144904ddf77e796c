"""Plain text, as the demo answers it: with calls of the functions that a client brought along, then with words.

A function is called when the run's tool choice says so or when the message has a word of its name, once for each
message and with arguments that satisfy its schema. What they came to is quoted. An answer has the form that the run's
``response_format`` asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from hermes_ws.agents.llm.clues import mentioned
from hermes_ws.agents.llm.example import NoExample, example
from hermes_ws.agents.llm.flat import is_object
from hermes_ws.agents.llm.model import ModelRequest, ToolCall
from hermes_ws.history import ToolAnswer
from hermes_ws.policy import qualified
from hermes_ws.protocol.values import ToolDescription

__all__ = ["called", "calls_for", "reply", "shaped"]

_QUOTED: Final = 1_000
"""Characters of an output that are quoted."""


def calls_for(request: ModelRequest, said: str, done: Iterable[str]) -> tuple[list[ToolCall], list[str]]:
    """The calls to make now, side by side, and why others cannot be made. ``done``: the names that were called for this
    message before."""
    calls: list[ToolCall] = []
    problems: list[str] = []
    for tool in _wanted(request, said, frozenset(done)):
        try:
            calls.append(ToolCall(qualified(tool), _arguments(tool, said)))
        except NoExample as problem:
            problems.append(f"I cannot call {tool.name}: its schema {problem}.")
    return calls, problems


def called(name: str, tools: Iterable[ToolDescription]) -> str:
    """The tool that a script calls so. Where only a client brought one of that name, that one is meant."""
    found = [tool for tool in tools if tool.name == name]
    return qualified(found[0]) if found and found[0].source == "client" and len(found) == 1 else name


def _wanted(request: ModelRequest, said: str, done: frozenset[str]) -> Sequence[ToolDescription]:
    functions = [tool for tool in request.tools if tool.source == "client"]
    names = mentioned(said, (tool.name for tool in functions))
    found = [tool for tool in functions if tool.name in names]
    match request.tool_choice:
        case "none":
            found = []
        case "required":
            found = found or ([] if done else functions[:1])
        case str(name):
            found = [tool for tool in functions if tool.name == name]
        case None:
            pass
    left = [tool for tool in found if not {tool.name, qualified(tool)} & done]
    return left[:1] if request.parameters.get("parallel_tool_calls") is False else left


def _arguments(tool: ToolDescription, said: str) -> dict[str, Any]:
    """Raises :class:`NoExample`."""
    made = example({"type": "object", **tool.parameters}, said)
    if not is_object(made):
        raise NoExample("is not one of an object")
    return made


def reply(said: str, answers: Sequence[ToolAnswer]) -> str:
    """What there is to say: what the calls came to, or else what was said."""
    if not answers:
        return f"This is the demo model. You said: “{said}”."
    return f"This is the demo model. {'; '.join(map(_quoted, answers))}."


def _quoted(answer: ToolAnswer) -> str:
    output = answer.output if len(answer.output) <= _QUOTED else f"{answer.output[:_QUOTED]} …"
    verb = "answered" if answer.status == "ok" else f"did not succeed ({answer.status})"
    return f"{answer.name} {verb}: “{output}”"


def shaped(request: ModelRequest, said: str, text: str) -> tuple[str, Literal["end", "refused"]]:
    """The text in the form that was asked for, and how the answer ends: refused, where that form cannot be had."""
    wanted = request.parameters.get("response_format")
    kind = wanted.get("type") if is_object(wanted) else None
    if is_object(wanted) and kind == "json_schema":
        described = wanted.get("json_schema")
        schema = described.get("schema") if is_object(described) else None
        try:
            return _json(example(schema if is_object(schema) else {"type": "object"}, said)), "end"
        except NoExample as problem:
            return f"I cannot answer in the form that is wanted: its schema {problem}.", "refused"
    return (_json({"text": text}) if kind == "json_object" else text), "end"


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
