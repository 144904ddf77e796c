"""Secrets of MCP servers and their configuration are two things: what is shown, and what is stored."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hermes_ws.credentials import brings_secrets, env_of, headers_of, separate, without_secrets
from hermes_ws.errors import CommandError
from hermes_ws.merge_patch import merged
from hermes_ws.protocol.values import Config

URL = "https://crm.example.com/mcp"
AUTHORIZATION = "mcp_servers/crm/headers/authorization"
SECRET = "Bearer a-secret-nobody-may-see"


class Kept:
    """A conversation's configuration, patch by patch."""

    def __init__(self) -> None:
        self.config = Config()
        self.stored: dict[str, str] = {}
        self.changes: dict[str, str | None] = {}

    def patch(self, **crm: Any) -> dict[str, Any]:
        """Patch the server ``crm``; returns what is shown of it."""
        shown: dict[str, Any] = self.patch_all({"crm": crm})["crm"]
        return shown

    def patch_all(self, servers: Any) -> dict[str, Any]:
        """Patch ``mcp_servers``; returns what is shown of them."""
        new = merged(self.config, {"mcp_servers": servers})
        shown, self.changes = separate(self.config, new, self.stored, lambda name, value: f"{len(name)}.{len(value)}")
        told = msgspec.json.encode(shown).decode()
        given = [value for value in self.changes.values() if value and len(value) > 8]
        assert not any(value in told for value in given), "the configuration tells a secret"
        self.config = shown
        after = {**self.stored, **self.changes}
        self.stored = {name: value for name, value in after.items() if value is not None}
        servers = msgspec.to_builtins(shown).get("mcp_servers") or {}
        assert isinstance(servers, dict)
        return servers

    def refused(self, **crm: Any) -> CommandError:
        """The refusal of a patch of ``crm``."""
        with pytest.raises(CommandError) as refusal:
            self.patch(**crm)
        assert refusal.value.code == "invalid_frame"
        return refusal.value


@pytest.fixture
def kept() -> Kept:
    made = Kept()
    made.patch(url=URL, headers={"Authorization": SECRET, "X-Team": "blue"})
    return made


def marker(name: str, value: str) -> dict[str, Any]:
    return {"set": True, "fingerprint": f"{len(name)}.{len(value)}"}


def test_a_value_is_stored_by_its_name_and_shown_as_a_fingerprint(kept: Kept) -> None:
    assert kept.stored == {AUTHORIZATION: SECRET, "mcp_servers/crm/headers/x-team": "blue"}
    headers = kept.patch(timeout_ms=1)["headers"]
    assert headers == {
        "Authorization": marker(AUTHORIZATION, SECRET),
        "X-Team": marker("mcp_servers/crm/headers/x-team", "blue"),
    }
    assert headers_of(kept.stored, "crm") == {"authorization": SECRET, "x-team": "blue"}
    assert headers_of(kept.stored, "cr") == env_of(kept.stored, "crm") == {}


def test_a_patch_that_does_not_name_a_header_leaves_it(kept: Kept) -> None:
    before = dict(kept.stored)
    kept.patch(headers={"X-Other": "12345"})
    assert kept.stored == before | {"mcp_servers/crm/headers/x-other": "12345"}
    assert kept.changes == {"mcp_servers/crm/headers/x-other": "12345"}


@pytest.mark.parametrize("sent", [{"set": True}, {"set": True, "fingerprint": "whatever it was"}])
def test_what_was_read_back_means_keep(kept: Kept, sent: Any) -> None:
    before = kept.config
    kept.patch(headers={"Authorization": sent})
    assert kept.changes == {}
    assert kept.config == before


def test_null_removes_a_header_in_whatever_case(kept: Kept) -> None:
    assert "Authorization" not in kept.patch(headers={"authorization": None})["headers"]
    assert kept.changes == {AUTHORIZATION: None}


def test_a_new_value_replaces_the_old_one_in_whatever_case(kept: Kept) -> None:
    assert list(kept.patch(headers={"AUTHORIZATION": "Bearer another"})["headers"]) == ["Authorization", "X-Team"]
    assert kept.changes == {AUTHORIZATION: "Bearer another"}


