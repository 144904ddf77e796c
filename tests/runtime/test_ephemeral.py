"""Conversations that are not kept: like any other while they last, and nowhere afterwards."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.exceptions import InvalidStatus

from hermes_ws.decisions import SessionLimits
from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import (
    Command,
    ConversationConfigure,
    ConversationFork,
    InteractionReply,
    RunStart,
)
from hermes_ws.protocol.control import Ok
from hermes_ws.protocol.values import ImagePart, TextPart
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.store.base import ConversationRef
from hermes_ws.store.blobs import BlobSettings
from hermes_ws.store.directory import DataDirectory, is_ephemeral
from hermes_ws.store.sqlite import SqliteStore
from tests.conftest import MakeServer
from tests.pictures import data_url, picture
from tests.runtime.conftest import REF, Collector, GatedStore, follow, runtime_over, send, until
from tests.wire import wait_for

AUTO = ConversationConfigure(config={"approvals": {"mode": "auto"}})
PLACES = ("hermes-ws-work", "hermes-ws-outputs", "hermes-ws-images", "hermes-ws-blobs")


class Passing:
    """A conversation that is not kept, and somebody who watches it."""

    def __init__(self, runtime: Runtime, conversation: Conversation) -> None:
        self.runtime = runtime
        self.conversation = conversation
        self.sink: Collector = follow(runtime, conversation)

    @classmethod
    async def of(cls, runtime: Runtime) -> Passing:
        return cls(runtime, await runtime.begin_ephemeral("home"))

    @property
    def ref(self) -> ConversationRef:
        return self.conversation.ref

    async def does(self, command: Command) -> Ok:
        return await send(self.runtime, self.conversation, command)

    async def sees(self, kind: str, count: int = 1) -> dict[str, Any]:
        await until(lambda: self.sink.types.count(kind) >= count)
        return [frame for frame in self.sink.frames if frame["type"] == kind][count - 1]

    async def over(self) -> bool:
        return await self.runtime.delete(self.ref)


def left(root: Path) -> list[str]:
    """Files of conversations, in whatever folder."""
    found = [path for place in root.iterdir() if place.is_dir() for path in place.rglob("*")]
    return [str(path.relative_to(root)) for path in found if path.is_file() and path.name != "lock"]


def folders(root: Path) -> list[Path]:
    """Folders that are a conversation's."""
    return [path for path in root.glob("hermes-ws-*/*") if ".ephemeral" in path.name]


# -- while it lasts ------------------------------------------------------------------------------------


async def test_it_runs_and_is_watched_like_any_other(runtime: Runtime) -> None:
    passing = await Passing.of(runtime)
    assert is_ephemeral(passing.ref)
    await passing.does(RunStart(input="/say hello"))
    assert (await passing.sees("run.completed"))["output"] == "hello"
    assert await runtime.open(passing.ref) is passing.conversation
    assert [event["seq"] for event in passing.sink.events] == list(range(1, len(passing.sink.events) + 1))


async def test_names_are_given_once(runtime: Runtime) -> None:
    names = {(await runtime.begin_ephemeral("home")).ref.conversation_id for _ in range(50)}
    assert len(names) == 50


async def test_what_is_evicted_meanwhile_is_folded_again_from_memory(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(in_memory=1))
    async with runtime_over(store, tmp_path, settings) as runtime:
        conversation = await runtime.begin_ephemeral("home")
        await send(runtime, conversation, AUTO)
        await runtime.open(REF)
        assert conversation.dead
        again = await runtime.open(conversation.ref)
        assert again is not conversation
        assert again.session.state.config.approvals is not None
        assert again.committed == 2


async def test_when_memory_is_full_none_begins_and_none_is_remembered(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(in_memory=1))
    async with runtime_over(store, tmp_path, settings) as runtime:
        with (await runtime.open(REF)).held(), pytest.raises(CommandError) as refused:
            await runtime.begin_ephemeral("home")
        assert refused.value.code == "overloaded"
        conversation = await runtime.begin_ephemeral("home")
        assert await runtime.delete(conversation.ref) is False


