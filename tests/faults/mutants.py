"""Guards taken away, one each, and the test that must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """One guard less. ``test`` is the test that must fail then."""

    apply: Callable[[], None]
    test: str


MUTANTS: dict[str, Mutant] = {}
