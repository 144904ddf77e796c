"""A run as a response: which events, in which order, with which fields."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compat.response_log import OPENING, Log

MESSAGE = [
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
]
THOUGHT = [
    "output_item.added",
    "reasoning_summary_part.added",
    "reasoning_summary_text.delta",
    "reasoning_summary_text.done",
    "reasoning_summary_part.done",
    "output_item.done",
]
CALL = [
    "output_item.added",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_item.done",
]
WHOLE = ["output_item.added", "output_item.done"]

_REQUIRED = """
id object created_at completed_at status incomplete_details model previous_response_id instructions output error
tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs
temperature reasoning user usage max_output_tokens max_tool_calls store background service_tier metadata
safety_identifier prompt_cache_key conversation
"""
RESPONSE_FIELDS = set(_REQUIRED.split())
"""What the Open Responses specification and OpenAI's reference require of a response, null included."""

PLACED = {"item_id", "output_index", "content_index"}
THOUGHT_PLACE = {"item_id", "output_index", "summary_index"}
EVENT_FIELDS: dict[str, set[str]] = {
    "created": {"response"},
    "queued": {"response"},
    "in_progress": {"response"},
    "completed": {"response"},
    "failed": {"response"},
    "incomplete": {"response"},
    "output_item.added": {"output_index", "item"},
    "output_item.done": {"output_index", "item"},
    "content_part.added": PLACED | {"part"},
    "content_part.done": PLACED | {"part"},
    "output_text.delta": PLACED | {"delta", "logprobs"},
    "output_text.done": PLACED | {"text", "logprobs"},
    "function_call_arguments.delta": {"item_id", "output_index", "delta"},
    "function_call_arguments.done": {"item_id", "output_index", "name", "arguments"},
    "reasoning_summary_part.added": THOUGHT_PLACE | {"part"},
    "reasoning_summary_part.done": THOUGHT_PLACE | {"part"},
    "reasoning_summary_text.delta": THOUGHT_PLACE | {"delta"},
    "reasoning_summary_text.done": THOUGHT_PLACE | {"text"},
}


def told(text: str) -> dict[str, str]:
    """A part of a call's output."""
    return {"type": "input_text", "text": text}


def answer() -> Log:
    """The plainest run there is."""
    return Log().started().step().begins().says("Hel", "lo").said("Hello").stepped().completed()


EVERYTHING = [
    answer(),
    Log().queued().started().step().thinks("hm").thought("hm").begins().says("a").said("a").stepped().completed(),
    Log().started().step().calls("c1", path="x").called("c1").stepped().completed("length"),
    Log().started().step().calls("c1", "terminal").asks_leave("int_1", "c1", "mcp:crm", command="ls"),
    Log().started().step().asks_question("int_1", choices=["a", "b"]),
    Log().started().step().begins().says("a").failed(),
    Log().queued().cancelled(),
]


@pytest.mark.parametrize("log", EVERYTHING)
def test_every_event_has_the_fields_that_the_specification_requires(log: Log) -> None:
    stream = log.project().stream
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    for event in stream:
        assert set(event) == EVENT_FIELDS[event["type"].removeprefix("response.")] | {"type", "sequence_number"}
        if "response" in event:
            assert set(event["response"]) == RESPONSE_FIELDS


@pytest.mark.parametrize("log", EVERYTHING)
def test_items_begin_once_end_once_and_keep_their_place(log: Log) -> None:
    projected = log.project()
    added, done = projected.of_type("output_item.added"), projected.of_type("output_item.done")
    assert [event["output_index"] for event in added] == list(range(len(added)))
    assert sorted(event["output_index"] for event in done) == list(range(len(added)))
    ended = {event["output_index"]: event["item"] for event in done}
    assert [ended[index] for index in sorted(ended)] == projected.output
    for event in added:
        assert event["item"]["id"] == ended[event["output_index"]]["id"]


@pytest.mark.parametrize("log", EVERYTHING)
def test_the_last_event_has_the_whole_response(log: Log) -> None:
    projected = log.project()
    assert projected.stream[-1]["response"] == projected.response
    assert projected.projection.done


def test_an_answer_begins_grows_and_ends() -> None:
    projected = answer().project()
    growing = [*MESSAGE[:3], "output_text.delta", *MESSAGE[3:]]
    assert projected.types == ["created", "in_progress", *growing, "completed"]
    assert projected.response["status"] == "completed"
    assert projected.response["completed_at"] == 1_700_000_008
    assert projected.output == [
        {
            "type": "message",
            "id": "msg_a_0123",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
        }
    ]


