"""The Python client: the public protocol, and nothing else.

    from hermes_ws.client import connect

    async with connect("http://127.0.0.1:8642", "demo", key=KEY) as conversation:
        async for event in conversation.run("hi"):
            print(event)

It stays connected until the block is left. A line that breaks is made again, with a jittered back-off; every event is
told once and in order across all lines; a command that had no answer yet is sent again and has one effect. A client
that is told to go (close codes 4400-4499) does not come back but raises.

``conversation`` is what one uses, ``link`` keeps the line up, ``line`` opens one, ``stream`` is a consumer's cursor.
"""

from __future__ import annotations

from hermes_ws.client.conversation import Conversation, Update, connect
from hermes_ws.client.failures import (
    ClientError,
    CommandRefused,
    ConnectionRefused,
    ConversationClosed,
    Resynchronized,
    Unreachable,
)
from hermes_ws.client.link import Connected, Disconnected
from hermes_ws.client.stream import Received, Stream

__all__ = [
    "ClientError",
    "CommandRefused",
    "Connected",
    "ConnectionRefused",
    "Conversation",
    "ConversationClosed",
    "Disconnected",
    "Received",
    "Resynchronized",
    "Stream",
    "Unreachable",
    "Update",
    "connect",
]
