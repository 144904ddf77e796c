"""``fetch_url``: one page of the public internet, as text."""

from __future__ import annotations

import codecs
from typing import Any, Final

import anyio
import httpx2

from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import ToolDescription
from hermes_ws.tools.addresses import AllowList
from hermes_ws.tools.base import ToolContext, ToolResult, ToolSettings
from hermes_ws.tools.describe import READS, describe
from hermes_ws.tools.guarded import Resolve, guarded_client, read_bounded
from hermes_ws.tools.tree import looks_binary

__all__ = ["FetchUrl"]

_HEADERS: Final = {"User-Agent": "hermes-ws", "Accept": "text/*, application/json, application/xml;q=0.9, */*;q=0.5"}
_TEXT_TYPES: Final = frozenset(
    {
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/toml",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-sh",
        "application/x-www-form-urlencoded",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
    }
)
_NO_CHARSETS: Final = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"})
"""Codecs that Python counts as text encodings and no page is written in; some take quadratic time."""


class FetchUrl:
    """Fetches with the guarded client; the rest of the response, its size and its time are bounded."""

    def __init__(self, settings: ToolSettings, *, resolver: Resolve | None = None) -> None:
        self._allowed = AllowList(settings.fetch_allow)
        self._resolver = resolver
        self.description: ToolDescription = describe(
            "fetch_url",
            "Fetch URL",
            f"Fetch a text from the internet over http or https; at most {settings.fetch_bytes} bytes of it. HEAD "
            "returns the headers alone. Addresses in private networks are refused.",
            properties={
                "url": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 8192,
                    "description": "With http:// or https://.",
                },
                "method": {"enum": ["GET", "HEAD"], "description": "Default GET."},
            },
            required=["url"],
            annotations=READS,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        settings = ctx.settings
        with anyio.move_on_after(settings.fetch_timeout_s):
            async with guarded_client(
                self._allowed, settings.fetch_timeout_s, headers=_HEADERS, resolver=self._resolver
            ) as client:
                try:
                    return await _fetch(client, arguments.get("method", "GET"), arguments["url"], settings)
                except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                    raise ToolError(f"the fetch failed: {error or type(error).__name__}") from error
        raise ToolError(f"the fetch took longer than {settings.fetch_timeout_s:g} s")


async def _fetch(client: httpx2.AsyncClient, method: str, address: str, settings: ToolSettings) -> ToolResult:
    url = httpx2.URL(address)
    for _ in range(settings.fetch_redirects + 1):
        async with client.stream(method, url) as response:
            if not response.has_redirect_location:
                return await _result(response, settings.fetch_bytes)
            url = response.url.join(response.headers["location"])
    raise ToolError(f"there were more than {settings.fetch_redirects} redirects; the last leads to {_shown(url)}")


def _shown(url: httpx2.URL) -> str:
    return str(url.copy_with(userinfo=b""))


async def _result(response: httpx2.Response, limit: int) -> ToolResult:
    body, truncated = b"", False
    if response.request.method == "HEAD":
        output = _headers(response)
    else:
        body, truncated = await read_bounded(response, limit)
        output = _text(response, body, truncated)
    if response.status_code >= 400:
        output = f"HTTP {response.status_code} {response.reason_phrase}\n\n{output}"
    structured = {
        "status": response.status_code,
        "url": str(response.url),
        "content_type": response.headers.get("content-type", ""),
        "truncated": truncated,
    }
    return ToolResult(output=output, is_error=response.status_code >= 400, structured=structured)


def _headers(response: httpx2.Response) -> str:
    lines = [f"{name}: {value}" for name, value in response.headers.items()]
    return "\n".join([f"HTTP {response.status_code} {response.reason_phrase}", *lines])


def _text(response: httpx2.Response, body: bytes, truncated: bool) -> str:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not _is_text(kind, body):
        size = response.headers.get("content-length", "") if truncated else str(len(body))
        return f"[binary content, {kind or 'of unknown type'}, {size or f'more than {len(body)}'} bytes]"
    # Not final when truncated: the character that the cut went through is left out.
    text = _decoder(response.charset_encoding).decode(body, final=not truncated)
    return f"{text}\n[cut after {len(body)} bytes]" if truncated else text


def _is_text(kind: str, body: bytes) -> bool:
    if kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+json", "+xml")):
        return True
    return kind in ("", "application/octet-stream") and not looks_binary(body) and _is_utf8(body)


def _is_utf8(body: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        return False
    return True


def _decoder(charset: str | None) -> codecs.IncrementalDecoder:
    """For what the response says it is written in, if that is known and a character set."""
    try:
        found = codecs.lookup(charset or "utf-8")
    except (LookupError, ValueError):  # ValueError: a NUL or the like in the name
        found = codecs.lookup("utf-8")
    if not found._is_text_encoding or found.name.replace("-", "_") in _NO_CHARSETS:
        found = codecs.lookup("utf-8")
    return found.incrementaldecoder("replace")
