"""Settings: one tree of types, filled from a TOML file, the environment and flags, each value knowing where it is from.

Later sources win: defaults, the file, the names that people know from hermes-agent (``API_SERVER_PORT``), our own
environment (``HERMES_WS_PORT`` for ``[server] port``, ``HERMES_WS_TOOLS_FETCH_BYTES`` for ``[tools] fetch_bytes``),
flags. Lists in the environment are separated by commas.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import msgspec

from hermes_ws.compat.settings import CompatSettings
from hermes_ws.decisions import SessionLimits
from hermes_ws.errors import SettingsError
from hermes_ws.policy import ApprovalSettings
from hermes_ws.ranges import AtLeastOne, NonNegative, Pause, Seconds, WholeSeconds
from hermes_ws.runtime.bounds import ConversationSettings
from hermes_ws.runtime.clients import ClientSettings
from hermes_ws.runtime.inbox import InboxSettings
from hermes_ws.runtime.readers import ReaderSettings
from hermes_ws.runtime.turn import AgentSettings
from hermes_ws.secret_values import resolve
from hermes_ws.store.blobs import BlobSettings
from hermes_ws.tools.base import ToolSettings
from hermes_ws.tools.mcp.settings import McpSettings

__all__ = [
    "KNOWN_NAMES",
    "SECRET",
    "Configuration",
    "LimitSettings",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "load",
    "secret_values",
]

Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[server]``: where it listens, whom it lets in."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8642
    """Port to listen on; 0 takes a free one."""
    data: str = "./hermes-ws-data"
    """The data directory. It may hold other files; ours begin with ``hermes-ws``."""
    key: str | None = None
    """The access key. Without one the server makes one, keeps it in the data directory and prints it."""
    auth: bool = True
    """False lets everybody in who reaches the port; only possible on a loopback address."""
    public_url: str | None = None
    """The address that clients use, if there is a proxy in front: ``https://example.org/agents``."""
    allowed_hosts: list[str] = []
    """Further names in the Host header to answer to; ``*`` for all."""
    allowed_origins: list[str] = []
    """Further web origins whose pages may talk to this server; ``*`` for all."""
    cors_max_age_s: NonNegative = 600
    """How long a browser may remember what pages of another origin may send; 0: it asks every time."""
    trusted_proxies: list[str] = []
    """Addresses or networks of proxies whose X-Forwarded-Host is believed."""
    default_agent: str = "demo"
    """The agent of conversations that name none. Where agents are declared, and none of this name, the first of
    them."""
    model_name: str = "hermes-agent"
    """What the OpenAI-compatible routes call the default agent, beside its name."""
    drain_grace_s: Pause = 10.0
    """On SIGTERM: the time that runs get before sockets are closed."""
    reconnect_after_ms: NonNegative = 1_000
    """What clients are told to wait before they come back after a drain."""
    ticket_ttl_s: Seconds = 60.0
    """How long a ticket is good when its request names no time."""
    ticket_ttl_max_s: Seconds = 3_600.0
    """The longest that a request may name."""
    tickets: NonNegative = 10_000
    """Tickets that may be open at once."""
    ping_interval_s: Seconds = 20.0
    """WebSocket pings, to notice dead lines."""
    ping_timeout_s: Seconds = 20.0
    """How long an unanswered ping is waited for."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[limits]``: what a client may send. ``hello`` tells those that clients need."""

    frame_bytes: AtLeastOne = 1_048_576
    """A larger frame is answered with ``too_large``."""
    frame_bytes_max: AtLeastOne = 16_777_216
    """A frame larger than this closes the socket (4413) without being read."""
    body_bytes: AtLeastOne = 10_000_000
    """A larger HTTP body is refused with 413; a command's may be no larger than ``frame_bytes``."""
    head_bytes: AtLeastOne = 65_536
    """A request line with its headers that is larger is refused with 431, a socket's too."""
    request_s: Seconds = 30.0
    """A request whose head is not there after so long, or of whose body nothing came for so long, is refused with
    408; a connection on which nothing was asked is closed."""
    body_s: Seconds = 120.0
    """A request whose body keeps the server waiting for longer than that in all, however it trickles, is refused with
    408."""
    keep_alive_s: WholeSeconds = 5
    """After an answer, how long a connection is kept open for the next request."""
    connections: AtLeastOne = 12_000
    """Open connections of every kind; one more is refused with 503, or closed. Fewer if the system gives the process
    fewer file descriptors: it says so at its start."""
    sockets: AtLeastOne = 10_000
    """Open sockets; one more is told to come back later (4529)."""
    streams: AtLeastOne = 1_000
    """Answers that go on or wait: a conversation's log as server-sent events or as a file, requests that wait for an
    event; one more is refused with 503. With ``sockets`` it should leave some of the ``connections`` for requests."""
    commands_in_flight: AtLeastOne = 256
    """Unanswered commands of one socket; one more is ``overloaded``."""
    page_events: AtLeastOne = 1_000
    """Most events in one HTTP page; a larger ``limit`` is clamped to it."""
    page_bytes: AtLeastOne = 1_048_576
    """What the events or items of one HTTP page may weigh together; one always fits."""
    page_items: AtLeastOne = 200
    """Most items in one HTTP page."""
    page_conversations: AtLeastOne = 200
    """Most conversations in one HTTP page."""
    page_interactions: AtLeastOne = 200
    """Most open interactions in one HTTP page."""
    wait_ms: NonNegative = 30_000
    """The longest that a request for events may wait for some."""


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[store]``: the log."""

    wal_limit_bytes: AtLeastOne = 67_108_864
    """Size of the write-ahead log at which the writer stops to check-point it."""
    retention_s: WholeSeconds = 86_400
    """How long a delta stays after the end of its run; its finals stay as long as their conversation."""
    outputs_retention_s: WholeSeconds = 2_592_000
    """How long the whole output of a tool call is kept."""
    sweep_every_s: Pause = 3_600
    """How often the server removes what has had its time, and gives the space back; 0: never."""
    busy_timeout_s: Seconds = 5.0
    """How long a commit waits for another program that holds the log, such as a backup."""


class SecretSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[secrets]``: what the headers and variables of conversations' MCP servers are sealed with in the log. Without
    either, a key is made and kept in the data directory: who copies that has both then."""

    key: str | None = None
    """The key: random, at least 16 characters. With another one, what was stored has to be given anew."""
    key_file: str | None = None
    """A file with the key in it; not in the data directory."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[log]``: the server's own diagnostics, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""
    json: bool = False
    """One JSON object a line instead of text."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it."""

    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    readers: ReaderSettings = ReaderSettings()
    inbox: InboxSettings = InboxSettings()
    conversations: ConversationSettings = ConversationSettings()
    sessions: SessionLimits = SessionLimits()
    runs: AgentSettings = AgentSettings()
    tools: ToolSettings = ToolSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    store: StoreSettings = StoreSettings()
    blobs: BlobSettings = BlobSettings()
    secrets: SecretSettings = SecretSettings()
    mcp: McpSettings = McpSettings()
    clients: ClientSettings = ClientSettings()
    compat: CompatSettings = CompatSettings()
    log: LogSettings = LogSettings()
    agents: dict[str, dict[str, Any]] = msgspec.field(default_factory=lambda: {"demo": {"kind": "demo"}})
    """``[agents.NAME]``: ``kind`` is an entry point of the group ``hermes_ws.agents``; ``tools`` and ``approvals``
    bound what its runs may use and do without being asked; the rest is for the agent."""
    mcp_servers: dict[str, dict[str, Any]] = {}
    """``[mcp_servers.NAME]``: MCP servers that conversations may use by ``ref``."""


