"""What is kept of a response beside the log: what was asked for, and where in its run it begins.

What has come of it is not kept: it is in the log, and projected anew whenever somebody asks.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hermes_ws.compat.responses import ResponseProjection
from hermes_ws.compat.responses_types import Response

__all__ = ["FORGOTTEN", "RESPONSE", "Forgotten", "ResponseRecord"]

RESPONSE: Final = "response"
"""The kind of record that this is."""
FORGOTTEN: Final = "forgotten"
"""The kind of record that stays of a deleted response while its conversation has others."""


class ResponseRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """See the top of the module."""

    opening: Response
    """The response before anything had come of it."""
    run_id: str | None
    """The run that it is a part of; None: nothing was to be generated."""
    after: int = 0
    """It begins after this event; 0: with its run."""
    skip_steps: int = 0
    """So many steps of the run are history that the client brought along."""
    until: int | None = None
    """It ends with this event, where what a client said to the run was heard: the next response begins there."""
    answers: list[str] = []
    """The interactions that its request answers."""
    own_tools: bool = True
    """Whether calls of the agent's own tools are items."""
    input: list[dict[str, Any]] = []
    """The items of its request."""
    system: list[str] = []
    """System and developer messages of its request and of those that it goes on from."""
    implicit: bool = True
    """Whether its conversation was made for it, or for the one that it goes on from."""

    def projection(self) -> ResponseProjection:
        """To be fed the events of the run, from its first one."""
        return ResponseProjection(
            self.opening,
            self.run_id or "",
            self.after,
            skip_steps=self.skip_steps,
            until=self.until,
            answers=self.answers,
            own_tools=self.own_tools,
        )


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a response ended that was deleted: what is behind that somebody else has said."""

    run_id: str | None
    """Its run."""
    after: int = 0
    """Without a run: the event that it ended with."""
