"""``GET /v1/runs``: runs by pages, the one that something happened to last first.

What a run's row says decides whether its log is looked at: of a long list only those are read that may be told of.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.runs_types import STATES, TERMINAL, RunList, RunObject
from hermes_ws.decisions import RunOptions
from hermes_ws.routes.context import Api, json_response
from hermes_ws.routes.run_log import Found, run_object
from hermes_ws.routes.values import count
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import ConversationRef, RunPage, RunRow
from hermes_ws.store.paging import cursor_of

__all__ = ["listed"]

_DEFAULT_RUNS: Final = 20
_SCANNED: Final = 2_000
"""Runs that a filtered page looks at; then it says where to go on."""
_READ: Final = 100
"""Rows that are read at once where there is a filter: most of them may be left out."""


class _Asked(NamedTuple):
    caller: Caller
    limit: int
    cursor: str | None
    status: str | None
    session_id: str | None

    @property
    def reads(self) -> int:
        """How many rows are worth reading at once."""
        return self.limit if self.status is None and self.session_id is None else max(self.limit, _READ)

    def takes(self, ref: ConversationRef, row: RunRow) -> bool:
        """Whether the run may be one of those; what it waits for is only in its log. Those that a client brought along
        as history have not run here."""
        return (
            self.session_id in (None, ref.conversation_id)
            and self.caller.principal.may_open(ref.conversation_id)
            and (self.status is None or _kind(self.status) == _kind(row.status))
            and not msgspec.json.decode(row.options, type=RunOptions).imported
        )


def _kind(status: str) -> str:
    return status if status == "queued" or status in TERMINAL else "active"


async def listed(api: Api, request: Request) -> Response:
    """Runs, the one that something happened to last first."""
    asked = _asked(api, request)
    runs: list[RunObject] = []
    cursor, scanned, more = asked.cursor, 0, True
    while more and len(runs) < asked.limit and scanned < _SCANNED:
        page = await _page(api, asked, cursor)
        more = page.next is not None
        for ref, row in page.lines:
            if len(runs) == asked.limit:
                more = True
                break
            cursor = cursor_of(row.updated_at, row.run_id)
            scanned += 1
            runs += await _told(api, asked, ref, row)
    return json_response(RunList(object="list", data=runs, has_more=more, next=cursor if more else None))


def _asked(api: Api, request: Request) -> _Asked:
    caller, query = api.caller(request), request.query_params
    limit = min(max(count(query.get("limit"), "limit", _DEFAULT_RUNS), 1), api.settings.limits.page_conversations)
    status = query.get("status") or None
    if status is not None and status not in STATES:
        raise ApiError(400, "invalid_value", f"`status` is one of {', '.join(STATES)}", param="status")
    cursor = query.get("after") or query.get("cursor") or None
    return _Asked(caller, limit, cursor, status, query.get("session_id") or None)


async def _page(api: Api, asked: _Asked, cursor: str | None) -> RunPage:
    try:
        return await api.runtime.store.runs(asked.caller.principal.namespace, limit=asked.reads, cursor=cursor)
    except ValueError as error:
        raise ApiError(400, "invalid_value", f"`after`: {error}", param="after") from None


async def _told(api: Api, asked: _Asked, ref: ConversationRef, row: RunRow) -> list[RunObject]:
    """The run, if it is one of those."""
    if not asked.takes(ref, row):
        return []
    run = await run_object(api, Found(ref, row))
    return [run] if asked.status in (None, run.status) else []