def test_what_is_told_while_it_is_not_over_says_so() -> None:
    first = answer().project().stream[0]["response"]
    assert (first["status"], first["output"], first["usage"], first["completed_at"]) == ("in_progress", [], None, None)


def test_a_response_can_be_looked_at_while_it_grows() -> None:
    projected = Log().started().step().begins().says("Hel").project()
    assert projected.response["status"] == "in_progress"
    assert projected.output[0]["status"] == "in_progress"
    assert projected.output[0]["content"][0]["text"] == "Hel"


def test_one_that_waits_its_turn_is_queued_first() -> None:
    log = Log().queued()
    assert log.project().response["status"] == "queued"
    projected = log.started().project()
    assert projected.types == ["created", "queued", "in_progress"]
    assert [event["response"]["status"] for event in projected.stream] == ["queued", "queued", "in_progress"]


def test_usage_is_that_of_the_steps_within_it() -> None:
    log = Log().started().step().stepped(1, 3, 2).step(2).stepped(2, 10, 5).completed()
    assert log.project().response["usage"] == {
        "input_tokens": 13,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 20,
    }


def test_deltas_that_are_not_in_the_log_any_more_are_made_up_for_by_the_final() -> None:
    projected = Log().started().step().thought("hm").begins().said("Hello").stepped().completed().project()
    assert projected.types == ["created", "in_progress", *THOUGHT, *MESSAGE, "completed"]
    assert projected.of_type("output_text.delta")[0]["delta"] == "Hello"


def test_a_final_that_says_more_than_the_deltas_adds_the_rest() -> None:
    projected = Log().started().step().begins().says("Hel").said("Hello").project()
    assert [event["delta"] for event in projected.of_type("output_text.delta")] == ["Hel", "lo"]


def test_reasoning_is_a_summary_which_both_specifications_know_by_the_same_names() -> None:
    projected = Log().started().step().thinks("hm").thought("hm").begins().says("a").said("a").completed().project()
    assert projected.types == ["created", "in_progress", *THOUGHT, *MESSAGE, "completed"]
    assert projected.output[0] == {
        "type": "reasoning",
        "id": "rsn_a_0123",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "hm"}],
    }


def test_a_tool_of_the_agents_own_is_a_call_and_its_output() -> None:
    projected = Log().started().step().calls("c1", path="x").called("c1", "text").stepped().completed().project()
    assert projected.types == ["created", "in_progress", *CALL, *WHOLE, "completed"]
    assert projected.of_type("output_item.added")[0]["item"]["arguments"] == ""
    call, output = projected.output
    assert call == {
        "type": "function_call",
        "id": "fc_c1_0123",
        "call_id": "c1",
        "name": "read_file",
        "arguments": '{"path":"x"}',
        "status": "completed",
    }
    assert (output["type"], output["call_id"], output["output"]) == ("function_call_output", "c1", [told("text")])


def test_calls_side_by_side_come_back_in_their_own_order() -> None:
    log = Log().started().step().calls("c1").calls("c2").called("c2", "two").called("c1", "one").stepped().completed()
    output = log.project().output
    assert [(item["type"], item["call_id"]) for item in output] == [
        ("function_call", "c1"),
        ("function_call", "c2"),
        ("function_call_output", "c2"),
        ("function_call_output", "c1"),
    ]


def test_calls_that_are_executed_here_can_be_left_out() -> None:
    log = Log().started().step().calls("c1").called("c1").begins().says("a").said("a").stepped().completed()
    assert [item["type"] for item in log.project(own_tools=False).output] == ["message"]


def test_a_question_that_was_shown_has_its_outcome_shown_whoever_answered_it() -> None:
    log = Log().started().step().calls("c1", "clarify").calls("c2").asks_question("int_1", "c1").answered("int_1")
    log.called("c1", "red", name="clarify").called("c2").stepped().completed()
    assert [item["type"] for item in log.project(own_tools=False).output] == ["function_call", "function_call_output"]


def test_a_function_of_the_clients_ends_the_response() -> None:
    log = Log().started().step().calls("c1", "weather", "client", city="Oslo").asks("int_1", "client_tool", "c1")
    projected = log.project()
    assert projected.types == ["created", "in_progress", *CALL, "completed"]
    assert [item["name"] for item in projected.output] == ["weather"]


def test_a_response_does_not_end_while_another_call_is_under_way() -> None:
    log = Log().started().step().calls("c1", "weather", "client").calls("c2")
    log.asks("int_1", "client_tool", "c1")
    assert not log.project().projection.done
    projected = log.called("c2").project()
    assert projected.types[-1] == "completed"
    assert [item["type"] for item in projected.output] == ["function_call", "function_call", "function_call_output"]


