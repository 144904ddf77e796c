"""The example page in a tab, as a person sees it, and what it ought to show by the server's word."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from tests.browser.chromium import need_playwright
from tests.wire import PATIENCE_S, Server, soon

need_playwright()
from playwright.async_api import Locator, Page, expect

expect.set_options(timeout=1000 * PATIENCE_S)
__all__ = ["LINE_LOST", "LONGEST_TASK_MS", "PICTURES", "Shown", "Tab", "eventually", "expect", "snapshot", "wanted"]

PICTURES: Final = "HERMES_WS_TESTS_PICTURES"
"""Names the directory that pictures of the page are kept in; without it, none are."""
LINE_LOST: Final = re.compile(r"WebSocket connection to .* failed")
"""What Chromium itself has to say when nobody listens. No page can help it."""
LONGEST_TASK_MS: Final = 200
"""How long a page may keep a person waiting."""

Shown = list[dict[str, str]]
"""The cards of the page from top to bottom, each as its slots that are not empty."""

_SHOWN: Final = """() => [...document.querySelectorAll("main > *")].map((card) => Object.fromEntries(
  [...card.querySelectorAll("[data-slot]")].map((node) => [node.dataset.slot, node.textContent])
    .filter(([slot, text]) => text && slot !== "verdict")))"""
_LONG_TASKS: Final = """window.longTasks = [];
new PerformanceObserver((list) => longTasks.push(...list.getEntries().map(({ duration }) => duration)))
  .observe({ type: "longtask", buffered: true });"""


class Tab:
    """One tab. Whatever the console or the page complains of is in ``trouble``."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.trouble: list[str] = []
        page.set_default_timeout(1000 * PATIENCE_S)
        page.on("console", lambda said: self.trouble.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.trouble.append(str(error)))

    # -- what a person does ----------------------------------------------------------------------------

    async def open(self, url: str, key: str, conversation: str) -> None:
        """Open the example page and wait until it is connected."""
        await self.page.add_init_script(_LONG_TASKS)
        await self.page.goto(f"{url}/example#key={key}&c={conversation}")
        await self.is_live()

    async def say(self, text: str) -> None:
        """Type something and press Enter."""
        await self.page.get_by_label("Message").fill(text)
        await self.page.keyboard.press("Enter")

    async def press(self, name: str) -> None:
        """Press a button."""
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def leave(self) -> None:
        """Close the tab."""
        await self.page.close()

    # -- what they see ---------------------------------------------------------------------------------

    async def is_live(self) -> None:
        await expect(self.page.locator("#line")).to_have_text("live")

    async def is_idle(self) -> None:
        """No run is active, and it was told."""
        await expect(self.page.locator("#run")).to_be_empty()

    @property
    def question(self) -> Locator:
        """The open question."""
        return self.page.locator("main > form")

    @property
    def notice(self) -> Locator:
        """What went wrong, by the page's word."""
        return self.page.locator("#notice")

    def card(self, title: str) -> Locator:
        """The newest tool card of that title."""
        return self.page.locator("main > .tool_call", has=self.page.get_by_text(title, exact=True)).last

    @property
    def answer(self) -> Locator:
        """What the assistant said last."""
        return self.page.locator("main > .assistant [data-slot=text]").last

    async def shown(self) -> Shown:
        """All cards."""
        shown: Shown = await self.page.evaluate(_SHOWN)
        return shown

    async def long_tasks_ms(self) -> list[float]:
        """How long whatever took longer than 50 ms has kept the page from answering."""
        tasks: list[float] = await self.page.evaluate("() => longTasks")
        return tasks

    async def picture(self, name: str) -> None:
        """Keep a picture of it, where somebody wants to look."""
        if directory := os.environ.get(PICTURES):
            await self.page.screenshot(path=Path(directory) / f"{name}.png")


# -- the server's word ---------------------------------------------------------------------------------------


async def snapshot(server: Server, conversation: str) -> dict[str, Any]:
    """The conversation's state."""
    answer = await server.post(conversation, {"type": "snapshot.get"})
    state: dict[str, Any] = answer["snapshot"]
    return state


def wanted(state: dict[str, Any]) -> Shown:
    """What a page that is exactly right shows of this state."""
    cards = [_card(item) for item in state["items"]]
    return cards + [{} for asked in state["interactions"] if asked["kind"] != "client_tool"]


def _card(item: dict[str, Any]) -> dict[str, str]:
    slots = {
        "message": ("role", "text"),
        "reasoning": ("text",),
        "tool_call": ("title", "source", "status", "arguments", "progress", "output"),
    }[item["type"]]
    shown = {slot: _text(item[slot]) for slot in slots if slot in item}
    return {slot: text for slot, text in shown.items() if text}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


async def eventually(look: Callable[[], Awaitable[Any]], right: Any) -> None:
    """Look until it is right. Fails with what is wrong."""
    found = await look()
    try:
        async with soon():
            while found != right:
                await asyncio.sleep(0.02)
                found = await look()
    except TimeoutError:
        assert found == right
