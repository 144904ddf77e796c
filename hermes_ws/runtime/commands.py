"""Commands: the ones that read, the ones that reach beyond one session, and the checks before the rest.

Everything a client can send comes through :func:`dispatch`, from a socket or over HTTP, and gets exactly one answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from hermes_ws import policy
from hermes_ws.credentials import moved, without_secrets
from hermes_ws.decisions import Decision, RunOptions
from hermes_ws.errors import CommandError, StoreError, ToolError
from hermes_ws.merge_patch import merged
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import decode_event
from hermes_ws.protocol.commands import (
    ANYWHERE,
    READS,
    ApprovalsList,
    ApprovalsRevoke,
    ClientTool,
    ClientUpdate,
    Command,
    ConversationConfigure,
    ConversationFork,
    Help,
    InboxMore,
    InteractionReply,
    Ping,
    RunRetry,
    RunStart,
    SnapshotGet,
    ToolsList,
    command_type,
)
from hermes_ws.protocol.control import CommandHelp, Ok
from hermes_ws.protocol.values import ApprovalsConfig, Config, InteractionTool, McpServerConfig, ToolDescription
from hermes_ws.runtime.command_ids import Reply, digest, refusal
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.functions import ClientFunction, is_brought
from hermes_ws.runtime.principal import Caller
from hermes_ws.runtime.rules import standing_rules
from hermes_ws.runtime.runtime import Runtime, new_id
from hermes_ws.store.base import CommandRow, ConversationRef, RecordRow
from hermes_ws.store.directory import is_ephemeral
from hermes_ws.tools.registry import validate_arguments
from hermes_ws.validation import too_deep

__all__ = ["Beside", "dispatch", "do", "help_entries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What goes with a command and is in no frame: what the OpenAI-compatible routes can be asked for.

    ``run_id`` is for the run that ``run.start`` makes. ``functions`` (executed by whoever asks), ``tool_choice`` and
    ``parameters`` (for the model) are for that run; with ``interaction.reply``, for the run that goes on, unless
    ``functions`` is None. ``instructions`` take the place of those that such a run has. ``records`` are kept in the
    same commit.
    """

    run_id: str | None = None
    functions: list[ClientTool] | None = None
    tool_choice: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    instructions: str | None = None
    records: list[RecordRow] = field(default_factory=list[RecordRow])

    def options(self) -> RunOptions:
        """As a run has it."""
        return RunOptions(
            functions=self.functions or [],
            tool_choice=self.tool_choice,
            parameters=dict(self.parameters),
            instructions=self.instructions,
        )


_NOTHING: Final = Beside()


async def do(
    runtime: Runtime, conversation: Conversation, command: Command, caller: Caller, beside: Beside = _NOTHING
) -> Ok:
    """Do ``command`` and wait for its answer. Raises :class:`CommandError` when it is refused."""
    answered: asyncio.Future[Ok | CommandError] = asyncio.get_running_loop().create_future()

    def reply(answer: Ok | CommandError) -> None:
        if not answered.done():
            answered.set_result(answer)

    await dispatch(runtime, conversation, command, caller, reply, beside)
    answer = await answered
    if isinstance(answer, CommandError):
        raise answer
    return answer


async def dispatch(
    runtime: Runtime,
    conversation: Conversation,
    command: Command,
    caller: Caller,
    reply: Reply,
    beside: Beside = _NOTHING,
) -> None:
    """Do ``command``; ``reply`` is called once, when it is committed or refused."""
    with conversation.held():
        try:
            caller.check(command)
            command = _here(conversation, command)
            if isinstance(command, ToolsList):
                # Servers may have to be started for it: nobody's next command waits for that.
                runtime.spawn(lambda: _list_tools(runtime, conversation, command, caller, reply))
            elif isinstance(command, READS):
                reply(await _read(runtime, conversation, command, caller))
            else:
                await conversation.once(
                    command, caller, reply, lambda: _do(runtime, conversation, command, caller, reply, beside)
                )
        except CommandError as refused:
            conversation.refuse(refused, reply)
        except StoreError as error:
            reply(refusal(error))


