"""At a terminal: a prompt at the bottom, what happens above it.

What is being said grows in a row of its own above the prompt, and joins the rest when the row is full or has a line
break: so text can stream while a person types.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import Any, NamedTuple

import msgspec
from prompt_toolkit import PromptSession
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import InMemoryHistory
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


class _History(InMemoryHistory):
    """What was typed, for the arrow keys; what was typed in secret is not kept."""

    def __init__(self, secret: Callable[[], bool]) -> None:
        super().__init__()
        self._secret = secret

    def append_string(self, string: str) -> None:
        if not self._secret():
            super().append_string(string)


class _Typed(NamedTuple):
    """A line, and what was before the person who began it."""

    line: str
    asked: InteractionRequested | None
    """The question that was open, if it was not answered by an earlier line."""
    edited: InteractionRequested | None
    """The call that the line is the arguments for."""


class _Sitting:
    """The prompt, and who does what is typed at it.

    What is typed is done in order, beside the prompt: it is there while a command waits for a server that is away.
    A line belongs to the question that was open when it was begun: neither does it answer one that has come up since,
    nor is a secret said to the agent because its question has gone.
    """

    def __init__(self, talk: Talk, screen: Screen, conversation: Conversation) -> None:
        self._talk = talk
        self._screen = screen
        self._conversation = conversation
        self._lines: asyncio.Queue[_Typed] = asyncio.Queue(LINES)
        self._editing: InteractionRequested | None = None
        self._typing = False
        self._asked: InteractionRequested | None = None
        self._answered: InteractionRequested | None = None
        self._stops: set[asyncio.Task[None]] = set()
        self._session: PromptSession[str] = PromptSession(
            input=_RawInput(sys.stdin),
            erase_when_done=True,
            is_password=Condition(self._secret),
            history=_History(self._secret),
        )
        self._session.default_buffer.on_text_changed += self._changed
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
        if asked is not None and asked.kind == "form":
            return "a/d " if asked.url is not None else "answer/d "
        if asked is not None:
            return "hidden answer " if _is_secret(asked) else "answer "
        if self._talk.stopping:
            return "stopping "
        return "running, Ctrl+C stops " if self._talk.active is not None else ""

    def _secret(self) -> bool:
        """Whether what is being typed is for nobody's eyes: it stays so, though its question may have gone."""
        return _is_secret(self._talk.question) or _is_secret(self._asked)

    # -- what is typed ---------------------------------------------------------------------------------

    def _changed(self, _: object) -> None:
        """Remember what is asked when a line is begun."""
        typing = bool(self._session.default_buffer.text)
        if typing and not self._typing:
            asked = self._talk.question
            self._asked = None if asked is self._answered else asked
        if not typing:
            self._asked = None
        self._typing = typing

    async def _turn(self) -> bool:
        """One line; False to leave."""
        self._typing, self._asked = False, None
        try:
            line = await self._session.prompt_async(self._message)
            asked = self._asked
            while line.endswith("\\"):
                line = line[:-1] + "\n" + await self._session.prompt_async("… ")
        except EOFError:
            return False
        except KeyboardInterrupt:
            return self._interrupted()
        if line.strip() in ("/quit", "/exit"):
            return False
        if line.strip():
            self._talk.typed("•••" if self._secret() or _is_secret(asked) else line)
            self._answered = asked or self._talk.question
            await self._lines.put(_Typed(line, asked, self._editing))
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
            line, asked, edited = await self._lines.get()
            try:
                await self._talk.line(self._conversation, line, asked=asked, edited=edited)
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


def _is_secret(asked: InteractionRequested | None) -> bool:
    return asked is not None and any(question.type == "secret" for question in asked.questions or [])


async def talk_at_terminal(talk: Talk, screen: Screen, conversation: Conversation) -> int:
    """Returns the exit status."""
    with StdoutProxy(sleep_between_writes=FRAME_S, raw=True) as proxy, redirect_stdout(proxy):
        talk.say("a line talks to the agent, /help says what else there is")
        await _Sitting(talk, screen, conversation).run()
        if talk.busy:
            talk.say(f"· the run goes on; hermes-ws connect {conversation.id} comes back to it")
    return 0