def test_the_next_response_has_what_comes_of_the_answer() -> None:
    log = Log().started().step().calls("c1", "weather", "client").asks("int_1", "client_tool", "c1")
    after = log.head
    log.answered("int_1").called("c1", "rain", name="weather").stepped().step(2).begins().says("Rain.").said("Rain.")
    projected = log.stepped(2).completed().project(after, answers=["int_1"])
    assert projected.types == ["created", "in_progress", *MESSAGE, "completed"]
    assert projected.response["usage"]["total_tokens"] == 10


def test_a_function_that_nobody_will_execute_any_more_has_its_outcome_told() -> None:
    log = Log().started().step().calls("c1", "weather", "client").called("c1", "no city", "error", name="weather")
    assert [item["type"] for item in log.project().output] == ["function_call", "function_call_output"]


def test_an_approval_ends_the_response() -> None:
    log = Log().started().step().calls("c1", "terminal", command="ls").asks_leave("int_1", "c1", command="ls")
    projected = log.project()
    assert projected.types == ["created", "in_progress", *CALL, *WHOLE, "completed"]
    assert projected.output[-1] == {
        "type": "mcp_approval_request",
        "id": "int_1_0123",
        "server_label": "builtin",
        "name": "terminal",
        "arguments": '{"command":"ls"}',
        "status": "completed",
    }


def test_an_approval_names_the_server_that_the_tool_comes_from() -> None:
    log = Log().started().step().calls("c1", "mail", "mcp:crm").asks_leave("int_1", "c1", "mcp:crm")
    assert log.project().output[-1]["server_label"] == "crm"


def test_after_an_approval_comes_what_the_call_came_to() -> None:
    log = Log().started().step().calls("c1", "terminal").asks_leave("int_1", "c1")
    after = log.head
    log.answered("int_1").called("c1", "done", name="terminal").stepped().completed()
    projected = log.project(after, answers=["int_1"])
    assert [(item["type"], item["output"]) for item in projected.output] == [("function_call_output", [told("done")])]


def test_a_response_waits_for_all_the_answers_that_its_request_brings() -> None:
    log = Log().started().step().calls("c1", "terminal").calls("c2", "terminal")
    log.asks_leave("int_1", "c1").asks_leave("int_2", "c2")
    after = log.head
    log.answered("int_1").called("c1", "denied", "denied", name="terminal")
    assert not log.project(after, answers=["int_1", "int_2"]).projection.done
    assert log.project(after, answers=["int_1"]).projection.done


def test_what_the_answer_leads_to_may_be_a_question_again() -> None:
    log = Log().started().step().calls("c1", "terminal").asks_leave("int_1", "c1")
    after = log.head
    log.answered("int_1").asks_leave("int_2", "c1")
    projected = log.project(after, answers=["int_1"])
    assert [item["id"] for item in projected.output] == ["int_2_0123"]
    assert projected.response["status"] == "completed"


def test_a_call_of_clarify_is_itself_the_question() -> None:
    log = Log().started().step().calls("c1", "clarify", question="Which?").asks_question("int_1", "c1")
    projected = log.project()
    assert [(item["name"], item["call_id"]) for item in projected.output] == [("clarify", "c1")]
    after = log.head
    log.answered("int_1").called("c1", "this", name="clarify").stepped().completed()
    assert log.project(after, answers=["int_1"]).output == []


def test_a_question_that_comes_later_than_its_call_shows_the_call_again() -> None:
    log = Log().started().step().calls("c1", "clarify").asks_leave("int_1", "c1")
    after = log.head
    log.answered("int_1").asks_question("int_2", "c1")
    assert [item["call_id"] for item in log.project(after, answers=["int_1"]).output] == ["c1"]


def test_a_question_without_a_call_of_its_own_is_a_call_of_clarify() -> None:
    (item,) = Log().started().step().asks_question("int_1", choices=["a", "b"]).project().output
    assert (item["type"], item["name"], item["call_id"]) == ("function_call", "clarify", "int_1")
    assert item["arguments"] == '{"question":"Which?","choices":["a","b"],"allow_other":false,"multiple":false}'


def test_a_form_is_a_call_of_form() -> None:
    log = Log().started().step().calls("c1", "book", "mcp:crm").asks("int_1", "form", "c1", schema={"type": "object"})
    item = log.project().output[-1]
    assert (item["name"], item["call_id"]) == ("form", "int_1")
    assert item["arguments"] == '{"message":"rm -r /","schema":{"type":"object"}}'


