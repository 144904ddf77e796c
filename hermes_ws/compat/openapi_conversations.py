"""Conversations and their logs by request, for the OpenAPI document: the twins of what sockets do."""

from __future__ import annotations

import re
from typing import Any, Final

from hermes_ws.compat.openapi import Answer, Body, Header, Operation, Parameter, ServerSentEvents
from hermes_ws.compat.openapi_parameters import Count, Cursor, page_limit
from hermes_ws.protocol.commands import Command, ConversationConfigure
from hermes_ws.protocol.control import Error, Ok, Skipped
from hermes_ws.protocol.events import EVENT_TYPES, Event
from hermes_ws.protocol.resources import (
    ConversationList,
    ConversationPatch,
    ConversationView,
    EventPage,
    InteractionList,
    ItemPage,
)
from hermes_ws.protocol.values import ConversationId

__all__ = ["FIELDS", "OPERATIONS"]

_Text: Final = {"type": "string"}
_TYPE: Final = f"({'|'.join(map(re.escape, EVENT_TYPES))})"
_LINES: Final = {"application/jsonl": _Text, "application/x-ndjson": _Text}

_CONVERSATION: Final = Parameter(
    name="conversation_id", where="path", type=ConversationId, about="The conversation. `new`: the server chooses."
)
_AFTER: Final = Parameter(
    name="after", where="query", type=Count, about="What follows this `seq`; 0 is everything.", empty=True
)
_EPOCH: Final = Parameter(
    name="epoch",
    where="query",
    type=str,
    about="The incarnation of the log that `after` is a number of. If it is another by now, the answer begins at 1.",
    empty=True,
)
_EXCLUDE: Final = Parameter(
    name="exclude",
    where="query",
    type={"type": "string", "pattern": f"^{_TYPE}(,{_TYPE})*$"},
    about="Event types not to deliver, such as `message.delta,reasoning.delta`; `skipped` tells of their numbers.",
    empty=True,
)
_LAST: Final = Parameter(
    name="Last-Event-ID",
    where="header",
    type=Count,
    about="For `text/event-stream`: the last `id` that arrived. It goes before `after`.",
)


