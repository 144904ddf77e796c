"""At a terminal: a prompt at the bottom, what happens above it.

What is being said grows in a row of its own above the prompt, and joins the rest when the row is full or has a line
break: so text can stream while a person types.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import redirect_stdout
from typing import Any

import msgspec
from prompt_toolkit import PromptSession
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.patch_stdout import StdoutProxy
from prompt_toolkit.utils import get_cwidth

from hermes_ws.client import Conversation
from hermes_ws.console.lines import EditArguments
from hermes_ws.console.talk import Leave, Talk
from hermes_ws.protocol.events import InteractionRequested

__all__ = ["Screen", "talk_at_terminal"]

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


class _Prompt:
    """What stands at the bottom."""

    def __init__(self, talk: Talk, screen: Screen) -> None:
        self._talk = talk
        self._screen = screen
        self.editing: InteractionRequested | None = None

    def message(self) -> ANSI:
        row = f"{self._screen.row}\x1b[0m\n" if self._screen.row else ""
        return ANSI(f"{row}\x1b[2m{self._state()}\x1b[0m> ")

    def _state(self) -> str:
        asked = self._talk.question
        if self.editing is not None:
            return "arguments as JSON "
        if asked is not None and asked.kind == "approval":
            return f"{'/'.join(option.id[:1] for option in asked.options or [])}{'/e' if asked.editable else ''} "
        if asked is not None:
            return "answer "
        if self._talk.stopping:
            return "stopping "
        return "running, Ctrl+C stops " if self._talk.active is not None else ""

    def secret(self) -> bool:
        asked = self._talk.question
        return asked is not None and any(question.type == "secret" for question in asked.questions or [])


async def talk_at_terminal(talk: Talk, screen: Screen, conversation: Conversation) -> int:
    """Returns the exit status."""
    prompt = _Prompt(talk, screen)
    session: PromptSession[str] = PromptSession(erase_when_done=True, is_password=Condition(prompt.secret))
    session.app.min_redraw_interval = FRAME_S
    screen.session = session
    with StdoutProxy(sleep_between_writes=FRAME_S, raw=True) as proxy, redirect_stdout(proxy):
        talk.say("a line talks to the agent, /help says what else there is")
        try:
            while True:
                await _turn(talk, screen, session, prompt, conversation)
        except Leave:
            if talk.busy:
                talk.say(f"· the run goes on; hermes-ws connect {conversation.id} comes back to it")
        finally:
            screen.session = None
    return 0


async def _turn(
    talk: Talk, screen: Screen, session: PromptSession[str], prompt: _Prompt, conversation: Conversation
) -> None:
    """One line."""
    editing, secret = prompt.editing, prompt.secret()
    try:
        line = await session.prompt_async(prompt.message, default=_arguments(editing))
    except EOFError:
        raise Leave from None
    except KeyboardInterrupt:
        prompt.editing = None
        if editing is None and not session.default_buffer.text:
            await talk.interrupt(conversation)
        return
    prompt.editing = None
    if editing is not None:
        line = f"e {line}" if line.strip() else ""
    if line.endswith("\\"):
        line = await _continued(session, line)
    if line.strip():
        talk.typed("•••" if secret else line)
    try:
        await talk.line(conversation, line)
    except EditArguments:
        prompt.editing = talk.question


async def _continued(session: PromptSession[str], line: str) -> str:
    """The lines that belong to one that ends in a backslash."""
    while line.endswith("\\"):
        try:
            line = line[:-1] + "\n" + await session.prompt_async("… ")
        except (EOFError, KeyboardInterrupt):
            return ""
    return line


def _arguments(editing: InteractionRequested | None) -> str:
    if editing is None or editing.tool is None:
        return ""
    arguments: Any = editing.tool.arguments
    return msgspec.json.encode(arguments).decode()
