"""The file tools: what they do, and that nothing leads out of the working directory."""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from hermes_ws.errors import ToolError
from hermes_ws.tools import files, paths
from hermes_ws.tools.base import ToolResult
from hermes_ws.tools.registry import builtin_tools
from hermes_ws.tools.tree import Tree, fits

from .conftest import Context

SECRET = "what nobody in the conversation may see"


async def call(ctx: Context, name: str, **arguments: Any) -> ToolResult:
    with anyio.fail_after(15):
        return await builtin_tools(ctx.settings)[name].call(ctx, arguments)


async def refused(ctx: Context, name: str, **arguments: Any) -> str:
    with pytest.raises(ToolError) as refusal:
        await call(ctx, name, **arguments)
    return str(refusal.value)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the working directory, with a secret in it."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text(SECRET)
    return directory


# -- read_file -----------------------------------------------------------------------------------------


async def test_reads_a_file(ctx: Context) -> None:
    (ctx.workdir / "a.txt").write_text("one\ntwo\n")
    result = await call(ctx, "read_file", path="a.txt")
    assert result.output == "one\ntwo\n"
    assert result.structured == {"path": "a.txt", "size": 8, "first_line": 1, "lines": 2, "truncated": False}


async def test_reads_by_an_absolute_path_inside(ctx: Context) -> None:
    (ctx.workdir / "a.txt").write_text("one")
    assert (await call(ctx, "read_file", path=str(ctx.workdir / "b/../a.txt"))).output == "one"


@pytest.mark.parametrize(
    ("first", "count", "text", "following"),
    [
        (1, 2, "line 1\nline 2\n", 3),
        (2, 1, "line 2\n", 3),
        (99, 5, "line 99\nline 100\n", None),
        (100, None, "line 100\n", None),
        (101, None, "", None),
    ],
)
async def test_reads_some_lines(ctx: Context, first: int, count: int | None, text: str, following: int | None) -> None:
    (ctx.workdir / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 101)))
    limit = {} if count is None else {"limit_lines": count}
    result = await call(ctx, "read_file", path="a.txt", offset_line=first, **limit)
    assert result.output is not None
    assert result.output.startswith(text)
    assert result.structured.get("next_offset_line") == following
    assert (result.output == text) == (following is None)
    assert result.structured["truncated"] == (following is not None)


async def test_pages_make_up_the_whole_file(ctx: Context) -> None:
    whole = "".join(f"{n} äöü€😀\n" for n in range(20_000))
    (ctx.workdir / "a.txt").write_text(whole)
    ctx.configure(read_bytes=100_000)
    read, line = "", 1
    while True:
        result = await call(ctx, "read_file", path="a.txt", offset_line=line)
        assert result.output is not None
        page = result.structured
        read += "".join(result.output.splitlines(keepends=True)[: page["lines"]])
        if not page["truncated"]:
            break
        line = page["next_offset_line"]
    assert read == whole


async def test_a_line_longer_than_fits_is_cut_at_a_character(ctx: Context) -> None:
    (ctx.workdir / "a.txt").write_text("€" * 100)
    ctx.configure(read_bytes=100)
    result = await call(ctx, "read_file", path="a.txt")
    assert result.output is not None
    assert result.output.splitlines()[0] == "€" * 33


async def test_past_the_end_says_how_many_lines_there_are(ctx: Context) -> None:
    (ctx.workdir / "a.txt").write_text("one\ntwo")
    assert "has only 2 lines" in await refused(ctx, "read_file", path="a.txt", offset_line=9)


async def test_a_binary_file_is_told(ctx: Context) -> None:
    (ctx.workdir / "a.bin").write_bytes(b"\x7fELF\0\0")
    assert "binary file of 6 bytes" in await refused(ctx, "read_file", path="a.bin")


async def test_what_is_not_utf8_is_replaced(ctx: Context) -> None:
    (ctx.workdir / "a.txt").write_bytes(b"caf\xe9\n")
    assert (await call(ctx, "read_file", path="a.txt")).output == "caf�\n"


async def test_a_huge_file_costs_what_is_returned(ctx: Context) -> None:
    with (ctx.workdir / "huge").open("wb") as file:
        file.write(b"head\n" * 2_000)
        file.truncate(1 << 40)
    result = await call(ctx, "read_file", path="huge", limit_lines=2)
    assert result.output is not None
    assert result.output.startswith("head\nhead\n")


