"""Whose a tool call is, for the routes whose clients execute functions of their own."""

from __future__ import annotations

from hermes_ws.entities import ToolCall
from hermes_ws.protocol.events import ToolStarted

__all__ = ["is_of_caller"]


def is_of_caller(call: ToolStarted | ToolCall | None) -> bool:
    """Whether the call is for whoever asked for the run to execute: not the server's, and not for a client that is at a
    socket."""
    return call is not None and call.source == "client" and call.owner is None
