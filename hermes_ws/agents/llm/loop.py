"""The loop: ask the model, call the tools it asks for, and again, until it is done.

It keeps nothing between steps. What has been said and done comes from ``turn.history()`` each time, so the loop goes on
after a restart as if nothing had happened.
"""

from __future__ import annotations

import random
from contextlib import aclosing

import anyio
import msgspec
import structlog

from hermes_ws.agents.base import Agent, Finding, RequestedCall, Step, StopReason, Turn
from hermes_ws.agents.llm.model import Finish, Model, ModelRequest, ReasoningDelta, TextDelta, ToolCall
from hermes_ws.errors import ModelError
from hermes_ws.history import AssistantTurn
from hermes_ws.ranges import NonNegative, Pause

__all__ = ["LlmAgent", "LlmSettings"]

log = structlog.get_logger("hermes_ws.agents.llm")


class LlmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the loop treats its model."""

    instructions: str | None = None
    """The agent's own instructions, before the conversation's."""
    retries: NonNegative = 2
    """How often a call that broke off is made again, when its error says that this may help."""
    retry_delay_s: Pause = 0.5
    """The wait before the first retry; doubled for each further one. The endpoint's own wish (`Retry-After`) comes
    first. Up to a quarter is added by chance."""
    retry_delay_max_s: Pause = 30.0
    """The longest wait. An endpoint that wants a longer one is not asked again."""


class LlmAgent(Agent):
    """An agent made of a model and a loop."""

    def __init__(self, model: Model, settings: LlmSettings | None = None) -> None:
        self._model = model
        self._settings = settings or LlmSettings()

    @property
    def default_model(self) -> str:
        return self._model.default_name

    async def aclose(self) -> None:
        """Let go of the model's connections."""
        let_go = getattr(self._model, "aclose", None)
        if let_go is not None:
            await let_go()

    async def check(self, *, ask: bool) -> list[Finding]:
        """See :class:`~hermes_ws.agents.base.Finding`."""
        check = getattr(self._model, "check", None)
        return [] if check is None else list(await check(ask=ask))

    async def run(self, turn: Turn) -> StopReason:
        while True:
            # Text that no step is left to hear is not taken: the run's end gives it a run of its own, or gives it back.
            if 0 < turn.steps_taken < turn.max_steps:
                await turn.take_steering()
            history = turn.history()
            last = history[-1]
            if isinstance(last, AssistantTurn) and not (last.partial or self._model.goes_on(history)):
                return last.stop_reason or "end"
            if turn.steps_taken >= turn.max_steps:
                return "max_steps"
            async with turn.step() as step:
                await self._step(turn, step)

    async def _step(self, turn: Turn, step: Step) -> None:
        """One model call, made again while that may help, and the tools it asks for."""
        finish, calls = await self._answer(turn)
        step.usage, step.stop_reason = finish.usage or step.usage, finish.reason
        if calls:
            await turn.call_tools([RequestedCall(c.call_id, c.name, c.arguments, c.problem) for c in calls])

    async def _answer(self, turn: Turn) -> tuple[Finish, list[ToolCall]]:
        attempt = 1
        while True:
            try:
                return await self._call_model(turn, attempt)
            except ModelError as error:
                if not self._may_help(error, attempt):
                    raise
                log.info("model.retry", run_id=turn.run_id, attempt=attempt, code=error.code)
                await turn.discard()
                await anyio.sleep(self._delay_s(error, attempt))
            attempt += 1

    def _may_help(self, error: ModelError, attempt: int) -> bool:
        """Whether the call is worth making again. One that is to wait longer than this agent waits would come too
        early."""
        patient = (error.retry_after_s or 0.0) <= self._settings.retry_delay_max_s
        return error.again and patient and attempt <= self._settings.retries

    async def _call_model(self, turn: Turn, attempt: int) -> tuple[Finish, list[ToolCall]]:
        calls: list[ToolCall] = []
        request = ModelRequest(
            model=turn.model,
            instructions=self._instructions(turn),
            history=turn.history(),
            tools=await turn.tools(),
            attempt=attempt,
            image=turn.image,
            tool_choice=turn.tool_choice,
            parameters=turn.parameters,
        )
        async with aclosing(self._model.stream(request)) as parts:
            async for part in parts:
                match part:
                    case TextDelta(text):
                        await turn.text(text)
                    case ReasoningDelta(text):
                        await turn.reasoning(text)
                    case ToolCall():
                        calls.append(part)
                    case Finish():
                        return part, calls
        raise ModelError("model_bad_response", "the model's answer ended without saying so")

    def _instructions(self, turn: Turn) -> str | None:
        given = [text for text in (self._settings.instructions, turn.instructions) if text]
        return "\n\n".join(given) or None

    def _delay_s(self, error: ModelError, attempt: int) -> float:
        """The back-off, or what was asked for, and up to a quarter more: runs that failed together come back apart."""
        backoff = min(self._settings.retry_delay_s * 2.0 ** min(attempt - 1, 30), self._settings.retry_delay_max_s)
        wait = max(error.retry_after_s or 0.0, backoff)
        return wait * random.uniform(1.0, 1.25)  # noqa: S311 - spreads load, keeps no secret