async def test_looking_for_a_line_far_away_ends_in_time(ctx: Context) -> None:
    with (ctx.workdir / "huge").open("wb") as file:
        file.write(b"head\n" * 2_000)
        file.truncate(1 << 40)
    ctx.configure(search_timeout_s=0.1)
    assert "took longer than 0.1 s" in await refused(ctx, "read_file", path="huge", offset_line=3_000)


async def test_a_stopped_read_ends_its_thread(ctx: Context) -> None:
    with (ctx.workdir / "huge").open("wb") as file:
        file.write(b"head\n" * 2_000)
        file.truncate(1 << 40)
    with anyio.move_on_after(0.1) as stop:
        await call(ctx, "read_file", path="huge", offset_line=3_000)
    assert stop.cancelled_caught
    limiter = anyio.to_thread.current_default_thread_limiter()
    with anyio.fail_after(5):
        while limiter.borrowed_tokens:
            await anyio.sleep(0.005)


# -- write_file ----------------------------------------------------------------------------------------


async def test_writes_a_file_and_the_directories_to_it(ctx: Context) -> None:
    result = await call(ctx, "write_file", path="a/b/c.txt", content="€")
    assert result.structured == {"path": "a/b/c.txt", "bytes": 3, "created": True}
    assert (ctx.workdir / "a/b/c.txt").read_text() == "€"
    assert [entry.name for entry in (ctx.workdir / "a/b").iterdir()] == ["c.txt"]


async def test_replaces_a_file_and_keeps_its_mode(ctx: Context) -> None:
    script = ctx.workdir / "run.sh"
    script.write_text("old")
    script.chmod(0o751)
    assert not (await call(ctx, "write_file", path="run.sh", content="new")).structured["created"]
    assert script.read_text() == "new"
    assert stat.S_IMODE(script.stat().st_mode) == 0o751


async def test_a_hard_link_elsewhere_keeps_what_it_holds(ctx: Context, outside: Path) -> None:
    os.link(outside / "secret", ctx.workdir / "linked")
    await call(ctx, "write_file", path="linked", content="mine")
    assert (outside / "secret").read_text() == SECRET


async def test_too_much_is_not_written(ctx: Context) -> None:
    ctx.configure(write_bytes=10)
    assert "at most 10" in await refused(ctx, "write_file", path="a", content="x" * 11)
    assert list(ctx.workdir.iterdir()) == []


async def test_half_a_surrogate_pair_is_not_written(ctx: Context) -> None:
    assert "surrogate" in await refused(ctx, "write_file", path="a", content="\ud800")


@pytest.mark.parametrize("path", [".", "dir", "dir/"])
async def test_a_directory_is_not_written_to(ctx: Context, path: str) -> None:
    (ctx.workdir / "dir").mkdir()
    assert "directory" in await refused(ctx, "write_file", path=path, content="x")


