"""Secrets in the configuration: written out, or where to find them.

``env:NAME`` is the environment variable, ``file:PATH`` what a file holds; everything else is the secret itself. So a
configuration file can be shown around, and a secret be changed without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hermes_ws.errors import SettingsError

__all__ = ["resolve"]

_FILE_BYTES: Final = 65_536
"""No secret is larger; a file that is, is another one than was meant."""


def resolve(value: str, what: str, environment: Mapping[str, str] = os.environ) -> str:
    """The secret that ``value`` means. ``what`` is the setting's name, for the error.

    A relative path is relative to the working directory. Raises :class:`SettingsError` that says what to do; it never
    holds the secret.
    """
    kind, separator, rest = value.partition(":")
    if separator and kind == "env":
        return _from_environment(rest, what, environment)
    if separator and kind == "file":
        return _from_file(rest, what)
    return value


def _from_environment(name: str, what: str, environment: Mapping[str, str]) -> str:
    secret = environment.get(name, "").strip()
    if not secret:
        state = "empty" if name in environment else "not set"
        raise SettingsError(
            f"{what} is to come from the environment variable {name or '(no name)'}, which is {state}; "
            "set it where the server is started"
        )
    return secret


def _from_file(path: str, what: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            secret = file.read(_FILE_BYTES + 1).decode().strip()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no file of text"
        raise SettingsError(
            f"{what} is to come from the file {path!r}, which cannot be read: {reason}; "
            "put the secret there, readable for the server's user"
        ) from None
    if not secret or len(secret) > _FILE_BYTES:
        raise SettingsError(f"{what} is to come from the file {path!r}, which is {'too large' if secret else 'empty'}")
    return secret
