"""The documentation tells what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hermes_ws.agents.llm.demo import parse
from hermes_ws.protocol.codec import decode_command
from scripts.settings_doc import PAGE, page

ROOT = Path(__file__).parents[1]
EXAMPLES = [page for page in sorted((ROOT / "examples").rglob("*.md")) if "node_modules" not in page.parts]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), *EXAMPLES]


def test_the_settings_page_is_what_the_types_say() -> None:
    assert PAGE.read_text() == page(), "run: make schemas"


def test_every_setting_says_what_it_is_for() -> None:
    assert "|  |" not in page()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.name))
def test_every_link_leads_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_command_in_the_docs_can_be_read() -> None:
    found = [
        command
        for path in PAGES
        for command in re.findall(r'^(?:> )?(\{"type":"[a-z]+\.?[a-z]*".*\})$', path.read_text(), re.MULTILINE)
        if "…" not in command and '"seq"' not in command and "run.strat" not in command
    ]
    assert found
    for command in found:
        decode_command(command)


def test_every_directive_of_the_demo_is_on_its_page() -> None:
    text = (ROOT / "docs" / "demo.md").read_text()
    for directive in ("say", "think", "tool", "run", "ask", "stream", "sleep", "fail", "par"):
        assert f"`/{directive}" in text
    assert parse("/say x") is not None
