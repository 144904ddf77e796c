"""Errors as OpenAI's clients expect them: a status, and an envelope with a code that programs can go by."""

from __future__ import annotations

from typing import Any, Final

from hermes_ws.errors import CommandCode, CommandError, HermesError, ServerDraining
from hermes_ws.protocol.values import ErrorInfo

__all__ = ["DRAINING", "ApiError", "envelope", "of_command", "of_run"]

_COMMANDS: Final[dict[CommandCode, int]] = {
    "invalid_json": 400,
    "invalid_frame": 400,
    "unknown_type": 400,
    "unsupported": 400,
    "invalid_option": 400,
    "invalid_answer": 400,
    "too_large": 413,
    "not_permitted": 403,
    "not_found": 404,
    "run_not_found": 404,
    "interaction_not_found": 404,
    "rate_limited": 429,
    "queue_full": 429,
    "overloaded": 503,
    "storage_full": 507,
    "internal": 500,
}
"""Status of a refused command; every other code is a conflict with how things are: 409."""
_RUNS: Final[dict[str, int]] = {
    "context_length": 400,
    "model_rate_limited": 429,
    "model_overloaded": 503,
    "model_auth": 502,
    "model_unreachable": 502,
    "model_bad_response": 502,
    "deadline_exceeded": 504,
    "storage_full": 507,
}
"""Status of a run that failed before it said anything; any other code is 500."""
_OPENAI_CODES: Final[dict[str, str]] = {
    "context_length": "context_length_exceeded",
    "model_rate_limited": "rate_limit_exceeded",
    "rate_limited": "rate_limit_exceeded",
    "queue_full": "rate_limit_exceeded",
    "too_large": "body_too_large",
}
"""Where OpenAI has a code for the same thing, clients go by that."""


DRAINING: Final = "gateway_draining"
"""The code that clients of hermes-agent know for a server that is about to go down."""


class ApiError(HermesError):
    """A request that is answered with an error. ``param`` is the field that is wrong, ``kind`` the envelope's type."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        kind: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind or _kind(status)
        self.retry_after_s = retry_after_s or (1 if status in (429, 503) else None)


def _kind(status: int) -> str:
    return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )


def envelope(error: ApiError) -> dict[str, Any]:
    """The body: ``{"error": {"message", "type", "param", "code"}}``."""
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}


def of_command(error: CommandError) -> ApiError:
    """What the refusal of a command is to such a client."""
    code = DRAINING if isinstance(error, ServerDraining) else _OPENAI_CODES.get(error.code, error.code)
    retry_after_s = None if error.retry_after_ms is None else max(1, error.retry_after_ms // 1000)
    return ApiError(
        _COMMANDS.get(error.code, 409),
        code,
        error.message,
        param=error.path.removeprefix("$.") if error.path else None,
        retry_after_s=retry_after_s,
    )


def of_run(error: ErrorInfo) -> ApiError:
    """What a failed run is to such a client, as long as it has been told nothing else."""
    return ApiError(_RUNS.get(error.code, 500), _OPENAI_CODES.get(error.code, error.code), error.message)
