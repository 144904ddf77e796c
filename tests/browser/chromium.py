"""A real browser: Debian's Chromium, driven by Playwright.

Where one of them is missing the tests are skipped and say which; with ``HERMES_WS_TESTS_REQUIRE_BROWSER=1`` they fail
instead. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser

__all__ = ["REQUIRED", "launched", "need_playwright", "unavailable"]

REQUIRED: Final = "HERMES_WS_TESTS_REQUIRE_BROWSER"
PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = ["--disable-gpu", "--disable-quic"]


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A headless browser. Skips the test where there cannot be one."""
    need_playwright()
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        unavailable("chromium is not installed")
    from playwright.async_api import async_playwright

    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=[*FLAGS, *root])
        try:
            yield browser
        finally:
            await browser.close()


def need_playwright() -> None:
    """For modules that cannot be imported without it."""
    if importlib.util.find_spec("playwright") is None:
        unavailable("playwright is not installed")


def unavailable(why: str) -> NoReturn:
    """Skip the test, or its module; fail where a browser is required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{why}, and {REQUIRED}=1 requires it")
    pytest.skip(why, allow_module_level=True)
