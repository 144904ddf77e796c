"""The JavaScript client and the real server, on a line that does nothing wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.js.folding import events_of, server_states
from tests.js.node import needs_node
from tests.js.remote import Client, Conversation, Heard, Iteration, JsError, Node
from tests.mcp.desk import ADA, LOCAL, crm
from tests.mcp.running import OfficialServer
from tests.wire import Json, Server, expect_contiguous, fresh, soon

pytestmark = needs_node


@pytest.fixture
async def client(node: Node, server: Server) -> Client:
    return await node.client(server.url, key=server.key)


@pytest.fixture
async def conversation(client: Client, server: Server) -> AsyncIterator[Conversation]:
    """A new one, there from its first event. In the end it has told the whole log, and its state is the server's."""
    conversation = await client.conversation(fresh(), from_="start")
    heard = await conversation.on("event")
    yield conversation
    if (await conversation.get("connection"))["status"] != "live":
        return
    await conversation.settled()
    log = await server.log(await conversation.get("id"))
    await conversation.reached(len(log))
    assert heard == log
    assert await conversation.state() == await conversation.call("snapshot") == server_states(events_of(log))[-1]


async def refused(command: Any) -> JsError:
    """The ``CommandRefused`` that it is answered with."""
    with pytest.raises(JsError) as failure:
        await command
    assert failure.value.name == "CommandRefused"
    return failure.value


def types(events: list[Json]) -> list[str]:
    """What happened; of a series of deltas the first."""
    seen = [event["type"] for event in events]
    return [one for one, before in zip(seen, ["", *seen], strict=False) if one != before]


# -- runs ------------------------------------------------------------------------------------------------


async def test_a_run_is_an_iterable_of_its_events(conversation: Conversation) -> None:
    run = await conversation.run("hi")
    events = await run.events()
    assert (events[0]["type"], events[-1]["type"]) == ("run.started", "run.completed")
    assert expect_contiguous(events, after=1) == await conversation.seq()
    assert {event["run_id"] for event in events} == {await run.run_id()}
    assert events[-1] == await run.done()
    assert events[-1]["output"] == "".join(e["delta"] for e in events if e["type"] == "message.delta")


async def test_a_run_goes_out_at_once_also_when_nobody_iterates(conversation: Conversation) -> None:
    assert (await conversation.said("/say I was heard"))["output"] == "I was heard"


async def test_options_of_a_run_are_fields_of_its_command(conversation: Conversation) -> None:
    waits = await conversation.run("/sleep 60")
    await waits.run_id()
    second = await conversation.run("me", {"when_busy": "reject"})
    assert (await refused(second.run_id())).code == "busy"
    assert (await refused(second.done())).code == "busy"
    assert (await refused(second.events())).code == "busy"
    await conversation.call("stop")
    assert (await waits.done())["type"] == "run.cancelled"


async def test_a_run_that_waits_in_the_queue_is_told_from_there(conversation: Conversation) -> None:
    first = await conversation.run("/stream 200 1")
    second = await conversation.run("/say second")
    one, two = await asyncio.gather(first.events(), second.events())
    assert types(two)[:2] == ["run.queued", "run.started"]
    assert {event["run_id"] for event in one} != {event["run_id"] for event in two}
    assert two[-1]["output"] == "second"


async def test_a_run_that_is_stopped_in_the_queue_ends_there(conversation: Conversation) -> None:
    first, second = await conversation.run("/sleep 60"), await conversation.run("never")
    await conversation.call("stop", {"run_id": await second.run_id()})
    assert types(await second.events()) == ["run.queued", "run.cancelled"]
    await conversation.call("stop", {"mode": "now"})
    assert (await first.done())["type"] == "run.cancelled"


async def test_leaving_the_loop_does_not_stop_the_run(conversation: Conversation) -> None:
    run = await conversation.run("/stream 100 1")
    events = await Iteration.over(run)
    await events.take(3)
    await events.call("return")
    assert await events.next() is None
    assert (await run.done())["type"] == "run.completed"


