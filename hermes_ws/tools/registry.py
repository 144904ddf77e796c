"""Which built-in tools there are, and whether a call's arguments are what its tool takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import ToolDescription
from hermes_ws.tools.base import Tool, ToolSettings
from hermes_ws.tools.clarify import Clarify
from hermes_ws.tools.fetch import FetchUrl
from hermes_ws.tools.files import EditFile, ReadFile, WriteFile
from hermes_ws.tools.search import ListFiles, SearchFiles
from hermes_ws.tools.terminal import Terminal
from hermes_ws.validation import UnusableSchema, first_problem

__all__ = ["builtin_tools", "validate_arguments"]


def builtin_tools(settings: ToolSettings) -> dict[str, Tool]:
    """The tools that come with the server, by name."""
    tools: list[Tool] = [
        Terminal(settings),
        ReadFile(settings),
        WriteFile(settings),
        EditFile(settings),
        ListFiles(settings),
        SearchFiles(settings),
        FetchUrl(settings),
        Clarify(),
    ]
    return {tool.description.name: tool for tool in tools}


def validate_arguments(description: ToolDescription, arguments: Mapping[str, Any]) -> None:
    """Raise ``ToolError`` unless ``arguments`` fit ``description.parameters``."""
    try:
        problem = first_problem(description.parameters, arguments)
    except UnusableSchema as reason:
        raise ToolError(f"{description.name}: its schema {reason}") from reason
    if problem is not None:
        raise ToolError(f"{description.name}: arguments do not fit at {problem.path}: {problem.message}")
