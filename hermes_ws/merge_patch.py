"""Configuration changes by JSON merge patch (RFC 7396)."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from hermes_ws.errors import CommandError
from hermes_ws.protocol.codec import invalid_value
from hermes_ws.protocol.values import Config

__all__ = ["merged"]


def merged(config: Config, patch: dict[str, Any]) -> Config:
    """The configuration after a JSON merge patch (RFC 7396). Raises :class:`CommandError` with the path."""
    target = msgspec.to_builtins(config)
    try:
        return msgspec.convert(_merge_patch(target, patch), Config)
    except msgspec.ValidationError as error:
        what, path = invalid_value(error, Config)
        raise CommandError("invalid_frame", f"config: {what}", path=f"$.config{path.removeprefix('$')}") from None
    except RecursionError:
        raise CommandError("invalid_frame", "config: the JSON is nested too deeply", path="$.config") from None


def _merge_patch(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(cast("dict[str, Any]", target)) if isinstance(target, dict) else {}
    for key, value in cast("dict[str, Any]", patch).items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge_patch(result.get(key), value)
    return result
