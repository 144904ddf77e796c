"""A client of chat completions that knows no more than HTTP and server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.wire import Json, Server, soon

__all__ = ["PATH", "WEATHER", "Chunks", "call_of", "chat", "complete", "content", "finish", "read", "say", "streaming"]

PATH = "/v1/chat/completions"
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def say(text: Any, role: str = "user") -> Json:
    return {"role": role, "content": text}


async def chat(server: Server, *messages: Json, headers: Json | None = None, **more: Any) -> httpx2.Response:
    """One request, not streamed."""
    async with soon(), server.http(headers=headers) as http:
        return await http.post(PATH, json={"messages": list(messages), **more})


async def complete(server: Server, *messages: Json, headers: Json | None = None, **more: Any) -> Json:
    """One that is answered."""
    answer = await chat(server, *messages, headers=headers, **more)
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


class Chunks:
    """A stream, as it comes. Data has its event's name under ``event``, the end is ``{"done": true}``, a comment
    ``{"comment": ...}``."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.seen: list[Json] = []
        self._lines = response.aiter_lines()

    async def __aiter__(self) -> AsyncIterator[Json]:
        event: Json = {}
        async for line in self._lines:
            if line.startswith("event: "):
                event = {"event": line.removeprefix("event: ")}
            elif line.startswith(":"):
                yield self._note({"comment": line[1:].strip()})
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
                chunk = {"done": True} if data == "[DONE]" else json.loads(data)
                yield self._note({**event, **chunk})
                event = {}

    def _note(self, chunk: Json) -> Json:
        self.seen.append(chunk)
        return chunk

    async def until(self, **fields: Any) -> Json:
        """Read up to one with these fields."""
        async with soon():
            async for chunk in self:
                if all(chunk.get(name) == value for name, value in fields.items()):
                    return chunk
        raise AssertionError(f"the stream ended without {fields}: {self.seen}")


@asynccontextmanager
async def streaming(server: Server, *messages: Json, headers: Json | None = None, **more: Any) -> AsyncIterator[Chunks]:
    """A request that is streamed; leaving before its end is hanging up."""
    body = {"messages": list(messages), "stream": True, **more}
    async with server.http(headers=headers) as http, http.stream("POST", PATH, json=body) as response:
        yield Chunks(response)


async def read(server: Server, *messages: Json, headers: Json | None = None, **more: Any) -> list[Json]:
    """A whole stream."""
    async with soon(), streaming(server, *messages, headers=headers, **more) as chunks:
        assert chunks.response.status_code == 200, await chunks.response.aread()
        return [chunk async for chunk in chunks]


def content(chunks: list[Json], field: str = "content") -> str:
    """What was said in all of them."""
    return "".join(choice["delta"].get(field, "") for chunk in chunks for choice in chunk.get("choices", []))


def finish(chunks: list[Json]) -> str:
    """Why the answer ended."""
    [reason] = [c["finish_reason"] for chunk in chunks for c in chunk.get("choices", []) if c["finish_reason"]]
    return str(reason)


def call_of(completion: Json) -> Json:
    """The only call that is handed over."""
    [choice] = completion["choices"]
    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    found: Json = call
    return found
