"""What of a run's tool choice and sampling parameters an endpoint is sent.

Whoever starts a run may say how the model is to be called; the operator has the last word. A parameter goes along if
``client_parameters`` names it and ``options`` does not set it. The length of the answer is bounded: by
``max_output_tokens``, or else by half of the window, where one is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hermes_ws.agents.llm.endpoint_settings import EndpointSettings
from hermes_ws.agents.llm.names import FunctionNames
from hermes_ws.history import AssistantTurn, HistoryEntry
from hermes_ws.policy import qualified
from hermes_ws.protocol.values import ToolDescription

__all__ = ["answer_limit", "choice_of", "offered", "sampling"]

_LIMITS: Final = ("max_completion_tokens", "max_tokens")
"""How clients call the length of the answer, the newer name first."""
_OF_TOOLS: Final = frozenset({"parallel_tool_calls"})
"""What endpoints refuse in a request without tools."""


def sampling(settings: EndpointSettings, parameters: Mapping[str, Any], *, tools: bool) -> dict[str, Any]:
    """The parameters that go along; ``tools``: the request has some."""
    wanted = set(settings.client_parameters) - settings.options.keys() - set(_LIMITS)
    if not tools:
        wanted -= _OF_TOOLS
    return {name: value for name, value in parameters.items() if name in wanted and value is not None}


def answer_limit(settings: EndpointSettings, parameters: Mapping[str, Any]) -> int | None:
    """How many tokens the answer may have; None: as the endpoint likes."""
    most = settings.max_output_tokens
    if "max_tokens" not in settings.client_parameters or settings.options.keys() & set(_LIMITS):
        return most
    asked = next((n for n in map(parameters.get, _LIMITS) if type(n) is int and n > 0), None)
    if asked is None:
        return most
    bound = most or (settings.context_window or 0) // 2
    return min(asked, bound) if bound else asked


def offered(
    tools: Sequence[ToolDescription], choice: str | None, history: Sequence[HistoryEntry]
) -> Sequence[ToolDescription]:
    """The tools that a request offers. With the choice ``none`` those would only invite calls; but where calls were
    made before, some endpoints insist on them."""
    called = any(isinstance(entry, AssistantTurn) and entry.calls for entry in history)
    return tools if choice != "none" or called else ()


def choice_of(choice: str | None, tools: Sequence[ToolDescription], names: FunctionNames) -> dict[str, Any]:
    """``tool_choice``, if there is anything to choose. A tool that is not offered cannot be."""
    if choice is None or not tools:
        return {}
    if choice in ("none", "required"):
        return {"tool_choice": choice}
    tool = _named(choice, tools)
    return {} if tool is None else {"tool_choice": {"type": "function", "function": {"name": names.of(tool)}}}


def _named(name: str, tools: Sequence[ToolDescription]) -> ToolDescription | None:
    """The tool that whoever started the run calls so: first of all, one of its own."""
    found = [tool for tool in tools if name in (tool.name, qualified(tool))]
    return min(found, key=lambda tool: tool.source != "client", default=None)
