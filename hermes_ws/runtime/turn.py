"""A run, as its agent sees it: the implementation of :class:`hermes_ws.agents.base.Turn`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import msgspec

from hermes_ws.agents.base import RequestedCall, Step, Turn
from hermes_ws.decisions import CallRequest, Decision, RunOptions
from hermes_ws.entities import Run, ToolCall
from hermes_ws.errors import IllegalTransition, ToolError
from hermes_ws.history import HistoryEntry, history
from hermes_ws.protocol.values import Annotations, Choice, ImagePart, ToolDescription, Usage
from hermes_ws.ranges import AtLeastOne, NonNegative
from hermes_ws.reports import AnswerEnd
from hermes_ws.runtime.calls import Call, Workshop, run_metadata
from hermes_ws.runtime.checked import checked
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.runtime.functions import ClientFunction, is_brought
from hermes_ws.runtime.questions import Questions, answer_to, clarification
from hermes_ws.runtime.renewal import renewed
from hermes_ws.validation import too_deep

__all__ = ["AgentSettings", "RunTurn"]

_NOT_IN_CALLS = (
    "an argument holds a secret of this conversation or of the server (a header's value, a key), and those do not go "
    "into calls; if it is a word that only looks like one, use another"
)
_UNKNOWN = Annotations(read_only=False, idempotent=False, destructive=True)


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[runs]`` of the configuration: bounds on what an agent does in one run."""

    max_steps: AtLeastOne = 50
    """Steps of a run when its conversation names no number; also the most that one may name."""
    concurrent: AtLeastOne = 64
    """Runs at work at once in the whole server; more wait their turn."""
    max_attempts: NonNegative = 3
    """Restarts in a row after which a run is taken up although nothing of it was finished in between; one more and it
    fails as ``recovery_exhausted``."""


