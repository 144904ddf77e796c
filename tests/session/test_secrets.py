"""Secrets in a session: they are in its memory and in no event."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hermes_ws.decisions import Decision, SessionLimits
from hermes_ws.errors import CommandError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import ConversationConfigure, InteractionReply, RunStart
from hermes_ws.protocol.values import ErrorInfo

from .world import ALICE, World, as_json, call, clarify

URL = "https://crm.example.com/mcp"
TOKEN = "tok-3141592653589793"
NAME = "mcp_servers/crm/headers/authorization"


@pytest.fixture
def world() -> World:
    return World()


def configure(world: World, server: Any, **more: Any) -> Decision:
    return world.command(ConversationConfigure(config={"mcp_servers": {"crm": server}, **more}))


def known(world: World, token: str = TOKEN) -> Decision:
    return configure(world, {"url": URL, "headers": {"Authorization": f"Bearer {token}"}})


def everything(world: World) -> str:
    return json.dumps([as_json(event) for event in world.everything()])


def test_a_configured_secret_is_decided_beside_the_event_and_not_in_it(world: World) -> None:
    decision = known(world)
    assert decision.secrets == {NAME: f"Bearer {TOKEN}"}
    assert world.session.secrets == decision.secrets
    (configured,) = decision.events
    assert isinstance(configured, ev.ConversationConfigured)
    assert TOKEN not in everything(world) + repr(decision)
    assert configure(world, {"timeout_ms": 5}).secrets == {}
    assert configure(world, None).secrets == {NAME: None}
    assert world.session.secrets == {}


def test_a_refused_configuration_changes_no_secret(world: World) -> None:
    known(world)
    with pytest.raises(CommandError):
        configure(world, {"headers": {"Authorization": "Bearer another", "Host": "x"}})
    assert world.session.secrets == {NAME: f"Bearer {TOKEN}"}


def test_secrets_are_bounded_in_number() -> None:
    world = World(SessionLimits(secrets=2))
    configure(world, {"url": URL, "headers": {"A": "1", "B": "2"}})
    with pytest.raises(CommandError, match="at most 2") as refused:
        configure(world, {"headers": {"C": "3"}})
    assert refused.value.code == "too_large"
    configure(world, {"headers": {"A": None, "C": "3"}})


def test_a_rotation_is_a_configuration_of_one_header(world: World) -> None:
    known(world)
    decision = world.take(
        world.session.rotate("crm", URL, "AUTHORIZATION", "Bearer another-1", by=ALICE, now=world.now)
    )
    assert decision.secrets == {NAME: "Bearer another-1"}
    (configured,) = decision.events
    assert isinstance(configured, ev.ConversationConfigured)
    assert configured.by == ALICE
    with pytest.raises(CommandError):
        world.session.rotate("gone", URL, "Authorization", "Bearer another-1", by=ALICE, now=world.now)


def test_secrets_survive_a_failed_commit_as_they_were_committed(world: World) -> None:
    known(world)
    world.commit()
    known(world, "another-token-1")
    world.fail()
    assert world.session.secrets == {NAME: f"Bearer {TOKEN}"}


def test_nothing_that_is_said_or_done_has_a_known_secret_in_it(world: World) -> None:
    known(world)
    world.command(RunStart(input=f"use {TOKEN}"))
    world.commit()
    world.begin_step()
    world.say(f"I think {TOKEN}", "reasoning")
    world.say(f"I say {TOKEN}")
    asked = call("c1", command=f"echo {TOKEN}", environment={TOKEN: [TOKEN]})
    odd = replace(call(TOKEN, name=TOKEN), problem=f"there is no tool {TOKEN}")
    (call_id,) = world.finish_call(asked, odd)
    world.execute(call_id, command=f"echo {TOKEN}")
    run_id = world.work().run_id
    told: list[dict[str, Any]] = [
        {"stream": "stdout", "chunk": TOKEN},
        {"stream": "progress", "progress": 1.0, "message": TOKEN},
    ]
    for fields in told:
        world.take(world.session.tool_output(run_id, call_id, world.now, **fields))
    world.complete(call_id, output=TOKEN, structured={"deep": [{TOKEN: TOKEN}]})
    world.finish_step()
    world.end(ErrorInfo(code="agent_crashed", message=f"at {TOKEN}", retryable=True))
    world.commit()
    assert TOKEN not in everything(world)
    assert everything(world).count("[secret]") >= 14


def test_words_of_the_protocol_stay_whatever_is_secret(world: World) -> None:
    words = ["terminal", "tool.started", "message.completed", "conversation", "arguments", "completed", "http://x/"]
    configure(world, {"url": URL, "headers": {f"X-{n}": word for n, word in enumerate(words)}}, title="terminal")
    world.command(RunStart(input="completed"))
    world.commit()
    world.begin_step()
    (call_id,) = world.finish_call(call("c1", name="terminal", command="terminal"))
    world.execute(call_id, command="terminal")
    world.complete(call_id, output="terminal")
    world.finish_step()
    world.end()
    world.commit()
    started = next(e for e in world.events() if isinstance(e, ev.ToolStarted))
    assert (started.name, started.arguments) == ("terminal", {"command": "[secret]"})
    assert world.state.config.title == "[secret]"
    world.fail()  # folds the log anew


def test_what_was_answered_in_secret_is_a_secret_from_then_on(world: World) -> None:
    world.command(RunStart(input="hi"))
    world.commit()
    world.begin_step()
    question = world.ask(clarify("secret"))
    reply = InteractionReply(interaction_id=question, answers={"q": TOKEN}, comment=f"it is {TOKEN}")
    assert world.session.is_confidential(reply)
    world.command(reply)
    world.say(f"thank you for {TOKEN}")
    world.finish_call()
    assert TOKEN not in everything(world)
    assert world.session.is_confidential(reply) is False, "it is not taken any more"


def test_a_value_that_was_replaced_stays_a_secret(world: World) -> None:
    known(world)
    known(world, "another-token-1")
    world.command(RunStart(input=f"{TOKEN} another-token-1"))
    assert TOKEN not in everything(world)
    assert "another-token-1" not in everything(world)


def test_only_as_many_old_secrets_are_remembered_as_there_may_be_new_ones() -> None:
    world = World(SessionLimits(secrets=2))
    for n in range(4):
        known(world, f"token-number-{n}")
    world.command(RunStart(input=" ".join(f"token-number-{n}" for n in range(4))))
    (said,) = [event for event in world.pending[-1].events if isinstance(event, ev.RunStarted)]
    assert said.input == "token-number-0 [secret] [secret] [secret]"


def test_which_commands_bring_secrets(world: World) -> None:
    patch: dict[str, Any] = {"mcp_servers": {"crm": {"url": URL, "headers": {"A": "x"}}}}
    assert world.session.is_confidential(ConversationConfigure(config=patch))
    assert not world.session.is_confidential(ConversationConfigure(config={"title": "t"}))
    assert not world.session.is_confidential(RunStart(input="hi"))
    assert msgspec.to_builtins(world.state.config) == {}
