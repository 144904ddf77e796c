"""clarify: what is asked, and what becomes of the answer."""

from __future__ import annotations

from typing import Any

from hermes_ws.protocol.values import Choice
from hermes_ws.tools.base import NobodyAnswered, ToolResult
from hermes_ws.tools.clarify import Clarify

from .conftest import Asked, Context


async def clarify(ctx: Context, **arguments: Any) -> ToolResult:
    return await Clarify().call(ctx, {"question": "Which?", **arguments})


async def test_free_text(ctx: Context) -> None:
    ctx.answer = "the red one"
    assert await clarify(ctx) == ToolResult(output="the red one", structured={"answer": "the red one"})
    assert ctx.asked == [Asked("Which?", None, False, False)]


async def test_choices_have_themselves_as_id_and_label(ctx: Context) -> None:
    ctx.answer = "red"
    await clarify(ctx, choices=["red", "blue"], allow_other=True)
    choices = [Choice(id="red", label="red"), Choice(id="blue", label="blue")]
    assert ctx.asked == [Asked("Which?", choices, True, False)]


async def test_several_choices_come_back_as_json(ctx: Context) -> None:
    ctx.answer = ["red", "blue"]
    result = await clarify(ctx, choices=["red", "blue"], multiple=True)
    assert result == ToolResult(output='["red","blue"]', structured={"answer": ["red", "blue"]})
    assert ctx.asked[0].multiple


async def test_several_of_nothing_is_free_text(ctx: Context) -> None:
    ctx.answer = "red"
    await clarify(ctx, multiple=True)
    assert not ctx.asked[0].multiple


async def test_when_nobody_answers_the_model_is_told_to_go_on(ctx: Context) -> None:
    ctx.answer = NobodyAnswered("expired")
    result = await clarify(ctx)
    assert result.is_error
    assert result.output == ("Nobody answered (expired). Continue with your best judgement, and say what you assumed.")
