"""The terminal: what a command sees, what it writes, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop

from hermes_ws.errors import ToolError
from hermes_ws.tools import process
from hermes_ws.tools.base import ToolContext, ToolResult
from hermes_ws.tools.leftovers import MARKER, end_marked, find, is_alive, mark
from hermes_ws.tools.terminal import Terminal, command_environment

from .conftest import Context

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


async def run(ctx: Context, command: str, **arguments: Any) -> ToolResult:
    with anyio.fail_after(15):
        return await Terminal(ctx.settings).call(ctx, {"command": command, **arguments})


def children() -> set[str]:
    """Our children, zombies included."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


async def test_a_context_of_the_tests_is_a_tool_context(ctx: Context) -> None:
    context: ToolContext = ctx
    assert context.workdir.is_dir()


async def test_runs_in_the_working_directory_and_reports_both_streams(ctx: Context) -> None:
    result = await run(ctx, "pwd; echo oops >&2")
    assert result == ToolResult(structured={"exit_code": 0})
    assert ctx.text() == f"{ctx.workdir}\n"
    assert ctx.text("stderr") == "oops\n"


async def test_a_non_zero_exit_is_an_error(ctx: Context) -> None:
    assert await run(ctx, "exit 3") == ToolResult(is_error=True, structured={"exit_code": 3})


async def test_an_exit_by_signal_is_negative(ctx: Context) -> None:
    assert (await run(ctx, "kill -9 $$")).structured == {"exit_code": -9}


async def test_stdin_is_empty(ctx: Context) -> None:
    assert (await run(ctx, "cat")).structured == {"exit_code": 0}


async def test_output_comes_while_the_command_runs(ctx: Context) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(run, ctx, "echo first; read -r line < fifo; echo $line")
        os.mkfifo(ctx.workdir / "fifo")
        await until(lambda: ctx.text() == "first\n")
        await anyio.to_thread.run_sync((ctx.workdir / "fifo").write_text, "second\n")
    assert ctx.text() == "first\nsecond\n"


async def test_small_writes_are_reported_together(ctx: Context) -> None:
    await run(ctx, "for i in $(seq 2000); do printf x; done")
    assert ctx.text() == "x" * 2000
    assert len(ctx.chunks) < 50


async def test_chunks_never_split_a_character(ctx: Context) -> None:
    await run(ctx, r"printf '\342\202'; sleep 0.1; printf '\254 \360\237'; sleep 0.1; printf '\230\200'")
    assert ctx.text() == "€ 😀"
    assert "�" not in ctx.text()


async def test_what_is_not_utf8_is_replaced(ctx: Context) -> None:
    await run(ctx, r"printf 'a\377b\342\202'")
    assert ctx.text() == "a�b�"


async def test_fifty_megabytes_need_no_memory(ctx: Context) -> None:
    ctx.keep = False
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not (await run(ctx, "yes | head -c 50M")).is_error
    assert ctx.written == 50 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


async def test_a_slow_taker_slows_the_command_and_costs_no_memory(ctx: Context) -> None:
    gate = anyio.Event()

    class Slow(Context):
        async def output(self, stream: Any, chunk: str) -> None:
            await super().output(stream, chunk)
            await gate.wait()

    slow = Slow(ctx.workdir)
    async with anyio.create_task_group() as group:
        group.start_soon(run, slow, "head -c 1M /dev/zero | tr '\\0' a; touch done")
        await until(lambda: slow.written)
        await anyio.sleep(0.1)
        assert slow.written <= process.READ_BYTES
        assert not (ctx.workdir / "done").exists()
        gate.set()
    assert slow.written == 1024 * 1024


async def test_an_error_of_the_taker_ends_the_command_and_comes_back_as_it_is(ctx: Context) -> None:
    class Full(Context):
        async def output(self, stream: Any, chunk: str) -> None:
            raise OSError("no space")

    full = Full(ctx.workdir)
    with pytest.raises(OSError, match="no space"):
        await run(full, "echo x; sleep 60")
    assert not find(mark(full.run_id, full.call_id))


async def test_time_out(ctx: Context) -> None:
    started = time.monotonic()
    result = await run(ctx, "echo begun; sleep 60", timeout_s=0.2)
    assert time.monotonic() - started < 2
    assert result.is_error
    assert result.structured == {"exit_code": -15, "timed_out": True}
    assert ctx.text() == "begun\n"
    assert "timed out after 0.2 s" in ctx.text("stderr")


async def test_time_is_what_the_operator_allows_at_most(ctx: Context) -> None:
    ctx.configure(terminal_max_timeout_s=0.1)
    assert (await run(ctx, "sleep 60", timeout_s=30)).structured["timed_out"]


async def test_what_ignores_sigterm_is_killed_after_the_grace(ctx: Context) -> None:
    ctx.configure(terminate_grace_s=0.2)
    result = await run(ctx, "trap '' TERM; while :; do sleep 1; done", timeout_s=0.3)
    assert result.structured == {"exit_code": -9, "timed_out": True}


async def test_last_words_after_sigterm_are_heard(ctx: Context) -> None:
    await run(ctx, "trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done", timeout_s=0.3)
    assert ctx.text() == "bye\n"


STOPPABLE = {
    "group": "sleep 60 & sleep 60",
    "own session": "setsid sleep 60 & sleep 60",
    "double fork": "(setsid sh -c 'sleep 60 & sleep 60' &) ; sleep 60",
    "cleared environment": "env -i sleep 60 & env -i setsid sleep 60 & sleep 60",
    "hidden and deaf": "env -i setsid bash -c \"trap '' TERM; while :; do sleep 60; done\" & sleep 60",
    "deaf": "trap '' TERM; sh -c \"trap '' TERM; while :; do sleep 1; done\" & sleep 60",
}


