"""Who may come in: keys, tickets, hosts and origins.

A key is a secret; only its hash is kept here, and it is compared in constant time. A ticket is a key's right, narrowed,
good for one connect. Host and Origin are checked beside them: a key that leaked into a page must not let every other
web page, or a DNS name rebound to this address, drive the server.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from hermes_ws.errors import CommandError
from hermes_ws.protocol import BEARER_PREFIX, PROTOCOL
from hermes_ws.protocol.values import Role, ToolFilter
from hermes_ws.runtime.principal import Principal

__all__ = ["Access", "AccessKey", "Refused", "Ticket", "bearer_subprotocol", "is_loopback"]

_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_][a-z0-9_.-]*)(:[0-9]{1,5})?", re.IGNORECASE)
"""``name[:port]`` and nothing else: what a URL parser makes of the rest is an invitation."""
_WEB_ORIGIN: Final = re.compile(r"https?://(?P<host>.*)")

_ROLES: Final[dict[Role, frozenset[Role]]] = {
    "admin": frozenset({"admin", "driver", "responder", "observer"}),
    "driver": frozenset({"driver", "responder", "observer"}),
    "responder": frozenset({"responder", "observer"}),
    "observer": frozenset({"observer"}),
}
"""Which roles a ticket of each role's key may have."""


