"""Which event loop this is, for libraries that have to ask.

anyio asks sniffio, where somebody has installed it (the OpenAI SDK brings it along), and sniffio knows tasks only: in a
callback of the loop, which is where commits are told of and work is given out, it says that there is no loop. So the
loop's thread says it for good.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

__all__ = ["known_to_sniffio"]


@contextmanager
def known_to_sniffio() -> Generator[None]:
    """While this lasts the loop of this thread is asyncio's wherever sniffio is asked; without sniffio, nothing."""
    try:
        local: Any = import_module("sniffio").thread_local
    except ImportError:
        yield
        return
    before, local.name = local.name, "asyncio"
    try:
        yield
    finally:
        local.name = before
