"""``hermes-ws conversations`` and ``delete``: what there is on a server, and what there is no longer to be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import quote

import httpx2
import msgspec

from hermes_ws.client import ConnectionRefused, Unreachable
from hermes_ws.console.target import Server
from hermes_ws.console.view import safe
from hermes_ws.protocol.resources import ConversationList
from hermes_ws.protocol.summaries import ConversationSummary

__all__ = ["conversations", "delete", "table"]

TIMEOUT_S = 10.0
HEADINGS = ("CONVERSATION", "STATUS", "HEAD", "AGE", "OPEN", "TITLE")


class _Raw(msgspec.Struct):
    """A page whose lines are kept as they came."""

    conversations: list[msgspec.Raw]


def _client(server: Server) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    return httpx2.Client(base_url=server.url, headers=headers, timeout=TIMEOUT_S, trust_env=False)


def conversations(server: Server) -> Iterator[tuple[ConversationSummary, bytes]]:
    """All of them, the newest first, each with its JSON as the server sent it. Raises ``ClientError``."""
    with _client(server) as http:
        cursor: str | None = None
        while True:
            body = _page(http, cursor)
            page = msgspec.json.decode(body, type=ConversationList)
            lines = msgspec.json.decode(body, type=_Raw).conversations
            yield from zip(page.conversations, (bytes(line) for line in lines), strict=True)
            cursor = page.next
            if cursor is None:
                return


def delete(server: Server, conversation_id: str) -> bool:
    """Delete a conversation wholly; False if there is none. Raises ``ClientError``."""
    with _client(server) as http:
        try:
            response = http.delete(f"/api/conversations/{quote(conversation_id, safe='')}")
        except httpx2.TransportError as error:
            raise Unreachable(str(error)) from error
    if response.status_code not in (204, 404):
        raise ConnectionRefused(response.status_code, _message(response.content))
    return response.status_code == 204


def _page(http: httpx2.Client, cursor: str | None) -> bytes:
    try:
        response = http.get("/api/conversations", params={"cursor": cursor} if cursor else None)
    except httpx2.TransportError as error:
        raise Unreachable(str(error)) from error
    if response.status_code != 200:
        raise ConnectionRefused(response.status_code, _message(response.content))
    return response.content


def _message(body: bytes) -> str:
    try:
        said = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return ""
    return str(said.get("message", ""))


def table(summaries: list[ConversationSummary], *, now: float | None = None) -> str:
    """For people."""
    moment = time.time() if now is None else now
    rows = [HEADINGS, *(_row(summary, moment) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(summary: ConversationSummary, now: float) -> tuple[str, ...]:
    asked = [safe(asked.title).replace("\n", " ") for asked in summary.interactions]
    waits = f" (+{summary.queue})" if summary.queue else ""
    return (
        summary.conversation_id,
        f"{summary.status}{waits}",
        str(summary.head),
        _age(now - summary.last_event_at / 1000),
        f"{len(asked)}: {asked[0][:40]}" if asked else "",
        safe(summary.title or "").replace("\n", " ")[:60],
    )


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"
