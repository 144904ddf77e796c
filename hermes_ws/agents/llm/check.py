"""What is right and wrong with an endpoint, for ``hermes-ws doctor``."""

from __future__ import annotations

import difflib
from contextlib import aclosing
from typing import Final

import anyio

from hermes_ws.agents.base import Finding
from hermes_ws.agents.llm.connection import Connection
from hermes_ws.agents.llm.endpoint_settings import EndpointSettings
from hermes_ws.agents.llm.model import Finish, Model, ModelRequest
from hermes_ws.errors import HermesError, ModelError
from hermes_ws.history import UserTurn
from hermes_ws.protocol.values import ImagePart, TextPart

__all__ = ["checked_endpoint"]

_QUESTION: Final = "Answer with the word OK."
_LIST_S: Final = 15.0
_LISTED: Final = 8
"""Names of models that are told at once."""


async def checked_endpoint(
    connection: Connection, model: Model, settings: EndpointSettings, *, ask: bool
) -> list[Finding]:
    """Is it there, does it take the key, does it have the model; with ``ask``, does the model answer."""
    found = [await _listing(connection, settings.model)]
    if ask and found[0].level != "problem":
        found.append(await _asked(model, settings.model))
    if settings.context_window is None:
        advice = "set it, so that long conversations are trimmed before they are refused (or cut silently, by Ollama)"
        found.append(Finding("warning", "context_window is not set", advice))
    return found


async def _listing(connection: Connection, model: str) -> Finding:
    try:
        with anyio.fail_after(_LIST_S):
            listed = await connection.models()
    except ModelError as error:
        return Finding("problem", error.message)
    except TimeoutError:
        return Finding("problem", f"the endpoint did not list its models within {_LIST_S:g} s", "is it up?")
    if not listed:
        advice = "`hermes-ws doctor --ask` asks it something"
        return Finding("warning", f"the endpoint answers, but does not list its models: is {model!r} there?", advice)
    if model in listed or f"{model}:latest" in listed:
        return Finding("ok", f"the endpoint answers, and has the model {model!r}")
    if model.partition(":")[0] in {name.partition(":")[0] for name in listed}:
        return Finding(
            "warning", f"the endpoint lists {model.partition(':')[0]!r}, but not as {model!r}", _names(listed)
        )
    near = difflib.get_close_matches(model, listed, n=3) or listed
    return Finding("problem", f"the endpoint does not list the model {model!r}", f"set model to one of {_names(near)}")


def _names(listed: list[str]) -> str:
    rest = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(sorted(listed)[:_LISTED]) + rest


async def _asked(model: Model, name: str) -> Finding:
    """One real completion."""
    question = UserTurn("", _QUESTION, [TextPart(text=_QUESTION)], steered=False)
    request = ModelRequest(model=name, instructions=None, history=[question], tools=[], attempt=1, image=_no_image)
    cost = "it does not say for how many tokens"
    try:
        async with aclosing(model.stream(request)) as parts:
            async for part in parts:
                if isinstance(part, Finish) and part.usage is not None:
                    cost = f"for {part.usage.total_tokens} tokens"
    except HermesError as error:
        return Finding("problem", str(error))
    return Finding("ok", f"the model {name!r} answers, {cost}")


async def _no_image(part: ImagePart) -> str:
    raise HermesError(f"there is no image in this: {part}")
