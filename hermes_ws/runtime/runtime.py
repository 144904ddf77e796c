"""The runtime: conversations in memory, agents at work, and the clock. The only place that spawns tasks.

A conversation is in memory while somebody uses it: a socket, a run, a request. It is folded from the log when it is
first asked for, and leaves when it has been idle for a while. At most one object per conversation is there at a time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import msgspec
import structlog

from hermes_ws.agents.base import Agent, StopReason
from hermes_ws.decisions import Answer, Decision, Effect, Reconfigured, RememberRule, StartRun, StopRun
from hermes_ws.errors import AgentError, CommandError, IllegalTransition, ServerDraining, StoreError
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.control import GoAway
from hermes_ws.protocol.values import ErrorInfo
from hermes_ws.reports import RecoveryReason
from hermes_ws.runtime.calls import Workshop
from hermes_ws.runtime.checked import checked
from hermes_ws.runtime.command_ids import COMMAND_TTL_MS
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.ephemeral import Ephemerals
from hermes_ws.runtime.handed import Handed
from hermes_ws.runtime.images import Images
from hermes_ws.runtime.inbox import Inboxes, InboxReader
from hermes_ws.runtime.loading import add_deltas, end_leftovers, folded
from hermes_ws.runtime.loop_name import known_to_sniffio
from hermes_ws.runtime.parts import RuntimeSettings
from hermes_ws.runtime.permissions import Permissions
from hermes_ws.runtime.readers import Reader
from hermes_ws.runtime.slots import Slot
from hermes_ws.runtime.sweeping import Sweeper
from hermes_ws.runtime.toolboxes import Toolboxes
from hermes_ws.runtime.turn import RunTurn
from hermes_ws.runtime.work import RETAKE_FIRST_S, RETAKE_MAX_S, Drops, Work
from hermes_ws.scrub import Scrubber
from hermes_ws.session import Session
from hermes_ws.state import State
from hermes_ws.store.base import ConversationRef, Loaded, Store
from hermes_ws.store.blobs import Blobs
from hermes_ws.store.directory import EPHEMERAL, DataDirectory, is_ephemeral
from hermes_ws.store.vault import Vault
from hermes_ws.tools.base import Tool

__all__ = ["Runtime", "RuntimeSettings", "new_id"]

log = structlog.get_logger("hermes_ws.runtime")

TICK_S = 1.0
FORGET_EVERY_S = 3600.0
QUIET_POLL_S = 0.05
CLOCK_JUMP_MS = 1_500
"""More than this between two beats, by the wall clock against the steady one, and somebody has set the clock."""
FORGET_DROPS_S = 600.0
"""After so long without a failed commit, waits begin at the first again."""


def new_id(prefix: str) -> str:
    """A fresh id, unguessable and unique everywhere."""
    return f"{prefix}_{secrets.token_hex(10)}"


def _stop_reason(returned: Any) -> StopReason:
    """What an agent returned, which is somebody else's code: nothing is as good as ``end``."""
    reason: StopReason = checked("end" if returned is None else returned, StopReason)
    return reason


