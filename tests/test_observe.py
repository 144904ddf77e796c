"""The server's own diagnostics."""

from __future__ import annotations

import io

from hermes_ws.observe import BestEffort, Discreet
from hermes_ws.scrub import Scrubber


class Full(io.StringIO):
    """A stream on a disk without room."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else() -> None:
    stream = BestEffort(Full())
    print("x", file=stream, flush=True)
    closed = io.StringIO()
    closed.close()
    print("x", file=BestEffort(closed), flush=True)


def test_a_line_that_can_be_is_there() -> None:
    kept = io.StringIO()
    print("x", file=BestEffort(kept), flush=True)
    assert kept.getvalue() == "x\n"


def test_no_line_has_a_known_secret_in_it() -> None:
    scrubber, kept = Scrubber(), io.StringIO()
    scrubber.set(["tok-3141592653589793"])
    print("a tok-3141592653589793 b", file=Discreet(kept), flush=True)
    print("dG9rLTMxNDE1OTI2NTM1ODk3OTM=", file=Discreet(kept), flush=True)
    assert kept.getvalue().splitlines() == ["a [secret] b", "[secret]M="]
