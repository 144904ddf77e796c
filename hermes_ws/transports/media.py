"""Which form of an answer a request would like best (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["preferred"]

_RANGE: Final = re.compile(r"(?P<type>[^/;,\s]+/[^/;,\s]+)\s*(?P<rest>;.*)?")
_QUALITY: Final = re.compile(r";\s*q\s*=\s*(?P<q>[01](?:\.[0-9]{0,3})?)\s*(?:;|$)", re.IGNORECASE)


class _Range(NamedTuple):
    """A media type, or several by an asterisk, and how much it is wanted."""

    media: str
    quality: float

    @property
    def exactness(self) -> int:
        """More, the less it leaves open."""
        return 2 - self.media.count("*")

    def fits(self, media: str) -> bool:
        return self.media in ("*/*", media) or (self.media.endswith("/*") and media.startswith(self.media[:-1]))


def preferred(accept: str, offered: Sequence[str]) -> str:
    """The one of ``offered`` that ``accept``, a header's value, asks for most; the first where it does not say.

    Of those that are wanted equally, the one that is named goes before one that only fits, then the one that is named
    first. Where nothing fits, the first is better than nothing.
    """
    ranges = [found for found in map(_range, accept.lower().split(",")) if found is not None]
    best, best_rank = offered[0], (0.0, 0, 0)
    for media in offered:
        fitting = [(one.exactness, -place, one.quality) for place, one in enumerate(ranges) if one.fits(media)]
        if fitting:
            exactness, place, quality = max(fitting)
            if (quality, exactness, place) > best_rank and quality > 0:
                best, best_rank = media, (quality, exactness, place)
    return best


def _range(text: str) -> _Range | None:
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        return None
    quality = _QUALITY.search(found["rest"] or "")
    return _Range(found["type"], min(float(quality["q"]), 1.0) if quality else 1.0)