def test_what_is_discarded_keeps_its_place_in_the_stream_and_is_not_in_the_response() -> None:
    log = Log().started().step().begins("msg_a").says("Hel")
    log.add_discarded("msg_a").begins("msg_b").says("Hi", item="msg_b").said("Hi", "msg_b").stepped().completed()
    projected = log.project()
    assert [item["content"][0]["text"] for item in projected.output] == ["Hi"]
    first, second = projected.of_type("output_item.done")
    assert (first["output_index"], first["item"]["status"]) == (0, "incomplete")
    assert (second["output_index"], second["item"]["status"]) == (1, "completed")


def test_thoughts_that_had_ended_can_be_discarded_too() -> None:
    log = Log().started().step().thinks("hm").thought("hm").add_discarded("rsn_a").stepped().completed()
    projected = log.project()
    assert projected.output == []
    assert len(projected.of_type("output_item.done")) == 1


@pytest.mark.parametrize(
    ("stop_reason", "reason"),
    [("length", "max_output_tokens"), ("max_steps", "max_messages"), ("refused", "content_filter")],
)
def test_a_run_that_was_bounded_is_incomplete(stop_reason: str, reason: str) -> None:
    projected = Log().started().completed(stop_reason).project()
    assert projected.types[-1] == "incomplete"
    assert projected.response["status"] == "incomplete"
    assert projected.response["incomplete_details"] == {"reason": reason}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("model_rate_limited", "rate_limit_exceeded"),
        ("context_length", "context_length_exceeded"),
        ("agent_crashed", "server_error"),
    ],
)
def test_a_run_that_failed_says_why(code: str, told: str) -> None:
    projected = Log().started().failed(code).project()
    assert projected.types[-1] == "failed"
    assert projected.response["error"] == {"code": told, "message": "it broke"}
    assert projected.response["status"] == "failed"


def test_what_was_being_said_when_the_run_ended_is_incomplete() -> None:
    projected = Log().started().step().begins().says("Hel").failed().project()
    assert projected.types[-4:] == ["output_text.done", "content_part.done", "output_item.done", "failed"]
    assert projected.output[0]["status"] == "incomplete"
    stopped = Log().started().step().begins().says("Hel").said("Hel", partial=True).cancelled().project()
    assert stopped.output[0]["status"] == "incomplete"


def test_a_run_that_was_stopped_is_cancelled_by_an_event_that_ends_streams() -> None:
    projected = Log().started().cancelled().project()
    assert projected.types[-1] == "incomplete"
    assert (projected.response["status"], projected.response["incomplete_details"]) == ("cancelled", None)


def test_nothing_comes_after_the_end() -> None:
    log = answer()
    projection = log.project().projection
    assert projection.feed(log.events[-1]) == []
    assert projection.abort("too late", 0) == []


def test_other_runs_are_nobodys_business() -> None:
    other = Log("run_other").started().step().begins().says("no")
    projection = answer().project().projection
    assert [event for given in other.events for event in projection.feed(given)] == []
    assert other.project().projection.feed(answer().events[0]) == []


def test_history_that_was_brought_along_is_not_part_of_it() -> None:
    log = Log().started().step().calls("c1", "weather", "client").called("c1", "rain", name="weather").stepped()
    log.step(2).begins().says("Rain.").said("Rain.").stepped(2).completed()
    projected = log.project(skip_steps=1)
    assert projected.types == ["created", "in_progress", *MESSAGE, "completed"]


def test_a_response_can_be_broken_off_for_a_reason_that_is_in_no_log() -> None:
    projection = Log().started().step().begins().says("Hel").project().projection
    types = [event.type for event in projection.abort("the conversation was deleted", 1_000)]
    assert types[-1] == "response.failed"
    assert projection.response.error is not None
    assert projection.response.error.message == "the conversation was deleted"


def test_a_response_that_generates_nothing_is_over_as_it_begins() -> None:
    log = Log()
    projection = log.project().projection
    types = [event.type for event in projection.nothing(5_000)]
    assert types == ["response.created", "response.in_progress", "response.completed"]
    assert projection.response.output == []


def test_fed_again_the_same_comes_out() -> None:
    log = EVERYTHING[1]
    assert log.project().stream == log.project().stream


def test_what_was_asked_for_is_told_back() -> None:
    kept: dict[str, Any] = answer().project().response
    assert kept["id"] == OPENING.id
    assert (kept["temperature"], kept["top_p"], kept["tool_choice"], kept["truncation"]) == (
        1.0,
        1.0,
        "auto",
        "disabled",
    )