def _here(conversation: Conversation, command: Command) -> Command:
    """The command without the conversation that it names, which must be this one: sent again at another address, it is
    still the same command."""
    if not isinstance(command, ANYWHERE) or command.conversation_id is None:
        return command
    if command.conversation_id != conversation.ref.conversation_id:
        message = f"this is conversation {conversation.ref.conversation_id}; the inbox, /ws, takes commands for others"
        raise CommandError("invalid_frame", message, path="$.conversation_id")
    return msgspec.structs.replace(command, conversation_id=None)


async def _do(
    runtime: Runtime, conversation: Conversation, command: Command, caller: Caller, reply: Reply, beside: Beside
) -> None:
    """A command that is known to be new. One that was done before is answered without these checks."""
    runtime.check_draining()
    if conversation.too_heavy:
        await conversation.weigh()
    _check(runtime, conversation, command, caller)
    if isinstance(command, InteractionReply) and command.arguments is not None:
        await _check_edited(runtime, conversation, command, caller)
    if isinstance(command, ApprovalsRevoke):
        await _revoke(conversation, command, caller, reply)
    elif isinstance(command, ConversationFork):
        await _fork(runtime, conversation, command, caller, reply)
    elif isinstance(command, RunRetry):
        earlier = await _kept_options(conversation, command.run_id)
        conversation.accept(command, caller, conversation.decide(command, caller, earlier), reply)
    else:
        if isinstance(command, RunStart) and not conversation.too_heavy:
            reach = caller.principal.conversations is None
            value = await runtime.images.resolved(conversation, command.input, reach=reach)
            command = msgspec.structs.replace(command, input=value)
        brings = isinstance(command, RunStart) or beside.functions is not None
        options = beside.options() if brings else None
        decision = conversation.decide(command, caller, options, beside.run_id)
        conversation.accept(command, caller, decision, reply, records=beside.records)


# -- reads ---------------------------------------------------------------------------------------------


async def _read(runtime: Runtime, conversation: Conversation, command: Command, caller: Caller) -> Ok:
    at = conversation.committed
    if isinstance(command, ApprovalsList):  # what it tells of must not be undone by a crash
        await conversation.settled()
    match command:
        case Ping():
            return Ok(id=command.id, at=at, head=at)
        case Help():
            return Ok(id=command.id, at=at, commands=help_entries())
        case SnapshotGet():
            snapshot = conversation.snapshot()
            await conversation.settled()
            return Ok(id=command.id, at=snapshot.at, snapshot=snapshot)
        case ApprovalsList():
            agent, _ = runtime.resolve_agent(conversation.session.state.config.agent, None)
            rules = await standing_rules(conversation, principal=caller.principal.name, agent=agent)
            return Ok(id=command.id, at=at, rules=rules)
        case ClientUpdate():
            _update_client(runtime, conversation, command, caller)
            return Ok(id=command.id, at=at)
        case InboxMore():
            raise CommandError("unsupported", "inbox.more is for the inbox: the socket at /ws, without a conversation")
        case _:
            raise CommandError("unsupported", f"{command_type(command)} is not supported by this server yet")


def _update_client(runtime: Runtime, conversation: Conversation, command: ClientUpdate, caller: Caller) -> None:
    """Note who sits at the socket, and what they execute from now on."""
    seat = caller.seat
    if seat is None:
        raise CommandError("unsupported", "client.update is for sockets: who only asks is not there to be asked")
    if conversation.dead:
        raise CommandError("internal", "the conversation is being reloaded, or was deleted; connect again")
    if conversation.session.scrubber.finds(msgspec.to_builtins(command)):
        message = "a secret of this conversation or of the server is in it, and it would be shown to others"
        raise CommandError("invalid_frame", message)
    for number, tool in enumerate(command.tools or []):
        description = ClientFunction(tool).description
        may = caller.principal.role in ("driver", "admin")
        if not may or not policy.allowed(description, None, [caller.principal.tools], ["*"]):
            message = f"your credential may not offer {policy.qualified(description)}"
            raise CommandError("not_permitted", message, path=f"$.tools[{number}]")
    if command.tools is None and not runtime.toolboxes.has(conversation):
        seat.client_id = command.client_id
    else:
        runtime.toolboxes.of(conversation).clients.update(seat, command)


