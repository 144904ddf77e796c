"""Which network addresses are public, and which others the operator lets be reached all the same.

Written out after the IANA special-purpose registries (RFC 6890 and its successors) instead of ``is_global``, whose
answers differ between the Python versions this runs on.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

import msgspec

from hermes_ws.errors import SettingsError

__all__ = ["Address", "AllowList", "is_public", "parse_address"]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_PRIVATE_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata is in it
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, which looks like a public address
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata is in it
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_PUBLIC_V6: Final = IPv6Network("2000::/3")
_PRIVATE_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments; Teredo, which wraps IPv4 addresses, is in it
        "2001:db8::/32",
        "2002::/16",  # 6to4, which wraps IPv4 addresses
        "3fff::/20",
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")


def parse_address(text: str) -> Address | None:
    """The address that ``text`` is, an IPv4 address where it is one in IPv6 clothes (``::ffff:a.b.c.d``)."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_public(address: Address) -> bool:
    """Whether it is an ordinary address of the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _PRIVATE_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _PUBLIC_V6 and not any(address in network for network in _PRIVATE_V6)


class _Entry(msgspec.Struct, frozen=True):
    host: str | None
    network: Network | None
    port: int | None

    def covers(self, host: str, port: int, address: Address) -> bool:
        if self.port not in (None, port):
            return False
        return host == self.host if self.network is None else address in self.network


class AllowList:
    """Hosts, addresses and networks that may be reached although they are not public.

    Entries: ``host``, ``192.0.2.1``, ``10.0.0.0/8``, ``fd00::/8``, each with ``:port`` if only that port is meant
    (``[fd00::1]:8080`` for IPv6). Raises ``SettingsError`` for anything else.
    """

    def __init__(self, entries: Iterable[str], *, setting: str = "tools.fetch_allow") -> None:
        self.setting = setting
        """Where the operator lists them."""
        self._entries = [_parse(entry, setting) for entry in entries]

    def permits(self, host: str, port: int, address: Address) -> bool:
        """Whether ``host``, which is at ``address``, may be connected to."""
        name = host.lower().rstrip(".")
        return is_public(address) or any(entry.covers(name, port, address) for entry in self._entries)


def _parse(entry: str, setting: str) -> _Entry:
    host, port = _split(entry.strip().lower())
    network = _network(host)
    valid_port = port is None or (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)
    if not valid_port or not host or (network is None and set(host) & set("/:[]@ *")):
        raise SettingsError(f"{setting}: {entry!r} is no host, address or network, with or without :port")
    return _Entry(host.rstrip("."), network, None if port is None else int(port))


def _split(entry: str) -> tuple[str, str | None]:
    """Host and port. What has several colons and no brackets is an IPv6 address without one."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return (host, rest.removeprefix(":")) if rest else (host, None)
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, None


def _network(text: str) -> Network | None:
    address = parse_address(text)
    try:
        return ip_network(text if address is None else str(address), strict=False)
    except ValueError:
        return None
