"""What the operator says of MCP: the bounds (``[mcp]``), and servers to be used by name (``[mcp_servers.NAME]``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from hermes_ws.errors import SettingsError
from hermes_ws.protocol.values import ApprovalsConfig, ToolFilter
from hermes_ws.ranges import AtLeastOne, NonNegative, Pause, Seconds
from hermes_ws.secret_values import resolve

__all__ = ["McpSettings", "OperatorServer", "operator_servers"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class McpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[mcp]`` of the configuration: MCP servers, and what one may take. A server that goes beyond a bound has failed;
    nothing else has."""

    client_servers: bool = True
    """Whether clients may name servers by URL. Otherwise only those of ``[mcp_servers]``, by ``ref``."""
    allow: list[str] = []
    """Hosts, addresses or networks (CIDR) where servers named by clients may be although they are private;
    ``host:port`` works."""
    protocol_version: Literal["2025-11-25", "2026-07-28"] = "2025-11-25"
    """The version of the protocol that servers are greeted in; where that is not known, the other. In the newer one a
    server can ask people something only if it was written for that."""
    trust_annotations: bool = True
    """Whether a server's word that a tool only reads, or may be repeated, is taken. Otherwise each of its tools is
    taken to write and to be unrepeatable."""
    send_meta: list[str] = []
    """URLs (globs such as ``https://crm.example.org/*``) of servers that are told, in ``_meta``, which principal a run
    is for and the conversation's metadata."""
    servers: NonNegative = 16
    """Servers that one conversation may have."""
    connections: AtLeastOne = 1_000
    """Servers that may be connected at once, for all conversations together."""
    processes: NonNegative = 64
    """Stdio servers that may run at once, for all conversations together."""
    start_timeout_s: Seconds = 30.0
    """Time for a server to start, greet and list its tools."""
    call_timeout_s: Seconds = 120.0
    """Time for one call where the server's configuration names none; waiting for a person does not count."""
    call_timeout_max_s: Seconds = 3_600.0
    """The most that a conversation's ``timeout_ms`` may ask for."""
    close_timeout_s: Seconds = 5.0
    """Time to say goodbye to a server; after that its connection is cut, its process killed."""
    idle_s: Pause = 300.0
    """A server that was not used for so long is let go of; it comes back when it is needed."""
    retry_s: Seconds = 15.0
    """After a server could not be started, it is left alone for so long, doubled each time, or until its configuration
    changes."""
    tools: AtLeastOne = 256
    """Tools of one server; more are left out."""
    schema_bytes: AtLeastOne = 65_536
    """Size of one tool's description and schemas; a larger one is left out."""
    list_bytes: AtLeastOne = 1_048_576
    """Size of all its tools' descriptions together; what goes beyond is left out."""
    list_changes: NonNegative = 100
    """Changes of a tool list that are followed; after that the list stays as it is until the server starts anew."""
    message_bytes: AtLeastOne = 16_777_216
    """Size of one message from a server; a larger one ends the connection."""
    message_values: AtLeastOne = 100_000
    """JSON values in one message from a server; one with more ends the connection."""
    messages_per_s: AtLeastOne = 500
    """Messages of one server, and pieces they come in, that are read in a second; the rest waits."""
    blocks: AtLeastOne = 1_000
    """Parts of one result; further ones are left out, and the model is told."""
    structured_bytes: AtLeastOne = 65_536
    """Size of a structured result in the log; a larger one is left out, and its text kept."""
    images: NonNegative = 8
    """Images of one result that are kept; the model is told of the others."""
    questions: NonNegative = 16
    """Questions that one call may ask people; further ones are cancelled."""
    progress_every_s: Pause = 0.25
    """The newest progress report of a call is passed on so often."""


class OperatorServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[mcp_servers.NAME]``: a server that conversations may use by ``{"ref": "NAME"}``. By ``command`` (stdio) or by
    ``url``."""

    command: str | None = None
    """The program to run, one process for every conversation that uses it."""
    args: list[str] = []
    """Its arguments."""
    env: dict[str, str] = {}
    """Its environment beside the harmless defaults. ``env:NAME`` and ``file:PATH`` are looked up."""
    allow_env: list[str] = []
    """Names of variables that a conversation may set for its own process."""
    cwd: str | None = None
    """Where it runs; default: the conversation's working directory."""
    url: str | None = None
    """Streamable HTTP or SSE endpoint."""
    headers: dict[str, str] = {}
    """Sent with every request. ``env:NAME`` and ``file:PATH`` are looked up."""
    transport: Literal["http", "sse"] = "http"
    """For ``url``: streamable HTTP, or the older SSE."""
    tools: ToolFilter | None = None
    """Which of its tools conversations get, at most."""
    approvals: ApprovalsConfig | None = None
    """Who is asked before a call of its tools; a conversation may be stricter."""
    timeout_s: Seconds | None = None
    """Of one call; default: ``mcp.call_timeout_s``."""
    meta: bool = False
    """Whether it is told, in ``_meta``, which principal a run is for and the conversation's metadata."""


def operator_servers(tables: Mapping[str, Any]) -> dict[str, OperatorServer]:
    """The servers of ``[mcp_servers]``, secrets looked up. Raises :class:`SettingsError`."""
    return {name: _server(name, table) for name, table in tables.items()}


def _server(name: str, table: Any) -> OperatorServer:
    what = f"[mcp_servers.{name}]"
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{what}: a name is 1 to 64 of A-Z a-z 0-9 _ - and begins with a letter or digit")
    try:
        server = msgspec.convert(table, OperatorServer)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{what} {error}") from None
    if (server.command is None) == (server.url is None):
        raise SettingsError(f"{what} takes a command or a url, one of them")
    misplaced = server.headers if server.url is None else (server.args or server.env or server.allow_env or server.cwd)
    if misplaced:
        fields = "headers" if server.url is None else "args, env, allow_env and cwd"
        raise SettingsError(f"{what}: {fields} do not go with a {'command' if server.url is None else 'url'}")
    return msgspec.structs.replace(
        server,
        env={key: resolve(value, f"{what} env.{key}") for key, value in server.env.items()},
        headers={key: resolve(value, f"{what} headers.{key}") for key, value in server.headers.items()},
    )
