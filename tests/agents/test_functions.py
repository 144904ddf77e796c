"""The demo model and what comes with a run over the OpenAI-compatible routes: functions, a choice, parameters."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import anyio
import jsonschema
import pytest

from hermes_ws.agents.llm.clues import mentioned
from hermes_ws.agents.llm.demo import DemoModel
from hermes_ws.agents.llm.model import ModelRequest
from hermes_ws.history import AssistantTurn, CallMade, HistoryEntry, ToolAnswer
from hermes_ws.protocol.values import ToolDescription, ToolStatus
from tests.agents.conftest import Heard, request_for, tool, user

Json = dict[str, Any]

CITY: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = tool("get_weather", "client", CITY)
TIME = tool("local_time", "client", CITY)
CLOSED = tool("open_door", "client", {"type": "object", "properties": {"a": False}, "required": ["a"]})


History = list[HistoryEntry]


def step(*calls: str, said: str = "", source: str = "client") -> AssistantTurn:
    return AssistantTurn("r", said, "", [CallMade(f"call_{name}", name, source, {}) for name in calls])


def answer(name: str, output: str, status: ToolStatus = "ok") -> ToolAnswer:
    return ToolAnswer(f"call_{name}", name, status, output, None)


async def hear(request: ModelRequest) -> Heard:
    heard = Heard()
    with anyio.fail_after(10):
        async with aclosing(DemoModel().stream(request)) as parts:
            async for part in parts:
                heard.parts.append(part)
    assert heard.finish.usage is not None
    return heard


async def asked(*history: HistoryEntry | str, tools: list[ToolDescription] | None = None, **more: Any) -> Heard:
    entries = [user(entry) if isinstance(entry, str) else entry for entry in history]
    return await hear(request_for(entries, [WEATHER, TIME] if tools is None else tools, **more))


def made(heard: Heard) -> list[tuple[str, Json]]:
    return [(call.name, call.arguments) for call in heard.calls]


# -- which functions are called --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "name", "expected"),
    [
        ("What is the weather?", "get_weather", True),
        ("WEATHER!", "getWeather", True),
        ("call get_weather", "get-weather.v2", True),
        ("getWeather please", "weather", True),
        ("weathering the storm", "get_weather", False),
        ("hello", "get_weather", False),
        ("what is this to the man", "what_is_the_x", False),
        ("is it a go?", "go_to", False),
        ("please ls here", "ls", True),
        ("", "get_weather", False),
    ],
)
def test_a_message_mentions_a_tool_by_a_word_of_its_name(message: str, name: str, *, expected: bool) -> None:
    assert mentioned(message, [name]) == ({name} if expected else set())


async def test_a_function_that_the_message_mentions_is_called_with_arguments_of_its_schema() -> None:
    heard = await asked("What is the weather in Paris?")
    assert made(heard) == [("client:get_weather", {"city": "Paris"})]
    assert heard.text == ""


async def test_all_that_are_mentioned_are_called_side_by_side() -> None:
    heard = await asked("Weather and time in Paris")
    assert [name for name, _ in made(heard)] == ["client:get_weather", "client:local_time"]
    heard = await asked("Weather and time in Paris", parameters={"parallel_tool_calls": False})
    assert [name for name, _ in made(heard)] == ["client:get_weather"]
    rest: History = [step("get_weather"), answer("get_weather", "sunny")]
    heard = await asked("Weather and time in Paris", *rest, parameters={"parallel_tool_calls": False})
    assert [name for name, _ in made(heard)] == ["client:local_time"]


async def test_nothing_is_called_that_is_not_a_clients() -> None:
    heard = await asked("terminal weather", tools=[tool("terminal"), tool("get_weather", "mcp:meteo")])
    assert made(heard) == []
    assert "terminal weather" in heard.text


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", []),
        ("required", ["client:get_weather"]),
        ("local_time", ["client:local_time"]),
        ("not_there", []),
        (None, []),
    ],
)
async def test_the_choice_decides_whatever_the_message_says(choice: str | None, expected: list[str]) -> None:
    assert [name for name, _ in made(await asked("hello", tool_choice=choice))] == expected


async def test_with_the_choice_none_a_message_may_mention_what_it_likes() -> None:
    assert made(await asked("weather", tool_choice="none")) == []


async def test_a_required_call_is_one_that_was_mentioned_if_any_was() -> None:
    assert [name for name, _ in made(await asked("what time?", tool_choice="required"))] == ["client:local_time"]


async def test_a_function_whose_schema_nothing_satisfies_is_not_called_and_it_is_said_why() -> None:
    heard = await asked("open the door", tools=[CLOSED])
    assert made(heard) == []
    assert "I cannot call open_door: its schema allows no value in one place." in heard.text
    heard = await asked("open the door, weather", tools=[CLOSED, WEATHER])
    assert [name for name, _ in made(heard)] == ["client:get_weather"]


# -- what is said afterwards -----------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [None, "required", "get_weather", "none"])
async def test_what_the_calls_came_to_is_quoted_and_nothing_is_called_twice(choice: str | None) -> None:
    heard = await asked(
        "weather and time",
        step("get_weather", "local_time"),
        answer("get_weather", "sunny"),
        answer("local_time", "no such place", "error"),
        tool_choice=choice,
    )
    assert made(heard) == []
    assert heard.text == (
        "This is the demo model. get_weather answered: “sunny”; "
        "local_time did not succeed (error): “no such place”."
    )  # fmt: skip
    assert len(heard.parts) > 4


async def test_a_long_output_is_quoted_in_part() -> None:
    heard = await asked("weather", step("get_weather"), answer("get_weather", "x" * 5_000))
    assert len(heard.text) < 1_200


async def test_the_next_message_calls_anew() -> None:
    before: History = [
        user("weather in Paris"),
        step("get_weather"),
        answer("get_weather", "sunny"),
        step(said="Sunny."),
    ]
    assert made(await asked(*before, "and the weather in Rome?")) == [("client:get_weather", {"city": "Rome"})]
    assert (await asked(*before, "thanks")).text == "This is the demo model. You said: “thanks”."


async def test_calls_of_another_model_are_answered_like_its_own() -> None:
    calls: History = [step("search", source="builtin"), answer("search", "three hits")]
    assert "search answered: “three hits”" in (await asked("find it", *calls, tools=[])).text


async def test_a_history_without_a_message_is_no_trouble() -> None:
    assert "sunny" in (await asked(step("get_weather"), answer("get_weather", "sunny"))).text
    assert (await asked(answer("get_weather", "sunny"))).finish.reason == "end"


def test_a_run_goes_on_until_the_results_are_quoted() -> None:
    model = DemoModel()
    history: History = [user("weather")]
    assert model.goes_on(history)
    history += [step("get_weather"), answer("get_weather", "sunny")]
    assert model.goes_on(history)
    assert model.goes_on([*history, user("hurry", steered=True), step(said="You steered me.")])
    assert not model.goes_on([*history, step(said="It is sunny.")])


# -- scripts ---------------------------------------------------------------------------------------------


async def test_a_script_reaches_a_clients_function_and_heeds_no_choice() -> None:
    script = '/tool get_weather {"city": "Oslo"}\n/say weather'
    for choice in (None, "none", "local_time"):
        assert made(await asked(script, tool_choice=choice)) == [("client:get_weather", {"city": "Oslo"})]
    heard = await asked(script, step("get_weather"), answer("get_weather", "cold"))
    assert (made(heard), heard.text) == ([], "weather")


async def test_a_name_that_is_not_only_a_clients_stays_as_it_is() -> None:
    for tools in ([], [tool("get_weather")], [tool("get_weather"), WEATHER]):
        assert made(await asked("/tool get_weather", tools=tools)) == [("get_weather", {})]


async def test_a_client_that_knows_only_of_its_own_calls_has_the_rest_of_the_script() -> None:
    script = "/run ls\n/say one\n/tool get_weather\n/par\n/tool local_time\n/say two\n/tool get_weather\n/say three"
    first: History = [
        step("get_weather", "local_time", said="one"),
        answer("get_weather", "1"),
        answer("local_time", "2"),
    ]
    assert (await asked(script, *first)).text == "two"
    second: History = [step("get_weather", said="two"), answer("get_weather", "3")]
    assert (await asked(script, *first, *second)).text == "three"
    assert DemoModel().goes_on([user(script), *first, *second])
    assert not DemoModel().goes_on([user(script), *first, *second, step(said="three")])


# -- parameters ------------------------------------------------------------------------------------------


def form(schema: Json) -> Json:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}}


async def test_an_answer_has_the_form_that_is_wanted() -> None:
    schema: Json = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": CITY, "minItems": 1}},
        "required": ["city", "days"],
    }
    heard = await asked("Tell me of Paris", parameters=form(schema))
    value = json.loads(heard.text)
    jsonschema.validate(value, schema)
    assert value["city"] == "Paris"
    assert heard.finish.reason == "end"


async def test_functions_are_called_first_whatever_the_form() -> None:
    heard = await asked("weather in Paris", parameters=form(CITY))
    assert (len(heard.calls), heard.text) == (1, "")
    heard = await asked("weather in Paris", step("get_weather"), answer("get_weather", "ok"), parameters=form(CITY))
    assert json.loads(heard.text) == {"city": "Paris"}


async def test_a_form_that_cannot_be_had_is_refused() -> None:
    heard = await asked("hello", parameters=form({"type": "string", "pattern": "(?=x)"}))
    assert heard.finish.reason == "refused"
    assert "I cannot answer in the form that is wanted" in heard.text


@pytest.mark.parametrize("wanted", [{"type": "json_object"}, {"type": "json_schema"}])
async def test_any_json_object_is_one(wanted: Json) -> None:
    assert isinstance(json.loads((await asked("hello", parameters={"response_format": wanted})).text), dict)


@pytest.mark.parametrize("wanted", [None, "json", {"type": "text"}, {}, [1]])
async def test_without_a_form_it_is_text(wanted: Any) -> None:
    heard = await asked("hello", parameters={"response_format": wanted})
    assert heard.text == "This is the demo model. You said: “hello”."


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_ends_early_where_it_may_not_be_longer(name: str) -> None:
    heard = await asked("hello", parameters={name: 5})
    assert (heard.text, heard.finish.reason) == ("This is the demo mo", "length")
    assert heard.finish.usage is not None
    assert heard.finish.usage.output_tokens == 5
    assert (await asked("hello", parameters={name: 500})).finish.reason == "end"


@pytest.mark.parametrize("nonsense", [0, -1, "5", 2.5, True, None])
async def test_a_length_that_is_none_is_not_heeded(nonsense: Any) -> None:
    assert (await asked("hello", parameters={"max_tokens": nonsense})).finish.reason == "end"
