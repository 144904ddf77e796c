"""What the handlers of the compatible routes share: requests, and runs that are begun, with a history or without."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from starlette.requests import ClientDisconnect

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.past import Answered, Past, PastCall, Said
from hermes_ws.errors import CommandError, StoreError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import ClientTool
from hermes_ws.protocol.values import TextPart, ToolFilter
from hermes_ws.routes.context import Api, parsed
from hermes_ws.runtime.commands import Beside
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.store.base import RecordRow
from tests.runtime.conftest import ME, GatedStore
from tests.runtime.conftest import runtime as runtime
from tests.runtime.conftest import store as store
from tests.server.lines import Line, ended
from tests.server.lines import api as api

SECRET = "kanarienvogel-4711-kanarienvogel"

# -- runs that are begun -------------------------------------------------------------------------------


async def test_a_run_is_begun_where_its_events_begin(api: Api) -> None:
    conversation = await api.new(ME)
    first = await api.begin(conversation, ME, [], "/say one")
    await ended(conversation, first.run_id)
    second = await api.begin(conversation, ME, [], "/say two")
    await ended(conversation, second.run_id)
    for begun in (first, second):
        event = (await api.events(conversation.ref, begun.after))[0]
        assert isinstance(event, ev.RunStarted)
        assert event.run_id == begun.run_id


async def test_a_history_comes_before_what_is_said(api: Api) -> None:
    conversation = await api.temporary(ME)
    past: Past = [Said("hi"), Answered("hello")]
    begun = await api.begin(conversation, ME, past, "and now?", beside=Beside(run_id="run_mine"))
    assert begun.run_id == "run_mine"
    assert await ended(conversation, "run_mine") == "completed"
    inputs = [e.input for e in await api.events(conversation.ref, 0) if isinstance(e, ev.RunStarted)]
    assert inputs == ["hi", "and now?"]
    assert all(getattr(e, "run_id", "") == "run_mine" for e in await api.events(conversation.ref, begun.after))


async def test_a_history_goes_into_an_empty_conversation_only(api: Api) -> None:
    conversation = await api.new(ME)
    begun = await api.begin(conversation, ME, [], "/say one")
    await ended(conversation, begun.run_id)
    with pytest.raises(ApiError) as refused:
        await api.begin(conversation, ME, [Said("hi")], "and now?")
    assert (refused.value.status, refused.value.code) == (409, "history_not_empty")


async def test_a_run_goes_on_from_what_its_calls_came_to(api: Api) -> None:
    conversation = await api.temporary(ME)
    past: Past = [Said("/tool weather\n/say done"), Answered("", calls=[PastCall("c", "weather", {}, "sun")])]
    functions, records = [ClientTool(name="weather")], [RecordRow("response", "resp_1", 1, b"{}")]
    beside = Beside(functions=functions, parameters={"temperature": 1}, tool_choice="none", records=records)
    begun = await api.begin(conversation, ME, past, None, beside=beside, deadline_ms=60_000, metadata={"a": "b"})
    options = conversation.session.options[begun.run_id]
    assert (options.functions, options.tool_choice, options.choice_step) == (functions, "none", 2)
    assert (options.deadline_ms, options.metadata) == (60_000, {"a": "b"})
    assert await ended(conversation, begun.run_id) == "completed"
    (step, *_) = await api.events(conversation.ref, begun.after)
    assert isinstance(step, ev.StepStarted)
    assert step.step == 2
    assert await conversation.store.record("home", "response", "resp_1") is not None


async def test_a_key_that_may_use_less_bounds_a_run_that_goes_on(api: Api) -> None:
    narrow = Caller(Principal("home", "me", "driver", tools=ToolFilter(allow=["read_file"])), "http")
    conversation = await api.temporary(narrow)
    past: Past = [Said("/tool weather\n/run true"), Answered("", calls=[PastCall("c", "weather", {}, "sun")])]
    begun = await api.begin(conversation, narrow, past, None)
    await ended(conversation, begun.run_id)
    completed = [e for e in await api.events(conversation.ref, begun.after) if isinstance(e, ev.ToolCompleted)]
    assert [(e.name, e.status) for e in completed] == [("terminal", "denied")]


async def test_nothing_at_all_is_refused(api: Api) -> None:
    conversation = await api.temporary(ME)
    with pytest.raises(ApiError) as refused:
        await api.begin(conversation, ME, [], None)
    assert refused.value.status == 400
    with pytest.raises(CommandError) as command:
        await api.begin(conversation, ME, [], "")
    assert command.value.code == "invalid_frame"
    assert conversation.epoch is None


async def test_a_log_that_takes_nothing_is_told_to_whoever_begins(api: Api, store: GatedStore) -> None:
    conversation = await api.new(ME)
    store.failing = True
    past: Past = [Said("/say done"), Answered("", calls=[PastCall("c", "weather", {}, "sun")])]
    with pytest.raises(StoreError):
        await api.begin(conversation, ME, past, None)


async def test_who_only_looks_begins_nothing(api: Api) -> None:
    observer = Caller(Principal("home", "them", "observer"), "http")
    conversation = await api.new(ME)
    asked: list[tuple[Past, str | None]] = [([], "hi"), ([Said("hi")], "hi"), ([Said("hi")], None)]
    for past, said in asked:
        with pytest.raises(CommandError) as refused:
            await api.begin(conversation, observer, past, said)
        assert refused.value.code == "not_permitted"
    with pytest.raises(CommandError):
        await api.temporary(observer)
    with pytest.raises(CommandError):
        await api.add_past(conversation, observer, [Said("hi")])
    assert conversation.epoch is None


async def test_history_is_added_between_runs_and_not_into_one(api: Api) -> None:
    conversation = await api.new(ME)
    await api.add_past(conversation, ME, [Said("hi"), Answered("hello")])
    begun = await api.begin(conversation, ME, [], "/sleep 60")
    with pytest.raises(CommandError) as refused:
        await api.add_past(conversation, ME, [Said("late")])
    assert refused.value.code == "busy"
    api.left(conversation, begun.run_id, ME)
    await ended(conversation, begun.run_id)
    await api.add_past(conversation, ME, [Said("and"), Answered("bye")])
    events = await api.events(conversation.ref, 0)
    assert [event.output for event in events if isinstance(event, ev.RunCompleted)] == ["hello", "bye"]


async def test_no_secret_of_the_conversation_is_in_a_history_that_is_brought(api: Api) -> None:
    conversation = await api.new(ME)
    conversation.session._hide([SECRET])
    call = PastCall(SECRET, SECRET, {SECRET: [SECRET]}, f"it is {SECRET}", content=[TextPart(text=SECRET)])
    await api.add_past(conversation, ME, [Said(f"my {SECRET}"), Answered(SECRET, SECRET, [call])])
    loaded = await api.runtime.store.load(conversation.ref)
    assert loaded is not None
    assert [event.data for event in loaded.events if SECRET.encode() in event.data] == []


async def test_a_request_that_is_made_again_under_its_key_is_the_same_run(api: Api) -> None:
    conversation = await api.new(ME)
    request = Line("POST", {"idempotency-key": "once"}).request
    first = await api.begin(conversation, ME, [], "/say one", id=api.idempotent_id(request))
    again = await api.begin(conversation, ME, [], "/say one", id=api.idempotent_id(request))
    assert (again.run_id, again.after, first.duplicate, again.duplicate) == (first.run_id, first.after, False, True)
    with pytest.raises(CommandError) as refused:
        await api.begin(conversation, ME, [], "/say other", id=api.idempotent_id(request))
    assert refused.value.code == "id_reused"


# -- requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_no_or_too_many_characters_is_refused(key: str) -> None:
    api = Api.__new__(Api)
    with pytest.raises(ApiError) as refused:
        api.idempotent_id(Line("POST", {"idempotency-key": key}).request)
    assert refused.value.status == 400


DEEP = b'{"a":' * 3_000 + b"1" + b"}" * 3_000


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"a":', b"\xff", b"[" * 100_000, DEEP], ids=range(8))
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parsed(body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_refused_however_it_comes(api: Api, declared: bool) -> None:
    most = api.settings.limits.body_bytes
    line = Line("POST", {"content-length": str(most + 1)} if declared else None)
    for _ in range(1 if declared else 2):
        line.says(b"x" * (most // 2 + 1), more=True)
    with pytest.raises(CommandError) as refused, anyio.fail_after(10):
        await api.json(line.request)
    assert refused.value.code == "too_large"


async def test_a_body_that_is_cut_short_is_a_client_that_went(api: Api) -> None:
    line = Line("POST")
    line.says(b'{"a":', more=True)
    line.goes()
    with pytest.raises(ClientDisconnect):
        await api.json(line.request)


@pytest.mark.parametrize("conversation_id", ["", "-x", "a/b", "x" * 129, "a b", "ü", "\x00"])
async def test_what_is_no_conversation_id_is_refused(api: Api, conversation_id: str) -> None:
    with pytest.raises(ApiError) as refused:
        api.ref(ME, conversation_id)
    assert refused.value.status == 400


async def test_a_key_for_some_conversations_reaches_no_other(api: Api) -> None:
    caller = Caller(Principal("home", "me", "driver", conversations=frozenset({"mine"})), "http")
    assert api.ref(caller, "mine").conversation_id == "mine"
    with pytest.raises(ApiError) as refused:
        api.ref(caller, "yours")
    assert refused.value.status == 403


async def test_a_model_is_an_agent_or_nothing(api: Api, tmp_path: Path) -> None:
    assert [api.agent(ME, model) for model in (None, "", "hermes-agent", "demo")] == ["demo"] * 4
    assert api.models(ME) == ["hermes-agent", "demo"]
    with pytest.raises(ApiError) as refused:
        api.agent(ME, "gpt-4")
    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")


async def test_what_is_said_at_once_fits_a_frame(api: Api) -> None:
    most = api.settings.limits.frame_bytes
    conversation = await api.new(ME)
    cases: list[tuple[Past, str | None]] = [
        ([], "x" * most),
        ([Said("x" * most)], "on"),
        ([Said("hi"), Answered("x" * most)], "on"),
        ([Said("hi"), Answered("", calls=[PastCall("c", "find", {}, "x" * most)])], None),
    ]
    for past, said in cases:
        with pytest.raises(ApiError) as refused:
            await api.begin(conversation, ME, past, said)
        assert (refused.value.status, refused.value.code) == (413, "body_too_large")
    assert conversation.session.state.head == 0
