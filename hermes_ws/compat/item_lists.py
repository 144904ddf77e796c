"""Lists of items: those of a request, those of a whole conversation, and pages of them."""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Literal, cast

import msgspec

from hermes_ws.compat import responses_items as made
from hermes_ws.compat.calls import is_of_caller
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.fields import invalid
from hermes_ws.compat.parts import parts_of
from hermes_ws.compat.responses_input import references
from hermes_ws.compat.responses_types import ApprovalResponse, FunctionCallOutput, Item
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import ContentPart, ImagePart, Input

__all__ = ["ItemPage", "items_of", "page_of", "shown"]

_MOST: Final = 100
_USUAL: Final = 20
_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rsn",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "mcp_approval_response": "apr",
}


class ItemPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of items."""

    object: Literal["list"] = "list"
    """Always ``list``."""
    data: list[dict[str, Any]]
    """The items."""
    first_id: str
    """The id of the first one; empty where there is none."""
    last_id: str
    """The id of the last one, for ``after``; empty where there is none."""
    has_more: bool
    """Whether more follow."""


def page_of(all_items: Sequence[dict[str, Any]], query: Mapping[str, str], *, order: str = "desc") -> ItemPage:
    """The page that the parameters ``after``, ``limit`` and ``order`` ask for; the items come oldest first.

    Raises :class:`ApiError`, which names the parameter.
    """
    order = query.get("order", order)
    if order not in ("asc", "desc"):
        raise invalid("order", f"is asc or desc, not {order[:80]!r}")
    limit = query.get("limit", str(_USUAL))
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= _MOST:
        raise invalid("limit", f"is a number from 1 to {_MOST}, not {limit[:80]!r}")
    ordered = list(all_items) if order == "asc" else list(reversed(all_items))
    begin = _place_after(ordered, query.get("after"))
    data = ordered[begin : begin + int(limit)]
    ids = [item["id"] for item in data]
    more = begin + len(data) < len(ordered)
    return ItemPage(data=data, first_id=ids[0] if ids else "", last_id=ids[-1] if ids else "", has_more=more)


def _place_after(ordered: list[dict[str, Any]], after: str | None) -> int:
    if not after:
        return 0
    for place, item in enumerate(ordered):
        if item["id"] == after:
            return place + 1
    raise ApiError(404, "not_found", f"there is no item {after[:80]!r} in this list", param="after")


# -- of a conversation ---------------------------------------------------------------------------------


def items_of(events: Iterable[ev.Event], beside: Sequence[tuple[int, dict[str, Any]]] = ()) -> list[dict[str, Any]]:
    """Everything that was said and done, oldest first, as JSON. Deltas are not needed. ``beside`` are items that are in
    no event, each with the number of the event that it comes after, in order."""
    lister, notes = _Lister(), deque(beside)
    for event in events:
        while notes and notes[0][0] < event.seq:
            lister.note(notes.popleft()[1])
        lister.take(event)
    for _, item in notes:
        lister.note(item)
    return [item if isinstance(item, dict) else _json(item) for item in lister.items.values()]


class _Lister:
    def __init__(self) -> None:
        self.items: dict[str, Item | dict[str, Any]] = {}
        self._calls: dict[str, ev.ToolStarted] = {}
        self._asked: dict[str, ev.InteractionRequested] = {}

    def note(self, item: dict[str, Any]) -> None:
        self.items[item["id"]] = item

    def take(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted() if event.input:
                self._add(made.said(made.in_id("msg", event.run_id), event.input))
            case ev.RunSteered(disposition="applied"):
                steer = event.steer_id.removeprefix("steer_")
                self._add(made.said(made.in_id(f"msg_{steer}", event.run_id), event.text))
            case ev.MessageCompleted():
                status: Literal["incomplete", "completed"] = "incomplete" if event.partial else "completed"
                self._add(made.message(made.in_id(event.item_id, event.run_id), event.text, status))
            case ev.ReasoningAvailable():
                self._add(made.reasoning(made.in_id(event.item_id, event.run_id), event.text, "completed"))
            case ev.ItemDiscarded():
                self.items.pop(made.in_id(event.item_id, event.run_id), None)
            case ev.ToolStarted():
                self._calls[event.call_id] = event
                self._add(made.call(event))
            case ev.ToolCompleted():
                started = self._calls.get(event.call_id)
                self._add(made.call_output(event, of_client=is_of_caller(started)))
            case ev.InteractionRequested(owner=None):
                self._ask(event)
            case ev.InteractionResolved():
                self._answer(event)
            case _:
                pass

    def _add(self, item: Item) -> None:
        self.items[item.id] = item

    def _ask(self, asked: ev.InteractionRequested) -> None:
        self._asked[asked.interaction_id] = asked
        if asked.kind == "approval":
            self._add(made.approval_request(asked))
        elif made.answer_key(asked, self._calls.get(asked.call_id or "")) == asked.interaction_id:
            self._add(made.question(asked))

    def _answer(self, resolved: ev.InteractionResolved) -> None:
        asked = self._asked.get(resolved.interaction_id)
        if asked is None:
            return
        if asked.kind == "approval":
            self._add(_leave(asked, resolved))
        elif made.answer_key(asked, self._calls.get(asked.call_id or "")) == asked.interaction_id:
            told = resolved.answers or resolved.content or {"outcome": resolved.option or resolved.outcome}
            item_id = made.in_id(f"fco_{asked.interaction_id}", asked.run_id)
            output = msgspec.json.encode(told).decode()
            self._add(FunctionCallOutput(id=item_id, call_id=asked.interaction_id, output=output))


def _leave(asked: ev.InteractionRequested, resolved: ev.InteractionResolved) -> ApprovalResponse:
    return ApprovalResponse(
        id=made.in_id(f"apr_{asked.interaction_id}", asked.run_id),
        approval_request_id=made.approval_id(asked),
        approve=made.allowed(asked, resolved),
        reason=resolved.comment,
    )


# -- of a request --------------------------------------------------------------------------------------


def shown(given: Sequence[dict[str, Any]], response_id: str) -> list[dict[str, Any]]:
    """The items of a request as they are listed later: each with an id, content as parts, and images that came within
    their address by the address that they have here. Mere references are left out: they are to items that are listed
    elsewhere. The items have been read before, so they are what they should."""
    name = response_id.removeprefix("resp_")
    referred = references(given)
    there = [item for place, item in enumerate(given) if place not in referred]
    return [_shown(item, f"in{number}_{name}") for number, item in enumerate(there)]


def _shown(item: dict[str, Any], name: str) -> dict[str, Any]:
    kind = item.get("type") or "message"
    item_id = item.get("id")
    if not isinstance(item_id, str) or not item_id:
        item_id = f"{_PREFIXES.get(kind, 'item')}_{name}"
    if kind == "message":
        return _shown_message(item, item_id)
    whole = {**item, "type": kind, "id": item_id, "status": item.get("status") or "completed"}
    if kind in ("function_call_output", "custom_tool_call_output") and isinstance(item.get("output"), list):
        whole["output"] = _json(made.said("", _stored(parts_of(item["output"], "output"))))["content"]
    return whole


def _shown_message(item: dict[str, Any], item_id: str) -> dict[str, Any]:
    content = item.get("content")
    parts = _stored(parts_of(content, "content")) if content not in (None, []) else []
    shown_item = _json(made.said(item_id, parts))
    if item["role"] == "assistant":
        texts = [part.get("text", "") for part in shown_item["content"]]
        shown_item = _json(made.message(item_id, "\n".join(texts), "completed"))
    return {**shown_item, "role": item["role"]}


def _stored(parts: Input) -> Input:
    if isinstance(parts, str):
        return parts
    return [_stored_image(part) if isinstance(part, ImagePart) else part for part in parts]


def _stored_image(part: ImagePart) -> ContentPart:
    """An image that came as data is kept under what its bytes hash to."""
    if part.url is None or not part.url.startswith("data:"):
        return part
    head, _, data = part.url.partition(",")
    try:
        raw = base64.b64decode(data, validate=False) if head.endswith(";base64") else data.encode()
    except (binascii.Error, ValueError):
        return ImagePart(url="", detail=part.detail)
    return ImagePart(blob=f"blob_{sha256(raw).hexdigest()}", detail=part.detail)


def _json(item: Item) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.to_builtins(item))
