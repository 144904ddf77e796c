"""What stands between a configuration as it is sent and as it may be shown: the secrets of ``mcp_servers``. No I/O.

Header and environment values are write-only. A configuration is sent with strings, which are new secrets, and with
``{"set": true, "fingerprint": "..."}``, which says: keep what is stored. It is kept and shown with the latter alone.
The values go a way of their own, by names such as ``mcp_servers/crm/headers/authorization``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

import msgspec

from hermes_ws.errors import CommandError
from hermes_ws.protocol.values import Config, McpServerConfig

__all__ = ["brings_secrets", "env_of", "headers_of", "separate", "without_secrets"]

Kind = Literal["headers", "env"]
Changes = dict[str, str | None]

VALUE_LENGTH: Final = 8_192
"""Most characters in a header's or a variable's value: what HTTP servers take."""
URL_LENGTH: Final = 2_048
"""Most characters in the address of an MCP server."""

_SERVER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
"""A header's name (RFC 9110, 5.6.2)."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_FIELD_VALUE: Final = re.compile(r"[!-~]([ \t!-~]*[!-~])?")
"""A header's value (RFC 9110, 5.5), of the characters that every server reads the same way."""
_VISIBLE: Final = re.compile(r"[!-~]+")
_OURS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "last-event-id",
        "mcp-protocol-version",
        "mcp-session-id",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that the client of the protocol sets itself; with other values it would speak for somebody else."""


def separate(
    old: Config, new: Config, stored: Mapping[str, str], fingerprint: Callable[[str, str], str]
) -> tuple[Config, Changes]:
    """The configuration ``new`` (``old`` with a patch merged in) as it may be shown, and what becomes of the stored
    secrets: name to new value, or to None where it goes. ``fingerprint`` takes a secret's name and value.

    A server with another address than before keeps nothing that was stored for it. Raises :class:`CommandError` with
    the path of what is wrong, never with a value.
    """
    servers: dict[str, McpServerConfig] = {}
    given: dict[str, str] = {}
    kept: set[str] = set()
    before = old.mcp_servers or {}
    for server, config in (new.mcp_servers or {}).items():
        one = _Server(server, config, before.get(server), fingerprint)
        servers[server] = one.shown()
        given |= one.given
        kept |= one.kept
    gone = {name for name in (*stored, *_names(before)) if name not in kept}
    shown = msgspec.structs.replace(new, mcp_servers=servers or None)
    return shown, dict.fromkeys(sorted(gone - given.keys())) | given


def without_secrets(config: Config) -> Config:
    """The configuration without headers and environment: what may go to somebody else."""
    servers = {
        name: msgspec.structs.replace(server, headers=None, env=None)
        for name, server in (config.mcp_servers or {}).items()
    }
    return msgspec.structs.replace(config, mcp_servers=servers or None)


def brings_secrets(patch: Mapping[str, Any]) -> bool:
    """Whether there is a new secret in a change of the configuration, valid or not."""
    servers = _object(patch.get("mcp_servers")).values()
    kinds = [_object(_object(server).get(kind)) for server in servers for kind in ("headers", "env")]
    return any(isinstance(value, str) for values in kinds for value in values.values())


def _object(value: Any) -> dict[str, Any]:
    """The value if it is an object; an empty one otherwise."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def headers_of(stored: Mapping[str, str], server: str) -> dict[str, str]:
    """The headers that are stored for a server; their names in lower case."""
    return _of(stored, f"mcp_servers/{server}/headers/")


def question_title(server: str) -> str:
    """What a question for new credentials of a server is called: by that it is known again."""
    return f"Credentials for {server}"


def moved(before: Config, after: Config) -> set[str]:
    """Servers that went, or are somewhere else now: nothing that was meant for them may reach what has their names."""
    now = after.mcp_servers or {}
    was = (before.mcp_servers or {}).items()
    return {name for name, server in was if name not in now or _address(server) != _address(now[name])}


def env_of(stored: Mapping[str, str], server: str) -> dict[str, str]:
    """The environment variables that are stored for a server."""
    return _of(stored, f"mcp_servers/{server}/env/")


def _of(stored: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}


def _names(servers: Mapping[str, McpServerConfig]) -> set[str]:
    """The names of all secrets that a shown configuration tells of."""
    return {name for server, config in servers.items() for name in _markers(server, config)}


def _name(server: str, kind: Kind, key: str) -> str:
    return f"mcp_servers/{server}/{kind}/{key.lower() if kind == 'headers' else key}"


