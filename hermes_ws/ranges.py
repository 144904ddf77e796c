"""What a number in the configuration may be. Out of range it is refused with the setting's name, not obeyed."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

__all__ = ["AtLeastOne", "NonNegative", "Pause", "Seconds", "WholeSeconds"]

_TEN_YEARS_S: Final = 315_360_000
_MOST: Final = 2**50

AtLeastOne = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
"""A count or a size that makes no sense as nothing."""
NonNegative = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
"""A count or a size where 0 says: none."""
Seconds = Annotated[float, msgspec.Meta(gt=0, le=_TEN_YEARS_S)]
"""A time limit or an interval."""
WholeSeconds = Annotated[int, msgspec.Meta(ge=1, le=_TEN_YEARS_S)]
"""A time limit that is kept in the log."""
Pause = Annotated[float, msgspec.Meta(ge=0, le=_TEN_YEARS_S)]
"""A time that may be left out: 0 waits for nothing."""
