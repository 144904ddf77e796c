"""A run's events as hermes-agent's clients read them."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.compat.runs import RunEvents, RunStatus, preview_of, sse
from hermes_ws.protocol import events as ev
from tests.compat.runs_log import ALICE, RUN, Log, parsed


def wire(log: Log, after: int = 0) -> list[tuple[dict[str, str], Any]]:
    """What a reader who has seen everything up to ``after`` gets."""
    projection, stream = RunEvents(RUN, "s1"), b""
    for event in log.events:
        if event.seq <= after:
            projection.skip(event)
        else:
            stream += sse(event.seq, projection.feed(event))
    return parsed(stream)


def told(log: Log, after: int = 0) -> list[dict[str, Any]]:
    return [data for _, data in wire(log, after)]


def names(log: Log, after: int = 0) -> list[str]:
    return [data["event"] for data in told(log, after)]


def only(log: Log, name: str) -> dict[str, Any]:
    [found] = [data for data in told(log) if data["event"] == name]
    return found


def added_up(log: Log, after: int = 0) -> str:
    """The text of somebody who adds deltas up."""
    return "".join(data["delta"] for data in told(log, after) if data["event"] == "message.delta")


def status(log: Log) -> Any:
    fold = RunStatus(RUN, "s1", "hermes-agent")
    for event in log.events:
        fold.feed(event)
    return fold.run


class TestEvents:
    def test_each_says_what_it_is_of_which_run_and_when_in_seconds(self) -> None:
        for data in told(Log().started().step().said("ab", "a", "b").stepped().completed("ab")):
            assert data["run_id"] == RUN
            assert 1_700_000_000 < data["timestamp"] < 1_700_000_100

    def test_a_plain_answer_is_deltas_and_an_end(self) -> None:
        log = Log().started().step().said("ab", "a", "b").stepped().completed("ab")
        assert names(log) == ["run.started", "message.delta", "message.delta", "message.available", "run.completed"]
        end = only(log, "run.completed")
        assert (end["output"], end["completed"], end["stop_reason"]) == ("ab", True, "end")
        assert end["usage"] == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}

    def test_lines_are_data_and_an_id_without_the_names_that_the_clients_do_not_expect(self) -> None:
        for fields, _ in wire(Log().started().step().said("a", "a").stepped().completed("a")):
            assert set(fields) == {"id"}

    def test_ids_are_the_numbers_in_the_log(self) -> None:
        log = Log(first=5).started().completed("")
        assert [fields["id"] for fields, _ in wire(log)] == ["5", "6"]

    def test_reasoning_is_the_reasoning_and_not_the_answer(self) -> None:
        log = Log().started().step().thought("hm").said("ab", "ab").stepped().completed("ab")
        assert only(log, "reasoning.delta")["delta"] == "hm"
        assert only(log, "reasoning.available")["text"] == "hm"

    def test_a_tool_says_which_call_what_with_and_what_came_of_it(self) -> None:
        log = Log().started().step().called(command="ls -l").returned("a.txt")
        started, completed = only(log, "tool.started"), only(log, "tool.completed")
        assert (started["tool"], started["preview"], started["args"]) == ("terminal", "ls -l", {"command": "ls -l"})
        assert (completed["tool"], completed["duration"], completed["error"]) == ("terminal", 1.234, False)
        assert started["tool_call_id"] == completed["tool_call_id"] == "call_1"
        assert completed["result"] == "a.txt"

    @pytest.mark.parametrize("ended", ["error", "denied", "cancelled", "interrupted"])
    def test_a_call_that_came_to_nothing_is_an_error(self, ended: str) -> None:
        assert only(Log().started().step().called().returned("no", status=ended), "tool.completed")["error"] is True

    def test_output_of_a_tool_is_told_as_it_comes(self) -> None:
        log = Log().started().step().called(command="ls")
        log.add(ev.ToolOutput, call_id="call_1", stream="stdout", chunk="a.txt\n")
        assert only(log, "tool.output")["chunk"] == "a.txt\n"

    def test_a_failure_is_a_text_and_a_code(self) -> None:
        failed = only(Log().started().failed(), "run.failed")
        assert failed["error"] == "the endpoint refuses the key"
        assert (failed["error_code"], failed["completed"]) == ("model_auth", False)

    def test_a_cancelled_run_was_interrupted(self) -> None:
        cancelled = only(Log().started().cancelled(), "run.cancelled")
        assert (cancelled["completed"], cancelled["interrupted"]) == (False, True)

    def test_events_of_other_runs_and_of_the_conversation_are_none_of_its(self) -> None:
        log = Log().started()
        log.add(ev.RunQueued, run_id="run_2", input="x", position=1, by=ALICE)
        log.add(ev.McpStatus, server="crm", state="ready")
        assert names(log) == ["run.started"]

    def test_what_was_streamed_and_does_not_count_is_taken_back(self) -> None:
        log = Log().started().step()
        log.add(ev.MessageStarted, item_id="msg_0", step=1)
        log.add(ev.MessageDelta, item_id="msg_0", delta="wro")
        log.add(ev.ItemDiscarded, item_id="msg_0", reason="retried")
        log.said("right", "right").stepped().completed("right")
        assert names(log)[2] == "message.discarded"
        assert only(log, "message.available")["text"] == "right"


class TestRereading:
    def test_after_any_number_nothing_is_missed_and_nothing_comes_twice(self) -> None:
        log = Log().started().step().thought("hm").said("abc", "a", "b", "c").called(command="ls")
        log.asks_leave().settled(option="once").returned("x").stepped().completed("abc")
        everything = wire(log)
        for cut, (fields, _) in enumerate(everything, 1):
            assert wire(log, after=int(fields["id"])) == everything[cut:]

    def test_deltas_that_were_folded_away_are_one(self) -> None:
        log = Log().started().step().said("abc").stepped().completed("abc")
        assert added_up(log) == "abc"

    def test_deltas_of_which_some_were_folded_away_add_up(self) -> None:
        log = Log().started().step().said("abc", "a").stepped().completed("abc")
        assert added_up(log) == "abc"

    def test_frames_of_one_event_carry_its_number_once_on_the_last(self) -> None:
        log = Log().started().step().said("abc").stepped().completed("abc")
        at = names(log).index("message.delta")
        first, second = wire(log)[at : at + 2]
        assert "id" not in first[0]
        assert second[1]["event"] == "message.available"
        assert "id" in second[0]

    def test_who_comes_back_in_the_middle_of_a_message_is_not_told_its_beginning_again(self) -> None:
        log = Log().started().step().said("abc", "a", "bc").stepped().completed("abc")
        first_delta = next(event.seq for event in log.events if isinstance(event, ev.MessageDelta))
        assert added_up(log, after=first_delta) == "bc"


class TestQuestions:
    def test_an_approval_has_the_fields_that_the_clients_know(self) -> None:
        asked = only(Log().started().step().called().asks_leave(command="rm x"), "approval.request")
        assert asked["command"] == "rm x"
        assert (asked["pattern_key"], asked["pattern_keys"]) == ("builtin:terminal", ["builtin:terminal"])
        assert (asked["description"], asked["allow_permanent"]) == ("May it?", True)
        assert asked["choices"] == ["once", "session", "always", "deny"]
        assert (asked["request_id"], asked["tool_call_id"], asked["risk"]) == ("int_1", "call_1", "high")

    def test_where_it_cannot_be_given_for_always_that_is_no_choice(self) -> None:
        asked = only(Log().started().step().called().asks_leave(always=False), "approval.request")
        assert asked["choices"] == ["once", "session", "deny"]
        assert asked["allow_permanent"] is False

    def test_a_call_that_is_no_command_is_shown_as_a_call(self) -> None:
        asked = only(Log().started().step().called().asks_leave(path="a"), "approval.request")
        assert asked["command"] == 'terminal {"path":"a"}'

    @pytest.mark.parametrize(
        ("option", "choice"),
        [("once", "once"), ("conversation", "session"), ("always", "always"), ("deny", "deny"), ("run", "run")],
    )
    def test_an_answer_is_told_as_a_choice(self, option: str, choice: str) -> None:
        log = Log().started().step().called().asks_leave().settled(option=option)
        responded = only(log, "approval.responded")
        assert (responded["choice"], responded["resolved"], responded["request_id"]) == (choice, 1, "int_1")

    def test_an_approval_that_nobody_gave_is_denied(self) -> None:
        log = Log().started().step().called().asks_leave().settled(outcome="expired", option="deny", via="timeout")
        responded = only(log, "approval.responded")
        assert (responded["choice"], responded["outcome"]) == ("deny", "expired")

    def test_what_ends_with_its_run_was_not_answered(self) -> None:
        log = Log().started().step().called().asks_leave().settled(outcome="cancelled")
        assert names(log)[-1] == "approval.cancelled"
        log = Log().started().step().called(name="clarify").asks("A").settled(outcome="cancelled")
        assert names(log)[-1] == "clarify.cancelled"

    def test_a_question_has_its_choices_as_text_and_as_a_prompt(self) -> None:
        asked = only(Log().started().step().called(name="clarify").asks("Red", "Blue"), "clarify.request")
        assert (asked["question"], asked["choices"], asked["request_id"]) == ("Which?", ["Red", "Blue"], "int_1")
        assert asked["clarify_id"] == "int_1"
        assert asked["prompt"]["type"] == "choice"
        assert asked["prompt"]["choices"] == [{"id": "red", "label": "Red"}, {"id": "blue", "label": "Blue"}]
        assert (asked["allow_other"], asked["multi_select"]) == (False, False)

    def test_an_open_question_takes_whatever_is_said(self) -> None:
        asked = only(Log().started().step().called(name="clarify").asks(), "clarify.request")
        assert (asked["choices"], asked["prompt"]["type"], asked["allow_other"]) == ([], "text", True)

    def test_yes_and_no_are_choices(self) -> None:
        asked = only(Log().started().step().called(name="clarify").asks(kind="boolean"), "clarify.request")
        assert asked["choices"] == ["Yes", "No"]

    def test_the_answer_is_told(self) -> None:
        log = Log().started().step().called(name="clarify").asks("Red").settled(answers={"q": "red"})
        responded = only(log, "clarify.responded")
        assert (responded["answer"], responded["response_type"]) == ("red", "choice")

    def test_a_secret_answer_is_not(self) -> None:
        log = (
            Log().started().step().called(name="clarify").asks(kind="secret").settled(answers={"q": {"redacted": True}})
        )
        assert only(log, "clarify.responded")["answer"] is None

    def test_a_form_and_a_function_of_somebody_elses_are_requests_too(self) -> None:
        assert names(Log().started().step().called().asks_form().settled())[-2:] == ["form.request", "form.responded"]
        asked = only(Log().started().step().called().asks_function(), "function.request")
        assert (asked["tool"], asked["args"]) == ("weather", {"city": "Bern"})


class TestSteering:
    def test_text_that_was_taken_is_told(self) -> None:
        log = Log().started()
        log.add(ev.RunSteered, steer_id="st_1", text="be brief", by=ALICE, disposition="pending", if_late="return")
        assert only(log, "run.steered")["accepted"] is True

    def test_text_that_came_too_late_is_given_back_with_the_end(self) -> None:
        log = Log().started()
        log.add(ev.RunSteered, steer_id="st_1", text="be brief", by=ALICE, disposition="pending", if_late="return")
        log.add(ev.RunSteered, steer_id="st_1", text="be brief", by=ALICE, disposition="returned")
        log.completed("done")
        assert only(log, "run.completed")["pending_steer"] == "be brief"
        assert status(log).pending_steer == "be brief"

    def test_text_that_was_heard_is_not(self) -> None:
        log = Log().started()
        log.add(ev.RunSteered, steer_id="st_1", text="be brief", by=ALICE, disposition="pending", if_late="return")
        log.add(ev.RunSteered, steer_id="st_1", text="be brief", by=ALICE, disposition="applied")
        log.completed("done")
        assert "pending_steer" not in only(log, "run.completed")


class TestStatus:
    def test_a_queued_run_is_queued(self) -> None:
        log = Log()
        log.add(ev.RunQueued, input="x", position=1, by=ALICE)
        run = status(log)
        assert (run.status, run.last_event, run.model) == ("queued", "run.queued", "hermes-agent")
        assert run.created_at == run.updated_at == 1_700_000_005

    def test_a_running_run_has_what_its_steps_used(self) -> None:
        run = status(Log().started().step().said("a", "a").stepped())
        assert (run.status, run.model, run.session_id, run.attempt) == ("running", "demo-1", "s1", 1)
        assert run.usage.total_tokens == 7

    def test_a_completed_run_has_its_output(self) -> None:
        run = status(Log().started().step().said("a", "a").stepped().completed("a"))
        assert (run.status, run.output, run.last_event) == ("completed", "a", "run.completed")
        assert run.usage.total_tokens == 7
        assert run.created_at < run.updated_at

    def test_a_failed_run_says_why(self) -> None:
        run = status(Log().started().failed())
        assert (run.status, run.error, run.error_code) == ("failed", "the endpoint refuses the key", "model_auth")

    def test_while_an_approval_is_open_it_is_shown(self) -> None:
        log = Log().started().step().called().asks_leave()
        run = status(log)
        assert (run.status, run.approval.request_id, run.awaiting_user) == ("waiting_for_approval", "int_1", True)
        run = status(log.settled(option="once"))
        assert (run.status, run.approval, run.awaiting_user) == ("running", None, None)

    def test_while_a_question_is_open_it_is_shown(self) -> None:
        run = status(Log().started().step().called().asks("A"))
        assert (run.status, run.clarification.question) == ("waiting_for_clarification", "Which?")

    def test_of_several_an_approval_comes_first(self) -> None:
        log = Log().started().step().called().asks("A", request_id="int_1").asks_leave("int_2")
        assert status(log).status == "waiting_for_approval"
        assert status(log.settled("int_2", option="once")).status == "waiting_for_clarification"

    def test_a_function_is_waited_for(self) -> None:
        assert status(Log().started().step().called().asks_function()).status == "waiting_for_tool_output"

    def test_a_run_that_is_stopping_stays_so_whatever_is_open(self) -> None:
        log = Log().started().step().called().asks_leave()
        log.add(ev.RunStopping, by=ALICE, mode="graceful")
        assert status(log).status == "stopping"
        log.settled(outcome="cancelled")
        assert status(log).status == "stopping"
        run = status(log.returned("", status="cancelled").cancelled())
        assert (run.status, run.requests, run.approval) == ("cancelled", None, None)

    def test_a_recovered_run_counts_its_attempts(self) -> None:
        log = Log().started()
        log.add(ev.RunRecovered, attempt=2, reason="server_restarted")
        run = status(log)
        assert (run.status, run.attempt, run.last_event) == ("running", 2, "run.recovered")


class TestPreview:
    @pytest.mark.parametrize(
        ("arguments", "shown"),
        [
            ({"timeout_s": 3, "command": "ls\n-l"}, "ls -l"),
            ({"content": "x", "path": "a.txt"}, "a.txt"),
            ({"n": 1, "other": "words"}, "words"),
            ({"n": 1}, '{"n":1}'),
            ({}, ""),
        ],
    )
    def test_it_is_what_says_most(self, arguments: dict[str, Any], shown: str) -> None:
        assert preview_of(arguments) == shown

    def test_it_is_one_short_line(self) -> None:
        assert len(preview_of({"command": "x" * 1000})) == 200
