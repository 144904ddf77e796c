"""At a terminal: a prompt at the bottom, what happens above it.

What is being said grows in a row of its own above the prompt, and joins the rest when the row is full or has a line
break: so text can stream while a person types.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import Any

import msgspec
from prompt_toolkit import PromptSession
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.patch_stdout import StdoutProxy
from prompt_toolkit.utils import get_cwidth

from hermes_ws.client import ClientError, Conversation
from hermes_ws.console.lines import EditArguments
from hermes_ws.console.talk import Talk
from hermes_ws.protocol.events import InteractionRequested

__all__ = ["Screen", "talk_at_terminal"]

LINES = 100
"""Lines that may wait to be done; then the prompt waits."""
FRAME_S = 0.03
"""Least time between two drawings of the prompt, and between two writes above it."""


class Screen:
    """Where text goes: whole rows above the prompt, the growing row into it."""

    def __init__(self) -> None:
        self.row = ""
        self.session: PromptSession[str] | None = None

    def write(self, text: str) -> None:
        """Append."""
        *complete, self.row = (self.row + text).split("\n")
        while get_cwidth(self.row) >= self._columns():
            head, self.row = self._broken(self.row)
            complete.append(head)
        if complete:
            sys.stdout.write("\n".join(complete) + "\n")
            sys.stdout.flush()
        if self.session is not None:
            self.session.app.invalidate()

    def _columns(self) -> int:
        return max(20, shutil.get_terminal_size().columns)

    def _broken(self, row: str) -> tuple[str, str]:
        """A row that is too long, as one that fits and what is left of it; between words where it can be."""
        fits = self._columns() - 1
        while get_cwidth(row[:fits]) >= self._columns():
            fits -= 1
        space = row.rfind(" ", 1, fits)
        cut = space + 1 if space > 0 else fits
        return row[:cut].rstrip(" "), row[cut:]


class _RawInput(Vt100Input):
    """A terminal that stays raw while text is written above the prompt: a Ctrl+C or Ctrl+D then is not lost."""

    def cooked_mode(self) -> AbstractContextManager[None]:
        return nullcontext()


class _Sitting:
    """The prompt, and who does what is typed at it.

    What is typed is done in order, beside the prompt: it is there while a command waits for a server that is away.
    """

    def __init__(self, talk: Talk, screen: Screen, conversation: Conversation) -> None:
        self._talk = talk
        self._screen = screen
        self._conversation = conversation
        self._lines: asyncio.Queue[tuple[str, InteractionRequested | None]] = asyncio.Queue(LINES)
        self._editing: InteractionRequested | None = None
        self._stops: set[asyncio.Task[None]] = set()
        self._session: PromptSession[str] = PromptSession(
            input=_RawInput(sys.stdin), erase_when_done=True, is_password=Condition(self._secret)
        )
        self._session.app.min_redraw_interval = FRAME_S

    async def run(self) -> None:
        """Until the person leaves."""
        self._screen.session = self._session
        worker = asyncio.create_task(self._work())
        try:
            # Raw between two prompts, too: what is typed then belongs to the next one, Ctrl+C included.
            with self._session.app.input.raw_mode():
                while await self._turn():
                    pass
        finally:
            self._screen.session = None
            for task in (worker, *self._stops):
                task.cancel()
            await asyncio.wait([worker, *self._stops])

    # -- the prompt ------------------------------------------------------------------------------------

    def _message(self) -> ANSI:
        row = f"{self._screen.row}\x1b[0m\n" if self._screen.row else ""
        return ANSI(f"{row}\x1b[2m{self._state()}\x1b[0m> ")

    def _state(self) -> str:
        asked = self._talk.question
        if self._editing is not None:
            return "arguments as JSON "
        if asked is not None and asked.kind == "approval":
            return f"{'/'.join(option.id[:1] for option in asked.options or [])}{'/e' if asked.editable else ''} "
        if asked is not None:
            return "answer "
        if self._talk.stopping:
            return "stopping "
        return "running, Ctrl+C stops " if self._talk.active is not None else ""

    def _secret(self) -> bool:
        asked = self._talk.question
        return asked is not None and any(question.type == "secret" for question in asked.questions or [])

    # -- what is typed ---------------------------------------------------------------------------------

    async def _turn(self) -> bool:
        """One line; False to leave."""
        try:
            line = await self._session.prompt_async(self._message)
            while line.endswith("\\"):
                line = line[:-1] + "\n" + await self._session.prompt_async("… ")
        except EOFError:
            return False
        except KeyboardInterrupt:
            return self._interrupted()
        if line.strip() in ("/quit", "/exit"):
            return False
        if line.strip():
            self._talk.typed("•••" if self._secret() else line)
            await self._lines.put((line, self._editing))
        self._editing = None
        return True

    def _interrupted(self) -> bool:
        """Ctrl+C: first what is being typed, then the run, then we."""
        typing = self._editing is not None or self._session.default_buffer.text
        self._editing = None
        if typing:
            return True
        if self._talk.active is None or self._talk.stopping:
            return False
        self._stops.add(asyncio.create_task(self._talk.interrupt(self._conversation)))
        return True

    async def _work(self) -> None:
        while True:
            line, edited = await self._lines.get()
            try:
                await self._talk.line(self._conversation, line, edited=edited)
            except EditArguments:
                self._edit()
            except ClientError:
                return  # whoever follows the conversation is told the same

    def _edit(self) -> None:
        """Put the arguments into the prompt, where they can be changed."""
        asked = self._talk.question
        if asked is not None and asked.tool is not None:
            arguments: Any = asked.tool.arguments
            self._editing = asked
            self._session.default_buffer.document = Document(msgspec.json.encode(arguments).decode())
            self._session.app.invalidate()


async def talk_at_terminal(talk: Talk, screen: Screen, conversation: Conversation) -> int:
    """Returns the exit status."""
    with StdoutProxy(sleep_between_writes=FRAME_S, raw=True) as proxy, redirect_stdout(proxy):
        talk.say("a line talks to the agent, /help says what else there is")
        await _Sitting(talk, screen, conversation).run()
        if talk.busy:
            talk.say(f"· the run goes on; hermes-ws connect {conversation.id} comes back to it")
    return 0
