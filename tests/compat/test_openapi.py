"""The OpenAPI document: every route is in it and nothing else, it is valid, and it says what the types say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec import UNSET, UnsetType
from openapi_spec_validator import validate

from hermes_ws.compat.openapi import Answer, Body, Operation, Parameter, ServerSentEvents, openapi
from hermes_ws.compat.openapi_document import FILE, OPERATIONS, document
from hermes_ws.settings import ServerSettings, Settings
from hermes_ws.transports.server import open_app

Json = dict[str, Any]

KEPT = Path(__file__).parents[2] / "schemas" / FILE
DOCUMENT: Json = json.loads(document())
METHODS = {"get", "post", "patch", "delete"}
EVERY = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


# -- what it is about --------------------------------------------------------------------------------------


def test_the_kept_file_is_what_the_types_say() -> None:
    assert KEPT.read_bytes() == document(), "schemas/openapi.json is out of date; run: hermes-ws schema --write"


async def test_every_route_of_the_server_is_in_it_and_nothing_else(tmp_path: Path) -> None:
    async with open_app(Settings(server=ServerSettings(data=str(tmp_path)))) as (app, _, _):
        served = {
            (route.path.replace(":path}", "}"), method)
            for route in app._routes
            for method in (route.methods or set()) - {"HEAD"}
        }
    written = {(operation.path, operation.method) for operation in OPERATIONS}
    assert written - served == set(), "these are in the document only"
    assert served - written == set(), "these are not in the document"


def test_every_operation_has_a_name_of_its_own_and_says_what_it_is() -> None:
    names = [operation.id for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    for operation in OPERATIONS:
        assert operation.summary, operation.id
        assert not operation.summary.endswith("."), operation.id
        assert operation.tag in {tag["name"] for tag in DOCUMENT["tags"]}, operation.id


@pytest.mark.parametrize(("path", "method"), EVERY)
def test_every_parameter_of_a_path_is_described(path: str, method: str) -> None:
    inside = {part.strip("{}") for part in path.split("/") if part.startswith("{")}
    parameters = DOCUMENT["paths"][path][method].get("parameters", [])
    assert {one["name"] for one in parameters if one["in"] == "path"} == inside
    assert all(one["description"] for one in parameters)


@pytest.mark.parametrize(("path", "method"), EVERY)
def test_every_operation_says_how_it_ends_and_what_a_refusal_looks_like(path: str, method: str) -> None:
    assert method in METHODS
    operation = DOCUMENT["paths"][path][method]
    statuses = operation["responses"]
    assert any(status.startswith("2") for status in statuses) or operation["summary"].startswith("Refused: ")
    assert {"403", "421", "503"} <= set(statuses)
    assert ("401" in statuses) == bool(operation["security"])
    if "requestBody" in operation:
        assert {"400", "408", "413", "415"} <= set(statuses)
    for status, answer in statuses.items():
        assert answer["description"]
        assert "X-Request-Id" in answer["headers"]
        assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))
        if status >= "4":
            assert list(answer["content"]) == ["application/json"]


# -- whether it is valid -----------------------------------------------------------------------------------


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for one in value for found in _references(one)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    own += list(value.get("discriminator", {}).get("mapping", {}).values()) if "anyOf" in value else []
    return own + [found for inner in value.values() for found in _references(inner)]


def test_every_reference_leads_somewhere() -> None:
    for reference in _references(DOCUMENT):
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            assert part in place, reference
            place = place[part]


def test_every_schema_is_one_and_every_component_is_used() -> None:
    used = {reference.rpartition("/")[2] for reference in _references(DOCUMENT)}
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert name in used, name
        assert schema["description"], name


def test_every_example_fits_its_schema() -> None:
    for operation in OPERATIONS:
        if operation.body is not None and operation.body.example is not None:
            for type_ in operation.body.types.values():
                msgspec.convert(operation.body.example, type_)


def test_the_document_is_openapi_3_1_by_its_own_schema() -> None:
    validate(DOCUMENT)


# -- how it is made ----------------------------------------------------------------------------------------


class Asked(msgspec.Struct, kw_only=True):
    """What is asked."""

    text: str
    """The words."""
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many."""


class Given(msgspec.Struct, kw_only=True, tag_field="type", tag="given"):
    """What is given."""

    title: str
    """A field that is called like a keyword."""
    reason: str | None = None
    """Always there, and may be null."""
    more: list[str] = []
    """Always there."""
    rarely: str | UnsetType = UNSET
    """Sometimes there."""


class Refusal(msgspec.Struct, omit_defaults=True):
    """Why not."""

    message: str
    """Words."""
    path: str | None = None
    """Only where there is one."""


def _made(**changes: Any) -> Json:
    fields: Json = {
        "method": "POST",
        "path": "/things/{id}",
        "id": "doThing",
        "tag": "things",
        "summary": "Do it",
        "body": Body.json(Asked, example={"text": "hi"}),
        "parameters": (Parameter(name="id", where="path", type=str, about="Which."),),
        "answers": {200: Answer.json(Given, "Done.")},
        "error": Refusal,
    }
    return openapi([Operation(**(fields | changes))], version="1", tags={"things": "Things."})


def test_what_the_server_always_sends_is_required_and_what_a_client_may_leave_out_is_not() -> None:
    schemas = _made()["components"]["schemas"]
    assert schemas["Asked"]["required"] == ["text"]
    assert schemas["Given"]["required"] == ["type", "title", "reason", "more"]
    assert schemas["Refusal"]["required"] == ["message"]


def test_a_type_that_clients_send_too_is_as_lenient_as_for_them() -> None:
    schemas = _made(answers={200: Answer.json(Asked, "The same.")})["components"]["schemas"]
    assert schemas["Asked"]["required"] == ["text"]


def test_fields_are_described_by_what_follows_them_in_the_source() -> None:
    properties = _made(error=msgspec.defstruct("E", []))["components"]["schemas"]
    assert properties["Asked"]["properties"]["text"] == {"type": "string"}  # no module of ours: nothing to read
    described = DOCUMENT["components"]["schemas"]["RunStart"]["properties"]["agent"]
    assert described["description"] == "Who answers, for this run only."


def test_a_field_that_is_called_title_stays() -> None:
    given = _made()["components"]["schemas"]["Given"]
    assert "title" in given["properties"]
    assert "title" not in given


def test_an_operation_that_needs_no_key_says_so() -> None:
    operation = _made(key=False)["paths"]["/things/{id}"]["post"]
    assert operation["security"] == []
    assert "401" not in operation["responses"]


def test_a_ticket_is_offered_where_it_is_taken() -> None:
    assert _made(ticket=True)["paths"]["/things/{id}"]["post"]["security"] == [{"key": []}, {"ticket": []}]


def test_a_stream_says_what_its_lines_are() -> None:
    answers = {200: Answer(about="As it comes.", types={"text/event-stream": ServerSentEvents(data=Given)})}
    made = _made(answers=answers)
    stream = made["paths"]["/things/{id}"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    event = stream["schema"]["properties"]
    assert event["data"]["contentSchema"] == {"$ref": "#/components/schemas/Given"}
    assert "Given" in made["components"]["schemas"]


def test_what_an_answer_names_leads_to_the_operations_that_ask_for_it() -> None:
    answered = DOCUMENT["paths"]["/v1/responses"]["post"]["responses"]["200"]
    assert set(answered["links"]) == {"getResponse", "deleteResponse", "cancelResponse", "listInputItems"}
    assert answered["links"]["getResponse"]["parameters"] == {"response_id": "$response.body#/id"}
