"""What the client's tests share: a way to connect to the worker's server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from hermes_ws.client import Conversation, connect
from tests.wire import Server

Connect = Callable[..., AbstractAsyncContextManager[Conversation]]


@pytest.fixture
def connected(server: Server) -> Connect:
    """``connected("id", ...)``: to a conversation on the worker's server; options as of ``connect``."""

    def to(conversation_id: str = "new", **options: Any) -> AbstractAsyncContextManager[Conversation]:
        return connect(options.pop("url", server.url), conversation_id, **{"key": server.key, **options})

    return to
