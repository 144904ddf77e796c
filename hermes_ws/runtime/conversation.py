"""One conversation at work: its session, its log, its readers.

Theory of operation. Whatever happens (a command, an agent's report, a timer) goes through the session and comes back as
a decision. :meth:`Conversation.commit` encodes the decision's events once and queues one append; nothing of it is
visible yet. When the store says that it is committed, in this order: the tail grows, effects are carried out, whoever
waits is told, and the readers are woken, once for all that one group commit made visible.

Deltas that come while an append is on its way are held back and merged; they become events, and get their numbers,
when the way is clear. Anything else that happens flushes them first, so order is kept. An idle pipe delays nothing.

If a commit fails, what is in memory is ahead of the log and worth nothing: the conversation is dropped (agent
cancelled, sockets closed with 4500, waiters told) and folded anew from the log by whoever comes next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import msgspec
import structlog

from hermes_ws.decisions import Decision, Effect, RememberRule, RunOptions
from hermes_ws.errors import CommandError, ConversationDeleted, IllegalTransition, LogConflict, StoreError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.commands import Command, InteractionReply, RunRetry, RunStart, RunSteer, RunStop
from hermes_ws.protocol.control import Ok, SnapshotState
from hermes_ws.protocol.summaries import ConversationSummary
from hermes_ws.protocol.values import ApprovalRule, ErrorInfo
from hermes_ws.reports import DELTAS
from hermes_ws.runtime.awaited import Answers
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.command_ids import CommandIds, Reply, refusal
from hermes_ws.runtime.deltas import Delta, DeltaKind, Deltas
from hermes_ws.runtime.followers import Followers
from hermes_ws.runtime.host import Host
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.projections import project, rule_row
from hermes_ws.runtime.readers import Reader
from hermes_ws.runtime.slots import Slot
from hermes_ws.runtime.tail import Tail
from hermes_ws.session import Session
from hermes_ws.store.base import Append, CommandRow, ConversationRef, RecordRow, SecretRow

__all__ = ["Conversation"]

log = structlog.get_logger("hermes_ws.conversation")

TAKE_UP_MAX_S: Final = 30.0
"""Longest wait between two tries to take up what was under way, while the log cannot be written."""


@dataclass(slots=True)
class _Pending:
    """An append on its way."""

    payloads: list[bytes]
    effects: list[Effect]
    then: list[Callable[[StoreError | None], None]]
    at: int
    line: ConversationSummary | None = None
    encoded: bytes | None = None


class Conversation:
    """See the top of the module. Everything here runs on the event loop, and nothing but a commit takes time."""

    def __init__(
        self,
        host: Host,
        ref: ConversationRef,
        make_session: Callable[[], Session],
        *,
        settings: ConversationSettings,
        tail_bytes: int,
        floor: int = 1,
        log_bytes: int = 0,
        rules: Iterable[ApprovalRule] = (),
        unreadable_secrets: Iterable[str] = (),
    ) -> None:
        self.ref = ref
        self.store = host.store_of(ref)
        self.session = make_session()
        self.settings = settings
        self.floor = floor
        self.log_bytes = log_bytes
        self.rules: dict[str, ApprovalRule] = {rule.rule_id: rule for rule in rules}
        self.unreadable_secrets = set(unreadable_secrets)
        """Names of secrets that the configuration tells of, but that could not be opened: they are as good as missing
        until they are given anew."""
        self.tail = Tail(self.session.state.head, max_bytes=tail_bytes)
        self.last_event_at = self.session.state.last_ts
        self.line: ConversationSummary | None = None
        """It in one line as of the last commit of more than deltas; None: there was none since it was loaded."""
        self.readers: set[Reader] = set()
        self.holders = 0
        self.followers = Followers()
        self.slot: Slot | None = None
        self.used_at = host.uptime()
        self.dead = False
        self.answers = Answers()
        self._host = host
        self._make_session = make_session
        self._pending: deque[_Pending] = deque()
        self._deltas = Deltas(merge_bytes=settings.delta_bytes)
        self._drained: asyncio.Event | None = None
        self._advanced: asyncio.Event | None = None
        self._ids = CommandIds(
            self.store,
            ref,
            now=host.now,
            most=settings.recent_commands,
            complete=self.session.state.epoch is None,
            keyed=lambda data: host.vault.digest(ref, data),
            confidential=lambda command: self.session.is_confidential(command),
        )
        self._timer: asyncio.TimerHandle | None = None
        self._wake_due = False
        self._weighing = False
        state = self.session.state
        under_way = state.active is not None or state.queue or self.session.stale_servers()
        self._taken_up = self.session.taken_up = not under_way

    # -- what readers see ------------------------------------------------------------------------------

    @property
    def committed(self) -> int:
        return self.tail.head

    @property
    def epoch(self) -> str | None:
        """The log's epoch; None until something is committed."""
        return self.session.state.epoch if self.committed else None

    def now(self) -> int:
        return self._host.now()

    def uptime(self) -> float:
        return self._host.uptime()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._host.spawn(work)

    @property
    def idle(self) -> bool:
        """Whether nobody would notice if it left memory."""
        used = self.readers or self.holders or self._pending or self._deltas
        return not (used or self.session.state.active or self.session.state.queue)

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep the conversation in memory meanwhile: somebody works with this very object."""
        self.holders += 1
        try:
            yield
        finally:
            self.holders -= 1
            self.used_at = self.uptime()

    @contextmanager
    def followed(self, run_id: str | None = None) -> Generator[None]:
        """:meth:`held` by somebody who waits for what comes, of this run or of all."""
        with self.followers.one(run_id), self.held():
            yield

    def is_followed(self, run_id: str | None = None) -> bool:
        """Whether anybody looks at this run; None: at anything here."""
        return bool(self.readers) or self.followers.of(run_id)

    def snapshot(self) -> SnapshotState:
        """The state as it is now, which may be ahead of what is committed: show it after :meth:`settled`."""
        limits = self.session.limits
        self.flush()
        return self.session.state.snapshot(max_items=limits.snapshot_items, max_bytes=limits.snapshot_bytes)

    def summary(self) -> ConversationSummary:
        """The conversation in one line, for lists."""
        state = self.session.state
        return ConversationSummary(
            conversation_id=self.ref.conversation_id,
            title=state.title,
            status=state.status,
            run_id=state.active.run_id if state.active else None,
            queue=len(state.queue),
            interactions=list(state.interactions.values()),
            last_event_at=state.last_ts,
            head=state.head,
            usage=state.usage,
        )

    # -- committing ------------------------------------------------------------------------------------

    def commit(
        self,
        decision: Decision,
        then: Callable[[StoreError | None], None] | None = None,
        *,
        command: CommandRow | None = None,
        revoked: Sequence[str] = (),
        records: Sequence[RecordRow] = (),
    ) -> None:
        """Append what was decided; carry out its effects and call ``then`` when it is committed.

        A decision without anything to keep is done when all before it is.
        """
        if self.dead:
            if then is not None:
                then(StoreError("the conversation was dropped after a failed commit"))
            return
        payloads = [encode(event) for event in decision.events]
        state = self.session.state
        pending = _Pending(payloads, decision.effects, [then] if then is not None else [], state.last_ts)
        if not (payloads or command or revoked or records):
            self._after_all(pending)
            return
        deltas = [isinstance(event, DELTAS) for event in decision.events]
        batch = Append(
            ref=self.ref,
            head=state.head - len(payloads),
            at=state.last_ts,
            sync=not all(deltas) or command is not None or bool(revoked or records),
            done=self._done,
            events=payloads,
            deltas=deltas,
            epoch=state.epoch,
            commands=[command] if command else [],
            rules=[rule_row(effect.rule) for effect in decision.effects if isinstance(effect, RememberRule)],
            revoked=list(revoked),
            secrets=self._sealed(decision.secrets),
            records=list(records),
        )
        if batch.sync:
            pending.line, batch.waiting = self.summary(), state.needs_person
            batch.summary = pending.encoded = msgspec.json.encode(pending.line)
            project(self.session, decision, batch)
            self._arm()
        self._pending.append(pending)
        self.store.append(batch)

    def _sealed(self, secrets: Mapping[str, str | None]) -> list[SecretRow]:
        self.unreadable_secrets -= secrets.keys()
        seal = self._host.vault.seal
        return [SecretRow(name, None if s is None else seal(self.ref, name, s)) for name, s in secrets.items()]

    def _after_all(self, pending: _Pending) -> None:
        if self._pending:
            self._pending[-1].effects += pending.effects
            self._pending[-1].then += pending.then
        else:
            self._release(pending, None)

    def _done(self, error: StoreError | None) -> None:
        """The oldest append is committed, or will never be."""
        if self.dead:
            return
        if error is not None:
            self.drop(error)
            return
        pending = self._pending.popleft()
        self.tail.extend(pending.payloads)
        self.log_bytes += sum(map(len, pending.payloads))
        self.last_event_at, self.line = pending.at, pending.line or self.line
        self._release(pending, None)
        if pending.payloads:
            self._host.changed(self, pending.encoded)
        if self.too_heavy and self._taken_up and not self._weighing:
            self._weighing = True
            self.spawn(self._end_for_size)
        if not self._taken_up and self._timer is not None:  # the log takes commits again: no need to wait
            self._timer.cancel()
            self.take_up()
        if not self._pending:
            self.flush()
        if not self._wake_due:
            self._wake_due = True
            asyncio.get_running_loop().call_soon(self._wake)

    @property
    def too_heavy(self) -> bool:
        """Whether the log has reached the size it may have, as far as is known here."""
        return self.log_bytes > self.settings.log_bytes

    async def weigh(self) -> None:
        """Ask the log what it weighs: what was folded away since does not count. Raises :class:`StoreError`."""
        self.log_bytes = await self.store.weight(self.ref)

    async def _end_for_size(self) -> None:
        """The active run fails, if the log weighs as much as it seems to."""
        try:
            await self.weigh()
        finally:
            self._weighing = False
        run = self.session.state.active
        if self.too_heavy and run is not None and run.status != "stopping" and not self.dead:
            error = ErrorInfo(code="storage_full", message=self._why_too_heavy(), retryable=False)
            self.commit(self.session.give_up(run.run_id, error))

    def _why_too_heavy(self) -> str:
        return f"this conversation's log has reached its {self.settings.log_bytes} bytes; fork it, or delete it"

    def _release(self, pending: _Pending, error: StoreError | None) -> None:
        if error is None:
            for effect in pending.effects:
                self._host.perform(self, effect)
        for tell in pending.then:
            tell(error)

    def _wake(self) -> None:
        self._wake_due = False
        if self._advanced is not None:
            self._advanced.set()
            self._advanced = None
        for reader in tuple(self.readers):
            try:
                reader.wake()
            except Exception:  # one reader's trouble is not the next one's
                log.exception("reader.crashed", conversation=self.ref.conversation_id)
                reader.close(CloseCode.INTERNAL, "the server failed at this; reconnect and resume")

    async def wait_beyond(self, seq: int, timeout_s: float) -> None:
        """Wait until something after ``seq`` may be seen, but no longer than ``timeout_s``."""
        with self.held(), anyio.move_on_after(timeout_s):
            while self.committed <= seq and not self.dead:
                self._advanced = self._advanced or asyncio.Event()
                await self._advanced.wait()

    async def settled(self) -> None:
        """Wait until all that was decided so far is committed. Raises :class:`StoreError` if it never will be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(error: StoreError | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

        if self.dead:
            raise StoreError("the conversation was dropped after a failed commit")
        self.flush()
        self.commit(Decision(), tell)
        await future

    def freeze(self) -> None:
        """Nothing is committed from here on."""
        self.dead = True
        if self._timer is not None:
            self._timer.cancel()

    def let_go(self) -> None:
        """The server goes down. What is under way, open questions above all, stays in the log as it is, for the next
        server to take up."""
        self.freeze()
        self._release_waiters()

    def _release_waiters(self) -> None:
        for event in filter(None, (self._drained, self._advanced)):
            event.set()

    def drop(self, error: StoreError) -> None:
        """Memory is worth nothing any more: let go of everything, and tell everybody who waits."""
        log.error("conversation.dropped", conversation=self.ref.conversation_id, error=str(error))
        self._end(error, CloseCode.INTERNAL, "the log could not be written; reconnect and resume")

    def deleted(self) -> None:
        """It is gone from the log: tell everybody, and be gone from here."""
        what = "the conversation was deleted"
        self._end(ConversationDeleted(what), CloseCode.DELETED, what)

    def _end(self, error: StoreError, code: CloseCode, reason: str) -> None:
        self.freeze()
        self._host.dropped(self)
        pending, self._pending = self._pending, deque()
        for one in pending:
            self._release(one, error)
        self._release_waiters()
        for reader in tuple(self.readers):
            reader.close(code, reason)

    # -- deltas ----------------------------------------------------------------------------------------

    async def delta(self, kind: DeltaKind, run_id: str, text: str, call_id: str | None = None) -> None:
        """Text from an agent or a running tool. Waits only when too much of it is not committed yet."""
        self.say(kind, run_id, text, call_id)
        while self._deltas.size > self.settings.backlog_bytes and not self.dead:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()

    def say(self, kind: DeltaKind, run_id: str, text: str, call_id: str | None = None) -> None:
        """:meth:`delta` without waiting: for the last of it."""
        if text:
            self._deltas.add(kind, run_id, text, call_id)
            if not self._pending:
                self.flush()

    def flush(self) -> None:
        """Make events of what was held back: something else is about to happen. What may be the beginning of a secret
        waits for more all the same: only an item's own pieces have to stay in order."""
        self._make_events(self._deltas.take(self.session.scrubber))

    def flush_all(self) -> None:
        """Make events of everything that was held back: what was being said ends."""
        self._make_events(self._deltas.take())

    def _make_events(self, deltas: Sequence[Delta]) -> None:
        if not deltas or self.dead:
            return
        together, now = Decision(), self.now()
        for one in deltas:
            try:
                together.events += self._delta_events(one, one.text, now)
            except IllegalTransition:  # an agent that speaks outside its step; nobody else's flush fails for it
                log.warning("delta.out_of_place", conversation=self.ref.conversation_id, run_id=one.run_id)
        self.commit(together)
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _delta_events(self, one: Delta, text: str, now: int) -> list[ev.Event]:
        run = self.session.state.active
        if run is None or run.run_id != one.run_id or not text:
            return []
        if one.kind == "message" or one.kind == "reasoning":
            return self.session.delta(one.run_id, one.kind, text, now).events
        assert one.call_id is not None
        return self.session.tool_output(one.run_id, one.call_id, now, stream=one.kind, chunk=text).events

    # -- commands --------------------------------------------------------------------------------------

    async def once(
        self, command: Command, caller: Caller, reply: Reply, do: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Do it, unless its id says that it was done: then the stored answer is given again (guarantee 5)."""
        if self.dead:
            raise CommandError("internal", "the conversation is being reloaded; send the command again")
        await self._ids.once(command, caller, reply, do, self.refuse)

    def refuse(self, refused: CommandError, *replies: Reply) -> None:
        """Tell of a refusal once what it rests on is committed: a crash must not make it untrue."""

        def then(error: StoreError | None) -> None:
            for reply in replies:
                reply(refused if error is None else refusal(error))

        if self.dead:
            then(None)
        else:
            self.commit(Decision(), then)

    async def knows(self, command: Command, caller: Caller) -> bool:
        """Whether the command's id was used here in the last 24 h."""
        return await self._ids.knows(command, caller)

    def decide(
        self, command: Command, caller: Caller, options: RunOptions | None = None, run_id: str | None = None
    ) -> Decision:
        """What the session makes of it; the conversation comes into being with its first accepted command."""
        if self.too_heavy and not isinstance(command, (RunStop, InteractionReply)):
            raise CommandError("storage_full", self._why_too_heavy())
        self.flush()
        created = self._create()
        try:
            decision = self.session.command(
                command,
                by=caller.by,
                role=caller.principal.role,
                via=caller.via,
                now=self.now(),
                options=options,
                run_id=run_id,
            )
        except Exception:
            if created:
                self.session = self._make_session()
            raise
        if isinstance(command, (RunStart, RunSteer, RunRetry)) and caller.principal.tools is not None:
            self.session.bound(decision.result["run_id"], caller.principal.tools)
        decision.events[:0] = created
        return decision

    def _create(self) -> list[ev.Event]:
        """The first event, if the conversation has none yet."""
        return self.session.create(self.now()).events if self.session.state.epoch is None else []

    def accept(
        self,
        command: Command,
        caller: Caller,
        decision: Decision,
        reply: Reply,
        *,
        revoked: Sequence[str] = (),
        records: Sequence[RecordRow] = (),
    ) -> None:
        """Commit what a command came to, with its ``ok`` under its id, and answer it after that."""
        self.used_at = self.uptime()
        decision.events[:0] = self._create()
        ok = Ok(id=command.id, at=self.session.state.head, **decision.result)
        row = self._ids.row(command, caller, ok)

        def then(error: StoreError | None) -> None:
            self._ids.settle(command, caller, reply, ok if error is None else refusal(error))

        self.commit(decision, then, command=row, revoked=revoked, records=records)

    # -- time ------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Set the clock for what the session has to do next."""
        if not self._taken_up:  # the timer is for the next try at that
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.session.next_timer()
        if due is not None and not self.dead:
            delay_s = min(max(0, due - self.now()) / 1000, 3600.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._host.look_at_clock()
        self.flush()
        self.commit(self.session.tick(self.now()))
        self._arm()

    def clock_jumped(self, by_ms: int) -> None:
        """The wall clock was set: what is due when has to be reckoned anew."""
        self.session.jumped(by_ms)
        self._arm()

    def adopt(self, events: list[ev.Event], command: CommandRow | None, options: dict[str, RunOptions]) -> None:
        """Begin with these events, as a fork does, for this command. Raises :class:`CommandError` when it has begun
        already."""
        if self.session.state.epoch is not None:
            message = f"conversation {self.ref.conversation_id!r} exists already; choose another id, or none"
            raise CommandError("id_reused", message, path="$.conversation_id")
        self.commit(self.session.adopt(events, options), command=command)

    def bring(
        self, make: Callable[[], tuple[list[ev.Event], dict[str, RunOptions]]], records: Sequence[RecordRow] = ()
    ) -> None:
        """Go on from a history that was made elsewhere: ``make`` gives its events, which follow the last one, and the
        options of its runs. A run among them that is not over is set to work. Raises :class:`CommandError` ``busy``
        while another one is there."""
        state = self.session.state
        if state.active is not None or state.queue or not self._taken_up:
            raise CommandError("busy", "a run is active or waiting in this conversation; bring history along after it")
        self.flush()
        created = self._create()
        decision = self.session.adopt(*make())
        decision.events[:0] = created
        self.commit(decision, records=records)

    def take_up_in(self, pause_s: float) -> None:
        """:meth:`take_up` after a while, or as soon as a commit succeeds."""
        if not self._taken_up:
            self._timer = asyncio.get_running_loop().call_later(pause_s, self.take_up)

    def take_up(self, retry_s: float = 1.0) -> None:
        """After a restart: go on with what the log says was under way.

        First the log is asked to take a commit that adds nothing. Where it cannot (the disk is full, somebody holds the
        file) the conversation stays readable as it is, and this is tried again.
        """
        self._timer, state = None, self.session.state
        if self._taken_up:
            return

        def tell(error: StoreError | None) -> None:
            if self.dead:
                return
            if error is None and self.session.holding:
                return  # the server goes down: the next one takes it up
            if error is None:
                self._taken_up = True
                self.flush()
                self.commit(self._host.take_up(self))
                self._arm()
            elif isinstance(error, LogConflict):
                self.drop(error)
            else:
                log.warning("conversation.not_taken_up", conversation=self.ref.conversation_id, error=str(error))
                again_s = min(retry_s * 2, TAKE_UP_MAX_S)
                self._timer = asyncio.get_running_loop().call_later(retry_s, lambda: self.take_up(again_s))

        self.store.append(Append(ref=self.ref, head=state.head, at=state.last_ts, sync=True, done=tell))
