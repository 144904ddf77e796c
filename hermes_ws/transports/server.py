"""The server: one process, one port, one data directory.

Puts the parts together (directory, log, agents, tools, runtime, app), runs them on uvicorn tuned for many sockets, and
takes them down in order: stop accepting, give runs their grace, close with the code that says to come back.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
import uvicorn

from hermes_ws.agents.base import Agent
from hermes_ws.errors import DataDirError, SettingsError
from hermes_ws.runtime.permissions import AgentTerms
from hermes_ws.runtime.principal import Principal
from hermes_ws.runtime.runtime import Runtime, RuntimeSettings
from hermes_ws.scrub import Scrubber
from hermes_ws.settings import ServerSettings, Settings, secret_values
from hermes_ws.store.directory import DataDirectory
from hermes_ws.store.key_file import make_key, read_key
from hermes_ws.store.secrets_key import open_vault
from hermes_ws.store.sqlite import SqliteStore
from hermes_ws.tools.mcp.settings import operator_servers
from hermes_ws.tools.registry import builtin_tools
from hermes_ws.transports.app import App
from hermes_ws.transports.auth import Access, AccessKey, is_loopback
from hermes_ws.transports.descriptors import connections_that_fit
from hermes_ws.transports.edge import EdgeProtocol
from hermes_ws.transports.frames import FrameConnection, FrameProtocol

__all__ = ["Running", "make_access", "make_agents", "open_app", "serve"]

log = structlog.get_logger("hermes_ws.server")

NAMESPACE = "default"
PRINCIPAL = "owner"
_TERMS: Final = ("tools", "approvals")
"""What an agent's table says to us, not to the agent."""
_UNGUESSABLE: Final = 16
"""A secret of the server's that is shorter is not scrubbed: what is replaced shows whether a guess was right."""
_LOOK_S: Final = 1.0
"""How often connections are looked at, at the least."""
_PUBLIC_URL: Final = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)(:[0-9]{1,5})?(/[!-~]*)?")


class Running(msgspec.Struct, frozen=True):
    """What is there once the server takes connections."""

    url: str
    key: str | None
    key_file: Path | None
    data: Path


def make_agents(tables: Mapping[str, dict[str, Any]]) -> dict[str, Agent]:
    """The agents of ``[agents.NAME]``: each made by the entry point that its ``kind`` names.

    Raises :class:`SettingsError` for a kind that is not installed or that does not take its table.
    """
    kinds = {point.name: point for point in entry_points(group="hermes_ws.agents")}
    agents: dict[str, Agent] = {}
    for name, table in tables.items():
        rest = {field: value for field, value in table.items() if field not in _TERMS}
        kind = rest.pop("kind", name)
        if kind not in kinds:
            raise SettingsError(f"[agents.{name}] kind {kind!r} is not installed; there are {', '.join(sorted(kinds))}")
        try:
            agents[name] = kinds[kind].load()(rest)
        except (msgspec.ValidationError, SettingsError) as error:
            raise SettingsError(f"[agents.{name}] {error}") from None
    return agents


def agent_terms(tables: Mapping[str, dict[str, Any]]) -> dict[str, AgentTerms]:
    """``tools`` and ``approvals`` of ``[agents.NAME]``: a list is an ``allow``, a word is a ``mode``. Raises
    :class:`SettingsError`."""
    found: dict[str, AgentTerms] = {}
    for name, table in tables.items():
        tools: Any = table.get("tools")
        approvals: Any = table.get("approvals")
        given: dict[str, Any] = {
            "tools": {"allow": tools} if isinstance(tools, list) else tools,
            "approvals": {"mode": approvals} if isinstance(approvals, str) else approvals,
        }
        try:
            found[name] = msgspec.convert(given, AgentTerms)
        except msgspec.ValidationError as error:
            raise SettingsError(f"[agents.{name}] {error}") from None
    return found


def make_access(settings: Settings, directory: DataDirectory) -> tuple[Access, str | None, Path | None]:
    """The gate; with the key, and the file it is kept in if it was made here. Raises :class:`SettingsError`."""
    server = settings.server
    _check_addresses(server)
    owner = Principal(NAMESPACE, PRINCIPAL, "admin")
    key, key_file = server.key, None
    if not server.auth:
        if not is_loopback(server.host):
            raise SettingsError("server.auth can only be off on a loopback address (--host 127.0.0.1)")
        key = None
    elif key is None:
        key, key_file = _kept_key(directory.key), directory.key
    elif not key.strip() or key != key.strip():
        raise SettingsError("server.key is empty or has white space around it; leave it out to have one made")
    access = Access(
        None if key is None else [AccessKey.of(key, owner)],
        anonymous=owner,
        hosts=[*server.allowed_hosts, server.host],
        origins=server.allowed_origins,
        public_url=server.public_url,
        trusted_proxies=server.trusted_proxies,
        tickets=server.tickets,
        shared_terminal=settings.tools.terminal_shared,
    )
    return access, key, key_file


