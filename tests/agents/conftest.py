"""A model endpoint to talk to, and a model that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from hermes_ws.agents.llm.endpoint import EndpointModel
from hermes_ws.agents.llm.endpoint_settings import EndpointSettings
from hermes_ws.agents.llm.model import Finish, ModelPart, ModelRequest, ReasoningDelta, TextDelta, ToolCall
from hermes_ws.history import HistoryEntry, UserTurn
from hermes_ws.protocol.values import Annotations, ImagePart, TextPart, ToolDescription
from tests.agents.endpoint_server import Endpoint
from tests.agents.endpoint_server import endpoint as running_endpoint

READS = Annotations(read_only=True, idempotent=True, destructive=False)


def user(text: str, *, steered: bool = False, run_id: str = "run_1") -> UserTurn:
    return UserTurn(run_id, text, [TextPart(text=text)], steered)


def tool(name: str, source: str = "builtin", parameters: dict[str, Any] | None = None) -> ToolDescription:
    return ToolDescription(
        name=name,
        source=source,
        title=name,
        description=f"Does {name}.",
        parameters=parameters or {"type": "object", "properties": {}},
        annotations=READS,
    )


async def same_url(part: ImagePart) -> str:
    assert part.url is not None
    return part.url


def request_for(
    history: Sequence[HistoryEntry] | None = None,
    tools: Sequence[ToolDescription] = (),
    *,
    model: str = "test-model",
    instructions: str | None = None,
    image: Callable[[ImagePart], Awaitable[str]] = same_url,
    tool_choice: str | None = None,
    parameters: dict[str, Any] | None = None,
) -> ModelRequest:
    return ModelRequest(
        model=model,
        instructions=instructions,
        history=list(history or [user("hello")]),
        tools=list(tools),
        attempt=1,
        image=image,
        tool_choice=tool_choice,
        parameters=parameters or {},
    )


@dataclass
class Heard:
    """What a model answered."""

    parts: list[ModelPart] = field(default_factory=list[ModelPart])

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextDelta))

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, ReasoningDelta))

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def finish(self) -> Finish:
        last = self.parts[-1]
        assert isinstance(last, Finish)
        assert sum(isinstance(part, Finish) for part in self.parts) == 1
        return last


class Asker:
    """Makes models of the endpoint, and asks them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._models: list[EndpointModel] = []

    def model(self, **settings: Any) -> EndpointModel:
        made = EndpointModel(EndpointSettings(**{"base_url": self._endpoint.url, "model": "test-model", **settings}))
        self._models.append(made)
        return made

    async def __call__(self, request: ModelRequest | None = None, **settings: Any) -> Heard:
        return await hear(self.model(**settings), request or request_for())

    async def close(self) -> None:
        for model in self._models:
            await model.aclose()


async def hear(model: EndpointModel, request: ModelRequest, heard: Heard | None = None) -> Heard:
    heard = heard or Heard()
    with anyio.fail_after(10):
        async with aclosing(model.stream(request)) as parts:
            async for part in parts:
                heard.parts.append(part)
    return heard


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with running_endpoint() as running:
        yield running


@pytest.fixture
async def ask(endpoint: Endpoint) -> AsyncIterator[Asker]:
    asker = Asker(endpoint)
    yield asker
    await asker.close()
