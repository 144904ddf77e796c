"""Questions of MCP servers to people: forms, and things to be done at an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import mcp_types as types
import msgspec

from hermes_ws.tools.base import ToolContext
from hermes_ws.tools.mcp.offers import clean
from hermes_ws.validation import too_deep

__all__ = ["Elicitation"]

_SCHEMA_BYTES: Final = 32_768
_MESSAGE_LENGTH: Final = 4_000
_URL_LENGTH: Final = 2_048


class Elicitation:
    """Asks for one call of one server."""

    def __init__(self, ctx: ToolContext, server: str, scrub: Callable[[str], str]) -> None:
        """``scrub`` takes the conversation's secrets out of a text."""
        self._scrub = scrub
        self._ctx = ctx
        self._server = server

    async def answered(self, params: types.ElicitRequestParams) -> types.ElicitResult:
        """Have people asked, and what they say. What cannot be asked is declined. Raises :class:`NobodyAnswered`."""
        message = self._scrub(clean(params.message))[:_MESSAGE_LENGTH]
        title = f"{self._server} asks"
        if isinstance(params, types.ElicitRequestURLParams):
            if not _is_web_address(params.url):
                return types.ElicitResult(action="decline")
            done = await self._ctx.form(title, message, url=params.url)
            return types.ElicitResult(action="decline" if done is None else "accept")
        schema: dict[str, Any] = {"type": "object", **params.requested_schema}
        if not _is_askable(schema):
            return types.ElicitResult(action="decline")
        filled = await self._ctx.form(title, message, schema=schema)
        if filled is None:
            return types.ElicitResult(action="decline")
        return types.ElicitResult(action="accept", content=filled)


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and len(url) <= _URL_LENGTH and not set(url) & set(" \\")
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _is_askable(schema: dict[str, Any]) -> bool:
    """Whether it can be shown; not where it asks for a password, which would be kept in the log."""
    try:
        encoded = msgspec.json.encode(schema) if not too_deep(schema) else None
    except (ValueError, TypeError):
        return False
    return encoded is not None and len(encoded) <= _SCHEMA_BYTES and b'"format":"password"' not in encoded
