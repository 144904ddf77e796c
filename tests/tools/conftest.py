"""A tool context that is the real thing but for the log behind it: what is reported is kept in lists."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from hermes_ws.protocol.values import Choice, ImagePart, Owner, ToolDescription
from hermes_ws.tools.base import NobodyAnswered, ToolSettings


class Asked(msgspec.Struct, frozen=True):
    prompt: str
    choices: list[Choice] | None
    allow_other: bool
    multiple: bool


class Context:
    """Implements ``ToolContext``."""

    def __init__(self, workdir: Path) -> None:
        self.conversation_id = "demo"
        self.run_id = "run_1"
        self.principal = "owner"
        self.metadata: dict[str, Any] = {}
        self.call_id = f"call_{uuid.uuid4().hex}"
        self.workdir = workdir
        self.settings = ToolSettings()
        self.stop_mode: Literal["graceful", "now"] = "graceful"
        self.chunks: list[tuple[Literal["stdout", "stderr"], str]] = []
        self.keep = True
        self.written = 0
        self.asked: list[Asked] = []
        self.answer: Any = None

    async def output(self, stream: Literal["stdout", "stderr"], chunk: str) -> None:
        self.written += len(chunk)
        if self.keep:
            self.chunks.append((stream, chunk))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        raise AssertionError("no built-in tool reports progress")

    async def ask(
        self,
        prompt: str,
        *,
        choices: list[Choice] | None = None,
        allow_other: bool = False,
        multiple: bool = False,
        title: str | None = None,
    ) -> Any:
        self.asked.append(Asked(prompt, choices, allow_other, multiple))
        if isinstance(self.answer, NobodyAnswered):
            raise self.answer
        return self.answer

    async def form(
        self, title: str, message: str, *, schema: dict[str, Any] | None = None, url: str | None = None
    ) -> dict[str, Any] | None:
        raise AssertionError("no built-in tool has forms")

    async def hand_over(
        self, tool: ToolDescription, arguments: dict[str, Any], owner: Owner | None = None
    ) -> dict[str, Any]:
        raise AssertionError("no built-in tool hands over")

    async def credential(self, server: str, header: str) -> bool:
        raise AssertionError("no built-in tool needs credentials")

    async def image(self, data: bytes) -> ImagePart:
        raise AssertionError("no built-in tool has images")

    def configure(self, **changes: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, **changes)

    def text(self, stream: Literal["stdout", "stderr"] = "stdout") -> str:
        return "".join(chunk for of, chunk in self.chunks if of == stream)


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workdir = tmp_path / "work"
    workdir.mkdir()
    return Context(Path(os.path.realpath(workdir)))