def wall_clock() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Runtime:
    """See the top of the module. Use it as ``async with Runtime.running(...) as runtime``."""

    def __init__(
        self,
        store: Store,
        directory: DataDirectory,
        *,
        settings: RuntimeSettings,
        agents: Mapping[str, Agent],
        tools: Mapping[str, Tool],
        vault: Vault,
        scrubber: Scrubber,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self.store = store
        self.ephemerals = Ephemerals(store)
        self.directory = directory
        self.vault = vault
        self.scrubber = scrubber
        """Knows the server's own secrets."""
        self.settings = settings
        self.agents = dict(agents)
        self.toolboxes = Toolboxes(tools, directory, settings.mcp, settings.operator, settings.clients, self.spawn)
        self.permissions = Permissions(
            default=settings.tools.default,
            approvals=settings.approvals,
            agents=settings.agent_terms,
            operator=settings.operator,
        )
        self.handed = Handed()
        self.images = Images(Blobs(directory, settings.blobs))
        self._sweeper = Sweeper(store, directory, self.images, settings, now=self.now)
        self.inboxes = Inboxes(self, settings.inbox, settings.readers)
        self.instance = secrets.token_hex(8)
        self.draining = False
        self._tasks = tasks
        self._closing = False
        self._conversations: dict[ConversationRef, Conversation] = {}
        self._loading: dict[ConversationRef, asyncio.Future[None]] = {}
        self._work: dict[str, Work] = {}
        self._deleting: dict[ConversationRef, asyncio.Future[bool]] = {}
        self._drops: dict[ConversationRef, Drops] = {}
        self._clock_ms = self.now() - self.uptime() * 1000
        self._slots = anyio.Semaphore(settings.runs.concurrent)
        self._expected: Counter[ConversationRef] = Counter()
        """Who waits for a conversation to be loaded: until they have it, it stays."""

    @classmethod
    @asynccontextmanager
    async def running(cls, store: Store, directory: DataDirectory, **parts: Any) -> AsyncGenerator[Runtime]:
        """A runtime at work; on leaving, its agents are let go of where they are, for the next server to take up."""
        try:
            with known_to_sniffio():
                async with anyio.create_task_group() as tasks:
                    runtime = cls(store, directory, tasks=tasks, **parts)
                    tasks.start_soon(runtime._tick_forever)
                    tasks.start_soon(runtime._sweeper.forever)
                    try:
                        await runtime._take_up()
                        yield runtime
                    finally:
                        runtime._let_go()
                        with anyio.CancelScope(shield=True):
                            await runtime.toolboxes.close()
                        tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:  # tasks are guarded: what is in here is the caller's own
            raise group.exceptions[0] from None

    # -- conversations ---------------------------------------------------------------------------------

    async def open(self, ref: ConversationRef) -> Conversation:
        """The conversation, from memory or from the log; a new one is in memory only.

        Raises :class:`StoreError`; :class:`CommandError` ``overloaded`` when memory is full of busy ones, ``not_found``
        for an ephemeral one that is over.
        """
        while True:
            while ref in self._deleting:
                await asyncio.wait([self._deleting[ref]])
            found = self._conversations.get(ref)
            if found is not None:
                found.used_at = self.uptime()
                return found
            self.ephemerals.check(ref)
            loading = self._loading.get(ref)
            if loading is None:
                self._make_room()
                loading = self._loading[ref] = asyncio.get_running_loop().create_future()
                self.spawn(partial(self._load, ref, loading))
            self._expected[ref] += 1
            try:
                await asyncio.shield(loading)
            finally:
                self._expected[ref] -= 1
                if not self._expected[ref]:
                    del self._expected[ref]

    async def begin_ephemeral(self, namespace: str) -> Conversation:
        """A new conversation that is not kept; whoever begins it deletes it. Raises as :meth:`open`."""
        ref = ConversationRef(namespace, new_id(EPHEMERAL.rstrip("_")))
        with self.ephemerals.begun(ref):
            return await self.open(ref)

    def store_of(self, ref: ConversationRef) -> Store:
        """The log that the conversation is in."""
        return self.ephemerals.store_of(ref)

    @property
    def closing(self) -> bool:
        """Whether the server has let go of its conversations, for the next one to take up."""
        return self._closing

    def _make_room(self) -> None:
        """Let the conversation go that has been idle longest, if as many are in memory as may be."""
        if len(self._conversations) + len(self._loading) < self.settings.conversations.in_memory:
            return
        idle = [conversation for conversation in self._conversations.values() if self._may_go(conversation)]
        if not idle:
            message = f"{self.settings.conversations.in_memory} conversations are in use; come back a little later"
            raise CommandError("overloaded", message, retry_after_ms=1000)
        self._evict(min(idle, key=lambda conversation: conversation.used_at))

    def _may_go(self, conversation: Conversation) -> bool:
        return conversation.idle and conversation.ref not in self._expected

    def _evict(self, conversation: Conversation) -> None:
        """Out of memory with it. Who still has it in hand must not work with it any more."""
        conversation.freeze()
        self.toolboxes.forget(conversation)
        del self._conversations[conversation.ref]

    async def _load(self, ref: ConversationRef, loading: asyncio.Future[None]) -> None:
        try:
            store = self.store_of(ref)
            loaded = await store.load(ref)
            for row in loaded.runs if loaded is not None else ():
                if row.run_id in self._work:  # its commit failed here, and its agent is still letting go
                    await self._work[row.run_id].over.wait()
            if loaded is not None and any(row.status != "queued" for row in loaded.runs):
                await add_deltas(store, ref, loaded)
            conversation = self._fold(ref, loaded)
            await end_leftovers(conversation)
        except Exception as error:  # whoever waits gets it
            damaged = isinstance(error, (msgspec.MsgspecError, UnicodeDecodeError, IllegalTransition))
            known = error if isinstance(error, StoreError) else StoreError(f"the log of it cannot be folded: {error}")
            trace = not damaged and known is not error
            log.error("conversation.unreadable", conversation=ref.conversation_id, error=str(known), exc_info=trace)
            loading.set_exception(known)
            loading.exception()
            return
        finally:
            del self._loading[ref]
        conversation.session.holding = self.draining
        self._conversations[ref] = conversation
        loading.set_result(None)
        if self._closing:
            conversation.let_go()
        elif ref in self._drops:
            conversation.take_up_in(self._drops[ref].pause_s(self.uptime()))
        else:
            conversation.take_up()

    def _fold(self, ref: ConversationRef, loaded: Loaded | None) -> Conversation:
        kept = folded(ref, loaded, self.vault)
        limits = self.settings.limits_of(ephemeral=is_ephemeral(ref))

        def make_session() -> Session:
            return Session(
                kept.state if kept.state.epoch is not None else State(ref.conversation_id),
                new_id=new_id,
                limits=limits,
                resolve_agent=self.resolve_agent,
                preview_bytes=self.settings.tools.preview_bytes,
                options=kept.options,
                fingerprint=lambda name, value: self.vault.fingerprint(ref, name, value),
                secrets=kept.secrets,
                scrubber=self.scrubber,
            )

        return Conversation(
            self,
            ref,
            make_session,
            settings=self.settings.conversations,
            tail_bytes=self.settings.readers.tail_bytes,
            floor=loaded.floor if loaded else 1,
            log_bytes=loaded.bytes if loaded else 0,
            rules=kept.rules,
            unreadable_secrets=kept.unreadable,
        )

    def resolve_agent(self, name: str | None, model: str | None) -> tuple[str, str]:
        """The agent that ``name`` (None: the default) means, and the model it will use."""
        name = name or self.settings.default_agent
        agent = self.agents.get(name)
        return name, model or (agent.default_model if agent else "") or ""

    @property
    def conversations(self) -> int:
        """How many are in memory."""
        return len(self._conversations)

    @property
    def active_runs(self) -> int:
        """How many agents are at work."""
        return len(self._work)

    async def _take_up(self) -> None:
        """Finish what an earlier server began: processes, deletions, then runs."""
        await self.toolboxes.end_leftovers()
        deleted = await self.store.deleted()
        for ref in deleted:
            try:
                await anyio.to_thread.run_sync(self.directory.discard, ref)
            except OSError as error:
                log.warning("files.not_removed", conversation=ref.conversation_id, error=str(error))
        await anyio.to_thread.run_sync(self.directory.put_all_back)
        if await anyio.to_thread.run_sync(self.directory.discard_ephemeral) or deleted:
            self._sweeper.soon()
        for ref in await self.store.unfinished():
            await self._retake(ref, first_s=0)

    async def _retake(self, ref: ConversationRef, first_s: float = RETAKE_FIRST_S) -> None:
        """Open a conversation whose runs have to go on. One that cannot be read now is tried again later, and keeps no
        other from its work."""
        wait_s = first_s
        try:
            await anyio.sleep(wait_s)
            await self.open(ref)
        except (StoreError, CommandError):
            again_s = min(wait_s * 2 or RETAKE_FIRST_S, RETAKE_MAX_S)
            self.spawn(lambda: self._retake(ref, again_s))

    # -- deletion --------------------------------------------------------------------------------------

    async def delete(self, ref: ConversationRef) -> bool:
        """Remove a conversation wholly: events, rows, files, and whatever it has at work. False: there is none.

        Raises :class:`StoreError`, with the conversation as it was, but for what was at work having been cut short.
        """
        while ref in self._deleting:
            await asyncio.wait([self._deleting[ref]])
        outcome = self._deleting[ref] = asyncio.get_running_loop().create_future()
        self.spawn(partial(self._delete_for, ref, outcome))
        return await asyncio.shield(outcome)  # whoever waits may go: what was begun is seen to its end

    async def _delete_for(self, ref: ConversationRef, outcome: asyncio.Future[bool]) -> None:
        try:
            outcome.set_result(await self._delete(ref))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            outcome.set_exception(error)
            outcome.exception()
        finally:
            del self._deleting[ref]
            outcome.cancel()

    async def _delete(self, ref: ConversationRef) -> bool:
        if ref in self._loading:
            await asyncio.wait([self._loading[ref]])
        conversation = self._conversations.get(ref)
        if conversation is not None:
            if conversation.session.state.epoch is None and not is_ephemeral(ref):
                return False
            conversation.freeze()
            for work in [self._work[run_id] for run_id in conversation.session.state.runs if run_id in self._work]:
                work.scope.cancel()
                await work.over.wait()
            await self.toolboxes.end(conversation)
        try:
            async with self.images.alone(ref):
                existed = await self._remove(ref)
        except StoreError as error:
            if conversation is not None:
                conversation.drop(error)
            self.spawn(lambda: self._retake(ref))
            raise
        if conversation is not None:
            conversation.deleted()
        await self.ephemerals.over(ref)
        return existed

    async def _remove(self, ref: ConversationRef) -> bool:
        """Files first: what comes after under the same name must not find them. Raises :class:`StoreError`, with
        everything as it was."""
        leaves = not is_ephemeral(ref) or await anyio.to_thread.run_sync(self.directory.has_files, ref)
        try:
            await anyio.to_thread.run_sync(self.directory.set_aside, ref)
        except OSError as error:
            log.warning("files.not_removed", conversation=ref.conversation_id, error=str(error))
            raise StoreError(f"the files of the conversation cannot be removed: {error.strerror}") from error
        try:
            existed = await self.store_of(ref).delete(ref)
        except StoreError:
            await anyio.to_thread.run_sync(self.directory.put_back, ref)
            raise
        try:
            await anyio.to_thread.run_sync(self.directory.discard, ref)
        except OSError as error:  # set aside they are already, for nobody to find
            log.warning("files.not_removed", conversation=ref.conversation_id, error=str(error))
        self._drops.pop(ref, None)
        if leaves:
            self._sweeper.soon()
        if existed:
            self.inboxes.removed(ref)
        return existed

    # -- what conversations ask for --------------------------------------------------------------------

    def now(self) -> int:
        return wall_clock()

    def uptime(self) -> float:
        return time.monotonic()

    def look_at_clock(self) -> None:
        """If somebody has set the wall clock, tell the conversations: to a run at work that is no time that passed."""
        clock_ms = self.now() - self.uptime() * 1000
        jumped_ms, self._clock_ms = round(clock_ms - self._clock_ms), clock_ms
        if abs(jumped_ms) > CLOCK_JUMP_MS:
            log.warning("clock.jumped", by_ms=jumped_ms)
            for conversation in tuple(self._conversations.values()):
                conversation.clock_jumped(jumped_ms)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.start_soon(self._guarded, work)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A task of one conversation never takes the server with it."""
        try:
            await work()
        except Exception:
            log.exception("task.crashed")

    def perform(self, conversation: Conversation, effect: Effect) -> None:
        """Carry out what a commit has released."""
        match effect:
            case StartRun(run_id):
                work = self._work[run_id] = Work()
                self.spawn(lambda: self._run(conversation, run_id, work))
            case StopRun(run_id):
                if run_id in self._work:
                    self._work[run_id].scope.cancel()
            case Reconfigured():
                self.toolboxes.configured(conversation)
            case Answer():
                conversation.answers.deliver(effect)
            case RememberRule(rule):
                if rule.scope != "always":
                    conversation.rules[rule.rule_id] = rule

    def changed(self, conversation: Conversation, encoded: bytes | None) -> None:
        """Something was committed in it."""
        self.inboxes.changed(conversation, encoded)

    def dropped(self, conversation: Conversation) -> None:
        """A commit failed, or it was deleted: forget the conversation, and cancel its agent. What was under way is
        taken up from the log."""
        if self._conversations.get(conversation.ref) is conversation:
            del self._conversations[conversation.ref]
        self.toolboxes.forget(conversation)
        for run_id in conversation.session.state.runs:
            if run_id in self._work:
                self._work[run_id].scope.cancel()
        if not self._closing and conversation.ref not in self._deleting:
            drops = self._drops.setdefault(conversation.ref, Drops())
            drops.count, drops.at = drops.count + 1, self.uptime()
            self.spawn(lambda: self._retake(conversation.ref))

    def take_up(self, conversation: Conversation) -> Decision:
        """What a restart makes of the runs of a conversation; or a commit that failed, which is not the run's fault."""
        reason: RecoveryReason = "log_unwritable" if conversation.ref in self._drops else "server_restarted"
        return conversation.session.take_up(self.now(), max_attempts=self.settings.runs.max_attempts, reason=reason)

    def workshop(self, conversation: Conversation) -> Workshop:
        """What the conversation's tool calls work with."""
        return Workshop(
            toolbox=self.toolboxes.of(conversation),
            permissions=self.permissions,
            settings=self.settings.tools,
            directory=self.directory,
            images=self.images,
            handed=self.handed,
        )

    # -- runs ------------------------------------------------------------------------------------------

    async def _run(self, conversation: Conversation, run_id: str, work: Work) -> None:
        outcome: StopReason | ErrorInfo
        outcome = ErrorInfo(code="agent_crashed", message="the agent was cancelled", retryable=True)
        try:
            with work.scope:
                outcome = await self._outcome(conversation, run_id)
        finally:
            del self._work[run_id]
            work.over.set()
        if conversation.dead or self._closing:
            return
        conversation.flush_all()
        for rule in [rule for rule in conversation.rules.values() if rule.run_id == run_id]:
            del conversation.rules[rule.rule_id]
        conversation.answers.kept.clear()
        self._drops.pop(conversation.ref, None)
        decision = conversation.session.end_run(run_id, outcome, self.now())
        conversation.used_at = self.uptime()
        conversation.commit(decision)

    async def _outcome(self, conversation: Conversation, run_id: str) -> StopReason | ErrorInfo:
        """Let the agent work; what it raises is how the run failed."""
        agent_name = conversation.session.state.runs[run_id].agent_name
        agent = self.agents.get(agent_name)
        if agent is None:
            message = f"there is no agent {agent_name!r} on this server any more"
            return ErrorInfo(code="agent_crashed", message=message, retryable=False)
        turn = RunTurn(conversation, run_id, self.workshop(conversation), self.settings.runs)
        slot = conversation.slot = Slot(self._slots)
        try:
            async with slot:
                await turn.resume()
                return _stop_reason(await agent.run(turn))
        except AgentError as error:
            return ErrorInfo(code=error.code, message=error.message, retryable=error.retryable)
        except StoreError:
            return ErrorInfo(code="agent_crashed", message="the log could not be written", retryable=True)
        except Exception as crash:  # an agent is somebody else's code; its crash is the run's outcome
            if conversation.dead:
                return ErrorInfo(code="agent_crashed", message="the conversation was let go of", retryable=True)
            log.exception("agent.crashed", agent=agent_name, run_id=run_id)
            message = f"the agent crashed: {type(crash).__name__}"
            return ErrorInfo(code="agent_crashed", message=message, retryable=True)

    # -- time ------------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        forget_at = self.uptime()
        while True:
            try:
                self._beat()
            except Exception:
                log.exception("tick.crashed")
            if self.uptime() >= forget_at:
                forget_at = self.uptime() + FORGET_EVERY_S
                await self._forget_commands(self.now())
            await anyio.sleep(TICK_S)

    def _beat(self) -> None:
        """Heartbeats for those who hear nothing, and out of memory with what nobody uses."""
        self.look_at_clock()
        uptime = self.uptime()
        self.inboxes.beat(uptime)
        for ref in [ref for ref, drops in self._drops.items() if uptime - drops.at > FORGET_DROPS_S]:
            del self._drops[ref]
        for conversation in tuple(self._conversations.values()):
            for reader in tuple(conversation.readers):
                reader.beat(uptime)
            self.toolboxes.beat(conversation)
            unused = uptime - conversation.used_at > self.settings.conversations.idle_s
            if unused and self._may_go(conversation) and self.toolboxes.rested(conversation):
                self._evict(conversation)

    async def _forget_commands(self, now: int) -> None:
        try:
            await self.store.forget_commands(now - COMMAND_TTL_MS)
        except StoreError as error:
            log.warning("commands.not_forgotten", error=str(error))

    async def drain(self, grace_s: float, reconnect_after_ms: int) -> None:
        """Say goodbye, give what runs some time, then close every socket with the code that says to come back."""
        self.draining = True
        for conversation in self._conversations.values():
            conversation.session.holding = True
        for reader in self._readers():
            reader.control(GoAway(reason="the server is going down", reconnect_after_ms=reconnect_after_ms))
        with anyio.move_on_after(grace_s):
            await self._quiet()
        for conversation in tuple(self._conversations.values()):
            with suppress(StoreError):
                await conversation.settled()
        await anyio.lowlevel.checkpoint()
        for reader in self._readers():
            reader.close(CloseCode.DRAINING, "the server is going down; reconnect and resume")
        self._let_go()

    def _let_go(self) -> None:
        self._closing = True
        for conversation in self._conversations.values():
            conversation.let_go()
        for work in self._work.values():
            work.scope.cancel()

    async def _quiet(self) -> None:
        """Wait until no agent is at work; one that waits for a person is not waited for."""
        while any(  # noqa: ASYNC110 - a poll at shutdown; an event would burden every run
            c.session.state.status in ("running", "stopping") for c in self._conversations.values()
        ):
            await anyio.sleep(QUIET_POLL_S)

    def _readers(self) -> list[Reader | InboxReader]:
        return [*(reader for c in self._conversations.values() for reader in c.readers), *self.inboxes.readers]

    def check_draining(self) -> None:
        """Raises :class:`ServerDraining` when no new work is taken."""
        if self.draining:
            raise ServerDraining
