"""The server's own diagnostics: structured lines on stderr, quiet on the hot path."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, TextIO, cast

import structlog

from hermes_ws.scrub import known

__all__ = ["BestEffort", "Discreet", "configure_logging", "lines_of_request"]

_request: Final[ContextVar[list[str] | None]] = ContextVar("request", default=None)
"""The id of the request that is being answered; emptied with its end, for tasks that it began live on with a copy."""


@contextmanager
def lines_of_request(request_id: str) -> Generator[None]:
    """Lines written in here, and by what is begun in here as long as this lasts, say which request they belong to."""
    holder = [request_id]
    before = _request.set(holder)
    try:
        yield
    finally:
        holder.clear()
        _request.reset(before)


def _with_request(logger: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog's processor for it."""
    holder = _request.get()
    return {**line, "request_id": holder[0]} if holder else line


class BestEffort:
    """A stream whose lines may be lost: a full disk under it, or nobody at its other end, harms nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As far as it goes."""
        with suppress(OSError, ValueError):
            self._stream.flush()


class Discreet(BestEffort):
    """One that has no known secret in it, whoever writes to it: lines, tracebacks, other people's libraries."""

    def write(self, text: str) -> int:
        """Write what can be written, and may be."""
        super().write(known.text(text))
        return len(text)


def configure_logging(*, level: str, as_json: bool) -> None:
    """Send structlog's and the libraries' lines to stderr, from ``level`` on."""
    stderr = cast(TextIO, Discreet(sys.stderr))
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _with_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback  # a rich one shows locals: what people said, and keys
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=stderr, format="%(levelname)s %(name)s %(message)s")