async def _list_tools(
    runtime: Runtime, conversation: Conversation, command: ToolsList, caller: Caller, reply: Reply
) -> None:
    with conversation.held():
        try:
            await conversation.settled()  # what it tells of must not be undone by a crash
            at = conversation.committed
            reply(Ok(id=command.id, at=at, tools=await _tools(runtime, conversation, caller)))
        except CommandError as refused:
            conversation.refuse(refused, reply)
        except StoreError as error:
            reply(refusal(error))


async def _tools(runtime: Runtime, conversation: Conversation, caller: Caller) -> list[ToolDescription]:
    toolbox = runtime.toolboxes.of(conversation)
    if caller.principal.role != "observer" and not runtime.draining:  # who only looks starts nothing
        await toolbox.start()
    config = conversation.session.state.config
    agent, _ = runtime.resolve_agent(config.agent, None)
    every, allowed = ((tool.description, is_brought(tool)) for tool in toolbox.every()), runtime.permissions.allowed
    bounds = [caller.principal.tools]
    return [tool for tool, brought in every if allowed(tool, config, agent, bounds, brought=brought)]


# -- checks that need more than the session ------------------------------------------------------------


def _check(runtime: Runtime, conversation: Conversation, command: Command, caller: Caller) -> None:
    match command:
        case RunStart(agent=str(agent)):
            _must_have_agent(runtime, agent, "$.agent")
        case ConversationConfigure():
            config = merged(conversation.session.state.config, command.config)
            if config.agent is not None and "agent" in command.config:
                _must_have_agent(runtime, config.agent, "$.config.agent")
            _check_reach(command, caller)
            policy.check_ceiling(config.approvals, runtime.settings.approvals)
            _check_servers(runtime, conversation, config, command, caller)
        case _:
            pass


_ASK: Final = policy.ApprovalSettings(ceiling="ask")


def _must_have_agent(runtime: Runtime, name: str, path: str) -> None:
    if name not in runtime.agents:
        message = f"there is no agent {name[:80]!r}; there are {', '.join(sorted(runtime.agents))}"
        raise CommandError("not_found", message, path=path)


def _check_reach(command: ConversationConfigure, caller: Caller) -> None:
    """Who may not use every tool does not decide that others' runs use them without a person: their ceiling is ask."""
    if caller.principal.tools is not None and "approvals" in command.config:
        asked = merged(Config(), {"approvals": command.config["approvals"]})
        policy.check_ceiling(asked.approvals, _ASK)


def _check_servers(
    runtime: Runtime, conversation: Conversation, config: Config, command: ConversationConfigure, caller: Caller
) -> None:
    """MCP servers: as many as may be, only those that the operator lets clients use, and approvals within the
    ceiling."""
    servers, settings = config.mcp_servers or {}, runtime.settings.mcp
    path = "$.config.mcp_servers"
    if len(servers) > settings.servers:
        raise CommandError("too_large", f"a conversation has at most {settings.servers} MCP servers", path=path)
    touched: Any = command.config.get("mcp_servers")
    for name, server in servers.items():
        if not isinstance(touched, dict) or name not in touched:
            continue
        if server.url is not None and not settings.client_servers:
            message = "this server takes MCP servers only by ref to the operator's configuration"
            raise CommandError("not_permitted", message, path=f"{path}.{name}.url")
        if server.ref is not None:
            _check_ref(runtime, name, server)
        ceiling = runtime.settings.approvals if caller.principal.tools is None else _ASK
        policy.check_ceiling(server.approvals, ceiling, f"{path}.{name}.approvals")
    _check_moves(conversation, config, caller)