async def test_questions_stay_open_for_a_shorter_time(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path, RuntimeSettings(ephemeral_timeout_s=7)) as runtime:
        passing = await Passing.of(runtime)
        await passing.does(RunStart(input="/run true"))
        asked = await passing.sees("interaction.requested")
        assert asked["expires_at"] - asked["requested_at"] == 7_000
        durable = await runtime.open(REF)
        sink = follow(runtime, durable)
        await send(runtime, durable, RunStart(input="/run true"))
        await until(lambda: "interaction.requested" in sink.types)
        kept = next(event for event in sink.events if event["type"] == "interaction.requested")
        assert kept["expires_at"] - kept["requested_at"] == 86_400_000


async def test_it_is_never_longer_than_everywhere_else(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(ephemeral_timeout_s=60, sessions=SessionLimits(interaction_timeout_s=5))
    async with runtime_over(store, tmp_path, settings) as runtime:
        passing = await Passing.of(runtime)
        await passing.does(RunStart(input="/ask what?"))
        asked = await passing.sees("interaction.requested")
        assert asked["expires_at"] - asked["requested_at"] == 5_000


async def test_a_question_that_nobody_answers_refuses_the_call_and_the_run_goes_on(
    store: GatedStore, tmp_path: Path
) -> None:
    async with runtime_over(store, tmp_path, RuntimeSettings(ephemeral_timeout_s=1)) as runtime:
        passing = await Passing.of(runtime)
        await passing.does(RunStart(input="/run true\n/say done"))
        assert (await passing.sees("tool.completed"))["status"] == "denied"
        assert (await passing.sees("run.completed"))["output"] == "done"


async def test_what_was_approved_for_always_holds_here_too(runtime: Runtime) -> None:
    durable = await runtime.open(REF)
    sink = follow(runtime, durable)
    await send(runtime, durable, RunStart(input="/run true"))
    await until(lambda: "interaction.requested" in sink.types)
    asked = next(event for event in sink.events if event["type"] == "interaction.requested")
    await send(runtime, durable, InteractionReply(interaction_id=asked["interaction_id"], option="always"))
    await until(lambda: "run.completed" in sink.types)
    passing = await Passing.of(runtime)
    await passing.does(RunStart(input="/run true"))
    await passing.sees("run.completed")
    assert "interaction.requested" not in passing.sink.types
    assert (await passing.sees("tool.completed"))["status"] == "ok"


async def test_a_failed_commit_of_the_log_on_disk_is_nothing_to_it(runtime: Runtime, store: GatedStore) -> None:
    passing = await Passing.of(runtime)
    store.failing = True
    await passing.does(RunStart(input="/say hello"))
    assert (await passing.sees("run.completed"))["output"] == "hello"
    assert await passing.over() is True


async def test_a_fork_of_it_is_kept(runtime: Runtime, store: GatedStore) -> None:
    passing = await Passing.of(runtime)
    await passing.does(RunStart(input="/say hello"))
    await passing.sees("run.completed")
    await passing.does(ConversationFork(conversation_id="kept"))
    await passing.over()
    kept = await store.load(ConversationRef("home", "kept"))
    assert kept is not None
    assert any(b"hello" in event.data for event in kept.events)


# -- afterwards ----------------------------------------------------------------------------------------


async def test_nothing_of_it_is_ever_in_the_log(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db")
    async with runtime_over(store, tmp_path / "data") as runtime:  # type: ignore[arg-type]
        passing = await Passing.of(runtime)
        await passing.does(AUTO)
        ok = await passing.does(RunStart(input="/run echo kanarienvogel"))
        await passing.sees("run.completed")
        assert (await store.conversations("home", limit=10, cursor=None)).lines == []
        assert await store.find_run("home", ok.run_id or "") is None
        assert (await store.runs("home", limit=10, cursor=None)).lines == []
        assert await store.weight(passing.ref) == 0
        assert await passing.over() is True
        assert list(await store.deleted()) == []
    await store.close()
    for path in tmp_path.glob("log.db*"):
        assert b"kanarienvogel" not in path.read_bytes()


async def test_nothing_of_it_stays_on_disk_or_in_memory(runtime: Runtime, tmp_path: Path) -> None:
    passing = await Passing.of(runtime)
    await passing.does(AUTO)
    parts: list[TextPart | ImagePart] = [
        TextPart(text="/run echo kept > file; seq 30000"),
        ImagePart(url=data_url(picture())),
    ]
    await passing.does(RunStart(input=parts))
    await passing.sees("run.completed")
    assert len(folders(tmp_path)) == 3
    assert await passing.over() is True
    assert folders(tmp_path) == []
    await until(lambda: left(tmp_path) == [])
    assert await runtime.store_of(passing.ref).load(passing.ref) is None
    assert runtime.conversations == 0


async def test_one_that_left_no_files_has_nothing_swept(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[int] = []
    monkeypatch.setattr(runtime.store, "sweep", lambda before: swept.append(before))
    passing = await Passing.of(runtime)
    await passing.does(RunStart(input="/say hello"))
    await passing.sees("run.completed")
    await passing.over()
    await anyio.wait_all_tasks_blocked()
    assert swept == []


async def test_one_whose_first_command_was_refused_leaves_nothing_either(runtime: Runtime, tmp_path: Path) -> None:
    conversation = await runtime.begin_ephemeral("home")
    start = RunStart(input=[ImagePart(url=data_url(picture()))], agent="nobody")
    await runtime.images.resolved(conversation, [ImagePart(url=data_url(picture()))], reach=True)
    with pytest.raises(CommandError):
        await send(runtime, conversation, start)
    assert folders(tmp_path) != []
    assert await runtime.delete(conversation.ref) is False
    assert runtime.conversations == 0
    assert folders(tmp_path) == []
    await until(lambda: left(tmp_path) == [])
    with pytest.raises(CommandError):
        await runtime.open(conversation.ref)


async def test_its_readers_are_told_that_it_is_over(runtime: Runtime) -> None:
    passing = await Passing.of(runtime)
    await passing.does(RunStart(input="/stream 100000 1"))
    await passing.sees("message.delta")
    assert await passing.over() is True
    assert passing.sink.closed is not None
    assert passing.sink.closed[0] == 4410
    assert runtime.active_runs == 0


async def test_its_name_is_never_used_again(runtime: Runtime) -> None:
    passing = await Passing.of(runtime)
    await passing.does(RunStart(input="/say hello"))
    await passing.over()
    with pytest.raises(CommandError) as refused:
        await runtime.open(passing.ref)
    assert refused.value.code == "not_found"
    assert await passing.over() is False


async def test_a_command_to_one_that_is_over_is_refused(runtime: Runtime) -> None:
    passing = await Passing.of(runtime)
    await passing.over()
    with pytest.raises(CommandError):
        await passing.does(RunStart(input="/say hello"))
    assert runtime.conversations == 0
    assert runtime.active_runs == 0


async def test_it_ends_even_when_whoever_has_it_end_is_cancelled(runtime: Runtime, tmp_path: Path) -> None:
    passing = await Passing.of(runtime)
    await passing.does(AUTO)
    await passing.does(RunStart(input="/run sleep 60"))
    await passing.sees("tool.executing")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await passing.over()
    assert scope.cancelled_caught
    with pytest.raises(CommandError):
        with anyio.fail_after(10):
            await runtime.open(passing.ref)
    assert runtime.active_runs == 0
    assert folders(tmp_path) == []


async def test_a_deletion_that_is_cancelled_leaves_no_durable_one_frozen(runtime: Runtime, store: GatedStore) -> None:
    durable = await runtime.open(REF)
    await send(runtime, durable, RunStart(input="/stream 100000 1"))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await runtime.delete(REF)
    with anyio.fail_after(10):
        again = await runtime.open(REF)
    assert not again.dead
    assert again.epoch is None
    assert await store.load(REF) is None


async def test_two_that_have_it_end_at_once_have_it_end_once(runtime: Runtime) -> None:
    passing = await Passing.of(runtime)
    await passing.does(RunStart(input="/say hello"))
    assert sorted(await asyncio.gather(passing.over(), passing.over())) == [False, True]


async def test_images_of_one_that_lasts_long_are_not_swept_away(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(blobs=BlobSettings(unused_s=60))
    async with runtime_over(store, tmp_path, settings) as runtime:
        passing = await Passing.of(runtime)
        await passing.does(RunStart(input=[TextPart(text="/say hello"), ImagePart(url=data_url(picture()))]))
        await passing.sees("run.completed")
        long_ago = time.time() - 3_600
        for path in tmp_path.glob("hermes-ws-images/*/*"):
            os.utime(path, (long_ago, long_ago))
        await runtime.images.sweep(store, runtime.now())
        blob = next(p["blob"] for e in passing.sink.events if e["type"] == "run.started" for p in e["input"][1:])
        image = await runtime.images.open([passing.ref], blob)
        assert image is not None
        image.file.close()


async def test_what_a_crash_left_is_removed_at_the_start(store: GatedStore, tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    passing, kept = ConversationRef("home", "ephemeral_1"), ConversationRef("home", "kept")
    for ref in (passing, kept):
        for folder in (directory.workdir(ref), directory.outputs(ref), directory.images(ref)):
            folder.mkdir(parents=True)
            (folder / "file").write_text("left")
    aside = directory.workdir(ConversationRef("home", "ephemeral_2"))
    aside.mkdir()
    directory.set_aside(ConversationRef("home", "ephemeral_2"))
    directory.close()
    async with runtime_over(store, tmp_path):
        assert folders(tmp_path) == []
        await until(lambda: len(left(tmp_path)) == 3)
    assert directory.has_files(kept)


async def test_folders_of_one_that_is_not_kept_have_names_like_no_other(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    names = [
        directory.workdir(ConversationRef("home", one)).name for one in ("ephemeral_1", "ephemeral", "Ephemeral_1")
    ]
    assert [name.endswith(".ephemeral") for name in names] == [True, False, False]
    directory.close()


# -- from outside --------------------------------------------------------------------------------------


async def test_a_client_can_begin_none_over_http(make_server: MakeServer) -> None:
    server = make_server()
    start = {"type": "run.start", "input": "hi"}
    async with server.http() as http:
        commands = await http.post("/api/conversations/ephemeral_x/commands", json=start)
        assert commands.status_code == 404
        assert commands.json()["code"] == "not_found"
        assert (await http.get("/api/conversations/ephemeral_x/events")).status_code == 404
        assert (await http.delete("/api/conversations/ephemeral_x")).status_code == 404
        await http.post("/api/conversations/mine/commands", json=start)
        fork = {"type": "conversation.fork", "conversation_id": "ephemeral_x"}
        assert (await http.post("/api/conversations/mine/commands", json=fork)).status_code == 404
        listed = (await http.get("/api/conversations")).json()["conversations"]
    assert [line["conversation_id"] for line in listed] == ["mine"]
    assert list(server.data.rglob("*.ephemeral")) == []


async def test_a_client_can_begin_none_at_a_socket(make_server: MakeServer) -> None:
    server = make_server()
    with pytest.raises(InvalidStatus) as refused:
        async with server.socket("ephemeral_x", subprotocols=None) as socket:
            await socket.greeted()
    assert refused.value.response.status_code == 404
    async with server.socket("mine") as socket:
        error = await socket.error("conversation.fork", conversation_id="ephemeral_x")
    assert error["code"] in ("not_found", "run_not_found")
    await wait_for(lambda: "Traceback" not in server.errors)
