"""What can go wrong for a client, as exceptions.

HermesError
+-- ClientError
    +-- CommandRefused       the server said no to one command; the conversation goes on
    +-- ConnectionRefused    the server will not have us (4400-4499, or an HTTP status): retrying is no use
    +-- Unreachable          there is no server there, or not for as long as we were told to wait
    +-- Resynchronized       a run's events can no longer be told one by one; there is a snapshot instead
    +-- ConversationClosed   the ``async with`` block of ``connect`` was left
"""

from __future__ import annotations

from typing import Any

from hermes_ws.errors import HermesError
from hermes_ws.protocol.control import Error, Snapshot

__all__ = [
    "ClientError",
    "CommandRefused",
    "ConnectionRefused",
    "ConversationClosed",
    "Lost",
    "Resynchronized",
    "Unreachable",
]


class ClientError(HermesError):
    """Root of what the client raises on purpose."""


class CommandRefused(ClientError):
    """The server refused a command. Fields as in the protocol's ``error`` frame."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code}: {error.message}" + (f" (at {error.path})" if error.path else ""))
        self.code: str = error.code
        self.message = error.message
        self.retryable = error.retryable
        self.retry_after_ms = error.retry_after_ms
        self.path = error.path
        self.details: dict[str, Any] = error.details or {}


class ConnectionRefused(ClientError):
    """The server does not want this client. ``code`` is a close code (4400-4499) or an HTTP status."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}" if reason else str(code))
        self.code = code
        self.reason = reason


class Unreachable(ClientError):
    """No connection, at the first attempt or for longer than ``give_up_after_s``."""


class Resynchronized(ClientError):
    """What the client had seen is no longer part of the log; ``snapshot`` is how things are now.

    ``reason`` is ``epoch_changed`` (deleted and made anew), ``gap`` (folded away meanwhile) or ``ahead`` (the server
    lost what it had said).
    """

    def __init__(self, snapshot: Snapshot, reason: str | None) -> None:
        super().__init__(f"the log cannot be resumed ({reason or 'snapshot'}); a snapshot takes its place")
        self.snapshot = snapshot
        self.reason = reason


class ConversationClosed(ClientError):
    """The conversation is used after its ``async with`` block."""


class Lost(Exception):
    """The line is down; come back. Never leaves the client.

    ``answered``: a server was there and asked for patience. ``retry_after_s``: not before.
    """

    def __init__(self, reason: str, *, answered: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answered = answered
        self.retry_after_s = retry_after_s
