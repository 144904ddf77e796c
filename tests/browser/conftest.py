"""One browser for all tests of a worker, a profile of its own for each tab."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_asyncio

from tests.browser.chromium import launched

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.browser.tab import Tab

    NewTab = Callable[..., Awaitable[Tab]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, running."""
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def new_tab(browser: Browser) -> AsyncIterator[NewTab]:
    """``await new_tab()``: a tab. Nothing may go wrong in it but what matches ``but``."""
    from tests.browser.tab import PICTURES, Tab

    opened: list[tuple[Tab, re.Pattern[str] | None]] = []
    if directory := os.environ.get(PICTURES):
        Path(directory).mkdir(parents=True, exist_ok=True)

    async def new(*, but: re.Pattern[str] | None = None, **options: object) -> Tab:
        context = await browser.new_context(**{"viewport": {"width": 900, "height": 900}, **options})  # type: ignore[arg-type]
        tab = Tab(await context.new_page())
        opened.append((tab, but))
        return tab

    yield new
    for tab, but in opened:
        await tab.page.context.close()
        assert [line for line in tab.trouble if but is None or not but.search(line)] == []
