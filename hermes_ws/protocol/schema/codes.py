"""What the closed lists of codes mean, and what each asks of a client."""

from __future__ import annotations

from typing import Final

from hermes_ws.errors import CommandCode, RunCode

__all__ = ["COMMAND_CODE_MEANINGS", "RUN_CODE_MEANINGS"]

COMMAND_CODE_MEANINGS: Final[dict[CommandCode, str]] = {
    "invalid_json": "The frame is not JSON, not UTF-8, or nested too deeply.",
    "invalid_frame": "A field is missing or has a wrong value; `path` says which.",
    "unknown_type": "There is no such command; `details.nearest` is the type that was probably meant.",
    "unsupported": "The command exists, but this conversation's agent or this server cannot do it.",
    "too_large": "A frame or a field is larger than a limit allows.",
    "id_reused": "Another command was sent under this `id` before.",
    "not_permitted": "The key's role or bounds do not allow this.",
    "not_found": "What the command names does not exist.",
    "rate_limited": "Too many commands; come back after `retry_after_ms`.",
    "overloaded": "The server has no room for more work just now.",
    "busy": "Another run is active, and `when_busy` is `reject`.",
    "queue_full": "Too many runs wait already.",
    "run_not_found": "There is no such run in this conversation.",
    "run_not_active": "The run is over, or is not in a state that allows this.",
    "version_conflict": "The configuration is not at `if_version`; read it again.",
    "interaction_not_found": "There is no such interaction in this conversation.",
    "interaction_resolved": "Somebody else answered first; `details.resolution` is what it was.",
    "interaction_expired": "The deadline passed; `on_expire` took effect.",
    "invalid_option": "The interaction does not offer this option; the message lists what it offers.",
    "invalid_answer": "An answer, the content or the edited arguments do not fit; `path` says which.",
    "digest_mismatch": "The arguments are not those that were shown.",
    "storage_full": "There is no space left to store what the command would do.",
    "internal": "The server made a mistake; it is in its log.",
}

RUN_CODE_MEANINGS: Final[dict[RunCode, str]] = {
    "deadline_exceeded": "The run took longer than its `deadline_ms`.",
    "recovery_exhausted": "The run was taken up again several times and never got any further.",
    "agent_crashed": "The agent raised something that it should not.",
    "storage_full": "The conversation's log has reached the size it may have.",
    "model_auth": "The model endpoint did not accept the operator's credentials.",
    "model_rate_limited": "The model endpoint asked for fewer requests.",
    "model_overloaded": "The model endpoint is overloaded.",
    "context_length": "The conversation is longer than the model can read.",
    "model_unreachable": "The model endpoint cannot be reached, or its answer broke off.",
    "model_bad_response": "The model endpoint answered something that cannot be read.",
}
