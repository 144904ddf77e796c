"""Offer the agent a tool that this program executes, for as long as it runs.

Start a server with `make serve`, then: HERMES_WS_KEY=... python examples/python/offer_tool.py
and have it called from anywhere else: hermes-ws connect example, and there /tool read_note {"topic": "tea"}
"""

import asyncio
import os
from typing import Any

from hermes_ws.client import connect

NOTES = {"tea": "Green, 80 degrees, two minutes."}
TOPIC = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}


async def read_note(arguments: dict[str, Any]) -> str:
    print(f"asked for {arguments['topic']}")
    return NOTES.get(arguments["topic"], "There is no such note.")


async def main() -> None:
    url = os.environ.get("HERMES_WS_URL", "http://127.0.0.1:8642")
    async with connect(url, "example", key=os.environ.get("HERMES_WS_KEY"), name="notes") as conversation:
        await conversation.tool("read_note", TOPIC, read_note, description="A note by its topic.", idempotent=True)
        print("waiting for calls; Ctrl+C ends")
        async for _ in conversation.events():
            pass


asyncio.run(main())
