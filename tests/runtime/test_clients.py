"""Clients that execute tools, as the runtime keeps them."""

from __future__ import annotations

import pytest

from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import ClientTool, ClientUpdate, RunStart
from hermes_ws.runtime.principal import Caller, Principal, Seat
from hermes_ws.runtime.runtime import Runtime
from tests.runtime.conftest import REF, send

TIME = ClientTool(name="time")


def at_a_socket(name: str = "me") -> Caller:
    return Caller(Principal("home", name, "admin"), "socket", Seat(name))


async def test_a_conversation_that_was_deleted_keeps_nobodys_offers(runtime: Runtime) -> None:
    """What is still in the socket when it is closed must not hold on to what is gone."""
    conversation = await runtime.open(REF)
    await send(runtime, conversation, RunStart(input="/say hi"))
    await conversation.settled()
    assert await runtime.delete(REF)
    with pytest.raises(CommandError, match="deleted"):
        await send(runtime, conversation, ClientUpdate(client_id="tab-1", tools=[TIME]), at_a_socket())
    assert not runtime.toolboxes.has(conversation)


async def test_who_only_says_its_name_costs_the_conversation_nothing(runtime: Runtime) -> None:
    conversation, caller = await runtime.open(REF), at_a_socket()
    await send(runtime, conversation, ClientUpdate(client_id="tab-1"), caller)
    assert caller.by.client_id == "tab-1"
    assert not runtime.toolboxes.has(conversation)


async def test_a_socket_that_takes_another_name_leaves_the_first_ones_tools_behind(runtime: Runtime) -> None:
    conversation, caller = await runtime.open(REF), at_a_socket()
    await send(runtime, conversation, ClientUpdate(client_id="tab-1", tools=[TIME]), caller)
    await send(runtime, conversation, ClientUpdate(client_id="tab-2", tools=[TIME]), caller)
    [function] = runtime.toolboxes.of(conversation).clients.functions()
    assert function.owner is not None
    assert function.owner.client_id == "tab-2"
    await send(runtime, conversation, ClientUpdate(client_id="tab-2", tools=[]), caller)
    [of_the_first] = runtime.toolboxes.of(conversation).clients.functions()
    assert of_the_first.owner is not None
    assert of_the_first.owner.client_id == "tab-1", "it may only be reconnecting"