async def test_a_run_that_is_looked_at_late_is_told_whole(conversation: Conversation) -> None:
    run = await conversation.run("hi")
    last = await run.done()
    events = await run.events()
    assert (events[0]["type"], events[-1]) == ("run.started", last)


async def test_a_run_that_is_asked_for_twice_under_one_id_is_one_run(conversation: Conversation) -> None:
    command = ("/stream 300 1", {"id": "mine"})
    first = await conversation.run(*command)
    await first.run_id()
    again = await conversation.run(*command)
    assert await again.run_id() == await first.run_id()
    last = await again.done()
    assert last == await first.done()
    late = await conversation.run(*command)
    with pytest.raises(JsError) as failure:
        await late.done()
    assert (failure.value.name, failure.value.reason) == ("Resynchronized", "over")


async def test_an_input_that_steers_the_active_run_is_followed_as_that_run(conversation: Conversation) -> None:
    run = await conversation.run("/sleep 0.5\n/say done")
    await run.run_id()
    steered = await conversation.run("faster", {"when_busy": "steer"})
    assert await steered.run_id() == await run.run_id()
    assert await steered.done() == await run.done()


async def test_steering_is_heard_between_two_steps(conversation: Conversation) -> None:
    run = await conversation.run("/sleep 0.5\n/say done")
    await run.run_id()
    ok = await conversation.call("steer", "faster")
    events = await run.events()
    steered = [event for event in events if event["type"] == "run.steered"]
    assert [(e["steer_id"], e["disposition"]) for e in steered] == [(ok["steer_id"], s) for s in ("pending", "applied")]
    assert steered[0]["text"] == "faster"


async def test_steering_late_is_given_back_if_so_wished(conversation: Conversation) -> None:
    run = await conversation.run("/sleep 60")
    await conversation.call("steer", "too late?", {"run_id": await run.run_id(), "if_late": "return"})
    await conversation.call("stop")
    events = await run.events()
    steered = [event for event in events if event["type"] == "run.steered"]
    assert [event["disposition"] for event in steered] == ["pending", "returned"]


async def test_stop_names_a_run_and_clears_the_queue(conversation: Conversation) -> None:
    run = await conversation.run("/sleep 60")
    queued = await conversation.run("later")
    await queued.run_id()
    await conversation.call("stop", {"run_id": await run.run_id(), "queue": "clear"})
    assert (await run.done())["reason"] == "stop"
    assert (await queued.done())["type"] == "run.cancelled"
    await conversation.reached((await queued.done())["seq"])
    assert (await conversation.state())["queue"] == []


async def test_a_failed_run_is_retried(conversation: Conversation) -> None:
    failed = await conversation.run("/fail model_auth 1\n/say at last")
    last = await failed.done()
    assert (last["type"], last["error"]["code"]) == ("run.failed", "model_auth")
    again = await conversation.retry(await failed.run_id())
    events = await again.events()
    assert events[0]["retry_of"] == await failed.run_id()
    assert events[-1]["type"] == "run.failed"
    assert {event["run_id"] for event in events} == {await again.run_id()}


# -- people ----------------------------------------------------------------------------------------------


async def test_an_approval_is_given(conversation: Conversation) -> None:
    run = await conversation.run("/run echo one")
    asked = await conversation.asked("approval")
    await conversation.call("approve", asked)
    events = await run.events()
    [resolved] = [event for event in events if event["type"] == "interaction.resolved"]
    assert (resolved["option"], resolved["via"]) == ("once", "socket")
    [completed] = [event for event in events if event["type"] == "tool.completed"]
    assert (completed["status"], completed["output"].strip()) == ("ok", "one")


