"""A request for a chat completion, read: what was said, with which history, functions and parameters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, TypeVar

from hermes_ws.compat.chat_messages import (
    Assistant,
    Instruction,
    Message,
    Result,
    User,
    check_answered,
    past_before,
    read_messages,
)
from hermes_ws.compat.chat_types import ChatCompletionRequest, FunctionTool
from hermes_ws.compat.fields import converted, invalid, items, missing, text, whole_object
from hermes_ws.compat.past import Past
from hermes_ws.compat.settings import CompatSettings
from hermes_ws.protocol.commands import ClientTool
from hermes_ws.protocol.values import ContentPart, Input, TextPart

__all__ = ["ChatRequest", "read_chat"]

M = TypeVar("M", User, Result)

_SAMPLING: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "reasoning_effort",
    "verbosity",
    "parallel_tool_calls",
    "user",
)
"""What is passed on to the model."""
_DEFAULTS: Final = CompatSettings()
_GO_ON: Final = "[Go on where your answer ends.]"
"""What is said for a client whose last message is the assistant's, or an empty one: it wants more of that."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asks for. It ends with something said, or else with the results of calls."""

    model: str | None
    stream: bool
    include_usage: bool
    instructions: str | None
    """All of its system and developer messages, unless there are no others: then they are what is said."""
    said: Input | None
    """The last messages, as far as they are the user's."""
    results: list[Result]
    """The last messages, if they are results of calls. Either these or ``said``."""
    functions: list[ClientTool]
    tool_choice: str | None
    parameters: dict[str, Any]
    """For the model."""
    legacy: bool
    """Whether functions were given in the older form, and calls are to be handed back in it."""
    _before: list[Message]

    def past(self) -> Past:
        """What comes before: all but what is said, with the results. Raises :class:`ApiError` unless that is a
        history. A conversation that has its own needs none of it."""
        past = past_before([*self._before, *self.results])
        if self.said is None:
            check_answered(past, "messages")
        return past


def read_chat(body: dict[str, Any], settings: CompatSettings = _DEFAULTS) -> ChatRequest:
    """Read the body of a request. Raises :class:`ApiError`, which names the field."""
    given = converted(body, ChatCompletionRequest)
    _check_counts(given, settings)
    messages = read_messages(given.messages)
    told = [message.text for message in messages if isinstance(message, Instruction) and message.text]
    instructions = "\n\n".join(told) or None
    before, said, results = _split([message for message in messages if not isinstance(message, Instruction)])
    if said is None and not results:
        said, instructions = instructions, None  # nothing else is said, so they are
        _check_says_something(messages, said)
    functions, legacy = _functions(given)
    choice, allowed = _choice(given, functions, legacy=legacy)
    return ChatRequest(
        model=given.model,
        stream=given.stream or False,
        include_usage=bool(given.stream_options and given.stream_options.include_usage),
        instructions=instructions,
        said=said,
        results=results,
        functions=[function for function in functions if allowed is None or function.name in allowed],
        tool_choice=choice,
        parameters=_parameters(given, body),
        legacy=legacy,
        _before=before,
    )


def _check_counts(given: ChatCompletionRequest, settings: CompatSettings) -> None:
    counts = {
        "messages": (given.messages, settings.messages),
        "tools": (given.tools, settings.functions),
        "functions": (given.functions, settings.functions),
    }
    for path, (there, most) in counts.items():
        if len(there or ()) > most:
            raise invalid(path, f"has more than {most} elements, which is all that this server takes")


def _split(messages: list[Message]) -> tuple[list[Message], Input | None, list[Result]]:
    """What comes before; what is said now, if anything is; the results that are brought now."""
    last = messages[-1] if messages else None
    match last:
        case User():
            before, users = _ending(messages, User)
            said = _together([user.parts for user in users if not _is_empty(user.parts)])
            return before, said or (_GO_ON if before else None), []
        case Assistant():
            check_answered(past_before(messages), "messages")
            return messages, _GO_ON, []
        case Result():
            before, results = _ending(messages, Result)
            return before, None, results
        case _:
            return [], None, []


def _ending(messages: list[Message], kind: type[M]) -> tuple[list[Message], list[M]]:
    """The messages of that kind at the end, and what comes before them."""
    ending = list(takewhile(lambda message: isinstance(message, kind), reversed(messages)))
    found = [message for message in reversed(ending) if isinstance(message, kind)]
    return messages[: len(messages) - len(found)], found


