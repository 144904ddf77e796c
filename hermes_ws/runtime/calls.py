"""One tool call, from the model's wish to its outcome: policy, approval, journal, execution, events.

The same for every agent and every tool, and in one place, so that none can be forgotten (guarantee 12). Policy is asked
right before a call runs, and again after every answer, because people may have changed their minds while a question was
open.

A call that a restart found unfinished comes through here too: what it had been answered holds, and if it was in flight
it is run again without a second ``tool.executing``. (One that may not run twice never comes: the session ended it.)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import quote

import anyio.lowlevel
import msgspec
import structlog

from hermes_ws import policy
from hermes_ws.decisions import Answer, Ask
from hermes_ws.entities import ToolCall
from hermes_ws.errors import CommandError, HermesError, StoreError, ToolError
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Choice, ImagePart, InteractionTool, OnExpire, Owner, Risk, ToolDescription
from hermes_ws.reports import INTERRUPTED
from hermes_ws.runtime.checked import checked
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.functions import handed_over
from hermes_ws.runtime.handed import Handed
from hermes_ws.runtime.images import Images, image_part
from hermes_ws.runtime.permissions import Permissions
from hermes_ws.runtime.questions import UNANSWERED, Questions, answer_to, clarification, filled_in, form
from hermes_ws.runtime.renewal import renewed
from hermes_ws.runtime.rules import standing_rules
from hermes_ws.runtime.toolbox import Toolbox
from hermes_ws.scrub import Flow
from hermes_ws.session import Session
from hermes_ws.store.directory import DataDirectory, is_ephemeral
from hermes_ws.tools.base import NobodyAnswered, Tool, ToolContext, ToolResult, ToolSettings
from hermes_ws.tools.output import OutputKeeper
from hermes_ws.tools.registry import validate_arguments
from hermes_ws.validation import too_deep

__all__ = ["Call", "Workshop", "call_id_file", "output_address", "run_metadata"]

_PIECE = 65_536

log = structlog.get_logger("hermes_ws.calls")

Stream = Literal["stdout", "stderr"]
"""What a call prints on."""
STREAMS: Final[tuple[Stream, ...]] = get_args(Stream)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What calls need beside their conversation."""

    toolbox: Toolbox
    permissions: Permissions
    settings: ToolSettings
    directory: DataDirectory
    images: Images
    handed: Handed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to, as ``tool.completed`` tells it. ``output`` None: what the call printed."""

    status: Literal["ok", "error", "denied", "cancelled", "interrupted"]
    output: str | None
    result: ToolResult | None = None


class Call(ToolContext):
    """A call at work, and what its tool sees of it."""

    def __init__(
        self,
        workshop: Workshop,
        conversation: Conversation,
        call: ToolCall,
    ) -> None:
        self._workshop = workshop
        self._conversation = conversation
        self._run_id = call.run_id
        self._call_id = call_id = call.call_id
        self._tool: Tool | None = None
        self._source, self._name, self._owner = call.source, call.name, call.owner
        self._arguments = call.arguments
        self._in_flight = call.status == "executing"
        self._began_at = call.place
        self._approvals = [asked for asked in call.asked if asked.kind == "approval"]
        others = [asked for asked in call.asked if asked.kind != "approval"]
        self._questions = Questions(conversation, call.run_id, others)
        self._streamed = 0
        self._scrubber = conversation.session.scrubber
        self._printed: dict[Stream, Flow] = {stream: Flow(self._scrubber) for stream in STREAMS}
        settings = workshop.settings
        ref = conversation.ref
        self._keeper = OutputKeeper(
            workshop.directory.outputs(ref) / call_id_file(call_id),
            preview_bytes=settings.preview_bytes,
            keep_bytes=settings.keep_bytes,
            together_bytes=settings.keep_conversation_bytes,
            address=output_address(ref.conversation_id, call_id),
        )

    # -- from wish to outcome --------------------------------------------------------------------------

    async def run(self) -> None:
        """Take the call to its end; whatever happens it completes, exactly once."""
        outcome = Outcome("cancelled", None)
        try:
            outcome = await self._attempt()
        except (ToolError, CommandError) as refused:
            outcome = Outcome("error", str(refused))
        except StoreError:
            outcome = Outcome("error", "the log could not be read; the tool did not run")
        except HermesError:
            raise
        except Exception as crash:  # a tool is somebody else's code; its crash is the call's outcome
            log.exception("tool.crashed", tool=self._name, call_id=self._call_id)
            outcome = Outcome("error", f"the tool crashed: {type(crash).__name__}")
        finally:
            self._complete(outcome)

    async def _attempt(self) -> Outcome:
        if self._in_flight and self._began_at != self._place:
            return Outcome("interrupted", INTERRUPTED)
        self._tool = await self._workshop.toolbox.reach(self._source, self._name, self, self._owner)
        refusal = await self._refused()
        if refusal is not None:  # a call in flight that may not be made again has run, as far as it came
            return Outcome("interrupted", f"{INTERRUPTED}\n{refusal.output}") if self._in_flight else refusal
        assert self._tool is not None
        now = self._tool.description.annotations
        if self._in_flight and not (now.read_only or now.idempotent):  # it says something else of itself than before
            return Outcome("interrupted", INTERRUPTED)
        if not self._in_flight:
            conversation = self._conversation
            conversation.flush()
            conversation.commit(
                conversation.session.tool_executing(self._run_id, self._call_id, self._arguments, conversation.now())
            )
            await conversation.settled()
        result = checked(await self._tool.call(self, self._arguments), ToolResult)
        if result.content:
            content = await self._workshop.images.settled(self._conversation, result.content, "$.content")
            result = msgspec.structs.replace(result, content=content)
        output = None if result.output is None else await self._scrubbed(result.output)
        return Outcome("error" if result.is_error else "ok", output, result)

    async def _scrubbed(self, text: str) -> str:
        """The text without secrets; a long one in pieces, since others want their turn."""
        flow, pieces = Flow(self._scrubber), list[str]()
        for at in range(0, len(text), _PIECE):
            pieces.append(flow.add(text[at : at + _PIECE]))
            await anyio.lowlevel.checkpoint()
        return "".join([*pieces, flow.rest()])

    async def _refused(self) -> Outcome | None:
        """Why the call is not made, or None."""
        if self._tool is None:
            return Outcome("error", f"the tool {self._name!r} is not there any more")
        try:
            return await self._admitted(self._tool.description)
        except ToolError as wrong:
            return Outcome("error", str(wrong))

    async def _admitted(self, tool: ToolDescription) -> Outcome | None:
        """Have the call judged, and people asked as long as policy wants it. A refusal, or None.

        An answer covers ``ask`` for a call no riskier than the one that was shown, at the server that was shown, and
        never ``deny``: after each answer policy is asked again, so what was changed while the question was open holds.
        """
        approved: tuple[Risk, str | None] | None = ("high", self._began_at) if self._in_flight else None
        for asked in self._approvals:  # before a restart
            answer = await self._questions.resolution(asked)
            refusal = self._refusal(answer) if answer is not None else None
            if refusal is not None:
                return refusal
            approved = (asked.tool.risk, _shown_place(asked)) if asked.tool is not None else approved
        while True:
            if self._source.startswith("mcp:") and self._place is None:
                return Outcome("denied", f"Denied: this conversation has no MCP server {self._source[4:]} any more.")
            judgement = await self._judge(tool)
            if judgement.verdict == "deny":
                return Outcome("denied", f"Denied: {judgement.reason}.")
            if tool.source != "client":  # whoever executes it judges them
                validate_arguments(tool, self._arguments)
            covered = approved is not None and approved[1] == self._place and _no_riskier(judgement.risk, approved[0])
            if judgement.verdict == "allow" or covered:
                return None
            place = self._place
            answer = await self._questions.ask(self._question(tool, judgement))
            refusal = self._refusal(answer)
            if refusal is not None:
                return refusal
            approved = (judgement.risk, place)
            tool = self._described(tool)
            if self._workshop.toolbox.withdrew(self._source, self._name):
                return Outcome("error", f"the tool {self._name!r} is not there any more")

    @property
    def _place(self) -> str | None:
        """Where the call's MCP server is, as the configuration says now."""
        return self._conversation.session.state.config.place_of(self._source)

    def _described(self, tool: ToolDescription) -> ToolDescription:
        """The tool as it is now: while people thought, the server may have become another one."""
        self._tool = self._workshop.toolbox.of(self._source, self._name) or self._tool
        return self._tool.description if self._tool is not None else tool

    async def _judge(self, tool: ToolDescription) -> policy.Judgement:
        rules = await standing_rules(self._conversation, self._run_id)
        session = self._conversation.session
        run, options = session.state.runs[self._run_id], session.options.get(self._run_id)
        return self._workshop.permissions.judge(
            tool,
            self._arguments,
            session.state.config,
            run.agent_name,
            options,
            rules,
            brought=tool.source == policy.CLIENT and self._owner is None,
        )

    def _refusal(self, answer: Answer) -> Outcome | None:
        """What an approval's answer comes to: a refusal, or None. The arguments are taken over if they were edited."""
        resolution = answer.resolution
        chosen = next((o for o in answer.asked.options or [] if o.id == resolution.option), None)
        if resolution.outcome == "answered" and chosen is not None and chosen.kind == "allow":
            self._arguments = self._arguments if resolution.arguments is None else resolution.arguments
            return None
        reason = UNANSWERED.get(resolution.outcome, f"{resolution.by.principal} refused it")
        comment = f" They said: {resolution.comment}" if resolution.comment else ""
        return Outcome("denied", f"Denied: {reason}.{comment}")

    def _question(self, tool: ToolDescription, judgement: policy.Judgement) -> Ask:
        settings = self._workshop.permissions.approvals
        options = policy.approval_options(tool, self._arguments, settings, self._place)
        if is_ephemeral(self._conversation.ref):  # what it remembers goes with it
            options = [option for option in options if option.scope != "always"]
        command = self._arguments.get("command") if policy.qualified(tool) == policy.TERMINAL else None
        return Ask(
            kind="approval",
            title=f"Allow {tool.title}{f' of {tool.source[4:]}' if tool.source.startswith('mcp:') else ''}?",
            message=command if isinstance(command, str) else f"The agent wants to use {policy.qualified(tool)}.",
            call_id=self._call_id,
            tool=InteractionTool(
                call_id=self._call_id,
                name=tool.name,
                source=tool.source,
                arguments=self._arguments,
                risk=judgement.risk,
            ),
            options=options,
            editable=True,
            digest=policy.digest(self._arguments),
            on_expire=OnExpire(option="deny"),
        )

    def _complete(self, outcome: Outcome) -> None:
        """``tool.completed``, unless the run is over already or the conversation was dropped."""
        conversation, result = self._conversation, outcome.result
        rests: dict[Stream, str] = {stream: self._kept(flow.rest()) for stream, flow in self._printed.items()}
        if outcome.output is not None:  # what a tool came to has been scrubbed, in pieces
            self._keeper.write(outcome.output if result is not None else self._scrubber.text(outcome.output))
        output, truncated = self._keeper.preview()
        self._keeper.close()
        active = conversation.session.state.active
        if conversation.dead or active is None or self._call_id not in active.open:
            return
        for stream, text in rests.items():
            conversation.say(stream, self._run_id, text, self._call_id)
        conversation.flush()
        conversation.commit(
            conversation.session.tool_completed(
                self._run_id,
                self._call_id,
                conversation.now(),
                status=outcome.status,
                output=output,
                truncated=truncated,
                structured=_structured(result, output) if result else None,
                content=result.content if result else None,
            )
        )

    # -- what the tool sees ----------------------------------------------------------------------------

    @property
    def conversation_id(self) -> str:
        return self._conversation.ref.conversation_id

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def call_id(self) -> str:
        return self._call_id

    @property
    def principal(self) -> str:
        return self._conversation.session.state.runs[self._run_id].by.principal

    @property
    def metadata(self) -> dict[str, Any]:
        return run_metadata(self._conversation.session, self._run_id)

    @property
    def workdir(self) -> Path:
        path = self._workshop.directory.workdir(self._conversation.ref)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    @property
    def settings(self) -> ToolSettings:
        return self._workshop.settings

    @property
    def stop_mode(self) -> Literal["graceful", "now"]:
        run = self._conversation.session.state.active
        return "now" if run is not None and run.run_id == self._run_id and run.stop_mode == "now" else "graceful"

    async def output(self, stream: Stream, chunk: str) -> None:
        checked(chunk, str).encode()  # half a character is refused while its tool can still be told
        shown = self._kept(self._printed[stream].add(chunk))
        await self._conversation.delta(stream, self._run_id, shown, self._call_id)

    def _kept(self, text: str) -> str:
        """Keep more of the output; returns as much of it as is streamed."""
        self._keeper.write(text)
        data, left = text.encode(), max(0, self.settings.stream_bytes - self._streamed)
        self._streamed += len(data)
        return text if len(data) <= left else data[:left].decode(errors="ignore")

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        conversation = self._conversation
        conversation.flush()
        conversation.commit(
            conversation.session.tool_output(
                self._run_id,
                self._call_id,
                conversation.now(),
                stream="progress",
                progress=checked(progress, float),
                total=checked(total, float | None),
                message=checked(message, str | None),
            )
        )
        await conversation.settled()

    async def ask(
        self,
        prompt: str,
        *,
        choices: list[Choice] | None = None,
        allow_other: bool = False,
        multiple: bool = False,
        title: str | None = None,
    ) -> Any:
        question = clarification(
            prompt, choices=choices, allow_other=allow_other, multiple=multiple, title=title, call_id=self._call_id
        )
        return answer_to(await self._questions.ask(question))

    async def form(
        self, title: str, message: str, *, schema: dict[str, Any] | None = None, url: str | None = None
    ) -> dict[str, Any] | None:
        question = form(title, message, schema=schema, url=url, call_id=self._call_id)
        try:
            return filled_in(await self._questions.ask(question))
        except asyncio.CancelledError:
            self._questions.take_back(question)
            raise

    async def hand_over(
        self, tool: ToolDescription, arguments: dict[str, Any], owner: Owner | None = None
    ) -> dict[str, Any]:
        question = handed_over(tool, arguments, self._call_id, owner)
        if owner is not None:
            return await self._executed_by(owner, question)
        with self._workshop.handed.waiting(self._conversation, self._call_id):
            return filled_in(await self._questions.ask(question)) or {}

    async def _executed_by(self, owner: Owner, question: Ask) -> dict[str, Any]:
        """Wait for the client that executes it, but not for longer than it may be gone."""

        async def give_up() -> None:
            await self._workshop.toolbox.clients.gone(owner)
            if not self._conversation.session.holding:  # else it is the server that goes, and not the client
                self._questions.take_back(question)

        waiting = asyncio.ensure_future(give_up())
        try:
            return filled_in(await self._questions.ask(question)) or {}
        except NobodyAnswered:
            if waiting.done():
                raise NobodyAnswered(f"the client that executes it ({owner.name or owner.client_id}) is gone") from None
            raise
        finally:
            waiting.cancel()

    async def credential(self, server: str, header: str) -> bool:
        return await renewed(self._conversation, self._questions, server, header, self._call_id)

    async def image(self, data: bytes) -> ImagePart:
        try:
            return image_part(await self._workshop.images.keep(self._conversation, data))
        except CommandError as refused:
            raise ToolError(refused.message) from None


def run_metadata(session: Session, run_id: str) -> dict[str, Any]:
    """The run's metadata, over the conversation's."""
    options = session.options.get(run_id)
    return {**(session.state.config.metadata or {}), **((options.metadata if options else None) or {})}


def _structured(result: ToolResult, output: str) -> Any:
    """What the tool says; or the output, when it is one JSON object."""
    structured = result.structured
    if structured is None and output.lstrip().startswith("{"):
        try:
            structured = msgspec.json.decode(output, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            return None
    return None if too_deep(structured) else structured


def _shown_place(asked: InteractionRequested) -> str | None:
    """Where the MCP server was that people were asked about."""
    return next((option.rule.server for option in asked.options or [] if option.rule is not None), None)


def _no_riskier(one: Risk, other: Risk) -> bool:
    return policy.RISKS.index(one) <= policy.RISKS.index(other)


def output_address(conversation_id: str, call_id: str) -> str:
    """Where the whole output of a call is fetched."""
    return f"/api/conversations/{conversation_id}/tool-calls/{quote(call_id, safe='')}/output"


def call_id_file(call_id: str) -> str:
    """The name of a call's file. Call ids may come from a model, so they are not names."""
    return sha256(call_id.encode()).hexdigest()[:32] + ".txt"
