"""What the tests of the JavaScript client share: Node, with the library and npm's WebSocket in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.js.node import node_modules
from tests.js.remote import Node
from tests.mcp.running import OfficialServer

__all__ = ["node", "node_modules", "official"]


@pytest.fixture
async def node(node_modules: Path) -> AsyncIterator[Node]:
    """A Node process of the test's own; what is opened in it is closed at the end."""
    async with Node.started() as node:
        yield node


@pytest.fixture
def official(tmp_path: Path) -> Iterator[OfficialServer]:
    """The official MCP server."""
    server = OfficialServer(tmp_path).start()
    yield server
    server.stop()