def test_a_header_may_be_renamed_to_another_case(kept: Kept) -> None:
    headers = kept.patch(headers={"Authorization": None, "authorization": "Bearer another"})["headers"]
    assert sorted(headers) == ["X-Team", "authorization"]
    assert kept.stored[AUTHORIZATION] == "Bearer another"


def test_without_a_patch_that_knows_better_a_new_value_replaces_the_kept_one(kept: Kept) -> None:
    crm = (kept.config.mcp_servers or {})["crm"]
    both = msgspec.structs.replace(crm, headers={**(crm.headers or {}), "authorization": "Bearer another"})
    new = msgspec.structs.replace(kept.config, mcp_servers={"crm": both})
    shown, changes = separate(kept.config, new, kept.stored, lambda name, value: "new")
    assert changes == {AUTHORIZATION: "Bearer another"}
    assert sorted((shown.mcp_servers or {})["crm"].headers or {}) == ["X-Team", "authorization"]


@pytest.mark.parametrize("patch", [{"url": "https://elsewhere.example.com/mcp"}, {"transport": "sse"}])
def test_another_address_drops_what_was_stored_for_the_old_one(kept: Kept, patch: Any) -> None:
    assert "headers" not in kept.patch(**patch)
    assert kept.stored == {}


def test_another_address_takes_what_is_given_with_it(kept: Kept) -> None:
    kept.patch(url="https://elsewhere.example.com/mcp", headers={"Authorization": "Bearer another"})
    assert kept.stored == {AUTHORIZATION: "Bearer another"}


def test_the_transport_that_is_the_default_is_no_other_address(kept: Kept) -> None:
    before = dict(kept.stored)
    kept.patch(transport="http")
    assert kept.stored == before


def test_a_server_that_goes_takes_its_secrets(kept: Kept) -> None:
    kept.patch_all({"crm": None, "other": {"url": URL, "headers": {"A": "value"}}})
    assert kept.stored == {"mcp_servers/other/headers/a": "value"}


def test_all_servers_may_go(kept: Kept) -> None:
    assert kept.patch_all(None) == {}
    assert kept.stored == {}


def test_from_url_to_ref_and_back(kept: Kept) -> None:
    assert kept.patch(url=None, ref="crm", env={"TOKEN": "abc", "Token": "def"})["ref"] == "crm"
    assert env_of(kept.stored, "crm") == {"TOKEN": "abc", "Token": "def"}
    assert headers_of(kept.stored, "crm") == {}
    kept.patch(ref="other")
    assert kept.stored == {}


def test_there_is_nothing_to_keep_where_nothing_was(kept: Kept) -> None:
    assert kept.refused(headers={"X-New": {"set": True}}).path == "$.config.mcp_servers.crm.headers.X-New"
    assert Kept().refused(url=URL, headers={"A": {"set": True}}).path == "$.config.mcp_servers.crm.headers.A"


def test_a_secret_that_could_not_be_opened_stays_told_of_until_it_is_given_anew(kept: Kept) -> None:
    kept.stored = {}
    before = kept.config
    kept.patch(timeout_ms=5)
    assert (kept.config.mcp_servers or {})["crm"].headers == (before.mcp_servers or {})["crm"].headers
    assert kept.changes == {}
    kept.patch(headers={"Authorization": None})
    assert kept.changes == {AUTHORIZATION: None}


@pytest.mark.parametrize("value", [5, True, ["x"], {}, {"set": False}, {"set": True, "value": SECRET}])
def test_a_value_is_a_string_or_the_wish_to_keep(kept: Kept, value: Any) -> None:
    error = kept.refused(headers={"X-New": value})
    assert '{"set": true}' in error.message
    assert SECRET not in error.message


