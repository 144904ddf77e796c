"""One lock for each of many things, there as long as somebody holds it or waits for it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

import anyio

__all__ = ["Locks"]

K = TypeVar("K", bound=Hashable)


class Locks(Generic[K]):
    """See the top of the module."""

    def __init__(self) -> None:
        self._of: WeakValueDictionary[K, anyio.Lock] = WeakValueDictionary()

    def of(self, key: K) -> anyio.Lock:
        """The lock; whoever takes it has the thing to itself meanwhile."""
        lock = self._of.get(key)
        if lock is None:
            lock = self._of[key] = anyio.Lock()
        return lock