def _check_addresses(server: ServerSettings) -> None:
    """Raises :class:`SettingsError` for what no address can be made of."""
    if server.public_url is not None and not _PUBLIC_URL.fullmatch(server.public_url):
        raise SettingsError(f"server.public_url {server.public_url!r} is not like https://example.org/agents")
    for proxy in server.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            message = f"server.trusted_proxies: {proxy!r} is no address or network, such as 10.0.0.0/8"
            raise SettingsError(message) from None


def _kept_key(path: Path) -> str:
    """The key in the data directory, made if there is none; only its owner can read it."""
    key = "hws_" + secrets.token_urlsafe(24)
    try:
        make_key(path, key)
    except FileExistsError:
        return read_key(path, if_broken="mend or delete it", if_empty="delete it to have a key made")
    except OSError as error:
        message = f"the key cannot be kept in {path}: {error.strerror}; make room for it there, or set server.key"
        raise SettingsError(message) from None
    return key


def _data_directory(path: str) -> DataDirectory:
    try:
        return DataDirectory(Path(path))
    except (RuntimeError, ValueError) as error:  # ~nobody, or a zero byte
        raise SettingsError(f"server.data {path!r} is no directory's name: {error}") from None


def _log_file(directory: DataDirectory) -> Path:
    try:
        return directory.log
    except OSError as error:
        message = f"the log in {directory.root} cannot be made or opened: {error.strerror}; see who owns what is there"
        raise DataDirError(message) from None


def runtime_settings(settings: Settings) -> RuntimeSettings:
    """The parts of the configuration that the runtime goes by."""
    names = ("sessions", "conversations", "readers", "inbox", "tools", "approvals", "runs", "blobs", "mcp", "clients")
    return RuntimeSettings(
        operator=operator_servers(settings.mcp_servers),
        agent_terms=agent_terms(settings.agents),
        default_agent=settings.server.default_agent,
        retention_s=settings.store.retention_s,
        outputs_retention_s=settings.store.outputs_retention_s,
        sweep_every_s=settings.store.sweep_every_s,
        records_retention_s=settings.compat.records_retention_s,
        ephemeral_timeout_s=settings.compat.interaction_timeout_s,
        **{name: getattr(settings, name) for name in names},
    )


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncGenerator[tuple[App, Runtime, Running]]:
    """Everything but the port: for :func:`serve`, and for whoever mounts the app elsewhere.

    Raises :class:`SettingsError` or :class:`DataDirError` with what to do.
    """
    agents = make_agents(settings.agents)
    if settings.server.default_agent not in agents:
        raise SettingsError(f"server.default_agent {settings.server.default_agent!r} is none of {', '.join(agents)}")
    async with AsyncExitStack() as held:
        directory = _data_directory(settings.server.data)
        held.callback(directory.close)
        access, key, key_file = make_access(settings, directory)
        scrubber = Scrubber()
        every = [*([key] if key is not None else []), *secret_values(settings)]
        scrubber.set([secret for secret in every if len(secret) >= _UNGUESSABLE])
        given = settings.secrets
        vault = open_vault(key=given.key, key_file=given.key_file, data=directory.root, known=scrubber.add)
        store = await SqliteStore.open(
            _log_file(directory),
            wal_limit_bytes=settings.store.wal_limit_bytes,
            busy_timeout_s=settings.store.busy_timeout_s,
        )
        held.push_async_callback(store.close)
        held.push_async_callback(_let_go, agents)
        runtime = await held.enter_async_context(
            Runtime.running(
                store,
                directory,
                settings=runtime_settings(settings),
                agents=agents,
                tools=builtin_tools(settings.tools),
                vault=vault,
                scrubber=scrubber,
            )
        )
        prefix = urlsplit(settings.server.public_url or "").path.rstrip("/")
        app = App(runtime, access, settings, prefix=prefix)
        yield app, runtime, Running(settings.server.public_url or "", key, key_file, directory.root)