SECRET: Final = frozenset({"server.key", "secrets.key"})
"""Settings whose values are never shown."""

KNOWN_NAMES: Final = {
    "API_SERVER_HOST": "server.host",
    "API_SERVER_PORT": "server.port",
    "API_SERVER_KEY": "server.key",
    "API_SERVER_CORS_ORIGINS": "server.allowed_origins",
    "API_SERVER_MODEL_NAME": "server.model_name",
}
_OURS: Final = "HERMES_WS_"
_NOT_SETTINGS: Final = frozenset({"HERMES_WS_CONFIG", "HERMES_WS_CALL", "HERMES_WS_URL"})
_TABLES: Final = ("agents", "mcp_servers")
_HIDDEN: Final = frozenset({"api_key", "headers", "env"})
"""Fields of tables that hold secrets; where a secret is looked up may be shown."""
_ELSEWHERE: Final = ("env:", "file:")
_SECRET_NAME: Final = re.compile(r"auth|cookie|credential|key|passw|secret|token", re.IGNORECASE)


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in force, and for each one that is not the default where it came from."""

    settings: Settings
    origins: dict[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, value and origin of every setting; secrets hidden."""
        found: list[tuple[str, str, str]] = []
        for section in Settings.__struct_fields__:
            values = getattr(self.settings, section)
            for field, value in cast(dict[str, Any], msgspec.to_builtins(values)).items():
                name = f"{section}.{field}"
                value = _without_secrets(value) if section in _TABLES else value
                shown = "(hidden)" if name in SECRET and value is not None else msgspec.json.encode(value).decode()
                found.append((name, shown, self.origins.get(name, "default")))
        return found


def _without_secrets(table: dict[str, Any]) -> dict[str, Any]:
    return {field: _masked(value) if field in _HIDDEN else value for field, value in table.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in cast("dict[str, Any]", value).items()}
    return value if isinstance(value, str) and value.startswith(_ELSEWHERE) else "(hidden)"


