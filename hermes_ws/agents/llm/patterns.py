"""A text that a simple regular expression takes, without running the expression.

Expressions are strangers', and running one can take for ever. So a text is read off it: of alternatives the first, of a
class its first character, of repetitions as few as go. What cannot be read off like that (looking around, references
back, flags) is said to be so, and nothing is made.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NoText", "text_for"]

_LENGTH: Final = 500
"""The longest expression that is read."""
_TEXT: Final = 2_000
"""The longest text that is made."""
_MORE: Final = 200
"""How many repetitions more than needed are tried, where a text has to be longer."""
_DEPTH: Final = 32
_CLASSES: Final = {"d": "1", "w": "a", "s": " ", "D": "x", "W": "-", "S": "x"}
"""Character classes, each with a member."""
_CONTROL: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_MEMBERS: Final = {
    "d": ["09"],
    "w": ["az", "AZ", "09", "__"],
    "s": ["  ", "\t\r"],
    "D": [" /", ":~"],
    "W": [" /", ":@", "[^", "``", "{~"],
    "S": ["!~"],
}
"""The same within ``[...]``, as ranges; of what is not ASCII nothing is made."""
_TRIED: Final = "axA0 -_.~"
"""What is tried where a class says which characters it does not have."""


class NoText(ValueError):
    """No text can be read off this expression. Says why."""


def text_for(pattern: str, least: int = 0, most: int | None = None) -> str:
    """A text with ``least`` to ``most`` characters that ``pattern`` is found in. Raises :class:`NoText`."""
    if len(pattern) > _LENGTH:
        raise NoText("the pattern is too long")
    for more in range(min(_MORE, least) + 1):
        text = _Reader(pattern, more).text()
        if not pattern.endswith("$") and "$|" not in pattern:
            text = text.ljust(least, "x")
        if least <= len(text) <= (_TEXT if most is None else most):
            return text
    raise NoText(f"the pattern {pattern!r} gives no text of the length that is wanted")


class _Reader:
    """Reads an expression once, from left to right. ``more``: repetitions beyond those that are needed."""

    def __init__(self, pattern: str, more: int) -> None:
        self._pattern = pattern
        self._more = more
        self._at = 0
        self._depth = 0

    def text(self) -> str:
        text = self._alternatives()
        if self._at < len(self._pattern):
            raise self._problem("a ) without a (")
        return text

    def _problem(self, what: str) -> NoText:
        return NoText(f"the pattern {self._pattern!r} has {what}")

    @property
    def _next(self) -> str:
        """The next character; nothing at the end."""
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        if not self._next:
            raise self._problem("no end")
        self._at += 1
        return self._pattern[self._at - 1]

    def _took(self, wanted: str) -> bool:
        """Go on if this comes next."""
        found = self._pattern.startswith(wanted, self._at)
        self._at += len(wanted) * found
        return found

    def _alternatives(self) -> str:
        first = self._sequence()
        while self._took("|"):
            self._sequence()
        return first

    def _sequence(self) -> str:
        text = ""
        if not self._depth:
            self._took("^")
        while self._next and self._next not in "|)":
            if not self._depth and self._next == "$" and self._pattern[self._at + 1 : self._at + 2] in ("", "|"):
                self._at += 1
                break
            text += self._repeated(self._atom())
            if len(text) > _TEXT:
                raise self._problem("too much to repeat")
        return text

    def _atom(self) -> str:
        match self._take():
            case "(":
                return self._group()
            case "[":
                return self._class()
            case ".":
                return "x"
            case "\\":
                return self._escaped()
            case "^" | "$" | "*" | "+" | "?" | "{" as sign:
                raise self._problem(f"a {sign} where it is not understood")
            case literal:
                return literal

    def _group(self) -> str:
        if self._took("?") and not self._took(":"):
            self._name()
        self._depth += 1
        if self._depth > _DEPTH:
            raise self._problem("too many groups in each other")
        text = self._alternatives()
        self._depth -= 1
        if self._take() != ")":
            raise self._problem("no end")
        return text

    def _name(self) -> None:
        """A group's name: ``(?<name>`` or ``(?P<name>``."""
        self._took("P")
        if not self._took("<") or self._next in ("=", "!"):
            raise self._problem("a group of a kind that is not understood")
        while self._take() != ">":
            pass

    def _escaped(self) -> str:
        sign = self._take()
        if sign in _CLASSES:
            return _CLASSES[sign]
        return self._literal(sign)

    def _literal(self, sign: str) -> str:
        """What stands for itself after a backslash, or for a control character."""
        if sign in _CONTROL:
            return _CONTROL[sign]
        if sign.isalnum():
            raise self._problem(f"a \\{sign}, which is not understood")
        return sign

    def _class(self) -> str:
        """One character of ``[...]``."""
        without = self._took("^")
        ranges: list[str] = []
        while self._next != "]" or not ranges:
            ranges += self._range()
        self._take()
        if not without:
            return ranges[0][0]
        for character in _TRIED:
            if not any(pair[0] <= character <= pair[1] for pair in ranges):
                return character
        raise self._problem("a class that leaves out too much")

    def _range(self) -> list[str]:
        """The next characters of a class, as pairs of the first and the last."""
        if self._next == "]" or self._pattern.startswith("[:", self._at):
            raise self._problem("a class that is not understood")
        low = self._take()
        if low == "\\":
            sign = self._take()
            if sign in _MEMBERS:
                return _MEMBERS[sign]
            low = self._literal(sign)
        if self._next != "-" or self._pattern[self._at + 1 : self._at + 2] in ("]", ""):
            return [low + low]
        self._take()
        high = self._take()
        high = self._literal(self._take()) if high == "\\" else high
        if high < low:
            raise self._problem("a range that is upside down")
        return [low + high]

    def _repeated(self, text: str) -> str:
        """The text as often as what follows it says."""
        least, most = self._times()
        times = least if most is not None and most <= least else least + self._more
        times = times if most is None else min(times, most)
        if len(text) * times > _TEXT:
            raise self._problem("too much to repeat")
        return text * times

    def _times(self) -> tuple[int, int | None]:
        if self._took("*"):
            times: tuple[int, int | None] = (0, None)
        elif self._took("+"):
            times = (1, None)
        elif self._took("?"):
            times = (0, 1)
        elif self._took("{"):
            times = self._counts()
        else:
            return 1, 1
        self._took("?")  # as few as go, which is what is made in any case
        return times

    def _counts(self) -> tuple[int, int | None]:
        """The numbers of ``{2}``, ``{2,}`` and ``{2,5}``."""
        inner = ""
        while (character := self._take()) != "}":
            inner += character
        low, comma, high = inner.partition(",")
        if not (low.isdecimal() and (not high or high.isdecimal()) and len(inner) < 20):
            raise self._problem("a { that is not understood")
        if not comma:
            return int(low), int(low)
        return int(low), int(high) if high else None