async def test_a_failed_write_leaves_nothing_behind(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_swap_in", fail)
    assert "no space left" in await refused(ctx, "write_file", path="a", content="x")
    assert list(ctx.workdir.iterdir()) == []


# -- edit_file -----------------------------------------------------------------------------------------


async def test_edits_the_one_passage(ctx: Context) -> None:
    (ctx.workdir / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    result = await call(ctx, "edit_file", path="a.txt", old_text="two", new_text="zwei")
    assert (ctx.workdir / "a.txt").read_bytes() == b"one\r\nzwei\r\n"
    assert result.structured == {"path": "a.txt", "replacements": 1}


async def test_a_passage_must_be_the_only_one_unless_all_are_meant(ctx: Context) -> None:
    (ctx.workdir / "a.txt").write_text("x\ny\nx\n")
    error = await refused(ctx, "edit_file", path="a.txt", old_text="x", new_text="z")
    assert "2 times (lines 1, 3)" in error
    await call(ctx, "edit_file", path="a.txt", old_text="x", new_text="z", replace_all=True)
    assert (ctx.workdir / "a.txt").read_text() == "z\ny\nz\n"


@pytest.mark.parametrize(
    ("old", "hint"),
    [("nothing", "read_file shows"), ("a\nb", "line ends"), ("a   b", "white space")],
)
async def test_a_passage_that_is_not_there_gets_a_hint(ctx: Context, old: str, hint: str) -> None:
    (ctx.workdir / "a.txt").write_bytes(b"a\r\nb\r\n")
    assert hint in await refused(ctx, "edit_file", path="a.txt", old_text=old, new_text="c")


async def test_an_edit_that_changes_nothing_is_an_error(ctx: Context) -> None:
    assert "nothing to change" in await refused(ctx, "edit_file", path="a", old_text="x", new_text="x")


async def test_what_is_not_text_is_not_edited(ctx: Context) -> None:
    (ctx.workdir / "a").write_bytes(b"caf\xe9")
    assert "not UTF-8" in await refused(ctx, "edit_file", path="a", old_text="caf", new_text="x")


async def test_an_edit_is_bounded(ctx: Context) -> None:
    (ctx.workdir / "a").write_text("x" * 100)
    ctx.configure(write_bytes=150)
    assert "at most 150" in await refused(ctx, "edit_file", path="a", old_text="x", new_text="yy", replace_all=True)
    ctx.configure(write_bytes=99)
    assert "larger than 99" in await refused(ctx, "edit_file", path="a", old_text="x", new_text="y")


async def test_of_many_edits_at_once_none_is_lost(ctx: Context) -> None:
    names = [f"<{n}>" for n in range(12)]
    (ctx.workdir / "a").write_text("".join(names))
    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(
                lambda name: call(ctx, "edit_file", path="a", old_text=name, new_text=name[1:-1] + ";"), name
            )
    assert (ctx.workdir / "a").read_text() == "".join(f"{n};" for n in range(12))


# -- the jail ------------------------------------------------------------------------------------------

FILE_TOOLS: dict[str, dict[str, Any]] = {
    "read_file": {},
    "write_file": {"content": "x"},
    "edit_file": {"old_text": "what", "new_text": "x"},
    "list_files": {},
    "search_files": {"pattern": "."},
}
each_tool = pytest.mark.parametrize("tool", FILE_TOOLS)


@each_tool
@pytest.mark.parametrize(
    "path",
    ["../outside/secret", "a/../../outside/secret", "..", "/etc/passwd", "//etc/passwd", "{workdir}/../outside/secret"],
)
async def test_no_path_leads_out(ctx: Context, outside: Path, tool: str, path: str) -> None:
    error = await refused(ctx, tool, path=path.format(workdir=ctx.workdir), **FILE_TOOLS[tool])
    assert "out of the working directory" in error or "outside of the working directory" in error
    assert (outside / "secret").read_text() == SECRET


@each_tool
@pytest.mark.parametrize("path", ["link", "dir/link", "up/secret", "dir/up/secret", "loop", "inside"])
async def test_no_link_is_followed(ctx: Context, outside: Path, tool: str, path: str) -> None:
    (ctx.workdir / "dir").mkdir()
    (ctx.workdir / "real").write_text(SECRET)
    for directory in (ctx.workdir, ctx.workdir / "dir"):
        (directory / "link").symlink_to(outside / "secret")
        (directory / "up").symlink_to(outside)
    (ctx.workdir / "loop").symlink_to("loop")
    (ctx.workdir / "inside").symlink_to("real")
    assert "symbolic link" in await refused(ctx, tool, path=path, **FILE_TOOLS[tool])
    assert (outside / "secret").read_text() == SECRET
    assert sorted(entry.name for entry in outside.iterdir()) == ["secret"]


@each_tool
@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 300, "/".join(["x" * 200] * 40)])
async def test_what_no_path_can_be_is_refused(ctx: Context, tool: str, path: str) -> None:
    if tool == "write_file" and "/" in path:
        return  # opened name by name, a path may be as long as it likes
    await refused(ctx, tool, path=path, **FILE_TOOLS[tool])


@each_tool
async def test_a_working_directory_swapped_for_a_link_is_refused(ctx: Context, outside: Path, tool: str) -> None:
    ctx.workdir.rmdir()
    ctx.workdir.symlink_to(outside)
    await refused(ctx, tool, path="secret", **FILE_TOOLS[tool])
    assert (outside / "secret").read_text() == SECRET


