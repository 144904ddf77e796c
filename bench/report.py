"""Figures, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

__all__ = ["Bench", "Figure", "table"]


class Figure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing measured, here and in the baseline of the same run."""

    name: str
    unit: str
    ours: float
    baseline: float | None = None
    target: float | None = None
    """The ratio, or with ``of`` the value or the difference, that must not be passed."""
    of: Literal["ratio", "value", "difference"] = "ratio"
    at_least: bool = False
    """The target is a floor, not a ceiling."""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.baseline if self.baseline else None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        measured = {"ratio": self.ratio, "value": self.ours, "difference": self.ours - (self.baseline or 0)}[self.of]
        assert measured is not None
        return measured >= self.target if self.at_least else measured <= self.target

    def row(self) -> list[str]:
        return [
            self.name,
            f"{_short(self.ours)} {self.unit}",
            f"{_short(self.baseline)} {self.unit}" if self.baseline is not None else "",
            f"{self.ratio:.2f}" if self.ratio is not None else "",
            self._target(),
            {True: "yes", False: "NO", None: ""}[self.met],
        ]

    def _target(self) -> str:
        if self.target is None:
            return ""
        sign = "≥" if self.at_least else "≤"
        how = {"ratio": f"{self.target:g}×", "value": f"{self.target:g} {self.unit}"}
        return f"{sign} {how.get(self.of, f'+{self.target:g} {self.unit}')}"


class Bench(msgspec.Struct, frozen=True):
    """What one benchmark measured."""

    name: str
    baseline: str
    figures: list[Figure]


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(bench: Bench) -> str:
    """A benchmark's figures as a Markdown table, which reads well in a terminal too."""
    head = [bench.name, "ours", bench.baseline, "ratio", "target", "met"]
    rows = [head, *(figure.row() for figure in bench.figures)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    lines = [_line(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, _line("-" * width for width in widths))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
