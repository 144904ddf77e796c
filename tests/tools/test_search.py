"""search_files, and the process in which it matches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from hermes_ws.errors import ToolError
from hermes_ws.tools.base import ToolResult
from hermes_ws.tools.leftovers import find, mark
from hermes_ws.tools.registry import builtin_tools

from .conftest import Context


async def search(ctx: Context, pattern: str, **arguments: Any) -> ToolResult:
    with anyio.fail_after(15):
        return await builtin_tools(ctx.settings)["search_files"].call(ctx, {"pattern": pattern, **arguments})


@pytest.fixture
def tree(ctx: Context, tmp_path: Path) -> Path:
    (ctx.workdir / "src").mkdir()
    (ctx.workdir / ".git").mkdir()
    (ctx.workdir / "a.txt").write_text("Hello\nworld €\n")
    (ctx.workdir / "src/b.py").write_text("x = 'hello'\r\n")
    (ctx.workdir / ".git/c").write_text("hello\n")
    (ctx.workdir / "d.bin").write_bytes(b"hello\0")
    (tmp_path / "secret").write_text("hello secret\n")
    (ctx.workdir / "link").symlink_to(tmp_path / "secret")
    (ctx.workdir / "up").symlink_to(tmp_path)
    return ctx.workdir


async def test_finds_lines(ctx: Context, tree: Path) -> None:
    result = await search(ctx, "[Hh]ello")
    assert result.output == "a.txt:1: Hello\nsrc/b.py:1: x = 'hello'"
    assert result.structured == {
        "matches": [
            {"path": "a.txt", "line": 1, "text": "Hello"},
            {"path": "src/b.py", "line": 1, "text": "x = 'hello'"},
        ],
        "searched": 2,
        "skipped": 1,
        "truncated": False,
    }


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"pattern": "HELLO", "ignore_case": True}, ["a.txt", "src/b.py"]),
        ({"pattern": "hello", "glob": "*.py"}, ["src/b.py"]),
        ({"pattern": "hello", "glob": "src/**"}, ["src/b.py"]),
        ({"pattern": "hello", "path": "src"}, ["src/b.py"]),
        ({"pattern": "hello", "path": "src/b.py"}, ["src/b.py"]),
        ({"pattern": "hello", "path": ".git"}, [".git/c"]),
        ({"pattern": "€$"}, ["a.txt"]),
        ({"pattern": "\0"}, []),
    ],
)
async def test_where_and_how(ctx: Context, tree: Path, arguments: dict[str, Any], found: list[str]) -> None:
    result = await search(ctx, **arguments)
    assert [match["path"] for match in result.structured["matches"]] == found


async def test_nothing_found_is_no_error(ctx: Context, tree: Path) -> None:
    result = await search(ctx, "nowhere")
    assert result.output == "no matches"
    assert not result.is_error


async def test_what_is_no_pattern_is_told(ctx: Context, tree: Path) -> None:
    with pytest.raises(ToolError, match=r"pattern: is not a regular expression.*unterminated"):
        await search(ctx, "(")


async def test_matches_are_bounded(ctx: Context, tree: Path) -> None:
    (tree / "many").write_text("needle\n" * 100)
    ctx.configure(search_matches=10)
    result = await search(ctx, "needle")
    assert len(result.structured["matches"]) == 10
    assert result.structured["truncated"]
    assert "there is more" in (result.output or "")


async def test_of_a_long_line_the_part_around_the_match_is_shown(ctx: Context) -> None:
    (ctx.workdir / "long").write_text("x" * 100_000 + "needle" + "y" * 100_000)
    text = (await search(ctx, "needle")).structured["matches"][0]["text"]
    assert "needle" in text
    assert len(text) < 500


async def test_large_files_are_left_out(ctx: Context, tree: Path) -> None:
    ctx.configure(search_file_bytes=13)
    assert [match["path"] for match in (await search(ctx, "(?i)hello")).structured["matches"]] == ["src/b.py"]


async def test_a_catastrophic_pattern_is_ended_in_time_and_blocks_nobody(ctx: Context) -> None:
    (ctx.workdir / "a").write_text("a" * 50 + "b\n")
    ctx.configure(search_timeout_s=0.4)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    started = time.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        with pytest.raises(ToolError, match="took longer than"):
            await search(ctx, r"(a+)+$")
        group.cancel_scope.cancel()
    assert time.monotonic() - started < 2
    assert ticks > 10
    assert not find(mark(ctx.run_id, ctx.call_id))


async def test_a_stopped_search_leaves_no_process(ctx: Context) -> None:
    (ctx.workdir / "a").write_text("a" * 50 + "b\n")
    async with anyio.create_task_group() as group:
        group.start_soon(search, ctx, r"(a+)+$")
        with anyio.fail_after(5):
            while not find(mark(ctx.run_id, ctx.call_id)):
                await anyio.sleep(0.005)
        group.cancel_scope.cancel()
    assert not find(mark(ctx.run_id, ctx.call_id))
