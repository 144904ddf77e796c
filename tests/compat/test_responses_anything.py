"""Whatever a client sends as a request for a response, it is read or refused, and what is read can be shown."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.item_lists import page_of, shown
from hermes_ws.compat.responses_input import references, turn_of
from hermes_ws.compat.responses_request import read_create

_WORDS = """a user assistant system message reasoning function_call function_call_output auto mcp_call c1 {}
mcp_approval_response item_reference function required json_schema input_text output_text input_image low
https://a.example/b.png data:image/png;base64,aGk="""
_NAMES = """type role content text id call_id name arguments output summary approve approval_request_id reason
image_url detail error function parameters format schema"""
WORDS = st.sampled_from(["", *_WORDS.split()])
NAMES = st.sampled_from(_NAMES.split())
LEAVES = st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | WORDS
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12
)
PARTS = st.lists(st.fixed_dictionaries({"type": WORDS, "text": WORDS | LEAVES}, optional={"image_url": ANYTHING}))
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"type": WORDS},
        optional={
            "role": WORDS,
            "content": WORDS | PARTS | ANYTHING,
            "id": ANYTHING,
            "call_id": WORDS,
            "name": WORDS,
            "arguments": WORDS,
            "output": WORDS | PARTS | ANYTHING,
            "summary": PARTS | ANYTHING,
            "approve": st.booleans(),
            "approval_request_id": WORDS,
        },
    ),
    max_size=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["model", "tools", "tool_choice", "text", "reasoning", "metadata", "conversation", "temperature", "store"]
    ),
    ANYTHING,
    max_size=3,
)


@settings(max_examples=400, deadline=None)
@given(items=ITEMS | WORDS | ANYTHING, fields=FIELDS)
def test_it_is_read_or_refused(items: Any, fields: dict[str, Any]) -> None:
    refusal = None
    try:
        request = read_create({"input": items, **fields}, most_items=100, most_functions=10)
        opening = request.opening("resp_1", 1, "demo", None)
        references(request.items)
        turn_of(request.items)
    except ApiError as refused:
        refusal = refused
    if refusal is not None:
        assert (refusal.status, refusal.param is not None) == (400, True)
        return
    listed = shown(request.items, opening.id)
    assert all(isinstance(item["id"], str) and item["id"] for item in listed)
    page = page_of(listed, {"order": "asc", "limit": "100"})
    assert msgspec.json.decode(msgspec.json.encode(page))["data"] == msgspec.json.decode(msgspec.json.encode(listed))
    assert msgspec.json.encode(opening)
