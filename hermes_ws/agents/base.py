"""The agent seam: what an agent is, and all that it sees of the world.

An agent is ``async def run(turn: Turn) -> StopReason``. It reports what the model says (``text``, ``reasoning``, inside
a ``step``), has tools called (``call_tools``: journal, policy, approval, execution and events are seen to behind it,
the same for every agent) and may ask people (``ask``). It knows nothing of sockets, sequence numbers or the log.

* It returns why it stopped; it raises :class:`~hermes_ws.errors.AgentError` when it cannot go on.
* Stopping is cancellation of the task it runs in. Let it through.
* It keeps nothing between steps: :meth:`Turn.history` says how far the run is. After a restart it is simply called
  again, and may find that its last answer was its last. Calls that were under way have been seen to by then. What
  people answered to ``ask`` is in no history: ask in the step that needs it, or for the first one right before it.

Agents of other packages plug in by an entry point in the group ``hermes_ws.agents`` that names a factory:
``def create(config: dict[str, Any]) -> Agent``. What an agent holds on to (connections, processes) it lets go of in
``async def aclose(self)``, if it has one: it is called when the server goes down. What can be wrong with it, such as an
endpoint that is not there, it tells ``hermes-ws doctor`` in ``async def check(self, *, ask: bool) -> list[Finding]``,
if it has one: ``ask`` allows what costs something, such as a question to its model.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hermes_ws.findings import Finding
from hermes_ws.history import HistoryEntry
from hermes_ws.protocol.values import Choice, ImagePart, ToolDescription, Usage

__all__ = ["Agent", "Finding", "RequestedCall", "Step", "StopReason", "Turn"]

StopReason = Literal["end", "max_steps", "length", "refused"]


@dataclass(frozen=True, slots=True)
class RequestedCall:
    """A tool call as a model asked for it. ``call_id`` may be empty: one is made up. ``name`` is the tool's, alone or
    with its source (``mcp:crm/find``) where several sources have one of that name. ``problem``: the call cannot be made
    as it was asked for; it fails with this, for the model to read, and no tool sees it."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    problem: str | None = None


@dataclass(slots=True)
class Step:
    """The step that is open. Set ``usage`` when the model tells it, and ``stop_reason`` when its answer was cut."""

    number: int
    usage: Usage
    stop_reason: Literal["end", "length", "refused"] = "end"


class Turn(Protocol):
    """One run, as its agent sees it."""

    @property
    def conversation_id(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    @property
    def model(self) -> str:
        """The model to use, as the conversation or the operator names it."""
        ...

    @property
    def instructions(self) -> str | None:
        """What the conversation or the run adds to the agent's own instructions."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata, over the conversation's."""
        ...

    @property
    def max_steps(self) -> int:
        """Steps that the run may take; an agent that needs more returns ``max_steps``."""
        ...

    @property
    def tool_choice(self) -> str | None:
        """What whoever started the run wants of the next model call: ``none`` (call no tool), ``required`` (call one or
        more) or a tool's name (call that one). None: the model's choice, as in all steps that it is not meant for."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """Sampling parameters that whoever started the run wants the model to be called with, under the names that
        OpenAI's chat completions have for them: ``temperature``, ``max_tokens``, ``stop``. A model leaves out what it
        has no use for."""
        ...

    @property
    def steps_taken(self) -> int:
        """Steps that the run has finished so far, before a restart included."""
        ...

    def history(self) -> list[HistoryEntry]:
        """The conversation so far, this run's input and finished steps included."""
        ...

    async def tools(self) -> list[ToolDescription]:
        """The tools that policy leaves, as of now. Servers that offer some are started if need be."""
        ...

    async def image(self, part: ImagePart) -> str:
        """The image as a URL that can be handed on: its own, or a ``data:`` URL of what is stored here."""
        ...

    def step(self) -> AbstractAsyncContextManager[Step]:
        """One model call and the tools it asks for. Leaving it without an exception completes it. After a restart the
        one that broke off is gone on with: its number stays."""
        ...

    async def text(self, delta: str) -> None:
        """The model said this."""
        ...

    async def reasoning(self, delta: str) -> None:
        """The model thought this."""
        ...

    async def discard(self) -> None:
        """The model call broke off and will be made again: what this step streamed does not count."""
        ...

    async def call_tools(self, calls: Sequence[RequestedCall]) -> None:
        """The model's answer is whole, and asks for these. Returns when all are over; what they came to is in the
        history. Refusals and errors are results, not exceptions. Once in a step, and nothing is said after it: what
        the model makes of the results is the next step."""
        ...

    async def take_steering(self) -> list[str]:
        """What people said to the run since; it is in the history from here on. Call it between two steps."""
        ...

    async def ask(self, prompt: str, *, choices: list[Choice] | None = None, allow_other: bool = False) -> Any:
        """Ask the people at the conversation. Raises ``NobodyAnswered``."""
        ...


class Agent(Protocol):
    """Something that can take a turn. One object serves every run at once."""

    @property
    def default_model(self) -> str:
        """The model when nobody names one."""
        ...

    async def run(self, turn: Turn) -> StopReason:
        """Take the turn to its end."""
        ...
