"""What a check came to: agents and MCP servers are looked at by ``hermes-ws doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check came to. ``advice`` says what to do about it."""

    level: Level
    what: str
    advice: str = ""
