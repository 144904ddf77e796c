"""Where there is no browser the tests say so, and where one is required they fail."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from tests.browser.chromium import REQUIRED, launched


@pytest.fixture(params=["playwright", "chromium"])
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is not there."""
    name: str = request.param
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None if name == "playwright" else object())
    monkeypatch.setattr(shutil, "which", lambda _: None)
    return name


async def test_a_skip_names_what_is_missing(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "0")
    with pytest.raises(pytest.skip.Exception, match=f"{missing} is not installed"):
        async with launched():
            pass


async def test_it_is_a_failure_where_a_browser_is_required(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=f"{missing} is not installed, and {REQUIRED}=1 requires it"):
        async with launched():
            pass
