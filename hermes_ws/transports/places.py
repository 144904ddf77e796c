"""How many answers may take their time at once: each holds a connection, for as long as its client likes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from hermes_ws.transports.auth import Refused

__all__ = ["Places"]


class Places:
    """``limits.streams``, and how many of them are taken."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Generator[None]:
        """Have a place. Raises :class:`Refused` 503 when there is none left."""
        if self._taken >= self._most:
            message = f"{self._most} streams and waiting requests are open, and no more are taken (limits.streams)"
            raise Refused(503, f"{message}; come back a little later")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def held(self, answer: ASGIApp) -> ASGIApp:
        """The same answer, which has a place from its beginning to its end."""

        async def answered(scope: Scope, receive: Receive, send: Send) -> None:
            with self.one():
                await answer(scope, receive, send)

        return answered
