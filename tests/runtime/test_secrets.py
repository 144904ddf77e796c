"""Secrets of a conversation between its session, the log and what is streamed."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hermes_ws.agents.base import StopReason, Turn
from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import ConversationConfigure, RunStart, RunSteer
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.deltas import Deltas
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.scrub import Scrubber
from hermes_ws.store.vault import Vault
from tests.runtime.conftest import ME, REF, GatedStore, follow, runtime_over, send, until

URL = "https://crm.example.com/mcp"
TOKEN = "tok-3141592653589793"
NAME = "mcp_servers/crm/headers/authorization"
KNOWN = ConversationConfigure(
    config={"mcp_servers": {"crm": {"url": URL, "headers": {"Authorization": f"Bearer {TOKEN}"}}}}
)


class Talker:
    """Says what it is given, piece by piece, and waits until it was taken up."""

    default_model = "talker"

    def __init__(self) -> None:
        self.send, self._receive = anyio.create_memory_object_stream[str](10)

    async def run(self, turn: Turn) -> StopReason:
        async with self._receive, turn.step():
            async for piece in self._receive:
                await turn.text(piece)
        return "end"


async def test_a_secret_is_sealed_in_the_log_and_opened_when_the_conversation_is_loaded(
    store: GatedStore, tmp_path: Path
) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        await send(runtime, conversation, KNOWN)
        assert conversation.session.secrets == {NAME: f"Bearer {TOKEN}"}
    loaded = await store.load(REF)
    assert loaded is not None
    assert [row.name for row in loaded.secrets] == [NAME]
    assert TOKEN.encode() not in (loaded.secrets[0].data or b"")
    async with runtime_over(store, tmp_path) as runtime:
        conversation = await runtime.open(REF)
        assert conversation.session.secrets == {NAME: f"Bearer {TOKEN}"}
        assert conversation.unreadable_secrets == set()
        assert conversation.session.scrubber.text(TOKEN) == "[secret]"
        decision = conversation.session.rotate("crm", URL, "authorization", "Bearer new", by=ME.by, now=runtime.now())
        conversation.commit(decision)
        await conversation.settled()
    async with runtime_over(store, tmp_path) as runtime:
        assert (await runtime.open(REF)).session.secrets == {NAME: "Bearer new"}


async def test_what_was_sealed_with_another_key_is_missing_until_it_is_given_anew(
    store: GatedStore, tmp_path: Path
) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        await send(runtime, await runtime.open(REF), KNOWN)
    async with runtime_over(store, tmp_path) as runtime:
        runtime.vault = Vault(b"another key than before")
        conversation = await runtime.open(REF)
        assert conversation.session.secrets == {}
        assert conversation.unreadable_secrets == {NAME}
        await send(runtime, conversation, ConversationConfigure(config={"title": "still there"}))
        assert conversation.unreadable_secrets == {NAME}
        await send(runtime, conversation, KNOWN)
        assert conversation.unreadable_secrets == set()


async def test_a_refused_command_stores_nothing(runtime: Runtime, store: GatedStore) -> None:
    conversation = await runtime.open(REF)
    wrong = {"crm": {"url": URL, "headers": {"Authorization": f"Bearer {TOKEN}", "Host": "x"}}}
    with pytest.raises(CommandError):
        await send(runtime, conversation, ConversationConfigure(config={"mcp_servers": wrong}))
    assert await store.load(REF) is None
    assert conversation.session.secrets == {}


async def test_the_last_word_waits_for_more_also_when_something_else_happens(store: GatedStore, tmp_path: Path) -> None:
    talker = Talker()
    async with runtime_over(store, tmp_path, talker=talker) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)

        def said() -> list[str]:
            return [event["delta"] for event in sink.events if event["type"] == "message.delta"]

        await send(runtime, conversation, KNOWN)
        await send(runtime, conversation, RunStart(input="hi", agent="talker"))
        await talker.send.send("It is tok-31415")
        await until(lambda: said() == ["It is "])
        await talker.send.send("92653589793 or so")
        await until(lambda: said() == ["It is ", "[secret] or "])
        await talker.send.send(" tok-31415")
        await until(lambda: said() == ["It is ", "[secret] or ", "so "])
        await send(runtime, conversation, RunSteer(text="go on", if_late="return"))
        assert said() == ["It is ", "[secret] or ", "so "]
        assert "tok-31415" not in str(conversation.snapshot())
        await talker.send.send("92653589793")
        talker.send.close()
        await until(lambda: "run.completed" in sink.types)
        assert said() == ["It is ", "[secret] or ", "so ", "[secret]"]
        assert [e["text"] for e in sink.events if e["type"] == "message.completed"] == ["It is [secret] or so [secret]"]


async def test_without_secrets_nothing_waits(store: GatedStore, tmp_path: Path) -> None:
    talker = Talker()
    async with runtime_over(store, tmp_path, talker=talker) as runtime:
        runtime.scrubber.add("the-servers-own-key")
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hi", agent="talker"))
        await talker.send.send("It is tok-31415")
        await until(lambda: sink.events[-1].get("delta") == "It is tok-31415")
        talker.send.close()
        await until(lambda: "run.completed" in sink.types)


async def test_what_is_held_back_makes_nobody_wait(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(conversations=ConversationSettings(backlog_bytes=1))
    talker = Talker()
    async with runtime_over(store, tmp_path, settings, talker=talker) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, KNOWN)
        await send(runtime, conversation, RunStart(input="hi", agent="talker"))
        for _ in range(5):
            await talker.send.send("tok")
        talker.send.close()
        await until(lambda: "run.completed" in sink.types)
        assert sink.events[-1]["output"] == "tok" * 5


def test_only_the_end_of_the_newest_text_is_held_back() -> None:
    scrubber, deltas = Scrubber(), Deltas(merge_bytes=100)
    scrubber.set([TOKEN])
    deltas.add("reasoning", "run_1", "thinking", None)
    deltas.add("message", "run_1", "saying", None)
    assert [(one.kind, one.text) for one in deltas.take(scrubber)] == [("reasoning", "thinking"), ("message", "")]
    deltas.add("message", "run_1", " more", None)
    assert [one.text for one in deltas.take(scrubber)] == ["saying "]
    deltas.add("stdout", "run_1", "printing", "call_1")
    assert [one.text for one in deltas.take(scrubber)] == ["more", "printing"]
    assert not deltas
