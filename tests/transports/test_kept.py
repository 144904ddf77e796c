"""The output of a call that goes on writing is served as it was when it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hermes_ws.runtime.calls import output_address
from hermes_ws.transports.kept import KeptOutput


async def _sent(response: KeptOutput, method: str) -> tuple[dict[bytes, bytes], bytes]:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError("there is no body to receive")

    await response({"type": "http", "method": method}, receive, send)
    assert [bool(message.get("more_body")) for message in messages[1:]][-1:] == [False]
    return dict(messages[0]["headers"]), b"".join(message["body"] for message in messages[1:])


@pytest.mark.parametrize("size", [0, 1, 65_536, 200_000])
async def test_what_comes_after_the_request_is_not_in_the_answer(tmp_path: Path, size: int) -> None:
    file = tmp_path / "output"
    file.write_bytes(b"a" * size)
    response = await KeptOutput.of(file)
    assert response is not None
    with file.open("ab") as more:
        more.write(b"b" * 100_000)
    headers, body = await _sent(response, "GET")
    assert body == b"a" * size
    assert headers[b"content-length"] == str(size).encode()
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"


async def test_head_has_the_size_and_no_body(tmp_path: Path) -> None:
    file = tmp_path / "output"
    file.write_bytes(b"abc")
    response = await KeptOutput.of(file)
    assert response is not None
    headers, body = await _sent(response, "HEAD")
    assert (headers[b"content-length"], body) == (b"3", b"")


async def test_no_file_is_none(tmp_path: Path) -> None:
    assert await KeptOutput.of(tmp_path / "none") is None


def test_an_address_is_one_whatever_the_model_calls_its_call() -> None:
    address = output_address("demo", "a/../b ?#é")
    assert address == "/api/conversations/demo/tool-calls/a%2F..%2Fb%20%3F%23%C3%A9/output"
