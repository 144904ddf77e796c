"""One end of a request without a server, and the server as a handler of the compatible routes sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.settings import CompatSettings
from hermes_ws.routes.context import Api
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.settings import Settings
from tests.runtime.conftest import ME, until


class Line:
    """A request's end of a line: what the server sends, and what becomes of the client."""

    def __init__(self, method: str = "GET", headers: dict[str, str] | None = None) -> None:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": "/v1/x",
            "headers": raw,
            "query_string": b"",
        }
        self.sent: list[dict[str, Any]] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self._coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @property
    def request(self) -> Request:
        return Request(self.scope, self.receive)

    async def receive(self) -> dict[str, Any]:
        return await self._coming.get()

    async def send(self, message: Any) -> None:
        await self.taking.wait()
        self.sent.append(message)

    def says(self, body: bytes, *, more: bool = False) -> None:
        self._coming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def goes(self) -> None:
        self._coming.put_nowait({"type": "http.disconnect"})

    def answer(self, response: Response) -> asyncio.Task[None]:
        """Have the response sent, in a task."""
        return asyncio.create_task(response(self.scope, self.receive, self.send))

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def complete(self) -> bool:
        return bool(self.sent) and self.sent[-1]["type"] == "http.response.body" and not self.sent[-1].get("more_body")


async def over(task: asyncio.Task[Any]) -> None:
    with anyio.fail_after(10):
        await asyncio.wait([task])


def api_of(runtime: Runtime, **compat: Any) -> Api:
    settings = msgspec.structs.replace(
        Settings(), compat=CompatSettings(**{"disconnect_grace_s": 0.05, "keepalive_s": 0.05, **compat})
    )
    return Api(runtime, settings, lambda request: ME.principal)


@pytest.fixture
def api(runtime: Runtime) -> Api:
    return api_of(runtime)


async def ended(conversation: Conversation, run_id: str) -> str:
    await until(lambda: run_id in conversation.session.state.ended)
    await conversation.settled()
    return conversation.session.state.ended[run_id]
