"""Whatever the body of a chat completion is, it is read or refused, and the refusal can be sent."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_ws.compat.chat_request import ChatRequest, read_chat
from hermes_ws.compat.errors import ApiError, envelope
from hermes_ws.compat.past import Past
from hermes_ws.protocol.commands import RunStart

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(["text", "image_url", "file", "function", "f", "a", "", "data:image/gif;base64,R0lGODlh", "{}"])


def mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """As it should be or, now and then, anything else."""
    return st.integers(0, 40).flatmap(lambda n: value if n else ANYTHING)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with any of these fields."""
    return st.fixed_dictionaries({}, optional={name: mostly(value) for name, value in fields.items()})


FUNCTION = some(name=WORDS, arguments=WORDS, parameters=st.just({"type": "object"}), description=WORDS)
PART = some(type=WORDS, text=WORDS, image_url=some(url=WORDS, detail=WORDS) | WORDS)
CALL = some(id=WORDS, type=st.just("function"), function=FUNCTION)
TEXT = st.builds(lambda text: {"type": "text", "text": text}, WORDS)
PLAIN = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["system", "user", "user", "assistant"]),
    WORDS | st.lists(TEXT, min_size=1, max_size=2),
)
MESSAGE = PLAIN | some(
    role=st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"]),
    content=WORDS | st.lists(PART, max_size=3),
    tool_calls=st.lists(CALL, max_size=2),
    function_call=FUNCTION,
    tool_call_id=WORDS,
    name=WORDS,
    reasoning_content=WORDS,
)
BODY = some(
    messages=st.lists(MESSAGE, max_size=4) | st.lists(PLAIN, min_size=1, max_size=4),
    model=WORDS,
    stream=st.booleans(),
    tools=st.lists(some(type=st.just("function"), function=FUNCTION), max_size=2),
    tool_choice=st.sampled_from(["auto", "none", "required"]) | some(type=WORDS, function=FUNCTION, name=WORDS),
    functions=st.lists(FUNCTION, max_size=2),
    function_call=WORDS | FUNCTION,
    response_format=some(type=st.sampled_from(["text", "json_schema"]), json_schema=some(name=WORDS)),
    temperature=st.floats(0, 2),
    stop=WORDS | st.lists(WORDS, max_size=2),
)


def outcome(body: dict[str, Any]) -> tuple[ChatRequest, Past] | ApiError:
    try:
        request = read_chat(body)
        return request, request.past()
    except ApiError as error:
        return error


@settings(max_examples=600)
@given(body=BODY)
def test_every_body_is_read_or_refused(body: dict[str, Any]) -> None:
    came_to = outcome(body)
    if isinstance(came_to, ApiError):
        assert came_to.status == 400
        assert came_to.param is not None
        msgspec.json.encode(envelope(came_to))
        return
    request, past = came_to
    assert (request.said is None) == bool(request.results)
    assert past or request.said
    msgspec.json.encode(RunStart(input=request.said or "-", instructions=request.instructions))
    msgspec.json.encode([request.parameters, request.functions])
