"""Which addresses are public, and what the operator's list lets through."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from hermes_ws.errors import SettingsError
from hermes_ws.tools.addresses import AllowList, is_public, parse_address


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_private(address: str) -> None:
    assert not is_public(ip_address(address))
    parsed = parse_address(address)
    assert parsed is not None
    assert not is_public(parsed)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"],
)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("text", ["localhost", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "", "1.2.3.4.5", "::g"])
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("entry", "host", "port", "address", "permitted"),
    [
        ("127.0.0.1", "127.0.0.1", 80, "127.0.0.1", True),
        ("127.0.0.1", "anything", 80, "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", 80, "127.0.0.2", False),
        ("127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1", True),
        ("127.0.0.1:8080", "127.0.0.1", 80, "127.0.0.1", False),
        ("10.0.0.0/8", "box", 80, "10.1.2.3", True),
        ("10.0.0.0/8:443", "box", 80, "10.1.2.3", False),
        ("10.0.0.5/8", "box", 80, "10.1.2.3", True),
        ("fd00::/8", "box", 80, "fd00::1", True),
        ("[fd00::1]:443", "box", 443, "fd00::1", True),
        ("[fd00::1]:443", "box", 80, "fd00::1", False),
        ("[fd00::1]", "box", 80, "fd00::1", True),
        ("::1", "box", 80, "::1", True),
        ("::ffff:127.0.0.1", "box", 80, "127.0.0.1", True),
        ("Box.Internal", "box.internal.", 80, "10.0.0.1", True),
        ("box.internal:80", "BOX.internal", 80, "10.0.0.1", True),
        ("box.internal:80", "box.internal", 81, "10.0.0.1", False),
        ("internal", "box.internal", 80, "10.0.0.1", False),
        ("internal", "elsewhere", 80, "8.8.8.8", True),
    ],
)
def test_allowing(entry: str, host: str, port: int, address: str, permitted: bool) -> None:
    parsed = parse_address(address)
    assert parsed is not None
    assert AllowList([entry]).permits(host, port, parsed) is permitted


@pytest.mark.parametrize(
    "entry", ["", "http://box", "box/path", "10.0.0.0/33", "box:", "box:0", "box:x", "box:65536", "*.box", "a b", "u@b"]
)
def test_what_no_entry_can_be(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"tools\.fetch_allow"):
        AllowList([entry])