def _check_moves(conversation: Conversation, config: Config, caller: Caller) -> None:
    """What others' approvals let run without a person is let run at a server: who may not loosen them does not put
    another one in its place."""
    if caller.principal.tools is None:
        return
    before, after = conversation.session.state.config, config.mcp_servers or {}
    new = (moved(before, config) & after.keys()) | (after.keys() - (before.mcp_servers or {}).keys())
    for name in sorted(new):
        said = [config.approvals, after[name].approvals]
        if any(one is not None and (one.mode == "auto" or _allows(one)) for one in said):
            message = "others have let calls run here without being asked; your credential may not name other servers"
            raise CommandError("not_permitted", message, path=f"$.config.mcp_servers.{name}")


def _allows(approvals: ApprovalsConfig) -> bool:
    return any(rule.decision == "allow" for rule in approvals.rules or [])


def _check_ref(runtime: Runtime, name: str, server: McpServerConfig) -> None:
    path, offered = f"$.config.mcp_servers.{name}", runtime.settings.operator
    if server.ref is None or server.ref not in offered:
        there = ", ".join(sorted(offered)) or "none"
        message = f"the operator has no MCP server {server.ref!r}; there are {there}"
        raise CommandError("not_found", message, path=f"{path}.ref")
    allowed = offered[server.ref].allow_env
    for variable in server.env or {}:
        if variable not in allowed:
            message = f"the operator lets conversations set {', '.join(allowed) or 'no variables'} here"
            raise CommandError("not_permitted", message, path=f"{path}.env.{variable}")


async def _check_edited(
    runtime: Runtime, conversation: Conversation, command: InteractionReply, caller: Caller
) -> None:
    """Edited arguments must be what the tool takes, and come from somebody who might call it; the question stays
    open otherwise."""
    asked = conversation.session.state.interactions.get(command.interaction_id)
    if asked is None or asked.tool is None or command.arguments is None:
        return
    tool = await _edited_tool(runtime, conversation, asked.tool)
    if not policy.allowed(tool, None, [caller.principal.tools], ["*"]):
        message = f"your credential does not go as far as {policy.qualified(tool)}; answer without arguments"
        raise CommandError("not_permitted", message, path="$.arguments")
    if too_deep(command.arguments) or conversation.session.scrubber.finds(command.arguments):
        message = "the arguments hold a secret of this conversation or of the server, or are nested too deeply"
        raise CommandError("invalid_answer", message, path="$.arguments")
    try:
        validate_arguments(tool, command.arguments)
    except ToolError as problem:
        raise CommandError("invalid_answer", str(problem), path="$.arguments") from None


async def _edited_tool(runtime: Runtime, conversation: Conversation, asked: InteractionTool) -> ToolDescription:
    """The tool that is asked about; its server is started if need be, since only that knows what it takes."""
    toolbox = runtime.toolboxes.of(conversation)
    tool = toolbox.of(asked.source, asked.name)
    if tool is None:
        await toolbox.start()
        tool = toolbox.of(asked.source, asked.name)
    if tool is None:
        message = f"the tool {asked.name} is not there now, so its arguments cannot be checked; answer without any"
        raise CommandError("overloaded", message, path="$.arguments", retry_after_ms=5_000)
    return tool.description


# -- commands that reach beyond the session ------------------------------------------------------------


async def _revoke(conversation: Conversation, command: ApprovalsRevoke, caller: Caller, reply: Reply) -> None:
    rules = await standing_rules(conversation, principal=caller.principal.name)
    found = next((rule for rule in rules if rule.rule_id == command.rule_id), None)
    if found is None:
        message = f"there is no remembered approval {command.rule_id[:80]!r} here; approvals.list has them"
        raise CommandError("not_found", message, path="$.rule_id")
    if found.scope == "always" and is_ephemeral(conversation.ref):
        message = "an approval for always is revoked in a conversation that is kept"
        raise CommandError("unsupported", message, path="$.rule_id")
    conversation.rules.pop(command.rule_id, None)
    decision = Decision(result={"rule_id": command.rule_id})
    conversation.accept(command, caller, decision, reply, revoked=[command.rule_id])


