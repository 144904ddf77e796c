"""Known secrets are found in every form that is likely, whole or in pieces, and nothing else is touched."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hermes_ws.protocol.codec import decode_event
from hermes_ws.protocol.events import EVENT_TYPES
from hermes_ws.scrub import PLACEHOLDER, Flow, Scrubber, known
from tests.protocol.golden_files import FRAME_FILES, frame_type

TOKEN = "tok+3141592653/589793"
"""With characters that every encoding treats in its own way."""
HEADER = f"Bearer {TOKEN}"
BASIC = "Basic " + base64.b64encode(b"anna:open sesame!").decode()

EVENT_FILES = [path for path in FRAME_FILES if frame_type(path) in EVENT_TYPES]
words = st.text(st.characters(codec="utf-8"), min_size=8, max_size=40)
"""Secrets as people may choose them."""
around = st.text(st.characters(codec="utf-8"), max_size=12)

FORMS: list[Callable[[str], str]] = [
    lambda s: s,
    lambda s: json.dumps(s),
    lambda s: json.dumps(s, ensure_ascii=False),
    lambda s: json.dumps({"a": json.dumps([s])}),
    lambda s: json.dumps(s).replace("/", "\\/"),
    repr,
    lambda s: quote(s),
    lambda s: quote(s, safe=""),
    lambda s: quote(s, safe="!'()*"),
    lambda s: quote_plus(s),
    lambda s: re.sub("%..", lambda found: found[0].lower(), quote_plus(s)),
    lambda s: s.encode().hex(),
    lambda s: s.encode().hex().upper(),
    lambda s: base64.b64encode(s.encode()).decode(),
    lambda s: base64.urlsafe_b64encode(b"x" + s.encode()).decode(),
    lambda s: base64.b64encode(b"xy" + s.encode() + b"z").decode(),
    lambda s: base64.b64encode(b"GET / HTTP/1.1\r\nAuthorization: " + s.encode() + b"\r\n\r\n").decode(),
]


def scrubber(*secrets: str, also: Scrubber | None = None) -> Scrubber:
    made = Scrubber(also)
    made.set(secrets)
    return made


def encoded(text: str) -> bytes:
    return msgspec.json.encode({"type": "tool.completed", "output": text, "structured": {text: [text]}})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [HEADER, TOKEN, 'with "quotes" and \\', "contraseña€ / ' \n"])
def test_a_secret_is_found_in_every_form(secret: str, form: Callable[[str], str]) -> None:
    text = form(secret)
    for hidden in (scrubber(secret).text(f"<{text}>"), scrubber(secret).data(encoded(text)).decode()):
        assert PLACEHOLDER in hidden
        assert text not in hidden
        assert secret not in hidden


@pytest.mark.parametrize("text", [TOKEN, f"token={TOKEN}", f"bearer {TOKEN}"])
def test_a_header_is_found_without_its_scheme(text: str) -> None:
    assert TOKEN not in scrubber(HEADER).text(text)


@pytest.mark.parametrize("text", [BASIC, BASIC[6:], "anna:open sesame!", "the password is open sesame!"])
def test_basic_credentials_are_found_decoded(text: str) -> None:
    hidden = scrubber(BASIC).text(text)
    assert PLACEHOLDER in hidden
    assert "sesame" not in hidden
    assert BASIC[6:] not in hidden


def test_a_basic_header_that_is_none_is_a_secret_like_any_other() -> None:
    assert scrubber("Basic nobase64!").text("it is nobase64!") == "it is [secret]"


@given(secret=words, before=around, after=around, form=st.sampled_from(FORMS))
def test_whatever_the_secret_is_and_wherever_it_stands_it_is_found(
    secret: str, before: str, after: str, form: Callable[[str], str]
) -> None:
    text = before + form(secret) + after
    found = scrubber(secret)
    assert found.text(text) != text
    assert PLACEHOLDER in found.text(text)
    assert found.data(encoded(text)) != encoded(text)


@given(secret=words, text=st.text(max_size=60))
def test_what_has_no_secret_in_it_stays_as_it_is(secret: str, text: str) -> None:
    assume(secret not in text)
    data = encoded(text)
    hidden = scrubber("a-secret-that-is-nowhere", secret + "0123456789")
    assume(PLACEHOLDER not in hidden.text(text))
    assert hidden.text(text) is text
    assert hidden.data(data) is data


def test_short_secrets_are_left_alone() -> None:
    assert scrubber("1234567").text("1234567") == "1234567"
    assert scrubber("Bearer abc").text("Bearer abc, abc") == "[secret], abc"
    assert scrubber("").text("anything") == "anything"


def test_half_characters_are_no_obstacle() -> None:
    assert scrubber(TOKEN).text(f"\ud800{TOKEN}") == f"\ud800{PLACEHOLDER}"
    assert scrubber(TOKEN).text("\ud800") == "\ud800"


# -- JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EVENT_FILES, ids=lambda path: path.stem)
def test_an_event_stays_one_whatever_in_it_is_secret(path: Any) -> None:
    data = msgspec.json.encode(msgspec.json.decode(path.read_bytes()))
    whole = msgspec.to_builtins(decode_event(data))
    strings: set[str] = set()
    _collect(whole, strings)
    for secret in strings:
        scrubbed = scrubber(secret).data(data)
        again = msgspec.to_builtins(decode_event(scrubbed))
        ids = {key: value for key, value in whole.items() if key.endswith("_id") or key in ("type", "seq", "name")}
        assert {key: again[key] for key in ids} == ids


def _collect(value: Any, found: set[str]) -> None:
    if isinstance(value, str):
        found.add(value)
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _collect(one, found)
    found.update(value if isinstance(value, dict) else ())


def test_what_looks_like_a_secret_between_strings_is_structure() -> None:
    data = b'{"type":"tool.completed","output":"x","structured":[12345678,[[[[[[[[1]]]]]]]]]}'
    for secret in ('","output":"', "12345678", "[[[[[[[[", '"type":"'):
        assert scrubber(secret).data(data) == data


def test_names_of_the_protocol_are_kept_but_not_in_what_is_somebody_elses() -> None:
    event: dict[str, Any] = {
        "type": "terminal",
        "name": "terminal",
        "tool": {"name": "terminal", "arguments": {"name": "terminal"}},
    }
    event |= {"title": "terminal", "content": [{"type": "terminal", "text": "terminal"}], "tools": ["terminal"]}
    hidden = msgspec.json.decode(scrubber("terminal").data(msgspec.json.encode(event)))
    assert hidden == {
        "type": "terminal",
        "name": "terminal",
        "tool": {"name": "terminal", "arguments": {"name": "[secret]"}},
        "title": "[secret]",
        "content": [{"type": "terminal", "text": "[secret]"}],
        "tools": ["[secret]"],
    }


def test_json_that_is_nested_too_deeply_to_look_through_is_not_shown() -> None:
    deep: Any = TOKEN
    for _ in range(500):
        deep = [deep]
    hidden = scrubber(TOKEN).data(msgspec.json.encode({"structured": deep}))
    assert TOKEN.encode() not in hidden
    assert b"[secret]" in hidden


# -- who knows what --------------------------------------------------------------------------------------


def test_a_conversation_is_scrubbed_by_its_own_secrets_and_the_servers_only() -> None:
    server = scrubber("the-servers-own-key")
    one, other = scrubber("secret-of-the-first", also=server), scrubber("secret-of-the-other", also=server)
    text = "the-servers-own-key secret-of-the-first secret-of-the-other"
    assert one.text(text) == "[secret] [secret] secret-of-the-other"
    assert other.text(text) == "[secret] secret-of-the-first [secret]"
    assert server.text(text) == "[secret] secret-of-the-first secret-of-the-other"
    server.add("added-later-on")
    assert one.text("added-later-on") == "[secret]"
    one.set([])
    assert one.text(text) == "[secret] secret-of-the-first secret-of-the-other"
    assert (one.own, other.own) == (False, True)


def test_the_log_knows_everybodys_secrets_as_long_as_they_are_there() -> None:
    one, other = scrubber("known-to-one-only"), scrubber("known-to-the-other")
    assert known.text("known-to-one-only, known-to-the-other") == "[secret], [secret]"
    other.set(["known-from-now-on"])
    assert known.text("known-to-the-other known-from-now-on") == "known-to-the-other [secret]"
    del one
    other.set([])
    assert known.text("known-to-one-only") == "known-to-one-only"


# -- in pieces -------------------------------------------------------------------------------------------


@given(
    secrets=st.lists(words, min_size=1, max_size=3),
    parts=st.lists(st.tuples(around, st.sampled_from(FORMS), st.integers(0, 2)), max_size=4),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_a_text_in_pieces_comes_out_as_it_would_in_one(
    secrets: list[str], parts: list[tuple[str, Callable[[str], str], int]], cuts: list[int]
) -> None:
    text = "".join(before + form(secrets[n % len(secrets)]) for before, form, n in parts)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    found = scrubber(*secrets)
    flow = Flow(found)
    pieces = [flow.add(text[begin:end]) for begin, end in pairwise(places)]
    shown = "".join([*pieces, flow.rest()])
    assert found.text(shown) == shown
    for secret in secrets:
        assert secret not in shown.replace(PLACEHOLDER, "\0")


def test_what_is_held_back_does_not_depend_on_what_the_secret_is() -> None:
    lines = ["tok", "the tok+31", "x", "done ", "a\nb", "tok+3141592653/58979", "no", ""]
    one, other = scrubber("tok+3141592653/589793"), scrubber("zzzzzzzzzzzzzzzzzzzzz")
    assert [one.held_back(line) for line in lines] == [other.held_back(line) for line in lines]
    assert [one.held_back(line) for line in lines] == [3, 6, 1, 0, 1, 20, 2, 0]


def test_no_more_is_held_back_than_the_longest_form_is_long() -> None:
    found = scrubber("x" * 100)
    assert 100 <= found.held_back("y" * 10_000) <= 800


def test_a_secret_with_spaces_in_it_is_waited_for() -> None:
    flow = Flow(scrubber("correct horse battery staple"))
    shown = [flow.add(piece) for piece in ("I say correct ", "horse battery", " staple, ", "and that is all. ")]
    assert "".join([*shown, flow.rest()]) == "I say [secret], and that is all. "


def test_nothing_is_held_back_where_nothing_is_secret() -> None:
    assert Scrubber().held_back("any text") == 0
