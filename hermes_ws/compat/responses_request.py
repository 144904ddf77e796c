"""A request for a response, read: from whom, going on from where, with which functions and parameters.

Its items are read later (:mod:`hermes_ws.compat.responses_input`), when it is known which conversation they go on in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from hermes_ws.compat.fields import converted, function_name, invalid, items, text, whole_object
from hermes_ws.compat.responses_types import ConversationId, CreateResponse, Response, ResponseStatus
from hermes_ws.protocol.commands import ClientTool

__all__ = ["ResponseRequest", "check_metadata", "read_create"]

_KEY_CHARS: Final = 64
_ECHOED: Final = 80
_OF_THE_SERVER: Final = (
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "code_interpreter",
    "image_generation",
    "computer_use_preview",
    "computer",
    "tool_search",
)
"""Tools that whoever runs the model brings along. This server's agent has its own, so these are let pass; those that
name something of the client's (an MCP server, a vector store, a grammar) would be missed, so they are refused."""


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """What a client asks for."""

    given: CreateResponse
    items: list[dict[str, Any]]
    """The input as items."""
    history: list[dict[str, Any]]
    """What comes before it."""
    conversation: str | None
    functions: list[ClientTool] | None
    """None: the request does not say, so a run that goes on keeps those that it has."""
    tool_choice: str | None
    parameters: dict[str, Any]
    """For the model."""
    tools: list[dict[str, Any]]
    """The functions as the response shows them."""

    @property
    def store(self) -> bool:
        """Whether the response can be fetched later."""
        return self.given.store is not False

    @property
    def background(self) -> bool:
        """Whether it goes on without anybody listening."""
        return bool(self.given.background)

    def opening(self, response_id: str, created_at: int, model: str, conversation: str | None) -> Response:
        """The response as it is before anything has come of it."""
        given = self.given
        status: ResponseStatus = "queued" if self.background else "in_progress"
        return Response(
            id=response_id,
            created_at=created_at,
            status=status,
            model=given.model or model,
            conversation=None if conversation is None else ConversationId(id=conversation),
            previous_response_id=given.previous_response_id,
            instructions=given.instructions,
            background=self.background,
            store=self.store,
            tools=self.tools,
            tool_choice=_shown_choice(given),
            parallel_tool_calls=given.parallel_tool_calls is not False,
            max_tool_calls=given.max_tool_calls,
            max_output_tokens=given.max_output_tokens,
            temperature=1.0 if given.temperature is None else given.temperature,
            top_p=1.0 if given.top_p is None else given.top_p,
            presence_penalty=given.presence_penalty or 0.0,
            frequency_penalty=given.frequency_penalty or 0.0,
            text=_shown_text(given),
            reasoning=_shown_reasoning(given),
            truncation=given.truncation or "disabled",
            metadata=given.metadata or {},
            user=given.user,
            safety_identifier=given.safety_identifier,
            prompt_cache_key=given.prompt_cache_key,
        )


def read_create(body: dict[str, Any], *, most_items: int, most_functions: int) -> ResponseRequest:
    """Read the body of a request. Raises :class:`ApiError`, which names the field."""
    given = converted(body, CreateResponse)
    conversation = _conversation(given)
    _check(given, conversation)
    functions, tools = _functions(given, most_functions)
    choice, allowed = _choice(given, {function.name for function in functions})
    history = given.conversation_history or []
    its_items = _items(given)
    if len(its_items) + len(history) > most_items:
        raise invalid("input", f"has {len(its_items) + len(history)} items; this server takes up to {most_items}")
    if allowed is not None:
        functions = [function for function in functions if function.name in allowed]
    return ResponseRequest(
        given=given,
        items=its_items,
        history=history,
        conversation=conversation,
        functions=None if given.tools is None else functions,
        tool_choice=choice,
        parameters=_parameters(given),
        tools=tools,
    )


