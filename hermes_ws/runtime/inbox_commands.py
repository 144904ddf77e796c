"""Commands of the inbox: some for the conversation that they name, some about the inbox itself."""

from __future__ import annotations

from typing import Final

import msgspec

from hermes_ws.errors import CommandError, StoreError
from hermes_ws.protocol.commands import (
    ANYWHERE,
    INBOX,
    ClientUpdate,
    Command,
    Help,
    InboxMore,
    InteractionReply,
    Ping,
    RunStart,
    RunStop,
    command_type,
)
from hermes_ws.protocol.control import CommandHelp, Ok
from hermes_ws.runtime.beginning import begun_by
from hermes_ws.runtime.command_ids import Reply, refusal
from hermes_ws.runtime.commands import dispatch, help_entries
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.inbox import InboxReader
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.runtime import Runtime
from hermes_ws.store.base import ConversationRef

__all__ = ["dispatch_inbox"]

_PLACED: Final = tuple(map(command_type, ANYWHERE))
_TAKEN: Final = tuple(map(command_type, INBOX))


async def dispatch_inbox(runtime: Runtime, reader: InboxReader, command: Command, caller: Caller, reply: Reply) -> None:
    """Do ``command``; ``reply`` is called once, when it is done or refused."""
    try:
        if isinstance(command, ANYWHERE):
            await _elsewhere(runtime, command, caller, reply)
        else:
            reply(await _here(reader, command, caller))
    except CommandError as refused:
        reply(refused)
    except StoreError as error:
        reply(refusal(error))


async def _here(reader: InboxReader, command: Command, caller: Caller) -> Ok:
    match command:
        case InboxMore():
            await reader.more(command.cursor)
            return Ok(id=command.id, at=0)
        case ClientUpdate():
            _name(command, caller)
            return Ok(id=command.id, at=0)
        case Ping():
            return Ok(id=command.id, at=0, head=0)
        case Help():
            return Ok(id=command.id, at=0, commands=_help())
        case _:
            message = f"{command_type(command)} is for a conversation's own socket; open /ws/CONVERSATION"
            raise CommandError("unsupported", message, path="$.type")


def _name(command: ClientUpdate, caller: Caller) -> None:
    if command.tools:
        message = "tools are executed at the socket of a conversation; open /ws/CONVERSATION to offer some"
        raise CommandError("unsupported", message, path="$.tools")
    if caller.seat is not None:
        caller.seat.client_id = command.client_id


def _help() -> list[CommandHelp]:
    return [_with_place(entry) for entry in help_entries() if entry.type in _TAKEN]


def _with_place(entry: CommandHelp) -> CommandHelp:
    """The same with a conversation in its example, where one has to be named."""
    if entry.type not in _PLACED:
        return entry
    example = {"type": entry.type, "conversation_id": "demo", **entry.example}
    return msgspec.structs.replace(entry, example=example)


async def _elsewhere(
    runtime: Runtime, command: RunStart | RunStop | InteractionReply, caller: Caller, reply: Reply
) -> None:
    """Do it in the conversation that it names, and say in the answer which one that is."""
    conversation = await _opened(runtime, command, caller)
    name = conversation.ref.conversation_id

    def told(answer: Ok | CommandError) -> None:
        reply(msgspec.structs.replace(answer, conversation_id=name) if isinstance(answer, Ok) else answer)

    await dispatch(runtime, conversation, msgspec.structs.replace(command, conversation_id=None), caller, told)


async def _opened(runtime: Runtime, command: RunStart | RunStop | InteractionReply, caller: Caller) -> Conversation:
    name, path = command.conversation_id, "$.conversation_id"
    caller.check(command)
    if name is None:
        message = f"in the inbox {command_type(command)} says where: a conversation_id"
        raise CommandError("invalid_frame", message, path=path)
    if not caller.principal.may_open(name):
        raise CommandError("not_permitted", "your credential does not reach this conversation", path=path)
    if name != "new":
        return await runtime.open(ConversationRef(caller.principal.namespace, name))
    if not isinstance(command, RunStart):
        raise CommandError("invalid_frame", f"{command_type(command)} is for a conversation that is there", path=path)
    return await begun_by(runtime, command, caller)
