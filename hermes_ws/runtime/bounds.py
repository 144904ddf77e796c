"""``[conversations]`` of the configuration."""

from __future__ import annotations

import msgspec

from hermes_ws.ranges import AtLeastOne, Pause

__all__ = ["ConversationSettings"]


class ConversationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[conversations]`` of the configuration: what one of them may take of the server's memory."""

    idle_s: Pause = 60.0
    """A conversation that nobody uses leaves memory after so long."""
    delta_bytes: AtLeastOne = 65_536
    """Deltas of one item that wait together merge up to this size."""
    backlog_bytes: AtLeastOne = 262_144
    """Uncommitted output after which an agent is made to wait."""
    log_bytes: AtLeastOne = 268_435_456
    """What a conversation's log may weigh. Beyond it the active run fails, and what would add to it is refused, as
    ``storage_full``; answers and stops are still taken."""
    in_memory: AtLeastOne = 10_000
    """Conversations in memory at once. One more takes the place of an idle one; if none is, ``overloaded``."""
    recent_commands: AtLeastOne = 256
    """Answered command ids kept in memory; older ones are looked up in the log."""
