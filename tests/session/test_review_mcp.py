"""What an adversarial reading found of the session's share in MCP: a secret is for the place that it was asked for."""

from __future__ import annotations

import json

import pytest

from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import ConversationConfigure

from .world import ALICE, World, as_json

FIRST, SECOND = "https://crm.example.com/mcp", "https://crm.example.net/mcp"
TOKEN = "Bearer tok-3141592653589793"


@pytest.mark.parametrize(
    "meanwhile",
    [{"url": SECOND}, {"url": None, "ref": "crm"}, None],
    ids=["another address", "the operator's", "gone"],
)
def test_an_answer_that_comes_after_its_server_was_replaced_is_thrown_away(meanwhile: object) -> None:
    world = World()
    world.command(ConversationConfigure(config={"mcp_servers": {"crm": {"url": FIRST}}}))
    place = world.state.config.place_of("mcp:crm")
    assert place is not None
    world.command(ConversationConfigure(config={"mcp_servers": {"crm": meanwhile}}))
    with pytest.raises(CommandError) as refused:
        world.session.rotate("crm", place, "Authorization", TOKEN, by=ALICE, now=world.now)
    assert refused.value.code == "not_found"
    assert world.session.secrets == {}
    assert TOKEN not in json.dumps([as_json(event) for event in world.everything()])


def test_an_answer_is_for_its_server_also_when_something_else_of_it_was_changed() -> None:
    world = World()
    world.command(ConversationConfigure(config={"mcp_servers": {"crm": {"url": FIRST}}}))
    place = world.state.config.place_of("mcp:crm")
    assert place is not None
    world.command(ConversationConfigure(config={"mcp_servers": {"crm": {"timeout_ms": 5_000}}}))
    world.take(world.session.rotate("crm", place, "Authorization", TOKEN, by=ALICE, now=world.now))
    assert world.session.secrets == {"mcp_servers/crm/headers/authorization": TOKEN}
