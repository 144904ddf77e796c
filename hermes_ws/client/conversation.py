"""A conversation, as a program uses it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import msgspec

from hermes_ws.client.failures import CommandRefused, ConversationClosed, Resynchronized
from hermes_ws.client.link import Connected, Disconnected, Link, LinkSettings, Start
from hermes_ws.client.stream import Received, Stream
from hermes_ws.client.target import GetTicket, Target
from hermes_ws.client.tools import Handler, Tools, pick_interactions
from hermes_ws.protocol.commands import (
    ApprovalsList,
    ApprovalsRevoke,
    ClientTool,
    ClientUpdate,
    Command,
    ConversationConfigure,
    ConversationFork,
    InteractionReply,
    Ping,
    RunRetry,
    RunStart,
    RunSteer,
    RunStop,
    SnapshotGet,
    ToolsList,
)
from hermes_ws.protocol.control import Error, Hello, Ok, Skipped, Snapshot, SnapshotState
from hermes_ws.protocol.events import (
    Event,
    InteractionRequested,
    RunCancelled,
    RunCompleted,
    RunFailed,
    UnknownEvent,
)
from hermes_ws.protocol.values import ApprovalRule, ConversationId, Input, ToolDescription, ToolFilter

__all__ = ["Conversation", "Update", "connect"]

Asked: TypeAlias = str | InteractionRequested
"""An interaction: its id, or the event that requested it (then its digest goes with the answer)."""

Update: TypeAlias = Event | UnknownEvent | Snapshot
"""What :meth:`Conversation.events` tells: an event, or the state in place of events."""

REFUSED_FOR_S: Final = 30.0
"""How long a command is sent again that the server refuses for the moment, saying when to come back."""

_TERMINAL: Final = (RunCompleted, RunFailed, RunCancelled)


@asynccontextmanager
async def connect(
    url: str,
    conversation_id: str | None = None,
    *,
    key: str | None = None,
    ticket: str | None = None,
    get_ticket: GetTicket | None = None,
    client_id: str | None = None,
    name: str | None = None,
    start: Start = "now",
    after: int | None = None,
    epoch: str | None = None,
    exclude: Sequence[str] = (),
    buffer_bytes: int = 1_048_576,
    silence_s: float = 45.0,
    open_timeout_s: float = 10.0,
    wait_for_server: bool = False,
    give_up_after_s: float | None = None,
    on_connection: Callable[[Connected | Disconnected], None] | None = None,
) -> AsyncGenerator[Conversation]:
    """Connect to a conversation; stay connected, whatever the network does, until the block is left.

    ``url`` is the conversation's (``ws://host:port/ws/ID``), or the server's (``http://host:port``) beside
    ``conversation_id``. The id ``new`` lets the server choose; ``conversation.id`` then says what it chose.

    ``key`` goes into the Authorization header. A ``ticket`` is good for one connect; ``get_ticket`` is asked for
    another one at every connect. ``client_id`` is what others see beside the principal in ``by``, and ``name`` what
    people see of a client that executes tools (:meth:`Conversation.tool`).

    What :meth:`Conversation.events` begins with: ``start="now"`` what happens from now on; ``"snapshot"`` the state as
    it is, then what follows; ``"start"`` the first event there is; ``after=SEQ`` what follows that number (with its
    ``epoch``, so that a conversation that was deleted and made anew is noticed). Events of the types in ``exclude`` are
    not sent by the server.

    ``buffer_bytes`` bounds what is kept for each consumer that is slower than the server. A line on which nothing is
    heard for ``silence_s`` (the server breaks a silence of 20 s) is given up and made again. With ``wait_for_server``
    the first connect, too, is tried until it succeeds; ``give_up_after_s`` bounds every time without a line.
    ``on_connection`` is called with :class:`Connected` and :class:`Disconnected`.

    Raises ``ValueError`` for arguments that cannot be right, :class:`ConnectionRefused` if the server does not let us
    in, and :class:`Unreachable` if there is none. Once connected, these reach whoever uses the conversation next.
    """
    target = Target.of(url, conversation_id, key=key, ticket=ticket, get_ticket=get_ticket)
    settings = LinkSettings(
        start=start,
        after=after,
        epoch=epoch,
        exclude=tuple(exclude),
        client_id=client_id,
        buffer_bytes=buffer_bytes,
        silence_s=silence_s,
        open_timeout_s=open_timeout_s,
        wait_for_server=wait_for_server,
        give_up_after_s=give_up_after_s,
        on_connection=on_connection,
    )
    link = Link(target, settings)
    conversation = Conversation(link, client_id, name)
    try:
        await link.open()
        yield conversation
    finally:
        await conversation.aclose()


class Conversation:
    """A conversation one is connected to. Made by :func:`connect`.

    Every method that sends raises :class:`CommandRefused` when the server says no. Commands survive the line: one that
    has no answer yet is sent again under its id on the next line, and has one effect. A cancelled one may or may not
    have been done.
    """

    def __init__(self, link: Link, client_id: str | None = None, name: str | None = None) -> None:
        self._link = link
        self._tools = Tools(self, client_id or f"client-{uuid.uuid4()}", name)

    @property
    def id(self) -> str:
        """The conversation's id."""
        return self._link.target.conversation_id

    @property
    def hello(self) -> Hello:
        """What the server said first, on the newest line."""
        assert self._link.hello is not None
        return self._link.hello

    @property
    def seq(self) -> int:
        """The last number received. To resume another time, keep the ``seq`` of the last event you have handled."""
        return self._link.position

    @property
    def epoch(self) -> str | None:
        """Which incarnation of the log ``seq`` counts in; None until the first command creates the conversation."""
        return self._link.epoch

    async def aclose(self) -> None:
        """Leave: streams end, what is being executed is cancelled. Leaving the block of :func:`connect` does this."""
        await self._tools.close()
        await self._link.close()

    # -- what happens ----------------------------------------------------------------------------------

    def events(self) -> Stream[Update]:
        """Every event, in order, each once, across all reconnects.

        The first call begins where ``connect`` was told to begin, later ones with what comes next. A
        :class:`Snapshot` among the events means: forget what you know, this is the state, and what follows comes after
        it. It is there at the beginning for ``start="snapshot"``, and whenever the log cannot be resumed
        (``conversation.hello.resume.reason`` says why).

        A consumer that is slow slows down the reading of the socket, for all streams of this conversation; leave the
        loop, or ``close()`` the stream, when nothing more is wanted. Ends when the conversation is closed; raises
        :class:`ConnectionRefused` or :class:`Unreachable` when it is lost.
        """
        return self._link.stream(_event, from_beginning=self._link.claim_beginning())

    def frames(self) -> Stream[Received]:
        """As :meth:`events`, with each frame's bytes as the server sent them, and with ``skipped`` ranges."""
        return self._link.stream(_anything, from_beginning=self._link.claim_beginning())

    def run(
        self,
        input: Input,
        *,
        when_busy: Literal["queue", "reject", "steer", "interrupt"] | None = None,
        agent: str | None = None,
        instructions: str | None = None,
        tools: ToolFilter | None = None,
        deadline_ms: int | None = None,
        metadata: dict[str, Any] | None = None,
        id: str | None = None,
    ) -> AsyncGenerator[Event | UnknownEvent]:
        """Start a run and tell its events, from ``run.queued`` or ``run.started`` to its terminal one.

        The run belongs to the server: leaving the loop does not stop it, :meth:`stop` does. With ``when_busy="steer"``
        the run is the one that was steered.

        Raises :class:`CommandRefused`, and :class:`Resynchronized` if the log is no longer the one that the run began
        in; what else ends the conversation, as :meth:`events` does.
        """
        command = RunStart(
            input=input,
            when_busy=when_busy,
            agent=agent,
            instructions=instructions,
            tools=tools,
            deadline_ms=deadline_ms,
            metadata=metadata,
            id=id,
        )
        return self._follow(command)

    def retry(self, run_id: str) -> AsyncGenerator[Event | UnknownEvent]:
        """Go on from a failed run's journal, in a new run; tells that one's events as :meth:`run` does."""
        return self._follow(RunRetry(run_id=run_id))

    async def _follow(self, command: RunStart | RunRetry) -> AsyncGenerator[Event | UnknownEvent]:
        stream: Stream[Update] = self._link.stream(_event)
        with stream:
            run_id = (await self.send(command)).run_id
            stream.narrow(lambda received: _event_of(received, run_id))
            async for event in stream:
                if isinstance(event, Snapshot):
                    raise Resynchronized(event, self.hello.resume.reason)
                yield event
                if isinstance(event, _TERMINAL):
                    return
        raise ConversationClosed("the conversation was closed before the run ended")

    # -- what to do ------------------------------------------------------------------------------------

    async def send(self, command: Command) -> Ok:
        """Send any command, under an id of its own or a fresh UUID, and return its ``ok``.

        A command that is refused for the moment (``retryable``, with ``retry_after_ms``) is sent again, for half a
        minute. Raises :class:`CommandRefused` otherwise.
        """
        if command.id is None:
            command = msgspec.structs.replace(command, id=str(uuid.uuid4()))
        give_up_at = asyncio.get_running_loop().time() + REFUSED_FOR_S
        while isinstance(answer := await self._link.exchange(command), Error):
            if not answer.retryable or answer.retry_after_ms is None:
                raise CommandRefused(answer)
            if asyncio.get_running_loop().time() >= give_up_at:
                raise CommandRefused(answer)
            await asyncio.sleep(answer.retry_after_ms / 1000)
        return answer

    async def stop(
        self,
        run_id: str | None = None,
        *,
        mode: Literal["graceful", "now"] | None = None,
        queue: Literal["keep", "clear"] | None = None,
    ) -> Ok:
        """Stop the active run, or the one named."""
        return await self.send(RunStop(run_id=run_id, mode=mode, queue=queue))

    async def steer(
        self, text: str, *, run_id: str | None = None, if_late: Literal["queue", "return"] | None = None
    ) -> Ok:
        """Say something to the running agent; it hears it between two steps."""
        return await self.send(RunSteer(text=text, run_id=run_id, if_late=if_late))

    async def reply(
        self,
        interaction: Asked,
        *,
        option: str | None = None,
        answers: dict[str, Any] | None = None,
        content: dict[str, Any] | None = None,
        arguments: dict[str, Any] | None = None,
        comment: str | None = None,
        digest: str | None = None,
    ) -> Ok:
        """Answer an interaction.

        Raises :class:`CommandRefused`: one that somebody else has answered is ``interaction_resolved``, and ``details``
        says how.
        """
        if isinstance(interaction, InteractionRequested):
            digest = digest or interaction.digest
            interaction = interaction.interaction_id
        return await self.send(
            InteractionReply(
                interaction_id=interaction,
                option=option,
                answers=answers,
                content=content,
                arguments=arguments,
                comment=comment,
                digest=digest,
            )
        )

    async def approve(
        self,
        interaction: Asked,
        option: Literal["once", "run", "conversation", "always"] = "once",
        *,
        arguments: dict[str, Any] | None = None,
        comment: str | None = None,
    ) -> Ok:
        """Let a tool call through, with other ``arguments`` if they are given (the whole object)."""
        return await self.reply(interaction, option=option, arguments=arguments, comment=comment)

    async def deny(self, interaction: Asked, comment: str | None = None) -> Ok:
        """Refuse a tool call; the agent is told ``comment``."""
        return await self.reply(interaction, option="deny", comment=comment)

    async def configure(self, config: dict[str, Any], *, if_version: int | None = None) -> int:
        """Change the configuration by a JSON merge patch (null removes). Returns its new version."""
        ok = await self.send(ConversationConfigure(config=config, if_version=if_version))
        assert ok.version is not None
        return ok.version

    async def fork(self, *, after_run: str | None = None, conversation_id: ConversationId | None = None) -> str:
        """A new conversation with this one's history, up to the end of a run. Returns its id."""
        ok = await self.send(ConversationFork(after_run=after_run, conversation_id=conversation_id))
        assert ok.conversation_id is not None
        return ok.conversation_id

    # -- what this program executes --------------------------------------------------------------------

    async def tool(
        self,
        name: str,
        parameters: dict[str, Any],
        handler: Handler,
        *,
        description: str | None = None,
        if_gone: Literal["fail", "wait"] | None = None,
        grace_ms: int | None = None,
        idempotent: bool = False,
    ) -> Callable[[], Awaitable[None]]:
        """Execute a tool for the agent, from now on; returns what withdraws it.

        ``parameters`` is the JSON Schema of the arguments. ``handler`` is called once for every call, whatever happens
        to the line: see :data:`~hermes_ws.client.tools.Handler`. What becomes of a call when this program is gone is
        said by ``if_gone``, after ``grace_ms``. A program that comes back under the ``client_id`` that it gave to
        ``connect`` is asked again for what its earlier life left open, if the tool is ``idempotent``.

        Raises :class:`CommandRefused`.
        """
        offered = ClientTool(
            name=name, description=description, parameters=parameters, if_gone=if_gone, grace_ms=grace_ms
        )
        await self._tools.offer(offered, handler, idempotent=idempotent)
        return lambda: self._tools.withdraw(name)

    @property
    def first_hello(self) -> Hello:
        """What the server said first, on the first line."""
        assert self._link.first_hello is not None
        return self._link.first_hello

    def introduce(self, update: ClientUpdate) -> None:
        """Have this said first on every line from the next one on."""
        self._link.introduce(update)

    def interactions(self) -> Stream[Any]:
        """Interactions that are requested and resolved, and snapshots."""
        return self._link.stream(pick_interactions)

    # -- what is ---------------------------------------------------------------------------------------

    async def snapshot(self) -> SnapshotState:
        """The folded state."""
        ok = await self.send(SnapshotGet())
        assert ok.snapshot is not None
        return ok.snapshot

    async def tools(self) -> list[ToolDescription]:
        """The tools that may be used here."""
        return (await self.send(ToolsList())).tools or []

    async def approvals(self) -> list[ApprovalRule]:
        """The remembered decisions that hold here."""
        return (await self.send(ApprovalsList())).rules or []

    async def revoke(self, rule_id: str) -> Ok:
        """Forget a remembered decision."""
        return await self.send(ApprovalsRevoke(rule_id=rule_id))

    async def ping(self) -> int:
        """Whether anybody is there; the conversation's last number."""
        ok = await self.send(Ping())
        return ok.at if ok.head is None else ok.head


def _anything(received: Received) -> Received:
    return received


def _event(received: Received) -> Update | None:
    frame = received.frame
    return None if isinstance(frame, Skipped) else frame


def _event_of(received: Received, run_id: str | None) -> Update | None:
    event = _event(received)
    if event is None or isinstance(event, Snapshot):
        return event
    belongs_to = event.fields.get("run_id") if isinstance(event, UnknownEvent) else getattr(event, "run_id", None)
    return event if belongs_to == run_id else None
