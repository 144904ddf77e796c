"""Values of a request: numbers in its query, bodies that may be missing."""

from __future__ import annotations

import re
from typing import Any, Final

from starlette.requests import Request

from hermes_ws.compat.errors import ApiError
from hermes_ws.routes.body import read_body
from hermes_ws.routes.context import Api, parsed

__all__ = ["count", "optional_json"]

_NUMBER: Final = re.compile(r"\d{1,15}", re.ASCII)


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
