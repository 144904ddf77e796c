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
from hermes_ws.compat.openapi import Answer, Operation, Parameter
from hermes_ws.compat.openapi_openai import ERROR
from hermes_ws.protocol.control import Error

__all__ = ["OPERATIONS"]

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
)
