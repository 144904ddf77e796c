"""What the tests of several clients share: a function, an image, what the demo agent says."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any, Final

from tests.wire import Json

__all__ = ["MODEL", "PIXEL", "WEATHER", "WEATHER_TOOL", "arguments_of", "quoted"]

MODEL: Final = "hermes-agent"
"""What such clients call the default agent."""
WEATHER: Final[Json] = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 1}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
"""What the function is called with."""
WEATHER_TOOL: Final[Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": WEATHER},
}
"""The function, as chat completions declare it."""


def quoted(text: str) -> str:
    """What the demo agent answers."""
    return f"This is the demo model. You said: “{text}”."


def arguments_of(call: str) -> Json:
    """The arguments of a call of :data:`WEATHER_TOOL`, which satisfy its schema."""
    arguments: Json = json.loads(call)
    assert set(arguments) == {"city", "unit"}
    assert isinstance(arguments["city"], str)
    assert arguments["city"]
    assert arguments["unit"] in ("celsius", "fahrenheit")
    return arguments


def _pixel() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
        + chunk(b"IEND", b"")
    )


PIXEL: Final = "data:image/png;base64," + base64.b64encode(_pixel()).decode()
"""A PNG of one red pixel."""
