"""Known secrets do not get into what is written down or shown: in every likely form they are found, and replaced.

Theory of operation. Every event, every piece of text that is streamed and every line of the server's log comes through
here, and next to none has a secret in it. So first it is made sure that there is none, at a cost that does not grow
with the number of secrets: text that has a form of one in it (:mod:`hermes_ws.disguises`) also has, at a multiple of
four bytes, four bytes of that form. Those are looked up in a set; only what is found there is looked at closely.

Text that comes in pieces may be cut in the middle of a secret. Its end is held back until more comes
(:meth:`Scrubber.held_back`): up to the last white space, if the secrets have none. How much that is depends on the text
and on how long the longest form is, and on nothing else: if the text that a secret begins like were held back and other
text were not, whoever sees the pieces could find a secret out, character by character.

A :class:`Scrubber` knows the secrets of one conversation and, through others, those of the server. No conversation is
ever scrubbed by another one's: who guesses at a secret would see whether it is one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, cast
from weakref import WeakSet

import msgspec

from hermes_ws.disguises import disguises

__all__ = ["PLACEHOLDER", "Flow", "Scrubber", "known"]

PLACEHOLDER: Final = "[secret]"
"""What stands where a secret was."""
_WORD: Final = 4
"""Bytes that are looked up at once: two of them less one fit into the shortest form."""
_WORDS_OF_OURS: Final = """
    agent agent_name allow blob by call_id client_id code conversation_id decision deny digest disposition epoch id
    if_gone if_late interaction_id interactions item_id kind mime mode model name new_run_id option outcome principal
    reason retry_of risk role roles run_id scope server sha256 source state status steer_id stop_reason stream tool type
    via
"""
_STRUCTURE: Final = frozenset(_WORDS_OF_OURS.split())
"""Fields of events that hold ids, names and words of the protocol. They stay as they are, or the log could not be
folded any more because somebody's secret happens to be ``production`` or ``terminal``."""
_WHOLE: Final = frozenset({"mcp_servers"})
"""Fields of which everything stays as it is: a server's address is no secret, and its secrets are not in it."""
_FREE: Final = frozenset({"answers", "arguments", "match", "metadata", "parameters", "schema", "structured"})
"""Fields with JSON that is somebody else's: nothing in it is of the protocol, keys included. So is ``content``, where
it is an object: what was filled into a form."""
_DEEPEST: Final = 200
"""JSON that is nested deeper than this is not looked through, but replaced."""


class _Forms(NamedTuple):
    """What is looked for. ``words``: of each form the four bytes from its first, second, third and fourth on."""

    forms: tuple[bytes, ...] = ()
    words: frozenset[int] = frozenset()
    longest: int = 0
    """Characters in the longest form."""
    spaced: int = 0
    """And in the longest one that has white space in it."""

    def has(self, data: bytes) -> bool:
        """Whether any form is in ``data``."""
        words = memoryview(data)[: len(data) & -_WORD].cast("I")
        return not self.words.isdisjoint(words) and any(form in data for form in self.forms)

    def replaced(self, text: str) -> str:
        """``text`` without any of them."""
        data = text.encode(errors="surrogatepass")
        if not self.has(data):
            return text
        for form in self.forms:
            data = data.replace(form, PLACEHOLDER.encode())
        return data.decode(errors="surrogatepass")


_NOTHING: Final = _Forms()


def _compiled(secret: str) -> _Forms:
    every = disguises(secret)
    forms = sorted((form.encode(errors="surrogatepass") for form in every), key=len, reverse=True)
    words = {int.from_bytes(form[n : n + _WORD], sys.byteorder) for form in forms for n in range(_WORD)}
    spaced = (len(form) for form in every if form.split() != [form])
    return _Forms(tuple(forms), frozenset(words), max(map(len, every), default=0), max(spaced, default=0))


def _together(parts: Iterable[_Forms]) -> _Forms:
    some = [part for part in parts if part.forms]
    if len(some) < 2:
        return some[0] if some else _NOTHING
    return _Forms(
        tuple(sorted({form for part in some for form in part.forms}, key=len, reverse=True)),
        frozenset[int]().union(*(part.words for part in some)),
        max(part.longest for part in some),
        max(part.spaced for part in some),
    )


