"""File descriptors: how many connections fit, so that what is there keeps working when no more can be taken.

A process without descriptors can neither open its log nor start a command. So connections get only a part of them.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

__all__ = ["connections_that_fit"]

log = structlog.get_logger("hermes_ws.server")

RESERVED: Final = 256
"""Descriptors for everything but connections: the log, tools with their pipes, outputs being read; with few
descriptors it is half of them."""


def connections_that_fit(wanted: int) -> int:
    """As many of ``wanted`` connections as the process has descriptors for; its soft limit is raised if it may be.

    Call it when everything else that stays open is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    taken = _open()
    needed = taken + RESERVED + wanted
    if soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    left = soft - taken
    fits = max(1, left - min(RESERVED, left // 2))
    if fits < wanted:
        log.warning("connections.limited", wanted=wanted, fits=fits, descriptors=soft)
    return min(wanted, fits)


def _open() -> int:
    """How many descriptors are taken now; a guess where the system does not tell."""
    with suppress(OSError):
        return sum(1 for _ in Path("/dev/fd").iterdir())
    return 32
