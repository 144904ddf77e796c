"""Agents and tools are somebody else's code: whatever they return or say, what is in the log can be read for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hermes_ws.agents.base import RequestedCall, StopReason, Turn
from hermes_ws.agents.llm.demo import create
from hermes_ws.protocol.codec import decode_event
from hermes_ws.protocol.commands import RunStart
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.scrub import Scrubber
from hermes_ws.store.directory import DataDirectory
from hermes_ws.store.vault import Vault
from hermes_ws.tools.base import ToolContext, ToolResult
from hermes_ws.tools.describe import READS, describe
from tests.runtime.conftest import REF, GatedStore, follow, runtime_over, send, until


class Odd:
    """An agent that keeps to its seam but for one thing."""

    default_model = "odd"

    def __init__(self, *, returns: Any = "end", say: Any = "x", usage: Any = None, arguments: Any = None) -> None:
        self._returns, self._say, self._usage, self._arguments = returns, say, usage, arguments

    async def run(self, turn: Turn) -> StopReason:
        async with turn.step() as step:
            await turn.text(self._say)
            step.usage = self._usage or step.usage
            if self._arguments is not None:
                await turn.call_tools([RequestedCall("c1", "list_files", self._arguments)])
        returned: StopReason = self._returns
        return returned


@pytest.mark.parametrize(
    ("agent", "outcome"),
    [
        (Odd(returns=None), "run.completed"),
        (Odd(returns="perfect"), "run.failed"),
        (Odd(returns=7), "run.failed"),
        (Odd(say="half a \ud800 character"), "run.completed"),
        (Odd(say=7), "run.failed"),
        (Odd(usage={"tokens": "many"}), "run.failed"),
        (Odd(arguments=["x"]), "run.failed"),
    ],
    ids=["nothing", "a word", "a number", "a surrogate", "no text", "no usage", "no arguments"],
)
async def test_nothing_that_an_agent_does_makes_its_conversation_unreadable(
    store: GatedStore, tmp_path: Path, agent: Odd, outcome: str
) -> None:
    async with runtime_over(store, tmp_path, odd=agent) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi", agent="odd"))
        await until(lambda: outcome in sink.types)
        assert sink.events[-1].get("stop_reason") == ("end" if outcome == "run.completed" else None)
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi"))
        await until(lambda: sink.types.count("run.started") == 2)


class OddTool:
    """A tool that returns what it is told to, and reports a progress that is none."""

    description = describe("odd", "Odd", "Does as it likes.", properties={}, required=[], annotations=READS)

    def __init__(self, returns: Any, progress: Any = 1) -> None:
        self._returns, self._progress = returns, progress

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        await ctx.progress(self._progress)
        returned: ToolResult = self._returns
        return returned


WRONG: Any = 7


@pytest.mark.parametrize(
    "tool",
    [
        OddTool(None),
        OddTool(ToolResult(output=WRONG)),
        OddTool(ToolResult(content=WRONG)),
        OddTool(ToolResult(), "half"),
    ],
    ids=["nothing", "output", "content", "progress"],
)
async def test_nothing_that_a_tool_does_makes_its_conversation_unreadable(
    store: GatedStore, tmp_path: Path, tool: OddTool
) -> None:
    directory = DataDirectory(tmp_path)
    parts = {
        "settings": RuntimeSettings(),
        "agents": {"demo": create({})},
        "tools": {"odd": tool},
        "vault": Vault(b"x" * 32),
        "scrubber": Scrubber(),
    }
    async with Runtime.running(store, directory, **parts) as runtime:
        sink = follow(runtime, conversation := await runtime.open(REF))
        await send(runtime, conversation, RunStart(input="/tool odd {}\n/say done"))
        await until(lambda: "run.completed" in sink.types)
        assert [e["status"] for e in sink.events if e["type"] == "tool.completed"] == ["error"]
        assert sink.events[-1]["output"] == "done"
        assert all(decode_event(payload) for payload in sink.raw if b'"seq"' in payload)
    directory.close()
    async with runtime_over(store, tmp_path) as again:
        assert (await again.open(REF)).session.state.status == "idle"