class Scrubber:
    """Takes secrets out of text and JSON. ``also``: the secrets of another scrubber as well, as they are then."""

    def __init__(self, also: Scrubber | None = None) -> None:
        self._also = also
        self._parts: dict[str, _Forms] = {}
        self.forms = self._all = _NOTHING
        """Of its own secrets alone."""
        self._theirs: _Forms | None = None

    def set(self, secrets: Iterable[str]) -> None:
        """Know these secrets, and no longer those known before."""
        secrets = dict.fromkeys(secrets)
        if secrets.keys() != self._parts.keys():
            self._parts = {secret: self._parts.get(secret) or _compiled(secret) for secret in secrets}
            self.forms, self._theirs = _together(self._parts.values()), None
            known.changed(self)

    def add(self, secret: str) -> None:
        """Know this one too."""
        self.set([*self._parts, secret])

    @property
    def own(self) -> bool:
        """Whether it knows any secret that the other one does not have to know."""
        return bool(self.forms.forms)

    def text(self, text: str) -> str:
        """``text`` with :data:`PLACEHOLDER` in place of every secret."""
        return self._everything().replaced(text)

    def data(self, encoded: bytes) -> bytes:
        """Encoded JSON with every secret in its strings replaced, but for the fields that hold it together. The very
        same bytes where there is none."""
        forms = self._everything()
        if not forms.has(encoded):
            return encoded
        return msgspec.json.encode(_walk(msgspec.json.decode(encoded), forms, free=False))

    def finds(self, value: Any) -> bool:
        """Whether a JSON value holds a secret, or what stands where one was."""
        encoded = msgspec.json.encode({"arguments": value})
        return PLACEHOLDER.encode() in encoded or self.data(encoded) != encoded

    def held_back(self, text: str) -> int:
        """How many characters at the end of ``text`` may not be shown before more of it is there."""
        forms = self._everything()
        if not forms.forms:
            return 0
        tail = text[-forms.longest :]
        word = 0 if not tail or tail[-1].isspace() else len(tail.rsplit(maxsplit=1)[-1])
        cut = len(text) - max(word, min(forms.spaced, len(text)))
        return len(text) - (_before_any(text, cut, forms) if 0 < cut < len(text) else cut)

    def _everything(self) -> _Forms:
        if self._also is None:
            return self.forms
        theirs = self._also._everything()
        if theirs is not self._theirs:
            self._theirs, self._all = theirs, _together((self.forms, theirs))
        return self._all


def _before_any(text: str, cut: int, forms: _Forms) -> int:
    """``cut``, or the beginning of the secret that it would go through."""
    if not forms.has(text.encode(errors="surrogatepass")):
        return cut
    every = [form.decode(errors="surrogatepass") for form in forms.forms]
    while True:
        begins = (text.find(form, max(0, cut - len(form) + 1), cut + len(form) - 1) for form in every)
        earliest = min((at for at in begins if 0 <= at < cut), default=cut)
        if earliest == cut:
            return cut
        cut = earliest


def _walk(value: Any, forms: _Forms, *, free: bool, depth: int = 0) -> Any:
    """A decoded JSON value, scrubbed. ``free``: it is somebody else's, with no field of the protocol in it."""
    if isinstance(value, str):
        return forms.replaced(value)
    if depth > _DEEPEST:
        return PLACEHOLDER
    if isinstance(value, list):
        return [_walk(one, forms, free=free, depth=depth + 1) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, dict):
        return value
    known_dict = cast("dict[str, Any]", value)
    if free:
        return {forms.replaced(k): _walk(v, forms, free=True, depth=depth + 1) for k, v in known_dict.items()}
    return {key: _field(key, one, forms, depth + 1) for key, one in known_dict.items()}


def _field(key: str, value: Any, forms: _Forms, depth: int) -> Any:
    """A field of the protocol."""
    if key in _WHOLE or (key in _STRUCTURE and not _has_objects(value)):
        return value
    free = key in _FREE or (key == "content" and isinstance(value, dict))
    return _walk(value, forms, free=free, depth=depth)


def _has_objects(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(one, dict) for one in value)  # pyright: ignore[reportUnknownVariableType]
    return isinstance(value, dict)


class Flow:
    """One text that comes in pieces, scrubbed on its way: what a call prints on one of its streams."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._held = ""

    def add(self, text: str) -> str:
        """What may be shown now that this has come."""
        text = self._held + text
        cut = len(text) - self._scrubber.held_back(text)
        self._held = text[cut:]
        return self._scrubber.text(text[:cut])

    def rest(self) -> str:
        """What was held back; nothing more comes."""
        text, self._held = self._held, ""
        return self._scrubber.text(text)


class _Known:
    """The secrets of all scrubbers that are there, for the server's own log: that is the operator's alone."""

    def __init__(self) -> None:
        self._scrubbers: WeakSet[Scrubber] = WeakSet()
        self._lock = threading.Lock()
        self._stale = False
        self._forms = _NOTHING

    def changed(self, scrubber: Scrubber) -> None:
        """It knows something else than before."""
        with self._lock:
            self._scrubbers.add(scrubber)
            self._stale = True

    def text(self, text: str) -> str:
        """``text`` without anybody's secrets. Any thread may ask."""
        if self._stale:
            with self._lock:
                self._stale = False
                self._forms = _together(scrubber.forms for scrubber in self._scrubbers)
        return self._forms.replaced(text)


known: Final = _Known()
"""The one there is."""
