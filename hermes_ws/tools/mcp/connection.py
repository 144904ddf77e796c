"""One connection to one MCP server, for one conversation and one configuration.

A task of its own opens it, keeps it and lets go of it (:meth:`Connection.run`): the SDK's scopes belong to the task
that entered them, and whatever breaks in them ends here and nowhere else. Calls come from other tasks. Each is sent by
a task inside the connection, so that whoever is stopped while waiting is free at once; that the server is told goes on
behind, and is bounded.

What an SDK of somebody else's does with what a stranger's server sends is not trusted to end in time: every wait for
the server has a limit here, and the connection's end is the end of every wait.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import httpx2
import mcp_types as types
from mcp.client import Client, ClientRequestContext, IncomingMessage
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from hermes_ws import __version__
from hermes_ws.errors import HermesError, ToolError
from hermes_ws.tools.base import NobodyAnswered, ToolContext
from hermes_ws.tools.mcp.elicitation import Elicitation
from hermes_ws.tools.mcp.exchange import Exchange, current
from hermes_ws.tools.mcp.http import FORGOTTEN, OURS, UNAUTHORIZED, Watch, http_client
from hermes_ws.tools.mcp.offers import Gathering, Offers
from hermes_ws.tools.mcp.settings import McpSettings
from hermes_ws.tools.mcp.sift import Sieve, sifted_transport
from hermes_ws.tools.mcp.stdio import stdio_streams
from hermes_ws.tools.mcp.target import Target

__all__ = ["Connection", "Lost", "Unauthorized"]

State = Literal["starting", "ready", "auth_required", "failed", "stopped"]

T = TypeVar("T")

_PAGES: Final = 100
_ROUNDS: Final = 3
"""How often a call may want something done in a browser before it is made."""
_RELIST_S: Final = 1.0
_EPITAPH_S: Final = 2.0
"""For a connection that broke to say why."""
_NO_CONNECTION: Final = "All connection attempts failed"
_HINTS: Final = {
    ("http", "404"): "; is there an MCP server at that path?",
    ("http", "405"): '; an older server? Try "transport": "sse"',
    ("sse", "400"): '; a newer server? Leave "transport" out',
    ("sse", "404"): "; is there an MCP server at that path?",
    ("sse", "405"): '; a newer server? Leave "transport" out',
}
_CLOSED: Final = ("Connection closed", "SSE stream")
"""How the SDK's own errors of a closed connection begin; servers use the same code for what they like."""
_ABANDONED: Final = 10
"""Calls given up on, after which the connection is not used any more: the SDK keeps a request of each open."""
_MESSAGE_LENGTH: Final = 500

for _name in ("mcp", "client", "httpx2", "httpcore2"):
    # They log what servers send, whole, at ERROR too; and session ids, and addresses. We tell what matters.
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Unauthorized(Exception):
    """The server has refused the credentials (401), and done nothing."""


class Lost(Exception):
    """The connection or its session is gone. ``undone``: the call is known not to have been made."""

    def __init__(self, message: str, *, undone: bool) -> None:
        super().__init__(message)
        self.undone = undone


