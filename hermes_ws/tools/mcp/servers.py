"""The MCP servers of one conversation: started when they are needed, followed, asked for credentials, let go of.

What the conversation's configuration says now is what the next call goes by. A connection that no longer fits it is
retired: calls under way end on it, no other begins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

import anyio

from hermes_ws.errors import CommandError, ToolError
from hermes_ws.protocol.values import McpServerConfig
from hermes_ws.store.base import ConversationRef
from hermes_ws.tools.mcp.pool import McpPool
from hermes_ws.tools.mcp.settings import McpSettings
from hermes_ws.tools.mcp.target import Target, resolve_target

if TYPE_CHECKING:
    from hermes_ws.tools.mcp.connection import Connection

__all__ = ["Asker", "ConversationServers", "Household", "McpState"]

McpState = Literal["starting", "ready", "auth_required", "failed", "stopped"]
T = TypeVar("T")

_lives = count()
_TRIES: Final = 4
"""How often a call is begun: refused credentials and forgotten sessions take one each."""
_GONE: Final = "the conversation is gone"
_UNREADABLE: Final = "its stored credentials cannot be opened with this server's key for secrets; configure them again"
_UNUSABLE: Final = ("auth_required", "failed")
_REST_MAX_S: Final = 600.0
AUTHORIZATION: Final = "Authorization"


class Asker(Protocol):
    """Who can ask people for new credentials: a call, or a run between its calls."""

    async def credential(self, server: str, header: str) -> bool:
        """Have somebody give a new value for a header. True: it is in force. False: nobody did."""
        ...


class Household(Protocol):
    """What the servers need of their conversation."""

    @property
    def servers(self) -> Mapping[str, McpServerConfig]:
        """As the configuration names them now."""
        ...

    @property
    def secrets(self) -> Mapping[str, str]:
        """The plain values of what the configuration only refers to."""
        ...

    def unreadable(self, server: str) -> list[str]:
        """Headers and variables of a server that are stored and cannot be opened with the key as it is now."""
        ...

    @property
    def was_used(self) -> Iterable[str]:
        """Servers of which a tool was called, as the log has it."""
        ...

    def scrub(self, text: str) -> str:
        """The text without secrets of the conversation."""
        ...

    @property
    def workdir(self) -> Path: ...

    def mcp_status(self, server: str, state: McpState, tools: list[str] | None, error: str | None) -> None:
        """Tell everybody."""
        ...


class ConversationServers:
    """See the top of the module."""

    def __init__(self, pool: McpPool, ref: ConversationRef, household: Household) -> None:
        self._pool = pool
        self._ref = ref
        self._house = household
        self._life = next(_lives)
        self._closed = False
        self._current: dict[str, Connection] = {}
        self._told: dict[str, tuple[McpState, list[str] | None, str | None]] = {}
        self._rests_until: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._locks: dict[str, anyio.Lock] = {}
        self._declined: set[tuple[str, bytes]] = set()
        self._lost: dict[str, str] = dict.fromkeys(household.was_used, "it was left since")

    # -- what there is ---------------------------------------------------------------------------------

    @property
    def settings(self) -> McpSettings:
        """The bounds."""
        return self._pool.settings

    @property
    def open(self) -> bool:
        """Whether any server is connected, or about to be."""
        return any(not connection.over.is_set() for connection in self._current.values())

    def ready(self) -> list[Connection]:
        """Connections whose tools can be called, in the order of the configuration."""
        found = (self._current.get(name) for name in self._house.servers)
        return [connection for connection in found if connection is not None and connection.state == "ready"]

    def missing(self) -> dict[str, str]:
        """Servers of the configuration that cannot be used now, and why."""
        told = {name: self._told[name] for name in self._house.servers if name in self._told}
        return {name: error or state for name, (state, _, error) in told.items() if state in _UNUSABLE}

    async def start(self, asker: Asker | None = None) -> None:
        """Start every server that the configuration names and wait until each is there or has failed. One that refuses
        its credentials is tried again as long as ``asker`` gets new ones."""
        self._drop_others()
        async with anyio.create_task_group() as group:
            for name in self._house.servers:
                group.start_soon(self._start, name, asker)

    async def _start(self, name: str, asker: Asker | None) -> None:
        for _ in range(_TRIES):
            try:
                reached = await self._reached(name)
                refused = reached if isinstance(reached, Target) else None
                if refused is None or asker is None or not await self._renewed(name, refused, asker):
                    return
            except (ToolError, CommandError) as problem:  # also that nobody else can be asked now
                self._tell(name, "failed", None, str(problem))
                return

    async def _reached(self, name: str) -> Connection | Target:
        """The connection, once it is there or has failed; or the server with the credentials that it does not take.
        Raises :class:`ToolError`."""
        target = self._target(name)
        if self._house.unreadable(name):
            self._tell(name, "auth_required", None, _UNREADABLE)
            return target
        connection = await self._started(name)
        return connection.target if connection.state == "auth_required" else connection

    async def _started(self, name: str) -> Connection:
        """The connection, once it is there or has failed. Raises :class:`ToolError`."""
        give_up_at = anyio.current_time() + self._pool.settings.start_timeout_s
        while anyio.current_time() < give_up_at:
            connection = await self._connection(name)
            await connection.started()
            if connection.state != "stopped":  # which it is when the configuration changed meanwhile
                return connection
        raise ToolError(f"the configuration of the MCP server {name} changes too often")

    def configured(self) -> None:
        """The configuration has changed: let go of what it does not name, or names otherwise."""
        self._drop_others()
        for name, connection in list(self._current.items()):
            if not self._fits(name, connection):
                self._part_with(name, connection, "its configuration was changed")

    def _fits(self, name: str, connection: Connection) -> bool:
        try:
            return self._target(name).identity() == connection.target.identity()
        except ToolError:
            return False

    def _drop_others(self) -> None:
        """Let go of servers that the configuration does not name any more."""
        for name in [name for name in self._current if name not in self._house.servers]:
            self._current.pop(name).retire()
            self._tell(name, "stopped", None, None)
            self._lost.pop(name, None)

    # -- one of them -----------------------------------------------------------------------------------

    async def _connection(self, name: str) -> Connection:
        """The connection that fits the configuration as it is now; opened, if there is none. Raises
        :class:`ToolError`."""
        if self._closed:
            raise ToolError(_GONE)
        async with self._lock(name):
            target, current = self._target(name), self._current.get(name)
            fits = current is not None and current.target.identity() == target.identity()
            if current is not None and fits and self._good(name, current):
                current.target = target  # its times may be others by now
                return current
            opened = await self._pool.connection(self._ref, self._life, target, self._changed, self._house.scrub)
            if self._closed:
                opened.retire()
                raise ToolError(_GONE)
            if current is not None:
                self._part_with(name, current, "it was started anew")
            self._current[name] = opened
        if opened.state == "starting":
            self._tell(name, "starting", None, None)
        return opened

    def _target(self, name: str) -> Target:
        """What the name means as the configuration is now. Raises :class:`ToolError`."""
        config = self._house.servers.get(name)
        if config is None:
            raise ToolError(f"this conversation has no MCP server {name!r} any more")
        return resolve_target(
            name,
            config,
            self._house.secrets,
            operator=self._pool.operator,
            settings=self._pool.settings,
            workdir=self._house.workdir,
        )

    def _good(self, name: str, connection: Connection) -> bool:
        """Whether to go on with it: it works, or it has failed and is left alone for a while."""
        rests = anyio.current_time() < self._rests_until.get(name, 0.0)
        return connection.usable or (connection.state in ("failed", "auth_required") and not connection.used and rests)

    def _lock(self, name: str) -> anyio.Lock:
        return self._locks.setdefault(name, anyio.Lock())

    def _part_with(self, name: str, connection: Connection, why: str) -> None:
        if connection.used and connection.keeps_state:
            self._lost.setdefault(name, connection.error or why)
        connection.retire()

    def _changed(self, connection: Connection) -> None:
        """A connection has come, gone, or has other tools."""
        name = connection.target.server
        if self._current.get(name) is not connection:
            return
        if connection.state in ("failed", "auth_required"):
            self._failures[name] = self._failures.get(name, 0) + 1
            rest_s = self._pool.settings.retry_s * 2.0 ** (self._failures[name] - 1)
            self._rests_until[name] = anyio.current_time() + min(rest_s, _REST_MAX_S)
        elif connection.state == "ready":
            self._failures[name] = 0
        tools = list(connection.offers.tools) if connection.state == "ready" else None
        error = connection.error
        if connection.state == "ready" and connection.offers.left_out:
            shown = "; ".join(connection.offers.left_out[:5])
            error = f"{len(connection.offers.left_out)} tools were left out: {shown}"
        self._tell(name, connection.state, tools, error)

    def _tell(self, name: str, state: McpState, tools: list[str] | None, error: str | None) -> None:
        if self._told.get(name) != (state, tools, error):
            self._told[name] = (state, tools, error)
            self._house.mcp_status(name, state, tools, error)

    # -- using one -------------------------------------------------------------------------------------

    async def use(
        self, name: str, asker: Asker, work: Callable[[Connection], Awaitable[T]], place: str | None = None
    ) -> T:
        """Have something done by a server, the one at ``place`` if that is given and no other. Raises
        :class:`ToolError` that says for the model why it was not, or what is not known of it."""
        from hermes_ws.tools.mcp.connection import Lost, Unauthorized

        why = ""
        for _ in range(_TRIES):
            self._check_place(name, place)
            connection = await self._reached(name)
            if isinstance(connection, Target):
                await self._renew(name, connection, asker)
                continue
            self._check_place(name, place)
            try:
                if connection.state != "ready":
                    raise ToolError(f"the MCP server {name} cannot be used: {connection.error or connection.state}")
                return await work(connection)
            except Unauthorized:
                self._refused(name, connection)
                await self._renew(name, connection.target, asker)
            except Lost as lost:
                why = f": {lost}"
                if not lost.undone:
                    message = (
                        f"the MCP server {name} went away during the call ({lost}); whether it was done is not known"
                    )
                    raise ToolError(message) from None
        raise ToolError(f"the MCP server {name} was tried {_TRIES} times{why}")

    def _check_place(self, name: str, place: str | None) -> None:
        if place is not None and self._target(name).place != place:
            raise ToolError(f"the MCP server {name} was replaced by another one meanwhile, so the call was not made")

    def _refused(self, name: str, connection: Connection) -> None:
        """Its credentials were good when it began, and are not any more."""
        if connection.state == "ready":
            self._part_with(name, connection, "its credentials were refused")
            if self._current.get(name) is connection:
                self._tell(name, "auth_required", None, "it refused the credentials (401)")

    async def _renew(self, name: str, refused: Target, asker: Asker) -> None:
        if not await self._renewed(name, refused, asker):
            raise ToolError(f"the MCP server {name} refused the credentials (401), and got no others")

    async def _renewed(self, name: str, refused: Target, asker: Asker) -> bool:
        """Whether there are other credentials than those: somebody else's calls may have asked already."""
        async with self._lock(f"{name}/credentials"):
            if self._has_others(name, refused):
                return True
            if not refused.renewable or (name, refused.identity()) in self._declined:
                return False
            # Whatever came of the question: the configuration may have brought others meanwhile.
            if await asker.credential(name, self._header(name)) or self._has_others(name, refused):
                return True
            self._declined.add((name, refused.identity()))
            return False

    def _has_others(self, name: str, refused: Target) -> bool:
        if name not in self._house.servers or self._house.unreadable(name):
            return False
        return self._target(name).identity() != refused.identity()

    def _header(self, name: str) -> str:
        """The header that the credentials are in, as the configuration spells it."""
        given = list(self._house.servers[name].headers or {})
        missing = self._house.unreadable(name)
        spelled = {header.lower(): header for header in given}
        if missing:
            return spelled.get(missing[0], missing[0])
        return given[0] if len(given) == 1 else spelled.get(AUTHORIZATION.lower(), AUTHORIZATION)

    def ask_again(self) -> None:
        """A new run begins: people may be asked again for what they declined to give."""
        self._declined.clear()

    def note(self, name: str) -> str | None:
        """What the model has to know of a server's session, once."""
        why, current = self._lost.pop(name, None), self._current.get(name)
        if why is None or current is None or not current.keeps_state:
            return None
        return f"[The session with the MCP server {name} was lost ({why}): what it kept between calls is gone.]"

    # -- letting go ------------------------------------------------------------------------------------

    def close_idle(self, idle_s: float) -> None:
        """Let go of servers that have not been used for so long."""
        for name, connection in list(self._current.items()):
            unused_s = anyio.current_time() - connection.used_at
            if connection.state == "ready" and not connection.busy and unused_s >= idle_s:
                self._part_with(name, connection, "it was not used for a while")

    def shut(self) -> None:
        """Begin no connection any more."""
        self._closed = True

    async def close(self) -> None:
        """Let go of all of them, and say nothing more."""
        self.shut()
        closing = list(self._current.values())
        self._current = {}
        async with anyio.create_task_group() as group:
            for connection in closing:
                group.start_soon(connection.close)