@pytest.mark.parametrize("tool", ["read_file", "write_file", "edit_file", "search_files"])
async def test_a_fifo_is_refused_and_waited_for_by_nobody(ctx: Context, tool: str) -> None:
    os.mkfifo(ctx.workdir / "fifo")
    with anyio.fail_after(5):
        assert "not a regular file" in await refused(ctx, tool, path="fifo", **FILE_TOOLS[tool])


@pytest.mark.parametrize("tool", ["read_file", "edit_file"])
async def test_a_fifo_put_there_at_the_last_moment_is_refused_as_well(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    os.mkfifo(ctx.workdir / "fifo")
    looked = iter([True])
    judge = paths._must_be_file
    monkeypatch.setattr(paths, "_must_be_file", lambda path, mode: next(looked, False) or judge(path, mode))
    with anyio.fail_after(5):
        assert "not a regular file" in await refused(ctx, tool, path="fifo", **FILE_TOOLS[tool])


@pytest.mark.skipif(os.geteuid() != 0, reason="making a device takes root")
async def test_a_device_is_refused(ctx: Context) -> None:
    os.mknod(ctx.workdir / "zero", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    assert "device" in await refused(ctx, "read_file", path="zero")


EXCHANGE = 2
"""``RENAME_EXCHANGE``: two names change places in one step."""
AT_FDCWD = -100


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """While inside, the two change places as fast as can be."""
    exchange, stop = ctypes.CDLL(None).renameat2, threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def tried(ctx: Context, tool: str, **arguments: Any) -> str:
    try:
        return (await call(ctx, tool, **arguments)).output or ""
    except ToolError as error:
        return f"refused: {error}"


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
async def test_swapping_a_directory_for_a_link_gains_nothing(ctx: Context, outside: Path) -> None:
    (ctx.workdir / "dir").mkdir()
    (ctx.workdir / "dir/secret").write_text("harmless")
    (ctx.workdir / "link").symlink_to(outside)
    seen: set[str] = set()
    with swapping(ctx.workdir / "dir", ctx.workdir / "link"):
        for _ in range(150):
            seen.add(await tried(ctx, "read_file", path="dir/secret"))
            seen.add(await tried(ctx, "write_file", path="dir/secret", content="harmless"))
            seen.add(await tried(ctx, "list_files", recursive=True))
    assert not [one for one in seen if SECRET in one or str(len(SECRET)) in one]
    assert (outside / "secret").read_text() == SECRET
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
    assert {"harmless", "replaced dir/secret (8 bytes)"} <= seen
    assert any("symbolic link" in one for one in seen)


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
async def test_swapping_a_file_for_a_link_gains_nothing(ctx: Context, outside: Path) -> None:
    (ctx.workdir / "file").write_text("harmless")
    (ctx.workdir / "link").symlink_to(outside / "secret")
    seen: set[str] = set()
    with swapping(ctx.workdir / "file", ctx.workdir / "link"):
        for _ in range(150):
            seen.add(await tried(ctx, "read_file", path="file"))
            seen.add(await tried(ctx, "edit_file", path="file", old_text="harmless", new_text="harmless!"))
            seen.add(await tried(ctx, "edit_file", path="file", old_text="harmless!", new_text="harmless"))
            seen.add(await tried(ctx, "write_file", path="file", content="harmless"))
        for _ in range(5):
            seen.add(await tried(ctx, "search_files", pattern="."))
    assert not [one for one in seen if SECRET in one]
    assert (outside / "secret").read_text() == SECRET
    assert "harmless" in seen


# -- list_files ----------------------------------------------------------------------------------------


@pytest.fixture
def tree(ctx: Context, outside: Path) -> Path:
    (ctx.workdir / "src/pkg").mkdir(parents=True)
    for name in ("a.txt", "src/b.py", "src/pkg/c.py"):
        (ctx.workdir / name).write_text(f"in {name}\n")
    (ctx.workdir / "link").symlink_to(outside)
    os.mkfifo(ctx.workdir / "fifo")
    return ctx.workdir


async def test_lists_a_directory_and_follows_no_link(ctx: Context, tree: Path) -> None:
    result = await call(ctx, "list_files")
    assert result.output == "a.txt  9\nfifo?\nlink@\nsrc/"
    assert result.structured == {
        "entries": [
            {"path": "a.txt", "type": "file", "size": 9},
            {"path": "fifo", "type": "other"},
            {"path": "link", "type": "symlink"},
            {"path": "src", "type": "dir"},
        ],
        "truncated": False,
    }


async def test_lists_what_is_below_in_order(ctx: Context, tree: Path) -> None:
    paths_ = [entry["path"] for entry in (await call(ctx, "list_files", recursive=True)).structured["entries"]]
    assert paths_ == ["a.txt", "fifo", "link", "src", "src/b.py", "src/pkg", "src/pkg/c.py"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"glob": "*.txt"}, ["a.txt"]),
        ({"glob": "*.py"}, []),
        ({"glob": "*.py", "recursive": True}, ["src/b.py", "src/pkg/c.py"]),
        ({"glob": "**/*.py"}, ["src/b.py", "src/pkg/c.py"]),
        ({"glob": "src/*.py"}, ["src/b.py"]),
        ({"glob": "pkg/*", "path": "src"}, ["src/pkg/c.py"]),
    ],
)
async def test_lists_what_fits(ctx: Context, tree: Path, arguments: dict[str, Any], found: list[str]) -> None:
    entries = (await call(ctx, "list_files", **arguments)).structured["entries"]
    assert [entry["path"] for entry in entries] == found


