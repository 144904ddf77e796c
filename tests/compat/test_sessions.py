"""A conversation as a session of hermes-agent's: messages, the line in a list, the stream of a chat."""

from __future__ import annotations

from typing import Any

import msgspec

from hermes_ws.compat.sessions import SessionFold, content_of
from hermes_ws.compat.sessions_stream import SessionStream
from hermes_ws.compat.sessions_types import SessionRecord
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.values import Config, ContentPart, ImagePart, TextPart
from tests.compat.runs_log import ALICE, RUN, Log, parsed


def fold(log: Log) -> SessionFold:
    folded = SessionFold("s1")
    for event in log.events:
        folded.feed(event)
    return folded


def messages(log: Log) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.to_builtins(fold(log).messages)
    return found


def stream(log: Log) -> list[tuple[dict[str, str], Any]]:
    projection = SessionStream(RUN, "s1")
    return parsed(b"".join(projection.feed(event) for event in log.events))


def names(log: Log) -> list[str]:
    return [fields["event"] for fields, _ in stream(log)]


def only(log: Log, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [data for fields, data in stream(log) if fields["event"] == name]
    assert len(found) == 1
    return found[0]


class TestMessages:
    def test_who_said_what_in_order(self) -> None:
        log = Log().started("hi").step().thought("hm").said("hello", "hello").stepped().completed("hello")
        user, assistant = messages(log)
        assert (user["role"], user["content"], user["session_id"], user["run_id"]) == ("user", "hi", "s1", RUN)
        assert (assistant["role"], assistant["content"], assistant["finish_reason"]) == ("assistant", "hello", "stop")
        assert assistant["reasoning"] == assistant["reasoning_content"] == "hm"
        assert user["id"] < assistant["id"]

    def test_calls_are_in_the_message_that_asked_and_their_results_after_it(self) -> None:
        log = Log().started().step().said("let me look").called(command="ls").returned("a.txt").stepped()
        _, assistant, tool = messages(log)
        [call] = assistant["tool_calls"]
        assert call == {
            "id": "call_1",
            "type": "function",
            "function": {"name": "terminal", "arguments": '{"command":"ls"}'},
        }
        assert assistant["finish_reason"] == "tool_calls"
        assert (tool["role"], tool["tool_call_id"], tool["tool_name"]) == ("tool", "call_1", "terminal")
        assert (tool["content"], tool["tool_status"]) == ("a.txt", "ok")

    def test_each_step_is_a_message(self) -> None:
        log = Log().started().step(1).said("one", item="m1").stepped(1).step(2).said("two", item="m2").stepped(2)
        assert [message["content"] for message in messages(log)] == ["hi", "one", "two"]

    def test_what_was_steered_is_the_users(self) -> None:
        log = Log().started()
        log.add(ev.RunSteered, steer_id="st", text="be brief", by=ALICE, disposition="pending")
        log.add(ev.RunSteered, steer_id="st", text="be brief", by=ALICE, disposition="applied")
        assert messages(log)[1:] == [{**messages(log)[1], "role": "user", "content": "be brief", "steered": True}]

    def test_a_run_that_retries_another_says_nothing_new(self) -> None:
        assert messages(Log().started("hi", retry_of="run_0")) == []

    def test_discarded_thoughts_are_not_there(self) -> None:
        log = Log().started().step().thought("no")
        log.add(ev.ItemDiscarded, item_id="rsn_1", reason="retried")
        log.said("yes").stepped()
        assert "reasoning" not in messages(log)[1]

    def test_images_are_parts_with_an_address(self) -> None:
        parts: list[ContentPart] = [
            TextPart(text="look"),
            ImagePart(blob="blob_1", detail="low"),
            ImagePart(url="https://x.test/a.png"),
        ]
        assert content_of(parts) == [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "/api/blobs/blob_1", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
        ]


class TestSession:
    def test_it_counts(self) -> None:
        log = Log().started("hello there").step().called(command="ls").returned("").stepped().completed("")
        session = fold(log).session(SessionRecord(), status="idle", run_id=None)
        assert (session.message_count, session.tool_call_count, session.api_call_count) == (3, 1, 1)
        assert (session.input_tokens, session.output_tokens) == (3, 4)
        assert (session.preview, session.model, session.source) == ("hello there", "demo-1", "api_server")
        assert session.started_at < session.last_active

    def test_it_tells_of_its_configuration_but_not_what_it_says(self) -> None:
        log = Log()
        config = Config(title="Trip", instructions="be brief", agent="demo")
        log.add(ev.ConversationConfigured, version=1, config=config, by=ALICE)
        session = fold(log).session(SessionRecord(), status="idle", run_id=None)
        assert (session.title, session.has_system_prompt, session.has_model_config) == ("Trip", True, True)
        assert "be brief" not in msgspec.json.encode(session).decode()

    def test_what_is_kept_beside_the_log_is_in_it(self) -> None:
        record = SessionRecord(parent_session_id="s0", ended_at=5.0, end_reason="done")
        session = fold(Log().started()).session(record, status="running", run_id=RUN)
        assert (session.parent_session_id, session.ended_at, session.end_reason) == ("s0", 5.0, "done")
        assert (session.status, session.run_id) == ("running", RUN)

    def test_its_preview_is_short(self) -> None:
        session = fold(Log().started("x" * 500)).session(SessionRecord(), status="idle", run_id=None)
        assert session.preview == "x" * 60 + "..."


class TestStream:
    def test_an_answer(self) -> None:
        log = Log().started("hi").step().said("ab", "a", "b").stepped().completed("ab")
        assert names(log) == [
            "run.started",
            "message.started",
            "assistant.delta",
            "assistant.delta",
            "assistant.completed",
            "run.completed",
            "done",
        ]
        assert only(log, "run.started")["user_message"] == {"role": "user", "content": "hi"}
        completed = only(log, "assistant.completed")
        assert (completed["content"], completed["completed"]) == ("ab", True)
        assert (completed["partial"], completed["interrupted"]) == (False, False)

    def test_every_event_has_session_run_number_and_time(self) -> None:
        log = Log().started().step().said("ab", "a", "b").stepped().completed("ab")
        for number, (_, data) in enumerate(stream(log), 1):
            assert (data["session_id"], data["run_id"], data["seq"]) == ("s1", RUN, number)
            assert 1_700_000_000 < data["ts"] < 1_700_000_100

    def test_ids_are_the_numbers_in_the_log(self) -> None:
        log = Log(first=5).started().completed("")
        assert [fields.get("id") for fields, _ in stream(log)] == [None, "5", None, None, "6"]

    def test_all_that_is_said_is_one_message(self) -> None:
        log = Log().started().step(1).said("one", "one", item="m1").called(command="ls").returned("").stepped(1)
        log.step(2).said("two", "two", item="m2").stepped(2).completed("two")
        started = only(log, "message.started")["message"]
        about = {data["message_id"] for fields, data in stream(log) if fields["event"] == "assistant.delta"}
        assert about == {started["id"]}
        assert only(log, "assistant.completed")["content"] == "two"

    def test_the_end_has_the_messages_of_the_turn(self) -> None:
        log = Log().started().step(1).said("one", item="m1").called(command="ls").returned("x").stepped(1)
        log.step(2).said("two", item="m2").stepped(2).completed("two")
        completed = only(log, "run.completed")
        assert [message["role"] for message in completed["messages"]] == ["assistant", "tool", "assistant"]
        assert completed["usage"]["total_tokens"] == 7

    def test_reasoning_comes_under_both_its_names(self) -> None:
        log = Log().started().step().thought("hm")
        assert only(log, "reasoning.delta")["delta"] == "hm"
        progress = only(log, "tool.progress")
        assert (progress["tool_name"], progress["delta"]) == ("_thinking", "hm")

    def test_tools_have_their_arguments_and_their_results(self) -> None:
        log = Log().started().step().called(command="ls").returned("a.txt")
        started, completed = only(log, "tool.started"), only(log, "tool.completed")
        assert (started["tool_name"], started["preview"], started["args"]) == ("terminal", "ls", {"command": "ls"})
        assert (completed["tool_name"], completed["result"], completed["error"]) == ("terminal", "a.txt", False)

    def test_approvals_are_there(self) -> None:
        log = Log().started().step().called().asks_leave().settled(option="once")
        assert names(log)[-2:] == ["approval.request", "approval.responded"]
        assert only(log, "approval.request")["request_id"] == "int_1"

    def test_a_failure_says_why_and_keeps_what_was_said(self) -> None:
        log = Log().started().step().said("ab", "ab").stepped().failed()
        assert names(log)[-4:] == ["error", "assistant.completed", "run.failed", "done"]
        assert only(log, "error")["message"] == "the endpoint refuses the key"
        completed = only(log, "assistant.completed")
        assert (completed["content"], completed["completed"], completed["partial"]) == ("ab", False, True)

    def test_a_cancelled_run_was_interrupted(self) -> None:
        log = Log().started().cancelled()
        assert names(log)[-3:] == ["assistant.completed", "run.cancelled", "done"]
        assert only(log, "assistant.completed")["interrupted"] is True

    def test_a_session_that_is_deleted_ends_it(self) -> None:
        projection = SessionStream(RUN, "s1")
        [started] = Log().started().events
        before = parsed(projection.feed(started))
        (error, why), (done, last) = parsed(projection.deleted())
        assert (error["event"], why["code"], done["event"]) == ("error", "session_not_found", "done")
        assert last["seq"] == len(before) + 2

    def test_events_of_other_runs_are_not_in_it(self) -> None:
        log = Log().started()
        log.add(ev.RunQueued, run_id="run_2", input="x", position=1, by=ALICE)
        assert names(log) == ["run.started", "message.started"]
