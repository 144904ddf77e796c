"""What is said to a run of ``/v1/runs``: stop, be steered, and answers to what it asks."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.runs import answer_type
from hermes_ws.compat.runs_request import (
    approval_answer,
    clarify_answers,
    object_field,
    option_of,
    request_id_of,
    steer_text,
    text_field,
)
from hermes_ws.errors import CommandCode, CommandError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import InteractionReply, RunSteer, RunStop
from hermes_ws.routes.context import Api, Route, json_response
from hermes_ws.routes.once import once
from hermes_ws.routes.run_log import Found, named, run_object
from hermes_ws.routes.values import optional_json
from hermes_ws.runtime.commands import Beside
from hermes_ws.runtime.principal import Caller
from hermes_ws.store.base import RecordRow

__all__ = ["ROUTES"]


# -- steering ------------------------------------------------------------------------------------------


async def stop(api: Api, request: Request) -> Response:
    """Stop a run, whatever it is at."""
    caller, found = await named(api, request)
    body = await optional_json(api, request)
    command = RunStop(run_id=found.row.run_id, mode="now" if body.get("mode") == "now" else None)
    caller.check(command)
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            return this.replay()
        answer = {"run_id": found.row.run_id, "status": "cancelled" if found.row.status == "queued" else "stopping"}
        try:
            await _command(api, found, caller, command, this.records(answer))
        except CommandError as refused:
            if refused.code != "run_not_active":
                raise
            _, found = await named(api, request)
            return json_response(await run_object(api, found))
    return json_response(answer)


async def steer(api: Api, request: Request) -> Response:
    """Say something to a running run."""
    caller, found = await named(api, request)
    body = await api.json(request)
    command = RunSteer(text=steer_text(body), run_id=found.row.run_id, if_late="return")
    caller.check(command)
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            return this.replay()
        answer = {"object": "hermes.run.steer", "run_id": found.row.run_id, "accepted": True}
        try:
            await _command(api, found, caller, command, this.records(answer))
        except CommandError as refused:
            raise _not_steered(refused, found.row.run_id) from None
    return json_response(answer)


def _not_steered(refused: CommandError, run_id: str) -> CommandError | ApiError:
    if refused.code == "run_not_active":
        message = f"Run is not currently accepting steer input: {run_id}"
        return ApiError(409, "run_not_accepting_steer", message)
    if refused.code == "overloaded" and refused.retry_after_ms is None:
        return ApiError(409, "steer_not_accepted", f"Run did not accept steer text: {run_id}: {refused.message}")
    return refused


async def _command(
    api: Api, found: Found, caller: Caller, command: RunStop | RunSteer | InteractionReply, records: list[RecordRow]
) -> None:
    await api.command(await api.open(found.ref), command, caller, Beside(records=records))


# -- answering -----------------------------------------------------------------------------------------


async def approve(api: Api, request: Request) -> Response:
    """Answer an approval that the run waits for."""
    caller, found = await named(api, request)
    body = await api.json(request)
    answered = approval_answer(body)
    caller.check(InteractionReply(interaction_id=""))
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            return this.replay()
        waiting = await _waiting(api, found, answered.request_id, ("approval",), "approval")
        chosen = waiting if answered.all else waiting[:1]
        answer = {
            "object": "hermes.run.approval_response",
            "run_id": found.row.run_id,
            "choice": answered.choice,
            "resolved": len(chosen),
            "request_id": chosen[0].interaction_id,
        }
        for asked in chosen:
            reply = InteractionReply(
                interaction_id=asked.interaction_id,
                option=answered.option,
                arguments=answered.arguments,
                comment=answered.comment,
            )
            records = this.records(answer) if asked is chosen[-1] else []
            await _reply(api, found, caller, reply, records, "approval")
    return json_response(answer)


async def clarify(api: Api, request: Request) -> Response:
    """Answer a question that the run waits for."""
    caller, found = await named(api, request)
    body = await api.json(request)
    request_id = request_id_of(body, "invalid_clarification")
    caller.check(InteractionReply(interaction_id=""))
    async with once(api, caller, request, body) as this:
        if this.earlier is not None:
            return this.replay()
        kinds = ("clarify", "form", "client_tool")
        [asked, *_] = await _waiting(api, found, request_id, kinds, "clarification")
        reply, kind = _answer(asked, body)
        answer = {
            "object": "hermes.run.clarification_response",
            "run_id": found.row.run_id,
            "request_id": asked.interaction_id,
            "type": kind,
            "resolved": 1,
        }
        await _reply(api, found, caller, reply, this.records(answer), "clarification")
    return json_response(answer)


def _answer(asked: ev.InteractionRequested, body: dict[str, Any]) -> tuple[InteractionReply, str]:
    """The reply that the body is, and what kind of answer that is."""
    if asked.kind == "clarify":
        [question] = asked.questions or []
        reply = InteractionReply(interaction_id=asked.interaction_id, answers=clarify_answers(asked, body))
        return reply, answer_type(question)
    choice, content = text_field(body, "choice"), object_field(body, "content", "invalid_clarification")
    if asked.kind == "client_tool" and content is None:
        content = {name: body[name] for name in ("output", "is_error") if name in body}
    if choice is None and content is None:
        message = "Missing 'content': what is filled in, or 'choice'"
        raise ApiError(400, "invalid_clarification", message, param="content")
    option = None if choice is None else option_of(choice)
    reply = InteractionReply(interaction_id=asked.interaction_id, option=option, content=content)
    return reply, "form" if asked.kind == "form" else "function"


async def _waiting(
    api: Api, found: Found, request_id: str | None, kinds: tuple[str, ...], what: str
) -> list[ev.InteractionRequested]:
    """What the run waits for, oldest first, or the one that is named. Raises :class:`ApiError` 409."""
    run_id = found.row.run_id
    state = (await api.open(found.ref)).session.state
    if run_id not in state.runs:
        raise ApiError(409, f"{what}_not_active", f"Run has no active {what} session: {run_id}")
    every = [state.interactions[name] for name in state.runs[run_id].interactions]
    fitting = [asked for asked in every if asked.kind in kinds and request_id in (None, asked.interaction_id)]
    fitting = [asked for asked in fitting if asked.owner is None]
    if not fitting:
        named = "" if request_id is None else f" under this request_id ({request_id[:200]})"
        raise ApiError(409, f"{what}_not_pending", f"Run has no pending {what}{named}: {run_id}")
    return fitting


_SETTLED: Final[frozenset[CommandCode]] = frozenset(
    {
        "interaction_resolved",
        "interaction_expired",
        "interaction_not_found",
    }
)


async def _reply(
    api: Api, found: Found, caller: Caller, reply: InteractionReply, records: list[RecordRow], what: str
) -> None:
    """Answer. Raises :class:`ApiError` with the codes that these clients go by."""
    try:
        await _command(api, found, caller, reply, records)
    except CommandError as refused:
        param = refused.path.removeprefix("$.") if refused.path else None
        if refused.code == "invalid_option":
            code = "invalid_approval_choice" if what == "approval" else "invalid_clarification"
            raise ApiError(400, code, refused.message, param="choice") from None
        if refused.code == "invalid_answer":
            code = "invalid_approval_request" if what == "approval" else "invalid_clarification"
            raise ApiError(400, code, refused.message, param=param) from None
        if refused.code in _SETTLED:
            raise ApiError(409, f"{what}_not_pending", refused.message) from None
        raise


ROUTES: Final[list[Route]] = [
    ("POST", "/v1/runs/{run_id}/stop", stop),
    ("POST", "/v1/runs/{run_id}/steer", steer),
    ("POST", "/v1/runs/{run_id}/approval", approve),
    ("POST", "/v1/runs/{run_id}/clarification", clarify),
    ("POST", "/v1/runs/{run_id}/clarify", clarify),
]
