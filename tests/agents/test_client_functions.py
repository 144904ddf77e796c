"""Runs with functions of the client's, through the runtime: the demo's, and those of a model behind an endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hermes_ws.agents.llm.loop import LlmAgent
from hermes_ws.protocol.commands import ClientTool, Command, ConversationConfigure, InteractionReply, RunStart, RunSteer
from hermes_ws.runtime.commands import Beside, do
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.runtime import Runtime
from tests.agents.conftest import Asker
from tests.agents.endpoint_server import Endpoint, calls, text
from tests.runtime.conftest import ME, REF, Collector, GatedStore, follow, runtime_over, until
from tests.runtime.conftest import runtime as runtime
from tests.runtime.conftest import store as store

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ClientTool(name="get_weather", description="The weather.", parameters=CITY)
TIME = ClientTool(name="get_time", description="The time.", parameters=CITY)


class Talk:
    """One run, and whoever executes its functions."""

    def __init__(self, runtime: Runtime, conversation: Conversation, sink: Collector) -> None:
        self._runtime = runtime
        self._conversation = conversation
        self.sink = sink

    async def does(self, command: Command, **beside: Any) -> None:
        await do(self._runtime, self._conversation, command, ME, Beside(**beside))

    async def start(self, said: str, agent: str | None = None, **beside: Any) -> None:
        await self.does(RunStart(input=said, agent=agent), **beside)

    async def asked(self, count: int) -> list[dict[str, Any]]:
        """The calls that were handed over, as soon as there are so many."""
        await until(lambda: self.sink.types.count("interaction.requested") >= count)
        return [e for e in self.sink.events if e["type"] == "interaction.requested"]

    async def answer(self, asked: dict[str, Any], output: str, **content: Any) -> None:
        reply = InteractionReply(interaction_id=asked["interaction_id"], content={"output": output, **content})
        await self.does(reply)

    async def end(self, count: int = 1) -> dict[str, Any]:
        """How the last of so many runs ended."""
        await until(lambda: len(self._ends()) >= count)
        return self._ends()[-1]

    def _ends(self) -> list[dict[str, Any]]:
        return [e for e in self.sink.events if e["type"] in ("run.completed", "run.failed", "run.cancelled")]


@pytest.fixture
async def talk(runtime: Runtime) -> Talk:
    conversation = await runtime.open(REF)
    return Talk(runtime, conversation, follow(runtime, conversation))


async def test_the_demo_calls_waits_for_the_results_and_quotes_them(talk: Talk) -> None:
    await talk.start("Get weather and time in Paris, please", functions=[WEATHER, TIME])
    asked = await talk.asked(2)
    assert [a["kind"] for a in asked] == ["client_tool"] * 2
    assert sorted((a["tool"]["name"], a["tool"]["arguments"]["city"]) for a in asked) == [
        ("get_time", "Paris"),
        ("get_weather", "Paris"),
    ]
    for question in asked:
        name = question["tool"]["name"]
        await talk.answer(question, f"result of {name}", is_error=name == "get_time")
    end = await talk.end()
    assert "get_weather answered: “result of get_weather”" in end["output"]
    assert "get_time did not succeed (error): “result of get_time”" in end["output"]
    assert talk.sink.types.count("step.completed") == 2


async def test_a_forced_call_is_forced_once(talk: Talk) -> None:
    await talk.start("hello", functions=[WEATHER], tool_choice="required")
    (asked,) = await talk.asked(1)
    await talk.answer(asked, "sunny")
    assert "“sunny”" in (await talk.end())["output"]


async def test_with_the_choice_none_nothing_is_called(talk: Talk) -> None:
    await talk.start("weather", functions=[WEATHER], tool_choice="none")
    assert "You said: “weather”" in (await talk.end())["output"]


async def test_a_script_calls_a_function_between_its_other_steps(talk: Talk) -> None:
    await talk.does(ConversationConfigure(config={"approvals": {"mode": "auto"}}))
    await talk.start('/run echo hi\n/tool get_weather {"city": "Oslo"}\n/say end', functions=[WEATHER])
    (asked,) = await talk.asked(1)
    await talk.answer(asked, "cold")
    assert (await talk.end())["output"] == "end"
    assert [e["output"] for e in talk.sink.events if e["type"] == "tool.completed"] == ["hi\n", "cold"]


async def test_what_is_steered_in_meanwhile_is_answered_and_the_results_are_quoted_all_the_same(talk: Talk) -> None:
    await talk.start("weather", functions=[WEATHER])
    (asked,) = await talk.asked(1)
    await talk.does(RunSteer(text="hurry"))
    await talk.answer(asked, "sunny")
    end = await talk.end()
    said = [e["text"] for e in talk.sink.events if e["type"] == "message.completed"]
    assert said[0] == "You steered me: “hurry”."
    assert "“sunny”" in end["output"]


async def test_the_length_of_an_answer_is_the_runs(talk: Talk) -> None:
    await talk.start("hello", parameters={"max_tokens": 3})
    assert (await talk.end())["stop_reason"] == "length"
    await talk.start("hello")
    assert (await talk.end(2))["stop_reason"] == "end"


# -- a model behind an endpoint --------------------------------------------------------------------------


async def test_a_model_is_asked_with_the_runs_choice_once_and_with_its_parameters_always(
    endpoint: Endpoint, ask: Asker, tmp_path: Path
) -> None:
    endpoint.plays(calls(("get_weather", {"city": "Rome"})), text("Sunny."))
    async with runtime_over(GatedStore(), tmp_path, llm=LlmAgent(ask.model())) as runtime:
        conversation = await runtime.open(REF)
        talk = Talk(runtime, conversation, follow(runtime, conversation))
        beside = {"tool_choice": "get_weather", "parameters": {"temperature": 0.5, "n": 2}}
        await talk.start("hello", "llm", functions=[WEATHER], **beside)
        (asked,) = await talk.asked(1)
        await talk.answer(asked, "22 degrees")
        assert (await talk.end())["output"] == "Sunny."
    first, second = (request.body for request in endpoint.requests)
    assert first["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert "tool_choice" not in second
    assert [body["temperature"] for body in (first, second)] == [0.5, 0.5]
    assert "n" not in first.keys() | second.keys()
    assert second["messages"][-1]["content"] == "22 degrees"
    offered = {tool["function"]["name"]: tool["function"] for tool in first["tools"]}
    assert offered["get_weather"] == {"name": "get_weather", "description": "The weather.", "parameters": CITY}
