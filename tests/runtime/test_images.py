"""Images inside a runtime: what agents are handed, what tools bring, and deletions that come in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from hermes_ws.agents.base import RequestedCall, StopReason, Turn
from hermes_ws.errors import AgentError, CommandError, ToolError
from hermes_ws.history import ToolAnswer, UserTurn
from hermes_ws.protocol.commands import RunStart
from hermes_ws.protocol.values import Annotations, ImagePart, ToolDescription
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.store.base import ConversationRef
from hermes_ws.store.blobs import Blobs, BlobSettings
from hermes_ws.tools.base import ToolContext, ToolResult
from hermes_ws.tools.registry import builtin_tools
from tests.pictures import data_url, picture, stored
from tests.runtime import conftest
from tests.runtime.conftest import REF, GatedStore, follow, runtime_over, send, until

PHOTO = picture(300, "image/jpeg")
OTHER = ConversationRef("home", "other")


class Looking:
    """An agent that looks at every image there is, and has the camera make one more."""

    default_model = "looking"

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.refused: list[str] = []

    async def run(self, turn: Turn) -> StopReason:
        if turn.steps_taken == 0:
            async with turn.step():
                await turn.call_tools([RequestedCall("", "camera", {})])
        async with turn.step():
            for entry in turn.history():
                if isinstance(entry, UserTurn | ToolAnswer):
                    await self._look(turn, [part for part in entry.content or [] if isinstance(part, ImagePart)])
            await turn.text("seen")
        return "end"

    async def _look(self, turn: Turn, parts: list[ImagePart]) -> None:
        for part in parts:
            try:
                self.seen.append(await turn.image(part))
            except AgentError as error:
                self.refused.append(error.message)


class Camera:
    """A tool that makes what it was made with; ``told`` is what it was told when that was not taken."""

    description = ToolDescription(
        name="camera",
        source="builtin",
        title="Camera",
        description="Takes a photo.",
        parameters={"type": "object"},
        annotations=Annotations(read_only=True, idempotent=False, destructive=False),
    )

    def __init__(self, *makes: bytes, part: ImagePart | None = None) -> None:
        self.makes = makes
        self.part = part
        self.told: list[str] = []

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        content = [self.part] if self.part is not None else []
        for data in self.makes:
            try:
                content.append(await ctx.image(data))
            except ToolError as error:
                self.told.append(str(error))
        return ToolResult(output="click", content=[*content])


@pytest.fixture
def agent() -> Looking:
    return Looking()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Camera:
    camera = Camera(PHOTO)
    monkeypatch.setattr(conftest, "builtin_tools", lambda settings: {**builtin_tools(settings), "camera": camera})
    return camera


@pytest.fixture
async def looking(store: GatedStore, tmp_path: Path, agent: Looking, camera: Camera) -> AsyncGenerator[Runtime]:
    settings = RuntimeSettings(default_agent="looking", blobs=BlobSettings(conversation_bytes=1_000))
    ready: asyncio.Future[Runtime] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def hold() -> None:
        async with runtime_over(store, tmp_path, settings, looking=agent) as made:
            ready.set_result(made)
            await over.wait()

    task = asyncio.create_task(hold())
    yield await ready
    over.set()
    await task


async def look(runtime: Runtime, *parts: ImagePart) -> list[dict[str, Any]]:
    """Run it over these images; the events."""
    conversation = await runtime.open(REF)
    with conversation.held():
        sink = follow(runtime, conversation, after=conversation.committed)
        await send(runtime, conversation, RunStart(input=[*parts] or "hi"))
        await until(lambda: "run.completed" in sink.types)
    return sink.events


async def test_an_agent_is_handed_images_as_urls_wherever_they_are(looking: Runtime, agent: Looking) -> None:
    data = picture()
    events = await look(looking, ImagePart(url=data_url(data)), ImagePart(url="https://example.com/disk.png"))
    assert agent.seen == [data_url(data), "https://example.com/disk.png", data_url(PHOTO, "image/jpeg")]
    [completed] = [event for event in events if event["type"] == "tool.completed"]
    assert completed["content"] == [stored(PHOTO, "image/jpeg")]


async def test_a_tool_is_told_what_is_not_taken_and_goes_on(looking: Runtime, camera: Camera) -> None:
    camera.makes = (b"no image", picture(2_000), PHOTO)
    events = await look(looking)
    assert [word for word in ("no image", "1000 bytes together") if any(word in told for told in camera.told)] == [
        "no image",
        "1000 bytes together",
    ]
    [completed] = [event for event in events if event["type"] == "tool.completed"]
    assert (completed["status"], completed["content"]) == ("ok", [stored(PHOTO, "image/jpeg")])


async def test_a_data_url_that_a_tool_returns_is_stored_too(looking: Runtime, camera: Camera) -> None:
    camera.makes, camera.part = (), ImagePart(url=data_url(PHOTO))
    [completed] = [event for event in await look(looking) if event["type"] == "tool.completed"]
    assert completed["content"] == [stored(PHOTO, "image/jpeg")]


async def test_a_tool_does_not_reach_other_conversations_images(looking: Runtime, camera: Camera) -> None:
    other = await looking.open(OTHER)
    blob = await looking.images.keep(other, picture())
    camera.makes, camera.part = (), ImagePart(blob=blob.id)
    [completed] = [event for event in await look(looking) if event["type"] == "tool.completed"]
    assert completed["status"] == "error"
    assert "there is no image" in completed["output"]
    assert "content" not in completed


async def test_an_image_whose_file_was_lost_is_an_error_that_names_it(
    looking: Runtime, agent: Looking, tmp_path: Path
) -> None:
    await look(looking, ImagePart(url=data_url(data := picture())))
    for path in tmp_path.glob(f"hermes-ws-images/*/{stored(data)['sha256']}"):
        path.unlink()
    await look(looking)
    assert [str(stored(data)["blob"]) in message for message in agent.refused] == [True]


class Slow:
    """Storing that waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        keep = Blobs.keep

        def slow(*given: Any, **named: Any) -> None:
            self.begun.set()
            assert self.may_go_on.wait(10)
            keep(*given, **named)

        monkeypatch.setattr(Blobs, "keep", slow)


