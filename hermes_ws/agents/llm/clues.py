"""What a message offers for the arguments of a call: numbers, names, texts in quotation marks.

Nothing here understands anything. It is what makes a demo's calls look as if somebody had: a city that was mentioned, a
number that was to be doubled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["Clues", "mentioned", "words"]

_WORD: Final = re.compile(r"[^\W\d_]+")
_HUMP: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\WA-Z\d_]+")
_NUMBER: Final = re.compile(r"(?<![\w.,-])-?\d{1,15}(?:\.\d{1,9})?(?![\w-])")
_QUOTED: Final = re.compile(r"“([^”]+)”|\"([^\"]+)\"|«([^»]+)»|`([^`]+)`")
_NAME: Final = re.compile(r"\b[A-Z][\w’'-]*(?: [A-Z][\w’'-]*)*")
_BEGINNINGS: Final = '.!?:;\n“"('
"""What a sentence follows."""
_READ: Final = 4_000
"""Characters of a message that are looked through for clues."""
_SHORT: Final = 3
"""Words with fewer letters say too little to call a tool by."""
_COMMON: Final = frozenset(
    {"all", "and", "any", "are", "but", "can", "did", "does", "for", "from", "has", "have", "how", "into", "its", "not"}
    | {
        "off",
        "our",
        "out",
        "per",
        "that",
        "the",
        "then",
        "they",
        "this",
        "via",
        "was",
        "what",
        "when",
        "where",
        "which",
    }
    | {"who", "why", "will", "with", "you", "your"}
)
"""Words that are in every message, whatever it is about."""


def words(text: str) -> set[str]:
    """The words of a text or of a name: ``getWeather_v2`` has ``get``, ``weather``, ``v``."""
    return {hump.lower() for word in _WORD.findall(text) for hump in (*_HUMP.findall(word), word)}


def mentioned(message: str, names: Iterable[str]) -> set[str]:
    """The names of tools of which a message has a word that says something."""
    said, whole = words(message), set(message.lower().split())
    return {name for name in names if said & _telling(name) or name.lower() in whole}


def _telling(name: str) -> set[str]:
    return {word for word in words(name) if len(word) >= _SHORT} - _COMMON


class Clues:
    """What is in one message. Each thing is given once, in the order of the message."""

    def __init__(self, message: str) -> None:
        """Of a long message, the beginning counts."""
        message = message[:_READ]
        self._message = message.lower()
        self._numbers = [_number(found) for found in _NUMBER.findall(message)]
        self._texts = _texts(message) or [message.strip()]

    def keep_texts(self, count: int) -> None:
        """So many texts will be asked for, if any: the last ones of a message are the likeliest."""
        self._texts = self._texts[-count:]

    def number(self, fits: Callable[[float], bool]) -> float | None:
        """The next number that fits."""
        found = next((number for number in self._numbers if fits(number)), None)
        if found is not None:
            self._numbers.remove(found)
        return found

    def text(self) -> str | None:
        """The next text."""
        return self._texts.pop(0) if self._texts else None

    def has(self, value: object) -> bool:
        """Whether the message says this."""
        return isinstance(value, str) and bool(value) and value.lower() in self._message


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def _texts(message: str) -> list[str]:
    """What is in quotation marks; without that, names: words with a capital letter that do not begin a sentence."""
    quoted = ["".join(groups) for groups in _QUOTED.findall(message)]
    if quoted:
        return quoted
    found = _NAME.finditer(message)
    return [m.group() for m in found if m.group() != "I" and not _begins(message, m.start())]


def _begins(message: str, at: int) -> bool:
    """Whether a sentence begins here."""
    before = message[max(0, at - 8) : at].rstrip(" \t")
    return not before or before[-1] in _BEGINNINGS
