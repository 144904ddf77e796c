"""How long an endpoint wants to be left alone: the headers that say so, each in its own notation."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["retry_after_s"]

_NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,9})?")
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_EPOCH_S: Final = 1_000_000_000
"""A larger number is a moment, not a span."""
_RESETS: Final = ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens", "x-ratelimit-reset")


def retry_after_s(headers: Mapping[str, str], *, limited: bool, now: float | None = None) -> float | None:
    """Seconds from now, or None. ``headers`` by lower-case name; ``limited``: a limit was exceeded, so the moment at
    which it begins anew counts too. Of several that run out at different times the last counts."""
    moment = time.time() if now is None else now
    exact = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(exact):
        return float(exact) / 1_000
    asked = _seconds(headers.get("retry-after", "").strip(), moment)
    if asked is not None or not limited:
        return asked
    resets = [_seconds(headers.get(name, "").strip(), moment) for name in _RESETS]
    return max((reset for reset in resets if reset is not None), default=None)


def _seconds(text: str, now: float) -> float | None:
    """``7``, ``1700000000`` (Unix, also in ms), ``6m0.5s``, or an HTTP date."""
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number < _EPOCH_S:
            return number
        return max(0.0, (number / 1_000 if number > _EPOCH_S * 1_000 else number) - now)
    if text and not _SPAN.sub("", text):
        return sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(text))
    return _until(text, now)


def _until(text: str, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - now)