class Refused(Exception):
    """A request that is not let in. ``close_code`` is for clients that cannot see an HTTP status; None: they must."""

    def __init__(self, status: int, message: str, close_code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.close_code = close_code


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key's hash, and what it stands for."""

    sha256: bytes
    principal: Principal

    @staticmethod
    def of(secret: str, principal: Principal) -> AccessKey:
        return AccessKey(hashlib.sha256(secret.encode()).digest(), principal)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A right to connect once, until ``expires_at`` (monotonic seconds)."""

    principal: Principal
    expires_at: float


def bearer_subprotocol(key: str) -> str:
    """A key as a WebSocket subprotocol, for browsers, which cannot send headers."""
    return BEARER_PREFIX + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


class Access:
    """The gate. ``keys`` None: everybody is let in as ``anonymous`` (``--no-auth``)."""

    def __init__(
        self,
        keys: Sequence[AccessKey] | None,
        *,
        anonymous: Principal,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        public_url: str | None = None,
        trusted_proxies: Iterable[str] = (),
        tickets: int = 10_000,
        shared_terminal: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._anonymous = anonymous
        self._hosts = {host.lower() for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._proxies = [ipaddress.ip_network(proxy, strict=False) for proxy in trusted_proxies]
        self._most_tickets = tickets
        self._shared_terminal = shared_terminal
        self._tickets: dict[bytes, Ticket] = {}
        self._clock = clock
        if public_url is not None:
            public = urlsplit(public_url)
            self._hosts.add(public.hostname or "")
            self._origins.add(f"{public.scheme}://{public.netloc}".lower())

    # -- host and origin -------------------------------------------------------------------------------

    def check_address(self, scope: Any) -> None:
        """Host, then Origin. Raises :class:`Refused` with 400, 421 or 403."""
        host = self._host(scope)
        self._check_host(scope, host)
        origins = _values(scope, b"origin")
        if len(origins) > 1:
            raise Refused(400, "more than one Origin header")
        if origins and not self.allows_origin(origins[0], host):
            raise Refused(403, f"pages of origin {origins[0][:200]!r} may not talk to this server; see allowed_origins")

    def welcomes(self, scope: Any) -> bool:
        """Whether :meth:`check_address` lets it in."""
        try:
            self.check_address(scope)
        except Refused:
            return False
        return True

    def _host(self, scope: Any) -> str:
        hosts = _values(scope, b"host")
        if len(hosts) != 1:
            raise Refused(400, "exactly one Host header is needed")
        forwarded = _values(scope, b"x-forwarded-host")
        if forwarded and self._is_proxy(scope):
            return forwarded[-1].split(",")[-1].strip()
        return hosts[0]

    def _is_proxy(self, scope: Any) -> bool:
        client = scope.get("client")
        address = _address(client[0]) if client else None
        return address is not None and any(address in network for network in self._proxies)

    def _check_host(self, scope: Any, host: str) -> None:
        name = _hostname(host)
        server = scope.get("server")
        own = name is not None and server is not None and name == str(server[0]).lower()
        if name is None or not (own or is_loopback(name) or name in self._hosts or "*" in self._hosts):
            raise Refused(421, f"this server does not answer to Host {host[:200]!r}; see allowed_hosts and public_url")

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of ``origin`` may talk to us at ``host``: ours, a loopback page, or a listed one."""
        origin = origin.lower().rstrip("/")
        if origin in self._origins or "*" in self._origins:
            return True
        web = _WEB_ORIGIN.fullmatch(origin)
        name = _hostname(web["host"]) if web else None
        return web is not None and name is not None and (web["host"] == host.lower() or is_loopback(name))

    # -- credentials -----------------------------------------------------------------------------------

    def identify(self, scope: Any, *, ticket: str | None, conversation_id: str | None) -> Principal:
        """Who it is. Raises :class:`Refused` 401 (4401), or 403 (4403) for a ticket of another conversation."""
        if ticket is not None:
            return self._redeem(ticket, conversation_id)
        presented = _bearer(scope)
        if self._keys is None:
            return self._anonymous
        if presented is None:
            message = "a key is needed: Authorization: Bearer KEY, subprotocol hermes.bearer.BASE64URL, or a ticket"
            raise Refused(401, message, 4401)
        digest = hashlib.sha256(presented).digest()
        found = [key.principal for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        if not found:
            raise Refused(401, "this key is not known here", 4401)
        return found[0]

    def issue(
        self, principal: Principal, *, conversation_id: str, name: str | None, role: Role | None, ttl_s: float
    ) -> str:
        """A ticket for one connect to one conversation. Raises :class:`CommandError` if it would widen the key."""
        wanted = role or principal.role
        if wanted not in _ROLES[principal.role]:
            raise CommandError("not_permitted", f"a {principal.role} cannot give away the role {wanted}", path="$.role")
        if not principal.may_open(conversation_id):
            raise CommandError("not_permitted", "your key does not reach that conversation", path="$.conversation")
        if name == "server":
            raise CommandError("not_permitted", "'server' is who does what nobody asked for", path="$.principal")
        self._forget_expired()
        if len(self._tickets) >= self._most_tickets:
            raise CommandError("overloaded", "too many tickets are open", retry_after_ms=1000)
        ticket = secrets.token_urlsafe(32)
        name = name or principal.name
        tools = principal.tools if name == principal.name or self._shared_terminal else _no_terminal(principal.tools)
        narrowed = replace(principal, name=name, role=wanted, conversations=frozenset({conversation_id}), tools=tools)
        self._tickets[_hash(ticket)] = Ticket(narrowed, self._clock() + ttl_s)
        return ticket

    def _redeem(self, ticket: str, conversation_id: str | None) -> Principal:
        found = self._tickets.pop(_hash(ticket), None)
        if found is None or found.expires_at < self._clock():
            raise Refused(401, "this ticket is not good any more; ask for a new one for every connect", 4401)
        if conversation_id is None:
            message = "a ticket is for one conversation, at /ws/CONVERSATION; the inbox takes a key"
            raise Refused(403, message, 4403)
        if conversation_id != "new" and not found.principal.may_open(conversation_id):
            raise Refused(403, "this ticket is for another conversation", 4403)
        return found.principal

    def _forget_expired(self) -> None:
        now = self._clock()
        for digest in [digest for digest, ticket in self._tickets.items() if ticket.expires_at < now]:
            del self._tickets[digest]


def _no_terminal(tools: ToolFilter | None) -> ToolFilter:
    """Somebody else gets no unsandboxed terminal: it could read everybody's data (guarantee 11)."""
    given = tools or ToolFilter()
    return ToolFilter(allow=given.allow, deny=[*(given.deny or []), "builtin:terminal"])


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode(errors="replace")).digest()


def _values(scope: Any, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _bearer(scope: Any) -> bytes | None:
    """The key that was presented, by header or subprotocol. Raises :class:`Refused` 400 when it is unreadable."""
    for value in _values(scope, b"authorization"):
        scheme, _, secret = value.partition(" ")
        if scheme.lower() == "bearer":
            return secret.strip().encode("latin-1")
    offered: list[str] = scope.get("subprotocols") or []
    for protocol in offered:
        if protocol.startswith(BEARER_PREFIX):
            if PROTOCOL not in offered:
                raise Refused(400, f"who offers {BEARER_PREFIX}… also offers {PROTOCOL}: only that is ever selected")
            return _decoded(protocol.removeprefix(BEARER_PREFIX))
    return None


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise Refused(401, f"what follows {BEARER_PREFIX} is not base64url", 4401) from None


def _hostname(host: str) -> str | None:
    """The name in a Host header's value, in lower case; None if that is no host."""
    found = _HOST.fullmatch(host)
    return found["name"].lower().strip("[]") if found else None


def is_loopback(name: str) -> bool:
    """Whether only this machine can mean itself by ``name``: a host name or an address."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