class Connection:
    """See the top of the module."""

    def __init__(
        self,
        target: Target,
        settings: McpSettings,
        *,
        marked: str,
        changed: Callable[[Connection], None],
        scrub: Callable[[str], str],
    ) -> None:
        """``marked``: what the processes of a stdio server are found by. ``changed`` is called when ``state`` or
        ``offers`` have changed. ``scrub`` takes the conversation's secrets out of a text."""
        self.target = target
        self.state: State = "starting"
        self.error: str | None = None
        self.offers = Offers()
        self.used = False
        """Whether a call was made: then something may be lost with the session."""
        self.used_at = anyio.current_time()
        self.over = anyio.Event()
        self._settings = settings
        self._marked = marked
        self._changed = changed
        self._scrub = scrub
        self._settled = anyio.Event()
        self._closing = anyio.Event()
        self._relist = anyio.Event()
        self._scope = anyio.CancelScope()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._client: Client | None = None
        self._watch = Watch(lambda: self.busy, self._break)
        self._words: deque[str] = deque(maxlen=1)
        self._exchanges: list[Exchange] = []
        self._speaks: str | None = None
        self._sieve = Sieve(tools=settings.tools, blocks=settings.blocks, version=lambda: self._speaks)
        self._list_changes = 0
        self._abandoned = 0
        self._retiring = False
        self._broken: str | None = None

    # -- its life --------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._exchanges)

    @property
    def usable(self) -> bool:
        """Whether it is there, or is being opened."""
        going = self._closing.is_set() or self._retiring or self._broken is not None
        return self.state in ("starting", "ready") and not going

    @property
    def serves(self) -> types.ServerCapabilities | None:
        """What the server can do beside tools, once it is there."""
        return self._client.server_capabilities if self._client is not None else None

    @property
    def keeps_state(self) -> bool:
        """Whether the server keeps a session for us, with whatever calls have left in it."""
        return self.target.transport != "http" or self._watch.session

    async def run(self) -> None:
        """Its whole life; returns when the connection is closed, whatever closed it. Never raises."""
        self._scope.deadline = anyio.current_time() + self._settings.start_timeout_s
        failure: str | None = None
        try:
            with self._scope:
                if self._settings.protocol_version in HANDSHAKE_PROTOCOL_VERSIONS and not await self._lived("legacy"):
                    await self._lived("auto")
                elif self._settings.protocol_version not in HANDSHAKE_PROTOCOL_VERSIONS:
                    await self._lived("legacy" if self.target.transport == "sse" else "auto")
        except Exception as error:  # noqa: BLE001 (the SDK's, or what a server made of it: it ends here)
            failure = self._explained(error)
        if self._broken:
            failure = self._broken
        elif failure is None and self._scope.cancelled_caught and self.state == "starting":
            failure = f"it did not start within {self._settings.start_timeout_s:g} s"
        self._end(failure)

    async def _lived(self, mode: Literal["legacy", "auto"]) -> bool:
        """Live in one age of the protocol; False: the server knows only the other."""
        try:
            await self._live(mode)
        except Exception as error:
            if mode == "legacy" and self.state == "starting" and _is_of_another_age(error):
                return False
            raise
        return True

    async def _live(self, mode: Literal["legacy", "auto"]) -> None:
        async with (
            Client(
                sifted_transport(self._transport(), self._sieve),
                mode=mode,
                cache=None,
                client_info=types.Implementation(name="hermes-ws", version=__version__),
                message_handler=self._on_message,
                elicitation_callback=self._on_elicitation,
            ) as client,
            anyio.create_task_group() as tasks,
        ):
            self._speaks = client.session.protocol_version
            client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]  # ours runs no patterns
            self.offers = await self._listed(client)
            self._client, self._tasks = client, tasks
            self._scope.deadline = math.inf
            self._set("ready")
            try:
                tasks.start_soon(self._follow_list, client)
                if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    tasks.start_soon(self._listen, client)
                await self._closing.wait()
                tasks.cancel_scope.cancel()
            finally:  # leaving may take a while: no call is to begin meanwhile
                self._client = self._tasks = None
                if not self._closing.is_set() and self._broken is None:
                    self._broken = ""

    def _transport(self) -> Any:
        """How the SDK reaches the server."""
        target, settings = self.target, self._settings
        if target.transport == "stdio":
            return stdio_streams(
                target,
                marked=self._marked,
                settings=settings,
                close_s=min(settings.close_timeout_s / 2, 2.0),
                said=self._words,
                ended=self._break,
            )
        return self._http()

    def _break(self, reason: str) -> None:
        """The process has ended, or says what nobody can hear."""
        if not self._broken and not self._closing.is_set():
            self._broken = reason
            self._scope.cancel()

    @asynccontextmanager
    async def _http(self) -> AsyncGenerator[Any]:
        url, most = self.target.url, self._settings.message_bytes
        client = http_client(self.target, self._watch, self._settings)
        if self.target.transport == "sse":

            def ours(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
                return client

            async with sse_client(url, httpx_client_factory=ours) as streams:
                yield streams
        else:
            async with client, streamable_http_client(url, http_client=client, max_sse_event_size=most) as streams:
                yield streams

    def _end(self, failure: str | None) -> None:
        self._client = self._tasks = None
        if self._closing.is_set():
            self._set("stopped")
        elif self._watch.unauthorized and self.state == "starting":
            self._set("auth_required", "it refused the credentials (401)")
        else:
            last = f"; it said: {_ending(self._scrub(self._words[0]).strip())}" if self._words else ""
            self._set("failed", (failure or "the connection ended") + last)
        self._settled.set()
        self.over.set()
        for exchange in self._exchanges:
            exchange.done.set()

    def _set(self, state: State, error: str | None = None) -> None:
        self.state, self.error = state, error
        if state == "ready":
            self._settled.set()
        self._changed(self)

    async def started(self) -> None:
        """Wait until it is there, or has failed."""
        await self._settled.wait()

    def retire(self) -> None:
        """Let no new call begin; close once those under way are over."""
        self._retiring = True
        if not self.busy:
            self._close()

    def _close(self) -> None:
        """Begin to say goodbye; there is a time for that."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._scope.deadline = anyio.current_time() + self._settings.close_timeout_s
        if self.state == "starting":
            self._scope.cancel()

    async def close(self) -> None:
        """Close it, in the time that is set for that, then by force."""
        self._close()
        await self.over.wait()

    # -- its tools -------------------------------------------------------------------------------------

    async def _listed(self, client: Client) -> Offers:
        """All pages of the tool list, as far as the bounds go."""
        if client.server_capabilities.tools is None:
            return Offers()
        tools: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None or len(tools) > self._settings.tools:
                break
        gathering = Gathering(self.target.server, self._settings, self._scrub)
        for tool in tools:
            gathering.add(tool)
            await anyio.lowlevel.checkpoint()
        offers = gathering.offers
        spoiled, self._sieve.left_out = self._sieve.left_out, 0
        offers.left_out += ["a tool that is described in no way that could be understood"] * spoiled
        return offers

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._relist.set()

    async def _listen(self, client: Client) -> None:
        """Servers of the newer protocol tell of changes only to those who ask for it."""
        with suppress(Exception):
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._relist.set()

    async def _follow_list(self, client: Client) -> None:
        """List the tools again when they have changed, now and then, and not for ever."""
        while self._list_changes < self._settings.list_changes:
            await self._relist.wait()
            self._relist = anyio.Event()
            self._list_changes += 1
            with suppress(MCPError, TimeoutError, ValueError):
                with anyio.fail_after(self._settings.start_timeout_s):
                    offers = await self._listed(client)
                if offers.tools != self.offers.tools:
                    self.offers = offers
                    self._changed(self)
            await anyio.sleep(_RELIST_S)

    # -- calls -----------------------------------------------------------------------------------------

    async def call_tool(
        self, name: str, arguments: dict[str, Any], ctx: ToolContext, meta: dict[str, Any] | None
    ) -> types.CallToolResult:
        """Call a tool. Raises :class:`ToolError`, :class:`Unauthorized`, :class:`Lost`."""

        async def call(client: Client, exchange: Exchange) -> types.CallToolResult:
            told: Any = meta
            return await client.call_tool(name, arguments, progress_callback=exchange.report, meta=told)

        return await self.exchange(ctx, call)

    async def exchange(self, ctx: ToolContext, call: Callable[[Client, Exchange], Awaitable[T]]) -> T:
        """Have ``call`` made within the call's time. Raises as :meth:`call_tool`."""
        for _ in range(_ROUNDS):
            try:
                return await self._one(ctx, call)
            except UrlElicitationRequiredError as wanted:  # it has done nothing yet
                for elicitation in wanted.elicitations[: self._settings.questions]:
                    answer = await Elicitation(ctx, self.target.server, self._scrub).answered(elicitation)
                    if answer.action != "accept":
                        raise ToolError("what the server wants done in a browser was declined") from None
        raise ToolError("the server wants something done in a browser again and again")

    async def _one(self, ctx: ToolContext, call: Callable[[Client, Exchange], Awaitable[T]]) -> T:
        """One exchange, by a task of the connection's; it is left behind if it takes too long."""
        client, tasks = self._client, self._tasks
        if client is None or tasks is None:
            raise Lost("the connection is closed", undone=True)
        self.used = True
        waiting = anyio.CancelScope(deadline=anyio.current_time() + self.target.timeout_s)
        exchange = Exchange(ctx, waiting, self._settings.progress_every_s, self._scrub)
        outcome: list[T] = []
        failure: list[Exception] = []

        async def work() -> None:
            current.set(exchange)
            try:
                with exchange.asking:
                    outcome.append(await call(client, exchange))
            except Exception as error:  # noqa: BLE001 (whoever waits gets it, judged)
                failure.append(error)
            finally:
                exchange.done.set()

        self._exchanges.append(exchange)
        try:
            tasks.start_soon(work)
            with waiting:
                await exchange.done.wait()
        finally:
            self._leave(exchange)
        if outcome:
            return outcome[0]
        judged = self._judged(failure[0]) if failure else None
        if judged is not None and (not isinstance(judged, Lost) or judged.undone):
            raise judged from None
        if judged is None and exchange.timed_out:
            raise ToolError(f"the server did not answer within {self.target.timeout_s:g} s; it was told to stop")
        if self._watch.unauthorized:  # the answer would have come elsewhere
            raise Unauthorized
        if self._watch.reason is None:
            with anyio.move_on_after(_EPITAPH_S):
                await self.over.wait()
        why = self._watch.reason or self.error or self._broken or str(judged or "the connection ended")
        raise Lost(why, undone=False)

    def _leave(self, exchange: Exchange) -> None:
        """Whoever waited for it does not any more: the server is told if it is still at it."""
        self._abandoned += not exchange.done.is_set()
        exchange.asking.cancel()
        self._exchanges.remove(exchange)
        self.used_at = anyio.current_time()
        if self._retiring or self._abandoned >= _ABANDONED:
            self.retire()

    def _judged(self, error: Exception) -> Exception:
        """What a failed exchange means."""
        if isinstance(error, (HermesError, UrlElicitationRequiredError)):
            return error
        if not isinstance(error, MCPError):
            return ToolError(f"the server's answer is of no use: {explained(error, self._scrub)}")
        if error.code == types.URL_ELICITATION_REQUIRED:
            return _url_wanted(error)
        ours = error.data == OURS
        if ours and error.code == UNAUTHORIZED:
            return Unauthorized(str(error))
        if ours and error.code == FORGOTTEN:
            self._close()
            return Lost("the server has forgotten the session", undone=True)
        if error.code == types.CONNECTION_CLOSED and error.message.startswith(_CLOSED):
            return Lost(self._explained(error), undone=False)
        return ToolError(f"the server refused: {self._explained(error)}")

    def _explained(self, error: BaseException) -> str:
        """What went wrong, and what may be done about it."""
        if self._watch.reason is not None:
            return self._watch.reason
        text = explained(error, self._scrub)
        if text == _NO_CONNECTION:
            return f"{urlsplit(self.target.url).netloc} cannot be reached"
        status = text.removeprefix("it answered with HTTP ") if self.state == "starting" else ""
        return text + _HINTS.get((self.target.transport, status), "")

    async def _on_elicitation(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        """The server asks people something. Where it does not say for which call, it is for the newest."""
        exchange = current.get() or (self._exchanges[-1] if self._exchanges else None)
        cancelled = types.ElicitResult(action="cancel")
        if exchange is None or exchange.questions >= self._settings.questions:
            return cancelled
        exchange.questions += 1
        try:
            async with exchange.paused():
                return await Elicitation(exchange.ctx, self.target.server, self._scrub).answered(params)
        except NobodyAnswered:
            return cancelled
        except Exception:  # noqa: BLE001 (what it says would go to the server)
            return types.ErrorData(code=types.INTERNAL_ERROR, message="the question could not be asked")


async def _unchecked(name: str, result: types.CallToolResult) -> None:
    """Results are checked by ours, which takes no regular expression from a stranger."""


def _url_wanted(error: MCPError) -> Exception:
    try:
        return UrlElicitationRequiredError.from_error(error.error)
    except Exception:  # noqa: BLE001 (the SDK's way to say that what came is not what it should be)
        return ToolError("the server wants something done in a browser, and does not say what")


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _is_of_another_age(error: BaseException) -> bool:
    """Whether a server that was greeted in the old way says that it knows only the new one."""
    error = _first_cause(error)
    return isinstance(error, MCPError) and error.code in (types.UNSUPPORTED_PROTOCOL_VERSION, types.METHOD_NOT_FOUND)


def _ending(text: str) -> str:
    """The last of it, from the beginning of a word on."""
    return text if len(text) <= _MESSAGE_LENGTH else text[-_MESSAGE_LENGTH:].partition(" ")[2]


def explained(error: BaseException, scrub: Callable[[str], str]) -> str:
    """What went wrong, in one line: the first cause, without what the SDK quotes of the server's answer. Secrets are
    taken out before it is cut: half of one would not be known again."""
    error = _first_cause(error)
    if isinstance(error, httpx2.HTTPStatusError):
        return f"it answered with HTTP {error.response.status_code}"
    if isinstance(error, MCPError) and error.message.startswith("Unexpected content type"):
        return "it answered with something that is neither JSON nor a stream of events"
    if isinstance(error, ValueError) and not isinstance(error, HermesError):
        return "what it answered is not what the protocol says"
    if isinstance(error, httpx2.TransportError) and not str(error):
        return f"the connection broke ({type(error).__name__})"
    if isinstance(error, (HermesError, MCPError, httpx2.HTTPError)):
        return (scrub(str(error)) or type(error).__name__).splitlines()[0][:_MESSAGE_LENGTH]
    if isinstance(error, RuntimeError) and "protocol version" in str(error):
        return "it speaks no version of the protocol that we do"
    return f"what it answered broke the connection ({type(error).__name__})"
