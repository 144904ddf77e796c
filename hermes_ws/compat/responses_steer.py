"""What the socket of the Responses API says of text for a response that is under way."""

from __future__ import annotations

from typing import Any, Final

from hermes_ws.compat.errors import ApiError
from hermes_ws.errors import CommandError

__all__ = ["accepted", "failed", "pending"]

_CODES: Final = {
    "run_not_active": "response_not_active",
    "run_not_found": "response_not_active",
    "overloaded": "too_many_pending_steers",
    "response_not_found": "response_not_found",
    "response_already_completed": "response_already_completed",
}
"""OpenAI's codes for why text was not taken; every other reason is ``invalid_input``."""


def accepted(steer_id: str, response_id: str, sequence_number: int) -> dict[str, Any]:
    """The text is in the log; its response's next safe point will hear it."""
    return {
        "type": "response.steer.accepted",
        "sequence_number": sequence_number,
        "steer": {"id": steer_id, "previous_response_id": response_id},
    }


def pending(steer_id: str, response_id: str, sequence_number: int, required: list[dict[str, Any]]) -> dict[str, Any]:
    """The response has ended with questions; the text is heard together with the answers."""
    return {
        "type": "response.steer.pending",
        "sequence_number": sequence_number,
        "reason": "waiting_for_required_input",
        "required_input": required,
        "steer": {"id": steer_id, "previous_response_id": response_id},
    }


def failed(body: dict[str, Any], error: ApiError | CommandError, sequence_number: int) -> dict[str, Any]:
    """The text was not taken; it comes back."""
    target = body.get("previous_response_id")
    return {
        "type": "response.steer.failed",
        "sequence_number": sequence_number,
        "error": {
            "type": "invalid_request_error",
            "code": _CODES.get(error.code, "invalid_input"),
            "message": error.message,
        },
        "steer": {"input": body.get("input"), "previous_response_id": target if isinstance(target, str) else ""},
    }