async def test_an_approval_edits_the_arguments(conversation: Conversation) -> None:
    run = await conversation.run("/run echo one")
    asked = await conversation.asked()
    await conversation.call("approve", asked, "once", {"arguments": {"command": "echo two"}, "comment": "rather"})
    events = await run.events()
    [executing] = [event for event in events if event["type"] == "tool.executing"]
    assert executing["arguments"] == {"command": "echo two"}
    [resolved] = [event for event in events if event["type"] == "interaction.resolved"]
    assert resolved["comment"] == "rather"


async def test_an_approval_for_longer_is_listed_and_revoked(conversation: Conversation) -> None:
    run = await conversation.run("/run echo a\n/run echo a\n/say fine")
    await conversation.call("approve", await conversation.asked(), "conversation")
    assert (await run.done())["output"] == "fine"
    [rule] = await conversation.call("approvals.list")
    assert rule["scope"] == "conversation"
    await conversation.call("approvals.revoke", rule["rule_id"])
    assert await conversation.call("approvals.list") == []
    assert (await refused(conversation.call("approvals.revoke", rule["rule_id"]))).code == "not_found"


async def test_a_denial_is_told_with_its_comment(conversation: Conversation) -> None:
    run = await conversation.run("/run echo one")
    await conversation.call("deny", await conversation.asked(), "not today")
    [completed] = [event for event in await run.events() if event["type"] == "tool.completed"]
    assert completed["status"] == "denied"
    assert "not today" in completed["output"]


async def test_a_question_is_answered(conversation: Conversation) -> None:
    run = await conversation.run("/ask Which colour? | red | blue\n/say noted")
    asked = await conversation.asked("clarify")
    assert [choice["id"] for choice in asked["questions"][0]["options"]] == ["red", "blue"]
    await conversation.call("answer", asked, "blue")
    [resolved] = [event for event in await run.events() if event["type"] == "interaction.resolved"]
    assert resolved["answers"] == {asked["questions"][0]["id"]: "blue"}


async def test_a_reply_names_an_interaction_by_its_id(conversation: Conversation) -> None:
    run = await conversation.run("/ask Who?")
    asked = await conversation.asked()
    ok = await conversation.call("reply", asked["interaction_id"], {"answers": {asked["questions"][0]["id"]: "me"}})
    assert ok["interaction_id"] == asked["interaction_id"]
    assert (await run.done())["type"] == "run.completed"


async def test_a_reply_brings_the_digest_of_what_was_shown(conversation: Conversation) -> None:
    await conversation.run("/run echo one")
    asked = await conversation.asked()
    other = {**asked, "digest": "sha256:of-something-else"}
    assert (await refused(conversation.call("approve", other))).code == "digest_mismatch"
    await conversation.call("deny", asked)


async def test_a_wrong_answer_is_refused_with_its_place(conversation: Conversation) -> None:
    await conversation.run("/ask How many? | 1 | 2")
    asked = await conversation.asked()
    with pytest.raises(JsError) as failure:
        await conversation.call("reply", asked, {"answers": {asked["questions"][0]["id"]: 7}})
    assert (failure.value.code, failure.value.retryable) == ("invalid_answer", False)
    assert failure.value.path.startswith("$.answers")
    await conversation.call("stop")


async def test_a_form_is_filled_in(node: Node, make_server: MakeServer, official: OfficialServer) -> None:
    server = make_server(settings=LOCAL)
    official.tokens(ada=ADA)
    client = await node.client(server.url, key=server.key)
    conversation = await client.conversation("form")
    await conversation.call("configure", {"mcp_servers": {"crm": crm(official)}, "approvals": {"mode": "auto"}})
    run = await conversation.run('/tool ask_name {"greeting": "Good morning"}')
    asked = await conversation.asked("form")
    assert "name" in asked["schema"]["properties"]
    await conversation.call("reply", asked, {"content": {"name": "Ada"}})
    [completed] = [event for event in await run.events() if event["type"] == "tool.completed"]
    assert "Ada" in completed["output"]
    assert await conversation.settled() == await conversation.call("snapshot")


