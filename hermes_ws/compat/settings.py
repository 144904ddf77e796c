"""Settings of the OpenAI-compatible routes."""

from __future__ import annotations

from typing import Final

import msgspec

from hermes_ws.ranges import AtLeastOne, Pause, Seconds, WholeSeconds

__all__ = ["REQUEST", "RESPONSE", "CompatSettings"]

RESPONSE: Final = "response"
"""The kind of the records that say what a response was asked for."""
REQUEST: Final = "request"
"""The kind of the records that say what a request with an ``Idempotency-Key`` came to."""
_REQUESTS_S: Final = 86_400
"""As long as commands are remembered by their ids."""


class CompatSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[compat]``: the OpenAI-compatible routes, and those of hermes-agent."""

    keepalive_s: Seconds = 15.0
    """A stream on which nothing happened for so long carries a comment, for proxies that close silent ones."""
    stall_s: Seconds = 30.0
    """A stream whose reader takes nothing for so long is cut; what it missed is in the log."""
    disconnect_grace_s: Pause = 5.0
    """Whoever asked went away before the answer: the run is stopped after so long, unless somebody else follows it."""
    interaction_timeout_s: WholeSeconds = 60
    """How long an approval or a question stays open in a conversation that is not kept. Whoever asked waits at a
    request; then the call is refused, and the agent goes on."""
    responses_retention_s: WholeSeconds = 2_592_000
    """How long a stored response can be fetched and gone on from. What was said stays in its conversation."""
    socket_lanes: AtLeastOne = 32
    """Most ``stream_id`` of one socket of the Responses API: responses of different ones are made side by side."""
    socket_responses: AtLeastOne = 16
    """Most responses that one such socket may have under way."""
    socket_unstored: AtLeastOne = 64
    """How many responses that are not stored such a socket can go on from; the oldest is forgotten first. With fewer
    than `socket_lanes`, one stream has another's forgotten."""
    temporary: AtLeastOne = 5_000
    """How many conversations that are not kept there may be before such sockets forget earlier: with each new response
    the oldest of theirs."""
    cancel_s: Seconds = 30.0
    """How long a request that cancels a response waits for its end."""
    functions: AtLeastOne = 128
    """Most function tools in one request."""
    messages: AtLeastOne = 10_000
    """Most messages, or items, in one request."""
    replay_s: Seconds = 300.0
    """How long the answer to a request outside of any conversation is kept in memory, for its `Idempotency-Key`."""
    replay_bytes: AtLeastOne = 8_388_608
    """All those answers together; the oldest are forgotten first."""

    @property
    def records_retention_s(self) -> dict[str, int]:
        """How long records of each kind stay that go before their conversation."""
        return {RESPONSE: self.responses_retention_s, REQUEST: _REQUESTS_S}