async def _fork(
    runtime: Runtime, source: Conversation, command: ConversationFork, caller: Caller, reply: Reply
) -> None:
    """A new conversation whose log begins with what was said and done in this one, numbers and run ids made anew."""
    await source.settled()
    if source.epoch is None:
        raise CommandError("not_found", "there is nothing to fork yet: the conversation has no events")
    boundary = _boundary(source, command.after_run)
    chosen = None if command.conversation_id == "new" else command.conversation_id  # no socket could reach that one
    target = ConversationRef(source.ref.namespace, chosen or _fork_name(source, command, caller))
    if not caller.principal.may_open(target.conversation_id):
        raise CommandError(
            "not_permitted", "your credential does not reach that conversation", path="$.conversation_id"
        )
    there = await runtime.open(target)
    decision = Decision(result={"conversation_id": target.conversation_id})
    with there.held():
        if there.epoch is None or not await _copied(there, command, caller):
            await _copy(runtime, source, there, boundary, command, caller)
    source.accept(command, caller, decision, reply)


async def _copied(there: Conversation, command: ConversationFork, caller: Caller) -> bool:
    """Whether this very command made that conversation, before a crash kept it from being answered."""
    if command.id is None:
        return False
    row = await there.store.command(there.ref, caller.principal.name, _note_of(command.id))
    return row is not None and row.digest == digest(command)


def _note_of(command_id: str) -> str:
    """Under which id a fork is noted in the conversation that it makes: there its own may mean something else."""
    return f"fork:{hashlib.sha256(command_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _fork_name(source: Conversation, command: ConversationFork, caller: Caller) -> str:
    """With a command id the name follows from it, so that a repeated fork after a crash finds the first one."""
    if command.id is None:
        return new_id("fork")
    key = "\0".join((*source.ref, caller.principal.name, command.id))
    return f"fork_{hashlib.sha256(key.encode()).hexdigest()[:20]}"


def _boundary(source: Conversation, after_run: str | None) -> str | None:
    """The last run to come along, None for all that have ended. Raises unless it has ended."""
    state = source.session.state
    if after_run is None or after_run in state.ended:
        return after_run
    if after_run in state.runs:
        raise CommandError("busy", f"run {after_run} has not ended; fork after it has", path="$.after_run")
    raise CommandError("run_not_found", f"there is no run {after_run[:80]!r} here", path="$.after_run")


async def _copy(
    runtime: Runtime,
    source: Conversation,
    there: Conversation,
    boundary: str | None,
    command: ConversationFork,
    caller: Caller,
) -> None:
    loaded = await source.store.load(source.ref)
    if loaded is None:
        raise CommandError("not_found", "the conversation was deleted")
    events = [decode_event(event.data) for event in loaded.events]
    names = {run_id: new_id("run") for run_id in _ended_runs(events, boundary)}
    options = {new: await _options(source, run_id, names) for run_id, new in names.items()}
    forked = _forked(events, there, names)
    row = None
    if command.id is not None:
        row = CommandRow(caller.principal.name, _note_of(command.id), digest(command), b"{}", there.now())
    if there.session.state.epoch is None:
        await runtime.images.bring(source.ref, there.ref, forked)
    there.adopt(forked, row, {run_id: _placed(run_id, kept, forked) for run_id, kept in options.items()})
    await there.settled()


async def _options(source: Conversation, run_id: str, names: dict[str, str]) -> RunOptions:
    """What a run was asked for beside its input: a retry of its copy is to be as narrow."""
    options = await _kept_options(source, run_id)
    return msgspec.structs.replace(options, retry_of=names.get(options.retry_of or ""))


