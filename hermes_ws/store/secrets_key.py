"""Where the key comes from that secrets are sealed with, and what is said of it.

The operator's setting, or a file that it names, or else a key of our own in the data directory, made when the first
secret is stored. The last protects nothing from who copies the data directory, which has both then: it says so.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from hermes_ws.errors import SettingsError, StorageFull, StoreError
from hermes_ws.store.key_file import make_key, read_key
from hermes_ws.store.vault import Vault

__all__ = ["KEPT", "open_vault"]

log = structlog.get_logger("hermes_ws.server")

KEPT: Final = "hermes-ws.secrets-key"
"""Name of our own key's file in the data directory."""
_SHORTEST: Final = 16
_HOW: Final = "`openssl rand -base64 32` makes one"
_LOST: Final = "what was sealed with it cannot be read without"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def open_vault(
    *, key: str | None, key_file: str | None, data: Path, known: Callable[[str], object] = lambda key: None
) -> Vault:
    """The vault of a server with its data in ``data``. ``known`` is told the key as soon as there is one.

    Raises :class:`SettingsError` that says what to do.
    """
    if key is not None and key_file is not None:
        raise SettingsError("secrets.key and secrets.key_file are both set; leave one out")
    if key is not None:
        found = _long_enough(key.strip(), "secrets.key")
    elif key_file is not None:
        found = _from_file(key_file, data)
    else:
        return _kept(data / KEPT, known)
    known(found)
    return Vault(found.encode())


def _long_enough(key: str, what: str) -> str:
    if len(key) < _SHORTEST:
        raise SettingsError(f"{what} has fewer than {_SHORTEST} characters; {_HOW}")
    return key


def _from_file(key_file: str, data: Path) -> str:
    try:
        path = Path(key_file).expanduser().resolve()
    except (RuntimeError, ValueError, OSError) as error:  # ~nobody, a zero byte, links that go round
        raise SettingsError(f"secrets.key_file {key_file!r} is no file's name: {error}") from None
    key = read_key(path, if_broken="see secrets.key_file", if_empty=f"secrets.key_file needs a key in it: {_HOW}")
    if path.is_relative_to(data.resolve()):
        _warn(path)
    return _long_enough(key, f"the key in {path} (secrets.key_file)")


def _kept(path: Path, known: Callable[[str], object]) -> Vault:
    if path.exists():
        empty = "delete it: nothing was sealed with it yet"
        key = _long_enough(read_key(path, if_broken=f"mend it: {_LOST}", if_empty=empty), str(path))
        _warn(path)
        known(key)
        return Vault(key.encode())

    def make() -> bytes:
        key = _made(path)
        known(key)
        return key.encode()

    return Vault(None, make=make)


def _made(path: Path) -> str:
    key = secrets.token_urlsafe(32)
    try:
        make_key(path, key)
    except OSError as error:
        failure = StorageFull if error.errno in _NO_ROOM else StoreError
        raise failure(f"the key for secrets cannot be kept in {path}: {error.strerror}") from error
    _warn(path)
    return key


def _warn(path: Path) -> None:
    log.warning(
        "secrets_key.in_data_directory",
        path=str(path),
        advice="who copies the data directory has the secrets in it and their key; set secrets.key or secrets.key_file",
    )