async def test_of_two_clients_the_first_answer_wins(node: Node, server: Server) -> None:
    name = fresh()
    one = await (await node.client(server.url, key=server.key, clientId="phone")).conversation(name)
    two = await (await node.client(server.url, key=server.key, clientId="laptop")).conversation(name)
    await two.ready()
    run = await one.run("/ask Heads or tails? | heads | tails")
    asked, also = await one.asked(), await two.asked()
    assert asked == also
    heard = await two.on("interaction.resolved")
    answers = await asyncio.gather(
        one.call("answer", asked, "heads"), two.call("answer", asked, "tails"), return_exceptions=True
    )
    [failure] = [answer for answer in answers if isinstance(answer, JsError)]
    await run.done()
    assert failure.code == "interaction_resolved"
    resolved = await heard.until(lambda event: True)
    assert failure.details["resolution"]["answers"] == resolved["answers"]
    assert resolved["by"]["client_id"] == ("phone" if isinstance(answers[1], JsError) else "laptop")
    assert (await two.state())["interactions"] == []


async def test_somebody_else_starts_a_run_and_everybody_sees_it(
    client: Client, conversation: Conversation, server: Server
) -> None:
    await conversation.ready()
    heard = await conversation.on("event")
    await server.post(await conversation.get("id"), {"type": "run.start", "input": "over HTTP"})
    await heard.until_type("run.completed")
    assert (await conversation.state())["items"][0]["text"] == "over HTTP"


# -- other commands --------------------------------------------------------------------------------------


async def test_configure_tells_the_version_and_minds_if_version(conversation: Conversation) -> None:
    assert await conversation.call("configure", {"title": "Budget"}) == 1
    assert await conversation.call("configure", {"title": "Budget 2"}, {"if_version": 1}) == 2
    assert (await refused(conversation.call("configure", {"title": "3"}, {"if_version": 1}))).code == "version_conflict"
    await conversation.reached(3)
    state = await conversation.state()
    assert (state["config"]["title"], state["config_version"]) == ("Budget 2", 2)


async def test_a_configuration_that_is_refused_says_where(conversation: Conversation) -> None:
    failure = await refused(conversation.call("configure", {"tools": {"allow": [7]}}))
    assert (failure.code, failure.path) == ("invalid_frame", "$.config.tools.allow[0]")


async def test_tools_are_listed(conversation: Conversation) -> None:
    await conversation.call("configure", {"tools": {"allow": ["builtin:read_file", "builtin:terminal"]}})
    tools = await conversation.call("tools.list")
    assert {tool["name"] for tool in tools} == {"read_file", "terminal"}
    assert all(tool["source"] == "builtin" and tool["parameters"]["type"] == "object" for tool in tools)


async def test_a_fork_is_a_conversation_with_the_same_past(client: Client, conversation: Conversation) -> None:
    await conversation.said("/say remember this")
    wanted = fresh()
    assert await conversation.call("fork", {"conversation_id": wanted}) == wanted
    fork = await client.conversation(wanted)
    await fork.ready()
    assert (await fork.state())["items"][-1]["text"] == "remember this"


async def test_snapshot_is_what_the_state_is(conversation: Conversation) -> None:
    await conversation.said("/think hm\n/say well\n/tool list_files {}")
    await conversation.settled()
    snapshot = await conversation.call("snapshot")
    assert snapshot == await conversation.state()
    assert snapshot["at"] == await conversation.seq()


async def test_ping_tells_the_head(conversation: Conversation) -> None:
    last = await conversation.said("hi")
    assert await conversation.call("ping") == last["seq"]


async def test_a_command_of_the_callers_own_id_is_done_once(conversation: Conversation) -> None:
    first = await conversation.send("run.start", id="mine", input="hi")
    again = await conversation.send("run.start", id="mine", input="hi")
    assert again == {**first, "duplicate": True}


async def test_a_command_that_does_not_exist_is_refused(conversation: Conversation) -> None:
    assert (await refused(conversation.send("run.begin", input="hi"))).code == "unknown_type"


