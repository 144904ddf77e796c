"""The Responses API from outside: requests, streams, and what a stream has to be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.wire import Json, Server

WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def output(call_id: str, text: Any) -> Json:
    """What a call came to."""
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def leave(request_id: str, approve: bool, **more: Any) -> Json:
    """The answer to an approval request."""
    return {"type": "mcp_approval_response", "approval_request_id": request_id, "approve": approve, **more}


def said(response: Json) -> str:
    """All that the assistant said."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for message in messages for part in message["content"])


class Responses:
    """A client of one server."""

    def __init__(self, server: Server, **headers: str) -> None:
        self._server = server
        self._headers = headers

    async def ask(self, method: str, path: str, body: Json | None = None, **query: Any) -> httpx2.Response:
        """Any request."""
        async with self._server.http(headers=self._headers) as http:
            return await http.request(method, f"/v1{path}", json=body, params=query)

    async def create(self, given: Any, **more: Any) -> Json:
        """A response, whole."""
        answer = await self.ask("POST", "/responses", {"input": given, **more})
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    async def refused(self, given: Any, **more: Any) -> tuple[int, Json]:
        """The status and the error of a request that is refused."""
        answer = await self.ask("POST", "/responses", {"input": given, **more})
        return answer.status_code, answer.json()["error"]

    async def get(self, path: str, **query: Any) -> Json:
        """What is there."""
        answer = await self.ask("GET", path, **query)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    async def stream(self, given: Any, **more: Any) -> list[Json]:
        """A response, as the whole of its stream."""
        async with self.streaming("POST", "/responses", {"input": given, "stream": True, **more}) as lines:
            return [event async for event in lines]

    async def streamed(self, response_id: str, **query: Any) -> list[Json]:
        """The stream of a response that is there."""
        path = f"/responses/{response_id}"
        async with self.streaming("GET", path, None, stream="true", **query) as lines:
            return [event async for event in lines]

    @asynccontextmanager
    async def streaming(
        self, method: str, path: str, body: Json | None, **query: Any
    ) -> AsyncIterator[AsyncIterator[Json]]:
        """A stream that is being read; it ends with ``[DONE]`` and nothing else."""
        async with (
            self._server.http(headers=self._headers) as http,
            http.stream(method, f"/v1{path}", json=body, params=query) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield _events(answer.aiter_lines())


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[Json]:
    name, done = "", False
    async for line in lines:
        assert not (done and line), f"{line!r} comes after [DONE]"
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line == "data: [DONE]":
            done = True
        elif line.startswith("data: "):
            event: Json = json.loads(line.removeprefix("data: "))
            assert event["type"] == name, "the event's name is its type"
            yield event
    assert done, "a stream ends with [DONE]"