def check_metadata(metadata: dict[str, str] | None) -> None:
    """Raises :class:`ApiError` for keys that are too long; the rest has been seen to."""
    for key in metadata or {}:
        if not 0 < len(key) <= _KEY_CHARS:
            raise invalid("metadata", f"has keys of 1 to {_KEY_CHARS} characters, not {key[:_ECHOED]!r}")


def _check(given: CreateResponse, conversation: str | None) -> None:
    check_metadata(given.metadata)
    if conversation is not None and given.previous_response_id is not None:
        message = "cannot be used together with `conversation`; send one of them"
        raise invalid("previous_response_id", message, "mutually_exclusive_parameters")
    if given.background and given.store is False:
        raise invalid("background", "needs `store`: what goes on without anybody listening is fetched later")
    if given.prompt is not None:
        raise invalid("prompt", "names a template, and this server keeps none", "unsupported_parameter")


def _conversation(given: CreateResponse) -> str | None:
    if isinstance(given.conversation, dict):
        return text(given.conversation.get("id"), "conversation.id")
    return given.conversation


def _items(given: CreateResponse) -> list[dict[str, Any]]:
    if given.input is None:
        return []
    if isinstance(given.input, str):
        return [{"type": "message", "role": "user", "content": given.input}]
    return given.input


# -- functions -----------------------------------------------------------------------------------------


def _functions(given: CreateResponse, most: int) -> tuple[list[ClientTool], list[dict[str, Any]]]:
    """The functions, for the agent and as the response shows them."""
    tools = given.tools or []
    if len(tools) > most:
        raise invalid("tools", f"has {len(tools)} tools; this server takes up to {most}")
    shown: dict[str, dict[str, Any]] = {}
    for number, tool in enumerate(tools):
        kind = text(tool.get("type"), f"tools[{number}].type")
        if kind == "function":
            function = _function(tool, f"tools[{number}]")
            if function["name"] in shown:
                wrong = f"is {function['name']} a second time; each function has a name of its own"
                raise invalid(f"tools[{number}].name", wrong)
            shown[function["name"]] = function
        elif kind not in _OF_THE_SERVER:
            message = f"is {kind[:_ECHOED]!r}; this server takes tools of type `function`, and its agent has its own"
            raise invalid(f"tools[{number}].type", message, "unsupported_tool_type")
    made = [
        ClientTool(name=f["name"], description=f["description"], parameters=f["parameters"]) for f in shown.values()
    ]
    return made, list(shown.values())


def _function(tool: dict[str, Any], path: str) -> dict[str, Any]:
    """A function as the specification has it; as chat completions nest it, too."""
    inner = tool.get("function")
    given, at = (tool, path) if inner is None else (whole_object(inner, f"{path}.function"), f"{path}.function")
    name = function_name(given.get("name"), f"{at}.name")
    description, parameters, strict = given.get("description"), given.get("parameters"), given.get("strict")
    if parameters is not None and whole_object(parameters, f"{at}.parameters").get("type", "object") != "object":
        raise invalid(f"{at}.parameters.type", "is `object`: arguments are an object")
    if strict is not None and not isinstance(strict, bool):
        raise invalid(f"{at}.strict", "is true or false", "invalid_type")
    return {
        "type": "function",
        "name": name,
        "description": None if description is None else text(description, f"{at}.description"),
        "parameters": parameters,
        "strict": strict,
    }


def _choice(given: CreateResponse, known: set[str]) -> tuple[str | None, set[str] | None]:
    """``none``, ``required``, a function's name, or None for the model to choose; and which functions it may call
    (None: all)."""
    choice = given.tool_choice
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            return _allowed(choice, known)
        return _named(choice, "tool_choice", known), None
    if choice in (None, "auto"):
        return None, None
    if choice not in ("none", "required"):
        raise invalid("tool_choice", f"is auto, none, required, or names a function, not {choice[:_ECHOED]!r}")
    if choice == "required" and not given.tools:
        raise invalid("tool_choice", "is `required`, but there are no `tools`")
    return choice, None


