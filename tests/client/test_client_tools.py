"""A program that executes tools for the agent: each call once, whatever happens to the line."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from hermes_ws.client import CommandRefused, connect
from hermes_ws.protocol.events import RunCancelled, RunCompleted, ToolCompleted
from tests.client.proxy import Proxy
from tests.wire import Server, fresh

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = '/tool weather {"city": "Oslo"}\n/say done'


async def outcome(events: Any) -> ToolCompleted:
    """The first call's; goes on to the end of the run."""
    found: list[ToolCompleted] = [event async for event in events if isinstance(event, ToolCompleted)]
    return found[0]


async def test_a_handler_is_called_with_the_arguments_and_what_it_returns_is_the_output(server: Server) -> None:
    async with connect(server.url, fresh(), key=server.key) as conversation:
        await conversation.tool("weather", CITY, lambda arguments: f"Rain in {arguments['city']}.")
        call = await outcome(conversation.run(CALL))
    assert (call.status, call.output) == ("ok", "Rain in Oslo.")


async def test_anything_but_text_is_told_as_json(server: Server) -> None:
    async def weather(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"sky": "grey"}

    async with connect(server.url, fresh(), key=server.key) as conversation:
        await conversation.tool("weather", CITY, weather)
        call = await outcome(conversation.run(CALL))
    assert call.output == '{"sky":"grey"}'
    assert call.structured == {"sky": "grey"}


async def test_what_a_handler_raises_is_the_calls_error(server: Server) -> None:
    def weather(arguments: dict[str, Any]) -> str:
        raise LookupError("no window")

    async with connect(server.url, fresh(), key=server.key) as conversation:
        await conversation.tool("weather", CITY, weather)
        call = await outcome(conversation.run(CALL))
    assert (call.status, call.output) == ("error", "LookupError: no window")


async def test_a_tool_that_was_withdrawn_is_not_there(server: Server) -> None:
    async with connect(server.url, fresh(), key=server.key) as conversation:
        withdraw = await conversation.tool("weather", CITY, lambda arguments: "Rain.")
        assert [tool.name for tool in await conversation.tools() if tool.source == "client"] == ["weather"]
        await withdraw()
        assert not [tool for tool in await conversation.tools() if tool.source == "client"]


async def test_an_offer_that_is_refused_leaves_the_others(server: Server) -> None:
    async with connect(server.url, fresh(), key=server.key) as conversation:
        await conversation.tool("weather", CITY, lambda arguments: "Rain.")
        with pytest.raises(CommandRefused, match=r"tools\[1\]\.name"):
            await conversation.tool("two words", CITY, lambda arguments: "?")
        assert (await outcome(conversation.run(CALL))).output == "Rain."


async def test_a_handler_is_called_once_although_the_line_breaks_under_it(server: Server) -> None:
    called: list[dict[str, Any]] = []
    async with Proxy.before(server.port) as proxy:

        async def weather(arguments: dict[str, Any]) -> str:
            called.append(arguments)
            proxy.cut_all()
            return "Rain."

        async with connect(proxy.url, fresh(), key=server.key) as conversation:
            await conversation.tool("weather", CITY, weather)
            for _ in range(5):
                assert (await outcome(conversation.run(CALL))).output == "Rain."
    assert len(called) == 5


async def test_a_handler_is_cancelled_when_the_run_is_stopped(server: Server) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def weather(arguments: dict[str, Any]) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    async with connect(server.url, fresh(), key=server.key) as conversation:
        await conversation.tool("weather", CITY, weather)
        async with asyncio.TaskGroup() as group:
            events = group.create_task(_all(conversation.run(CALL)))
            await begun.wait()
            await conversation.stop()
        with anyio.fail_after(10):
            await cancelled.wait()
    assert isinstance(events.result()[-1], RunCancelled)


async def _all(events: Any) -> list[Any]:
    return [event async for event in events]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_what_an_earlier_life_left_open_is_made_again_only_where_that_does_no_harm(
    server: Server, idempotent: bool
) -> None:
    conversation_id, begun = fresh(), asyncio.Event()

    async def never(arguments: dict[str, Any]) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    async with connect(server.url, conversation_id, key=server.key, client_id="robot") as first:
        await first.tool("weather", CITY, never)
        run = asyncio.create_task(_all(first.run(CALL)))
        await begun.wait()
        run.cancel()
    called: list[dict[str, Any]] = []

    def again(arguments: dict[str, Any]) -> str:
        called.append(arguments)
        return "Rain."

    async with connect(server.url, conversation_id, key=server.key, client_id="robot", start="start") as second:
        events = second.events()
        await second.tool("weather", CITY, again, idempotent=idempotent)
        with anyio.fail_after(10):
            seen = [event async for event in _until_completed(events)]
    [call] = [event for event in seen if isinstance(event, ToolCompleted)]
    assert (call.status, len(called)) == (("ok", 1) if idempotent else ("error", 0))
    assert call.output == "Rain." if idempotent else "was restarted" in call.output


async def _until_completed(events: Any) -> Any:
    async for event in events:
        yield event
        if isinstance(event, RunCompleted):
            return
