"""What is generated from the types: complete, agreeing with the closed lists, and the same as what is kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator

from hermes_ws.compat import openapi_document
from hermes_ws.errors import COMMAND_CODES, RUN_CODES
from hermes_ws.protocol import control, events, schema, values
from hermes_ws.protocol.close import CloseCode, may_retry
from hermes_ws.protocol.commands import COMMAND_TYPES, INBOX, command_type
from hermes_ws.protocol.control import CONTROL_TYPES
from hermes_ws.protocol.events import EVENT_TYPES
from hermes_ws.protocol.schema import docstrings
from hermes_ws.protocol.schema.codes import COMMAND_CODE_MEANINGS, RUN_CODE_MEANINGS
from hermes_ws.protocol.schema.model import Definition, definitions, describe, named

KEPT = Path(__file__).parents[2] / "schemas"
TYPES = (*EVENT_TYPES, *CONTROL_TYPES, *COMMAND_TYPES)
REFERENCE = schema.documents()["reference.md"].decode()


def published(name: str) -> Any:
    return json.loads(schema.documents()[name])


def test_the_kept_files_are_what_the_types_say() -> None:
    difference = schema.check(KEPT)
    assert not difference, f"schemas/ is out of date; mend it with `hermes-ws schema --write`:\n{difference}"


def test_no_kept_file_is_left_over() -> None:
    assert {path.name for path in KEPT.iterdir()} == {*schema.documents(), openapi_document.FILE}


def test_a_changed_or_missing_file_is_shown_as_a_diff(tmp_path: Path) -> None:
    schema.write(tmp_path / "made")
    assert schema.check(tmp_path / "made") == ""
    declarations = tmp_path / "made" / "frames.d.ts"
    declarations.write_text(declarations.read_text().replace("  seq: number;", "  seq: string;", 1))
    (tmp_path / "made" / "reference.md").unlink()
    difference = schema.check(tmp_path / "made")
    assert "-  seq: string;\n+  seq: number;\n" in difference
    assert "+# Reference of hermes.v1\n" in difference


def test_the_hash_is_of_the_json_schema_s_bytes() -> None:
    assert schema.sha256() == hashlib.sha256((KEPT / schema.JSON_SCHEMA).read_bytes()).hexdigest()


def test_changing_what_documents_returns_changes_nothing() -> None:
    schema.documents().clear()
    assert schema.check(KEPT) == ""


def test_the_json_schema_is_one() -> None:
    document = published(schema.JSON_SCHEMA)
    Draft202012Validator.check_schema(document)
    assert {"ServerFrame", "Event", "Control", "Command", "Role", "ConversationSummary"} <= document["$defs"].keys()


@pytest.mark.parametrize("name", [schema.JSON_SCHEMA, "asyncapi.json"])
def test_every_reference_leads_somewhere_and_none_is_left_over(name: str) -> None:
    document = published(name)
    targets = {reference for reference in references(document) if reference.startswith(("#/$defs/", "#/components/"))}
    for target in targets:
        at = document
        for step in target.removeprefix("#/").split("/"):
            at = at[step]


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for part in value for found in references(part)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [found for part in value.values() for found in references(part)]


def test_nothing_stands_beside_a_reference_in_asyncapi() -> None:
    assert [
        part for part in objects(published("asyncapi.json")["components"]) if "$ref" in part and len(part) > 1
    ] == []


def objects(value: Any) -> list[dict[str, Any]]:
    parts = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    own = [value] if isinstance(value, dict) else []
    return own + [found for part in parts for found in objects(part)]


def test_asyncapi_has_every_message_in_its_direction() -> None:
    document = published("asyncapi.json")
    by_name = {name: message["name"] for name, message in document["components"]["messages"].items()}

    def sent(operation: str) -> set[str]:
        messages = document["operations"][operation]["messages"]
        return {by_name[reference["$ref"].rpartition("/")[2]] for reference in messages}

    inbox = {"inbox.page", "inbox.changed", "inbox.removed"}
    assert sent("sendFrame") == {*EVENT_TYPES, *CONTROL_TYPES} - inbox
    assert sent("receiveCommand") == {*COMMAND_TYPES} - {"inbox.more"}
    assert sent("sendInboxFrame") == {*inbox, "hello", "ok", "error", "heartbeat", "goaway"}
    assert sent("receiveInboxCommand") == {command_type(command) for command in INBOX}
    query = document["channels"]["conversation"]["bindings"]["ws"]["query"]["properties"]
    assert set(query) == {"after", "epoch", "from", "exclude", "plain", "ticket"}


@pytest.mark.parametrize("kind", TYPES)
def test_every_frame_is_in_the_reference_and_in_the_declarations(kind: str) -> None:
    assert f"### `{kind}`\n" in REFERENCE
    assert f'  type: "{kind}";\n' in schema.documents()["frames.d.ts"].decode()


CODES = [*COMMAND_CODES, *RUN_CODES, *(str(code.value) for code in CloseCode)]


@pytest.mark.parametrize("code", sorted(set(CODES)))
def test_every_code_has_a_line_in_each_of_its_tables_in_the_reference(code: str) -> None:
    lines = [line for line in REFERENCE.splitlines() if line.startswith((f"| `{code}` | ", f"| {code} | "))]
    assert len(lines) == CODES.count(code)


def test_the_meanings_are_those_of_the_closed_lists_in_their_order() -> None:
    assert tuple(COMMAND_CODE_MEANINGS) == COMMAND_CODES
    assert tuple(RUN_CODE_MEANINGS) == RUN_CODES


def test_the_reference_says_which_close_codes_to_come_back_from() -> None:
    for code in CloseCode:
        assert f"| {code.value} | `{code.name.lower()}` | {'yes' if may_retry(code) else 'no'} | " in REFERENCE


@pytest.mark.parametrize("definition", definitions(), ids=lambda definition: definition.name)
def test_every_type_and_field_is_described(definition: Definition) -> None:
    assert definition.doc
    assert [field.name for field in definition.fields if not field.doc] == []


def test_every_named_type_and_close_code_is_described() -> None:
    assert [alias.name for alias in named() if not alias.doc] == []
    assert [code for code in CloseCode if not docstrings.of_field(CloseCode, code.name)] == []


def test_a_field_that_must_be_there_but_may_be_null_says_what_null_means() -> None:
    required = [f for d in definitions() for f in d.fields if f.nullable and f.required]
    assert {field.name for field in required} == {"epoch", "run", "id", "title", "next", "before", "conversation_id"}
    assert [field.name for field in required if not ("Null:" in field.doc and "Never absent." in field.doc)] == []


def test_no_two_named_types_are_the_same_type() -> None:
    """A type is recognised by what it is, so two names for one would both be written as the first."""
    assert [(a.name, b.name) for a in named() for b in named() if a.name < b.name and a.type == b.type] == []


def test_without_source_the_documents_are_the_same_but_undescribed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_source(_: object) -> str:
        raise OSError("could not get source code")

    docstrings.read.cache_clear()
    with monkeypatch.context() as without:
        without.setattr("inspect.getsource", no_source)
        described = docstrings.of_class(events.RunStarted), docstrings.of_field(values.By, "principal")
    docstrings.read.cache_clear()
    assert described == ("", "")
    assert docstrings.of_field(control.Live, "at") == "As `hello.head`."


class Defaulted(msgspec.Struct, omit_defaults=True):
    mode: Literal["a", "b"] = "a"


def test_a_default_that_would_be_left_off_the_wire_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Defaulted\.mode: the default is left off the wire"):
        describe(Defaulted, "value")


def test_tags_are_constants() -> None:
    defs = published(schema.JSON_SCHEMA)["$defs"]
    for cls in get_args(events.Event):
        assert defs[cls.__name__]["properties"]["type"] == {"const": cls.__struct_config__.tag}
