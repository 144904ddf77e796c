"""What may be said at once: what is in the log goes out in one frame, and clients take frames up to a size only."""

from __future__ import annotations

from typing import Any

import msgspec

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.past import Past, Said
from hermes_ws.protocol.commands import Command, RunStart
from hermes_ws.protocol.values import ImagePart, Input

__all__ = ["check_command", "check_past"]


def check_command(command: Command, most: int) -> None:
    """Raises :class:`ApiError` 413 for one that weighs more than ``most`` bytes without its images."""
    if isinstance(command, RunStart):
        command = msgspec.structs.replace(command, input=_without_images(command.input))
    _check(command, most, "what is said")


def check_past(past: Past, most: int) -> None:
    """The same for each message of a history."""
    for number, one in enumerate(past):
        if isinstance(one, Said):
            _check(_without_images(one.parts), most, f"message {number + 1} of the history")
        else:
            for part in (one.text, one.reasoning, *((call.arguments, call.output) for call in one.calls)):
                _check(part, most, f"message {number + 1} of the history")


def _without_images(value: Input) -> Input:
    return value if isinstance(value, str) else [part for part in value if not isinstance(part, ImagePart)]


def _check(value: Any, most: int, what: str) -> None:
    if len(msgspec.json.encode(value)) > most:
        raise ApiError(413, "body_too_large", f"{what} weighs at most {most} bytes, images not counted")
