"""A conversation that was dropped between being opened and being attached to is refused, in every mode."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hermes_ws.errors import StoreError
from hermes_ws.runtime.principal import Caller, Principal
from hermes_ws.settings import LimitSettings
from hermes_ws.transports.websocket import SocketQuery, attach

CALLER = Caller(Principal("default", "owner", "admin"), "socket")


@pytest.mark.parametrize(
    "query", [SocketQuery(start="start"), SocketQuery(start="now"), SocketQuery(after=3, epoch="e")]
)
async def test_a_dropped_conversation_takes_no_readers(query: SocketQuery) -> None:
    readers: set[Any] = set()
    dropped: Any = SimpleNamespace(committed=5, floor=1, epoch="e", dead=True, readers=readers)
    with pytest.raises(StoreError, match="dropped"):
        await attach(cast(Any, None), dropped, CALLER, query, LimitSettings(), cast(Any, None))
    assert not readers