@LINUX
@pytest.mark.parametrize("mode", ["graceful", "now"])
@pytest.mark.parametrize("command", STOPPABLE.values(), ids=STOPPABLE.keys())
async def test_stop_leaves_nothing(ctx: Context, command: str, mode: Any) -> None:
    before = children()
    async with anyio.create_task_group() as group:
        group.start_soon(run, ctx, f"{command} ; wait")
        await until(lambda: len(find(mark(ctx.run_id, ctx.call_id))) >= 3)
        await anyio.sleep(0.05)
        mine = find(mark(ctx.run_id, ctx.call_id))
        assert len(mine) >= 3
        ctx.stop_mode = mode
        started = time.monotonic()
        group.cancel_scope.cancel()
    assert time.monotonic() - started < 1.5
    assert not [found for found in mine if is_alive(found)]
    assert children() == before


async def test_stop_now_gives_no_time(ctx: Context) -> None:
    ctx.stop_mode = "now"
    async with anyio.create_task_group() as group:
        group.start_soon(run, ctx, "trap 'echo asked > asked' TERM; touch ready; while :; do sleep 0.01; done")
        await until((ctx.workdir / "ready").exists)
        group.cancel_scope.cancel()
    assert not (ctx.workdir / "asked").exists()


@LINUX
async def test_what_stays_in_the_background_ends_with_the_command(ctx: Context) -> None:
    result = await run(ctx, "sleep 60 & setsid sleep 60 & sleep 60 > /dev/null 2>&1 & echo started")
    assert result == ToolResult(structured={"exit_code": 0})
    assert ctx.text() == "started\n"
    assert not find(mark(ctx.run_id, ctx.call_id))


async def test_a_stranger_that_holds_the_pipe_does_not_hold_the_call(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LAST_WORDS_S", 0.1)
    # Escapes everything: no marker, a session of its own, its parent gone.
    await run(ctx, "(env -i setsid sleep 3 &) ; sleep 0.1; echo $$")
    assert ctx.text().strip().isdigit()


@LINUX
async def test_a_restarted_server_ends_what_a_call_left(ctx: Context) -> None:
    command = ["sh", "-c", "setsid sleep 60 & sleep 60 & env -i sleep 60"]
    environment = {**os.environ, MARKER: mark(ctx.run_id, ctx.call_id)}
    with subprocess.Popen(command, env=environment, start_new_session=True) as left:
        await until(lambda: len(find(mark(ctx.run_id, ctx.call_id))) == 4)
        with anyio.fail_after(5):
            assert await end_marked(mark(ctx.run_id, ctx.call_id)) == 4
    assert left.returncode == -signal.SIGKILL
    assert await end_marked(mark(ctx.run_id, ctx.call_id)) == 0


async def test_the_environment_is_made_from_scratch(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_WS_KEY", "top-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("GREETING", "hello")
    ctx.configure(terminal_env=["GREETING", "NOT_SET"])
    await run(ctx, "env")
    seen = dict(line.split("=", 1) for line in ctx.text().splitlines())
    assert "secret" not in ctx.text()
    assert seen["HOME"] == str(ctx.workdir)
    assert seen["TERM"] == "dumb"
    assert seen["GREETING"] == "hello"
    assert set(seen) - {"PWD", "SHLVL", "_", "OLDPWD", MARKER} == set(command_environment(ctx.workdir, ["GREETING"]))


def test_of_the_servers_environment_only_the_harmless_is_passed_on(ctx: Context) -> None:
    source = {"PATH": "/bin", "LC_ALL": "C", "TZ": "UTC", "LD_PRELOAD": "x", "TMPDIR": "/t", "BASH_ENV": "y"}
    seen = command_environment(ctx.workdir, [], source)
    assert {"PATH": "/bin", "LC_ALL": "C", "TZ": "UTC"}.items() <= seen.items()
    assert not seen.keys() & {"LD_PRELOAD", "TMPDIR", "BASH_ENV"}


@pytest.mark.parametrize("command", ["echo \0", "echo \ud800"])
async def test_what_no_shell_can_take_is_refused(ctx: Context, command: str) -> None:
    with pytest.raises(ToolError):
        await run(ctx, command)


async def test_a_command_too_long_for_the_system_says_what_to_do(ctx: Context) -> None:
    with pytest.raises(ToolError, match="put long text into a file"):
        await run(ctx, "echo " + "x" * 4_000_000)


async def test_file_descriptors_of_the_server_are_not_inherited(ctx: Context) -> None:
    await run(ctx, "ls /proc/$$/fd 2>/dev/null || echo '0 1 2'")
    assert not set(ctx.text().split()) - {"0", "1", "2", "3", "255"}


@LINUX
async def test_nothing_is_leaked_over_many_calls(ctx: Context) -> None:
    await run(ctx, "true")
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        await run(ctx, "true")
        await run(ctx, "sleep 60", timeout_s=0.02)
    assert set(Path("/proc/self/fd").iterdir()) == before


async def test_where_there_is_no_pidfd_the_exit_is_polled_for(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "open_pidfd", lambda pid: None)
    assert (await run(ctx, "echo x; exit 4")).structured == {"exit_code": 4}
    assert (await run(ctx, "sleep 60", timeout_s=0.1)).structured == {"exit_code": -15, "timed_out": True}


def test_runs_under_uvloop_as_well(ctx: Context) -> None:
    async def scene() -> None:
        assert (await run(ctx, "echo x; exit 4")).structured == {"exit_code": 4}
        with anyio.move_on_after(0.3):
            await run(ctx, "sleep 60 & setsid sleep 60 & sleep 60")
        assert not find(mark(ctx.run_id, ctx.call_id))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())
    assert ctx.text() == "x\n"
