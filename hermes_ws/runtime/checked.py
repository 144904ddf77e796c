"""What comes from somebody else's code, agents and tools, before it goes into the log.

What is in the log must be readable for ever: one value of a wrong type, and its conversation could not be folded again.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["checked"]


def checked(value: Any, as_type: Any) -> Any:
    """``value`` as it will be read back from the log. Raises TypeError or ``msgspec.ValidationError`` if it cannot."""
    if as_type is str and isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return msgspec.json.decode(msgspec.json.encode(value), type=as_type)