def _is_empty(parts: Input) -> bool:
    return not parts or all(part == TextPart(text="") for part in parts)


def _together(inputs: list[Input]) -> Input:
    """Several messages as one: texts with a blank line between them, or else the parts of all."""
    if len(inputs) == 1:
        return inputs[0]
    if all(isinstance(one, str) for one in inputs):
        return "\n\n".join(one for one in inputs if isinstance(one, str))
    parts: list[ContentPart] = []
    for one in inputs:
        parts += [TextPart(text=one)] if isinstance(one, str) else one
    return parts


def _check_says_something(messages: list[Message], said: Input | None) -> None:
    if said:
        return
    user = next((message for message in reversed(messages) if isinstance(message, User)), None)
    if user is not None:
        raise invalid(f"{user.path}.content", "is empty, and so is all that comes before; say something")
    raise invalid("messages", "says nothing; send a message with role `user`")


# -- functions -----------------------------------------------------------------------------------------


def _functions(given: ChatCompletionRequest) -> tuple[list[ClientTool], bool]:
    """The functions, and whether they came in the older form."""
    legacy = bool(given.functions) and not given.tools
    path = "functions[{}]" if legacy else "tools[{}].function"
    tools = given.functions or [] if legacy else [tool.function for tool in given.tools or []]
    seen: set[str] = set()
    for number, tool in enumerate(tools):
        _check_function(tool, path.format(number), seen)
    return [ClientTool(name=t.name, description=t.description, parameters=t.parameters) for t in tools], legacy


def _check_function(tool: FunctionTool, path: str, seen: set[str]) -> None:
    if tool.name in seen:
        raise invalid(f"{path}.name", f"is {tool.name} a second time; each function has a name of its own")
    seen.add(tool.name)
    if (tool.parameters or {}).get("type", "object") != "object":
        raise invalid(f"{path}.parameters.type", "is `object`: arguments are an object")


def _choice(
    given: ChatCompletionRequest, functions: list[ClientTool], *, legacy: bool
) -> tuple[str | None, set[str] | None]:
    """``none``, ``required``, a function's name, or None for the model to choose; and which functions it may call
    (None: all)."""
    path = "function_call" if legacy else "tool_choice"
    choice = given.function_call if legacy else given.tool_choice
    known = {function.name for function in functions}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return _allowed(choice, path, known)
    if isinstance(choice, dict):
        return _named(choice, path, known), None
    if choice in (None, "auto", "none"):
        return "none" if choice == "none" else None, None
    if choice != "required":
        raise invalid(path, f"is auto, none, required, or names a function, not {str(choice)[:80]!r}")
    if not functions:
        raise invalid(path, "is `required`, but there are no `tools`")
    return "required", None


def _named(choice: dict[str, Any], path: str, known: set[str]) -> str:
    """The function of ``{"type": "function", "function": {"name"}}``, of the flat form, or of the older one."""
    inner = choice.get("function")
    at = f"{path}.function" if inner is not None else path
    name = text(choice.get("name") if inner is None else whole_object(inner, at).get("name"), f"{at}.name")
    if name not in known:
        raise invalid(f"{at}.name", f"is {name[:80]!r}, which is not among the functions of this request")
    return name


def _allowed(choice: dict[str, Any], path: str, known: set[str]) -> tuple[str | None, set[str]]:
    """``{"type": "allowed_tools", "allowed_tools": {"mode", "tools"}}``."""
    path = f"{path}.allowed_tools"
    allowed = whole_object(choice.get("allowed_tools"), path)
    tools = items(allowed.get("tools"), f"{path}.tools")
    names = {
        _named(whole_object(one, f"{path}.tools[{n}]"), f"{path}.tools[{n}]", known) for n, one in enumerate(tools)
    }
    mode = text(allowed.get("mode", "auto"), f"{path}.mode")
    if mode not in ("auto", "required"):
        raise invalid(f"{path}.mode", f"is auto or required, not {mode[:80]!r}")
    return "required" if mode == "required" else None, names


# -- parameters ----------------------------------------------------------------------------------------


def _parameters(given: ChatCompletionRequest, body: dict[str, Any]) -> dict[str, Any]:
    """What is there for the model, as it came: its values have been judged."""
    _check_format(given)
    parameters = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    if given.response_format is not None and given.response_format.type == "text":
        del parameters["response_format"]
    return parameters


def _check_format(given: ChatCompletionRequest) -> None:
    wanted = given.response_format
    if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is None:
        raise missing("response_format.json_schema")
