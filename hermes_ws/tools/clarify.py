"""``clarify``: asks the people at the conversation one question."""

from __future__ import annotations

from typing import Any

import msgspec

from hermes_ws.protocol.values import Choice, ToolDescription
from hermes_ws.tools.base import NobodyAnswered, ToolContext, ToolResult
from hermes_ws.tools.describe import READS, describe

__all__ = ["Clarify"]


class Clarify:
    """Asking changes nothing, so a call that a crash interrupted is made again, and finds its question open."""

    def __init__(self) -> None:
        self.description: ToolDescription = describe(
            "clarify",
            "Ask",
            "Ask the user a question and wait for the answer. Use it when the task cannot be done well without "
            "knowing, not for what you can find out yourself.",
            properties={
                "question": {"type": "string", "minLength": 1, "description": "What you want to know."},
                "choices": {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "minItems": 1,
                    "maxItems": 50,
                    "uniqueItems": True,
                    "description": "Answers to choose from. Without any, the answer is free text.",
                },
                "allow_other": {
                    "type": "boolean",
                    "description": "Also take an answer that is not among the choices. Default false.",
                },
                "multiple": {"type": "boolean", "description": "Let several choices be taken. Default false."},
            },
            required=["question"],
            annotations=READS,
        )

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        choices: list[str] | None = arguments.get("choices")
        try:
            answer = await ctx.ask(
                arguments["question"],
                choices=None if choices is None else [Choice(id=choice, label=choice) for choice in choices],
                allow_other=arguments.get("allow_other", False),
                multiple=choices is not None and arguments.get("multiple", False),
            )
        except NobodyAnswered as why:
            return ToolResult(output=_unanswered(why), is_error=True)
        text = answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()
        return ToolResult(output=text, structured={"answer": answer})


def _unanswered(why: NobodyAnswered) -> str:
    reason = f" ({why})" if str(why) else ""
    return f"Nobody answered{reason}. Continue with your best judgement, and say what you assumed."
