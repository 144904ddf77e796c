"""Which server a name means in one conversation, with everything that its connection depends on.

The identity of a target is a digest of all of it, credentials included. Connections are kept under the conversation and
this identity, never under a server's name: another conversation, another header, another connection (guarantee 11).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from hermes_ws.credentials import env_of, headers_of
from hermes_ws.errors import ToolError
from hermes_ws.protocol.values import McpServerConfig
from hermes_ws.tools.mcp.settings import McpSettings, OperatorServer

__all__ = ["Target", "resolve_target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server to connect to. Secrets are in it: it is never logged or shown."""

    server: str
    transport: Literal["http", "sse", "stdio"]
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: Path | None = None
    allow: tuple[str, ...] = ()
    place: str = ""
    """What the conversation's configuration calls the place where it is."""
    timeout_s: float
    meta: bool = False
    renewable: bool = False
    """Whether a person may give new credentials when the server refuses those it has."""

    def identity(self) -> bytes:
        """A digest of everything above."""
        parts = [
            self.server,
            self.transport,
            self.url,
            sorted(self.headers.items()),
            self.command,
            sorted(self.env.items()),
            str(self.cwd),
            self.allow,
            self.meta,
        ]
        return hashlib.sha256(msgspec.json.encode(parts)).digest()


def resolve_target(
    name: str,
    config: McpServerConfig,
    secrets: Mapping[str, str],
    *,
    operator: Mapping[str, OperatorServer],
    settings: McpSettings,
    workdir: Path,
) -> Target:
    """The server that ``name`` means. ``secrets`` are the conversation's. Raises :class:`ToolError` for one that the
    operator does not have any more."""
    if config.ref is not None:
        if config.ref not in operator:
            raise ToolError(f"the operator's configuration has no server {config.ref!r} any more")
        return _of_operator(name, config, operator[config.ref], env_of(secrets, name), settings, workdir)
    if not settings.client_servers:
        raise ToolError("servers by URL are switched off here; use one of the operator's by ref")
    url = config.url or ""
    return Target(
        server=name,
        transport=config.transport or "http",
        url=url,
        place=config.place,
        headers=headers_of(secrets, name),
        allow=tuple(settings.allow),
        timeout_s=_timeout_s(config, settings.call_timeout_s, settings),
        meta=any(fnmatchcase(url, pattern) for pattern in settings.send_meta),
        renewable=True,
    )


def _of_operator(
    name: str,
    config: McpServerConfig,
    server: OperatorServer,
    env: Mapping[str, str],
    settings: McpSettings,
    workdir: Path,
) -> Target:
    timeout_s = _timeout_s(config, server.timeout_s or settings.call_timeout_s, settings)
    if server.url is not None:
        return Target(
            server=name,
            transport=server.transport,
            url=server.url,
            place=config.place,
            headers=server.headers,
            allow=(*settings.allow, _host_and_port(server.url)),
            timeout_s=timeout_s,
            meta=server.meta,
        )
    allowed = {key: value for key, value in env.items() if key in server.allow_env}
    return Target(
        server=name,
        transport="stdio",
        place=config.place,
        command=(server.command or "", *server.args),
        env={**server.env, **allowed},
        cwd=Path(server.cwd).expanduser() if server.cwd else workdir,
        timeout_s=timeout_s,
        meta=server.meta,
    )


def _timeout_s(config: McpServerConfig, default_s: float, settings: McpSettings) -> float:
    asked = default_s if config.timeout_ms is None else config.timeout_ms / 1000
    return min(asked, settings.call_timeout_max_s)


def _host_and_port(url: str) -> str:
    """An entry for the allow list: the operator has named this very place."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
