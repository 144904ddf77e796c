"""Functions that whoever started a run executes: handed over as interactions, answered by replies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hermes_ws.decisions import SessionLimits
from hermes_ws.errors import CommandError
from hermes_ws.policy import ApprovalSettings
from hermes_ws.protocol.commands import (
    ClientTool,
    Command,
    ConversationConfigure,
    InteractionReply,
    RunRetry,
    RunStart,
    RunStop,
)
from hermes_ws.protocol.control import Ok
from hermes_ws.protocol.values import ToolFilter, ToolRule
from hermes_ws.runtime.commands import Beside, do
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.permissions import AgentTerms
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.store.base import ConversationRef
from tests.pictures import data_url, picture
from tests.runtime.conftest import ME, REF, Collector, GatedStore, follow, runtime_over, until

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ClientTool(name="weather", description="Looks out of the window.", parameters=CITY)
TIME = ClientTool(name="time")
CALL = '/tool weather {"city": "Oslo"}'


class Client:
    """Somebody who starts runs, executes their functions, and sees everything."""

    def __init__(self, runtime: Runtime, conversation: Conversation, caller: Caller = ME) -> None:
        self.runtime = runtime
        self.conversation = conversation
        self.caller = caller
        self.sink: Collector = follow(runtime, conversation)

    @classmethod
    async def of(cls, runtime: Runtime, ref: ConversationRef = REF, caller: Caller = ME) -> Client:
        return cls(runtime, await runtime.open(ref), caller)

    async def does(self, command: Command, **beside: Any) -> Ok:
        return await do(self.runtime, self.conversation, command, self.caller, Beside(**beside))

    async def starts(self, said: str = CALL, *functions: ClientTool, **beside: Any) -> str:
        ok = await self.does(RunStart(input=said), functions=list(functions or [WEATHER]), **beside)
        assert ok.run_id is not None
        return ok.run_id

    def saw(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.sink.events if event["type"] == kind]

    async def asked(self, count: int = 1) -> dict[str, Any]:
        """The newest question, once there were ``count``."""
        await until(lambda: len(self.saw("interaction.requested")) >= count)
        return self.saw("interaction.requested")[count - 1]

    async def answers(self, asked: dict[str, Any], content: dict[str, Any] | None, **beside: Any) -> Ok:
        reply = InteractionReply(interaction_id=asked["interaction_id"], content=content)
        return await self.does(reply, **beside)

    async def completed(self, count: int = 1) -> dict[str, Any]:
        """The ``tool.completed`` of that number."""
        await until(lambda: len(self.saw("tool.completed")) >= count)
        return self.saw("tool.completed")[count - 1]

    async def ended(self, count: int = 1) -> dict[str, Any]:
        """How the run of that number ended."""
        kinds = ("run.completed", "run.failed", "run.cancelled")
        await until(lambda: sum(event["type"] in kinds for event in self.sink.events) >= count)
        return [event for event in self.sink.events if event["type"] in kinds][count - 1]

    @property
    def status(self) -> str:
        return self.conversation.session.state.status


@pytest.fixture
async def client(runtime: Runtime) -> Client:
    return await Client.of(runtime)


# -- a call --------------------------------------------------------------------------------------------


async def test_a_call_is_started_executed_and_handed_over_and_the_run_waits(client: Client) -> None:
    await client.starts()
    asked = await client.asked()
    (started,), (executing,) = client.saw("tool.started"), client.saw("tool.executing")
    assert (started["name"], started["source"], started["arguments"]) == ("weather", "client", {"city": "Oslo"})
    assert executing["arguments"] == {"city": "Oslo"}
    assert started["seq"] < executing["seq"] < asked["seq"]
    assert (asked["kind"], asked["call_id"]) == ("client_tool", started["call_id"])
    assert asked["tool"] == {
        "call_id": started["call_id"],
        "name": "weather",
        "source": "client",
        "arguments": {"city": "Oslo"},
        "risk": "low",
    }
    assert asked["schema"]["required"] == ["output"]
    assert asked["schema"]["properties"].keys() == {"output", "is_error", "content"}
    await until(lambda: client.status == "waiting")
    assert client.saw("run.waiting")[0]["interactions"] == [asked["interaction_id"]]
    assert client.saw("tool.completed") == []


async def test_the_answer_is_what_the_call_came_to_and_the_run_goes_on(client: Client) -> None:
    await client.starts(f"{CALL}\n/say done")
    asked = await client.asked()
    await client.answers(asked, {"output": "rain"})
    completed = await client.completed()
    assert (completed["status"], completed["output"], completed["name"]) == ("ok", "rain", "weather")
    assert (await client.ended())["output"] == "done"
    resolved = client.saw("interaction.resolved")[0]
    assert resolved["seq"] < client.saw("run.resumed")[0]["seq"] < completed["seq"]
    assert (resolved["outcome"], resolved["content"]) == ("answered", {"output": "rain"})


async def test_an_empty_output_is_one(client: Client) -> None:
    await client.starts()
    await client.answers(await client.asked(), {"output": ""})
    completed = await client.completed()
    assert (completed["status"], completed["output"]) == ("ok", "")


async def test_what_failed_over_there_failed(client: Client) -> None:
    await client.starts()
    await client.answers(await client.asked(), {"output": "no window", "is_error": True})
    completed = await client.completed()
    assert (completed["status"], completed["output"]) == ("error", "no window")
    assert (await client.ended())["type"] == "run.completed"


async def test_an_image_may_come_with_the_answer_and_is_kept(client: Client) -> None:
    await client.starts()
    image = {"type": "image", "url": data_url(picture())}
    await client.answers(await client.asked(), {"output": "look", "content": [image]})
    completed = await client.completed()
    assert completed["status"] == "ok"
    assert completed["content"][0]["blob"].startswith("blob_")


async def test_arguments_that_do_not_fit_the_clients_schema_are_the_clients_to_judge(client: Client) -> None:
    await client.starts('/tool weather {"town": 7}')
    asked = await client.asked()
    assert asked["tool"]["arguments"] == {"town": 7}


@pytest.mark.parametrize(
    "content",
    [None, {}, {"output": 1}, {"output": None}, {"text": "rain"}, {"output": "x", "is_error": "yes"}],
    ids=str,
)
async def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays_open(client: Client, content: Any) -> None:
    await client.starts()
    asked = await client.asked()
    with pytest.raises(CommandError) as refused:
        await client.answers(asked, content)
    assert refused.value.code == "invalid_answer"
    assert (refused.value.path or "").startswith("$.content")
    assert client.status == "waiting"
    await client.answers(asked, {"output": "rain"})
    assert (await client.completed())["output"] == "rain"


@pytest.mark.parametrize("field", [{"option": "once"}, {"answers": {"answer": "x"}}, {"arguments": {"city": "Rome"}}])
async def test_a_call_is_answered_with_content_alone(client: Client, field: dict[str, Any]) -> None:
    await client.starts()
    asked = await client.asked()
    with pytest.raises(CommandError) as refused:
        await client.does(InteractionReply(interaction_id=asked["interaction_id"], content={"output": "x"}, **field))
    assert refused.value.code in ("invalid_answer", "not_permitted")
    assert client.status == "waiting"


async def test_a_second_answer_is_told_of_the_first(client: Client) -> None:
    await client.starts()
    asked = await client.asked()
    await client.answers(asked, {"output": "rain"})
    with pytest.raises(CommandError) as refused:
        await client.answers(asked, {"output": "sun"})
    assert refused.value.code == "interaction_resolved"
    assert (await client.completed())["output"] == "rain"


async def test_parts_that_are_none_make_an_error_of_the_call_and_not_of_the_run(client: Client) -> None:
    await client.starts()
    await client.answers(await client.asked(), {"output": "look", "content": [{"type": "video"}]})
    completed = await client.completed()
    assert completed["status"] == "error"
    assert "cannot be read" in completed["output"]
    assert (await client.ended())["type"] == "run.completed"


async def test_a_call_that_nobody_executes_in_time_is_an_error_for_the_model(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(sessions=SessionLimits(interaction_timeout_s=1))
    async with runtime_over(store, tmp_path, settings) as runtime:
        client = await Client.of(runtime)
        await client.starts(f"{CALL}\n/say done")
        completed = await client.completed()
        assert (completed["status"], completed["output"]) == (
            "error",
            "The client did not execute this: nobody answered in time.",
        )
        assert (await client.ended())["output"] == "done"
        with pytest.raises(CommandError) as refused:
            await client.answers(await client.asked(), {"output": "late"})
        assert refused.value.code == "interaction_expired"


@pytest.mark.parametrize("mode", ["graceful", "now"])
async def test_a_run_that_is_stopped_meanwhile_takes_its_question_along(client: Client, mode: Any) -> None:
    await client.starts()
    asked = await client.asked()
    await client.does(RunStop(mode=mode))
    assert (await client.ended())["type"] == "run.cancelled"
    assert (await client.completed())["status"] == "cancelled"
    assert client.saw("interaction.resolved")[0]["outcome"] == "cancelled"
    with pytest.raises(CommandError) as refused:
        await client.answers(asked, {"output": "late"})
    assert refused.value.code == "interaction_resolved"


async def test_calls_that_were_made_together_are_answered_in_any_order(client: Client) -> None:
    script = '/tool weather {"city": "Oslo"}\n/par\n/tool weather {"city": "Rome"}\n/par\n/tool time\n/say done'
    await client.starts(script, WEATHER, TIME)
    await client.asked(3)
    by_call = {a["tool"]["arguments"].get("city", "time"): a for a in client.saw("interaction.requested")}
    assert by_call.keys() == {"Oslo", "Rome", "time"}
    for number, where in enumerate(["time", "Rome", "Oslo"], 1):
        assert client.saw("run.resumed") == []
        await client.answers(by_call[where], {"output": f"of {where}"})
        completed = await client.completed(number)
        assert completed["output"] == f"of {where}"
        assert completed["call_id"] == by_call[where]["call_id"]
    assert (await client.ended())["output"] == "done"
    assert len(client.saw("run.resumed")) == 1


# -- who may -------------------------------------------------------------------------------------------


async def test_no_approval_is_asked_for_whatever_the_mode(client: Client) -> None:
    for count, mode in enumerate(["ask", "deny", "auto"], 1):
        await client.does(ConversationConfigure(config={"approvals": {"mode": mode}}))
        await client.starts()
        asked = await client.asked(count)
        assert asked["kind"] == "client_tool"
        await client.answers(asked, {"output": "rain"})
        await client.ended(count)


async def test_lists_of_what_is_allowed_do_not_hide_it(store: GatedStore, tmp_path: Path) -> None:
    terms = AgentTerms(tools=ToolFilter(allow=["read_file"]), approvals=None)
    settings = RuntimeSettings(agent_terms={"demo": terms}, approvals=ApprovalSettings(mode="deny", ceiling="deny"))
    narrow = Caller(Principal("home", "me", "driver", tools=ToolFilter(allow=["builtin:read_file"])), "socket")
    async with runtime_over(store, tmp_path, settings) as runtime:
        client = await Client.of(runtime, caller=narrow)
        await client.does(ConversationConfigure(config={"tools": {"allow": []}}))
        ok = await client.does(RunStart(input=CALL, tools=ToolFilter(allow=["list_files"])), functions=[WEATHER])
        assert ok.run_id is not None
        assert (await client.asked())["kind"] == "client_tool"


@pytest.mark.parametrize("pattern", ["client:weather", "weather", "client:*", "*"])
async def test_it_is_denied_by_a_filter_that_says_so(client: Client, pattern: str) -> None:
    await client.does(ConversationConfigure(config={"tools": {"deny": [pattern]}}))
    await client.starts()
    completed = await client.completed()
    assert completed["status"] == "denied"
    assert "client:weather is not allowed" in completed["output"]
    assert client.saw("interaction.requested") == client.saw("tool.executing") == []


async def test_it_is_denied_by_the_filter_of_a_key(runtime: Runtime) -> None:
    narrow = Caller(Principal("home", "me", "driver", tools=ToolFilter(deny=["client:*"])), "socket")
    client = await Client.of(runtime, caller=narrow)
    await client.starts()
    assert (await client.completed())["status"] == "denied"


async def test_it_is_denied_by_a_rule_of_the_operators(store: GatedStore, tmp_path: Path) -> None:
    settings = RuntimeSettings(approvals=ApprovalSettings(rules=[ToolRule(tool="client:*", decision="deny")]))
    async with runtime_over(store, tmp_path, settings) as runtime:
        client = await Client.of(runtime)
        await client.starts()
        assert (await client.completed())["status"] == "denied"


async def test_somebody_who_only_looks_does_not_execute_it(runtime: Runtime, client: Client) -> None:
    await client.starts()
    asked = await client.asked()
    observer = Client(runtime, client.conversation, Caller(Principal("home", "them", "observer"), "socket"))
    with pytest.raises(CommandError) as refused:
        await observer.answers(asked, {"output": "forged"})
    assert refused.value.code == "not_permitted"
    assert client.status == "waiting"


async def test_a_function_that_was_not_brought_is_no_tool(client: Client) -> None:
    await client.starts("/tool time")
    completed = await client.completed()
    assert completed["status"] == "error"
    assert "there is no tool 'time'" in completed["output"]
    assert "weather" in completed["output"]


@pytest.mark.parametrize("name", ["client:read_file", "client__read_file"])
async def test_one_with_a_name_of_the_servers_own_is_reached_by_its_long_name(client: Client, name: str) -> None:
    own = ClientTool(name="read_file", description="Of another computer.")
    await client.starts(f'/tool {name} {{"path": "x"}}', own)
    asked = await client.asked()
    assert (asked["tool"]["name"], asked["tool"]["source"]) == ("read_file", "client")
    await client.answers(asked, {"output": "over there"})
    assert (await client.completed())["output"] == "over there"


# -- runs and their functions --------------------------------------------------------------------------


async def test_runs_that_follow_each_other_have_their_own_functions(client: Client) -> None:
    await client.starts()
    await client.starts("/tool weather\n/tool time", TIME)
    await client.answers(await client.asked(), {"output": "rain"})
    await client.ended(1)
    asked = await client.asked(2)
    assert asked["tool"]["name"] == "time"
    failed = client.saw("tool.completed")[1]
    assert (failed["name"], failed["status"]) == ("weather", "error")
    assert "there is no tool 'weather'" in failed["output"]


async def test_runs_of_two_conversations_do_not_see_each_others(runtime: Runtime) -> None:
    one = await Client.of(runtime)
    other = await Client.of(runtime, ConversationRef("home", "other"))
    await one.starts()
    await other.starts("/tool weather", TIME)
    await one.asked()
    assert "there is no tool 'weather'" in (await other.completed())["output"]


async def test_a_reply_brings_other_functions_and_the_run_goes_on_with_those(client: Client) -> None:
    run_id = await client.starts(f"{CALL}\n/tool time\n{CALL}")
    beside: dict[str, Any] = {"tool_choice": "required", "parameters": {"temperature": 0.5}}
    await client.answers(await client.asked(), {"output": "rain"}, functions=[TIME], **beside)
    asked = await client.asked(2)
    assert asked["tool"]["name"] == "time"
    options = client.conversation.session.options[run_id]
    assert ([f.name for f in options.functions], options.tool_choice, options.choice_step) == (["time"], "required", 2)
    assert options.parameters == {"temperature": 0.5}
    await client.answers(asked, {"output": "noon"})
    assert "there is no tool 'weather'" in (await client.completed(3))["output"]


async def test_a_reply_that_brings_none_leaves_them_and_an_empty_list_takes_them_away(client: Client) -> None:
    run_id = await client.starts(f"{CALL}\n{CALL}\n{CALL}", parameters={"top_p": 0.1})
    await client.answers(await client.asked(1), {"output": "1"})
    await client.answers(await client.asked(2), {"output": "2"}, functions=[])
    assert "there is no tool 'weather'" in (await client.completed(3))["output"]
    row = await client.runtime.store.find_run("home", run_id)
    assert row is not None
    assert b"weather" not in row[1].options


async def test_a_refused_reply_changes_nothing_of_the_run(client: Client) -> None:
    run_id = await client.starts()
    with pytest.raises(CommandError):
        await client.answers(await client.asked(), {}, functions=[TIME], parameters={"temperature": 2})
    options = client.conversation.session.options[run_id]
    assert ([f.name for f in options.functions], options.parameters) == (["weather"], {})


async def test_one_of_several_calls_may_be_answered_with_functions_that_the_others_are_not_among(
    client: Client,
) -> None:
    await client.starts(f"{CALL}\n/par\n/tool time\n/say done", WEATHER, TIME)
    await client.asked(2)
    by_name = {asked["tool"]["name"]: asked for asked in client.saw("interaction.requested")}
    await client.answers(by_name["weather"], {"output": "rain"}, functions=[])
    await client.answers(by_name["time"], {"output": "noon"})
    await client.ended()
    assert [event["output"] for event in client.saw("tool.completed")] == ["rain", "noon"]


async def test_a_run_that_is_tried_again_has_its_functions_still(client: Client) -> None:
    first = await client.starts(f"{CALL}\n{CALL}", parameters={"temperature": 0.5})
    await client.asked()
    await client.does(RunStop())
    await client.ended()
    ok = await client.does(RunRetry(run_id=first))
    await client.answers(await client.asked(2), {"output": "snow"})
    assert (await client.completed(2))["output"] == "snow"
    assert (await client.ended(2))["type"] == "run.completed"
    row = await client.runtime.store.find_run("home", ok.run_id or "")
    assert row is not None
    assert b'"temperature":0.5' in row[1].options


# -- restarts ------------------------------------------------------------------------------------------


async def test_a_question_outlives_the_server_and_its_answer_resumes_the_run(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.starts(f"{CALL}\n/say done")
        asked = await client.asked()
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await until(lambda: client.saw("run.recovered") != [])
        assert [a["interaction_id"] for a in client.saw("interaction.requested")] == [asked["interaction_id"]]
        await client.answers(asked, {"output": "rain"})
        completed = await client.completed()
        assert (completed["status"], completed["output"]) == ("ok", "rain")
        assert (await client.ended())["output"] == "done"
        assert len(client.saw("interaction.requested")) == len(client.saw("tool.executing")) == 1


async def test_an_answer_right_before_the_server_goes_is_not_asked_for_again(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.starts(f"{CALL}\n/say done")
        await client.answers(await client.asked(), {"output": "rain"})
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        assert (await client.ended())["output"] == "done"
        assert (await client.completed())["output"] == "rain"
        assert len(client.saw("interaction.requested")) == 1


async def test_what_a_reply_brought_holds_after_a_restart(store: GatedStore, tmp_path: Path) -> None:
    beside: dict[str, Any] = {"tool_choice": "time", "parameters": {"temperature": 0.5}}
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        run_id = await client.starts(f"{CALL}\n/tool time\n/tool time")
        await client.answers(await client.asked(), {"output": "rain"}, functions=[TIME], **beside)
        asked = await client.asked(2)
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.answers(asked, {"output": "noon"})
        assert (await client.asked(3))["tool"]["name"] == "time"
        options = client.conversation.session.options[run_id]
        assert (options.tool_choice, options.parameters) == ("time", {"temperature": 0.5})


async def test_what_one_of_several_replies_brought_holds_after_a_restart(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        run_id = await client.starts(f'{CALL}\n/par\n/tool weather {{"city": "Rome"}}')
        await client.asked(2)
        first, second = client.saw("interaction.requested")
        await client.answers(first, {"output": "rain"}, functions=[TIME], parameters={"temperature": 0.5})
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.answers(second, {"output": "sun"})
        options = client.conversation.session.options[run_id]
        assert ([f.name for f in options.functions], options.parameters) == (["time"], {"temperature": 0.5})


async def test_several_questions_are_each_answered_after_a_restart(store: GatedStore, tmp_path: Path) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.starts(f'{CALL}\n/par\n/tool weather {{"city": "Rome"}}\n/say done')
        await client.asked(2)
        by_city = {a["tool"]["arguments"]["city"]: a for a in client.saw("interaction.requested")}
        await client.answers(by_city["Rome"], {"output": "of Rome"})
        await client.completed()
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.answers(by_city["Oslo"], {"output": "of Oslo"})
        await client.ended()
        calls = {event["call_id"]: event["output"] for event in client.saw("tool.completed")}
        assert calls == {by_city[city]["call_id"]: f"of {city}" for city in by_city}


async def test_a_call_whose_function_was_taken_away_is_still_answered_after_a_restart(
    store: GatedStore, tmp_path: Path
) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.starts(f"{CALL}\n/par\n/tool time\n/say done", WEATHER, TIME)
        await client.asked(2)
        by_name = {asked["tool"]["name"]: asked for asked in client.saw("interaction.requested")}
        await client.answers(by_name["weather"], {"output": "rain"}, functions=[])
        await client.completed()
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.answers(by_name["time"], {"output": "noon"})
        assert (await client.completed(2))["output"] == "noon"
        assert (await client.ended())["output"] == "done"


async def test_a_function_that_was_denied_meanwhile_is_not_gone_on_with_after_a_restart(
    store: GatedStore, tmp_path: Path
) -> None:
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        await client.starts(f"{CALL}\n/say done")
        await client.asked()
        await client.does(ConversationConfigure(config={"tools": {"deny": ["client:*"]}}))
    async with runtime_over(store, tmp_path) as runtime:
        client = await Client.of(runtime)
        completed = await client.completed()
        assert completed["status"] == "interrupted"
        assert re.search("is not allowed", completed["output"])
        assert (await client.ended())["output"] == "done"
        assert client.saw("interaction.resolved")[0]["outcome"] == "cancelled"


async def test_a_failed_commit_loses_neither_the_question_nor_the_functions(client: Client, store: GatedStore) -> None:
    await client.starts(f"{CALL}\n{CALL}")
    asked = await client.asked()
    store.failing = True
    with pytest.raises(CommandError) as refused:
        await client.answers(asked, {"output": "rain"})
    assert refused.value.code == "internal"
    store.failing = False
    again = await Client.of(client.runtime)
    await again.answers(asked, {"output": "rain"})
    assert (await again.completed())["output"] == "rain"
    assert (await again.asked(2))["tool"]["name"] == "weather"
