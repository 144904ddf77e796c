"""Secrets at rest: sealed before they go to the log, opened when their conversation is loaded.

AES-256-GCM (NIST SP 800-38D) with a random nonce. What a value belongs to (namespace, conversation, name) is
authenticated with it, so that a row that was moved to another conversation does not open there. Fingerprints and the
digests of commands that carry secrets are keyed (HMAC-SHA-256): on them, who has the log alone cannot try values out.
All keys are derived (HKDF, RFC 5869) from one, which is not in the log: :mod:`hermes_ws.store.secrets_key`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final

import structlog

from hermes_ws.errors import StoreError
from hermes_ws.store.base import ConversationRef, SecretRow

__all__ = ["CannotOpen", "Vault"]

log = structlog.get_logger("hermes_ws.store")

_VERSION: Final = b"\x01"
"""What a sealed value begins with, for the day that it is sealed another way."""
_NONCE_BYTES: Final = 12
_FINGERPRINT_DIGITS: Final = 16


class CannotOpen(StoreError):
    """A sealed value that this vault cannot open: it was sealed with another key, or elsewhere, or is damaged."""


class Vault:
    """Seals and opens. Holds no secret but its keys."""

    def __init__(self, key: bytes | None, *, make: Callable[[], bytes] | None = None) -> None:
        """``key`` None: there is none yet; ``make`` makes one when it is first needed to seal something."""
        self._key = key
        self._make = make

    def seal(self, ref: ConversationRef, name: str, value: str) -> bytes:
        """``value``, for the log. Raises :class:`StoreError` where there is no key and none can be made."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed: bytes = self._cipher.encrypt(nonce, value.encode(), _place(ref, name))
        return _VERSION + nonce + sealed

    def open(self, ref: ConversationRef, name: str, data: bytes) -> str:
        """What was sealed. Raises :class:`CannotOpen`."""
        from cryptography.exceptions import InvalidTag

        if self._key is None:
            raise CannotOpen(f"{name} cannot be opened: the key that it was sealed with is not there")
        nonce, sealed = data[1 : 1 + _NONCE_BYTES], data[1 + _NONCE_BYTES :]
        try:
            if data[:1] != _VERSION or len(nonce) < _NONCE_BYTES:
                raise InvalidTag
            plain: bytes = self._cipher.decrypt(nonce, sealed, _place(ref, name))
        except InvalidTag:
            raise CannotOpen(f"{name} cannot be opened: it was sealed with another key, or is damaged") from None
        return plain.decode()

    def open_all(self, ref: ConversationRef, rows: Iterable[SecretRow]) -> tuple[dict[str, str], set[str]]:
        """What can be opened, by name; and the names of what cannot, which is logged and otherwise as if it were not
        there."""
        opened: dict[str, str] = {}
        unreadable: set[str] = set()
        for row in rows:
            try:
                opened[row.name] = self.open(ref, row.name, row.data or b"")
            except CannotOpen:
                unreadable.add(row.name)
        if unreadable:
            log.warning("secrets.unreadable", conversation=ref.conversation_id, names=sorted(unreadable))
        return opened, unreadable

    def fingerprint(self, ref: ConversationRef, name: str, value: str) -> str:
        """What may be shown of a value: the same for the same value in the same place, and for nothing else."""
        mac = hmac.digest(self._fingerprint_key, _place(ref, name) + b"\0" + value.encode(), "sha256")
        return mac.hex()[:_FINGERPRINT_DIGITS]

    def digest(self, ref: ConversationRef, data: bytes) -> bytes:
        """A keyed SHA-256 of ``data``, different for each conversation."""
        return hmac.digest(self._digest_key, _place(ref, "") + b"\0" + data, hashlib.sha256)

    @property
    def _master(self) -> bytes:
        if self._key is None:
            assert self._make is not None
            self._key = self._make()
        return self._key

    @cached_property
    def _cipher(self) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derived("sealing"))

    @cached_property
    def _fingerprint_key(self) -> bytes:
        return self._derived("fingerprints")

    @cached_property
    def _digest_key(self) -> bytes:
        return self._derived("digests")

    def _derived(self, purpose: str) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = f"hermes-ws {purpose}".encode()
        derived: bytes = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._master)
        return derived


def _place(ref: ConversationRef, name: str) -> bytes:
    """Where a value belongs. Neither ids nor names have zero characters."""
    return "\0".join((*ref, name)).encode()