def secret_values(settings: Settings) -> set[str]:
    """Secrets of agents and MCP servers, to be kept from being shown: API keys, and what of their headers and variables
    is looked up elsewhere or has a name that says so. The others may be ordinary words."""
    tables = (*settings.agents.values(), *settings.mcp_servers.values())
    secrets = {_secret(name, value) for table in tables for name, value in _told(table)}
    return {secret for secret in secrets if secret is not None}


def _told(table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a table that may hold secrets; headers and variables by their own names."""
    for field in _HIDDEN & table.keys():
        value = table[field]
        yield from cast("dict[str, Any]", value).items() if isinstance(value, dict) else [(field, value)]


def _secret(name: str, value: Any) -> str | None:
    if not isinstance(value, str) or not (value.startswith(_ELSEWHERE) or _SECRET_NAME.search(name)):
        return None
    try:
        return resolve(value, name)
    except SettingsError:  # whoever needs it says so
        return None


def load(*, file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Configuration:
    """Read every source. ``flags`` are by dotted name; None values are not given.

    Raises :class:`SettingsError` that names the setting, its source, and what would be right.
    """
    tree: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    if file is not None:
        _from_file(file, tree, origins)
    for variable, name in KNOWN_NAMES.items():
        if variable in environment:
            _put(tree, origins, name, _parsed(name, environment[variable], variable), f"environment {variable}")
    for variable in sorted(environment):
        if variable.startswith(_OURS) and variable not in _NOT_SETTINGS and "_TESTS_" not in variable:
            name = _named(variable)
            _put(tree, origins, name, _parsed(name, environment[variable], variable), f"environment {variable}")
    for name, value in (flags or {}).items():
        if value is not None:
            _put(tree, origins, name, value, "flag")
    settings = _converted(tree, origins)
    server, agents = settings.server, settings.agents
    if agents and server.default_agent not in agents and "server.default_agent" not in origins:
        first = next(iter(agents))
        settings = msgspec.structs.replace(settings, server=msgspec.structs.replace(server, default_agent=first))
        origins["server.default_agent"] = "the first agent that is declared"
    return Configuration(settings=settings, origins=origins)


def _from_file(file: Path, tree: dict[str, dict[str, Any]], origins: dict[str, str]) -> None:
    try:
        read = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"the configuration file {file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the configuration file {file} is not TOML: {error}") from error
    for section, values in cast(dict[str, dict[str, Any]], read).items():
        if section not in Settings.__struct_fields__ or type(values) is not dict:
            known = ", ".join(f"[{name}]" for name in Settings.__struct_fields__)
            raise SettingsError(
                f"{file}: there is no section [{section}]{_meant(section, Settings)}; there are {known}"
            )
        for field, value in values.items():
            if section not in _TABLES and field not in _section(section).__struct_fields__:
                meant = _meant(field, _section(section))
                raise SettingsError(f"{file}: [{section}] has no setting {field!r}{meant}")
            _put(tree, origins, f"{section}.{field}", value, f"file {file}")


def _put(tree: dict[str, dict[str, Any]], origins: dict[str, str], name: str, value: Any, origin: str) -> None:
    section, _, field = name.partition(".")
    tree.setdefault(section, {})[field] = value
    origins[name] = origin


def _named(variable: str) -> str:
    """The setting that an environment variable means."""
    rest = variable.removeprefix(_OURS).lower()
    for section in Settings.__struct_fields__:
        field = rest.removeprefix(section + "_")
        if section not in _TABLES and field != rest and field in _section(section).__struct_fields__:
            return f"{section}.{field}"
    if rest in ServerSettings.__struct_fields__:
        return f"server.{rest}"
    every = [f"{_OURS}{s}_{f}".upper() for s in Settings.__struct_fields__ if s not in _TABLES for f in _fields(s)]
    close = difflib.get_close_matches(variable, every, n=1)
    meant = f"; did you mean {close[0]}?" if close else "; `hermes-ws config` lists them"
    raise SettingsError(f"the environment variable {variable} names no setting{meant}")


def _parsed(name: str, text: str, variable: str) -> Any:
    section, _, field = name.partition(".")
    wanted = next(f for f in msgspec.structs.fields(_section(section)) if f.name == field).type
    value: Any = [part.strip() for part in text.split(",") if part.strip()] if _is_list(wanted) else text
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"the environment variable {variable} is wrong: {error}") from None


def _is_list(wanted: Any) -> bool:
    return getattr(wanted, "__origin__", None) is list


def _converted(tree: dict[str, dict[str, Any]], origins: dict[str, str]) -> Settings:
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`").split("[")[0]
        raise SettingsError(f"{name} is wrong: {what} (from {origins.get(name, 'the configuration')})") from None


def _section(name: str) -> type[msgspec.Struct]:
    return cast(type[msgspec.Struct], type(getattr(Settings(), name)))


def _fields(section: str) -> tuple[str, ...]:
    return _section(section).__struct_fields__


def _meant(name: str, where: type[msgspec.Struct]) -> str:
    close = difflib.get_close_matches(name, where.__struct_fields__, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