async def test_a_command_that_is_too_large_is_refused_and_the_line_stays(conversation: Conversation) -> None:
    await conversation.ready()
    heard = await conversation.on("connection")
    assert (await refused(conversation.said("x" * 2_000_000))).code == "too_large"
    assert (await conversation.said("/say still here"))["output"] == "still here"
    assert heard == []


async def test_what_is_refused_for_the_moment_is_sent_again(node: Node, make_server: MakeServer) -> None:
    """More commands at once than the server takes from one socket: it says when to come back."""
    server = make_server(settings="[limits]\ncommands_in_flight = 2\n")
    conversation = await (await node.client(server.url, key=server.key)).conversation("c")
    await conversation.ready()
    patches = [{"metadata": {str(n): n}} for n in range(30)]
    versions = await asyncio.gather(*(conversation.call("configure", patch) for patch in patches))
    assert sorted(versions) == list(range(1, 31))


# -- listeners -------------------------------------------------------------------------------------------


async def test_listeners_hear_their_type_until_they_are_taken_off(conversation: Conversation) -> None:
    completed, everything = Heard(), Heard()
    take_off = await conversation.call("on", "run.completed", completed)
    await conversation.call("on", "event", everything)
    await conversation.said("one")
    await everything.until_type("run.completed")
    assert types(completed) == ["run.completed"]
    assert expect_contiguous(everything) == await conversation.seq()
    await take_off.call("call")
    await conversation.said("two")
    assert len(completed) == 1


async def test_events_are_an_iterable_of_everything_from_now_on(conversation: Conversation) -> None:
    await conversation.ready()
    await conversation.said("before")
    at = await conversation.seq()
    events = await Iteration.over(await conversation.call("events"))
    last = await conversation.said("after")
    told = await events.take(last["seq"] - at)
    assert expect_contiguous(told, after=at) == last["seq"]
    await conversation.call("close")
    assert await events.next() is None


async def test_connection_says_how_it_is(conversation: Conversation) -> None:
    heard = await conversation.on("connection")
    await conversation.ready()
    assert (await conversation.get("connection"))["status"] == "live"
    await conversation.call("close")
    assert (await conversation.get("connection"))["status"] == "closed"
    assert heard[-1]["status"] == "closed"


async def test_what_is_asked_of_a_closed_conversation_is_refused(conversation: Conversation) -> None:
    await conversation.ready()
    await conversation.call("close")
    for asked in (conversation.send("ping"), conversation.call("stop"), conversation.said("hi")):
        with pytest.raises(JsError) as failure:
            await asked
        assert failure.value.name == "ConversationClosed"


async def test_an_answer_that_is_on_its_way_when_it_is_closed_is_told(conversation: Conversation) -> None:
    await conversation.ready()
    run = await conversation.run("/sleep 60")
    done = asyncio.create_task(run.done())
    await run.run_id()
    await conversation.call("close")
    with pytest.raises(JsError) as failure:
        await done
    assert failure.value.name == "ConversationClosed"


async def test_a_listener_is_given_its_own_conversation_only(client: Client) -> None:
    one, two = await client.conversation(fresh()), await client.conversation(fresh())
    heard = await one.on("event")
    await two.said("hi")
    await one.said("ho")
    assert {event.get("input") for event in heard} == {None, "ho"}


async def test_a_run_nobody_looks_at_may_fail_in_peace(node: Node, make_server: MakeServer) -> None:
    """The process would end if a rejection were left over. What was refused is warned of."""
    server = make_server()
    conversation = await (await node.client(server.url, key=server.key)).conversation("c")
    await conversation.ready()
    heard = await conversation.on("connection")
    async with soon():
        await conversation.call("run", "x", {"when_busy": "nonsense"})
        await conversation.call("run", "/sleep 60")
        await conversation.call("ping")
        await node.warned("expected one of interrupt, queue, reject, steer")
        async with server.http() as http:
            await http.delete("/api/conversations/c")
        await heard.until(lambda connection: connection["status"] == "closed")
