"""hermes-agent's runs, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from hermes_ws.compat.openapi import Answer, Body, Operation, Parameter, ServerSentEvents
from hermes_ws.compat.openapi_bodies import Approval, Clarification, RunInput, SteerInput, StopInput
from hermes_ws.compat.openapi_content import CONTENT, MESSAGES
from hermes_ws.compat.openapi_openai import ERROR, IDEMPOTENT, JOINED, REPLAYED
from hermes_ws.compat.openapi_parameters import Count, Cursor, page_limit
from hermes_ws.compat.openapi_types import AnyOf, ListOf
from hermes_ws.compat.runs_types import (
    ApprovalRequest,
    ClarifyRequest,
    FormRequest,
    FunctionRequest,
    RunFrame,
    RunList,
    RunObject,
    RunState,
)

__all__ = ["FIELDS", "OPERATIONS"]

_RUN: Final = Parameter(name="run_id", where="path", type=str, about="The run.")


class RunStarted(msgspec.Struct, frozen=True, kw_only=True):
    """A run was begun."""

    run_id: str
    """Its id."""
    session_id: str
    """The conversation that it is in."""
    status: str
    """``started``, or ``queued`` behind another; when it was asked for before, how it stands."""
    history: str | msgspec.UnsetType = msgspec.UNSET
    """Where its history comes from."""
    replayed: bool
    """Whether it was begun by an earlier request under the same key."""


class RunStopped(msgspec.Struct, frozen=True, kw_only=True):
    """A run is being stopped."""

    run_id: str
    """Its id."""
    status: str
    """``stopping``; ``cancelled`` if it was waiting."""
    replayed: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether an earlier request under the same key did it."""


class RunSteered(msgspec.Struct, frozen=True, kw_only=True):
    """The text was taken: the agent hears it between two steps."""

    object: Literal["hermes.run.steer"]
    """``hermes.run.steer``."""
    run_id: str
    """The run."""
    accepted: bool
    """True."""
    replayed: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether an earlier request under the same key did it."""


class ApprovalTaken(msgspec.Struct, frozen=True, kw_only=True):
    """An approval was answered."""

    object: Literal["hermes.run.approval_response"]
    """``hermes.run.approval_response``."""
    run_id: str
    """The run."""
    choice: str
    """What was answered."""
    resolved: int
    """How many approvals."""
    request_id: str
    """The first of them."""
    replayed: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether an earlier request under the same key did it."""


class ClarificationTaken(msgspec.Struct, frozen=True, kw_only=True):
    """A question was answered."""

    object: Literal["hermes.run.clarification_response"]
    """``hermes.run.clarification_response``."""
    run_id: str
    """The run."""
    request_id: str
    """The question."""
    type: str
    """What the answer is: ``choice``, ``choices``, ``text``, ``form`` or ``function``."""
    resolved: int
    """1."""
    replayed: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether an earlier request under the same key did it."""


def _clarify(name: str, operation_id: str) -> Operation:
    return Operation(
        method="POST",
        path=f"/v1/runs/{{run_id}}/{name}",
        id=operation_id,
        tag="runs",
        summary="Answer a question that a run waits for",
        about="Also a form, and a function that the client executes.",
        parameters=(_RUN, IDEMPOTENT),
        body=Body.json(Clarification, example={"answer": "yes"}),
        answers={200: Answer.json(ClarificationTaken, "It is answered.", REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
    )


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/runs",
        id="startRun",
        tag="runs",
        summary="Begin a run, and be answered at once",
        parameters=(IDEMPOTENT,),
        body=Body.json(RunInput, example={"input": "hi"}),
        answers={202: Answer.json(RunStarted, "It is begun, or waits for its turn.", JOINED[1], REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
        gives={"run_id": "/run_id", "session_id": "/session_id"},
    ),
    Operation(
        method="GET",
        path="/v1/runs",
        id="listRuns",
        tag="runs",
        summary="Runs, the one that something happened to last first",
        parameters=(
            page_limit("runs"),
            Parameter(name="after", where="query", type=Cursor, about="`next` of the page before.", empty=True),
            Parameter(name="status", where="query", type=RunState, about="Only those that stand so.", empty=True),
            Parameter(name="session_id", where="query", type=str, about="Only those of this conversation.", empty=True),
        ),
        answers={200: Answer.json(RunList, "A page of them.")},
        error=ERROR,
        refusals=(400,),
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}",
        id="getRun",
        tag="runs",
        summary="A run as it is now",
        parameters=(_RUN,),
        answers={200: Answer.json(RunObject, "The run.")},
        error=ERROR,
        refusals=(400, 404),
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}/events",
        id="followRun",
        tag="runs",
        summary="The events of a run, those that have been and those that come",
        about="For any number of readers, from any point, after the end and after a restart too.",
        parameters=(
            _RUN,
            Parameter(
                name="after", where="query", type=Count, about="What follows the event with this `id`.", empty=True
            ),
            Parameter(
                name="Last-Event-ID",
                where="header",
                type=Annotated[str, msgspec.Meta(pattern=r"^[0-9]{0,15}$")],
                about="The same, as browsers say it; the later one counts.",
            ),
        ),
        answers={
            200: Answer(
                about="One JSON object a `data:` line; `event` says what it is.",
                types={"text/event-stream": ServerSentEvents(data=AnyOf(tuple(RunFrame.__subclasses__())))},
                headers=[JOINED[1]],
            )
        },
        error=ERROR,
        refusals=(400, 404),
    ),
    Operation(
        method="POST",
        path="/v1/runs/{run_id}/stop",
        id="stopRun",
        tag="runs",
        summary="Stop a run, whatever it is at",
        parameters=(_RUN, IDEMPOTENT),
        body=Body.json(StopInput, required=False),
        answers={200: Answer.json(AnyOf((RunStopped, RunObject)), "It is being stopped; or how it ended.", REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
    ),
    Operation(
        method="POST",
        path="/v1/runs/{run_id}/steer",
        id="steerRun",
        tag="runs",
        summary="Say something to a running run",
        parameters=(_RUN, IDEMPOTENT),
        body=Body.json(SteerInput, example={"input": "shorter, please"}),
        answers={200: Answer.json(RunSteered, "It was taken.", REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
    ),
    Operation(
        method="POST",
        path="/v1/runs/{run_id}/approval",
        id="approveRun",
        tag="runs",
        summary="Answer an approval that a run waits for",
        parameters=(_RUN, IDEMPOTENT),
        body=Body.json(Approval, example={"choice": "once"}),
        answers={200: Answer.json(ApprovalTaken, "It is answered.", REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
    ),
    _clarify("clarification", "clarifyRun"),
    _clarify("clarify", "clarifyRunToo"),
)

_CHOICES: Final = ["once", "run", "session", "always", "deny", "approve", "approved", "allow", "conversation"]
FIELDS: Final[dict[tuple[type, str], Any]] = {
    (RunInput, "input"): AnyOf((CONTENT, MESSAGES)),
    (RunInput, "conversation_history"): AnyOf((ListOf(MESSAGES.item), None)),
    (Approval, "choice"): {"enum": _CHOICES},
    (RunObject, "requests"): ListOf(AnyOf((ApprovalRequest, ClarifyRequest, FormRequest, FunctionRequest))),
}
