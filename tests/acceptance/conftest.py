"""The clients of these tests that more than one module uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.wire import Server

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI


@pytest.fixture(autouse=True)
def nobodys_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's sends a client elsewhere, and none reports to anybody."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "LANGSMITH_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """The official SDK. It does not try again, so that no failure is covered up."""
    from openai import OpenAI

    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=15) as made:
        yield made


@pytest.fixture
async def aclient(server: Server) -> AsyncIterator[AsyncOpenAI]:
    """The same, asynchronous."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=15) as made:
        yield made
