"""Answers of the compatible routes that take their time: streams, and work that somebody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from starlette.requests import ClientDisconnect

from hermes_ws.compat.errors import ApiError
from hermes_ws.errors import CommandError, ConversationDeleted, StoreError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import ConversationConfigure, RunStart
from hermes_ws.routes import runs
from hermes_ws.routes.context import Api
from hermes_ws.routes.streams import KEEPALIVE, Cut, EventStream, unless_gone
from hermes_ws.runtime.conversation import Conversation
from tests.runtime.conftest import ME, GatedStore, follow, send, until
from tests.runtime.conftest import runtime as runtime
from tests.runtime.conftest import store as store
from tests.server.lines import Line, ended, over
from tests.server.lines import api as api


class Frames:
    """Frames as a handler makes them, and whether they were closed."""

    def __init__(self, *frames: bytes, then: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        self.taken = 0
        self.closed = False
        self._frames = frames
        self._then = then

    async def all(self) -> AsyncGenerator[bytes]:
        try:
            for frame in self._frames:
                self.taken += 1
                yield frame
            if self._then is not None:
                await self._then()
        finally:
            self.closed = True


def forever() -> Coroutine[Any, Any, None]:
    return anyio.sleep_forever()


# -- streams of events ---------------------------------------------------------------------------------


async def test_frames_are_sent_one_by_one_and_then_the_end() -> None:
    line, frames = Line(), Frames(b"one", b"two")
    await EventStream(frames.all(), stall_s=9, headers={"x-run": "run_1"})(line.scope, line.receive, line.send)
    start, *bodies = line.sent
    headers = dict(start["headers"])
    assert start["status"] == 200
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"cache-control"] == b"no-cache, no-transform"
    assert headers[b"x-accel-buffering"] == b"no"
    assert headers[b"x-run"] == b"run_1"
    assert b"content-length" not in headers
    assert [(b["body"], b.get("more_body", False)) for b in bodies] == [(b"one", True), (b"two", True), (b"", False)]
    assert frames.closed


async def test_the_head_is_there_before_the_first_frame() -> None:
    line, frames = Line(), Frames(then=forever)
    task = line.answer(EventStream(frames.all(), stall_s=9))
    await until(lambda: len(line.sent) == 1)
    assert line.sent[0]["type"] == "http.response.start"
    line.goes()
    await over(task)
    assert frames.closed


async def test_a_client_that_goes_has_the_frames_closed_at_once() -> None:
    line, frames = Line(), Frames(b"one", then=forever)
    task = line.answer(EventStream(frames.all(), stall_s=9))
    await until(lambda: line.body == b"one")
    assert not frames.closed
    line.goes()
    await over(task)
    assert task.exception() is None
    assert frames.closed
    assert not line.complete


async def test_a_client_that_had_gone_before_the_first_frame_has_them_closed_too() -> None:
    line, frames = Line(), Frames(b"one", then=forever)
    line.goes()
    task = line.answer(EventStream(frames.all(), stall_s=9))
    await over(task)
    assert frames.taken == 1
    assert frames.closed


async def test_a_client_that_says_something_more_has_not_gone() -> None:
    line, done = Line(), asyncio.Event()
    frames = Frames(b"one", then=lambda: _wait(done))
    task = line.answer(EventStream(frames.all(), stall_s=9))
    line.says(b"", more=True)
    line.says(b"more")
    await until(lambda: line.body == b"one")
    done.set()
    await over(task)
    assert line.complete


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def test_a_client_that_takes_nothing_for_too_long_is_cut() -> None:
    line = Line()

    async def stops() -> None:
        line.taking.clear()

    frames, endless = Frames(b"one", then=stops), Frames(*[b"x"] * 100)

    async def both() -> AsyncGenerator[bytes]:
        async with aclosing(frames.all()) as some, aclosing(endless.all()) as more:
            async for frame in some:
                yield frame
            async for frame in more:
                yield frame

    task = line.answer(EventStream(both(), stall_s=0.05))
    await over(task)
    line.taking.set()
    assert task.exception() is None
    assert (endless.closed, endless.taken) == (True, 1)
    assert line.body == b"one"
    assert not line.complete


async def test_a_client_that_takes_its_time_but_takes_is_not() -> None:
    line, frames = Line(), Frames(*[b"x"] * 5)

    async def slowly(message: Any) -> None:
        await asyncio.sleep(0.03)
        line.sent.append(message)

    await EventStream(frames.all(), stall_s=0.1)(line.scope, line.receive, slowly)
    assert line.body == b"xxxxx"
    assert line.complete


async def test_a_head_request_gets_the_head_and_no_frame_is_made() -> None:
    line, frames = Line("HEAD"), Frames(b"one", then=forever)
    await EventStream(frames.all(), stall_s=9)(line.scope, line.receive, line.send)
    assert dict(line.sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert (line.body, line.complete, frames.taken) == (b"", True, 0)


async def test_frames_that_fail_are_closed_and_the_failure_is_told() -> None:
    async def fails() -> None:
        raise StoreError("the disk is on fire")

    line, frames = Line(), Frames(b"one", then=fails)
    with pytest.raises(StoreError):
        await EventStream(frames.all(), stall_s=9)(line.scope, line.receive, line.send)
    assert frames.closed
    assert not line.complete


async def test_frames_that_say_that_they_are_cut_leave_the_answer_without_an_end() -> None:
    async def cut() -> None:
        raise Cut("no more")

    line, frames = Line(), Frames(b"one", then=cut)
    await EventStream(frames.all(), stall_s=9)(line.scope, line.receive, line.send)
    assert (line.body, line.complete, frames.closed) == (b"one", False, True)


# -- work that somebody waits for ----------------------------------------------------------------------


@pytest.mark.parametrize("value", ["done", None, []])
async def test_what_the_work_comes_to_is_returned(value: Any) -> None:
    async def work() -> Any:
        await asyncio.sleep(0)
        return value

    assert await unless_gone(Line().request, work()) == value


async def test_what_the_work_raises_is_raised_as_it_is() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ApiError(400, "wrong", "no")

    with pytest.raises(ApiError):
        await unless_gone(Line().request, work())


async def test_work_is_cancelled_when_the_client_goes() -> None:
    line, cut = Line("POST"), list[str]()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cut.append("cut")

    task = asyncio.create_task(unless_gone(line.request, work()))
    await asyncio.sleep(0)
    line.goes()
    await over(task)
    assert isinstance(task.exception(), ClientDisconnect)
    assert cut == ["cut"]


async def test_whoever_is_cancelled_while_waiting_has_the_work_cancelled() -> None:
    cut = list[str]()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cut.append("cut")

    with anyio.move_on_after(0.01) as scope:
        await unless_gone(Line().request, work())
    assert scope.cancelled_caught
    assert cut == ["cut"]


# -- the server, as a handler sees it ------------------------------------------------------------------


async def test_silence_becomes_a_comment(api: Api) -> None:
    conversation = await api.temporary(ME)
    await send(api.runtime, conversation, RunStart(input="/say hello"))

    async def frames() -> AsyncGenerator[bytes]:
        async for event in api.follow(conversation.ref, 0):
            yield KEEPALIVE if event is None else b"event\n\n"

    line = Line()
    task = line.answer(api.sse(frames()))
    await until(lambda: line.body.count(KEEPALIVE) >= 2)
    line.goes()
    await over(task)
    assert not conversation.is_followed()


async def test_a_temporary_conversation_that_is_discarded_in_a_streams_finally_is_over(api: Api) -> None:
    conversation = await api.temporary(ME)
    await send(api.runtime, conversation, RunStart(input="/stream 100000 1"))

    async def frames() -> AsyncGenerator[bytes]:
        try:
            async for _ in api.follow(conversation.ref, 0):
                yield b"event"
        finally:
            await api.discard(conversation)

    line = Line()
    task = line.answer(api.sse(frames()))
    await until(lambda: len(line.sent) > 3)
    line.goes()
    await over(task)
    with pytest.raises(CommandError), anyio.fail_after(10):
        await api.open(conversation.ref)
    assert api.runtime.conversations == 0
    assert api.runtime.active_runs == 0


async def test_discarding_leaves_a_conversation_that_is_kept(api: Api) -> None:
    conversation = await api.new(ME)
    await send(api.runtime, conversation, RunStart(input="/say hello"))
    await api.discard(conversation)
    assert await api.open(conversation.ref) is conversation


async def test_a_run_that_was_left_is_stopped_after_the_grace(api: Api) -> None:
    conversation = await api.new(ME)
    begun = await api.begin(conversation, ME, [], "/sleep 60")
    api.left(conversation, begun.run_id, ME)
    assert conversation.session.state.status == "running"
    assert await ended(conversation, begun.run_id) == "cancelled"
    stopping = next(e for e in await api.events(conversation.ref, 0) if isinstance(e, ev.RunStopping))
    assert stopping.by.principal == "me"


async def test_one_that_waits_in_the_queue_is_cancelled_there(api: Api) -> None:
    conversation = await api.new(ME)
    first = await api.begin(conversation, ME, [], "/sleep 60")
    second = await api.begin(conversation, ME, [], "/say never")
    api.left(conversation, second.run_id, ME)
    assert await ended(conversation, second.run_id) == "cancelled"
    assert first.run_id in conversation.session.state.runs


@pytest.mark.parametrize("how", ["reader", "request"])
async def test_one_that_somebody_else_follows_goes_on(api: Api, how: str) -> None:
    conversation = await api.new(ME)
    begun = await api.begin(conversation, ME, [], "/stream 100 2\n/say done")
    other = asyncio.create_task(_follow_to_the_end(api, conversation))
    if how == "reader":
        other.cancel()
        follow(api.runtime, conversation)
    api.left(conversation, begun.run_id, ME)
    assert await ended(conversation, begun.run_id) == "completed"
    await over(other)


async def _follow_to_the_end(api: Api, conversation: Conversation) -> None:
    async for event in api.follow(conversation.ref, 0):
        if isinstance(event, ev.RunCompleted):
            return


async def test_one_whose_commit_fails_meanwhile_is_stopped_all_the_same(api: Api, store: GatedStore) -> None:
    conversation = await api.new(ME)
    begun = await api.begin(conversation, ME, [], "/sleep 60")
    api.left(conversation, begun.run_id, ME)
    store.failing = True
    with pytest.raises(CommandError):
        await send(api.runtime, conversation, ConversationConfigure(config={"title": "x"}))
    store.failing = False
    again = await api.open(conversation.ref)
    assert again is not conversation
    assert await ended(again, begun.run_id) == "cancelled"


async def test_one_that_is_over_is_left_alone_and_so_is_the_next(api: Api) -> None:
    conversation = await api.new(ME)
    first = await api.begin(conversation, ME, [], "/say done")
    await ended(conversation, first.run_id)
    second = await api.begin(conversation, ME, [], "/stream 100 2")
    api.left(conversation, first.run_id, ME)
    assert await ended(conversation, second.run_id) == "completed"


async def test_a_temporary_conversation_that_was_left_is_over_after_the_grace(api: Api) -> None:
    conversation = await api.temporary(ME)
    begun = await api.begin(conversation, ME, [], "/sleep 60")
    api.left(conversation, begun.run_id, ME)
    assert conversation.session.state.status == "running"
    await until(lambda: api.runtime.conversations == 0)
    with pytest.raises(CommandError):
        await api.open(conversation.ref)


async def test_a_temporary_conversation_that_somebody_watches_lasts_until_its_run_ends(api: Api) -> None:
    conversation = await api.temporary(ME)
    begun = await api.begin(conversation, ME, [], "/stream 200 2\n/say done")
    sink = follow(api.runtime, conversation)
    api.left(conversation, begun.run_id, ME)
    await until(lambda: "run.completed" in sink.types)
    await until(lambda: sink.closed is not None)
    assert sink.closed is not None
    assert sink.closed[0] == 4410


async def test_following_one_run_leaves_out_the_others(api: Api) -> None:
    conversation = await api.new(ME)
    first = await api.begin(conversation, ME, [], "/stream 50")
    second = await api.begin(conversation, ME, [], "/say two")
    seen: list[ev.Event] = []
    async for event in api.follow(conversation.ref, second.after, second.run_id):
        seen += [event] if event is not None else []
        if isinstance(event, ev.RunCompleted):
            break
    assert {getattr(event, "run_id", None) for event in seen} == {second.run_id}
    assert isinstance(seen[0], ev.RunQueued)
    assert first.after < second.after
    finals = await api.events(conversation.ref, second.after, second.run_id)
    assert finals == [event for event in seen if not isinstance(event, ev.MessageDelta)]


async def test_what_is_there_already_is_written_at_once(api: Api) -> None:
    conversation = await api.new(ME)
    begun = await api.begin(conversation, ME, [], "/stream 200\n/say done")
    assert await ended(conversation, begun.run_id) == "completed"
    line = Line()
    line.scope["path_params"] = {"run_id": begun.run_id}
    await (await runs.events(api, line.request))(line.scope, line.receive, line.send)
    assert line.complete
    assert line.body.count(b"data: ") > 5
    assert [bool(message["body"]) for message in line.sent[1:]] == [True, True, False]  # events, that it ends, the end


async def test_batches_are_of_one_run_and_silence_is_an_empty_one(api: Api) -> None:
    conversation = await api.new(ME)
    first = await api.begin(conversation, ME, [], "/say one")
    await ended(conversation, first.run_id)
    second = await api.begin(conversation, ME, [], "/ask Which? | a | b")
    await until(lambda: bool(conversation.session.state.interactions))
    await conversation.settled()
    async with aclosing(api.batches(conversation.ref, 0, second.run_id)) as batches:
        seen = await anext(batches)
        while some := await anext(batches):
            seen += some
    assert {event.run_id for event in seen if isinstance(event, ev.RunEvent)} == {second.run_id}
    assert all(isinstance(event, ev.RunEvent) for event in seen)


async def test_a_deleted_conversation_is_told_to_whoever_follows(api: Api) -> None:
    conversation = await api.new(ME)
    await api.begin(conversation, ME, [], "/sleep 60")
    events = api.follow(conversation.ref, 0)
    assert await anext(events) is not None
    await api.runtime.delete(conversation.ref)
    with pytest.raises(ConversationDeleted):
        await _to_the_end(events)


async def _to_the_end(events: AsyncGenerator[Any]) -> None:
    async for _ in events:
        pass
