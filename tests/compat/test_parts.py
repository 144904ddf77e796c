"""Content of messages: what is taken, and what is refused under which name."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.parts import parts_of, text_of
from hermes_ws.protocol.values import ImagePart, TextPart

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def refused(content: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parts_of(content, "messages[3].content")
    return caught.value


def test_a_string_stays_a_string() -> None:
    assert parts_of("hi", "content") == "hi"
    assert parts_of("", "content") == ""


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "hi"},
        {"type": "input_text", "text": "hi"},
        {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []},
        {"type": "refusal", "refusal": "hi"},
        {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}},
        "hi",
    ],
)
def test_every_kind_of_text_is_text(part: Any) -> None:
    assert parts_of([part], "content") == [TextPart(text="hi")]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}},
        {"type": "image_url", "image_url": "https://a.example/b.png", "detail": "low"},
        {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low"},
        {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low", "file_id": None},
    ],
)
def test_an_image_comes_by_address(part: Any) -> None:
    assert parts_of([part], "content") == [ImagePart(url="https://a.example/b.png", detail="low")]


def test_an_image_comes_within_its_address() -> None:
    part = {"type": "image_url", "image_url": {"url": PIXEL}}
    assert parts_of([{"type": "text", "text": "see"}, part], "content") == [TextPart(text="see"), ImagePart(url=PIXEL)]


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (None, "messages[3].content"),
        (7, "messages[3].content"),
        ({}, "messages[3].content"),
        ([], "messages[3].content"),
        ([7], "messages[3].content[0]"),
        (["hi", None], "messages[3].content[1]"),
        ([{}], "messages[3].content[0].type"),
        ([{"type": 1}], "messages[3].content[0].type"),
        ([{"type": "text"}], "messages[3].content[0].text"),
        ([{"type": "text", "text": ["hi"]}], "messages[3].content[0].text"),
        ([{"type": "refusal", "text": "hi"}], "messages[3].content[0].refusal"),
        ([{"type": "image_url"}], "messages[3].content[0].image_url"),
        ([{"type": "image_url", "image_url": []}], "messages[3].content[0].image_url"),
        ([{"type": "image_url", "image_url": {}}], "messages[3].content[0].image_url.url"),
        ([{"type": "image_url", "image_url": {"url": 1}}], "messages[3].content[0].image_url.url"),
        ([{"type": "image_url", "image_url": {"url": ""}}], "messages[3].content[0].image_url.url"),
        ([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}], "messages[3].content[0].image_url.url"),
        ([{"type": "image_url", "image_url": {"url": PIXEL, "detail": 3}}], "messages[3].content[0].image_url.detail"),
        ([{"type": "input_image", "image_url": PIXEL, "detail": 3}], "messages[3].content[0].detail"),
    ],
)
def test_what_cannot_be_read_is_named(content: Any, param: str) -> None:
    error = refused(content)
    assert (error.status, error.param) == (400, param)
    assert param in error.message
    assert error.code in ("invalid_type", "invalid_image_url", "invalid_value", "missing_required_parameter")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://a.example/v.mp4"}},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "image_url", "image_url": {"url": "data:application/pdf;base64,JVBERi0="}},
        {"type": "image_url", "image_url": {"url": "DATA:text/plain,hello"}},
        {"type": "image_url", "image_url": {"url": "data:;base64,aGVsbG8="}},
        {"type": "image_url", "image_url": {"url": "data:,hello"}},
        {"type": "input_image", "image_url": "data:audio/wav;base64,UklGRg=="},
    ],
)
def test_what_is_neither_text_nor_image_is_an_unsupported_type(part: Any) -> None:
    error = refused([{"type": "text", "text": "read this"}, part])
    assert (error.status, error.code) == (400, "unsupported_content_type")
    assert error.param is not None
    assert error.param.startswith("messages[3].content[1]")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("data:image/png;base64,aGVsbG8=", "is no image"),
        ("data:image/png;base64,", "is no image"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "is no image"),
        ("data:image/png,hello", "data:image/png;base64,"),
        ("data:image/png;base64", "data:image/png;base64,"),
        (PIXEL[:-1] + "!", "no base64"),
        (PIXEL + "\n", "no base64"),
        (PIXEL + "é", "no base64"),
        ("https://", "http:, https: or data:"),
        ("https://[::", "http:, https: or data:"),
        ("http://a.example/b c", "http:, https: or data:"),
        ("ftp://a.example/b.png", "http:, https: or data:"),
        ("", "http:, https: or data:"),
    ],
)
@pytest.mark.parametrize("chat", [True, False])
def test_an_address_without_an_image_is_named(url: str, why: str, chat: bool) -> None:
    part = {"type": "image_url", "image_url": {"url": url}} if chat else {"type": "input_image", "image_url": url}
    error = refused([part])
    path = "messages[3].content[0].image_url"
    assert (error.status, error.code, error.param) == (400, "invalid_image_url", f"{path}.url" if chat else path)
    assert why in error.message


def test_an_error_does_not_repeat_a_long_value() -> None:
    assert len(refused([{"type": "x" * 10_000}]).message) < 300
    assert len(refused([{"type": "image_url", "image_url": {"url": "data:" + "x" * 10_000}}]).message) < 300


def test_text_of_parts_is_their_lines() -> None:
    assert text_of("hi", "content") == "hi"
    assert text_of([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "content") == "one\ntwo"


def test_an_image_is_refused_where_only_text_may_be() -> None:
    with pytest.raises(ApiError) as caught:
        text_of([{"type": "image_url", "image_url": {"url": PIXEL}}], "messages[0].content")
    assert (caught.value.code, caught.value.param) == ("unsupported_content_type", "messages[0].content[0]")
