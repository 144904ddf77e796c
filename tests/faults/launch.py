"""The server, with accidents: ``python -m tests.faults.launch serve ...``.

This imports the real package, wraps a few of its functions as the environment says, and goes on with the ordinary
command line. The product knows nothing of it.

``HERMES_WS_TESTS_CRASH_AT=POINT[:N[:KIND]]`` (several with commas): SIGKILL to ourselves when the point is reached for
the N-th time (the first, without), counting only what is of ``KIND``: an event's type, or a tool's name.

====================  ===========================================================================================
``commit.before``     before a transaction of the log begins
``commit.during``     its rows are written, but not committed
``commit.landed``     it is committed, and the writer has not noted that yet
``commit.after``      it is committed, and nobody was told yet
``answer.committed``  the same, for one that holds an answer to a question
``tool.wished``       ``tool.started`` is committed, the call was not judged
``tool.executing``    ``tool.executing`` is committed, the tool has not begun
``tool.effect``       the tool has done what it does, ``tool.completed`` is not committed
``startup.lock``      the data directory was taken
``startup.migrate``   before the N-th statement that looks at or changes the schema, or marks the log as open
``startup.marked``    the log is marked as open, and not yet witnessed
``startup.load``      a conversation was read from the log
``startup.take_up``   a conversation that was folded is about to go on
``startup.listen``    connections are taken, and nobody was told yet
``drain``             the server goes down in order, and has said so
``image.pooled``      an image is in its namespace's pool, and no conversation refers to it yet
``image.linked``      a conversation's folder has it, and nothing says so in the log
====================  ===========================================================================================

``HERMES_WS_TESTS_CLOCK=FILE``: the file holds milliseconds that are added to the wall clock, read anew when it changes.

``HERMES_WS_TESTS_SLOW_DISK=MS``: every transaction takes so much longer.

``HERMES_WS_TESTS_MUTANT=NAME``: take away a guard (:mod:`tests.faults.mutants`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "CLOCK",
    "CRASH_AT",
    "IMAGE_POINTS",
    "MODULE",
    "MUTANT",
    "POINTS",
    "SLOW_DISK",
    "Crashes",
    "install",
    "replace",
]

CRASH_AT = "HERMES_WS_TESTS_CRASH_AT"
CLOCK = "HERMES_WS_TESTS_CLOCK"
SLOW_DISK = "HERMES_WS_TESTS_SLOW_DISK"
MUTANT = "HERMES_WS_TESTS_MUTANT"
MODULE = "tests.faults.launch"
"""For ``Server.start(module=...)``."""

POINTS = (
    "commit.before",
    "commit.during",
    "commit.landed",
    "commit.after",
    "answer.committed",
    "tool.wished",
    "tool.executing",
    "tool.effect",
    "startup.lock",
    "startup.migrate",
    "startup.marked",
    "startup.load",
    "startup.take_up",
    "startup.listen",
    "drain",
)
IMAGE_POINTS = ("image.pooled", "image.linked")
"""Reached only by commands that bring images."""


@dataclass
class _Point:
    name: str
    left: int = 1
    kind: str | None = None


class Crashes:
    """Where to die, and how often not yet."""

    def __init__(self, spec: str) -> None:
        self._points = [self._parsed(text.strip()) for text in spec.split(",") if text.strip()]

    @staticmethod
    def _parsed(text: str) -> _Point:
        name, _, rest = text.partition(":")
        count, _, kind = rest.partition(":")
        if name not in POINTS + IMAGE_POINTS:
            raise SystemExit(f"{CRASH_AT}: there is no point {name!r}; there are {', '.join(POINTS + IMAGE_POINTS)}")
        return _Point(name, int(count or 1), kind or None)

    def at(self, *names: str) -> bool:
        """Whether one of these points matters at all."""
        return any(point.name in names for point in self._points)

    def reach(self, name: str, kinds: Iterable[str] = ()) -> None:
        """Die here, if it is time."""
        for point in self._points:
            if point.name == name and (point.kind is None or point.kind in kinds):
                point.left -= 1
                if point.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put ``make(what is there)`` in the place of ``owner.name``, which must be there."""
    setattr(owner, name, make(getattr(owner, name)))


def install(environment: dict[str, str]) -> None:
    """Wrap what the environment asks for."""
    crashes = Crashes(environment.get(CRASH_AT, ""))
    _at_commits(crashes)
    _at_tools(crashes)
    _at_startup(crashes)
    if crashes.at(*IMAGE_POINTS):
        from hermes_ws.store import blobs

        replace(blobs, "_link", lambda link: _first(lambda: crashes.reach("image.pooled"), link))
        replace(blobs.Blobs, "keep", lambda keep: _afterwards(keep, lambda: crashes.reach("image.linked")))
    if crashes.at("drain"):
        from hermes_ws.runtime.runtime import Runtime

        replace(Runtime, "_quiet", lambda quiet: _first(lambda: crashes.reach("drain"), quiet))
    if SLOW_DISK in environment:
        from hermes_ws.store.writer import Writer

        wait_s = int(environment[SLOW_DISK]) / 1000
        replace(Writer, "_transact", lambda transact: _first(lambda: time.sleep(wait_s), transact))
    if CLOCK in environment:
        from hermes_ws.runtime import runtime

        replace(runtime, "wall_clock", lambda clock: _Clock(Path(environment[CLOCK]), clock))
    if MUTANT in environment:
        from tests.faults.mutants import MUTANTS

        MUTANTS[environment[MUTANT]].apply()


def _first(do: Callable[[], None], then: Callable[..., Any]) -> Callable[..., Any]:
    """``then``, with ``do`` before it."""

    def both(*arguments: Any, **named: Any) -> Any:
        do()
        return then(*arguments, **named)

    return both