def _placed(run_id: str, options: RunOptions, events: list[ev.Event]) -> RunOptions:
    """The options of a run, with the number that its first event has here."""
    first = next(event.seq for event in events if isinstance(event, ev.RunEvent) and event.run_id == run_id)
    return msgspec.structs.replace(options, first_seq=first)


async def _kept_options(conversation: Conversation, run_id: str) -> RunOptions:
    row = await conversation.store.run(conversation.ref, run_id)
    return RunOptions() if row is None else msgspec.json.decode(row.options, type=RunOptions)


def _forked(events: list[ev.Event], there: Conversation, names: dict[str, str]) -> list[ev.Event]:
    """The events of the runs in ``names``, renumbered, each run under its new id."""
    copies: list[ev.Event] = []
    queue: list[str] = []
    for event in events:
        changes: dict[str, Any] = {"seq": len(copies) + 1}
        if isinstance(event, ev.ConversationCreated):
            changes |= {"conversation_id": there.ref.conversation_id, "epoch": new_id("ep")}
        elif isinstance(event, ev.RunEvent):
            if event.run_id not in names:
                continue
            changes |= _renamed(event, names) | _repositioned(event, queue)
        if isinstance(event, ev.ConversationConfigured):
            changes["config"] = without_secrets(event.config)
        copies.append(msgspec.structs.replace(event, **changes))
    return copies


def _repositioned(event: ev.RunEvent, queue: list[str]) -> dict[str, int]:
    """Where a run was queued among those that came along."""
    if isinstance(event, ev.RunQueued):
        position = min(event.position, len(queue) + 1)
        queue.insert(position - 1, event.run_id)
        return {"position": position}
    if isinstance(event, ev.RunStarted) and event.run_id in queue:
        queue.remove(event.run_id)
    return {}


def _ended_runs(events: list[ev.Event], boundary: str | None) -> list[str]:
    """Runs that ran and ended, in order, up to ``boundary``. One that was cancelled in the queue said nothing."""
    started = {event.run_id for event in events if isinstance(event, ev.RunStarted)}
    terminal = (ev.RunCompleted, ev.RunFailed, ev.RunCancelled)
    ended = [event.run_id for event in events if isinstance(event, terminal) and event.run_id in started]
    return ended if boundary is None or boundary not in ended else ended[: ended.index(boundary) + 1]


def _renamed(event: ev.RunEvent, names: dict[str, str]) -> dict[str, Any]:
    changes: dict[str, Any] = {"run_id": names[event.run_id]}
    for name in ("retry_of", "new_run_id"):
        if getattr(event, name, None) in names:
            changes[name] = names[getattr(event, name)]
    return changes


# -- help ----------------------------------------------------------------------------------------------

_EXAMPLES: dict[str, dict[str, Any]] = {
    "run.start": {"type": "run.start", "input": "hi"},
    "run.stop": {"type": "run.stop"},
    "run.steer": {"type": "run.steer", "text": "be brief"},
    "run.retry": {"type": "run.retry", "run_id": "run_…"},
    "interaction.reply": {"type": "interaction.reply", "interaction_id": "int_…", "option": "once"},
    "approvals.list": {"type": "approvals.list"},
    "approvals.revoke": {"type": "approvals.revoke", "rule_id": "rule_…"},
    "conversation.configure": {
        "type": "conversation.configure",
        "config": {"tools": {"allow": ["read_file", "list_files"]}},
    },
    "conversation.fork": {"type": "conversation.fork"},
    "tools.list": {"type": "tools.list"},
    "client.update": {"type": "client.update", "client_id": "my-laptop"},
    "inbox.more": {"type": "inbox.more"},
    "snapshot.get": {"type": "snapshot.get"},
    "ping": {"type": "ping"},
    "help": {"type": "help"},
}


def help_entries() -> list[CommandHelp]:
    """Every command, with what it does and one that can be sent as it is."""
    return [
        CommandHelp(
            type=command_type(cls),
            description=" ".join((cls.__doc__ or "").split()),
            example=_EXAMPLES[command_type(cls)],
        )
        for cls in Command.__args__
    ]
