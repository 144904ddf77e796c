"""What a conversation needs of the runtime around it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from hermes_ws.decisions import Decision, Effect
from hermes_ws.store.base import ConversationRef, Store
from hermes_ws.store.vault import Vault

if TYPE_CHECKING:
    from hermes_ws.runtime.conversation import Conversation

__all__ = ["Host"]


class Host(Protocol):
    """See the top of the module."""

    vault: Vault

    def store_of(self, ref: ConversationRef) -> Store: ...
    def now(self) -> int: ...
    def uptime(self) -> float: ...
    def look_at_clock(self) -> None: ...
    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None: ...
    def perform(self, conversation: Conversation, effect: Effect) -> None: ...
    def changed(self, conversation: Conversation, encoded: bytes | None) -> None:
        """Something was committed; ``encoded`` is the conversation in one line, if it says more than before."""
        ...

    def dropped(self, conversation: Conversation) -> None: ...
    def take_up(self, conversation: Conversation) -> Decision: ...