def _cursor() -> Parameter:
    return Parameter(name="cursor", where="query", type=Cursor, about="`next` of the page before.")


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/conversations",
        id="listConversations",
        tag="conversations",
        summary="Conversations, the one with the newest event first",
        parameters=(
            page_limit("conversations"),
            _cursor(),
        ),
        answers={200: Answer.json(ConversationList, "A page of them.")},
        error=Error,
        refusals=(400,),
    ),
    Operation(
        method="GET",
        path="/api/interactions",
        id="listInteractions",
        tag="conversations",
        summary="What a person can answer, in every conversation",
        about="""Open approvals, questions, forms and calls of functions, the one that was asked first first; not the
        calls that one client executes.""",
        parameters=(page_limit("of them"), _cursor()),
        answers={200: Answer.json(InteractionList, "A page of them.")},
        error=Error,
        refusals=(400,),
    ),
    Operation(
        method="GET",
        path="/api/conversations/{conversation_id}",
        id="viewConversation",
        tag="conversations",
        summary="A conversation and its configuration",
        parameters=(_CONVERSATION,),
        answers={200: Answer.json(ConversationView, "As it is now.")},
        error=Error,
        refusals=(400, 404),
        ticket=True,
    ),
    Operation(
        method="PATCH",
        path="/api/conversations/{conversation_id}",
        id="configureConversation",
        tag="conversations",
        summary="Change the configuration of a conversation",
        about="What the command `conversation.configure` does, to a conversation that there is.",
        parameters=(_CONVERSATION,),
        body=Body(
            types={"application/json": ConversationPatch, "application/merge-patch+json": ConversationPatch},
            example={"config": {"title": "Plans"}, "if_version": 0},
        ),
        answers={200: Answer.json(ConversationView, "As it is now.")},
        error=Error,
        refusals=(404, 409, 422, 507),
        ticket=True,
    ),
    Operation(
        method="DELETE",
        path="/api/conversations/{conversation_id}",
        id="deleteConversation",
        tag="conversations",
        summary="Remove a conversation wholly",
        about="Its sockets are closed with 4410.",
        parameters=(_CONVERSATION,),
        answers={204: Answer(about="It is gone.")},
        error=Error,
        refusals=(400, 404, 409, 507),
        ticket=True,
    ),
    Operation(
        method="GET",
        path="/api/conversations/{conversation_id}/items",
        id="pageItems",
        tag="conversations",
        summary="The items of a conversation, page by page into the past",
        about="""Messages, reasoning and tool calls. Without `before` the newest; a `snapshot` names the oldest of its
        own in its `before`.""",
        parameters=(
            _CONVERSATION,
            Parameter(name="before", where="query", type=str, about="What comes right before this item.", empty=True),
            page_limit("items"),
        ),
        answers={200: Answer.json(ItemPage, "A page of them.")},
        error=Error,
        refusals=(400, 404),
        ticket=True,
    ),
    Operation(
        method="GET",
        path="/api/conversations/{conversation_id}/events",
        id="listEvents",
        tag="conversations",
        summary="A conversation's log: a page, all lines, or a stream",
        about="""Exactly the socket's frames, in the form that `Accept` asks for. A page waits with `wait_ms` for the
        first event that is not there yet. As `application/jsonl` it is what there is now. As `text/event-stream` it
        goes on with what comes; the `id` of each message is the last `seq` that it accounts for.""",
        parameters=(
            _CONVERSATION,
            _AFTER,
            _EPOCH,
            _EXCLUDE,
            page_limit("events"),
            Parameter(
                name="wait_ms",
                where="query",
                type=Count,
                about="How long to wait for an event, if none is there.",
                empty=True,
            ),
            _LAST,
        ),
        answers={
            200: Answer(
                about="The log.",
                types={
                    "application/json": EventPage,
                    "text/event-stream": ServerSentEvents(data=Event | Skipped),
                    **_LINES,
                },
            )
        },
        error=Error,
        refusals=(400, 404),
        ticket=True,
    ),
    Operation(
        method="GET",
        path="/api/conversations/{conversation_id}/export",
        id="exportEvents",
        tag="conversations",
        summary="A conversation's log as a file",
        about="""One of the socket's frames a line, up to the last one there is now. A file that cannot be finished
        breaks off with the connection.""",
        parameters=(_CONVERSATION, _AFTER, _EPOCH, _EXCLUDE),
        answers={
            200: Answer(
                about="The lines.",
                types={"application/jsonl": _Text},
                headers=[Header(name="Content-Disposition", about="`attachment`, and a name for the file.")],
            )
        },
        error=Error,
        refusals=(400, 404),
        ticket=True,
    ),
    Operation(
        method="POST",
        path="/api/conversations/{conversation_id}/commands",
        id="sendCommand",
        tag="conversations",
        summary="Any command that the socket takes",
        parameters=(_CONVERSATION,),
        body=Body.json(Command, example={"type": "run.start", "input": "hi"}),
        answers={200: Answer.json(Ok, "It was done; what it appended is at or before `at`.")},
        error=Error,
        refusals=(404, 409, 422, 429, 507),
        ticket=True,
        gives={"run_id": "/run_id"},
    ),
    Operation(
        method="GET",
        path="/api/conversations/{conversation_id}/tool-calls/{call_id}/output",
        id="getToolOutput",
        tag="conversations",
        summary="The whole output of a tool call",
        about="Also while it goes on: what is there so far.",
        parameters=(_CONVERSATION, Parameter(name="call_id", where="path", type=str, about="From `tool.started`.")),
        answers={200: Answer(about="The output.", types={"text/plain": _Text})},
        error=Error,
        refusals=(400, 404),
        ticket=True,
    ),
)
FIELDS: Final[dict[tuple[type, str], Any]] = {
    (ConversationConfigure, "if_version"): {"maximum": 2**53},
    (ConversationPatch, "if_version"): {"maximum": 2**53},
}
"""What their types do not say of fields."""