@pytest.mark.parametrize("name", ["", "a b", "crm/x", "-a", "a" * 65, "ä", "a\n", "mcp:a"])
def test_the_name_of_a_server_is_plain(name: str) -> None:
    with pytest.raises(CommandError, match="letter or digit"):
        Kept().patch_all({name: {"url": URL}})


@pytest.mark.parametrize("server", [{}, {"url": URL, "ref": "crm"}, {"ref": ""}])
def test_a_server_has_an_address_and_one_only(server: Any) -> None:
    assert Kept().refused(**server).path in ("$.config.mcp_servers.crm", "$.config.mcp_servers.crm.ref")


@pytest.mark.parametrize(
    "url",
    [
        "crm.example.com/mcp",
        "ftp://crm.example.com/",
        "https:///mcp",
        "https://user:passwd@crm.example.com/",
        "https://user@crm.example.com/",
        "https://crm.example.com/#there",
        "https://crm.example.com:99999/",
        "https://[::1/",
        "https://crm.example.com/a b",
        "https://crm.example.com/\n",
        "https://crm.example.com/ä",
        "https://crm.example.com/" + "x" * 2048,
        "",
    ],
)
def test_a_url_is_plain_http_with_no_secret_in_it(url: str) -> None:
    error = Kept().refused(url=url)
    assert error.path == "$.config.mcp_servers.crm.url"
    assert "passwd" not in error.message


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Proxy-Authorization", "Mcp-Session-Id", "a b", "a:b", "", "ä", "x" * 129]
)
def test_a_header_has_a_name_that_is_ours_to_send(name: str) -> None:
    error = Kept().refused(url=URL, headers={name: SECRET})
    assert error.path == f"$.config.mcp_servers.crm.headers.{name[:80]}"
    assert SECRET not in error.message


@pytest.mark.parametrize("value", ["", " a", "a ", "a\r\nHost: b", "a\0b", "a\nb", "ä", "\x7f", "x" * 8193])
def test_a_header_has_a_value_that_can_be_sent(value: str) -> None:
    error = Kept().refused(url=URL, headers={"X-A": value})
    assert error.path == "$.config.mcp_servers.crm.headers.X-A"
    assert len(value) < 5 or value not in error.message


def test_a_header_given_twice_in_different_case_is_refused() -> None:
    assert "twice" in Kept().refused(url=URL, headers={"X-A": "one", "x-a": "two"}).message


@pytest.mark.parametrize("name", ["1A", "A-B", "", "A=B", "ä"])
def test_a_variable_has_a_name_that_every_shell_takes(name: str) -> None:
    assert Kept().refused(ref="crm", env={name: "x"}).path == f"$.config.mcp_servers.crm.env.{name}"


def test_headers_go_with_a_url_and_variables_with_a_ref() -> None:
    assert "`url`" in Kept().refused(ref="crm", headers={"A": "x"}).message
    assert "`ref`" in Kept().refused(url=URL, env={"A": "x"}).message
    assert "zero" in Kept().refused(ref="crm", env={"A": "x\0y"}).message


def test_a_configuration_for_others_has_neither_headers_nor_variables(kept: Kept) -> None:
    kept.patch_all({"files": {"ref": "files", "env": {"A": "x"}}})
    assert msgspec.to_builtins(without_secrets(kept.config)) == {
        "mcp_servers": {"crm": {"url": URL}, "files": {"ref": "files"}}
    }
    assert without_secrets(Config(title="t")) == Config(title="t")


@pytest.mark.parametrize(
    ("patch", "brings"),
    [
        ({"mcp_servers": {"a": {"headers": {"A": "x"}}}}, True),
        ({"mcp_servers": {"a": {"env": {"A": "x"}}}}, True),
        ({"mcp_servers": {"a": {"headers": {"A": {"set": True}, "B": None}, "url": "x"}}}, False),
        ({"mcp_servers": {"a": None, "b": "x", "c": {"headers": "x"}}, "title": "x"}, False),
        ({"mcp_servers": "x"}, False),
    ],
)
def test_whether_a_patch_brings_a_secret(patch: Any, brings: bool) -> None:
    assert brings_secrets(patch) is brings
