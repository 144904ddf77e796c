"""The golden frames: ``golden/TYPE.json``, and ``golden/TYPE@VARIANT.json`` where one frame cannot show it all."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hermes_ws.protocol.codec import decode_command, decode_frame
from hermes_ws.protocol.commands import COMMAND_TYPES, CommandBase
from hermes_ws.protocol.control import ControlBase, Snapshot
from hermes_ws.protocol.events import EventBase, UnknownEvent

__all__ = ["FRAME_FILES", "decode", "frame_type"]

FRAME_FILES: Final = sorted((Path(__file__).parent / "golden").glob("*.json"))


def frame_type(path: Path) -> str:
    """The type that a golden file is named after."""
    return path.stem.partition("@")[0]


def decode(path: Path) -> EventBase | ControlBase | Snapshot | CommandBase:
    """The frame in a golden file, as the side that receives it decodes it."""
    content = path.read_bytes()
    frame = decode_command(content) if frame_type(path) in COMMAND_TYPES else decode_frame(content)
    assert not isinstance(frame, UnknownEvent)
    return frame
