"""The error tree and the closed lists of codes that travel on the wire.

    HermesError
    +-- CommandError         a command was refused; becomes an ``error`` frame, the socket stays
    |   +-- FrameError       the frame itself could not be read
    +-- AgentError           a run cannot go on; becomes ``run.failed``
    |   +-- ModelError       the model endpoint said no
    +-- ToolError            a tool cannot do what it was asked; the model is told
    +-- StoreError           the log
    |   +-- LogConflict      somebody else appended to this conversation
    |   +-- StorageFull      no space left
    |   +-- ConversationDeleted
    |   +-- DataDirError     the data directory is locked, foreign or from the future
    +-- IllegalTransition    a bug: an event that the state does not allow
    +-- SettingsError        the configuration does not say something usable

Source of the codes: the protocol's section on error codes and closing (docs/protocol.md).
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

__all__ = [
    "COMMAND_CODES",
    "RUN_CODES",
    "AgentError",
    "CommandCode",
    "CommandError",
    "ConversationDeleted",
    "DataDirError",
    "FrameError",
    "HermesError",
    "IllegalTransition",
    "LogConflict",
    "ModelError",
    "RunCode",
    "ServerDraining",
    "SettingsError",
    "StorageFull",
    "StoreError",
    "ToolError",
]

CommandCode = Literal[
    "invalid_json",
    "invalid_frame",
    "unknown_type",
    "unsupported",
    "too_large",
    "id_reused",
    "not_permitted",
    "not_found",
    "rate_limited",
    "overloaded",
    "busy",
    "queue_full",
    "run_not_found",
    "run_not_active",
    "version_conflict",
    "interaction_not_found",
    "interaction_resolved",
    "interaction_expired",
    "invalid_option",
    "invalid_answer",
    "digest_mismatch",
    "storage_full",
    "internal",
]

RunCode = Literal[
    "deadline_exceeded",
    "recovery_exhausted",
    "agent_crashed",
    "storage_full",
    "model_auth",
    "model_rate_limited",
    "model_overloaded",
    "context_length",
    "model_unreachable",
    "model_bad_response",
]

COMMAND_CODES: Final[tuple[str, ...]] = get_args(CommandCode)
RUN_CODES: Final[tuple[str, ...]] = get_args(RunCode)

_RETRYABLE_COMMAND: Final = frozenset({"rate_limited", "overloaded", "busy", "queue_full", "storage_full", "internal"})
_RETRYABLE_MODEL: Final = frozenset(
    {"model_rate_limited", "model_overloaded", "model_unreachable", "model_bad_response"}
)


class HermesError(Exception):
    """Root of everything this package raises on purpose."""


class CommandError(HermesError):
    """A command was refused.

    ``code`` is from :data:`COMMAND_CODES`; ``path`` says where in the frame (``$.config.tools.allow[0]``);
    ``details`` is JSON-ready. ``retryable`` follows from the code.
    """

    def __init__(
        self,
        code: CommandCode,
        message: str,
        *,
        path: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code: CommandCode = code
        self.message = message
        self.path = path
        self.details = details
        self.retry_after_ms = retry_after_ms

    @property
    def retryable(self) -> bool:
        """Whether the same command may succeed later, unchanged."""
        return self.code in _RETRYABLE_COMMAND


class ServerDraining(CommandError):
    """No new work is taken: the server is about to go down."""

    def __init__(self) -> None:
        super().__init__("overloaded", "the server is going down; reconnect and send it again", retry_after_ms=1000)


class FrameError(CommandError):
    """A frame that cannot be read. ``command_id`` is what could still be made out of its ``id``."""

    command_id: str | None = None


class AgentError(HermesError):
    """The run cannot go on. ``code`` is from :data:`RUN_CODES`."""

    def __init__(self, code: RunCode, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code: RunCode = code
        self.message = message
        self.retryable = retryable


class ModelError(AgentError):
    """The model endpoint refused or broke. ``retry_after_s`` is what the endpoint asked for, if it did.

    ``retryable`` None: what the code says. ``again``: whether the same call may simply be made once more (None: if it
    is retryable); a model that has begun to speak may be retried by a person, but does not repeat itself.
    """

    def __init__(
        self,
        code: RunCode,
        message: str,
        *,
        retry_after_s: float | None = None,
        retryable: bool | None = None,
        again: bool | None = None,
    ) -> None:
        super().__init__(code, message, retryable=code in _RETRYABLE_MODEL if retryable is None else retryable)
        self.retry_after_s = retry_after_s
        self.again = self.retryable if again is None else again


class ToolError(HermesError):
    """A tool cannot do what it was asked. The message goes to the model, so it says what would be right."""


class StoreError(HermesError):
    """The log could not do what it was asked."""


class LogConflict(StoreError):
    """The conversation's head in the log is not where the writer thought: somebody else appended."""


class StorageFull(StoreError):
    """No space left to append to the log."""


class ConversationDeleted(StoreError):
    """The conversation was deleted while it was worked with."""


class DataDirError(StoreError):
    """The data directory cannot be used: locked by another server, unwritable, or of a newer version."""


class IllegalTransition(HermesError):
    """An event that the state machine's table does not allow. State is left as it was."""


class SettingsError(HermesError):
    """A setting is wrong. The message names the setting, where it came from, and what would be right."""