def _afterwards(do: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    """``do``, with ``then`` after it."""

    def both(*arguments: Any, **named: Any) -> Any:
        result = do(*arguments, **named)
        then()
        return result

    return both


# -- the log -----------------------------------------------------------------------------------------------


class _Watched:
    """A database connection that tells before and after it commits."""

    def __init__(self, db: Any, reach: Callable[[str], None]) -> None:
        self._db = db
        self._reach = reach

    def execute(self, sql: str, *parameters: Any) -> Any:
        commits = sql.strip().upper().startswith("COMMIT")
        if commits:
            self._reach("commit.during")
        result = self._db.execute(sql, *parameters)
        if commits:
            self._reach("commit.landed")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def _at_commits(crashes: Crashes) -> None:
    if not crashes.at("commit.before", "commit.during", "commit.landed", "commit.after", "answer.committed"):
        return
    from hermes_ws.store.writer import Writer

    def hooked(transact: Callable[..., Any]) -> Callable[..., Any]:
        def transaction(writer: Any, db: Any, group: list[Any]) -> Any:
            events = [event for batch in group for event in batch.events]
            kinds = {_type_of(event) for event in events}
            crashes.reach("commit.before", kinds)
            error = transact(writer, _Watched(db, lambda point: crashes.reach(point, kinds)), group)
            if error is None:
                crashes.reach("commit.after", kinds)
                if any(_type_of(e) == "interaction.resolved" and b'"outcome":"answered"' in e for e in events):
                    crashes.reach("answer.committed")
            return error

        return transaction

    replace(Writer, "_transact", hooked)


def _type_of(event: bytes) -> str:
    """``type`` is the first field of every frame."""
    return event.split(b'"', 4)[3].decode()


# -- tools -------------------------------------------------------------------------------------------------


class _HookedTool:
    """A tool that may not live to tell."""

    def __init__(self, tool: Any, crashes: Crashes) -> None:
        self._tool = tool
        self._crashes = crashes
        self.description = tool.description

    async def call(self, ctx: Any, arguments: dict[str, Any]) -> Any:
        name = [self.description.name]
        self._crashes.reach("tool.executing", name)
        result = await self._tool.call(ctx, arguments)
        self._crashes.reach("tool.effect", name)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)


def _at_tools(crashes: Crashes) -> None:
    if crashes.at("tool.wished"):
        from hermes_ws.runtime.calls import Call

        def wished(attempt: Callable[..., Any]) -> Callable[..., Any]:
            async def attempted(call: Any) -> Any:
                await call._conversation.settled()
                crashes.reach("tool.wished", [call._name])
                return await attempt(call)

            return attempted

        replace(Call, "_attempt", wished)
    if not crashes.at("tool.executing", "tool.effect"):
        return
    from hermes_ws.transports import server

    def hooked(make: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        return lambda *given: {name: _HookedTool(tool, crashes) for name, tool in make(*given).items()}

    replace(server, "builtin_tools", hooked)


# -- coming up ---------------------------------------------------------------------------------------------


def _at_startup(crashes: Crashes) -> None:
    if not crashes.at(*(point for point in POINTS if point.startswith("startup."))):
        return
    import uvicorn

    from hermes_ws.runtime.conversation import Conversation
    from hermes_ws.store import migrations, recovery
    from hermes_ws.store.directory import DataDirectory
    from hermes_ws.store.sqlite import SqliteStore

    def afterwards(point: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def hooked(take: Callable[..., Any]) -> Callable[..., Any]:
            def taken(*given: Any, **named: Any) -> Any:
                result = take(*given, **named)
                crashes.reach(point)
                return result

            return taken

        return hooked

    def after_waiting(point: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def hooked(work: Callable[..., Any]) -> Callable[..., Any]:
            async def worked(*given: Any, **named: Any) -> Any:
                result = await work(*given, **named)
                crashes.reach(point)
                return result

            return worked

        return hooked

    replace(DataDirectory, "_take_lock", afterwards("startup.lock"))
    replace(SqliteStore, "load", after_waiting("startup.load"))
    replace(Conversation, "take_up", lambda take_up: _first(lambda: crashes.reach("startup.take_up"), take_up))
    replace(uvicorn.Server, "startup", after_waiting("startup.listen"))
    replace(recovery, "Witness", lambda witness: _first(lambda: crashes.reach("startup.marked"), witness))
    for module in (migrations, recovery) if crashes.at("startup.migrate") else ():
        replace(module, "sqlite3", lambda sqlite3: _TracedSqlite(sqlite3, crashes))


class _TracedSqlite:
    """The module ``sqlite3``, whose connections die at a statement."""

    def __init__(self, module: Any, crashes: Crashes) -> None:
        self._module = module
        self._crashes = crashes

    def connect(self, *given: Any, **named: Any) -> Any:
        db = self._module.connect(*given, **named)
        db.set_trace_callback(lambda _sql: self._crashes.reach("startup.migrate"))
        return db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


# -- the clock ---------------------------------------------------------------------------------------------


class _Clock:
    """The wall clock, moved by what a file says."""

    def __init__(self, file: Path, clock: Callable[[], int]) -> None:
        self._file = file
        self._clock = clock
        self._read_at = -1
        self._offset_ms = 0

    def __call__(self) -> int:
        changed = self._file.stat().st_mtime_ns
        if changed != self._read_at:
            self._read_at, self._offset_ms = changed, int(self._file.read_text().strip() or 0)
        return self._clock() + self._offset_ms


if __name__ == "__main__":
    from hermes_ws.cli import main

    install(dict(os.environ))
    main(prog_name="hermes-ws")
