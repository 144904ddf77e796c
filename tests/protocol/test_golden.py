"""Golden frames: what they say is what the types read, write and publish as their schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator

from hermes_ws.protocol import schema
from hermes_ws.protocol.codec import decode_event, encode
from hermes_ws.protocol.commands import COMMAND_TYPES, Command
from hermes_ws.protocol.control import CONTROL_TYPES, Control
from hermes_ws.protocol.events import EVENT_TYPES, Event
from hermes_ws.protocol.resources import EventPage
from hermes_ws.protocol.schema.model import definitions

from .golden_files import FRAME_FILES, decode, frame_type

PUBLISHED: dict[str, Any] = json.loads(schema.documents()[schema.JSON_SCHEMA])
golden = pytest.mark.parametrize("path", FRAME_FILES, ids=lambda path: path.stem)


def validator(definition: str) -> Draft202012Validator:
    return Draft202012Validator({**PUBLISHED, "anyOf": [{"$ref": f"#/$defs/{definition}"}]})


@golden
def test_a_golden_frame_is_read_and_written_without_a_changed_byte(path: Path) -> None:
    assert msgspec.json.format(encode(decode(path)), indent=2) + b"\n" == path.read_bytes()


@golden
def test_a_golden_frame_is_what_its_file_name_says(path: Path) -> None:
    assert json.loads(path.read_bytes())["type"] == frame_type(path)


@golden
def test_a_golden_frame_is_valid_by_the_published_schema(path: Path) -> None:
    side = "Command" if frame_type(path) in COMMAND_TYPES else "ServerFrame"
    frame = json.loads(path.read_bytes())
    validator(side).validate(frame)
    Draft202012Validator(PUBLISHED).validate(frame)
    validator(type(decode(path)).__name__).validate(frame)


@golden
def test_a_golden_event_is_read_from_the_log_too(path: Path) -> None:
    if frame_type(path) in EVENT_TYPES:
        assert decode_event(path.read_bytes()) == decode(path)


def test_every_frame_type_has_a_golden_file_and_no_file_is_left_over() -> None:
    assert {frame_type(path) for path in FRAME_FILES} == {*EVENT_TYPES, *CONTROL_TYPES, *COMMAND_TYPES}
    assert {f"{kind}.json" for kind in (*EVENT_TYPES, *CONTROL_TYPES, *COMMAND_TYPES)} <= {p.name for p in FRAME_FILES}


def test_every_field_is_shown_by_some_golden_file() -> None:
    shown = {part for path in FRAME_FILES for part in fields_shown(decode(path))}
    known = {(d.name, field.name) for d in definitions() for field in d.fields if d.kind != "resource"}
    inherited = {part for part in known if part[1] in ("id", "agent")}
    assert known - shown - inherited == set()
    assert {name for _, name in shown} == {name for _, name in known}


def fields_shown(value: object) -> Iterator[tuple[str, str]]:
    """Type and wire name of every field that is set in ``value`` and in what it holds."""
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        given = [(wire, getattr(value, name)) for name, wire in names if getattr(value, name) is not None]
        yield from ((type(value).__name__, wire) for wire, _ in given)
        yield from (part for _, held in given for part in fields_shown(held))
    elif isinstance(value, list | tuple):
        yield from (part for held in value for part in fields_shown(held))
    elif isinstance(value, dict):
        yield from (part for held in value.values() for part in fields_shown(held))


@pytest.mark.parametrize("cls", get_args(Event), ids=lambda cls: str(cls.__struct_config__.tag))
def test_an_event_begins_with_its_seq_and_time_then_its_run(cls: type[msgspec.Struct]) -> None:
    names = cls.__struct_fields__
    assert names[:2] == ("seq", "ts")
    assert ("run_id" in names) == (names[2:4] == ("run_id", "agent"))


@golden
def test_type_is_the_first_field_of_every_frame(path: Path) -> None:
    assert encode(decode(path)).startswith(b'{"type":"%b"' % frame_type(path).encode())


def test_no_type_names_two_frames() -> None:
    tags = [cls.__struct_config__.tag for union in (Event, Control, Command) for cls in get_args(union)]
    assert len(set(tags)) == len(tags)


def test_a_frame_of_another_type_or_with_a_wrong_field_is_not_valid() -> None:
    frames = validator("ServerFrame")
    assert not frames.is_valid({"type": "live"})
    assert not frames.is_valid({"type": "live", "at": "19"})
    assert not frames.is_valid({"type": "ping"})
    assert not frames.is_valid({"type": "ok", "id": None, "at": 1, "run_id": None})


def test_null_in_an_optional_field_of_a_command_equals_absence() -> None:
    start = {"type": "run.start", "input": "hi", "when_busy": None, "tools": {"allow": None}}
    assert validator("Command").is_valid(start)
    assert not validator("Command").is_valid({"type": "run.start", "input": None})


def test_a_page_of_the_log_is_valid_by_the_published_schema_and_holds_frames() -> None:
    frames = [path.read_bytes() for path in FRAME_FILES if frame_type(path) in (*EVENT_TYPES, "skipped")]
    page = EventPage(
        epoch="ep_01k3v0", head=33, floor=1, events=[msgspec.Raw(frame) for frame in frames], next=33, at_head=True
    )
    encoded = json.loads(msgspec.json.encode(page))
    validator("EventPage").validate(encoded)
    assert not validator("EventPage").is_valid({**encoded, "events": [{"type": "ping"}]})
