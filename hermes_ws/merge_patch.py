"""Configuration changes by JSON merge patch (RFC 7396)."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, cast

import msgspec

from hermes_ws.errors import CommandError
from hermes_ws.protocol.codec import invalid_value
from hermes_ws.protocol.values import Config, McpServerConfig

__all__ = ["merged"]

_SERVER: Final = "$.mcp_servers[...]"


def merged(config: Config, patch: dict[str, Any]) -> Config:
    """The configuration after a JSON merge patch (RFC 7396). Raises :class:`CommandError` with the path.

    Header names are the same in any case: one in the patch means the one that is there, however it is written.
    """
    target, wanted = msgspec.to_builtins(config), None
    try:
        wanted = _merge_patch(target, _respelled(target, patch))
        return msgspec.convert(wanted, Config)
    except msgspec.ValidationError as error:
        what, path = invalid_value(error, Config)
        path = _with_server(path, wanted)
        raise CommandError("invalid_frame", f"config: {what}", path=f"$.config{path.removeprefix('$')}") from None
    except RecursionError:
        raise CommandError("invalid_frame", "config: the JSON is nested too deeply", path="$.config") from None


def _with_server(path: str, wanted: Any) -> str:
    """The path with the name of the MCP server that is wrong: msgspec does not tell the keys of a table."""
    servers: dict[str, Any] = wanted["mcp_servers"] if path.startswith(_SERVER) else {}
    for name, server in servers.items():
        try:
            msgspec.convert(server, McpServerConfig)
        except msgspec.ValidationError:
            return f"$.mcp_servers.{name}{path.removeprefix(_SERVER)}"
    return path


def _merge_patch(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(cast("dict[str, Any]", target)) if isinstance(target, dict) else {}
    for key, value in cast("dict[str, Any]", patch).items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge_patch(result.get(key), value)
    return result


def _respelled(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The patch with its header names as the target writes them, so that null takes away what it is meant for."""
    known: dict[str, Any] = target.get("mcp_servers") or {}
    changed: dict[str, Any] = {}
    for name, server in _object(patch.get("mcp_servers")).items():
        headers = _object(_object(server).get("headers"))
        if name in known and headers:
            changed[name] = {**_object(server), "headers": _as_known(known[name].get("headers") or {}, headers)}
    return {**patch, "mcp_servers": {**_object(patch["mcp_servers"]), **changed}} if changed else patch


def _object(value: Any) -> dict[str, Any]:
    """The value if it is an object; an empty one otherwise."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _as_known(known: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    """``headers`` under the names in ``known``; one that is in the patch twice stays as it is, for others to judge."""
    spelling = {name.lower(): name for name in known}
    times = Counter(name.lower() for name in headers)
    return {spelling.get(n.lower(), n) if times[n.lower()] == 1 else n: value for n, value in headers.items()}
