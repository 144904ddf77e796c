"""Values of a request: numbers in its query, switches in its headers, bodies that may be missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from hermes_ws.compat.errors import ApiError
from hermes_ws.routes.body import read_body
from hermes_ws.routes.context import Api, parsed

__all__ = ["count", "optional_json", "tool_progress"]

_NUMBER: Final = re.compile(r"\d{1,15}", re.ASCII)
_ON: Final = ("on", "1", "true", "yes")
_OFF: Final = ("off", "0", "false", "no")


async def optional_json(api: Api, request: Request) -> dict[str, Any]:
    """A body that may be missing."""
    body = await read_body(request, api.settings.limits.body_bytes)
    return parsed(body) if body.strip() else {}


def count(text: str | None, name: str, default: int) -> int:
    """A number in a query or a header. Raises :class:`ApiError` 400."""
    if text is None or text == "":
        return default
    if not _NUMBER.fullmatch(text):
        raise ApiError(400, "invalid_value", f"`{name}` is a number from 0, not {text[:80]!r}", param=name)
    return int(text)


def tool_progress(headers: Mapping[str, str]) -> bool | None:
    """Whether the answer is to tell of the agent's own tools, going by ``X-Hermes-Tool-Progress``. None: it does not
    say."""
    said = headers.get("x-hermes-tool-progress", "").strip().lower()
    return True if said in _ON else False if said in _OFF else None
