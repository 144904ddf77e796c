"""Secrets at rest, and where the key to them comes from."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hermes_ws.errors import SettingsError, StorageFull, StoreError
from hermes_ws.store.base import ConversationRef, SecretRow
from hermes_ws.store.secrets_key import KEPT, open_vault
from hermes_ws.store.vault import CannotOpen, Vault

REF = ConversationRef("home", "demo")
OTHER = ConversationRef("home", "other")
NAME = "mcp_servers/crm/headers/authorization"
SECRET = "Bearer a-secret-nobody-may-see"
KEY = b"0123456789abcdef"


def test_what_was_sealed_opens_with_the_same_key() -> None:
    sealed = Vault(KEY).seal(REF, NAME, SECRET)
    assert Vault(KEY).open(REF, NAME, sealed) == SECRET
    assert SECRET.encode() not in sealed


def test_nothing_is_sealed_the_same_way_twice() -> None:
    vault = Vault(KEY)
    assert vault.seal(REF, NAME, SECRET) != vault.seal(REF, NAME, SECRET)


def test_what_was_sealed_opens_nowhere_else() -> None:
    vault = Vault(KEY)
    sealed = vault.seal(REF, NAME, SECRET)
    for ref, name in ((OTHER, NAME), (ConversationRef("away", "demo"), NAME), (REF, NAME + "2")):
        with pytest.raises(CannotOpen):
            vault.open(ref, name, sealed)


@pytest.mark.parametrize("at", [0, 1, 12, 13, -1])
def test_what_was_changed_does_not_open(at: int) -> None:
    sealed = bytearray(Vault(KEY).seal(REF, NAME, SECRET))
    sealed[at] ^= 1
    with pytest.raises(CannotOpen, match="another key, or is damaged"):
        Vault(KEY).open(REF, NAME, bytes(sealed))


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01" + b"x" * 12])
def test_what_was_cut_short_does_not_open(data: bytes) -> None:
    with pytest.raises(CannotOpen):
        Vault(KEY).open(REF, NAME, data)


def test_with_another_key_the_rest_is_there_and_the_names_of_what_is_not_are_logged() -> None:
    rows = [
        SecretRow("mine", Vault(KEY).seal(REF, "mine", "abc")),
        SecretRow(NAME, Vault(b"x").seal(REF, NAME, SECRET)),
    ]
    with capture_logs() as logs:
        assert Vault(KEY).open_all(REF, rows) == ({"mine": "abc"}, {NAME})
    assert [(line["event"], line["names"]) for line in logs] == [("secrets.unreadable", [NAME])]


def test_a_fingerprint_tells_equal_values_in_one_place_and_nothing_else() -> None:
    vault = Vault(KEY)
    mine = vault.fingerprint(REF, NAME, SECRET)
    assert mine == Vault(KEY).fingerprint(REF, NAME, SECRET)
    assert len(mine) == 16
    others = {
        vault.fingerprint(REF, NAME, SECRET + "2"),
        vault.fingerprint(REF, NAME + "2", SECRET),
        vault.fingerprint(OTHER, NAME, SECRET),
        Vault(b"another key").fingerprint(REF, NAME, SECRET),
    }
    assert len(others - {mine}) == 4


def test_a_digest_is_keyed_and_belongs_to_a_conversation() -> None:
    vault = Vault(KEY)
    assert vault.digest(REF, b"x") == Vault(KEY).digest(REF, b"x")
    assert len({vault.digest(REF, b"x"), vault.digest(OTHER, b"x"), Vault(b"y").digest(REF, b"x")}) == 3


# -- the key -------------------------------------------------------------------------------------------


def warnings(logs: object) -> list[str]:
    assert isinstance(logs, list)
    return [line["event"] for line in logs if line["log_level"] == "warning"]


def test_a_key_of_our_own_is_made_when_something_is_sealed_and_no_earlier(tmp_path: Path) -> None:
    told: list[str] = []
    with capture_logs() as logs:
        vault = open_vault(key=None, key_file=None, data=tmp_path, known=told.append)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(CannotOpen, match="is not there"):
            vault.open(REF, NAME, b"x" * 40)
        assert list(tmp_path.iterdir()) == []
        assert (warnings(logs), told) == ([], [])
        sealed = vault.seal(REF, NAME, SECRET)
    kept = tmp_path / KEPT
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert told == [kept.read_text().strip()]
    assert warnings(logs) == ["secrets_key.in_data_directory"]
    with capture_logs() as logs:
        again = open_vault(key=None, key_file=None, data=tmp_path, known=told.append)
    assert again.open(REF, NAME, sealed) == SECRET
    assert warnings(logs) == ["secrets_key.in_data_directory"]
    assert told[0] == told[1]


def test_a_key_in_the_settings_is_the_key(tmp_path: Path) -> None:
    with capture_logs() as logs:
        vault = open_vault(key="0123456789abcdef", key_file=None, data=tmp_path)
        assert vault.open(REF, NAME, Vault(KEY).seal(REF, NAME, SECRET)) == SECRET
    assert list(tmp_path.iterdir()) == []
    assert warnings(logs) == []


def test_a_key_in_a_file_is_the_key(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "key"
    data.mkdir()
    file.write_text("0123456789abcdef\n")
    file.chmod(0o600)
    with capture_logs() as logs:
        vault = open_vault(key=None, key_file=str(file), data=data)
    assert vault.open(REF, NAME, Vault(KEY).seal(REF, NAME, SECRET)) == SECRET
    assert warnings(logs) == []


def test_a_key_file_in_the_data_directory_is_warned_of_through_links_too(tmp_path: Path) -> None:
    data, link = tmp_path / "data", tmp_path / "key"
    data.mkdir()
    (data / "key").write_text("0123456789abcdef\n")
    (data / "key").chmod(0o600)
    link.symlink_to(data / "key")
    with capture_logs() as logs:
        open_vault(key=None, key_file=str(link), data=data)
    assert warnings(logs) == ["secrets_key.in_data_directory"]


def test_a_key_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef\n")
    file.chmod(0o644)
    with capture_logs() as logs:
        open_vault(key=None, key_file=str(file), data=tmp_path / "data")
    assert warnings(logs) == ["key.readable_by_others"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "is empty"), (b"short", "16 characters"), (b"\xff" * 20, "text")],
)
def test_a_key_file_that_holds_no_key_is_refused_with_what_to_do(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    with pytest.raises(SettingsError, match=message):
        open_vault(key=None, key_file=str(file), data=tmp_path / "data")


def test_a_key_that_is_too_short_or_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="fewer than 16 characters"):
        open_vault(key="short", key_file=None, data=tmp_path)
    with pytest.raises(SettingsError, match="leave one out"):
        open_vault(key="0123456789abcdef", key_file="x", data=tmp_path)


def test_a_key_of_our_own_that_was_emptied_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / KEPT).touch(0o600)
    with pytest.raises(SettingsError, match="delete it"):
        open_vault(key=None, key_file=None, data=tmp_path)


def test_where_no_key_can_be_kept_nothing_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    vault = open_vault(key=None, key_file=None, data=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("hermes_ws.store.key_file.os.fsync", full)
        with pytest.raises(StorageFull):
            vault.seal(REF, NAME, SECRET)
    assert list(tmp_path.iterdir()) == [], "half a key is no key"
    assert vault.open(REF, NAME, vault.seal(REF, NAME, SECRET)) == SECRET
    gone = open_vault(key=None, key_file=None, data=tmp_path / "gone")
    with pytest.raises(StoreError, match="No such file"):
        gone.fingerprint(REF, NAME, SECRET)
