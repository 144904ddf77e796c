"""Agents of the kind ``llm``: the loop over any OpenAI-compatible chat-completions endpoint.

One request for every step: the instructions, the history as messages (trimmed where it would not fit, see
:mod:`~hermes_ws.agents.llm.trimming`), the tools. A call that fails before the model has said anything is made again
where that may help; one that fails later is not, because what was said has been seen.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

import msgspec
import structlog

from hermes_ws.agents.base import Agent, Finding
from hermes_ws.agents.llm.answer import Answer
from hermes_ws.agents.llm.check import checked_endpoint
from hermes_ws.agents.llm.connection import Connection
from hermes_ws.agents.llm.endpoint_settings import EndpointSettings
from hermes_ws.agents.llm.loop import LlmAgent
from hermes_ws.agents.llm.messages import Messages, shown
from hermes_ws.agents.llm.model import Model, ModelPart, ModelRequest
from hermes_ws.agents.llm.names import FunctionNames
from hermes_ws.agents.llm.parameters import answer_limit, choice_of, offered, sampling
from hermes_ws.agents.llm.schemas import described
from hermes_ws.agents.llm.trimming import estimate, fit, text_tokens
from hermes_ws.errors import ModelError
from hermes_ws.history import HistoryEntry

__all__ = ["EndpointModel", "create"]

log = structlog.get_logger("hermes_ws.agents.llm")

_RESERVE_TOKENS: Final = 4_096
"""What is kept free for the answer when nothing says how long it may be; a quarter of a small window."""


def create(config: dict[str, Any]) -> Agent:
    """An agent over an endpoint. ``config`` is its table in the configuration (see :class:`EndpointSettings`).

    Raises :class:`~hermes_ws.errors.SettingsError` or ``msgspec.ValidationError``.
    """
    settings = msgspec.convert(config, EndpointSettings)
    return LlmAgent(EndpointModel(settings), settings)


class EndpointModel(Model):
    """The models behind one endpoint."""

    def __init__(self, settings: EndpointSettings) -> None:
        """Raises :class:`~hermes_ws.errors.SettingsError`."""
        self._settings = settings
        self._connection = Connection(settings)

    @property
    def default_name(self) -> str:
        return self._settings.model

    def goes_on(self, history: list[HistoryEntry]) -> bool:
        return False

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._connection.aclose()

    async def check(self, *, ask: bool) -> list[Finding]:
        """What is right and wrong with the endpoint."""
        return await checked_endpoint(self._connection, self, self._settings, ask=ask)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelPart, None]:
        history = shown(request.history, reasoning=self._settings.send_reasoning)
        names = FunctionNames(request.tools, history)
        tools = described(offered(request.tools, request.tool_choice, history), names)
        entries = self._fitted(history, request, tools)
        for left in range(self._settings.trim_retries, -1, -1):
            said = False
            try:
                async with aclosing(self._asked(request, names, tools, entries)) as parts:
                    async for part in parts:
                        said = True
                        yield part
                return
            except ModelError as error:
                if said:
                    error.again = False
                shorter = fit(history, estimate(entries) // 2)
                if said or error.code != "context_length" or not left or estimate(shorter) >= estimate(entries):
                    raise
                log.info("model.history_halved", model=request.model, tokens=estimate(shorter))
                entries = shorter

    def _fitted(
        self, history: Sequence[HistoryEntry], request: ModelRequest, tools: list[dict[str, Any]]
    ) -> Sequence[HistoryEntry]:
        """What of the history fits into the window, as far as that is known."""
        window = self._settings.context_window
        if window is None:
            return history
        answer = answer_limit(self._settings, request.parameters) or min(window // 4, _RESERVE_TOKENS)
        fixed = text_tokens(request.instructions or "") + text_tokens(msgspec.json.encode(tools).decode())
        return fit(history, max(0, window - answer - fixed))

    async def _asked(
        self,
        request: ModelRequest,
        names: FunctionNames,
        tools: list[dict[str, Any]],
        entries: Sequence[HistoryEntry],
    ) -> AsyncGenerator[ModelPart, None]:
        """One request, and what comes of it."""
        messages = Messages(names, request.image, self._settings.images)
        choice = choice_of(request.tool_choice, request.tools if tools else (), names)
        body = self._body(request, await messages.of(request.instructions, entries), tools) | choice
        answer = Answer(request.model, names, self._connection.refusals, think_tags=self._settings.think_tags)
        done = False
        try:
            async with aclosing(self._connection.chunks(body, request.model, lambda: answer.ended)) as chunks:
                async for chunk in chunks:
                    done = chunk is None
                    for part in answer.take(chunk) if chunk is not None else ():
                        yield part
        except ModelError as error:
            if not (answer.ended and error.code == "model_unreachable"):  # all was said; only the end is missing
                raise
        for part in answer.end(done=done):
            yield part

    def _body(
        self, request: ModelRequest, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> dict[str, Any]:
        settings, most = self._settings, answer_limit(self._settings, request.parameters)
        return {
            **({"stream_options": {"include_usage": True}} if settings.stream_usage else {}),
            **({settings.output_limit_field: most} if most is not None else {}),
            **sampling(settings, request.parameters, tools=bool(tools)),
            **settings.options,
            "model": request.model,
            "messages": messages,
            **({"tools": tools} if tools else {}),
            "stream": True,
        }