class _Server:
    """One server of a configuration, taken apart."""

    def __init__(
        self, name: str, config: McpServerConfig, before: McpServerConfig | None, fingerprint: Callable[[str, str], str]
    ) -> None:
        self.given: dict[str, str] = {}
        self.kept: set[str] = set()
        self._path = f"$.config.mcp_servers.{name[:80]}"
        self._name = name
        self._config = config
        self._moved = before is not None and _address(before) != _address(config)
        self._markers = {} if before is None or self._moved else _markers(name, before)
        self._fingerprint = fingerprint

    def shown(self) -> McpServerConfig:
        """The server with nothing secret in it; ``given`` and ``kept`` are known after this."""
        if not _SERVER.fullmatch(self._name):
            raise _wrong("a server's name is a letter or digit and up to 63 of letters, digits, - and _", self._path)
        self._check_address()
        headers, env = self._separated("headers"), self._separated("env")
        return msgspec.structs.replace(self._config, headers=headers, env=env)

    def _check_address(self) -> None:
        url, ref = self._config.url, self._config.ref
        if (url is None) == (ref is None):
            said = "both were given; null takes one away" if url is not None else "neither was given"
            raise _wrong(f"a server has either a `url` or a `ref`; {said}", self._path)
        if url is not None:
            problem = _url_problem(url)
            if problem is not None:
                raise _wrong(problem, f"{self._path}.url")
        elif not ref:
            raise _wrong("`ref` names a server in the operator's configuration; it is empty", f"{self._path}.ref")

    def _separated(self, kind: Kind) -> dict[str, Any] | None:
        """The markers to show in place of the values of one kind."""
        values = self._config.headers if kind == "headers" else self._config.env
        shown: dict[str, Any] = {}
        spelled: dict[str, str] = {}
        for key, value in sorted((values or {}).items(), key=lambda item: isinstance(item[1], str)):
            marker = self._marker(kind, key, value)
            if marker is None:
                continue
            name = _name(self._name, kind, key)
            if name in spelled:  # the same header in another case: what is new takes the place of what was kept
                del shown[spelled[name]]
            spelled[name] = key
            shown[key] = marker
        return {key: shown[key] for key in sorted(shown)} or None

    def _marker(self, kind: Kind, key: str, value: Any) -> dict[str, Any] | None:
        path, name = f"{self._path}.{kind}.{key[:80]}", _name(self._name, kind, key)
        if not isinstance(value, str):
            return self._keep(name, value, path)
        _check_key(kind, key, path, with_url=self._config.url is not None)
        _check_value(kind, value, path)
        if name in self.given:
            raise _wrong("this header is given twice, in different case", path)
        self.kept.discard(name)
        self.given[name] = value
        return {"set": True, "fingerprint": self._fingerprint(name, value)}

    def _keep(self, name: str, value: Any, path: str) -> dict[str, Any] | None:
        if not _says_keep(value):
            wanted = 'a string; or {"set": true}, to keep the one that is stored; or null, to remove it'
            raise _wrong(f"the value is {wanted}", path)
        if self._moved:
            return None
        if name not in self._markers:
            raise _wrong("there is no value to keep here; give one", path)
        self.kept.add(name)
        return self._markers[name]


def _address(config: McpServerConfig) -> tuple[str | None, str | None, str]:
    """What a server's secrets belong to: sent anywhere else they would be given away."""
    return config.url, config.ref, config.transport or "http"


def _markers(server: str, config: McpServerConfig) -> dict[str, dict[str, Any]]:
    """The markers of a shown configuration by the secrets' names."""
    headers = {_name(server, "headers", key): marker for key, marker in (config.headers or {}).items()}
    env = {_name(server, "env", key): marker for key, marker in (config.env or {}).items()}
    return headers | env


def _says_keep(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    marker = cast("dict[str, Any]", value)
    return marker.get("set") is True and marker.keys() <= {"set", "fingerprint"}


def _check_key(kind: Kind, key: str, path: str, *, with_url: bool) -> None:
    if kind == "headers":
        if not with_url:
            raise _wrong("headers go with a `url`; those of a `ref` are the operator's", path)
        if not _TOKEN.fullmatch(key):
            raise _wrong("a header's name is made of letters, digits and !#$%&'*+-.^_`|~, at most 128", path)
        if key.lower() in _OURS or key.lower().startswith("proxy-"):
            raise _wrong("this header is set by the protocol itself; leave it out", path)
    else:
        if with_url:
            raise _wrong("`env` goes with a `ref`; a server at a `url` has no environment here", path)
        if not _VARIABLE.fullmatch(key):
            raise _wrong("a variable's name is made of letters, digits and _, and begins with no digit", path)


def _check_value(kind: Kind, value: str, path: str) -> None:
    if len(value) > VALUE_LENGTH:
        raise _wrong(f"the value has at most {VALUE_LENGTH} characters", path)
    if kind == "headers" and not _FIELD_VALUE.fullmatch(value):
        wanted = "printable ASCII characters, with no line break and no white space around them"
        raise _wrong(f"a header's value is made of {wanted}; null removes a header", path)
    if kind == "env" and "\0" in value:
        raise _wrong("a variable's value has no zero character", path)


def _url_problem(url: str) -> str | None:
    """What is wrong with an address, without repeating it: it may have a password in it."""
    if len(url) > URL_LENGTH:
        return f"a url has at most {URL_LENGTH} characters"
    if not _VISIBLE.fullmatch(url):
        return "a url is made of printable ASCII characters; percent-encode the others"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
        parts = None
    if parts is None or not usable:
        return "a url is like https://crm.example.com/mcp"
    if "@" in parts.netloc:
        return "a url has no user and password in it: everybody who sees the configuration sees it; use `headers`"
    return "a url has no fragment (#...) here: it is never sent" if "#" in url else None


def _wrong(message: str, path: str) -> CommandError:
    return CommandError("invalid_frame", message, path=path)