class RunTurn(Turn):
    """See :class:`hermes_ws.agents.base.Turn`."""

    def __init__(self, conversation: Conversation, run_id: str, workshop: Workshop, settings: AgentSettings) -> None:
        self._conversation = conversation
        self._session = conversation.session
        self._run_id = run_id
        self._workshop = workshop
        self._settings = settings
        self._model = self._run.model
        self._step: Step | None = None
        self._questions = Questions(conversation, run_id, self._run.asked)
        workshop.toolbox.servers.ask_again()

    @property
    def _run(self) -> Run:
        return self._session.state.runs[self._run_id]

    @property
    def _options(self) -> RunOptions:
        return self._session.options.get(self._run_id, RunOptions())

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def conversation_id(self) -> str:
        return self._conversation.ref.conversation_id

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def model(self) -> str:
        return self._model

    @property
    def instructions(self) -> str | None:
        return self._options.instructions or None

    @property
    def metadata(self) -> dict[str, Any]:
        return run_metadata(self._session, self._run_id)

    @property
    def tool_choice(self) -> str | None:
        options = self._options
        return options.tool_choice if options.choice_step == self.steps_taken + 1 else None

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self._options.parameters)

    @property
    def max_steps(self) -> int:
        limits = self._session.state.config.limits
        asked = limits.max_steps if limits else None
        return min(asked or self._settings.max_steps, self._settings.max_steps)

    @property
    def steps_taken(self) -> int:
        step = self._run.step
        return step.number - (not step.finished) if step is not None else 0

    def history(self) -> list[HistoryEntry]:
        return history(self._session.state, self._run_id)

    async def tools(self) -> list[ToolDescription]:
        await self._workshop.toolbox.start(self)
        config, agent = self._session.state.config, self._run.agent_name
        bounds = [self._options.tools, *self._options.bounds]
        allowed = self._workshop.permissions.allowed
        every = ((tool.description, is_brought(tool)) for tool in self._workshop.toolbox.every())
        return [tool for tool, brought in every if allowed(tool, config, agent, bounds, brought=brought)]

    async def credential(self, server: str, header: str) -> bool:
        """Have people asked for what an MCP server wants before it tells its tools."""
        return await renewed(self._conversation, self._questions, server, header, None)

    async def image(self, part: ImagePart) -> str:
        return await self._workshop.images.url(self._conversation.ref, part)

    # -- reporting -------------------------------------------------------------------------------------

    def _commit(self, decision: Decision) -> None:
        self._conversation.commit(decision)

    def _now(self) -> int:
        self._conversation.flush_all()
        return self._conversation.now()

    @asynccontextmanager
    async def step(self) -> AsyncGenerator[Step]:
        if self._run.step is None or self._run.step.finished:
            self._commit(self._session.begin_step(self._run_id, self._now()))
        step = self._step = Step(self.steps_taken + 1, Usage.zero())
        yield step
        stop_reason = None if step.stop_reason == "end" else step.stop_reason
        self._questions.withdraw_rest()
        await self._finish_step(checked(step.usage, Usage), checked(stop_reason, AnswerEnd | None))

    async def _finish_step(self, usage: Usage, stop_reason: AnswerEnd | None = None) -> None:
        self._commit(self._session.finish_step(self._run_id, usage, self._now(), stop_reason))
        await self._conversation.settled()

    async def resume(self) -> None:
        """After a restart, before the agent is called again: if the model's answer of the step that broke off is whole,
        the calls it asked for are seen to the end, and with them the step."""
        step = self._run.step
        if step is not None and not step.finished and step.whole:
            await self._carry_out([call for call in step.calls if call.call_id in self._run.open])
            await self._finish_step(step.usage or Usage.zero())

    async def text(self, delta: str) -> None:
        await self._say("message", delta)

    async def reasoning(self, delta: str) -> None:
        await self._say("reasoning", delta)

    async def _say(self, kind: Literal["message", "reasoning"], delta: str) -> None:
        step = self._run.step
        if step is None or step.finished or step.whole:
            raise IllegalTransition("the model speaks outside a step, or after its answer was whole")
        await self._conversation.delta(kind, self._run_id, checked(delta, str))

    async def discard(self) -> None:
        self._commit(self._session.discard_call(self._run_id, "retried", self._now()))

    # -- doing -----------------------------------------------------------------------------------------

    async def call_tools(self, calls: Sequence[RequestedCall]) -> None:
        calls = [
            RequestedCall(
                checked(c.call_id, str),
                checked(c.name, str),
                checked(c.arguments, dict[str, Any]),
                checked(c.problem, str | None),
            )
            for c in calls
        ]
        if not calls:
            return
        requests = [self._request(call) for call in calls]
        usage = checked(self._step.usage, Usage) if self._step is not None else Usage.zero()
        told = usage if usage != Usage.zero() else None
        call_ids, decision = self._session.finish_call(self._run_id, requests, self._now(), told)
        self._commit(decision)
        await self._carry_out([self._session.state.calls[call_id] for call_id in call_ids])

    async def _carry_out(self, calls: Iterable[ToolCall]) -> None:
        try:
            async with anyio.create_task_group() as group:
                for call in calls:
                    group.start_soon(Call(self._workshop, self._conversation, call).run)
        except BaseExceptionGroup as failed:  # calls complete as errors by themselves: this is the log, or a bug
            raise failed.exceptions[0] from None

    def _request(self, call: RequestedCall) -> CallRequest:
        tool, owner, problem, arguments = None, None, call.problem, call.arguments
        if too_deep(arguments):
            arguments, problem = {}, "the arguments are nested too deeply"
        elif self._session.scrubber.finds(arguments):
            problem = _NOT_IN_CALLS
        try:
            found = self._workshop.toolbox.find(call.name)
            tool, owner = found.description, found.owner if isinstance(found, ClientFunction) else None
        except ToolError as unknown:
            problem = problem or str(unknown)
        return CallRequest(
            call_id=call.call_id,
            name=tool.name if tool else call.name,
            source=tool.source if tool else "builtin",
            title=tool.title if tool else call.name,
            arguments=arguments,
            annotations=tool.annotations if tool else _UNKNOWN,
            owner=owner,
            problem=problem,
        )

    async def take_steering(self) -> list[str]:
        if self._run.step is not None and not self._run.step.finished:
            return []  # a restart broke it off: first it is gone on with
        texts, decision = self._session.take_steers(self._run_id, self._now())
        self._commit(decision)
        return texts

    async def ask(self, prompt: str, *, choices: list[Choice] | None = None, allow_other: bool = False) -> Any:
        question = clarification(
            checked(prompt, str), choices=choices, allow_other=allow_other, multiple=False, title=None, call_id=None
        )
        return answer_to(await self._questions.ask(question))
