"""OpenAI's Agents SDK: its loop of tools, its streams, its memories, over each of the three ways to a model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.clients import INSTALL_S, RUN_S, agents_program, environment
from tests.acceptance.people import quoted
from tests.wire import Json, Server

PROGRAM = Path(__file__).parent / "agents_sdk.py"

pytestmark = pytest.mark.timeout(2 * INSTALL_S + RUN_S)


@pytest.fixture(scope="module")
def told(server: Server) -> Json:
    """What the program tells."""
    done = subprocess.run(
        [agents_program(), str(PROGRAM)],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: Json = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("kind", ["chat", "responses", "socket"])
def test_its_loop_calls_its_own_tools_and_leaves_the_agents_to_the_agent(told: Json, kind: str) -> None:
    whole, items, *_ = told[kind]
    assert whole == "Done."
    assert items == ["tool_call_item", "tool_call_output_item", "message_output_item"]


@pytest.mark.parametrize("kind", ["chat", "responses", "socket"])
def test_its_streams_do_the_same(told: Json, kind: str) -> None:
    *_, streamed, items = told[kind]
    assert "It rains in Paris." in streamed
    assert items == ["tool_call_item", "tool_call_output_item", "message_output_item"]


def test_it_goes_on_by_a_response_and_in_a_conversation(told: Json) -> None:
    by_response, in_conversation, items = told["memory"]
    assert by_response == quoted("two")
    assert in_conversation == quoted("three")
    assert items == 6
