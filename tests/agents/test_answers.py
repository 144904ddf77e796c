"""What a model says, however its server puts it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hermes_ws.errors import ModelError
from hermes_ws.protocol.values import Usage
from tests.agents.conftest import Asker, request_for, tool
from tests.agents.endpoint_server import (
    CUT,
    DONE,
    HANG,
    Endpoint,
    Piece,
    Reply,
    calls,
    chunk,
    data,
    sends,
    streams,
    text,
)

USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
HI = chunk({"content": "hi"})
STOP = chunk(finish="stop")


def called(*fragments: dict[str, Any]) -> Reply:
    """Fragments of calls, one a chunk."""
    return streams(*(chunk({"tool_calls": [piece]}) for piece in fragments), chunk(finish="tool_calls"))


def fragment(arguments: Any = None, name: str | None = None, **fields: Any) -> dict[str, Any]:
    return {**fields, "function": {"name": name, "arguments": arguments}}


# -- text and reasoning ----------------------------------------------------------------------------------


async def test_text_comes_in_the_pieces_it_was_sent_in(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("Hel", "lo ", "wörld"))
    heard = await ask()
    assert [getattr(part, "text", None) for part in heard.parts] == ["Hel", "lo ", "wörld", None]
    assert heard.finish.reason == "end"


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}, {"type": "reasoning.encrypted"}]},
        {"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    ],
)
async def test_reasoning_is_found_in_every_field_that_servers_use(
    endpoint: Endpoint, ask: Asker, delta: dict[str, Any]
) -> None:
    endpoint.plays(streams(chunk(delta), HI, STOP))
    heard = await ask()
    assert (heard.reasoning, heard.text) == ("hm", "hi")


async def test_reasoning_that_comes_between_text_stays_between(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(HI, chunk({"reasoning": "hm"}), HI, STOP))
    heard = await ask()
    assert [type(part).__name__ for part in heard.parts] == ["TextDelta", "ReasoningDelta", "TextDelta", "Finish"]


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 100])
async def test_think_tags_at_the_beginning_are_reasoning(endpoint: Endpoint, ask: Asker, cut: int) -> None:
    said = "\n<think>\nis 1 < 2? yes</think>\n\nIt is </think> so"
    endpoint.plays(text(*(said[n : n + cut] for n in range(0, len(said), cut))))
    heard = await ask()
    assert (heard.reasoning.strip(), heard.text) == ("is 1 < 2? yes", "It is </think> so")


@pytest.mark.parametrize("said", ["a <think>b</think>", "<thin", "<thinking> aloud", "   ", "</think> x"])
async def test_what_only_looks_like_a_think_tag_is_text(endpoint: Endpoint, ask: Asker, said: str) -> None:
    endpoint.plays(text(*said))
    heard = await ask()
    assert (heard.reasoning, heard.text) == ("", said)


async def test_think_tags_can_be_left_alone(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("<think>a</think>b"))
    assert (await ask(think_tags=False)).text == "<think>a</think>b"


async def test_a_think_tag_that_never_ends_was_all_reasoning(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("<think>on and on </"))
    heard = await ask()
    assert (heard.reasoning, heard.text) == ("on and on </", "")


# -- how it ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "end"),
        ("tool_calls", "end"),
        ("function_call", "end"),
        ("something new", "end"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("content_filter", "refused"),
    ],
)
async def test_the_reason_why_it_ended_is_told(endpoint: Endpoint, ask: Asker, reason: str, expected: str) -> None:
    endpoint.plays(streams(HI, chunk(finish=reason)))
    assert (await ask()).finish.reason == expected


async def test_a_refusal_is_said_and_told(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(chunk({"refusal": "I can"}), chunk({"refusal": "not."}), STOP))
    heard = await ask()
    assert (heard.text, heard.finish.reason) == ("I cannot.", "refused")


@pytest.mark.parametrize(
    "pieces",
    [
        [HI, STOP],
        [HI, DONE],
        [HI],
        [HI, STOP, CUT],
    ],
    ids=["no word that it is over", "no reason", "neither", "broken after the end"],
)
async def test_what_was_wholly_said_counts_however_the_stream_ends(
    endpoint: Endpoint, ask: Asker, pieces: list[Piece]
) -> None:
    endpoint.plays(streams(*pieces, done=False))
    heard = await ask()
    assert (heard.text, heard.finish.reason) == ("hi", "end")


async def test_an_answer_that_has_ended_does_not_wait_for_a_stream_that_does_not(
    endpoint: Endpoint, ask: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hermes_ws.agents.llm.reading._USAGE_S", 0.01)
    endpoint.plays(streams(HI, STOP, HANG))
    assert (await ask()).text == "hi"


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [chunk({"role": "assistant"})],
        [chunk({"reasoning": "hm"})],
        [chunk({"tool_calls": [fragment('{"a":', "look", index=0)]})],
        [HI, chunk({"tool_calls": [fragment("", "look", index=0)]})],
    ],
    ids=["nothing", "a role", "only reasoning", "half a call", "text and half a call"],
)
async def test_a_stream_that_ends_in_the_middle_is_no_answer(
    endpoint: Endpoint, ask: Asker, pieces: list[Piece]
) -> None:
    endpoint.plays(streams(*pieces, done=False))
    with pytest.raises(ModelError, match="ended its answer in the middle") as failed:
        await ask()
    assert failed.value.code == "model_bad_response"


async def test_an_answer_with_nothing_in_it_is_an_answer(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(STOP))
    heard = await ask()
    assert (heard.text, heard.calls, heard.finish.reason) == ("", [], "end")


# -- usage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        [HI, STOP, data({"choices": [], "usage": USAGE})],
        [HI, chunk(finish="stop", usage=USAGE)],
        [chunk({"content": "hi"}, usage={**USAGE, "completion_tokens": 1}), chunk(finish="stop", usage=USAGE)],
        [HI, STOP, data({"usage": USAGE}), data({"choices": [], "usage": None})],
        [HI, STOP, data({"choices": None, "usage": {"prompt_tokens": 11.0, "completion_tokens": "4"}})],
        [HI, data({"choices": [{"delta": {}, "finish_reason": "stop", "usage": USAGE}]})],
        [HI, data({"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "r", "usage": USAGE}})],
    ],
    ids=["in a chunk without choices", "in the last", "in every one", "no field", "in other numbers", "choice", "groq"],
)
async def test_usage_is_found_wherever_it_is(endpoint: Endpoint, ask: Asker, pieces: list[Piece]) -> None:
    endpoint.plays(streams(*pieces))
    assert (await ask()).finish.usage == Usage(input_tokens=11, output_tokens=4, total_tokens=15)


async def test_usage_has_its_details(endpoint: Endpoint, ask: Asker) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 7}, "completion_tokens_details": {"reasoning_tokens": 2}}
    endpoint.plays(text("hi", usage={**USAGE, **details}))
    usage = (await ask()).finish.usage
    assert usage is not None
    assert (usage.cached_input_tokens, usage.reasoning_tokens) == (7, 2)


@pytest.mark.parametrize("usage", [None, {}, "many", {"prompt_tokens": -1}, {"prompt_tokens": True}])
async def test_usage_that_says_nothing_is_none(endpoint: Endpoint, ask: Asker, usage: Any) -> None:
    endpoint.plays(streams(HI, STOP, data({"choices": [], "usage": usage})))
    assert (await ask()).finish.usage is None


async def test_usage_is_asked_for_unless_the_endpoint_will_not_have_it(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("hi"))
    await ask()
    assert endpoint.last.body["stream_options"] == {"include_usage": True}
    await ask(stream_usage=False)
    assert "stream_options" not in endpoint.last.body


# -- calls -----------------------------------------------------------------------------------------------


async def test_parallel_calls_are_put_together_from_their_fragments(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(calls(("look", {"path": "a b", "n": [1, 2]}), ("look", {"path": "ä"}), ("stop", {})))
    heard = await ask(request_for(tools=[tool("look"), tool("stop")]))
    assert [(c.name, c.arguments, c.call_id, c.problem) for c in heard.calls] == [
        ("look", {"path": "a b", "n": [1, 2]}, "call_0", None),
        ("look", {"path": "ä"}, "call_1", None),
        ("stop", {}, "call_2", None),
    ]


async def test_fragments_of_calls_may_take_turns(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(
        called(
            fragment("", "a", index=0, id="x"),
            fragment("", "b", index=1, id="y"),
            fragment('{"n"', index=0),
            fragment('{"m"', index=1),
            fragment(":1}", index=0),
            fragment(":2}", index=1),
        )
    )
    assert [(c.name, c.arguments) for c in (await ask()).calls] == [("a", {"n": 1}), ("b", {"m": 2})]


@pytest.mark.parametrize(
    "pieces",
    [
        [fragment("{}", "a", index=0), fragment('{"n":1}', "b", index=1)],
        [fragment("{}", "a"), fragment('{"n":1}', "b")],
        [fragment("{}", "a", id="x"), fragment('{"n"', "b", id="y"), fragment(":1}", id="y")],
        [fragment("{}", "a", index=0, id="x"), fragment('{"n"', "b", index=0, id="y"), fragment(":1}", index=0)],
        [fragment("{}", "a", index=0, id="x"), fragment('{"n":1}', "b", index=1, id="x")],
        [fragment("", "a", index=0, id="x"), fragment('{"n":1}', "b", index=0, id="y")],
        [fragment("{}", "a", index=0), fragment('{"n":1}', "b", index=0)],
        [fragment("{}", "a", index="0", id=""), fragment('{"n":1}', "b", index="1", id=None)],
        [
            fragment("{}", "a", index=0, id="x"),
            fragment('{"n"', "b", index=1, id="r1"),
            fragment(":1}", index=1, id="r2"),
        ],
        [fragment(None, "a", id="x"), fragment({"n": 1}, "b", id="y")],
        [fragment("{}", "a", index=5), fragment('{"n"', "b", index=9), fragment(":1}", "b", index=9)],
    ],
    ids=[
        "no ids",
        "no ids, no index",
        "no index",
        "one index for all",
        "one id for all",
        "one index, nothing in the first",
        "one index, no ids",
        "an index that is text, empty ids",
        "a new id with every fragment",
        "arguments as an object",
        "the name with every fragment",
    ],
)
async def test_calls_are_told_apart_however_they_are_marked(
    endpoint: Endpoint, ask: Asker, pieces: list[dict[str, Any]]
) -> None:
    endpoint.plays(called(*pieces))
    heard = await ask()
    assert [(c.name, c.arguments, c.problem) for c in heard.calls] == [("a", {}, None), ("b", {"n": 1}, None)]
    ids = [c.call_id for c in heard.calls if c.call_id]
    assert len(ids) == len(set(ids))


async def test_several_whole_calls_in_one_chunk_are_several_calls(endpoint: Endpoint, ask: Asker) -> None:
    whole = [fragment('{"n":1}', "a"), fragment('{"n":2}', "a"), fragment("{}", "b")]
    endpoint.plays(streams(chunk({"content": None, "tool_calls": whole}, "stop")))
    assert [(c.name, c.arguments) for c in (await ask()).calls] == [("a", {"n": 1}), ("a", {"n": 2}), ("b", {})]


async def test_the_older_form_of_the_only_call_is_understood(endpoint: Endpoint, ask: Asker) -> None:
    pieces = [{"name": "a", "arguments": ""}, {"arguments": '{"n"'}, {"arguments": ":1}"}]
    endpoint.plays(streams(*(chunk({"function_call": p}) for p in pieces), chunk(finish="function_call")))
    assert [(c.name, c.arguments) for c in (await ask()).calls] == [("a", {"n": 1})]


@pytest.mark.parametrize("written", ["", "  ", "null", None, '""', "{}"])
async def test_no_arguments_are_an_empty_object(endpoint: Endpoint, ask: Asker, written: Any) -> None:
    endpoint.plays(called(fragment(written, "a", index=0)))
    (call,) = (await ask()).calls
    assert (call.arguments, call.problem) == ({}, None)


async def test_arguments_that_were_encoded_twice_are_decoded_twice(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(called(fragment(json.dumps(json.dumps({"n": 1})), "a", index=0)))
    (call,) = (await ask()).calls
    assert (call.arguments, call.problem) == ({"n": 1}, None)


@pytest.mark.parametrize("written", ['{"n": 1', "{'n': 1}", "[1]", "7", '"text"', "{} {}", "[" * 100_000])
async def test_arguments_that_are_no_object_are_a_problem_that_the_model_is_told(
    endpoint: Endpoint, ask: Asker, written: str
) -> None:
    endpoint.plays(called(fragment(written, "a", index=0, id="x"), fragment("{}", "b", index=1, id="y")))
    heard = await ask()
    assert heard.calls[0].problem is not None
    assert "not a JSON object" in heard.calls[0].problem
    assert "call a again" in heard.calls[0].problem
    assert heard.calls[0].arguments == {"unreadable": written[:2_000]}
    assert (heard.calls[1].name, heard.calls[1].problem) == ("b", None)


async def test_a_call_that_was_cut_off_by_the_greatest_length_says_so(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(chunk({"tool_calls": [fragment('{"text": "on and', "a", index=0)]}), chunk(finish="length")))
    heard = await ask()
    assert heard.finish.reason == "length"
    assert "greatest length" in (heard.calls[0].problem or "")


async def test_a_call_without_a_name_is_a_problem(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(called(fragment("{}", "", index=0, id="x")))
    assert (await ask()).calls[0].problem == "the call names no tool"


@pytest.mark.parametrize("call_id", ["x" * 129, "has space", "new\nline", "ünï", 7])
async def test_ids_that_cannot_serve_are_left_out(endpoint: Endpoint, ask: Asker, call_id: Any) -> None:
    endpoint.plays(called(fragment("{}", "a", index=0, id=call_id)))
    assert (await ask()).calls[0].call_id == ""


# -- bytes -----------------------------------------------------------------------------------------------


def by_the_byte(reply: Reply, size: int = 1) -> Reply:
    whole = b"".join(piece for piece in reply.pieces if isinstance(piece, bytes))
    return Reply([whole[n : n + size] for n in range(0, len(whole), size)])


async def test_bytes_may_be_cut_anywhere(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(by_the_byte(text("Grüße, 世界 🌍", reasoning="hm")))
    heard = await ask()
    assert (heard.text, heard.reasoning) == ("Grüße, 世界 🌍", "hm")


async def test_a_line_end_that_is_cut_in_two_is_one_line_end(endpoint: Endpoint, ask: Asker) -> None:
    event = b'data: {"choices": [{"delta":\r\ndata: {"content": "hi"}, "finish_reason": "stop"}]}\r\n\r\n'
    endpoint.plays(by_the_byte(Reply([event])))
    assert (await ask()).text == "hi"


@pytest.mark.parametrize("ending", [b"\r\n", b"\r", b"\n"])
@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_lines_may_end_in_every_way(endpoint: Endpoint, ask: Asker, ending: bytes, size: int) -> None:
    reply = text("one\n", "two")
    endpoint.plays(by_the_byte(Reply([p.replace(b"\n", ending) for p in reply.pieces if isinstance(p, bytes)]), size))
    assert (await ask()).text == "one\ntwo"


async def test_comments_marks_and_other_fields_are_passed_over(endpoint: Endpoint, ask: Asker) -> None:
    noise = b": OPENROUTER PROCESSING\n\nevent: ping\n\nid: 7\nretry: 5\n\ndata:\n\n"
    endpoint.plays(streams(b"\xef\xbb\xbf", noise, HI, noise, STOP))
    assert (await ask()).text == "hi"


async def test_an_event_may_have_its_data_in_several_lines_and_without_a_space(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(streams(b'data:{"choices":[{"delta":\ndata:{"content":"hi"}}]}\n\n', STOP))
    assert (await ask()).text == "hi"


async def test_the_last_event_may_lack_its_blank_line(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(Reply([HI, chunk({"content": "!"}, "stop").rstrip()]))
    assert (await ask()).text == "hi!"


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": None, "tool_calls": None, "reasoning": None}}]},
        {"choices": [{"delta": {"content": 7, "tool_calls": "x", "refusal": False, "reasoning": {"a": 1}}}]},
        {"choices": [{"delta": {"tool_calls": [None, 7, {}, {"function": None}]}, "finish_reason": 0}]},
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
    ],
)
async def test_a_chunk_that_says_nothing_is_passed_over(endpoint: Endpoint, ask: Asker, odd: Any) -> None:
    endpoint.plays(streams(data(odd), HI, data(odd), STOP, data(odd)))
    heard = await ask()
    assert (heard.text, heard.calls) == ("hi", [])


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/plain"])
async def test_an_answer_that_is_not_streamed_is_an_answer(endpoint: Endpoint, ask: Asker, content_type: str) -> None:
    message = {
        "role": "assistant",
        "content": "hi",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "x", "type": "function", "function": {"name": "a", "arguments": '{"n":1}'}}],
    }
    endpoint.plays(sends({"choices": [{"message": message, "finish_reason": "length"}], "usage": USAGE}, content_type))
    heard = await ask()
    assert (heard.text, heard.reasoning, heard.finish.reason) == ("hi", "hm", "length")
    assert [(c.name, c.arguments) for c in heard.calls] == [("a", {"n": 1})]
    assert heard.finish.usage == Usage(input_tokens=11, output_tokens=4, total_tokens=15)


async def test_a_stream_with_another_content_type_is_a_stream(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(Reply(text("hi").pieces, headers={"Content-Type": "application/octet-stream"}))
    assert (await ask()).text == "hi"
