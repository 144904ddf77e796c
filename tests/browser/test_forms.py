"""Forms in the example page: what is sent is what was shown, whatever a server calls its fields.

The frames are written here, because no server of ours asks for all of this.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.tab import Tab, eventually, expect
from tests.wire import Json, Server, fresh

if TYPE_CHECKING:
    from playwright.async_api import WebSocketRoute

    from tests.browser.conftest import NewTab

pytestmark = pytest.mark.asyncio(loop_scope="session")

USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
EMPTY: Json = {"config": {}, "config_version": 0, "run": None, "queue": [], "items": [], "interactions": []}
OPTIONS = [{"id": "accept", "label": "OK", "kind": "allow"}, {"id": "decline", "label": "Decline", "kind": "deny"}]


class Asking:
    """A line that asks the page something, and hears its replies."""

    def __init__(self) -> None:
        self.replies: list[Json] = []
        self._line: WebSocketRoute
        self._seq = 0

    async def open(self, tab: Tab, server: Server) -> None:
        await tab.page.route_web_socket(re.compile("/ws/"), self._begin)
        await tab.open(server.url, server.key, fresh())

    def _begin(self, line: WebSocketRoute) -> None:
        self._line = line
        line.on_message(self._heard)
        hello = {"protocol": "hermes.v1", "conversation_id": "demo", "epoch": "e", "head": 0, "principal": "ada"}
        limits = {"frame_bytes": 1_000_000}
        self._send("hello", **hello, limits=limits, resume={"mode": "snapshot", "from": 1, "to": 0})
        self._send("snapshot", at=0, usage=USAGE, **EMPTY)
        self._send("live", at=0)

    def _heard(self, message: str | bytes) -> None:
        command: Json = json.loads(message)
        if command["type"] == "interaction.reply":
            self.replies.append(command)

    def _send(self, type_: str, **fields: Any) -> None:
        self._line.send(json.dumps({"type": type_, **fields}))

    def event(self, type_: str, **fields: Any) -> None:
        self._seq += 1
        self._send(type_, seq=self._seq, ts=self._seq, run_id="r", **fields)

    def ask(self, required: list[str], **properties: Any) -> None:
        """A form with these fields."""
        schema = {"type": "object", "properties": properties, "required": required}
        asked = {"interaction_id": "i", "kind": "form", "title": "T", "message": "M", "editable": False, "digest": "d"}
        self.event("interaction.requested", **asked, options=OPTIONS, schema=schema, requested_at=1, expires_at=2**42)

    def resolve(self, and_say: str) -> None:
        """The form is gone, and then something is said."""
        self.event("interaction.resolved", interaction_id="i", outcome="answered", by={"principal": "ada"})
        self.event("message.started", item_id="m", step=1, role="assistant")
        self.event("message.completed", item_id="m", step=1, text=and_say, content=[])

    async def content(self) -> Any:
        return self.replies[-1].get("content") if self.replies else None


@pytest.mark.parametrize("name", ["remove", "inert", "call", "append", "__proto__", "Answer"])
async def test_a_field_may_have_any_name(server: Server, new_tab: NewTab, name: str) -> None:
    tab, asking = await new_tab(), Asking()
    await asking.open(tab, server)
    asking.ask([], **{name: {"type": "string"}})
    await tab.question.get_by_role("textbox").fill("v")
    await tab.press("OK")
    await expect(tab.question).to_have_attribute("inert", "")
    await eventually(asking.content, {name: "v"})
    asking.resolve("and on")
    await expect(tab.answer).to_have_text("and on")
    await expect(tab.question).to_have_count(0)


async def test_what_cannot_be_drawn_is_told_and_what_comes_after_it_is_drawn(server: Server, new_tab: NewTab) -> None:
    trouble = re.compile("Cannot (read|destructure)")
    tab, asking = await new_tab(but=trouble), Asking()
    await asking.open(tab, server)
    asking.ask([], broken=None)
    await expect(tab.notice).to_contain_text(trouble)
    asking.resolve("and on")
    await expect(tab.answer).to_have_text("and on")


async def test_what_is_sent_is_what_was_shown(server: Server, new_tab: NewTab) -> None:
    tab, asking = await new_tab(), Asking()
    await asking.open(tab, server)
    asking.ask(
        ["size"],
        terms={"type": "boolean", "default": True},
        size={"type": "string", "enum": ["S", "M"]},
        colour={"type": "string", "oneOf": [{"const": "r", "title": "Red"}, {"const": "b"}], "default": "b"},
        extras={"type": "array", "items": {"enum": ["bag", "box", "bow"]}, "default": ["box"]},
        tags={"type": "array", "items": {"anyOf": [{"const": "x", "title": "Ex"}]}},
        count={"type": "integer", "default": 3},
        note={"type": "string"},
    )
    await expect(tab.question.get_by_label("terms")).to_be_checked()
    await expect(tab.question.get_by_label("colour")).to_have_value("b")
    assert await tab.question.get_by_label("colour").locator("option").all_text_contents() == ["", "Red", "b"]
    await expect(tab.question.get_by_label("extras")).to_have_values(["box"])
    await tab.press("OK")
    await expect(tab.question.get_by_label("size *")).to_be_focused()
    assert asking.replies == [], "what is required is not there yet"
    await tab.question.get_by_label("size").select_option("M")
    await tab.question.get_by_label("extras").select_option(["bag", "bow"])
    await tab.question.get_by_label("tags").select_option("Ex")
    await tab.picture("all-fields")
    await tab.press("OK")
    chosen = {"terms": True, "size": "M", "colour": "b", "extras": ["bag", "bow"], "tags": ["x"], "count": 3}
    await eventually(asking.content, chosen)


async def test_a_form_is_declined_without_what_it_requires(server: Server, new_tab: NewTab) -> None:
    tab, asking = await new_tab(), Asking()
    await asking.open(tab, server)
    asking.ask(["name"], name={"type": "string"})
    await tab.press("Decline")
    await expect(tab.question).to_have_attribute("inert", "")
    assert [(reply["option"], reply.get("content")) for reply in asking.replies] == [("decline", None)]
