"""``hermes-ws connect``: talk with a conversation."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys

from hermes_ws.client import Connected, Disconnected, connect
from hermes_ws.console.pipes import print_text, talk_through_pipes
from hermes_ws.console.talk import Talk
from hermes_ws.console.target import Server
from hermes_ws.console.view import View

__all__ = ["talk"]


async def talk(server: Server, conversation_id: str) -> int:
    """Returns the exit status. Raises :class:`ClientError`."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    client_id = f"terminal-{secrets.token_hex(3)}"
    news: list[Talk] = []

    def on_connection(told: Connected | Disconnected) -> None:
        for one in news:
            one.connection(told)

    async with connect(
        server.url,
        conversation_id,
        key=server.key,
        client_id=client_id,
        start="snapshot",
        on_connection=on_connection,
    ) as conversation:
        if interactive:
            from hermes_ws.console.screen import Screen, talk_at_terminal

            screen = Screen()
            sitting = Talk(View(color=color, echoed=client_id), screen.write, steers=True)
            work = talk_at_terminal(sitting, screen, conversation)
        else:
            sitting = Talk(View(color=color), print_text, steers=False)
            work = talk_through_pipes(sitting, conversation)
        news.append(sitting)
        if conversation_id == "new":
            sitting.say(f"· this is conversation {conversation.id}")
        return await _first(asyncio.create_task(work), asyncio.create_task(sitting.follow(conversation)))


async def _first(work: asyncio.Task[int], following: asyncio.Task[None]) -> int:
    """The status of ``work``, unless the conversation is lost before."""
    try:
        await asyncio.wait([work, following], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        return await work
    finally:
        for task in (work, following):
            task.cancel()
        await asyncio.gather(work, following, return_exceptions=True)
