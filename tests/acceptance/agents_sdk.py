"""A program on OpenAI's Agents SDK, run in that SDK's own environment. It prints what came of each case as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from agents import (  # type: ignore[import-not-found, unused-ignore]
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    OpenAIResponsesWSModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

MODELS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel, "socket": OpenAIResponsesWSModel}


@function_tool  # type: ignore[untyped-decorator, unused-ignore]
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


def client() -> AsyncOpenAI:
    return AsyncOpenAI(base_url=os.environ["HERMES_URL"], api_key=os.environ["HERMES_KEY"], max_retries=0)


def agent(kind: str, http: AsyncOpenAI) -> Any:
    model = MODELS[kind](model="hermes-agent", openai_client=http)
    return Agent(name="Helper", instructions="Be brief.", model=model, tools=[get_weather])


async def tools(kind: str, http: AsyncOpenAI) -> list[Any]:
    """Its loop over a function, beside a tool of the agent's own: whole and streamed."""
    said = '/tool list_files {}\n/tool get_weather {"city": "Rome"}\n/say Done.'
    whole = await Runner.run(agent(kind, http), said)
    streamed = Runner.run_streamed(agent(kind, http), "What is the weather in Paris?")
    kinds = [item.item.type async for item in streamed.stream_events() if item.type == "run_item_stream_event"]
    return [whole.final_output, [item.type for item in whole.new_items], streamed.final_output, kinds]


async def memory(http: AsyncOpenAI) -> list[Any]:
    """Going on by the last response's id, and in a conversation."""
    first = await Runner.run(agent("responses", http), "one")
    second = await Runner.run(agent("responses", http), "two", previous_response_id=first.last_response_id)
    session = OpenAIConversationsSession(openai_client=http)
    for text in ("What is the weather?", "three"):
        last = await Runner.run(agent("responses", http), text, session=session)
    return [second.final_output, last.final_output, len(await session.get_items())]


async def main() -> None:
    set_tracing_disabled(True)
    async with client() as http:
        told: dict[str, Any] = {kind: await tools(kind, http) for kind in MODELS}
        told["memory"] = await memory(http)
    print(json.dumps(told))


asyncio.run(main())