async def test_a_deletion_waits_for_what_is_being_stored_and_nothing_of_it_stays(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await runtime.open(REF)
    await send(runtime, conversation, RunStart(input="hi"))
    slow = Slow(monkeypatch)
    refused: list[str] = []

    async def start() -> None:
        try:
            await send(runtime, conversation, RunStart(input=[ImagePart(url=data_url(picture()))]))
        except CommandError as error:
            refused.append(error.code)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await until(slow.begun.is_set)
        tasks.start_soon(runtime.delete, REF)
        await until(lambda: conversation.dead)
        tasks.start_soon(start)
        slow.may_go_on.set()
    assert refused == ["internal", "internal"] or refused == ["not_found", "internal"]
    assert (await runtime.open(REF)).epoch is None
    await until(lambda: not [*tmp_path.glob("hermes-ws-images/*/*/*")])
    assert [path.name for path in (tmp_path / "hermes-ws-images").iterdir()] in ([], ["hermes-ws-trash"])


async def test_a_command_whose_commit_fails_leaves_an_image_that_the_next_one_finds(
    runtime: Runtime, store: GatedStore, tmp_path: Path
) -> None:
    data = picture()
    store.failing = True
    with pytest.raises(CommandError):
        await send(runtime, await runtime.open(REF), RunStart(input=[ImagePart(url=data_url(data))]))
    store.failing = False
    conversation = await runtime.open(REF)
    sink = follow(runtime, conversation)
    await send(runtime, conversation, RunStart(input=[ImagePart(blob=str(stored(data)["blob"]))]))
    await until(lambda: "run.completed" in sink.types)
    assert len([*tmp_path.glob("hermes-ws-blobs/*/*")]) == 1
