"""Reasoning that a server leaves in the text: ``<think>…</think>`` at its beginning, as many local models write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from hermes_ws.agents.llm.model import ReasoningDelta, TextDelta

__all__ = ["ThinkTags"]

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"


class ThinkTags:
    """Sorts streamed text. A tag may come in pieces: what may yet become one is held back."""

    def __init__(self) -> None:
        self._where: Literal["before", "in", "after", "text"] = "before"
        self._held = ""

    def feed(self, text: str) -> Iterator[TextDelta | ReasoningDelta]:
        """What is sure by now."""
        text, self._held = self._held + text, ""
        if self._where == "before":
            text = self._begin(text)
        if self._where == "in":
            thought, text = self._think(text)
            if thought:
                yield ReasoningDelta(thought)
        if self._where == "after":
            text = text.lstrip("\r\n")
            self._where = "text" if text else "after"
        if self._where == "text" and text:
            yield TextDelta(text)

    def flush(self) -> Iterator[TextDelta | ReasoningDelta]:
        """The end: what was held back is what it is."""
        if self._held:
            yield ReasoningDelta(self._held) if self._where == "in" else TextDelta(self._held)
        self._held = ""

    def _begin(self, text: str) -> str:
        """Is it a tag? What is left to sort once that is known."""
        start = text.lstrip()
        if start.startswith(_OPEN):
            self._where = "in"
            return start.removeprefix(_OPEN).lstrip("\r\n")
        if _OPEN.startswith(start):
            self._held = text
        else:
            self._where = "text"
        return text

    def _think(self, text: str) -> tuple[str, str]:
        """The reasoning in ``text``, and what follows its end."""
        thought, closed, rest = text.partition(_CLOSE)
        if closed:
            self._where = "after"
            return thought.rstrip("\r\n"), rest
        kept = _overlap(text)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept], ""


def _overlap(text: str) -> int:
    """How much of the end of ``text`` may be the beginning of the closing tag."""
    return next((n for n in range(min(len(_CLOSE) - 1, len(text)), 0, -1) if text.endswith(_CLOSE[:n])), 0)
