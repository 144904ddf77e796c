"""Commands once: a repeated id gets the stored answer (guarantee 5).

The answer of a command is in the log under conversation, principal and id, in the same commit as what the command did.
The newest ones are here too, and those that are on their way: a copy that arrives meanwhile waits for the same answer.
Refusals are not stored; a refused command may be sent again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from hermes_ws.errors import CommandError, ConversationDeleted, StorageFull, StoreError
from hermes_ws.protocol.codec import fingerprint
from hermes_ws.protocol.commands import Command
from hermes_ws.protocol.control import Ok
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import CommandRow, ConversationRef, Store

__all__ = ["COMMAND_TTL_MS", "CommandIds", "Reply", "digest", "refusal"]

log = structlog.get_logger("hermes_ws.commands")

Reply = Callable[[Ok | CommandError], None]
"""Who gets a command's one answer."""

COMMAND_TTL_MS: Final = 24 * 3600 * 1000
"""How long an id is remembered."""


_KEYED: Final = b"keyed:"
"""What a keyed digest begins with."""


@dataclass(slots=True)
class _Done:
    """A command that was begun: its digest, and its ``ok`` once it is committed."""

    digest: bytes
    ok: Ok | None
    at: int
    waiting: list[Reply] = field(default_factory=list[Reply])


class CommandIds:
    """The command ids of one conversation. ``complete``: it began in this process, so the log knows no others.

    What is kept of a command is its digest. That of one with a secret in it (``confidential``) is ``keyed``: a short
    secret could be guessed from a plain one. How a digest was made is seen from its length.
    """

    def __init__(
        self,
        store: Store,
        ref: ConversationRef,
        *,
        now: Callable[[], int],
        most: int,
        complete: bool,
        keyed: Callable[[bytes], bytes],
        confidential: Callable[[Command], bool],
    ) -> None:
        self._store = store
        self._ref = ref
        self._now = now
        self._most = most
        self._complete = complete
        self._keyed = keyed
        self._confidential = confidential
        self._known: OrderedDict[tuple[str, str], _Done] = OrderedDict()

    async def once(
        self,
        command: Command,
        caller: Caller,
        reply: Reply,
        do: Callable[[], Coroutine[Any, Any, None]],
        refuse: Callable[..., None],
    ) -> None:
        """``do`` it, unless it was done before. Raises :class:`CommandError` ``id_reused``, or what ``do`` raises
        for a command without an id; one with an id is answered whatever happens. ``refuse(error, *replies)`` tells of
        a refusal when what it rests on is committed.

        The only thing waited for before ``do`` is the look-up of an id in the log, so commands keep their order.
        """
        if command.id is None:
            await do()
        elif not await self._repeated(command, caller, reply):
            key = _key(command, caller)
            done = self._known[key] = _Done(self._digest(command), None, self._now(), [reply])
            try:
                await do()
            except BaseException as error:
                if self._known.get(key) is done:
                    del self._known[key]
                refuse(error if isinstance(error, CommandError) else self._failed(error), *done.waiting)
                if not isinstance(error, Exception):
                    raise

    async def knows(self, command: Command, caller: Caller) -> bool:
        """Whether the command's id was used, and is remembered."""
        return await self._found(command, caller) is not None

    async def _found(self, command: Command, caller: Caller) -> _Done | None:
        key = _key(command, caller)
        done = self._known.get(key)
        if done is None and not self._complete:
            row = await self._store.command(self._ref, *key)
            done = self._known.get(key)
            if done is None and row is not None:
                ok = msgspec.json.decode(row.ok, type=Ok) if self._is_of(row.digest, command) else None
                done = _Done(row.digest, ok, row.created_at)
        return None if done is None or done.at < self._now() - COMMAND_TTL_MS else done

    async def _repeated(self, command: Command, caller: Caller, reply: Reply) -> bool:
        """Whether the id was used before; if so, it is answered here."""
        done = await self._found(command, caller)
        if done is None:
            return False
        if not self._is_of(done.digest, command):
            message = f"id {command.id!r} was used for another command in the last 24 h"
            raise CommandError("id_reused", message, path="$.id")
        if done.ok is None:
            done.waiting.append(reply)
        else:
            reply(_again(done.ok))
        return True

    def _digest(self, command: Command) -> bytes:
        plain = digest(command)
        return self._sealed(plain) if self._confidential(command) else plain

    def _is_of(self, kept: bytes, command: Command) -> bool:
        """Whether a digest is the command's."""
        plain = digest(command)
        return kept == (self._sealed(plain) if len(kept) > len(plain) else plain)

    def _sealed(self, plain: bytes) -> bytes:
        return _KEYED + self._keyed(plain)

    def row(self, command: Command, caller: Caller, ok: Ok) -> CommandRow | None:
        """What goes into the log with what the command did; None for a command without an id."""
        if command.id is None:
            return None
        done = self._known[_key(command, caller)]
        return CommandRow(caller.principal.name, command.id, done.digest, msgspec.json.encode(ok), done.at)

    def settle(self, command: Command, caller: Caller, reply: Reply, answer: Ok | CommandError) -> None:
        """The command is committed, or will never be: tell who sent it, and who sent copies."""
        if command.id is None:
            reply(answer)
            return
        done = self._known[_key(command, caller)]
        _answer(done, answer)
        if isinstance(answer, Ok):
            done.ok = answer
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        while len(self._known) > self._most:
            oldest, done = next(iter(self._known.items()))
            if done.ok is None:
                return
            del self._known[oldest]
            self._complete = False

    def _failed(self, error: BaseException) -> CommandError:
        if isinstance(error, StoreError):
            return refusal(error)
        log.error("command.crashed", conversation=self._ref.conversation_id, exc_info=error)
        return CommandError("internal", "the server failed at this; its log says why")


def refusal(error: StoreError) -> CommandError:
    """What a client is told when the log refuses."""
    if isinstance(error, ConversationDeleted):
        return CommandError("not_found", "the conversation was deleted")
    if isinstance(error, StorageFull):
        return CommandError("storage_full", "the server has no space left; nothing was done")
    return CommandError("internal", "the log could not be read or written; nothing was done")


def _answer(done: _Done, answer: Ok | CommandError) -> None:
    """To who sent it first as it is, to copies that waited as a duplicate."""
    first, *copies = done.waiting
    done.waiting.clear()
    first(answer)
    for copy in copies:
        copy(_again(answer) if isinstance(answer, Ok) else answer)


def _key(command: Command, caller: Caller) -> tuple[str, str]:
    assert command.id is not None
    return caller.principal.name, command.id


def digest(command: Command) -> bytes:
    """What tells two commands under one id apart."""
    return hashlib.sha256(fingerprint(command)).digest()


def _again(ok: Ok) -> Ok:
    return msgspec.structs.replace(ok, duplicate=True)
