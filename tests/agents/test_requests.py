"""What an endpoint is sent: messages, names, schemas, settings."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_ws.agents.llm.names import FunctionNames
from hermes_ws.agents.llm.schemas import mended
from hermes_ws.errors import HermesError, SettingsError
from hermes_ws.history import AssistantTurn, CallMade, HistoryEntry, ToolAnswer, UserTurn
from hermes_ws.protocol.values import ImagePart, TextPart, ToolStatus
from tests.agents.conftest import Asker, request_for, tool, user
from tests.agents.endpoint_server import Endpoint, chunk, streams, text

Message = dict[str, Any]
PICTURE = "data:image/png;base64,iVBORw0KGgo="


def call(call_id: str = "c1", name: str = "look", source: str = "builtin", **arguments: Any) -> CallMade:
    return CallMade(call_id, name, source, arguments)


def step(said: str = "", *calls: CallMade, **fields: Any) -> AssistantTurn:
    return AssistantTurn("run_1", said, fields.pop("reasoning", ""), list(calls), **fields)


def answer(call_id: str = "c1", output: str = "seen", status: ToolStatus = "ok", **fields: Any) -> ToolAnswer:
    return ToolAnswer(call_id, "look", status, output, fields.get("content"))


@pytest.fixture
async def sent(endpoint: Endpoint, ask: Asker) -> Any:
    """The messages that a history becomes."""
    endpoint.plays(text("ok"))

    async def messages(*history: HistoryEntry, **more: Any) -> list[Message]:
        request = {name: more.pop(name) for name in ("instructions", "image", "tools") if name in more}
        await ask(request_for(history, **request), **more)
        found: list[Message] = endpoint.last.body["messages"]
        check(found)
        return found

    return messages


def check(messages: list[Message]) -> None:
    """What endpoints insist on."""
    assert messages[-1]["role"] != "assistant"
    assert [m["role"] for m in messages].count("system") == (messages[0]["role"] == "system")
    seen: set[str] = set()
    waiting: list[str] = []
    for before, message in zip([None, *messages], messages, strict=False):
        if message["role"] == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
            assert isinstance(message["content"], str)
            assert message["content"]
            continue
        assert not waiting, f"no answer to {waiting}"
        assert before is None or before["role"] != message["role"], "the roles do not alternate"
        waiting = [called["id"] for called in message.get("tool_calls", [])]
        assert not seen & set(waiting)
        seen |= set(waiting)
        for called in message.get("tool_calls", []):
            assert re.fullmatch(r"[A-Za-z0-9_.:-]{1,40}", called["id"])
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", called["function"]["name"])
            assert isinstance(json.loads(called["function"]["arguments"]), dict)
    assert not waiting


# -- messages --------------------------------------------------------------------------------------------


async def test_instructions_come_first_and_only_if_there_are_some(sent: Any) -> None:
    assert await sent(user("hi"), instructions="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]
    assert await sent(user("hi")) == [{"role": "user", "content": "hi"}]


async def test_calls_are_followed_by_the_answers_to_all_of_them(sent: Any) -> None:
    messages = await sent(
        user("look"), step("I look.", call("c1", n=1), call("c2", n=2)), answer("c2", "two"), answer("c1", "one")
    )
    assert messages[1] == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"n":1}'}},
            {"id": "c2", "type": "function", "function": {"name": "look", "arguments": '{"n":2}'}},
        ],
    }
    assert [(m["tool_call_id"], m["content"]) for m in messages[2:]] == [("c1", "one"), ("c2", "two")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(output=""), "[no output]"),
        (answer(output="no such file", status="error"), "[error] no such file"),
        (answer(output="Denied: not now.", status="denied"), "Denied: not now."),
        (answer(output="", status="denied"), "[denied]"),
        (answer(output="", status="cancelled"), "[cancelled]"),
        (answer(output="[interrupted: look first]", status="interrupted"), "[interrupted: look first]"),
        (answer(output="half", status="executing"), "half\n[there is no answer to this call]"),
        (answer("another"), "[there is no answer to this call]"),
    ],
)
async def test_the_model_reads_what_became_of_a_call(sent: Any, given: ToolAnswer, expected: str) -> None:
    assert (await sent(user("hi"), step("", call()), given))[2]["content"] == expected


async def test_an_answer_to_no_call_is_left_out(sent: Any) -> None:
    assert len(await sent(user("hi"), answer("c9"), step("yes"), answer("c8"), user("so"))) == 3


async def test_ids_are_made_valid_and_unique(sent: Any) -> None:
    ids = ["same", "same", "functions.look:0", "x" * 41, "has space", "has space", "", "ünï"]
    history: list[HistoryEntry] = [user("hi")]
    for call_id in ids:
        history += [step("", call(call_id)), answer(call_id, f"of {call_id!r}")]
    messages = await sent(*history)
    made = [m["tool_call_id"] for m in messages if m["role"] == "tool"]
    assert len(set(made)) == len(ids)
    assert (made[0], made[2]) == ("same", "functions.look:0")
    assert [m["content"] for m in messages if m["role"] == "tool"] == [f"of {call_id!r}" for call_id in ids]


async def test_what_the_user_says_in_one_go_is_one_message(sent: Any) -> None:
    messages = await sent(user("one"), step(), user("two"), user("three", steered=True), step("yes"), user("four"))
    assert [(m["role"], m["content"]) for m in messages] == [
        ("user", "one\n\ntwo\n\nthree"),
        ("assistant", "yes"),
        ("user", "four"),
    ]


async def test_steered_text_follows_the_answers(sent: Any) -> None:
    messages = await sent(user("hi"), step("", call()), answer(), user("hurry", steered=True))
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "user"]


async def test_an_answer_that_was_cut_off_is_gone_on_with(sent: Any) -> None:
    messages = await sent(user("hi"), step("Once upon", partial=True))
    assert messages[1] == {"role": "assistant", "content": "Once upon"}
    assert "cut off" in messages[2]["content"]
    messages = await sent(user("hi"), step("Once upon", partial=True), step("a time", call()), answer())
    assert messages[1]["content"] == "Once upon\n\na time"
    assert messages[1]["tool_calls"][0]["id"] == "c1"


async def test_reasoning_of_this_run_is_sent_back_only_if_wanted(sent: Any) -> None:
    history = [
        user("one"), step("1", reasoning="old"), user("two"), step("", call(), reasoning="new"), answer()
    ]  # fmt: skip
    assert not any("reasoning_content" in m for m in await sent(*history))
    wanted = await sent(*history, send_reasoning=True)
    assert [m.get("reasoning_content") for m in wanted] == [None, None, None, "new", None]


# -- images ----------------------------------------------------------------------------------------------


def picture(url: str = PICTURE, detail: str | None = None) -> ImagePart:
    return ImagePart(url=url, detail=detail)


async def test_images_go_with_the_text_as_the_conversation_gives_them(sent: Any) -> None:
    async def handed_on(part: ImagePart) -> str:
        return f"{part.url}#stored"

    said = UserTurn("run_1", "what is it?", [TextPart(text="what is it?"), picture(), picture(detail="low")], False)
    assert (await sent(said, image=handed_on))[0]["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": f"{PICTURE}#stored"}},
        {"type": "image_url", "image_url": {"url": f"{PICTURE}#stored", "detail": "low"}},
    ]


async def test_images_that_tools_return_follow_all_their_answers(sent: Any) -> None:
    messages = await sent(
        user("draw"),
        step("", call("c1"), call("c2")),
        answer("c1", "done", content=[TextPart(text="done"), picture()]),
        answer("c2", "done too"),
        user("and?", steered=True),
    )
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert [part["type"] for part in messages[4]["content"]] == ["text", "image_url", "text"]


async def test_a_model_without_eyes_is_told_that_there_was_an_image(sent: Any) -> None:
    said = UserTurn("run_1", "look", [TextPart(text="look"), picture()], False)
    assert (await sent(said, images=False))[0]["content"] == "look\n[an image, which this model is not shown]"


async def test_an_image_that_is_gone_does_not_end_the_run(sent: Any) -> None:
    async def gone(part: ImagePart) -> str:
        raise HermesError("no such blob")

    assert (await sent(UserTurn("r", "", [picture()], False), image=gone))[0]["content"].startswith("[an image")


# -- names -----------------------------------------------------------------------------------------------


def test_a_tool_keeps_its_name_where_it_can() -> None:
    tools = [
        tool("read_file"),
        tool("find", "mcp:crm"),
        tool("find", "mcp:github"),
        tool("read_file", "mcp:disk"),
        tool("get_issue", "mcp:github"),
        tool("issues.list/all", "mcp:github"),
        tool("open_tab", "client"),
    ]
    names = FunctionNames(tools, [])
    assert [names.of(t) for t in tools] == [
        "read_file",
        "crm__find",
        "github__find",
        "disk__read_file",
        "get_issue",
        "github__issues_list_all",
        "open_tab",
    ]
    assert [names.meant(names.of(t)) for t in tools] == [
        "read_file",
        "mcp:crm/find",
        "mcp:github/find",
        "mcp:disk/read_file",
        "mcp:github/get_issue",
        "mcp:github/issues.list/all",
        "client:open_tab",
    ]


def test_names_that_are_too_long_or_taken_have_a_hash() -> None:
    tools = [tool("n" * 128, "mcp:a"), tool("n" * 127 + "m", "mcp:a"), tool("x.y", "mcp:a"), tool("x/y", "mcp:a")]
    made = [FunctionNames(tools, []).of(t) for t in tools]
    assert len(set(made)) == 4
    assert {len(name) for name in made[:2]} == {64}
    assert made[2] == "a__x_y"
    assert re.fullmatch(r"a__x_y_[0-9a-f]{8}", made[3])


def test_calls_of_tools_that_are_gone_have_a_name_that_no_other_has() -> None:
    history = [step("", call(name="find", source="mcp:old"), call(name="gone", source="mcp:old"))]
    names = FunctionNames([tool("find", "mcp:new")], history)
    assert names.of(tool("find", "mcp:new")) == "find"
    assert [names.of(made) for made in history[0].calls] == ["old__find", "gone"]
    assert names.meant("old__find") == "mcp:old/find"


def test_a_call_that_a_client_tells_of_is_one_of_the_tool_with_that_name() -> None:
    told = [call(name="terminal", source="client"), call(name="find", source="client"), call(name="x", source="client")]
    names = FunctionNames([tool("terminal"), tool("find", "mcp:a"), tool("find", "mcp:b")], [step("", *told)])
    assert [names.of(made) for made in told] == ["terminal", "find", "x"]
    assert names.meant("terminal") == "terminal"
    both = FunctionNames([tool("terminal"), tool("terminal", "client")], [step("", *told)])
    assert both.of(told[0]) == "client__terminal"


def test_a_name_that_nobody_gave_goes_through_as_it_is() -> None:
    assert FunctionNames([tool("find", "mcp:a")], []).meant("seek and destroy") == "seek and destroy"


parts_of_names = st.text(st.sampled_from("ab_./-é "), min_size=1, max_size=70)
sources = st.one_of(st.sampled_from(["builtin", "client", "hermes"]), parts_of_names.map("mcp:{}".format))


@given(st.lists(st.tuples(sources, parts_of_names), unique=True), st.randoms())
def test_every_tool_has_a_valid_name_of_its_own_whatever_their_order(keys: list[tuple[str, str]], random: Any) -> None:
    tools = [tool(name, source) for source, name in keys]
    names = FunctionNames(tools, [])
    made = [names.of(t) for t in tools]
    assert len(set(made)) == len(tools)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in made)
    random.shuffle(tools)
    again = FunctionNames(tools, [])
    assert {names.of(t): again.of(t) for t in tools} == {name: name for name in made}


async def test_a_call_comes_back_under_the_tools_own_name(endpoint: Endpoint, ask: Asker) -> None:
    piece = {"index": 0, "id": "x", "function": {"name": "crm__find", "arguments": "{}"}}
    endpoint.plays(streams(chunk({"tool_calls": [piece]}), chunk(finish="tool_calls")))
    tools = [tool("find", "mcp:crm"), tool("find", "mcp:github")]
    heard = await ask(request_for([user("hi"), step("", call("c1", "find", "mcp:github")), answer()], tools))
    assert heard.calls[0].name == "mcp:crm/find"
    assert [t["function"]["name"] for t in endpoint.last.body["tools"]] == ["crm__find", "github__find"]
    assert endpoint.last.body["messages"][1]["tool_calls"][0]["function"]["name"] == "github__find"


# -- schemas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({"type": "object", "properties": None, "required": []}, {"type": "object", "properties": {}}),
        ({"$schema": "x", "$id": "y", "properties": {}}, {"type": "object", "properties": {}}),
        (
            {"properties": {"a": True, "b": {"type": "array"}, "c": {"items": {"properties": {"d": True}}}}},
            {
                "type": "object",
                "properties": {
                    "a": {},
                    "b": {"type": "array", "items": {}},
                    "c": {"items": {"properties": {"d": {}}}},
                },
            },
        ),
        (
            {"anyOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {}}}, True]},
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}},
        ),
        (
            {"oneOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"a": {"const": 2}, "b": {}}}]},
            {"type": "object", "properties": {"a": {"anyOf": [{"const": 1}, {"const": 2}]}, "b": {}}},
        ),
        (
            {"allOf": [{"properties": {"a": {}}, "required": ["a"]}], "required": ["b"], "properties": {"b": {}}},
            {"type": "object", "properties": {"b": {}, "a": {}}, "required": ["b", "a"]},
        ),
    ],
)
def test_schemas_are_mended_where_endpoints_refuse_them(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert mended(schema) == expected


def test_a_schema_that_needs_no_mending_stays_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"], "enum": ["x", None]}, "b": {"$ref": "#/$defs/b"}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"b": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]}},
    }
    assert mended(schema) == schema


def test_a_schema_without_end_is_left_alone() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5_000):
        schema = {"type": "object", "properties": {"a": schema}}
    assert mended(schema)["type"] == "object"


types = st.sampled_from([{"type": "string"}, {"type": "array"}, True, {}, {"type": "integer"}])
properties = st.dictionaries(st.sampled_from("abc"), types)
required = st.lists(st.sampled_from("abc"), unique=True)
objects = st.fixed_dictionaries({}, optional={"properties": properties, "required": required})
closed = st.fixed_dictionaries(
    {"additionalProperties": st.just(False), "properties": properties}, optional={"required": required}
)
schemas = st.one_of(
    st.builds(lambda own, branches: {**own, "allOf": branches}, objects, st.lists(objects, min_size=1, max_size=2)),
    st.builds(
        lambda own, key, branches: {**own, key: branches},
        objects,
        st.sampled_from(["anyOf", "oneOf"]),
        st.lists(closed, min_size=1, max_size=3),
    ),
)
instances = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", 1, [1], None]))


@given(schemas, instances)
def test_what_a_tool_takes_its_mended_schema_takes_too(schema: dict[str, Any], instance: dict[str, Any]) -> None:
    if jsonschema.Draft202012Validator(schema).is_valid(instance):
        jsonschema.validate(instance, mended(schema), jsonschema.Draft202012Validator)


# -- everything else -------------------------------------------------------------------------------------


async def test_the_request_is_what_the_settings_make_it(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("ok"))
    await ask(
        request_for(model="another"),
        options={"temperature": 0, "parallel_tool_calls": False},
        max_output_tokens=99,
        output_limit_field="max_completion_tokens",
    )
    assert endpoint.last.body == {
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 99,
        "temperature": 0,
        "parallel_tool_calls": False,
        "model": "another",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
    assert endpoint.last.path == "/v1/chat/completions"


async def test_a_base_url_may_end_with_a_slash(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("ok"))
    await ask(base_url=f"{endpoint.url}/")
    assert endpoint.last.path == "/v1/chat/completions"


# -- what comes with a run -------------------------------------------------------------------------------


async def test_parameters_of_the_run_go_along_under_their_names(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("ok"))
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    given = {"temperature": 0.1, "stop": ["END"], "seed": 7, "response_format": shape, "user": "u1"}
    await ask(request_for(parameters={**given, "top_p": None}))
    assert given.items() <= endpoint.last.body.items()
    assert "top_p" not in endpoint.last.body


async def test_nothing_goes_along_that_is_no_parameter(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("ok"))
    await ask(request_for(parameters={"model": "another", "n": 3, "stream": False, "messages": [], "logprobs": True}))
    assert endpoint.last.body == {
        "stream_options": {"include_usage": True},
        "model": "test-model",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }


async def test_what_the_operator_fixed_stays(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("ok"))
    await ask(request_for(parameters={"temperature": 2, "seed": 7, "user": "me"}), options={"temperature": 0})
    assert (endpoint.last.body["temperature"], endpoint.last.body["seed"]) == (0, 7)
    await ask(request_for(parameters={"temperature": 2, "min_p": 1}), client_parameters=["min_p"])
    assert "temperature" not in endpoint.last.body
    assert endpoint.last.body["min_p"] == 1


@pytest.mark.parametrize(
    ("asked", "settings", "expected"),
    [
        ({"max_tokens": 50}, {}, {"max_tokens": 50}),
        ({"max_completion_tokens": 50}, {}, {"max_tokens": 50}),
        ({"max_tokens": 60, "max_completion_tokens": 50}, {}, {"max_tokens": 50}),
        (
            {"max_tokens": 50},
            {"output_limit_field": "max_completion_tokens", "max_output_tokens": 99},
            {"max_completion_tokens": 50},
        ),
        ({"max_tokens": 500}, {"max_output_tokens": 99}, {"max_tokens": 99}),
        ({"max_tokens": 500}, {"max_output_tokens": 99, "client_parameters": []}, {"max_tokens": 99}),
        ({"max_tokens": 50}, {"client_parameters": []}, {}),
        ({"max_tokens": 50}, {"options": {"max_completion_tokens": 70}}, {"max_completion_tokens": 70}),
        ({"max_tokens": 1_000_000}, {"context_window": 8_000}, {"max_tokens": 4_000}),
        ({"max_tokens": 0}, {}, {}),
        ({"max_tokens": "many"}, {}, {}),
        ({"max_tokens": True}, {}, {}),
    ],
)
async def test_the_length_of_an_answer_is_bounded_by_the_operator(
    endpoint: Endpoint, ask: Asker, asked: dict[str, Any], settings: dict[str, Any], expected: dict[str, int]
) -> None:
    endpoint.plays(text("ok"))
    await ask(request_for(parameters=asked), **settings)
    sent = {name: value for name, value in endpoint.last.body.items() if name.startswith("max_")}
    assert sent == expected


@pytest.mark.parametrize("field", ["messages", "tools", "tool_choice", "stream_options"])
def test_no_setting_lets_clients_write_the_request_itself(ask: Asker, field: str) -> None:
    with pytest.raises(SettingsError, match=f"client_parameters: {field} cannot be set there"):
        ask.model(client_parameters=["seed", field])


TOOLS = [tool("look"), tool("look", "mcp:crm"), tool("look up", "client"), tool("wave", "client")]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("required", "required"),
        ("wave", "wave"),
        ("look up", "client__look_up"),
        ("look", "look"),
        ("mcp:crm/look", "crm__look"),
        ("denied", None),
    ],
)
async def test_a_choice_names_the_tool_as_the_endpoint_knows_it(
    endpoint: Endpoint, ask: Asker, choice: str | None, expected: str | None
) -> None:
    endpoint.plays(text("ok"))
    await ask(request_for(tools=TOOLS, tool_choice=choice))
    sent = endpoint.last.body.get("tool_choice")
    assert sent == (
        expected if expected in (None, "required") else {"type": "function", "function": {"name": expected}}
    )
    assert len(endpoint.last.body["tools"]) == 4


async def test_a_function_of_the_client_is_meant_before_a_tool_of_the_same_name(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("ok"))
    await ask(request_for(tools=[tool("look"), tool("look", "client")], tool_choice="look"))
    assert endpoint.last.body["tool_choice"]["function"]["name"] == "client__look"


async def test_without_a_choice_nothing_is_offered_until_calls_have_to_be_explained(
    endpoint: Endpoint, ask: Asker
) -> None:
    endpoint.plays(text("ok"))
    await ask(request_for(tools=TOOLS, tool_choice="none", parameters={"parallel_tool_calls": False}))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & endpoint.last.body.keys()
    await ask(request_for([user("hi"), step("", call()), answer()], TOOLS, tool_choice="none"))
    assert endpoint.last.body["tool_choice"] == "none"
    assert len(endpoint.last.body["tools"]) == 4


async def test_a_choice_among_no_tools_is_not_sent(endpoint: Endpoint, ask: Asker) -> None:
    endpoint.plays(text("ok"))
    await ask(request_for(tool_choice="required"))
    assert "tool_choice" not in endpoint.last.body
