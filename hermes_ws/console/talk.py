"""A person and a conversation: what was typed becomes commands, what happens becomes text.

The two front ends differ in where lines come from and where text goes; this is what they share. It knows what is going
on (the active run, the open questions) from the events alone, so it is right about what other clients do, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hermes_ws.answer_lines import NotUnderstood
from hermes_ws.client import ClientError, CommandRefused, Connected, Conversation, Disconnected, Update
from hermes_ws.console.lines import HELP, answer
from hermes_ws.console.view import View
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import RunRetry, RunStart
from hermes_ws.protocol.control import Ok, Snapshot
from hermes_ws.readable import tool_name

__all__ = ["Leave", "Talk"]


class Leave(Exception):
    """The person wants to go."""


class Talk:
    """One sitting at a conversation. ``write`` takes text that is to be appended as it is."""

    def __init__(self, view: View, write: Callable[[str], None], *, steers: bool) -> None:
        """``steers``: a line that comes while a run is active is said to that run."""
        self._view = view
        self._write = write
        self._steers = steers
        self._connected = True
        self._runs: dict[str, None] = {}
        self._ended: set[str] = set()
        self._news = asyncio.Event()
        self.open: dict[str, ev.InteractionRequested] = {}
        """Open questions, oldest first."""
        self.active: str | None = None
        """The run that is going on."""
        self.stopping = False
        self.failed = False
        """Whether the last run that ended has failed."""
        self._cut_short: str | None = None

    # -- what happens ----------------------------------------------------------------------------------

    async def follow(self, conversation: Conversation) -> None:
        """Show everything until the conversation is lost. Raises :class:`ClientError`."""
        async for update in conversation.events():
            self._show(update)
            self._news.set()

    def _show(self, update: Update) -> None:
        if isinstance(update, Snapshot):
            self._adopt(update)
            self._write(self._view.snapshot(update))
        else:
            self._fold(update)
            self._write(self._view.event(update))

    def _adopt(self, snapshot: Snapshot) -> None:
        self.open = {asked.interaction_id: asked for asked in snapshot.interactions if asked.needs_person}
        self.active = snapshot.run.run_id if snapshot.run is not None else None
        self.stopping = snapshot.run is not None and snapshot.run.status == "stopping"
        waiting = [run.run_id for run in snapshot.queue]
        self._runs = dict.fromkeys([*([self.active] if self.active else []), *waiting])

    def _fold(self, event: ev.Event | ev.UnknownEvent) -> None:
        match event:
            case ev.RunQueued():
                self._runs[event.run_id] = None
            case ev.RunStarted():
                self._runs[event.run_id] = None
                self.active, self.stopping = event.run_id, False
            case ev.RunStopping():
                self.stopping = event.run_id == self.active
            case ev.InteractionRequested() if event.needs_person:
                self.open[event.interaction_id] = event
            case ev.InteractionResolved():
                self.open.pop(event.interaction_id, None)
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                self._runs.pop(event.run_id, None)
                self._ended.add(event.run_id)
                self.failed = isinstance(event, ev.RunFailed)
                self._cut_short = None if isinstance(event, ev.RunCompleted) else event.run_id
                if event.run_id == self.active:
                    self.active, self.stopping = None, False
            case _:
                pass

    def connection(self, news: Connected | Disconnected) -> None:
        """For ``connect(on_connection=...)``: say it once, however long it lasts."""
        if isinstance(news, Disconnected):
            if self._connected:
                self._write(self._view.problem(f"disconnected ({news.reason}); reconnecting …"))
        elif not self._connected:
            self._write(self._view.note("· connected again"))
        self._connected = isinstance(news, Connected)

    # -- what is typed ---------------------------------------------------------------------------------

    @property
    def question(self) -> ev.InteractionRequested | None:
        """The oldest open question."""
        return next(iter(self.open.values()), None)

    async def line(
        self,
        conversation: Conversation,
        line: str,
        *,
        asked: ev.InteractionRequested | None = None,
        edited: ev.InteractionRequested | None = None,
    ) -> None:
        """Do what a line means; with ``edited`` it is the arguments for that call. ``asked`` is what the person had
        before them when they began it: if it is an answer, then to that question and to no other.

        Raises :class:`Leave` and :class:`EditArguments`; says all else by itself.
        """
        try:
            if edited is not None:
                await self.reply(conversation, edited, f"e {line}")
            else:
                await self._do(conversation, line, asked or self.question)
        except (CommandRefused, NotUnderstood) as refused:
            self.say_problem(str(refused))

    async def _do(self, conversation: Conversation, line: str, asked: ev.InteractionRequested | None) -> None:
        word, _, rest = line.strip().partition(" ")
        match word, rest.strip():
            case "", _:
                return
            case "/help", _:
                self.say(HELP)
            case "/quit" | "/exit", "":
                raise Leave
            case "/stop", "":
                await conversation.stop()
            case "/retry", "":
                await self._retry(conversation)
            case "/steer", str(text) if text:
                self._expect(await conversation.steer(text))
            case "/tools", "":
                await self._tools(conversation)
            case "/allow", str(glob) if glob:
                await self._allow(conversation, glob)
            case "/answer", str(text) if asked is not None:
                await self.reply(conversation, asked, text)
            case "/answer", _:
                raise NotUnderstood("no question is open")
            case _ if asked is not None:
                await self.reply(conversation, asked, line)
            case _:
                await self._say_to_agent(conversation, line)

    async def _say_to_agent(self, conversation: Conversation, line: str) -> None:
        if self._steers and self.active is not None and not line.lstrip().startswith("/"):
            self._expect(await conversation.steer(line))
        else:
            self._expect(await conversation.send(RunStart(input=line)))

    async def _retry(self, conversation: Conversation) -> None:
        if self._cut_short is None:
            raise NotUnderstood("the last run has not failed or been stopped, as far as was to be seen from here")
        self._expect(await conversation.send(RunRetry(run_id=self._cut_short)))

    def _expect(self, ok: Ok) -> None:
        """The run concerned goes on, as long as its end was not told; its beginning may still be on its way."""
        if ok.run_id is not None and ok.run_id not in self._ended:
            self._runs[ok.run_id] = None

    async def reply(self, conversation: Conversation, asked: ev.InteractionRequested, line: str) -> None:
        """Answer a question. It is no longer open as soon as the answer is taken, or is known to be too late."""
        reply = answer(asked, line)
        try:
            await conversation.send(reply)
        except CommandRefused as refused:
            if refused.code in ("interaction_resolved", "interaction_expired", "interaction_not_found"):
                self.open.pop(asked.interaction_id, None)
            raise
        self.open.pop(asked.interaction_id, None)

    async def _tools(self, conversation: Conversation) -> None:
        tools = await conversation.tools()
        lines = [
            f"{tool_name(tool.source, tool.name)} — {tool.description.split('. ')[0].rstrip('.')}" for tool in tools
        ]
        self.say("\n".join(lines) or "no tools may be used here")

    async def _allow(self, conversation: Conversation, glob: str) -> None:
        """Beside what may be used now: without a list of its own a conversation has the server's default set."""
        filter_ = (await conversation.snapshot()).config.tools
        allowed = filter_.allow if filter_ is not None else None
        if allowed is None:
            allowed = [f"{tool_name(tool.source, tool.name)}" for tool in await conversation.tools()]
        await conversation.configure({"tools": {"allow": [*allowed, glob]}})

    def say(self, text: str) -> None:
        """Show something of ours."""
        self._write(self._view.note(text))

    def typed(self, line: str) -> None:
        """Show what the person has typed."""
        self._write(self._view.said_by_person(line))

    def say_problem(self, text: str) -> None:
        """Show what went wrong."""
        self._write(self._view.problem(text))

    async def interrupt(self, conversation: Conversation) -> None:
        """Ctrl+C: stop the run. Raises :class:`Leave` if there is none, or it is being stopped already."""
        if self.active is None or self.stopping:
            raise Leave
        self.stopping = True
        self.say("· stopping; Ctrl+C again leaves")
        try:
            await conversation.stop()
        except ClientError as error:
            self.say_problem(str(error))

    # -- waiting ---------------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """Return when nothing goes on by itself: no run is active or waits, or a question is open."""
        while self._runs and not self.open:
            self._news.clear()
            await self._news.wait()

    @property
    def busy(self) -> bool:
        """Whether a run is active or waits."""
        return bool(self._runs)