def _named(choice: dict[str, Any], path: str, known: set[str]) -> str:
    kind = text(choice.get("type"), f"{path}.type")
    if kind != "function":
        raise invalid(f"{path}.type", f"is `function`, not {kind[:_ECHOED]!r}", "unsupported_value")
    inner = choice.get("function")
    given = choice if inner is None else whole_object(inner, f"{path}.function")
    name = text(given.get("name"), f"{path}.name")
    if name not in known:
        raise invalid(f"{path}.name", f"is {name[:_ECHOED]!r}, which is not among the `tools` of this request")
    return name


def _allowed(choice: dict[str, Any], known: set[str]) -> tuple[str | None, set[str]]:
    path = "tool_choice.tools"
    names = {
        _named(whole_object(one, f"{path}[{n}]"), f"{path}[{n}]", known)
        for n, one in enumerate(items(choice.get("tools"), path))
    }
    mode = text(choice.get("mode", "auto"), "tool_choice.mode")
    if mode not in ("auto", "required", "none"):
        raise invalid("tool_choice.mode", f"is auto, none or required, not {mode[:_ECHOED]!r}")
    return None if mode == "auto" else mode, names


# -- parameters ----------------------------------------------------------------------------------------


def _parameters(given: CreateResponse) -> dict[str, Any]:
    """For the model, under the names that chat completions have for them."""
    wanted = {
        "temperature": given.temperature,
        "top_p": given.top_p,
        "presence_penalty": given.presence_penalty,
        "frequency_penalty": given.frequency_penalty,
        "max_tokens": given.max_output_tokens,
        "parallel_tool_calls": given.parallel_tool_calls,
        "reasoning_effort": (given.reasoning or {}).get("effort"),
        "verbosity": given.text.verbosity if given.text else None,
        "response_format": _response_format(given),
        "user": given.user,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _response_format(given: CreateResponse) -> dict[str, Any] | None:
    form = (given.text.format if given.text else None) or {"type": "text"}
    kind = text(form.get("type"), "text.format.type")
    match kind:
        case "text":
            return None
        case "json_object":
            return {"type": kind}
        case "json_schema":
            schema = {name: form[name] for name in ("description", "strict") if form.get(name) is not None}
            name = text(form.get("name"), "text.format.name")
            whole = whole_object(form.get("schema"), "text.format.schema")
            return {"type": kind, "json_schema": {"name": name, "schema": whole, **schema}}
        case _:
            raise invalid("text.format.type", f"is text, json_object or json_schema, not {kind[:_ECHOED]!r}")


def _shown_choice(given: CreateResponse) -> str | dict[str, Any]:
    choice = given.tool_choice or "auto"
    if not isinstance(choice, dict):
        return choice
    if choice["type"] == "allowed_tools":
        return {"type": "allowed_tools", "mode": choice.get("mode", "auto"), "tools": list(map(_flat, choice["tools"]))}
    return _flat(choice)


def _flat(choice: dict[str, Any]) -> dict[str, Any]:
    """A function as the specification names it, also where it came as chat completions nest it."""
    inner = choice.get("function")
    return {"type": "function", "name": (choice if inner is None else inner)["name"]}


def _shown_text(given: CreateResponse) -> dict[str, Any]:
    form = (given.text.format if given.text else None) or {"type": "text"}
    if form.get("type") == "json_schema":
        form = {"description": None, "strict": False, **form}
    verbosity = given.text.verbosity if given.text else None
    return {"format": form} if verbosity is None else {"format": form, "verbosity": verbosity}


def _shown_reasoning(given: CreateResponse) -> dict[str, Any] | None:
    if given.reasoning is None:
        return None
    effort, summary = given.reasoning.get("effort"), given.reasoning.get("summary")
    for name, value in (("effort", effort), ("summary", summary)):
        if value is not None:
            text(value, f"reasoning.{name}")
    return {"effort": effort, "summary": summary}
