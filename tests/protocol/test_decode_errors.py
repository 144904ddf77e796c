"""Frames that cannot be read: the code, the place, and what would have been right, at a length that is bounded."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_ws.errors import FrameError
from hermes_ws.protocol.codec import decode_command, decode_frame, encode, invalid_value
from hermes_ws.protocol.commands import COMMAND_TYPES, Command, CommandBase, RunStart
from hermes_ws.protocol.control import Error
from hermes_ws.protocol.events import UnknownEvent
from hermes_ws.protocol.values import Config

from .golden_files import FRAME_FILES, frame_type

LONGEST = 1000
"""No message needs more characters, whatever a client sends."""

COMMANDS = [path.read_bytes() for path in FRAME_FILES if frame_type(path) in COMMAND_TYPES]


class Case(NamedTuple):
    frame: str | bytes
    code: str
    path: str
    says: tuple[str, ...]


CASES = {
    "empty": Case("", "invalid_json", "$", ("not JSON",)),
    "cut off": Case('{"type":"run.start","inp', "invalid_json", "$", ("not JSON", "truncated")),
    "plain text": Case("hello", "invalid_json", "$", ("not JSON", "byte 0")),
    "two values": Case("{}{}", "invalid_json", "$", ("not JSON",)),
    "not UTF-8": Case(b'{"type":"ping","id":"\xff"}', "invalid_json", "$", ("UTF-8",)),
    "lone surrogate": Case('{"type":"ping","id":"\ud800"}', "invalid_json", "$", ("UTF-8",)),
    "lone surrogate, escaped": Case(r'{"type":"ping","id":"\ud800"}', "invalid_json", "$", ("not JSON",)),
    "too deep": Case("[" * 100_000, "invalid_json", "$", ("nested too deeply",)),
    "too deep inside": Case(
        '{"type":"run.start","input":"x","metadata":{"a":' + "[" * 5000 + "]" * 5000 + "}}",
        "invalid_json",
        "$",
        ("nested too deeply",),
    ),
    "number too large": Case(
        '{"type":"run.start","input":"x","deadline_ms":%s}' % ("9" * 5000), "invalid_json", "$", ("out of range",)
    ),
    "array": Case("[1]", "invalid_frame", "$", ("JSON object", '{"type":"help"}', "an array")),
    "null": Case("null", "invalid_frame", "$", ("JSON object", "null")),
    "string": Case('"run.start"', "invalid_frame", "$", ("JSON object", "a string")),
    "number": Case("3.5", "invalid_frame", "$", ("a number",)),
    "boolean": Case("true", "invalid_frame", "$", ("a boolean",)),
    "no type": Case("{}", "invalid_frame", "$.type", ("no `type`", "run.start", "help")),
    "type null": Case('{"type":null}', "invalid_frame", "$.type", ("no `type`",)),
    "type a number": Case('{"type":7}', "invalid_frame", "$.type", ("`type` is a string", "a number")),
    "misspelt": Case('{"type":"run.strat"}', "unknown_type", "$.type", ("'run.strat'", "did you mean 'run.start'?")),
    "old spelling": Case('{"type":"run_start"}', "unknown_type", "$.type", ("did you mean 'run.start'?",)),
    "half a name": Case('{"type":"run"}', "unknown_type", "$.type", ("did you mean 'run.start'?",)),
    "last word only": Case('{"type":"xyz.reply"}', "unknown_type", "$.type", ("did you mean 'interaction.reply'?",)),
    "nothing like it": Case('{"type":"zzz"}', "unknown_type", "$.type", ("known types: run.start,", "help")),
    "an event": Case('{"type":"live","at":1}', "unknown_type", "$.type", ("'live'",)),
    "input missing": Case('{"type":"run.start"}', "invalid_frame", "$", ("run.start:", "`input`")),
    "input a number": Case('{"type":"run.start","input":1}', "invalid_frame", "$.input", ("`str | array`", "`int`")),
    "part unknown": Case(
        '{"type":"run.start","input":[{"type":"audio"}]}',
        "invalid_frame",
        "$.input[0].type",
        ("'audio'", "expected one of text, image"),
    ),
    "choice unknown": Case(
        '{"type":"run.start","input":"x","when_busy":"later"}',
        "invalid_frame",
        "$.when_busy",
        ("'later'", "expected one of interrupt, queue, reject, steer"),
    ),
    "choice in a list": Case(
        '{"type":"client.update","client_id":"c","interactions":["form","x"]}',
        "invalid_frame",
        "$.interactions[1]",
        ("expected one of approval, clarify, client_tool, form",),
    ),
    "field unknown": Case(
        '{"type":"run.start","input":"x","tools":{"alow":[]}}',
        "invalid_frame",
        "$.tools",
        ("`alow`", "known fields: allow, deny"),
    ),
    "deep in a list": Case(
        '{"type":"run.start","input":"x","tools":{"allow":["a",2]}}', "invalid_frame", "$.tools.allow[1]", ("`str`",)
    ),
    "too small": Case('{"type":"run.start","input":"x","deadline_ms":0}', "invalid_frame", "$.deadline_ms", (">= 1",)),
    "id too long": Case('{"type":"ping","id":"%s"}' % ("x" * 129), "invalid_frame", "$.id", ("length <= 128",)),
    "id empty": Case('{"type":"ping","id":""}', "invalid_frame", "$.id", ("length >= 1",)),
    "bad address": Case(
        '{"type":"conversation.fork","conversation_id":"../etc"}', "invalid_frame", "$.conversation_id", ("A-Za-z0-9",)
    ),
    "patch a list": Case(
        '{"type":"conversation.configure","config":[]}', "invalid_frame", "$.config", ("`object`", "`array`")
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_malformed_frame_is_refused_with_its_place_and_what_would_be_right(case: Case) -> None:
    error = refusal(case.frame)
    assert (error.code, error.path) == (case.code, case.path)
    assert [part for part in case.says if part not in error.message] == []


def test_the_command_id_is_told_when_it_can_be_read() -> None:
    assert refusal('{"type":"run.strat","id":"7"}').command_id == "7"
    assert refusal('{"type":"run.start","id":"7"}').command_id == "7"
    assert refusal('{"type":"run.strat","id":7}').command_id is None
    assert refusal('{"type":"run.strat","id":"%s"}' % ("x" * 129)).command_id is None
    assert refusal('{"type":"run.strat","id":""}').command_id is None


def test_the_nearest_type_is_in_the_details() -> None:
    assert refusal('{"type":"run.strat"}').details == {"nearest": "run.start"}
    assert refusal('{"type":"zzz"}').details is None


def test_a_message_about_a_value_lists_what_the_type_allows_there() -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert({"mcp_servers": {"github": {"transport": "stdio"}}}, Config)
    assert invalid_value(refused.value, Config) == (
        "Invalid enum value 'stdio'; expected one of http, sse",
        "$.mcp_servers[...].transport",
    )
    assert invalid_value(refused.value) == ("Invalid enum value 'stdio'", "$.mcp_servers[...].transport")


BIG = "x" * 1_000_000


@pytest.mark.parametrize(
    "frame",
    [
        {"type": BIG},
        {"type": "run.start", "input": "x", "when_busy": BIG},
        {"type": "run.start", "input": [{"type": BIG}]},
        {"type": "run.start", "input": "x", "tools": {BIG: 1}},
        {"type": "run.start", "input": "x", "tools": {f"{BIG}` - at `$.{BIG}": 1}},
        {"type": "ping", "id": BIG},
        {"type": "\U0001f600" * 100_000},
    ],
)
def test_a_megabyte_is_not_echoed(frame: dict[str, Any]) -> None:
    assert_bounded(refusal(json.dumps(frame)))


def test_an_unknown_frame_from_a_server_is_not_echoed_whole() -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        decode_frame(json.dumps({"type": BIG}))
    assert len(str(refused.value)) < LONGEST


@pytest.mark.parametrize("frame", [b"[]", b"3", b'{"type":"x_thing"}', b'{"seq":1}', b'{"type":"live"}'])
def test_a_client_refuses_what_is_no_frame(frame: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_frame(frame)


def test_an_event_of_an_unknown_type_keeps_its_seq() -> None:
    frame = decode_frame('{"type":"x_thing","seq":7,"ts":9,"a":1}')
    assert frame == UnknownEvent(type="x_thing", seq=7, ts=9, fields={"a": 1})


@given(st.binary(max_size=400))
def test_random_bytes_are_a_command_or_a_frame_error(data: bytes) -> None:
    assert_command_or_frame_error(data)


@given(st.text(st.characters(), max_size=400))
def test_random_text_is_a_command_or_a_frame_error(data: str) -> None:
    assert_command_or_frame_error(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_random_json_is_a_command_or_a_frame_error(value: Any) -> None:
    assert_command_or_frame_error(json.dumps(value))


FIELDS = sorted({name for cls in get_args(Command) for name in cls.__struct_encode_fields__})


@given(st.sampled_from(COMMAND_TYPES), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
def test_a_command_with_random_fields_is_a_command_or_a_frame_error(kind: str, fields: dict[str, Any]) -> None:
    assert_command_or_frame_error(json.dumps({"type": kind, **fields}))


@given(st.sampled_from(COMMANDS), st.randoms(use_true_random=False), st.integers(1, 8))
def test_a_damaged_command_is_a_command_or_a_frame_error(golden: bytes, chance: random.Random, damage: int) -> None:
    data = bytearray(golden)
    for _ in range(damage):
        data[chance.randrange(len(data))] = chance.choice(b'{}[]":,0truefalsn\\\x00\xff\xc3 ')
    assert_command_or_frame_error(bytes(data))


@given(st.sampled_from(COMMANDS), st.integers(0, 2000))
def test_a_cut_command_is_a_command_or_a_frame_error(golden: bytes, length: int) -> None:
    assert_command_or_frame_error(golden[:length])


def refusal(frame: str | bytes) -> FrameError:
    with pytest.raises(FrameError) as refused:
        decode_command(frame)
    return refused.value


def assert_command_or_frame_error(data: str | bytes) -> None:
    """Anything but a command or a :class:`FrameError` raises, and so fails the test."""
    try:
        command = decode_command(data)
    except FrameError as error:
        assert_bounded(error)
    else:
        assert isinstance(command, CommandBase)


def assert_bounded(error: FrameError) -> None:
    """Short enough, and fit to be sent."""
    assert len(error.message) < LONGEST
    assert error.path is not None
    assert len(error.path) < LONGEST
    frame = Error(id=error.command_id, code=error.code, message=error.message, retryable=False, path=error.path)
    assert decode_frame(encode(frame)) == frame


def test_a_whole_command_is_read() -> None:
    assert decode_command('{"type":"run.start","input":"hi"}') == RunStart(input="hi")


@pytest.mark.parametrize("depth", [64, 65, 400])
def test_nesting_is_bounded_well_below_what_python_can_take(depth: int) -> None:
    inner = depth - 2  # the frame itself, and `metadata`
    frame = '{"type":"run.start","id":"c1","input":"[[[{{{","metadata":{"a":%s}}' % ("[" * inner + "]" * inner)
    if depth <= 64:
        decode_command(frame)
        return
    with pytest.raises(FrameError, match="nested more than 64 deep") as refused:
        decode_command(frame)
    assert refused.value.command_id == "c1"


def test_brackets_in_strings_are_no_nesting() -> None:
    decode_command('{"type":"run.start","input":"%s"}' % ('[{\\"' * 500))
