"""What says what there is, and how it is, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from hermes_ws.compat.about_types import (
    Capabilities,
    DetailedHealth,
    Health,
    Model,
    ModelList,
    SkillList,
    ToolsetList,
)
from hermes_ws.compat.openapi import Answer, Header, Operation, Parameter
from hermes_ws.compat.openapi_openai import ERROR
from hermes_ws.protocol.control import Error

__all__ = ["OPERATIONS"]

_TEXT: Final = {"type": "string"}
_KNOWN: Final = Parameter(name="If-None-Match", where="header", type=str, about="The ETag of what is there already.")
_ETAG: Final = Header(name="ETag", about="Names what it contains.")


def _file(path: str, id: str, summary: str, media_type: str) -> Operation:
    """A file that a browser loads."""
    return Operation(
        method="GET",
        path=path,
        id=id,
        tag="about",
        summary=summary,
        parameters=(_KNOWN,),
        answers={
            200: Answer(about="The file.", types={media_type: _TEXT}, headers=[_ETAG]),
            304: Answer(about="It is the one that is there already.", headers=[_ETAG]),
        },
        error=Error,
        refusals=(400,),
        key=False,
    )


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/models",
        id="listModels",
        tag="about",
        summary="Every agent that the key may use",
        answers={200: Answer.json(ModelList, "The default first.")},
        error=ERROR,
    ),
    Operation(
        method="GET",
        path="/v1/models/{model}",
        id="getModel",
        tag="about",
        summary="One agent",
        parameters=(Parameter(name="model", where="path", type=str, about="Its name, as it is listed."),),
        answers={200: Answer.json(Model, "The agent.")},
        error=ERROR,
        refusals=(404,),
    ),
    Operation(
        method="GET",
        path="/v1/capabilities",
        id="getCapabilities",
        tag="about",
        summary="What this server can do",
        answers={200: Answer.json(Capabilities, "As hermes-agent says it.")},
        error=ERROR,
    ),
    Operation(
        method="GET",
        path="/v1/skills",
        id="listSkills",
        tag="about",
        summary="Skills: none",
        answers={200: Answer.json(SkillList, "An empty list.")},
        error=ERROR,
    ),
    Operation(
        method="GET",
        path="/v1/toolsets",
        id="listToolsets",
        tag="about",
        summary="Tools by where they come from, as far as the key goes",
        answers={200: Answer.json(ToolsetList, "All of them.")},
        error=ERROR,
    ),
    Operation(
        method="GET",
        path="/health",
        id="getHealth",
        tag="about",
        summary="That the server is there",
        answers={200: Answer.json(Health, "It is.")},
        error=Error,
        key=False,
    ),
    Operation(
        method="GET",
        path="/v1/health",
        id="getHealthToo",
        tag="about",
        summary="That the server is there",
        answers={200: Answer.json(Health, "It is.")},
        error=ERROR,
        key=False,
    ),
    Operation(
        method="GET",
        path="/health/detailed",
        id="getDetailedHealth",
        tag="about",
        summary="How the server is",
        about="What is not well is told with status 200.",
        answers={200: Answer.json(DetailedHealth, "How it is.")},
        error=ERROR,
    ),
    _file("/hermes-ws.js", "getClient", "The JavaScript client, for pages to import", "text/javascript"),
    _file("/example", "getExample", "An example page that talks to a conversation", "text/html"),
)
