"""``terminal``: one command in a shell, in the conversation's directory, with an environment made from scratch."""

from __future__ import annotations

import functools
import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import ToolDescription
from hermes_ws.tools.base import ToolContext, ToolResult, ToolSettings
from hermes_ws.tools.describe import ACTS, describe
from hermes_ws.tools.leftovers import mark
from hermes_ws.tools.process import Exit, run_process

__all__ = ["Terminal", "command_environment"]

_HARMLESS: Final = ("PATH", "LANG", "LANGUAGE", "TZ")


class Terminal:
    """Runs a command and streams what it writes. Nothing that it starts outlives the call."""

    def __init__(self, settings: ToolSettings) -> None:
        self.description: ToolDescription = describe(
            "terminal",
            "Terminal",
            "Run a command in a shell, in the working directory. There is no input (stdin is empty) and no terminal "
            "to draw on. Processes left in the background are ended when the command ends. A non-zero exit code is "
            "an error.",
            properties={
                "command": {"type": "string", "minLength": 1, "description": "What the shell is to run."},
                "timeout_s": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "description": f"Seconds after which the command is ended. Default "
                    f"{settings.terminal_timeout_s:g}, at most {settings.terminal_max_timeout_s:g}.",
                },
            },
            required=["command"],
            annotations=ACTS,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        timeout_s = _timeout(ctx.settings, arguments.get("timeout_s"))
        ended = await _run(ctx, arguments["command"], timeout_s)
        if ended.timed_out:
            await ctx.output("stderr", f"\n[timed out after {timeout_s:g} s; the command was ended]\n")
        structured: dict[str, Any] = {"exit_code": ended.code}
        if ended.timed_out:
            structured["timed_out"] = True
        return ToolResult(is_error=ended.code != 0 or ended.timed_out, structured=structured)


def _timeout(settings: ToolSettings, asked: float | None) -> float:
    return min(settings.terminal_timeout_s if asked is None else asked, settings.terminal_max_timeout_s)


async def _run(ctx: ToolContext, command: str, timeout_s: float) -> Exit:
    if "\0" in command:
        raise ToolError("command: must not contain a NUL character")
    return await run_process(
        [_shell(), "-c", command],
        cwd=ctx.workdir,
        env=command_environment(ctx.workdir, ctx.settings.terminal_env),
        marked=mark(ctx.run_id, ctx.call_id),
        timeout_s=timeout_s,
        grace_s=lambda: 0.0 if ctx.stop_mode == "now" else ctx.settings.terminate_grace_s,
        report=ctx.output,
    )


@functools.cache
def _shell() -> str:
    return "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"


def command_environment(workdir: Path, names: Iterable[str], source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a command sees: harmless defaults and ``names``, and nothing else of the server's environment."""
    kept = {name: value for name, value in source.items() if name in _HARMLESS or name.startswith("LC_")}
    named = {name: source[name] for name in names if name in source}
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "USER": _user(),
        **kept,
        "HOME": str(workdir),
        "TERM": "dumb",
        **named,
    }


@functools.cache
def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run as a number that has no name
        return str(os.geteuid())