async def _let_go(agents: Mapping[str, Agent]) -> None:
    """Have agents let go of what they hold on to. One that fails at it keeps no other from it."""
    for name, agent in agents.items():
        aclose = getattr(agent, "aclose", None)
        try:
            if aclose is not None:
                await aclose()
        except Exception:
            log.exception("agent.not_closed", agent=name)


async def serve(settings: Settings, ready: Callable[[Running], None]) -> None:
    """Run until SIGTERM or SIGINT. ``ready`` is called once connections are taken."""
    listener = _listen(settings.server.host, settings.server.port, unsent_bytes=settings.readers.unsent_bytes)
    async with open_app(settings) as (app, runtime, running):
        server = _Server(_uvicorn_config(app, settings), runtime, settings)
        watchdog = asyncio.create_task(server.watch())
        host, port = listener.getsockname()[:2]
        address = running.url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
        server.on_ready = lambda: ready(msgspec.structs.replace(running, url=address.rstrip("/")))
        try:
            await server.serve(sockets=[listener])
        finally:
            watchdog.cancel()


def _listen(host: str, port: int, *, unsent_bytes: int) -> socket.socket:
    """A listening socket. Raises :class:`SettingsError` that says what is in the way."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except UnicodeError:
        raise SettingsError(f"cannot listen on {host!r}: that is no host name or address") from None
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror or error}; try another --port") from error
    with suppress(OSError, AttributeError):  # where there is no such option, the system's own bound holds
        # Connections inherit it. Without it the kernel takes megabytes for a reader that does not read.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, min(unsent_bytes, 2**30))
    listener.setblocking(False)
    return listener


def _uvicorn_config(app: App, settings: Settings) -> uvicorn.Config:
    sockets = type("TunedFrameProtocol", (FrameProtocol,), {"write_buffer_bytes": settings.readers.write_buffer_bytes})
    edge = {
        "limits": settings.limits,
        "connections_most": connections_that_fit(settings.limits.connections),
        "stall_s": settings.readers.stall_s,
    }
    return uvicorn.Config(
        app,
        http=type("TunedEdgeProtocol", (EdgeProtocol,), edge),
        ws=sockets,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=settings.limits.frame_bytes_max,
        ws_ping_interval=settings.server.ping_interval_s,
        ws_ping_timeout=settings.server.ping_timeout_s,
        ws_per_message_deflate=False,
        timeout_keep_alive=settings.limits.keep_alive_s,
        timeout_graceful_shutdown=5,
        backlog=2048,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, with a drain before it shuts down and an eye on connections that make no progress."""

    def __init__(self, config: uvicorn.Config, runtime: Runtime, settings: Settings) -> None:
        super().__init__(config)
        self._runtime = runtime
        self._settings = settings
        self.on_ready: Callable[[], None] = lambda: None

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """As uvicorn does, but without raising the signal again: what comes after the port must be closed too."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        drain = asyncio.create_task(
            self._runtime.drain(self._settings.server.drain_grace_s, self._settings.server.reconnect_after_ms)
        )
        while not drain.done() and not self.force_exit:
            await asyncio.wait([drain], timeout=0.1)
        drain.cancel()
        await super().shutdown(sockets)

    async def watch(self) -> None:
        """End connections that take no byte for ``stall_s`` although some wait for them, and requests that take
        longer than ``request_s``."""
        stall_s = self._settings.readers.stall_s
        pause_s = max(min(stall_s / 10, self._settings.limits.request_s / 10, _LOOK_S), 0.05)
        loop = asyncio.get_running_loop()
        sockets_at = 0.0
        while True:
            await asyncio.sleep(pause_s)
            now = loop.time()
            sockets_too = now >= sockets_at
            if sockets_too:
                sockets_at = now + max(stall_s / 10, 0.05)
            try:
                self._look(now, sockets_too=sockets_too)
            except Exception:  # one connection must not cost all others their watch
                log.exception("server.watch_failed")

    def _look(self, now: float, *, sockets_too: bool) -> None:
        for protocol in tuple(self.server_state.connections):
            if isinstance(protocol, EdgeProtocol):
                protocol.look(now)
            elif sockets_too:
                self._look_at_socket(protocol, now)

    def _look_at_socket(self, protocol: Any, now: float) -> None:
        connection: FrameConnection | None = getattr(protocol, "frame_connection", None)
        if connection is not None and connection.is_stalled(now, self._settings.readers.stall_s):
            log.info("socket.stalled")
            connection.abort()
