"""hermes-agent's sessions, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from hermes_ws.compat.openapi import Answer, Body, Operation, Parameter, ServerSentEvents
from hermes_ws.compat.openapi_bodies import SessionCreate, SessionFork, SessionInput, SessionPatch
from hermes_ws.compat.openapi_openai import ERROR, IDEMPOTENT, JOINED, REPLAYED
from hermes_ws.compat.openapi_parameters import Count, page_limit
from hermes_ws.compat.sessions_types import ChatAnswer, Deleted, MessageList, SessionEnvelope, SessionList

__all__ = ["OPERATIONS"]

_SESSION: Final = Parameter(name="session_id", where="path", type=str, about="The session: a conversation's id.")

OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/sessions",
        id="listSessions",
        tag="sessions",
        summary="Sessions, the one where something happened last first",
        parameters=(
            page_limit("sessions"),
            Parameter(name="offset", where="query", type=Count, about="How many to leave out.", empty=True),
            Parameter(
                name="source", where="query", type=str, about="Only those of this source: `api_server`.", empty=True
            ),
            Parameter(name="include_children", where="query", type=str, about="Ignored: forks are listed too."),
        ),
        answers={200: Answer.json(SessionList, "A page of them.")},
        error=ERROR,
        refusals=(400,),
    ),
    Operation(
        method="POST",
        path="/api/sessions",
        id="createSession",
        tag="sessions",
        summary="Begin a session",
        parameters=(IDEMPOTENT,),
        body=Body.json(SessionCreate, required=False, example={"title": "Demo"}),
        answers={201: Answer.json(SessionEnvelope, "The session.", JOINED[1], REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
        gives={"session_id": "/session/id"},
    ),
    Operation(
        method="GET",
        path="/api/sessions/{session_id}",
        id="getSession",
        tag="sessions",
        summary="A session",
        parameters=(_SESSION,),
        answers={200: Answer.json(SessionEnvelope, "The session.", JOINED[1])},
        error=ERROR,
        refusals=(400, 404),
    ),
    Operation(
        method="PATCH",
        path="/api/sessions/{session_id}",
        id="changeSession",
        tag="sessions",
        summary="Give a session another title, or say that it has ended",
        parameters=(_SESSION,),
        body=Body.json(SessionPatch, example={"title": "Demo"}),
        answers={200: Answer.json(SessionEnvelope, "The session.", JOINED[1])},
        error=ERROR,
        refusals=(404, 409, 429, 507),
    ),
    Operation(
        method="DELETE",
        path="/api/sessions/{session_id}",
        id="deleteSession",
        tag="sessions",
        summary="Remove a session wholly",
        parameters=(_SESSION,),
        answers={200: Answer.json(Deleted, "It is gone.")},
        error=ERROR,
        refusals=(400, 404, 409, 507),
    ),
    Operation(
        method="GET",
        path="/api/sessions/{session_id}/messages",
        id="listSessionMessages",
        tag="sessions",
        summary="What was said and done in a session",
        parameters=(_SESSION,),
        answers={200: Answer.json(MessageList, "All of it, oldest first.")},
        error=ERROR,
        refusals=(400, 404),
    ),
    Operation(
        method="POST",
        path="/api/sessions/{session_id}/fork",
        id="forkSession",
        tag="sessions",
        summary="A new session with what was said in this one so far",
        parameters=(_SESSION, IDEMPOTENT),
        body=Body.json(SessionFork, required=False, example={"title": "Another way"}),
        answers={201: Answer.json(SessionEnvelope, "The copy.", JOINED[1], REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 507),
    ),
    Operation(
        method="POST",
        path="/api/sessions/{session_id}/chat",
        id="chatInSession",
        tag="sessions",
        summary="Say something in a session, and wait for the answer",
        parameters=(_SESSION, IDEMPOTENT),
        body=Body.json(SessionInput, example={"message": "hi"}),
        answers={200: Answer.json(ChatAnswer, "The answer.", JOINED[1], REPLAYED)},
        error=ERROR,
        refusals=(404, 409, 429, 500, 502, 504, 507),
    ),
    Operation(
        method="POST",
        path="/api/sessions/{session_id}/chat/stream",
        id="streamInSession",
        tag="sessions",
        summary="Say something in a session, and be told what happens",
        about="Its `run_id` works at `/v1/runs`.",
        parameters=(_SESSION, IDEMPOTENT),
        body=Body.json(SessionInput, example={"message": "hi"}),
        answers={
            200: Answer(
                about="Named events, from `run.started` to `done`.",
                types={"text/event-stream": ServerSentEvents(data=dict[str, Any])},
                headers=[JOINED[1], REPLAYED],
            )
        },
        error=ERROR,
        refusals=(404, 409, 429, 507),
    ),
)