async def test_an_empty_directory_is_told(ctx: Context) -> None:
    assert (await call(ctx, "list_files")).output == "(nothing)"


async def test_a_listing_is_bounded(ctx: Context, tree: Path) -> None:
    ctx.configure(list_entries=2)
    result = await call(ctx, "list_files")
    assert len(result.structured["entries"]) == 2
    assert result.structured["truncated"]
    assert "there is more" in (result.output or "")


async def test_a_listing_takes_no_longer_than_allowed(ctx: Context, tree: Path) -> None:
    ctx.configure(search_timeout_s=0)
    assert "took longer" in await refused(ctx, "list_files", recursive=True)


async def test_a_file_is_not_listed(ctx: Context, tree: Path) -> None:
    assert "not a directory" in await refused(ctx, "list_files", path="a.txt")


async def test_a_directory_that_cannot_be_read_makes_the_listing_incomplete(
    ctx: Context, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: Tree, parts: Any, read: Any = Tree._read) -> Any:
        if parts == ("src",):
            (tree / "src").rename(tree / "moved")
        return read(self, parts)

    monkeypatch.setattr(Tree, "_read", gone)
    assert (await call(ctx, "list_files", recursive=True)).structured["truncated"]


async def test_a_name_that_is_not_utf8_can_still_be_sent(ctx: Context) -> None:
    (ctx.workdir / os.fsdecode(b"caf\xe9")).write_text("x")
    assert (await call(ctx, "list_files")).structured["entries"][0]["path"] == "caf�"


async def test_a_deep_tree_is_no_trouble(ctx: Context) -> None:
    here = os.open(ctx.workdir, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len((await call(ctx, "list_files", recursive=True)).structured["entries"]) == 400


@pytest.mark.parametrize(
    ("path", "glob", "expected"),
    [
        ("a/b/c", "**", True),
        ("a/b/c", "a/**", True),
        ("a/b/c", "**/c", True),
        ("a/b/c", "a/**/c", True),
        ("a/c", "a/**/c", True),
        ("a/b/c", "a/*/c", True),
        ("a/b/c", "a/c", False),
        ("a/b/c", "a/*", False),
        ("a/b/c", "c", True),
        ("a/b/c", "/a/b/c", True),
        ("a/b/C", "c", False),
        ("a/[b]", "a/[[]b]", True),
        ("a/b", "a/[z-a]", False),
    ],
)
def test_globs(path: str, glob: str, expected: bool) -> None:
    assert fits(tuple(path.split("/")), glob) is expected


@pytest.mark.timeout(5)
def test_no_glob_takes_forever() -> None:
    assert not fits(("a",) * 200, "/".join(["**", "a"] * 100 + ["b"]))
    assert not fits(("a" * 200,), "*a" * 60 + "b")
